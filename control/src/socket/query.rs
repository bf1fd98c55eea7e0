//! Queries to the control plane, which change nothing, and their answers.
//!
//! On the wire a query is one JSON object whose `op` is the variant's name in kebab case, as in
//! `{"op":"eni-list","vpc":"vpc-1"}`.

use crate::command::{choice, vocabulary};
use crate::socket::outside_view::{EipView, ForwardView, NatGatewayView, PeeringView, UplinkView};
use crate::socket::view::{
    EniView, GroupView, PortListView, PrefixListView, RuleView, StateView, StatusView, VSwitchView, VpcView,
};
use clap::Args;
use serde::{Deserialize, Serialize};
use vswitch_core::config::desired::{Direction, Settings};
use vswitch_core::config::protocol::{
    EniStats, FlowCursor, FlowDescription, FlowSelection, PacketDescription, PortStatus, Regrouped,
};

/// A query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Query {
    /// Both planes at a glance. Answer: [`Answer::Status`].
    Status(Nothing),
    /// Every object. Answer: [`Answer::State`].
    StateShow(Nothing),
    /// All VPCs. Answer: [`Answer::Vpcs`].
    VpcList(Nothing),
    /// One VPC. Answer: [`Answer::Vpc`].
    VpcShow(VpcShow),
    /// Subnets. Answer: [`Answer::Vswitches`].
    VswitchList(VswitchFilter),
    /// One subnet. Answer: [`Answer::Vswitch`].
    VswitchShow(VswitchShow),
    /// Network interfaces. Answer: [`Answer::Enis`].
    EniList(EniFilter),
    /// One network interface. Answer: [`Answer::Eni`].
    EniShow(EniShow),
    /// Security groups, without their rules. Answer: [`Answer::Groups`].
    GroupList(GroupFilter),
    /// One security group with its rules and members. Answer: [`Answer::Group`].
    GroupShow(GroupShow),
    /// Rules, strongest first. Answer: [`Answer::Rules`].
    RuleList(RuleFilter),
    /// All prefix lists. Answer: [`Answer::PrefixLists`].
    PrefixListList(Nothing),
    /// One prefix list. Answer: [`Answer::PrefixList`].
    PrefixListShow(PrefixListShow),
    /// All port lists. Answer: [`Answer::PortLists`].
    PortListList(Nothing),
    /// One port list. Answer: [`Answer::PortList`].
    PortListShow(PortListShow),
    /// Uplinks. Answer: [`Answer::Uplinks`].
    UplinkList(OutsideFilter),
    /// One uplink. Answer: [`Answer::Uplink`].
    UplinkShow(UplinkShow),
    /// Floating addresses. Answer: [`Answer::Eips`].
    EipList(OutsideFilter),
    /// NAT gateways with their entries for sources. Answer: [`Answer::NatGateways`].
    NatList(OutsideFilter),
    /// Forwards. Answer: [`Answer::Forwards`].
    ForwardList(OutsideFilter),
    /// Peerings. Answer: [`Answer::Peerings`].
    PeeringList(OutsideFilter),
    /// The settings. Answer: [`Answer::Settings`].
    SettingsShow(Nothing),
    /// The state of all ports, from the forwarding plane. Answer: [`Answer::Ports`].
    Ports(Nothing),
    /// Counters, from the forwarding plane. Answer: [`Answer::Stats`].
    Stats(StatsFilter),
    /// A page of sessions, from the forwarding plane. Answer: [`Answer::Flows`].
    Flows(FlowList),
    /// Ends sessions, which are not part of the state. Answer: [`Answer::Flushed`].
    FlowFlush(FlowFlush),
    /// Changes the number of workers, which is not part of the state. Answer: [`Answer::Regrouped`].
    WorkersSet(WorkersSet),
    /// What would happen to a packet, from the forwarding plane. Answer: [`Answer::Explanation`].
    Explain(Explain),
}

