//! The fast path, which nearly all packets take: packets of a connection whose sessions at both ends share a record and
//! are valid, and the first packets of new connections.
//!
//! `eligibility.rs` decides what may take it; everything else takes the slow path. What is the same for all packets
//! from one ENI to another is determined once, and so is what is the same for consecutive packets between the same
//! addresses.

use crate::acl::BatchMatcher;
use crate::config::desired::{Direction, Policy};
use crate::config::ids::EniIndex;
use crate::config::limits::BURST_PACKETS;
use crate::conntrack::key::{ConnectionKey, Key};
use crate::conntrack::state::ConnectionState;
use crate::conntrack::table::Table;
use crate::conntrack::tables::{ConnectionTables, LookupKey};
use crate::conntrack::{Session, tcp};
use crate::datapath::eligibility;
use crate::datapath::packet_context::PacketContext;
use crate::datapath::path_cache::{Ethernet, Path, PathCache, PathKey, Service, spread};
use crate::datapath::session_update::{NewConnection, NewSession};
use crate::datapath::shard::Shard;
use crate::hw::time::Tick;
use crate::packet::Packet;
use crate::packet::headers::fast_parse::{self, Family, Plain};
use crate::packet::headers::tcp_options::window_scale;
use crate::packet::headers::{Addresses, Tuple, protocol, tcp_flags};
use crate::packet::offload::Wire;
use crate::packet::verdict::{Decision, Stage, Verdict};
use crate::policy::eni_context::EniContext;
use crate::policy::evaluate::from_peer;
use crate::tables::address_entry::AddressEntry;

/// The path of packets in a burst from one ENI to another, between two addresses.
pub(crate) struct BurstPath<'a> {
    pub(crate) path: Path,
    /// The key of its packets, without ports; the seed of their hash; and whether their source is the second end.
    ends: Key,
    seed: u64,
    swapped: bool,
    /// The longest frame that may take the path. Zero if the receiver is in another shard, or if more changes in a
    /// packet than the Ethernet header.
    frame_bytes_max: usize,
    /// The policies that decide about new connections on the path, once there was one.
    policies: Option<PolicyPair<'a>>,
    /// Whether a decision was added to the path's cache.
    is_dirty: bool,
    /// What took the path and is not in the counters yet.
    passed: Wire,
}

/// The policies of both ENIs for packets between two addresses.
struct PolicyPair<'a> {
    egress: PeerPolicy<'a>,
    ingress: PeerPolicy<'a>,
}

/// The policy of an ENI for the packets of one peer, with everything determined that they have in common.
struct PeerPolicy<'a> {
    context: EniContext<'a>,
    peer: AddressEntry,
    batch_matcher: Option<BatchMatcher<'a>>,
    /// The indexes of the peer's rows.
    rows: [usize; 2],
}

impl<'a> PolicyPair<'a> {
    fn new(sender: &EniContext<'a>, path: &Path, addresses: Addresses) -> Option<Self> {
        let receiver = EniContext::new(sender.snapshot, path.receiver, Direction::Ingress)?;
        let source = receiver.network.source(addresses);
        let [egress, ingress] =
            [(*sender, path.place), (receiver, source)].map(|(context, peer)| PeerPolicy::new(context, peer));
        Some(Self { egress, ingress })
    }

    /// The decisions of both, the sender's first, and whether they apply to all packets of this protocol and
    /// destination port. What the sender's policy refuses is never shown to the receiver's.
    fn decide(&self, tuple: &Tuple) -> ([Decision; 2], bool) {
        let (outgoing, is_for_all) = self.egress.decide(tuple);
        if !outgoing.accepts() {
            return ([outgoing; 2], is_for_all);
        }
        let (incoming, is_for_all_too) = self.ingress.decide(tuple);
        ([outgoing, incoming], is_for_all && is_for_all_too)
    }
}

