//! The ports of one external address, in blocks that each belong to one ENI at a time.

use crate::config::ids::EniIndex;
use crate::config::limits::{NAT_BLOCK_PORTS, NAT_PORT_BLOCKS_PER_ENI_MAX, NAT_PORT_MIN};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

/// How many blocks an address has.
pub(super) const BLOCKS: u16 = NAT_PORT_BLOCKS_PER_ENI_MAX;
/// Stands for no owner.
const FREE: u32 = 0;

/// The owners of an external address's port blocks. All workers share it: they read the owner of a port that a packet is
/// for, and now and then take a block for an ENI of theirs.
#[derive(Debug)]
pub(crate) struct PortBlocks {
    /// By block: the index of its ENI plus one.
    owners: Box<[AtomicU32]>,
}

impl PortBlocks {
    pub(crate) fn new() -> Self {
        Self { owners: (0..BLOCKS).map(|_| AtomicU32::new(FREE)).collect() }
    }

    /// The ENI that has a port.
    #[inline]
    pub(crate) fn owner(&self, port: u16) -> Option<EniIndex> {
        let owner = self.owners.get(usize::from(block_of(port)?))?.load(Ordering::Acquire);
        owner.checked_sub(1).map(EniIndex)
    }

    /// Takes a free block for an ENI. The search begins at a place that `random` determines, so that ports do not tell who
    /// came first.
    pub(crate) fn claim(&self, eni: EniIndex, random: u64) -> Option<u16> {
        let first = (random % u64::from(BLOCKS)) as u16;
        let is_taken = |block: &u16| {
            let owner = &self.owners[usize::from(*block)];
            owner.compare_exchange(FREE, eni.0 + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        (first..BLOCKS).chain(0..first).find(is_taken)
    }

    /// Gives a block back.
    pub(crate) fn release(&self, block: u16) {
        if let Some(owner) = self.owners.get(usize::from(block)) {
            owner.store(FREE, Ordering::Release);
        }
    }

    /// How many blocks have an owner.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.owners.iter().filter(|owner| owner.load(Ordering::Relaxed) != FREE).count()
    }
}

/// The block of a port. None for ports that no ENI may have.
#[inline]
pub(super) const fn block_of(port: u16) -> Option<u16> {
    match port.checked_sub(NAT_PORT_MIN) {
        Some(offset) => Some(offset / NAT_BLOCK_PORTS),
        None => None,
    }
}

/// The first port of a block.
#[inline]
pub(super) const fn first_port(block: u16) -> u16 {
    NAT_PORT_MIN + block * NAT_BLOCK_PORTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_one_owner_until_it_is_given_back() {
        let blocks = PortBlocks::new();
        for number in 0..BLOCKS {
            let block = blocks.claim(EniIndex(7), u64::from(number)).unwrap();
            assert_eq!(blocks.owner(first_port(block)), Some(EniIndex(7)));
        }
        assert_eq!((blocks.claim(EniIndex(8), 3), blocks.owner(80)), (None, None));
        blocks.release(BLOCKS - 1);
        assert_eq!((blocks.owner(u16::MAX), blocks.claim(EniIndex(8), 3)), (None, Some(BLOCKS - 1)));
        assert_eq!(blocks.owner(u16::MAX), Some(EniIndex(8)));
    }
}
