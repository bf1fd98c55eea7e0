//! The fast path, which nearly all packets take: packets of a connection whose sessions at both ends share a record and
//! are valid, and the first packets of new connections.
//!
//! `eligibility.rs` decides what may take it; everything else takes the slow path. What is the same for all packets
//! between two addresses is determined once, and kept in `path_cache.rs`.

use crate::acl::BatchMatcher;
use crate::config::desired::{Direction, Policy};
use crate::config::ids::EniIndex;
use crate::conntrack::key::{ConnectionKey, Key};
use crate::conntrack::state::ConnectionState;
use crate::conntrack::table::Table;
use crate::conntrack::tables::{ConnectionTables, LookupKey};
use crate::conntrack::{Session, tcp};
use crate::datapath::eligibility;
use crate::datapath::packet_context::PacketContext;
use crate::datapath::path_cache::{BurstDelivery, BurstPath, BurstPaths, Ethernet, Path, PathKey, Peer, Service};
use crate::datapath::session_update::{NewConnection, NewSession};
use crate::datapath::shard::Shard;
use crate::hw::time::Tick;
use crate::packet::Packet;
use crate::packet::headers::fast_parse::{self, Family, Plain};
use crate::packet::headers::tcp_options::window_scale;
use crate::packet::headers::{Tuple, protocol, tcp_flags};
use crate::packet::offload::{Offload, Segmentation, Wire, settle_plain};
use crate::packet::verdict::{Decision, Stage, Verdict};
use crate::policy::eni_context::EniContext;
use crate::policy::evaluate::from_peer;
use crate::tables::address_entry::AddressEntry;

/// The policies of a burst's sender and of the receiver of its last new connection.
#[derive(Default)]
pub(crate) struct BurstPolicies<'a> {
    egress: Option<EniPolicy<'a>>,
    ingress: Option<EniPolicy<'a>>,
}

/// The policy of an ENI, with everything determined that new connections have in common.
struct EniPolicy<'a> {
    context: EniContext<'a>,
    batch_matcher: Option<BatchMatcher<'a>>,
}

impl<'a> BurstPolicies<'a> {
    /// The decisions of both ends about a service.
    #[inline(never)]
    fn decide(
        &mut self,
        sender: &EniContext<'a>,
        path: &mut Path,
        service: Service,
        tuple: &Tuple,
    ) -> Option<[Decision; 2]> {
        let egress = self.egress.get_or_insert_with(|| EniPolicy::new(*sender));
        if self.ingress.as_ref().is_none_or(|ingress| ingress.context.index != path.receiver) {
            self.ingress = Some(EniPolicy::new(EniContext::new(sender.snapshot, path.receiver, Direction::Ingress)?));
        }
        let ingress = self.ingress.as_ref()?;
        let [destination, source] = *path.peers.get_or_insert_with(|| {
            let source = ingress.context.network.source(tuple.addresses);
            [egress.peer(path.place), ingress.peer(source)]
        });
        let (outgoing, is_for_all) = egress.decide(destination, tuple);
        // What the sender's policy refuses is never shown to the receiver's.
        let (incoming, is_for_all_too) =
            if outgoing.accepts() { ingress.decide(source, tuple) } else { (outgoing, is_for_all) };
        let decisions = [outgoing, incoming];
        if !eligibility::decisions(&decisions) {
            return None;
        }
        // Only decisions that hold for every packet of the service may be kept.
        if is_for_all && is_for_all_too {
            path.cache_decisions(service, decisions);
        }
        Some(decisions)
    }
}

impl<'a> EniPolicy<'a> {
    fn new(context: EniContext<'a>) -> Self {
        Self { context, batch_matcher: eligibility::batch_matcher(&context) }
    }

    /// What it tells about a peer, which is determined once: only the service differs between the peer's new connections.
    fn peer(&self, entry: AddressEntry) -> Peer {
        let rows = match &self.batch_matcher {
            Some(BatchMatcher::Narrow(batch_matcher)) => batch_matcher.peer(entry.class),
            Some(BatchMatcher::Wide(batch_matcher)) => batch_matcher.peer(entry.class),
            None => [0; 2],
        };
        Peer { entry, rows: rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX)) }
    }

    #[inline(always)]
    fn decide(&self, peer: Peer, tuple: &Tuple) -> (Decision, bool) {
        let rows = peer.rows.map(|row| row as usize);
        let found = match &self.batch_matcher {
            Some(BatchMatcher::Narrow(batch_matcher)) => batch_matcher.decide(batch_matcher.service(tuple), rows),
            Some(BatchMatcher::Wide(batch_matcher)) => batch_matcher.decide(batch_matcher.service(tuple), rows),
            None => None,
        };
        match found {
            Some(decision) => (decision, true),
            // Decisions that depend on source ports or local addresses hold for this packet alone and are not cached.
            None => (self.context.decide_by_entry(self.context.direction, tuple, peer.entry), false),
        }
    }
}

