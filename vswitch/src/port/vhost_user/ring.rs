//! A virtqueue of either format, as its queue uses it.

use super::chain::RingAddresses;
use super::dirty_log::DirtyLog;
use super::guest_memory::GuestMemory;
use super::packed_ring::PackedRing;
use super::split_ring::SplitRing;
use std::sync::Arc;

/// What a driver and its device agreed on about their rings.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingFormat {
    pub(super) is_packed: bool,
    pub(super) has_event_index: bool,
}

/// A virtqueue of either format.
#[derive(Debug)]
pub(super) enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

impl Ring {
    /// A ring that goes on where ring and `base` say it was left; none if it is not in shared memory.
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        addresses: RingAddresses,
        size: u16,
        format: RingFormat,
        base: u32,
    ) -> Option<Self> {
        let RingFormat { is_packed, has_event_index } = format;
        Some(match is_packed {
            true => Self::Packed(PackedRing::new(memory, addresses, size, has_event_index, base)?),
            false => Self::Split(SplitRing::new(memory, addresses, size, has_event_index)?),
        })
    }

    /// Where it is, as the front end is told when it stops the ring.
    pub(super) fn base(&self) -> u32 {
        match self {
            Self::Split(ring) => ring.base(),
            Self::Packed(ring) => ring.base(),
        }
    }

    /// Shows the guest what was given back; whether it wants an interrupt for it.
    #[inline]
    pub(super) fn publish(&mut self, log: Option<&DirtyLog>) -> bool {
        match self {
            Self::Split(ring) => ring.publish(log),
            Self::Packed(ring) => ring.publish(log),
        }
    }

    /// Says whether the guest is to kick for chains that it makes available from now on. Those that it made available before
    /// are to be looked for afterwards.
    pub(super) fn want_kicks(&mut self, are_wanted: bool, log: Option<&DirtyLog>) {
        match self {
            Self::Split(ring) => ring.want_kicks(are_wanted, log),
            Self::Packed(ring) => ring.want_kicks(are_wanted, log),
        }
    }

    /// Whether a chain is available.
    pub(super) fn is_available(&self) -> bool {
        match self {
            Self::Split(ring) => ring.is_available(),
            Self::Packed(ring) => ring.is_available(),
        }
    }

    /// Whether nobody has ever written to it.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Split(ring) => ring.is_untouched(),
            Self::Packed(ring) => ring.is_untouched(),
        }
    }
}
