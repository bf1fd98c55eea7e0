//! The decision at one ENI in one direction.

pub(crate) mod evaluate;
