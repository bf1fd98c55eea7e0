//! Feeds `harness::fuzz::nat::nat`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::nat::nat(bytes));
