//! Hosts in network namespaces joined by emulated links, for tests, the demo and benchmarks.
//!
//! A [`Lab`] holds [`Host`]s, each a network namespace of its own with a real kernel stack, and [`Link`]s between two of
//! them. A link is two veth pairs with a relay thread in the middle: it copies Ethernet frames and emulates rate, delay,
//! jitter, loss (independent or in bursts), duplication, a drop-tail queue or eight in strict priority, and a silent blackhole, each
//! direction for itself, all changeable while traffic flows. A [`Switch`] joins more hosts, with a queue of its own in front
//! of each.
//!
//! ```no_run
//! use std::time::Duration;
//! use steadfast_testbed::{Direction, Lab};
//!
//! # fn main() -> Result<(), steadfast_testbed::LabError> {
//! let lab = Lab::new()?;
//! let (a, b) = (lab.host("a")?, lab.host("b")?);
//! let wifi = lab.link("wifi", &a, &b).rate_mbit(20.0).delay(Duration::from_millis(10)).connect()?;
//! let server = b.run(|| std::net::TcpListener::bind((wifi.address_of(&b), 0))).expect("a free port");
//! wifi.blackhole(Direction::AToB);
//! # drop(server);
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `lab`, `host`, `link`, `switch` | what a caller touches |
//! | `settings`, `loss` | how one direction of a link behaves, as plain data |
//! | `pipe`, `bands` | the same as a state machine without a clock, and its queues |
//! | `relay`, `end` | the thread between veth pairs, and one of these |
//! | `access`, `isolate` | whether this process may make namespaces, and what to do when not |
//! | `precision`, `emulator` | what a link, and the whole emulation, is worth on this machine |
//! | `namespace`, `netlink`, `sys` | the kernel |
//!
//! Invariants:
//! - Nothing installed is needed (`isolated` alone uses `unshare` of util-linux), and nothing leaves the namespaces made
//!   here: a lab has no way to the machine's own networks.
//! - A frame never arrives before its delay, and frames of one direction keep their order unless reordering is asked for.
//! - Both ends know each other's hardware address from the start, so a blackhole is silent for as long as it lasts: no
//!   failed address resolution betrays it.
//! - A host with several links answers on each for its addresses there alone: networks stay apart as they are outside.
//! - Dropping the [`Lab`] ends its relay threads; the namespaces die with the last handle and the last process in them.
//!
//! Deliberately absent: routers between hosts, switches that are joined to others, VLAN tags, and segmentation offload
//! (the relay sees packets as they would be on a wire).

mod access;
mod bands;
mod emulator;
mod end;
mod error;
mod host;
mod ip_net;
mod isolate;
mod lab;
mod link;
mod link_builder;
mod loss;
mod namespace;
mod netlink;
mod pipe;
mod precision;
mod relay;
mod settings;
mod switch;
mod sys;

pub use access::enter_user_namespace;
pub use emulator::EmulatorPrecision;
pub use error::LabError;
pub use host::Host;
pub use ip_net::IpNet;
pub use isolate::isolated;
pub use lab::Lab;
pub use link::{Direction, Link};
pub use link_builder::LinkBuilder;
pub use loss::Loss;
pub use pipe::DirectionCounters;
pub use precision::Precision;
pub use relay::Counters;
pub use settings::{Queue, Settings};
pub use switch::{PortCounters, Switch, SwitchBuilder};
pub use sys::run_in_real_time;
