//! What is the same for all packets between two addresses: determined once, and cached across bursts until the
//! configuration changes.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::{Direction, Policy};
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::{BURST_PACKETS, ETHERNET_HEADER_BYTES, PATHS_CACHED_MAX};
use crate::config::packed_timeouts::PackedTimeouts;
use crate::conntrack::key::{ConnectionKey, Key, KeyV4};
use crate::conntrack::tables::ConnectionTables;
use crate::datapath::eligibility::{self, Between};
use crate::datapath::packet_context::PacketContext;
use crate::packet::headers::Addresses;
use crate::packet::offload::Wire;
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

/// The path from one ENI to another between two addresses, in its place in the cache.
// In the order in which packets read it, so that established connections need no more than three cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Path {
    /// Whose path it is, and in which epoch of the cache it was found.
    owner: PathOwner,
    path_key: PathKey,
    /// The seed of its packets' hash.
    seed: u64,
    /// Their key, without ports, and whether their source is the second end.
    ends: Key,
    swapped: bool,
    /// The last burst with a packet that took it.
    burst: u64,
    /// The number of its delivery in that burst.
    delivery: u16,
    /// The longest frame that may take the path in this burst. Zero if the receiver is in another shard, or if more
    /// changes in a packet than the Ethernet header.
    pub(crate) frame_bytes_max: u32,
    /// The same, if the receiver is in this shard.
    frame_bytes_max_here: u32,
    /// The values that live sessions of both ENIs are compared with, the sender's first.
    pub(crate) live: [u64; 2],
    pub(crate) receiver: EniIndex,
    /// The epoch of the receiver's sessions.
    pub(crate) receiver_epoch: EniEpoch,
    /// The addresses in the Ethernet header of the last hop.
    pub(crate) ethernet_then: [u8; 12],
    /// The address table's entry for the destination.
    pub(crate) place: AddressEntry,
    /// The timeouts of connections opened along the path; `None` if they differ between the ends, or if an end limits
    /// its rate of new sessions.
    pub(crate) timeouts: Option<PackedTimeouts>,
    /// How many sessions the receiver may have.
    pub(crate) receiver_sessions_max: u32,
    /// What the policies of sender and receiver know about the other end, once there was a new connection.
    pub(super) peers: Option<[Peer; 2]>,
    /// Recent decisions of both ends, by service.
    cached_decisions: [(Service, [Decision; 2]); SERVICES_CACHED],
}

/// What a policy knows about a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) entry: AddressEntry,
    /// The indexes of its rows; one that does not fit is beyond all rows.
    pub(super) rows: [u32; 2],
}

/// An ENI that sends, and an epoch of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PathOwner(u64);

impl PathOwner {
    fn new(sender: EniIndex, epoch: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(sender.0))
    }

    fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What a path knows about its packets.
pub(super) struct Known<K> {
    /// The number of the path.
    pub(super) number: u16,
    pub(super) ends: K,
    pub(super) seed: u64,
    pub(super) swapped: bool,
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
    /// The path in a place that has none.
    const NONE: Self = Self {
        owner: PathOwner(0),
        path_key: PathKey { ethernet: Ethernet([0; 2]), ends: [0; 4] },
        seed: 0,
        ends: Key::V4(KeyV4::NONE),
        swapped: false,
        burst: 0,
        delivery: 0,
        frame_bytes_max: 0,
        frame_bytes_max_here: 0,
        live: [0; 2],
        receiver: EniIndex(0),
        receiver_epoch: EniEpoch(0),
        ethernet_then: [0; 12],
        place: AddressEntry::NOWHERE,
        timeouts: None,
        receiver_sessions_max: 0,
        peers: None,
        cached_decisions: [(Service::NONE, [Decision::by(Policy::Drop, Stage::Default); 2]); SERVICES_CACHED],
    };

