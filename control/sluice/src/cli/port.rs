//! `sluice port`.

use super::objects::eni::{self, EniVerb};
use super::output::list;
use super::{CliError, CliSession};
use clap::{Args, Subcommand};
use control::command::{EniDetach, PortSpecification};
use control::socket::query::{Answer, Nothing, Query};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use vswitch::os::sys::{self, TapMode};
use vswitch::port::tap::socket;

/// How long to wait before a device is handed over again.
const PAUSE: Duration = Duration::from_millis(100);

/// The verbs of `sluice port`.
#[derive(Debug, Subcommand)]
pub(crate) enum PortVerb {
    /// List all ports, and why those that are down are.
    List,
    /// Attach an ENI to a TAP device, an interface or a socket. Nothing passes before its rules are in force.
    Attach {
        /// The ENI.
        eni: String,
        #[command(flatten)]
        port: PortSpecification,
    },
    /// Unplug an ENI; its sessions end.
    Detach(EniDetach),
    /// Hand a TAP device over to a port that was attached with --tap-socket: `sluice port pass /run/vm/eni.sock --device
    /// eth0`. Takes neither root nor the control plane.
    Pass(PortPass),
}

/// A TAP device, and the port that gets it.
#[derive(Debug, Args)]
pub(crate) struct PortPass {
    /// The socket of the port.
    socket: PathBuf,
    /// Descriptors of the device that this process was started with, one for each queue.
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', required_unless_present = "device")]
    fd: Vec<i32>,
    /// Make a TAP device of this name in the namespace that this process is in, instead.
    #[arg(long, value_name = "NAME", conflicts_with = "fd")]
    device: Option<String>,
    /// Do not end, and hand the device over again whenever the forwarding plane has started anew.
    #[arg(long)]
    stay: bool,
}

pub(super) fn run(session: &CliSession, verb: PortVerb) -> Result<(), CliError> {
    match verb {
        PortVerb::List => list_ports(session),
        PortVerb::Attach { eni, port } => eni::run(session, EniVerb::Attach { eni, port }),
        PortVerb::Detach(detach) => eni::run(session, EniVerb::Detach(detach)),
        PortVerb::Pass(pass) => hand_over(&pass),
    }
}

fn hand_over(pass: &PortPass) -> Result<(), CliError> {
    let usage = |error: io::Error, what: &str| CliError::Usage(format!("{what}: {error}"));
    let queues: Vec<OwnedFd> = match &pass.device {
        Some(device) => {
            let mode = TapMode { has_header: true, has_queues: false };
            vec![sys::open_tap(device, mode).map_err(|error| usage(error, device))?]
        }
        None => {
            let inherited = |number: &i32| {
                sys::inherited(*number).map_err(|error| usage(error, &format!("descriptor {number} of this process")))
            };
            pass.fd.iter().map(inherited).collect::<Result<_, _>>()?
        }
    };
    loop {
        match socket::hand_over(&pass.socket, &queues) {
            Ok(_) if !pass.stay => return Ok(()),
            // It ends with the port.
            Ok(connection) => drop((&connection).read(&mut [0])),
            // What the port itself says does not become other by saying it again.
            Err(error) if !pass.stay || error.kind() == io::ErrorKind::InvalidInput => {
                return Err(usage(error, &pass.socket.display().to_string()));
            }
            Err(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
}

fn list_ports(session: &CliSession) -> Result<(), CliError> {
    if let Answer::Ports(ports) = session.ask(Query::Ports(Nothing {}))? {
        let headings = ["eni", "kind", "device", "namespace", "worker", "state", "failures"];
        session.output.table(&ports, headings, |port| {
            let state = match (&port.error, port.up) {
                (_, true) => "up".into(),
                (Some(error), false) => format!("down: {error}"),
                (None, false) => "down".into(),
            };
            [
                port.eni.to_string(),
                port.kind.clone(),
                list(port.device.as_ref()),
                list(port.namespace.as_ref()),
                port.worker.to_string(),
                state,
                port.failures.to_string(),
            ]
        });
    }
    Ok(())
}
