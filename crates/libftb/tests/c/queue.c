/* A short queue keeps the newest. */
#include "check.h"

int main(void) {
    FTB_client_handle_t client;
    FTB_subscribe_handle_t sub;
    FTB_event_info_t declared = {"A", "INFO"};
    FTB_client_t info = client_of("FTB.x.queue", "", "FTB_SUBSCRIPTION_POLLING");
    info.client_polling_queue_len = 4;
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(client, NULL, &declared, 1), FTB_SUCCESS);
    FTB_event_handle_t handles[8], handle;
    GIVES(FTB_Publish(client, "A", NULL, &handles[0]), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&sub, client, "event_name=A", NULL, NULL), FTB_SUCCESS);
    for (int at = 1; at < 8; at++)
        GIVES(FTB_Publish(client, "A", NULL, &handles[at]), FTB_SUCCESS);
    for (int at = 4; at < 8; at++) {
        FTB_receive_event_t event;
        polled(sub, &event);
        CHECK(event.seqnum == at + 1);
        GIVES(FTB_Get_event_handle(event, &handle), FTB_SUCCESS);
        GIVES(FTB_Compare_event_handles(handle, handles[at]), FTB_SUCCESS);
    }
    FTB_receive_event_t event;
    GIVES(FTB_Poll_event(sub, &event), FTB_GOT_NO_EVENT);
    say("done");
    return 0;
}