    /// Determines the path; `None` if packets with these addresses have to take the slow path.
    fn resolve(
        sender: &EniContext<'_>,
        sessions: &ConnectionTables,
        owner: PathOwner,
        path_key: &PathKey,
        addresses: Addresses,
    ) -> Option<Self> {
        let (receiver, place) = eligibility::receiver(sender, path_key.ethernet.addresses(), addresses)?;
        let context = EniContext::new(sender.snapshot, receiver, Direction::Ingress)?;
        let mut ethernet_then = [0; 12];
        ethernet_then[..6].copy_from_slice(&context.eni.mac.0);
        ethernet_then[6..].copy_from_slice(&context.network.gateway_mac.0);
        let Between { forwards, opens } = eligibility::between(sender, &context);
        let (ends, seed, swapped) = sessions.ends_of(addresses, sender.network.salt);
        let frame_bytes_max = ETHERNET_HEADER_BYTES as u32 + u32::from(context.eni.mtu_bytes);
        Some(Self {
            owner,
            path_key: *path_key,
            seed,
            ends,
            swapped,
            // Zero lets no frame pass, so the fast path needs no flag of its own.
            frame_bytes_max_here: if forwards { frame_bytes_max } else { 0 },
            live: [sender.live_side(), context.live_side()],
            receiver,
            receiver_epoch: context.eni.epoch,
            ethernet_then,
            place,
            timeouts: if opens { Some(sender.timeouts()) } else { None },
            receiver_sessions_max: context.eni.sessions_max,
            ..Self::NONE
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
    places: Vec<Path>,
    /// Advances with every new configuration.
    epoch: u32,
    identity: Option<Arc<()>>,
    /// Advances with every burst.
    burst: u64,
    /// Room for the deliveries of a burst.
    deliveries: Vec<BurstDelivery>,
}

/// What the receiver of some paths of a burst is delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct BurstDelivery {
    pub(super) receiver: EniIndex,
    pub(super) receiver_epoch: EniEpoch,
    /// Whether the receiver is in this shard.
    is_here: bool,
    pub(super) passed: Wire,
}

impl PathCache {
    /// The paths of a burst of this sender. Invalidates all paths if the configuration is not that of the last burst.
    #[inline]
    pub(super) fn begin_burst(&mut self, sender: &EniContext<'_>) -> BurstPaths<'_> {
        if !self.identity.as_ref().is_some_and(|identity| Arc::ptr_eq(identity, &sender.snapshot.identity)) {
            self.invalidate(sender.snapshot);
        }
        self.burst += 1;
        BurstPaths {
            places: &mut self.places,
            owner: PathOwner::new(sender.index, self.epoch),
            burst: self.burst,
            deliveries: &mut self.deliveries,
            count: 0,
        }
    }

    #[cold]
    fn invalidate(&mut self, snapshot: &Snapshot) {
        self.identity = Some(Arc::clone(&snapshot.identity));
        self.epoch = self.epoch.wrapping_add(1);
        // After the epochs wrap around, an entry of an earlier round would seem valid.
        if self.epoch == 0 || self.places.is_empty() {
            self.places = alloc::vec![Path::NONE; PATHS_CACHED_MAX];
            self.deliveries = alloc::vec![BurstDelivery::NONE; BURST_PACKETS];
            self.epoch = self.epoch.max(1);
        }
    }
}

impl BurstDelivery {
    const NONE: Self = Self {
        receiver: EniIndex(0),
        receiver_epoch: EniEpoch(0),
        is_here: false,
        passed: Wire { packets: 0, bytes: 0 },
    };
}

/// The paths of one sender that packets of a burst may take. Those that one of them takes keep their places until the next
/// burst.
pub(crate) struct BurstPaths<'a> {
    places: &'a mut [Path],
    owner: PathOwner,
    burst: u64,
    deliveries: &'a mut [BurstDelivery],
    /// How many deliveries there are.
    count: usize,
}

/// The path that a packet was found to take, and where to add the packet.
pub(super) struct BurstPath<'a> {
    pub(super) path: &'a mut Path,
    pub(super) passed: &'a mut Wire,
}

impl BurstPaths<'_> {
    /// The path that a packet was found to take.
    #[inline(always)]
    pub(super) fn of(&mut self, packet_context: &PacketContext) -> Option<BurstPath<'_>> {
        let path = self.places.get_mut(usize::from(packet_context.path))?;
        let delivery = self.deliveries.get_mut(usize::from(path.delivery))?;
        Some(BurstPath { path, passed: &mut delivery.passed })
    }

    /// What has been delivered along them to ENIs of this shard.
    #[inline(always)]
    pub(super) fn deliveries(&self) -> impl Iterator<Item = &BurstDelivery> {
        self.deliveries[..self.count].iter().filter(|delivery| delivery.is_here)
    }

    /// The path of packets that begin with these headers, if the cache has it.
    #[inline(always)]
    pub(super) fn known<K: ConnectionKey, const N: usize>(
        &mut self,
        ethernet: Ethernet,
        ends: &[u64; N],
        is_here: &impl Fn(EniIndex) -> bool,
    ) -> Option<Known<K>> {
        let [first, second] = places_of(ends);
        match self.known_at(first, ethernet, ends, is_here) {
            None => self.known_at(second, ethernet, ends, is_here),
            known => known,
        }
    }

    #[inline(always)]
    fn known_at<K: ConnectionKey, const N: usize>(
        &mut self,
        place: usize,
        ethernet: Ethernet,
        ends: &[u64; N],
        is_here: &impl Fn(EniIndex) -> bool,
    ) -> Option<Known<K>> {
        let path = self.places.get_mut(place)?;
        if path.owner != self.owner || !path.path_key.is_of(ethernet, ends) {
            return None;
        }
        if path.burst != self.burst {
            path.burst = self.burst;
            // Mostly, all packets of a burst have one receiver.
            let last = self.count.wrapping_sub(1);
            if self.deliveries.get(last).is_none_or(|delivery| delivery.receiver != path.receiver) {
                let (receiver, receiver_epoch) = (path.receiver, path.receiver_epoch);
                // There cannot be more of them than packets in a burst.
                *self.deliveries.get_mut(self.count)? =
                    BurstDelivery { receiver, receiver_epoch, is_here: is_here(receiver), ..BurstDelivery::NONE };
                self.count += 1;
            }
            path.delivery = self.count as u16 - 1;
            // Without the receiver here, no frame is short enough, and all take the slow path to the other worker.
            let is_here = self.deliveries[usize::from(path.delivery)].is_here;
            path.frame_bytes_max = if is_here { path.frame_bytes_max_here } else { 0 };
        }
        Some(Known { number: place as u16, ends: K::of_any(&path.ends)?, seed: path.seed, swapped: path.swapped })
    }

    /// Adds the path of packets that [`BurstPaths::known`] does not know; `None` if they take the slow path.
    pub(super) fn add(
        &mut self,
        sender: &EniContext<'_>,
        sessions: &ConnectionTables,
        path_key: &PathKey,
        addresses: Addresses,
    ) -> Option<()> {
        add(self.places, self.owner, self.burst, sender, sessions, path_key, addresses)
    }
}

