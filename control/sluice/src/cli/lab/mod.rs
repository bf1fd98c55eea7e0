//! Lab files: the objects of a lab, and the changes that make them exist. Pure: the present state is an argument.

mod outside;

use super::CliError;
use control::command::{
    Batch, Command, EniAssign, EniAttach, EniCreate, EniDetach, EniModify, EniUnassign, ForwardAdd, GroupCreate,
    GroupModify, PeeringCreate, PortListCreate, PortListEntry, PortListModify, PortSpecification, PrefixListCreate,
    PrefixListEntry, PrefixListModify, RuleAuthorize, RuleChange, RuleModify, RuleRevoke, RuleSpec, SettingsModify,
    UplinkCreate, VpcCreate, VpcModify, VpcRouteAdd, VswitchCreate, VswitchModify, prefix_without_host_bits,
};
use control::socket::view::{EniView, GroupView, ListEntryView, RuleView, StateView};
use ipnet::IpNet;
use outside::{LabEip, LabNat};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use vswitch_core::config::desired::{DesiredPort, Direction, Policy};

/// A whole lab. Objects that it does not name are left alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LabFile {
    settings: Option<SettingsModify>,
    vpc: Vec<VpcCreate>,
    vswitch: Vec<VswitchCreate>,
    prefix_list: Vec<PrefixListCreate>,
    port_list: Vec<PortListCreate>,
    group: Vec<LabGroup>,
    eni: Vec<LabEni>,
    route: Vec<VpcRouteAdd>,
    uplink: Vec<UplinkCreate>,
    nat: Vec<LabNat>,
    eip: Vec<LabEip>,
    forward: Vec<ForwardAdd>,
    peering: Vec<PeeringCreate>,
}

/// A group with exactly these rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabGroup {
    #[serde(flatten)]
    create: GroupCreate,
    #[serde(default)]
    ingress: Vec<RuleSpec>,
    #[serde(default)]
    egress: Vec<RuleSpec>,
}

/// An ENI. With a namespace or a device it is attached to a TAP device, with a host interface to that.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabEni {
    #[serde(flatten)]
    create: EniCreate,
    #[serde(flatten)]
    port: PortSpecification,
}

/// A change, and how it is described.
#[derive(Debug)]
pub(super) struct LabStep {
    pub(super) told: String,
    command: Command,
}

/// All steps as one change.
pub(super) fn batch(steps: Vec<LabStep>) -> Command {
    Command::Batch(Batch { commands: steps.into_iter().map(|step| step.command).collect() })
}

/// Parses a lab file.
pub(super) fn read(text: &str) -> Result<LabFile, CliError> {
    toml::from_str(text).map_err(|error| CliError::Usage(error.to_string()))
}

/// The changes to make, in an order in which they are possible.
pub(super) fn plan(lab: &LabFile, state: &StateView) -> Result<Vec<LabStep>, CliError> {
    // Rules name lists and groups, interfaces are in groups, and routes lead to interfaces. What is managed comes
    // last: it depends on whether there are other steps.
    let mut plan = LabPlan { steps: Vec::new() };
    plan.settings(lab, state);
    plan.networks(lab, state)?;
    plan.lists(lab, state)?;
    plan.groups(lab, state)?;
    for group in &lab.group {
        plan.rules(group, state)?;
    }
    for eni in &lab.eni {
        plan.eni(eni, state)?;
    }
    plan.routes(lab, state);
    plan.outside(lab, state)?;
    plan.managed(lab, state);
    Ok(plan.steps)
}

struct LabPlan {
    steps: Vec<LabStep>,
}

impl LabPlan {
    fn push(&mut self, told: String, command: Command) {
        self.steps.push(LabStep { told, command });
    }

    fn settings(&mut self, lab: &LabFile, state: &StateView) {
        let Some(wanted) = &lab.settings else { return };
        if wanted.over(&state.settings) != state.settings {
            self.push("~ settings".into(), Command::SettingsModify(wanted.clone()));
        }
    }

