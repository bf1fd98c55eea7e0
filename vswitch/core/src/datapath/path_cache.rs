//! What is the same for all packets between two addresses: determined once, and cached across bursts until the
//! configuration changes.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::{Direction, Policy};
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::{ETHERNET_HEADER_BYTES, PATHS_CACHED_MAX};
use crate::config::packed_timeouts::PackedTimeouts;
use crate::datapath::eligibility::{self, Between};
use crate::packet::headers::Addresses;
use crate::packet::verdict::{Decision, Stage};
use crate::policy::eni_context::EniContext;
use crate::tables::address_entry::AddressEntry;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The header fields that packets between two addresses have in common, as they are in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathKey {
    pub(crate) ethernet: Ethernet,
    /// Source and destination: one number for IPv4, four for IPv6.
    pub(crate) ends: [u64; 4],
}

/// An Ethernet header as two overlapping words: its first eight bytes and its last eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ethernet([u64; 2]);

impl Ethernet {
    /// The Ethernet header of a frame.
    #[inline(always)]
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let header: &[u8; ETHERNET_HEADER_BYTES] = frame.first_chunk()?;
        Some(Self([u64::from_ne_bytes(*header.first_chunk()?), u64::from_ne_bytes(*header.last_chunk()?)]))
    }

    /// The MAC addresses of destination and source.
    pub(super) fn addresses(self) -> [[u8; 6]; 2] {
        let [first, last] = self.0.map(u64::to_ne_bytes);
        let [mut destination, mut source] = [[0; 6]; 2];
        destination.copy_from_slice(&first[..6]);
        source.copy_from_slice(&last[..6]);
        [destination, source]
    }
}

impl PathKey {
    /// Whether a packet begins with these headers. The Ethernet header includes the address family.
    #[inline(always)]
    pub(crate) fn is_of<const N: usize>(&self, ethernet: Ethernet, ends: &[u64; N]) -> bool {
        self.ethernet == ethernet && self.ends.first_chunk() == Some(ends)
    }
}

/// The path from one ENI to another between two addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    sender: EniIndex,
    pub(crate) path_key: PathKey,
    /// The address table's entry for the destination.
    pub(crate) place: AddressEntry,
    pub(crate) receiver: EniIndex,
    /// The epoch of the receiver's sessions.
    pub(crate) receiver_epoch: EniEpoch,
    /// The longest frame in which nothing but the Ethernet header changes; zero if more changes in all frames.
    pub(crate) frame_bytes_max: usize,
    /// The values that live sessions of both ENIs are compared with, the sender's first.
    pub(crate) live: [u64; 2],
    /// The addresses in the Ethernet header of the last hop.
    pub(crate) ethernet_then: [u8; 12],
    /// The timeouts of connections opened along the path; `None` if they differ between the ends, or if an end limits
    /// its rate of new sessions.
    pub(crate) timeouts: Option<PackedTimeouts>,
    /// How many sessions the receiver may have.
    pub(crate) receiver_sessions_max: u32,
    /// Recent decisions of both ends, by service.
    cached_decisions: [(Service, [Decision; 2]); SERVICES_CACHED],
}

/// A protocol and a destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service(u32);

impl Service {
    const NONE: Self = Self(u32::MAX);

    #[inline(always)]
    pub(crate) const fn new(protocol: u8, destination_port: u16) -> Self {
        Self((protocol as u32) << 16 | destination_port as u32)
    }
}

/// Services whose decisions a path caches.
const SERVICES_CACHED: usize = 4;

impl Path {
    /// Determines the path; `None` if packets with these addresses have to take the slow path.
    fn resolve(sender: &EniContext<'_>, path_key: &PathKey, addresses: Addresses) -> Option<Self> {
        let (receiver, place) = eligibility::receiver(sender, path_key.ethernet.addresses(), addresses)?;
        let context = EniContext::new(sender.snapshot, receiver, Direction::Ingress)?;
        let mut ethernet_then = [0; 12];
        ethernet_then[..6].copy_from_slice(&context.eni.mac.0);
        ethernet_then[6..].copy_from_slice(&context.network.gateway_mac.0);
        let Between { forwards, opens } = eligibility::between(sender, &context);
        Some(Self {
            sender: sender.index,
            path_key: *path_key,
            place,
            receiver,
            receiver_epoch: context.eni.epoch,
            // Zero lets no frame pass, so the fast path needs no flag of its own.
            frame_bytes_max: if forwards { ETHERNET_HEADER_BYTES + usize::from(context.eni.mtu_bytes) } else { 0 },
            live: [sender.live_side(), context.live_side()],
            ethernet_then,
            timeouts: if opens { Some(sender.timeouts()) } else { None },
            receiver_sessions_max: context.eni.sessions_max,
            cached_decisions: [(Service::NONE, [Decision::by(Policy::Drop, Stage::Default); 2]); SERVICES_CACHED],
        })
    }

