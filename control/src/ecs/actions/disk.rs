//! Disks of instances: records that are stored, listed and changed, and hold no data.

use super::instance::attributes::change;
use super::key_pair::check_key_pair;
use crate::command::{Command, InstanceModify, LabelModify, RecordCreate, RecordDelete};
use crate::ecs::dialect::call::{Context, Plan, ZONE_NOT_FOUND, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::parameters::Parameters;
use crate::error::{ApiError, ErrorKind, INSTANCE_STATUS};
use crate::model::{Metadata, Record, timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(in crate::ecs) const KIND: &str = "disk";
const CATEGORY: ErrorKind = ErrorKind { code: "InvalidSystemDiskCategory.ValueNotSupported", status: 403 };
const DATA_CATEGORY: ErrorKind = ErrorKind { code: "InvalidDataDiskCategory.ValueNotSupported", status: 403 };
const SIZE: ErrorKind = ErrorKind { code: "InvalidSystemDiskSize.ValueNotSupported", status: 403 };
const NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidDiskId.NotFound", status: 404 };
const DISK_STATUS: ErrorKind = ErrorKind { code: "IncorrectDiskStatus", status: 403 };
const SHRINKS: ErrorKind = ErrorKind { code: "InvalidDiskSize.TooSmall", status: 403 };
/// The default size of a system disk, GiB, unless its image needs more.
const SYSTEM_GIB: u32 = 40;
/// The greatest size, GiB.
const GIB_MAX: u32 = 65_536;

/// Makes the disks of a new instance: a system disk, and the data disks that the call lists.
pub(in crate::ecs) fn of_new_instance(context: &Context<'_>, instance: &str) -> Result<Vec<Command>, ApiError> {
    let parameters = context.parameters();
    let mut commands = Vec::new();
    let image = parameters.text("ImageId").and_then(|id| context.settings.catalogue.image(id));
    let least = image.map_or(1, |image| image.size_gib);
    let system = parameters.object("SystemDisk");
    let size = system.count::<u32>("Size")?.unwrap_or(SYSTEM_GIB.max(least));
    if !(least..=GIB_MAX).contains(&size) {
        return Err(SIZE.error(format!("it is {least} to {GIB_MAX} GiB.")).field("SystemDisk.Size"));
    }
    let category = category(context, &system, CATEGORY, "SystemDisk.Category")?;
    let places = [("InstanceId", instance), ("Type", "system"), ("Device", "/dev/xvda"), ("Category", &category)];
    commands.extend(new_disk(context, &system, &places, size));
    for (letter, (_, data)) in ('b'..='z').zip(parameters.objects("DataDisk")?) {
        let size = data.count::<u32>("Size")?.unwrap_or(20);
        let category = self::category(context, &data, DATA_CATEGORY, "DataDisk.N.Category")?;
        let device = data.text("Device").map_or_else(|| format!("/dev/xvd{letter}"), str::to_owned);
        let places = [("InstanceId", instance), ("Type", "data"), ("Device", &device), ("Category", &category)];
        commands.extend(new_disk(context, &data, &places, size));
    }
    Ok(commands)
}

fn category(
    context: &Context<'_>,
    disk: &Parameters,
    kind: ErrorKind,
    field: &'static str,
) -> Result<String, ApiError> {
    let known = &context.settings.catalogue.disk_categories;
    match disk.text("Category") {
        None => Ok(known.first().cloned().unwrap_or_default()),
        Some(category) if known.iter().any(|one| one == category) => Ok(category.to_owned()),
        Some(_) => Err(kind.error(format!("there are {}.", known.join(", "))).field(field)),
    }
}

fn new_disk(context: &Context<'_>, said: &Parameters, places: &[(&str, &str)], size_gib: u32) -> [Command; 2] {
    let id = context.environment.new_id("d");
    let mut attributes: BTreeMap<String, String> = said.pairs().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    attributes.extend(places.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    attributes.insert("Size".into(), size_gib.to_string());
    let object = id.clone();
    [
        Command::RecordCreate(RecordCreate { id, kind: KIND.into() }),
        Command::LabelModify(LabelModify { object, attributes, ..LabelModify::default() }),
    ]
}

/// Removes the disks of an instance that is deleted, except for those that outlive it.
pub(in crate::ecs) fn of_ended_instance(context: &Context<'_>, instance: &str) -> Vec<Command> {
    let own = context.scope.records(KIND).filter(|(_, _, noted)| noted.attribute("InstanceId") == instance);
    let end = |(id, _, noted): (&str, &Record, &Metadata)| match truth(noted, "DeleteWithInstance", true) {
        true => Command::RecordDelete(RecordDelete { record: id.to_owned() }),
        false => change(id, [("InstanceId", String::new()), ("Device", String::new())]),
    };
    own.map(end).collect()
}

fn truth(noted: &Metadata, name: &str, otherwise: bool) -> bool {
    match noted.attribute(name) {
        "" => otherwise,
        text => text.eq_ignore_ascii_case("true"),
    }
}

/// Makes a data disk, in a zone or for an instance.
pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let instance = parameters.owned("InstanceId").unwrap_or_default();
    let zone = parameters.owned("ZoneId").unwrap_or_default();
    match instance.as_str() {
        "" if !context.zones_of(context.region()).contains(&zone) => {
            return Err(ZONE_NOT_FOUND.error("see DescribeZones.").field("ZoneId"));
        }
        "" => {}
        instance => drop(context.scope.instance(instance)?),
    }
    let known = &context.settings.catalogue.disk_categories;
    let category = parameters.owned("DiskCategory").or_else(|| known.first().cloned()).unwrap_or_default();
    if !known.contains(&category) {
        return Err(DATA_CATEGORY.error(format!("there are {}.", known.join(", "))).field("DiskCategory"));
    }
    let id = context.environment.new_id("d");
    let size = parameters.count::<u32>("Size")?.unwrap_or(20);
    let places = [
        ("InstanceId", instance),
        ("ZoneId", zone),
        ("Type", "data".to_owned()),
        ("Category", category),
        ("Size", size.to_string()),
    ];
    let make = Command::RecordCreate(RecordCreate { id: id.clone(), kind: KIND.into() });
    let commands = [make, change(&id, places)].into_iter().chain(context.new_label(&id, None)?).collect();
    Ok(context.change(commands, Box::new(move |_| members(json!({"DiskId": id})))))
}

pub(in crate::ecs) fn attach(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, instance) = disk_and_instance(context)?;
    if !context.scope.label(&id).attribute("InstanceId").is_empty() {
        return Err(DISK_STATUS.error(format!("{id} is in use: detach it first.")).object(id));
    }
    let usual = [("InstanceId", instance), ("Device", "/dev/xvdb".to_owned())];
    Ok(context.quiet_change([change(&id, usual)].into_iter().chain(context.note_attributes(&id)).collect()))
}

pub(in crate::ecs) fn detach(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, instance) = disk_and_instance(context)?;
    let noted = context.scope.label(&id);
    if noted.attribute("InstanceId") != instance || noted.attribute("Type") == "system" {
        return Err(DISK_STATUS.error(format!("{id} is not a data disk of {instance}.")).object(id));
    }
    let zone = zone_of(context, noted);
    let free = [("InstanceId", String::new()), ("Device", String::new()), ("ZoneId", zone)];
    Ok(context.quiet_change([change(&id, free)].into_iter().chain(context.note_attributes(&id)).collect()))
}

