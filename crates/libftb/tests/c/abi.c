/* Sizes and offsets of FTB 0.6.2. */
#include <stddef.h>

#include "check.h"

#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#define AT(type, member, place) _Static_assert(offsetof(type, member) == (place), #type "." #member)

SIZE(FTB_client_t, 140);
AT(FTB_client_t, event_space, 8);
AT(FTB_client_t, client_name, 72);
AT(FTB_client_t, client_jobid, 88);
AT(FTB_client_t, client_subscription_style, 104);
AT(FTB_client_t, client_polling_queue_len, 136);
SIZE(FTB_event_info_t, 48);
SIZE(FTB_event_properties_t, 369);
AT(FTB_event_properties_t, event_payload, 1);
SIZE(FTB_location_id_t, 100);
AT(FTB_location_id_t, pid_starttime, 64);
AT(FTB_location_id_t, pid, 96);
SIZE(FTB_receive_event_t, 620);
AT(FTB_receive_event_t, client_extension, 144);
AT(FTB_receive_event_t, seqnum, 146);
AT(FTB_receive_event_t, incoming_src, 148);
AT(FTB_receive_event_t, event_type, 248);
AT(FTB_receive_event_t, event_payload, 249);
SIZE(FTB_client_id_t, 209);
SIZE(FTB_client_handle_t, 210);
SIZE(FTB_id_t, 312);
SIZE(FTB_event_handle_t, 360);
AT(FTB_event_handle_t, client_id, 48);
AT(FTB_event_handle_t, seqnum, 258);
AT(FTB_event_handle_t, location_id, 260);
SIZE(FTB_event_t, 708);
AT(FTB_event_t, seqnum, 336);
AT(FTB_event_t, event_payload, 339);
SIZE(FTB_subscribe_handle_t, 920);
AT(FTB_subscribe_handle_t, subscription_event, 210);
AT(FTB_subscribe_handle_t, valid, 919);

int main(void) {
    say(FTB_VERSION);
    return 0;
}
