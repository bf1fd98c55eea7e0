//! The external ports that connections of one ENI have: its port blocks, and in them the mappings.
//!
//! A mapping is endpoint-independent (RFC 4787 REQ-1): it belongs to a private address and port, whomever they talk to. All
//! mappings of an ENI have the same external address (REQ-2). Ports are chosen at random (RFC 6056), and one that was freed
//! rests while there are others, since its last peer may still remember the connection.

use crate::config::ids::EniIndex;
use crate::config::limits::NAT_BLOCK_PORTS;
use crate::hw::time::{TICKS_PER_SECOND, Tick};
use crate::nat::port_blocks::{BLOCKS, block_of, first_port};
use crate::nat::table::PoolAddress;
use alloc::boxed::Box;
use alloc::vec::Vec;
use hashbrown::HashTable;

const PORTS: usize = NAT_BLOCK_PORTS as usize;
/// How long a port rests once it was freed (RFC 9293 §3.6.1: twice the lifetime of a segment, as Linux has it).
const REST_S: u32 = 60;

/// A private address and port, with the protocol that the port belongs to. For ICMP the identifier of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrivatePort {
    pub(crate) address: u32,
    pub(crate) port: u16,
    pub(crate) protocol: u8,
}

/// The ENI has no port left, and there is no block that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortsExhausted;

/// The mappings of one ENI. Dropping them gives the blocks back.
#[derive(Debug)]
pub(crate) struct EniMappings {
    eni: EniIndex,
    external: PoolAddress,
    blocks: Blocks,
    /// The external port of each private one.
    by_private: HashTable<u16>,
    random: PortRandom,
    swept: Tick,
}

/// The blocks of an ENI, found by number without a search.
#[derive(Debug)]
struct Blocks {
    all: Vec<Block>,
    /// By number: the place in `all` plus one; zero for blocks of others.
    places: Box<[u16]>,
}

#[derive(Debug)]
struct Block {
    number: u16,
    /// By port: whether it is mapped.
    used: u64,
    /// By port: whether it rests.
    resting: u64,
    mappings: [PortMapping; PORTS],
}

#[derive(Clone, Copy, Debug)]
struct PortMapping {
    inside: PrivatePort,
    /// When it ends, or its rest does.
    until: Tick,
    /// Stands for the only remote end that it was used with; [`PortMapping::MANY`] for more than one.
    remote: u32,
}

const _: () = assert!(size_of::<PortMapping>() == 16);

impl PortMapping {
    /// A port that is free: of no protocol, so that a look at the mapping alone tells.
    const NONE: Self = Self { inside: PrivatePort { address: 0, port: 0, protocol: 0 }, until: Tick(0), remote: 0 };
    const MANY: u32 = 0;
}

impl EniMappings {
    /// No mappings yet. They will be ports of `external`; `seed` determines which.
    pub(crate) fn new(eni: EniIndex, external: PoolAddress, seed: [u64; 2]) -> Self {
        let (blocks, by_private, random) = (Blocks::none(), HashTable::new(), PortRandom { seed, drawn: 0 });
        Self { eni, external, blocks, by_private, random, swept: Tick(0) }
    }

    /// The external address.
    #[inline]
    pub(crate) fn external(&self) -> &PoolAddress {
        &self.external
    }

    /// Ends the mappings of private addresses that may not have this external address any more.
    #[cold]
    pub(crate) fn retain(&mut self, is_permitted: impl Fn(u32) -> bool) {
        let Self { blocks, by_private, random, .. } = self;
        for block in &mut blocks.all {
            for place in 0..PORTS {
                let mapping = block.mappings[place];
                if block.is_used(place) && !is_permitted(mapping.inside.address) {
                    forget(by_private, random, mapping.inside, block.port(place));
                    block.used &= !(1 << place);
                    block.mappings[place] = PortMapping::NONE;
                }
            }
        }
    }

