/* What each function returns, as measured of FTB 0.6.2; where docs/libftb.md says so, what its specification says. */
#include "check.h"

static int never(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    return 0;
}

static void connecting(void) {
    FTB_client_handle_t handle;
    FTB_client_t info = client_of("FTB.T.T", "codes", "FTB_SUBSCRIPTION_SOME");
    GIVES(FTB_Connect(&info, &handle), FTB_ERR_SUBSCRIPTION_STYLE);
    const char *spaces[] = {"FTB.T.T.T", "FTB.T-x.T", "FTB.T", "a.b", "", "..", "FTB.."};
    for (size_t at = 0; at < sizeof(spaces) / sizeof(*spaces); at++) {
        info = client_of(spaces[at], "codes", "FTB_SUBSCRIPTION_BOTH");
        GIVES(FTB_Connect(&info, &handle), FTB_ERR_EVENTSPACE_FORMAT);
    }
    info = client_of("FTB.T.T", "codes", "ftb_subscription_both");
    GIVES(FTB_Connect(&info, NULL), FTB_ERR_NULL_POINTER);
    GIVES(FTB_Connect(NULL, &handle), FTB_ERR_NULL_POINTER);
    memset(info.client_name, 'x', sizeof(info.client_name));
    GIVES(FTB_Connect(&info, &handle), FTB_ERR_INVALID_VALUE);
    info = client_of("FTB.T.T", "codes", "FTB_SUBSCRIPTION_NONE");
    memset(info.client_jobid, 'x', sizeof(info.client_jobid));
    GIVES(FTB_Connect(&info, &handle), FTB_ERR_INVALID_VALUE);
    memset(&info, 0x5a, sizeof(info));
    CHECK(FTB_Connect(&info, &handle) < 0);
    memset(&handle, 0, sizeof(handle));
    GIVES(FTB_Disconnect(handle), FTB_ERR_INVALID_HANDLE);
    memset(&handle, 1, sizeof(handle));
    GIVES(FTB_Disconnect(handle), FTB_ERR_INVALID_HANDLE);
}

static void declaring(FTB_client_handle_t handle) {
    FTB_event_info_t bad_name = {"EV-X", "info"}, bad_severity = {"EV_X", "debug"};
    FTB_event_info_t events[] = {{"ev_a", "INFO"}, {"EV_B", "fatal"}}, again[] = {{"EV_A", "error"}, {"ev_c", "error"}};
    GIVES(FTB_Declare_publishable_events(handle, NULL, &bad_name, 1), FTB_ERR_INVALID_FIELD);
    GIVES(FTB_Declare_publishable_events(handle, NULL, &bad_severity, 1), FTB_ERR_INVALID_FIELD);
    GIVES(FTB_Declare_publishable_events(handle, "/nowhere/x$(false)", NULL, 0), FTB_ERR_INVALID_SCHEMA_FILE);
    GIVES(FTB_Declare_publishable_events(handle, "/dev/zero", NULL, 0), FTB_ERR_INVALID_SCHEMA_FILE);
    GIVES(FTB_Declare_publishable_events(handle, NULL, NULL, 1), FTB_ERR_NULL_POINTER);
    GIVES(FTB_Declare_publishable_events(handle, NULL, events, -1), FTB_ERR_INVALID_PARAMETER);
    GIVES(FTB_Declare_publishable_events(handle, NULL, events, 2), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(handle, NULL, again, 2), FTB_ERR_DUP_EVENT);
}

