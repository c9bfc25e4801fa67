//! A store on a real directory, and on a disk that loses what it may.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod directory;
mod power;
mod records;
