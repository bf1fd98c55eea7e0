//! Opens, closes and repairs ports, together with the workers that hold them.

use super::{ClosedPorts, ISOLATION_CHECKS_MAX, PortRecord, PortState, RETRY_FIRST_NS, RETRY_MAX_NS, Switch, wait_for};
use crate::os::namespace;
use crate::port::link_state::{self, LinkState};
use crate::port::spec::PortSpec;
use crate::port::tap::{self, macvtap, persistent};
use crate::port::{Port, isolation};
use crate::worker::driver::WorkerDriver;
use crate::worker::mailbox::{WorkerAnswer, WorkerCommand};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;
use vswitch_core::config::desired::PacketPort;
use vswitch_core::config::ids::EniId;
use vswitch_core::hw::time::Time;

impl PortRecord {
    /// The workers and slots of its rx queues, the owner's first.
    pub(super) fn slots(&self) -> Vec<(usize, u32)> {
        std::iter::once((self.worker, self.slot)).chain(self.rx_queues.iter().copied()).collect()
    }

    fn has_slot(&self, worker: usize, slot: u32) -> bool {
        (self.worker, self.slot) == (worker, slot) || self.rx_queues.contains(&(worker, slot))
    }

    /// The namespace that is created for it if none of that name exists.
    fn made_namespace(&self) -> Option<&str> {
        self.spec.tap().filter(|tap| tap.create_namespace)?.namespace.as_deref()
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, PortState::Up)
    }

    /// Whether the namespace in which its device was opened still has that name.
    fn check_namespace(&self) -> io::Result<()> {
        let Some((name, was)) = self.namespace_name().zip(self.namespace) else { return Ok(()) };
        // A namespace that was deleted and created anew has the same name and another identity.
        match namespace::identity(name)? == was {
            true => Ok(()),
            false => {
                Err(io::Error::other(format!("network namespace {name} was replaced by another of the same name")))
            }
        }
    }

    /// Whether its macvtap device is still there, if it is one: it goes with its lower device, and then its descriptor
    /// neither has frames nor refuses any.
    fn check_macvtap(&self) -> io::Result<()> {
        let Some(macvtap) = self.spec.macvtap().filter(|_| self.device.is_some()) else { return Ok(()) };
        match link_state::index(&self.spec)? == self.device {
            true => Ok(()),
            false => Err(macvtap::removed(macvtap)),
        }
    }
}

impl Switch {
    pub(super) fn open(&mut self, eni: &EniId, spec: &PortSpec, driver: &mut dyn WorkerDriver) {
        let Some((worker, index)) = self.placement.owner(eni) else { return };
        let slot = self.placement.take_slot(worker);
        // Down until it is attached, so that a failure in between needs no state of its own.
        let state = PortState::Down { error: String::new(), retry_at: driver.now(), pause_ns: RETRY_FIRST_NS };
        let count = if spec.has_rx_queues() { self.factory.queues() } else { 1 };
        let workers = self.rx_queue_workers(worker, count);
        // The owner's own queue is the first, which is also the one that is sent to.
        let rx_queues = workers.skip(1).map(|worker| (worker, self.placement.take_slot(worker))).collect();
        let record = PortRecord {
            spec: spec.clone(),
            worker,
            slot,
            rx_queues,
            index,
            state,
            failures: 0,
            namespace: None,
            device: None,
            peer: None,
        };
        self.ports.insert(eni.clone(), record);
        self.down.insert(eni.clone());
        if let Err(error) = self.open_port(eni, driver) {
            self.mark_down(eni, &error, driver.now());
        }
    }

    /// The worker that receives on each of `count` queues of a port. They rotate through the rx queue workers, starting
    /// at the owner.
    pub(super) fn rx_queue_workers(&self, owner: usize, count: usize) -> impl Iterator<Item = usize> + use<> {
        let workers = self.workers.len();
        let rx_queues = self.factory.rx_queues.clamp(1, workers);
        (0..count).map(move |queue| (owner + queue % rx_queues) % workers)
    }

