//! Every fate a packet can meet.

use crate::config::desired::Policy;
use crate::config::ids::EniIndex;
use core::fmt;

/// What happens to a packet after a pass through the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Egress let it pass: next comes the ingress of this ENI.
    Forward(EniIndex),
    /// Ingress let it pass: hand it to the port of the ENI that evaluated it.
    Deliver,
    /// The virtual router rewrote it into its own reply: hand it back to the port it came from.
    Answer,
    /// A fragment that waits inside for the first of its packet; the shard keeps a copy of it.
    Wait,
    /// It ends here.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Why a packet ended without being delivered. Every drop is counted under exactly one of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name),* }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name under which it is counted and reported.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header, or than the header that it claims to carry.
    FrameTruncated = "frame-truncated",
    /// An 802.1Q or 802.1ad tag: guests have no VLANs here.
    VlanTagged = "vlan-tagged",
    /// Neither ARP, IPv4 nor IPv6.
    EtherTypeUnknown = "ether-type-unknown",
    /// An ARP packet that is not for IPv4 over Ethernet, or neither request nor reply.
    ArpMalformed = "arp-malformed",
    /// An IPv4 header with a wrong version, header length or total length.
    Ipv4Malformed = "ipv4-malformed",
    /// An IPv4 packet that names the routers on its way itself (RFC 791 §3.1), and the settings do not let it.
    Ipv4SourceRoute = "ipv4-source-route",
    /// An IPv6 header with a wrong version or payload length, or a chain of extension headers that leads out of it.
    Ipv6Malformed = "ipv6-malformed",
    /// More IPv6 extension headers than the switch walks.
    Ipv6ExtensionsTooMany = "ipv6-extensions-too-many",
    /// A transport header that does not fit into the packet.
    TransportTruncated = "transport-truncated",
    /// A fragment cut so that it hides or overwrites a transport header (RFC 1858, RFC 3128, RFC 7112).
    FragmentTiny = "fragment-tiny",
    /// A fragment that leads out of the longest packet there is.
    FragmentOversized = "fragment-oversized",
    /// A fragment that is empty, or ends where none but the last may end.
    FragmentMalformed = "fragment-malformed",
    /// A fragment that overlaps others of its packet, or one of a packet of which some did (RFC 5722).
    FragmentOverlap = "fragment-overlap",
    /// A fragment all of whose bytes came before.
    FragmentDuplicate = "fragment-duplicate",
    /// The first of its packet did not come in time.
    FragmentOrphaned = "fragment-orphaned",
    /// No room for another fragment that waits for its first, or for another gap between those of a packet.
    FragmentsFull = "fragments-full",
    /// A checksum to complete or a frame to cut that does not fit the packet's headers.
    OffloadMalformed = "offload-malformed",
    /// The sender's hardware address is not the ENI's.
    SourceMacSpoofed = "source-mac-spoofed",
    /// For the hardware address of somebody else: the virtual router is the only neighbour that a guest has.
    DestinationMacForeign = "destination-mac-foreign",
    /// The source address is not one of the ENI's.
    SourceAddressSpoofed = "source-address-spoofed",
    /// The sender fields of an ARP packet are not the ENI's.
    ArpSpoofed = "arp-spoofed",
    /// The sender or link-layer option of a neighbour discovery packet is not the ENI's.
    NeighborSpoofed = "neighbor-spoofed",
    /// A DHCP answer: guests do not serve DHCP to each other.
    DhcpServerSpoofed = "dhcp-server-spoofed",
    /// ARP that needs no answer: announcements, replies, questions for the ENI's own address.
    ArpConsumed = "arp-consumed",
    /// Neighbour discovery that needs no answer.
    NeighborConsumed = "neighbor-consumed",
    /// A DHCP request, and nobody serves it.
    DhcpUnserved = "dhcp-unserved",
    /// Broadcast or multicast: a VPC does not deliver it (§3.4).
    Multicast = "multicast",
    /// No ENI and no route of the VPC has the destination.
    NoRoute = "no-route",
    /// The hop limit ran out between two subnets.
    TtlExpired = "ttl-expired",
    /// For the virtual router itself, but nothing that it answers.
    GatewayUnserved = "gateway-unserved",
    /// The virtual router would answer or report, and has done so as often as it does for one ENI in a second.
    AnswerRate = "answer-rate",
    /// The destination is not an address of the ENI that it reached.
    DestinationNotOwned = "destination-not-owned",
    /// TCP to port 25 of the Internet is closed (§3.4).
    SmtpClosed = "smtp-closed",
    /// An ICMP error that quotes too little of a packet to tell which.
    QuoteTruncated = "quote-truncated",
    /// An ICMP error about a packet that whom it is for cannot have sent.
    QuoteForged = "quote-forged",
    /// A drop rule matched.
    RuleDrop = "rule-drop",
    /// No rule matched, and the default is closed.
    DefaultDrop = "default-drop",
    /// Its session was admitted by rules that are gone, and those of today refuse it (§4.4).
    SessionRevoked = "session-revoked",
    /// An answer without a session, by its flags, type or ports: rules do not let the connection be opened that it would
    /// belong to.
    AnswerUnsolicited = "answer-unsolicited",
    /// An ICMP error about a session of an ENI that had its share of them in this second.
    IcmpErrorRate = "icmp-error-rate",
    /// TCP from the middle of a connection without a session, and the settings do not let it open one.
    TcpOutOfState = "tcp-out-of-state",
    /// A TCP segment outside of its receiver's window, at an ENI that has it checked.
    TcpOutOfWindow = "tcp-out-of-window",
    /// The ENI holds as many sessions as it may (§4.5).
    SessionLimit = "session-limit",
    /// The ENI opens more sessions in a second than it may.
    SessionRate = "session-rate",
    /// The worker's flow table has no room for another session.
    FlowTableFull = "flow-table-full",
    /// The ENI it came from, or was for, no longer exists.
    EniGone = "eni-gone",
    /// The destination's port is not attached or not up.
    PortDown = "port-down",
    /// The destination's port took no more frames.
    PortFull = "port-full",
    /// The destination's port did not take this frame, though it takes others.
    PortRefused = "port-refused",
    /// Longer than the destination's port may carry.
    FrameTooLong = "frame-too-long",
    /// The ring to the worker that owns the destination was full.
    HandoffFull = "handoff-full",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for DropReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The step of the decision at one ENI that settled a packet (`semantics.md` §3).
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
    /// Step 2: part of a live session.
    Session,
    /// Step 3: between members of an open group.
    IntraGroup,
    /// Step 4: a custom rule.
    Rule,
    /// Step 5: nothing matched.
    Default,
    /// Rules would let it pass, but it looks like an answer, and they do not let its connection be opened.
    AnswerUnsolicited,
    /// Rules would let it pass, but it does not fit a connection's state.
    OutOfState,
    /// An ICMP error with too short a quote.
    QuoteTruncated,
    /// An ICMP error with a false quote.
    QuoteForged,
    /// Part of a live session, but not where its sender would go on.
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
    /// The deciding rule ([`Stage::Rule`]) as the filter numbers it, or the shared group ([`Stage::IntraGroup`]).
    pub ground: u32,
}

impl Decision {
    /// A decision by a step that needs no further ground.
    pub const fn by(policy: Policy, stage: Stage) -> Self {
        Self { policy, stage, ground: 0 }
    }

    /// Whether the packet passes.
    pub const fn accepts(self) -> bool {
        matches!(self.policy, Policy::Accept)
    }

    /// The end of a packet that it refuses.
    pub const fn refusal(self) -> Verdict {
        Verdict::Drop(self.drop_reason())
    }

    /// Under which reason a refusal is counted.
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
            // They let pass.
            Stage::ExemptArp | Stage::ExemptNd | Stage::ExemptDhcp | Stage::ExemptMetadata | Stage::ExemptPmtud => {
                DropReason::DefaultDrop
            }
            Stage::ExemptSlb | Stage::ExemptProbe | Stage::IntraGroup => DropReason::DefaultDrop,
        }
    }
}
