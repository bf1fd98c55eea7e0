//! The state: changes are decided, stored, and put into force in the forwarding plane.

pub mod desired_state;
pub mod masquerade;
mod outside;
pub mod switch_link;
pub mod transaction;
