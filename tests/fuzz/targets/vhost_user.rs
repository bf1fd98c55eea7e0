//! Feeds `harness::fuzz::vhost_user::vhost_user`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::fuzz::vhost_user::vhost_user(bytes));
