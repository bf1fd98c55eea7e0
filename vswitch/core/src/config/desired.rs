//! The desired state: plain data that says what should be. The control plane writes it, [`compile`](crate::compile)
//! turns it into a snapshot, and nothing on the packet path ever reads it.

use crate::config::ids::{EniId, GroupId, MacAddress, PortListId, PrefixListId, RuleId, VSwitchId, VpcId};
use crate::config::limits::MTU_BYTES_MAX;
pub use crate::config::rule::{DesiredRule, Direction, MatchConditions, Policy, PortRange, Ports, Protocol, Remote};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Everything the forwarding plane should do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Desired {
    /// Choices that the specification leaves open.
    pub settings: Settings,
    /// The private networks.
    pub vpcs: BTreeMap<VpcId, DesiredVpc>,
    /// The subnets of all VPCs.
    pub vswitches: BTreeMap<VSwitchId, DesiredVswitch>,
    /// The security groups of all VPCs.
    pub groups: BTreeMap<GroupId, SecurityGroup>,
    /// The prefix lists that rules may name.
    pub prefix_lists: BTreeMap<PrefixListId, DesiredPrefixList>,
    /// The port lists that rules may name.
    pub port_lists: BTreeMap<PortListId, DesiredPortList>,
    /// The network interfaces.
    pub enis: BTreeMap<EniId, DesiredEni>,
}

/// Choices that the cloud leaves open, with the defaults of `semantics.md` §10.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Members of an open group reach each other past their outbound rules too (§3.2).
    pub intra_group_egress_bypass: bool,
    /// A session that the present rules refuse ends with its next packet (§4.4). Otherwise it lives on.
    pub cut_sessions_on_deny: bool,
    /// TCP to port 25 of Internet addresses is closed whatever the rules say (§3.4).
    pub smtp_closed: bool,
    /// Later fragments share the fate of the first (§2). Otherwise each is evaluated alone, as a packet without ports.
    pub follow_first_fragment: bool,
    /// A TCP packet from the middle of a connection opens a session where rules let it pass (§4.1). Otherwise only a SYN
    /// opens one, and such packets drop.
    pub tcp_pick_up: bool,
    /// A packet without a session is evaluated by who opened its connection, as far as flags, type and ports tell
    /// (`conntrack/opener.rs`). Otherwise whoever sends it counts as the opener, as the cloud documents it (§4.1).
    pub pick_up_by_ports: bool,
    /// IPv4 packets with a source route option drop: they would be evaluated by other addresses than they go to.
    pub drop_source_routed: bool,
    /// Nearly all packets take the fast path. Without it every packet takes the slow one: what becomes of packets is the same,
    /// at several times the cost. For incidents, in which it tells whether the fast path is at fault.
    #[serde(skip_serializing_if = "is_enabled")]
    pub fast_path: bool,
    /// Which path-MTU reports pass whatever the rules say (§3.4).
    pub pmtud_exempt: PmtudExempt,
    /// Whose idle timeouts sessions have. A change counts for sessions that start after it.
    pub timeout_profile: TimeoutProfile,
    /// How long a TCP session may idle before its handshake is complete, seconds (§4.2); in profile `alibaba`.
    pub tcp_half_open_timeout_s: u16,
    /// How long an ICMP session may idle, seconds (§4.2); in profile `alibaba`.
    pub icmp_timeout_s: u16,
}

/// Which path-MTU reports pass whatever the rules say: ICMP type 3 code 4, ICMPv6 type 2 (§3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PmtudExempt {
    /// Those that quote a packet of a live session of their receiver, as other ICMP errors.
    #[default]
    Session,
    /// All, as the cloud documents it.
    Always,
}

impl PmtudExempt {
    /// Every choice, and what it is called.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Session, "session"), (Self::Always, "always")];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// Whose idle timeouts sessions have; `conntrack/timeouts.rs` has the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutProfile {
    /// Those of Alibaba Cloud ECS (§4.2), which each ENI may choose by its [`Timeouts`].
    #[default]
    Alibaba,
    /// Those of AWS EC2; the ENI's own do not count.
    Aws,
    /// Those of Linux's connection tracking; the ENI's own do not count.
    Linux,
}

