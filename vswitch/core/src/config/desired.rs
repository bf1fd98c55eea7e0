//! The desired state: plain data that says what should exist. The control plane writes it, [`compile`](crate::compile)
//! turns it into a snapshot, and nothing on the packet path ever reads it.

use crate::config::dhcp::DhcpOptionsSet;
use crate::config::ids::{EniId, GroupId, MacAddress, PortListId, PrefixListId, RuleId, UplinkId, VSwitchId, VpcId};
use crate::config::limits::MTU_BYTES_MAX;
use crate::config::rate_limits::RateLimits;
pub use crate::config::rule::{DesiredRule, Direction, MatchConditions, Policy, PortRange, Ports, Protocol, Remote};
use crate::config::uplink::{DesiredNat, UplinkIpv4, UplinkIpv6};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Everything that the forwarding plane should do.
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
    /// The ways out of VPCs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub uplinks: BTreeMap<UplinkId, DesiredUplink>,
}

impl Desired {
    /// Whether there is neither an ENI nor an uplink.
    pub fn has_no_interface(&self) -> bool {
        self.enis.is_empty() && self.uplinks.is_empty()
    }
}

/// Choices that the cloud leaves open, with the defaults of the specification (§10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Members of an open group reach each other regardless of their egress rules too (§3.2).
    pub intra_group_egress_bypass: bool,
    /// A session that the current rules refuse ends with its next packet (§4.4). If false, it lives on.
    pub cut_sessions_on_deny: bool,
    /// TCP to port 25 of Internet addresses is dropped, whatever the rules say (§3.4).
    pub smtp_closed: bool,
    /// Later fragments share the fate of the first (§2). If false, each is evaluated by itself, as a packet without
    /// ports.
    pub follow_first_fragment: bool,
    /// A TCP packet from the middle of a connection opens a session where rules admit it (§4.1). If false, only a SYN
    /// opens one, and such packets are dropped.
    pub tcp_pick_up: bool,
    /// A packet without a session is evaluated by who opened its connection, as far as flags, type and ports show
    /// (`conntrack/opener.rs`). If false, the sender counts as the opener, as the cloud documents it (§4.1).
    pub pick_up_by_ports: bool,
    /// IPv4 packets with a source route option are dropped: they would be evaluated by addresses other than those they
    /// go to.
    pub drop_source_routed: bool,
    /// The maximum segment size that a SYN offers is lowered to what the ports of sender and receiver carry.
    #[serde(skip_serializing_if = "is_false")]
    pub clamp_mss: bool,
    /// Nearly all packets take the fast path. If false, every packet takes the slow path, with the same result at
    /// several times the cost. Meant for incidents, to find out whether the fast path is at fault.
    #[serde(skip_serializing_if = "is_enabled")]
    pub fast_path: bool,
    /// Which path-MTU reports pass whatever the rules say (§3.4).
    pub pmtud_exempt: PmtudExempt,
    /// Whose idle timeouts sessions have. A change applies to sessions that start after it.
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
    /// Those that quote a packet of a live session of their receiver, like other ICMP errors.
    #[default]
    Session,
    /// All, as the cloud documents it.
    Always,
}

impl PmtudExempt {
    /// Every choice with its name.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Session, "session"), (Self::Always, "always")];

    /// The name of the choice.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// Whose idle timeouts sessions have; `conntrack/timeouts.rs` has the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutProfile {
    /// Those of Alibaba Cloud ECS (§4.2), which each ENI may adjust by its [`Timeouts`].
    #[default]
    Alibaba,
    /// Those of AWS EC2; the ENI's own timeouts are ignored.
    Aws,
    /// Those of Linux's connection tracking; the ENI's own timeouts are ignored.
    Linux,
}

impl TimeoutProfile {
    /// Every profile with its name.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Alibaba, "alibaba"), (Self::Aws, "aws"), (Self::Linux, "linux")];

    /// The name of the profile.
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
            clamp_mss: false,
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
    /// Blocks of other VPCs that packets go to directly, each with its VPC; the longest prefix wins. Both VPCs name each
    /// other, and no blocks of theirs overlap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<IpNet, VpcId>,
    /// What its guests are told beside their addresses and routes.
    #[serde(default, skip_serializing_if = "DesiredVpc::has_default_dhcp")]
    pub dhcp: DhcpOptionsSet,
}

