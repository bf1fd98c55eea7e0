//! The fast path across the uplink: plain packets of established connections, out of the VPC and into it. Everything else,
//! also the first packet of a connection, takes the slow path.
//!
//! Nothing is changed before it is certain that a packet passes: the slow path starts over with it.

use crate::config::desired::{Direction, Policy};
use crate::config::ids::{EniEpoch, EniIndex, MacAddress};
use crate::config::limits::{BURST_PACKETS, ETHERNET_HEADER_BYTES};
use crate::conntrack::Session;
use crate::conntrack::key::{ConnectionKey, Key};
use crate::conntrack::slot::Slot;
use crate::conntrack::table::Table;
use crate::conntrack::tables::LookupKey;
use crate::datapath::eligibility;
use crate::datapath::fast_path::verify_claim;
use crate::datapath::packet_context::PacketContext;
use crate::datapath::path_cache::Ethernet;
use crate::datapath::shard::Shard;
use crate::datapath::uplink::receivers::Receiver;
use crate::hw::time::{TICKS_PER_SECOND, Tick};
use crate::nat::mappings::PrivatePort;
use crate::nat::rewrite::{TranslatedEnd, has_hops_left, rewrite_plain};
use crate::nat::table::{NatEnd, SourceTranslation};
use crate::packet::headers::Addresses;
use crate::packet::headers::fast_parse::{self, Family, Plain};
use crate::packet::offload::Wire;
use crate::packet::verdict::{Decision, Stage, Verdict};
use crate::packet::{Marker, Packet};
use crate::policy::eni_context::{EniContext, UplinkContext};
use crate::router::next_hop::UplinkNextHops;
use crate::tables::route::AddressRoute;

/// The way out of an ENI's VPC, for a burst.
#[derive(Clone, Copy, Debug)]
pub(in crate::datapath) struct Exit {
    uplink: EniIndex,
    /// Whether the uplink is in this shard. If not, its own sends what leaves.
    is_here: bool,
    /// The longest frame that may take it.
    frame_bytes_max: usize,
    /// The value that live sessions are compared with.
    live: u64,
    translation: Option<SourceTranslation>,
    mac: MacAddress,
    /// The next hop for IPv4, and for IPv6.
    next_hops: [Option<MacAddress>; 2],
    /// What took it and is not in the counters yet.
    passed: Wire,
}

/// Where a packet from outside goes.
#[derive(Clone, Copy, Debug)]
struct Entrance {
    eni: EniIndex,
    /// What its destination becomes; none if it stays.
    private: Option<NatEnd>,
    /// Whether only the mapping of a connection that was opened inside leads there. It is looked up once it has arrived from
    /// memory.
    is_mapped: bool,
}

impl Entrance {
    /// The destination and the ports that the guest sees.
    #[inline(always)]
    fn inside(&self, destination: u32, ports: u32) -> (u32, u32) {
        match self.private {
            Some(NatEnd { address, port: Some(port) }) => (address, ports & 0xffff_0000 | u32::from(port)),
            Some(NatEnd { address, port: None }) => (address, ports),
            None => (destination, ports),
        }
    }
}

/// What was found in the record of a packet's connection: its idle timeout, if its mapping has to be told, seconds.
type MappingTimeout = Option<u32>;

impl Shard {
    /// The way out of an ENI's VPC. None if all its packets take the slow path.
    #[inline(never)]
    pub(in crate::datapath) fn exit_of(
        &mut self,
        sender: &EniContext<'_>,
        now: Tick,
        is_here: &impl Fn(EniIndex) -> bool,
    ) -> Option<Exit> {
        let uplink = sender.network.uplink.as_deref()?;
        let context = EniContext::new(sender.snapshot, uplink.index, Direction::Ingress)?;
        if !eligibility::crosses(sender) {
            return None;
        }
        let is_here = is_here(uplink.index);
        if is_here {
            self.hold_place(uplink.index, context.eni.epoch);
        }
        let its = |it: &&UplinkNextHops| (it.index, it.epoch) == (uplink.index, context.eni.epoch);
        let learnt = self.next_hops.iter().find(its);
        let next_hop = |addresses| uplink.next_hop_mac.or_else(|| learnt?.mac(addresses, now));
        let v4 = Addresses::V4 { source: 0, destination: 0 };
        let v6 = Addresses::V6 { source: 0, destination: 0 };
        Some(Exit {
            uplink: uplink.index,
            is_here,
            frame_bytes_max: ETHERNET_HEADER_BYTES + usize::from(context.eni.mtu_bytes),
            live: sender.live_side(),
            translation: sender.eni.ipv4.and_then(|source| uplink.nat.translation_of_source(source)),
            mac: uplink.mac,
            next_hops: [v4, v6].map(next_hop),
            passed: Wire { packets: 0, bytes: 0 },
        })
    }

