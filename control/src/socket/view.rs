//! Objects as they are shown: with all fields, texts as the cloud writes them, ready for `--json`.

pub use super::guest_view::GuestNetworkView;
pub use super::outside_view::{EipView, FloatingView, ForwardView, NatGatewayView, PeeringView, SnatView, UplinkView};
pub use crate::command::RuleView;
use crate::model::{Eni, Group, Model, PortList, PrefixList, Route, Rule, VSwitch, Vpc, timestamp};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::{DesiredPort, Direction, GroupKind, Policy, Settings, Timeouts, Tracking};
use vswitch_core::config::ids::{EniId, GroupId, MacAddress, PortListId, PrefixListId, RuleId, VSwitchId, VpcId};
use vswitch_core::config::protocol::Status;
use vswitch_core::config::rate_limits::RateLimits;

macro_rules! views {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}
pub(super) use views;

views! {
    /// A VPC.
    VpcView {
        /// Its identifier.
        id: VpcId,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// Its IPv4 block.
        cidr: Ipv4Net,
        /// Its secondary IPv4 blocks.
        secondary_cidrs: Vec<Ipv4Net>,
        /// Its IPv6 block.
        ipv6_cidr: Option<Ipv6Net>,
        /// Its custom routes.
        routes: Vec<RouteView>,
        /// Its subnets.
        vswitches: Vec<VSwitchId>,
        /// How many security groups it has.
        groups: usize,
        /// How many network interfaces it has.
        enis: usize,
        /// When it was made.
        created: String,
    }

    /// A custom route.
    RouteView {
        /// Its identifier; empty for one that an old version made.
        id: String,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// The destination.
        destination: IpNet,
        /// The ENI that packets for it go to.
        eni: EniId,
    }

    /// A subnet.
    VSwitchView {
        /// Its identifier.
        id: VSwitchId,
        /// The VPC it is part of.
        vpc: VpcId,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// Its IPv4 block.
        cidr: Ipv4Net,
        /// The router's address.
        gateway: Ipv4Addr,
        /// Its IPv6 block.
        ipv6_cidr: Option<Ipv6Net>,
        /// The router's IPv6 address.
        ipv6_gateway: Option<Ipv6Addr>,
        /// Reservations for delegated prefixes, by identifier.
        reserved: std::collections::BTreeMap<String, IpNet>,
        /// How many network interfaces it has.
        enis: usize,
        /// When it was made.
        created: String,
    }

    /// A network interface.
    EniView {
        /// Its identifier.
        id: EniId,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// The VPC it is in.
        vpc: VpcId,
        /// The subnet it is in.
        vswitch: VSwitchId,
        /// Its hardware address.
        mac: MacAddress,
        /// Its primary IPv4 address.
        primary_ip: Ipv4Addr,
        /// Its secondary IPv4 addresses.
        secondary_ips: Vec<Ipv4Addr>,
        /// Its IPv6 addresses.
        ipv6_addresses: Vec<Ipv6Addr>,
        /// Prefixes delegated to it.
        prefixes: Vec<IpNet>,
        /// What its private addresses are outside.
        #[serde(default)]
        floating: Vec<FloatingView>,
        /// What its guest is told about its network.
        #[serde(default)]
        guest_network: Option<GuestNetworkView>,
        /// The groups it is a member of.
        groups: Vec<GroupId>,
        /// Whether source and destination addresses are checked.
        source_dest_check: bool,
        /// How long its sessions may idle.
        timeouts: Timeouts,
        /// The most sessions it may hold at once.
        sessions_max: u32,
        /// Limits on its sessions, and checks in addition to the rules.
        tracking: Tracking,
        /// How much it may send and receive.
        #[serde(default)]
        rate_limits: RateLimits,
        /// The instance it belongs to, if any.
        instance: Option<String>,
        /// User data for its guest, or nothing.
        #[serde(default)]
        user_data: String,
        /// Its port; none while it is not attached.
        port: Option<DesiredPort>,
        /// When it was made.
        created: String,
    }

    /// A security group.
    GroupView {
        /// Its identifier.
        id: GroupId,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// The VPC it has effect in.
        vpc: VpcId,
        /// `basic` or `advanced`.
        kind: GroupKind,
        /// Whether members of a basic group reach each other without rules.
        inner_access: Policy,
        /// Whether a cloud service owns it.
        service_managed: bool,
        /// Whether it is the default group of its VPC.
        is_default: bool,
        /// Its members.
        members: Vec<EniId>,
        /// How many rules it has.
        rule_count: usize,
        /// What its rules weigh in the quota.
        weight: usize,
        /// Its rules; omitted in lists.
        rules: Option<Vec<RuleView>>,
        /// When it was made.
        created: String,
    }

    /// A prefix list.
    PrefixListView {
        /// Its identifier.
        id: PrefixListId,
        /// Its name.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// `ipv4` or `ipv6`.
        family: String,
        /// Room for this many entries.
        max_entries: u32,
        /// The entries.
        entries: Vec<ListEntryView>,
        /// Groups whose rules name it.
        groups: Vec<GroupId>,
        /// When it was made.
        created: String,
    }

    /// One entry of a prefix list or port list.
    ListEntryView {
        /// The prefix or the range.
        value: String,
        /// What it is for, or nothing.
        description: String,
    }

    /// A port list.
    PortListView {
        /// Its identifier.
        id: PortListId,
        /// Its name.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// Room for this many entries.
        max_entries: u32,
        /// The entries.
        entries: Vec<ListEntryView>,
        /// Groups whose rules name it.
        groups: Vec<GroupId>,
        /// When it was made.
        created: String,
    }

    /// Every object.
    StateView {
        /// The settings.
        settings: Settings,
        /// The VPCs.
        vpcs: Vec<VpcView>,
        /// The subnets.
        vswitches: Vec<VSwitchView>,
        /// The security groups, with their rules.
        groups: Vec<GroupView>,
        /// The prefix lists.
        prefix_lists: Vec<PrefixListView>,
        /// The port lists.
        port_lists: Vec<PortListView>,
        /// The network interfaces.
        enis: Vec<EniView>,
        /// The uplinks.
        #[serde(default)]
        uplinks: Vec<UplinkView>,
        /// The floating addresses.
        #[serde(default)]
        eips: Vec<EipView>,
        /// The NAT gateways.
        #[serde(default)]
        nat_gateways: Vec<NatGatewayView>,
        /// The forwards.
        #[serde(default)]
        forwards: Vec<ForwardView>,
        /// The peerings.
        #[serde(default)]
        peerings: Vec<PeeringView>,
    }

    /// Both planes at a glance.
    StatusView {
        /// The control plane's process.
        process_id: u32,
        /// Time since the control plane's start, ms.
        uptime_ms: u64,
        /// The data directory.
        data_dir: String,
        /// How many objects there are.
        objects: ObjectCounts,
        /// The state of the link to the forwarding plane.
        link: LinkView,
        /// What the forwarding plane reports about itself; nothing while it cannot be asked.
        forwarding: Option<Status>,
        /// Clients of the control socket.
        socket_clients: ClientsView,
        /// Clients of the HTTP interface, if there is one.
        http_clients: Option<ClientsView>,
    }

    /// Clients, their unfinished requests, and the limits.
    ClientsView {
        /// Connections.
        connections: usize,
        /// The most connections there may be.
        connections_max: usize,
        /// Bytes of unfinished or unanswered requests.
        unfinished_bytes: usize,
        /// The most bytes of such requests there may be.
        unfinished_bytes_max: usize,
        /// Connections and requests that were refused for lack of room.
        refused: u64,
    }

    /// The connection to the forwarding plane.
    LinkView {
        /// The forwarding plane's socket.
        socket: String,
        /// Whether it is connected.
        connected: bool,
        /// Whether the forwarding plane runs the present state.
        in_sync: bool,
        /// The generation the forwarding plane last acknowledged.
        generation: u64,
        /// Why it is not connected or not in sync.
        reason: Option<String>,
    }

    /// How many objects there are.
    ObjectCounts {
        /// VPCs.
        vpcs: usize,
        /// Subnets.
        vswitches: usize,
        /// Security groups.
        groups: usize,
        /// Rules of all groups.
        rules: usize,
        /// Prefix lists.
        prefix_lists: usize,
        /// Port lists.
        port_lists: usize,
        /// Network interfaces.
        enis: usize,
        /// Uplinks.
        #[serde(default)]
        uplinks: usize,
        /// Floating addresses.
        #[serde(default)]
        eips: usize,
    }
}