vocabulary! {
    /// A query without parameters.
    Nothing {}

    /// Asks for one VPC.
    #[derive(Args)]
    VpcShow {
        /// The VPC.
        vpc: String,
    }

    /// Which subnets.
    #[derive(Args)]
    VswitchFilter {
        /// Only those of this VPC.
        #[arg(long)]
        vpc: Option<String>,
    }

    /// Asks for one subnet.
    #[derive(Args)]
    VswitchShow {
        /// The subnet.
        vswitch: String,
    }

    /// Which network interfaces.
    #[derive(Args)]
    EniFilter {
        /// Only those in this VPC.
        #[arg(long)]
        vpc: Option<String>,
        /// Only those in this subnet.
        #[arg(long)]
        vswitch: Option<String>,
        /// Only members of this group.
        #[arg(long)]
        group: Option<String>,
    }

    /// Asks for one network interface.
    #[derive(Args)]
    EniShow {
        /// The ENI.
        eni: String,
    }

    /// Which security groups.
    #[derive(Args)]
    GroupFilter {
        /// Only those of this VPC.
        #[arg(long)]
        vpc: Option<String>,
    }

    /// Asks for one security group.
    #[derive(Args)]
    GroupShow {
        /// The group.
        group: String,
    }

    /// Which rules.
    #[derive(Args)]
    RuleFilter {
        /// Only those of this group.
        group: Option<String>,
        /// Only those of this direction.
        #[arg(long, value_parser = choice(Direction::NAMES))]
        direction: Option<Direction>,
    }

    /// Asks for one prefix list.
    #[derive(Args)]
    PrefixListShow {
        /// The list.
        prefix_list: String,
    }

    /// Asks for one port list.
    #[derive(Args)]
    PortListShow {
        /// The list.
        port_list: String,
    }

    /// Which of what leaves a VPC.
    #[derive(Args)]
    OutsideFilter {
        /// Only those of this VPC.
        #[arg(long)]
        vpc: Option<String>,
    }

    /// Asks for one uplink.
    #[derive(Args)]
    UplinkShow {
        /// The uplink.
        uplink: String,
    }

    /// Which counters.
    #[derive(Args)]
    StatsFilter {
        /// Only those of this ENI.
        eni: Option<String>,
    }

    /// Asks for a page of sessions.
    FlowList {
        /// Which; all if absent.
        selection: Option<FlowSelection>,
        /// Where the previous page ended; the first page if absent.
        cursor: Option<FlowCursor>,
        /// The most sessions on the page; 1,000 if absent.
        limit: Option<usize>,
    }

    /// Ends the sessions in a part of the tables.
    FlowFlush {
        /// Which.
        selection: FlowSelection,
        /// Where the previous part ended; from the beginning if absent.
        cursor: Option<FlowCursor>,
    }

    /// The number of workers to run.
    #[derive(Args)]
    WorkersSet {
        /// Workers, each a thread with tables of its own.
        workers: usize,
        /// Workers that receive for each TAP device; unchanged if absent. At most as many as there are workers, and at
        /// most the `--rx-queues-max` with which the switch was started.
        #[arg(long = "rx-queues", alias = "lanes", value_name = "N")]
        lanes: Option<usize>,
    }
}

/// Asks what would happen to a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The packet.
    pub packet: PacketDescription,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Both planes at a glance.
    Status(Box<StatusView>),
    /// Every object.
    State(Box<StateView>),
    /// VPCs by identifier.
    Vpcs(Vec<VpcView>),
    /// A VPC.
    Vpc(VpcView),
    /// Subnets by identifier.
    Vswitches(Vec<VSwitchView>),
    /// A subnet.
    Vswitch(VSwitchView),
    /// Network interfaces by identifier.
    Enis(Vec<EniView>),
    /// A network interface.
    Eni(Box<EniView>),
    /// Security groups by identifier.
    Groups(Vec<GroupView>),
    /// A security group.
    Group(GroupView),
    /// Rules by group, direction, priority and policy.
    Rules(Vec<RuleView>),
    /// Prefix lists by identifier.
    PrefixLists(Vec<PrefixListView>),
    /// A prefix list.
    PrefixList(PrefixListView),
    /// Port lists by identifier.
    PortLists(Vec<PortListView>),
    /// A port list.
    PortList(PortListView),
    /// Uplinks by identifier.
    Uplinks(Vec<UplinkView>),
    /// An uplink.
    Uplink(UplinkView),
    /// Floating addresses by identifier.
    Eips(Vec<EipView>),
    /// NAT gateways by identifier.
    NatGateways(Vec<NatGatewayView>),
    /// Forwards by identifier.
    Forwards(Vec<ForwardView>),
    /// Peerings by identifier.
    Peerings(Vec<PeeringView>),
    /// The settings.
    Settings(Settings),
    /// Ports by ENI.
    Ports(Vec<PortStatus>),
    /// Counters by ENI.
    Stats(Vec<EniStats>),
    /// Sessions.
    Flows {
        /// The sessions. There may be none here and more on the next page.
        flows: Vec<FlowDescription>,
        /// Where the next page begins; absent after the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<FlowCursor>,
    },
    /// Sessions were ended by every worker that was asked.
    Flushed {
        /// How many.
        flows: u64,
        /// Where the next part begins; absent after the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<FlowCursor>,
    },
    /// The number of workers was changed.
    Regrouped(Regrouped),
    /// A packet's fate.
    Explanation(Box<vswitch_core::config::explanation::Explanation>),
}

impl Query {
    /// The `op` of every query.
    pub const OPS: [&str; 28] = [
        "status",
        "state-show",
        "vpc-list",
        "vpc-show",
        "vswitch-list",
        "vswitch-show",
        "eni-list",
        "eni-show",
        "group-list",
        "group-show",
        "rule-list",
        "prefix-list-list",
        "prefix-list-show",
        "port-list-list",
        "port-list-show",
        "uplink-list",
        "uplink-show",
        "eip-list",
        "nat-list",
        "forward-list",
        "peering-list",
        "settings-show",
        "ports",
        "stats",
        "flows",
        "flow-flush",
        "workers-set",
        "explain",
    ];

    /// Whether an `op` is that of a query.
    pub fn is_op(op: &str) -> bool {
        Self::OPS.contains(&op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_known_by_its_op() {
        // Serde lists all variants in its error about an unknown one.
        let error = serde_json::from_str::<Query>(r#"{"op":"none"}"#).unwrap_err().to_string();
        let listed: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(listed, Query::OPS);
    }
}
