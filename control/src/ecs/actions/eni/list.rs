//! Queries about network interfaces.

use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::error::ApiError;
use crate::model::{Eni, timestamp};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use vswitch_core::config::ids::EniId;

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    // An identifier in the cloud's form has to exist; with anything else there are simply no interfaces.
    let is_id = |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if let Some(vswitch) = parameters.text("VSwitchId").filter(is_id) {
        context.scope.vswitch(vswitch, Access::Use)?;
    }
    if let Some(group) = parameters.text("SecurityGroupId").filter(is_id) {
        context.scope.group(group)?;
    }
    let ids = parameters.list("NetworkInterfaceId")?;
    let private = parameters.list("PrivateIpAddress")?;
    let ipv6 = parameters.list("Ipv6Address")?;
    let is_asked = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted == value);
    let mut entries = Vec::new();
    for (id, eni) in context.scope.enis() {
        let group_wanted = parameters.text("SecurityGroupId");
        let own_ipv4 = std::iter::once(eni.primary).chain(eni.secondary.iter().copied());
        let own_ipv4: Vec<String> = own_ipv4.map(|address| address.to_string()).collect();
        let own_ipv6: Vec<String> = eni.ipv6.iter().map(ToString::to_string).collect();
        let wanted = (ids.is_empty() || ids.iter().any(|wanted| wanted == id.as_str()))
            && (private.is_empty() || private.iter().any(|wanted| own_ipv4.contains(wanted)))
            && (ipv6.is_empty() || ipv6.iter().any(|wanted| own_ipv6.contains(wanted)))
            && is_asked("VSwitchId", eni.vswitch.as_str())
            && is_asked("VpcId", eni.vpc.as_str())
            && is_asked("InstanceId", eni.instance.as_deref().unwrap_or_default())
            && is_asked("PrimaryIpAddress", &eni.primary.to_string())
            && is_asked("NetworkInterfaceName", &eni.name)
            && is_asked("Type", kind(context, id))
            && is_asked("Status", status(context, id, eni))
            && group_wanted.is_none_or(|group| eni.groups.iter().any(|own| own.as_str() == group))
            && !parameters.boolean("ServiceManaged")?.unwrap_or(false)
            && context.has_resource_group(id.as_str())
            && context.has_tags(id.as_str())?;
        if wanted {
            entries.push((id.to_string(), (id, eni)));
        }
    }
    let page = page(context, entries, true)?;
    let shown: Vec<Value> = page.entries.into_iter().map(|(id, eni)| eni_json(context, id, eni)).collect();
    let mut answer = page.about;
    answer.insert("NetworkInterfaceSets".into(), json!({ "NetworkInterfaceSet": shown }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, eni) = context.scope.eni(context.parameters().text("NetworkInterfaceId").unwrap_or_default())?;
    let mut answer = members(eni_json(context, &id, eni));
    let asked = context.parameters().text("Attribute").unwrap_or_default();
    let timeouts = json!({
        "TcpEstablishedTimeout": eni.timeouts.tcp_established_s,
        "TcpClosedAndTimeWaitTimeout": eni.timeouts.tcp_closed_s,
        "UdpTimeout": eni.timeouts.udp_s,
    });
    let told = asked.is_empty() || asked.eq_ignore_ascii_case("connectionTrackingConfiguration");
    answer.insert("ConnectionTrackingConfiguration".into(), if told { timeouts } else { Value::Null });
    answer.insert("QoSConfig".into(), json!({"EnableQoS": true, "QoS": {"ConcurrentConnections": eni.sessions_max}}));
    for name in ["BondInterfaceSpecification", "SlaveInterfaceSpecification", "EnhancedNetwork"] {
        answer.insert(name.into(), Value::Null);
    }
    Ok(Plan::Answer(answer))
}

