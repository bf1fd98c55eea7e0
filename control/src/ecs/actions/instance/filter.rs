//! Which instances a query selects.

use super::status;
use crate::ecs::actions::outside::eip;
use crate::ecs::catalogue::family_of;
use crate::ecs::dialect::auth::read_time;
use crate::ecs::dialect::call::Context;
use crate::ecs::dialect::parameters::not_valid;
use crate::error::{ApiError, ErrorKind};
use crate::model::PUBLIC_ADDRESS;
use crate::model::{Eni, Instance};
use std::ops::RangeInclusive;

const FILTER_KEY: ErrorKind = ErrorKind { code: "InvalidFilterKey.NotFound", status: 404 };
const HPC_CLUSTER: ErrorKind = ErrorKind { code: "InvalidHpcClusterId.NotFound", status: 400 };
const LOCK_REASON: ErrorKind = ErrorKind { code: "InvalidLockReason.NotFound", status: 404 };
const LOCK_REASONS: [&str; 5] = ["financial", "security", "recycling", "dedicatedhostfinancial", "refunded"];

/// The values that a parameter may have, and the refusal of others.
const WORDS: [(&str, &[&str], ErrorKind); 3] = [
    (
        "InstanceChargeType",
        &["PostPaid", "PrePaid"],
        ErrorKind { code: "InvalidInstanceChargeType.NotFound", status: 404 },
    ),
    (
        "InternetChargeType",
        &["PayByBandwidth", "PayByTraffic"],
        ErrorKind { code: "InvalidInternetChargeType.ValueNotSupported", status: 404 },
    ),
    ("InstanceNetworkType", &["vpc", "classic"], ErrorKind { code: "InvalidNetworkType.NotFound", status: 404 }),
];
/// Properties that no instance here has.
const ABSENT: [&str; 3] = ["InnerIpAddresses", "LockReason", "RdmaIpAddresses"];
/// Attributes that can be queried, with their defaults.
const NOTED: [(&str, &str); 7] = [
    ("HpcClusterId", ""),
    ("InstanceChargeType", "PostPaid"),
    ("InternetChargeType", "PayByTraffic"),
    ("KeyPairName", ""),
    ("HttpEndpoint", "enabled"),
    ("HttpTokens", "optional"),
    ("HttpPutResponseHopLimit", "0"),
];
/// Properties that every instance here has.
const ALWAYS: [&str; 2] = ["DeviceAvailable", "IoOptimized"];

/// A query for instances.
pub(in crate::ecs) struct InstanceFilter {
    ids: Option<Vec<String>>,
    private: Option<Vec<String>>,
    public: Option<Vec<String>>,
    floating: Option<Vec<String>>,
    ipv6: Vec<String>,
    created_s: RangeInclusive<u64>,
    /// Whether it asks for something that no instance here has.
    is_vain: bool,
}

impl InstanceFilter {
    /// Reads the query from the call.
    ///
    /// # Errors
    /// A value that is invalid for its parameter.
    pub(in crate::ecs) fn read(context: &Context<'_>) -> Result<Self, ApiError> {
        let parameters = context.parameters();
        let ids = parameters.json_list("InstanceIds")?;
        let private = parameters.json_list("PrivateIpAddresses")?;
        let public = parameters.json_list("PublicIpAddresses")?;
        let floating = parameters.json_list("EipAddresses")?;
        let addresses = [("PrivateIpAddresses", &private), ("PublicIpAddresses", &public), ("EipAddresses", &floating)];
        for (name, list) in [("InstanceIds", &ids)].into_iter().chain(addresses) {
            if list.as_ref().is_some_and(|list| list.len() > 100) {
                return context.refuse(name, "name at most 100");
            }
        }
        let (created_s, expires) = read_times(context)?;
        let is_vain = expires | read_words(context)?;
        Ok(Self { ids, private, public, floating, ipv6: parameters.list("Ipv6Address")?, created_s, is_vain })
    }