impl TimeoutProfile {
    /// Every profile, and what it is called.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Alibaba, "alibaba"), (Self::Aws, "aws"), (Self::Linux, "linux")];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            intra_group_egress_bypass: true,
            cut_sessions_on_deny: true,
            smtp_closed: false,
            follow_first_fragment: true,
            tcp_pick_up: true,
            pick_up_by_ports: true,
            drop_source_routed: true,
            fast_path: true,
            pmtud_exempt: PmtudExempt::default(),
            timeout_profile: TimeoutProfile::default(),
            tcp_half_open_timeout_s: 30,
            icmp_timeout_s: 30,
        }
    }
}

/// A private routed network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVpc {
    /// The hardware address of the virtual router, the only neighbour a guest ever sees.
    #[serde(default = "DesiredVpc::default_gateway_mac")]
    pub gateway_mac: MacAddress,
    /// Custom routes: destinations outside every subnet of the VPC, each with the ENI that packets for it go to. That
    /// ENI acts as a router: its `source_dest_check` is off, or `routed_as_own` on. The longest prefix wins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<IpNet, EniId>,
}

impl DesiredVpc {
    /// The router's hardware address where none is chosen.
    pub const fn default_gateway_mac() -> MacAddress {
        MacAddress([0xee, 0xff, 0xff, 0xff, 0xff, 0xff])
    }
}

impl Default for DesiredVpc {
    fn default() -> Self {
        Self { gateway_mac: Self::default_gateway_mac(), routes: BTreeMap::new() }
    }
}

/// A subnet. The virtual router answers at its gateway addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVswitch {
    /// The VPC it is part of.
    pub vpc: VpcId,
    /// Its IPv4 block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Net>,
    /// The router's IPv4 address inside the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// Its IPv6 block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Net>,
    /// The router's IPv6 address inside the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_gateway: Option<Ipv6Addr>,
}

/// The two types of security group (§5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupKind {
    /// `normal`: outbound is open by default, members may be.
    Basic,
    /// `enterprise`: closed in both directions by default, members isolated.
    Advanced,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// The VPC it has effect in.
    pub vpc: VpcId,
    /// Basic or advanced.
    pub kind: GroupKind,
    /// Whether members of a basic group reach each other without rules (§3.2). Without effect on advanced groups.
    pub inner_access: Policy,
    /// The rules, in any order: order has no meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<DesiredRule>,
}

impl SecurityGroup {
    /// The rule with a name.
    pub fn rule(&self, id: &RuleId) -> Option<&DesiredRule> {
        self.place_of_rule(id).map(|place| &self.rules[place])
    }

    /// Where it is. Soon found where rules are in the order of their names, as the control plane keeps them.
    pub(crate) fn place_of_rule(&self, id: &RuleId) -> Option<usize> {
        let found = self.rules.binary_search_by(|rule| rule.id.cmp(id)).ok();
        found.or_else(|| self.rules.iter().position(|rule| rule.id == *id))
    }
}

/// A named list of prefixes of one family (§1.6). Empty, it matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredPrefixList {
    /// The prefixes.
    pub entries: BTreeSet<IpNet>,
}

/// A named list of destination port ranges (§1.7). Empty, it matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredPortList {
    /// The ranges.
    pub entries: BTreeSet<PortRange>,
}

/// One guest interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredEni {
    /// The subnet it is in, and by it the VPC.
    pub vswitch: VSwitchId,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its private addresses, the primary one first, and prefixes delegated to it.
    pub addresses: Vec<IpNet>,
    /// The groups it is a member of: at least one, all in its VPC, all of one kind.
    pub groups: BTreeSet<GroupId>,
    /// Whether packets it sends must carry its own address, and packets it gets must be for one (§3.4).
    #[serde(default = "enabled")]
    pub source_dest_check: bool,
    /// Whether blocks that a custom route sends to it count as its own there, so that it may pass on what is routed to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub routed_as_own: bool,
    /// How long its sessions may idle (§4.2).
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The most sessions it may hold at once (§4.5).
    #[serde(default = "DesiredEni::default_sessions_max")]
    pub sessions_max: u32,
    /// What it may ask of the session tables, and what is checked besides rules.
    #[serde(default)]
    pub tracking: Tracking,
    /// Where its frames come from and go to; none while it is not attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<DesiredPort>,
}

impl DesiredEni {
    /// The most sessions of an ENI for which nothing else is said.
    pub const fn default_sessions_max() -> u32 {
        65_536
    }
}