impl DesiredVpc {
    fn has_default_dhcp(dhcp: &DhcpOptionsSet) -> bool {
        *dhcp == DhcpOptionsSet::default()
    }

    /// The router's hardware address where none is configured.
    pub const fn default_gateway_mac() -> MacAddress {
        MacAddress([0xee, 0xff, 0xff, 0xff, 0xff, 0xff])
    }
}

impl Default for DesiredVpc {
    fn default() -> Self {
        Self {
            gateway_mac: Self::default_gateway_mac(),
            routes: BTreeMap::new(),
            peers: BTreeMap::new(),
            dhcp: DhcpOptionsSet::default(),
        }
    }
}

/// The way out of a VPC. What no subnet and no custom route covers leaves by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredUplink {
    /// The VPC. A VPC has one uplink at most.
    pub vpc: VpcId,
    /// The hardware address of the VPC's router on the uplink.
    pub mac: MacAddress,
    /// The hardware address of the next hop: a device that the switch configures gets it. Asked for by ARP and neighbour
    /// discovery if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_mac: Option<MacAddress>,
    /// The router's IPv4 address, with the prefix of the link, and where packets go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<UplinkIpv4>,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<UplinkIpv6>,
    /// Where its frames come from and go to. A TAP that the switch configures is the next hop: it gets the addresses of the
    /// next hop, and routes to the external addresses and to the IPv6 blocks of the VPC.
    pub port: DesiredPort,
    /// The addresses that private ones have outside.
    #[serde(default)]
    pub nat: DesiredNat,
}

/// A subnet. The virtual router answers at its gateway addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVswitch {
    /// The VPC it belongs to.
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
    /// `normal`: egress is open by default, and so may be traffic between members.
    Basic,
    /// `enterprise`: closed in both directions by default, members isolated from each other.
    Advanced,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// The VPC the group belongs to.
    pub vpc: VpcId,
    /// Basic or advanced.
    pub kind: GroupKind,
    /// Whether members of a basic group reach each other without rules (§3.2). Ignored for advanced groups.
    pub inner_access: Policy,
    /// The rules; their order has no meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<DesiredRule>,
}

impl SecurityGroup {
    /// The rule named `id`.
    pub fn rule(&self, id: &RuleId) -> Option<&DesiredRule> {
        self.place_of_rule(id).map(|place| &self.rules[place])
    }

    /// The index of the rule named `id`. Quick where rules are ordered by name, as the control plane keeps them.
    pub(crate) fn place_of_rule(&self, id: &RuleId) -> Option<usize> {
        let found = self.rules.binary_search_by(|rule| rule.id.cmp(id)).ok();
        found.or_else(|| self.rules.iter().position(|rule| rule.id == *id))
    }
}

/// A named list of prefixes of one family (§1.6). An empty list matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredPrefixList {
    /// The prefixes.
    pub entries: BTreeSet<IpNet>,
}

/// A named list of destination port ranges (§1.7). An empty list matches nothing.
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
    /// The subnet it is in, which also determines its VPC.
    pub vswitch: VSwitchId,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its private addresses, the primary one first, and prefixes delegated to it.
    pub addresses: Vec<IpNet>,
    /// The groups it is a member of: at least one, all in its VPC, all of the same kind.
    pub groups: BTreeSet<GroupId>,
    /// Whether packets that it sends must carry one of its addresses as source, and packets that it gets one as
    /// destination (§3.4).
    #[serde(default = "enabled")]
    pub source_dest_check: bool,
    /// Whether blocks that a custom route sends to it count as its own addresses, so that it may forward what is routed
    /// to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub routed_as_own: bool,
    /// How long its sessions may idle (§4.2).
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How many sessions it may hold at once (§4.5).
    #[serde(default = "DesiredEni::default_sessions_max")]
    pub sessions_max: u32,
    /// Its share of the session tables, and what is checked besides rules.
    #[serde(default)]
    pub tracking: Tracking,
    /// The name that its guest is told to have (DHCP option 12); its identifier if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// How much it may send and receive.
    #[serde(default, skip_serializing_if = "DesiredEni::has_default_rates")]
    pub rate_limits: RateLimits,
    /// Where its frames come from and go to; absent while it is not attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<DesiredPort>,
}