static void subscribing(FTB_client_handle_t handle) {
    FTB_subscribe_handle_t sub;
    const struct {
        const char *text;
        int code;
    } cases[] = {
        {"severity=debug", FTB_ERR_FILTER_VALUE},
        {"severity=in fo", FTB_ERR_FILTER_VALUE},
        {"colour=red", FTB_ERR_FILTER_ATTR},
        {"severity=info,severity=info", FTB_ERR_SUBSCRIPTION_STR},
        {"severity", FTB_ERR_SUBSCRIPTION_STR},
        {"severity=info,", FTB_ERR_SUBSCRIPTION_STR},
        {",,,,,,,,,,,,,,,,,,,,", FTB_ERR_SUBSCRIPTION_STR},
        {NULL, FTB_ERR_SUBSCRIPTION_STR},
        {"event_space=a.b", FTB_ERR_EVENTSPACE_FORMAT},
    };
    for (size_t at = 0; at < sizeof(cases) / sizeof(*cases); at++)
        GIVES(FTB_Subscribe(&sub, handle, cases[at].text, NULL, NULL), cases[at].code);
    GIVES(FTB_Subscribe(NULL, handle, "", NULL, NULL), FTB_ERR_NULL_POINTER);
    GIVES(FTB_Subscribe(&sub, handle, "", never, NULL), FTB_ERR_NOT_SUPPORTED);
    GIVES(FTB_Subscribe(&sub, handle, " event_name = ev_b , SEVERITY = fatal ", NULL, NULL), FTB_SUCCESS);
    CHECK(!strcmp(sub.subscription_event.event_name, "ev_b"));
    CHECK(!strcmp(sub.subscription_event.comp, "all"));
    CHECK(!strcmp(sub.client_handle.client_id.comp_cat, "T"));

    FTB_receive_event_t event;
    GIVES(FTB_Poll_event(sub, &event), FTB_GOT_NO_EVENT);
    GIVES(FTB_Poll_event(sub, NULL), FTB_ERR_NULL_POINTER);
    FTB_subscribe_handle_t copy = sub;
    GIVES(FTB_Unsubscribe(&sub), FTB_SUCCESS);
    CHECK(!sub.valid);
    GIVES(FTB_Unsubscribe(&sub), FTB_ERR_INVALID_HANDLE);
    GIVES(FTB_Unsubscribe(&copy), FTB_ERR_INVALID_HANDLE);
    GIVES(FTB_Poll_event(copy, &event), FTB_ERR_INVALID_HANDLE);
    GIVES(FTB_Unsubscribe(NULL), FTB_ERR_NULL_POINTER);
}

static void publishing(FTB_client_handle_t handle) {
    FTB_event_handle_t one, other;
    FTB_event_properties_t properties;
    memset(&properties, 0, sizeof(properties));
    GIVES(FTB_Publish(handle, "EV_Z", NULL, &one), FTB_ERR_INVALID_EVENT_NAME);
    GIVES(FTB_Publish(handle, "EV_A", NULL, NULL), FTB_ERR_NULL_POINTER);
    GIVES(FTB_Publish(handle, NULL, NULL, &one), FTB_ERR_NULL_POINTER);
    properties.event_type = 3;
    GIVES(FTB_Publish(handle, "EV_A", &properties, &one), FTB_ERR_INVALID_EVENT_TYPE);
    properties.event_type = 2;
    GIVES(FTB_Publish(handle, "EV_A", &properties, &one), FTB_ERR_INVALID_EVENT_TYPE);
    GIVES(FTB_Publish(handle, "EV_A", NULL, &one), FTB_SUCCESS);
    GIVES(FTB_Publish(handle, "ev_c", NULL, &other), FTB_SUCCESS);
    GIVES(FTB_Compare_event_handles(one, one), FTB_SUCCESS);
    GIVES(FTB_Compare_event_handles(one, other), FTB_FAILURE);
    CHECK(one.seqnum == 1 && other.seqnum == 2 && !strcmp(one.severity, "INFO"));
    CHECK(one.location_id.pid == getpid() && !strcmp(one.location_id.hostname, "node7"));
}

int main(void) {
    connecting();
    FTB_client_handle_t handle, second, none;
    FTB_client_t info = client_of("FTB.T.T", "codes", "FTB_SUBSCRIPTION_POLLING");
    GIVES(FTB_Connect(&info, &handle), FTB_SUCCESS);
    info = client_of("other.t.T", "CODES", "FTB_SUBSCRIPTION_POLLING");
    GIVES(FTB_Connect(&info, &second), FTB_ERR_DUP_CALL);
    declaring(handle);
    subscribing(handle);
    publishing(handle);
    info = client_of("FTB.T.T", "none", "FTB_SUBSCRIPTION_NONE");
    GIVES(FTB_Connect(&info, &none), FTB_SUCCESS);
    FTB_subscribe_handle_t sub;
    GIVES(FTB_Subscribe(&sub, none, "", NULL, NULL), FTB_ERR_NOT_SUPPORTED);
    GIVES(FTB_Disconnect(none), FTB_SUCCESS);
    GIVES(FTB_Disconnect(none), FTB_ERR_INVALID_HANDLE);
    GIVES(FTB_Disconnect(handle), FTB_SUCCESS);
    FTB_event_handle_t event;
    GIVES(FTB_Publish(handle, "EV_A", NULL, &event), FTB_ERR_INVALID_HANDLE);
    say("done");
    return 0;
}
