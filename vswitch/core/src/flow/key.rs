//! What tells connections apart: a five-tuple in an order that both directions share.

use crate::headers::{Addresses, Tuple};
use core::fmt::Debug;

/// The two ends of a connection of one address family, in an order that both directions share.
pub trait FlowKey: Copy + Debug + Default + Eq {
    /// An address of the family, in host order.
    type Address: Copy + Eq;
    /// The key of a packet between these ends, and whether its source is the second.
    fn of(addresses: [Self::Address; 2], ports: [u16; 2]) -> (Self, bool);
    /// Source and destination, as what knows both families wants them.
    fn addresses(addresses: [Self::Address; 2]) -> Addresses;
    /// The key, as what knows both families wants it.
    fn any(self) -> Key;
    /// A hash that nobody can aim without the secret. Both directions of a connection have the same. `salt` tells the
    /// networks apart in which addresses may be the same.
    fn hash(&self, protocol: u8, salt: u32, secret: [u64; 2]) -> u64;
    /// The five-tuple as it was before ordering; `swapped` as [`key_of`] returned it.
    fn tuple(&self, protocol: u8, swapped: bool) -> Tuple;
}

/// The ends of an IPv4 connection: 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeyV4 {
    addresses: [u32; 2],
    ports: [u16; 2],
}

/// The ends of an IPv6 connection: 36 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeyV6 {
    /// Each address as four words of 32 bits, the lowest first, so that nothing asks for wider alignment.
    addresses: [[u32; 4]; 2],
    ports: [u16; 2],
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
    let ports = [tuple.source_port, tuple.destination_port];
    match tuple.addresses {
        Addresses::V4 { source, destination } => {
            let (key, swapped) = KeyV4::of([source, destination], ports);
            (Key::V4(key), swapped)
        }
        Addresses::V6 { source, destination } => {
            let (key, swapped) = KeyV6::of([source, destination], ports);
            (Key::V6(key), swapped)
        }
    }
}

impl Key {
    /// A hash that nobody can aim without the secret.
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
    /// No connection's.
    pub(crate) const NONE: Self = Self { addresses: [0; 2], ports: [0; 2] };

    /// Both addresses as one number.
    #[inline(always)]
    const fn both(&self) -> u64 {
        (self.addresses[0] as u64) << 32 | self.addresses[1] as u64
    }
}

impl KeyV6 {
    #[inline(always)]
    const fn reverse(self) -> Self {
        let ([near, far], [near_port, far_port]) = (self.addresses, self.ports);
        Self { addresses: [far, near], ports: [far_port, near_port] }
    }
}

impl FlowKey for KeyV4 {
    type Address = u32;

    #[inline(always)]
    fn of([source, destination]: [u32; 2], ports: [u16; 2]) -> (Self, bool) {
        let swapped = source > destination || (source == destination && ports[0] > ports[1]);
        let [both, all] = [(source as u64) << 32 | destination as u64, (ports[0] as u64) << 16 | ports[1] as u64];
        let (both, all) =
            if swapped { (both.rotate_left(32), (all as u32).rotate_left(16)) } else { (both, all as u32) };
        let addresses = [(both >> 32) as u32, both as u32];
        (Self { addresses, ports: [(all >> 16) as u16, all as u16] }, swapped)
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
    fn hash(&self, protocol: u8, salt: u32, secret: [u64; 2]) -> u64 {
        finish(fold(self.both() ^ secret[0], pack_rest(self.ports, protocol, salt) ^ secret[1]), secret)
    }

    fn tuple(&self, protocol: u8, swapped: bool) -> Tuple {
        let addresses = Addresses::V4 { source: self.addresses[0], destination: self.addresses[1] };
        restore(addresses, self.ports, protocol, swapped)
    }
}

impl FlowKey for KeyV6 {
    type Address = u128;

    #[inline(always)]
    fn of(addresses: [u128; 2], ports: [u16; 2]) -> (Self, bool) {
        let key = Self { addresses: addresses.map(words), ports };
        let swapped = (addresses[0], ports[0]) > (addresses[1], ports[1]);
        (if swapped { key.reverse() } else { key }, swapped)
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
    fn hash(&self, protocol: u8, salt: u32, secret: [u64; 2]) -> u64 {
        let [low, high] = self.addresses.map(|words| {
            let half = |at: usize| words[at] as u64 | (words[at + 1] as u64) << 32;
            fold(half(0) ^ secret[0], half(2) ^ secret[1])
        });
        let rest = pack_rest(self.ports, protocol, salt);
        finish(
            fold(low ^ secret[0], high.rotate_left(32) ^ secret[1]) ^ fold(rest ^ secret[1], low ^ secret[0]),
            secret,
        )
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

/// Ports, protocol, and as much of the salt as fits beside them.
const fn pack_rest(ports: [u16; 2], protocol: u8, salt: u32) -> u64 {
    (ports[0] as u64) << 48 | (ports[1] as u64) << 32 | (salt << 8) as u64 | protocol as u64
}

const fn restore(addresses: Addresses, ports: [u16; 2], protocol: u8, swapped: bool) -> Tuple {
    let tuple = Tuple { addresses, protocol, source_port: ports[0], destination_port: ports[1] };
    if swapped { tuple.reverse() } else { tuple }
}

/// Multiplies into 128 bits and folds the halves: each input bit reaches every output bit.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[inline]
const fn finish(hash: u64, secret: [u64; 2]) -> u64 {
    fold(hash ^ secret[0], 0x9e37_79b9_7f4a_7c15 ^ secret[1].rotate_left(17))
}
