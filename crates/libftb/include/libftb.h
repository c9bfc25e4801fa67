/*
 * FTB API 0.5, as Steadfast's libftb has it. docs/libftb.md says how it behaves and where it differs.
 *
 * Structs are passed by value, as programs that were compiled against FTB 0.6.2 do. Every function returns FTB_SUCCESS or a
 * negative FTB_ERR_..., within bounded time, leaves errno alone and never ends the process.
 */
#ifndef LIBFTB_H
#define LIBFTB_H

#include "ftb_config.h"
#include "ftb_def.h"
#include "ftb_client_lib_defs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Connects to the agent of this host, in 2 seconds at most. */
int FTB_Connect(const FTB_client_t *client_info, FTB_client_handle_t *client_handle);

/* Declares the events of a schema file, or, where schema_file is NULL, num_events of event_info. */
int FTB_Declare_publishable_events(FTB_client_handle_t client_handle, const char *schema_file,
                                   const FTB_event_info_t *event_info, int num_events);

/* Publishes, and returns when everybody on this host who wants the event has it in his queue.
 * event_properties may be NULL: type 1, no payload. */
int FTB_Publish(FTB_client_handle_t client_handle, const char *event_name,
                const FTB_event_properties_t *event_properties, FTB_event_handle_t *event_handle);

/* Subscribes: with a callback, which a thread of the library calls, or without one, to poll. */
int FTB_Subscribe(FTB_subscribe_handle_t *subscribe_handle, FTB_client_handle_t client_handle,
                  const char *subscription_str, int (*callback)(FTB_receive_event_t *, void *), void *arg);

/* Ends a subscription. Its callback is not called any more when this returns, unless this is called within it. */
int FTB_Unsubscribe(FTB_subscribe_handle_t *subscribe_handle);

/* The oldest event that this subscription wants, or FTB_GOT_NO_EVENT. Does not wait. */
int FTB_Poll_event(FTB_subscribe_handle_t subscribe_handle, FTB_receive_event_t *receive_event);

/* Ends a client. */
int FTB_Disconnect(FTB_client_handle_t client_handle);

/* The handle of an event that was received, unchanged in all its bytes. */
int FTB_Get_event_handle(const FTB_receive_event_t receive_event, FTB_event_handle_t *event_handle);

/* FTB_SUCCESS if both mean the same event, else FTB_FAILURE. */
int FTB_Compare_event_handles(const FTB_event_handle_t event_handle1, const FTB_event_handle_t event_handle2);

#ifdef __cplusplus
}
#endif

#endif
