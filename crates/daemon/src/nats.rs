//! The bridge to NATS: events of this host go to a server, those of others come from there.
//!
//! One connection is one client: when it is lost everything is made anew, so that nothing is taken for confirmed that another
//! connection was given. What was not confirmed is sent again; whoever gets it twice drops it by its id.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Auth, AuthError, Client, ConnectOptions, Event as Told, ServerAddr};
use steadfast_backplane::HostName;
use tokio::sync::{mpsc, watch};

use crate::seal::Seal;
use crate::ways::{Backoff, Way};

mod event;
mod nkey;
mod publish;
mod receive;
mod settings;

pub use nkey::nkey;
pub use settings::NatsSettings;

/// How this way is called.
pub(crate) const NAME: &str = "nats";

/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a connection on which nothing goes is tried; it is lost when three times nothing came back.
const PING: Duration = Duration::from_secs(5);
/// Messages that wait to be taken in. With a payload of 1 MiB, which is what servers allow by default, 1 GiB at the very worst.
const WAITING: usize = 1024;
/// Our own events that came back and were not looked at.
const ECHOES: usize = 1024;
/// Messages that `JetStream` hands over at a time, and how many of them may be unconfirmed.
const PULLED: usize = 128;
const UNCONFIRMED: i64 = 1024;
/// How long `JetStream` waits until it hands a message over again: after a connection was lost what was under way comes so late.
const AGAIN: Duration = Duration::from_secs(5);

/// Why there is no connection any more.
type Fault = String;

/// Why the bridge does not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use {path} as `{what}` of [daemon.nats]: {error}; name another file, or let the daemon read it"
)]
pub struct NatsFileError {
    path: std::path::PathBuf,
    what: &'static str,
    error: std::io::Error,
}

/// The bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    settings: NatsSettings,
    seal: Arc<Seal>,
    way: Way,
    host: HostName,
}

/// How events go over a connection.
enum Link {
    Plain { client: Client, all: async_nats::Subscriber },
    Stream { client: Client, context: Box<jetstream::Context>, consumer: Box<PullConsumer> },
}

impl Bridge {
    /// Checks the files that it needs.
    pub(crate) fn new(
        settings: NatsSettings,
        seal: Arc<Seal>,
        way: Way,
        host: HostName,
    ) -> Result<Self, NatsFileError> {
        let files = [
            ("credentials", &settings.credentials),
            ("ca", &settings.ca),
            ("certificate", &settings.certificate),
            ("key", &settings.key),
        ];
        for (what, path) in files {
            let Some(path) = path else { continue };
            readable(path).map_err(|error| NatsFileError { path: path.clone(), what, error })?;
        }
        Ok(Self { settings, seal, way, host })
    }

    /// Bridges for as long as the daemon runs.
    pub(crate) async fn run(self) {
        let bridge = Arc::new(self);
        let mut backoff = Backoff::new();
        loop {
            let (tell_gone, gone) = watch::channel(None);
            let fault = match Self::connect(&bridge, tell_gone).await {
                Ok(link) => {
                    bridge.way.state.set_connected();
                    let since = Instant::now();
                    let fault = Self::serve(&bridge, link, gone).await;
                    bridge.way.interrupted();
                    backoff.held(since.elapsed());
                    fault
                }
                Err(fault) => fault,
            };
            bridge.way.state.set_fault(fault);
            backoff.wait().await;
        }
    }

    /// Until something fails.
    async fn serve(bridge: &Arc<Self>, link: Link, mut gone: watch::Receiver<Option<Fault>>) -> Fault {
        let mut tasks = tokio::task::JoinSet::new();
        let (one, other) = (Arc::clone(bridge), Arc::clone(bridge));
        match link {
            Link::Plain { client, all } => {
                let (came, back) = mpsc::channel(ECHOES);
                tasks.spawn(async move { publish::plainly(&one, client, back).await });
                tasks.spawn(async move { receive::plainly(&other, all, came).await });
            }
            Link::Stream { client, context, consumer } => {
                tasks.spawn(async move { publish::to_stream(&one, client, *context).await });
                tasks.spawn(async move { receive::from_stream(&other, &consumer).await });
            }
        }
        let fault = tokio::select! {
            Some(ended) = tasks.join_next() => ended.unwrap_or_else(|error| error.to_string()),
            fault = why(&mut gone) => fault,
        };
        tasks.shutdown().await;
        fault
    }

