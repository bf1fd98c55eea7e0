//! The way of nearly all packets: one of a session that goes on at both its ends, which share a record.
//!
//! Nothing is decided here that [`Seat::may_continue`](crate::judge::Seat::may_continue) and
//! [`Seat::continues`](crate::judge::Seat::continues) do not say for the long way too; whatever they do not say, the long
//! way does. What is the same for all packets from one ENI to another is found out once, and so is what is the same for
//! packets that follow each other between the same addresses.

use crate::apply::{connection, side};
use crate::desired::{Direction, Policy};
use crate::eni::{Desk, Shard, Step};
use crate::flow::key::{FlowKey, Key};
use crate::flow::sessions::{Entry, Sessions};
use crate::flow::table::Table;
use crate::headers::plain::{self, Family, Plain};
use crate::headers::{Addresses, Segment, protocol, tcp_flags};
use crate::ids::EniIndex;
use crate::judge::{SMTP, Seat};
use crate::limits::ETHERNET_HEADER_BYTES;
use crate::offload::Wire;
use crate::packet::{Marker, Packet};
use crate::route::Route;
use crate::snapshot::Place;
use crate::time::Tick;
use crate::verdict::{Judgement, Stage, Verdict};

/// From one ENI to another, for some packets of a burst.
pub(crate) struct Passage<'a> {
    pub(crate) receiver: Desk<'a>,
    pub(crate) is_here: bool,
    /// The longest frame that may go along; none where the receiver is not here, or more than the Ethernet header of a
    /// packet changes.
    frame_bytes_max: usize,
    /// What their sessions look like, the sender's first.
    live: [u64; 2],
    /// The addresses of the Ethernet header of the last hop.
    addresses: [u8; 12],
    /// What the network knows of the sender's first addresses, of IPv4 and IPv6, once it was asked.
    sources: [Option<Place>; 2],
    /// What went this way and is not in the counters yet.
    passed: Wire,
}

impl<'a> Passage<'a> {
    #[inline(never)]
    pub(crate) fn new(sender: &Desk<'_>, receiver: Desk<'a>, is_here: bool) -> Self {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&receiver.seat.eni.mac.0);
        addresses[6..].copy_from_slice(&receiver.seat.network.gateway_mac.0);
        let enis = [sender.seat.eni, receiver.seat.eni];
        let is_within_subnet = is_here && enis[0].vswitch == enis[1].vswitch;
        let is_short = is_within_subnet && !enis[0].tcp_window_check && !enis[1].tcp_window_check;
        Self {
            is_here,
            frame_bytes_max: if is_short { ETHERNET_HEADER_BYTES + usize::from(enis[1].mtu_bytes) } else { 0 },
            live: [sender.seat.live_side(), receiver.seat.live_side()],
            addresses,
            passed: Wire { packets: 0, bytes: 0 },
            sources: [None; 2],
            receiver,
        }
    }

    #[inline(always)]
    pub(crate) const fn leads_to(&self, eni: EniIndex) -> bool {
        self.receiver.seat.index.0 == eni.0
    }
}

/// Between which addresses the last packet went, and where that leads: what follows it is neither guarded nor routed
/// anew.
pub(crate) struct Track {
    ethernet: [u8; 12],
    addresses: Addresses,
    next: EniIndex,
    place: Place,
}

impl Track {
    /// That of no packet: nobody sends to a group's hardware address on the short way.
    pub(crate) const NONE: Self = Self {
        ethernet: [0xff; 12],
        addresses: Addresses::V4 { source: 0, destination: 0 },
        next: EniIndex(u32::MAX),
        place: Place::NOWHERE,
    };

    /// None where a packet with these addresses has to go the long way.
    #[inline(never)]
    fn survey(seat: &Seat<'_>, ethernet: [u8; 12], addresses: Addresses) -> Option<Self> {
        let is_to_group = ethernet[0] & 1 == 1;
        if is_to_group || ethernet[6..] != seat.eni.mac.0 || !seat.eni.is_first_address(addresses) {
            return None;
        }
        let place = seat.network.destination(addresses);
        match place.route {
            Route::Owner(next) if next != seat.index => Some(Self { ethernet, addresses, next, place }),
            _ => None,
        }
    }
}

/// The first phase of a plain packet: what its frame says, whose it is, and where it goes. None, and nothing is done,
/// where it has to go the long way.
#[inline(always)]
pub(crate) fn admit(
    seat: &Seat<'_>,
    track: &mut Track,
    sessions: &Sessions,
    (packet, step): (&Packet, &mut Step),
) -> Option<()> {
    if !packet.offload.is_none() || packet.marker != Marker::None {
        return None;
    }
    let frame = packet.buffer.frame();
    match plain::family(frame)? {
        Family::V4 => admit_plain(seat, track, (sessions, &sessions.v4), (frame, plain::read_v4(frame)?), step),
        Family::V6 => admit_plain(seat, track, (sessions, &sessions.v6), (frame, plain::read_v6(frame)?), step),
    }
}

#[inline(always)]
fn admit_plain<K: FlowKey>(
    seat: &Seat<'_>,
    track: &mut Track,
    (sessions, table): (&Sessions, &Table<K>),
    (frame, plain): (&[u8], Plain<K::Address>),
    step: &mut Step,
) -> Option<()> {
    // Whether a reset counts is not said here, nor whether the platform lets mail pass.
    if plain.segment.flags & tcp_flags::RST != 0 || plain.ports[1] == SMTP {
        return None;
    }
    let ethernet: &[u8; 12] = frame.first_chunk()?;
    let addresses = K::addresses(plain.addresses);
    if *ethernet != track.ethernet || addresses != track.addresses {
        *track = Track::survey(seat, *ethernet, addresses)?;
    }
    step.entry = sessions.reach_for_plain(table, &plain, seat.network.salt);
    step.segment = plain.segment;
    step.plain_to = Some(track.next);
    step.place = track.place;
    Some(())
}

