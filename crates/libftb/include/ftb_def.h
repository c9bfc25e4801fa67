/* Sizes, codes and structs that events and clients have in common. */
#ifndef FTB_DEF_H
#define FTB_DEF_H

#include <stdint.h>
#include <sys/types.h>

/* Return codes. */
#define FTB_SUCCESS 0
#define FTB_ERR_GENERAL (-1)
#define FTB_ERR_EVENTSPACE_FORMAT (-2)
#define FTB_ERR_SUBSCRIPTION_STYLE (-3)
#define FTB_ERR_INVALID_VALUE (-4)
#define FTB_ERR_DUP_CALL (-5)
#define FTB_ERR_NULL_POINTER (-6)
#define FTB_ERR_NOT_SUPPORTED (-7)
#define FTB_ERR_INVALID_FIELD (-8)
#define FTB_ERR_INVALID_HANDLE (-9)
#define FTB_ERR_DUP_EVENT (-10)
#define FTB_ERR_INVALID_SCHEMA_FILE (-11)
#define FTB_ERR_INVALID_EVENT_NAME (-12)
#define FTB_ERR_INVALID_EVENT_TYPE (-13)
#define FTB_ERR_SUBSCRIPTION_STR (-14)
#define FTB_ERR_FILTER_ATTR (-15)
#define FTB_ERR_FILTER_VALUE (-16)
#define FTB_GOT_NO_EVENT (-17)
#define FTB_FAILURE (-18)
#define FTB_ERR_INVALID_PARAMETER (-19)
#define FTB_ERR_NETWORK_GENERAL (-20)
#define FTB_ERR_NETWORK_NO_ROUTE (-21)

/* Bytes of texts, with their NUL, and of payloads. */
#define FTB_MAX_EVENTSPACE 64
#define FTB_MAX_EVENT_NAME 32
#define FTB_MAX_SEVERITY 16
#define FTB_MAX_CLIENT_NAME 16
#define FTB_MAX_CLIENT_JOBID 16
#define FTB_MAX_CLIENTSCHEMA_VER 8
#define FTB_MAX_HOST_NAME 64
#define FTB_MAX_HOST_ADDR 64
#define FTB_MAX_PID_TIME 32
#define FTB_MAX_PAYLOAD_DATA 368
#define FTB_EVENT_SIZE 720

typedef char FTB_eventspace_t[FTB_MAX_EVENTSPACE];
typedef char FTB_event_name_t[FTB_MAX_EVENT_NAME];
typedef char FTB_severity_t[FTB_MAX_SEVERITY];
typedef char FTB_client_name_t[FTB_MAX_CLIENT_NAME];
typedef char FTB_client_jobid_t[FTB_MAX_CLIENT_JOBID];
typedef char FTB_client_schema_ver_t[FTB_MAX_CLIENTSCHEMA_VER];
typedef char FTB_hostip_t[FTB_MAX_HOST_ADDR];

/* Where an event was published: the host's name, the start of the process (UTC), its number. */
typedef struct FTB_location_id {
    FTB_hostip_t hostname;
    char pid_starttime[FTB_MAX_PID_TIME];
    pid_t pid;
} FTB_location_id_t;

typedef struct FTB_client_id {
    FTB_eventspace_t region;
    FTB_eventspace_t comp_cat;
    FTB_eventspace_t comp;
    FTB_client_name_t client_name;
    uint8_t ext;
} FTB_client_id_t;

typedef struct FTB_client_handle {
    uint8_t valid;
    FTB_client_id_t client_id;
} FTB_client_handle_t;

typedef struct FTB_id {
    FTB_location_id_t location_id;
    FTB_client_id_t client_id;
} FTB_id_t;

typedef struct FTB_event {
    FTB_eventspace_t region;
    FTB_eventspace_t comp_cat;
    FTB_eventspace_t comp;
    FTB_event_name_t event_name;
    FTB_severity_t severity;
    FTB_client_jobid_t client_jobid;
    FTB_client_name_t client_name;
    FTB_hostip_t hostname;
    uint16_t seqnum;
    uint8_t event_type;
    char event_payload[FTB_MAX_PAYLOAD_DATA];
} FTB_event_t;

#endif