    async fn options(&self, tell_gone: watch::Sender<Option<Fault>>) -> Result<ConnectOptions, Fault> {
        let settings = &self.settings;
        let mut options = ConnectOptions::new();
        if settings.nkey {
            options = self.own_key();
        } else if let Some(path) = &settings.credentials {
            options = options
                .credentials_file(path)
                .await
                .map_err(|error| format!("{} holds no credentials of NATS: {error}", path.display()))?;
        } else if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
            options = options.user_and_password(user.clone(), password.0.clone());
        } else if let Some(token) = &settings.token {
            options = options.token(token.0.clone());
        }
        if let Some(ca) = &settings.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
            options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        let way = Arc::clone(&self.way.state);
        let tell = move |told| {
            let fault = match told {
                Told::Disconnected | Told::Closed => Some("the connection was lost".to_owned()),
                Told::ServerError(error) => Some(format!("the server says: {error}")),
                Told::LameDuckMode => Some("the server is about to stop".into()),
                // More came than was taken in.
                Told::SlowConsumer(_) => {
                    way.refused();
                    None
                }
                Told::Connected | Told::Draining | Told::ClientError(_) => None,
            };
            // The first is the cause of the others.
            tell_gone.send_if_modified(|gone| {
                let first = gone.is_none() && fault.is_some();
                if first {
                    *gone = fault;
                }
                first
            });
            std::future::ready(())
        };
        Ok(options
            .event_callback(tell)
            .name(format!("steadfast {}", self.host))
            .ping_interval(PING)
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .subscription_capacity(WAITING)
            // Each server once: then this client is done, and another is made.
            .max_reconnects(settings.url.0.len()))
    }

    /// With this host's key, by which its events are signed as well: what servers let it sign is no event.
    fn own_key(&self) -> ConnectOptions {
        let (seal, public) = (Arc::clone(&self.seal), nkey(&self.seal.identity().fingerprint()));
        ConnectOptions::with_auth_callback(move |nonce| {
            let mut auth = Auth::new();
            let words = is_nonce(&nonce);
            if words {
                auth.signature = Some(seal.identity().sign(&nonce).to_vec());
                auth.nkey = Some(public.clone());
            }
            let refused =
                "the server wants a signature below something else than a nonce; is it a server of NATS?";
            std::future::ready(if words { Ok(auth) } else { Err(AuthError::new(refused)) })
        })
    }

    async fn connect(bridge: &Arc<Self>, tell_gone: watch::Sender<Option<Fault>>) -> Result<Link, Fault> {
        let settings = &bridge.settings;
        let parse = |url: &String| url.parse::<ServerAddr>().map_err(|error| error.to_string());
        let servers = settings.url.0.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let options = bridge.options(tell_gone).await?;
        let client = options.connect(servers).await.map_err(|error| {
            let servers = settings.url.0.join(", ");
            format!(
                "cannot connect to {servers}: {}; check that a server runs there, and who may connect",
                chain(&error)
            )
        })?;
        if settings.jetstream {
            bridge.join_stream(client).await
        } else {
            let subject = format!("{}.>", settings.prefix.0);
            let all = client.subscribe(subject).await.map_err(|error| error.to_string())?;
            settle(&client).await?;
            Ok(Link::Plain { client, all })
        }
    }

    /// Finds or makes the stream, and this host's place in it.
    async fn join_stream(&self, client: Client) -> Result<Link, Fault> {
        let settings = &self.settings;
        let subjects = format!("{}.>", settings.prefix.0);
        let history = Duration::from_secs(3600) * settings.history.0;
        let builder = jetstream::ContextBuilder::new().timeout(ANSWER).ack_timeout(ANSWER);
        let context = builder.build(client.clone());
        let stream = stream::Config {
            name: settings.stream.0.clone(),
            description: Some("events of hosts that run Steadfast".into()),
            subjects: vec![subjects.clone()],
            max_age: history,
            max_bytes: i64::try_from(settings.history_bytes.0).unwrap_or(i64::MAX),
            num_replicas: settings.replicas.0.into(),
            ..stream::Config::default()
        };
        let stream = context.get_or_create_stream(stream).await.map_err(|error| {
            format!(
                "there is no stream {} and none can be made: {}; enable JetStream on the server, or write `jetstream = false`",
                settings.stream.0,
                chain(&error)
            )
        })?;
        let consumer = consumer::pull::Config {
            durable_name: Some(format!("steadfast-{}", self.seal.identity().fingerprint())),
            description: Some(format!("events for {}", self.host)),
            deliver_policy: consumer::DeliverPolicy::New,
            ack_policy: consumer::AckPolicy::Explicit,
            ack_wait: AGAIN,
            max_ack_pending: UNCONFIRMED,
            filter_subject: subjects,
            inactive_threshold: history,
            ..consumer::pull::Config::default()
        };
        let consumer = stream.create_consumer(consumer).await.map_err(|error| {
            let stream = &settings.stream.0;
            format!(
                "this host gets no place in the stream {stream}: {}; check what it is permitted",
                chain(&error)
            )
        })?;
        Ok(Link::Stream { client, context: Box::new(context), consumer: Box::new(consumer) })
    }
}

/// Waits until a server has dealt with everything that was said to it: a message to ourselves is behind it.
async fn settle(client: &Client) -> Result<(), Fault> {
    let subject = client.new_inbox();
    let mut back = client.subscribe(subject.clone()).await.map_err(|error| error.to_string())?;
    client.publish(subject, "".into()).await.map_err(|error| error.to_string())?;
    let came = tokio::time::timeout(ANSWER, receive::next(&mut back)).await;
    let came = came.map_err(|_| format!("the server did not answer within {ANSWER:?}"))?;
    came.map(|_| ()).ok_or_else(|| "the connection was lost".into())
}

async fn why(gone: &mut watch::Receiver<Option<Fault>>) -> Fault {
    let found = gone.wait_for(Option::is_some).await;
    found.ok().and_then(|fault| fault.clone()).unwrap_or_else(|| "the connection was lost".into())
}

fn readable(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.metadata().map(|_| ())
}

/// What servers let clients sign: a few letters. Nothing that this key signs elsewhere is that short.
fn is_nonce(bytes: &[u8]) -> bool {
    (1..=64).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// An error and its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
