//! `libftb.so`: FTB API 0.5 for C programs, binary compatible with programs that were compiled against FTB 0.6.2, on
//! Steadfast's agent. docs/libftb.md is its manual; the headers stand in `include/`.
//!
//! | file | one idea |
//! |---|---|
//! | `calls.rs` | the nine functions: pointers in and out, and nothing else; all `unsafe` of the crate |
//! | `abi.rs` | FTB's structs, and texts in their fields |
//! | `convert.rs` | events, handles and subscriptions as C has them, and back |
//! | `client.rs` | one client: its lock, its callbacks, the thread that calls them |
//! | `process.rs` | all clients of a process, and what a fork leaves of them |
//! | `log.rs` | what an operator should know, at most once a minute |
//!
//! Invariants: no function lasts longer than some seconds, ends the process, unwinds into C or changes `errno`. No thread
//! for clients that do not ask for callbacks; one for each that does, in which signals are blocked. No lock is held while a
//! callback runs. After `FTB_Disconnect` no descriptor is left.
//!
//! Deliberately absent: FTB's agents and their addresses, tags (`FTB_TAG`, off by default in FTB, too).

mod abi;
mod calls;
mod client;
mod convert;
mod log;
mod process;

pub use calls::{
    FTB_Compare_event_handles, FTB_Connect, FTB_Declare_publishable_events, FTB_Disconnect,
    FTB_Get_event_handle, FTB_Poll_event, FTB_Publish, FTB_Subscribe, FTB_Unsubscribe,
};