    /// Whether there is no mapping.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_private.is_empty()
    }

    /// How many mappings and blocks there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.by_private.len(), self.blocks.all.len())
    }

    /// What they take, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.memory_bytes() + self.by_private.allocation_size()
    }

    /// The external port of a private one, if it has one.
    #[inline]
    pub(crate) fn find(&self, inside: PrivatePort) -> Option<u16> {
        let Self { by_private, blocks, random, .. } = self;
        by_private
            .find(random.hash(inside), |port| blocks.mapping(*port).is_some_and(|it| it.inside == inside))
            .copied()
    }

    /// The private port that an external one stands for.
    #[inline]
    pub(crate) fn private(&self, port: u16, protocol: u8) -> Option<PrivatePort> {
        let mapping = self.blocks.mapping(port)?;
        (mapping.inside.protocol == protocol).then_some(mapping.inside)
    }

    /// Prefetches what [`EniMappings::private`] reads last.
    #[inline]
    pub(crate) fn prefetch(&self, port: u16) {
        if let Some(mapping) = self.blocks.mapping(port) {
            crate::hw::prefetch::prefetch(mapping);
        }
    }

    /// Takes an external port for a private one that has none. The ENI may have `blocks_max` blocks; ports for which
    /// `is_reserved` are not taken.
    ///
    /// # Errors
    /// [`PortsExhausted`].
    #[inline(never)]
    pub(crate) fn map(
        &mut self,
        inside: PrivatePort,
        blocks_max: usize,
        now: Tick,
        is_reserved: impl Fn(u16) -> bool,
    ) -> Result<u16, PortsExhausted> {
        let free = |block: &Block| !(block.used | block.resting);
        let found = self.choose(free, &is_reserved).or_else(|| {
            // Looked through once a tick at most: an ENI without ports must not cost more than others.
            if self.swept < now {
                self.sweep(now);
            }
            self.choose(free, &is_reserved)
        });
        let found = found.or_else(|| self.claim(blocks_max).and_then(|()| self.choose(free, &is_reserved)));
        let Some((number, place)) = found.or_else(|| self.choose(|block| !block.used, &is_reserved)) else {
            return Err(PortsExhausted);
        };
        let block = &mut self.blocks.all[number];
        let port = block.port(place);
        (block.used, block.resting) = (block.used | 1 << place, block.resting & !(1 << place));
        // Until it is kept for longer: whatever becomes of the packet, the port is not lost.
        block.mappings[place] =
            PortMapping { inside, until: Tick(now.0 + TICKS_PER_SECOND as u32), remote: PortMapping::MANY };
        let Self { by_private, blocks, random, .. } = self;
        let hash = |port: &u16| blocks.mapping(*port).map_or(0, |mapping| random.hash(mapping.inside));
        by_private.insert_unique(random.hash(inside), port, hash);
        Ok(port)
    }

    /// A random port among those that `free` has in a block, by the block's place and its own.
    fn choose(&mut self, free: impl Fn(&Block) -> u64, is_reserved: &impl Fn(u16) -> bool) -> Option<(usize, usize)> {
        let count = self.blocks.all.len();
        // Nothing to look for, as often as an ENI without ports asks.
        if self.by_private.len() == count * PORTS {
            return None;
        }
        let random = self.random.next();
        let (start, turn) = ((random as usize) % count.max(1), (random >> 32) as u32 % u64::BITS);
        (start..count).chain(0..start).find_map(|number| {
            let block = &self.blocks.all[number];
            let mut left = free(block).rotate_right(turn);
            while left != 0 {
                let place = (left.trailing_zeros() + turn) as usize % PORTS;
                if !is_reserved(block.port(place)) {
                    return Some((number, place));
                }
                left &= left - 1;
            }
            None
        })
    }

    /// Takes another block, if the ENI may have one and one is free.
    fn claim(&mut self, blocks_max: usize) -> Option<()> {
        if self.blocks.all.len() >= blocks_max {
            return None;
        }
        self.blocks.add(self.external.blocks.claim(self.eni, self.random.next())?);
        Some(())
    }

    /// Keeps a mapping for at least `ticks` more after a packet of a session with the end that `remote` stands for. If that
    /// is the only one, the mapping ends with its session.
    #[inline]
    pub(crate) fn keep(&mut self, port: u16, remote: u32, ticks: u32, now: Tick) {
        let Some(mapping) = self.blocks.mapping_mut(port) else { return };
        let until = Tick(now.0.saturating_add(ticks));
        let is_first = mapping.remote == PortMapping::MANY && mapping.until.0 <= now.0 + TICKS_PER_SECOND as u32;
        if mapping.remote == remote || is_first {
            (mapping.remote, mapping.until) = (remote, until);
        } else {
            (mapping.remote, mapping.until) = (PortMapping::MANY, mapping.until.max(until));
        }
    }

    /// Ends the mappings whose time has come, and gives back blocks that are not used any more.
    pub(crate) fn sweep(&mut self, now: Tick) {
        self.swept = now;
        let Self { blocks, by_private, random, external, .. } = self;
        for block in &mut blocks.all {
            let mut marked = block.used | block.resting;
            while marked != 0 {
                let place = marked.trailing_zeros() as usize;
                marked &= marked - 1;
                let mapping = block.mappings[place];
                if mapping.until > now {
                    continue;
                }
                if block.is_used(place) {
                    forget(by_private, random, mapping.inside, block.port(place));
                    (block.used, block.resting) = (block.used & !(1 << place), block.resting | 1 << place);
                    let until = Tick(now.0 + REST_S * TICKS_PER_SECOND as u32);
                    block.mappings[place] = PortMapping { until, ..PortMapping::NONE };
                } else {
                    block.resting &= !(1 << place);
                }
            }
        }
        // One stays, so that the next connection needs none.
        let is_idle = |block: &Block| block.used | block.resting == 0;
        let mut place = 0;
        while place < blocks.all.len() {
            if blocks.all.len() > 1 && is_idle(&blocks.all[place]) {
                external.blocks.release(blocks.remove(place));
            } else {
                place += 1;
            }
        }
    }
}

