//! The `sluice` command. The one place that knows both planes: it starts the one or the other.

use clap::Parser;
use control::cli::{self, Arguments, Command, namespace, up};
use std::process::ExitCode;
use vswitch::port::{InterfaceIo, TapIo};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Command::Up(up_arguments) => up::run(arguments.paths(), up_arguments),
        Command::Control(control_arguments) => control_plane(&arguments, control_arguments),
        Command::Vswitch(vswitch) if vswitch.verb.is_none() => forwarding_plane(&arguments, &vswitch.plane),
        Command::Ns(namespace::Verb::Exec { eni, command }) => match namespace::of_eni(&arguments, eni) {
            Ok(name) => cannot_exec(&vswitch::namespace::exec(&name, command)),
            Err(error) => {
                eprintln!("sluice: {error}");
                ExitCode::from(EXIT_NOT_RUN)
            }
        },
        _ => cli::run(arguments),
    }
}

/// As `env` and `nohup` do, so that the command's own exit statuses can be told from ours.
const EXIT_NOT_RUN: u8 = 125;

fn cannot_exec(error: &std::io::Error) -> ExitCode {
    eprintln!("sluice: {error}");
    match error.kind() {
        std::io::ErrorKind::NotFound => ExitCode::from(127),
        std::io::ErrorKind::PermissionDenied => ExitCode::from(126),
        _ => ExitCode::from(EXIT_NOT_RUN),
    }
}

fn cannot(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("sluice: {error}");
    ExitCode::from(up::EXIT_CANNOT_START)
}

fn forwarding_plane(arguments: &Arguments, given: &up::VswitchArguments) -> ExitCode {
    up::follow_parent(given.with_parent);
    let mut config = vswitch::VswitchConfig::new(arguments.paths().vswitch_socket());
    config.workers = given.workers.unwrap_or(config.workers);
    config.flows_max_per_worker = given.sessions_per_worker.unwrap_or(config.flows_max_per_worker);
    config.pin = !given.no_pin;
    config.ports.plain_taps = given.plain_taps;
    config.ports.coalesces = !given.no_coalescing;
    config.ports.interface_io = match given.interface_io {
        Some(up::InterfaceIo::Xdp) => InterfaceIo::Xdp,
        Some(up::InterfaceIo::Packet) | None => InterfaceIo::Packet,
    };
    config.ports.tap_io = match given.tap_io {
        Some(up::TapIo::Plain) => TapIo::Plain,
        Some(up::TapIo::Uring) => match vswitch::ring::Ring::new() {
            Ok(_) => TapIo::Uring,
            Err(error) => {
                return cannot(format!("--tap-io uring: the kernel gives no io_uring: {error}; use auto or plain"));
            }
        },
        Some(up::TapIo::Auto) | None if vswitch::ring::pays() => TapIo::Uring,
        Some(up::TapIo::Auto) | None => TapIo::Plain,
    };
    config.ports.lanes = given.lanes.unwrap_or(1);
    config.ports.lanes_max = given.lanes_max.unwrap_or(1);
    config.busy_poll = match given.busy_poll {
        Some(up::BusyPoll::Always) => vswitch::BusyPoll::Always,
        Some(up::BusyPoll::Never) => vswitch::BusyPoll::Never,
        Some(up::BusyPoll::Adaptive) | None => vswitch::BusyPoll::Adaptive,
    };
    match vswitch::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cannot(format!("the forwarding plane cannot run: {error}")),
    }
}

fn control_plane(arguments: &Arguments, given: &up::ControlArguments) -> ExitCode {
    up::follow_parent(given.with_parent);
    let file = match up::ConfigFile::read(given.config.as_deref()) {
        Ok(file) => file,
        Err(error) => return cannot(error),
    };
    let paths = arguments.paths();
    let mut config =
        control::config::ControlConfig::new(paths.data_dir.clone(), paths.control_socket(), paths.vswitch_socket());
    config.api = match given.endpoint.config(&file) {
        Ok(api) => api,
        Err(error) => return cannot(error),
    };
    config.quotas = file.quotas.unwrap_or(config.quotas);
    match control::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cannot(format!("the control plane cannot run: {error}")),
    }
}
