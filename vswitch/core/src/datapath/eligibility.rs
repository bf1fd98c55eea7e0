//! The gate of the fast path: which packets, paths and policies may take it. Nothing else decides that.
//!
//! Every structure is destructured field by field and every enum matched variant by variant, without `..` and without a
//! wildcard arm, so that a new field or stage does not compile until somebody decides here. Whatever is not known to be
//! the same on both paths takes the slow path, which handles everything. `Settings::fast_path` turns the fast path off
//! as a whole.

use crate::acl::{BatchMatcher, RowDimensions};
use crate::compile::bypasses_intra_group;
use crate::compile::snapshot::EniEntry;
use crate::config::desired::{MatchConditions, Settings};
use crate::config::ids::EniIndex;
use crate::config::services::ServiceAddress;
use crate::conntrack::key::ConnectionKey;
use crate::conntrack::opener::is_like_answer;
use crate::conntrack::tables::{ConnectionTables, FoundSession};
use crate::datapath::anti_spoof::{is_from_inside, owns_source};
use crate::hw::time::Tick;
use crate::packet::headers::fast_parse::Plain;
use crate::packet::headers::{Addresses, Headers, Segment, is_to_metadata, protocol, tcp_flags};
use crate::packet::offload::{Offload, Segmentation};
use crate::packet::verdict::{Decision, Stage};
use crate::packet::{Marker, Packet};
use crate::policy::eni_context::{EniContext, UplinkContext};
use crate::policy::evaluate::Lookup;
use crate::policy::exemptions::SMTP;
use crate::tables::address_entry::AddressEntry;
use crate::tables::route::{AddressRoute, is_group_destination, may_leave};

/// Whether the settings allow the fast path at all.
const fn is_on(settings: &Settings) -> bool {
    let Settings {
        fast_path,
        // Checked by `batch_matcher`.
        intra_group_egress_bypass: _,
        // Concerns sessions of an older revision, which the slow path evaluates.
        cut_sessions_on_deny: _,
        // Packets to port 25 take the slow path in any case.
        smtp_closed: _,
        // Fragments take the slow path: `fast_parse` only reads whole packets.
        follow_first_fragment: _,
        // On the fast path, a TCP connection is opened by a SYN only, and a UDP flow by nothing that looks like an
        // answer.
        tcp_pick_up: _,
        pick_up_by_ports: _,
        // Packets with IP options take the slow path: `fast_parse` does not read options.
        drop_source_routed: _,
        // `between` keeps SYNs away; those of a connection that exists never take the fast path.
        clamp_mss: _,
        // ICMP takes the slow path: `fast_parse` reads TCP and UDP only.
        pmtud_exempt: _,
        // Both paths take the timeout from the connection's state.
        timeout_profile: _,
        tcp_half_open_timeout_s: _,
        icmp_timeout_s: _,
    } = settings;
    *fast_path
}

/// Whether a packet may take the fast path, by what is known before its frame is read.
#[inline(always)]
pub(super) const fn packet(packet: &Packet) -> bool {
    let Packet {
        // Read by `fast_parse`.
        buffer: _,
        marker,
        offload,
        // Left by the first half of the packet's way; both paths set them.
        verdict: _,
        decision: _,
        receiver: _,
        headers: _,
    } = packet;
    let is_marked = match marker {
        Marker::None => false,
        // Exempt at ingress.
        Marker::LoadBalancer | Marker::Probe => true,
        // It has to be translated first.
        Marker::Uplink => true,
    };
    let Offload {
        checksum,
        segmentation,
        // Verified once the headers are known, by `settle_plain`.
        segment_bytes: _,
        header_bytes: _,
        marks_congestion_once: _,
    } = offload;
    // Segmentation implies a checksum to complete.
    (checksum.is_some() || matches!(segmentation, Segmentation::None)) && !is_marked
}

/// Whether a packet may take the fast path, by what `fast_parse` read: whole TCP and UDP packets without IP options,
/// without extension headers, and not between DHCP ports.
#[inline(always)]
pub(super) const fn plain<A>(plain: &Plain<A>) -> bool {
    let Plain {
        // Checked by `receiver` and `between`.
        addresses: _,
        ports,
        protocol: _,
        segment: Segment { sequence: _, acknowledgment: _, flags },
        end: _,
    } = plain;
    // Whether a reset counts depends on the window, and whether mail is admitted depends on the destination.
    *flags & tcp_flags::RST == 0 && *ports as u16 != SMTP
}

