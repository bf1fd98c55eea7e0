//! Feeds `harness::fuzz::protocol`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::protocol(bytes));
