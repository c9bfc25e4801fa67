//! Whom a transport can call: an address, or a key that is kept in reach.

use super::engine::{Engine, Handle};
use super::error::HomaError;
use super::machine::Machine;
use super::peers::round_of;
use crate::events::Scope;
use crate::lock;
use crate::receipt::wait_until;
use crate::rpc::Callee;
use crate::verdict::{Standing, Verdicts};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use steadfast_session::{AssociationId, Event, Judgement, ReachId};
use steadfast_wire::{Fingerprint, Instant};

/// Who is called.
#[derive(Clone)]
pub(super) enum Target {
    Address(SocketAddr),
    Reach(Arc<Reached>),
}

/// Another process that can be called over Homa. A cheap handle. Where the peer is a key, it is kept in reach until the
/// last one is dropped: its paths are kept open, and opened again.
#[derive(Clone)]
pub struct Peer {
    pub(super) handle: Arc<Handle>,
    target: Target,
}

/// A key that is kept in reach.
pub(super) struct Reached {
    engine: Arc<Engine>,
    pub(super) key: Fingerprint,
    addresses: Vec<SocketAddr>,
    state: Mutex<State>,
    /// As what it is, or was last, to be in reach: for who wants to hear of it.
    current: Arc<Mutex<Option<ReachId>>>,
}

struct State {
    reach: Option<ReachId>,
    /// The process that answers now.
    association: Option<AssociationId>,
    /// It runs, but takes no offers.
    refuses: bool,
    /// It is not sought any more.
    gone: bool,
    /// What was last known of it.
    judgement: Option<Judgement>,
}

impl Reached {
    fn new(engine: &Arc<Engine>, key: Fingerprint, addresses: Vec<SocketAddr>) -> Arc<Self> {
        let state = State { reach: None, association: None, refuses: false, gone: true, judgement: None };
        let (engine, state, current) = (Arc::clone(engine), Mutex::new(state), Arc::default());
        let reached = Arc::new(Self { engine, key, addresses, state, current });
        reached.seek();
        reached
    }

    /// Seeks it, if it is not sought.
    fn seek(self: &Arc<Self>) {
        let Some(shared) = &self.engine.shared else { return };
        // Entered before its events can come: they are told after the call, under no lock.
        shared.call(|inner, now| {
            let mut state = lock(&self.state);
            if !state.gone {
                return;
            }
            let reach = inner.core.reach(now, self.key, &self.addresses);
            let judgement = state.judgement.take();
            *state = State { reach: Some(reach), association: None, refuses: false, gone: false, judgement };
            *lock(&self.current) = Some(reach);
            lock(&self.engine.reaches).insert(reach, Arc::downgrade(self));
        });
    }

    pub(super) fn association(&self) -> Option<AssociationId> {
        lock(&self.state).association
    }

    /// What is known of its process; of one that is not sought any more, what was known last.
    fn standing(&self) -> Standing {
        let (reach, last) = {
            let state = lock(&self.state);
            (state.reach.filter(|_| !state.gone), state.judgement.clone())
        };
        let Some(shared) = &self.engine.shared else { return Standing::new(last, Instant(0)) };
        let (now, known) =
            shared.peek(|inner, now| (now, reach.and_then(|reach| inner.core.verdict_at(reach))));
        Standing::new(known.or(last), now)
    }

    /// Waits until requests can be made. Cancel safe.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), HomaError> {
        self.seek();
        wait_until(&self.engine.changed, || {
            if lock(&self.engine.machine).closed {
                return Some(Err(HomaError::Closed));
            }
            let (association, refuses) = {
                let state = lock(&self.state);
                (state.association, state.refuses)
            };
            if refuses {
                return Some(Err(HomaError::NotOffered { peer: self.key.to_string() }));
            }
            let association = association?;
            lock(&self.engine.machine).peers.is_ready(association).then_some(Ok(()))
        })
        .await
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        let Some(reach) = lock(&self.state).reach else { return };
        lock(&self.engine.reaches).remove(&reach);
        if let Some(shared) = &self.engine.shared {
            shared.call(|inner, now| inner.core.unreach(now, reach));
        }
    }
}

impl Peer {
    pub(super) fn at(handle: Arc<Handle>, address: SocketAddr) -> Self {
        Self { handle, target: Target::Address(address) }
    }

    pub(super) async fn reach(
        handle: Arc<Handle>,
        key: Fingerprint,
        addresses: Vec<SocketAddr>,
        limit: Duration,
    ) -> Result<Self, HomaError> {
        let reached = Reached::new(&handle.engine, key, addresses);
        let Ok(ready) = tokio::time::timeout(limit, reached.ready()).await else {
            if reached.association().is_some() {
                return Err(HomaError::NotOffered { peer: key.to_string() });
            }
            let addresses: Vec<_> = reached.addresses.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(", ");
            return Err(crate::ConnectError::Unreachable { peer: key, addresses, limit }.into());
        };
        ready?;
        Ok(Self { handle, target: Target::Reach(reached) })
    }

    /// Its key; none if it is an address.
    pub fn key(&self) -> Option<Fingerprint> {
        match &self.target {
            Target::Address(_) => None,
            Target::Reach(reached) => Some(reached.key),
        }
    }

    /// Whether requests can be made to it now.
    pub fn is_in_reach(&self) -> bool {
        match &self.target {
            Target::Address(_) => true,
            Target::Reach(reached) => {
                reached.association().is_some_and(|id| lock(&self.handle.engine.machine).peers.is_ready(id))
            }
        }
    }

