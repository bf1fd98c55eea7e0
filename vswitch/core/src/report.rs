//! What a shard tells about itself: counters, sessions, and explanations. Reading only.

use crate::desired::Direction;
use crate::eni::{Shard, next_eni};
use crate::filter::Filter;
use crate::flow::{Flow, FlowState, Origin};
use crate::guard::owns_source;
use crate::headers::{Addresses, Headers, Network, Tuple, protocol, tcp_flags};
use crate::ids::{EniId, EniIndex, FlowScope, GroupId, RuleId};
use crate::judge::Seat;
use crate::packet::Marker;
use crate::protocol::{EniStats, FlowDescription, PacketDescription, Refusal};
use crate::route::{Route, is_group_destination};
use crate::snapshot::Snapshot;
use crate::time::{Tick, Time};
use crate::trace::JudgementReport;
use crate::verdict::{DropReason, Judgement, Stage, Verdict};
use alloc::vec::Vec;
use hashbrown::HashMap;

impl Shard {
    /// Live connections.
    pub fn flow_count(&self) -> usize {
        self.sessions.len()
    }

    /// Room for connections.
    pub fn flows_max(&self) -> usize {
        self.sessions.capacity()
    }

    /// Bytes of memory that the tables of connections take.
    pub fn memory_bytes(&self) -> usize {
        self.sessions.memory_bytes()
    }

    /// The counters of an ENI; none if the snapshot does not have it.
    pub fn stats(&self, snapshot: &Snapshot, eni: EniIndex) -> Option<EniStats> {
        let entry = snapshot.eni(eni)?;
        let empty = crate::counters::EniCounters::new(entry.scope);
        let counters = self.counters_of(eni.0 as usize, entry.scope).unwrap_or(&empty);
        Some(EniStats {
            eni: EniId::clone(&entry.id),
            flows: counters.sessions as u64,
            egress: counters.egress.report(),
            ingress: counters.ingress.report(),
        })
    }

    /// Sessions, at most `limit`; of one ENI if given.
    pub fn flows(&self, snapshot: &Snapshot, eni: Option<EniIndex>, limit: usize, now: Time) -> Vec<FlowDescription> {
        let tick = now.tick();
        let wanted = snapshot.enis().filter(|(index, _)| eni.is_none_or(|eni| eni == *index));
        let seats = wanted.filter_map(|(index, _)| Seat::new(snapshot, index, Direction::Egress));
        let by_scope: HashMap<FlowScope, Seat<'_>> = seats.map(|seat| (seat.eni.scope, seat)).collect();
        let described = self.sessions.iter().filter(|(_, flow, ..)| !flow.is_expired(snapshot.settings(), tick));
        let described = described.filter_map(|(tuple, flow, origin, place)| {
            let seat = by_scope.get(&flow.sides[place].scope())?;
            Some(describe(seat, &tuple, (flow, origin, place), tick))
        });
        described.take(limit).collect()
    }

    /// Judges a described packet at `eni` without changing anything; the verdict names the next ENI after egress.
    ///
    /// # Errors
    /// The field of the description at fault, and why.
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        (eni, direction): (EniIndex, Direction),
        packet: &PacketDescription,
        now: Time,
    ) -> Result<(Option<JudgementReport>, Verdict), Refusal> {
        let Some(seat) = Seat::new(snapshot, eni, direction) else {
            return Err(Refusal::new("unknown", "packet", "the ENI does not exist"));
        };
        let headers = headers_of(packet)?;
        let settled = match direction {
            Direction::Egress => settled_before_judgement(&seat, &headers),
            Direction::Ingress => {
                let owned = seat.network.route(headers.tuple.addresses) == Route::Owner(eni);
                (seat.eni.source_dest_check && !owned).then_some(Verdict::Drop(DropReason::DestinationNotOwned))
            }
        };
        if let Some(verdict) = settled {
            return Ok((None, verdict));
        }
        let lookup = seat.lookup(&self.sessions, &headers, &[]);
        let (judgement, _) = seat.judge(&self.sessions, &headers, (&lookup, Marker::None), now.tick());
        let verdict = match (judgement.accepts(), direction) {
            (false, _) => Verdict::Drop(judgement.drop_reason()),
            (true, Direction::Ingress) => Verdict::Deliver,
            (true, Direction::Egress) => next_eni(&seat, seat.network.route(headers.tuple.addresses))
                .map_or(Verdict::Drop(DropReason::NoRoute), Verdict::Forward),
        };
        Ok((Some(report(&seat, direction, judgement)), verdict))
    }
}

