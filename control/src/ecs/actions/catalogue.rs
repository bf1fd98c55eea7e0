//! Queries about the catalogue: what can be made where, instance types, and images.

use crate::ecs::catalogue::{Image, InstanceType};
use crate::ecs::dialect::call::{Context, Plan, ZONE_NOT_FOUND};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::parameters::Parameters;
use crate::error::{ApiError, ErrorKind, INVALID_PARAMETER};
use crate::model::timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const DESTINATION: ErrorKind = ErrorKind { code: "Invalid.DestinationResource", status: 400 };
const DESTINATIONS: [&str; 7] = ["Zone", "IoOptimized", "InstanceType", "SystemDisk", "DataDisk", "Network", "ddh"];
/// Sizes of disks, GiB.
const DISK_GIB: (u32, u32) = (20, 2048);
/// When public images were made, seconds since 1970.
const IMAGES_MADE_S: u64 = 1_727_308_800;

pub(in crate::ecs) fn available_resource(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let destination = match context.word("DestinationResource", &DESTINATIONS, DESTINATION)? {
        Some(place) => DESTINATIONS[place],
        None => "Zone",
    };
    let zones = context.zones_of(context.region());
    let wanted = parameters.text("ZoneId");
    if wanted.is_some_and(|zone| !zones.iter().any(|known| known == zone)) {
        return Err(ZONE_NOT_FOUND.error("see DescribeZones.").field("ZoneId"));
    }
    let supported = supported(context, destination)?;
    // If nothing is left of what was asked for, no zone has it.
    let zones = zones.into_iter().filter(|zone| !supported.is_empty() && wanted.is_none_or(|wanted| wanted == zone));
    let zone = |id: String| {
        // A zone as such is described by what it supports.
        let resources = match destination {
            "Zone" => json!([]),
            kind => json!([{"Type": kind, "SupportedResources": {"SupportedResource": supported}}]),
        };
        json!({
            "ZoneId": id,
            "RegionId": context.region(),
            "Status": "Available",
            "StatusCategory": "WithStock",
            "AvailableResources": {"AvailableResource": resources},
        })
    };
    let zones: Vec<Value> = zones.map(zone).collect();
    Ok(Plan::answer(json!({"AvailableZones": {"AvailableZone": zones}})))
}

/// What the catalogue has of the requested kind; for zones, of the kind that is asked for in them.
fn supported(context: &Context<'_>, destination: &str) -> Result<Vec<Value>, ApiError> {
    let parameters = context.parameters();
    let catalogue = &context.settings.catalogue;
    let here = |value: &str| json!({"Value": value, "Status": "Available", "StatusCategory": "WithStock"});
    let is_old = parameters.text("IoOptimized").is_some_and(|text| text.eq_ignore_ascii_case("none"));
    let is_classic = parameters.text("NetworkCategory").is_some_and(|text| text.eq_ignore_ascii_case("classic"));
    let has_disk = ["SystemDiskCategory", "DataDiskCategory"].iter().all(|name| {
        parameters.text(name).is_none_or(|wanted| catalogue.disk_categories.iter().any(|known| known == wanted))
    });
    if is_old || is_classic || !has_disk {
        return Ok(Vec::new());
    }
    let memory_mib = parameters.text("Memory").and_then(|text| text.parse::<f64>().ok()).map(|gib| gib * 1024.0);
    let cores = parameters.count::<u32>("Cores")?;
    let is_wanted = |one: &&InstanceType| {
        parameters.text("InstanceType").is_none_or(|wanted| wanted == one.id)
            && cores.is_none_or(|wanted| wanted == one.cpus)
            && memory_mib.is_none_or(|wanted| (wanted - f64::from(one.memory_mib)).abs() < 0.5)
    };
    let mut types = catalogue.instance_types.iter().filter(is_wanted);
    Ok(match destination {
        "InstanceType" => types.map(|one| here(&one.id)).collect(),
        "SystemDisk" | "DataDisk" => {
            let disk = |category: &String| {
                let mut value = here(category);
                (value["Min"], value["Max"], value["Unit"]) = (json!(DISK_GIB.0), json!(DISK_GIB.1), json!("GiB"));
                value
            };
            catalogue.disk_categories.iter().map(disk).collect()
        }
        "Network" => vec![here("vpc")],
        "IoOptimized" => vec![here("optimized")],
        "ddh" => Vec::new(),
        _ => types.next().map(|one| here(&one.id)).into_iter().collect(),
    })
}

pub(in crate::ecs) fn instance_types(context: &Context<'_>) -> Result<Plan, ApiError> {
    let mut entries = Vec::new();
    for (place, one) in context.settings.catalogue.instance_types.iter().enumerate() {
        if fits(context.parameters(), one)? {
            entries.push((format!("{place:06}"), type_json(one)));
        }
    }
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("InstanceTypes".into(), json!({ "InstanceType": page.entries }));
    Ok(Plan::Answer(answer))
}

