//! The key of a connection: its five-tuple, with the ends in an order that both directions share.

use crate::packet::headers::{Addresses, Tuple};
use core::fmt::Debug;

/// The two ends of a connection of one address family, in an order that both directions share.
pub trait ConnectionKey: Copy + Debug + Default + Eq {
    /// An address of the family, in host order.
    type Address: Copy + Eq;
    /// The key of packets between two addresses, without ports, and whether the source is the second end. If both
    /// addresses are the same, the ports decide the order.
    fn between(addresses: [Self::Address; 2]) -> (Self, bool);
    /// The same addresses with these ports, those of the first end in the upper half.
    fn with_ports(self, ports: u32) -> Self;
    /// Both ports, the first end's in the upper half.
    fn ports(&self) -> u32;
    /// The addresses of a source and a destination, in the type for both families.
    fn addresses(addresses: [Self::Address; 2]) -> Addresses;
    /// The key, in the type for both families.
    fn any(self) -> Key;
    /// The key, if it is of this family.
    fn of_any(key: &Key) -> Option<Self>;
    /// The contribution of the addresses to the hash. `salt` separates networks that may use the same addresses.
    fn seed(&self, salt: u32, secret: [u64; 2]) -> u64;
    /// The five-tuple as it was before ordering; `swapped` as [`key_of`] returned it.
    fn tuple(&self, protocol: u8, swapped: bool) -> Tuple;

    /// A keyed hash, which cannot be predicted without the secret. It is the same for both directions of a connection.
    #[inline(always)]
    fn hash(&self, protocol: u8, salt: u32, secret: [u64; 2]) -> u64 {
        hash_of(self.seed(salt, secret), self.ports(), protocol, secret)
    }
}

/// The hash of a key whose addresses have the seed `seed`.
#[inline(always)]
pub(crate) const fn hash_of(seed: u64, ports: u32, protocol: u8, secret: [u64; 2]) -> u64 {
    // Ports and protocol join after the addresses: the fast path keeps the addresses' seed per pair.
    fold(seed ^ ((ports as u64) << 8 | protocol as u64), secret[1])
}

/// The ends of an IPv4 connection: 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeyV4 {
    addresses: [u32; 2],
    ports: u32,
}

/// The ends of an IPv6 connection: 36 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeyV6 {
    /// Each address as four words of 32 bits, the lowest first, so that the alignment stays that of a word.
    addresses: [[u32; 4]; 2],
    ports: u32,
}

/// A key of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// IPv4.
    V4(KeyV4),
    /// IPv6.
    V6(KeyV6),
}

/// The key of `tuple`, and whether its source is the second end.
#[inline]
pub fn key_of(tuple: &Tuple) -> (Key, bool) {
    let ports = (tuple.source_port as u32) << 16 | tuple.destination_port as u32;
    match tuple.addresses {
        Addresses::V4 { source, destination } => key_between::<KeyV4>([source, destination], ports),
        Addresses::V6 { source, destination } => key_between::<KeyV6>([source, destination], ports),
    }
}

#[inline(always)]
fn key_between<K: ConnectionKey>(addresses: [K::Address; 2], ports: u32) -> (Key, bool) {
    let (key, swapped) = ordered::<K>(addresses, ports);
    (key.any(), swapped)
}

/// The key of packets between two addresses with these ports, the source's in the upper half; and whether the source is the
/// second end.
#[inline(always)]
pub(crate) fn ordered<K: ConnectionKey>(addresses: [K::Address; 2], ports: u32) -> (K, bool) {
    let (key, is_second) = K::between(addresses);
    // Without ports in the order, both directions of a connection from an address to itself would have two keys.
    let swapped = is_second || (addresses[0] == addresses[1] && ports > ports.rotate_left(16));
    (key.with_ports(turned(ports, swapped)), swapped)
}

/// Ports in the order of the ends.
#[inline(always)]
pub(crate) const fn turned(ports: u32, swapped: bool) -> u32 {
    ports.rotate_left(if swapped { 16 } else { 0 })
}

impl Key {
    /// A keyed hash, which cannot be predicted without the secret.
    #[inline]
    pub fn hash(&self, protocol: u8, salt: u32, secret: [u64; 2]) -> u64 {
        match self {
            Self::V4(key) => key.hash(protocol, salt, secret),
            Self::V6(key) => key.hash(protocol, salt, secret),
        }
    }

