//! Longest-prefix match, as sorted intervals: from an address to what the prefixes around it say.

use crate::hw::simd;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::net::IpAddr;
use ipnet::IpNet;

/// An address of one family.
pub(crate) trait Address: Copy + Ord + Default + Debug {
    /// Number of bits of an address.
    const BITS: u8;

    /// The address as an integer.
    fn bits(self) -> u128;

    /// The address for an integer.
    fn of_bits(bits: u128) -> Self;

    /// The index of the address among four, the first of equal ones; four or more if it is not there.
    fn find_in(addresses: &[Self; 4], address: Self) -> usize;

    /// How many of the ascending addresses are at most `bound`.
    fn count_up_to(addresses: &[Self; NODE], bound: Self) -> usize;
}

impl Address for u32 {
    const BITS: u8 = 32;

    #[inline]
    fn bits(self) -> u128 {
        self as u128
    }

    fn of_bits(bits: u128) -> Self {
        bits as Self
    }

    #[inline(always)]
    fn find_in(addresses: &[Self; 4], address: Self) -> usize {
        simd::equal_to(addresses, address).trailing_zeros() as usize
    }

    #[inline(always)]
    fn count_up_to(addresses: &[Self; NODE], bound: Self) -> usize {
        simd::count_up_to(addresses, bound)
    }
}

impl Address for u128 {
    const BITS: u8 = 128;

    #[inline]
    fn bits(self) -> u128 {
        self
    }

    fn of_bits(bits: u128) -> Self {
        bits
    }

    #[inline(always)]
    fn find_in(addresses: &[Self; 4], address: Self) -> usize {
        simd::equal_to_wide(addresses, address).trailing_zeros() as usize
    }

    #[inline(always)]
    fn count_up_to(addresses: &[Self; NODE], bound: Self) -> usize {
        // First the ends of three quarters, then those within one: seven wide comparisons instead of sixteen.
        let up_to = |place: usize| usize::from(addresses[place % NODE] <= bound);
        let quarter = (up_to(3) + up_to(7) + up_to(11)) * 4;
        quarter + up_to(quarter) + up_to(quarter + 1) + up_to(quarter + 2) + up_to(quarter + 3)
    }
}

/// The last address of the prefix of `length` bits that starts at `first`.
pub(crate) fn last_of<A: Address>(first: A, length: u8) -> A {
    let host_bits = (A::BITS - length) as u32;
    A::of_bits(first.bits() | u128::MAX.checked_shl(host_bits).map_or(u128::MAX, |mask| !mask))
}

/// The first address of the prefix of `length` bits around `address`.
pub(crate) fn first_of<A: Address>(address: A, length: u8) -> A {
    let host_bits = (A::BITS - length) as u32;
    A::of_bits(u128::MAX.checked_shl(host_bits).map_or(0, |mask| address.bits() & mask))
}

/// The address space of one family, divided into intervals with a value each.
#[derive(Clone, Debug)]
pub(crate) struct Intervals<A, T> {
    /// The first address of each interval, ascending from zero, in nodes of a tree without pointers. From the root to
    /// the leaves, each level has the first address of every node of the level below. The last node of a level is
    /// padded with the highest address.
    levels: Box<[Box<[[A; NODE]]>]>,
    values: Box<[T]>,
}

/// Addresses per node.
const NODE: usize = 16;

impl<A: Address, T: Copy + PartialEq> Intervals<A, T> {
    /// A single interval.
    pub(crate) fn all(value: T) -> Self {
        Self::new([(A::of_bits(0), value)].into())
    }

    fn new(pieces: Vec<(A, T)>) -> Self {
        let (mut starts, values): (Vec<A>, Vec<T>) = pieces.into_iter().unzip();
        let mut levels = Vec::new();
        loop {
            // The padding keeps a node ascending and is above every address but the highest.
            starts.resize(starts.len().next_multiple_of(NODE), last_of(A::of_bits(0), 0));
            let nodes: Box<[[A; NODE]]> = starts.as_chunks().0.into();
            starts = nodes.iter().map(|node| node[0]).collect();
            levels.push(nodes);
            if starts.len() == 1 {
                levels.reverse();
                return Self { levels: levels.into(), values: values.into() };
            }
        }
    }

    /// The value at an address.
    #[inline]
    pub(crate) fn find(&self, address: A) -> T {
        let place = self.levels.iter().fold(0, |place, nodes| Self::below(nodes, place, address));
        // The padding counts as starts of intervals for the highest address; the last real interval is meant.
        self.values[place.min(self.values.len() - 1)]
    }

