//! The fast path, which nearly all packets take: those of a connection whose sessions at both ends share a record and go on,
//! and the first packets of new connections.
//!
//! What may take it, `eligibility.rs` decides; whatever may not takes the slow path. What is the same for all packets from one
//! ENI to another is found out once, and so is what is the same for packets that follow each other between the same addresses.

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

/// The path of some packets of a burst, from one ENI to another between two addresses.
pub(crate) struct BurstPath<'a> {
    pub(crate) path: Path,
    /// The key of its packets, but for the ports; what it gives to their hash; and whether their source is the second end.
    ends: Key,
    seed: u64,
    swapped: bool,
    /// The longest frame that may go along; none where the receiver is not here, or more than the Ethernet header of a
    /// packet changes.
    frame_bytes_max: usize,
    /// What decides about the connections that are opened along it, once there was one.
    policies: Option<PolicyPair<'a>>,
    /// Whether a decision was cached in the path.
    is_dirty: bool,
    /// What went along it and is not in the counters yet.
    passed: Wire,
}

/// Both ENIs' rules for packets between two addresses.
struct PolicyPair<'a> {
    egress: PeerPolicy<'a>,
    ingress: PeerPolicy<'a>,
}

/// The rules of an ENI for packets of one peer: what they say of it is the same for all.
struct PeerPolicy<'a> {
    context: EniContext<'a>,
    peer: AddressEntry,
    batch_matcher: Option<BatchMatcher<'a>>,
    /// Where the rows of the peer begin.
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

    /// What both say, the sender's first; and whether they say so of all packets of this protocol and destination port. Whoever
    /// is refused by the first never comes before the second.
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
            None => (self.context.decide_by_entry(self.context.direction, tuple, self.peer), false),
        }
    }
}

/// What the rules of one ENI say of a packet, as the fast path decides.
pub(crate) fn decide_by_rules(context: &EniContext<'_>, tuple: &Tuple) -> Decision {
    let peer = context.network.source(from_peer(context.direction, tuple));
    PeerPolicy::new(*context, peer).decide(tuple).0
}

impl<'a> BurstPath<'a> {
    /// The path, if a decision was cached in it in this burst.
    pub(crate) fn dirty_path(&self) -> Option<&Path> {
        self.is_dirty.then_some(&self.path)
    }

    /// What the rules of both ends say of a service.
    #[inline(never)]
    fn decide(&mut self, sender: &EniContext<'a>, service: Service, tuple: &Tuple) -> Option<[Decision; 2]> {
        if self.policies.is_none() {
            self.policies = Some(PolicyPair::new(sender, &self.path, tuple.addresses)?);
        }
        let (decisions, is_for_all) = self.policies.as_ref()?.decide(tuple);
        if !eligibility::decisions(&decisions) {
            return None;
        }
        if is_for_all {
            self.path.cache_decisions(service, decisions);
            self.is_dirty = true;
        }
        Some(decisions)
    }
}

/// What a burst path tells of its packets.
struct Known<K> {
    number: u8,
    ends: K,
    seed: u64,
    swapped: bool,
}

/// The burst paths of a burst: what follows a packet between the same addresses is neither guarded nor routed anew.
pub(crate) struct BurstPaths<'a> {
    found: [Option<BurstPath<'a>>; BURST_PACKETS],
    count: usize,
    /// Which of them lies between addresses that are spread to such a place. No branch depends on which of its peers a
    /// sender talks to: it changes from packet to packet.
    numbers: [u8; SPREAD],
}

/// Places that addresses are spread to: twice as many as packets in a burst.
const SPREAD: usize = 2 * BURST_PACKETS;

impl<'a> BurstPaths<'a> {
    #[inline(always)]
    pub(crate) fn none() -> Self {
        Self { found: core::array::from_fn(|_| None), count: 0, numbers: [PacketContext::NO_BURST_PATH; SPREAD] }
    }

