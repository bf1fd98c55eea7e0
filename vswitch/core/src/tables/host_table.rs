//! From an address to its own entry: one hash, one cache line.

use crate::tables::address_entry::AddressEntry;
use crate::tables::cow_array::CowArray;
use crate::tables::lpm::Address;
use alloc::sync::Arc;
use alloc::vec;

/// Average number of addresses per page beyond which the number of pages doubles.
const PAGE_ADDRESSES_MAX: usize = 96;
/// Addresses that are compared at once.
pub(crate) const BUCKET_ADDRESSES: usize = 4;

/// A hash table of pages that generations share: a change copies one page. The hash is keyed with a secret, so that
/// whoever chooses addresses cannot make them collide.
#[derive(Clone, Debug)]
pub(crate) struct HostTable<A> {
    hash: Hash,
    /// The pages; a power of two.
    pages: CowArray<HostPage<A>>,
    page_count: usize,
    length: usize,
}

/// The buckets, a power of two, at most five eighths full.
#[derive(Clone, Debug)]
struct HostPage<A> {
    buckets: Arc<[Bucket<A>]>,
    length: usize,
}

/// Some addresses and their entries. An address is in the bucket that its hash selects, or in the first one after it
/// that had room; all buckets before that one are full.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Bucket<A> {
    addresses: [A; BUCKET_ADDRESSES],
    places: [AddressEntry; BUCKET_ADDRESSES],
}

impl<A: Address> Bucket<A> {
    fn empty() -> Self {
        Self { addresses: [A::default(); BUCKET_ADDRESSES], places: [AddressEntry::NONE; BUCKET_ADDRESSES] }
    }

    /// The slot of an address in the bucket.
    fn slot_of(&self, address: A) -> Option<usize> {
        (0..BUCKET_ADDRESSES).find(|&slot| self.addresses[slot] == address && !self.places[slot].is_none())
    }

    /// Looks an address up in the bucket. Branch-free, because the outcome is not predictable.
    #[inline(always)]
    pub(crate) fn probe(&self, address: A) -> Probe {
        // Slots are filled from the front, and free slots have the address zero.
        let slot = A::find_in(&self.addresses, address);
        let place = self.places[slot % BUCKET_ADDRESSES];
        let is_there = slot < BUCKET_ADDRESSES && !place.is_none();
        Probe { place, is_there, is_last: is_there | self.has_room() }
    }

    #[inline(always)]
    fn has_room(&self) -> bool {
        self.places[BUCKET_ADDRESSES - 1].is_none()
    }
}

/// The result of looking an address up in one bucket.
pub(crate) struct Probe {
    /// An entry, valid if `is_there`.
    pub(crate) place: AddressEntry,
    /// Whether the bucket holds the address.
    pub(crate) is_there: bool,
    /// Whether no other bucket can hold the address.
    pub(crate) is_last: bool,
}

impl<A: Address> Default for HostPage<A> {
    fn default() -> Self {
        Self { buckets: empty_buckets(1), length: 0 }
    }
}

/// A keyed hash: a folded product.
#[derive(Clone, Copy, Debug)]
struct Hash([u64; 2]);

impl Hash {
    /// The number that selects the page, and the one that selects the bucket.
    #[inline]
    fn of<A: Address>(self, address: A) -> (usize, usize) {
        let address = address.bits();
        let (high, low) = ((address >> 64) as u64, address as u64);
        // Even an all-zero secret, as tests have, leaves two non-zero factors.
        let (one, other) = (self.0[0] ^ 0x9e37_79b9_7f4a_7c15, self.0[1] ^ 0xd1b5_4a32_d192_ed03);
        let product = (high ^ one) as u128 * (low ^ other) as u128;
        let folded = (product >> 64) as u64 ^ product as u64;
        // Page and bucket take different halves: with shared bits, a page's addresses would crowd into few buckets.
        ((folded >> 32) as usize, folded as usize)
    }
}

impl<A: Address> HostTable<A> {
    pub(crate) fn new(secret: [u64; 2]) -> Self {
        let mut pages: CowArray<HostPage<A>> = CowArray::default();
        pages.get_mut(0);
        Self { hash: Hash(secret), pages, page_count: 1, length: 0 }
    }

    /// The entry of an address that has one of its own.
    #[inline]
    pub(crate) fn find(&self, address: A) -> Option<AddressEntry> {
        let (page, bucket) = self.hash.of(address);
        let page = self.pages.get(page & (self.page_count - 1))?;
        let mask = page.buckets.len() - 1;
        let mut number = bucket & mask;
        // At most five eighths of a page are full, so some bucket with room ends the search.
        loop {
            let Probe { place, is_there, is_last } = page.buckets[number].probe(address);
            if is_last {
                return is_there.then_some(place);
            }
            number = (number + 1) & mask;
        }
    }

    pub(crate) fn insert(&mut self, address: A, place: AddressEntry) {
        let hash = self.hash;
        let (page, start) = hash.of(address);
        let is_new = self.find(address).is_none();
        if is_new && self.length >= self.page_count * PAGE_ADDRESSES_MAX {
            self.spread();
            return self.insert(address, place);
        }
        let page = self.pages.get_mut(page & (self.page_count - 1));
        if is_new && (page.length + 1) * 8 > page.buckets.len() * BUCKET_ADDRESSES * 5 {
            let mut wider = empty_buckets(page.buckets.len() * 2);
            // The array is new, so nobody else holds it and `get_mut` always succeeds.
            if let Some(wider) = Arc::get_mut(&mut wider) {
                entries(&page.buckets).for_each(|(address, place)| put(wider, hash.of(address).1, (address, place)));
            }
            page.buckets = wider;
        }
        put(Arc::make_mut(&mut page.buckets), start, (address, place));
        page.length += usize::from(is_new);
        self.length += usize::from(is_new);
    }

