//! Publishing and hearing, the same for each system.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::jetstream;
use steadfast::Bytes;
use steadfast::backplane::{
    Backplane, BackplaneError, Code, Declaration, Events, Notice, Publication, Subscribing,
};
use tokio_stream::StreamExt;

use super::PAYLOAD;
use super::ground::Meeting;

/// How long an answer may take: a machine that is busy with other things is no failure.
const LIMIT: Duration = Duration::from_secs(60);
/// Both kinds of event.
const EVENT: &str = "EVENT";
const MARK: &str = "MARK";

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Event,
    /// The end of a flood.
    Mark,
}

/// Who publishes.
#[derive(Debug, Clone)]
pub(super) enum Mouth {
    Steadfast(Backplane),
    Nats { client: async_nats::Client, to: &'static str },
    Jetstream { context: jetstream::Context, to: &'static str },
}

/// Who hears what the other side publishes.
pub(super) enum Ear {
    Steadfast(Events),
    Nats(async_nats::Subscriber),
}

/// Where one side publishes, and what it hears.
pub(super) struct Names {
    pub(super) own: &'static str,
    pub(super) other: &'static str,
}

impl Names {
    pub(super) const ASKER: Self = Self { own: "bench.events.asker", other: "bench.events.answerer" };
    pub(super) const ANSWERER: Self = Self { own: "bench.events.answerer", other: "bench.events.asker" };
}

/// Connects to the agent or the server.
pub(super) async fn connect(meeting: &Meeting, names: &Names, stores: bool) -> anyhow::Result<(Mouth, Ear)> {
    match meeting {
        Meeting::Socket(socket) => {
            let builder = Backplane::builder(Some(names.own))?;
            let backplane = builder.socket(socket).limit(LIMIT).connect().await?;
            backplane.declare([Declaration::new(EVENT, "info")?, Declaration::new(MARK, "info")?]).await?;
            let events =
                backplane.subscribe(&format!("event_space={}", names.other), Subscribing::default()).await?;
            Ok((Mouth::Steadfast(backplane), Ear::Steadfast(events)))
        }
        Meeting::Url(url) => {
            let client = async_nats::connect(url).await.context("cannot connect to nats-server")?;
            let heard = client.subscribe(format!("{}.*", names.other)).await?;
            client.flush().await?;
            if !stores {
                return Ok((Mouth::Nats { client, to: names.own }, Ear::Nats(heard)));
            }
            let context = jetstream::new(client);
            let stream = jetstream::stream::Config {
                name: "BENCH".into(),
                subjects: vec!["bench.events.>".into()],
                storage: jetstream::stream::StorageType::File,
                ..jetstream::stream::Config::default()
            };
            context.get_or_create_stream(stream).await.context("cannot make the stream")?;
            Ok((Mouth::Jetstream { context, to: names.own }, Ear::Nats(heard)))
        }
    }
}

impl Mouth {
    /// Publishes an event; acknowledged, it returns when that is so.
    pub(super) async fn event(&self, acknowledged: bool) -> anyhow::Result<()> {
        self.publish(EVENT, acknowledged).await
    }

    /// Says that a flood is over.
    pub(super) async fn mark(&self) -> anyhow::Result<()> {
        self.publish(MARK, false).await
    }

    async fn publish(&self, name: &str, acknowledged: bool) -> anyhow::Result<()> {
        match self {
            Self::Steadfast(backplane) if acknowledged => {
                backplane.publish(Publication::new(name, [7; PAYLOAD])?).await?;
            }
            Self::Steadfast(backplane) => loop {
                match backplane.publish_unacknowledged(Publication::new(name, [7; PAYLOAD])?) {
                    Ok(()) => return Ok(()),
                    // Too much waits for the agent: whoever brings it there goes first.
                    Err(BackplaneError::Session(error)) if error.code() == Code::NetworkGeneral => {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => return Err(error.into()),
                }
            },
            Self::Nats { client, to } => {
                client.publish(format!("{to}.{name}"), Bytes::from_static(&[7; PAYLOAD])).await?;
            }
            Self::Jetstream { context, to } => {
                let published =
                    context.publish(format!("{to}.{name}"), Bytes::from_static(&[7; PAYLOAD])).await?;
                if name == EVENT {
                    published.await?;
                }
            }
        }
        Ok(())
    }
}

impl Ear {
    /// What comes next; what the system itself has left out is passed over, and is missing when all are counted.
    pub(super) async fn next(&mut self) -> anyhow::Result<Came> {
        let came = |is_mark: bool| if is_mark { Came::Mark } else { Came::Event };
        loop {
            match self {
                Self::Steadfast(events) => match events.next().await {
                    Some(Notice::Event(delivery)) => {
                        if delivery.event.payload.bytes().len() != PAYLOAD {
                            bail!("an event of {} bytes", delivery.event.payload.bytes().len());
                        }
                        return Ok(came(delivery.event.name.as_str() == MARK));
                    }
                    Some(_) => {}
                    None => bail!("the subscription has ended"),
                },
                Self::Nats(messages) => {
                    let message = messages.next().await.context("the subscription has ended")?;
                    if message.payload.len() != PAYLOAD {
                        bail!("an event of {} bytes", message.payload.len());
                    }
                    return Ok(came(message.subject.ends_with(MARK)));
                }
            }
        }
    }
}
