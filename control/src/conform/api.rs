//! Cases of the HTTP interface: a state, one call through HTTP, and what a conforming server answers.

use super::format::{Case, CaseError};
use super::stand_in::stand_in;
use crate::api::{AccessKey, ApiSettings, Product};
use crate::api_client::ApiClient;
use crate::command::{Command, PortKind};
use crate::config::ControlConfig;
use crate::environment::Environment;
use crate::http::Endpoint;
use crate::model::{Model, Quotas};
use crate::server::serve_with;
use crate::store::{MemoryStore, Store};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// A control plane with an HTTP interface on loopback, a store in memory and a stand-in for the forwarding plane. It
/// ends with the value.
#[derive(Debug)]
pub struct ApiRig {
    /// Where the interface is.
    pub address: SocketAddr,
    /// A key of its first account.
    pub key: AccessKey,
    folder: PathBuf,
    control: Option<(UnixStream, JoinHandle<()>)>,
}

impl ApiRig {
    /// Starts one with the state of a model.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub fn start(model: &Model, settings: ApiSettings, quotas: Quotas) -> Result<Self, CaseError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let fault = |error: &dyn std::fmt::Display| CaseError(format!("the control plane cannot start: {error}"));
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sluice-api-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| fault(&error))?;
        stand_in(&folder.join("vswitch.sock")).map_err(|error| fault(&error))?;
        let mut config =
            ControlConfig::new(folder.join("data"), folder.join("control.sock"), folder.join("vswitch.sock"));
        config.quotas = quotas;
        let mut store = MemoryStore::default();
        store.append(&model.events()).map_err(|error| fault(&error))?;
        let mut settings = ApiSettings { instance_port: PortKind::None, ..settings };
        if settings.access_keys.is_empty() {
            settings.access_keys.push(AccessKey {
                id: "testid".into(),
                secret: "testsecret".into(),
                account: crate::api::FIRST_ACCOUNT.into(),
                security_token: None,
            });
        }
        let key = settings.access_keys[0].clone();
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| fault(&error))?;
        let endpoint = Endpoint::new(listener, settings).map_err(|error| fault(&error))?;
        let address = endpoint.address().map_err(|error| fault(&error))?;
        let (stop, stopped) = UnixStream::pair().map_err(|error| fault(&error))?;
        let control = thread::spawn(move || {
            if let Err(error) = serve_with(&config, Box::new(store), stopped, Some(endpoint)) {
                log::error!("the control plane of a case ended: {error}");
            }
        });
        Ok(Self { address, key, folder, control: Some((stop, control)) })
    }

    /// A connection that signs with the first key.
    ///
    /// # Errors
    /// Where it does not connect.
    pub fn client(&self) -> Result<ApiClient, CaseError> {
        ApiClient::connect(self.address, self.key.clone()).map_err(|error| CaseError(error.to_string()))
    }

    /// The control socket of the same control plane.
    pub fn control_socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }
}