/// A judgement with names, as the snapshot has them that made it.
pub fn report_judgement(
    snapshot: &Snapshot,
    eni: EniIndex,
    direction: Direction,
    judgement: Judgement,
) -> Option<JudgementReport> {
    Some(report(&Seat::new(snapshot, eni, direction)?, direction, judgement))
}

fn report(seat: &Seat<'_>, direction: Direction, judgement: Judgement) -> JudgementReport {
    let (rule, group) = ground_of(seat.filter, direction, judgement.stage, judgement.ground);
    JudgementReport {
        eni: EniId::clone(&seat.eni.id),
        direction,
        policy: judgement.policy,
        stage: judgement.stage.name().into(),
        rule,
        group,
    }
}

fn ground_of(filter: &Filter, direction: Direction, stage: Stage, ground: u32) -> (Option<RuleId>, Option<GroupId>) {
    match stage {
        Stage::Rule => filter.rule(direction, ground).map(|(rule, group)| (rule.clone(), group.clone())).unzip(),
        Stage::IntraGroup => (None, filter.group(ground).cloned()),
        _ => (None, None),
    }
}

fn describe(
    seat: &Seat<'_>,
    tuple: &Tuple,
    (flow, origin, place): (&Flow, &Origin, usize),
    now: Tick,
) -> FlowDescription {
    let side = flow.sides[place];
    // A record of an older revision names its ground in the filter of that time; what admits it now is not known
    // before its next packet.
    let is_current = side.revision == seat.revision;
    let rule =
        is_current.then(|| ground_of(seat.filter, side.opened(), side.stage(), origin.grounds[place]).0).flatten();
    let is_icmp = flow.state == FlowState::Icmp;
    FlowDescription {
        eni: EniId::clone(&seat.eni.id),
        opened: side.opened(),
        protocol: tuple.protocol,
        source: tuple.addresses.source(),
        destination: tuple.addresses.destination(),
        source_port: tuple.source_port,
        destination_port: if is_icmp { 0 } else { tuple.destination_port },
        state: if side.is_revoked() { "revoked" } else { flow.state.name() }.into(),
        stage: side.stage().name().into(),
        rule,
        revision: side.revision,
        age_ms: origin.opened_at.age_ms(now),
        idle_ms: flow.last_seen.age_ms(now),
        timeout_s: flow.state.timeout_s(flow.timeouts, seat.snapshot.settings()),
        packets: flow.packets.map(u64::from),
        bytes: [0, 1].map(|way| u64::from(origin.bytes_high[way]) << 32 | u64::from(flow.bytes_low[way])),
    }
}

/// What egress does with a packet before any judgement, seen by its headers alone.
fn settled_before_judgement(seat: &Seat<'_>, headers: &Headers) -> Option<Verdict> {
    let addresses = headers.tuple.addresses;
    if seat.eni.source_dest_check && !owns_source(seat, addresses) {
        return Some(Verdict::Drop(DropReason::SourceAddressSpoofed));
    }
    if headers.is_udp(68, 67) || headers.is_udp(546, 547) {
        return Some(Verdict::Drop(DropReason::DhcpUnserved));
    }
    if is_group_destination(addresses) {
        return Some(Verdict::Drop(DropReason::Multicast));
    }
    let is_ping = matches!(headers.icmp_type, 8 | 128);
    let route = seat.network.route(addresses);
    match route {
        Route::Gateway if is_ping => Some(Verdict::Answer),
        Route::Gateway => Some(Verdict::Drop(DropReason::GatewayUnserved)),
        _ if next_eni(seat, route).is_none() => Some(Verdict::Drop(DropReason::NoRoute)),
        _ => None,
    }
}

/// Headers of the first packet of a connection as described: a SYN, or an echo request.
fn headers_of(packet: &PacketDescription) -> Result<Headers, Refusal> {
    let Some(addresses) = Addresses::new(packet.source, packet.destination) else {
        let message = "source and destination are of two address families";
        return Err(Refusal::new("invalid", "packet/destination", message));
    };
    let (icmp_type, destination_port) = match (addresses, packet.protocol) {
        (Addresses::V4 { .. }, protocol::ICMP) => (8, 8),
        (Addresses::V6 { .. }, protocol::ICMPV6) => (128, 128),
        _ => (0, packet.destination_port),
    };
    let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP);
    let (source_port, destination_port) =
        if has_ports || icmp_type != 0 { (packet.source_port, destination_port) } else { (0, 0) };
    let tuple = Tuple { addresses, protocol: packet.protocol, source_port, destination_port };
    let tcp_flags = if packet.protocol == protocol::TCP { tcp_flags::SYN } else { 0 };
    Ok(Headers { network: Network::Ip, icmp_type, tcp_flags, ..Headers::of(tuple) })
}
