/* A process with parts that must not be interrupted, saved again and again while events are published about that.
 * Usage: guarded CASE DIRECTORY. DIRECTORY/ready gets the number of the process; SIGUSR1 ends it; DIRECTORY/result has what it found. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <steadfast/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "result.h"

static atomic_int inside, frozen, enough, prepared, refused, ends;
static atomic_ulong entered;

static int before(const steadfast_checkpoint_t *checkpoint, void *argument) {
    (void)argument;
    CHECK(inside == 0);
    ends = !checkpoint->goes_on;
    CHECK(steadfast_checkpoint_phase() == STEADFAST_ACTIVE);
    prepared++;
    frozen = 1;
    return STEADFAST_READY;
}

static int after(int outcome, const char *text, void *argument) {
    (void)text, (void)argument;
    CHECK(inside == 0);
    /* Whoever was to end goes on in its image only, and the others were told that they go on. */
    CHECK(outcome == STEADFAST_ABANDONED || ends == (outcome == STEADFAST_RESTORED));
    frozen = 0;
    return 0;
}

static void work(void) {
    CHECK(!frozen);
    inside++;
    for (volatile int count = 0; count < 2000; count++)
        CHECK(!frozen);
    inside--;
    entered++;
}

static void *enter_leave(void *argument) {
    (void)argument;
    while (!enough) {
        CHECK(steadfast_section_enter() == 0);
        work();
        CHECK(steadfast_section_leave() == 0);
    }
    return NULL;
}

/* Nested, and two threads in turn: a thread that is inside never waits for what waits for it. */
static void *nested(void *argument) {
    (void)argument;
    while (!enough) {
        CHECK(steadfast_section_enter() == 0);
        work();
        CHECK(steadfast_section_enter() == 0);
        work();
        CHECK(steadfast_section_leave() == 0);
        work();
        CHECK(steadfast_section_leave() == 0);
        CHECK(steadfast_section_leave() == -EPERM);
    }
    return NULL;
}

static void *try_enter(void *argument) {
    (void)argument;
    while (!enough) {
        int entered_now = steadfast_section_try_enter();
        CHECK(entered_now == 0 || entered_now == -EBUSY);
        if (entered_now) {
            refused++;
            usleep(100);
            continue;
        }
        work();
        CHECK(steadfast_section_leave() == 0);
    }
    return NULL;
}

/* Duplicates stay what they are. */
static void *duplicates(void *argument) {
    (void)argument;
    for (int seen = 0; !enough;) {
        CHECK(steadfast_section_enter() == 0);
        int first = open("/dev/zero", O_RDONLY | O_CLOEXEC), second = dup(first);
        CHECK(first >= 0 && second >= 0);
        CHECK(steadfast_section_leave() == 0);
        while (seen == prepared && !enough) usleep(100);
        seen = prepared;
        while (frozen) usleep(100);
        CHECK(fcntl(first, F_GETFD) == FD_CLOEXEC && fcntl(second, F_GETFD) == 0);
        CHECK(close(first) == 0 && close(second) == 0);
        entered++;
        usleep(20000);
    }
    return NULL;
}

static const struct {
    const char *name;
    void *(*body)(void *);
    int threads;
} cases[] = {
    {"enter_leave", enter_leave, 1}, {"nested", nested, 2}, {"try_enter", try_enter, 2}, {"duplicates", duplicates, 1}};

int main(int count, char **words) {
    sigset_t set;
    int signal;
    pthread_t threads[2];
    if (count != 3) return 2;
    directory = words[2];
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
    CHECK(steadfast_checkpoint_register(before, after, NULL, NULL) == 0);
    int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(lowest >= 0 && close(lowest) == 0);
    for (size_t index = 0; index < sizeof(cases) / sizeof(*cases); index++) {
        if (strcmp(cases[index].name, words[1])) continue;
        for (int thread = 0; thread < cases[index].threads; thread++)
            CHECK(!pthread_create(&threads[thread], NULL, cases[index].body, NULL));
        char path[4096], new[4096];
        snprintf(path, sizeof(path), "%s/ready", directory);
        snprintf(new, sizeof(new), "%s/ready.new", directory);
        FILE *file = fopen(new, "w");
        CHECK(file && fprintf(file, "%d\n", getpid()) > 0 && !fclose(file) && !rename(new, path));
        CHECK(!sigwait(&set, &signal) && signal == SIGUSR1);
        enough = 1;
        for (int thread = 0; thread < cases[index].threads; thread++)
            CHECK(!pthread_join(threads[thread], NULL));
        CHECK(prepared > 0 && entered > 0 && !frozen && !inside);
        /* What was opened for the checkpoints is closed again. */
        CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) == lowest);
        if (!strcmp(words[1], "try_enter")) CHECK(refused > 0);
        result("ok\n");
        return 0;
    }
    return 3;
}