    pub(crate) fn remove(&mut self, address: A) {
        let hash = self.hash;
        let (number, start) = hash.of(address);
        if self.find(address).is_none() {
            return;
        }
        let page = self.pages.get_mut(number & (self.page_count - 1));
        let buckets = Arc::make_mut(&mut page.buckets);
        let mask = buckets.len() - 1;
        let mut number = start & mask;
        while buckets[number].slot_of(address).is_none() {
            number = (number + 1) & mask;
        }
        take(&mut buckets[number], address);
        page.length -= 1;
        self.length -= 1;
        // Addresses that found this bucket or one after it full may have room now: they are inserted anew.
        let mut next = number;
        loop {
            next = (next + 1) & mask;
            let was_full = !buckets[next].has_room();
            for (moved, place) in entries(core::slice::from_ref(&buckets[next])).collect::<alloc::vec::Vec<_>>() {
                if hash.of(moved).1 & mask != next {
                    take(&mut buckets[next], moved);
                    put(buckets, hash.of(moved).1, (moved, place));
                }
            }
            // A bucket with room ends the run of overflows; in a page of one bucket, the walk returns to where it
            // began.
            if !was_full || next == number {
                return;
            }
        }
    }

    /// Doubles the number of pages.
    fn spread(&mut self) {
        let mut wider = Self { page_count: self.page_count * 2, ..Self::new(self.hash.0) };
        wider.pages.get_mut(wider.page_count - 1);
        for (address, place) in self.pages.iter().flat_map(|page| entries(&page.buckets)) {
            wider.insert(address, place);
        }
        *self = wider;
    }
}

fn empty_buckets<A: Address>(buckets: usize) -> Arc<[Bucket<A>]> {
    vec![Bucket::empty(); buckets].into()
}

fn entries<A: Address>(buckets: &[Bucket<A>]) -> impl Iterator<Item = (A, AddressEntry)> {
    let all = buckets.iter().flat_map(|bucket| bucket.addresses.into_iter().zip(bucket.places));
    all.filter(|(_, place)| !place.is_none())
}

/// Puts an address into the bucket that holds it, or else into the first with room. Buckets are filled from the front.
fn put<A: Address>(buckets: &mut [Bucket<A>], start: usize, (address, place): (A, AddressEntry)) {
    let mask = buckets.len() - 1;
    let mut number = start & mask;
    loop {
        let bucket = &mut buckets[number];
        let free = || bucket.places.iter().position(|place| place.is_none());
        if let Some(slot) = bucket.slot_of(address).or_else(free) {
            (bucket.addresses[slot], bucket.places[slot]) = (address, place);
            return;
        }
        number = (number + 1) & mask;
    }
}

/// Removes an address from its bucket; the bucket's last address takes its slot.
fn take<A: Address>(bucket: &mut Bucket<A>, address: A) {
    let Some(slot) = bucket.slot_of(address) else { return };
    if let Some(last) = bucket.places.iter().rposition(|place| !place.is_none()) {
        (bucket.addresses[slot], bucket.places[slot]) = (bucket.addresses[last], bucket.places[last]);
        (bucket.addresses[last], bucket.places[last]) = (A::default(), AddressEntry::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ids::EniIndex;
    use crate::tables::address_class::{AddressClass, SetCombinationId};
    use crate::tables::route::AddressRoute;
    use alloc::collections::BTreeMap;

    #[test]
    fn it_is_a_map_also_while_it_grows_and_shrinks() {
        let place = |number: u32| {
            let routes = [
                AddressRoute::Owner(EniIndex(number)),
                AddressRoute::Via(EniIndex(1)),
                AddressRoute::Nowhere,
                AddressRoute::Unowned,
                AddressRoute::Gateway,
            ];
            AddressEntry::new(
                routes[number as usize % 5],
                AddressClass { by_prefix: SetCombinationId(number * 3), by_host: SetCombinationId(number) },
            )
        };
        let (mut map, mut expected) = (HostTable::<u32>::new([1, 2]), BTreeMap::new());
        let mut state = 1u64;
        // The table grows and shrinks four times.
        let (rounds, addresses) = if cfg!(miri) { (800, 100) } else { (40_000u32, 1500) };
        for round in 0..rounds {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let address = (state >> 40) as u32 % addresses;
            let grows = round % (rounds / 4) < rounds / 4 * 3 / 5;
            if (state >> 33).is_multiple_of(8) == grows {
                map.remove(address);
                expected.remove(&address);
            } else {
                map.insert(address, place(round));
                expected.insert(address, place(round));
            }
            assert_eq!(map.length, expected.len());
            if round % 97 == 0 {
                for address in 0..addresses {
                    assert_eq!(map.find(address), expected.get(&address).copied(), "{address} in round {round}");
                }
            }
        }
        let shared = map.clone();
        for address in 0..addresses {
            assert_eq!(map.find(address), expected.get(&address).copied(), "{address}");
            map.remove(address);
            assert_eq!(map.find(address), None, "{address}");
            assert_eq!(shared.find(address), expected.get(&address).copied(), "{address}");
        }
    }
}
