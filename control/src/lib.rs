//! The control plane: VPCs, ENIs and security groups as customers see them.
//!
//! Decide first, then act: [`model`] turns a [command](command::Command) into events or a refusal without changing
//! anything; the server stores the events, applies them and sends their effect to the forwarding plane.

pub mod command;
pub mod config;
pub mod conform;
pub mod ecs;
pub mod environment;
pub mod error;
pub mod http;
pub mod logging;
pub mod model;
pub mod os;
mod refusal_log;
pub mod server;
pub mod socket;
pub mod state;
pub mod store;

pub use config::ControlConfig;
pub use server::{RunError, run, serve, serve_with};
pub use socket::client::{Client, ClientError};