    /// Waits until requests can be made to it. Cancel safe.
    pub async fn in_reach(&self) -> Result<(), HomaError> {
        match &self.target {
            Target::Address(_) => Ok(()),
            Target::Reach(reached) => reached.ready().await,
        }
    }

    /// What is known of its process: why it does not answer, or that it does. Of an address nothing is
    /// ([`Unknown`](crate::Verdict::Unknown)): what became of each call is all that can be told.
    pub fn verdict(&self) -> Standing {
        match &self.target {
            Target::Address(_) => Standing::new(None, Instant(0)),
            Target::Reach(reached) => reached.standing(),
        }
    }

    /// The changes of [`verdict`](Self::verdict) from now on; none on an address.
    pub fn verdicts(&self) -> Verdicts {
        let source = match (&self.target, &self.handle.engine.shared) {
            (Target::Reach(reached), Some(shared)) => {
                let scope = Scope::Reach(Arc::clone(&reached.current));
                Some((shared.hub.subscribe(scope, shared.is_closed()), Arc::clone(shared)))
            }
            _ => None,
        };
        Verdicts::of_peer(source, self.clone())
    }

    pub(super) fn callee(&self) -> Callee {
        let standing = self.key().map(|_| self.verdict());
        Callee { peer: self.name(), standing }
    }

    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn name(&self) -> String {
        match &self.target {
            Target::Address(address) => address.to_string(),
            Target::Reach(reached) => reached.key.to_string(),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.name())
    }
}

impl Engine {
    /// What the session core says of processes.
    pub(crate) fn hear(self: &Arc<Self>, event: Event) {
        match event {
            Event::Reached { reach, association, offers } => {
                let reached = lock(&self.reaches).get(&reach).and_then(Weak::upgrade);
                if let Some(reached) = reached {
                    {
                        let mut state = lock(&reached.state);
                        state.association = Some(association);
                        state.refuses = !offers;
                    }
                    if offers {
                        self.offer_to((association, reached.key), 1);
                        self.reroute(association);
                    }
                }
            }
            Event::Offered { association, peer, offer } if !offer.is_empty() => {
                let Some(round) = round_of(&offer) else {
                    tracing::debug!(%peer, "an offer that is not understood here");
                    return;
                };
                // Answered in its round, unless ours is of that or a later one.
                self.offer_to((association, peer), round);
                let later = self.with(|machine, _| {
                    let Machine { transport, peers, .. } = machine;
                    peers.offered(transport, association, &offer)
                });
                if let Some(later) = later {
                    self.offer_to((association, peer), later);
                }
                self.reroute(association);
            }
            Event::Offered { association, peer, .. } => {
                self.end(association);
                // Its process lives on and may open its transport again: what was agreed on does not count then.
                if self.seekers_of(association).is_empty() {
                    if let Some(shared) = &self.shared {
                        shared.call(|inner, now| inner.offer(now, self.turn, association, Bytes::new()));
                    }
                } else {
                    self.offer_to((association, peer), 1);
                }
            }
            Event::Dissociated { association } => {
                for reached in self.seekers_of(association) {
                    lock(&reached.state).association = None;
                }
                self.end(association);
            }
            Event::Unreached { reach } => {
                let reached = lock(&self.reaches).remove(&reach).and_then(|reached| reached.upgrade());
                if let Some(reached) = reached {
                    let mut state = lock(&reached.state);
                    state.association = None;
                    state.gone = true;
                }
            }
            Event::Verdict { reaches, judgement, .. } => {
                for reach in reaches {
                    let reached = lock(&self.reaches).get(&reach).and_then(Weak::upgrade);
                    if let Some(reached) = reached {
                        lock(&reached.state).judgement = Some(judgement.clone());
                    }
                }
                return;
            }
            Event::Rerouted { association } => self.reroute(association),
            _ => return,
        }
        self.changed.notify_waiters();
    }

    /// What is to be kept in reach.
    pub(super) fn seekers(&self) -> Vec<Arc<Reached>> {
        // Dropping the last of one enters the same map.
        lock(&self.reaches).values().filter_map(Weak::upgrade).collect()
    }

    /// Who keeps a process in reach.
    fn seekers_of(&self, association: AssociationId) -> Vec<Arc<Reached>> {
        self.seekers().into_iter().filter(|reached| reached.association() == Some(association)).collect()
    }

    /// Tells what was offered before there was this transport. A former one of this process may have used it, and must not be
    /// followed in that: nothing may be sealed twice with one secret and counter. So it is only answered, in a later round.
    pub(crate) fn hear_former(self: &Arc<Self>, association: AssociationId, peer: Fingerprint, offer: &[u8]) {
        if let Some(round) = round_of(offer) {
            self.offer_to((association, peer), round.saturating_add(1));
            self.reroute(association);
        }
    }

    /// What was agreed on with a process is void.
    fn end(self: &Arc<Self>, association: AssociationId) {
        self.with(|machine, _| {
            let Machine { transport, peers, .. } = machine;
            peers.end(transport, association);
        });
    }

    /// Says where we receive and what to seal with, once in a round to each process.
    pub(super) fn offer_to(self: &Arc<Self>, whom: (AssociationId, Fingerprint), round: u32) {
        let mut ports = [0; 2];
        for address in self.addresses() {
            ports[usize::from(address.is_ipv6())] = address.port();
        }
        let offer = self.with(|machine, _| {
            let Machine { transport, peers, closed, .. } = machine;
            // While quiesced there is nowhere to receive.
            if *closed || ports == [0; 2] { None } else { peers.offer(transport, whom, round, ports) }
        });
        if let (Some(offer), Some(shared)) = (offer, &self.shared) {
            shared.call(|inner, now| inner.offer(now, self.turn, whom.0, offer.into()));
        }
    }
}
