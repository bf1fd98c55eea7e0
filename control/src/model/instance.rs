//! Instances, as far as the network is concerned: their interfaces have ports while they run.

use super::metadata::Holder;
use super::parse::{description, name};
use super::{Eni, Event, Model, VSwitch};
use crate::command::{
    EniCreate, InstanceAttach, InstanceCreate, InstanceDelete, InstanceModify, InstanceMove, InstanceRun, PortKind,
};
use crate::environment::Environment;
use crate::error::{
    ApiError, ENI_STATE, ENI_VPC_MISMATCH, INSTANCE_ENI_LIMIT, INSTANCE_HOST_NAME, INSTANCE_MOVE_DENIED, INSTANCE_NAME,
    INSTANCE_NOT_FOUND, INSTANCE_PRIMARY_ENI, INSTANCE_PROTECTED, INSTANCE_STATUS, INVALID_DESCRIPTION,
    VSWITCH_NOT_FOUND,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vswitch_core::config::desired::{DesiredPort, StreamPort, TapPort, VhostUserPort};
use vswitch_core::config::ids::{EniId, VSwitchId, quoted};

/// Interfaces of one instance.
pub(crate) const ENIS_PER_INSTANCE_MAX: usize = 8;

/// Where the sockets of ports are unless an instance says otherwise.
const SOCKETS_FOLDER: &str = "/run/sluice";

/// An instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its host name.
    pub host_name: String,
    /// Its type. Without effect.
    pub instance_type: String,
    /// Its image. Without effect.
    pub image: String,
    /// What kind of port its interfaces get while it runs.
    pub port: PortKind,
    /// The folder of the sockets of such ports; `/run/sluice` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<String>,
    /// Its interfaces and their numbers; 0 is the primary one.
    pub enis: BTreeMap<EniId, u32>,
    /// Whether it runs.
    pub running: bool,
    /// Whether it is protected: it can only be deleted once this is off.
    pub deletion_protection: bool,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
    /// When it was last started, stopped or started again.
    pub changed_s: u64,
    /// When it was last started; 0 if never.
    pub started_s: u64,
    /// When its interfaces were last attached.
    pub attached_s: BTreeMap<EniId, u64>,
}

impl Instance {
    /// The primary interface.
    pub(crate) fn primary(&self) -> Option<&EniId> {
        self.enis.iter().find(|(_, number)| **number == 0).map(|(eni, _)| eni)
    }

    /// The port of one of its interfaces while it runs.
    fn port_of(&self, id: &str, eni: &EniId) -> Option<DesiredPort> {
        let number = self.enis.get(eni)?;
        let tap = |device: String, namespace: Option<String>| {
            let in_namespace = namespace.is_some();
            Some(DesiredPort::Tap(TapPort {
                device,
                namespace,
                create_namespace: in_namespace,
                configure: in_namespace,
                mtu_bytes: TapPort::default_mtu_bytes(),
            }))
        };
        let folder = self.sockets.as_deref().unwrap_or(SOCKETS_FOLDER);
        let (path, is_client, socket_user) = (format!("{folder}/{id}-eth{number}.sock"), false, None);
        let (queues, mtu_bytes) = (VhostUserPort::default_queues(), TapPort::default_mtu_bytes());
        match self.port {
            PortKind::None => None,
            PortKind::VhostUser => {
                Some(DesiredPort::VhostUser(VhostUserPort { path, is_client, queues, socket_user, mtu_bytes }))
            }
            PortKind::Stream => Some(DesiredPort::Stream(StreamPort { path, is_client, socket_user, mtu_bytes })),
            // Every namespace has its own `eth0`, so the name is free.
            PortKind::Namespace => tap(format!("eth{number}"), Some(id.to_owned())),
            PortKind::Device => {
                // The kernel takes at most 15 bytes; identifiers begin alike, so their ends distinguish them.
                let tail: String = eni.as_str().chars().rev().take(12).collect();
                tap(format!("tap{}", tail.chars().rev().collect::<String>()), None)
            }
        }
    }
}

impl Model {
    pub(crate) fn instance(&self, id: &str) -> Result<&Instance, ApiError> {
        self.instances.get(id).ok_or_else(|| {
            INSTANCE_NOT_FOUND.error(format!("there is no instance {id}", id = quoted(id))).field("instance").object(id)
        })
    }

    /// The instance that an interface belongs to, if it is an object in the model.
    pub(crate) fn instance_of(&self, eni: &EniId) -> Option<(&String, &Instance)> {
        let id = self.enis.get(eni)?.instance.as_ref()?;
        self.instances.get_key_value(id).filter(|(_, instance)| instance.enis.contains_key(eni))
    }

