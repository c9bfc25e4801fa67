//! Linux I/O of Steadfast: which networks this host has, authenticated byte streams over each of them, and packets.
//!
//! | module | what lives there |
//! |---|---|
//! | [`places`] | [`Places`]: where a user's identity, trusted peers, configuration and state lie |
//! | [`identity`] | [`Identity`]: this side's Ed25519 key, and its file |
//! | [`trust`] | [`TrustFile`]: the keys that may connect, and [`TrustWatcher`], which notices edits |
//! | [`tls`] | [`Tls`]: TLS 1.3 with raw public keys on both sides |
//! | [`carrier`] | [`Carrier`]: a reliable, ordered, authenticated byte stream; connecting, listening, accepting |
//! | [`datagram`] | [`Socket`](datagram::Socket): packets over UDP or IP protocol 146, many in one call; their encryption |
//! | [`local`] | [`LocalStream`]: a stream to another process of this host; [`dial`] |
//! | [`scout`] | [`Scout`]: the host's networks now, and every change to them |
//! | [`address`] | [`Target`]: what people type to name a peer |
//!
//! Invariants: every descriptor is close-on-exec from birth and closed when its owner is dropped; nothing blocks
//! the runtime; what a stranger can make us hold is bounded in number, bytes and time; no byte is asked of the
//! caller before the kernel can send it at once.
//! Deliberately absent: messages, frames, retries and any choice between networks; polling by a timer; `unsafe`.

#![forbid(unsafe_code)]

pub mod address;
pub mod carrier;
pub mod datagram;
pub mod identity;
pub mod local;
mod netlink;
pub mod places;
mod private_file;
pub mod scout;
pub mod tls;
pub mod trust;

pub use address::{DEFAULT_PORT, HostPort, Target};
pub use carrier::{Acceptor, Carrier, ConnectOptions, Listener, connect, handshake};
pub use identity::Identity;
pub use local::{LocalStream, dial, dial_patiently};
pub use places::Places;
pub use scout::{Scout, ScoutConfig};
pub use tls::{Expect, Tls, TlsError};
pub use trust::{TrustFile, TrustWatcher};
