//! What the operating system gives: system calls, netlink, namespaces, and what is kept in the run directory. Knows no port.

pub mod io_uring;
pub mod isolation;
pub mod namespace;
pub mod netlink;
pub mod run_dir;
pub mod sys;