    /// The cached decisions of sender and receiver about a service.
    #[inline(always)]
    pub(crate) fn cached_decisions(&self, service: Service) -> Option<[Decision; 2]> {
        let (its, decisions) = &self.cached_decisions[service.0 as usize % SERVICES_CACHED];
        if *its == service { Some(*decisions) } else { None }
    }

    /// Caches the decisions about a service.
    pub(crate) fn cache_decisions(&mut self, service: Service, decisions: [Decision; 2]) {
        self.cached_decisions[service.0 as usize % SERVICES_CACHED] = (service, decisions);
    }
}

/// A cache of paths by a hash of their addresses. Each has two places, so that two whose hashes agree do not displace each other
/// with every burst.
#[derive(Debug, Default)]
pub(crate) struct PathCache {
    /// Each path with the epoch in which it was found.
    slots: Vec<Option<(u32, Path)>>,
    /// Advances with every new configuration.
    epoch: u32,
    identity: Option<Arc<()>>,
}

impl PathCache {
    /// Invalidates all paths if the configuration is not that of the last burst.
    #[inline]
    pub(crate) fn invalidate_if_stale(&mut self, snapshot: &Snapshot) {
        if !self.identity.as_ref().is_some_and(|identity| Arc::ptr_eq(identity, &snapshot.identity)) {
            self.invalidate(snapshot);
        }
    }

    #[cold]
    fn invalidate(&mut self, snapshot: &Snapshot) {
        self.identity = Some(Arc::clone(&snapshot.identity));
        self.epoch = self.epoch.wrapping_add(1);
        // After the epochs wrap around, an entry of an earlier round would seem valid.
        if self.epoch == 0 || self.slots.is_empty() {
            self.slots = alloc::vec![None; PATHS_CACHED_MAX];
        }
    }

    /// The path of packets with these addresses; `None` if they take the slow path.
    pub(crate) fn between(
        &mut self,
        sender: &EniContext<'_>,
        path_key: &PathKey,
        addresses: Addresses,
    ) -> Option<Path> {
        let kept = places(path_key).into_iter().find_map(|place| self.at(place, sender.index, path_key));
        if let Some(path) = kept {
            return Some(*path);
        }
        let path = Path::resolve(sender, path_key, addresses)?;
        self.keep(&path);
        Some(path)
    }

    /// The path in a place, if it is this one and valid.
    #[inline(always)]
    fn at(&self, place: usize, sender: EniIndex, path_key: &PathKey) -> Option<&Path> {
        let (epoch, path) = self.slots[place].as_ref()?;
        let is_it = (*epoch, path.sender) == (self.epoch, sender) && path.path_key == *path_key;
        is_it.then_some(path)
    }

    /// Stores a path together with the decisions cached in it.
    pub(crate) fn keep(&mut self, path: &Path) {
        let [first, second] = places(&path.path_key);
        let has_it = |place| self.at(place, path.sender, &path.path_key).is_some();
        let is_free = |place: usize| self.slots[place].as_ref().is_none_or(|(epoch, _)| *epoch != self.epoch);
        let takes_second = has_it(second) || !has_it(first) && !is_free(first) && is_free(second);
        self.slots[if takes_second { second } else { first }] = Some((self.epoch, *path));
    }
}

/// Where a path may be kept.
#[inline(always)]
fn places(path_key: &PathKey) -> [usize; 2] {
    let first = spread::<PATHS_CACHED_MAX>(&path_key.ends);
    [first, first ^ 1]
}

/// Hashes both ends of a packet to one of `PLACES` places, a power of two.
#[inline(always)]
pub(crate) fn spread<const PLACES: usize>(ends: &[u64]) -> usize {
    const { assert!(PLACES.is_power_of_two()) };
    // The destination of IPv6 is rotated: in place, its prefix would cancel that of a source in the same subnet.
    let mixed = ends.iter().enumerate().fold(0, |mixed, (number, end)| mixed ^ end.rotate_left(number as u32 / 2 * 32));
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.ilog2())) as usize
}
