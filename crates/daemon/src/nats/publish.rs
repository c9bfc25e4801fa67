//! Events of this host, to a server.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::{Client, HeaderMap};
use steadfast_backplane::{Event, EventId, MEDIA_TYPE};
use tokio::sync::mpsc::Receiver;

use super::event::{message_id, subject};
use super::{ANSWER, Bridge, Fault, chain};

/// Events that are sent before one of them is confirmed.
const WINDOW: usize = 256;
/// What headers take of what a server allows for a message.
const HEADERS: usize = 1024;
const CONTENT_TYPE: &str = "Content-Type";

/// An event as it goes out.
struct Outgoing {
    subject: String,
    message_id: String,
    payload: String,
}

impl Bridge {
    /// None if a server would not take it, which must not hold up the others.
    fn outgoing(&self, client: &Client, event: &Event) -> Option<Outgoing> {
        let signed = self.seal.sign(event);
        let payload = signed.to_cloud_event();
        if payload.len() + HEADERS > client.server_info().max_payload {
            tracing::warn!(event = %event.id, bytes = payload.len(), "longer than the server's max_payload, and left out");
            self.way.state.lost(1);
            return None;
        }
        let subject = subject(&self.settings.prefix.0, &event.space, &event.name);
        Some(Outgoing { subject, message_id: message_id(&signed), payload })
    }
}

/// Without `JetStream`: so many at a time. Each is confirmed when the server brings it back, as it does to all who subscribe.
pub(super) async fn plainly(bridge: &Bridge, client: Client, mut back: Receiver<String>) -> Fault {
    loop {
        if let Err(fault) = batch(bridge, &client, &mut back).await {
            return fault;
        }
    }
}

async fn batch(bridge: &Bridge, client: &Client, back: &mut Receiver<String>) -> Result<(), Fault> {
    let mut next = Some(bridge.way.next().await);
    // What comes late belongs to nothing any more.
    while back.try_recv().is_ok() {}
    let (mut sent, mut count, mut last) = (0, 0, None);
    let mut missing = HashSet::new();
    while let Some((place, event)) = next.take() {
        last = Some((place, event.id));
        sent += 1;
        if let Some(outgoing) = bridge.outgoing(client, &event) {
            count += 1;
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, MEDIA_TYPE);
            headers.insert(async_nats::header::NATS_MESSAGE_ID, outgoing.message_id.as_str());
            missing.insert(outgoing.message_id);
            let published = client.publish_with_headers(outgoing.subject, headers, outgoing.payload.into());
            published.await.map_err(|error| chain(&error))?;
        }
        if sent < WINDOW {
            next = bridge.way.poll();
        }
    }
    let all = async {
        while !missing.is_empty() {
            let Some(id) = back.recv().await else { return };
            missing.remove(&id);
        }
    };
    let in_time = tokio::time::timeout(ANSWER, all).await;
    if in_time.is_err() || !missing.is_empty() {
        return Err(format!(
            "the server did not bring back {} of {count} events within {ANSWER:?}; may this host publish and subscribe below {}?",
            missing.len(),
            bridge.settings.prefix.0
        ));
    }
    if let Some((place, id)) = last {
        bridge.way.confirmed(place, id, count);
    }
    Ok(())
}

type Acknowledged = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

/// To the stream: each is confirmed by the servers, in the order in which it was sent.
pub(super) async fn to_stream(bridge: &Bridge, client: Client, context: Context) -> Fault {
    let mut flight: VecDeque<(u64, EventId, Option<Acknowledged>)> = VecDeque::new();
    loop {
        let room = flight.len() < WINDOW;
        let next = if let Some((place, id, acknowledged)) = flight.front_mut() {
            let stored = async {
                match acknowledged {
                    Some(acknowledged) => acknowledged.as_mut().await.map(|_| 1),
                    None => Ok(0),
                }
            };
            tokio::select! {
                biased;
                stored = stored => {
                    match stored {
                        Ok(count) => bridge.way.confirmed(*place, *id, count),
                        Err(error) => return not_stored(bridge, &error),
                    }
                    flight.pop_front();
                    continue;
                }
                next = bridge.way.next(), if room => next,
            }
        } else {
            bridge.way.next().await
        };
        let (place, event) = next;
        match send(bridge, &client, &context, &event).await {
            Ok(acknowledged) => flight.push_back((place, event.id, acknowledged)),
            Err(error) => return not_stored(bridge, &error),
        }
    }
}

fn not_stored(bridge: &Bridge, error: &PublishError) -> Fault {
    let stream = &bridge.settings.stream.0;
    format!("the stream {stream} does not take events: {}; check its subjects and limits", chain(error))
}

async fn send(
    bridge: &Bridge,
    client: &Client,
    context: &Context,
    event: &Event,
) -> Result<Option<Acknowledged>, PublishError> {
    let Some(outgoing) = bridge.outgoing(client, event) else { return Ok(None) };
    let message = PublishMessage::build()
        .header(CONTENT_TYPE, MEDIA_TYPE)
        .message_id(&outgoing.message_id)
        .expected_stream(&bridge.settings.stream.0)
        .payload(outgoing.payload.into());
    let acknowledged = context.send_publish(outgoing.subject, message).await?;
    Ok(Some(Box::pin(acknowledged.into_future())))
}