/// Whether a type matches a call: names in lists, and least and greatest amounts.
fn fits(parameters: &Parameters, one: &InstanceType) -> Result<bool, ApiError> {
    let is_listed = |list: Vec<String>, value: &str| list.is_empty() || list.iter().any(|wanted| wanted == value);
    let is_asked =
        |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    let memory_gib = f64::from(one.memory_mib) / 1024.0;
    let amounts = [
        ("CpuCoreCount", f64::from(one.cpus)),
        ("MemorySize", memory_gib),
        ("GPUAmount", f64::from(one.gpus)),
        ("EniQuantity", f64::from(one.enis)),
        ("EniPrivateIpAddressQuantity", f64::from(one.ipv4_per_eni)),
        ("EniIpv6AddressQuantity", f64::from(one.ipv6_per_eni)),
        ("PrimaryEniQueueNumber", f64::from(queues(one))),
        ("SecondaryEniQueueNumber", f64::from(queues(one))),
        ("LocalStorageAmount", f64::from(u32::from(one.local_disk_gib > 0))),
        ("LocalStorageCapacity", f64::from(one.local_disk_gib)),
        ("DiskQuantity", DISKS),
        ("BaselineCredit", 0.0),
        ("InitialCredit", 0.0),
        ("EriQuantity", 0.0),
        ("QueuePairNumber", 0.0),
    ];
    let bound = |name: String| match parameters.text(&name) {
        None => Ok(None),
        Some(text) => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.map(Some).ok_or_else(|| INVALID_PARAMETER.error("give a number.").field(name))
        }
    };
    for (name, amount) in amounts {
        let least = bound(format!("Minimum{name}"))?.is_none_or(|least| amount >= least);
        let most = bound(format!("Maximum{name}"))?.is_none_or(|most| amount <= most);
        if !least || !most {
            return Ok(false);
        }
    }
    Ok(is_listed(parameters.list("InstanceTypes")?, &one.id)
        && is_listed(parameters.list("InstanceTypeFamilies")?, one.family())
        && is_listed(parameters.list("CpuArchitectures")?, one.architecture())
        && is_listed(parameters.list("GpuSpecs")?, &one.gpu)
        && is_listed(parameters.list("LocalStorageCategories")?, local_disk(one))
        && is_asked("InstanceTypeFamily", one.family())
        && is_asked("CpuArchitecture", one.architecture())
        && is_asked("GPUSpec", &one.gpu)
        && is_asked("LocalStorageCategory", local_disk(one))
        && is_asked("NvmeSupport", "unsupported")
        && is_asked("InstanceFamilyLevel", level(one)))
}

/// Disks of an instance.
const DISKS: f64 = 17.0;

fn queues(one: &InstanceType) -> u32 {
    one.cpus.div_ceil(2).clamp(1, 8)
}

fn local_disk(one: &InstanceType) -> &'static str {
    if one.local_disk_gib > 0 { "local_ssd_pro" } else { "" }
}

fn level(one: &InstanceType) -> &'static str {
    match one.family() {
        "ecs.t5" | "ecs.t6" => "CreditEntryLevel",
        "ecs.n4" | "ecs.mn4" | "ecs.xn4" => "EntryLevel",
        _ => "EnterpriseLevel",
    }
}

fn type_json(one: &InstanceType) -> Value {
    // For types with a single card, none is listed.
    let cards: Vec<Value> = (0..one.network_cards).map(|card| json!({"NetworkCardIndex": card})).collect();
    let cards = if cards.len() > 1 { json!({ "NetworkCardInfo": cards }) } else { Value::Null };
    json!({
        "InstanceTypeId": one.id,
        "InstanceTypeFamily": one.family(),
        "InstanceFamilyLevel": level(one),
        "InstanceCategory": if one.gpus > 0 { "GPU" } else { "General-purpose" },
        "CpuCoreCount": one.cpus,
        "CpuArchitecture": one.architecture(),
        "MemorySize": f64::from(one.memory_mib) / 1024.0,
        "GPUAmount": one.gpus,
        "GPUSpec": one.gpu,
        "EniQuantity": one.enis,
        "EniTotalQuantity": one.enis,
        "EniPrivateIpAddressQuantity": one.ipv4_per_eni,
        "EniIpv6AddressQuantity": one.ipv6_per_eni,
        "PrimaryEniQueueNumber": queues(one),
        "SecondaryEniQueueNumber": queues(one),
        "MaximumQueueNumberPerEni": queues(one),
        "TotalEniQueueQuantity": queues(one) * one.enis,
        "NetworkCardQuantity": one.network_cards,
        "NetworkCards": cards,
        "DiskQuantity": DISKS as u64,
        "LocalStorageAmount": u32::from(one.local_disk_gib > 0),
        "LocalStorageCapacity": one.local_disk_gib,
        "LocalStorageCategory": local_disk(one),
        "NvmeSupport": "unsupported",
    })
}

