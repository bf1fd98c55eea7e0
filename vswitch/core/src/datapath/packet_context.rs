//! What one phase of a burst finds out about a packet for the next one.

use crate::config::limits::PATHS_CACHED_MAX;
use crate::conntrack::slot::Slot;
use crate::conntrack::tables::LookupKey;
use crate::packet::headers::Segment;
use crate::tables::address_entry::AddressEntry;

/// What the first phase finds out about a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketContext {
    /// The key of a plain packet's session.
    pub(crate) entry: LookupKey,
    /// Where that session probably is.
    pub(crate) guess: Slot,
    /// The packet's TCP segment, if it may take the fast path.
    pub(crate) segment: Segment,
    /// The number of its path in the cache, if it may still take the fast path (`datapath/fast_path.rs`). Its headers are
    /// not parsed in full then.
    pub(crate) path: u16,
    /// The address table's entry for the destination.
    pub(crate) place: AddressEntry,
}

impl PacketContext {
    /// Stands for a plain packet that leaves the VPC and may take the fast path there.
    pub(crate) const LEAVES: u16 = u16::MAX - 1;
    /// Stands for no path.
    const NO_PATH: u16 = u16::MAX;
    pub(super) const NONE: Self = Self {
        entry: LookupKey::NONE,
        guess: Slot::FIRST,
        segment: Segment { sequence: 0, acknowledgment: 0, flags: 0 },
        path: Self::NO_PATH,
        place: AddressEntry::NOWHERE,
    };
}

const _: () = assert!(PATHS_CACHED_MAX <= PacketContext::LEAVES as usize);
