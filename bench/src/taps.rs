//! Real ports: the forwarding plane between two namespaces that it makes and removes, with their kernels at both ends.

use crate::fixture;
use crate::in_process_switch::{self, InProcessSwitch};
use crate::udp::{receive, send};
use clap::Args;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use vswitch::os::namespace;
use vswitch::port::factory::PortFactory;
use vswitch_core::config::desired::{Desired, DesiredPort, TapPort};
use vswitch_core::config::ids::EniId;

/// Options of `sluice bench taps --rules 100`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct TapsArguments {
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 100)]
    rules: usize,
    /// Packets a second; as many as possible if absent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Bytes of payload in each packet.
    #[arg(long, default_value_t = 64, value_parser = send::payload_bytes)]
    size: usize,
    /// How long to send.
    #[arg(long, default_value_t = 5.0, value_parser = send::duration_s)]
    seconds: f64,
    /// Workers that forward.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// Have every packet sent back, and measure the round trip.
    #[arg(long)]
    echo: bool,
    /// Devices without offloads.
    #[arg(long)]
    plain_taps: bool,
    #[command(flatten)]
    #[serde(skip)]
    show: crate::Show,
}

impl TapsArguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TapsReport {
    rules: usize,
    workers: u8,
    #[serde(flatten)]
    sent: send::SendReport,
    delivered_per_second: f64,
    /// CPU time that the workers took, in cores.
    worker_cores: f64,
}

impl crate::Report for TapsReport {
    fn text(&self) -> String {
        format!(
            "between two namespaces over TAP devices, {} rules a direction, workers: {}\n{}\n\n\
             delivered {:.0} packets/s; the workers took {:.2} cores",
            self.rules,
            self.workers,
            self.sent.text(),
            self.delivered_per_second,
            self.worker_cores
        )
    }

    fn svg(&self) -> String {
        self.sent.svg()
    }
}

const SENDER: u16 = 1;
const RECEIVER: u16 = 2;
const RATE_MAX: u32 = 10_000_000;

/// Removes the namespaces that the switch made, even after a failure.
struct Namespaces([String; 2]);

impl Namespaces {
    fn new() -> Result<Self, String> {
        let names = ["a", "b"].map(|end| format!("sluice-bench-{}-{end}", std::process::id()));
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
        let doomed = Self(names.clone());
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Nothing else would remove the namespaces: a signal ends a process without dropping anything.
                drop(doomed);
                std::process::exit(128 + signal);
            }
        });
        Ok(Self(names))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = namespace::remove(name) {
                eprintln!("sluice: {error}");
            }
        }
    }
}

/// Runs the measurement.
pub(crate) fn run(arguments: &TapsArguments) -> Result<TapsReport, String> {
    let names = Namespaces::new()?;
    let ports = PortFactory { plain_taps: arguments.plain_taps, ..PortFactory::default() };
    let plane = InProcessSwitch::start(|config| (config.workers, config.ports) = (arguments.workers.into(), ports))
        .map_err(|error| error.to_string())?;
    let mut client = plane.connect().map_err(|error| error.to_string())?;
    client.replace(desired(arguments.rules, &names.0))?;
    // A socket stays in the namespace it was opened in, whichever thread uses it later.
    let socket =
        namespace::within(&names.0[1], || UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], fixture::ADMITTED_PORT))))
            .map_err(|error| error.to_string())?;
    let sending = send::SendArguments {
        receiver: SocketAddr::new(fixture::address(RECEIVER, false), fixture::ADMITTED_PORT).to_string(),
        // More than a socket can send, so that the pace never waits.
        rate: arguments.rate.unwrap_or(RATE_MAX),
        size: arguments.size,
        seconds: arguments.seconds,
        count: None,
        echo: arguments.echo,
        show: arguments.show.clone(),
    };
    let before_ns = workers_cpu_ns();
    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive::receive(&socket, Duration::from_secs(20)));
        let sent = namespace::within(&names.0[0], || send::run(&sending).map_err(std::io::Error::other));
        (sent.map_err(|error| error.to_string()), receiver.join().map_err(|_| "the receiver panicked".to_string()))
    });
    let after_ns = workers_cpu_ns();
    let spent_ns = |(thread, before): (&OsString, &u64)| Some(after_ns.get(thread)?.saturating_sub(*before));
    let worker_ns: u64 = before_ns.iter().filter_map(spent_ns).sum();
    let (sent, received) = (sent?, received??);
    client.replace(Desired::default())?;
    let seconds = received.findings.seconds.max(f64::EPSILON);
    Ok(TapsReport {
        rules: arguments.rules,
        workers: arguments.workers,
        sent,
        delivered_per_second: received.findings.received as f64 / seconds,
        worker_cores: worker_ns as f64 / 1e9 / seconds,
    })
}

/// Two ENIs, each with a device in a namespace of its own.
fn desired(rules: usize, names: &[String; 2]) -> Desired {
    let mut desired = fixture::desired(rules, 1);
    let ends = [SENDER, RECEIVER].map(fixture::eni_id);
    desired.enis.retain(|id, _| ends.contains(id));
    in_process_switch::attach(&mut desired, |id: &EniId| {
        let place = ends.iter().position(|end| end == id)?;
        Some(DesiredPort::Tap(TapPort {
            device: "eth0".into(),
            namespace: Some(names[place].clone()),
            create_namespace: true,
            configure: true,
            mtu_bytes: TapPort::default_mtu_bytes(),
        }))
    });
    desired
}

/// CPU time of each worker's thread, ns, by its number; empty if the kernel does not report it.
fn workers_cpu_ns() -> BTreeMap<OsString, u64> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_worker = tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("worker")));
    let spent = |task: std::fs::DirEntry| {
        // `schedstat` counts nanoseconds; `stat` has ticks, of 10 ms.
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name(), text.split(' ').next()?.parse().ok()?))
    };
    of_worker.filter_map(spent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_through_real_devices_and_nothing_is_left_behind() {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIPPED: TAP devices and namespaces need root and /dev/net/tun");
            return;
        }
        let (rate, seconds, show) = (Some(200), 0.5, crate::Show::default());
        let (size, echo, plain_taps) = (64, true, false);
        let report = run(&TapsArguments { rules: 20, rate, size, seconds, workers: 1, echo, plain_taps, show });
        let sent = report.expect("the rules admit it").sent;
        let found = sent.receiver_found.expect("the receiver's word comes through as well");
        // A busy machine sends fewer packets than requested.
        assert!((1..=100).contains(&sent.sent), "{}", sent.sent);
        assert_eq!(found.received + found.lost, sent.sent);
        assert!(found.received > 0 && sent.echoed.is_some_and(|echoed| echoed > 0));
        let left = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let ours = format!("sluice-bench-{}-", std::process::id());
        assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&ours)));
    }
}