impl<'a> PeerPolicy<'a> {
    fn new(context: EniContext<'a>, peer: AddressEntry) -> Self {
        let batch_matcher = eligibility::batch_matcher(&context);
        // The rows of the peer are found once per path; only the service differs between its new connections.
        let rows = match &batch_matcher {
            Some(BatchMatcher::Narrow(batch_matcher)) => batch_matcher.peer(peer.class),
            Some(BatchMatcher::Wide(batch_matcher)) => batch_matcher.peer(peer.class),
            None => [0; 2],
        };
        Self { context, peer, batch_matcher, rows }
    }

    #[inline(always)]
    fn decide(&self, tuple: &Tuple) -> (Decision, bool) {
        let found = match &self.batch_matcher {
            Some(BatchMatcher::Narrow(batch_matcher)) => batch_matcher.decide(batch_matcher.service(tuple), self.rows),
            Some(BatchMatcher::Wide(batch_matcher)) => batch_matcher.decide(batch_matcher.service(tuple), self.rows),
            None => None,
        };
        match found {
            Some(decision) => (decision, true),
            // Decisions that depend on source ports or local addresses hold for this packet alone and are not cached.
            None => (self.context.decide_by_entry(self.context.direction, tuple, self.peer), false),
        }
    }
}

/// The decision of one ENI's rules about a packet, as the fast path makes it.
pub(crate) fn decide_by_rules(context: &EniContext<'_>, tuple: &Tuple) -> Decision {
    let peer = context.network.source(from_peer(context.direction, tuple));
    PeerPolicy::new(*context, peer).decide(tuple).0
}

impl<'a> BurstPath<'a> {
    /// The path, if a decision was added to its cache in this burst.
    pub(crate) fn dirty_path(&self) -> Option<&Path> {
        self.is_dirty.then_some(&self.path)
    }

    /// The decisions of both ends about a service.
    #[inline(never)]
    fn decide(&mut self, sender: &EniContext<'a>, service: Service, tuple: &Tuple) -> Option<[Decision; 2]> {
        if self.policies.is_none() {
            self.policies = Some(PolicyPair::new(sender, &self.path, tuple.addresses)?);
        }
        let (decisions, is_for_all) = self.policies.as_ref()?.decide(tuple);
        if !eligibility::decisions(&decisions) {
            return None;
        }
        // Only decisions that hold for every packet of the service may be kept.
        if is_for_all {
            self.path.cache_decisions(service, decisions);
            self.is_dirty = true;
        }
        Some(decisions)
    }
}

/// What a burst path knows about its packets.
struct Known<K> {
    number: u8,
    ends: K,
    seed: u64,
    swapped: bool,
}

/// The burst paths of a burst, so that packets between the same addresses are checked and routed only once.
pub(crate) struct BurstPaths<'a> {
    found: [Option<BurstPath<'a>>; BURST_PACKETS],
    count: usize,
    /// The number of the burst path for each hash of addresses. The look-up has no branch that depends on the peer,
    /// which changes from packet to packet.
    numbers: [u8; SPREAD],
}

/// The size of that table: twice the number of packets in a burst.
const SPREAD: usize = 2 * BURST_PACKETS;

impl<'a> BurstPaths<'a> {
    #[inline(always)]
    pub(crate) fn none() -> Self {
        Self { found: core::array::from_fn(|_| None), count: 0, numbers: [PacketContext::NO_BURST_PATH; SPREAD] }
    }

