//! Feeds `harness::fuzz::services::ra`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::services::ra(bytes));
