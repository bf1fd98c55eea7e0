//! The sending end: greets, sends at a steady rate, and gets the receiver's results.

use super::arrivals::{Arrivals, PacketArrival};
use super::receive::next;
use super::{
    Findings, Greeting, HEADER_BYTES, Header, Latency, MessageKind, PAYLOAD_BYTES_MAX, PORT, histogram_ns, now_ns,
};
use crate::chart::{self, Line};
use crate::progress::Progress;
use clap::Args;
use serde::Serialize;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Options of `sluice bench send 10.0.1.10 --rate 10000 --size 1400 --echo`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct SendArguments {
    /// Where `sluice bench receive` listens: ADDRESS or ADDRESS:PORT.
    pub(crate) receiver: String,
    /// Packets a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,
    /// Bytes of payload in each packet.
    #[arg(long, default_value_t = 64, value_parser = payload_bytes)]
    pub(crate) size: usize,
    /// How long to send.
    #[arg(long, default_value_t = 10.0, value_parser = duration_s)]
    pub(crate) seconds: f64,
    /// How many packets to send at most.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Have every packet sent back, and measure the round trip.
    #[arg(long)]
    pub(crate) echo: bool,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) show: crate::Show,
}

impl SendArguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

pub(crate) fn payload_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (HEADER_BYTES..=PAYLOAD_BYTES_MAX).contains(bytes));
    bytes.ok_or(format!("a packet carries {HEADER_BYTES} to {PAYLOAD_BYTES_MAX} bytes"))
}

