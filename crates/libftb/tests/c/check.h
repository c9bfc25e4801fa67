/* What the test programs have in common. A check that fails says where, and ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ftb_manager_lib.h"
#include "libftb.h"

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);   \
            exit(1);                                                          \
        }                                                                     \
    } while (0)

#define GIVES(call, code)                                                                    \
    do {                                                                                     \
        int code_ = (call);                                                                  \
        if (code_ != (code)) {                                                               \
            fprintf(stderr, "%s:%d: %s gives %d\n", __FILE__, __LINE__, #call, code_);       \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)

static inline FTB_client_t client_of(const char *space, const char *name, const char *style) {
    FTB_client_t info;
    memset(&info, 0, sizeof(info));
    snprintf(info.event_space, sizeof(info.event_space), "%s", space);
    snprintf(info.client_name, sizeof(info.client_name), "%s", name);
    snprintf(info.client_subscription_style, sizeof(info.client_subscription_style), "%s", style);
    return info;
}

/* Polls until an event comes; a test that waits for too long is ended from outside. */
static inline void polled(FTB_subscribe_handle_t handle, FTB_receive_event_t *event) {
    int code;
    while ((code = FTB_Poll_event(handle, event)) == FTB_GOT_NO_EVENT)
        poll(NULL, 0, 1);
    GIVES(code, FTB_SUCCESS);
}

static inline void say(const char *word) {
    puts(word);
    fflush(stdout);
}

#endif