    /// The five-tuple as it was before ordering.
    pub fn tuple(&self, protocol: u8, swapped: bool) -> Tuple {
        match self {
            Self::V4(key) => key.tuple(protocol, swapped),
            Self::V6(key) => key.tuple(protocol, swapped),
        }
    }
}

impl KeyV4 {
    /// The key of no connection.
    pub(crate) const NONE: Self = Self { addresses: [0; 2], ports: 0 };
}

impl ConnectionKey for KeyV4 {
    type Address = u32;

    #[inline(always)]
    fn between([source, destination]: [u32; 2]) -> (Self, bool) {
        let swapped = source > destination;
        (Self { addresses: if swapped { [destination, source] } else { [source, destination] }, ports: 0 }, swapped)
    }

    #[inline(always)]
    fn with_ports(self, ports: u32) -> Self {
        Self { ports, ..self }
    }

    #[inline(always)]
    fn ports(&self) -> u32 {
        self.ports
    }

    #[inline(always)]
    fn addresses([source, destination]: [u32; 2]) -> Addresses {
        Addresses::V4 { source, destination }
    }

    #[inline(always)]
    fn any(self) -> Key {
        Key::V4(self)
    }

    #[inline(always)]
    fn of_any(key: &Key) -> Option<Self> {
        if let Key::V4(key) = key { Some(*key) } else { None }
    }

    #[inline(always)]
    fn seed(&self, salt: u32, secret: [u64; 2]) -> u64 {
        let both = (self.addresses[0] as u64) << 32 | self.addresses[1] as u64;
        // Both factors are keyed. With one fixed factor, addresses that collide could be computed in advance.
        fold(both ^ secret[0], salt as u64 ^ secret[1])
    }

    fn tuple(&self, protocol: u8, swapped: bool) -> Tuple {
        let addresses = Addresses::V4 { source: self.addresses[0], destination: self.addresses[1] };
        restore(addresses, self.ports, protocol, swapped)
    }
}

impl ConnectionKey for KeyV6 {
    type Address = u128;

    #[inline(always)]
    fn between([source, destination]: [u128; 2]) -> (Self, bool) {
        let swapped = source > destination;
        let ends = if swapped { [destination, source] } else { [source, destination] };
        (Self { addresses: ends.map(words), ports: 0 }, swapped)
    }

    #[inline(always)]
    fn with_ports(self, ports: u32) -> Self {
        Self { ports, ..self }
    }

    #[inline(always)]
    fn ports(&self) -> u32 {
        self.ports
    }

    #[inline(always)]
    fn addresses([source, destination]: [u128; 2]) -> Addresses {
        Addresses::V6 { source, destination }
    }

    #[inline(always)]
    fn any(self) -> Key {
        Key::V6(self)
    }

    #[inline(always)]
    fn of_any(key: &Key) -> Option<Self> {
        if let Key::V6(key) = key { Some(*key) } else { None }
    }

    #[inline(always)]
    fn seed(&self, salt: u32, secret: [u64; 2]) -> u64 {
        let [first, second] = self.addresses.map(|words| {
            let half = |at: usize| words[at] as u64 | (words[at + 1] as u64) << 32;
            fold(half(0) ^ secret[0], half(2) ^ secret[1])
        });
        fold(first ^ secret[0], second.rotate_left(32) ^ salt as u64 ^ secret[1])
    }

    fn tuple(&self, protocol: u8, swapped: bool) -> Tuple {
        let [source, destination] = self.addresses.map(from_words);
        restore(Addresses::V6 { source, destination }, self.ports, protocol, swapped)
    }
}

const fn words(address: u128) -> [u32; 4] {
    [address as u32, (address >> 32) as u32, (address >> 64) as u32, (address >> 96) as u32]
}

const fn from_words(words: [u32; 4]) -> u128 {
    words[0] as u128 | (words[1] as u128) << 32 | (words[2] as u128) << 64 | (words[3] as u128) << 96
}

const fn restore(addresses: Addresses, ports: u32, protocol: u8, swapped: bool) -> Tuple {
    let tuple = Tuple::of_connection(addresses, protocol, [(ports >> 16) as u16, ports as u16]);
    if swapped { tuple.reverse() } else { tuple }
}

/// Multiplies into 128 bits and folds the halves: each input bit reaches every output bit.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}
