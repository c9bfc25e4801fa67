/* As MPICH's process manager does it: a name with a blank, fields that nobody set, a text as payload. */
#include "check.h"

int main(void) {
    FTB_client_handle_t client;
    FTB_client_t info;
    memset(&info, 0xa5, sizeof(info));
    strcpy(info.event_space, "ftb.mpi.mpich");
    strcpy(info.client_name, "mpich 3.x");
    strcpy(info.client_subscription_style, "FTB_SUBSCRIPTION_BOTH");
    memcpy(info.client_jobid, "\1\2\3", 4);
    info.client_polling_queue_len = -1;
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    FTB_event_info_t events[] = {{"FTB_MPI_PROCS_DEAD", "error"}, {"FTB_MPI_PROCS_ABORTED", "fatal"}};
    GIVES(FTB_Declare_publishable_events(client, 0, events, 2), FTB_SUCCESS);
    FTB_event_properties_t properties;
    FTB_event_handle_t handle;
    memset(&properties, 0x77, sizeof(properties));
    properties.event_type = 1;
    snprintf(properties.event_payload, sizeof(properties.event_payload), "pgid:%d rank:%d", 7, 3);
    FTB_subscribe_handle_t sub;
    GIVES(FTB_Subscribe(&sub, client, "client_name=MPICH 3.x", NULL, NULL), FTB_ERR_FILTER_VALUE);
    GIVES(FTB_Subscribe(&sub, client, "event_space=FTB.mpi.all , severity=error", NULL, NULL), FTB_SUCCESS);
    GIVES(FTB_Publish(client, "FTB_MPI_PROCS_DEAD", &properties, &handle), FTB_SUCCESS);
    FTB_receive_event_t event;
    polled(sub, &event);
    CHECK(!memcmp(event.event_payload, properties.event_payload, sizeof(event.event_payload)));
    CHECK(!strcmp(event.client_name, "mpich 3.x") && !strcmp(event.event_space, "ftb.mpi.mpich"));
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    say("done");
    return 0;
}
