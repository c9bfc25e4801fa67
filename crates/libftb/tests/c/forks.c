/* A child goes on with its parent's client, over a connection of its own. */
#include <sys/wait.h>

#include "check.h"

int main(void) {
    FTB_client_handle_t client;
    FTB_subscribe_handle_t sub;
    FTB_event_info_t declared = {"A", "INFO"};
    FTB_event_handle_t handle;
    FTB_receive_event_t event;
    FTB_client_t info = client_of("FTB.x.forks", "", "FTB_SUBSCRIPTION_POLLING");
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(client, NULL, &declared, 1), FTB_SUCCESS);
    GIVES(FTB_Subscribe(&sub, client, "", NULL, NULL), FTB_SUCCESS);
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (!child) {
        GIVES(FTB_Publish(client, "A", NULL, &handle), FTB_SUCCESS);
        CHECK(handle.location_id.pid == getpid() && getpid() != parent);
        FTB_client_handle_t again;
        GIVES(FTB_Connect(&info, &again), FTB_ERR_DUP_CALL);
        GIVES(FTB_Disconnect(client), FTB_SUCCESS);
        return 0;
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    polled(sub, &event);
    CHECK(event.incoming_src.pid == child);
    GIVES(FTB_Publish(client, "A", NULL, &handle), FTB_SUCCESS);
    CHECK(handle.location_id.pid == parent && handle.seqnum == 1);
    polled(sub, &event);
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    say("done");
    return 0;
}
