/*
 * Both sides of a measurement, on FTB's API: `publisher` and `subscriber`, of a `round_trip` or a `flood`.
 *
 * The publisher reads a number of events from its input, one a line, and reports when they are through, as a line of JSON;
 * 0 ends a flood. The subscriber answers from its callback, or counts, and reports at the end of a flood.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ftb_manager_lib.h"
#include "libftb.h"

#define PAYLOAD 64

static FTB_client_handle_t client;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long count, done;
static double *times;
static unsigned long long sent, last, came;

static void must(int code, const char *what) {
    if (code != FTB_SUCCESS) {
        printf("{\"failed\":\"%s gives %d\"}\n", what, code);
        fflush(stdout);
        exit(1);
    }
}

static unsigned long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (unsigned long long)time.tv_sec * 1000000000ull + (unsigned long long)time.tv_nsec;
}

static void publish(const char *name) {
    FTB_event_handle_t handle;
    FTB_event_properties_t properties;
    memset(&properties, 0, sizeof(properties));
    properties.event_type = 1;
    memset(properties.event_payload, 7, PAYLOAD);
    must(FTB_Publish(client, name, &properties, &handle), "FTB_Publish");
}

/* The publisher's: the answer came, and the next event goes out from here. */
static int answered(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    times[done++] = (double)(now() - sent) / 1e3;
    if (done < count) {
        sent = now();
        publish("EVENT");
        return 0;
    }
    pthread_mutex_lock(&lock);
    last = now();
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return 0;
}

/* The subscriber's. */
static int answer(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    publish("EVENT");
    return 0;
}

static int tally(FTB_receive_event_t *event, void *argument) {
    (void)argument;
    if (strcmp(event->event_name, "MARK")) {
        came++;
        last = now();
    } else if (came > 0) {
        printf("{\"came\":%llu,\"last\":%llu}\n", came, last);
        fflush(stdout);
        came = 0;
    }
    return 0;
}

static int by_size(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void report(unsigned long long began, double p50, double p99) {
    printf("{\"began\":%llu,\"ended\":%llu,\"p50\":%f,\"p99\":%f}\n", began, last, p50, p99);
    fflush(stdout);
}

static void trips(void) {
    unsigned long long began = now();
    times = calloc((size_t)count, sizeof(*times));
    if (!times)
        exit(1);
    done = 0;
    last = 0;
    sent = began;
    publish("EVENT");
    pthread_mutex_lock(&lock);
    while (!last)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    qsort(times, (size_t)count, sizeof(*times), by_size);
    report(began, times[count / 2], times[count * 99 / 100]);
    free(times);
}

static void flood(void) {
    unsigned long long began = now();
    for (long event = 0; event < count; event++)
        publish("EVENT");
    last = now();
    report(began, 0, 0);
}

int main(int words, char **word) {
    if (words != 3)
        return 2;
    int publishes = !strcmp(word[1], "publisher"), counts = !strcmp(word[2], "flood");
    FTB_client_t info;
    FTB_event_info_t events[] = {{"EVENT", "INFO"}, {"MARK", "INFO"}};
    FTB_subscribe_handle_t handle;
    memset(&info, 0, sizeof(info));
    strcpy(info.event_space, publishes ? "BENCH.EVENTS.ASKER" : "BENCH.EVENTS.ANSWERER");
    strcpy(info.client_subscription_style, "FTB_SUBSCRIPTION_NOTIFY");
    must(FTB_Connect(&info, &client), "FTB_Connect");
    must(FTB_Declare_publishable_events(client, NULL, events, 2), "FTB_Declare_publishable_events");
    const char *wanted = publishes ? "event_space=BENCH.EVENTS.ANSWERER" : "event_space=BENCH.EVENTS.ASKER";
    must(FTB_Subscribe(&handle, client, wanted, publishes ? answered : counts ? tally : answer, NULL), "FTB_Subscribe");
    puts("{\"ready\":true}");
    fflush(stdout);
    while (scanf("%ld", &count) == 1) {
        if (count == 0)
            publish("MARK");
        else if (counts)
            flood();
        else
            trips();
    }
    return 0;
}
