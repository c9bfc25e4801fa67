//! New labels for a message that was sent under others.
//!
//! Where there is a store, a process may die between the wish and its record, and the next one goes on under the labels
//! that the store has. So what goes out is at every moment right under those too: under a new rule nothing more leaves
//! until the record is confirmed, and the peer is told new labels only then.

use super::{Message, Outbound, Phase};
use crate::context::Context;
use crate::event::SendError;
use crate::journal::{Effect, Record};
use steadfast_wire::{Labels, MessageId, Urgency};

impl Outbound {
    /// Changes the labels of a message that has no outcome yet; the order it was sent in stays. Whether there is such a
    /// message.
    pub(crate) fn relabel(
        &mut self,
        cx: &mut Context,
        id: MessageId,
        labels: Labels,
    ) -> Result<bool, SendError> {
        if !labels.rule.fits() {
            return Err(SendError::BadRule);
        }
        let Some(message) = self.messages.get_mut(&id.0).filter(|m| m.phase == Phase::Live) else {
            return Ok(false);
        };
        if message.labels == labels {
            return Ok(true);
        }
        let holds = message.labels.rule != labels.rule;
        let record = Record::Relabelled { id, labels: labels.clone() };
        if cx.record(self.session, record, Effect::Relabel { id, holds }).is_none() {
            message.unstored_labels += 1;
            message.held += u32::from(holds);
            if let Some(special) = self.special.existing() {
                special.relabels.remove(&id.0);
                if holds {
                    special.copies.remove(&id.0);
                }
            }
        } else {
            self.special.make().relabels.insert(id.0);
        }
        self.take_labels(id.0, labels);
        Ok(true)
    }

    /// The journal has new labels of a message.
    pub(crate) fn relabel_confirmed(&mut self, id: MessageId, holds: bool) {
        if let Some(message) = self.messages.get_mut(&id.0) {
            message.unstored_labels -= 1;
            message.held -= u32::from(holds);
            self.relabel_due(id);
            self.enqueue(id.0);
        }
    }

    /// Puts new labels from the journal back. The peer may have been told them, or others before.
    pub(crate) fn restore_relabelled(&mut self, id: MessageId, labels: Labels) {
        if self.messages.get(&id.0).is_some_and(|m| m.phase == Phase::Live) {
            self.take_labels(id.0, labels);
            self.relabel_due(id);
        }
    }

    /// The peer may not know the labels of a message: it is told, unless a restart might still take them back.
    pub(crate) fn relabel_due(&mut self, id: MessageId) {
        let due = |m: &Message| m.relabelled && m.unstored_labels == 0 && m.phase == Phase::Live;
        if self.messages.get(&id.0).is_some_and(|message| due(message)) {
            self.special.make().relabels.insert(id.0);
        }
    }

