//! The state in force: changes decided, kept, and brought about in the forwarding plane.

pub mod desired_state;
pub mod switch_link;
pub mod transaction;
