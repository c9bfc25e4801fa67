/* What clients hand over and get back. */
#ifndef FTB_CLIENT_LIB_DEFS_H
#define FTB_CLIENT_LIB_DEFS_H

#include "ftb_def.h"

/* Events that wait to be polled, where a client names no number. */
#define FTB_DEFAULT_POLLING_Q_LEN 64

/* Kinds of a subscription. */
#define FTB_SUBSCRIPTION_NONE 0
#define FTB_SUBSCRIPTION_POLLING 1
#define FTB_SUBSCRIPTION_NOTIFY 2

/* Kinds of an event: on its own, or in answer to the one whose handle its payload begins with. */
#define FTB_EVENT_NORMAL 1
#define FTB_EVENT_RESPONSE 2

/* Who a client is. Style: FTB_SUBSCRIPTION_ and POLLING, NOTIFY, NONE or BOTH. */
typedef struct FTB_client {
    FTB_client_schema_ver_t client_schema_ver;
    FTB_eventspace_t event_space;
    FTB_client_name_t client_name;
    FTB_client_jobid_t client_jobid;
    char client_subscription_style[32];
    int client_polling_queue_len;
} FTB_client_t;

typedef struct FTB_event_info {
    FTB_event_name_t event_name;
    FTB_severity_t severity;
} FTB_event_info_t;

typedef struct FTB_event_properties {
    uint8_t event_type;
    char event_payload[FTB_MAX_PAYLOAD_DATA];
} FTB_event_properties_t;

typedef struct FTB_receive_event {
    FTB_eventspace_t event_space;
    FTB_event_name_t event_name;
    FTB_severity_t severity;
    FTB_client_jobid_t client_jobid;
    FTB_client_name_t client_name;
    uint8_t client_extension;
    uint16_t seqnum;
    FTB_location_id_t incoming_src;
    uint8_t event_type;
    char event_payload[FTB_MAX_PAYLOAD_DATA];
} FTB_receive_event_t;

typedef struct FTB_event_handle {
    FTB_event_name_t event_name;
    FTB_severity_t severity;
    FTB_client_id_t client_id;
    uint16_t seqnum;
    FTB_location_id_t location_id;
} FTB_event_handle_t;

typedef struct FTB_subscribe_handle {
    FTB_client_handle_t client_handle;
    FTB_event_t subscription_event;
    uint8_t subscription_type;
    uint8_t valid;
} FTB_subscribe_handle_t;

#endif
