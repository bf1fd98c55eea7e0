//! Feeds `harness::fuzz::conformance`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::conformance(bytes));
