//! A virtqueue of either format, as its queue uses it.

use super::chain::{Chain, Chains, RingAddresses, RingFault};
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

    /// Reads the next chain and goes on behind it; whether there was one.
    ///
    /// # Errors
    /// The chain breaks a rule.
    pub(super) fn next(&mut self, memory: &GuestMemory, chains: &mut Chains) -> Result<bool, RingFault> {
        match self {
            Self::Split(ring) => ring.next(memory, chains),
            Self::Packed(ring) => ring.next(memory, chains),
        }
    }

    /// Reads chains that are available until the list has `chains_max` or, with its last, `bytes_max`; has the memory that they
    /// begin with fetched. Whether there may be more.
    ///
    /// # Errors
    /// A chain breaks a rule.
    #[inline]
    pub(super) fn read_ahead(
        &mut self,
        memory: &GuestMemory,
        chains: &mut Chains,
        chains_max: usize,
        bytes_max: u64,
    ) -> Result<bool, RingFault> {
        match self {
            Self::Split(ring) => {
                ring.prefetch(chains_max)?;
                while chains.is_below(chains_max, bytes_max) {
                    if !ring.next(memory, chains)? {
                        return Ok(false);
                    }
                    chains.prefetch_last(memory);
                }
            }
            Self::Packed(ring) => {
                while chains.is_below(chains_max, bytes_max) {
                    if !ring.next(memory, chains)? {
                        return Ok(false);
                    }
                    chains.prefetch_last(memory);
                }
            }
        }
        Ok(true)
    }

    /// Goes back to where a chain begins that is not used yet.
    pub(super) fn rewind(&mut self, chain: &Chain) {
        match self {
            Self::Split(ring) => ring.rewind(chain),
            Self::Packed(ring) => ring.rewind(chain),
        }
    }

    /// Gives a chain back with so many bytes written. Chains are given back in their order; the guest sees them once they are
    /// published.
    #[inline]
    pub(super) fn put_used(&mut self, chain: &Chain, written_bytes: u32) {
        match self {
            Self::Split(ring) => ring.put_used(chain, written_bytes),
            Self::Packed(ring) => ring.put_used(chain, written_bytes),
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