pub(crate) fn duration_s(text: &str) -> Result<f64, String> {
    const DAY: f64 = 86_400.0;
    let seconds = text.parse().ok().filter(|seconds| (0.0..=DAY).contains(seconds));
    seconds.ok_or("a run lasts up to 86400 seconds".into())
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SendReport {
    #[serde(flatten)]
    arguments: SendArguments,
    pub(crate) sent: u64,
    /// Packets that this host's kernel did not accept.
    pub(crate) unsent: u64,
    packets_per_second: f64,
    /// The receiver's results; `None` if they did not arrive.
    pub(crate) receiver_found: Option<Findings>,
    /// Packets that came back, if they were to.
    pub(crate) echoed: Option<u64>,
    pub(crate) round_trip: Option<Latency>,
}

impl crate::Report for SendReport {
    fn text(&self) -> String {
        let SendArguments { receiver, size, rate, .. } = &self.arguments;
        let mut text = format!(
            "to {receiver}: {} packets of {size} bytes, {:.0} a second ({rate} asked for)",
            self.sent, self.packets_per_second
        );
        if self.unsent > 0 {
            text += &format!("\nnot taken by this host's kernel: {}", self.unsent);
        }
        match &self.receiver_found {
            Some(Findings { received, lost, duplicates, reordered, .. }) => {
                let share = *lost as f64 / (self.sent as f64).max(1.0) * 100.0;
                text += &format!(
                    "\nreceived {received}, lost on the way {lost} ({share:.3} %), duplicates {duplicates}, reordered {reordered}"
                );
                if let Some(echoed) = self.echoed {
                    text += &format!("\ncame back {echoed}, lost on the way back {}", received.saturating_sub(echoed));
                }
            }
            None => text += "\nthe receiver's results did not arrive: losses are unknown",
        }
        let one_way = self.receiver_found.as_ref().and_then(|found| found.one_way.as_ref());
        let latencies = [("one way", one_way), ("there and back", self.round_trip.as_ref())];
        let lines: Vec<String> =
            latencies.iter().filter_map(|(name, latency)| Some(latency.as_ref()?.text(name))).collect();
        if lines.is_empty() {
            text + "\nno latency: the ends do not use the same clock; --echo measures the round trip"
        } else {
            text + "\n\n" + Latency::HEADINGS + "\n" + &lines.join("\n")
        }
    }

    fn svg(&self) -> String {
        let one_way = self.receiver_found.as_ref().and_then(|found| found.one_way.as_ref());
        let latencies = [("one way", one_way), ("there and back", self.round_trip.as_ref())];
        let lines: Vec<Line<'_>> = latencies
            .iter()
            .filter_map(|(name, latency)| Some(Line { name, quantiles: &latency.as_ref()?.quantiles }))
            .collect();
        chart::of_quantiles(&format!("Latency to {}", self.arguments.receiver), "µs", &lines)
    }
}

/// How often, and for how long, to greet a receiver and to ask for its results.
const ASK_EVERY: Duration = Duration::from_millis(200);
const ASK_TIMES: u32 = 15;
/// How long to wait for echoes after the last packet.
const LINGER: Duration = Duration::from_millis(300);

/// Sends, and reports the result.
pub(crate) fn run(arguments: &SendArguments) -> Result<SendReport, String> {
    let receiver = address_of(&arguments.receiver)?;
    let any: SocketAddr = if receiver.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
    let socket = UdpSocket::bind(any)
        // Connected, the socket reports that nobody listens, and takes datagrams of the receiver only.
        .and_then(|socket| socket.connect(receiver).map(|()| socket))
        .map_err(|error| format!("cannot send to {receiver}: {error}"))?;
    // The number tells this run's datagrams from those of an earlier run that arrive late.
    let run = RandomState::new().hash_one(now_ns());
    let greeting = Greeting::new(arguments.echo);
    let hello = Header { kind: MessageKind::Hello, run, number: 0, sent_ns: 0, received: 0 };
    if ask::<Greeting>(&socket, &hello.with_body(&greeting), (run, MessageKind::Welcome)).is_none() {
        return Err(format!(
            "no receiver answers at {receiver}: run `sluice bench receive` there, and let UDP through"
        ));
    }
    let is_over = AtomicBool::new(false);
    let (sent, unsent, spent, echoes) = std::thread::scope(|scope| {
        let listener = arguments.echo.then(|| scope.spawn(|| listen(&socket, run, &is_over)));
        let started = Instant::now();
        let (sent, unsent) = send(&socket, arguments, run);
        let spent = started.elapsed();
        if listener.is_some() {
            std::thread::sleep(LINGER);
        }
        is_over.store(true, Ordering::Relaxed);
        let echoes = listener.map(|listener| listener.join().map_err(|_| "the listener panicked".to_string())?);
        Ok::<_, String>((sent, unsent, spent, echoes.transpose()?))
    })?;
    let end = Header { kind: MessageKind::End, number: sent, ..hello };
    let found: Option<Findings> = ask(&socket, &end.with_body(&()), (run, MessageKind::Findings));
    let heard = Header { kind: MessageKind::Findings, ..end };
    // So that the receiver need not wait for another request.
    let _ = socket.send(&heard.with_body(&()));
    let (echoed, round_trip) = echoes.unzip();
    Ok(SendReport {
        arguments: arguments.clone(),
        sent,
        unsent,
        packets_per_second: sent as f64 / spent.as_secs_f64().max(1e-9),
        receiver_found: found,
        echoed,
        round_trip: round_trip.flatten(),
    })
}

fn address_of(text: &str) -> Result<SocketAddr, String> {
    let bare = (text.trim_start_matches('[').trim_end_matches(']'), PORT).to_socket_addrs();
    let mut found = text.to_socket_addrs().or(bare).map_err(|error| format!("{text}: {error}"))?;
    found.next().ok_or(format!("{text} has no address"))
}

/// Sends a message repeatedly until its answer arrives.
fn ask<T: serde::de::DeserializeOwned>(
    socket: &UdpSocket,
    message: &[u8],
    (run, kind): (u64, MessageKind),
) -> Option<T> {
    let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
    for _ in 0..ASK_TIMES {
        // A refusal of an earlier message shows up here; a receiver may still appear.
        let _ = socket.send(message);
        let deadline = Instant::now() + ASK_EVERY;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match next(socket, &mut buffer, patience) {
                Ok(Some((bytes, _))) => {
                    let answer = Header::read(&buffer[..bytes]).filter(|(header, _)| header.run == run);
                    let body = answer.filter(|(header, _)| header.kind == kind).map(|(_, body)| body);
                    if let Some(answer) = body.and_then(|body| serde_json::from_slice(body).ok()) {
                        return Some(answer);
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    // A refusal comes at once; without a pause, all attempts would be used up in a moment.
                    std::thread::sleep(patience);
                    break;
                }
            }
        }
    }
    None
}

/// Sends at the requested rate. Returns how many packets were sent, and how many the kernel refused.
fn send(socket: &UdpSocket, arguments: &SendArguments, run: u64) -> (u64, u64) {
    let count = (f64::from(arguments.rate) * arguments.seconds) as u64;
    let count = count.min(arguments.count.unwrap_or(u64::MAX));
    let mut message = vec![0; arguments.size.max(HEADER_BYTES)];
    let mut progress = Progress::new("sending", arguments.show.progress);
    let started = Instant::now();
    let length = Duration::from_secs_f64(arguments.seconds);
    let (mut sent, mut unsent) = (0, 0);
    for place in 0..count {
        // Due times count from the start, so that one delay does not postpone all later packets.
        let due = started + Duration::from_nanos((place as f64 * 1e9 / f64::from(arguments.rate)) as u64);
        wait_until(due);
        if started.elapsed() > length + Duration::from_millis(1) {
            break; // Slower than asked for: the time counts.
        }
        progress.show(place as f64 / count as f64);
        // Packets that the kernel refused take no number, or the receiver would count them as lost on the way.
        let header = Header { kind: MessageKind::Data, run, number: sent, sent_ns: now_ns(), received: 0 };
        if let Some(head) = message.first_chunk_mut() {
            header.write(head);
        }
        match socket.send(&message) {
            Ok(_) => sent += 1,
            Err(_) => unsent += 1,
        }
    }
    progress.end();
    (sent, unsent)
}

/// Sleeps as long as that is exact, and spins for the rest.
fn wait_until(due: Instant) {
    const SLEEP_IS_LATE_BY: Duration = Duration::from_micros(80);
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        } else if left > SLEEP_IS_LATE_BY * 2 {
            std::thread::sleep(left - SLEEP_IS_LATE_BY);
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Takes what comes back until `is_over`.
fn listen(socket: &UdpSocket, run: u64, is_over: &AtomicBool) -> Result<(u64, Option<Latency>), String> {
    let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
    let (mut arrivals, mut round_trip_ns) = (Arrivals::new(), histogram_ns()?);
    while !is_over.load(Ordering::Relaxed) {
        let Ok(Some((bytes, _))) = next(socket, &mut buffer, Duration::from_millis(50)) else { continue };
        if let Some((header, _)) = Header::read(&buffer[..bytes])
            && (header.kind, header.run) == (MessageKind::Echo, run)
            && arrivals.note(header.number) == PacketArrival::New
        {
            round_trip_ns.saturating_record(now_ns().saturating_sub(header.sent_ns));
        }
    }
    Ok((arrivals.received, Latency::of(&round_trip_ns)))
}
