//! The `sluice` command. Only this package knows both planes, and it starts either.

mod cli;
mod supervisor;

use clap::Parser;
use cli::{CliArguments, CliCommand, namespace, up};
use control::logging;
use control::os::privileges::{self, Role};
use control::os::{private_dir, small_file};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use vswitch::port::factory::InterfaceIo;
use vswitch::port::tap::TapIo;
use vswitch_core::config::services::{FRAMES_SOCKET, PROCESS_USER, RECORDS_SOCKET};

fn main() -> ExitCode {
    let arguments = CliArguments::parse();
    let is_forwarding_plane = matches!(&arguments.command, CliCommand::Vswitch(vswitch) if vswitch.verb.is_none());
    logging::install(match &arguments.command {
        CliCommand::Services(_) => "sluice services",
        _ if is_forwarding_plane => "sluice vswitch",
        _ => "sluice",
    });
    match &arguments.command {
        CliCommand::Up(up_arguments) => supervisor::run(arguments.paths(), up_arguments),
        CliCommand::Control(given) => {
            plane(&arguments, Role::Control, &given.parent, || control_plane(&arguments, given))
        }
        CliCommand::Services(given) => plane(&arguments, Role::Services, &given.parent, || services(&arguments, given)),
        CliCommand::Vswitch(vswitch) if vswitch.verb.is_none() => {
            let given = &vswitch.plane;
            plane(&arguments, Role::Forwarding, &given.parent, || forwarding_plane(&arguments, given))
        }
        CliCommand::Ns(namespace::NamespaceVerb::Exec { eni, command }) => match namespace::of_eni(&arguments, eni) {
            Ok(name) => cannot_exec(&vswitch::os::namespace::exec(&name, command)),
            Err(error) => {
                log::error!("{error}");
                ExitCode::from(EXIT_NOT_RUN)
            }
        },
        _ => cli::run(arguments),
    }
}

/// As in `env` and `nohup`, so that the command's own exit statuses can be distinguished from ours.
const EXIT_NOT_RUN: u8 = 125;

fn cannot_exec(error: &std::io::Error) -> ExitCode {
    log::error!("{error}");
    match error.kind() {
        std::io::ErrorKind::NotFound => ExitCode::from(127),
        std::io::ErrorKind::PermissionDenied => ExitCode::from(126),
        _ => ExitCode::from(EXIT_NOT_RUN),
    }
}

/// Runs a plane. If that fails, the reason is printed, and left for the supervisor if there is one.
fn plane(
    arguments: &CliArguments,
    role: Role,
    parent: &up::ParentArguments,
    run: impl FnOnce() -> Result<(), String>,
) -> ExitCode {
    privileges::restrict(role);
    parent.follow();
    let run_dir = &arguments.paths().run_dir;
    let is_private = private_dir::ensure(run_dir, 0o755).map_err(|error| format!("{}: {error}", run_dir.display()));
    let Err(error) = is_private.and_then(|()| run()) else { return ExitCode::SUCCESS };
    log::error!("{error}");
    if parent.supervised {
        // If there is no room for it, the supervisor still knows the exit status.
        let _ = small_file::write(&arguments.paths().failure(role.verb()), error.as_bytes());
    }
    ExitCode::from(supervisor::EXIT_CANNOT_START)
}

fn forwarding_plane(arguments: &CliArguments, given: &up::VswitchArguments) -> Result<(), String> {
    // Opening the first ports uses everything that opening later ones does, so there is nothing to wait for.
    privileges::seal(Role::Forwarding);
    let mut config = vswitch::VswitchConfig::new(arguments.paths().vswitch_socket());
    config.workers = given.workers.unwrap_or(config.workers);
    config.flows_max_per_worker = given.sessions_per_worker.unwrap_or(config.flows_max_per_worker);
    config.pin = !given.no_pin;
    config.ports.plain_taps = given.plain_taps;
    config.ports.gro = !given.no_coalescing;
    config.ports.interface_io = match given.interface_io {
        Some(up::InterfaceIoOption::Xdp) => InterfaceIo::Xdp,
        Some(up::InterfaceIoOption::Packet) | None => InterfaceIo::Packet,
    };
    config.ports.tap_io = match given.tap_io {
        Some(up::TapIoOption::Plain) => TapIo::Plain,
        Some(up::TapIoOption::Uring) => match vswitch::os::io_uring::BatchRing::new() {
            Ok(_) => TapIo::Uring,
            Err(error) => {
                return Err(format!("--tap-io uring: the kernel does not offer io_uring: {error}; use auto or plain"));
            }
        },
        Some(up::TapIoOption::Auto) | None if vswitch::os::io_uring::is_cheaper() => TapIo::Uring,
        Some(up::TapIoOption::Auto) | None => TapIo::Plain,
    };
    config.ports.rx_queues = given.rx_queues.unwrap_or(1);
    config.ports.rx_queues_max = given.rx_queues_max.unwrap_or(1);
    config.busy_poll = match given.busy_poll {
        Some(up::BusyPollOption::Always) => vswitch::BusyPoll::Always,
        Some(up::BusyPollOption::Never) => vswitch::BusyPoll::Never,
        Some(up::BusyPollOption::Adaptive) | None => vswitch::BusyPoll::Adaptive,
    };
    vswitch::run(config).map_err(|error| format!("the forwarding plane cannot run: {error}"))
}

fn control_plane(arguments: &CliArguments, given: &up::ControlArguments) -> Result<(), String> {
    let file = up::ConfigFile::read(given.config.as_deref()).map_err(|error| error.to_string())?;
    let paths = arguments.paths();
    let mut config =
        control::config::ControlConfig::new(paths.data_dir.clone(), paths.control_socket(), paths.vswitch_socket());
    config.api = given.endpoint.config(&file).map_err(|error| error.to_string())?;
    config.has_state = given.has_state;
    config.supervisor_socket = given.parent.supervised.then(|| paths.supervisor_socket());
    config.quotas = file.quotas.unwrap_or(config.quotas);
    control::run(&config).map_err(|error| format!("the control plane cannot run: {error}"))
}

fn services(arguments: &CliArguments, given: &up::ServicesArguments) -> Result<(), String> {
    let cannot = |what: &str, error: std::io::Error| format!("the services process cannot {what}: {error}");
    // Sockets are named from here: the user that the process becomes need not be able to reach the folder by its path.
    let paths = arguments.paths();
    let lock = supervisor::take_lock(&paths.run_dir, &paths.services_lock()).map_err(|error| error.to_string())?;
    // Read before it is another user, who may not be able to.
    let resolvers = given.resolvers();
    std::env::set_current_dir(&paths.run_dir).map_err(|error| cannot("enter the folder of the sockets", error))?;
    if let Err(error) = privileges::become_user(PROCESS_USER) {
        log::warn!("{}; it continues as this one", cannot("become another user", error.into()));
    }
    let (stop, stopped) = UnixStream::pair().map_err(|error| cannot("watch for signals", error))?;
    for signal in [SIGTERM, SIGINT] {
        let end = stop.try_clone().map_err(|error| cannot("watch for signals", error))?;
        signal_hook::low_level::pipe::register(signal, end).map_err(|error| cannot("watch for signals", error))?;
    }
    privileges::seal(Role::Services);
    let config = ::services::ServicesConfig { frames: FRAMES_SOCKET.into(), records: RECORDS_SOCKET.into(), resolvers };
    ::services::run(&config, &stopped, || supervisor::renew_lock(&lock)).map_err(|error| cannot("run", error))
}