impl VpcView {
    pub(crate) fn new(model: &Model, id: &VpcId, vpc: &Vpc) -> Self {
        let vswitches = model.vswitches.iter().filter(|(_, vswitch)| vswitch.vpc == *id);
        Self {
            id: id.clone(),
            name: vpc.name.clone(),
            description: vpc.description.clone(),
            cidr: vpc.cidr,
            secondary_cidrs: vpc.secondary_cidrs.clone(),
            ipv6_cidr: vpc.ipv6_cidr,
            routes: vpc.routes.iter().map(RouteView::of).collect(),
            vswitches: vswitches.map(|(id, _)| id.clone()).collect(),
            groups: model.groups.values().filter(|group| group.vpc == *id).count(),
            enis: model.enis.values().filter(|eni| eni.vpc == *id).count(),
            created: timestamp(vpc.created_s),
        }
    }
}

impl RouteView {
    fn of(route: &Route) -> Self {
        let Route { id, destination, eni, instance: _, name, description, created_s: _ } = route.clone();
        Self { id, name, description, destination, eni }
    }
}

impl VSwitchView {
    pub(crate) fn new(model: &Model, id: &VSwitchId, vswitch: &VSwitch) -> Self {
        Self {
            id: id.clone(),
            vpc: vswitch.vpc.clone(),
            name: vswitch.name.clone(),
            description: vswitch.description.clone(),
            cidr: vswitch.cidr,
            gateway: vswitch.gateway(),
            ipv6_cidr: vswitch.ipv6_cidr,
            ipv6_gateway: vswitch.ipv6_gateway(),
            reserved: vswitch.reservations.iter().map(|(id, kept)| (id.clone(), kept.cidr)).collect(),
            enis: model.enis.values().filter(|eni| eni.vswitch == *id).count(),
            created: timestamp(vswitch.created_s),
        }
    }
}

