//! The control plane: VPCs, ENIs and security groups as customers see them.
//!
//! Decide, then do: [`model`] turns a [command](command::Command) into events or a refusal and touches nothing else;
//! the server keeps the events, makes them true and sends their meaning to the forwarding plane.

pub mod api;
pub mod api_client;
pub mod authority;
pub mod client;
pub mod command;
pub mod config;
pub mod conform;
pub mod environment;
pub mod error;
pub mod http;
pub mod logging;
pub mod lower;
pub mod model;
pub mod private_dir;
pub mod privileges;
pub mod query;
mod refusal_log;
pub mod server;
pub mod small_file;
pub mod store;
pub mod switch_link;
pub mod unix_socket;
pub mod view;
pub mod wire;

pub use client::{Client, ClientError};
pub use config::ControlConfig;
pub use server::{RunError, run, serve, serve_with};
