//! Every fate of a packet.

use crate::config::desired::Policy;
use crate::config::ids::EniIndex;
use core::fmt;

/// What happens to a packet after it passed through the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Egress accepted it: next comes the ingress of this ENI.
    Forward(EniIndex),
    /// Ingress accepted it: hand it to the port of the ENI that evaluated it.
    Deliver,
    /// The virtual router overwrote it with its own reply: hand it back to the port it came from.
    Answer,
    /// It asks for a service of the switch that takes more than the packet path has time for: hand it to whoever serves
    /// that, who counts it.
    Serve(ServedBy),
    /// It is a fragment that waits inside for the first of its packet; the shard keeps a copy of it.
    Wait,
    /// It is dropped.
    Drop(DropReason),
}

/// Who serves what the packet path leaves to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// The service thread of the forwarding plane: DHCP and router solicitations.
    Thread,
    /// The services process: metadata and name servers.
    Process,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Why a packet ended without being delivered. Every drop is counted under exactly one reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name),* }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name under which the reason is counted and reported.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header, or than the header that it claims to carry.
    FrameTruncated = "frame-truncated",
    /// An 802.1Q or 802.1ad tag of a VLAN: guests have none here.
    VlanTagged = "vlan-tagged",
    /// Neither ARP, IPv4 nor IPv6.
    EtherTypeUnknown = "ether-type-unknown",
    /// An ARP packet that is not for IPv4 over Ethernet, or neither request nor reply.
    ArpMalformed = "arp-malformed",
    /// An IPv4 header with a wrong version, header length or total length.
    Ipv4Malformed = "ipv4-malformed",
    /// An IPv4 packet with a source route option (RFC 791 §3.1), which the settings do not permit.
    Ipv4SourceRoute = "ipv4-source-route",
    /// An IPv6 header with a wrong version or payload length, or a chain of extension headers that extends beyond it.
    Ipv6Malformed = "ipv6-malformed",
    /// More IPv6 extension headers than the switch walks.
    Ipv6ExtensionsTooMany = "ipv6-extensions-too-many",
    /// A transport header that does not fit into the packet.
    TransportTruncated = "transport-truncated",
    /// A fragment so small that it hides or overwrites a transport header (RFC 1858, RFC 3128, RFC 7112).
    FragmentTiny = "fragment-tiny",
    /// A fragment that extends beyond the longest possible packet.
    FragmentOversized = "fragment-oversized",
    /// An empty fragment, or one whose length only the last fragment may have.
    FragmentMalformed = "fragment-malformed",
    /// A fragment that overlaps others of its packet, or any fragment of a packet in which some overlapped (RFC 5722).
    FragmentOverlap = "fragment-overlap",
    /// A fragment all of whose bytes had already arrived.
    FragmentDuplicate = "fragment-duplicate",
    /// A fragment whose first fragment did not arrive in time.
    FragmentOrphaned = "fragment-orphaned",
    /// A fragment that has no room to wait for its first, or leaves too many gaps in its packet.
    FragmentsFull = "fragments-full",
    /// A request to complete a checksum or segment a frame that contradicts the packet's headers.
    OffloadMalformed = "offload-malformed",
    /// The sender's hardware address is not the ENI's.
    SourceMacSpoofed = "source-mac-spoofed",
    /// Addressed to a foreign hardware address: a guest has no neighbour but the virtual router.
    DestinationMacForeign = "destination-mac-foreign",
    /// The source address is not one of the ENI's.
    SourceAddressSpoofed = "source-address-spoofed",
    /// The sender fields of an ARP packet are not the ENI's.
    ArpSpoofed = "arp-spoofed",
    /// The sender or link-layer option of a neighbour discovery packet is not the ENI's.
    NeighborSpoofed = "neighbor-spoofed",
    /// A DHCP reply: guests do not serve DHCP to each other.
    DhcpServerSpoofed = "dhcp-server-spoofed",
    /// A router advertisement or redirect: guests are no routers of their link.
    RouterAdvertSpoofed = "router-advert-spoofed",
    /// ARP that needs no reply: announcements, replies, requests for the ENI's own address.
    ArpConsumed = "arp-consumed",
    /// Neighbour discovery that needs no reply.
    NeighborConsumed = "neighbor-consumed",
    /// A DHCP message that calls for no reply: it releases an address, is meant for another server, or asks for an address
    /// of a family that the ENI has none of.
    DhcpUnserved = "dhcp-unserved",
    /// A DHCP message that cannot be read, is fragmented, or is longer than Ethernet carries in one piece.
    DhcpMalformed = "dhcp-malformed",
    /// Its ENI has sent, or got, as much at this moment as its rate limits permit.
    RateLimited = "rate-limited",
    /// It asks for a service, and its ENI or all ENIs together have used up their share for this second.
    ServiceRate = "service-rate",
    /// It asks for a service, and as many requests as may wait already do.
    ServiceFull = "service-full",
    /// It was on its way to the services process when that ended.
    ServiceAway = "service-away",
    /// Broadcast or multicast: a VPC does not deliver it (§3.4).
    Multicast = "multicast",
    /// No ENI and no route of the VPC covers the destination.
    NoRoute = "no-route",
    /// No external port is left for a connection of its ENI.
    NatPortsExhausted = "nat-ports-exhausted",
    /// For an external address and port that stand for no private ones, or from a private one that has no external one: a
    /// protocol without ports, or an ICMP error about nothing that was translated.
    NatUnmapped = "nat-unmapped",
    /// For the external port of a connection, from somebody whom the guest has not talked to.
    NatUnsolicited = "nat-unsolicited",
    /// From outside, with a source address inside.
    SourceInside = "source-inside",
    /// The hardware address of the uplink's next hop is not known yet.
    NextHopUnresolved = "next-hop-unresolved",
    /// The TTL or hop limit expired between two subnets.
    TtlExpired = "ttl-expired",
    /// Addressed to the virtual router itself or to a service of the switch, but nothing that these reply to.
    GatewayUnserved = "gateway-unserved",
    /// The virtual router would reply or report, but has used up this ENI's share for this second.
    AnswerRate = "answer-rate",
    /// The destination is not an address of the ENI that it reached.
    DestinationNotOwned = "destination-not-owned",
    /// TCP to port 25 of the Internet, which is closed (§3.4).
    SmtpClosed = "smtp-closed",
    /// An ICMP error that quotes too little to identify the packet.
    QuoteTruncated = "quote-truncated",
    /// An ICMP error about a packet that its receiver cannot have sent.
    QuoteForged = "quote-forged",
    /// A drop rule matched.
    RuleDrop = "rule-drop",
    /// No rule matched, and the default is drop.
    DefaultDrop = "default-drop",
    /// Its session was admitted by rules that no longer exist, and the current rules refuse it (§4.4).
    SessionRevoked = "session-revoked",
    /// By its flags, type or ports a reply without a session, whose connection the rules do not admit.
    AnswerUnsolicited = "answer-unsolicited",
    /// An ICMP error about a session of an ENI that has got its share of them in this second.
    IcmpErrorRate = "icmp-error-rate",
    /// TCP from the middle of a connection, without a session, which the settings do not let it open.
    TcpOutOfState = "tcp-out-of-state",
    /// A TCP segment outside its receiver's window, at an ENI with that check.
    TcpOutOfWindow = "tcp-out-of-window",
    /// The ENI is at its session limit (§4.5).
    SessionLimit = "session-limit",
    /// The ENI has opened as many sessions in this second as it may.
    SessionRate = "session-rate",
    /// The worker's session table has no room for another session.
    FlowTableFull = "flow-table-full",
    /// Its sender or receiver ENI no longer exists.
    EniGone = "eni-gone",
    /// The destination's port is not attached or not up.
    PortDown = "port-down",
    /// The destination's port accepted no more frames.
    PortFull = "port-full",
    /// The destination's port refused this frame, though it accepts others.
    PortRefused = "port-refused",
    /// Longer than the destination's port allows.
    FrameTooLong = "frame-too-long",
    /// The ring to the worker that owns the destination was full.
    HandoffFull = "handoff-full",
}