    /// From an index in one level to the index in the level below.
    #[inline(always)]
    fn below(nodes: &[[A; NODE]], place: usize, address: A) -> usize {
        // The first interval starts at zero, so at least one start is not above the address. For the highest address,
        // the padding of a node counts as well.
        let node = place.min(nodes.len() - 1);
        node * NODE + A::count_up_to(&nodes[node], address) - 1
    }

    fn starts(&self) -> &[A] {
        self.levels.last().map_or(&[], |nodes| &nodes.as_flattened()[..self.values.len()])
    }

    /// Divides the space from `first` to `last` anew, at the borders of `prefixes`, which lie inside. `around` are the
    /// values of the prefixes around it, shortest first. `resolve` returns the value of each interval from the values
    /// of the prefixes that cover it, shortest first.
    pub(crate) fn cut<V: Copy>(
        &self,
        (first, last): (A, A),
        around: Vec<V>,
        prefixes: Vec<(A, A, V)>,
        resolve: impl FnMut(&[V]) -> T,
    ) -> Self {
        let inside = cut((first, last), around, prefixes, resolve);
        let starts = self.starts();
        let before = starts.partition_point(|&start| start < first);
        let after = starts.partition_point(|&start| start <= last);
        let old = |range: core::ops::Range<usize>| {
            starts[range.clone()].iter().copied().zip(self.values[range].iter().copied())
        };
        let next = last.bits().wrapping_add(1);
        // Two shifts, since shifting an IPv6 address by its whole width would overflow.
        let resumes = next != 0 && next >> 1 >> (A::BITS - 1) == 0;
        let rest = resumes.then(|| (A::of_bits(next), self.values[after.saturating_sub(1)]));
        let mut pieces: Vec<(A, T)> = Vec::with_capacity(starts.len() + inside.len());
        for (start, value) in old(0..before).chain(inside).chain(rest).chain(old(after..starts.len())) {
            start_piece(&mut pieces, start, value);
        }
        Self::new(pieces)
    }
}

/// A value for every address of both families. Immutable.
#[derive(Clone, Debug)]
pub struct PrefixMap<T> {
    v4: Intervals<u32, T>,
    v6: Intervals<u128, T>,
}

impl<T: Copy + PartialEq> PrefixMap<T> {
    /// Divides the address space at the borders of `entries`. `resolve` returns the value of each interval from the
    /// values of the prefixes that cover it, shortest first; from an empty slice where no prefix does.
    pub fn build<V: Copy>(entries: &[(IpNet, V)], mut resolve: impl FnMut(&[V]) -> T) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for &(prefix, value) in entries {
            match prefix {
                IpNet::V4(prefix) => v4.push((prefix.network().to_bits(), prefix.broadcast().to_bits(), value)),
                IpNet::V6(prefix) => v6.push((prefix.network().to_bits(), prefix.broadcast().to_bits(), value)),
            }
        }
        let nothing = resolve(&[]);
        Self {
            v4: Intervals::all(nothing).cut((0, u32::MAX), Vec::new(), v4, &mut resolve),
            v6: Intervals::all(nothing).cut((0, u128::MAX), Vec::new(), v6, &mut resolve),
        }
    }

    /// The value at an IPv4 address.
    #[inline]
    pub fn find_v4(&self, address: u32) -> T {
        self.v4.find(address)
    }

    /// The value at an IPv6 address.
    #[inline]
    pub fn find_v6(&self, address: u128) -> T {
        self.v6.find(address)
    }

    /// The value at an address.
    pub fn find(&self, address: IpAddr) -> T {
        match address {
            IpAddr::V4(address) => self.find_v4(address.to_bits()),
            IpAddr::V6(address) => self.find_v6(address.to_bits()),
        }
    }
}

