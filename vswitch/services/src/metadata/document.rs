//! The identity document of an instance. It is not signed: there is no authority that a reader could trust.

use super::tree::Node;
use crate::directory::Asker;
use serde_json::json;
use vswitch_core::config::services::record::GuestRecord;

/// The folder `dynamic`.
pub(super) fn dynamic(asker: &Asker, record: &GuestRecord) -> Node {
    let instance = record.instance.as_ref();
    let of_instance = |text: fn(&vswitch_core::config::services::record::InstanceRecord) -> &str| {
        instance.map(text).unwrap_or_default().to_owned()
    };
    let document = json!({
        "zone-id": record.zone,
        "serial-number": of_instance(|instance| &instance.serial_number),
        "instance-id": instance.map_or(asker.eni.as_str(), |instance| &instance.id),
        "region-id": record.region,
        "private-ipv4": record.ipv4.first().map(ToString::to_string).unwrap_or_default(),
        "owner-account-id": record.owner,
        "mac": record.mac.to_string(),
        "image-id": of_instance(|instance| &instance.image),
        "instance-type": of_instance(|instance| &instance.instance_type),
    });
    let leaf = Node::Leaf(document.to_string());
    Node::folder([("instance-identity", Node::folder([("document", leaf)]))])
}
