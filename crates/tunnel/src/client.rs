//! The side that programs connect to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use steadfast::{ConnectError, Endpoint, Fingerprint, Labels, MultiSocket, Streams};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::MAX_CONNECTIONS;
use crate::event::{Connection, Counters, Event, Monitor, Parking};
use crate::message;
use crate::relay::{Broken, Side, Tcp, relay};
use crate::target::Target;

/// Pauses before a lost conversation is opened again: the first, and the longest.
const PAUSE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// How long no connection is taken after the system refused one, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections to one address here, carried under the same labels to one target there.
#[derive(Debug, Clone)]
pub struct Forward {
    listener: Arc<TcpListener>,
    target: Target,
    labels: Labels,
    counters: Arc<Counters>,
}

impl Forward {
    /// Takes connections from a listener.
    pub fn new(listener: TcpListener, target: Target, labels: Labels) -> Self {
        Self { listener: Arc::new(listener), target, labels, counters: Arc::default() }
    }

    /// Where programs connect to.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where their connections go.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The labels of their connections.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What its connections come to.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// Why a client does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientFailure {
    /// The first conversation did not come about, or a later one was refused.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The endpoint was closed.
    #[error("the endpoint is closed: make a new one")]
    Closed,
}

/// Carries the connections of programs.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    peer: steadfast::Target,
    forwards: Vec<Forward>,
    monitor: Monitor,
    /// Connections that may be open; the others wait in the system's queues.
    room: Arc<Semaphore>,
}

/// What one connection needs.
#[derive(Clone)]
struct Carrying {
    forward: Forward,
    streams: Streams,
    monitor: Monitor,
    peer: Fingerprint,
}

impl Client {
    /// Carries these connections to `peer`.
    pub fn new(
        endpoint: Endpoint,
        peer: steadfast::Target,
        forwards: Vec<Forward>,
        monitor: Monitor,
    ) -> Self {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { endpoint, peer, forwards, monitor, room }
    }

    /// Runs until nothing can come of it: the first conversation does not come about, or the peer refuses a later one.
    ///
    /// A conversation that ends, as when the other side was started anew, breaks its connections and is opened again;
    /// meanwhile new connections wait. Cancelling breaks all connections.
    pub async fn run(&self) -> Result<(), ClientFailure> {
        let mut socket = self.endpoint.connect(self.peer.clone()).await?;
        loop {
            let peer = socket.peer();
            self.monitor.tell(Event::Connected { peer });
            let words = self.carry(socket).await;
            self.monitor.tell(Event::Lost { peer, words });
            socket = self.connect_again().await?;
        }
    }

    async fn connect_again(&self) -> Result<MultiSocket, ClientFailure> {
        let [mut pause, longest] = PAUSE;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(longest);
            let error = match self.endpoint.connect(self.peer.clone()).await {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            match error {
                ConnectError::Unreachable { .. } | ConnectError::Resolve(_) | ConnectError::Ended { .. } => {
                    self.monitor.tell(Event::Waiting { words: error.to_string() });
                }
                other => return Err(other.into()),
            }
        }
    }

    /// Carries connections until the conversation ends; why it did.
    async fn carry(&self, socket: MultiSocket) -> String {
        let peer = socket.peer();
        let (mut parking, mut events) = (Parking::new(peer), socket.events());
        let streams = Streams::new(socket);
        let mut listening = JoinSet::new();
        for forward in &self.forwards {
            let (forward, streams, monitor) = (forward.clone(), streams.clone(), self.monitor.clone());
            let carrying = Carrying { forward, streams, monitor, peer };
            listening.spawn(carrying.listen(Arc::clone(&self.room)));
        }
        loop {
            tokio::select! {
                stream = streams.accept() => match stream {
                    // Nobody may open a way into this side.
                    Ok(Some(stream)) => drop(stream),
                    Ok(None) => return "the other side ended it".into(),
                    Err(error) => return error.to_string(),
                },
                Some(event) = events.next() => parking.hear(&event, &self.monitor),
            }
        }
    }
}

impl Carrying {
    async fn listen(self, room: Arc<Semaphore>) {
        let mut connections = JoinSet::new();
        loop {
            let Ok(room) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.forward.listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let Ok((tcp, from)) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let carrying = self.clone();
            connections.spawn(async move {
                carrying.connection(tcp, from).await;
                drop(room);
            });
        }
    }

    async fn connection(self, tcp: TcpStream, from: SocketAddr) {
        let Self { forward, streams, monitor, peer } = self;
        let mut connection = monitor.connection(&forward.counters);
        connection.target = Some(forward.target.to_string());
        monitor.tell(Event::Opened {
            connection: connection.number,
            peer,
            target: connection.target.clone(),
            from: Some(from),
        });
        let result = carry(tcp, &forward, &streams, &connection).await;
        connection.reason = result.err().map(|broken| broken.to_string());
    }
}

async fn carry(
    tcp: TcpStream,
    forward: &Forward,
    streams: &Streams,
    connection: &Connection,
) -> Result<(), Broken> {
    let tcp = Tcp::new(tcp);
    let opened = async {
        let stream = streams.open(forward.labels.clone()).await.map_err(std::io::Error::other)?;
        let (read, mut write) = stream.into_split();
        message::ask(&forward.target, &mut write).await?;
        Ok((read, write))
    };
    let stream = opened.await.map_err(Broken::Stream)?;
    relay(tcp, stream, Side::Client, connection).await
}
