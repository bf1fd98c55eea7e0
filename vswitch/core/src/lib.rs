//! The meaning of the switch: bytes to headers, headers to verdicts, rules to ACLs. Pure: no clock, no I/O, no threads.
//! Time and secrets are arguments.
//!
//! The modules are layers, from the ground up: each imports only from those before it. Read [`datapath`] first, and
//! there `forward`: every packet passes through it.
//!
//! A section number such as §3.4, also as "`semantics.md` §3.4", refers to the specification of the cloud's security
//! groups, which is not part of this repository; `docs/semantics.md` describes the same behaviour to operators.

#![no_std]

extern crate alloc;

pub use ipnet;

pub mod acl;
pub mod compile;
pub mod config;
pub mod conntrack;
pub mod datapath;
pub mod hw;
pub(crate) mod nat;
pub mod observe;
pub mod packet;
pub mod policy;
pub mod router;
pub mod tables;
