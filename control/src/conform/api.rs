//! Cases of the HTTP interface: a state, one call through HTTP, and what a conforming server answers.

use super::fake_switch::fake_switch;
use super::format::{Case, CaseError};
use crate::command::{Command, PortKind};
use crate::config::ControlConfig;
use crate::ecs::client::{ApiClient, HttpAnswer};
use crate::ecs::{ACTIONS, AccessKey, ApiSettings, Product};
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

/// A control plane with an HTTP interface on loopback, a store in memory and a fake forwarding plane. It ends when the
/// value is dropped.
#[derive(Debug)]
pub struct ApiRig {
    /// The address of the HTTP interface.
    pub address: SocketAddr,
    /// An access key of its first account.
    pub key: AccessKey,
    folder: PathBuf,
    control: Option<(UnixStream, JoinHandle<()>)>,
}

impl ApiRig {
    /// Starts one with the state of a model.
    ///
    /// # Errors
    /// Why it cannot start.
    pub fn start(model: &Model, settings: ApiSettings, quotas: Quotas) -> Result<Self, CaseError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let fault = |error: &dyn std::fmt::Display| CaseError(format!("the control plane cannot start: {error}"));
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sluice-api-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| fault(&error))?;
        fake_switch(&folder.join("vswitch.sock")).map_err(|error| fault(&error))?;
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
                account: crate::ecs::FIRST_ACCOUNT.into(),
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
    /// If it cannot connect.
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
#[serde(deny_unknown_fields)]
struct ApiCase {
    action: String,
    #[serde(default)]
    params: BTreeMap<String, Value>,
    #[serde(default)]
    state: ApiState,
    #[serde(default)]
    after: After,
    expect: ApiExpect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiExpect {
    http: u16,
    code: Option<OneOf>,
}

/// A code, or several of which any is accepted.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOf {
    Code(String),
    Codes(Vec<String>),
}

impl ApiExpect {
    fn codes(&self) -> &[String] {
        match &self.code {
            None => &[],
            Some(OneOf::Code(code)) => std::slice::from_ref(code),
            Some(OneOf::Codes(codes)) => codes,
        }
    }
}

/// One call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiCall {
    action: String,
    #[serde(default)]
    params: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct ApiState {
    vpcs: Vec<String>,
    groups: Vec<GroupState>,
    enis: Vec<EniState>,
    prefix_lists: BTreeMap<String, ListState>,
    port_lists: BTreeMap<String, ListState>,
    existing_rules: Vec<ExistingRule>,
    /// Calls made before the one under test; each has to succeed.
    prior_calls: Vec<ApiCall>,
}

/// What exists after the call.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct After {
    /// Rules of the group that the call names.
    rule_count: Option<usize>,
}