    /// Takes a plain packet of an established connection out of the VPC. False, having changed nothing, if it takes the slow
    /// path.
    #[inline(never)]
    pub(in crate::datapath) fn try_leave(
        &mut self,
        sender: &EniContext<'_>,
        exit: &mut Option<Exit>,
        packet: &mut Packet,
        packet_context: &PacketContext,
        now: Tick,
    ) -> bool {
        exit.as_mut().and_then(|exit| self.leave_plain(sender, exit, packet, packet_context, now)).is_some()
    }

    #[inline(always)]
    fn leave_plain(
        &mut self,
        sender: &EniContext<'_>,
        exit: &mut Exit,
        packet: &mut Packet,
        packet_context: &PacketContext,
        now: Tick,
    ) -> Option<()> {
        let entry = &packet_context.entry;
        let family = family_of(entry);
        let (wire, longest_frame_bytes) = (packet.wire(), packet.longest_frame_bytes());
        let next_hop = exit.next_hops[family as usize];
        if exit.is_here && next_hop.is_none() {
            return None;
        }
        if longest_frame_bytes > exit.frame_bytes_max || !has_hops_left(packet.buffer.frame(), family) {
            return None;
        }
        let owner = SessionOwner { epoch: sender.eni.epoch, live: exit.live };
        let session = self.live_session(sender, owner, packet_context, now)?;
        let (external, is_mapped) = match family {
            Family::V4 => self.external_of(sender, exit.translation?, entry, session.port)?,
            Family::V6 => (None, false),
        };
        let port = external.filter(|_| is_mapped).and_then(|end| end.port).unwrap_or(session.port);
        let timeout = self.count_packet(LiveSession { port, ..session }, sender, packet_context, wire, now);
        if let (true, Some(timeout_s), Some(uplink)) = (is_mapped, timeout, &sender.network.uplink) {
            self.keep_mapping_of(sender.index, sender.eni.epoch, &uplink.nat, &entry.tuple(), timeout_s, now);
        }
        rewrite_plain(packet, family, TranslatedEnd::Source, external);
        if let (Some(next_hop), Some(header)) = (next_hop, packet.buffer.frame_mut().first_chunk_mut::<12>()) {
            header[..6].copy_from_slice(&next_hop.0);
            header[6..].copy_from_slice(&exit.mac.0);
        }
        packet.decision = Some(Decision::by(Policy::Accept, Stage::Session));
        packet.receiver = exit.uplink;
        packet.verdict = if exit.is_here {
            Verdict::Deliver
        } else {
            // The uplink's shard asks for the family.
            packet.headers.tuple = entry.tuple();
            Verdict::Forward(exit.uplink)
        };
        exit.passed.packets += wire.packets;
        exit.passed.bytes += wire.bytes;
        Some(())
    }

    /// What the source of a packet becomes, and whether by a mapping. None if that is not known yet.
    #[inline(always)]
    fn external_of(
        &self,
        sender: &EniContext<'_>,
        translation: SourceTranslation,
        entry: &LookupKey,
        port_hint: u16,
    ) -> Option<(Option<NatEnd>, bool)> {
        match translation {
            SourceTranslation::None => Some((None, false)),
            SourceTranslation::Address(address) => Some((Some(NatEnd { address, port: None }), false)),
            SourceTranslation::ByPort => {
                let table = &sender.network.uplink.as_deref()?.nat;
                let (address, [port, _], protocol) = (sender.eni.ipv4?, entry.ports(), entry.protocol);
                if let Some(external) = table.forwarded_source(protocol, NatEnd { address, port: Some(port) }) {
                    return Some((Some(external), false));
                }
                let nat = self.nat.checked(sender.index, sender.eni.epoch, table)?;
                let inside = PrivatePort { address, port, protocol };
                Some((Some(nat.find_at(inside, port_hint).or_else(|| nat.find(inside))?), true))
            }
        }
    }

