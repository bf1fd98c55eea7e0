//! The receiving end: waits for a sender, counts, sends back if asked to, and reports its results to the sender.

use super::arrivals::{Arrivals, PacketArrival};
use super::{
    Findings, Greeting, HEADER_BYTES, Header, Latency, MessageKind, PAYLOAD_BYTES_MAX, PORT, histogram_ns, now_ns,
};
use crate::chart::{self, Line};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Options of `sluice bench receive`, to which `sluice bench send ADDRESS` connects.
#[derive(Clone, Debug, Args)]
pub struct ReceiveArguments {
    /// Where to listen.
    #[arg(long, default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT))]
    pub(crate) listen: SocketAddr,
    /// How many runs to wait for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// How long to wait for each, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) show: crate::Show,
}

impl ReceiveArguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReceiveReport {
    sender: SocketAddr,
    #[serde(flatten)]
    pub(crate) findings: Findings,
    /// Whether the sender said how many it had sent. If not, losses at the end are unknown.
    pub(crate) is_complete: bool,
}

impl crate::Report for ReceiveReport {
    fn text(&self) -> String {
        let Findings { received, lost, duplicates, reordered, payload_bytes, seconds, one_way } = &self.findings;
        let per_second = |amount: f64| if *seconds > 0.0 { amount / seconds } else { 0.0 };
        let mut text = format!(
            "from {}: {received} packets in {seconds:.2} s, {:.0} a second, {:.1} Mbit/s of payload\n\
             lost {lost}, duplicates {duplicates}, reordered {reordered}",
            self.sender,
            per_second(*received as f64),
            per_second(*payload_bytes as f64 * 8.0 / 1e6)
        );
        if !self.is_complete {
            text += "\nthe sender stopped before it reported how many packets it had sent";
        }
        if let Some(one_way) = one_way {
            text += &format!("\n\n{}\n{}", Latency::HEADINGS, one_way.text("one way"));
        }
        text
    }

    fn svg(&self) -> String {
        let one_way = self.findings.one_way.iter();
        let lines: Vec<Line<'_>> =
            one_way.map(|latency| Line { name: "one way", quantiles: &latency.quantiles }).collect();
        chart::of_quantiles(&format!("Latency from {}", self.sender), "µs", &lines)
    }
}

const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// A sender that is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(3);
/// How often a sender that does not receive the results may ask for them.
const FINDINGS_ASKED_MAX: u32 = 10;

/// Receives runs and reports each.
pub(crate) fn run(
    arguments: &ReceiveArguments,
    mut report: impl FnMut(ReceiveReport) -> Result<(), String>,
) -> Result<(), String> {
    let socket =
        UdpSocket::bind(arguments.listen).map_err(|error| format!("cannot listen at {}: {error}", arguments.listen))?;
    eprintln!("listening at {}", socket.local_addr().map_err(|error| error.to_string())?);
    for _ in 0..arguments.runs {
        let found = receive(&socket, Duration::from_secs(arguments.wait))?;
        report(found)?;
    }
    Ok(())
}

