//! NAT gateways.

use super::{asks_for, forward_table, snat_table};
use crate::command::{Command, NatCreate, NatDelete, NatModify};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::error::ApiError;
use crate::model::{NatGateway, timestamp};
use serde_json::{Value, json};

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (vpc_id, vpc) = context.scope.vpc(parameters.text("VpcId").unwrap_or_default(), Access::Own)?;
    context.check_vpc_made(&vpc_id, vpc)?;
    let vswitch = match parameters.text("VSwitchId") {
        Some(text) => Some(context.scope.vswitch(text, Access::Own)?.0.to_string()),
        None => None,
    };
    let id = context.environment.new_id("ngw");
    let create = NatCreate {
        id: Some(id.clone()),
        vpc: vpc_id.to_string(),
        vswitch,
        name: parameters.owned("Name"),
        description: parameters.owned("Description"),
    };
    let label = context.new_label(&id, None)?;
    let commands = [Command::NatCreate(create)].into_iter().chain(label).collect();
    let answer = move |_: &Context<'_>| {
        members(json!({
            "NatGatewayId": id,
            "SnatTableIds": {"SnatTableId": [snat_table(&id)]},
            "ForwardTableIds": {"ForwardTableId": [forward_table(&id)]},
        }))
    };
    Ok(context.change(commands, Box::new(answer)))
}

fn named<'a>(context: &Context<'a>) -> Result<(String, &'a NatGateway), ApiError> {
    let id = context.parameters().owned("NatGatewayId").unwrap_or_default();
    let nat = context.scope.nat_gateway(&id)?;
    Ok((id, nat))
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let given = |name: &str| context.parameters().given(name).map(str::to_owned);
    let (id, _) = named(context)?;
    let modify = NatModify { nat: id.clone(), name: given("Name"), description: given("Description") };
    let noted = context.note_attributes(&id);
    Ok(context.quiet_change([Command::NatModify(modify)].into_iter().chain(noted).collect()))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (nat, _) = named(context)?;
    let force = context.parameters().boolean("Force")?.unwrap_or(false);
    Ok(context.quiet_change(vec![Command::NatDelete(NatDelete { nat, force })]))
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let mut entries = Vec::new();
    for (id, nat) in context.scope.nat_gateways() {
        let label = context.scope.label(id);
        let noted = |name: &str, otherwise: &'static str| match label.attribute(name) {
            "" => otherwise.to_owned(),
            text => text.to_owned(),
        };
        let zone = nat.vswitch.as_ref().map(|vswitch| context.zone_of(vswitch)).unwrap_or_default();
        let wanted = asks_for(context, "NatGatewayId", id)
            && asks_for(context, "VpcId", nat.vpc.as_str())
            && asks_for(context, "Name", &nat.name)
            && asks_for(context, "Status", "Available")
            && asks_for(context, "ZoneId", &zone)
            && asks_for(context, "NatType", &noted("NatType", "Enhanced"))
            && asks_for(context, "NetworkType", &noted("NetworkType", "internet"))
            && asks_for(context, "InstanceChargeType", &noted("InstanceChargeType", "PostPaid"))
            && asks_for(context, "Spec", &noted("Spec", ""))
            && asks_for(context, "AvailabilityMode", &noted("AvailabilityMode", ""))
            && context.has_resource_group(id)
            && context.has_tags(id)?;
        if wanted {
            entries.push((id.clone(), nat_json(context, id, nat, &zone)));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("NatGateways".into(), json!({ "NatGateway": page.entries }));
    Ok(Plan::Answer(answer))
}

fn nat_json(context: &Context<'_>, id: &str, nat: &NatGateway, zone: &str) -> Value {
    let label = context.scope.label(id);
    let noted = |name: &str, otherwise: &'static str| match label.attribute(name) {
        "" => otherwise.to_owned(),
        text => text.to_owned(),
    };
    let truth = |name: &str, otherwise: bool| match label.attribute(name) {
        "" => otherwise,
        text => text.eq_ignore_ascii_case("true"),
    };
    let in_snat = |address| context.scope.snat_entries().any(|(_, it)| it.nat == id && it.addresses.contains(&address));
    let used = |address| {
        let forwarded = context.scope.forwards().any(|(_, it)| it.nat.as_deref() == Some(id) && it.external == address);
        match (forwarded, in_snat(address)) {
            (true, _) => "UsedByForwardTable",
            (false, true) => "UsedBySnatTable",
            (false, false) => "Idle",
        }
    };
    let eips = context.scope.eips().filter(|(_, eip)| eip.nat() == Some(id));
    let addresses: Vec<Value> = eips
        .map(|(eip_id, eip)| {
            let address = eip.address;
            json!({
                "AllocationId": eip_id, "IpAddress": address, "PrivateIpAddress": "",
                "SnatEntryEnabled": true, "UsingStatus": used(address),
            })
        })
        .collect();
    json!({
        "NatGatewayId": id,
        "Name": nat.name,
        "Description": nat.description,
        "VpcId": nat.vpc,
        "Status": "Available",
        "BusinessStatus": "Normal",
        "NatType": noted("NatType", "Enhanced"),
        "NetworkType": noted("NetworkType", "internet"),
        "Spec": noted("Spec", ""),
        "InstanceChargeType": noted("InstanceChargeType", "PostPaid"),
        "InternetChargeType": noted("InternetChargeType", "PayByLcu"),
        "EipBindMode": noted("EipBindMode", "MULTI_BINDED"),
        "AvailabilityMode": noted("AvailabilityMode", ""),
        "IcmpReplyEnabled": truth("IcmpReplyEnabled", true),
        "PrivateLinkEnabled": truth("PrivateLinkEnabled", false),
        "SecurityProtectionEnabled": truth("SecurityProtectionEnabled", false),
        "AutoPay": false,
        "DeletionProtection": false,
        "EcsMetricEnabled": false,
        "ExpiredTime": "",
        "RegionId": context.scope.region_of(id),
        "ResourceGroupId": context.scope.resource_group_of(id),
        "CreationTime": timestamp(nat.created_s),
        "SnatTableIds": {"SnatTableId": [snat_table(id)]},
        "ForwardTableIds": {"ForwardTableId": [forward_table(id)]},
        "FullNatTableIds": {"FullNatTableId": []},
        "IpLists": {"IpList": addresses},
        "NatGatewayPrivateInfo": {
            "VswitchId": nat.vswitch.as_ref().map(ToString::to_string).unwrap_or_default(),
            "IzNo": zone,
        },
        "Tags": {"Tag": context.tags_of(id)},
    })
}
