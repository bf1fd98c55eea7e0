//! What one phase of a burst finds out about a packet for the next one.

use crate::config::limits::BURST_PACKETS;
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
    /// The number of its burst path, if it may still take the fast path (`datapath/fast_path.rs`). Its headers are not
    /// parsed in full then.
    pub(crate) burst_path: u8,
    /// The address table's entry for the destination.
    pub(crate) place: AddressEntry,
}

impl PacketContext {
    /// Stands for a plain packet that leaves the VPC and may take the fast path there.
    pub(crate) const LEAVES: u8 = u8::MAX - 1;
    /// Stands for no burst path.
    pub(crate) const NO_BURST_PATH: u8 = u8::MAX;
    pub(super) const NONE: Self = Self {
        entry: LookupKey::NONE,
        guess: Slot::FIRST,
        segment: Segment { sequence: 0, acknowledgment: 0, flags: 0 },
        burst_path: Self::NO_BURST_PATH,
        place: AddressEntry::NOWHERE,
    };
}

const _: () = assert!(BURST_PACKETS < PacketContext::LEAVES as usize);
