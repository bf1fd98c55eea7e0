//! Evaluates a described packet and reports the result with names, without changing anything.

use crate::acl::Acl;
use crate::compile::snapshot::Snapshot;
use crate::config::desired::Direction;
use crate::config::explanation::DecisionReport;
use crate::config::ids::{EniId, EniIndex, GroupId, RuleId};
use crate::config::protocol::PacketDescription;
use crate::config::refusal::Refusal;
use crate::datapath::anti_spoof::{check_source, may_send_from};
use crate::datapath::fast_path;
use crate::datapath::shard::Shard;
use crate::datapath::slow_path::next_eni;
use crate::hw::time::Time;
use crate::nat::table::NatEnd;
use crate::packet::Marker;
use crate::packet::headers::{Addresses, Headers, Network, Tuple, protocol, tcp_flags};
use crate::packet::verdict::{Decision, DropReason, ServedBy, Stage, Verdict};
use crate::policy::eni_context::{EniContext, UplinkContext};
use crate::router::services;
use crate::tables::route::{AddressRoute, is_group_destination};

impl Shard {
    /// Evaluates a described packet at `eni` without changing anything. The verdict names the next ENI after egress.
    ///
    /// # Errors
    /// The field of the description that is wrong, and why.
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        (eni, direction): (EniIndex, Direction),
        packet: &PacketDescription,
        now: Time,
    ) -> Result<(Option<DecisionReport>, Verdict), Refusal> {
        let Some(context) = EniContext::new(snapshot, eni, direction) else {
            return Err(Refusal::new("unknown", "packet", "the ENI does not exist"));
        };
        let mut headers = headers_of(packet)?;
        if let Some(uplink) = context.as_uplink() {
            return Ok((None, explain_uplink(self, &uplink, direction, &headers, now)));
        }
        // What comes from outside is for an external address, and translated before it is evaluated.
        if direction == Direction::Ingress
            && let Err(reason) = translate(&context, &mut headers)
        {
            return Ok((None, Verdict::Drop(reason)));
        }
        let addresses = headers.tuple.addresses;
        let settled = match direction {
            Direction::Egress => settled_before_decision(&context, &headers),
            Direction::Ingress => {
                let owned = may_send_from(&context, headers.tuple.addresses.reverse());
                // As ingress does with packets: explain must not promise what the check would drop.
                (context.eni.source_dest_check && !owned).then_some(Verdict::Drop(DropReason::DestinationNotOwned))
            }
        };
        if let Some(verdict) = settled {
            return Ok((None, verdict));
        }
        if let Some((decision, verdict)) = served(&context, &headers) {
            return Ok((decision.map(|decision| report(&context, direction, decision)), verdict));
        }
        // A described packet has no frame, and as the first of a connection it quotes nothing.
        let lookup = context.lookup(&self.sessions, &headers, &[]);
        let (decision, _) = context.evaluate(&self.sessions, &headers, (&lookup, Marker::None), now.tick());
        let verdict = match (decision.accepts(), direction) {
            (false, _) => Verdict::Drop(decision.drop_reason()),
            (true, Direction::Ingress) => Verdict::Deliver,
            (true, Direction::Egress) if is_external(&context, addresses) => {
                explain_hairpin(self, &context, &headers, now)
            }
            (true, Direction::Egress) => next_eni(&context, context.network.route(addresses), addresses)
                .map_or(Verdict::Drop(DropReason::NoRoute), Verdict::Forward),
        };
        Ok((Some(report(&context, direction, decision)), verdict))
    }
}

impl Snapshot {
    /// The decisions of an ENI's rules about a packet that crosses it, without sessions: by the fast path, and by the
    /// slow path. `None` if there is no such ENI.
    pub fn decide_by_rules(&self, (eni, direction): (EniIndex, Direction), tuple: &Tuple) -> Option<[Decision; 2]> {
        let context = EniContext::new(self, eni, direction)?;
        Some([fast_path::decide_by_rules(&context, tuple), context.decide_by_rules(direction, tuple)])
    }

