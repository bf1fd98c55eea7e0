//! The services that guests reach at addresses of their own: metadata and name servers.
//!
//! They run as a process without privileges: what a guest sends is taken apart here and nowhere else. The forwarding plane
//! sends each packet with the ENI that it is from, and the control plane tells what that ENI is. Both connections are made
//! anew whenever they end; while the control plane is away, what it said last is what guests are told.

pub mod channel;
pub mod directory;
pub mod dns;
pub mod http;
pub mod metadata;
mod server;
pub mod tcp;

pub use server::{ServicesConfig, run};