impl DesiredEni {
    fn has_default_rates(limits: &RateLimits) -> bool {
        *limits == RateLimits::default()
    }

    /// How many sessions an ENI may hold by default.
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

/// An ENI's share of its worker's session table, and what is checked besides rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracking {
    /// This many sessions find room even in a full table, at the expense of ENIs that hold more than their own
    /// guarantee.
    pub sessions_guaranteed: u32,
    /// Sessions that it may open per second, and in one burst after an idle second; unlimited if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_sessions_per_s: Option<u32>,
    /// TCP segments outside the window that their receiver announced are dropped.
    pub tcp_window_check: bool,
}

impl Default for Tracking {
    fn default() -> Self {
        Self { sessions_guaranteed: 1024, new_sessions_per_s: None, tcp_window_check: false }
    }
}

/// Idle timeouts of an ENI's sessions, seconds (§4.2). A change applies to sessions that start after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// After the handshake: one of [`Timeouts::TCP_ESTABLISHED_S`].
    pub tcp_established_s: u16,
    /// After RST, or FIN from both sides: 3 to 15.
    pub tcp_closed_s: u16,
    /// One of [`Timeouts::UDP_S`]; also used for GRE and other protocols.
    pub udp_s: u16,
}

impl Timeouts {
    /// Permitted values for established TCP sessions.
    pub const TCP_ESTABLISHED_S: [u16; 9] = [30, 60, 80, 100, 200, 300, 500, 700, 910];
    /// Permitted values for UDP sessions.
    pub const UDP_S: [u16; 6] = [10, 20, 30, 60, 80, 100];
    /// The lowest and the highest permitted value for closed TCP sessions.
    pub const TCP_CLOSED_S: (u16, u16) = (3, 15);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp_established_s: 910, tcp_closed_s: 3, udp_s: 30 }
    }
}

/// What an ENI is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum DesiredPort {
    /// A TAP device of this machine's kernel.
    Tap(TapPort),
    /// An existing network interface of the machine.
    Packet(PacketPort),
    /// A device with a hardware address of its own on the network of another device.
    Macvtap(MacvtapPort),
    /// A virtual machine that shares its memory, over a Unix socket.
    VhostUser(VhostUserPort),
    /// A Unix stream socket on which each frame follows its length.
    Stream(StreamPort),
    /// A TAP device whose descriptors another process hands over at a Unix socket.
    TapSocket(TapSocketPort),
    /// An in-memory queue that tests and benchmarks feed by hand.
    Memory,
}

impl DesiredPort {
    /// The name of its type, as in JSON and in listings.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tap(_) => "tap",
            Self::Packet(_) => "packet",
            Self::Macvtap(_) => "macvtap",
            Self::VhostUser(_) => "vhost-user",
            Self::Stream(_) => "stream",
            Self::TapSocket(_) => "tap-socket",
            Self::Memory => "memory",
        }
    }

    /// The largest layer-3 packet that the port carries, bytes.
    pub const fn mtu_bytes(&self) -> u16 {
        match self {
            Self::Tap(tap) => tap.mtu_bytes,
            Self::Packet(packet) => packet.mtu_bytes,
            Self::Macvtap(macvtap) => macvtap.mtu_bytes,
            Self::VhostUser(socket) => socket.mtu_bytes,
            Self::Stream(socket) => socket.mtu_bytes,
            Self::TapSocket(socket) => socket.mtu_bytes,
            Self::Memory => MTU_BYTES_MAX as u16,
        }
    }

    /// The machine's resource that the port has to itself: a kernel device with the named network namespace it is in,
    /// or the path of a socket.
    pub fn resource(&self) -> Option<(&str, Option<&str>)> {
        self.device().or_else(|| self.socket_path().map(|path| (path, None)))
    }

    /// The path of the Unix socket that the port has to itself.
    pub fn socket_path(&self) -> Option<&str> {
        match self {
            Self::VhostUser(socket) => Some(&socket.path),
            Self::Stream(socket) => Some(&socket.path),
            Self::TapSocket(socket) => Some(&socket.path),
            Self::Tap(_) | Self::Packet(_) | Self::Macvtap(_) | Self::Memory => None,
        }
    }

    /// The kernel device that the port has to itself, with the named network namespace it is in.
    pub fn device(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Tap(tap) => Some((&tap.device, tap.namespace.as_deref())),
            Self::Packet(packet) => Some((&packet.device, packet.namespace.as_deref())),
            Self::Macvtap(macvtap) => Some((&macvtap.device, None)),
            Self::VhostUser(_) | Self::Stream(_) | Self::TapSocket(_) | Self::Memory => None,
        }
    }
}

