//! An agent and what the daemon of another host says.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| steadfast_sim::fuzz::backplane::exchange(bytes));
