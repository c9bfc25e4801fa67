//! The client's side of subscriptions: who gets an event, and the polling queue. Every event goes to one place.

use crate::code::Code;
use crate::event::Event;
use crate::queue::{Delivery, Next, Queue, SubscriptionId};
use crate::subscription::{Matching, Subscription};
use alloc::vec::Vec;
use core::str::FromStr;

/// Events in the polling queue where the client names no number, as in FTB.
pub const DEFAULT_POLLING_QUEUE: usize = 64;
/// The most events in a polling queue.
pub const MAX_POLLING_QUEUE: usize = 65_536;
/// The most bytes of events in a polling queue: 16 MiB.
const MAX_POLLING_BYTES: usize = 16 * 1024 * 1024;
/// The most subscriptions of a client.
pub const MAX_SUBSCRIPTIONS: usize = 256;

/// What a client said at its start about how it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// It does not (`FTB_SUBSCRIPTION_NONE`).
    None,
    /// It asks (`FTB_SUBSCRIPTION_POLLING`).
    Polling,
    /// It is called (`FTB_SUBSCRIPTION_NOTIFY`).
    Notify,
    /// Both (`FTB_SUBSCRIPTION_BOTH`).
    Both,
}

/// A text that is no style of FTB's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subscription style is FTB_SUBSCRIPTION_POLLING, _NOTIFY, _NONE or _BOTH")]
pub struct StyleError;

impl StyleError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        Code::SubscriptionStyle
    }
}

impl FromStr for Style {
    type Err = StyleError;
    fn from_str(text: &str) -> Result<Self, StyleError> {
        let known = [
            ("FTB_SUBSCRIPTION_NONE", Self::None),
            ("FTB_SUBSCRIPTION_POLLING", Self::Polling),
            ("FTB_SUBSCRIPTION_NOTIFY", Self::Notify),
            ("FTB_SUBSCRIPTION_BOTH", Self::Both),
        ];
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, style)| *style).ok_or(StyleError)
    }
}

/// How one subscription receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receive {
    /// Its callback is called (or its stream fed).
    Callback,
    /// It is asked with [`Inbox::poll`].
    Polling,
}

/// Where an event went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// To the callback of this subscription: call it.
    Callback(SubscriptionId, Delivery),
    /// Into the polling queue.
    Queued,
    /// Nowhere: nobody here wants it any more.
    Nobody,
}

/// Why a subscription does not come about, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// Not as this client said that it receives.
    #[error("this client was connected without this way to receive; connect it with FTB_SUBSCRIPTION_BOTH")]
    Style,
    /// As many as there may be.
    #[error("a client has at most {MAX_SUBSCRIPTIONS} subscriptions; end one first, or use several clients")]
    TooMany,
    /// There is no such subscription, or no more.
    #[error("there is no such subscription; it may have been ended already")]
    Unknown,
    /// The number is taken.
    #[error("this client has a subscription of this number already; use another")]
    Taken,
}

impl InboxError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Style => Code::NotSupported,
            Self::TooMany => Code::General,
            Self::Unknown => Code::InvalidHandle,
            Self::Taken => Code::DuplicateCall,
        }
    }
}

#[derive(Debug)]
struct Held {
    id: SubscriptionId,
    subscription: Subscription,
    matching: Matching,
    receive: Receive,
}

/// The subscriptions of one client, in their order, and its polling queue.
///
/// An event goes to the first callback that wants it; otherwise, once, into the queue if somebody polls for it. A full
/// queue loses its oldest, and says how many with the next [`dropped`](Self::dropped).
#[derive(Debug)]
pub struct Inbox {
    style: Style,
    room: usize,
    held: Vec<Held>,
    queue: Queue,
}

impl Inbox {
    /// `room` is the length of the polling queue, in events: 0 for [`DEFAULT_POLLING_QUEUE`], and
    /// [`MAX_POLLING_QUEUE`] at most.
    #[must_use]
    pub fn new(style: Style, room: usize) -> Self {
        let room = if room == 0 { DEFAULT_POLLING_QUEUE } else { room.min(MAX_POLLING_QUEUE) };
        Self { style, room, held: Vec::new(), queue: Queue::default() }
    }