    /// The host name that the guest of an ENI is to have; none if it is not an instance's.
    pub(crate) fn hostname_of<'a>(&'a self, eni: &'a Eni) -> Option<&'a String> {
        let (id, instance) = self.instances.get_key_value(eni.instance.as_ref()?)?;
        Some(if instance.host_name.is_empty() { id } else { &instance.host_name })
    }

    pub(super) fn refuse_of_instance(&self, eni: &EniId) -> Result<(), ApiError> {
        match self.instance_of(eni) {
            None => Ok(()),
            Some((instance, _)) => {
                let message = format!("{eni} belongs to {instance}: detach it first, or delete the instance");
                Err(ENI_STATE.error(message).object(eni))
            }
        }
    }

    pub(super) fn instance_create(
        &self,
        create: &InstanceCreate,
        holder: Holder<'_>,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(create.id.as_deref(), "i", environment, |id| self.instances.contains_key(id))?;
        let instance_name = match create.name.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => name(Some(text), INSTANCE_NAME)?,
            None => id.clone(),
        };
        let mut events = match &create.primary_eni {
            Some(present) => vec![self.primary_of_present(present, &id)?],
            None => {
                // The instance decides about ports, once it runs.
                let primary = EniCreate { instance: Some(id.clone()), port: None, ..create.primary.clone() };
                self.eni_create(&primary, holder, environment)?
            }
        };
        // The interface may come with the default group that is made for it.
        let eni = events.iter().find_map(|event| match event {
            Event::Eni(eni, Some(_)) => Some(eni.clone()),
            _ => None,
        });
        let mut instance = Instance {
            name: instance_name,
            description: description(create.description.as_deref(), 2, 256, INVALID_DESCRIPTION)?,
            host_name: host_name(create.host_name.as_deref().unwrap_or_default())?,
            instance_type: create.instance_type.clone().unwrap_or_default(),
            image: create.image.clone().unwrap_or_default(),
            port: create.port,
            sockets: create.sockets.clone(),
            enis: eni.iter().map(|eni| (eni.clone(), 0)).collect(),
            running: false,
            deletion_protection: create.deletion_protection,
            created_s: environment.now_s,
            changed_s: environment.now_s,
            started_s: 0,
            attached_s: eni.iter().map(|eni| (eni.clone(), environment.now_s)).collect(),
        };
        if create.running {
            instance.running = true;
            instance.started_s = environment.now_s;
            for event in &mut events {
                if let Event::Eni(eni, Some(content)) = event {
                    content.port = instance.port_of(&id, eni);
                }
            }
        }
        events.push(Event::Instance(id, Some(Box::new(instance))));
        Ok(events)
    }

    /// An existing interface as an instance's primary one.
    fn primary_of_present(&self, eni: &str, instance: &str) -> Result<Event, ApiError> {
        let (id, eni) = self.eni(eni)?;
        if eni.instance.is_some() || eni.port.is_some() {
            return Err(ENI_STATE.error(format!("{id} is in use: detach it first")).object(id));
        }
        Ok(Event::Eni(id, Some(Box::new(Eni { instance: Some(instance.to_owned()), ..eni.clone() }))))
    }

    pub(super) fn instance_modify(&self, modify: &InstanceModify) -> Result<Vec<Event>, ApiError> {
        let old = self.instance(&modify.instance)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = name(Some(text), INSTANCE_NAME)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 2, 256, INVALID_DESCRIPTION)?;
        }
        if let Some(text) = &modify.host_name {
            new.host_name = host_name(text)?;
        }
        new.deletion_protection = modify.deletion_protection.unwrap_or(old.deletion_protection);
        if let Some(text) = &modify.instance_type {
            new.instance_type.clone_from(text);
        }
        if let Some(text) = &modify.image {
            new.image.clone_from(text);
        }
        if new == *old {
            return Ok(vec![]);
        }
        Ok(vec![Event::Instance(modify.instance.clone(), Some(Box::new(new)))])
    }

    pub(super) fn instance_run(&self, run: &InstanceRun, environment: &Environment) -> Result<Vec<Event>, ApiError> {
        let id = &run.instance;
        let old = self.instance(id)?;
        if old.running == run.running && !run.again {
            let message = format!("{id} {} already", if old.running { "runs" } else { "is stopped" });
            return Err(INSTANCE_STATUS.error(message).object(id));
        }
        if run.again && !old.running {
            return Err(INSTANCE_STATUS.error(format!("{id} does not run: start it")).object(id));
        }
        let mut new = old.clone();
        new.running = run.running;
        new.changed_s = environment.now_s;
        if run.running {
            new.started_s = environment.now_s;
        }
        let mut events = Vec::new();
        for (eni_id, eni) in old.enis.keys().filter_map(|eni| self.enis.get_key_value(eni)) {
            let port = if run.running { new.port_of(id, eni_id) } else { None };
            // An unchanged interface gets no event, so its port is not touched.
            if eni.port != port {
                events.push(self.with_port(eni_id, eni, port)?);
            }
        }
        events.push(Event::Instance(id.clone(), Some(Box::new(new))));
        Ok(events)
    }

    fn with_port(&self, id: &EniId, eni: &Eni, port: Option<DesiredPort>) -> Result<Event, ApiError> {
        if let Some(port) = &port {
            self.check_port(id, port)?;
        }
        Ok(Event::Eni(id.clone(), Some(Box::new(Eni { port, ..eni.clone() }))))
    }

    pub(super) fn instance_delete(&self, delete: &InstanceDelete) -> Result<Vec<Event>, ApiError> {
        let id = &delete.instance;
        let instance = self.instance(id)?;
        if instance.deletion_protection {
            let message = format!("{id} is protected from deletion: switch that off first");
            return Err(INSTANCE_PROTECTED.error(message).object(id));
        }
        if instance.running && !delete.force {
            let message = format!("{id} runs: stop it first, or force the deletion");
            return Err(INSTANCE_STATUS.error(message).object(id));
        }
        let mut events = Vec::new();
        for (eni_id, eni) in instance.enis.keys().filter_map(|eni| self.enis.get_key_value(eni)) {
            // The primary interface never outlives its instance, whatever it is set to.
            let is_primary = instance.primary() == Some(eni_id);
            if is_primary || eni.delete_on_release {
                self.refuse_routed(eni_id, eni)?;
                events.push(Event::Eni(eni_id.clone(), None));
            } else {
                let free = Eni { instance: None, port: None, ..eni.clone() };
                events.push(Event::Eni(eni_id.clone(), Some(Box::new(free))));
            }
        }
        events.push(Event::Instance(id.clone(), None));
        Ok(events)
    }

    pub(super) fn instance_attach(
        &self,
        attach: &InstanceAttach,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = &attach.instance;
        let old = self.instance(id)?;
        let (eni_id, eni) = self.eni(&attach.eni)?;
        if eni.instance.is_some() || eni.port.is_some() {
            return Err(ENI_STATE.error(format!("{eni_id} is in use: detach it first")).object(eni_id));
        }
        // All interfaces of an instance are in one VPC; the primary one cannot be replaced, so it decides.
        let vpc = old.primary().and_then(|primary| self.enis.get(primary)).map(|primary| &primary.vpc);
        if vpc.is_some_and(|vpc| *vpc != eni.vpc) {
            let message = format!("{eni_id} is in {}, {id} in another VPC", eni.vpc);
            return Err(ENI_VPC_MISMATCH.error(message).object(eni_id));
        }
        // The lowest free number, so that detaching and attaching again keeps the device's name.
        let number = (0..).find(|number| !old.enis.values().any(|taken| taken == number)).unwrap_or(0);
        if old.enis.len() >= ENIS_PER_INSTANCE_MAX {
            let message = format!("{id} has {} interfaces, as many as may be", old.enis.len());
            return Err(INSTANCE_ENI_LIMIT.error(message).object(id));
        }
        let mut new = old.clone();
        new.enis.insert(eni_id.clone(), number);
        new.attached_s.insert(eni_id.clone(), environment.now_s);
        let port = if new.running { new.port_of(id, &eni_id) } else { None };
        let attached = Eni { instance: Some(id.clone()), ..eni.clone() };
        Ok(vec![self.with_port(&eni_id, &attached, port)?, Event::Instance(id.clone(), Some(Box::new(new)))])
    }

    pub(super) fn instance_detach(
        &self,
        detach: &InstanceAttach,
        _environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = &detach.instance;
        let old = self.instance(id)?;
        let (eni_id, eni) = self.eni(&detach.eni)?;
        if !old.enis.contains_key(&eni_id) {
            let message = format!("{eni_id} does not belong to {id}");
            return Err(ENI_STATE.error(message).object(eni_id));
        }
        if old.primary() == Some(&eni_id) {
            let message = format!("{eni_id} is the primary interface of {id}, which stays with it");
            return Err(INSTANCE_PRIMARY_ENI.error(message).object(eni_id));
        }
        let mut new = old.clone();
        new.enis.remove(&eni_id);
        new.attached_s.remove(&eni_id);
        let free = Eni { instance: None, port: None, ..eni.clone() };
        Ok(vec![Event::Eni(eni_id, Some(Box::new(free))), Event::Instance(id.clone(), Some(Box::new(new)))])
    }

    pub(super) fn instance_move(&self, change: &InstanceMove) -> Result<Vec<Event>, ApiError> {
        let id = &change.instance;
        let instance = self.instance(id)?;
        if instance.running {
            return Err(INSTANCE_STATUS.error(format!("{id} runs: stop it first")).object(id));
        }
        let Some((eni_id, old)) = instance.primary().and_then(|eni| self.enis.get_key_value(eni)) else {
            return Err(INSTANCE_STATUS.error(format!("{id} has no primary interface")).object(id));
        };
        let (vswitch_id, vswitch) = self.vswitch(&change.vswitch)?;
        if self.label(vswitch.vpc.as_str()).region != self.label(id).region {
            let message = format!("{vswitch_id} is in another region than {id}: choose one of its own region");
            return Err(VSWITCH_NOT_FOUND.error(message).field("vswitch").object(vswitch_id));
        }
        refuse_lossy_move(id, instance, (eni_id, old), (&vswitch_id, vswitch))?;
        // Its own address would be refused as taken.
        let stays = vswitch_id == old.vswitch && change.primary_ip.as_deref() == Some(&old.primary.to_string());
        let mut new = old.clone();
        new.vpc = vswitch.vpc.clone();
        if !stays {
            self.refuse_routed(eni_id, old)?;
            new.primary = self.primary_address(&vswitch_id, vswitch, change.primary_ip.as_deref())?;
        }
        new.vswitch = vswitch_id;
        if !change.groups.is_empty() {
            new.groups = self.group_set(&change.groups)?;
        }
        // Groups are checked with the new VPC: those of the old one are refused if no others were named.
        self.check_groups(Some((eni_id, old)), &new)?;
        Ok(if new == *old { vec![] } else { vec![Event::Eni(eni_id.clone(), Some(Box::new(new)))] })
    }
}