impl DropReason {
    /// The number of reasons.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for DropReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The step that settled the decision at one ENI (`semantics.md` §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Step 0: ARP.
    ExemptArp,
    /// Step 0: neighbour discovery with hop limit 255.
    ExemptNd,
    /// Step 0: DHCP of the guest.
    ExemptDhcp,
    /// Step 1: the metadata service.
    ExemptMetadata,
    /// Step 1: path-MTU discovery.
    ExemptPmtud,
    /// Step 1: marked by the data path as balancer traffic.
    ExemptSlb,
    /// Step 1: marked by the data path as a probe of the platform.
    ExemptProbe,
    /// Step 1b: outgoing mail.
    PlatformSmtp,
    /// Step 2: a packet of a live session.
    Session,
    /// Step 3: between members of an open group.
    IntraGroup,
    /// Step 4: a custom rule.
    Rule,
    /// Step 5: nothing matched.
    Default,
    /// The rules would admit it, but it looks like a reply, and they do not admit its connection.
    AnswerUnsolicited,
    /// The rules would admit it, but it does not fit the state of a connection.
    OutOfState,
    /// An ICMP error that quotes too little.
    QuoteTruncated,
    /// An ICMP error with a forged quote.
    QuoteForged,
    /// A packet of a live session outside its receiver's window.
    OutOfWindow,
}

