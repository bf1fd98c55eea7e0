//! The way of nearly all packets: one of a session that goes on at both its ends, which share a record.
//!
//! Nothing is decided here that [`Seat::may_continue`](crate::judge::Seat::may_continue) and
//! [`Seat::continues`](crate::judge::Seat::continues) do not say for the long way too; whatever they do not say, the long
//! way does. What is the same for all packets from one ENI to another is found out once.

use crate::answer;
use crate::apply::{connection, side};
use crate::desired::{Direction, Policy};
use crate::eni::{Desk, Shard, Step};
use crate::flow::key::{FlowKey, KeyV4, KeyV6};
use crate::flow::table::Table;
use crate::headers::{Addresses, Headers, plain, protocol, tcp_flags};
use crate::ids::EniIndex;
use crate::judge::Seat;
use crate::offload::Wire;
use crate::packet::Packet;
use crate::route::Route;
use crate::snapshot::Place;
use crate::time::Tick;
use crate::verdict::{Judgement, Stage, Verdict};

/// From one ENI to another, for some packets of a burst.
pub(crate) struct Passage<'a> {
    pub(crate) receiver: Desk<'a>,
    pub(crate) is_here: bool,
    /// Whether it is here, and nothing but the Ethernet header of a packet changes.
    is_within_subnet: bool,
    /// The addresses of the Ethernet header of the last hop.
    addresses: [u8; 12],
    /// What the network knows of the sender's first addresses, of IPv4 and IPv6, once it was asked.
    sources: [Option<Place>; 2],
    /// What went this way and is not in the counters yet.
    passed: Wire,
}

impl<'a> Passage<'a> {
    pub(crate) fn new(sender: &Desk<'_>, receiver: Desk<'a>, is_here: bool) -> Self {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&receiver.seat.eni.mac.0);
        addresses[6..].copy_from_slice(&receiver.seat.network.gateway_mac.0);
        let is_within_subnet = is_here && receiver.seat.eni.vswitch == sender.seat.eni.vswitch;
        Self {
            receiver,
            is_here,
            is_within_subnet,
            addresses,
            passed: Wire { packets: 0, bytes: 0 },
            sources: [None; 2],
        }
    }

    pub(crate) const fn leads_to(&self, eni: EniIndex) -> bool {
        self.receiver.seat.index.0 == eni.0
    }
}

/// The first phase of a plain packet: what its frame says, whose it is, and where it goes. None where it has to go the
/// long way; then nothing is said of it.
#[inline(always)]
pub(crate) fn admit(seat: &Seat<'_>, packet: &mut Packet) -> Option<(EniIndex, Place)> {
    let frame = packet.buffer.frame();
    let headers = &mut packet.headers;
    if !packet.offload.is_none() {
        return None;
    }
    plain::read(frame, headers)?;
    let addresses: &[u8; 12] = frame.first_chunk()?;
    let is_to_group = addresses[0] & 1 == 1;
    let is_own = addresses[6..] == seat.eni.mac.0 && seat.eni.is_first_address(headers.tuple.addresses);
    if is_to_group || !is_own {
        return None;
    }
    let place = seat.network.destination(headers.tuple.addresses);
    match place.route {
        Route::Owner(next) if next != seat.index => Some((next, place)),
        _ => None,
    }
}

impl Shard {
    /// Both judgements of a packet, and all that follows from them. False, and nothing is done, where it has to go the
    /// long way.
    #[inline(always)]
    pub(crate) fn pass_along(
        &mut self,
        sender: &Desk<'_>,
        passage: &mut Passage<'_>,
        (packet, step): (&mut Packet, &Step),
        now: Tick,
    ) -> bool {
        let (headers, receiver) = (&packet.headers, &passage.receiver.seat);
        let is_usual = step.is_plain
            && passage.is_within_subnet
            && sender.seat.may_continue(headers, packet.marker)
            && !receiver.eni.tcp_window_check
            && !answer::is_too_big(packet, receiver.eni.mtu_bytes);
        if !is_usual {
            return false;
        }
        let ports = [headers.tuple.source_port, headers.tuple.destination_port];
        let wire = Wire { packets: 1, bytes: packet.buffer.length() as u64 };
        let went_on = match headers.tuple.addresses {
            Addresses::V4 { source, destination } => {
                let key = KeyV4::ordered([source, destination], ports, step.swapped);
                go_on(&mut self.sessions.v4, (&key, step), (&sender.seat, receiver), (headers, wire), now)
            }
            Addresses::V6 { source, destination } => {
                let key = KeyV6::ordered([source, destination], ports, step.swapped);
                go_on(&mut self.sessions.v6, (&key, step), (&sender.seat, receiver), (headers, wire), now)
            }
        };
        match went_on {
            WentOn::Yes => packet.judgement = Some(Judgement::by(Policy::Accept, Stage::Session)),
            WentOn::IsNew if self.open_both(sender, passage, (packet, step), now) => {}
            WentOn::IsNew | WentOn::No => return false,
        }
        passage.passed.packets += 1;
        passage.passed.bytes += wire.bytes;
        packet.receiver = passage.receiver.seat.index;
        packet.verdict = Verdict::Deliver;
        if let Some(header) = packet.buffer.frame_mut().first_chunk_mut::<12>() {
            *header = passage.addresses;
        }
        true
    }

    /// Opens both sessions of a new connection in one record, if both ENIs admit it and have room. False, and nothing is
    /// done, otherwise.
    #[inline(never)]
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
        flow.sides = [side(sender, outgoing, step.swapped), side(receiver, incoming, step.swapped)];
        origin.grounds = [outgoing.ground, incoming.ground];
        if self.sessions.insert(&self.sessions.entry_with(tuple, step.hash), flow, origin).is_err() {
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

/// What became of a packet among the records.
enum WentOn {
    /// Both its sessions go on.
    Yes,
    /// Nobody has a session of its connection.
    IsNew,
    /// Anything else.
    No,
}

/// Counts a packet in the record that both seats have their sessions in, if it goes on at both.
#[inline(always)]
fn go_on<K: FlowKey>(
    table: &mut Table<K>,
    (key, step): (&K, &Step),
    (sender, receiver): (&Seat<'_>, &Seat<'_>),
    (headers, wire): (&Headers, Wire),
    now: Tick,
) -> WentOn {
    let Some(slot) = table.find(key, headers.tuple.protocol, sender.eni.scope, step.hash) else {
        let is_new = opens(headers) && table.is_free_of(key, headers.tuple.protocol, step.hash);
        return if is_new { WentOn::IsNew } else { WentOn::No };
    };
    let flow = table.flow_mut(slot);
    let [one, other] = flow.sides;
    let admits_both = sender.admits(one) && receiver.admits(other) || sender.admits(other) && receiver.admits(one);
    if !admits_both || !sender.continues(flow, headers, now) {
        return WentOn::No;
    }
    if let Some(way) = flow.count(headers, wire, step.swapped, now) {
        table.origin_mut(slot).bytes_high[way] += 1;
    }
    WentOn::Yes
}

/// Whether a plain packet is of those that open connections: UDP, and a SYN alone.
#[inline]
const fn opens(headers: &Headers) -> bool {
    const OTHERS: u8 = tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN;
    headers.tuple.protocol == protocol::UDP || headers.tcp_flags & (tcp_flags::SYN | OTHERS) == tcp_flags::SYN
}
