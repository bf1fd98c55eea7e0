//! The decision at one ENI in one direction.

pub(crate) mod eni_context;
pub(crate) mod evaluate;
pub(crate) mod exemptions;