impl Stage {
    /// The name the conformance format uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExemptArp => "exempt:arp",
            Self::ExemptNd => "exempt:nd",
            Self::ExemptDhcp => "exempt:dhcp",
            Self::ExemptMetadata => "exempt:metadata",
            Self::ExemptPmtud => "exempt:pmtud",
            Self::ExemptSlb => "exempt:slb",
            Self::ExemptProbe => "exempt:probe",
            Self::PlatformSmtp => "platform:smtp",
            Self::Session => "session",
            Self::IntraGroup => "intra-group",
            Self::Rule => "rule",
            Self::Default => "default",
            Self::AnswerUnsolicited => "answer-unsolicited",
            Self::OutOfState => "out-of-state",
            Self::QuoteTruncated => "quote-truncated",
            Self::QuoteForged => "quote-forged",
            Self::OutOfWindow => "out-of-window",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The decision at one ENI in one direction, with its ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the packet passes.
    pub policy: Policy,
    /// The step that settled it.
    pub stage: Stage,
    /// The deciding rule ([`Stage::Rule`]) by its number in the ACL, or the shared group ([`Stage::IntraGroup`]).
    pub ground: u32,
}

impl Decision {
    /// A decision by a stage that has no further ground.
    pub const fn by(policy: Policy, stage: Stage) -> Self {
        Self { policy, stage, ground: 0 }
    }

    /// Whether the packet passes.
    pub const fn accepts(self) -> bool {
        matches!(self.policy, Policy::Accept)
    }

    /// The verdict on a packet that this decision refuses.
    pub const fn refusal(self) -> Verdict {
        Verdict::Drop(self.drop_reason())
    }

    /// The reason under which a refusal is counted.
    pub const fn drop_reason(self) -> DropReason {
        match self.stage {
            Stage::PlatformSmtp => DropReason::SmtpClosed,
            Stage::Session => DropReason::SessionRevoked,
            Stage::Rule => DropReason::RuleDrop,
            Stage::AnswerUnsolicited => DropReason::AnswerUnsolicited,
            Stage::OutOfState => DropReason::TcpOutOfState,
            Stage::QuoteTruncated => DropReason::QuoteTruncated,
            Stage::QuoteForged => DropReason::QuoteForged,
            Stage::OutOfWindow => DropReason::TcpOutOfWindow,
            Stage::Default => DropReason::DefaultDrop,
            // These stages accept.
            Stage::ExemptArp | Stage::ExemptNd | Stage::ExemptDhcp | Stage::ExemptMetadata | Stage::ExemptPmtud => {
                DropReason::DefaultDrop
            }
            Stage::ExemptSlb | Stage::ExemptProbe | Stage::IntraGroup => DropReason::DefaultDrop,
        }
    }
}
