//! Feeds `harness::fuzz::services::dhcp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::services::dhcp(bytes));
