//! Sessions from a journal.

use super::Endpoint;
use crate::association::Association;
use crate::config::{Ordering, SessionConfig};
use crate::journal::{JournalEntry, Record};
use crate::session::{Join, Session};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use steadfast_wire::frame::Process;
use steadfast_wire::{Instant, MessageId, SessionId};

impl Endpoint {
    /// Puts back the sessions of a journal's confirmed prefix, in order. They are parked until a path to their peer
    /// is there. Call it on a new endpoint, before anything else.
    ///
    /// Streamed messages do not survive their sender: those without an outcome are dropped, if the receiver agrees. Of
    /// whole messages everything comes back that their sends and [`relabel`](Self::relabel) said, except how long they
    /// may be without a network: they wait for ever. Lifetimes count anew.
    ///
    /// All other wishes the application says again: [`configure`](Self::configure) for the limits of a parked session,
    /// [`set_failure_timeout`](Self::set_failure_timeout), [`set_redundancy`](Self::set_redundancy) and
    /// [`defer`](Self::defer), [`add_address`](Self::add_address) for addresses that were not known when the session was
    /// opened, and [`close`](Self::close) where it was closing. Sessions that nobody had accepted count as accepted.
    pub fn restore(&mut self, now: Instant, journal: impl IntoIterator<Item = JournalEntry>) {
        let mut sessions: BTreeMap<SessionId, (Session, Record)> = BTreeMap::new();
        for JournalEntry { session: id, record, .. } in journal {
            match record {
                Record::Opened { opener, per_urgency, .. } => {
                    let ordering = if per_urgency { Ordering::PerUrgency } else { Ordering::Total };
                    let config = SessionConfig { ordering, ..SessionConfig::default() };
                    let session = Session::new(&self.cx, id, opener, config);
                    sessions.insert(id, (session, record));
                }
                Record::Ended => {
                    sessions.remove(&id);
                }
                record => {
                    if let Some((session, _)) = sessions.get_mut(&id) {
                        replay(now, session, record);
                    }
                }
            }
        }
        for (id, (mut session, opened)) in sessions {
            let Record::Opened { peer, incarnation, addresses, .. } = opened else { continue };
            session.out.restored(&mut self.cx);
            session.join = Join::Parked;
            session.told_opened = true;
            session.accepted = true;
            session.due = crate::session::Due::default();
            session.parked_at = Some(now);
            let known =
                self.associations.iter().find(|(_, a)| a.peer == peer && a.incarnation == incarnation);
            let home = match known {
                Some((home, _)) => *home,
                None => self.create(Association::new(peer, incarnation, addresses)),
            };
            self.sessions.insert(id, home);
            if let Some(association) = self.associations.get_mut(&home) {
                association.insert(&mut self.cx, now, session);
            }
            self.after(now, home);
        }
    }

    /// The sessions that are here, with their peers: after [`restore`](Self::restore), what came back.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied()
    }

    /// The messages of a session that have no outcome, oldest first: after [`restore`](Self::restore), what is still to come.
    #[must_use]
    pub fn unsettled(&self, session: SessionId) -> Vec<MessageId> {
        let home = self.sessions.get(&session).and_then(|home| self.associations.get(home));
        home.and_then(|home| home.sessions.get(&session)).map(|s| s.out.unsettled()).unwrap_or_default()
    }

    /// The last message that was sent in a session; the first is 1.
    #[must_use]
    pub fn last_sent(&self, session: SessionId) -> Option<MessageId> {
        let home = self.sessions.get(&session).and_then(|home| self.associations.get(home));
        home.and_then(|home| home.sessions.get(&session)).map(|s| s.out.last()).filter(|last| last.0 > 0)
    }

    /// The process was perhaps copied, and is perhaps another one now: new randomness, since two copies must not draw the same
    /// tokens, and by what peers on this host know it.
    pub fn renew(&mut self, seed: [u8; 32], process: Process) {
        self.cx.config.process = process;
        self.cx.rng = steadfast_wire::rng::Rng::new(seed);
    }
}

fn replay(now: Instant, session: &mut Session, record: Record) {
    match record {
        Record::Offered(token) => session.epoch.restore_offered(token),
        Record::Confirmed(token) => {
            session.epoch.confirm(token);
        }
        Record::Held(token) => {
            session.epoch.hold(token);
            session.epoch.tell(token);
        }
        Record::Sent { id, head, payload } => session.out.restore(now, id, &head, payload),
        Record::Relabelled { id, labels } => session.out.restore_relabelled(id, labels),
        Record::Cancelled(id, reason) => session.out.restore_cancelled(id, reason),
        Record::Settled { id, delivered } => session.out.restore_settled(id, delivered),
        Record::Resolved { id, delivered, place } => session.inb.restore_resolved(id, delivered, place),
        Record::Forgotten(id) => session.out.restore_forgotten(id),
        Record::Excused(id) => session.inb.restore_excused(id),
        Record::Shut(_, kind) => session.out.shut = Some(kind),
        Record::Summary(summary) => {
            session.out.restore_summary(&summary);
            session.inb.restore_summary(&summary);
        }
        Record::Opened { .. } | Record::Ended => {}
    }
}