fn disk_and_instance(context: &Context<'_>) -> Result<(String, String), ApiError> {
    let named = |name| context.parameters().owned(name).unwrap_or_default();
    let (id, instance) = (named("DiskId"), named("InstanceId"));
    check(context, &id)?;
    context.scope.instance(&instance)?;
    Ok((id, instance))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = context.parameters().owned("DiskId").unwrap_or_default();
    check(context, &id)?;
    if !context.scope.label(&id).attribute("InstanceId").is_empty() {
        return Err(DISK_STATUS.error(format!("{id} is in use: detach it first.")).object(id));
    }
    Ok(context.quiet_change(vec![Command::RecordDelete(RecordDelete { record: id })]))
}

/// The zone of a disk: that of its instance, or its own.
fn zone_of(context: &Context<'_>, noted: &Metadata) -> String {
    let instance = context.scope.instance(noted.attribute("InstanceId")).ok();
    let primary = instance.and_then(|instance| context.scope.primary_of(instance));
    primary.map_or_else(|| noted.attribute("ZoneId").to_owned(), |(_, eni)| context.zone_of(&eni.vswitch))
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.json_list("DiskIds")?;
    // No disk here has been copied or locked.
    let vain = ["SnapshotId", "AutoSnapshotPolicyId", "KMSKeyId", "LockReason"];
    let is_vain =
        vain.iter().any(|name| parameters.has(name)) || parameters.boolean("EnableAutoSnapshot")? == Some(true);
    let is_asked = |name: &str, value: &str| {
        parameters.text(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value) || wanted == "all")
    };
    let mut entries = Vec::new();
    for (id, record, noted) in context.scope.records(KIND) {
        let entry = disk_json(context, id, record, noted);
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let wanted = !is_vain
            && ids.as_ref().is_none_or(|ids| ids.iter().any(|wanted| wanted == id))
            && is_asked("InstanceId", text("InstanceId"))
            && is_asked("DiskType", text("Type"))
            && is_asked("Category", text("Category"))
            && is_asked("DiskName", text("DiskName"))
            && is_asked("DiskChargeType", text("DiskChargeType"))
            && is_asked("ZoneId", text("ZoneId"))
            && is_asked("Status", text("Status"))
            && parameters.boolean("Portable")?.is_none_or(|wanted| entry["Portable"] == wanted)
            && parameters.boolean("DeleteWithInstance")?.is_none_or(|wanted| entry["DeleteWithInstance"] == wanted)
            && parameters.boolean("Encrypted")?.is_none_or(|wanted| entry["Encrypted"] == wanted)
            && context.has_resource_group(id)
            && context.has_tags(id)?;
        if wanted {
            entries.push((id.to_owned(), entry));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("Disks".into(), json!({ "Disk": page.entries }));
    Ok(Plan::Answer(answer))
}

fn disk_json(context: &Context<'_>, id: &str, record: &Record, noted: &Metadata) -> Value {
    let instance_id = noted.attribute("InstanceId");
    let instance = context.scope.instance(instance_id).ok();
    let is_system = noted.attribute("Type") == "system";
    let device = noted.attribute("Device");
    let attached = timestamp(record.created_s);
    let attachment = json!({"AttachedTime": attached, "Device": device, "InstanceId": instance_id});
    let attachments: Vec<Value> = Some(attachment).filter(|_| !instance_id.is_empty()).into_iter().collect();
    let level = match (noted.attribute("PerformanceLevel"), noted.attribute("Category")) {
        ("", "cloud_essd") => "PL1",
        (level, _) => level,
    };
    json!({
        "DiskId": id,
        "DiskName": noted.attribute("DiskName"),
        "Description": noted.attribute("Description"),
        "RegionId": context.scope.region_of(id),
        "ZoneId": zone_of(context, noted),
        "Type": noted.attribute("Type"),
        "Category": noted.attribute("Category"),
        "Size": noted.attribute("Size").parse::<u64>().unwrap_or(0),
        "Status": if instance_id.is_empty() { "Available" } else { "In_use" },
        "Portable": !is_system,
        "Device": device,
        "InstanceId": instance_id,
        "ImageId": instance.map(|instance| instance.image.as_str()).unwrap_or_default(),
        "DiskChargeType": "PostPaid",
        "DeleteWithInstance": truth(noted, "DeleteWithInstance", true),
        "Encrypted": truth(noted, "Encrypted", false),
        "KMSKeyId": noted.attribute("KMSKeyId"),
        "AutoSnapshotPolicyId": noted.attribute("AutoSnapshotPolicyId"),
        "StorageClusterId": noted.attribute("StorageClusterId"),
        "SourceSnapshotId": noted.attribute("SnapshotId"),
        "BurstingEnabled": truth(noted, "BurstingEnabled", false),
        "ProvisionedIops": noted.attribute("ProvisionedIops").parse::<u64>().unwrap_or(0),
        "PerformanceLevel": level,
        "CreationTime": attached,
        "AttachedTime": attached,
        "ResourceGroupId": context.scope.resource_group_of(id),
        "Attachments": {"Attachment": attachments},
        "Tags": {"Tag": context.tags_of(id)},
    })
}

/// Refuses a disk that the caller does not have.
fn check(context: &Context<'_>, id: &str) -> Result<(), ApiError> {
    let mut own = context.scope.records(KIND);
    match own.any(|(own, ..)| own == id) {
        true => Ok(()),
        false => Err(NOT_FOUND.error("see DescribeDisks.").field("DiskId")),
    }
}

pub(in crate::ecs) fn modify_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.owned("DiskId").into_iter().chain(parameters.list("DiskIds")?);
    let ids: Vec<String> = ids.collect();
    ids.iter().try_for_each(|id| check(context, id))?;
    Ok(context.quiet_change(ids.iter().filter_map(|id| context.note_attributes(id)).collect()))
}

