//! From an address that is configured by itself to its place: one hash, one probe.

use crate::prefix_map::Address;
use crate::snapshot::Place;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Addresses of a page, on average, beyond which there will be twice as many pages.
const PAGE_ADDRESSES_MAX: usize = 96;
/// Slots of an empty page.
const PAGE_SLOTS_MIN: usize = 16;

/// A hash table of pages that generations share: a change copies one page. The hash is seeded, so that whoever chooses
/// addresses cannot choose what they collide with.
#[derive(Clone, Debug)]
pub(crate) struct HostMap<A> {
    hash: Hash,
    /// Each with open addressing, as many as a power of two, of slots as many as a power of two.
    pages: Vec<Arc<[Slot<A>]>>,
    /// Addresses in each page, at most three quarters of its slots.
    lengths: Vec<u32>,
    length: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot<A> {
    address: A,
    place: Option<Place>,
}

/// A folded product, keyed.
#[derive(Clone, Copy, Debug)]
struct Hash([u64; 2]);

impl Hash {
    /// The number that chooses the page, and the one that chooses the slot.
    #[inline]
    fn of<A: Address>(self, address: A) -> (usize, usize) {
        let address = address.bits();
        let (high, low) = ((address >> 64) as u64, address as u64);
        // Also a secret of zeros, as tests have, leaves two factors that are not.
        let (one, other) = (self.0[0] ^ 0x9e37_79b9_7f4a_7c15, self.0[1] ^ 0xd1b5_4a32_d192_ed03);
        let product = (high ^ one) as u128 * (low ^ other) as u128;
        let folded = (product >> 64) as u64 ^ product as u64;
        ((folded >> 32) as usize, folded as usize)
    }
}

impl<A: Address> HostMap<A> {
    pub(crate) fn new(secret: [u64; 2]) -> Self {
        Self { hash: Hash(secret), pages: vec![empty_page(PAGE_SLOTS_MIN)], lengths: vec![0], length: 0 }
    }

    /// The place of an address that has one of its own.
    #[inline]
    pub(crate) fn find(&self, address: A) -> Option<Place> {
        let (page, slot) = self.hash.of(address);
        let page = &*self.pages[page & (self.pages.len() - 1)];
        page[probe(page, slot, address)].place
    }

    /// Asks for the line that [`HostMap::find`] will read.
    #[inline]
    pub(crate) fn prefetch(&self, address: A) {
        let (page, slot) = self.hash.of(address);
        let page = &*self.pages[page & (self.pages.len() - 1)];
        crate::prefetch::prefetch(&page[slot & (page.len() - 1)]);
    }

    pub(crate) fn insert(&mut self, address: A, place: Place) {
        if self.length >= self.pages.len() * PAGE_ADDRESSES_MAX {
            self.spread();
        }
        let hash = self.hash;
        let (number, slot) = hash.of(address);
        let number = number & (self.pages.len() - 1);
        let (page, length) = (&mut self.pages[number], &mut self.lengths[number]);
        let is_new = page[probe(page, slot, address)].place.is_none();
        if is_new && (*length as usize + 1) * 4 > page.len() * 3 {
            let mut wider = empty_page(page.len() * 2);
            page.iter().for_each(|slot| put(Arc::make_mut(&mut wider), hash, *slot));
            *page = wider;
        }
        put(Arc::make_mut(page), hash, Slot { address, place: Some(place) });
        *length += u32::from(is_new);
        self.length += usize::from(is_new);
    }

    pub(crate) fn remove(&mut self, address: A) {
        let hash = self.hash;
        let (number, slot) = hash.of(address);
        let number = number & (self.pages.len() - 1);
        let page = &self.pages[number];
        let mut gap = probe(page, slot, address);
        if page[gap].place.is_none() {
            return;
        }
        let page = Arc::make_mut(&mut self.pages[number]);
        let mask = page.len() - 1;
        let mut next = gap;
        loop {
            page[gap].place = None;
            // Whoever has probed over the gap moves into it.
            loop {
                next = (next + 1) & mask;
                if page[next].place.is_none() {
                    self.lengths[number] -= 1;
                    self.length -= 1;
                    return;
                }
                let home = hash.of(page[next].address).1;
                if next.wrapping_sub(home) & mask >= next.wrapping_sub(gap) & mask {
                    break;
                }
            }
            page[gap] = page[next];
            gap = next;
        }
    }

    /// Twice as many pages.
    fn spread(&mut self) {
        let mut wider = Self {
            hash: self.hash,
            pages: vec![empty_page(PAGE_SLOTS_MIN); self.pages.len() * 2],
            lengths: vec![0; self.pages.len() * 2],
            length: 0,
        };
        for slot in self.pages.iter().flat_map(|page| page.iter()) {
            if let Some(place) = slot.place {
                wider.insert(slot.address, place);
            }
        }
        *self = wider;
    }
}

fn empty_page<A: Address>(slots: usize) -> Arc<[Slot<A>]> {
    vec![Slot::default(); slots].into()
}

/// The slot of an address: where it is, or where it would be.
#[inline]
fn probe<A: Address>(page: &[Slot<A>], hash: usize, address: A) -> usize {
    let mask = page.len() - 1;
    let mut slot = hash & mask;
    while page[slot].place.is_some() && page[slot].address != address {
        slot = (slot + 1) & mask;
    }
    slot
}

fn put<A: Address>(page: &mut [Slot<A>], hash: Hash, filled: Slot<A>) {
    if filled.place.is_some() {
        page[probe(page, hash.of(filled.address).1, filled.address)] = filled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::EniIndex;
    use crate::route::Route;
    use crate::snapshot::Class;
    use alloc::collections::BTreeMap;

    #[test]
    fn it_is_a_map_also_while_it_grows_and_shrinks() {
        let place = |number: u32| Place { route: Route::Owner(EniIndex(number)), class: Class(number * 3) };
        let (mut map, mut expected) = (HostMap::<u32>::new([1, 2]), BTreeMap::new());
        let mut state = 1u64;
        for round in 0..40_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let address = (state >> 40) as u32 % 1500;
            let grows = round % 10_000 < 6000;
            if (state >> 33).is_multiple_of(8) == grows {
                map.remove(address);
                expected.remove(&address);
            } else {
                map.insert(address, place(round));
                expected.insert(address, place(round));
            }
            assert_eq!(map.length, expected.len());
        }
        let shared = map.clone();
        for address in 0..1500 {
            assert_eq!(map.find(address), expected.get(&address).copied(), "{address}");
            map.remove(address);
            assert_eq!(map.find(address), None, "{address}");
            assert_eq!(shared.find(address), expected.get(&address).copied(), "{address}");
        }
    }
}
