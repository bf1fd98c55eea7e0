//! From an address to what the prefixes around it say.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::Hash;
use core::net::IpAddr;
use hashbrown::HashMap;
use ipnet::IpNet;

/// A value for every address of both families: the address space cut into pieces, each with what the prefixes that
/// cover it resolve to. Immutable. Most look-ups are for addresses that have an entry of their own: those are hashed,
/// the others found by one binary search.
#[derive(Clone, Debug)]
pub struct PrefixMap<T> {
    v4: Pieces<u32, T>,
    v6: Pieces<u128, T>,
}

#[derive(Clone, Debug)]
struct Pieces<A, T> {
    /// The values of addresses that are a prefix of their own.
    hosts: HashMap<A, T>,
    /// First address of each piece, ascending from zero.
    starts: Box<[A]>,
    values: Box<[T]>,
}

impl<A: Ord + Copy + Hash, T: Copy> Pieces<A, T> {
    fn new(starts: Box<[A]>, values: Box<[T]>, hosts: impl Iterator<Item = A>) -> Self {
        let mut pieces = Self { hosts: HashMap::new(), starts, values };
        pieces.hosts = hosts.map(|address| (address, pieces.search(address))).collect();
        pieces
    }

    #[inline]
    fn find(&self, address: A) -> T {
        self.hosts.get(&address).copied().unwrap_or_else(|| self.search(address))
    }

    fn search(&self, address: A) -> T {
        // The first piece starts at zero, so at least one start is not above the address.
        let position = self.starts.partition_point(|&start| start <= address);
        self.values[position.saturating_sub(1)]
    }
}

impl<T: Copy + PartialEq> PrefixMap<T> {
    /// Cuts the space at the borders of `entries`. `resolve` is asked for the value of each piece with what covers it,
    /// from the shortest prefix to the longest; with nothing where no prefix does.
    pub fn build<V: Copy>(entries: &[(IpNet, V)], mut resolve: impl FnMut(&[V]) -> T) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for &(prefix, value) in entries {
            match prefix {
                IpNet::V4(prefix) => {
                    v4.push((prefix.network().to_bits() as u128, prefix.broadcast().to_bits() as u128, value));
                }
                IpNet::V6(prefix) => v6.push((prefix.network().to_bits(), prefix.broadcast().to_bits(), value)),
            }
        }
        let hosts = |ranges: &[(u128, u128, V)]| -> Vec<u128> {
            ranges.iter().filter(|(first, last, _)| first == last).map(|&(address, ..)| address).collect()
        };
        let (v4_hosts, v6_hosts) = (hosts(&v4), hosts(&v6));
        let (starts, values) = cut(v4, u32::MAX as u128, &mut resolve);
        let starts = starts.into_iter().map(|start| start as u32).collect();
        let v4 = Pieces::new(starts, values, v4_hosts.into_iter().map(|address| address as u32));
        let (starts, values) = cut(v6, u128::MAX, &mut resolve);
        Self { v4, v6: Pieces::new(starts.into(), values, v6_hosts.into_iter()) }
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

/// Prefixes nest or are disjoint, so those that cover the sweep's position form a stack.
fn cut<V: Copy, T: Copy + PartialEq>(
    mut ranges: Vec<(u128, u128, V)>,
    last_address: u128,
    resolve: &mut impl FnMut(&[V]) -> T,
) -> (Vec<u128>, Box<[T]>) {
    ranges.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut pieces = Vec::new();
    let mut ends = Vec::new();
    let mut covering = Vec::new();
    start_piece(&mut pieces, 0, resolve(&covering));
    let leave_until = |position: Option<u128>,
                       pieces: &mut Vec<(u128, T)>,
                       ends: &mut Vec<u128>,
                       covering: &mut Vec<V>,
                       resolve: &mut dyn FnMut(&[V]) -> T| {
        while let Some(&end) = ends.last().filter(|&&end| position.is_none_or(|position| end < position)) {
            while ends.last() == Some(&end) {
                ends.pop();
                covering.pop();
            }
            if end < last_address {
                start_piece(pieces, end + 1, resolve(covering));
            }
        }
    };
    let mut ranges = ranges.into_iter().peekable();
    while let Some((start, end, value)) = ranges.next() {
        leave_until(Some(start), &mut pieces, &mut ends, &mut covering, resolve);
        ends.push(end);
        covering.push(value);
        let same_prefix_follows = ranges.peek().is_some_and(|next| next.0 == start && next.1 == end);
        if !same_prefix_follows {
            start_piece(&mut pieces, start, resolve(&covering));
        }
    }
    leave_until(None, &mut pieces, &mut ends, &mut covering, resolve);
    let (starts, values): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
    (starts, values.into())
}

fn start_piece<T: Copy + PartialEq>(pieces: &mut Vec<(u128, T)>, start: u128, value: T) {
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
}