/// What became of a packet among the records.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum WentOn {
    /// Both its sessions go on.
    Yes,
    /// Nobody has a session of its connection.
    IsNew,
    /// Anything else.
    No,
}

impl Shard {
    /// Both judgements of a plain packet, and all that follows from them. False, and nothing is done but that its headers
    /// are read, where it has to go the long way.
    #[inline(always)]
    pub(crate) fn pass_along(
        &mut self,
        sender: &Desk<'_>,
        passage: &mut Passage<'_>,
        (packet, step): (&mut Packet, &Step),
        now: Tick,
    ) -> bool {
        let frame_bytes = packet.buffer.length();
        let went_on = if frame_bytes > passage.frame_bytes_max {
            WentOn::No
        } else {
            match &step.entry.key {
                Key::V4(key) => go_on(&mut self.sessions.v4, (key, step), &sender.seat, passage.live, frame_bytes, now),
                Key::V6(key) => go_on(&mut self.sessions.v6, (key, step), &sender.seat, passage.live, frame_bytes, now),
            }
        };
        if went_on == WentOn::Yes {
            packet.judgement = Some(Judgement::by(Policy::Accept, Stage::Session));
        } else if !self.start_along(sender, passage, (packet, step), went_on, now) {
            return false;
        }
        passage.passed.packets += 1;
        passage.passed.bytes += frame_bytes as u64;
        packet.receiver = passage.receiver.seat.index;
        packet.verdict = Verdict::Deliver;
        if let Some(header) = packet.buffer.frame_mut().first_chunk_mut::<12>() {
            *header = passage.addresses;
        }
        true
    }

    #[inline(never)]
    fn start_along(
        &mut self,
        sender: &Desk<'_>,
        passage: &mut Passage<'_>,
        (packet, step): (&mut Packet, &Step),
        went_on: WentOn,
        now: Tick,
    ) -> bool {
        packet.parse().is_ok() && went_on == WentOn::IsNew && self.open_both(sender, passage, (packet, step), now)
    }

    /// Opens both sessions of a new connection in one record, if both ENIs admit it and have room. False, and nothing is
    /// done, otherwise.
    fn open_both(
        &mut self,
        sender: &Desk<'_>,
        passage: &mut Passage<'_>,
        (packet, step): (&mut Packet, &Step),
        now: Tick,
    ) -> bool {
        let (tuple, receiver) = (&packet.headers.tuple, &passage.receiver);
        let has_room = self.has_room(sender) && self.has_room(receiver);
        if !has_room || sender.seat.eni.timeouts != receiver.seat.eni.timeouts {
            return false;
        }
        let outgoing = sender.seat.judge_by_place(Direction::Egress, tuple, step.place);
        if !outgoing.accepts() {
            return false;
        }
        // What is usual comes from the sender's first address.
        let source = &mut passage.sources[usize::from(matches!(tuple.addresses, Addresses::V6 { .. }))];
        let source = *source.get_or_insert_with(|| receiver.seat.network.source(tuple.addresses));
        let incoming = receiver.seat.judge_by_place(Direction::Ingress, tuple, source);
        if !incoming.accepts() {
            return false;
        }
        let (mut flow, mut origin) = connection(packet, sender, now);
        flow.sides = [side(sender, outgoing, step.entry.swapped), side(receiver, incoming, step.entry.swapped)];
        origin.grounds = [outgoing.ground, incoming.ground];
        if self.sessions.insert(&step.entry, flow, origin).is_err() {
            return false;
        }
        self.counters[sender.place].note_session();
        self.counters[receiver.place].note_session();
        packet.judgement = Some(incoming);
        true
    }

    /// Counts what went along at both its ends.
    #[inline]
    pub(crate) fn end_passage(&mut self, sender: &Desk<'_>, passage: &Passage<'_>) {
        self.counters[sender.place].egress.count(Verdict::Deliver, passage.passed);
        self.counters[passage.receiver.place].ingress.count(Verdict::Deliver, passage.passed);
    }
}

/// Counts a packet in the record that both ENIs have their sessions in, if it goes on at both.
#[inline(always)]
fn go_on<K: FlowKey>(
    table: &mut Table<K>,
    (key, step): (&K, &Step),
    sender: &Seat<'_>,
    live: [u64; 2],
    frame_bytes: usize,
    now: Tick,
) -> WentOn {
    let Entry { protocol, hash, swapped, .. } = step.entry;
    let Some(slot) = table.find_any(key, protocol, (hash, step.guess)) else {
        return if opens(protocol, step.segment) { WentOn::IsNew } else { WentOn::No };
    };
    let flow = table.flow_mut(slot);
    // The opener's session comes first.
    let way = usize::from(swapped != flow.is_swapped());
    let admits_both = flow.sides[way].is(live[0]) && flow.sides[1 - way].is(live[1]);
    if !admits_both || !sender.continues(flow, step.segment.flags, now) {
        return WentOn::No;
    }
    let wire = Wire { packets: 1, bytes: frame_bytes as u64 };
    if let Some(way) = flow.count(step.segment, wire, swapped, now) {
        table.origin_mut(slot).bytes_high[way].carry();
    }
    WentOn::Yes
}

/// Whether a plain packet is of those that open connections: UDP, and a SYN alone.
#[inline]
const fn opens(number: u8, segment: Segment) -> bool {
    const OTHERS: u8 = tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN;
    number == protocol::UDP || segment.flags & (tcp_flags::SYN | OTHERS) == tcp_flags::SYN
}
