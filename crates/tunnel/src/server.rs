//! The side that connects to targets.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steadfast::{Fingerprint, MultiSocket, Stream, Streams};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::event::{Connection, Counters, Event, Monitor, Parking};
use crate::message::{self, Answer};
use crate::relay::{Broken, LEFT_BEHIND, Side, Tcp, relay};
use crate::target::{AllowList, Target};
use crate::{MAX_CONNECTIONS, MAX_OF_A_PEER};

/// How long a target may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// How many connections each peer has; those that have none are not in it.
#[derive(Debug, Default)]
struct Room {
    taken: Mutex<HashMap<Fingerprint, usize>>,
}

/// Room for one connection, given back when it is dropped.
struct Place {
    room: Arc<Room>,
    peer: Fingerprint,
}

impl Room {
    /// Takes a place, or says why there is none.
    fn take(self: &Arc<Self>, peer: Fingerprint) -> Result<Place, String> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(&peer).is_some_and(|of_peer| *of_peer >= MAX_OF_A_PEER) {
            return Err(format!(
                "it carries {MAX_OF_A_PEER} connections of this peer already, and no more of one peer; close some, or try later"
            ));
        }
        if taken.values().sum::<usize>() >= MAX_CONNECTIONS {
            return Err(format!("it has {MAX_CONNECTIONS} connections already; close some, or try later"));
        }
        *taken.entry(peer).or_default() += 1;
        Ok(Place { room: Arc::clone(self), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Connects to what is allowed, for whoever it is given a conversation with.
#[derive(Debug, Clone)]
pub struct Server {
    allowed: Arc<AllowList>,
    counters: Arc<Counters>,
    room: Arc<Room>,
    monitor: Monitor,
}

impl Server {
    /// Connects to these targets only.
    pub fn new(allowed: AllowList, monitor: Monitor) -> Self {
        Self { allowed: Arc::new(allowed), counters: Arc::default(), room: Arc::default(), monitor }
    }

    /// What all connections come to.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a conversation to its end. Cancelling breaks its connections.
    pub async fn serve(&self, socket: MultiSocket) {
        let peer = socket.peer();
        self.monitor.tell(Event::Connected { peer });
        let (mut parking, mut events) = (Parking::new(peer), socket.events());
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
                Some(event) = events.next() => parking.hear(&event, &self.monitor),
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

    async fn connection(self, stream: Stream, mut connection: Connection, peer: Fingerprint) {
        let (mut read, mut write) = stream.into_split();
        let asked = message::asked(&mut read).await;
        let target = asked.as_ref().ok().and_then(|asked| asked.as_ref().ok());
        connection.target = target.map(ToString::to_string);
        self.monitor.tell(Event::Opened {
            connection: connection.number,
            peer,
            target: connection.target.clone(),
            from: None,
        });
        let target = match asked {
            Ok(target) => target,
            Err(error) => {
                connection.reason = Some(error.to_string());
                return;
            }
        };
        let _place = match Room::take(&self.room, peer) {
            Ok(place) => place,
            Err(words) => return refuse(write, &mut connection, words).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_peer_takes_all_places() {
        let key = |byte| Fingerprint([byte; 32]);
        let room = Arc::new(Room::default());
        let mut places = Vec::new();
        for peer in 0..4 {
            for _ in 0..MAX_OF_A_PEER {
                places.push(Room::take(&room, key(peer)).ok().unwrap());
            }
            let words = Room::take(&room, key(peer)).err().unwrap();
            assert!(words.contains("128 connections of this peer"), "{words}");
        }
        let words = Room::take(&room, key(9)).err().unwrap();
        assert!(words.contains("512 connections already"), "{words}");
        drop(places.pop());
        places.push(Room::take(&room, key(9)).ok().unwrap());
        drop(places);
        assert!(room.taken.lock().unwrap().is_empty());
    }
}