/// Refuses a move that would leave interfaces in another VPC, or remove addresses that nobody gave up.
fn refuse_lossy_move(
    id: &str,
    instance: &Instance,
    (eni_id, eni): (&EniId, &Eni),
    (vswitch_id, vswitch): (&VSwitchId, &VSwitch),
) -> Result<(), ApiError> {
    if vswitch.vpc != eni.vpc && instance.enis.len() > 1 {
        let message = format!("{id} has secondary interfaces in {}: detach them first", eni.vpc);
        return Err(INSTANCE_MOVE_DENIED.error(message).object(id));
    }
    if *vswitch_id != eni.vswitch && eni.prefixes_of_all().nth(1).is_some() {
        let message = format!(
            "{eni_id} has more addresses than its primary one, which do not fit {vswitch_id}: unassign them first"
        );
        return Err(INSTANCE_MOVE_DENIED.error(message).object(eni_id));
    }
    Ok(())
}

/// A host name: 2 to 64 letters, digits, `-` and `.`; empty for none.
fn host_name(text: &str) -> Result<String, ApiError> {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let edges = !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']) && !text.contains("..");
    if text.is_empty() || (letters && edges && (2..=64).contains(&text.len())) {
        return Ok(text.into());
    }
    let message = format!("{text} is not a valid host name: 2 to 64 letters, digits, - and .", text = quoted(text));
    Err(INSTANCE_HOST_NAME.error(message).field("host_name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_of_an_instance_has_a_socket_of_its_own() {
        let sockets = |port, sockets: Option<&str>| {
            let enis: BTreeMap<EniId, u32> = [("eni-a".into(), 0), ("eni-b".into(), 1)].into();
            let (attached_s, sockets) = (BTreeMap::new(), sockets.map(str::to_owned));
            let text = String::new;
            let instance = Instance {
                name: text(),
                description: text(),
                host_name: text(),
                instance_type: text(),
                image: text(),
                port,
                sockets,
                enis: enis.clone(),
                running: true,
                deletion_protection: false,
                created_s: 0,
                changed_s: 0,
                started_s: 0,
                attached_s,
            };
            let ports = enis.keys().filter_map(|eni| instance.port_of("i-1", eni));
            ports.map(|port| format!("{} {}", port.kind(), port.socket_path().unwrap_or_default())).collect::<Vec<_>>()
        };
        assert_eq!(
            sockets(PortKind::VhostUser, Some("/run/vm")),
            ["vhost-user /run/vm/i-1-eth0.sock", "vhost-user /run/vm/i-1-eth1.sock"]
        );
        assert_eq!(
            sockets(PortKind::Stream, None),
            ["stream /run/sluice/i-1-eth0.sock", "stream /run/sluice/i-1-eth1.sock"]
        );
        assert_eq!(sockets(PortKind::None, None), [""; 0]);
    }
}