    /// Adds what left by an exit to the counters at both ends.
    pub(in crate::datapath) fn count_exit(&mut self, sender: &EniContext<'_>, exit: &Exit) {
        self.counters[sender.counters_index()].egress.count(Verdict::Forward(exit.uplink), exit.passed);
        if exit.is_here {
            self.counters[exit.uplink.0 as usize].ingress.count(Verdict::Deliver, exit.passed);
        }
    }

    /// Takes a burst that came from outside to the ENIs that it is for: through their ingress, if they are in this shard.
    #[inline(never)]
    pub(in crate::datapath) fn enter(
        &mut self,
        uplink: &UplinkContext<'_>,
        burst: &mut [Packet],
        now: Tick,
        is_here: impl Fn(EniIndex) -> bool,
    ) {
        // Taken out of the shard as in `Shard::forward`; put back below.
        let mut packet_contexts = core::mem::take(&mut self.packet_contexts);
        self.receivers.invalidate_if_stale(uplink.context.snapshot);
        for burst in burst.chunks_mut(BURST_PACKETS) {
            let mut entrances = [None; BURST_PACKETS];
            for ((packet, packet_context), entrance) in burst.iter_mut().zip(&mut packet_contexts).zip(&mut entrances) {
                *entrance = self.find_entrance(uplink, packet, packet_context).filter(|to| is_here(to.eni));
            }
            for ((packet, packet_context), entrance) in burst.iter().zip(&mut packet_contexts).zip(&mut entrances) {
                if let Some(Entrance { eni, private, is_mapped: true }) = entrance {
                    *private = self.find_mapped(uplink, *eni, packet.buffer.frame(), packet_context);
                    if private.is_none() {
                        *entrance = None;
                    }
                }
            }
            for (packet_context, entrance) in packet_contexts.iter_mut().zip(&entrances) {
                if entrance.is_some() {
                    (packet_context.guess, _) = self.sessions.guess_on(&packet_context.entry, packet_context.guess);
                }
            }
            // What takes the slow path is evaluated before what came after it.
            let mut slow = 0;
            for number in 0..burst.len() {
                let Some(entrance) = entrances[number] else { continue };
                if slow < number {
                    self.enter_slowly(uplink, &mut burst[slow..number], now, &is_here);
                    slow = number;
                }
                let (packet, packet_context) = (&mut burst[number], &packet_contexts[number]);
                if self.enter_plain(uplink, entrance, packet, packet_context, now).is_some() {
                    slow = number + 1;
                }
            }
            if slow < burst.len() {
                self.enter_slowly(uplink, &mut burst[slow..], now, &is_here);
            }
        }
        self.packet_contexts = packet_contexts;
    }

    /// The first phase for a packet from outside: parse, check its addresses, find its ENI, and prefetch the mapping or the
    /// session. None if it takes the slow path.
    #[inline(always)]
    fn find_entrance(
        &mut self,
        uplink: &UplinkContext<'_>,
        packet: &mut Packet,
        packet_context: &mut PacketContext,
    ) -> Option<Entrance> {
        if !eligibility::packet(packet) {
            return None;
        }
        let (frame, offload) = (packet.buffer.frame(), &mut packet.offload);
        let salt = uplink.context.network.salt;
        let macs = Ethernet::of(frame)?.addresses();
        match fast_parse::family(frame)? {
            Family::V4 => {
                let plain = fast_parse::read_v4(frame, frame.len())?;
                verify_claim(offload, &plain, Family::V4, frame, frame.len())?;
                let [source, destination] = plain.addresses;
                if !eligibility::plain(&plain)
                    || !eligibility::enters(uplink, macs, Addresses::V4 { source, destination })
                {
                    return None;
                }
                packet_context.segment = plain.segment;
                let entrance = self.entrance_v4(uplink, &plain)?;
                if !entrance.is_mapped {
                    let (destination, ports) = entrance.inside(destination, plain.ports);
                    (packet_context.entry, packet_context.guess) = self.sessions.reach_between(
                        &self.sessions.v4,
                        [source, destination],
                        ports,
                        plain.protocol,
                        salt,
                    );
                }
                Some(entrance)
            }
            Family::V6 => {
                let plain = fast_parse::read_v6(frame, frame.len())?;
                verify_claim(offload, &plain, Family::V6, frame, frame.len())?;
                let [source, destination] = plain.addresses;
                let addresses = Addresses::V6 { source, destination };
                if !eligibility::plain(&plain) || !eligibility::enters(uplink, macs, addresses) {
                    return None;
                }
                packet_context.segment = plain.segment;
                let entrance = self.entrance_of_owner(uplink, addresses)?;
                (packet_context.entry, packet_context.guess) =
                    self.sessions.reach_between(&self.sessions.v6, plain.addresses, plain.ports, plain.protocol, salt);
                Some(entrance)
            }
        }
    }

