//! Events of other hosts, from a server.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::Acker;
use futures_core::Stream;
use steadfast_backplane::Arrival;
use tokio::sync::mpsc::Sender;

use super::event::{Brought, message_id, read};
use super::{Bridge, Fault, PULLED, UNCONFIRMED, chain};

/// What a stream brings next. Cancel safe.
pub(super) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

impl Bridge {
    /// Takes in what a message brought; the place in the journal up to which everything has to be stored until the message is
    /// done with.
    async fn take_in(&self, subject: &str, payload: &[u8], came: Option<&Sender<String>>) -> u64 {
        match read(&self.seal, &self.settings.prefix.0, subject, payload) {
            Brought::Verified(event) => {
                self.way.take_in(&event, Arrival { peer: None, verified: true }).await
            }
            Brought::Unsigned(event) => {
                if let Some(came) = came.filter(|_| event.id.origin == self.seal.identity().fingerprint()) {
                    // If it is full somebody made up the most of them, and some are sent again.
                    let _full = came.try_send(message_id(&event));
                }
                self.way.take_in_unsigned(event)
            }
            Brought::Nothing(why) => {
                tracing::debug!(subject, why, "a message is not taken in");
                self.way.state.refused();
                0
            }
        }
    }
}

/// How often the server that delivers says that it is there. After two that are missed, as when it died in a cluster that
/// goes on, another one is asked.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Without `JetStream`: what comes now.
pub(super) async fn plainly(bridge: &Bridge, mut all: Subscriber, came: Sender<String>) -> Fault {
    while let Some(message) = next(&mut all).await {
        bridge.take_in(&message.subject, &message.payload, Some(&came)).await;
        // The library hands over without end what it has.
        tokio::task::consume_budget().await;
    }
    "the connection was lost".into()
}

/// From the stream: the servers forget a message for this host when it is in the journal here.
pub(super) async fn from_stream(bridge: &Bridge, consumer: &PullConsumer) -> Fault {
    let messages = consumer.stream().max_messages_per_batch(PULLED).heartbeat(HEARTBEAT).messages().await;
    let mut messages = match messages {
        Ok(messages) => messages,
        Err(error) => return chain(&error),
    };
    let mut stored = bridge.way.hub.stored();
    let mut waiting: VecDeque<(u64, Acker)> = VecDeque::new();
    loop {
        let done = *stored.borrow_and_update();
        while waiting.front().is_some_and(|(place, _)| *place <= done) {
            let Some((_, acker)) = waiting.pop_front() else { break };
            if let Err(error) = acker.ack().await {
                return format!("cannot tell the server what has arrived: {error}");
            }
        }
        let room = waiting.len() < UNCONFIRMED as usize;
        tokio::select! {
            message = next(&mut messages), if room => match message {
                Some(Ok(message)) => {
                    let (message, acker) = message.split();
                    let place = bridge.take_in(&message.subject, &message.payload, None).await;
                    waiting.push_back((place, acker));
                }
                Some(Err(error)) => return chain(&error),
                None => return "the server ended the delivery".into(),
            },
            _ = stored.changed(), if !waiting.is_empty() => {}
        }
    }
}
