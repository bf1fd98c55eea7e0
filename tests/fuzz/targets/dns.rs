//! Feeds `harness::fuzz::metadata::dns`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::metadata::dns(bytes));
