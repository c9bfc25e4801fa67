//! Subscriptions, schema files, CloudEvents and event handles, given arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| steadfast_sim::fuzz::backplane::texts(bytes));