pub(in crate::ecs) fn modify_spec(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = context.parameters().owned("DiskId").unwrap_or_default();
    check(context, &id)?;
    let category = context.parameters().owned("DiskCategory");
    let attributes = category.map(|category| ("Category".to_owned(), category)).into_iter().collect();
    let modify = LabelModify { object: id.clone(), attributes, ..LabelModify::default() };
    let commands = [Command::LabelModify(modify)].into_iter().chain(context.note_attributes(&id)).collect();
    Ok(context.quiet_change(commands))
}

pub(in crate::ecs) fn resize(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = context.parameters().owned("DiskId").unwrap_or_default();
    check(context, &id)?;
    let size = context.parameters().count::<u32>("NewSize")?.unwrap_or(0);
    let present = context.scope.label(&id).attribute("Size").parse::<u32>().unwrap_or(0);
    if size < present || size > GIB_MAX {
        return Err(SHRINKS.error(format!("it is {present} GiB, and {GIB_MAX} at most.")).field("NewSize"));
    }
    let attributes = BTreeMap::from([("Size".to_owned(), size.to_string())]);
    let modify = LabelModify { object: id, attributes, ..LabelModify::default() };
    Ok(context.quiet_change(vec![Command::LabelModify(modify)]))
}

/// Changes the image of a stopped instance, which replaces its system disk.
pub(in crate::ecs) fn replace_system(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let instance = parameters.owned("InstanceId").unwrap_or_default();
    if context.scope.instance(&instance)?.running {
        return Err(INSTANCE_STATUS.error(format!("{instance} runs: stop it first.")).object(instance));
    }
    check_key_pair(context)?;
    let mut own = context.scope.records(KIND).filter(|(_, _, noted)| noted.attribute("InstanceId") == instance);
    let present = own.find(|(_, _, noted)| noted.attribute("Type") == "system");
    let mut attributes = present.map(|(_, _, noted)| noted.attributes.clone()).unwrap_or_default();
    let size = parameters.count::<u32>("SystemDisk.Size")?.map(|size| size.to_string());
    let said =
        [("Size", size), ("Encrypted", parameters.owned("Encrypted")), ("KMSKeyId", parameters.owned("KMSKeyId"))];
    attributes.extend(said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let id = context.environment.new_id("d");
    let image = parameters.owned("ImageId");
    let mut commands: Vec<Command> =
        present.map(|(id, ..)| Command::RecordDelete(RecordDelete { record: id.to_owned() })).into_iter().collect();
    commands.extend([
        Command::InstanceModify(InstanceModify { instance: instance.clone(), image, ..InstanceModify::default() }),
        Command::RecordCreate(RecordCreate { id: id.clone(), kind: KIND.into() }),
        Command::LabelModify(LabelModify { object: id.clone(), attributes, ..LabelModify::default() }),
    ]);
    commands.extend(context.note_attributes(&instance));
    Ok(context.change(commands, Box::new(move |_| members(json!({"DiskId": id})))))
}

/// Snapshots: there are none.
pub(in crate::ecs) fn describe_snapshots(context: &Context<'_>) -> Result<Plan, ApiError> {
    let page = page::<Value>(context, Vec::new(), true)?;
    let mut answer = page.about;
    answer.insert("Snapshots".into(), json!({ "Snapshot": page.entries }));
    Ok(Plan::Answer(answer))
}
