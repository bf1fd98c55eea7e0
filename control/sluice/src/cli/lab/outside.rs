//! The part of a lab file about what leaves a VPC: uplinks, floating addresses, NAT gateways, forwards and peerings.

use super::{LabFile, LabPlan, needed, other, same};
use crate::cli::CliError;
use control::command::{
    Command, EipAllocate, EipAssociate, EipModify, EipUnassociate, ForwardAdd, ForwardModify, NatCreate, NatModify,
    PeeringCreate, SnatAdd, SnatModify, UplinkCreate, UplinkModify,
};
use control::socket::view::{EipView, NatGatewayView, StateView, UplinkView};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use vswitch_core::config::desired::DesiredPort;

/// A floating address, and what it stands for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabEip {
    #[serde(flatten)]
    create: EipAllocate,
    /// The ENI, the instance or the NAT gateway.
    target: Option<String>,
    /// The private address of the ENI.
    private_ip: Option<String>,
}

/// A NAT gateway, and its entries for sources.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabNat {
    #[serde(flatten)]
    create: NatCreate,
    #[serde(default)]
    sources: Vec<LabSource>,
}

/// An entry for sources, of the gateway that it stands in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabSource {
    id: String,
    vswitch: Option<String>,
    cidr: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    name: Option<String>,
}

impl LabPlan {
    /// Floating addresses come from uplinks, and gateways get them before their entries name them.
    pub(super) fn outside(&mut self, lab: &LabFile, state: &StateView) -> Result<(), CliError> {
        for uplink in &lab.uplink {
            self.uplink(uplink, state)?;
        }
        for nat in &lab.nat {
            self.nat(&nat.create, state)?;
        }
        for eip in &lab.eip {
            self.eip(eip, state)?;
        }
        for nat in &lab.nat {
            self.sources(nat, state)?;
        }
        for forward in &lab.forward {
            self.forward(forward, state)?;
        }
        for peering in &lab.peering {
            self.peering(peering, state)?;
        }
        Ok(())
    }

    fn uplink(&mut self, uplink: &UplinkCreate, state: &StateView) -> Result<(), CliError> {
        let id = needed(&uplink.id, "an uplink")?;
        let Some(view) = state.uplinks.iter().find(|view| view.id.as_str() == id) else {
            let kind = uplink.kind.unwrap_or_default().name();
            self.push(
                format!("+ uplink {id} of {} by {kind}", uplink.vpc),
                Command::UplinkCreate(uplink.clone().into()),
            );
            return Ok(());
        };
        same_uplink(&format!("uplink {id}"), uplink, view)?;
        let addresses: BTreeSet<String> = view.addresses.iter().map(ToString::to_string).collect();
        let addresses_differ =
            !uplink.addresses.is_empty() && uplink.addresses.iter().cloned().collect::<BTreeSet<_>>() != addresses;
        let modify = UplinkModify {
            uplink: id.clone(),
            addresses: addresses_differ.then(|| uplink.addresses.clone()),
            nat: uplink.nat.filter(|wanted| *wanted != view.nat),
            nat_filtering: uplink.nat_filtering.filter(|wanted| *wanted != view.nat_filtering),
            nat_port_blocks: uplink.nat_port_blocks.filter(|wanted| *wanted != view.nat_port_blocks),
            nat_udp_timeout_s: uplink.nat_udp_timeout_s.filter(|wanted| *wanted != view.nat_udp_timeout_s),
            masquerade: Some(uplink.masquerade).filter(|wanted| *wanted != view.masquerade),
            name: other(&uplink.name, &view.name),
            description: other(&uplink.description, &view.description),
        };
        if modify != (UplinkModify { uplink: id.clone(), ..UplinkModify::default() }) {
            self.push(format!("~ uplink {id}"), Command::UplinkModify(modify));
        }
        Ok(())
    }

    fn nat(&mut self, nat: &NatCreate, state: &StateView) -> Result<(), CliError> {
        let id = needed(&nat.id, "a nat")?;
        let Some(view) = find_nat(state, &id) else {
            self.push(format!("+ nat {id} of {}", nat.vpc), Command::NatCreate(nat.clone()));
            return Ok(());
        };
        same(&format!("nat {id}"), "vpc", &nat.vpc, view.vpc.as_str())?;
        let (name, description) = (other(&nat.name, &view.name), other(&nat.description, &view.description));
        if name.is_some() || description.is_some() {
            self.push(format!("~ nat {id}"), Command::NatModify(NatModify { nat: id, name, description }));
        }
        Ok(())
    }

