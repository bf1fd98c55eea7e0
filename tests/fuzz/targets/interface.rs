//! Feeds `harness::fuzz::interface`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::interface(bytes));
