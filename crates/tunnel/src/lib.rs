//! TCP connections of programs that know nothing of Steadfast, carried over one conversation.
//!
//! One side listens where those programs connect to ([`Client`]), the other connects to where they want to go
//! ([`Server`]). Each connection is a byte stream under the labels of its [`Forward`].
//!
//! Invariants: what is not on the server's [`AllowList`] is not connected to; a peer has a bounded number of connections
//! and each a bounded window; either direction of a connection ends by itself, and what breaks is a reset on the other
//! side and never an end; a connection that is idle is left alone.
//! Deliberately absent: a terminal, encryption, names of users, UDP.
//!
//! | file | one idea |
//! |---|---|
//! | `client.rs` | listeners, and the conversation that is opened again when it ends |
//! | `server.rs` | whoever asks for a target gets it or the reason why not |
//! | `target.rs` | targets, and which of them are allowed |
//! | `message.rs` | what is said at the beginning of a connection |
//! | `relay.rs` | bytes both ways, ends and resets |
//! | `event.rs` | what is told to whoever watches |

#![forbid(unsafe_code)]

mod client;
mod event;
mod message;
mod relay;
mod server;
mod target;

pub use client::{Client, ClientFailure, Forward};
pub use event::{Counters, Event, Monitor};
pub use server::Server;
pub use target::{AllowList, BadTarget, Target};

use std::time::Duration;

use steadfast::{Config, SessionConfig};

/// Connections that one side carries at once, of all conversations.
pub const MAX_CONNECTIONS: usize = 512;

/// Of them, those of one peer at a server.
pub const MAX_OF_A_PEER: usize = MAX_CONNECTIONS / 4;

/// How long a server keeps a conversation whose peer is not reached, and the connections in it.
pub const PARK_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Settings of the conversations that a server accepts.
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::default();
    config.park_limit = Some(PARK_LIMIT);
    config
}

/// Settings of an endpoint that carries tunnels: room for many connections of which some wait for a network.
pub fn config() -> Config {
    let mut config = Config::default();
    config.send_buffers = [64 << 20; 2];
    // What comes is taken at once, so a window is what is under way.
    config.first_windows = [4 << 20; 2];
    config.windows = [16 << 20; 2];
    // A conversation may hold 64 MiB unread. A peer has one for each of its processes; those that died without a word
    // are parked until others take their place.
    config.max_sessions = 16;
    config.max_parked = 4;
    config
}