const fn is_false(value: &bool) -> bool {
    !*value
}

const fn enabled() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands on a reference")]
const fn is_enabled(value: &bool) -> bool {
    *value
}

/// What an ENI may ask of its worker's session table, and what is checked besides rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracking {
    /// Up to so many sessions find room even in a full table, at the expense of ENIs that hold more than their own.
    pub sessions_guaranteed: u32,
    /// Sessions that it may open in a second, and at once after a pause of a second; as many as it likes if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_sessions_per_s: Option<u32>,
    /// TCP segments outside of the window that their receiver announced drop.
    pub tcp_window_check: bool,
}

impl Default for Tracking {
    fn default() -> Self {
        Self { sessions_guaranteed: 1024, new_sessions_per_s: None, tcp_window_check: false }
    }
}

/// Idle timeouts of an ENI's sessions, seconds (§4.2). A change counts for sessions that start after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// After the handshake: one of [`Timeouts::TCP_ESTABLISHED_S`].
    pub tcp_established_s: u16,
    /// After RST, or FIN from both sides: 3 to 15.
    pub tcp_closed_s: u16,
    /// One of [`Timeouts::UDP_S`]; GRE and other protocols use it too.
    pub udp_s: u16,
}

impl Timeouts {
    /// What may be chosen for established TCP sessions.
    pub const TCP_ESTABLISHED_S: [u16; 9] = [30, 60, 80, 100, 200, 300, 500, 700, 910];
    /// What may be chosen for UDP sessions.
    pub const UDP_S: [u16; 6] = [10, 20, 30, 60, 80, 100];
    /// The shortest and longest time for closed TCP sessions.
    pub const TCP_CLOSED_S: (u16, u16) = (3, 15);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp_established_s: 910, tcp_closed_s: 3, udp_s: 30 }
    }
}

/// Where an ENI meets the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum DesiredPort {
    /// A TAP device of this machine's kernel.
    Tap(TapPort),
    /// A network interface that the machine has already.
    Packet(PacketPort),
    /// A queue in memory that tests and benches feed by hand.
    Memory,
}

impl DesiredPort {
    /// The name of its type, as in JSON and in listings.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tap(_) => "tap",
            Self::Packet(_) => "packet",
            Self::Memory => "memory",
        }
    }

    /// The largest layer-3 packet that it carries, bytes.
    pub const fn mtu_bytes(&self) -> u16 {
        match self {
            Self::Tap(tap) => tap.mtu_bytes,
            Self::Packet(packet) => packet.mtu_bytes,
            Self::Memory => MTU_BYTES_MAX as u16,
        }
    }

    /// What of the machine it has for itself: the kernel's device, and the named network namespace that is in, or the path
    /// of a socket.
    pub fn resource(&self) -> Option<(&str, Option<&str>)> {
        self.device()
    }

    /// The kernel's device that it has for itself, and the named network namespace that is in.
    pub fn device(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Tap(tap) => Some((&tap.device, tap.namespace.as_deref())),
            Self::Packet(packet) => Some((&packet.device, packet.namespace.as_deref())),
            Self::Memory => None,
        }
    }
}

/// A TAP device, made by the switch or adopted if it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapPort {
    /// The device's name, at most 15 bytes.
    pub device: String,
    /// The named network namespace it lives in; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Make the namespace if it does not exist, and remove it with the port if the switch made it.
    #[serde(default)]
    pub create_namespace: bool,
    /// Set hardware address, MTU, addresses and default routes on the device and bring it up. Only sensible for a
    /// device that a kernel uses itself, as in a namespace; a virtual machine configures its own end.
    #[serde(default = "enabled")]
    pub configure: bool,
    /// The largest layer-3 packet, bytes.
    #[serde(default = "TapPort::default_mtu_bytes")]
    pub mtu_bytes: u16,
}

/// A network interface of the machine's kernel, used as it is: a card, or one end of a veth pair. Whatever is behind it
/// is the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketPort {
    /// The interface's name, at most 15 bytes.
    pub device: String,
    /// The named network namespace it lives in; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The largest layer-3 packet, bytes; that of the interface should be no smaller.
    #[serde(default = "TapPort::default_mtu_bytes")]
    pub mtu_bytes: u16,
}

impl TapPort {
    /// The MTU for which nothing else is said.
    pub const fn default_mtu_bytes() -> u16 {
        1500
    }
}
