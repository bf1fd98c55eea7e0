//! The folder `meta-data`.

use crate::directory::{Asker, GuestDirectory};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use vswitch_core::config::ids::EniId;
use vswitch_core::config::services::record::{GuestRecord, InstanceRecord};

/// A value, or a folder of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Leaf(String),
    Folder(BTreeMap<String, Node>),
}

impl Node {
    pub(super) fn folder<N: Into<String>>(children: impl IntoIterator<Item = (N, Node)>) -> Self {
        Self::Folder(children.into_iter().map(|(name, node)| (name.into(), node)).collect())
    }

    pub(super) fn child(self, name: &str) -> Option<Self> {
        match self {
            Self::Leaf(_) => None,
            Self::Folder(mut children) => children.remove(name),
        }
    }
}

/// What a folder is shown as: a name a line, those of folders with a slash.
pub(super) fn listing(children: &BTreeMap<String, Node>) -> String {
    let names = children.iter().map(|(name, node)| match node {
        Node::Leaf(_) => name.clone(),
        Node::Folder(_) => format!("{name}/"),
    });
    names.collect::<Vec<_>>().join("\n")
}

fn leaf(value: impl Display) -> Node {
    Node::Leaf(value.to_string())
}

/// A list, as the cloud writes it: like JSON, but addresses of IPv6 without quotes.
fn list<T: Display>(values: &[T], quote: &str) -> Node {
    let values: Vec<String> = values.iter().map(|value| format!("{quote}{value}{quote}")).collect();
    leaf(format!("[{}]", values.join(",")))
}

pub(super) fn meta_data(directory: &GuestDirectory, asker: &Asker, record: &GuestRecord) -> Node {
    let instance = record.instance.as_ref();
    let id = instance.map_or(asker.eni.as_str(), |instance| &instance.id);
    let host_name = instance.map(|instance| instance.host_name.as_str()).filter(|name| !name.is_empty()).unwrap_or(id);
    let mut children = BTreeMap::from(
        [
            ("dns-conf", Node::folder([("nameservers", lines(&record.name_servers))])),
            ("hostname", leaf(host_name)),
            ("instance-id", leaf(id)),
            ("mac", leaf(record.mac)),
            ("network-type", leaf("vpc")),
            ("network", Node::folder([("interfaces", interfaces(directory, asker, record))])),
            ("ntp-conf", Node::folder([("ntp-servers", lines(&record.ntp_servers))])),
            ("owner-account-id", leaf(&record.owner)),
            ("region-id", leaf(&record.region)),
            ("zone-id", leaf(&record.zone)),
            ("vpc-id", leaf(&record.vpc)),
            ("vswitch-id", leaf(&record.vswitch)),
            ("vswitch-cidr-block", leaf(record.ipv4_block)),
        ]
        .map(|(name, node)| (name.to_owned(), node)),
    );
    let mut add = |name: &str, node: Option<Node>| children.extend(node.map(|node| (name.to_owned(), node)));
    add("vpc-cidr-block", record.vpc_blocks.first().map(leaf));
    add("private-ipv4", record.ipv4.first().map(leaf));
    add("sub-private-ipv4-list", record.ipv4.get(1..).filter(|more| !more.is_empty()).map(lines));
    add("eipv4", record.public_ipv4.map(leaf));
    add("public-ipv4", record.public_ipv4.map(leaf));
    if let Some(instance) = instance {
        add("image-id", Some(leaf(&instance.image)));
        add("serial-number", Some(leaf(&instance.serial_number)));
        add("instance", Some(of_instance(instance)));
        add("public-keys", keys(instance));
        // A path has no room for every key that a tag may have.
        let tags = instance.tags.iter().filter(|(key, _)| !key.contains(|c: char| c == '/' || c.is_control()));
        let tags = tags.map(|(key, value)| (key.as_str(), leaf(value)));
        let tags = Node::folder([("instance", Node::folder(tags))]);
        add("tags", (!instance.tags.is_empty()).then_some(tags));
    }
    Node::Folder(children)
}

fn lines<T: Display>(values: &[T]) -> Node {
    leaf(values.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn of_instance(instance: &InstanceRecord) -> Node {
    Node::folder([("instance-type", leaf(&instance.instance_type)), ("instance-name", leaf(&instance.name))])
}

fn keys(instance: &InstanceRecord) -> Option<Node> {
    let keys = instance.public_keys.iter();
    let keys = keys.map(|(name, key)| (name.as_str(), Node::folder([("openssh-key", leaf(key))])));
    (!instance.public_keys.is_empty()).then(|| Node::folder(keys))
}

/// The interfaces of the asker's instance; its own, if it has none.
fn interfaces(directory: &GuestDirectory, asker: &Asker, record: &GuestRecord) -> Node {
    let of_instance =
        directory.enis_of_instance(record).map(|(eni, other)| (other.mac.to_string(), interface(eni, other)));
    let mut macs: BTreeMap<String, Node> = of_instance.collect();
    macs.entry(record.mac.to_string()).or_insert_with(|| interface(&asker.eni, record));
    Node::folder([("macs", Node::Folder(macs))])
}

fn interface(eni: &EniId, record: &GuestRecord) -> Node {
    let mut children = BTreeMap::from(
        [
            ("network-interface-id", leaf(eni)),
            ("netmask", leaf(record.ipv4_block.netmask())),
            ("gateway", leaf(record.ipv4_gateway)),
            ("private-ipv4s", list(&record.ipv4, "\"")),
            ("vswitch-id", leaf(&record.vswitch)),
            ("vswitch-cidr-block", leaf(record.ipv4_block)),
            ("vpc-id", leaf(&record.vpc)),
        ]
        .map(|(name, node)| (name.to_owned(), node)),
    );
    let mut add = |name: &str, node: Option<Node>| children.extend(node.map(|node| (name.to_owned(), node)));
    add("primary-ip-address", record.ipv4.first().map(leaf));
    add("vpc-cidr-block", record.vpc_blocks.iter().find(|block| block.addr().is_ipv4()).map(leaf));
    let v6_blocks: Vec<_> = record.vpc_blocks.iter().filter(|block| matches!(block.addr(), IpAddr::V6(_))).collect();
    add("vpc-ipv6-cidr-blocks", (!v6_blocks.is_empty()).then(|| list(&v6_blocks, "")));
    add("vswitch-ipv6-cidr-block", record.ipv6_block.map(leaf));
    add("ipv6s", (!record.ipv6.is_empty()).then(|| list(&record.ipv6, "")));
    add("ipv6-gateway", record.ipv6_gateway.map(leaf));
    Node::Folder(children)
}
