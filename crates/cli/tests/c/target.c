/* A process that is saved: it sets something up, says that it is ready, waits for SIGUSR1, and looks whether all is as it was.
 * Usage: target CASE DIRECTORY. DIRECTORY/ready gets the number of the process, DIRECTORY/result what was found. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "result.h"

static const char *in(const char *name) {
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
    return path;
}

/* Says that it is ready and waits to be told to go on. */
static void checkpoint(void) {
    sigset_t set;
    int signal;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
    FILE *file = fopen(in("ready.new"), "w");
    CHECK(file && fprintf(file, "%d\n", getpid()) > 0 && !fclose(file));
    CHECK(!rename(in("ready.new"), in("ready")));
    const struct timespec second = {1, 0};
    while ((signal = sigtimedwait(&set, NULL, &second)) < 0 && (errno == EAGAIN || errno == EINTR))
        if (access(directory, F_OK))
            _exit(96); /* the test has failed, and nobody will come */
    CHECK(signal == SIGUSR1);
}

static int holds(int fd, const char *text) {
    char bytes[64] = {0};
    ssize_t length = read(fd, bytes, sizeof(bytes) - 1);
    return length == (ssize_t)strlen(text) && !strcmp(bytes, text);
}

static void put(int fd, const char *text) { CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text)); }

static void plain(void) { checkpoint(); }

static void code(void) {
    checkpoint();
    result("ok\n");
    _exit(37);
}

static void killed(void) {
    checkpoint();
    result("ok\n");
    kill(getpid(), SIGTERM);
    pause();
}

/* Ends with a code that says which signal came. */
static void forward(void) {
    sigset_t set;
    int signal;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    checkpoint();
    result("ok\n");
    sigwait(&set, &signal);
    _exit(signal == SIGUSR2 ? 21 : 22);
}

static void cwd(void) {
    char before[4096], after[4096];
    CHECK(!mkdir(in("deep"), 0700) || errno == EEXIST);
    CHECK(!chdir(in("deep")) && getcwd(before, sizeof(before)));
    checkpoint();
    CHECK(getcwd(after, sizeof(after)) && !strcmp(before, after));
    umask(077);
}

static void duplicates(void) {
    int one = open(in("dup"), O_RDWR | O_CREAT | O_TRUNC, 0600), two = dup(one), other = open(in("dup"), O_RDONLY);
    CHECK(one >= 0 && two >= 0 && other >= 0);
    put(one, "0123456789");
    CHECK(lseek(one, 3, SEEK_SET) == 3);
    checkpoint();
    /* One position for both, and another for the third. */
    CHECK(lseek(two, 0, SEEK_CUR) == 3 && lseek(two, 2, SEEK_CUR) == 5 && lseek(one, 0, SEEK_CUR) == 5);
    CHECK(lseek(other, 0, SEEK_CUR) == 0);
}

static void descriptors(void) {
    int fd = open(in("plain"), O_RDWR | O_CREAT | O_TRUNC, 0600), high = 200;
    int append = open(in("append"), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && append >= 0 && dup2(fd, high) == high && !fcntl(high, F_SETFD, FD_CLOEXEC));
    put(fd, "abcdef");
    put(append, "begin");
    CHECK(lseek(fd, 2, SEEK_SET) == 2);
    checkpoint();
    CHECK(fcntl(high, F_GETFD) == FD_CLOEXEC && fcntl(fd, F_GETFD) == 0 && fcntl(append, F_GETFD) == FD_CLOEXEC);
    CHECK((fcntl(append, F_GETFL) & O_APPEND) && (fcntl(append, F_GETFL) & O_ACCMODE) == O_WRONLY);
    CHECK(holds(fd, "cdef"));
    errno = 0;
    CHECK(fcntl(199, F_GETFD) == -1 && errno == EBADF);
}

