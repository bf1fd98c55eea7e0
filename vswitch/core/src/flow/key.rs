//! What tells sessions apart: the ENI, and a five-tuple in an order that both directions share.

use crate::headers::{Addresses, Tuple};
use crate::ids::FlowScope;
use core::fmt::Debug;

/// A key of one address family.
pub trait FlowKey: Copy + Debug + Default + Eq {
    /// A hash that nobody can aim without the secret. Both directions of a session have the same.
    fn hash(&self, secret: [u64; 2]) -> u64;
    /// The ENI.
    fn scope(&self) -> FlowScope;
    /// The five-tuple as it was before ordering; `swapped` as [`key_of`] returned it.
    fn tuple(&self, swapped: bool) -> Tuple;
}

/// The key of an IPv4 session: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeyV4 {
    addresses: [u32; 2],
    ports: [u16; 2],
    scope_and_protocol: u32,
}

/// The key of an IPv6 session: 48 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KeyV6 {
    addresses: [u128; 2],
    ports: [u16; 2],
    scope_and_protocol: u32,
}

/// A key of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// IPv4.
    V4(KeyV4),
    /// IPv6.
    V6(KeyV6),
}

/// The most scopes that fit into a key, next to the mark of fragments and the protocol.
pub const SCOPES_MAX: u32 = 1 << 23;

/// Set in the keys of fragments' fates, which so meet no session's: every number is some guest's protocol.
const FRAGMENT_MARK: u32 = 1 << 31;

/// The key of `tuple` at the ENI `scope`, and whether its source is the second endpoint.
pub fn key_of(scope: FlowScope, tuple: &Tuple) -> (Key, bool) {
    let scope_and_protocol = scope.0 << 8 | tuple.protocol as u32;
    let (near, far) = (tuple.source_port, tuple.destination_port);
    match tuple.addresses {
        Addresses::V4 { source, destination } => {
            let swapped = (source, near) > (destination, far);
            let (addresses, ports) =
                if swapped { ([destination, source], [far, near]) } else { ([source, destination], [near, far]) };
            (Key::V4(KeyV4 { addresses, ports, scope_and_protocol }), swapped)
        }
        Addresses::V6 { source, destination } => {
            let swapped = (source, near) > (destination, far);
            let (addresses, ports) =
                if swapped { ([destination, source], [far, near]) } else { ([source, destination], [near, far]) };
            (Key::V6(KeyV6 { addresses, ports, scope_and_protocol }), swapped)
        }
    }
}

/// The key under which the fate of a packet's first fragment is kept. Parts of a packet share addresses and an
/// identification; IPv4 tells packets of different protocols apart as well (RFC 791 §3.2, RFC 8200 §4.5).
pub fn fragment_key(scope: FlowScope, tuple: &Tuple, fragment_id: u32) -> Key {
    // The addresses stay as they are, unordered: the two directions number their packets independently.
    let ports = [(fragment_id >> 16) as u16, fragment_id as u16];
    let marked_scope = FRAGMENT_MARK | scope.0 << 8;
    match tuple.addresses {
        Addresses::V4 { source, destination } => {
            let scope_and_protocol = marked_scope | tuple.protocol as u32;
            Key::V4(KeyV4 { addresses: [source, destination], ports, scope_and_protocol })
        }
        Addresses::V6 { source, destination } => {
            Key::V6(KeyV6 { addresses: [source, destination], ports, scope_and_protocol: marked_scope })
        }
    }
}

impl Key {
    /// A hash that nobody can aim without the secret.
    pub fn hash(&self, secret: [u64; 2]) -> u64 {
        match self {
            Self::V4(key) => key.hash(secret),
            Self::V6(key) => key.hash(secret),
        }
    }
}

impl FlowKey for KeyV4 {
    fn hash(&self, secret: [u64; 2]) -> u64 {
        let addresses = (self.addresses[0] as u64) << 32 | self.addresses[1] as u64;
        finish(fold(addresses ^ secret[0], self.rest() ^ secret[1]), secret)
    }

    fn scope(&self) -> FlowScope {
        scope_of(self.scope_and_protocol)
    }

    fn tuple(&self, swapped: bool) -> Tuple {
        let addresses = Addresses::V4 { source: self.addresses[0], destination: self.addresses[1] };
        restore(addresses, self.ports, self.scope_and_protocol as u8, swapped)
    }
}

impl KeyV4 {
    const fn rest(&self) -> u64 {
        pack_rest(self.ports, self.scope_and_protocol)
    }
}

impl FlowKey for KeyV6 {
    fn hash(&self, secret: [u64; 2]) -> u64 {
        let [low, high] = self.addresses;
        let low = fold(low as u64 ^ secret[0], (low >> 64) as u64 ^ secret[1]);
        let high = fold(high as u64 ^ secret[1], (high >> 64) as u64 ^ secret[0]);
        let rest = pack_rest(self.ports, self.scope_and_protocol);
        finish(
            fold(low ^ secret[0], high.rotate_left(32) ^ secret[1]) ^ fold(rest ^ secret[1], low ^ secret[0]),
            secret,
        )
    }

    fn scope(&self) -> FlowScope {
        scope_of(self.scope_and_protocol)
    }

    fn tuple(&self, swapped: bool) -> Tuple {
        let addresses = Addresses::V6 { source: self.addresses[0], destination: self.addresses[1] };
        restore(addresses, self.ports, self.scope_and_protocol as u8, swapped)
    }
}

const fn pack_rest(ports: [u16; 2], scope_and_protocol: u32) -> u64 {
    (ports[0] as u64) << 48 | (ports[1] as u64) << 32 | scope_and_protocol as u64
}

const fn scope_of(scope_and_protocol: u32) -> FlowScope {
    FlowScope((scope_and_protocol & !FRAGMENT_MARK) >> 8)
}

const fn restore(addresses: Addresses, ports: [u16; 2], protocol: u8, swapped: bool) -> Tuple {
    let tuple = Tuple { addresses, protocol, source_port: ports[0], destination_port: ports[1] };
    if swapped { tuple.reverse() } else { tuple }
}

/// Multiplies into 128 bits and folds the halves: each input bit reaches every output bit.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

const fn finish(hash: u64, secret: [u64; 2]) -> u64 {
    fold(hash ^ secret[0], 0x9e37_79b9_7f4a_7c15 ^ secret[1].rotate_left(17))
}
