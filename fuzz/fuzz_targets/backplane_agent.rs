//! A client of the backplane whose agent says any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| steadfast_sim::fuzz::backplane::agent(bytes));
