/* To and fro between callbacks: `server` throws back what comes, the client throws N times. */
#include <pthread.h>
#include <signal.h>

#include "check.h"

static FTB_client_handle_t client;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int left;

static void throw_it(const char *name) {
    FTB_event_handle_t handle;
    GIVES(FTB_Publish(client, name, NULL, &handle), FTB_SUCCESS);
}

static int ping(FTB_receive_event_t *event, void *argument) {
    (void)event, (void)argument;
    throw_it("PONG");
    return 0;
}

static int pong(FTB_receive_event_t *event, void *argument) {
    (void)event;
    sigset_t blocked;
    CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &blocked) && sigismember(&blocked, SIGTERM));
    CHECK(argument == &left);
    pthread_mutex_lock(&lock);
    int more = --left;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    if (more > 0)
        throw_it("PING");
    return 0;
}

int main(int count, char **words) {
    int serves = count > 1 && !strcmp(words[1], "server");
    FTB_client_t info = client_of("FTB.FTB_EXAMPLES.PINGPONG", words[1], "FTB_SUBSCRIPTION_NOTIFY");
    FTB_event_info_t events[] = {{"PING", "INFO"}, {"PONG", "INFO"}};
    FTB_subscribe_handle_t sub;
    GIVES(FTB_Connect(&info, &client), FTB_SUCCESS);
    GIVES(FTB_Declare_publishable_events(client, NULL, events, 2), FTB_SUCCESS);
    const char *wanted = serves ? "event_name=PING" : "event_name=PONG";
    GIVES(FTB_Subscribe(&sub, client, wanted, serves ? ping : pong, &left), FTB_SUCCESS);
    if (serves) {
        say("ready");
        for (;;)
            pause();
    }
    sigset_t blocked;
    CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &blocked) && !sigismember(&blocked, SIGTERM));
    left = 200;
    throw_it("PING");
    pthread_mutex_lock(&lock);
    while (left > 0)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    GIVES(FTB_Disconnect(client), FTB_SUCCESS);
    say("done");
    return 0;
}