    fn networks(&mut self, lab: &LabFile, state: &StateView) -> Result<(), CliError> {
        for vpc in &lab.vpc {
            let id = needed(&vpc.id, "a vpc")?;
            match state.vpcs.iter().find(|view| view.id.as_str() == id) {
                None => self.push(format!("+ vpc {id} {}", vpc.cidr), Command::VpcCreate(vpc.clone())),
                Some(view) => {
                    same(&format!("vpc {id}"), "cidr", &vpc.cidr, &view.cidr.to_string())?;
                    let ipv6_cidr =
                        other(&vpc.ipv6_cidr, &view.ipv6_cidr.map(|block| block.to_string()).unwrap_or_default());
                    let (name, description) =
                        (other(&vpc.name, &view.name), other(&vpc.description, &view.description));
                    if ipv6_cidr.is_some() || name.is_some() || description.is_some() {
                        let (vpc, modify) = (id.clone(), VpcModify::default());
                        let modify = VpcModify { vpc, name, description, ipv6_cidr, ..modify };
                        self.push(format!("~ vpc {id}"), Command::VpcModify(modify));
                    }
                }
            }
        }
        for vswitch in &lab.vswitch {
            let id = needed(&vswitch.id, "a vswitch")?;
            match state.vswitches.iter().find(|view| view.id.as_str() == id) {
                None => {
                    self.push(format!("+ vswitch {id} {}", vswitch.cidr), Command::VswitchCreate(vswitch.clone()));
                }
                Some(view) => {
                    same(&format!("vswitch {id}"), "cidr", &vswitch.cidr, &view.cidr.to_string())?;
                    same(&format!("vswitch {id}"), "vpc", &vswitch.vpc, view.vpc.as_str())?;
                    let now = view.ipv6_cidr.map(|block| block.to_string()).unwrap_or_default();
                    let ipv6_cidr = other(&vswitch.ipv6_cidr, &now);
                    let name = other(&vswitch.name, &view.name);
                    let description = other(&vswitch.description, &view.description);
                    if ipv6_cidr.is_some() || name.is_some() || description.is_some() {
                        let modify = VswitchModify { vswitch: id.clone(), name, description, ipv6_cidr };
                        self.push(format!("~ vswitch {id}"), Command::VswitchModify(modify));
                    }
                }
            }
        }
        Ok(())
    }

    fn lists(&mut self, lab: &LabFile, state: &StateView) -> Result<(), CliError> {
        for list in &lab.prefix_list {
            let id = needed(&list.id, "a prefix_list")?;
            let Some(view) = state.prefix_lists.iter().find(|view| view.id.as_str() == id) else {
                self.push(format!("+ prefix-list {id}"), Command::PrefixListCreate(list.clone()));
                continue;
            };
            // Compared in the form it is stored in: every run would change an entry that is written differently.
            let wanted = list.entries.iter().map(|entry| prefix_without_host_bits(&entry.cidr)).collect();
            let (add, remove) = entry_changes(&wanted, &view.entries);
            let (name, description) =
                (other(&Some(list.name.clone()), &view.name), other(&list.description, &view.description));
            if add.is_empty() && remove.is_empty() && name.is_none() && description.is_none() {
                continue;
            }
            let told = format!("~ prefix-list {id}{}", changes_told(&add, &remove));
            let add = add.into_iter().map(|cidr| PrefixListEntry { cidr, description: None }).collect();
            let modify = PrefixListModify { prefix_list: id, name, description, add, remove };
            self.push(told, Command::PrefixListModify(modify));
        }
        for list in &lab.port_list {
            let id = needed(&list.id, "a port_list")?;
            let Some(view) = state.port_lists.iter().find(|view| view.id.as_str() == id) else {
                self.push(format!("+ port-list {id}"), Command::PortListCreate(list.clone()));
                continue;
            };
            let wanted = list.entries.iter().map(|entry| entry.ports.clone()).collect();
            let (add, remove) = entry_changes(&wanted, &view.entries);
            let (name, description) =
                (other(&Some(list.name.clone()), &view.name), other(&list.description, &view.description));
            if add.is_empty() && remove.is_empty() && name.is_none() && description.is_none() {
                continue;
            }
            let told = format!("~ port-list {id}{}", changes_told(&add, &remove));
            let add = add.into_iter().map(|ports| PortListEntry { ports, description: None }).collect();
            let modify = PortListModify { port_list: id, name, description, add, remove };
            self.push(told, Command::PortListModify(modify));
        }
        Ok(())
    }