    /// Whether it selects an instance with this primary interface.
    ///
    /// # Errors
    /// The tags are not a list.
    pub(in crate::ecs) fn fits(
        &self,
        context: &Context<'_>,
        id: &str,
        instance: &Instance,
        eni: &Eni,
    ) -> Result<bool, ApiError> {
        let parameters = context.parameters();
        let is_asked = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted == value);
        let address = eni.primary.to_string();
        let noted = context.scope.label(id);
        let noted_or = |name: &str, usual: &'static str| match noted.attribute(name) {
            "" => usual,
            text => text,
        };
        let has_ipv6 = || eni.ipv6.iter().any(|address| self.ipv6.contains(&address.to_string()));
        Ok(!self.is_vain
            && self.ids.as_ref().is_none_or(|ids| ids.iter().any(|wanted| wanted == id))
            && self.private.as_ref().is_none_or(|list| list.contains(&address))
            && (self.ipv6.is_empty() || has_ipv6())
            && self.created_s.contains(&instance.created_s)
            && is_asked("VpcId", eni.vpc.as_str())
            && is_asked("VSwitchId", eni.vswitch.as_str())
            && is_asked("ZoneId", &context.zone_of(&eni.vswitch))
            && is_asked("InstanceType", &instance.instance_type)
            && is_asked("InstanceTypeFamily", family_of(&instance.instance_type))
            && NOTED.iter().all(|(name, usual)| is_asked(name, noted_or(name, usual)))
            && self.public.as_ref().is_none_or(|list| list.iter().any(|wanted| wanted == noted_or(PUBLIC_ADDRESS, "")))
            && self.floating.as_ref().is_none_or(|list| list.iter().any(|wanted| has_eip(context, id, wanted)))
            && is_asked("ImageId", &instance.image)
            && parameters.text("Status").is_none_or(|wanted| wanted.eq_ignore_ascii_case(status(context, instance)))
            && parameters.text("InstanceName").is_none_or(|wanted| name_fits(wanted, &instance.name))
            && parameters
                .text("SecurityGroupId")
                .is_none_or(|group| eni.groups.iter().any(|own| own.as_str() == group))
            && context.has_resource_group(id)
            && context.has_tags(id)?)
    }
}

fn has_eip(context: &Context<'_>, id: &str, wanted: &str) -> bool {
    eip::of_instance(context, id).is_some_and(|(_, eip)| eip.address.to_string() == wanted)
}

/// The creation time that `Filter` asks for, and whether it asks for an expiry, which no instance here has.
fn read_times(context: &Context<'_>) -> Result<(RangeInclusive<u64>, bool), ApiError> {
    let (mut first_s, mut last_s, mut expires) = (0, u64::MAX, false);
    for (_, filter) in context.parameters().objects("Filter")? {
        let time_s = || filter.text("Value").and_then(read_minute).ok_or_else(|| not_valid("Filter"));
        match filter.text("Key").unwrap_or_default() {
            "CreationStartTime" => first_s = time_s()?,
            "CreationEndTime" => last_s = time_s()?,
            "ExpiredStartTime" | "ExpiredEndTime" => expires |= time_s().map(|_| true)?,
            _ => {
                let message = "keys are CreationStartTime, CreationEndTime, ExpiredStartTime and ExpiredEndTime.";
                return Err(FILTER_KEY.error(message).field("Filter"));
            }
        }
    }
    Ok((first_s..=last_s, expires))
}

/// Seconds since 1970 of `2026-11-23T12:00Z`, with or without seconds.
fn read_minute(text: &str) -> Option<u64> {
    read_time(text).or_else(|| read_time(&format!("{}:00Z", text.strip_suffix('Z')?)))
}

/// Whether the call asks for something that no instance here has.
fn read_words(context: &Context<'_>) -> Result<bool, ApiError> {
    let parameters = context.parameters();
    let mut is_vain = ABSENT.iter().any(|name| parameters.has(name));
    is_vain |= parameters.text("InstanceNetworkType").is_some_and(|kind| kind.eq_ignore_ascii_case("classic"));
    for (name, words, kind) in WORDS {
        context.word(name, words, kind)?;
    }
    for name in ALWAYS {
        is_vain |= parameters.boolean(name)? == Some(false);
    }
    context.word("LockReason", &LOCK_REASONS, LOCK_REASON)?;
    let has_cluster = |cluster: &str| {
        context.scope.instances().any(|(id, _)| context.scope.label(id).attribute("HpcClusterId") == cluster)
    };
    match parameters.text("HpcClusterId").is_some_and(|cluster| !has_cluster(cluster)) {
        true => Err(HPC_CLUSTER.error("there are no such clusters here.").field("HpcClusterId")),
        false => Ok(is_vain),
    }
}

/// A name, or the beginning or the end of one with `*` for the rest.
fn name_fits(wanted: &str, name: &str) -> bool {
    match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(wanted.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == wanted,
    }
}
