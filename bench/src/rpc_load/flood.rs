//! A hostile host on the same switch, and what it floods one of the others with.

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use steadfast::Bytes;
use steadfast::homa::{Incoming, Peer, RequestOptions, SendError};
use steadfast_fabric::workload::Rng;
use steadfast_testbed::Host;

use super::homa::{self, PORT};
use super::host::{RackHost, Report, material};
use crate::child::{Child, Console, tell};

/// Packets that are captured for a replay.
const CAPTURED: usize = 500;
const CAPTURE: Duration = Duration::from_secs(5);
/// Every protocol, in the order of the network.
const ALL: i32 = 0x0300;
const HEADERS: usize = 14 + 20 + 8;
/// A beat of what is sent as fast as the wire takes it.
const BEAT: Duration = Duration::from_millis(1);
const LONGEST: usize = 1400;
/// Requests of the greatest length at a time.
const GREED: usize = 64;

/// What the hostile host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Flood {
    /// Random bytes to the transport's port, as fast as its wire takes them.
    Random,
    /// The same, beginning as packets begin that the victim has keys for.
    Forged,
    /// Packets of others that were captured, over and over.
    Replayed,
    /// As a trusted peer: requests of the greatest length, 64 at a time.
    Greedy,
}

#[derive(Debug, Serialize, Deserialize)]
enum Attack {
    Send { target: SocketAddr, packets: Vec<Vec<u8>>, rate: u64, random_from: usize },
    Greed,
}

/// The hostile host, seen from the conductor.
pub(crate) struct Conductor {
    child: Child,
    flood: Flood,
    target: SocketAddr,
    rate: u64,
}

impl Conductor {
    pub(crate) const fn new(child: Child, flood: Flood, target: SocketAddr, rate: u64) -> Self {
        Self { child, flood, target, rate }
    }

    /// Begins, with what is captured at the victim if that is wanted.
    pub(crate) fn begin(&mut self, victim: &Host, port: u16) -> anyhow::Result<()> {
        let (packets, random_from) = match self.flood {
            Flood::Greedy => return self.child.order(&Attack::Greed),
            Flood::Random => (vec![vec![0; LONGEST]], 0),
            // What stands in the clear is left as it is, the rest is not what was sealed.
            Flood::Forged => (capture(victim, port)?, 16),
            Flood::Replayed => (capture(victim, port)?, usize::MAX),
        };
        self.child.order(&Attack::Send { target: self.target, packets, rate: self.rate, random_from })
    }
}

/// Packets that come to a host's port.
fn capture(victim: &Host, port: u16) -> anyhow::Result<Vec<Vec<u8>>> {
    let socket = victim.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL))))?;
    socket.set_read_timeout(Some(CAPTURE))?;
    let (mut packets, mut frame) = (Vec::new(), vec![0; 2048]);
    let until = Instant::now() + CAPTURE;
    while packets.len() < CAPTURED && Instant::now() < until {
        let length = (&socket).read(&mut frame).context("cannot capture packets at the victim")?;
        let frame = &frame[..length];
        let is_udp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
        if is_udp && frame.get(36..38) == Some(&port.to_be_bytes()) && length > HEADERS {
            packets.push(frame[HEADERS..].to_vec());
        }
    }
    if packets.is_empty() {
        bail!("no packet came to the victim that could be captured");
    }
    Ok(packets)
}

/// The process of the hostile host.
pub(crate) async fn hostile(part: RackHost, console: &mut Console) -> anyhow::Result<()> {
    let (_endpoint, homa, peers) = homa::open(part.rate, console).await?;
    let port = homa.open(None)?;
    tell(&Report::Ready);
    match console.hear().await? {
        Attack::Greed => greed(&port, &peers[0]).await,
        Attack::Send { target, packets, rate, random_from } => {
            thread::spawn(move || send(target, packets, rate, random_from));
            let _conductor_ends: Attack = console.hear().await?;
            Ok(())
        }
    }
}

async fn greed(port: &steadfast::homa::Port, victim: &Peer) -> anyhow::Result<()> {
    let material = Bytes::from(material());
    let mut open = 0;
    loop {
        while open < GREED {
            match port.send(victim, PORT, material.clone(), 0, RequestOptions::default()) {
                Ok(()) => open += 1,
                Err(SendError::Full { .. } | SendError::TooMany { .. }) if open > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(Incoming::Done { .. }) = port.recv().await {
            open -= 1;
        }
    }
}

/// As fast as the wire takes them, without an end.
fn send(target: SocketAddr, mut packets: Vec<Vec<u8>>, rate: u64, random_from: usize) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut rng = Rng::new(7);
    let (start, mut sent) = (Instant::now(), 0);
    for at in (0..packets.len()).cycle() {
        let packet = &mut packets[at];
        for byte in packet.iter_mut().skip(random_from) {
            *byte = rng.next() as u8;
        }
        let length = if random_from == 0 { 1 + rng.below(LONGEST as u64) as usize } else { packet.len() };
        // What does not go is lost, as what the wire does not take.
        let _lost = socket.send_to(&packet[..length], target);
        sent += (length + HEADERS) as u64 * 8;
        while sent as f64 / rate as f64 > start.elapsed().as_secs_f64() {
            thread::sleep(BEAT);
        }
    }
    Ok(())
}