    /// The name of the rule that such a decision gives as its ground.
    pub fn rule_of(&self, eni: EniIndex, direction: Direction, ground: u32) -> Option<&RuleId> {
        Some(self.network(self.eni(eni)?)?.1.acl.rule(direction, ground)?.0)
    }
}

/// A decision with the names of the snapshot that made it.
pub fn report_decision(
    snapshot: &Snapshot,
    eni: EniIndex,
    direction: Direction,
    decision: Decision,
) -> Option<DecisionReport> {
    Some(report(&EniContext::new(snapshot, eni, direction)?, direction, decision))
}

fn report(context: &EniContext<'_>, direction: Direction, decision: Decision) -> DecisionReport {
    let (rule, group) = ground_of(context.acl, direction, decision.stage, decision.ground);
    DecisionReport {
        eni: EniId::clone(&context.eni.id),
        direction,
        policy: decision.policy,
        stage: decision.stage.name().into(),
        rule: rule.cloned(),
        group: group.cloned(),
    }
}

/// The rule and the group that a decision names.
pub(crate) fn ground_of(
    acl: &Acl,
    direction: Direction,
    stage: Stage,
    ground: u32,
) -> (Option<&RuleId>, Option<&GroupId>) {
    match stage {
        Stage::Rule => acl.rule(direction, ground).unzip(),
        Stage::IntraGroup => (None, acl.group(ground)),
        _ => (None, None),
    }
}

/// What egress does with a packet before any decision, judging by the headers alone.
fn settled_before_decision(context: &EniContext<'_>, headers: &Headers) -> Option<Verdict> {
    let addresses = headers.tuple.addresses;
    if headers.is_dhcp_answer() {
        return Some(Verdict::Drop(DropReason::DhcpServerSpoofed));
    }
    if context.eni.source_dest_check
        && let Err(reason) = check_source(context, headers)
    {
        return Some(Verdict::Drop(reason));
    }
    if headers.is_dhcp_request() {
        return Some(Verdict::Serve(ServedBy::Thread));
    }
    if is_group_destination(addresses) {
        return Some(Verdict::Drop(DropReason::Multicast));
    }
    let is_ping = matches!(headers.icmp_type, 8 | 128);
    let route = context.network.route(addresses);
    if services::at_destination(headers, route).is_some() {
        return None;
    }
    match route {
        AddressRoute::Gateway if is_ping => Some(Verdict::Answer),
        AddressRoute::Gateway => Some(Verdict::Drop(DropReason::GatewayUnserved)),
        _ if next_eni(context, route, addresses).is_none() => Some(Verdict::Drop(DropReason::NoRoute)),
        AddressRoute::Nowhere if !has_external_end(context, headers) => Some(Verdict::Drop(DropReason::NoRoute)),
        _ => None,
    }
}

/// What becomes of a packet to a service of the switch; `None` if it goes to none.
fn served(context: &EniContext<'_>, headers: &Headers) -> Option<(Option<Decision>, Verdict)> {
    let route = context.network.route(headers.tuple.addresses);
    let address = services::at_destination(headers, route).filter(|_| context.direction == Direction::Egress)?;
    let decision = services::decide(context, headers, address);
    let verdict = match decision {
        Some(decision) if !decision.accepts() => decision.refusal(),
        _ if services::is_served(headers, address) => Verdict::Serve(ServedBy::Process),
        Some(_) if matches!(headers.icmp_type, 8 | 128) => Verdict::Answer,
        Some(_) => Verdict::Drop(DropReason::GatewayUnserved),
        None => Verdict::Drop(DropReason::NoRoute),
    };
    Some((decision, verdict))
}

/// What an uplink does with a packet of a connection that is described: it sends out what leaves, and takes what comes from
/// outside to the ENI that is configured for it.
fn explain_uplink(
    shard: &Shard,
    uplink: &UplinkContext<'_>,
    direction: Direction,
    headers: &Headers,
    now: Time,
) -> Verdict {
    match direction {
        Direction::Ingress => Verdict::Deliver,
        Direction::Egress => match shard.target(uplink, headers, &[], now.tick()) {
            Some(eni) => Verdict::Forward(eni),
            None => Verdict::Drop(DropReason::NatUnmapped),
        },
    }
}

