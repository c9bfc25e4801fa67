//! The verbs of the application.

use super::Endpoint;
use crate::association::{Association, AssociationId};
use crate::config::SessionConfig;
use crate::context::Context;
use crate::event::{Action, Forecast, Read, Recv, SendError, SessionError};
use crate::journal::{Effect, Record};
use crate::liveness::Judgement;
use crate::options::SendOptions;
use crate::session::Session;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use steadfast_wire::frame::{EndReason, ShutKind};
use steadfast_wire::{Fingerprint, Instant, Labels, MessageId, PathNumber, Rule, SessionId, Urgency};

impl Endpoint {
    /// Opens a session with `peer`, who is at some of these addresses. It exists at once: messages wait for a path.
    ///
    /// An association that was reached at one of the addresses, or that no address is needed for, is shared.
    pub fn connect(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        addresses: &[SocketAddr],
        config: SessionConfig,
    ) -> SessionId {
        let known = self.by_place(peer, addresses);
        let id = known.unwrap_or_else(|| self.create(Association::new(peer, None, addresses.to_vec())));
        let session = self.cx.rng.session();
        let mut new = Session::new(&self.cx, session, true, config);
        self.sessions.insert(session, id);
        if let Some(association) = self.associations.get_mut(&id) {
            self.cx.remember(
                session,
                Record::Opened {
                    peer,
                    incarnation: association.incarnation,
                    opener: true,
                    per_urgency: new.per_urgency(),
                    addresses: association.addresses(),
                },
            );
            let token = new.epoch.offer(&mut self.cx);
            // Where there is a store the first token is stored with the first message, which waits for it.
            let _stored = self.cx.record(session, Record::Offered(token), Effect::None);
            association.insert(&mut self.cx, now, new);
        }
        self.after(now, id);
        session
    }

