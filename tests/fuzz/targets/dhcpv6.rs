//! Feeds `harness::fuzz::services::dhcpv6`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::services::dhcpv6(bytes));
