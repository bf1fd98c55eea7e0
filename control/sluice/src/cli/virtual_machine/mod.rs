//! `sluice vm`: QEMU on an ENI.

mod accelerator;
mod descriptor;

use super::{CliError, CliSession};
use accelerator::Accelerator;
use clap::{Args, Subcommand, ValueEnum};
use control::command::{Command as Change, EniAttach};
use control::socket::protocol::{Changed, Forwarding};
use control::socket::query::{Answer, EniShow, Query};
use control::socket::view::EniView;
use descriptor::VmExec;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use vswitch_core::config::desired::{DesiredPort, StreamPort, TapPort, VhostUserPort};

/// The verbs of `sluice vm`.
#[derive(Debug, Subcommand)]
pub(crate) enum VmVerb {
    /// Run a virtual machine on an ENI: `sluice vm run --eni eni-web --kernel vmlinuz --initrd initrd.img`. It ends with the
    /// guest; the ENI stays attached.
    Run(VmRun),
    /// Run a hypervisor with a TAP device that it gets as descriptor 3, in a namespace that nothing else is in: `sluice vm
    /// exec --eni eni-web -- qemu-system-x86_64 … -netdev tap,id=net0,fd=3`. The ENI stays attached.
    Exec(VmExec),
}

/// What a virtual machine is started with.
#[derive(Debug, Args)]
pub(crate) struct VmRun {
    /// The ENI, which gives the guest its hardware address and MTU.
    #[arg(long)]
    eni: String,
    /// How the guest reaches the switch, if the ENI is attached to nothing yet.
    #[arg(long, value_enum, default_value_t = VmPort::VhostUser)]
    port: VmPort,
    /// The kernel to boot.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Its initial file system.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "WORDS", default_value = "console=ttyS0")]
    append: String,
    /// Memory, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: u32,
    /// Processors.
    #[arg(long, default_value_t = 1)]
    cpus: u16,
    /// Whether the processor is the machine's own or emulated.
    #[arg(long, value_enum, default_value_t = Accelerator::Auto)]
    accelerator: Accelerator,
    /// The emulator.
    #[arg(long, value_name = "PROGRAM", default_value = concat!("qemu-system-", "x86_64"))]
    qemu: PathBuf,
    /// Further arguments of QEMU's.
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// How a guest reaches the switch.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum VmPort {
    /// It shares its memory.
    VhostUser,
    /// Its frames cross a stream socket.
    Stream,
}

pub(super) fn run(session: &CliSession, verb: VmVerb) -> Result<(), CliError> {
    let run = match verb {
        VmVerb::Run(run) => run,
        VmVerb::Exec(exec) => return descriptor::run(session, &exec),
    };
    let eni = view_of(session, &run.eni)?;
    for file in std::iter::once(&run.kernel).chain(&run.initrd) {
        std::fs::File::open(file)
            .map_err(|error| CliError::Usage(format!("{} cannot be read: {error}", file.display())))?;
    }
    let port = match eni.port.clone() {
        Some(port) => port,
        None => attach(session, &eni, run.port)?,
    };
    let network = network(&eni, &port, run.memory)?;
    let (accelerator, why) = accelerator::choose(&run)?;
    eprintln!("{}: hardware address {}, MTU {}, {} port; {why}", eni.id, eni.mac, port.mtu_bytes(), port.kind());
    let mut qemu = machine(&run, accelerator);
    qemu.arg("-append").arg(&run.append);
    if let Some(initrd) = &run.initrd {
        qemu.arg("-initrd").arg(initrd);
    }
    let error = qemu.args(["-serial", "mon:stdio"]).args(network).args(&run.arguments).exec();
    Err(CliError::Usage(format!("{} cannot be started: {error}", run.qemu.display())))
}

