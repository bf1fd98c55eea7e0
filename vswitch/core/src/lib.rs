//! The meaning of the switch: bytes to headers, headers to verdicts, rules to filters. Pure: no clock, no I/O, no
//! threads. Time and secrets are arguments. Read `eni` first: it is the door every packet passes.

#![no_std]

extern crate alloc;

pub mod compile;
pub mod desired;
pub mod eni;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod packet;
pub mod protocol;
pub mod snapshot;
pub mod time;
pub mod trace;
pub mod verdict;
