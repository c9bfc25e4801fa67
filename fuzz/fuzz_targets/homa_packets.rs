//! The decoder of Homa packets, given arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| steadfast_sim::fuzz::homa::packets(bytes));