    /// Groups come before any rule, since rules may name them.
    fn groups(&mut self, lab: &LabFile, state: &StateView) -> Result<(), CliError> {
        for group in &lab.group {
            let group = &group.create;
            let id = &needed(&group.id, "a group")?;
            let Some(view) = find_group(state, id) else {
                // A managed group would refuse the rules that follow; `managed` sets the mark at the end.
                let create = GroupCreate { service_managed: None, ..group.clone() };
                self.push(format!("+ group {id}"), Command::GroupCreate(create));
                continue;
            };
            same(&format!("group {id}"), "vpc", &group.vpc, view.vpc.as_str())?;
            let now = if view.inner_access == Policy::Accept { "accept" } else { "drop" };
            let inner_access = group.inner_access.clone().filter(|wanted| !wanted.eq_ignore_ascii_case(now));
            let (name, description) = (other(&group.name, &view.name), other(&group.description, &view.description));
            if inner_access.is_some() || name.is_some() || description.is_some() {
                let told = format!("~ group {id}");
                let modify = GroupModify { group: id.clone(), inner_access, name, description, service_managed: None };
                self.push(told, Command::GroupModify(modify));
            }
        }
        Ok(())
    }

    /// Groups of a cloud service cannot be changed, so they are released before all other steps and returned after
    /// them.
    fn managed(&mut self, lab: &LabFile, state: &StateView) {
        let step = |id: &str, managed: bool| {
            let modify = GroupModify { group: id.to_owned(), service_managed: Some(managed), ..GroupModify::default() };
            let told =
                format!("~ group {id} {}", if managed { "managed by a cloud service" } else { "open to changes" });
            LabStep { told, command: Command::GroupModify(modify) }
        };
        let changes = !self.steps.is_empty();
        for group in &lab.group {
            let id = group.create.id.as_deref().unwrap_or_default();
            let now = find_group(state, id).is_some_and(|view| view.service_managed);
            let wanted = group.create.service_managed.unwrap_or(now);
            if now && (changes || !wanted) {
                self.steps.insert(0, step(id, false));
            }
            if wanted && (changes || !now) {
                self.steps.push(step(id, true));
            }
        }
    }

    fn rules(&mut self, group: &LabGroup, state: &StateView) -> Result<(), CliError> {
        const RULES_AT_ONCE: usize = 100;
        let id = &needed(&group.create.id, "a group")?;
        let present = find_group(state, id).and_then(|view| view.rules.as_deref()).unwrap_or_default();
        for (direction, wanted) in [(Direction::Ingress, &group.ingress), (Direction::Egress, &group.egress)] {
            let of_direction = present.iter().filter(|rule| rule.direction == direction);
            let present: BTreeMap<RuleSpec, &RuleView> =
                // A file has no identifiers of rules, so a rule is found again by what it matches and decides.
                of_direction.map(|rule| (RuleSpec::from(rule).identity(), rule)).collect();
            let wanted: BTreeMap<RuleSpec, &RuleSpec> = wanted.iter().map(|spec| (spec.identity(), spec)).collect();
            let gone: Vec<_> = present.iter().filter(|(key, _)| !wanted.contains_key(key)).collect();
            // Removals come first, so that a group at its limit can get other rules in their place.
            for some in gone.chunks(RULES_AT_ONCE) {
                let told: Vec<String> =
                    some.iter().map(|(key, _)| format!("- rule of {id} {direction} {}", key.told())).collect();
                let ids: BTreeSet<String> = some.iter().map(|(_, rule)| rule.id.to_string()).collect();
                let revoke = RuleRevoke { group: id.clone(), direction: Some(direction), ids, rules: Vec::new() };
                self.push(told.join("\n"), Command::RuleRevoke(revoke));
            }
            for (key, spec) in &wanted {
                let view = present.get(key);
                if let Some(view) = view
                    && let Some(description) = other(&spec.description, &view.description)
                {
                    let change = RuleChange { description: Some(description), ..RuleChange::default() };
                    let modify = RuleModify { group: id.clone(), rule: view.id.to_string(), change };
                    self.push(format!("~ rule of {id} {direction} {}", key.told()), Command::RuleModify(modify));
                }
            }
            let new: Vec<_> = wanted.iter().filter(|(key, _)| !present.contains_key(key)).collect();
            for some in new.chunks(RULES_AT_ONCE) {
                let told: Vec<String> =
                    some.iter().map(|(key, _)| format!("+ rule of {id} {direction} {}", key.told())).collect();
                let rules = some.iter().map(|(_, spec)| RuleSpec::clone(spec)).collect();
                let authorize = RuleAuthorize { group: id.clone(), direction, rules };
                self.push(told.join("\n"), Command::RuleAuthorize(authorize));
            }
        }
        Ok(())
    }