    fn take_labels(&mut self, id: u64, labels: Labels) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let urgent = labels.urgency == Urgency::Foreground;
        message.labels = labels;
        message.relabelled = true;
        self.dequeue(id);
        if urgent {
            self.raise_predecessors(id);
        }
        self.enqueue(id);
    }

    /// The message's labels, as its application wants them.
    pub(crate) fn labels(&self, id: u64) -> Option<&Labels> {
        self.messages.get(&id).map(|m| &m.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Ordering};
    use crate::options::SendOptions;
    use bytes::Bytes;
    use steadfast_wire::{Fingerprint, Instant, Rule, Selector, SessionId};

    const NOW: Instant = Instant(5_000_000_000);
    const ID: MessageId = MessageId(1);

    fn free() -> Labels {
        Labels::background().rule(Rule::default().prohibit(Selector::Metered))
    }

    fn new() -> (Context, Outbound) {
        let config = Config { durable: true, ..Config::default() };
        let mut out = Outbound::new(SessionId(1), Ordering::Total, 1 << 20);
        out.peer_says([1 << 20; 2], 1 << 20, true);
        (Context::new(config, Fingerprint([1; 32]), [1; 32]), out)
    }

    fn send(cx: &mut Context, out: &mut Outbound) {
        let payload = Some(Bytes::from_static(b"payload"));
        let id = out.send(cx, NOW, Labels::background(), SendOptions::new(), None, payload, None);
        assert_eq!(id, Ok(ID));
    }

    /// The store has one more record.
    fn confirm(cx: &mut Context, out: &mut Outbound, number: u64) {
        match cx.confirmed(number) {
            Some((_, Effect::Send(id))) => out.send_confirmed(id),
            Some((_, Effect::Relabel { id, holds })) => out.relabel_confirmed(id, holds),
            other => panic!("{other:?}"),
        }
        out.check_invariants();
    }

    fn is_queued(out: &Outbound) -> bool {
        Urgency::ALL.iter().any(|urgency| out.has_queued(*urgency))
    }

    #[test]
    fn it_goes_out_under_a_new_rule_when_all_its_records_are_confirmed() {
        let (mut cx, mut out) = new();
        send(&mut cx, &mut out);
        for labels in [free(), Labels::background(), free(), Labels::foreground().rule(free().rule)] {
            assert_eq!(out.relabel(&mut cx, ID, labels), Ok(true));
        }
        // The message itself, and three other rules.
        for number in 1..=4 {
            assert!(!is_queued(&out), "record {number} is not confirmed");
            confirm(&mut cx, &mut out, number);
        }
        assert!(out.has_queued(Urgency::Foreground), "a new urgency is in force at once");
        assert!(out.special.relabels.is_empty(), "and the peer is not told before it is confirmed");
        confirm(&mut cx, &mut out, 5);
        assert!(out.special.relabels.contains(&ID.0));
    }

    #[test]
    fn the_same_labels_again_are_no_news() {
        let (mut cx, mut out) = new();
        send(&mut cx, &mut out);
        assert_eq!(out.relabel(&mut cx, ID, Labels::background()), Ok(true));
        assert_eq!(cx.journal.len(), 1);
    }

    #[test]
    fn new_labels_hold_back_what_the_peer_was_about_to_be_told() {
        let (mut cx, mut out) = new();
        send(&mut cx, &mut out);
        out.relabel(&mut cx, ID, Labels::foreground()).unwrap();
        confirm(&mut cx, &mut out, 1);
        confirm(&mut cx, &mut out, 2);
        out.relabel(&mut cx, ID, Labels::background()).unwrap();
        // What was said before is lost with its path.
        out.relabel_due(ID);
        assert!(out.special.relabels.is_empty());
        confirm(&mut cx, &mut out, 3);
        assert!(
            out.special.relabels.contains(&ID.0),
            "the labels of its head may not be what the peer knows"
        );
    }

    #[test]
    fn records_of_a_message_that_is_dropped_meanwhile_change_nothing() {
        let (mut cx, mut out) = new();
        send(&mut cx, &mut out);
        out.relabel(&mut cx, ID, free()).unwrap();
        assert!(out.cancel(&mut cx, ID));
        confirm(&mut cx, &mut out, 1);
        confirm(&mut cx, &mut out, 2);
        assert!(out.special.relabels.is_empty() && !is_queued(&out));
    }

    #[test]
    fn a_journal_brings_the_last_labels_back() {
        let (mut cx, mut out) = new();
        send(&mut cx, &mut out);
        out.relabel(&mut cx, ID, free()).unwrap();
        let (_, mut again) = new();
        for entry in cx.journal {
            match entry.record {
                Record::Sent { id, head, payload } => again.restore(NOW, id, &head, payload),
                Record::Relabelled { id, labels } => again.restore_relabelled(id, labels),
                other => panic!("{other:?}"),
            }
        }
        again.check_invariants();
        assert_eq!(again.labels(ID.0), Some(&free()));
        assert!(again.special.relabels.contains(&ID.0) && again.has_queued(Urgency::Background));
    }
}