    /// The burst path of a plain packet.
    #[inline(always)]
    pub(crate) fn of(&mut self, packet_context: &PacketContext) -> Option<&mut BurstPath<'a>> {
        self.found.get_mut(usize::from(packet_context.burst_path))?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BurstPath<'a>> {
        self.found[..self.count].iter().flatten()
    }

    /// The burst path of packets that begin with these headers, if the table has it.
    #[inline(always)]
    fn known<K: ConnectionKey, const N: usize>(&self, ethernet: Ethernet, ends: &[u64; N]) -> Option<Known<K>> {
        let number = self.numbers[spread::<SPREAD>(ends)];
        let BurstPath { path, ends: key, seed, swapped, .. } = self.found.get(usize::from(number))?.as_ref()?;
        let is_it = path.path_key.is_of(ethernet, ends);
        if is_it { Some(Known { number, ends: K::of_any(key)?, seed: *seed, swapped: *swapped }) } else { None }
    }

    /// Finds or adds the burst path of packets with this key; `None` if they take the slow path.
    #[inline(never)]
    fn find(
        &mut self,
        (sender, sessions): (&EniContext<'_>, &ConnectionTables),
        (path_key, addresses): (&PathKey, Addresses),
        (path_cache, is_here): (&mut PathCache, &impl Fn(EniIndex) -> bool),
    ) -> Option<()> {
        let place = spread::<SPREAD>(&path_key.ends);
        // A place that no burst path has taken tells that this one is new; only one that gave it up has to be searched for.
        let is_new = self.numbers[place] == PacketContext::NO_BURST_PATH;
        let known = if is_new { None } else { self.iter().position(|found| found.path.path_key == *path_key) };
        let number = if let Some(number) = known {
            number
        } else {
            // There cannot be more of them than packets in a burst.
            let room = self.found.get_mut(self.count)?;
            let path = path_cache.between(sender, path_key, addresses)?;
            // Without the receiver here, no frame is short enough, and all take the slow path to the other worker.
            let frame_bytes_max = if is_here(path.receiver) { path.frame_bytes_max } else { 0 };
            let (ends, seed, swapped) = sessions.ends_of(addresses, sender.network.salt);
            let passed = Wire { packets: 0, bytes: 0 };
            *room =
                Some(BurstPath { path, ends, seed, swapped, frame_bytes_max, policies: None, is_dirty: false, passed });
            self.count += 1;
            self.count - 1
        };
        // A colliding burst path gives up its number, not its place: its next packet finds it by key again.
        self.numbers[place] = number as u8;
        Some(())
    }
}