/// What becomes of a packet for an external address of its own VPC: it goes to the ENI that is configured for it.
fn explain_hairpin(shard: &Shard, sender: &EniContext<'_>, headers: &Headers, now: Time) -> Verdict {
    let uplink = sender.network.uplink.as_deref().map(|uplink| uplink.index);
    let context = uplink.and_then(|uplink| EniContext::new(sender.snapshot, uplink, Direction::Egress));
    match context.and_then(EniContext::as_uplink) {
        Some(uplink) => explain_uplink(shard, &uplink, Direction::Egress, headers, now),
        None => Verdict::Drop(DropReason::NoRoute),
    }
}

/// Whether a packet is for an external address of its VPC.
fn is_external(context: &EniContext<'_>, addresses: Addresses) -> bool {
    context.network.uplink.as_deref().is_some_and(|uplink| uplink.nat.is_external_destination(addresses))
}

/// Replaces an external destination by the private one that is configured for it; and the source, if it is inside, by an
/// external one, as a packet has that turns around at the uplink.
fn translate(context: &EniContext<'_>, headers: &mut Headers) -> Result<(), DropReason> {
    let Addresses::V4 { source, destination } = headers.tuple.addresses else { return Ok(()) };
    let Some(nat) = context.network.uplink.as_deref().map(|uplink| &uplink.nat) else { return Ok(()) };
    if !nat.is_external(destination) {
        return Ok(());
    }
    let port = Some(headers.tuple.destination_port);
    let private = nat.configured(headers.tuple.protocol, NatEnd { address: destination, port }).map(|(_, end)| end);
    let private = private.ok_or(DropReason::NatUnmapped)?;
    let is_inside = context.network.source(headers.tuple.addresses).route().is_inside();
    let own = NatEnd { address: source, port: Some(headers.tuple.source_port) };
    let of_pool = || nat.pool_of(source)?.first().map(|address| address.address);
    let external = nat.external_of(headers.tuple.protocol, own).map(|end| end.address).or_else(of_pool);
    let source = if is_inside { external.unwrap_or(source) } else { source };
    headers.tuple.addresses = Addresses::V4 { source, destination: private.address };
    headers.tuple.destination_port = private.port.unwrap_or(headers.tuple.destination_port);
    Ok(())
}

/// Whether a packet that leaves by the uplink has an external source, or needs none.
fn has_external_end(context: &EniContext<'_>, headers: &Headers) -> bool {
    let Addresses::V4 { source, .. } = headers.tuple.addresses else { return true };
    let Some(nat) = context.network.uplink.as_deref().map(|uplink| &uplink.nat) else { return true };
    let end = NatEnd { address: source, port: Some(headers.tuple.source_port) };
    nat.routes_private || nat.external_of(headers.tuple.protocol, end).is_some() || nat.pool_of(source).is_some()
}

/// The headers of the first packet of the described connection: a SYN, or an echo request.
fn headers_of(packet: &PacketDescription) -> Result<Headers, Refusal> {
    let Some(addresses) = Addresses::new(packet.source, packet.destination) else {
        let message = "source and destination are of two address families";
        return Err(Refusal::new("invalid", "packet/destination", message));
    };
    // ICMP keys have the identifier and the request's type in place of ports.
    let (icmp_type, destination_port) = match (addresses, packet.protocol) {
        (Addresses::V4 { .. }, protocol::ICMP) => (8, 8),
        (Addresses::V6 { .. }, protocol::ICMPV6) => (128, 128),
        _ => (0, packet.destination_port),
    };
    let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP);
    let (source_port, destination_port) =
        if has_ports || icmp_type != 0 { (packet.source_port, destination_port) } else { (0, 0) };
    let tuple = Tuple::of_connection(addresses, packet.protocol, [source_port, destination_port]);
    let tcp_flags = if packet.protocol == protocol::TCP { tcp_flags::SYN } else { 0 };
    Ok(Headers { network: Network::Ip, icmp_type, tcp_flags, ..Headers::of(tuple) })
}
