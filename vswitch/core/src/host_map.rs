//! From an address that is configured by itself to its place: one hash, one line.

use crate::chunks::Chunks;
use crate::ids::EniIndex;
use crate::prefix_map::Address;
use crate::route::Route;
use crate::snapshot::{Class, Place, SetsId};
use alloc::sync::Arc;
use alloc::vec;

/// Addresses of a page, on average, beyond which there will be twice as many pages.
const PAGE_ADDRESSES_MAX: usize = 96;
/// Addresses that are compared together.
const LINE: usize = 4;

/// A hash table of pages that generations share: a change copies one page. The hash is seeded, so that whoever chooses
/// addresses cannot choose what they collide with.
#[derive(Clone, Debug)]
pub(crate) struct HostMap<A> {
    hash: Hash,
    /// As many as a power of two.
    pages: Chunks<Page<A>>,
    page_count: usize,
    length: usize,
}

/// Lines as many as a power of two, at most five eighths full.
#[derive(Clone, Debug)]
struct Page<A> {
    lines: Arc<[Line<A>]>,
    length: usize,
}

/// Some addresses and their places. An address is in the line that its hash chooses, or in the first after it that had
/// room; lines before that one are full.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line<A> {
    addresses: [A; LINE],
    places: [PackedPlace; LINE],
}

/// A [`Place`] in little room, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PackedPlace {
    /// The kind of the route in the highest three bits, and the ENI.
    route: u32,
    class: Class,
}

impl PackedPlace {
    const EMPTY: Self = Self { route: u32::MAX, class: Class { around: SetsId(0), own: SetsId(0) } };
    const KIND_SHIFT: u32 = 29;

    const fn pack(place: Place) -> Self {
        let (kind, number) = match place.route {
            Route::Nowhere => (0, 0),
            Route::Unowned => (1, 0),
            Route::Gateway => (2, 0),
            Route::Owner(eni) => (3, eni.0),
            Route::Via(eni) => (4, eni.0),
        };
        Self { route: kind << Self::KIND_SHIFT | number, class: place.class }
    }

    #[inline]
    const fn unpack(self) -> Place {
        let eni = EniIndex(self.route & ((1 << Self::KIND_SHIFT) - 1));
        let route = match self.route >> Self::KIND_SHIFT {
            0 => Route::Nowhere,
            1 => Route::Unowned,
            2 => Route::Gateway,
            3 => Route::Owner(eni),
            _ => Route::Via(eni),
        };
        Place { route, class: self.class }
    }

    #[inline]
    const fn is_empty(self) -> bool {
        self.route == u32::MAX
    }
}

const _: () = assert!(crate::limits::ENIS_MAX < 1 << PackedPlace::KIND_SHIFT);

impl<A: Address> Line<A> {
    fn empty() -> Self {
        Self { addresses: [A::default(); LINE], places: [PackedPlace::EMPTY; LINE] }
    }

    /// A bit for each place whose address this is.
    #[inline]
    fn matching(&self, address: A) -> u32 {
        let bit = |slot: usize| u32::from(self.addresses[slot] == address) & u32::from(!self.places[slot].is_empty());
        (0..LINE).fold(0, |bits, slot| bits | bit(slot) << slot)
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.places[LINE - 1].is_empty()
    }
}

impl<A: Address> Default for Page<A> {
    fn default() -> Self {
        Self { lines: empty_lines(1), length: 0 }
    }
}

/// A folded product, keyed.
#[derive(Clone, Copy, Debug)]
struct Hash([u64; 2]);

