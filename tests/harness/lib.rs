//! Worlds, oracles and namespaces for the tests.
