//! Checkpoints of C programs: `include/steadfast/checkpoint.h` is the interface, `libsteadfastcheckpoint.so` the library.
//!
//! | file | one idea |
//! |---|---|
//! | `calls.rs` | what C calls: pointers in and out |
//! | `callbacks.rs` | functions of the program as a participant |
//! | `sections.rs` | the parts of each thread that must not be interrupted |
//!
//! Invariants: no call prints, changes `errno`, panics into C or ends the process; the thread and the socket are there
//! while something is registered. Deliberately absent: conversations, images.

mod callbacks;
pub mod calls;
mod sections;
