//! The control socket: its protocol, queries and answers, and both ends of a connection.

mod answer;
pub mod client;
pub(crate) mod connection;
pub mod guest_view;
pub(crate) mod listener;
pub mod outside_view;
pub mod protocol;
pub mod query;
pub mod view;