fn kind(context: &Context<'_>, id: &EniId) -> &'static str {
    let noted = context.scope.label(id.as_str());
    match context.scope.instance_of(id) {
        Some((_, instance)) if instance.primary() == Some(id) => "Primary",
        _ if noted.attribute("InstanceType") == "Trunk" => "Trunk",
        _ if !noted.attribute(TRUNK).is_empty() => "Member",
        _ => "Secondary",
    }
}

/// The attribute of a member that holds the trunk interface it is behind.
pub(in crate::ecs) const TRUNK: &str = "TrunkNetworkInterfaceId";
/// The attribute that holds the network card that an interface is on.
pub(in crate::ecs) const CARD: &str = "NetworkCardIndex";

/// Where an interface is attached.
fn attachment_json(context: &Context<'_>, id: &EniId, eni: &Eni) -> Value {
    let noted = context.scope.label(id.as_str());
    let instance = context.scope.instance_of(id).map(|(_, instance)| instance);
    let is_member = |member: &&EniId| context.scope.label(member.as_str()).attribute(TRUNK) == id.as_str();
    let members: Vec<&EniId> =
        instance.into_iter().flat_map(|instance| instance.enis.keys()).filter(is_member).collect();
    json!({
        "DeviceIndex": instance.and_then(|instance| instance.enis.get(id)).copied().unwrap_or(0),
        "InstanceId": eni.instance.as_deref().unwrap_or_default(),
        "NetworkCardIndex": noted.attribute(CARD).parse::<u64>().unwrap_or(0),
        "TrunkNetworkInterfaceId": noted.attribute(TRUNK),
        "MemberNetworkInterfaceIds": {"MemberNetworkInterfaceId": members},
    })
}

fn status(context: &Context<'_>, id: &EniId, eni: &Eni) -> &'static str {
    match context.scope.instance_of(id) {
        Some((_, instance)) => match instance.attached_s.get(id) {
            Some(attached_s) if context.is_passing(*attached_s) => "Attaching",
            _ => "InUse",
        },
        None if eni.instance.is_some() || eni.port.is_some() => "InUse",
        None => "Available",
    }
}

/// An interface as all actions show it.
pub(in crate::ecs) fn eni_json(context: &Context<'_>, id: &EniId, eni: &Eni) -> Value {
    let noted = context.scope.label(id.as_str());
    let traffic = |name: &str| match noted.attribute(name) {
        "" => noted.attribute(&format!("NetworkInterfaceTrafficConfig.{name}")),
        text => text,
    };
    let number = |name: &str| traffic(name).parse::<u64>().unwrap_or(0);
    let mode = Some(traffic("NetworkInterfaceTrafficMode")).filter(|mode| !mode.is_empty()).unwrap_or("Standard");
    let mut value = members(addresses_json(context, id, eni));
    value.extend(members(json!({
        "NetworkInterfaceId": id,
        "NetworkInterfaceName": eni.name,
        "Description": eni.description,
        "CreationTime": timestamp(eni.created_s),
        "DeleteOnRelease": eni.delete_on_release,
        "InstanceId": eni.instance.as_deref().unwrap_or_default(),
        "Attachment": attachment_json(context, id, eni),
        "MacAddress": eni.mac,
        "AssociatedPublicIp": eip_json(context, id, eni.primary),
        "NetworkInterfaceTrafficMode": mode,
        "OwnerId": context.scope.owner_of(id.as_str()),
        "PrivateIpAddress": eni.primary,
        "QueueNumber": number("QueueNumber").max(1),
        "QueuePairNumber": number("QueuePairNumber"),
        // The cloud leaves it out for an interface that was given none.
        "ResourceGroupId": noted.resource_group,
        "SecurityGroupIds": {"SecurityGroupId": eni.groups},
        "SourceDestCheck": eni.source_dest_check,
        "Status": status(context, id, eni),
        "Tags": {"Tag": context.tags_of(id.as_str())},
        "Type": kind(context, id),
        "VSwitchId": eni.vswitch,
        "VpcId": eni.vpc,
        "ZoneId": context.zone_of(&eni.vswitch),
    })));
    // An action shows only those fields that its published response has.
    let known = context.call.action.schema().response.as_object();
    let listed = known.and_then(|known| known.get("NetworkInterfaceSets")).is_some();
    if let Some(known) = known.filter(|_| !listed) {
        value.retain(|name, _| known.contains_key(name));
    }
    Value::Object(value)
}

/// The floating address that stands for a private one.
fn eip_json(context: &Context<'_>, id: &EniId, private: Ipv4Addr) -> Value {
    match context.scope.eips().find(|(_, eip)| eip.end() == Some((id, private))) {
        Some((eip_id, eip)) => json!({"AllocationId": eip_id, "PublicIpAddress": eip.address}),
        None => json!({}),
    }
}

/// A private address, with the floating one where the action shows that.
fn private_json(context: &Context<'_>, id: &EniId, address: Ipv4Addr, primary: bool) -> Value {
    let mut value = members(json!({"PrivateIpAddress": address, "Primary": primary}));
    if ["DescribeNetworkInterfaces", "DescribeNetworkInterfaceAttribute"].contains(&context.call.action.name) {
        value.insert("AssociatedPublicIp".into(), eip_json(context, id, address));
    }
    Value::Object(value)
}

/// An interface's addresses as all actions show them.
pub(in crate::ecs) fn addresses_json(context: &Context<'_>, id: &EniId, eni: &Eni) -> Value {
    let has_primary_ipv6 = context.scope.label(id.as_str()).attribute("EnablePrimaryIPv6").eq_ignore_ascii_case("true");
    let private = std::iter::once((eni.primary, true)).chain(eni.secondary.iter().map(|address| (*address, false)));
    let private: Vec<Value> = private.map(|(address, primary)| private_json(context, id, address, primary)).collect();
    let ipv6 = eni.ipv6.iter().enumerate();
    let ipv6: Vec<Value> = ipv6
        .map(|(place, address)| json!({"Ipv6Address": address, "Primary": has_primary_ipv6 && place == 0}))
        .collect();
    let (mut ipv4_prefixes, mut ipv6_prefixes) = (Vec::new(), Vec::new());
    for prefix in &eni.prefixes {
        match prefix {
            IpNet::V4(prefix) => ipv4_prefixes.push(json!({"Ipv4Prefix": prefix})),
            IpNet::V6(prefix) => ipv6_prefixes.push(json!({"Ipv6Prefix": prefix})),
        }
    }
    json!({
        "PrivateIpSets": {"PrivateIpSet": private},
        "Ipv6Sets": {"Ipv6Set": ipv6},
        "Ipv4PrefixSets": {"Ipv4PrefixSet": ipv4_prefixes},
        "Ipv6PrefixSets": {"Ipv6PrefixSet": ipv6_prefixes},
    })
}