    fn eni(&mut self, eni: &LabEni, state: &StateView) -> Result<(), CliError> {
        let LabEni { create: eni, port } = eni;
        let id = &needed(&eni.id, "an eni")?;
        let refused = |error: &str| CliError::Usage(format!("eni {id}: {error}"));
        if eni.port.is_some() {
            return Err(refused("give namespace, device, host_interface or stream instead of port"));
        }
        let port = port.port().map_err(refused)?;
        let Some(view) = state.enis.iter().find(|view| view.id.as_str() == id) else {
            let place = port.as_ref().map(port_told).unwrap_or_default();
            let create = EniCreate { port, ..eni.clone() };
            self.push(format!("+ eni {id}{place}"), Command::EniCreate(Box::new(create)));
            return Ok(());
        };
        let object = format!("eni {id}");
        same(&object, "vswitch", &eni.vswitch, view.vswitch.as_str())?;
        if let Some(ip) = &eni.primary_ip {
            same(&object, "ip", ip, &view.primary_ip.to_string())?;
        }
        if let Some(mac) = &eni.mac {
            same(&object, "mac", &mac.to_ascii_lowercase(), &view.mac.to_string())?;
        }
        self.addresses(id, eni, view);
        let groups: BTreeSet<&str> = eni.groups.iter().map(String::as_str).collect();
        let now: BTreeSet<&str> = view.groups.iter().map(|group| group.as_str()).collect();
        // A file without groups leaves the choice to the control plane, which has made it by now.
        let groups_differ = !groups.is_empty() && groups != now;
        let check = eni.source_dest_check.filter(|wanted| *wanted != view.source_dest_check);
        let sessions_max = eni.sessions_max.filter(|wanted| *wanted != view.sessions_max);
        let timeouts = eni.timeouts.clone().filter(|wanted| wanted.over(view.timeouts) != view.timeouts);
        let tracking = eni.tracking.clone().filter(|wanted| wanted.over(view.tracking) != view.tracking);
        let rate_limits = eni.rate_limits.clone().filter(|wanted| wanted.over(view.rate_limits) != view.rate_limits);
        let (name, description) = (other(&eni.name, &view.name), other(&eni.description, &view.description));
        let user_data = other(&eni.user_data, &view.user_data);
        let texts_differ = name.is_some() || description.is_some() || user_data.is_some();
        let sessions_differ =
            sessions_max.is_some() || timeouts.is_some() || tracking.is_some() || rate_limits.is_some();
        if groups_differ || texts_differ || check.is_some() || sessions_differ {
            let modify = EniModify {
                delete_on_release: None,
                eni: id.clone(),
                groups: groups_differ.then(|| eni.groups.clone()),
                source_dest_check: check,
                sessions_max,
                tracking,
                rate_limits,
                timeouts,
                name,
                description,
                user_data,
            };
            self.push(format!("~ {object}"), Command::EniModify(modify));
        }
        if port != view.port {
            // An interface has one port, so the present one goes first.
            if view.port.is_some() {
                self.push(format!("- port of {id}"), Command::EniDetach(EniDetach { eni: id.clone() }));
            }
            if let Some(port) = port {
                let told = format!("+ port of {id}{}", port_told(&port));
                self.push(told, Command::EniAttach(EniAttach { eni: id.clone(), port }));
            }
        }
        Ok(())
    }

