//! A control plane of its own with the HTTP interface, and a client that signs.

#![allow(dead_code, reason = "each test file uses its part")]

use control::conform::ApiRig;
use control::ecs::client::{ApiClient, HttpAnswer};
use control::ecs::{AccessKey, Action, ApiSettings, Product};
use control::model::{Model, Quotas};
use serde_json::Value;

pub(crate) struct ApiLab {
    pub(crate) rig: ApiRig,
    pub(crate) client: ApiClient,
}

impl ApiLab {
    pub(crate) fn new() -> Self {
        Self::with(ApiSettings::default())
    }

    pub(crate) fn with(settings: ApiSettings) -> Self {
        Self::with_quotas(settings, Quotas::default())
    }

    pub(crate) fn with_quotas(settings: ApiSettings, quotas: Quotas) -> Self {
        let rig = ApiRig::start(&Model::new(quotas.clone()), settings, quotas).unwrap();
        let client = rig.client().unwrap();
        Self { rig, client }
    }

    pub(crate) fn as_account(&self, settings_key: &AccessKey) -> ApiClient {
        ApiClient::connect(self.rig.address, settings_key.clone()).unwrap()
    }

    pub(crate) fn send(&mut self, action: &str, parameters: &str) -> HttpAnswer {
        send(&mut self.client, action, parameters)
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, action: &str, parameters: &str) -> Value {
        let answer = self.send(action, parameters);
        assert_eq!(answer.status, 200, "{action} {parameters}: {}", answer.body);
        answer.json()
    }

    #[track_caller]
    pub(crate) fn refused(&mut self, action: &str, parameters: &str, status: u16, code: &str) {
        let answer = self.send(action, parameters);
        let found = (answer.status, answer.code().unwrap_or_default());
        assert_eq!(found, (status, code.to_owned()), "{action} {parameters}: {}", answer.body);
    }

    /// A VPC, a subnet, and groups by these types.
    pub(crate) fn base(&mut self, kinds: &[&str]) -> (String, String, Vec<String>) {
        let vpc = text(&self.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8"), "VpcId");
        let created = self.ok("vpc:CreateVSwitch", &format!("VpcId={vpc}&CidrBlock=10.0.0.0/16&ZoneId=cn-hangzhou-b"));
        let vswitch = text(&created, "VSwitchId");
        let mut groups = Vec::new();
        for kind in kinds {
            let created = self.ok("CreateSecurityGroup", &format!("VpcId={vpc}&SecurityGroupType={kind}"));
            groups.push(text(&created, "SecurityGroupId"));
        }
        (vpc, vswitch, groups)
    }

    pub(crate) fn rules(&mut self, group: &str) -> Vec<Value> {
        let shown = self.ok("DescribeSecurityGroupAttribute", &format!("SecurityGroupId={group}"));
        shown["Permissions"]["Permission"].as_array().unwrap().clone()
    }
}

pub(crate) fn send(client: &mut ApiClient, action: &str, parameters: &str) -> HttpAnswer {
    let (product, action) = match action.split_once(':') {
        Some(("vpc", action)) => (Product::Vpc, action),
        Some(("sts", action)) => (Product::Sts, action),
        Some(("rm", action)) => (Product::ResourceManager, action),
        _ => (Product::Ecs, action),
    };
    let mut pairs = vec![("RegionId", "cn-hangzhou")];
    for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
        pairs.push(pair.split_once('=').unwrap());
    }
    if pairs.iter().filter(|(name, _)| *name == "RegionId").count() > 1 {
        pairs.remove(0);
    }
    client.call(product, action, &pairs).unwrap()
}

/// An action's name as [`send`] takes it.
pub(crate) fn name_of(action: &Action) -> String {
    let prefix = match action.product {
        Product::Ecs => "",
        Product::Vpc => "vpc:",
        Product::Sts => "sts:",
        Product::ResourceManager => "rm:",
    };
    format!("{prefix}{}", action.name)
}

pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}")).to_owned()
}