static void pipes(void) {
    int ends[2];
    CHECK(!pipe(ends));
    put(ends[1], "in the pipe");
    CHECK(!fcntl(ends[0], F_SETFL, O_NONBLOCK));
    checkpoint();
    CHECK(holds(ends[0], "in the pipe"));
    errno = 0;
    CHECK(read(ends[0], (char[1]){0}, 1) == -1 && errno == EAGAIN);
    put(ends[1], "more");
    CHECK(holds(ends[0], "more"));
    CHECK(!close(ends[1]) && read(ends[0], (char[1]){0}, 1) == 0);
}

static void fifo(void) {
    CHECK(!mkfifo(in("fifo"), 0600) || errno == EEXIST);
    int fd = open(in("fifo"), O_RDWR);
    CHECK(fd >= 0);
    put(fd, "in the fifo");
    checkpoint();
    CHECK(holds(fd, "in the fifo"));
    put(fd, "more");
    CHECK(holds(fd, "more"));
}

static void removed(void) {
    int fd = open(in("removed"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct stat about;
    CHECK(fd >= 0);
    put(fd, "nobody else has this");
    CHECK(!unlink(in("removed")) && lseek(fd, 7, SEEK_SET) == 7);
    checkpoint();
    CHECK(holds(fd, "else has this"));
    CHECK(!fstat(fd, &about) && about.st_nlink == 0 && access(in("removed"), F_OK) == -1);
}

/* More than CRIU takes without being told. */
static void removed_large(void) {
    enum { SIZE = 3 << 20 };
    char *bytes = malloc(SIZE), *after = malloc(SIZE);
    int fd = open(in("removed"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && bytes && after);
    for (int at = 0; at < SIZE; at++)
        bytes[at] = at * 7 >> 3;
    CHECK(write(fd, bytes, SIZE) == SIZE && !unlink(in("removed")));
    checkpoint();
    CHECK(pread(fd, after, SIZE, 0) == SIZE && !memcmp(bytes, after, SIZE));
}

/* The name by which it was opened is gone, and it has another one, which nobody finds by the descriptor. */
static void renamed(void) {
    int fd = open(in("name"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct stat by_fd, by_name;
    CHECK(fd >= 0 && (!unlink(in("other")) || errno == ENOENT) && !link(in("name"), in("other")) && !unlink(in("name")));
    put(fd, "still there");
    CHECK(lseek(fd, 6, SEEK_SET) == 6);
    checkpoint();
    CHECK(holds(fd, "there"));
    CHECK(!fstat(fd, &by_fd) && !stat(in("other"), &by_name) && by_fd.st_ino == by_name.st_ino);
}

static void maps(void) {
    size_t page = sysconf(_SC_PAGESIZE), size = 64 * page;
    int fd = open(in("map"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && !ftruncate(fd, size));
    char *own = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *file = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(own != MAP_FAILED && shared != MAP_FAILED && file != MAP_FAILED && copy != MAP_FAILED);
    for (size_t at = 0; at < size; at++)
        own[at] = at * 7, shared[at] = at * 5, file[at] = at * 3;
    copy[page] = 42;
    CHECK(!mprotect(own + 8 * page, page, PROT_READ));
    checkpoint();
    for (size_t at = 0; at < size; at++)
        CHECK(own[at] == (char)(at * 7) && shared[at] == (char)(at * 5) && file[at] == (char)(at * 3));
    CHECK(copy[page] == 42 && file[page] == (char)(page * 3));
    /* Still read-only: the kernel may not write there. */
    int zero = open("/dev/zero", O_RDONLY);
    errno = 0;
    CHECK(read(zero, own + 8 * page, 1) == -1 && errno == EFAULT && read(zero, own, 1) == 1);
}

/* The entries of the next bytes of a directory; 0 at its end. */
static int some(int fd) {
    char bytes[256];
    int count = 0;
    long length = syscall(SYS_getdents64, fd, bytes, sizeof(bytes));
    CHECK(length >= 0);
    for (long at = 0; at < length; at += *(unsigned short *)(bytes + at + 16))
        count++;
    return count;
}

static void entries(void) {
    char name[64];
    CHECK(!mkdir(in("entries"), 0700) || errno == EEXIST);
    for (int number = 0; number < 40; number++) {
        snprintf(name, sizeof(name), "entries/%d", number);
        int fd = open(in(name), O_WRONLY | O_CREAT, 0600);
        CHECK(fd >= 0 && !close(fd));
    }
    int fd = open(in("entries"), O_RDONLY | O_DIRECTORY), seen, more;
    CHECK(fd >= 0 && (seen = some(fd)) > 0 && seen < 42);
    checkpoint();
    while ((more = some(fd)) > 0)
        seen += more;
    CHECK(seen == 42);
}

static void devices(void) {
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY);
    char byte = 1;
    CHECK(null >= 0 && zero >= 0);
    checkpoint();
    CHECK(write(null, "x", 1) == 1 && read(null, &byte, 1) == 0 && read(zero, &byte, 1) == 1 && byte == 0);
}

static volatile sig_atomic_t handled, value;

static void handler(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    handled++;
    value = info->si_value.sival_int;
}

static void pending(void) {
    sigset_t set, now;
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN + 3);
    CHECK(!sigprocmask(SIG_BLOCK, &set, NULL) && !sigaction(SIGUSR2, &action, NULL));
    CHECK(!sigaction(SIGRTMIN + 3, &action, NULL));
    CHECK(!kill(getpid(), SIGUSR2) && !sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 4711}));
    checkpoint();
    CHECK(!sigpending(&now) && sigismember(&now, SIGUSR2) && sigismember(&now, SIGRTMIN + 3) && handled == 0);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    CHECK(!sigprocmask(SIG_UNBLOCK, &set, NULL) && handled == 1 && value == 4711);
    sigaddset(&set, SIGUSR2);
    CHECK(!sigprocmask(SIG_UNBLOCK, &set, NULL) && handled == 2);
}

static char *stack;
static volatile sig_atomic_t on_stack;

static void on_other_stack(int number) {
    char here;
    (void)number;
    on_stack = &here > stack && &here < stack + 65536;
}

static void altstack(void) {
    struct sigaction action = {.sa_handler = on_other_stack, .sa_flags = SA_ONSTACK};
    stack = malloc(65536);
    stack_t other = {.ss_sp = stack, .ss_size = 65536}, now;
    CHECK(!sigaltstack(&other, NULL) && !sigaction(SIGUSR2, &action, NULL));
    checkpoint();
    CHECK(!sigaltstack(NULL, &now) && now.ss_sp == stack && now.ss_size == 65536);
    CHECK(!raise(SIGUSR2) && on_stack);
}

static void child(void) {
    int to[2], from[2], status;
    CHECK(!pipe(to) && !pipe(from));
    pid_t own = getpid(), pid = fork(), zombie;
    CHECK(pid >= 0);
    if (!pid) {
        char byte;
        if (read(to[0], &byte, 1) != 1 || getppid() != own || write(from[1], &byte, 1) != 1)
            _exit(1);
        _exit(17);
    }
    zombie = fork();
    if (!zombie)
        _exit(23);
    /* It has ended, and is not waited for yet. */
    siginfo_t info;
    CHECK(!waitid(P_PID, zombie, &info, WEXITED | WNOWAIT));
    checkpoint();
    CHECK(getpid() == own);
    put(to[1], "x");
    CHECK(holds(from[0], "x"));
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 17);
    CHECK(waitpid(zombie, &status, 0) == zombie && WIFEXITED(status) && WEXITSTATUS(status) == 23);
}

/* Its own parent has ended, and another is its parent now: it is what is saved, not this process. */
static void orphan(void) {
    int status;
    pid_t pid, made, found = 0;
    CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
    made = fork();
    if (!made) {
        pid_t middle = getpid();
        if (fork())
            _exit(0);
        while (getppid() == middle)
            usleep(1000);
        setsid();
        pid_t own = getpid();
        checkpoint();
        CHECK(getpid() == own && getsid(0) == own && getpgid(0) == own);
        result("ok\n");
        _exit(0);
    }
    while ((pid = wait(&status)) > 0)
        if (pid != made)
            found = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    _exit(found ? 0 : 97);
}

/* It waits for a child that shares its memory, and cannot be stopped meanwhile. */
static void stuck(void) {
    if (!vfork()) {
        checkpoint();
        _exit(0);
    }
}

static void identity(void) {
    CHECK(setsid() == getpid() || getsid(0) == getpid());
    pid_t own = getpid();
    CHECK(!prctl(PR_SET_NAME, "steadily") && !prctl(PR_SET_DUMPABLE, 1));
    checkpoint();
    char name[17] = {0};
    CHECK(getpid() == own && getsid(0) == own && getpgid(0) == own && syscall(SYS_gettid) == own);
    CHECK(!prctl(PR_GET_NAME, name) && !strcmp(name, "steadily"));
}

static int woken[2];

static void *thread(void *argument) {
    char byte;
    *(pid_t *)argument = syscall(SYS_gettid);
    if (write(woken[1], "r", 1) != 1 || read(woken[0], &byte, 1) != 1)
        return (void *)1;
    return (void *)(long)syscall(SYS_gettid);
}

static void threads(void) {
    pthread_t made;
    pid_t number = 0;
    int other[2];
    char byte;
    void *back;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, other));
    woken[0] = other[1], woken[1] = other[1];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(!pthread_sigmask(SIG_BLOCK, &set, NULL));
    CHECK(!pthread_create(&made, NULL, thread, &number) && read(other[0], &byte, 1) == 1);
    checkpoint();
    put(other[0], "x");
    CHECK(!pthread_join(made, &back) && (long)back == number);
}