/// Divides the space with a sweep. Prefixes nest or are disjoint, so those that cover the sweep's position form a
/// stack.
fn cut<A: Address, V: Copy, T: Copy + PartialEq>(
    (first, last): (A, A),
    mut covering: Vec<V>,
    mut prefixes: Vec<(A, A, V)>,
    mut resolve: impl FnMut(&[V]) -> T,
) -> Vec<(A, T)> {
    // A prefix comes before those inside it, so that the stack of covering prefixes only grows inward.
    prefixes.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
    let mut pieces = Vec::new();
    let mut ends: Vec<A> = Vec::new();
    start_piece(&mut pieces, first, resolve(&covering));
    let mut prefixes = prefixes.into_iter().peekable();
    loop {
        let next_start = prefixes.peek().map(|next| next.0);
        // Pop the prefixes that end before the next one starts.
        while let Some(&end) = ends.last().filter(|&&end| next_start.is_none_or(|start| end < start)) {
            // Nested prefixes may share their last address: they end together, with one border.
            while ends.last() == Some(&end) {
                ends.pop();
                covering.pop();
            }
            // After the last address there is no next one; adding one would wrap to the first.
            if end < last {
                start_piece(&mut pieces, A::of_bits(end.bits() + 1), resolve(&covering));
            }
        }
        let Some((start, end, value)) = prefixes.next() else { return pieces };
        ends.push(end);
        covering.push(value);
        // Several sets may contain the same prefix; only after the last of them is it known what covers the space.
        let same_prefix_follows = prefixes.peek().is_some_and(|next| next.0 == start && next.1 == end);
        if !same_prefix_follows {
            start_piece(&mut pieces, start, resolve(&covering));
        }
    }
}

fn start_piece<A: PartialEq, T: Copy + PartialEq>(pieces: &mut Vec<(A, T)>, start: A, value: T) {
    // A prefix that begins where the one around it does leaves the outer one an empty interval.
    if pieces.last().is_some_and(|last| last.0 == start) {
        pieces.pop();
    }
    if pieces.last().is_none_or(|last| last.1 != value) {
        pieces.push((start, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn prefix(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_and_gaps_have_none() {
        let entries = vec![
            (prefix("10.0.0.0/8"), 1),
            (prefix("10.1.0.0/16"), 2),
            (prefix("10.1.2.3/32"), 3),
            (prefix("255.255.255.255/32"), 4),
            (prefix("::/0"), 5),
            (prefix("2001:db8::/32"), 6),
        ];
        let map = PrefixMap::build(&entries, |covering| covering.last().copied().unwrap_or(0));
        for (text, expected) in [
            ("0.0.0.0", 0),
            ("9.255.255.255", 0),
            ("10.0.0.0", 1),
            ("10.1.0.0", 2),
            ("10.1.2.2", 2),
            ("10.1.2.3", 3),
            ("10.1.2.4", 2),
            ("10.1.255.255", 2),
            ("10.2.0.0", 1),
            ("10.255.255.255", 1),
            ("11.0.0.0", 0),
            ("255.255.255.254", 0),
            ("255.255.255.255", 4),
            ("::", 5),
            ("2001:db8::1", 6),
            ("2001:db9::", 5),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 5),
        ] {
            assert_eq!(map.find(address(text)), expected, "{text}");
        }
    }

    #[test]
    fn equal_prefixes_all_count() {
        let entries = vec![(prefix("10.0.0.0/8"), 1), (prefix("10.0.0.0/8"), 2), (prefix("0.0.0.0/0"), 4)];
        let map = PrefixMap::build(&entries, |covering| covering.iter().sum::<u32>());
        assert_eq!(map.find(address("10.0.0.1")), 7);
        assert_eq!(map.find(address("11.0.0.1")), 4);
    }

    #[test]
    fn a_part_cut_anew_joins_the_rest() {
        let last = |covering: &[u32]| covering.last().copied().unwrap_or(0);
        let block = |text: &str, value: u32| {
            let IpNet::V4(prefix) = prefix(text) else { panic!("{text} is IPv4") };
            (prefix.network().to_bits(), prefix.broadcast().to_bits(), value)
        };
        let old = [block("10.0.0.0/8", 1), block("10.1.0.0/16", 2), block("255.0.0.0/8", 3)];
        let map = Intervals::all(0).cut((0, u32::MAX), Vec::new(), old.to_vec(), last);
        let (first, end, _) = block("10.1.0.0/16", 0);
        let inside = vec![block("10.1.128.0/17", 4)];
        let changed = map.cut((first, end), vec![1], inside, last);
        for (text, expected) in [("10.0.0.1", 1), ("10.1.0.1", 1), ("10.1.200.1", 4), ("10.2.0.0", 1), ("11.0.0.0", 0)]
        {
            let IpAddr::V4(address) = address(text) else { panic!("{text} is IPv4") };
            assert_eq!(changed.find(address.to_bits()), expected, "{text}");
        }
        let (first, end, _) = block("255.0.0.0/8", 0);
        let without = changed.cut((first, end), Vec::new(), Vec::new(), last);
        assert_eq!(
            (without.find(u32::MAX), without.values.len(), changed.values.len()),
            (0, 5, 6),
            "equal neighbours are one piece"
        );
    }
}