impl Drop for EniMappings {
    fn drop(&mut self) {
        self.blocks.all.iter().for_each(|block| self.external.blocks.release(block.number));
    }
}

impl Block {
    const fn is_used(&self, place: usize) -> bool {
        self.used & (1 << place) != 0
    }

    const fn port(&self, place: usize) -> u16 {
        first_port(self.number) + place as u16
    }
}

impl Blocks {
    fn none() -> Self {
        Self { all: Vec::new(), places: alloc::vec![0; usize::from(BLOCKS)].into() }
    }

    /// Adds a block without mappings.
    fn add(&mut self, number: u16) {
        self.all.push(Block { number, used: 0, resting: 0, mappings: [PortMapping::NONE; PORTS] });
        self.places[usize::from(number)] = self.all.len() as u16;
    }

    /// Takes the block at a place out, and returns its number.
    fn remove(&mut self, place: usize) -> u16 {
        let number = self.all.swap_remove(place).number;
        self.places[usize::from(number)] = 0;
        if let Some(moved) = self.all.get(place) {
            self.places[usize::from(moved.number)] = place as u16 + 1;
        }
        number
    }

    /// The block of an external port, and the port's place in it.
    #[inline]
    fn find(&self, port: u16) -> Option<(usize, usize)> {
        let number = block_of(port)?;
        let place = self.places.get(usize::from(number))?.checked_sub(1)?;
        Some((usize::from(place), usize::from(port - first_port(number)) % PORTS))
    }

    /// The mapping of an external port; that of a free one is of no protocol.
    #[inline]
    fn mapping(&self, port: u16) -> Option<&PortMapping> {
        let (block, place) = self.find(port)?;
        Some(&self.all.get(block)?.mappings[place])
    }

    #[inline]
    fn mapping_mut(&mut self, port: u16) -> Option<&mut PortMapping> {
        let (block, place) = self.find(port)?;
        Some(&mut self.all.get_mut(block)?.mappings[place])
    }

    fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Block>() + size_of_val(&*self.places)
    }
}

fn forget(by_private: &mut HashTable<u16>, random: &PortRandom, inside: PrivatePort, port: u16) {
    if let Ok(found) = by_private.find_entry(random.hash(inside), |other| *other == port) {
        found.remove();
    }
}

/// Numbers that nobody who does not know the seed can foretell from a few others.
#[derive(Debug)]
struct PortRandom {
    seed: [u64; 2],
    drawn: u64,
}

impl PortRandom {
    fn next(&mut self) -> u64 {
        self.drawn += 1;
        mix(mix(self.drawn ^ self.seed[0]) ^ self.seed[1])
    }

    /// The hash of a private port, which its guest chooses.
    #[inline]
    fn hash(&self, inside: PrivatePort) -> u64 {
        let PrivatePort { address, port, protocol } = inside;
        let number = u64::from(address) << 32 | u64::from(port) << 8 | u64::from(protocol);
        let product = u128::from(number ^ self.seed[0]) * u128::from(self.seed[1] | 1);
        (product >> 64) as u64 ^ product as u64
    }
}

