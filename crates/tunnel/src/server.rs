//! The side that connects to targets.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use steadfast::{MultiSocket, Stream, Streams};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::MAX_CONNECTIONS;
use crate::event::{Connection, Counters, Event, Monitor};
use crate::message::{self, Answer};
use crate::relay::{Broken, LEFT_BEHIND, Side, Tcp, relay};
use crate::target::{AllowList, Target};

/// How long a target may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Connects to what is allowed, for whoever it is given a conversation with.
#[derive(Debug, Clone)]
pub struct Server {
    allowed: Arc<AllowList>,
    counters: Arc<Counters>,
    room: Arc<Semaphore>,
    monitor: Monitor,
}

impl Server {
    /// Connects to these targets only.
    pub fn new(allowed: AllowList, monitor: Monitor) -> Self {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { allowed: Arc::new(allowed), counters: Arc::default(), room, monitor }
    }

    /// What all connections come to.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a conversation to its end. Cancelling breaks its connections.
    pub async fn serve(&self, socket: MultiSocket) {
        let peer = socket.peer();
        self.monitor.tell(Event::Connected { peer });
        let streams = Streams::new(socket);
        let mut connections = JoinSet::new();
        let words = loop {
            tokio::select! {
                stream = streams.accept() => match stream {
                    Ok(Some(stream)) => {
                        let connection = self.monitor.connection(&self.counters);
                        connections.spawn(self.clone().connection(stream, connection, peer));
                    }
                    Ok(None) => break "the other side ended it".to_owned(),
                    Err(error) => break error.to_string(),
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        };
        // Those that are left learn it from their streams, or have an end left to bring to their target.
        let left = async { while connections.join_next().await.is_some() {} };
        if timeout(LEFT_BEHIND, left).await.is_err() {
            connections.shutdown().await;
        }
        self.monitor.tell(Event::Lost { peer, words });
    }

    async fn connection(self, stream: Stream, mut connection: Connection, peer: steadfast::Fingerprint) {
        let (mut read, mut write) = stream.into_split();
        let asked = message::asked(&mut read).await;
        let target = asked.as_ref().ok().and_then(|asked| asked.as_ref().ok());
        self.monitor.tell(Event::Opened {
            connection: connection.number,
            peer,
            target: target.map(ToString::to_string),
            from: None,
        });
        let target = match asked {
            Ok(target) => target,
            Err(error) => {
                connection.reason = Some(error.to_string());
                return;
            }
        };
        let Ok(_room) = self.room.try_acquire() else {
            let words = format!("it has {MAX_CONNECTIONS} connections already; close some, or try later");
            return refuse(write, &mut connection, words).await;
        };
        let tcp = match target {
            Ok(target) => self.connect(&target).await,
            Err(words) => Err(words),
        };
        let tcp = match tcp {
            Ok(tcp) => tcp,
            Err(words) => return refuse(write, &mut connection, words).await,
        };
        let tcp = Tcp::new(tcp);
        let result = match Answer::Connected.write(&mut write).await {
            Ok(()) => relay(tcp, (read, write), Side::Server, &connection).await,
            Err(error) => Err(Broken::Stream(error)),
        };
        connection.reason = result.err().map(|broken| broken.to_string());
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, String> {
        if !self.allowed.allows(target) {
            return Err(format!("{target} is not allowed there; `--allow {target}` on that side allows it"));
        }
        let addresses = tokio::net::lookup_host((target.host(), target.port()));
        let connected = timeout(CONNECT_LIMIT, async {
            let addresses: HashSet<_> = addresses.await?.collect();
            let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(tcp) => return Ok(tcp),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        });
        match connected.await {
            Ok(Ok(tcp)) => Ok(tcp),
            Ok(Err(error)) => {
                Err(format!("{target} cannot be reached from there: {error}; check that it listens"))
            }
            Err(_) => Err(format!("{target} did not answer within {CONNECT_LIMIT:?}; check that it runs")),
        }
    }
}

/// Says why nothing comes of it.
async fn refuse(mut write: steadfast::StreamWriter, connection: &mut Connection, words: String) {
    let answer = Answer::Refused(words.clone());
    // Who is gone does not need to know.
    let _gone = answer.write(&mut write).await;
    let _gone = write.shutdown().await;
    connection.reason = Some(words);
}
