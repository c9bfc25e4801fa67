//! One conversation with the daemon of another host: its greeting, what is sent, and what comes.

use std::collections::VecDeque;
use std::time::Duration;

use steadfast::{Bytes, Labels, MultiSocket};
use steadfast_backplane::exchange::{ENOUGH, MAX_EVENTS, Message, VERSION};
use steadfast_backplane::{Arrival, EventId, Incarnation};
use tokio::sync::{MutexGuard, watch};

use super::peer::Peer;
use crate::seal::Seal;
use crate::ways::Way;

/// How long the other side may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// Messages that are sent before the first of them was taken.
const WINDOW: usize = 16;

/// Why a conversation is over.
pub(super) type Fault = String;

/// Says who we are, and hears who the other side is.
pub(super) async fn greet(
    socket: &MultiSocket,
    run: Incarnation,
    opened: bool,
) -> Result<Incarnation, Fault> {
    let hello = || async {
        let sent = socket.send(Message::hello(run).encode(), Labels::foreground()).await;
        sent.map(|_| ()).map_err(|error| error.to_string())
    };
    if opened {
        hello().await?;
    }
    let heard = tokio::time::timeout(GREETING, recv(socket)).await;
    let heard =
        heard.map_err(|_| format!("it did not greet within {GREETING:?}; is another program there?"))?;
    let Message::Hello { version, run } = heard? else {
        return Err("it speaks of something else than events".into());
    };
    if !opened {
        hello().await?;
    }
    if version == VERSION {
        Ok(run)
    } else {
        Err(format!("it speaks version {version} and we {VERSION}; update the older of both"))
    }
}

async fn recv(socket: &MultiSocket) -> Result<Message, Fault> {
    let message = socket.recv().await.map_err(|error| error.to_string())?;
    let message = message.ok_or("it has ended the conversation")?;
    let payload: Bytes = message.payload().cloned().ok_or("it speaks of something else than events")?;
    Message::decode(payload).map_err(|error| format!("cannot understand what it says: {error}"))
}

/// Converses until something fails.
pub(super) async fn converse(peer: &Peer, seal: &Seal, socket: &MultiSocket) -> Fault {
    let taken = watch::Sender::new(0);
    let send = async {
        // Another conversation with the same host may be sending already.
        let _turn = Turn { way: &peer.way, _guard: peer.turn.lock().await };
        send(peer, seal, socket, taken.subscribe()).await
    };
    let follow = async {
        peer.follow(socket).await;
        // What it is about has ended, and that is told by the others.
        std::future::pending().await
    };
    tokio::select! {
        fault = send => fault,
        fault = receive(peer, socket, &taken) => fault,
        fault = follow => fault,
    }
}

/// The right to send what waits for a host. What is not confirmed at its end is left to the next.
struct Turn<'a> {
    way: &'a Way,
    _guard: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.way.interrupted();
    }
}

async fn send(peer: &Peer, seal: &Seal, socket: &MultiSocket, mut taken: watch::Receiver<u64>) -> Fault {
    // Messages that were not taken: their number, the place and id of the last event, and how many events they have.
    let mut flight: VecDeque<(u64, u64, EventId, u64)> = VecDeque::new();
    let mut last = 0;
    loop {
        let done = *taken.borrow_and_update();
        if done > last {
            return "it says that it has taken what was never sent".into();
        }
        while let Some((_, place, id, count)) = flight.front().copied().filter(|(number, ..)| *number <= done)
        {
            flight.pop_front();
            peer.way.confirmed(place, id, count);
        }
        let room = flight.len() < WINDOW;
        let first = tokio::select! {
            changed = taken.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return "the conversation has ended".into(),
            },
            first = peer.way.next(), if room => first,
        };
        let (mut events, mut size, mut through) = (Vec::new(), 0, (first.0, first.1.id));
        let mut next = Some(first);
        while let Some((place, event)) = next.take() {
            through = (place, event.id);
            if (peer.goes_out)(&event.space) {
                size += event.payload.bytes().len() + 512;
                events.push(seal.sign(&event));
            }
            if events.len() < MAX_EVENTS && size < ENOUGH {
                next = peer.way.poll();
            }
        }
        last += 1;
        let count = events.len() as u64;
        let message = Message::Events { number: last, events }.encode();
        if let Err(error) = socket.send(message, Labels::foreground()).await {
            return error.to_string();
        }
        flight.push_back((last, through.0, through.1, count));
    }
}

async fn receive(peer: &Peer, socket: &MultiSocket, taken: &watch::Sender<u64>) -> Fault {
    let mut stored = peer.way.hub.stored();
    let mut last = 0;
    loop {
        let message = match recv(socket).await {
            Ok(message) => message,
            Err(fault) => return fault,
        };
        match message {
            Message::Events { number, events } if number == last + 1 => {
                last = number;
                let mut place = 0;
                for event in events {
                    if (peer.comes_in)(&event.space) {
                        let arrival = Arrival { peer: Some(peer.key), verified: false };
                        place = peer.way.take_in(&event, arrival).await;
                    } else {
                        peer.way.state.refused();
                    }
                }
                if stored.wait_for(|stored| *stored >= place).await.is_err() {
                    return "the daemon ends".into();
                }
                if let Err(error) = socket.send(Message::Taken(number).encode(), Labels::foreground()).await {
                    return error.to_string();
                }
            }
            Message::Taken(number) => {
                taken.send_replace(number);
            }
            Message::Events { .. } | Message::Hello { .. } => {
                return "it says what does not follow from what it said before".into();
            }
        }
    }
}
