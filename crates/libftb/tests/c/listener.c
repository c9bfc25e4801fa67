/* Writes down the numbers of the events that its callback gets, until its input ends. */
#include "check.h"

static int hear(FTB_receive_event_t *event, void *argument) {
    (void)argument;
    say(event->event_name);
    return 0;
}

int main(void) {
    FTB_client_handle_t client;
    FTB_subscribe_handle_t sub;
    FTB_client_t info = client_of("FTB.x.listener", "", "FTB_SUBSCRIPTION_NOTIFY");
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&sub, client, "", hear, NULL), FTB_SUCCESS);
    say("ready");
    while (getchar() != EOF) {
    }
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    say("done");
    return 0;
}