    /// That of a plain packet.
    #[inline(always)]
    pub(crate) fn of(&mut self, packet_context: &PacketContext) -> Option<&mut BurstPath<'a>> {
        self.found.get_mut(usize::from(packet_context.burst_path))?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BurstPath<'a>> {
        self.found[..self.count].iter().flatten()
    }

    /// What is known of packets that begin so, if their burst path is where such are spread to.
    #[inline(always)]
    fn known<K: ConnectionKey, const N: usize>(&self, ethernet: Ethernet, ends: &[u64; N]) -> Option<Known<K>> {
        let number = self.numbers[spread::<SPREAD>(ends)];
        let BurstPath { path, ends: key, seed, swapped, .. } = self.found.get(usize::from(number))?.as_ref()?;
        let is_it = path.path_key.is_of(ethernet, ends);
        if is_it { Some(Known { number, ends: K::of_any(key)?, seed: *seed, swapped: *swapped }) } else { None }
    }

    /// Finds the burst path of packets that begin so; none where it is the slow path.
    #[inline(never)]
    fn find(
        &mut self,
        (sender, sessions): (&EniContext<'_>, &ConnectionTables),
        (path_key, addresses): (&PathKey, Addresses),
        (path_cache, is_here): (&mut PathCache, &impl Fn(EniIndex) -> bool),
    ) -> Option<()> {
        let known = self.iter().position(|found| found.path.path_key == *path_key);
        let number = if let Some(number) = known {
            number
        } else {
            // There are no more of them than packets in a burst.
            let room = self.found.get_mut(self.count)?;
            let path = path_cache.between(sender, path_key, addresses)?;
            let frame_bytes_max = if is_here(path.receiver) { path.frame_bytes_max } else { 0 };
            let (ends, seed, swapped) = sessions.ends_of(addresses, sender.network.salt);
            let passed = Wire { packets: 0, bytes: 0 };
            *room =
                Some(BurstPath { path, ends, seed, swapped, frame_bytes_max, policies: None, is_dirty: false, passed });
            self.count += 1;
            self.count - 1
        };
        self.numbers[spread::<SPREAD>(&path_key.ends)] = number as u8;
        Some(())
    }
}

/// The first phase of a plain packet: what its frame says, whose it is, and where it goes. None, and nothing is done,
/// where it has to take the slow path.
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
            let mut path_key = PathKey { ethernet, ends: [0; 4] };
            path_key.ends[..N].copy_from_slice(ends);
            burst_paths.find(at, (&path_key, K::addresses(plain.addresses)), path_cache)?;
            burst_paths.known(ethernet, ends)?
        }
    };
    packet_context.burst_path = known.number;
    packet_context.segment = plain.segment;
    (packet_context.entry, packet_context.guess) =
        at.1.reach_for_plain(table, (known.ends, known.seed, known.swapped), plain);
    if plain.segment.flags & tcp_flags::SYN != 0 {
        table.prefetch_origin(packet_context.guess);
    }
    Some(())
}

/// What became of a packet among the records.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Continuation {
    /// Both its sessions go on.
    Yes,
    /// Nobody has a session of its connection.
    New,
    /// Anything else.
    No,
}

impl Shard {
    /// Both decisions of a plain packet, and all that follows from them. False, and nothing is done, where it has to go the
    /// long way.
    #[inline(always)]
    pub(crate) fn try_fast_path<'a>(
        &mut self,
        sender: &EniContext<'a>,
        burst_path: &mut BurstPath<'a>,
        (packet, packet_context): (&mut Packet, &PacketContext),
        now: Tick,
    ) -> bool {
        let frame_bytes = packet.buffer.length();
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

    /// The packet that starts a connection: opens the sessions of those who admit it, in one record. A refusal is counted.
    /// None, and nothing is done, where it has to take the slow path.
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

    /// Counts what went along at both its ends.
    #[inline]
    pub(crate) fn count_burst_path(&mut self, sender: &EniContext<'_>, burst_path: &BurstPath<'_>) {
        if burst_path.passed.packets > 0 {
            let receiver = burst_path.path.receiver.0 as usize;
            self.counters[sender.counters_index()].egress.count(Verdict::Deliver, burst_path.passed);
            self.counters[receiver].ingress.count(Verdict::Deliver, burst_path.passed);
        }
    }
}

/// Counts a packet in the record that both ENIs have their sessions in, if it goes on at both.
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
        return if eligibility::opens_connection(protocol, packet_context.entry.ports(), packet_context.segment.flags) {
            Continuation::New
        } else {
            Continuation::No
        };
    };
    let connection = table.connection_mut(slot);
    // The opener's session comes first, if there are two.
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

/// What a plain packet of those that open connections says of its own.
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
