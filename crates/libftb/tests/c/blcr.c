/* As BLCR does for each checkpoint: connect, declare, publish, disconnect; nothing is left, nothing is disturbed. */
#include <dirent.h>
#include <fcntl.h>

#include "check.h"

static int entries(const char *path) {
    DIR *directory = opendir(path);
    int count = 0;
    CHECK(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int lowest(void) {
    int descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(descriptor >= 0 && !close(descriptor));
    return descriptor;
}

/* Every socket that is open is closed in programs that are started. */
static int close_on_exec(void) {
    int found = 0;
    for (int descriptor = 3; descriptor < 64; descriptor++) {
        char path[64], line[128];
        unsigned flags = 0;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(path, line, sizeof(line) - 1);
        if (length < 0)
            continue;
        line[length] = 0;
        if (strncmp(line, "socket:", 7) && strncmp(line, "anon_inode:", 11))
            continue;
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", descriptor);
        FILE *info = fopen(path, "re");
        CHECK(info);
        while (fgets(line, sizeof(line), info))
            sscanf(line, "flags: %o", &flags);
        fclose(info);
        CHECK(flags & 02000000);
        found++;
    }
    return found;
}

static int ignore(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    return 0;
}

int main(int count, char **words) {
    FTB_client_t info = client_of("FTB.checkpoint_sw.blcr", "blcr", "FTB_SUBSCRIPTION_NONE");
    FTB_event_info_t events[] = {{"CHKPT_BEGIN", "INFO"}, {"CHKPT_END", "INFO"}, {"CHKPT_ERROR", "ERROR"}};
    FTB_client_handle_t client;
    int before = lowest(), open_before = entries("/proc/self/fd");
    if (count > 1) {
        /* Nobody listens. */
        for (int round = 0; round < 1000; round++) {
            errno = 4711;
            GIVES(FTB_Connect(&info, &client), FTB_ERR_NETWORK_NO_ROUTE);
            CHECK(errno == 4711);
        }
        CHECK(lowest() == before && entries("/proc/self/fd") == open_before && entries("/proc/self/task") == 3);
        say(words[1]);
        return 0;
    }
    for (int round = 0; round < 20; round++) {
        FTB_event_handle_t begin, end;
        FTB_event_properties_t properties;
        memset(&properties, 0, sizeof(properties));
        errno = 4711;
        GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
        CHECK(close_on_exec() == 1);
        errno = 4711;
        GIVES(FTB_Declare_publishable_events(client, NULL, events, 3), FTB_SUCCESS);
        GIVES(FTB_Publish(client, "CHKPT_BEGIN", NULL, &begin), FTB_SUCCESS);
        properties.event_type = 2;
        memcpy(properties.event_payload, &begin, sizeof(begin));
        GIVES(FTB_Publish(client, "CHKPT_END", &properties, &end), FTB_SUCCESS);
        /* "." and ".." and the one thread. */
        CHECK(entries("/proc/self/task") == 3);
        errno = 4711;
        GIVES(FTB_Disconnect(client), FTB_SUCCESS);
        CHECK(errno == 4711 && lowest() == before && entries("/proc/self/fd") == open_before);
    }
    /* Nor does a client with callbacks leave anything. */
    info = client_of("FTB.checkpoint_sw.blcr", "watch", "FTB_SUBSCRIPTION_NOTIFY");
    FTB_subscribe_handle_t sub;
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&sub, client, "", ignore, NULL), FTB_SUCCESS);
    CHECK(entries("/proc/self/task") == 4 && close_on_exec() == 2);
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    CHECK(lowest() == before && entries("/proc/self/fd") == open_before);
    say("done");
    return 0;
}
