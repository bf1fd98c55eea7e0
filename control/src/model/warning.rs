//! Warnings about what is accepted and cannot work: a change that leads to it reports it, with what to do.

use super::{Eni, Event, Model, Vpc};
use std::collections::{BTreeMap, BTreeSet};
use vswitch_core::config::desired::{DesiredPort, TapPort};
use vswitch_core::config::ids::{EniId, VpcId};

/// Objects as they were before a change; `None` for those that did not exist.
#[derive(Default)]
struct ObjectsBefore<'a> {
    vpcs: BTreeMap<&'a VpcId, Option<&'a Vpc>>,
    enis: BTreeMap<&'a EniId, Option<&'a Eni>>,
}

impl<'a> ObjectsBefore<'a> {
    fn of(undo: &'a [Event]) -> Self {
        let mut before = Self::default();
        for event in undo {
            match event {
                Event::Vpc(id, vpc) => drop(before.vpcs.insert(id, vpc.as_ref())),
                Event::Eni(id, eni) => drop(before.enis.insert(id, eni.as_deref())),
                _ => {}
            }
        }
        before
    }
}

impl Model {
    /// What cannot work after a change and was not so before. `undo` leads back to the state before it.
    pub fn warnings(&self, undo: &[Event]) -> Vec<String> {
        let before = ObjectsBefore::of(undo);
        let now = before.enis.keys().filter_map(|id| self.enis.get_key_value(*id));
        let of_enis = now.clone().flat_map(|(id, eni)| of_eni(id, eni, before.enis[id]));
        let changed: BTreeSet<&VpcId> = before.vpcs.keys().copied().chain(now.map(|(_, eni)| &eni.vpc)).collect();
        let vpcs = changed.into_iter().filter_map(|id| self.vpcs.get_key_value(id));
        of_enis.chain(vpcs.flat_map(|(id, vpc)| self.of_routes(id, vpc, &before))).collect()
    }

    /// Warns of routes to interfaces that drop what is routed to them.
    fn of_routes(&self, id: &VpcId, vpc: &Vpc, before: &ObjectsBefore<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        for route in &vpc.routes {
            let Some(router) = self.enis.get(&route.eni) else { continue };
            let then = before.vpcs.get(id).copied().unwrap_or(Some(vpc));
            let was_routed = then.is_some_and(|then| then.routes.contains(route));
            let was = before.enis.get(&route.eni).copied().unwrap_or(Some(router)).filter(|_| was_routed);
            let (destination, eni) = (route.destination, &route.eni);
            if router.source_dest_check == Some(true) && was.is_none_or(|was| was.source_dest_check != Some(true)) {
                warnings.push(format!(
                    "{id} routes {destination} to {eni}, whose source and destination check is on: what is not from or for \
                     {eni} itself drops there until `sluice eni modify {eni} --source-dest-check false`"
                ));
            }
            if router.port.is_none() && was.is_none_or(|was| was.port.is_some()) {
                warnings.push(format!(
                    "{id} routes {destination} to {eni}, which is attached to nothing: what goes there drops until \
                     `sluice eni attach {eni} --namespace NAME`"
                ));
            }
        }
        warnings
    }
}

fn of_eni(id: &EniId, eni: &Eni, before: Option<&Eni>) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_new = before.is_none_or(|before| before.port != eni.port);
    if let Some(DesiredPort::Tap(TapPort { device, namespace: None, configure: false, .. })) = &eni.port
        && is_new
    {
        let mac = eni.mac;
        warnings.push(format!(
            "the TAP device {device} keeps its own hardware address: what comes from another one than {mac} drops as spoofed; \
             if it is the guest's own device, `ip link set {device} address {mac}`"
        ));
    }
    let (guaranteed, most) = (eni.tracking.sessions_guaranteed, eni.sessions_max);
    if guaranteed > most && before.is_none_or(|before| before.tracking.sessions_guaranteed <= before.sessions_max) {
        warnings.push(format!("{id} is guaranteed {guaranteed} sessions but may hold only {most}"));
    }
    warnings
}