impl EniView {
    pub(crate) fn new(model: &Model, id: &EniId, eni: &Eni) -> Self {
        Self {
            id: id.clone(),
            name: eni.name.clone(),
            description: eni.description.clone(),
            vpc: eni.vpc.clone(),
            vswitch: eni.vswitch.clone(),
            mac: eni.mac,
            primary_ip: eni.primary,
            secondary_ips: eni.secondary.iter().copied().collect(),
            ipv6_addresses: eni.ipv6.iter().copied().collect(),
            prefixes: eni.prefixes.iter().copied().collect(),
            floating: FloatingView::of_eni(model, id, eni),
            guest_network: GuestNetworkView::new(model, id, eni),
            groups: eni.groups.iter().cloned().collect(),
            source_dest_check: eni.source_dest_check.unwrap_or(true),
            timeouts: eni.timeouts,
            sessions_max: eni.sessions_max,
            tracking: eni.tracking,
            rate_limits: eni.rate_limits,
            instance: eni.instance.clone(),
            user_data: eni.user_data.clone(),
            port: eni.port.clone(),
            created: timestamp(eni.created_s),
        }
    }
}

impl GroupView {
    pub(crate) fn new(model: &Model, id: &GroupId, group: &Group, with_rules: bool) -> Self {
        Self {
            id: id.clone(),
            name: group.name.clone(),
            description: group.description.clone(),
            vpc: group.vpc.clone(),
            kind: group.kind,
            inner_access: group.inner_access,
            service_managed: group.service_managed,
            is_default: group.is_default,
            members: model.index.members(id).cloned().collect(),
            rule_count: model.rules_of(id).len(),
            weight: model.group_weight(id),
            rules: with_rules.then(|| rules(model, id, None)),
            created: timestamp(group.created_s),
        }
    }
}

/// A group's rules in the order they are evaluated: by direction, priority, and drop before accept.
pub(crate) fn rules(model: &Model, group: &GroupId, direction: Option<Direction>) -> Vec<RuleView> {
    let wanted = |rule: &&Rule| direction.is_none_or(|direction| direction == rule.direction);
    let mut rules: Vec<(&RuleId, &Rule)> = model.rules_of(group).iter().filter(|(_, rule)| wanted(rule)).collect();
    rules.sort_by_key(|(id, rule)| (rule.direction, rule.priority, std::cmp::Reverse(rule.policy), *id));
    rules.into_iter().map(|(id, rule)| rule.view(group, id)).collect()
}

impl PrefixListView {
    pub(crate) fn new(model: &Model, id: &PrefixListId, list: &PrefixList) -> Self {
        let entry = |(cidr, description): (&IpNet, &String)| ListEntryView {
            value: cidr.to_string(),
            description: description.clone(),
        };
        Self {
            id: id.clone(),
            name: list.name.clone(),
            description: list.description.clone(),
            family: if list.is_ipv6 { "ipv6" } else { "ipv4" }.into(),
            max_entries: list.max_entries,
            entries: list.entries.iter().map(entry).collect(),
            groups: groups_that(model, |rule| rule.names_prefix_list(id)),
            created: timestamp(list.created_s),
        }
    }
}

impl PortListView {
    pub(crate) fn new(model: &Model, id: &PortListId, list: &PortList) -> Self {
        let entries = list
            .entries
            .iter()
            .map(|item| ListEntryView { value: item.ports.to_string(), description: item.description.clone() });
        Self {
            id: id.clone(),
            name: list.name.clone(),
            description: list.description.clone(),
            max_entries: list.max_entries,
            entries: entries.collect(),
            groups: groups_that(model, |rule| rule.names_port_list(id)),
            created: timestamp(list.created_s),
        }
    }
}

fn groups_that(model: &Model, names: impl Fn(&Rule) -> bool) -> Vec<GroupId> {
    model.rules.iter().filter(|(_, rules)| rules.values().any(&names)).map(|(group, _)| group.clone()).collect()
}

impl ObjectCounts {
    pub(crate) fn new(model: &Model) -> Self {
        Self {
            vpcs: model.vpcs.len(),
            vswitches: model.vswitches.len(),
            groups: model.groups.len(),
            rules: model.rules.values().map(|rules| rules.len()).sum(),
            prefix_lists: model.prefix_lists.len(),
            port_lists: model.port_lists.len(),
            enis: model.enis.len(),
            uplinks: model.uplinks.len(),
            eips: model.eips.len(),
        }
    }
}