    /// The second phase: looks up the mapping that the first one prefetched, and prefetches the session. None if the packet
    /// takes the slow path.
    #[inline(always)]
    fn find_mapped(
        &self,
        UplinkContext { context, entry }: &UplinkContext<'_>,
        eni: EniIndex,
        frame: &[u8],
        packet_context: &mut PacketContext,
    ) -> Option<NatEnd> {
        let plain = fast_parse::read_v4(frame, frame.len())?;
        let [source, external] = plain.addresses;
        let Receiver { epoch, ipv4, .. } = *self.receivers.known(eni)?;
        let nat = self.nat.checked(eni, epoch, &entry.nat)?;
        let private = nat.private(plain.protocol, NatEnd { address: external, port: Some(plain.ports as u16) })?;
        // A further address of the ENI, and those behind it, take the slow path, which knows whose they are.
        if ipv4 != Some(private.address) {
            return None;
        }
        let entrance = Entrance { eni, private: Some(private), is_mapped: true };
        let (destination, ports) = entrance.inside(external, plain.ports);
        (packet_context.entry, packet_context.guess) = self.sessions.reach_between(
            &self.sessions.v4,
            [source, destination],
            ports,
            plain.protocol,
            context.network.salt,
        );
        Some(private)
    }

    /// Where a packet of IPv4 goes that comes from outside.
    #[inline(always)]
    fn entrance_v4(&mut self, uplink: &UplinkContext<'_>, plain: &Plain<u32>) -> Option<Entrance> {
        let UplinkContext { context, entry } = uplink;
        let ([source, destination], nat) = (plain.addresses, &entry.nat);
        let Some(external) = nat.external(destination) else {
            let addresses = Addresses::V4 { source, destination };
            return if nat.routes_private { self.entrance_of_owner(uplink, addresses) } else { None };
        };
        let port = plain.ports as u16;
        let end = NatEnd { address: destination, port: Some(port) };
        if let Some((eni, private)) = nat.configured_at(external, plain.protocol, end) {
            let is_first = self.receivers.of(context.snapshot, eni)?.ipv4 == Some(private.address);
            return is_first.then_some(Entrance { eni, private: Some(private), is_mapped: false });
        }
        let eni = external.owner(port)?;
        let epoch = self.receivers.of(context.snapshot, eni)?.epoch;
        self.nat.checked(eni, epoch, nat)?.prefetch(end);
        Some(Entrance { eni, private: None, is_mapped: true })
    }

    /// Where a packet goes whose destination is not translated.
    #[inline(always)]
    fn entrance_of_owner(&mut self, uplink: &UplinkContext<'_>, addresses: Addresses) -> Option<Entrance> {
        let AddressRoute::Owner(eni) = uplink.context.network.route(addresses) else { return None };
        self.receivers.of(uplink.context.snapshot, eni)?;
        Some(Entrance { eni, private: None, is_mapped: false })
    }

    /// Takes a plain packet of an established connection from outside to its ENI. None, having changed nothing, if it takes
    /// the slow path.
    #[inline(always)]
    fn enter_plain(
        &mut self,
        uplink: &UplinkContext<'_>,
        entrance: Entrance,
        packet: &mut Packet,
        packet_context: &PacketContext,
        now: Tick,
    ) -> Option<()> {
        let (entry, eni) = (&packet_context.entry, entrance.eni);
        let Receiver { epoch, live, frame_bytes_max, ethernet_then, .. } = *self.receivers.known(eni)?;
        let family = family_of(entry);
        let (wire, longest_frame_bytes) = (packet.wire(), packet.longest_frame_bytes());
        if longest_frame_bytes > frame_bytes_max || !has_hops_left(packet.buffer.frame(), family) {
            return None;
        }
        self.hold_place(eni, epoch);
        let session = self.live_session(&uplink.context, SessionOwner { epoch, live }, packet_context, now)?;
        let timeout = self.count_packet(session, &uplink.context, packet_context, wire, now);
        if let (true, Some(timeout_s)) = (entrance.is_mapped, timeout) {
            let sent = entry.tuple().reverse();
            self.keep_mapping_of(eni, epoch, &uplink.entry.nat, &sent, timeout_s, now);
        }
        rewrite_plain(packet, family, TranslatedEnd::Destination, entrance.private);
        if let Some(header) = packet.buffer.frame_mut().first_chunk_mut() {
            *header = ethernet_then;
        }
        packet.decision = Some(Decision::by(Policy::Accept, Stage::Session));
        packet.marker = Marker::Uplink;
        (packet.verdict, packet.receiver) = (Verdict::Deliver, eni);
        self.counters[uplink.context.counters_index()].egress.count(Verdict::Forward(eni), wire);
        self.counters[eni.0 as usize].ingress.count(Verdict::Deliver, wire);
        Some(())
    }

