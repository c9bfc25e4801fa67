/* Polls everything and writes it down; what its arguments say: the length of the queue, a subscription, how many events. */
#include "check.h"

int main(int count, char **words) {
    CHECK(count == 4);
    FTB_client_handle_t client;
    FTB_subscribe_handle_t sub;
    FTB_client_t info = client_of("FTB.FTB_EXAMPLES.logger", "ftb-watch", "FTB_SUBSCRIPTION_POLLING");
    info.client_polling_queue_len = atoi(words[1]);
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&sub, client, words[2], NULL, NULL), FTB_SUCCESS);
    say("ready");
    for (int left = atoi(words[3]); left > 0; left--) {
        FTB_receive_event_t event;
        polled(sub, &event);
        unsigned sum = 0;
        for (size_t at = 0; at < sizeof(event.event_payload); at++)
            sum += (unsigned char)event.event_payload[at];
        printf("%s %s %s %s %d %u\n", event.event_space, event.event_name, event.severity, event.client_name,
               event.seqnum, sum);
        fflush(stdout);
    }
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    return 0;
}