    /// Adds a subscription behind the others.
    pub fn subscribe(
        &mut self,
        id: SubscriptionId,
        subscription: Subscription,
        matching: Matching,
        receive: Receive,
    ) -> Result<(), InboxError> {
        let possible = match receive {
            Receive::Callback => matches!(self.style, Style::Notify | Style::Both),
            Receive::Polling => matches!(self.style, Style::Polling | Style::Both),
        };
        if !possible {
            return Err(InboxError::Style);
        }
        if self.held.iter().any(|held| held.id == id) {
            return Err(InboxError::Taken);
        }
        if self.held.len() == MAX_SUBSCRIPTIONS {
            return Err(InboxError::TooMany);
        }
        self.held.push(Held { id, subscription, matching, receive });
        Ok(())
    }

    /// Ends a subscription. What it caught stays in the queue for those that are left.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> Result<(), InboxError> {
        let at = self.held.iter().position(|held| held.id == id).ok_or(InboxError::Unknown)?;
        self.held.remove(at);
        Ok(())
    }

    /// Takes in what came from the agent.
    pub fn handle_delivery(&mut self, delivery: Delivery) -> Place {
        let mine = |held: &&Held| delivery.replay.is_none_or(|id| id == held.id);
        let mut wanting = self.held.iter().filter(mine).filter(|held| held.wants(&delivery.event)).peekable();
        if wanting.peek().is_none() {
            return Place::Nobody;
        }
        if let Some(held) = wanting.find(|held| held.receive == Receive::Callback) {
            return Place::Callback(held.id, delivery);
        }
        self.queue.push(delivery, self.room, MAX_POLLING_BYTES);
        Place::Queued
    }

    /// The oldest event in the queue that a subscription wants.
    pub fn poll(&mut self, id: SubscriptionId) -> Result<Option<Delivery>, InboxError> {
        let held = self.held.iter().find(|held| held.id == id).ok_or(InboxError::Unknown)?;
        if held.receive != Receive::Polling {
            return Err(InboxError::Style);
        }
        Ok(self.queue.pop_if(|delivery| held.wants(&delivery.event)))
    }

    /// The oldest event in the queue, whoever wants it; or first how many gave way.
    pub fn poll_any(&mut self) -> Option<Next> {
        self.queue.pop()
    }

    /// How many events gave way in the queue since this was asked.
    pub fn dropped(&mut self) -> u64 {
        self.queue.take_dropped()
    }

    /// Events in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the queue has nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Held {
    fn wants(&self, event: &Event) -> bool {
        self.subscription.matches(event, self.matching)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbitrary;
    use crate::queue::Provenance;
    use alloc::sync::Arc;
    use alloc::vec;

    fn delivery(number: u64) -> Delivery {
        let mut event = arbitrary::event();
        event.number = number;
        Delivery { event: Arc::new(event), provenance: Provenance::Local, replay: None }
    }

    fn subscribe(inbox: &mut Inbox, id: u32, text: &str, receive: Receive) -> Result<(), InboxError> {
        inbox.subscribe(SubscriptionId(id), text.parse().unwrap(), Matching::Every, receive)
    }

    fn polled(inbox: &mut Inbox, id: u32) -> Option<u64> {
        inbox.poll(SubscriptionId(id)).unwrap().map(|delivery| delivery.event.number)
    }

    #[test]
    fn styles_and_codes() {
        assert_eq!("ftb_subscription_Both".parse(), Ok(Style::Both));
        assert_eq!("FTB_SUBSCRIPTION".parse::<Style>().unwrap_err().code() as i32, -3);
        for (style, callback, polling) in [
            (Style::None, Some(-7), Some(-7)),
            (Style::Polling, Some(-7), None),
            (Style::Notify, None, Some(-7)),
            (Style::Both, None, None),
        ] {
            for (id, receive, code) in [(1, Receive::Callback, callback), (2, Receive::Polling, polling)] {
                let mut inbox = Inbox::new(style, 0);
                let result = subscribe(&mut inbox, id, "", receive).err().map(|error| error.code() as i32);
                assert_eq!(result, code, "{style:?} {receive:?}");
            }
        }
        let mut inbox = Inbox::new(Style::Both, 0);
        subscribe(&mut inbox, 1, "", Receive::Polling).unwrap();
        assert_eq!(subscribe(&mut inbox, 1, "", Receive::Polling), Err(InboxError::Taken));
        assert_eq!(inbox.poll(SubscriptionId(1)), Ok(None));
        assert_eq!(inbox.unsubscribe(SubscriptionId(1)), Ok(()));
        assert_eq!(inbox.unsubscribe(SubscriptionId(1)).unwrap_err().code() as i32, -9);
        assert_eq!(inbox.poll(SubscriptionId(1)).unwrap_err().code() as i32, -9);
    }

    #[test]
    fn a_full_queue_loses_its_oldest() {
        let mut inbox = Inbox::new(Style::Polling, 4);
        subscribe(&mut inbox, 1, "", Receive::Polling).unwrap();
        for number in 2..=8 {
            assert_eq!(inbox.handle_delivery(delivery(number)), Place::Queued);
        }
        let numbers: Vec<u64> = core::iter::from_fn(|| polled(&mut inbox, 1)).collect();
        assert_eq!(numbers, [5, 6, 7, 8]);
        assert_eq!((inbox.dropped(), inbox.dropped()), (3, 0));
        let mut inbox = Inbox::new(Style::Polling, 0);
        subscribe(&mut inbox, 1, "", Receive::Polling).unwrap();
        (0..100).for_each(|number| assert_eq!(inbox.handle_delivery(delivery(number)), Place::Queued));
        assert_eq!(inbox.len(), DEFAULT_POLLING_QUEUE);
        assert_eq!(inbox.poll_any(), Some(Next::Dropped(36)));
        assert_eq!(inbox.poll_any(), Some(Next::Event(delivery(36))));
    }

    #[test]
    fn once_and_callbacks_before_polling() {
        let mut inbox = Inbox::new(Style::Both, 0);
        subscribe(&mut inbox, 1, "", Receive::Polling).unwrap();
        subscribe(&mut inbox, 2, "severity=info", Receive::Callback).unwrap();
        subscribe(&mut inbox, 3, "severity=fatal", Receive::Callback).unwrap();
        subscribe(&mut inbox, 4, "", Receive::Callback).unwrap();
        assert_eq!(inbox.handle_delivery(delivery(1)), Place::Callback(SubscriptionId(3), delivery(1)));
        assert!(inbox.is_empty());
        inbox.unsubscribe(SubscriptionId(3)).unwrap();
        inbox.unsubscribe(SubscriptionId(4)).unwrap();
        assert_eq!(inbox.handle_delivery(delivery(2)), Place::Queued);
        assert_eq!(inbox.poll(SubscriptionId(2)), Err(InboxError::Style));
        assert_eq!((polled(&mut inbox, 1), polled(&mut inbox, 1)), (Some(2), None));
    }

    #[test]
    fn several_that_poll_share_the_queue() {
        let mut inbox = Inbox::new(Style::Polling, 0);
        subscribe(&mut inbox, 1, "event_name=other", Receive::Polling).unwrap();
        subscribe(&mut inbox, 2, "severity=fatal", Receive::Polling).unwrap();
        let replayed = |id| Delivery { replay: Some(SubscriptionId(id)), ..delivery(1) };
        assert_eq!(inbox.handle_delivery(replayed(1)), Place::Nobody);
        assert_eq!(inbox.handle_delivery(replayed(2)), Place::Queued);
        assert_eq!((polled(&mut inbox, 1), inbox.len()), (None, 1));
        // What a lapsed subscription caught stays, for the next that wants it.
        inbox.unsubscribe(SubscriptionId(2)).unwrap();
        assert_eq!(inbox.handle_delivery(delivery(2)), Place::Nobody);
        subscribe(&mut inbox, 3, "", Receive::Polling).unwrap();
        let rest = vec![polled(&mut inbox, 3), polled(&mut inbox, 3)];
        assert_eq!(rest, [Some(1), None]);
    }
}