static void timers(void) {
    struct itimerval timer = {.it_value = {.tv_sec = 3000}}, now;
    timer_t posix;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    struct itimerspec spec = {.it_value = {.tv_sec = 5000}}, left;
    CHECK(!setitimer(ITIMER_REAL, &timer, NULL) && !timer_create(CLOCK_MONOTONIC, &event, &posix));
    CHECK(!timer_settime(posix, 0, &spec, NULL));
    checkpoint();
    CHECK(!getitimer(ITIMER_REAL, &now) && now.it_value.tv_sec > 1000 && now.it_value.tv_sec <= 3000);
    CHECK(!timer_gettime(posix, &left) && left.it_value.tv_sec > 3000 && left.it_value.tv_sec <= 5000);
}

/* A listener, and both ends of a connection over the loopback, with bytes on the way. */
static void tcp(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!bind(listener, (void *)&address, length) && !listen(listener, 4));
    CHECK(!getsockname(listener, (void *)&address, &length) && !connect(client, (void *)&address, length));
    int server = accept(listener, NULL, NULL);
    CHECK(server >= 0);
    put(client, "on the way");
    struct pollfd ready = {.fd = server, .events = POLLIN};
    CHECK(poll(&ready, 1, -1) == 1);
    checkpoint();
    CHECK(holds(server, "on the way"));
    put(server, "back");
    CHECK(holds(client, "back"));
    int another = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!connect(another, (void *)&address, length) && accept(listener, NULL, NULL) >= 0);
}