/// The decision of one ENI's rules about a packet, as the fast path makes it.
pub(crate) fn decide_by_rules(context: &EniContext<'_>, tuple: &Tuple) -> Decision {
    let peer = context.network.source(from_peer(context.direction, tuple));
    let policy = EniPolicy::new(*context);
    policy.decide(policy.peer(peer), tuple).0
}

/// The first phase for a plain packet: parse, check the sender, and route. Returns `None`, having changed nothing, if
/// it has to take the slow path.
#[inline(always)]
pub(crate) fn find_path(
    at: (&EniContext<'_>, &ConnectionTables),
    paths: (&mut BurstPaths<'_>, &impl Fn(EniIndex) -> bool),
    (packet, packet_context): (&mut Packet, &mut PacketContext),
) -> Option<()> {
    if !eligibility::packet(packet) {
        return None;
    }
    let (frame, frame_bytes, offload) = (packet.buffer.frame(), packet.buffer.length(), &mut packet.offload);
    match fast_parse::family(frame)? {
        Family::V4 => {
            let plain = fast_parse::read_v4(frame, frame_bytes)?;
            verify_claim(offload, &plain, Family::V4, frame, frame_bytes)?;
            reach((at, &at.1.v4), (&plain, Ethernet::of(frame)?, &fast_parse::ends_v4(frame)?), paths, packet_context)
        }
        Family::V6 => {
            let plain = fast_parse::read_v6(frame, frame_bytes)?;
            verify_claim(offload, &plain, Family::V6, frame, frame_bytes)?;
            reach((at, &at.1.v6), (&plain, Ethernet::of(frame)?, &fast_parse::ends_v6(frame)?), paths, packet_context)
        }
    }
}

/// Verifies what the sender of a plain packet claims to have left undone, and puts what the headers say in its place. `None` if
/// it takes the slow path, which verifies it anew.
#[inline(always)]
pub(super) fn verify_claim<A>(
    offload: &mut Offload,
    plain: &Plain<A>,
    family: Family,
    frame: &[u8],
    frame_bytes: usize,
) -> Option<()> {
    if offload.checksum.is_some() {
        *offload = settle_plain(offload, plain, family, frame, frame_bytes)?;
    }
    Some(())
}

#[inline(always)]
fn reach<K: ConnectionKey, const N: usize>(
    (at, table): ((&EniContext<'_>, &ConnectionTables), &Table<K>),
    (plain, ethernet, ends): (&Plain<K::Address>, Ethernet, &[u64; N]),
    (burst_paths, is_here): (&mut BurstPaths<'_>, &impl Fn(EniIndex) -> bool),
    packet_context: &mut PacketContext,
) -> Option<()> {
    if !eligibility::plain(plain) {
        return None;
    }
    let known = match burst_paths.known(ethernet, ends, is_here) {
        Some(known) => known,
        None => {
            if at.0.network.uplink.is_some() && eligibility::leaves::<K>(at.0, ethernet.addresses(), plain.addresses) {
                packet_context.path = PacketContext::LEAVES;
                packet_context.segment = plain.segment;
                (packet_context.entry, packet_context.guess) =
                    at.1.reach_between(table, plain.addresses, plain.ports, plain.protocol, at.0.network.salt);
                return Some(());
            }
            let addresses = K::addresses(plain.addresses);
            let mut path_key = PathKey { ethernet, ends: [0; 4] };
            path_key.ends[..N].copy_from_slice(ends);
            burst_paths.add(at.0, at.1, &path_key, addresses)?;
            burst_paths.known(ethernet, ends, is_here)?
        }
    };
    packet_context.path = known.number;
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
    pub(super) fn try_fast_path<'a>(
        &mut self,
        sender: &EniContext<'a>,
        on: &mut BurstPath<'_>,
        policies: &mut BurstPolicies<'a>,
        packet: &mut Packet,
        packet_context: &PacketContext,
        now: Tick,
    ) -> bool {
        match packet.offload.segmentation {
            Segmentation::None => self.take_path(sender, on, policies, packet, packet_context, now),
            _ => self.take_path_of_segments(sender, on, policies, packet, packet_context, now),
        }
    }

    /// [`Self::take_path`] for a packet that stands for several.
    // Apart, so that the numbers of all others are constants.
    #[inline(never)]
    fn take_path_of_segments<'a>(
        &mut self,
        sender: &EniContext<'a>,
        on: &mut BurstPath<'_>,
        policies: &mut BurstPolicies<'a>,
        packet: &mut Packet,
        packet_context: &PacketContext,
        now: Tick,
    ) -> bool {
        self.take_path(sender, on, policies, packet, packet_context, now)
    }

    #[inline(always)]
    fn take_path<'a>(
        &mut self,
        sender: &EniContext<'a>,
        on: &mut BurstPath<'_>,
        policies: &mut BurstPolicies<'a>,
        packet: &mut Packet,
        packet_context: &PacketContext,
        now: Tick,
    ) -> bool {
        let BurstPath { path, passed } = on;
        let (wire, longest_frame_bytes) = (packet.wire(), packet.longest_frame_bytes());
        // One comparison stands for the MTU, for a receiver in another shard and for a hop between subnets.
        let went_on = if longest_frame_bytes > path.frame_bytes_max as usize {
            Continuation::No
        } else {
            match &packet_context.entry.key {
                Key::V4(key) => refresh(&mut self.sessions.v4, (key, packet_context), sender, path.live, wire, now),
                Key::V6(key) => refresh(&mut self.sessions.v6, (key, packet_context), sender, path.live, wire, now),
            }
        };
        packet.receiver = path.receiver;
        match went_on {
            Continuation::Yes => packet.decision = Some(Decision::by(Policy::Accept, Stage::Session)),
            Continuation::New => match self.open_connection(sender, path, policies, (packet, packet_context), now) {
                Some(Verdict::Deliver) => {}
                Some(refusal) => {
                    packet.verdict = refusal;
                    return true;
                }
                None => return false,
            },
            Continuation::No => return false,
        }
        passed.packets += wire.packets;
        passed.bytes += wire.bytes;
        packet.verdict = Verdict::Deliver;
        if let Some(header) = packet.buffer.frame_mut().first_chunk_mut::<12>() {
            *header = path.ethernet_then;
        }
        true
    }

    /// Handles the first packet of a connection: opens the sessions of the ENIs that admit it, in one record, or counts
    /// the refusal. Returns `None`, having changed nothing, if the packet has to take the slow path.
    #[inline(never)]
    fn open_connection<'a>(
        &mut self,
        sender: &EniContext<'a>,
        path: &mut Path,
        policies: &mut BurstPolicies<'a>,
        (packet, packet_context): (&mut Packet, &PacketContext),
        now: Tick,
    ) -> Option<Verdict> {
        let service = Service::new(packet_context.entry.protocol, packet_context.entry.ports()[1]);
        let [outgoing, incoming] = match path.cached_decisions(service) {
            Some(decisions) => decisions,
            None => policies.decide(sender, path, service, &packet_context.entry.tuple())?,
        };
        let (timeouts, receiver) = (path.timeouts?, path.receiver.0 as usize);
        // The slow path decides who gives way; nothing has been changed yet, so it can start over.
        if !self.has_room(sender) || self.counters[receiver].sessions >= path.receiver_sessions_max {
            return None;
        }
        let wire = packet.wire();
        if !outgoing.accepts() {
            packet.decision = Some(outgoing);
            let refusal = outgoing.refusal();
            self.counters[sender.counters_index()].egress.count(refusal, wire);
            return Some(refusal);
        }
        let record = new_connection(packet.buffer.frame(), packet_context, wire).record(timeouts, now);
        let (live, swapped) = (path.live, packet_context.entry.swapped);
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
            sessions_max: path.receiver_sessions_max,
        };
        // A receiver that refuses still leaves the sender its session, as on the slow path.
        let sessions = [Some(of_sender), if incoming.accepts() { Some(of_receiver) } else { None }];
        self.open_record(&packet_context.entry, record, sessions, (sender.snapshot.settings(), now)).ok()?;
        packet.decision = Some(incoming);
        if incoming.accepts() {
            return Some(Verdict::Deliver);
        }
        let refusal = incoming.refusal();
        self.counters[sender.counters_index()].egress.count(Verdict::Forward(path.receiver), wire);
        self.counters[receiver].ingress.count(refusal, wire);
        Some(refusal)
    }

    /// Adds what was delivered along the paths of a burst to the counters at both ends.
    #[inline]
    pub(crate) fn count_deliveries(&mut self, sender: &EniContext<'_>, burst_paths: &BurstPaths<'_>) {
        for BurstDelivery { receiver, passed, .. } in burst_paths.deliveries() {
            self.counters[sender.counters_index()].egress.count(Verdict::Deliver, *passed);
            self.counters[receiver.0 as usize].ingress.count(Verdict::Deliver, *passed);
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
    wire: Wire,
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
    if connection.count(packet_context.segment, wire, way, now) {
        table.origin_mut(slot).bytes_high[way].carry();
    }
    Continuation::Yes
}

/// The properties of a plain packet that a new connection takes from it.
#[inline(always)]
fn new_connection(frame: &[u8], packet_context: &PacketContext, wire: Wire) -> NewConnection {
    let (protocol, segment) = (packet_context.entry.protocol, packet_context.segment);
    let (state, scale) = match protocol {
        protocol::TCP => (tcp::open(segment.flags), fast_parse::transport_of(frame).and_then(window_scale)),
        _ => (ConnectionState::Udp, None),
    };
    NewConnection { protocol, from_opener: true, state, segment, scale, wire }
}
