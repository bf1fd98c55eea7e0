//! Worlds, oracles, frames and namespaces for the tests. Worlds and oracles share no code with what they test, except
//! for the types of the desired state.

pub mod frame;
pub mod fuzz;
pub mod guest;
mod life;
pub mod message;
pub mod netns;
pub mod offload;
pub mod oracle;
pub mod plane;
pub mod random;
pub mod raw_socket;
pub mod world;