/// A TAP device, created by the switch or adopted if it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapPort {
    /// The device's name, at most 15 bytes.
    pub device: String,
    /// The named network namespace it is in; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Create the namespace if it does not exist, and remove it with the port if the switch created it.
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

/// An existing network interface of the machine, used as it is: a network card, or one end of a veth pair. The guest is
/// whatever is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketPort {
    /// The interface's name, at most 15 bytes.
    pub device: String,
    /// The named network namespace it is in; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The largest layer-3 packet, bytes; the interface's own MTU should be no smaller.
    #[serde(default = "TapPort::default_mtu_bytes")]
    pub mtu_bytes: u16,
}

/// A macvtap device in bridge mode, created by the switch in its own network namespace: it has a hardware address of its
/// own on the network of another device, its lower device, which stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacvtapPort {
    /// The name of the device that is made, at most 15 bytes.
    pub device: String,
    /// The name of the lower device.
    pub lower_device: String,
    /// The named network namespace that the lower device is in; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_namespace: Option<String>,
    /// The largest layer-3 packet, bytes; at most what the lower device carries.
    #[serde(default = "TapPort::default_mtu_bytes")]
    pub mtu_bytes: u16,
}

/// A virtio network device whose driver is in a virtual machine, by the vhost-user protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VhostUserPort {
    /// The Unix socket of the device: an absolute path of at most 107 bytes.
    pub path: String,
    /// Whether the hypervisor listens at the socket and the switch connects to it, again and again; the switch listens if not.
    #[serde(default)]
    pub is_client: bool,
    /// The most pairs of queues that the guest may use, 1 to 16.
    #[serde(default = "VhostUserPort::default_queues")]
    pub queues: u16,
    /// The user, by name or number, who may connect to a socket that the switch listens at; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_user: Option<String>,
    /// The largest layer-3 packet, bytes.
    #[serde(default = "TapPort::default_mtu_bytes")]
    pub mtu_bytes: u16,
}

/// A Unix stream socket on which each frame follows its length, as `-netdev stream` of QEMU and passt speak it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPort {
    /// The socket: an absolute path of at most 107 bytes.
    pub path: String,
    /// Whether the other side listens at the socket and the switch connects to it, again and again; the switch listens if
    /// not.
    #[serde(default)]
    pub is_client: bool,
    /// The user, by name or number, who may connect to a socket that the switch listens at; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_user: Option<String>,
    /// The largest layer-3 packet, bytes.
    #[serde(default = "TapPort::default_mtu_bytes")]
    pub mtu_bytes: u16,
}

/// A TAP device that another process made, in a namespace that the switch need not enter: at the socket it hands over
/// descriptors of the device, one for each queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapSocketPort {
    /// The socket that the switch listens at: an absolute path of at most 107 bytes.
    pub path: String,
    /// The user, by name or number, who may connect; the switch's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_user: Option<String>,
    /// The largest layer-3 packet, bytes.
    #[serde(default = "TapPort::default_mtu_bytes")]
    pub mtu_bytes: u16,
}

impl VhostUserPort {
    /// The most pairs of queues that a guest may use.
    pub const QUEUES_MAX: u16 = 16;

    /// The default for the pairs of queues: as many as the guest wants.
    pub const fn default_queues() -> u16 {
        Self::QUEUES_MAX
    }
}

impl TapPort {
    /// The default MTU.
    pub const fn default_mtu_bytes() -> u16 {
        1500
    }
}