    fn sources(&mut self, nat: &LabNat, state: &StateView) -> Result<(), CliError> {
        let id = needed(&nat.create.id, "a nat")?;
        for entry in &nat.sources {
            let present = find_nat(state, &id).and_then(|view| view.sources.iter().find(|view| view.id == entry.id));
            let Some(view) = present else {
                let LabSource { id: entry_id, vswitch, cidr, addresses, name } = entry.clone();
                let from = vswitch.clone().or(cidr.clone()).unwrap_or_else(|| "all".into());
                let add = SnatAdd { id: Some(entry_id), nat: id.clone(), vswitch, cidr, addresses, name };
                self.push(format!("+ source of {id}: {from}"), Command::SnatAdd(add));
                continue;
            };
            let now: BTreeSet<String> = view.addresses.iter().map(ToString::to_string).collect();
            let wanted: BTreeSet<String> = entry.addresses.iter().cloned().collect();
            let addresses = (!wanted.is_empty() && wanted != now).then(|| entry.addresses.clone());
            let name = other(&entry.name, &view.name);
            if addresses.is_some() || name.is_some() {
                let modify = SnatModify { snat: entry.id.clone(), addresses, name };
                self.push(format!("~ source of {id}: {}", entry.id), Command::SnatModify(modify));
            }
        }
        Ok(())
    }

    fn eip(&mut self, eip: &LabEip, state: &StateView) -> Result<(), CliError> {
        let id = needed(&eip.create.id, "an eip")?;
        let view = state.eips.iter().find(|view| view.id == id);
        match view {
            None => {
                let address = eip.create.address.clone().map(|address| format!(" {address}")).unwrap_or_default();
                self.push(format!("+ eip {id}{address}"), Command::EipAllocate(eip.create.clone()));
            }
            Some(view) => {
                if let Some(address) = &eip.create.address {
                    same(&format!("eip {id}"), "address", address, &view.address.to_string())?;
                }
                let name = other(&eip.create.name, &view.name);
                let description = other(&eip.create.description, &view.description);
                if name.is_some() || description.is_some() {
                    let modify = EipModify { eip: id.clone(), name, description };
                    self.push(format!("~ eip {id}"), Command::EipModify(modify));
                }
            }
        }
        let Some(target) = &eip.target else { return Ok(()) };
        if view.is_some_and(|view| stands_for(view, target, eip.private_ip.as_deref(), state)) {
            return Ok(());
        }
        if view.is_some_and(|view| view.eni.is_some() || view.nat.is_some()) {
            let unassociate = EipUnassociate { eip: id.clone(), force: false };
            self.push(format!("- target of eip {id}"), Command::EipUnassociate(unassociate));
        }
        let associate = EipAssociate { eip: id.clone(), target: target.clone(), private_ip: eip.private_ip.clone() };
        self.push(format!("+ eip {id} for {target}"), Command::EipAssociate(associate));
        Ok(())
    }

    fn forward(&mut self, forward: &ForwardAdd, state: &StateView) -> Result<(), CliError> {
        let id = needed(&forward.id, "a forward")?;
        let Some(view) = state.forwards.iter().find(|view| view.id == id) else {
            let told = format!("+ forward {id} of {}: port {} to {}", forward.vpc, forward.ports, forward.to);
            self.push(told, Command::ForwardAdd(forward.clone()));
            return Ok(());
        };
        same(&format!("forward {id}"), "vpc", &forward.vpc, view.vpc.as_str())?;
        let first = |ports: &str| ports.split_once('-').map_or(ports, |(first, _)| first).parse().ok();
        let to_port = forward.to_port.or_else(|| first(&forward.ports));
        let protocol = forward.protocol.as_deref().unwrap_or("tcp").to_ascii_lowercase();
        let modify = ForwardModify {
            forward: id.clone(),
            external: other(&forward.external, &view.external.to_string()),
            protocol: other(&Some(protocol), view.protocol.name()),
            ports: other(&Some(forward.ports.replace('/', "-").to_ascii_lowercase()), &view.ports),
            to: other(&Some(forward.to.clone()), &view.to.to_string()),
            to_port: to_port.filter(|wanted| Some(*wanted) != first(&view.to_ports)),
            name: other(&forward.name, &view.name),
        };
        if modify != (ForwardModify { forward: id.clone(), ..ForwardModify::default() }) {
            self.push(format!("~ forward {id}"), Command::ForwardModify(modify));
        }
        Ok(())
    }

    fn peering(&mut self, peering: &PeeringCreate, state: &StateView) -> Result<(), CliError> {
        let id = needed(&peering.id, "a peering")?;
        let Some(view) = state.peerings.iter().find(|view| view.id == id) else {
            let told = format!("+ peering {id} of {} and {}", peering.vpc, peering.peer);
            self.push(told, Command::PeeringCreate(peering.clone()));
            return Ok(());
        };
        same(&format!("peering {id}"), "vpc", &peering.vpc, view.vpc.as_str())?;
        same(&format!("peering {id}"), "peer", &peering.peer, view.peer.as_str())
    }
}

fn find_nat<'a>(state: &'a StateView, id: &str) -> Option<&'a NatGatewayView> {
    state.nat_gateways.iter().find(|view| view.id == id)
}