/// Receives one run.
pub(crate) fn receive(socket: &UdpSocket, wait: Duration) -> Result<ReceiveReport, String> {
    // So that packets are not lost here while others have the core. The kernel grants as much as it allows.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES);
    let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
    let deadline = Instant::now() + wait;
    let mut run = loop {
        let patience = deadline.saturating_duration_since(Instant::now());
        let Some((bytes, from)) = next(socket, &mut buffer, patience)? else {
            return Err(format!("no sender came within {} s", wait.as_secs()));
        };
        // Datagrams of an earlier run may still arrive; only a greeting begins a new one.
        if let Some((header, rest)) = Header::read(&buffer[..bytes])
            && header.kind == MessageKind::Hello
            && let Ok(greeting) = serde_json::from_slice::<Greeting>(rest)
        {
            break Run::new(header.run, from, &greeting)?;
        }
    };
    run.welcome(socket);
    let mut heard = Instant::now();
    let mut asked = 0;
    // Datagrams of others do not prolong the wait.
    while let Some((bytes, from)) = next(socket, &mut buffer, SILENCE.saturating_sub(heard.elapsed()))? {
        let Some((header, _)) = Header::read(&buffer[..bytes]) else { continue };
        if from != run.sender || header.run != run.id {
            continue;
        }
        heard = Instant::now();
        match header.kind {
            MessageKind::Hello => run.welcome(socket),
            MessageKind::Data => run.take(socket, header, &mut buffer[..bytes]),
            MessageKind::End if asked < FINDINGS_ASKED_MAX => {
                asked += 1;
                run.sent = Some(header.number);
                let message = Header { kind: MessageKind::Findings, ..header }.with_body(&run.findings());
                let _ = socket.send_to(&message, from);
            }
            // The sender has received them.
            MessageKind::Findings => break,
            _ => {}
        }
    }
    Ok(ReceiveReport { sender: run.sender, findings: run.findings(), is_complete: run.sent.is_some() })
}

/// The next datagram, if one arrives in time.
pub(super) fn next(
    socket: &UdpSocket,
    buffer: &mut [u8],
    patience: Duration,
) -> Result<Option<(usize, SocketAddr)>, String> {
    // The system call takes a time-out of zero for none at all.
    if patience.is_zero() {
        return Ok(None);
    }
    socket.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
    match socket.recv_from(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

struct Run {
    id: u64,
    sender: SocketAddr,
    ours: Greeting,
    has_same_clock: bool,
    arrivals: Arrivals,
    one_way_ns: Histogram<u64>,
    payload_bytes: u64,
    first_and_last_ns: Option<(u64, u64)>,
    sent: Option<u64>,
}

impl Run {
    fn new(id: u64, sender: SocketAddr, greeting: &Greeting) -> Result<Self, String> {
        let ours = Greeting::new(greeting.echo);
        let (arrivals, one_way_ns) = (Arrivals::new(), histogram_ns()?);
        let has_same_clock = ours.has_same_clock(greeting);
        let (payload_bytes, first_and_last_ns, sent) = (0, None, None);
        Ok(Self { id, sender, ours, has_same_clock, arrivals, one_way_ns, payload_bytes, first_and_last_ns, sent })
    }

    // What cannot be sent counts as lost: the other end asks again, or counts it.
    fn welcome(&self, socket: &UdpSocket) {
        let header = Header { kind: MessageKind::Welcome, run: self.id, number: 0, sent_ns: 0, received: 0 };
        let _ = socket.send_to(&header.with_body(&self.ours), self.sender);
    }

    fn take(&mut self, socket: &UdpSocket, header: Header, message: &mut [u8]) {
        // The time comes first: what follows would count as latency.
        let now_ns = now_ns();
        let arrival = self.arrivals.note(header.number);
        if arrival == PacketArrival::New {
            self.payload_bytes += message.len() as u64;
            let (first, _) = self.first_and_last_ns.unwrap_or((now_ns, now_ns));
            self.first_and_last_ns = Some((first, now_ns));
            // The clocks of two hosts differ by more than the latency.
            if self.has_same_clock {
                self.one_way_ns.saturating_record(now_ns.saturating_sub(header.sent_ns));
            }
        }
        if self.ours.echo
            && let Some(head) = message.first_chunk_mut::<HEADER_BYTES>()
        {
            Header { kind: MessageKind::Echo, received: self.arrivals.received, ..header }.write(head);
            let _ = socket.send_to(message, self.sender);
        }
    }

    fn findings(&self) -> Findings {
        let Arrivals { received, duplicates, reordered, .. } = self.arrivals;
        let (first, last) = self.first_and_last_ns.unwrap_or_default();
        Findings {
            received,
            lost: self.sent.map_or(0, |sent| self.arrivals.lost(sent)),
            duplicates,
            reordered,
            payload_bytes: self.payload_bytes,
            seconds: (last - first) as f64 / 1e9,
            one_way: Latency::of(&self.one_way_ns),
        }
    }
}
