//! Packets between two ends that a user controls: namespaces, guests, hosts. UDP with numbers and timestamps, at a
//! bounded rate.
//!
//! Nothing but a greeting is sent to an address at which no receiver answers, so this cannot be used against others.

pub(crate) mod arrivals;
pub mod receive;
pub mod send;
#[cfg(test)]
mod tests;

use crate::chart::Quantiles;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The default port of receivers.
pub(crate) const PORT: u16 = 7979;
/// The length of the header that every message has, and so of the shortest packet.
pub(crate) const HEADER_BYTES: usize = 40;
/// The longest payload of UDP over IPv4, rounded down.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 65_000;
const MAGIC: [u8; 4] = *b"SLB1";

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// The sender wants to begin. A [`Greeting`] follows.
    Hello = 1,
    /// The receiver is ready. A [`Greeting`] follows.
    Welcome = 2,
    /// One packet of the run; padding follows.
    Data = 3,
    /// A packet that was sent back.
    Echo = 4,
    /// The sender has sent this many packets.
    End = 5,
    /// The receiver's results. A [`Findings`] follows.
    Findings = 6,
}

/// The first bytes of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: MessageKind,
    /// The run it belongs to, a random number chosen by the sender.
    pub(crate) run: u64,
    /// The packet's place in the run, from 0.
    pub(crate) number: u64,
    /// When the sender sent it, by its monotonic clock, ns.
    pub(crate) sent_ns: u64,
    /// In an echo: how many packets the receiver has received.
    pub(crate) received: u64,
}

impl Header {
    /// Writes it to the beginning of a message.
    pub(crate) fn write(&self, message: &mut [u8; HEADER_BYTES]) {
        message[..4].copy_from_slice(&MAGIC);
        message[4..8].copy_from_slice(&(self.kind as u32).to_be_bytes());
        for (place, value) in [self.run, self.number, self.sent_ns, self.received].into_iter().enumerate() {
            message[8 + place * 8..16 + place * 8].copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Parses it, and returns what follows; `None` for a message of another protocol.
    pub(crate) fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = message.split_first_chunk::<HEADER_BYTES>()?;
        let number_at = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let kinds = [
            MessageKind::Hello,
            MessageKind::Welcome,
            MessageKind::Data,
            MessageKind::Echo,
            MessageKind::End,
            MessageKind::Findings,
        ];
        let kind = kinds.into_iter().find(|kind| header[4..8] == (*kind as u32).to_be_bytes())?;
        if header[..4] != MAGIC {
            return None;
        }
        let (run, number) = (number_at(8)?, number_at(16)?);
        Some((Self { kind, run, number, sent_ns: number_at(24)?, received: number_at(32)? }, rest))
    }

    /// The whole message with a body of JSON.
    pub(crate) fn with_body(&self, body: &impl Serialize) -> Vec<u8> {
        let mut message = [0; HEADER_BYTES];
        self.write(&mut message);
        let mut message = message.to_vec();
        message.extend(serde_json::to_vec(body).unwrap_or_default());
        message
    }
}

/// What the ends tell each other before a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// Identifies the kernel whose clock it uses, if known.
    pub(crate) clock: Option<String>,
    /// Whether packets should be sent back.
    pub(crate) echo: bool,
}

impl Greeting {
    pub(crate) fn new(echo: bool) -> Self {
        let clock = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self { clock: clock.map(|id| id.trim().into()), echo }
    }

    /// Whether both ends use the same clock, so that one-way times can be measured.
    pub(crate) fn has_same_clock(&self, other: &Self) -> bool {
        self.clock.is_some() && self.clock == other.clock
    }
}

/// The receiver's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// Packets that arrived after one that was sent later.
    pub(crate) reordered: u64,
    pub(crate) payload_bytes: u64,
    /// From the first packet to the last.
    pub(crate) seconds: f64,
    /// One-way times, if both ends use the same clock.
    pub(crate) one_way: Option<Latency>,
}

/// Latencies, µs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) min_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) quantiles: Quantiles,
}

impl Latency {
    /// The latencies in a histogram of ns; `None` if it is empty.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let min_us = histogram.min() as f64 / 1e3;
        let quantiles = Quantiles::of(histogram, 1e-3);
        (!histogram.is_empty()).then(|| Self {
            min_us,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
            quantiles,
        })
    }

    /// A row of a table with the columns [`Latency::HEADINGS`].
    pub(crate) fn text(&self, name: &str) -> String {
        let Self { min_us, p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        format!("{name:<14} {min_us:<9.1} {p50_us:<9.1} {p90_us:<9.1} {p99_us:<9.1} {p999_us:<9.1} {max_us:.1}")
    }

    pub(crate) const HEADINGS: &str = "µs             min       median    p90       p99       p99.9     max";
}

/// A histogram of ns up to a minute.
pub(crate) fn histogram_ns() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string())
}

/// The monotonic clock of this kernel, ns, which all its processes and network namespaces share.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
