//! Network address translation at an uplink: which external address and port stands for which private one.
//!
//! What is configured, floating addresses and forwards, is in the snapshot ([`table`]). What connections of guests add is
//! kept by the worker that owns the guest's ENI ([`mappings`]), from blocks of external ports of which each belongs to one
//! ENI at a time ([`port_blocks`]). So one ENI cannot use up the ports of another, and the owner of a block is all that the
//! way back needs to find the worker.

pub(crate) mod fragments;
pub(crate) mod mappings;
pub(crate) mod port_blocks;
pub(crate) mod rewrite;
pub(crate) mod table;
pub(crate) mod translation;
