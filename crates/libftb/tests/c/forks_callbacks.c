/* A child of a program with callbacks has nothing of its parent's connection, and one of its own as soon as it calls. */
#include <dirent.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "check.h"

static atomic_int heard;

static int hears(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    atomic_fetch_add(&heard, 1);
    return 0;
}

static void until(int value) {
    while (atomic_load(&heard) < value)
        poll(NULL, 0, 1);
}

static int sockets(void) {
    int count = 0;
    DIR *all = opendir("/proc/self/fd");
    CHECK(all);
    for (struct dirent *one; (one = readdir(all));) {
        char path[300], target[64] = "";
        snprintf(path, sizeof(path), "/proc/self/fd/%s", one->d_name);
        if (readlink(path, target, sizeof(target) - 1) > 0)
            count += !strncmp(target, "socket:", 7);
    }
    closedir(all);
    return count;
}

int main(void) {
    FTB_client_handle_t client;
    FTB_subscribe_handle_t sub;
    FTB_event_info_t declared = {"A", "INFO"};
    FTB_event_handle_t handle;
    FTB_client_t info = client_of("FTB.x.forks", "", "FTB_SUBSCRIPTION_NOTIFY");
    int before = sockets();
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(client, NULL, &declared, 1), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&sub, client, "", hears, NULL), FTB_SUCCESS);
    CHECK(sockets() == before + 1);
    int status, events = 0;
    do {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            CHECK(sockets() == before);
            int own = atomic_load(&heard);
            int code = FTB_Publish(client, "A", NULL, &handle);
            /* The thread of the parent had it locked: then the child has no such client. */
            if (code == FTB_ERR_INVALID_HANDLE)
                return 77;
            GIVES(code, FTB_SUCCESS);
            CHECK(handle.location_id.pid == getpid());
            until(own + 1);
            CHECK(sockets() == before + 1);
            GIVES(FTB_Disconnect(client), FTB_SUCCESS);
            CHECK(sockets() == before);
            return 0;
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    } while (WEXITSTATUS(status) == 77);
    CHECK(WEXITSTATUS(status) == 0);
    until(++events);
    GIVES(FTB_Publish(client, "A", NULL, &handle), FTB_SUCCESS);
    CHECK(handle.location_id.pid == getpid() && handle.seqnum == 1);
    until(++events);
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    CHECK(sockets() == before);
    say("done");
    return 0;
}