/// Attaches an ENI to a socket in the folder of sockets. QEMU listens there, and the switch connects: so the guest keeps its
/// network over a restart of the switch with QEMU of any version.
fn attach(session: &CliSession, eni: &EniView, port: VmPort) -> Result<DesiredPort, CliError> {
    let path = session.paths.run_dir.join(format!("vm-{}.sock", eni.id));
    let path = std::path::absolute(path).map_err(|error| CliError::Usage(error.to_string()))?;
    let path = path.display().to_string();
    let (is_client, socket_user, mtu_bytes) = (true, None, TapPort::default_mtu_bytes());
    let port = match port {
        VmPort::VhostUser => {
            let queues = VhostUserPort::default_queues();
            DesiredPort::VhostUser(VhostUserPort { path, is_client, queues, socket_user, mtu_bytes })
        }
        VmPort::Stream => DesiredPort::Stream(StreamPort { path, is_client, socket_user, mtu_bytes }),
    };
    attach_to(session, eni, port)
}

fn attach_to(session: &CliSession, eni: &EniView, port: DesiredPort) -> Result<DesiredPort, CliError> {
    let attach = Change::EniAttach(EniAttach { eni: eni.id.to_string(), port: port.clone() });
    let Changed { forwarding, .. } = session.connect()?.change(&attach)?;
    if let Forwarding::Applied(_) = forwarding {
        return Ok(port);
    }
    Err(CliError::Usage(format!("{} is attached, but its rules are not in force yet: try again", eni.id)))
}

fn view_of(session: &CliSession, eni: &str) -> Result<Box<EniView>, CliError> {
    match session.ask(Query::EniShow(EniShow { eni: eni.to_owned() }))? {
        Answer::Eni(view) => Ok(view),
        _ => Err(CliError::Usage(format!("no answer about {eni}"))),
    }
}

/// QEMU's arguments for the guest's interface.
fn network(eni: &EniView, port: &DesiredPort, memory_mib: u32) -> Result<Vec<String>, CliError> {
    let device = format!("virtio-net-pci,netdev=net0,mac={},host_mtu={},romfile=", eni.mac, port.mtu_bytes());
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    match port {
        DesiredPort::Stream(socket) => {
            let server = if socket.is_client { "on" } else { "off" };
            let netdev = format!("stream,id=net0,server={server},addr.type=unix,addr.path={}", socket.path);
            Ok(words(&["-netdev", &netdev, "-device", &device]))
        }
        DesiredPort::VhostUser(socket) => {
            let end = if socket.is_client { "server=on,wait=off" } else { "reconnect=1" };
            let memory = format!("memory-backend-memfd,id=memory,size={memory_mib}M,share=on");
            let chardev = format!("socket,id=net,path={},{end}", socket.path);
            // Interrupts by message crash QEMU 7.2 where it emulates the processor.
            let device = format!("{device},vectors=0");
            Ok([
                words(&["-object", &memory, "-numa", "node,memdev=memory", "-chardev", &chardev]),
                words(&["-netdev", "vhost-user,id=net0,chardev=net", "-device", &device]),
            ]
            .concat())
        }
        DesiredPort::Tap(_)
        | DesiredPort::Packet(_)
        | DesiredPort::Macvtap(_)
        | DesiredPort::TapSocket(_)
        | DesiredPort::Memory => Err(CliError::Usage(format!(
            "{id} is attached to a port of kind {kind}, which is none for a virtual machine: `sluice port detach {id}` first",
            id = eni.id,
            kind = port.kind()
        ))),
    }
}

/// QEMU with the machine, and nothing that it would add by itself.
fn machine(run: &VmRun, accelerator: Accelerator) -> Command {
    let name = if accelerator == Accelerator::Kvm { "kvm" } else { "tcg" };
    let mut qemu = Command::new(&run.qemu);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", name]);
    qemu.args(["-m", &run.memory.to_string(), "-smp", &run.cpus.to_string()]);
    if accelerator == Accelerator::Kvm {
        qemu.args(["-cpu", "host"]);
    }
    qemu.arg("-kernel").arg(&run.kernel);
    qemu
}