pub(in crate::ecs) fn instance_type_families(context: &Context<'_>) -> Result<Plan, ApiError> {
    let generation = context.parameters().text("Generation");
    let families: BTreeMap<&str, Value> = context
        .settings
        .catalogue
        .instance_types
        .iter()
        .map(|one| (one.family(), one.family().bytes().rev().find(u8::is_ascii_digit).unwrap_or(b'1')))
        .map(|(family, digit)| (family, format!("ecs-{}", char::from(digit))))
        .filter(|(_, made)| generation.is_none_or(|wanted| wanted == made))
        .map(|(family, made)| (family, json!({"InstanceTypeFamilyId": family, "Generation": made})))
        .collect();
    let families: Vec<Value> = families.into_values().collect();
    Ok(Plan::answer(json!({"InstanceTypeFamilies": {"InstanceTypeFamily": families}})))
}

pub(in crate::ecs) fn images(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids: Vec<&str> = parameters.text("ImageId").map(|text| text.split(',').collect()).unwrap_or_default();
    let is_asked =
        |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    // Public images belong to the cloud: they have no tags and are in nobody's resource group.
    let is_vain = parameters.has("Tag")
        || ["SnapshotId", "ResourceGroupId", "ImageOwnerId"].iter().any(|name| parameters.has(name))
        || parameters.boolean("IsPublic")? == Some(false)
        || parameters.boolean("IsSupportIoOptimized")? == Some(false)
        || parameters.boolean("IsSupportCloudinit")? == Some(false)
        || parameters.list("Filter")?.len() > 10;
    let statuses = parameters.text("Status").unwrap_or("Available");
    let mut entries = Vec::new();
    for (place, image) in context.settings.catalogue.images.iter().enumerate() {
        let wanted = !is_vain
            && (ids.is_empty() || ids.contains(&image.id.as_str()))
            && parameters.text("ImageName").is_none_or(|wanted| name_fits(wanted, &image.id))
            && is_asked("ImageFamily", &image.family)
            && is_asked("ImageOwnerAlias", "system")
            && is_asked("OSType", &image.os_type)
            && is_asked("Architecture", &image.architecture)
            && is_asked("Usage", "instance") | is_asked("Usage", "none")
            && statuses.split(',').any(|status| status.eq_ignore_ascii_case("Available"));
        if wanted {
            entries.push((format!("{place:06}"), image_json(image)));
        }
    }
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("RegionId".into(), json!(context.region()));
    answer.insert("Images".into(), json!({ "Image": page.entries }));
    Ok(Plan::Answer(answer))
}

/// Whether a name equals another one, or begins as a pattern that ends with `*`.
fn name_fits(wanted: &str, name: &str) -> bool {
    wanted.strip_suffix('*').map_or(wanted == name, |begin| name.starts_with(begin))
}

fn image_json(image: &Image) -> Value {
    json!({
        "ImageId": image.id,
        "ImageName": image.id,
        "ImageFamily": image.family,
        "ImageOwnerAlias": "system",
        "ImageVersion": "v2024.9.26",
        "OSName": image.os_name,
        "OSNameEn": image.os_name,
        "OSType": image.os_type,
        "Platform": image.platform,
        "Architecture": image.architecture,
        "Size": image.size_gib,
        "Status": "Available",
        "Progress": "100%",
        "Usage": "instance",
        "IsPublic": true,
        "IsSupportCloudinit": true,
        "IsSupportIoOptimized": true,
        "CreationTime": timestamp(IMAGES_MADE_S),
    })
}

/// The types on which an image runs: those of its architecture.
pub(in crate::ecs) fn image_support(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = context.parameters().text("ImageId").unwrap_or_default();
    let catalogue = &context.settings.catalogue;
    let architecture = match catalogue.image(id) {
        Some(image) if image.architecture == "arm64" => "ARM",
        Some(_) => "X86",
        None => return Err(IMAGE_NOT_FOUND.error("see DescribeImages.").field("ImageId")),
    };
    let types = catalogue.instance_types.iter().filter(|one| one.architecture() == architecture);
    let types: Vec<Value> = types
        .map(|one| {
            json!({
                "InstanceTypeId": one.id,
                "InstanceTypeFamily": one.family(),
                "CpuCoreCount": one.cpus,
                "MemorySize": f64::from(one.memory_mib) / 1024.0,
            })
        })
        .collect();
    let answer = json!({"ImageId": id, "RegionId": context.region(), "InstanceTypes": {"InstanceType": types}});
    Ok(Plan::answer(answer))
}

const IMAGE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidImageId.NotFound", status: 404 };
