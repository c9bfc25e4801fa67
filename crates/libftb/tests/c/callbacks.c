/* Callbacks that unsubscribe and disconnect, several clients in one process, and a disconnect while a callback runs. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"

static FTB_client_handle_t one, two, three;
static FTB_subscribe_handle_t first;
static atomic_int calls, after, over, slow, freed;

static int once(FTB_receive_event_t *event, void *argument) {
    FTB_subscribe_handle_t *own = argument;
    CHECK(!strcmp(event->event_name, "A") && !strcmp(own->subscription_event.event_name, "a"));
    CHECK(!strcmp(own->client_handle.client_id.comp, "one"));
    GIVES(FTB_Unsubscribe(own), FTB_SUCCESS);
    atomic_fetch_add(&calls, 1);
    return 0;
}

static int always(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    atomic_fetch_add(&after, 1);
    return 0;
}

static int leaves(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    GIVES(FTB_Disconnect(three), FTB_SUCCESS);
    atomic_store(&over, 1);
    return 0;
}

static int sleeps(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    atomic_store(&slow, 1);
    poll(NULL, 0, 300);
    CHECK(!atomic_load(&freed));
    return 0;
}

static void until(atomic_int *state, int value) {
    while (atomic_load(state) != value)
        poll(NULL, 0, 1);
}

int main(void) {
    FTB_client_t info = client_of("FTB.x.one", "", "FTB_SUBSCRIPTION_NOTIFY");
    FTB_event_info_t events[] = {{"A", "INFO"}, {"B", "INFO"}};
    FTB_event_handle_t handle;
    FTB_receive_event_t event;
    FTB_subscribe_handle_t rest, polling, third;
    GIVES(FTB_Connect(&info, &one), FTB_SUCCESS);
    info = client_of("FTB.x.two", "", "FTB_SUBSCRIPTION_BOTH");
    GIVES(FTB_Connect(&info, &two), FTB_SUCCESS);
    info = client_of("FTB.x.three", "", "FTB_SUBSCRIPTION_NOTIFY");
    GIVES(FTB_Connect(&info, &three), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(two, NULL, events, 2), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&first, one, "event_name=a", once, &first), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&rest, one, "event_name=A", always, NULL), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&polling, two, "", NULL, NULL), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&third, three, "event_name=b", leaves, NULL), FTB_SUCCESS);
    for (int round = 0; round < 3; round++) {
        GIVES(FTB_Publish(two, "A", NULL, &handle), FTB_SUCCESS);
        polled(polling, &event);
        /* What comes before its end is known is its own, and goes with it. */
        until(&calls, 1);
    }
    /* The first went to the callback that ended itself, and to it alone. */
    until(&after, 2);
    GIVES(FTB_Unsubscribe(&first), FTB_ERR_INVALID_HANDLE);
    /* An empty poll, and then the end of a client that can both: that hung in 0.6.2. */
    GIVES(FTB_Poll_event(polling, &event), FTB_GOT_NO_EVENT);
    GIVES(FTB_Publish(two, "B", NULL, &handle), FTB_SUCCESS);
    until(&over, 1);
    GIVES(FTB_Disconnect(three), FTB_ERR_INVALID_HANDLE);
    GIVES(FTB_Unsubscribe(&rest), FTB_SUCCESS);
    /* Who disconnects waits for a callback that runs, and may then free what it uses. */
    GIVES(FTB_Subscribe(&rest, one, "", sleeps, NULL), FTB_SUCCESS);
    GIVES(FTB_Publish(two, "A", NULL, &handle), FTB_SUCCESS);
    until(&slow, 1);
    GIVES(FTB_Disconnect(one), FTB_SUCCESS);
    atomic_store(&freed, 1);
    GIVES(FTB_Disconnect(two), FTB_SUCCESS);
    CHECK(atomic_load(&calls) == 1 && atomic_load(&after) == 2);
    say("done");
    return 0;
}
