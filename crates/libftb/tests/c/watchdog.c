/* Declares with a schema file (its argument), publishes and polls its own events. */
#include "check.h"

int main(int count, char **words) {
    (void)count;
    FTB_client_handle_t client;
    FTB_client_t info = client_of("FTB.FTB_EXAMPLES.watchdog", "trial-watchdog", "FTB_SUBSCRIPTION_POLLING");
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(client, words[1], NULL, 0), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(client, words[1], NULL, 0), FTB_ERR_DUP_EVENT);
    FTB_subscribe_handle_t sub;
    GIVES(FTB_Subscribe(&sub, client, "event_space=ftb.all.watchdog", NULL, NULL), FTB_SUCCESS);
    for (int round = 0; round < 10; round++) {
        FTB_event_handle_t handle, same;
        FTB_receive_event_t event;
        GIVES(FTB_Publish(client, "WATCH_DOG_EVENT", NULL, &handle), FTB_SUCCESS);
        polled(sub, &event);
        GIVES(FTB_Get_event_handle(event, &same), FTB_SUCCESS);
        GIVES(FTB_Compare_event_handles(handle, same), FTB_SUCCESS);
        CHECK(!strcmp(event.severity, "error") && !strcmp(event.event_space, "FTB.FTB_EXAMPLES.watchdog"));
        CHECK(event.incoming_src.pid == getpid());
    }
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    say("done");
    return 0;
}