    /// Makes the secondary and IPv6 addresses and prefixes those that the file names. If it names none, they are left
    /// alone.
    fn addresses(&mut self, id: &str, eni: &EniCreate, view: &EniView) {
        fn read<T: FromStr + Ord>(texts: &[String]) -> BTreeSet<T> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        }
        let secondary = changes(&read(&eni.secondary_ips), &view.secondary_ips);
        let ipv6 = changes(&read(&eni.ipv6_addresses), &view.ipv6_addresses);
        let [mut add, mut remove] = secondary;
        let [add_ipv6, remove_ipv6] = ipv6;
        add.extend(add_ipv6);
        remove.extend(remove_ipv6);
        let [add_prefixes, remove_prefixes] = changes(&read::<IpNet>(&eni.prefixes), &view.prefixes);
        let eni = id.to_owned();
        // Removals come first: addresses are limited in number, and a new prefix may cover a former address.
        if !remove.is_empty() || !remove_prefixes.is_empty() {
            let told = format!("~ eni {id}{}{}", changes_told(&[], &remove), changes_told(&[], &remove_prefixes));
            let unassign = EniUnassign { eni: eni.clone(), addresses: remove, prefixes: remove_prefixes };
            self.push(told, Command::EniUnassign(unassign));
        }
        if !add.is_empty() || !add_prefixes.is_empty() {
            let told = format!("~ eni {id}{}{}", changes_told(&add, &[]), changes_told(&add_prefixes, &[]));
            let assign = EniAssign { eni, addresses: add, prefixes: add_prefixes, ..EniAssign::default() };
            self.push(told, Command::EniAssign(assign));
        }
    }

    fn routes(&mut self, lab: &LabFile, state: &StateView) {
        for route in &lab.route {
            let vpc = state.vpcs.iter().find(|view| view.id.as_str() == route.vpc);
            let exists = vpc.is_some_and(|vpc| {
                vpc.routes.iter().any(|view| {
                    // Compared as it is stored.
                    view.destination.to_string() == prefix_without_host_bits(&route.destination)
                        && view.eni.as_str() == route.eni
                        && route.name.as_ref().is_none_or(|name| *name == view.name)
                        && route.description.as_ref().is_none_or(|text| *text == view.description)
                })
            });
            if !exists {
                let told = format!("+ route of {}: {} via {}", route.vpc, route.destination, route.eni);
                self.push(told, Command::VpcRouteAdd(route.clone()));
            }
        }
    }
}

/// What to add and what to remove to get from `present` to `wanted`; nothing if nothing is wanted.
fn changes<T: Copy + Ord + ToString>(wanted: &BTreeSet<T>, present: &[T]) -> [Vec<String>; 2] {
    let present: BTreeSet<T> = present.iter().copied().collect();
    let differences = [wanted.difference(&present), present.difference(wanted)];
    differences.map(|some| if wanted.is_empty() { Vec::new() } else { some.map(ToString::to_string).collect() })
}

fn entry_changes(wanted: &BTreeSet<String>, present: &[ListEntryView]) -> (Vec<String>, Vec<String>) {
    let present: BTreeSet<String> = present.iter().map(|entry| entry.value.clone()).collect();
    (wanted.difference(&present).cloned().collect(), present.difference(wanted).cloned().collect())
}

fn changes_told(add: &[String], remove: &[String]) -> String {
    let added = add.iter().map(|entry| format!(" +{entry}"));
    added.chain(remove.iter().map(|entry| format!(" -{entry}"))).collect()
}

fn port_told(port: &DesiredPort) -> String {
    match port.resource() {
        Some((device, Some(namespace))) => format!(" as {device} in namespace {namespace}"),
        Some((device, None)) => format!(" as {device}"),
        None => String::new(),
    }
}

/// The new value of a text, if the file names one that differs.
fn other(wanted: &Option<String>, now: &str) -> Option<String> {
    wanted.clone().filter(|wanted| wanted != now)
}

fn find_group<'a>(state: &'a StateView, id: &str) -> Option<&'a GroupView> {
    state.groups.iter().find(|view| view.id.as_str() == id)
}