impl Hash {
    /// The number that chooses the page, and the one that chooses the line.
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
        let mut pages: Chunks<Page<A>> = Chunks::default();
        pages.get_mut(0);
        Self { hash: Hash(secret), pages, page_count: 1, length: 0 }
    }

    /// The place of an address that has one of its own.
    #[inline]
    pub(crate) fn find(&self, address: A) -> Option<Place> {
        let (place, is_there) = self.look(address);
        is_there.then_some(place)
    }

    /// The same without a branch that depends on what is found, but where a line is full: some place, and whether it is
    /// that of the address.
    #[inline]
    pub(crate) fn look(&self, address: A) -> (Place, bool) {
        let (page, line) = self.hash.of(address);
        let Some(page) = self.pages.get(page & (self.page_count - 1)) else { return (Place::NOWHERE, false) };
        let mask = page.lines.len() - 1;
        let mut number = line & mask;
        loop {
            let line = &page.lines[number];
            let matching = line.matching(address);
            if matching != 0 || line.has_room() {
                let slot = matching.trailing_zeros() as usize & (LINE - 1);
                return (line.places[slot].unpack(), matching != 0);
            }
            number = (number + 1) & mask;
        }
    }

    /// Asks for the line that [`HostMap::find`] will read.
    #[inline]
    pub(crate) fn prefetch(&self, address: A) {
        let (page, line) = self.hash.of(address);
        if let Some(page) = self.pages.get(page & (self.page_count - 1)) {
            crate::prefetch::prefetch(&page.lines[line & (page.lines.len() - 1)]);
        }
    }

    pub(crate) fn insert(&mut self, address: A, place: Place) {
        let hash = self.hash;
        let (page, start) = hash.of(address);
        let is_new = self.find(address).is_none();
        if is_new && self.length >= self.page_count * PAGE_ADDRESSES_MAX {
            self.spread();
            return self.insert(address, place);
        }
        let page = self.pages.get_mut(page & (self.page_count - 1));
        if is_new && (page.length + 1) * 8 > page.lines.len() * LINE * 5 {
            let mut wider = empty_lines(page.lines.len() * 2);
            if let Some(wider) = Arc::get_mut(&mut wider) {
                entries(&page.lines).for_each(|(address, place)| put(wider, hash.of(address).1, (address, place)));
            }
            page.lines = wider;
        }
        put(Arc::make_mut(&mut page.lines), start, (address, PackedPlace::pack(place)));
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
        let lines = Arc::make_mut(&mut page.lines);
        let mask = lines.len() - 1;
        let mut number = start & mask;
        while lines[number].matching(address) == 0 {
            number = (number + 1) & mask;
        }
        take(&mut lines[number], address);
        page.length -= 1;
        self.length -= 1;
        // Those that found this line full, or one after it, find room now: they are put anew.
        let mut next = number;
        loop {
            next = (next + 1) & mask;
            let was_full = !lines[next].has_room();
            for (moved, place) in entries(core::slice::from_ref(&lines[next])).collect::<alloc::vec::Vec<_>>() {
                if hash.of(moved).1 & mask != next {
                    take(&mut lines[next], moved);
                    put(lines, hash.of(moved).1, (moved, place));
                }
            }
            if !was_full || next == number {
                return;
            }
        }
    }

    /// Twice as many pages.
    fn spread(&mut self) {
        let mut wider = Self { page_count: self.page_count * 2, ..Self::new(self.hash.0) };
        wider.pages.get_mut(wider.page_count - 1);
        for (address, place) in self.pages.iter().flat_map(|page| entries(&page.lines)) {
            wider.insert(address, place.unpack());
        }
        *self = wider;
    }
}

fn empty_lines<A: Address>(lines: usize) -> Arc<[Line<A>]> {
    vec![Line::empty(); lines].into()
}

fn entries<A: Address>(lines: &[Line<A>]) -> impl Iterator<Item = (A, PackedPlace)> {
    let all = lines.iter().flat_map(|line| line.addresses.into_iter().zip(line.places));
    all.filter(|(_, place)| !place.is_empty())
}

/// Puts an address into the line where it is, or into the first with room. Lines are filled from the front.
fn put<A: Address>(lines: &mut [Line<A>], start: usize, (address, place): (A, PackedPlace)) {
    let mask = lines.len() - 1;
    let mut number = start & mask;
    loop {
        let line = &mut lines[number];
        let matching = line.matching(address);
        let free = line.places.iter().position(|place| place.is_empty());
        let slot = if matching != 0 { Some(matching.trailing_zeros() as usize) } else { free };
        if let Some(slot) = slot {
            (line.addresses[slot], line.places[slot]) = (address, place);
            return;
        }
        number = (number + 1) & mask;
    }
}

/// Takes an address out of its line; the last one of the line takes its slot.
fn take<A: Address>(line: &mut Line<A>, address: A) {
    let slot = line.matching(address).trailing_zeros() as usize;
    let filled = line.places.iter().filter(|place| !place.is_empty()).count();
    if let Some(last) = filled.checked_sub(1).filter(|_| slot < LINE) {
        (line.addresses[slot], line.places[slot]) = (line.addresses[last], line.places[last]);
        line.places[last] = PackedPlace::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[test]
    fn it_is_a_map_also_while_it_grows_and_shrinks() {
        let place = |number: u32| Place {
            route: [
                Route::Owner(EniIndex(number)),
                Route::Via(EniIndex(1)),
                Route::Nowhere,
                Route::Unowned,
                Route::Gateway,
            ][number as usize % 5],
            class: Class { around: SetsId(number * 3), own: SetsId(number) },
        };
        let (mut map, mut expected) = (HostMap::<u32>::new([1, 2]), BTreeMap::new());
        let mut state = 1u64;
        // It grows and shrinks four times.
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
