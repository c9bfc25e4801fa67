//! Requests over Homa.

use std::collections::VecDeque;

use anyhow::Context;
use steadfast::homa::{Config, Homa, HomaConfig, Incoming, Outcome, Peer, Port, RequestOptions, SendError};
use steadfast::{Bytes, Endpoint, Identity};

use super::host::{ANSWER, Ended, Order, Report, Sender, material};
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
    /// What there was no room for.
    waiting: VecDeque<(usize, u32, u64)>,
    taken: Vec<Incoming>,
    _homa: Homa,
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
    let (material, waiting, taken) = (material().into(), VecDeque::new(), Vec::new());
    Ok(OverHoma { port, peers, material, waiting, taken, _homa: homa, _endpoint: endpoint })
}

impl OverHoma {
    fn try_send(&self, (to, length, number): (usize, u32, u64)) -> Result<(), SendError> {
        let body = self.material.slice(..length as usize);
        self.port.send(&self.peers[to], PORT, body, number, RequestOptions::default())
    }

    fn send_waiting(&mut self) -> anyhow::Result<()> {
        while let Some(next) = self.waiting.front() {
            match self.try_send(*next) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(SendError::TooMany { .. } | SendError::Full { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Sender for OverHoma {
    fn send(&mut self, to: usize, length: u32, number: u64) -> anyhow::Result<()> {
        self.waiting.push_back((to, length, number));
        self.send_waiting()
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
