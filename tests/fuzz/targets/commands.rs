//! Feeds `harness::fuzz::commands`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::commands(bytes));
