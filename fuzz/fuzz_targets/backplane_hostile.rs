//! An agent of the backplane whose clients say whatever the bytes make them say.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| steadfast_sim::fuzz::backplane::hostile(bytes));