    /// Another address at which `peer` may be reached.
    pub fn add_address(&mut self, now: Instant, peer: Fingerprint, address: SocketAddr) {
        let ids: Vec<AssociationId> =
            self.associations.iter().filter(|(_, a)| a.peer == peer).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(association) = self.associations.get_mut(&id) {
                association.dials.remember(address);
                association.addresses_changed();
            }
            self.after(now, id);
        }
    }

    /// Whether a path that is up may carry messages under a rule.
    #[must_use]
    pub fn has_path_for(&self, session: SessionId, rule: &Rule) -> bool {
        let home = self.sessions.get(&session).and_then(|id| self.associations.get(id));
        home.is_some_and(|association| association.has_path_for(&self.cx, rule))
    }

    /// How long a message of so many bytes with these labels would take, were it sent now, from what was measured; `None`
    /// if no path that is up may carry it.
    pub fn forecast(
        &self,
        session: SessionId,
        labels: &Labels,
        bytes: u64,
    ) -> Result<Option<Forecast>, SessionError> {
        let home = self.sessions.get(&session).and_then(|id| self.associations.get(id));
        let association = home.ok_or(SessionError::Ended)?;
        Ok(association.forecast(&self.cx, session, labels, bytes))
    }

    /// Measures the round trip of one path now: [`Event::Probed`](crate::Event::Probed) has it, unless the path goes down first. Whether there is
    /// such a path.
    pub fn probe(&mut self, now: Instant, path: PathNumber) -> bool {
        let asked = self.on_path(now, path, |association, _| {
            let path = association.paths.get_mut(&path).filter(|path| path.is_up());
            path.map(|path| {
                path.probed = true;
                // An answer that is on its way serves as well.
                path.ping_due |= path.ping.is_none();
            })
        });
        asked.flatten().is_some()
    }

    /// Takes the next session that a peer opened. Its order is the peer's choice; the rest of `config` is ours.
    pub fn accept(&mut self, now: Instant, config: SessionConfig) -> Option<(SessionId, Fingerprint)> {
        while let Some(id) = self.incoming.pop_front() {
            let Some(home) = self.sessions.get(&id).copied() else { continue };
            let Some(association) = self.associations.get_mut(&home) else { continue };
            let peer = association.peer;
            let Some(session) = association.sessions.get_mut(&id) else { continue };
            session.accepted = true;
            session.configure(now, config);
            association.touch(id);
            self.after(now, home);
            return Some((id, peer));
        }
        None
    }

    /// Who is at the other end of a session.
    #[must_use]
    pub fn peer(&self, session: SessionId) -> Option<Fingerprint> {
        self.sessions
            .get(&session)
            .and_then(|id| self.associations.get(id))
            .map(|association| association.peer)
    }

    /// Bytes of messages of a session that its peer's library has not acknowledged; `None` if the session has ended.
    #[must_use]
    pub fn backlog(&self, session: SessionId) -> Option<u64> {
        let session = self.associations.get(self.sessions.get(&session)?)?.sessions.get(&session)?;
        Some(Urgency::ALL.iter().map(|urgency| session.out.buffered(*urgency)).sum())
    }

    /// The processes with which something is going on, each with its key and what is known of it.
    pub fn associates(&self) -> impl Iterator<Item = (AssociationId, Fingerprint, &Judgement)> {
        self.associations.iter().map(|(id, home)| (*id, home.peer, home.liveness.judged()))
    }

    pub(super) fn on_session<R>(
        &mut self,
        now: Instant,
        id: SessionId,
        f: impl FnOnce(&mut Session, &mut Context) -> R,
    ) -> Result<R, SessionError> {
        let home = *self.sessions.get(&id).ok_or(SessionError::Ended)?;
        let association = self.associations.get_mut(&home).ok_or(SessionError::Ended)?;
        let session = association.sessions.get_mut(&id).ok_or(SessionError::Ended)?;
        let result = f(session, &mut self.cx);
        association.finish_over(&mut self.cx, id);
        association.touch(id);
        self.after(now, home);
        Ok(result)
    }

    /// Sends a whole message; it is never partly taken.
    pub fn send(
        &mut self,
        now: Instant,
        session: SessionId,
        labels: Labels,
        options: impl Into<SendOptions>,
        payload: Bytes,
    ) -> Result<MessageId, SendError> {
        self.accept_message(now, session, labels, options.into(), Some(payload), None)
    }

    /// Begins a streamed message, of `length` bytes if that is known.
    pub fn begin(
        &mut self,
        now: Instant,
        session: SessionId,
        labels: Labels,
        options: impl Into<SendOptions>,
        length: Option<u64>,
    ) -> Result<MessageId, SendError> {
        self.accept_message(now, session, labels, options.into(), None, length)
    }

    fn accept_message(
        &mut self,
        now: Instant,
        session: SessionId,
        labels: Labels,
        options: SendOptions,
        payload: Option<Bytes>,
        length: Option<u64>,
    ) -> Result<MessageId, SendError> {
        let patience = self.patience(now, session, &labels, options.patience)?;
        let stranded = patience.is_some() && !self.has_path_for(session, &labels.rule);
        let send = |s: &mut Session, cx: &mut Context| {
            let id = s.out.send(cx, now, labels, options, patience, payload, length)?;
            if stranded {
                s.out.set_routable(now, id.0, false);
            }
            Ok(id)
        };
        self.on_session(now, session, send).map_err(|_| SendError::Ended)?
    }

    /// Appends to a streamed message: all of `bytes`, or nothing with [`SendError::Full`].
    pub fn write(
        &mut self,
        now: Instant,
        session: SessionId,
        id: MessageId,
        bytes: Bytes,
    ) -> Result<(), SendError> {
        self.on_session(now, session, |s, cx| s.out.write(cx, id, bytes)).map_err(|_| SendError::Ended)?
    }

    /// Ends a streamed message.
    pub fn finish_message(
        &mut self,
        now: Instant,
        session: SessionId,
        id: MessageId,
    ) -> Result<(), SendError> {
        self.on_session(now, session, |s, _| s.out.finish(id)).map_err(|_| SendError::Ended)?
    }

    /// Asks for a message to be dropped. The outcome tells whether it was: the receiver has the last word.
    pub fn cancel(&mut self, now: Instant, session: SessionId, id: MessageId) -> Result<(), SessionError> {
        let cancelled = self.on_session(now, session, |s, cx| s.out.cancel(cx, id))?;
        if cancelled { Ok(()) } else { Err(SessionError::NoMessage(id)) }
    }

    /// Changes the labels of a message that has no outcome yet. Its place in the order stays.
    ///
    /// What the new rule forbids is forbidden from this call on, also to bytes that are under way: their carrier is reset.
    ///
    /// In a durable endpoint the journal gets a [`Record::Relabelled`]. Until it is confirmed a restart may take the call
    /// back, as it may a send: the restored endpoint goes on under the labels that the journal has. So what the rule before
    /// forbids stays forbidden until then, too: nothing more of a message whose rule changes leaves before the record is
    /// confirmed. A new urgency or size counts at once in this process; the peer is told when the record is confirmed.
    /// An application that must be sure of its last wish relabels again after [`restore`](Self::restore), before
    /// [`handle_networks`](Self::handle_networks): nothing is sent in between.
    pub fn relabel(
        &mut self,
        now: Instant,
        session: SessionId,
        id: MessageId,
        labels: Labels,
    ) -> Result<(), SendError> {
        let relabel = |s: &mut Session, cx: &mut Context| {
            let same_rule = s.out.labels(id.0).is_none_or(|old| old.rule == labels.rule);
            s.out.relabel(cx, id, labels).map(|relabelled| (relabelled, same_rule))
        };
        let (relabelled, same_rule) =
            self.on_session(now, session, relabel).map_err(|_| SendError::Ended)??;
        if !same_rule {
            self.rules_changed(now, session);
        }
        if relabelled { Ok(()) } else { Err(SendError::NotOpen(id)) }
    }

    /// Takes the next message, foreground first.
    pub fn recv(&mut self, now: Instant, session: SessionId) -> Result<Recv, SessionError> {
        self.recv_with(now, session, false)
    }

    /// Takes the next message, foreground first, and holds it: a whole one is delivered when the application
    /// [acknowledges](Self::acknowledge) it, and after a restart from a journal it is there again unless it did. Its bytes
    /// stay in the window until then. What comes next in the implied order may be taken at once; what was declared to wait
    /// for it waits for the acknowledgement.
    ///
    /// To do without it, [`refuse`](Self::refuse) it; to have it given again, [`give_back`](Self::give_back).
    pub fn recv_held(&mut self, now: Instant, session: SessionId) -> Result<Recv, SessionError> {
        self.recv_with(now, session, true)
    }

    /// The application has done with a message that it [held](Self::recv_held).
    pub fn acknowledge(
        &mut self,
        now: Instant,
        session: SessionId,
        id: MessageId,
    ) -> Result<(), SessionError> {
        let held = self.on_session(now, session, |s, cx| s.inb.acknowledge_held(cx, id))?;
        if held { Ok(()) } else { Err(SessionError::NoMessage(id)) }
    }

    /// A message that was [held](Self::recv_held) is the next to be taken again, of its urgency.
    pub fn give_back(&mut self, now: Instant, session: SessionId, id: MessageId) -> Result<(), SessionError> {
        let held = self.on_session(now, session, |s, cx| s.inb.give_back(cx, id))?;
        if held { Ok(()) } else { Err(SessionError::NoMessage(id)) }
    }

    fn recv_with(&mut self, now: Instant, session: SessionId, held: bool) -> Result<Recv, SessionError> {
        // Whoever waits asks in vain as often as not.
        let home = self.sessions.get(&session).and_then(|home| self.associations.get(home));
        if home.and_then(|home| home.sessions.get(&session)).is_some_and(|found| found.inb.has_nothing()) {
            return Ok(Recv::Pending);
        }
        self.on_session(now, session, |s, cx| {
            s.inb.handle_timeout(cx, now);
            s.inb.recv(cx, held)
        })
    }

    /// Reads on in a streamed message that [`recv`](Self::recv) gave.
    pub fn read(&mut self, now: Instant, session: SessionId, id: MessageId) -> Result<Read, SessionError> {
        self.on_session(now, session, |s, cx| s.inb.read(cx, id))
    }

    /// Does without the rest of a streamed message; the sender learns that it was dropped.
    pub fn refuse(&mut self, now: Instant, session: SessionId, id: MessageId) -> Result<(), SessionError> {
        self.on_session(now, session, |s, cx| s.inb.refuse(cx, id))
    }

    /// Sets what [`connect`](Self::connect) or [`accept`](Self::accept) were given of a session anew, except its order.
    /// While it is parked the limit counts from now, and a notice that was given already is not given again.
    pub fn configure(
        &mut self,
        now: Instant,
        session: SessionId,
        config: SessionConfig,
    ) -> Result<(), SessionError> {
        self.on_session(now, session, |s, _| s.configure(now, config))
    }

    /// Sends no more; still receives (half-close).
    pub fn finish(&mut self, now: Instant, session: SessionId) -> Result<(), SessionError> {
        self.on_session(now, session, |s, cx| s.shut(cx, ShutKind::Finish))
    }

    /// Ends the conversation: what was sent is still delivered, the peer's sends fail from now on, and what it has
    /// sent and we have not taken is refused. [`Event::Ended`](crate::Event::Ended) tells when it is over, at `limit`
    /// at the latest. An endpoint that is restored from a journal knows that it was to close, but not when: close again.
    pub fn close(&mut self, now: Instant, session: SessionId, limit: Duration) -> Result<(), SessionError> {
        self.on_session(now, session, |s, cx| {
            s.inb.close(cx);
            s.shut(cx, ShutKind::Close);
            s.close_at = Some(now + limit);
        })
    }

    /// Ends the conversation at once. Messages without an outcome become [`Outcome::Unknown`](crate::Outcome::Unknown).
    pub fn abort(&mut self, now: Instant, session: SessionId) -> Result<(), SessionError> {
        let home = *self.sessions.get(&session).ok_or(SessionError::Ended)?;
        if let Some(association) = self.associations.get_mut(&home) {
            association.end(&mut self.cx, session, EndReason::Aborted, true, None);
        }
        self.after(now, home);
        Ok(())
    }

    /// Ends everything and tells every peer why (at most 256 bytes). Drain once more before dropping the endpoint.
    pub fn leave(&mut self, now: Instant, reason: &str) {
        for id in self.associations.keys().copied().collect::<Vec<_>>() {
            if let Some(association) = self.associations.get_mut(&id) {
                association.leave(&mut self.cx, now, reason);
            }
            self.after(now, id);
        }
    }

    /// Ends all associations with a peer that is no longer trusted.
    pub fn forget(&mut self, now: Instant, peer: Fingerprint, reason: &str) {
        let ids: Vec<AssociationId> =
            self.associations.iter().filter(|(_, a)| a.peer == peer).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(association) = self.associations.get_mut(&id) {
                association.leave(&mut self.cx, now, reason);
            }
            self.after(now, id);
        }
        // Those that proved the key before it was removed and have not said HELLO.
        let greetings = self.greetings.iter().filter(|(_, greeting)| greeting.peer == peer);
        for path in greetings.map(|(path, _)| *path).collect::<Vec<_>>() {
            self.greetings.remove(&path);
            self.cx.actions.push_back(Action::Reset { path });
        }
    }
}
