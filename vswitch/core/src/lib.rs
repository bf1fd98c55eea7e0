//! The meaning of the switch: bytes to headers, headers to verdicts, rules to filters. Pure: no clock, no I/O, no
//! threads. Time and secrets are arguments. Read `eni` first: it is the door every packet passes.

#![no_std]

extern crate alloc;

pub use ipnet;

mod answer;
mod apply;
mod checksum;
pub mod chunks;
mod classify;
pub mod coalesce;
pub mod compile;
mod counters;
mod delta;
pub mod desired;
pub mod eni;
mod express;
pub mod filter;
pub mod flow;
mod guard;
pub mod headers;
mod host_map;
pub mod ids;
mod judge;
pub mod limits;
pub mod listing;
pub mod offload;
pub mod packet;
pub mod phases;
mod prefetch;
pub mod prefix_map;
pub mod protocol;
mod quota;
mod reclaim;
pub mod relocate;
pub mod report;
pub mod route;
pub mod segment;
mod simd;
pub mod snapshot;
mod sweep;
pub mod time;
pub mod trace;
pub mod validate;
pub mod verdict;
mod ways;
