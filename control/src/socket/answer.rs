//! Answers queries about the model. Those that only the forwarding plane can answer are handled elsewhere.

use crate::error::ApiError;
use crate::model::Model;
use crate::socket::outside_view::{EipView, ForwardView, NatGatewayView, PeeringView, UplinkView};
use crate::socket::query::{Answer, Query};
use crate::socket::view::{self, EniView, GroupView, PortListView, PrefixListView, StateView, VSwitchView, VpcView};

impl Model {
    /// The answer to a query, or `None` if the query is not about the model.
    ///
    /// # Errors
    /// An object that is named does not exist.
    pub fn answer(&self, query: &Query) -> Result<Option<Answer>, ApiError> {
        Ok(Some(match query {
            Query::Status(_)
            | Query::Ports(_)
            | Query::Stats(_)
            | Query::Flows(_)
            | Query::FlowFlush(_)
            | Query::WorkersSet(_)
            | Query::Explain(_) => return Ok(None),
            Query::StateShow(_) => Answer::State(Box::new(self.state())),
            Query::VpcList(_) => Answer::Vpcs(self.vpc_views()),
            Query::VpcShow(show) => {
                let (id, vpc) = self.vpc(&show.vpc)?;
                Answer::Vpc(VpcView::new(self, &id, vpc))
            }
            Query::VswitchList(filter) => Answer::Vswitches(self.vswitch_views(filter.vpc.as_deref())?),
            Query::VswitchShow(show) => {
                let (id, vswitch) = self.vswitch(&show.vswitch)?;
                Answer::Vswitch(VSwitchView::new(self, &id, vswitch))
            }
            Query::EniList(filter) => Answer::Enis(self.eni_views(filter)?),
            Query::EniShow(show) => {
                let (id, eni) = self.eni(&show.eni)?;
                Answer::Eni(Box::new(EniView::new(self, &id, eni)))
            }
            Query::GroupList(filter) => Answer::Groups(self.group_views(filter.vpc.as_deref(), false)?),
            Query::GroupShow(show) => {
                let (id, group) = self.group(&show.group)?;
                Answer::Group(GroupView::new(self, &id, group, true))
            }
            Query::RuleList(filter) => Answer::Rules(match &filter.group {
                Some(group) => view::rules(self, &self.group(group)?.0, filter.direction),
                None => self.groups.keys().flat_map(|group| view::rules(self, group, filter.direction)).collect(),
            }),
            Query::PrefixListList(_) => Answer::PrefixLists(self.prefix_list_views()),
            Query::PrefixListShow(show) => {
                let (id, list) = self.prefix_list(&show.prefix_list)?;
                Answer::PrefixList(PrefixListView::new(self, &id, list))
            }
            Query::PortListList(_) => Answer::PortLists(self.port_list_views()),
            Query::PortListShow(show) => {
                let (id, list) = self.port_list(&show.port_list)?;
                Answer::PortList(PortListView::new(self, &id, list))
            }
            Query::UplinkList(filter) => Answer::Uplinks(self.uplink_views(filter)?),
            Query::UplinkShow(show) => {
                let (id, uplink) = self.uplink(&show.uplink)?;
                Answer::Uplink(UplinkView::new(self, &id, uplink))
            }
            Query::EipList(filter) => Answer::Eips(self.eip_views(filter)?),
            Query::NatList(filter) => Answer::NatGateways(self.nat_views(filter)?),
            Query::ForwardList(filter) => Answer::Forwards(self.forward_views(filter)?),
            Query::PeeringList(filter) => Answer::Peerings(self.peering_views(filter)?),
            Query::SettingsShow(_) => Answer::Settings(self.settings.clone()),
        }))
    }

    fn state(&self) -> StateView {
        StateView {
            settings: self.settings.clone(),
            vpcs: self.vpc_views(),
            vswitches: self.vswitches.iter().map(|(id, vswitch)| VSwitchView::new(self, id, vswitch)).collect(),
            groups: self.groups.iter().map(|(id, group)| GroupView::new(self, id, group, true)).collect(),
            prefix_lists: self.prefix_list_views(),
            port_lists: self.port_list_views(),
            enis: self.enis.iter().map(|(id, eni)| EniView::new(self, id, eni)).collect(),
            uplinks: self.uplinks.iter().map(|(id, it)| UplinkView::new(self, id, it)).collect(),
            eips: self.eips.iter().map(|(id, it)| EipView::new(self, id, it)).collect(),
            nat_gateways: self.nat_gateways.iter().map(|(id, it)| NatGatewayView::new(self, id, it)).collect(),
            forwards: self.forwards.iter().map(|(id, it)| ForwardView::new(self, id, it)).collect(),
            peerings: self.peerings.iter().map(|(id, it)| PeeringView::new(id, it)).collect(),
        }
    }

    fn vpc_views(&self) -> Vec<VpcView> {
        self.vpcs.iter().map(|(id, vpc)| VpcView::new(self, id, vpc)).collect()
    }

    fn vswitch_views(&self, vpc: Option<&str>) -> Result<Vec<VSwitchView>, ApiError> {
        let vpc = vpc.map(|vpc| self.vpc(vpc)).transpose()?.map(|(id, _)| id);
        let wanted = self.vswitches.iter().filter(|(_, vswitch)| vpc.as_ref().is_none_or(|vpc| *vpc == vswitch.vpc));
        Ok(wanted.map(|(id, vswitch)| VSwitchView::new(self, id, vswitch)).collect())
    }

    fn eni_views(&self, filter: &crate::socket::query::EniFilter) -> Result<Vec<EniView>, ApiError> {
        let vpc = filter.vpc.as_deref().map(|id| self.vpc(id)).transpose()?.map(|(id, _)| id);
        let vswitch = filter.vswitch.as_deref().map(|id| self.vswitch(id)).transpose()?.map(|(id, _)| id);
        let group = filter.group.as_deref().map(|id| self.group(id)).transpose()?.map(|(id, _)| id);
        let wanted = self.enis.iter().filter(|(_, eni)| {
            vpc.as_ref().is_none_or(|vpc| *vpc == eni.vpc)
                && vswitch.as_ref().is_none_or(|vswitch| *vswitch == eni.vswitch)
                && group.as_ref().is_none_or(|group| eni.groups.contains(group))
        });
        Ok(wanted.map(|(id, eni)| EniView::new(self, id, eni)).collect())
    }

    fn group_views(&self, vpc: Option<&str>, with_rules: bool) -> Result<Vec<GroupView>, ApiError> {
        let vpc = vpc.map(|vpc| self.vpc(vpc)).transpose()?.map(|(id, _)| id);
        let wanted = self.groups.iter().filter(|(_, group)| vpc.as_ref().is_none_or(|vpc| *vpc == group.vpc));
        Ok(wanted.map(|(id, group)| GroupView::new(self, id, group, with_rules)).collect())
    }

    fn prefix_list_views(&self) -> Vec<PrefixListView> {
        self.prefix_lists.iter().map(|(id, list)| PrefixListView::new(self, id, list)).collect()
    }

    fn port_list_views(&self) -> Vec<PortListView> {
        self.port_lists.iter().map(|(id, list)| PortListView::new(self, id, list)).collect()
    }
}