impl Drop for ApiRig {
    fn drop(&mut self) {
        if let Some((stop, control)) = self.control.take() {
            drop(stop);
            let _ = control.join();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[derive(Debug, Deserialize)]
struct ApiCase {
    action: String,
    #[serde(default)]
    params: BTreeMap<String, Value>,
    #[serde(default)]
    state: State,
    #[serde(default)]
    after: BTreeMap<String, Value>,
    expect: ApiExpect,
}

#[derive(Debug, Deserialize)]
struct ApiExpect {
    http: u16,
    code: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct State {
    vpcs: Vec<String>,
    groups: Vec<GroupState>,
    enis: Vec<EniState>,
    prefix_lists: BTreeMap<String, ListState>,
    port_lists: BTreeMap<String, ListState>,
    existing_rules: Vec<BTreeMap<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct GroupState {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    vpc: String,
    #[serde(default)]
    managed: bool,
    inner: Option<String>,
}

#[derive(Debug, Deserialize)]
struct EniState {
    id: String,
    vpc: String,
    groups: Vec<String>,
    #[serde(default)]
    ips: Vec<String>,
    kind: Option<String>,
    instance: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ListState {
    family: Option<String>,
    max: u32,
    #[serde(default)]
    entries: Vec<String>,
}

/// How a case differs from what it expects.
pub(super) fn differences(case: &Case) -> Result<Vec<String>, CaseError> {
    let body = ApiCase::deserialize(&case.body).map_err(|error| CaseError(format!("not a case: {error}")))?;
    let rig = ApiRig::start(&body.state.model()?, ApiSettings::default(), Quotas::default())?;
    let mut client = rig.client()?;
    let is_vpc = crate::api::ACTIONS.iter().all(|action| action.name != body.action || action.product == Product::Vpc);
    let product = if is_vpc { Product::Vpc } else { Product::Ecs };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = body.params.iter().map(|(name, value)| (name.clone(), text(value)));
    let pairs = pairs.chain([("Format".to_owned(), "JSON".to_owned())]).collect();
    let io = |error: std::io::Error| CaseError(error.to_string());
    let answer = client.send(product, &body.action, pairs).map_err(io)?;
    let mut differences = Vec::new();
    if answer.status != body.expect.http || answer.code() != body.expect.code {
        let expected = body.expect.code.as_deref().unwrap_or("success");
        differences
            .push(format!("expected {} {expected}, answered {} {}", body.expect.http, answer.status, answer.body));
    }
    for (what, expected) in &body.after {
        if what != "ruleCount" {
            return Err(CaseError(format!("after: unknown {what}")));
        }
        let group = body.params.get("SecurityGroupId").map(text).unwrap_or_default();
        let parameters = [("RegionId", "cn-hangzhou"), ("SecurityGroupId", group.as_str())];
        let answer = client.call(Product::Ecs, "DescribeSecurityGroupAttribute", &parameters).map_err(io)?;
        let count = answer.json()["Permissions"]["Permission"].as_array().map_or(0, Vec::len);
        if expected.as_u64() != Some(count as u64) {
            differences.push(format!("expected {expected} rules after it, there are {count}"));
        }
    }
    Ok(differences)
}

impl State {
    /// The model that a state describes. Each VPC has one subnet.
    fn model(&self) -> Result<Model, CaseError> {
        let mut model = Model::new(Quotas::default());
        let mut make = |value: Value| -> Result<(), CaseError> {
            let fault = |error: &dyn std::fmt::Display| CaseError(format!("the state cannot be: {error}"));
            let command: Command = serde_json::from_value(value).map_err(|error| fault(&error))?;
            for event in model.decide(&command, &Environment::real()).map_err(|error| fault(&error))? {
                model.apply(event);
            }
            Ok(())
        };
        for vpc in &self.vpcs {
            make(json!({"op": "vpc-create", "id": vpc, "cidr": "10.0.0.0/8", "ipv6_cidr": "2001:db8:1::/56"}))?;
            make(json!({"op": "vswitch-create", "id": format!("vsw-{}", vpc.trim_start_matches("vpc-")), "vpc": vpc,
                        "cidr": "10.0.0.0/16", "ipv6_cidr": "2001:db8:1:1::/64"}))?;
        }
        for group in &self.groups {
            make(json!({"op": "group-create", "id": group.id, "vpc": group.vpc, "kind": group.kind,
                        "inner_access": group.inner, "service_managed": false}))?;
        }
        for (id, list) in &self.prefix_lists {
            let entries: Vec<Value> = list.entries.iter().map(|cidr| json!({"cidr": cidr})).collect();
            make(json!({"op": "prefix-list-create", "id": id, "name": format!("list-{id}"), "family": list.family,
                        "max_entries": list.max, "entries": entries}))?;
        }
        for (id, list) in &self.port_lists {
            let entries: Vec<Value> = list.entries.iter().map(|ports| json!({"ports": ports})).collect();
            make(json!({"op": "port-list-create", "id": id, "name": format!("list-{id}"), "max_entries": list.max,
                        "entries": entries}))?;
        }
        for eni in &self.enis {
            make(eni.command())?;
        }
        for rule in &self.existing_rules {
            make(rule_command(rule))?;
        }
        let managed: BTreeSet<&str> =
            self.groups.iter().filter(|group| group.managed).map(|group| group.id.as_str()).collect();
        for (id, group) in &mut model.groups {
            group.service_managed |= managed.contains(id.as_str());
        }
        Ok(model)
    }
}

impl EniState {
    fn command(&self) -> Value {
        let vswitch = format!("vsw-{}", self.vpc.trim_start_matches("vpc-"));
        let eni = json!({"id": self.id, "vswitch": vswitch, "groups": self.groups, "primary_ip": self.ips.first(),
                         "secondary_ips": self.ips.iter().skip(1).collect::<Vec<_>>()});
        if self.kind.as_deref() != Some("Primary") {
            let mut eni = eni;
            eni["op"] = json!("eni-create");
            return eni;
        }
        let instance = self.instance.clone().unwrap_or_else(|| format!("i-{}", self.id.trim_start_matches("eni-")));
        json!({"op": "instance-create", "id": instance, "primary": eni, "port": "none", "running": true})
    }
}

fn rule_command(rule: &BTreeMap<String, Value>) -> Value {
    let text = |name: &str| rule.get(name).and_then(Value::as_str).map(str::to_owned);
    let priority = rule.get("Priority").map(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()));
    let direction = text("Direction").unwrap_or_else(|| "ingress".into());
    let (object, near) = if direction == "egress" { ("Dest", "Source") } else { ("Source", "Dest") };
    let spec = json!({
        "id": text("id").or_else(|| text("SecurityGroupRuleId")),
        "policy": text("Policy"),
        "priority": priority.flatten(),
        "protocol": text("IpProtocol").unwrap_or_default(),
        "ports": text("PortRange"),
        "port_list": text("PortRangeListId"),
        "source_ports": text("SourcePortRange"),
        "cidr": text(&format!("{object}CidrIp")),
        "ipv6_cidr": text(&format!("Ipv6{object}CidrIp")),
        "group": text(&format!("{object}GroupId")),
        "prefix_list": text(&format!("{object}PrefixListId")),
        "local_cidr": text(&format!("{near}CidrIp")),
        "ipv6_local_cidr": text(&format!("Ipv6{near}CidrIp")),
        "description": text("Description"),
    });
    json!({"op": "rule-authorize", "group": text("group").unwrap_or_default(), "direction": direction, "rules": [spec]})
}
