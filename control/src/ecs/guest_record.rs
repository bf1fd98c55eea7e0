//! What the guests of an ENI may be told about it by the services process: the object with its metadata, as the API's
//! clients know it.

use crate::ecs::actions::instance::attributes::serial_number;
use crate::ecs::actions::key_pair;
use crate::ecs::dialect::settings::ApiSettings;
use crate::model::{Eni, Event, Instance, Metadata, Model, dhcp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use vswitch_core::config::ids::{EniId, VSwitchId, VpcId};
use vswitch_core::config::services::record::{GuestRecord, InstanceRecord};

/// The record of an ENI; `None` if there is no such ENI.
pub fn guest_record(model: &Model, settings: &ApiSettings, id: &EniId) -> Option<GuestRecord> {
    let eni = model.enis.get(id)?;
    let (vpc, vswitch) = (model.vpcs.get(&eni.vpc)?, model.vswitches.get(&eni.vswitch)?);
    let instance = model.instance_of(id);
    // What an instance is made with is noted with it alone.
    let label = instance.map_or_else(|| model.label(id.as_str()), |(instance, _)| model.label(instance));
    let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    let region = or(&model.label(eni.vpc.as_str()).region, settings.first_region());
    let zone = match model.label(eni.vswitch.as_str()).zone.as_str() {
        "" => settings.catalogue.zones_of(&region).into_iter().next().unwrap_or_default(),
        zone => zone.to_owned(),
    };
    let options = dhcp::options_of(model, &eni.vpc);
    Some(GuestRecord {
        vpc: eni.vpc.clone(),
        vpc_blocks: vpc.ipv4_cidrs().map(IpNet::V4).chain(vpc.ipv6_cidr.map(IpNet::V6)).collect(),
        vswitch: eni.vswitch.clone(),
        ipv4_block: vswitch.cidr,
        ipv6_block: vswitch.ipv6_cidr,
        ipv4_gateway: vswitch.gateway(),
        ipv6_gateway: vswitch.ipv6_gateway(),
        mac: eni.mac,
        ipv4: std::iter::once(eni.primary).chain(eni.secondary.iter().copied()).collect(),
        ipv6: eni.ipv6.iter().copied().collect(),
        public_ipv4: public_ipv4(model, id, eni),
        name_servers: options.name_servers,
        ntp_servers: options.ntp_servers,
        region,
        zone,
        owner: or(&label.owner, settings.first_account()),
        // Where a VPC has no way out, nothing that its guests ask may leave it either.
        forwards_dns: model.uplink_of(&eni.vpc).is_some(),
        // As the API has it of instances.
        user_data: STANDARD.encode(&eni.user_data),
        instance: instance.map(|(instance_id, instance)| instance_record(model, instance_id, instance, label)),
    })
}

/// The address that the primary one of an ENI has outside, whatever is translated; for a further ENI that of its instance.
fn public_ipv4(model: &Model, id: &EniId, eni: &Eni) -> Option<Ipv4Addr> {
    let own = model.eips_of(id).map(|(_, eip)| eip).find(|eip| eip.end() == Some((id, eni.primary)));
    let instance = model.instance_of(id);
    let of_instance = || {
        let (instance_id, instance) = instance?;
        let primary = instance.primary()?;
        let address = model.enis.get(primary)?.primary;
        let eip = model.eips_of(primary).map(|(_, eip)| eip).find(|eip| eip.end() == Some((primary, address)));
        eip.map(|eip| eip.address).or(model.public_address_of(instance_id))
    };
    own.map(|eip| eip.address).or_else(of_instance)
}

fn instance_record(model: &Model, id: &str, instance: &Instance, label: &Metadata) -> InstanceRecord {
    let mut enis: Vec<(&EniId, &u32)> = instance.enis.iter().collect();
    enis.sort_by_key(|(_, number)| **number);
    let attribute = |name: &str| Some(label.attribute(name)).filter(|value| !value.is_empty());
    let key = attribute(key_pair::NAME)
        .and_then(|name| Some((name.to_owned(), key_pair::public_key(model, &label.owner, name)?)));
    let has_tags = attribute("InstanceMetadataTags") != Some("disabled");
    InstanceRecord {
        id: id.to_owned(),
        name: instance.name.clone(),
        host_name: instance.host_name.clone(),
        instance_type: instance.instance_type.clone(),
        image: instance.image.clone(),
        serial_number: serial_number(id),
        enis: enis.into_iter().map(|(eni, _)| eni.clone()).collect(),
        tags: if has_tags { label.tags.clone() } else { BTreeMap::new() },
        public_keys: key.into_iter().collect(),
        user_data: label.attribute("UserData").to_owned(),
        has_metadata: attribute("HttpEndpoint") != Some("disabled"),
        needs_token: attribute("HttpTokens") == Some("required"),
        put_response_hop_limit: attribute("HttpPutResponseHopLimit").and_then(|hops| hops.parse().ok()),
    }
}

/// The ENIs whose records can depend on an object that has changed; `event` is the object as it is, or as it was.
pub fn enis_affected(model: &Model, event: &Event) -> BTreeSet<EniId> {
    match event {
        Event::Eni(id, _) => of_instance_of(model, id).chain([id.clone()]).collect(),
        Event::Instance(id, instance) => {
            let now = model.instances.get(id).into_iter().flat_map(|instance| instance.enis.keys());
            now.chain(instance.iter().flat_map(|instance| instance.enis.keys())).cloned().collect()
        }
        Event::Vpc(id, _) => in_vpc(model, id),
        Event::VSwitch(id, _) => in_vswitch(model, id),
        Event::Metadata(id, _) => of_object(model, id),
        Event::Eip(id, eip) => {
            let ends = eip.as_ref().into_iter().chain(model.eips.get(id)).filter_map(|eip| eip.end());
            ends.map(|(eni, _)| eni).flat_map(|eni| of_instance_of(model, eni).chain([eni.clone()])).collect()
        }
        Event::Uplink(id, uplink) => {
            let uplinks = uplink.as_deref().into_iter().chain(model.uplinks.get(id));
            uplinks.flat_map(|uplink| in_vpc(model, &uplink.vpc)).collect()
        }
        Event::Settings(_)
        | Event::Group(..)
        | Event::Rule(..)
        | Event::PrefixList(..)
        | Event::PortList(..)
        | Event::Record(..)
        | Event::NatGateway(..)
        | Event::SnatEntry(..)
        | Event::Forward(..)
        | Event::Peering(..)
        | Event::Token(..) => BTreeSet::new(),
    }
}

/// The ENIs whose records can depend on the metadata of an object.
fn of_object(model: &Model, id: &str) -> BTreeSet<EniId> {
    if model.enis.contains_key(&id.into()) {
        return BTreeSet::from([id.into()]);
    }
    if let Some(instance) = model.instances.get(id) {
        return instance.enis.keys().cloned().collect();
    }
    if model.vswitches.contains_key(&id.into()) {
        return in_vswitch(model, &id.into());
    }
    if model.records.contains_key(id) {
        // A key pair, perhaps: instances name it.
        let name = model.label(id).attribute(key_pair::NAME);
        let named =
            model.instances.iter().filter(|(instance, _)| model.label(instance).attribute(key_pair::NAME) == name);
        return named.filter(|_| !name.is_empty()).flat_map(|(_, instance)| instance.enis.keys().cloned()).collect();
    }
    let vpcs = model.vpcs.keys().filter(|vpc| dhcp::depends_on(model, vpc, id));
    vpcs.flat_map(|vpc| in_vpc(model, vpc)).collect()
}

fn in_vpc(model: &Model, vpc: &VpcId) -> BTreeSet<EniId> {
    model.enis.iter().filter(|(_, eni)| eni.vpc == *vpc).map(|(id, _)| id.clone()).collect()
}

fn in_vswitch(model: &Model, vswitch: &VSwitchId) -> BTreeSet<EniId> {
    model.enis.iter().filter(|(_, eni)| eni.vswitch == *vswitch).map(|(id, _)| id.clone()).collect()
}

/// The interfaces of the instance that an ENI belongs to.
fn of_instance_of<'a>(model: &'a Model, eni: &EniId) -> impl Iterator<Item = EniId> + use<'a> {
    model.instance_of(eni).into_iter().flat_map(|(_, instance)| instance.enis.keys().cloned())
}
