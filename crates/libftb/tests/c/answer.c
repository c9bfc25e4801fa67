/* An event answered by another, and the answer recognised by its handle: `server` answers from within its callback. */
#include "check.h"

static FTB_client_handle_t client;

static int answer(FTB_receive_event_t *event, void *argument) {
    (void)argument;
    FTB_event_handle_t asked, mine;
    FTB_event_properties_t properties;
    memset(&properties, 0, sizeof(properties));
    GIVES(FTB_Get_event_handle(*event, &asked), FTB_SUCCESS);
    properties.event_type = 2;
    memcpy(properties.event_payload, &asked, sizeof(asked));
    memcpy(properties.event_payload + sizeof(asked), "\1\2\3\4\5\6\7\10", 8);
    GIVES(FTB_Publish(client, "ANSWER", &properties, &mine), FTB_SUCCESS);
    return 0;
}

int main(int count, char **words) {
    int serves = count > 1 && !strcmp(words[1], "server");
    FTB_client_t info = client_of("FTB.FTB_EXAMPLES.answer", serves ? "server" : "client", "FTB_SUBSCRIPTION_BOTH");
    FTB_event_info_t events[] = {{"QUESTION", "INFO"}, {"ANSWER", "INFO"}};
    FTB_subscribe_handle_t sub;
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(client, NULL, events, 2), FTB_SUCCESS);
    if (serves) {
        GIVES(FTB_Subscribe(&sub, client, "event_name=QUESTION", answer, NULL), FTB_SUCCESS);
        say("ready");
        for (;;)
            pause();
    }
    GIVES(FTB_Subscribe(&sub, client, "event_name=ANSWER, client_name=server", NULL, NULL), FTB_SUCCESS);
    for (int round = 0; round < 20; round++) {
        FTB_event_handle_t question, named, other;
        FTB_receive_event_t event;
        GIVES(FTB_Publish(client, "QUESTION", NULL, &question), FTB_SUCCESS);
        polled(sub, &event);
        CHECK(event.event_type == 2 && !strcmp(event.client_name, "server"));
        memcpy(&named, event.event_payload, sizeof(named));
        GIVES(FTB_Compare_event_handles(named, question), FTB_SUCCESS);
        CHECK(!memcmp(event.event_payload + sizeof(named), "\1\2\3\4\5\6\7\10", 8));
        GIVES(FTB_Get_event_handle(event, &other), FTB_SUCCESS);
        GIVES(FTB_Compare_event_handles(other, question), FTB_FAILURE);
    }
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    say("done");
    return 0;
}