/// The first phase for a plain packet: parse, check the sender, and route. Returns `None`, having changed nothing, if
/// it has to take the slow path.
#[inline(always)]
pub(crate) fn find_path(
    at: (&EniContext<'_>, &ConnectionTables),
    burst_paths: &mut BurstPaths<'_>,
    path_cache: (&mut PathCache, &impl Fn(EniIndex) -> bool),
    (packet, packet_context): (&Packet, &mut PacketContext),
) -> Option<()> {
    if !eligibility::packet(packet) {
        return None;
    }
    let frame = packet.buffer.frame();
    match fast_parse::family(frame)? {
        Family::V4 => {
            let plain = fast_parse::read_v4(frame)?;
            reach(
                (at, &at.1.v4),
                (&plain, Ethernet::of(frame)?, &fast_parse::ends_v4(frame)?),
                (burst_paths, path_cache),
                packet_context,
            )
        }
        Family::V6 => {
            let plain = fast_parse::read_v6(frame)?;
            reach(
                (at, &at.1.v6),
                (&plain, Ethernet::of(frame)?, &fast_parse::ends_v6(frame)?),
                (burst_paths, path_cache),
                packet_context,
            )
        }
    }
}

#[inline(always)]
fn reach<K: ConnectionKey, const N: usize>(
    (at, table): ((&EniContext<'_>, &ConnectionTables), &Table<K>),
    (plain, ethernet, ends): (&Plain<K::Address>, Ethernet, &[u64; N]),
    (burst_paths, path_cache): (&mut BurstPaths<'_>, (&mut PathCache, &impl Fn(EniIndex) -> bool)),
    packet_context: &mut PacketContext,
) -> Option<()> {
    if !eligibility::plain(plain) {
        return None;
    }
    let known = match burst_paths.known(ethernet, ends) {
        Some(known) => known,
        None => {
            if at.0.network.uplink.is_some() && eligibility::leaves::<K>(at.0, ethernet.addresses(), plain.addresses) {
                packet_context.burst_path = PacketContext::LEAVES;
                packet_context.segment = plain.segment;
                (packet_context.entry, packet_context.guess) =
                    at.1.reach_between(table, plain.addresses, plain.ports, plain.protocol, at.0.network.salt);
                return Some(());
            }
            let addresses = K::addresses(plain.addresses);
            let mut path_key = PathKey { ethernet, ends: [0; 4] };
            path_key.ends[..N].copy_from_slice(ends);
            burst_paths.find(at, (&path_key, addresses), path_cache)?;
            burst_paths.known(ethernet, ends)?
        }
    };
    packet_context.burst_path = known.number;
    packet_context.segment = plain.segment;
    (packet_context.entry, packet_context.guess) =
        at.1.reach_for_plain(table, (known.ends, known.seed, known.swapped), plain);
    // A SYN mostly opens a connection, which also writes the separate part of the record.
    if plain.segment.flags & tcp_flags::SYN != 0 {
        table.prefetch_origin(packet_context.guess);
    }
    Some(())
}

/// What was found in the record of a packet's connection.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Continuation {
    /// Both sessions are valid, and the packet was counted.
    Yes,
    /// There is no session of the connection.
    New,
    /// Anything else.
    No,
}

impl Shard {
    /// Decides about a plain packet at both ends and does everything that follows. Returns false, having changed
    /// nothing, if the packet has to take the slow path.
    #[inline(always)]
    pub(crate) fn try_fast_path<'a>(
        &mut self,
        sender: &EniContext<'a>,
        burst_path: &mut BurstPath<'a>,
        (packet, packet_context): (&mut Packet, &PacketContext),
        now: Tick,
    ) -> bool {
        let frame_bytes = packet.buffer.length();
        // One comparison stands for the MTU, for a receiver in another shard and for a hop between subnets.
        let went_on = if frame_bytes > burst_path.frame_bytes_max {
            Continuation::No
        } else {
            match &packet_context.entry.key {
                Key::V4(key) => refresh(
                    &mut self.sessions.v4,
                    (key, packet_context),
                    sender,
                    burst_path.path.live,
                    frame_bytes,
                    now,
                ),
                Key::V6(key) => refresh(
                    &mut self.sessions.v6,
                    (key, packet_context),
                    sender,
                    burst_path.path.live,
                    frame_bytes,
                    now,
                ),
            }
        };
        packet.receiver = burst_path.path.receiver;
        match went_on {
            Continuation::Yes => packet.decision = Some(Decision::by(Policy::Accept, Stage::Session)),
            Continuation::New => match self.open_connection(sender, burst_path, (packet, packet_context), now) {
                Some(Verdict::Deliver) => {}
                Some(refusal) => {
                    packet.verdict = refusal;
                    return true;
                }
                None => return false,
            },
            Continuation::No => return false,
        }
        burst_path.passed.packets += 1;
        burst_path.passed.bytes += frame_bytes as u64;
        packet.verdict = Verdict::Deliver;
        if let Some(header) = packet.buffer.frame_mut().first_chunk_mut::<12>() {
            *header = burst_path.path.ethernet_then;
        }
        true
    }

    /// Handles the first packet of a connection: opens the sessions of the ENIs that admit it, in one record, or counts
    /// the refusal. Returns `None`, having changed nothing, if the packet has to take the slow path.
    #[inline(never)]
    fn open_connection<'a>(
        &mut self,
        sender: &EniContext<'a>,
        burst_path: &mut BurstPath<'a>,
        (packet, packet_context): (&mut Packet, &PacketContext),
        now: Tick,
    ) -> Option<Verdict> {
        let service = Service::new(packet_context.entry.protocol, packet_context.entry.ports()[1]);
        let [outgoing, incoming] = match burst_path.path.cached_decisions(service) {
            Some(decisions) => decisions,
            None => burst_path.decide(sender, service, &packet_context.entry.tuple())?,
        };
        let (timeouts, receiver) = (burst_path.path.timeouts?, burst_path.path.receiver.0 as usize);
        // The slow path decides who gives way; nothing has been changed yet, so it can start over.
        if !self.has_room(sender) || self.counters[receiver].sessions >= burst_path.path.receiver_sessions_max {
            return None;
        }
        let wire = Wire { packets: 1, bytes: packet.buffer.length() as u64 };
        if !outgoing.accepts() {
            packet.decision = Some(outgoing);
            let refusal = outgoing.refusal();
            self.counters[sender.counters_index()].egress.count(refusal, wire);
            return Some(refusal);
        }
        let record = new_connection(packet.buffer.frame(), packet_context).record(timeouts, now);
        let (live, swapped) = (burst_path.path.live, packet_context.entry.swapped);
        let of_sender = NewSession {
            session: Session::of_live(live[0], Direction::Egress, swapped, outgoing.stage),
            ground: outgoing.ground,
            counters_index: sender.counters_index(),
            sessions_max: sender.eni.sessions_max,
        };
        let of_receiver = NewSession {
            session: Session::of_live(live[1], Direction::Ingress, swapped, incoming.stage),
            ground: incoming.ground,
            counters_index: receiver,
            sessions_max: burst_path.path.receiver_sessions_max,
        };
        // A receiver that refuses still leaves the sender its session, as on the slow path.
        let sessions = [Some(of_sender), if incoming.accepts() { Some(of_receiver) } else { None }];
        self.open_record(&packet_context.entry, record, sessions, (sender.snapshot.settings(), now)).ok()?;
        packet.decision = Some(incoming);
        if incoming.accepts() {
            return Some(Verdict::Deliver);
        }
        let refusal = incoming.refusal();
        self.counters[sender.counters_index()].egress.count(Verdict::Forward(burst_path.path.receiver), wire);
        self.counters[receiver].ingress.count(refusal, wire);
        Some(refusal)
    }

    /// Adds what took a burst path to the counters at both ends.
    #[inline]
    pub(crate) fn count_burst_path(&mut self, sender: &EniContext<'_>, burst_path: &BurstPath<'_>) {
        if burst_path.passed.packets > 0 {
            let receiver = burst_path.path.receiver.0 as usize;
            self.counters[sender.counters_index()].egress.count(Verdict::Deliver, burst_path.passed);
            self.counters[receiver].ingress.count(Verdict::Deliver, burst_path.passed);
        }
    }
}

/// Counts a packet in the record that both ENIs share, if both sessions are valid.
#[inline(always)]
fn refresh<K: ConnectionKey>(
    table: &mut Table<K>,
    (key, packet_context): (&K, &PacketContext),
    sender: &EniContext<'_>,
    live: [u64; 2],
    frame_bytes: usize,
    now: Tick,
) -> Continuation {
    let LookupKey { protocol, hash, swapped, .. } = packet_context.entry;
    let Some(slot) = table.find_any(key, protocol, (hash, packet_context.guess)) else {
        // Without a session, settings about picking up apply unless the packet opens a connection by itself.
        return if eligibility::opens_connection(protocol, packet_context.entry.ports(), packet_context.segment.flags) {
            Continuation::New
        } else {
            Continuation::No
        };
    };
    let connection = table.connection_mut(slot);
    // If there are two sessions, the opener's comes first.
    let way = usize::from(swapped != connection.sessions[0].is_swapped());
    let admits_both = connection.sessions[way].is(live[0]) && connection.sessions[1 - way].is(live[1]);
    if !admits_both || !sender.continues(connection, packet_context.segment.flags, now) {
        return Continuation::No;
    }
    let wire = Wire { packets: 1, bytes: frame_bytes as u64 };
    if connection.count(packet_context.segment, wire, way, now) {
        table.origin_mut(slot).bytes_high[way].carry();
    }
    Continuation::Yes
}

/// The properties of a plain packet that a new connection takes from it.
#[inline(always)]
fn new_connection(frame: &[u8], packet_context: &PacketContext) -> NewConnection {
    let (protocol, segment) = (packet_context.entry.protocol, packet_context.segment);
    let (state, scale) = match protocol {
        protocol::TCP => (tcp::open(segment.flags), fast_parse::transport_of(frame).and_then(window_scale)),
        _ => (ConnectionState::Udp, None),
    };
    NewConnection {
        protocol,
        from_opener: true,
        state,
        segment,
        scale,
        wire: Wire { packets: 1, bytes: frame.len() as u64 },
    }
}
