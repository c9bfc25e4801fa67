//! The decoder of frames, given arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| steadfast_sim::fuzz::frames(bytes));