/// The ENI to which packets with these hardware and IP addresses go on the fast path: from an address of the sender,
/// through the router, to another ENI of the VPC.
pub(super) fn receiver(
    sender: &EniContext<'_>,
    [to, from]: [[u8; 6]; 2],
    addresses: Addresses,
) -> Option<(EniIndex, AddressEntry)> {
    // A group address never is the router's, even if the VPC's hardware address were misconfigured as one.
    let is_to_router = to == sender.network.gateway_mac.0 && to[0] & 1 == 0;
    let is_from_sender = from == sender.eni.mac.0 && owns_source(sender, addresses);
    if !is_on(sender.snapshot.settings()) || !is_to_router || is_to_metadata(addresses) || !is_from_sender {
        return None;
    }
    let entry = sender.network.destination(addresses);
    match entry.route() {
        // An address of a service that an ENI has is that ENI's; the services of the switch have none of these.
        AddressRoute::Owner(receiver) if receiver != sender.index => Some((receiver, entry)),
        AddressRoute::Owner(_)
        | AddressRoute::Nowhere
        | AddressRoute::Unowned
        | AddressRoute::Gateway
        | AddressRoute::Via(_)
        // Two VPCs have keys of their own for one connection.
        | AddressRoute::Peer(_) => None,
    }
}

/// Whether packets with these hardware and IP addresses leave the VPC on the fast path: from the first address of the
/// sender, through the router, to one outside. [`crosses`] says whether those of the sender may.
#[inline(never)]
pub(super) fn leaves<K: ConnectionKey>(
    sender: &EniContext<'_>,
    macs: [[u8; 6]; 2],
    addresses: [K::Address; 2],
) -> bool {
    let addresses = K::addresses(addresses);
    let Some(uplink) = sender.network.uplink.as_deref() else { return false };
    let [to, from] = macs;
    to == sender.network.gateway_mac.0
        && to[0] & 1 == 0
        && from == sender.eni.mac.0
        && sender.eni.is_first_address(addresses)
        && sender.network.route(addresses) == AddressRoute::Nowhere
        && may_leave(addresses)
        // It turns around.
        && !uplink.nat.is_external_destination(addresses)
        && ServiceAddress::of(addresses.destination()).is_none()
}

/// Whether packets with these hardware and IP addresses enter the VPC on the fast path: from an address outside. [`crosses`]
/// says whether those of their receiver may.
#[inline(always)]
pub(super) fn enters(uplink: &UplinkContext<'_>, macs: [[u8; 6]; 2], addresses: Addresses) -> bool {
    let [to, _] = macs;
    to == uplink.entry.mac.0 && to[0] & 1 == 0 && !is_group_destination(addresses) && !is_from_inside(uplink, addresses)
}

/// Whether packets of established connections of an ENI may cross the uplink on the fast path.
pub(super) fn crosses(context: &EniContext<'_>) -> bool {
    is_on(context.snapshot.settings()) && of_eni(context.eni).forwards
}

/// What may take the fast path between two ENIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Between {
    /// Packets of established connections.
    pub(super) forwards: bool,
    /// New connections.
    pub(super) opens: bool,
}

/// What may take the fast path from one ENI to another.
pub(super) fn between(sender: &EniContext<'_>, receiver: &EniContext<'_>) -> Between {
    let [one, other] = [sender, receiver].map(|context| of_eni(context.eni));
    // A hop between subnets changes more than the Ethernet header.
    let forwards = one.forwards && other.forwards && sender.eni.vswitch == receiver.eni.vswitch;
    // One record has one set of timeouts.
    let opens = one.opens && other.opens && sender.timeouts() == receiver.timeouts();
    // Without new connections no SYN.
    let opens = opens && !sender.snapshot.settings().clamp_mss;
    Between { forwards, opens }
}

fn of_eni(eni: &EniEntry) -> Between {
    let EniEntry {
        id: _,
        // Only told to the guest.
        guest: _,
        // Part of the value that each session is compared with.
        epoch: _,
        revision: _,
        // Checked by `receiver` and `between`.
        vpc: _,
        vswitch: _,
        mac: _,
        ipv4: _,
        ipv6: _,
        // Used by both evaluators.
        acl: _,
        // The fast path only takes packets from the sender's first address to an address of the receiver.
        source_dest_check: _,
        routed_as_own: _,
        // Nothing is routed to an uplink as to an owner; what comes from it has a fast path of its own.
        is_uplink: _,
        tcp_window_check,
        // Limits the frames of the path.
        mtu_bytes: _,
        // Compared by `between`.
        timeouts: _,
        // An ENI at its limit has to make room; every new connection checks that.
        sessions_max: _,
        // The slow path decides who gives way when there is no room.
        sessions_guaranteed: _,
        new_sessions_per_s,
        // Applied before a frame takes either path, and after.
        rate_limits: _,
    } = eni;
    // The full check of sequence numbers needs the windows of both sides.
    Between { forwards: !tcp_window_check, opens: new_sessions_per_s.is_none() }
}

