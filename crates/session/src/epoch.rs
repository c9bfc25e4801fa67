//! Epoch tokens: how each side proves that its state is the latest (DESIGN, Semantics 5).
//!
//! Each side has a token of its own and holds the peer's. Every claim of a conversation offers a new one. An offer
//! stays pending until the peer confirms it, so a claim lists the last confirmed token and all offers since: the peer
//! holds one of those, or one of the two sides came back with an older state.

use crate::context::Context;
use crate::journal::{Effect, Record};
use alloc::vec::Vec;
use steadfast_wire::frame::{MAX_PENDING_TOKENS, Resume};
use steadfast_wire::{SessionId, Token};

#[derive(Debug, Default)]
pub(crate) struct Epoch {
    confirmed: Option<Token>,
    offered: Vec<Token>,
    holds: Option<Token>,
    /// What the peer may be told that we hold: it is in the journal.
    told: Option<Token>,
    /// What was confirmed or offered before `confirmed`, until the peer's claim has come: that claim may have been
    /// overtaken by the peer's own confirmation, which went another way. The latest, a few more than may be pending.
    previous: Vec<Token>,
    /// Tokens of the peer before the one that we hold, the latest few.
    superseded: Vec<Token>,
}

/// How many claims back a claim that comes late is told from one of an older state.
const MAX_SUPERSEDED: usize = 16;

impl Epoch {
    /// The peer never said that it knows the conversation.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.confirmed.is_none() && self.holds.is_none()
    }

    /// Gives back the room of tokens that are settled.
    pub(crate) fn release_room(&mut self) {
        self.offered.shrink_to_fit();
        self.previous.shrink_to_fit();
        self.superseded.shrink_to_fit();
    }

    pub(crate) const fn confirmed(&self) -> Option<Token> {
        self.confirmed
    }

    pub(crate) fn offered(&self) -> &[Token] {
        &self.offered
    }

    pub(crate) fn is_offering(&self) -> bool {
        !self.offered.is_empty()
    }

    /// What the peer may be told that we hold.
    pub(crate) const fn told(&self) -> Option<Token> {
        self.told
    }

    /// The journal has the token that we hold.
    pub(crate) const fn tell(&mut self, token: Token) {
        self.told = Some(token);
    }

    /// Whether we hold any token of the peer.
    pub(crate) const fn has_peer(&self) -> bool {
        self.holds.is_some()
    }

    /// Our token from now on.
    pub(crate) fn current(&self) -> Option<Token> {
        self.offered.last().copied().or(self.confirmed)
    }

    /// A new token. With too many pending the last one is offered again: then a second claimant of exactly this state
    /// would not be told apart, but a slow peer never ends the conversation.
    pub(crate) fn offer(&mut self, cx: &mut Context) -> Token {
        if self.offered.len() < MAX_PENDING_TOKENS {
            // Mostly it is the only one.
            if self.offered.is_empty() {
                self.offered.reserve_exact(1);
            }
            self.offered.push(cx.rng.token());
        }
        self.offered[self.offered.len() - 1]
    }

    /// The peer holds this token of ours.
    pub(crate) fn confirm(&mut self, token: Token) -> bool {
        if let Some(index) = self.offered.iter().position(|offered| *offered == token) {
            // All that the peer may have held until then; the last of them is what it holds now.
            self.previous.extend(self.confirmed.replace(token));
            self.previous.extend(self.offered.drain(..=index));
            if self.offered.is_empty() {
                self.offered = Vec::new();
            }
            let excess = self.previous.len().saturating_sub(MAX_PENDING_TOKENS + 1);
            self.previous.drain(..excess);
            self.previous.shrink_to_fit();
            return true;
        }
        self.confirmed == Some(token)
    }

    /// We hold this token of the peer.
    pub(crate) const fn hold(&mut self, token: Token) {
        self.holds = Some(token);
    }

    /// Whether a claim and our state can be of the same conversation's latest state. The claim is `expected` while we
    /// have made ours and not had the peer's.
    pub(crate) fn check(&self, view: &Resume, expected: bool) -> Result<(), ()> {
        let theirs = match self.holds {
            None => true,
            Some(held) => view.confirmed == Some(held) || view.offered.contains(&held),
        };
        let ours = match view.holds {
            // A peer that never held our token can only be one that never knew of it.
            None => self.confirmed.is_none(),
            Some(held) => {
                let ours = self.confirmed == Some(held) || self.offered.contains(&held);
                ours || (expected && self.previous.contains(&held))
            }
        };
        if theirs && ours { Ok(()) } else { Err(()) }
    }

    /// Whether this claim was taken over before.
    pub(crate) fn knows(&self, view: &Resume) -> bool {
        let last = view.offered.last().or(view.confirmed.as_ref());
        // A side with no room for another offer repeats its last one, so that says nothing.
        self.holds.as_ref() == last && view.offered.len() < MAX_PENDING_TOKENS
    }

    /// Whether this claim came late, after a newer one. An older state that goes on draws a token of its own, which
    /// nobody has seen.
    pub(crate) fn is_superseded(&self, view: &Resume) -> bool {
        let last = view.offered.last().or(view.confirmed.as_ref());
        // See `knows`.
        last.is_some_and(|last| self.superseded.contains(last)) && view.offered.len() < MAX_PENDING_TOKENS
    }

    /// Takes over the tokens of a claim that passed [`Epoch::check`]. What may be done at once because of it.
    pub(crate) fn take_over(
        &mut self,
        cx: &mut Context,
        session: SessionId,
        view: &Resume,
    ) -> Option<Effect> {
        if let Some(ours) = view.holds
            && self.confirm(ours)
        {
            cx.remember(session, Record::Confirmed(ours));
        }
        self.previous.clear();
        let theirs = view.offered.last().copied().or(view.confirmed)?;
        for token in self.holds.iter().chain(&view.confirmed).chain(&view.offered) {
            if *token != theirs && !self.superseded.contains(token) {
                self.superseded.push(*token);
            }
        }
        let excess = self.superseded.len().saturating_sub(MAX_SUPERSEDED);
        self.superseded.drain(..excess);
        self.holds = Some(theirs);
        cx.record(session, Record::Held(theirs), Effect::Hold(theirs))
    }

    pub(crate) fn restore_offered(&mut self, token: Token) {
        if !self.offered.contains(&token) {
            self.offered.push(token);
        }
    }
}

#[cfg(test)]
mod tests;
