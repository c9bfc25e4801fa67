//! An endpoint whose peer says whatever the bytes make it say.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| steadfast_sim::fuzz::hostile(bytes));
