//! Requests over Homa.

use std::collections::BTreeSet;

use anyhow::Context;
use steadfast::homa::{Config, Homa, HomaConfig, Incoming, Outcome, Peer, Port, RequestOptions, SendError};
use steadfast::{Bytes, Endpoint, Identity};

use super::host::{ANSWER, Counters, Ended, Order, Report, Sender, material};
use crate::child::{Console, tell};
use crate::systems::endpoint::builder;

/// What every host serves.
pub(crate) const PORT: u16 = 1;
/// What the network holds in a round trip, and how much of that may be on its way to one host.
const UNSCHEDULED: u32 = 10_000;
const MAX_INCOMING: u32 = 80_000;
/// Messages taken at once.
const BATCH: usize = 64;

pub(crate) struct OverHoma {
    port: Port,
    peers: Vec<Peer>,
    material: Bytes,
    /// What there was no room for, as length, number and to whom: the shortest first, as Homa itself has them.
    waiting: BTreeSet<(u32, u64, usize)>,
    taken: Vec<Incoming>,
    homa: Homa,
    _endpoint: Endpoint,
}

pub(crate) fn config(rate: u64) -> HomaConfig {
    let mut transport: Config = HomaConfig::default().transport;
    transport.unscheduled = UNSCHEDULED;
    transport.max_incoming = MAX_INCOMING;
    transport.grant_fifo_increment = UNSCHEDULED;
    HomaConfig::default().transport(transport).link_rate(rate)
}

/// An endpoint that trusts whom it is told to, and its transport.
pub(crate) async fn open(rate: u64, console: &mut Console) -> anyhow::Result<(Endpoint, Homa, Vec<Peer>)> {
    let identity = Identity::generate()?;
    tell(&Report::Key(identity.fingerprint().to_string()));
    let Order::Trust(keys) = console.hear().await? else { anyhow::bail!("expected keys") };
    let mut builder = builder(identity, false);
    for key in keys {
        builder = builder.trust(key.parse().context("a key makes no sense")?);
    }
    let endpoint = builder.bind().await?;
    let homa = endpoint.homa_with(config(rate))?;
    tell(&Report::Contact { contact: endpoint.contact(), port: homa.local_addr().port() });
    let Order::Meet(contacts) = console.hear().await? else { anyhow::bail!("expected contacts") };
    let mut peers = Vec::new();
    for contact in contacts {
        peers.push(homa.connect(contact).await?);
    }
    Ok((endpoint, homa, peers))
}

pub(crate) async fn meet(rate: u64, console: &mut Console) -> anyhow::Result<OverHoma> {
    let (endpoint, homa, peers) = open(rate, console).await?;
    let port = homa.open(Some(PORT))?;
    let (material, waiting, taken) = (material().into(), BTreeSet::new(), Vec::new());
    Ok(OverHoma { port, peers, material, waiting, taken, homa, _endpoint: endpoint })
}

impl OverHoma {
    fn try_send(&self, (length, number, to): (u32, u64, usize)) -> Result<(), SendError> {
        let body = self.material.slice(..length as usize);
        self.port.send(&self.peers[to], PORT, body, number, RequestOptions::default())
    }

    fn send_waiting(&mut self) -> anyhow::Result<()> {
        let mut sent = Vec::new();
        for next in &self.waiting {
            match self.try_send(*next) {
                Ok(()) => sent.push(*next),
                // Of another peer there may be room.
                Err(SendError::Full { .. }) => {}
                Err(SendError::TooMany { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting.retain(|next| !sent.contains(next));
        Ok(())
    }
}

impl Sender for OverHoma {
    fn send(&mut self, to: usize, length: u32, number: u64) -> anyhow::Result<()> {
        self.waiting.insert((length, number, to));
        self.send_waiting()
    }

    fn counters(&self) -> Counters {
        let metrics = self.homa.metrics();
        let mut counters = Counters::default();
        metrics.visit(|name, value| match name {
            "packets_sent_RESEND" => counters.asked = value,
            "resent_bytes" => counters.resent_bytes = value,
            "discarded_bytes" => counters.discarded_bytes = value,
            _ => {}
        });
        counters
    }

    async fn done(&mut self, ended: &mut Vec<Ended>) -> anyhow::Result<()> {
        self.port.recv_batch(&mut self.taken, BATCH).await;
        let mut answers = Vec::new();
        for incoming in self.taken.drain(..) {
            match incoming {
                Incoming::Request { id, .. } => answers.push((id, Bytes::from_static(&ANSWER))),
                Incoming::Done { cookie, outcome: Outcome::Delivered, .. } => ended.push((cookie, Ok(()))),
                Incoming::Done { cookie, outcome, .. } => ended.push((cookie, Err(format!("{outcome:?}")))),
                _ => {}
            }
        }
        // A client that gave up needs no answer.
        let _gone = self.port.respond_all(answers);
        self.send_waiting()
    }
}
