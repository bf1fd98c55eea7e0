//! The end of the process by signal. Alone in its binary: signals are for the whole process.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use rustix::process::{Signal, getpid, kill_process};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vswitch::{VswitchConfig, run};

#[test]
fn a_signal_ends_the_switch_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    for signal in [Signal::TERM, Signal::INT] {
        let config = VswitchConfig::new(&path);
        let thread = std::thread::spawn(move || run(config));
        while UnixStream::connect(&path).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_process(getpid(), signal).unwrap();
        thread.join().unwrap().unwrap();
        assert!(!path.exists());
    }
}
