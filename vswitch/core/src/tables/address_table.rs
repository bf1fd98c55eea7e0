//! What a VPC knows of every address of one family: where its packets go, and what rules can tell about it.

use super::host_table::HostMap;
use super::lpm::{Address, Pieces};
use crate::tables::address_entry::Place;
use alloc::sync::Arc;

/// The places of all addresses of one family.
#[derive(Clone, Debug)]
pub(crate) struct Places<A> {
    /// Those that are configured by themselves.
    pub(crate) hosts: HostMap<A>,
    /// What the prefixes say of the others.
    pub(crate) prefixes: Arc<Pieces<A, Place>>,
}

impl<A: Address> Places<A> {
    #[inline]
    pub(crate) fn find(&self, address: A) -> Place {
        self.hosts.find(address).unwrap_or_else(|| self.prefixes.find(address))
    }
}
