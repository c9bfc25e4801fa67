/* Hears what is published of checkpoints: for each event its name, severity and type, which earlier one it answers, counted
 * from 1, and the number of the error. */
#include "check.h"

static FTB_event_handle_t seen[64];
static int count;

static int hear(FTB_receive_event_t *event, void *argument) {
    char line[256];
    int answers = 0, error = 0;
    (void)argument;
    if (event->event_type == 2) {
        FTB_event_handle_t handle;
        memcpy(&handle, event->event_payload, sizeof(handle));
        memcpy(&error, event->event_payload + sizeof(handle), 4);
        for (int at = 0; at < count; at++)
            if (FTB_Compare_event_handles(seen[at], handle) == FTB_SUCCESS)
                answers = at + 1;
    } else {
        for (int at = 0; at < (int)sizeof(event->event_payload); at++)
            CHECK(!event->event_payload[at] || at >= 200);
    }
    CHECK(count < 64);
    GIVES(FTB_Get_event_handle(*event, &seen[count++]), FTB_SUCCESS);
    snprintf(line, sizeof(line), "%s %s %s %d %d %d", event->event_space, event->event_name, event->severity,
             event->event_type, answers, error);
    say(line);
    return 0;
}

int main(void) {
    FTB_client_handle_t client;
    FTB_subscribe_handle_t sub;
    FTB_client_t info = client_of("FTB.x.watcher", "", "FTB_SUBSCRIPTION_NOTIFY");
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&sub, client, "event_space=FTB.checkpoint_sw.blcr", hear, NULL), FTB_SUCCESS);
    say("ready");
    while (getchar() != EOF) {
    }
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    return 0;
}
