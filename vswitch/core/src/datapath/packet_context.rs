//! What one phase of a burst finds out about a packet and the next one needs.

use crate::conntrack::slot::Slot;
use crate::conntrack::tables::LookupKey;
use crate::packet::headers::Segment;
use crate::tables::address_entry::AddressEntry;

/// What the first phase finds out about a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketContext {
    /// Where the session of a plain packet is looked for.
    pub(crate) entry: LookupKey,
    /// Where that session probably is.
    pub(crate) guess: Slot,
    /// What it says of its TCP stream, if it may take the fast path.
    pub(crate) segment: Segment,
    /// Which burst path it takes, if it may take the fast path so far (`datapath/fast_path.rs`). Its headers are not read then.
    pub(crate) burst_path: u8,
    /// What the network knows of the destination.
    pub(crate) place: AddressEntry,
}

impl PacketContext {
    /// The number of no burst path.
    pub(crate) const NO_BURST_PATH: u8 = u8::MAX;
    pub(super) const NONE: Self = Self {
        entry: LookupKey::NONE,
        guess: Slot::FIRST,
        segment: Segment { sequence: 0, acknowledgment: 0, flags: 0 },
        burst_path: Self::NO_BURST_PATH,
        place: AddressEntry::NOWHERE,
    };
}
