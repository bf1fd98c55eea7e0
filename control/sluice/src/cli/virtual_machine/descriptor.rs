//! `sluice vm exec`: a hypervisor with the descriptor of a TAP device.
//!
//! The device is in a namespace of its own, and its interface there is the port: the hypervisor, wherever it runs, has the
//! guest's side alone, and no namespace that anything runs in has a way around the switch.

use super::{CliError, CliSession, attach_to, view_of};
use clap::Args;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use vswitch::os::namespace;
use vswitch::os::netlink::{self, Interface};
use vswitch::os::run_dir::RunDir;
use vswitch::os::sys::{self, TapMode};
use vswitch_core::config::desired::{DesiredPort, PacketPort, TapPort};
use vswitch_core::config::ids::MacAddress;

/// The device, in each of the namespaces.
const DEVICE: &str = "tap0";
/// The first descriptor of the program, as service managers have it.
const FIRST_DESCRIPTOR: i32 = 3;

/// What a hypervisor is started with.
#[derive(Debug, Args)]
pub(crate) struct VmExec {
    /// The ENI.
    #[arg(long)]
    eni: String,
    /// The network namespace that the device is in, which is made if it does not exist; named after the ENI if absent.
    #[arg(long)]
    namespace: Option<String>,
    /// Queues of the device: descriptors from 3 on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    queues: u8,
    /// The program and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

pub(super) fn run(session: &CliSession, exec: &VmExec) -> Result<(), CliError> {
    let eni = view_of(session, &exec.eni)?;
    let space = exec.namespace.clone().unwrap_or_else(|| format!("sluice-vm-{}", eni.id));
    let usage = |error: io::Error| CliError::Usage(format!("{DEVICE} in network namespace {space}: {error}"));
    let is_own = |port: &DesiredPort| port.device() == Some((DEVICE, Some(space.as_str())));
    if let Some(port) = eni.port.as_ref().filter(|port| !is_own(port)) {
        return Err(CliError::Usage(format!(
            "{id} is attached to a port of kind {kind}: `sluice port detach {id}` first",
            id = eni.id,
            kind = port.kind()
        )));
    }
    let mtu_bytes = eni.port.as_ref().map_or(TapPort::default_mtu_bytes(), DesiredPort::mtu_bytes);
    // Recorded, so that `sluice down` removes it, and the device with it.
    namespace::ensure(&space, &RunDir::beside(&session.paths.vswitch_socket())).map_err(usage)?;
    let queues = namespace::within(&space, || open(exec.queues)).map_err(usage)?;
    if eni.port.is_none() {
        let port = PacketPort { device: DEVICE.into(), namespace: Some(space.clone()), mtu_bytes };
        attach_to(session, &eni, DesiredPort::Packet(port))?;
    }
    // Once the port keeps the namespace's kernel away from it.
    let interface = Interface {
        mac: eni.mac,
        mtu_bytes,
        addresses: Vec::new(),
        routes: Vec::new(),
        gateways: Vec::new(),
        gateway_mac: MacAddress::default(),
    };
    namespace::within(&space, || netlink::configure(DEVICE, &interface, None)).map_err(usage)?;
    let Some((program, arguments)) = exec.command.split_first() else { return Ok(()) };
    sys::bequeath(&queues, FIRST_DESCRIPTOR).map_err(usage)?;
    let error = Command::new(program).args(arguments).exec();
    Err(CliError::Usage(format!("{} cannot be started: {error}", program.display())))
}

/// The queues of the device, which stays when the program ends, so that its port stays up until the next.
fn open(queues: u8) -> io::Result<Vec<OwnedFd>> {
    let mode = TapMode { has_header: true, has_queues: queues > 1 };
    let first = match sys::open_tap(DEVICE, mode) {
        // It was made with one queue and is to have several, or the reverse.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            netlink::delete(DEVICE)?;
            sys::open_tap(DEVICE, mode)?
        }
        opened => opened?,
    };
    sys::set_tap_persistence(&first, true)?;
    let others = (1..queues).map(|_| sys::open_tap(DEVICE, mode));
    std::iter::once(Ok(first)).chain(others).collect()
}
