//! Feeds `harness::fuzz::metadata::http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::metadata::http(bytes));