    /// The record of a packet's connection, if its owner's session in it is live and there is no other.
    #[inline(always)]
    fn live_session(
        &self,
        context: &EniContext<'_>,
        owner: SessionOwner,
        packet_context: &PacketContext,
        now: Tick,
    ) -> Option<LiveSession> {
        match &packet_context.entry.key {
            Key::V4(key) => live_in(&self.sessions.v4, key, context, owner, packet_context, now),
            Key::V6(key) => live_in(&self.sessions.v6, key, context, owner, packet_context, now),
        }
    }

    /// Counts a packet in the record of its connection.
    #[inline(always)]
    fn count_packet(
        &mut self,
        session: LiveSession,
        context: &EniContext<'_>,
        packet_context: &PacketContext,
        wire: Wire,
        now: Tick,
    ) -> MappingTimeout {
        match &packet_context.entry.key {
            Key::V4(_) => count_in(&mut self.sessions.v4, session, context, packet_context, wire, now),
            Key::V6(_) => count_in(&mut self.sessions.v6, session, context, packet_context, wire, now),
        }
    }
}

/// The ENI whose session is looked for.
#[derive(Clone, Copy, Debug)]
struct SessionOwner {
    epoch: EniEpoch,
    /// The value that its live sessions are compared with.
    live: u64,
}

/// A record in which one ENI has the only session, and a live one.
#[derive(Clone, Copy, Debug)]
struct LiveSession {
    slot: Slot,
    /// Where its session is not.
    vacant: usize,
    /// The external port that is remembered of its packets, zero if there is none.
    port: u16,
}

#[inline(always)]
fn live_in<K: ConnectionKey>(
    table: &Table<K>,
    key: &K,
    context: &EniContext<'_>,
    owner: SessionOwner,
    packet_context: &PacketContext,
    now: Tick,
) -> Option<LiveSession> {
    let LookupKey { protocol, hash, .. } = packet_context.entry;
    let slot = table.find_guessed(key, protocol, owner.epoch, hash, packet_context.guess)?;
    let connection = table.connection(slot);
    let vacant = 1 - connection.place_of(owner.epoch)? % 2;
    // The other session of a shared record does not see this packet.
    let is_live = connection.sessions[1 - vacant].is(owner.live) && !connection.is_shared();
    let passes = is_live && context.continues(connection, packet_context.segment.flags, now);
    passes.then(|| LiveSession { slot, vacant, port: connection.sessions[vacant].port_hint() })
}

#[inline(always)]
fn count_in<K: ConnectionKey>(
    table: &mut Table<K>,
    session: LiveSession,
    context: &EniContext<'_>,
    packet_context: &PacketContext,
    wire: Wire,
    now: Tick,
) -> MappingTimeout {
    let connection = table.connection_mut(session.slot);
    connection.sessions[session.vacant] = Session::none_with_hint(session.port);
    let way = usize::from(packet_context.entry.swapped != connection.is_swapped());
    let before = (connection.state, connection.last_seen);
    let carries = connection.count(packet_context.segment, wire, way, now);
    // Mappings are kept for a second more than sessions, so that they need to be told of packets once a second.
    let is_due = before.0 != connection.state || second_of(before.1) != second_of(now);
    let (state, timeouts) = (connection.state, connection.timeouts);
    if carries {
        table.origin_mut(session.slot).bytes_high[way].carry();
    }
    is_due.then(|| state.timeout_s(timeouts, context.snapshot.settings()))
}

const fn second_of(tick: Tick) -> u32 {
    tick.0 / TICKS_PER_SECOND as u32
}

#[inline(always)]
const fn family_of(entry: &LookupKey) -> Family {
    match entry.key {
        Key::V4(_) => Family::V4,
        Key::V6(_) => Family::V6,
    }
}
