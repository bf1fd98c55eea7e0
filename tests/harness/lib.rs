//! Worlds, oracles and frames for the tests. Nothing here shares code with what it tests, but the words of the desired
//! state.

pub mod frame;
pub mod oracle;
pub mod random;
pub mod world;
