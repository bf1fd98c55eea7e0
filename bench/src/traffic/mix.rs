//! The properties of the traffic: shares, sizes, popularity, protocol. As options, and drawn at random.

use crate::fixture::{CLIENT_ADDRESSES_MAX, FixtureRandom, PAIRS, SERVICES_MAX};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// The properties of the packets.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Mix {
    /// Flows that exist from the beginning.
    #[arg(long, default_value_t = 8192)]
    pub(crate) flows: usize,
    /// Bytes of each frame, or IMIX: of 12 frames 7 of 64, 4 of 590, 1 of 1514 bytes.
    #[arg(long, default_value = "64", value_name = "BYTES|IMIX")]
    pub(crate) size: Size,
    /// Share of packets that open a flow, which then runs its whole life: handshake, data and close with TCP, an answer
    /// with UDP. 1 means first packets only.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) new_share: f64,
    /// Share of packets that the receiver's rules deny, each from another source port.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) denied_share: f64,
    /// How unequal the popularity of flows is: 0 for equal, 1 as for words in a text.
    #[arg(long, default_value_t = 0.0, value_name = "EXPONENT")]
    pub(crate) zipf: f64,
    /// Ports of each server that flows use, one after the other. Decisions for a pair of addresses are cached for a few
    /// of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(SERVICES_MAX)))]
    pub(crate) services: u16,
    /// Addresses of each client that flows use, one after the other. What is the same for all packets between two addresses
    /// is determined once for a burst.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(CLIENT_ADDRESSES_MAX)))]
    pub(crate) addresses: u16,
    /// Pairs of a client and a server that flows are spread over.
    #[arg(long, default_value_t = PAIRS, value_parser = clap::value_parser!(u16).range(1..=i64::from(PAIRS)))]
    pub(crate) pairs: u16,
    /// The protocol of the flows.
    #[arg(long, value_enum, default_value_t = FlowTransport::Tcp)]
    pub(crate) protocol: FlowTransport,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Leave the checksums of all packets to be completed, as kernels do.
    #[arg(long)]
    pub(crate) checksums_undone: bool,
    /// The seed of everything that is random.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Protocols of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FlowTransport {
    /// TCP, with handshakes.
    Tcp,
    /// UDP.
    Udp,
}

impl Mix {
    /// Checks that such a mix is possible.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let life = self.protocol.packets_of_life();
        if self.flows == 0 {
            Err("--flows must be at least 1".into())
        } else if !is_share(self.new_share) || !is_share(self.denied_share) {
            Err("--new-share and --denied-share lie between 0 and 1".into())
        } else if self.new_share < 1.0 && self.new_share * life as f64 + self.denied_share * 2.0 > 1.0 {
            let most = (1.0 - self.denied_share * 2.0).max(0.0) / life as f64;
            Err(format!(
                "--new-share: a flow takes {life} packets, so at most {most:.3} can open one; or 1: first packets alone"
            ))
        } else if self.denied_share > 0.5 || (self.new_share == 1.0 && self.denied_share > 0.0) {
            Err("--denied-share: at most 0.5, since servers send half of the packets; and none where all are first"
                .into())
        } else if !(0.0..=10.0).contains(&self.zipf) {
            Err("--zipf lies between 0 and 10".into())
        } else {
            Ok(())
        }
    }
}

impl FlowTransport {
    /// How many packets a flow has in its whole life.
    pub(crate) const fn packets_of_life(self) -> usize {
        match self {
            Self::Tcp => 6,
            Self::Udp => 2,
        }
    }
}

/// Sizes of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// All of this many bytes, or as long as their headers.
    Bytes(u16),
    /// The "simple IMIX".
    Imix,
}

/// The longest frame without VLAN tag and checksum in an Ethernet network.
const FRAME_BYTES_MAX: u16 = 1514;
const FRAME_BYTES_MIN: u16 = 64;

impl Size {
    pub(crate) fn draw(self, random: &mut FixtureRandom) -> usize {
        match self {
            Self::Bytes(bytes) => usize::from(bytes),
            Self::Imix => match random.below(12) {
                0..7 => 64,
                7..11 => 590,
                _ => 1514,
            },
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::Imix);
        }
        let bytes = text.parse().ok().filter(|bytes| (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(bytes));
        bytes.map(Self::Bytes).ok_or(format!("a frame has {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX} bytes; or IMIX"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(formatter, "{bytes}"),
            Self::Imix => formatter.write_str("IMIX"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How often each of several things is drawn.
pub(crate) enum Popularity {
    /// Of this many, all equally often.
    Equal(u64),
    /// By cumulative weights.
    Weighted(Vec<f64>),
}

impl Popularity {
    /// `count` things, the n-th with weight 1 / n^exponent.
    pub(crate) fn zipf(count: usize, exponent: f64) -> Self {
        if exponent == 0.0 {
            return Self::Equal(count as u64);
        }
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Self::Weighted((1..=count).map(add).collect())
    }

    pub(crate) fn draw(&self, random: &mut FixtureRandom) -> usize {
        match self {
            Self::Equal(count) => random.below(*count) as usize,
            Self::Weighted(sums) => {
                let point = random.unit() * sums.last().copied().unwrap_or(0.0);
                // Rounding can make the point as large as the sum of all weights.
                sums.partition_point(|sum| *sum <= point).min(sums.len() - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_bounded() {
        assert_eq!("imix".parse(), Ok(Size::Imix));
        assert_eq!("590".parse(), Ok(Size::Bytes(590)));
        for text in ["63", "1515", "", "-1", "64.5"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_imix_has_its_shares() {
        let mut random = FixtureRandom::new(3);
        let drawn: Vec<usize> = (0..120_000).map(|_| Size::Imix.draw(&mut random)).collect();
        for (bytes, of_twelve) in [(64, 7), (590, 4), (1514, 1)] {
            let count = drawn.iter().filter(|drawn| **drawn == bytes).count();
            assert!(count.abs_diff(of_twelve * 10_000) < 600, "{count} of {bytes} bytes");
        }
    }

    #[test]
    fn the_first_of_a_zipf_mix_are_drawn_by_their_rank() {
        let mut random = FixtureRandom::new(4);
        let popularity = Popularity::zipf(1000, 1.0);
        let mut counts = vec![0u32; 1000];
        (0..200_000).for_each(|_| counts[popularity.draw(&mut random)] += 1);
        for (one, other) in [(0, 1), (1, 3), (3, 7)] {
            let ratio = f64::from(counts[one]) / f64::from(counts[other]);
            assert!((1.8..2.2).contains(&ratio), "{one} to {other}: {ratio}");
        }
        assert!(counts[999] > 0);
    }
}
