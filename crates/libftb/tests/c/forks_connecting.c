/* A child has nothing of its parent's connections, whatever other threads of the parent were doing with theirs. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "check.h"

static atomic_int ends;

static void *connects(void *name) {
    FTB_client_t info = client_of("FTB.x.forks", name, "FTB_SUBSCRIPTION_NONE");
    while (!atomic_load(&ends)) {
        FTB_client_handle_t client;
        GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
        GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    }
    return NULL;
}

static int is_socket(int descriptor) {
    struct stat found;
    return !fstat(descriptor, &found) && S_ISSOCK(found.st_mode);
}

int main(void) {
    pthread_t threads[2];
    int before[64], left = 0;
    for (int i = 0; i < 64; i++)
        before[i] = is_socket(i);
    CHECK(!pthread_create(&threads[0], NULL, connects, "one"));
    CHECK(!pthread_create(&threads[1], NULL, connects, "two"));
    for (int round = 0; round < 1000; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            for (int i = 0; i < 64; i++)
                if (is_socket(i) && !before[i])
                    _exit(1);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        left += WEXITSTATUS(status);
    }
    atomic_store(&ends, 1);
    for (int i = 0; i < 2; i++)
        CHECK(!pthread_join(threads[i], NULL));
    if (left)
        fprintf(stderr, "%d children had a connection\n", left);
    CHECK(!left);
    say("done");
    return 0;
}
