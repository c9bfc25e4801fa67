//! What Steadfast says on the wire, and the small types that everything else shares.
//!
//! | module | what lives there |
//! |---|---|
//! | [`id`] | newtypes for identities, sessions, messages, networks, tokens |
//! | [`time`] | [`Instant`]: nanoseconds on a clock that the caller chose |
//! | [`varint`] | integers of 1 to 8 bytes, and the bounded [`Reader`] |
//! | [`range_set`] | [`RangeSet`]: which ids or bytes, in few ranges |
//! | [`label`] | [`Labels`], [`Urgency`], [`Rule`]: what the application says of a message |
//! | [`network`] | [`Network`]: a local interface as the other side is told of it |
//! | [`frame`] | every [`Frame`] of the session protocol, encoded and decoded |
//! | [`gather`] | frames to be said, large payloads not copied |
//! | [`call`] | the head of a message that belongs to a request or its response |
//!
//! Invariants: nothing here does I/O or reads a clock; every length from a peer is checked against a constant
//! before memory is taken; decoding never panics; encodings are the same on every word size.
//! Deliberately absent: cryptography (TLS is below this protocol) and any state.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod call;
pub mod frame;
pub mod gather;
pub mod id;
pub mod label;
pub mod network;
pub mod range_set;
pub mod rng;
pub mod time;
pub mod varint;

pub use frame::{DecodeError, Frame};
pub use gather::Gather;
pub use id::{Fingerprint, Incarnation, MessageId, NetworkId, PathNumber, SessionId, Token};
pub use label::{Labels, Order, Rule, Selector, Selectors, SizeClass, Urgency};
pub use network::{Address, Network, NetworkClass};
pub use range_set::RangeSet;
pub use time::Instant;
pub use varint::Reader;