/// Refuses to change what an uplink is attached to.
fn same_uplink(object: &str, uplink: &UplinkCreate, view: &UplinkView) -> Result<(), CliError> {
    same(object, "vpc", &uplink.vpc, view.vpc.as_str())?;
    same(object, "kind", uplink.kind.unwrap_or_default().name(), view.kind.name())?;
    let (device, namespace) = match &view.port {
        // Its own name is not chosen.
        DesiredPort::Macvtap(macvtap) => (macvtap.lower_device.as_str(), macvtap.lower_namespace.as_deref()),
        port => port.resource().unwrap_or_default(),
    };
    if let Some(wanted) = uplink.device.as_ref().or(uplink.stream.as_ref()) {
        same(object, "port", wanted, device)?;
    }
    if let Some(wanted) = &uplink.namespace {
        same(object, "namespace", wanted, namespace.unwrap_or_default())?;
    }
    let ipv4 = view.ipv4.map(|it| [it.address.to_string(), it.next_hop.to_string()]).unwrap_or_default();
    let ipv6 = view.ipv6.map(|it| [it.address.to_string(), it.next_hop.to_string()]).unwrap_or_default();
    for (field, wanted, now) in [
        ("address", &uplink.address, &ipv4[0]),
        ("next hop", &uplink.next_hop, &ipv4[1]),
        ("IPv6 address", &uplink.ipv6_address, &ipv6[0]),
        ("IPv6 next hop", &uplink.ipv6_next_hop, &ipv6[1]),
    ] {
        if let Some(wanted) = wanted {
            same(object, field, wanted, now)?;
        }
    }
    Ok(())
}

/// Whether a floating address stands for what a file wants.
fn stands_for(view: &EipView, target: &str, private_ip: Option<&str>, state: &StateView) -> bool {
    if view.nat.as_deref() == Some(target) {
        return true;
    }
    let named = view.instance.as_deref().or(view.eni.as_ref().map(|eni| eni.as_str()));
    let primary = state.enis.iter().find(|eni| Some(&eni.id) == view.eni.as_ref()).map(|eni| eni.primary_ip);
    let wanted: Option<Ipv4Addr> = private_ip.map_or(primary, |text| text.parse().ok());
    named == Some(target) && wanted == view.private_ip
}

#[cfg(test)]
mod tests {
    use super::super::{LabStep, batch, plan, read};
    use control::environment::Environment;
    use control::model::{Model, Quotas};
    use control::socket::query::{Answer, Nothing, Query};

    const LAB: &str = "
        [[vpc]]
        id = 'vpc-1'
        cidr = '10.0.0.0/16'
        [[vpc]]
        id = 'vpc-2'
        cidr = '10.2.0.0/16'
        [[vswitch]]
        id = 'vsw-1'
        vpc = 'vpc-1'
        cidr = '10.0.1.0/24'
        [[group]]
        id = 'sg-1'
        vpc = 'vpc-1'
        [[eni]]
        id = 'eni-1'
        vswitch = 'vsw-1'
        ip = '10.0.1.10'
        groups = ['sg-1']
        [[uplink]]
        id = 'upl-1'
        vpc = 'vpc-1'
        masquerade = true
        addresses = ['203.0.113.0/24']
        [[nat]]
        id = 'ngw-1'
        vpc = 'vpc-1'
        sources = [{ id = 'snat-1', vswitch = 'vsw-1' }]
        [[eip]]
        id = 'eip-1'
        address = '203.0.113.7'
        target = 'eni-1'
        [[eip]]
        id = 'eip-2'
        target = 'ngw-1'
        [[forward]]
        id = 'fwd-1'
        vpc = 'vpc-1'
        ports = '8080/8081'
        to = '10.0.1.10'
        to_port = 80
        [[peering]]
        id = 'pcc-1'
        vpc = 'vpc-1'
        peer = 'vpc-2'
    ";

    /// What a file changes, in words, once it is changed.
    fn apply(model: &mut Model, text: &str) -> Vec<String> {
        let Ok(Some(Answer::State(state))) = model.answer(&Query::StateShow(Nothing {})) else { panic!() };
        let steps = plan(&read(text).unwrap(), &state).unwrap();
        let told = steps.iter().map(|step: &LabStep| step.told.clone()).collect();
        for event in model.decide(&batch(steps), &Environment::fixed(0, 0)).unwrap() {
            model.apply(event);
        }
        told
    }

    #[test]
    fn a_lab_with_a_way_out_is_made_once_and_then_followed() {
        let mut model = Model::new(Quotas::default());
        assert_eq!(apply(&mut model, LAB).len(), 14);
        assert_eq!(apply(&mut model, LAB), Vec::<String>::new());
        let changed = LAB
            .replace("masquerade = true", "masquerade = false\nnat_filtering = 'endpoint'")
            .replace("target = 'eni-1'", "target = 'ngw-1'")
            .replace("8080/8081", "8080")
            .replace("vswitch = 'vsw-1' }", "vswitch = 'vsw-1', addresses = ['203.0.113.1'], name = 'out' }");
        let expected = [
            "~ uplink upl-1",
            "- target of eip eip-1",
            "+ eip eip-1 for ngw-1",
            "~ source of ngw-1: snat-1",
            "~ forward fwd-1",
        ];
        assert_eq!(apply(&mut model, &changed), expected);
        assert_eq!(apply(&mut model, &changed), Vec::<String>::new());
    }
}