// Takes the parts, so that they stay in registers.
#[inline(never)]
fn add(
    places: &mut [Path],
    owner: PathOwner,
    burst: u64,
    sender: &EniContext<'_>,
    sessions: &ConnectionTables,
    path_key: &PathKey,
    addresses: Addresses,
) -> Option<()> {
    let candidates = places_of(&path_key.ends);
    let is_free = |place: &usize| places[*place].owner.epoch() != owner.epoch();
    let gives_way = |place: &usize| places[*place].burst != burst;
    let place = candidates.into_iter().find(is_free).or(candidates.into_iter().find(gives_way))?;
    places[place] = Path::resolve(sender, sessions, owner, path_key, addresses)?;
    Some(())
}

const _: () = assert!(size_of::<Path>() == 320, "a path is five cache lines");

/// Where a path may be kept.
#[inline(always)]
fn places_of(ends: &[u64]) -> [usize; 2] {
    const { assert!(PATHS_CACHED_MAX.is_power_of_two()) };
    // The destination of IPv6 is rotated: in place, its prefix would cancel that of a source in the same subnet.
    let mixed = ends.iter().enumerate().fold(0, |mixed, (number, end)| mixed ^ end.rotate_left(number as u32 / 2 * 32));
    let first = (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PATHS_CACHED_MAX.ilog2())) as usize;
    [first, first ^ 1]
}