/// Whether a packet opens a connection whatever the settings about openers: a SYN without ACK, or a datagram that does
/// not look like an answer.
#[inline]
pub(super) const fn opens_connection(number: u8, [source, destination]: [u16; 2], flags: u8) -> bool {
    const OTHERS: u8 = tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN;
    match number {
        protocol::UDP => !is_like_answer(source, destination),
        protocol::TCP => flags & (tcp_flags::SYN | OTHERS) == tcp_flags::SYN,
        _ => false,
    }
}

/// Every condition of a rule. A new one does not compile until somebody decides how the fast path treats it. Of a
/// rule's other fields, the direction selects the rows, and policy and priority are in the order of the bits.
const _: fn(&MatchConditions) = |conditions| {
    let MatchConditions {
        // Has rows by service.
        protocol: _,
        ports: _,
        // Excludes the direction from the batch matcher; see `batch_matcher`.
        source_ports: _,
        local: _,
        // Has rows by peer.
        remote: _,
    } = conditions;
};

/// The rows that decide for packet after packet of the same peer; `None` where they are not sufficient, so that each
/// packet is decided as on the slow path.
pub(super) fn batch_matcher<'a>(context: &EniContext<'a>) -> Option<BatchMatcher<'a>> {
    let RowDimensions { by_peer: (), by_service: (), by_source_port, by_local_address, confirms } =
        context.acl.row_dimensions(context.direction);
    let bypasses =
        bypasses_intra_group(context.snapshot.settings(), context.direction) && context.acl.has_open_groups();
    let tells_all = !by_source_port && !by_local_address && !confirms && !bypasses;
    tells_all.then(|| context.acl.batch_matcher(context.direction))
}

/// Whether a decision of this stage may open a connection on the fast path.
const fn of_stage(stage: Stage) -> bool {
    match stage {
        Stage::IntraGroup | Stage::Rule | Stage::Default => true,
        // `fast_parse` does not read ARP, ICMP or DHCP.
        Stage::ExemptArp | Stage::ExemptNd | Stage::ExemptDhcp | Stage::ExemptPmtud => false,
        // Excluded by `packet`, `plain` and `receiver`.
        Stage::ExemptMetadata | Stage::ExemptSlb | Stage::ExemptProbe | Stage::PlatformSmtp => false,
        // A new connection has no session, and its first packet comes from its opener.
        Stage::Session | Stage::AnswerUnsolicited | Stage::OutOfState | Stage::OutOfWindow => false,
        Stage::QuoteTruncated | Stage::QuoteForged => false,
    }
}

/// Whether these decisions may open or refuse a connection on the fast path.
pub(super) const fn decisions([outgoing, incoming]: &[Decision; 2]) -> bool {
    of_stage(outgoing.stage) && of_stage(incoming.stage)
}

/// The session that alone decides about a packet on the slow path and admits it. Nearly all packets need only this
/// check, in place of [`EniContext::evaluate`].
#[inline]
pub(super) fn deciding_session<'a>(
    context: &EniContext<'_>,
    connections: &'a ConnectionTables,
    (headers, lookup, marker): (&Headers, &Lookup, Marker),
    now: Tick,
) -> Option<FoundSession<'a>> {
    let settings = context.snapshot.settings();
    let may_be_alone = headers.is_plain
        && is_on(settings)
        && matches!(marker, Marker::None | Marker::Uplink)
        && headers.tcp_flags & tcp_flags::RST == 0
        && !context.eni.tcp_window_check
        && !(headers.tuple.destination_port == SMTP && settings.smtp_closed);
    let Lookup::Session(entry) = lookup else { return None };
    if !may_be_alone {
        return None;
    }
    let found = connections.find(entry, context.eni.epoch)?;
    let passes = context.admits(found.session) && context.continues(found.connection, headers.tcp_flags, now);
    passes.then_some(found)
}