/// A rule that exists before the call, with the names of the API.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
struct ExistingRule {
    #[serde(rename = "id", alias = "SecurityGroupRuleId")]
    id: Option<String>,
    #[serde(rename = "group")]
    group: String,
    direction: Option<String>,
    policy: Option<String>,
    priority: Option<Value>,
    ip_protocol: String,
    port_range: Option<String>,
    port_range_list_id: Option<String>,
    source_port_range: Option<String>,
    source_cidr_ip: Option<String>,
    ipv6_source_cidr_ip: Option<String>,
    source_group_id: Option<String>,
    source_prefix_list_id: Option<String>,
    dest_cidr_ip: Option<String>,
    ipv6_dest_cidr_ip: Option<String>,
    dest_group_id: Option<String>,
    dest_prefix_list_id: Option<String>,
    #[serde(rename = "NicType")]
    _nic_type: Option<String>,
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
struct EniState {
    id: String,
    vpc: String,
    groups: Vec<String>,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    kind: EniKind,
    instance: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
enum EniKind {
    Primary,
    #[default]
    Secondary,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListState {
    family: Option<String>,
    max: u32,
    #[serde(default)]
    entries: Vec<String>,
}

/// The differences between what a case expects and what happens.
pub(super) fn differences(case: &Case) -> Result<Vec<String>, CaseError> {
    let ApiCase { action, params, state, after, expect } = case.read()?;
    let rig = ApiRig::start(&state.model()?, ApiSettings::default(), Quotas::default())?;
    let mut client = rig.client()?;
    for (position, call) in state.prior_calls.iter().enumerate() {
        let answer = call.send(&mut client)?;
        if answer.status != 200 {
            let place = format!("state.priorCalls[{position}] {}", call.action);
            return Err(CaseError(format!("{place} answered {} {}", answer.status, answer.body)));
        }
    }
    let call = ApiCall { action, params };
    let answer = call.send(&mut client)?;
    let mut differences = Vec::new();
    let codes = expect.codes();
    let is_expected = match answer.code() {
        None => codes.is_empty(),
        Some(code) => codes.contains(&code),
    };
    if answer.status != expect.http || !is_expected {
        let expected = if codes.is_empty() { "success".into() } else { codes.join(" or ") };
        differences.push(format!("expected {} {expected}, answered {} {}", expect.http, answer.status, answer.body));
    }
    if let Some(expected) = after.rule_count {
        let group = call.params.get("SecurityGroupId").map(text).unwrap_or_default();
        let parameters = [("RegionId", "cn-hangzhou"), ("SecurityGroupId", group.as_str())];
        let answer = client.call(Product::Ecs, "DescribeSecurityGroupAttribute", &parameters).map_err(io_error)?;
        let count = answer.json()["Permissions"]["Permission"].as_array().map_or(0, Vec::len);
        if expected != count {
            differences.push(format!("expected {expected} rules after it, there are {count}"));
        }
    }
    Ok(differences)
}

impl ApiCall {
    fn send(&self, client: &mut ApiClient) -> Result<HttpAnswer, CaseError> {
        // If several products have an action of this name, that of ECS counts, which comes first.
        let product = ACTIONS.iter().find(|action| action.name == self.action).map_or(Product::Vpc, |one| one.product);
        let pairs = self.params.iter().map(|(name, value)| (name.clone(), text(value)));
        let pairs = pairs.chain([("Format".to_owned(), "JSON".to_owned())]).collect();
        client.send(product, &self.action, pairs).map_err(io_error)
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn io_error(error: std::io::Error) -> CaseError {
    CaseError(error.to_string())
}

impl ApiState {
    /// The model that a state describes. Each VPC has one subnet.
    fn model(&self) -> Result<Model, CaseError> {
        let mut model = Model::new(Quotas::default());
        let mut make = |value: Value| -> Result<(), CaseError> {
            let fault = |error: &dyn std::fmt::Display| CaseError(format!("the state is impossible: {error}"));
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
            make(rule.command())?;
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
        if self.kind == EniKind::Secondary {
            let mut eni = eni;
            eni["op"] = json!("eni-create");
            return eni;
        }
        let instance = self.instance.clone().unwrap_or_else(|| format!("i-{}", self.id.trim_start_matches("eni-")));
        json!({"op": "instance-create", "id": instance, "primary": eni, "port": "none", "running": true})
    }
}

impl ExistingRule {
    fn command(&self) -> Value {
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok());
        let priority = self.priority.as_ref().map(|value| number(value).map_or_else(|| value.clone(), Value::from));
        let mut spec = json!({
            "id": self.id,
            "policy": self.policy,
            "priority": priority,
            "protocol": self.ip_protocol,
            "ports": self.port_range,
            "port_list": self.port_range_list_id,
            "source_ports": self.source_port_range,
            "description": self.description,
        });
        let source = (&self.source_cidr_ip, &self.ipv6_source_cidr_ip);
        let destination = (&self.dest_cidr_ip, &self.ipv6_dest_cidr_ip);
        let is_egress = self.direction.as_deref() == Some("egress");
        let (object, near) = if is_egress { (destination, source) } else { (source, destination) };
        let (group, list) = match is_egress {
            false => (&self.source_group_id, &self.source_prefix_list_id),
            true => (&self.dest_group_id, &self.dest_prefix_list_id),
        };
        spec["cidr"] = json!(object.0);
        spec["ipv6_cidr"] = json!(object.1);
        spec["group"] = json!(group);
        spec["prefix_list"] = json!(list);
        spec["local_cidr"] = json!(near.0);
        spec["ipv6_local_cidr"] = json!(near.1);
        let direction = self.direction.as_deref().unwrap_or("ingress");
        json!({"op": "rule-authorize", "group": self.group, "direction": direction, "rules": [spec]})
    }
}