fn needed(id: &Option<String>, what: &str) -> Result<String, CliError> {
    id.clone().ok_or_else(|| CliError::Usage(format!("{what} of a lab file needs an id, by which it is found again")))
}

/// Refuses to change what cannot be changed.
fn same(object: &str, field: &str, wanted: &str, now: &str) -> Result<(), CliError> {
    if wanted == now {
        return Ok(());
    }
    let way_out = "it cannot be changed: delete the object first, or give this one another id";
    Err(CliError::Usage(format!("{object}: its {field} is {now}, the file wants {wanted}; {way_out}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::environment::Environment;
    use control::model::{Model, Quotas};
    use control::socket::query::{Answer, Nothing, Query};

    #[test]
    fn keys_that_no_table_has_are_refused() {
        let group = "[[group]]\nid = 'sg-1'\nvpc = 'vpc-1'\n";
        let eni = "[[eni]]\nid = 'eni-1'\nvswitch = 'vsw-1'\n";
        for (text, key) in [
            (format!("{group}colour = 'red'\n"), "colour"),
            (format!("{group}[[group.ingress]]\nprotocol = 'tcp'\nport = '80/80'\n"), "port"),
            (format!("{eni}adress = '10.0.0.1'\n"), "adress"),
            (format!("{eni}timeouts = {{ tcp_s = 3 }}\n"), "tcp_s"),
            ("[settings]\nsmtp = true\n".into(), "smtp"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
        }
        let lab = read(&format!("{eni}ip = '10.0.0.1'\nudp_s = 60\n"));
        assert!(lab.is_err(), "what belongs to an inner table is no key of the outer one");
        let lab = read(&format!("{eni}ip = '10.0.0.1'\nnamespace = 'a'\ntimeouts = {{ udp_s = 60 }}\n")).unwrap();
        assert_eq!(lab.eni[0].create.primary_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(lab.eni[0].port.namespace.as_deref(), Some("a"));
        for (text, told) in [
            (format!("{eni}host_interface = 'veth0'\nconfigure = true\n"), "leave device and configure out"),
            (format!("{eni}port = {{ kind = 'memory' }}\n"), "instead of port"),
            ("[[group]]\nvpc = 'vpc-1'\n".into(), "needs an id"),
        ] {
            let model = Model::new(Quotas::default());
            let Ok(Some(Answer::State(state))) = model.answer(&Query::StateShow(Nothing {})) else { panic!() };
            let error = plan(&read(&text).unwrap(), &state).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn groups_of_a_cloud_service_are_changed_by_their_file_alone() {
        let mut model = Model::new(Quotas::default());
        let mut apply = |managed: &str, ports: &str| {
            let text = format!(
                "[[vpc]]\nid = 'vpc-1'\ncidr = '10.0.0.0/8'\n[[vswitch]]\nid = 'vsw-1'\nvpc = 'vpc-1'\ncidr = '10.0.0.0/16'\n\
                 [[group]]\nid = 'sg-1'\nvpc = 'vpc-1'\n{managed}\n[[group.ingress]]\nprotocol = 'tcp'\nports = '{ports}'\n\
                 cidr = '10.0.0.0/8'\n[[eni]]\nid = 'eni-1'\nvswitch = 'vsw-1'\ngroups = ['sg-1']\n"
            );
            let state = |model: &Model| match model.answer(&Query::StateShow(Nothing {})) {
                Ok(Some(Answer::State(state))) => state,
                other => panic!("{other:?}"),
            };
            let state_before = state(&model);
            let steps = plan(&read(&text).unwrap(), &state_before).unwrap();
            let count = steps.len();
            for event in model.decide(&batch(steps), &Environment::fixed(0, 0)).unwrap() {
                model.apply(event);
            }
            (count, state(&model).groups[0].service_managed)
        };
        assert_eq!(apply("service_managed = true", "22/22"), (6, true));
        assert_eq!(apply("service_managed = true", "22/22"), (0, true));
        assert_eq!(apply("", "80/80"), (4, true));
        assert_eq!(apply("service_managed = false", "80/80"), (1, false));
    }
}
