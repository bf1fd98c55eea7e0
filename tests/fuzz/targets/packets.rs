//! Feeds `harness::fuzz::packets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::packets(bytes));
