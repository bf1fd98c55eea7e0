//! How the HTTP interface is set up.

use crate::command::PortKind;
use crate::ecs::catalogue::Catalogue;
use crate::model::DEFAULT_POOL;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The account of everything that was not made for another one.
pub const FIRST_ACCOUNT: &str = "1000000000000001";

/// The resource group of everything that is in no other one.
pub(in crate::ecs) const DEFAULT_RESOURCE_GROUP: &str = "rg-acfmdefault0001";

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// What a request names.
    pub id: String,
    /// What a request is signed with.
    pub secret: String,
    /// The account it acts for: a number.
    #[serde(default = "first_account")]
    pub account: String,
    /// The token that has to come with a temporary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_token: Option<String>,
}

fn first_account() -> String {
    FIRST_ACCOUNT.into()
}

/// The settings of the HTTP interface; the table `api` of the settings file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// Keys that requests may be signed with. One is made and kept if none is named.
    pub access_keys: Vec<AccessKey>,
    /// Whether unsigned requests act for the first account. Only on a loopback address.
    pub unsigned: bool,
    /// The regions; the first is that of everything made without one.
    pub regions: Vec<String>,
    /// Resource groups by identifier, each with a name; empty: any identifier that begins with `rg-` exists.
    pub resource_groups: BTreeMap<String, String>,
    /// VPCs that other accounts may use too.
    pub shared_vpcs: BTreeMap<String, Vec<String>>,
    /// What instances can be made of.
    pub catalogue: Catalogue,
    /// The public addresses that instances get, IPv4.
    pub public_addresses: Ipv4Net,
    /// Whether security groups may be in the classic network, which is none here: they have rules, and no members.
    pub classic_network: bool,
    /// How long new and changed objects show a passing state such as `Pending`, seconds.
    pub state_delay_s: u64,
    /// What kind of port the interfaces of an instance get.
    pub instance_port: PortKind,
    /// The folder of the sockets of such ports, `INSTANCE-ethN.sock` each; `/run/sluice` if empty.
    pub instance_sockets: String,
    /// Whether security groups are listed by `PageNumber` and `PageSize` too, which the cloud is giving up.
    pub page_numbers: bool,
    /// Whether revoking a rule that does not exist, by its fields, is success.
    pub revoke_absent_rule_succeeds: bool,
}

impl Default for ApiSettings {
    fn default() -> Self {
        let regions = [
            "cn-hangzhou",
            "cn-shanghai",
            "cn-beijing",
            "cn-shenzhen",
            "cn-qingdao",
            "cn-zhangjiakou",
            "cn-huhehaote",
            "cn-chengdu",
            "cn-hongkong",
            "ap-southeast-1",
            "eu-central-1",
            "us-east-1",
            "us-west-1",
        ];
        Self {
            access_keys: Vec::new(),
            unsigned: false,
            regions: regions.map(String::from).into(),
            resource_groups: BTreeMap::new(),
            shared_vpcs: BTreeMap::new(),
            catalogue: Catalogue::default(),
            public_addresses: DEFAULT_POOL,
            classic_network: false,
            state_delay_s: 0,
            instance_port: PortKind::Namespace,
            instance_sockets: String::new(),
            page_numbers: true,
            revoke_absent_rule_succeeds: false,
        }
    }
}

impl ApiSettings {
    /// The account whose objects need no note.
    pub fn first_account(&self) -> &str {
        self.access_keys.first().map_or(FIRST_ACCOUNT, |key| key.account.as_str())
    }

    /// The region whose objects need no note.
    pub fn first_region(&self) -> &str {
        self.regions.first().map_or("cn-hangzhou", String::as_str)
    }
}
