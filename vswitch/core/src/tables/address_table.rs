//! What a VPC knows of every address of one family: where its packets go, and what rules can tell about it.

use super::host_table::HostTable;
use super::lpm::{Address, Intervals};
use crate::tables::address_entry::AddressEntry;
use alloc::sync::Arc;

/// The entries of all addresses of one family.
#[derive(Clone, Debug)]
pub(crate) struct AddressTable<A> {
    /// Addresses with an entry of their own.
    pub(crate) hosts: HostTable<A>,
    /// What the prefixes say about all other addresses.
    pub(crate) prefixes: Arc<Intervals<A, AddressEntry>>,
}

impl<A: Address> AddressTable<A> {
    #[inline]
    pub(crate) fn find(&self, address: A) -> AddressEntry {
        self.hosts.find(address).unwrap_or_else(|| self.prefixes.find(address))
    }
}