/* The same, when it is to have no connections any more. */
static void closed(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
    CHECK(!bind(listener, (void *)&address, length) && !listen(listener, 4));
    CHECK(!getsockname(listener, (void *)&address, &length) && !connect(client, (void *)&address, length));
    int server = accept(listener, NULL, NULL);
    CHECK(server >= 0);
    checkpoint();
    CHECK(send(client, "x", 1, MSG_NOSIGNAL) == -1 && recv(server, (char[1]){0}, 1, MSG_DONTWAIT) <= 0);
    int another = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!connect(another, (void *)&address, length) && accept(listener, NULL, NULL) >= 0);
}

static void locks(void) {
    int fd = open(in("lock"), O_RDWR | O_CREAT, 0600), status;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4};
    CHECK(fd >= 0 && !fcntl(fd, F_SETLK, &lock));
    checkpoint();
    if (!fork()) {
        struct flock other = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
        _exit(fcntl(fd, F_GETLK, &other) || other.l_type != F_WRLCK || other.l_start != 3 || other.l_pid != getppid());
    }
    CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The clock that never goes back, on whatever machine. */
static void clocks(void) {
    struct timespec before, after;
    CHECK(!clock_gettime(CLOCK_MONOTONIC, &before));
    checkpoint();
    CHECK(!clock_gettime(CLOCK_MONOTONIC, &after) && after.tv_sec >= before.tv_sec && after.tv_sec < before.tv_sec + 3600);
}

