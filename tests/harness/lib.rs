//! Worlds, oracles and namespaces for the tests.

pub mod netns;