    fn open_port(&mut self, eni: &EniId, driver: &mut dyn WorkerDriver) -> io::Result<()> {
        let Some(record) = self.ports.get(eni) else { return Ok(()) };
        let slots = record.slots();
        // The identity and the index are read once the device is open: they are those of what was opened.
        let rx_queues = self.factory.open_rx_queues(eni, &record.spec, slots.len())?;
        let namespace = record.namespace_name().map(namespace::identity).transpose()?;
        let device = link_state::index(&record.spec)?;
        let peer = rx_queues.first().and_then(|port| port.peer());
        let (index, frame_bytes_max) = (record.index, record.spec.frame_bytes_max());
        let eni_generation = self.placement.eni_generation(eni).unwrap_or_default();
        for (rx_queue, ((worker, slot), port)) in slots.into_iter().zip(rx_queues).enumerate() {
            if let (Some(registry), Some(descriptor)) = (&self.workers[worker].registry, port.readiness()) {
                let token = Token(slot as usize);
                // Registered first: an event before the worker has the port is ignored, and attaching marks it ready
                // anyway.
                registry.register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)?;
            }
            let attach = WorkerCommand::Attach { slot, eni: index, eni_generation, rx_queue, port, frame_bytes_max };
            self.command(worker, attach, driver)
                .ok_or_else(|| io::Error::other("its worker does not accept commands"))?;
        }
        if let Some(record) = self.ports.get_mut(eni) {
            record.state = PortState::Up;
            (record.namespace, record.device, record.peer) = (namespace, device, peer);
            self.down.remove(eni);
        }
        Ok(())
    }

    pub(super) fn retry(&mut self, eni: &EniId, driver: &mut dyn WorkerDriver) {
        // The queues of a device are opened together, so none of the previous ones may be left.
        let slots = self.ports.get(eni).filter(|record| !record.rx_queues.is_empty()).map(PortRecord::slots);
        slots.into_iter().flatten().for_each(|(worker, slot)| drop(self.detach(worker, slot, driver)));
        // A failure of the old queues must not be taken for one of the new.
        self.take_failures(driver.now());
        let Err(error) = self.open_port(eni, driver) else { return };
        let now = driver.now();
        if let Some(PortRecord { state: PortState::Down { error: text, retry_at, pause_ns }, .. }) =
            self.ports.get_mut(eni)
        {
            *text = error.to_string();
            // Doubling keeps a device that is gone for long from being tried ten times a second.
            *pause_ns = (*pause_ns * 2).min(RETRY_MAX_NS);
            *retry_at = now + *pause_ns;
        }
    }

    pub(super) fn mark_down(&mut self, eni: &EniId, error: &io::Error, now: Time) {
        if let Some(record) = self.ports.get_mut(eni) {
            log::warn!("the port of {eni} is down: {error}");
            // A new failure starts with the short pause, however long the last one was.
            let (error, retry_at) = (error.to_string(), now + RETRY_FIRST_NS);
            record.state = PortState::Down { error, retry_at, pause_ns: RETRY_FIRST_NS };
            record.failures += 1;
            self.down.insert(eni.clone());
        }
    }

    pub(super) fn adjust(&mut self, eni: &EniId, spec: &PortSpec, driver: &mut dyn WorkerDriver) {
        let Some(record) = self.ports.get_mut(eni) else { return };
        let previous = std::mem::replace(&mut record.spec, spec.clone());
        if let PortState::Down { retry_at, .. } = &mut record.state {
            // The change may have removed the reason why it was down.
            *retry_at = driver.now();
            return;
        }
        let (worker, slot, frame_bytes_max) = (record.worker, record.slot, spec.frame_bytes_max());
        let adjusted = match (spec.tap(), &spec.interface) {
            // The record of the configuration is only written once the device has it.
            (Some(tap), Some(interface)) => tap::adjust(tap, interface, previous.interface.as_ref()).inspect(|()| {
                self.factory.run_dir.iter().for_each(|run_dir| persistent::record_interface(tap, interface, run_dir))
            }),
            (Some(tap), None) if tap.namespace.is_some() && previous != *spec => tap::set_link(tap, spec.mac),
            _ => Ok(()),
        };
        match adjusted {
            // The worker learns the MTU after the device has it; before, longer frames would be refused.
            Ok(()) => drop(self.command(worker, WorkerCommand::Adjust { slot, frame_bytes_max }, driver)),
            Err(error) => self.take_down(eni, &error, driver),
        }
    }

    /// Closes a port that is to be opened again.
    fn take_down(&mut self, eni: &EniId, error: &io::Error, driver: &mut dyn WorkerDriver) {
        let Some(record) = self.ports.get(eni) else { return };
        record.slots().into_iter().for_each(|(worker, slot)| drop(self.detach(worker, slot, driver)));
        self.take_failures(driver.now());
        // Unless the worker reported a failure of its own in the meantime.
        if self.ports.get(eni).is_some_and(PortRecord::is_up) {
            self.mark_down(eni, error, driver.now());
        }
    }

    /// Takes a port away from its worker for good.
    pub(super) fn close(&mut self, record: PortRecord, closed: &mut ClosedPorts, driver: &mut dyn WorkerDriver) {
        for (worker, slot) in record.slots() {
            closed.ports.extend(self.detach(worker, slot, driver));
        }
        // The port may have failed before it was detached. Its report must be read before the slot has a new owner.
        self.take_failures(driver.now());
        record.slots().into_iter().for_each(|(worker, slot)| self.placement.put_slot(worker, slot));
        closed.devices.extend(record.spec.tap().cloned());
        closed.devices.extend(record.spec.macvtap().map(macvtap::device));
        closed.namespaces.extend(record.made_namespace().map(str::to_owned));
        closed.interfaces.extend(record.spec.interface_that_exists().cloned());
    }

    fn detach(&mut self, worker: usize, slot: u32, driver: &mut dyn WorkerDriver) -> Option<Box<dyn Port>> {
        let ticket = self.next_ticket();
        self.command(worker, WorkerCommand::Detach { slot, ticket }, driver)?;
        match wait_for(driver, || self.workers[worker].mailbox.take_answer(ticket)) {
            Some(WorkerAnswer::Detached(port)) => port,
            _ => None,
        }
    }

    pub(super) fn take_failures(&mut self, now: Time) {
        for worker in 0..self.workers.len() {
            while let Some(failure) = self.workers[worker].mailbox.take_failure() {
                // The port is closed by this thread, since closing takes time that packets would have to wait.
                drop(failure.port);
                let owner = |record: &PortRecord| record.has_slot(worker, failure.slot);
                let eni = self.ports.iter().find(|(_, record)| owner(record));
                // A device that disappears fails in all its rx queues, which counts as one failure.
                if let Some(eni) = eni.filter(|(_, record)| record.is_up()).map(|(eni, _)| eni.clone()) {
                    self.mark_down(&eni, &failure.error, now);
                }
            }
        }
    }

    /// Takes down ports whose device or namespace is gone, of which nothing else tells.
    pub(super) fn check_devices(&mut self, driver: &mut dyn WorkerDriver) {
        let gone = |(eni, record): (&EniId, &PortRecord)| {
            let checked = record.check_namespace().and_then(|()| record.check_macvtap());
            let error = checked.err().filter(|_| record.is_up())?;
            Some((eni.clone(), error))
        };
        for (eni, error) in self.ports.iter().filter_map(gone).collect::<Vec<_>>() {
            self.take_down(&eni, &error, driver);
        }
    }

    /// The current link states of these ports' devices, as far as they are open, or why one cannot be determined.
    pub(crate) fn links<'a>(
        &'a self,
        enis: impl Iterator<Item = &'a EniId>,
    ) -> BTreeMap<&'a EniId, io::Result<LinkState>> {
        // One query per namespace, since entering one takes a thread.
        let mut by_namespace: BTreeMap<Option<&str>, Vec<(&EniId, u32)>> = BTreeMap::new();
        let mut links = BTreeMap::new();
        for (eni, record) in enis.filter_map(|eni| self.ports.get_key_value(eni)).filter(|(_, record)| record.is_up()) {
            let Some(device) = record.device else { continue };
            match record.check_namespace() {
                Ok(()) => by_namespace.entry(record.namespace_name()).or_default().push((eni, device)),
                Err(error) => drop(links.insert(eni, Err(error))),
            }
        }
        for (namespace, ports) in by_namespace {
            let devices: Vec<u32> = ports.iter().map(|(_, device)| *device).collect();
            match link_state::query(namespace, &devices) {
                Ok(found) => links.extend(ports.iter().map(|(eni, _)| *eni).zip(found.into_iter().map(Ok))),
                Err(error) => {
                    let again = || io::Error::new(error.kind(), error.to_string());
                    links.extend(ports.iter().map(|(eni, _)| (*eni, Err(again()))));
                }
            }
        }
        links
    }

    /// Checks some interfaces in rotation: whether the kernel handles their packets again, for example because somebody
    /// deleted the filters.
    pub(super) fn check_isolation(&mut self, driver: &mut dyn WorkerDriver) {
        let up = self.ports.iter().filter(|(_, record)| record.is_up());
        let interfaces = up.filter_map(|(eni, record)| Some((eni, record.spec.interface_that_exists()?)));
        let (before, after): (Vec<_>, Vec<_>) =
            // In rotation, so that with many interfaces each has its turn and no check takes long.
            interfaces.partition(|(eni, _)| self.isolation_checked.as_ref().is_some_and(|last| *eni <= last));
        let some = after.into_iter().chain(before).take(ISOLATION_CHECKS_MAX);
        let some: Vec<_> = some.map(|(eni, interface)| (eni.clone(), interface.clone())).collect();
        for (eni, interface) in some {
            match isolation::restore(&interface) {
                Ok(false) => {}
                Ok(true) => log::warn!(
                    "the filters that isolate {} from the kernel were missing and have been restored",
                    interface.device
                ),
                Err(error) => self.take_down(&eni, &error, driver),
            }
            self.isolation_checked = Some(eni);
        }
    }

    /// Removes what closed ports left behind: devices, namespaces of the switch, and the isolation of interfaces.
    pub(super) fn clean_up(&self, mut closed: ClosedPorts) {
        // Devices first: an open device keeps its namespace alive, without a name.
        closed.close();
        self.remove_namespaces(closed.namespaces);
        self.release_interfaces(&closed.interfaces);
    }

    /// Removes what an earlier process left behind for ENIs that were deleted while no forwarding plane ran: devices,
    /// namespaces, and the isolation of interfaces. It does nothing if the first state has no ENI at all: then a state
    /// was more likely lost than emptied, and there may be guests.
    pub(super) fn remove_leftovers(&mut self) {
        // Once per process: later changes remove what they replace.
        if std::mem::replace(&mut self.has_removed_leftovers, true) || self.compiler.desired().has_no_interface() {
            return;
        }
        if let Some(run_dir) = &self.factory.run_dir {
            let in_use = self.devices_in_use();
            for tap in persistent::made(run_dir) {
                if !in_use.contains(&(tap.device.as_str(), tap.namespace.as_deref()))
                    && let Err(error) = persistent::remove(&tap, run_dir)
                {
                    log::warn!("{error}");
                }
            }
            self.remove_namespaces(namespace::made(run_dir).into_iter().collect());
            self.release_interfaces(&isolation::recorded(run_dir));
        }
    }

    fn devices_in_use(&self) -> BTreeSet<(&str, Option<&str>)> {
        self.ports.values().filter_map(|record| record.spec.device()).collect()
    }

    fn release_interfaces(&self, interfaces: &[PacketPort]) {
        let in_use = self.devices_in_use();
        let is_in_use = |port: &PacketPort| in_use.contains(&(port.device.as_str(), port.namespace.as_deref()));
        for interface in interfaces.iter().filter(|interface| !is_in_use(interface)) {
            if let Err(error) = isolation::release(interface, self.factory.run_dir.as_ref()) {
                log::warn!("{error}");
            }
        }
    }

    fn remove_namespaces(&self, names: BTreeSet<String>) {
        let run_dir = self.factory.run_dir.clone().unwrap_or_default();
        let in_use: BTreeSet<&str> = self.ports.values().filter_map(PortRecord::namespace_name).collect();
        for name in names.iter().filter(|name| !in_use.contains(name.as_str())) {
            if let Err(error) = namespace::remove_if_made(name, &run_dir) {
                log::warn!("{error}");
            }
        }
    }
}