/* What CRIU cannot save. */
static void uring(void) {
    char parameters[512] = {0};
    CHECK(syscall(SYS_io_uring_setup, 4, parameters) >= 0);
    checkpoint();
}

static void userfault(void) {
    CHECK(syscall(SYS_userfaultfd, O_CLOEXEC) >= 0);
    checkpoint();
}

/* Copies lines from its input to its output, which lead outside. */
static void filter(void) {
    char line[256];
    checkpoint();
    while (fgets(line, sizeof(line), stdin)) {
        fputs(line, stdout);
        fflush(stdout);
    }
}

/* Its output grows after it was saved. */
static void growing(void) {
    int fd = open(in("log"), O_RDWR | O_CREAT, 0600), append = open(in("more"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    CHECK(fd >= 0 && append >= 0 && !ftruncate(fd, 0));
    put(fd, "one ");
    checkpoint();
    CHECK(lseek(fd, 0, SEEK_CUR) == 4);
    put(fd, "two ");
    put(append, "x");
}

/* It tells somebody outside, as programs do with a log. */
static void logger(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", in("log-socket"));
    CHECK(fd >= 0 && !connect(fd, (void *)&address, sizeof(address)));
    put(fd, "before");
    checkpoint();
    put(fd, "after");
}

/* 64 MiB, so that saving takes a while. */
static void large(void) {
    size_t size = 64 << 20;
    char *memory = malloc(size);
    memset(memory, 7, size);
    for (size_t at = 0; at < size; at += 4096)
        memory[at] = at >> 12;
    checkpoint();
    for (size_t at = 0; at < size; at += 4096)
        CHECK(memory[at] == (char)(at >> 12));
}

/* Runs a program whose own children it waits for, too, as somebody has to; DIRECTORY/child gets the program's number. */
static int reap(char **program) {
    int status, code = 96;
    pid_t pid, child;
    CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
    child = fork();
    if (!child) {
        FILE *file = fopen(in("child.new"), "w");
        CHECK(file && fprintf(file, "%d\n", getpid()) > 0 && !fclose(file) && !rename(in("child.new"), in("child")));
        execv(program[0], program);
        _exit(95);
    }
    while ((pid = wait(&status)) > 0)
        if (pid == child)
            code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return code;
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"plain", plain},       {"code", code},           {"killed", killed},   {"forward", forward}, {"cwd", cwd},
        {"dup", duplicates},    {"fds", descriptors},     {"pipe", pipes},      {"fifo", fifo},       {"removed", removed},
        {"mmaps", maps},        {"readdir", entries},     {"dev_null", devices}, {"sigpending", pending},
        {"sigaltstack", altstack}, {"child", child},      {"orphan", orphan},   {"identity", identity}, {"threads", threads},
        {"timers", timers},     {"tcp", tcp},             {"closed", closed},       {"logger", logger},       {"removed_large", removed_large}, {"renamed", renamed},
                    {"locks", locks},     {"clocks", clocks},   {"uring", uring},       {"userfault", userfault},
        {"filter", filter},     {"stuck", stuck},     {"large", large},       {"growing", growing},
    };
    if (count < 3)
        return 2;
    directory = words[2];
    /* Whoever runs the tests with nohup, or in the background, handed on that these are ignored. */
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    if (!strcmp(words[1], "reap") && count > 3)
        return reap(words + 3);
    for (size_t at = 0; at < sizeof(cases) / sizeof(cases[0]); at++)
        if (!strcmp(cases[at].name, words[1])) {
            cases[at].run();
            result("ok\n");
            return 0;
        }
    return 3;
}
