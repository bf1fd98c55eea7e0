//! The operating system: system calls, netlink, namespaces, and the run directory. It knows nothing of ports.

pub mod bus_error;
pub mod io_uring;
pub mod isolation;
pub mod namespace;
pub mod netlink;
pub mod run_dir;
pub mod seqpacket;
pub mod sys;