/// The finalizer of SplitMix64.
const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::port_blocks::PortBlocks;
    use alloc::collections::BTreeSet;
    use alloc::sync::Arc;

    const ENI: EniIndex = EniIndex(3);
    const MINUTE: u32 = 60 * TICKS_PER_SECOND as u32;

    fn mappings() -> (EniMappings, Arc<PortBlocks>) {
        let blocks = Arc::new(PortBlocks::new());
        let external = PoolAddress { address: 1, blocks: Arc::clone(&blocks) };
        (EniMappings::new(ENI, external, [7, 9]), blocks)
    }

    fn inside(port: u16) -> PrivatePort {
        PrivatePort { address: 10, port, protocol: 17 }
    }

    fn map(mappings: &mut EniMappings, port: u16, now: u32) -> Result<u16, PortsExhausted> {
        mappings.map(inside(port), 2, Tick(now), |_| false)
    }

    #[test]
    fn as_many_ports_as_in_the_blocks_and_each_leads_back() {
        let (mut mappings, blocks) = mappings();
        let ports: Vec<u16> = (0..128).map(|port| map(&mut mappings, port, 0).unwrap()).collect();
        assert_eq!((ports.iter().collect::<BTreeSet<_>>().len(), blocks.taken()), (128, 2));
        assert!(!ports.is_sorted(), "ports are chosen at random");
        for (number, port) in ports.iter().enumerate() {
            let private = inside(number as u16);
            assert_eq!((mappings.find(private), mappings.private(*port, 17)), (Some(*port), Some(private)));
            assert_eq!((mappings.private(*port, 6), blocks.owner(*port)), (None, Some(ENI)));
        }
        assert_eq!(map(&mut mappings, 200, 0), Err(PortsExhausted));
        drop(mappings);
        assert_eq!(blocks.taken(), 0);
    }

    #[test]
    fn a_freed_port_rests_while_there_are_others() {
        let (mut mappings, blocks) = mappings();
        let first = map(&mut mappings, 1, 0).unwrap();
        mappings.keep(first, 5, 100, Tick(0));
        mappings.sweep(Tick(99));
        assert_eq!(mappings.find(inside(1)), Some(first));
        mappings.sweep(Tick(100));
        assert_eq!((mappings.find(inside(1)), mappings.is_empty()), (None, true));
        let others: Vec<u16> = (0..127).map(|port| map(&mut mappings, port, 101).unwrap()).collect();
        assert!(!others.contains(&first) && blocks.taken() == 2);
        assert_eq!(map(&mut mappings, 127, 101), Ok(first), "there is no other");
        (0..128).for_each(|port| mappings.keep(mappings.find(inside(port)).unwrap_or(0), 5, 1, Tick(102)));
        mappings.sweep(Tick(103));
        mappings.sweep(Tick(104 + MINUTE));
        assert_eq!(blocks.taken(), 1, "one block stays for the next connection");
    }

    #[test]
    fn a_mapping_lives_as_long_as_any_of_its_sessions() {
        let (mut mappings, _) = mappings();
        let alone = map(&mut mappings, 1, 0).unwrap();
        mappings.keep(alone, 5, 1000, Tick(0));
        mappings.keep(alone, 5, 10, Tick(1));
        mappings.sweep(Tick(11));
        assert_eq!(mappings.find(inside(1)), None, "its only session has closed");
        let shared = map(&mut mappings, 2, 20).unwrap();
        mappings.keep(shared, 5, 1000, Tick(20));
        mappings.keep(shared, 6, 10, Tick(21));
        mappings.sweep(Tick(500));
        assert_eq!(mappings.find(inside(2)), Some(shared), "the other session lives");
    }

    #[test]
    fn mappings_end_with_what_permitted_them() {
        let (mut mappings, _) = mappings();
        let port = map(&mut mappings, 1, 0).unwrap();
        mappings.retain(|_| true);
        assert_eq!(mappings.find(inside(1)), Some(port));
        mappings.retain(|_| false);
        assert_eq!((mappings.find(inside(1)), mappings.private(port, 17)), (None, None));
    }

    #[test]
    fn reserved_ports_are_left_out() {
        let (mut mappings, _) = mappings();
        let even = |port: u16| port.is_multiple_of(2);
        let ports: Vec<u16> = (0..64).map(|port| mappings.map(inside(port), 2, Tick(0), even).unwrap()).collect();
        assert!(ports.iter().all(|port| !even(*port)));
        assert_eq!(mappings.map(inside(64), 2, Tick(0), even), Err(PortsExhausted));
    }
}
