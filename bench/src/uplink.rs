//! The way out of a VPC in memory: packets of guests leave by an uplink, and packets of their peers come back by it, each
//! evaluated once by the guest's ENI and translated there, on one core.

use crate::chart::{self, Line};
use crate::fixture::{self, ADMITTED_PORT, FixtureRandom, PAIRS};
use crate::progress::Progress;
use crate::timing::{self, CHUNK_ITEMS, Chunks, Round};
use crate::traffic::frames::{self, FlowStep, FrameEnds};
use crate::traffic::mix::{FlowTransport, Size};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::net::Ipv4Addr;
use vswitch_core::compile::compile;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::{Desired, DesiredPort, DesiredUplink};
use vswitch_core::config::ids::{EniIndex, MacAddress};
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::config::uplink::{DesiredNat, PrivateEnd, UplinkIpv4};
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;
use vswitch_core::ipnet::Ipv4Net;
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Marker, Packet};

/// Options of `sluice bench uplink --flows 8192 --translation source`.
#[derive(Clone, Debug, Args)]
pub struct UplinkArguments {
    /// Connections that exist, each of another private port.
    #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1_500_000))]
    flows: u32,
    /// Bytes of each frame, or IMIX.
    #[arg(long, default_value = "64", value_name = "BYTES|IMIX")]
    size: Size,
    /// The protocol of the connections.
    #[arg(long, value_enum, default_value_t = FlowTransport::Tcp)]
    protocol: FlowTransport,
    /// What becomes of private addresses.
    #[arg(long, value_enum, default_value_t = AddressTranslation::Source)]
    translation: AddressTranslation,
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 100)]
    rules: usize,
    /// Packets to measure, in millions.
    #[arg(long, default_value_t = 8.0)]
    millions: f64,
    /// Also measure the same packets without translation, in alternation.
    #[arg(long)]
    beside_routed: bool,
    #[command(flatten)]
    show: crate::Show,
}

impl UplinkArguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

/// What becomes of private addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AddressTranslation {
    /// Connections share external addresses, each with a port of its own (SNAT).
    Source,
    /// Each ENI has an external address of its own.
    Floating,
    /// Nothing: packets are routed as they are.
    None,
}

/// The result: ns per packet, half of them outward.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct UplinkReport {
    flows: u32,
    size: Size,
    protocol: FlowTransport,
    translation: AddressTranslation,
    rules: usize,
    packets: u64,
    #[serde(flatten)]
    round: Round,
    millions_per_second: f64,
    /// Memory of the mapping of an external port.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_mapping: Option<f64>,
    /// The same packets without translation, in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    routed: Option<Round>,
}

impl crate::Report for UplinkReport {
    fn text(&self) -> String {
        let Self { flows, size, protocol, translation, rules, packets, round, .. } = self;
        let Round { quiet_ns, median_ns, p99_ns, p999_ns, max_ns, .. } = round;
        let memory = self.bytes_per_mapping.map(|bytes| format!("; {bytes:.0} bytes a mapping")).unwrap_or_default();
        let beside = self.routed.as_ref().map(|routed| {
            let (routed_ns, difference_ns) = (routed.quiet_ns, quiet_ns - routed.quiet_ns);
            format!("\nwithout translation {routed_ns:.1} ns when quiet: translation takes {difference_ns:.1} ns")
        });
        format!(
            "{protocol:?} through an uplink, {flows} connections, frames of {size} bytes, translation: {translation:?}, \
             {rules} rules a direction\n\
             {packets} packets, half of them outward, none lost\n\n\
             ns a packet\n\
             quiet     median    p99       p99.9     max\n\
             {quiet_ns:<9.1} {median_ns:<9.1} {p99_ns:<9.1} {p999_ns:<9.1} {max_ns:.1}\n\n\
             {:.1} million packets/s when quiet{memory}{}",
            self.millions_per_second,
            beside.unwrap_or_default()
        )
    }

    fn svg(&self) -> String {
        let title = format!("The way out: {} connections, {} rules", self.flows, self.rules);
        let rounds =
            [("translated", &self.round)].into_iter().chain(self.routed.iter().map(|routed| ("routed", routed)));
        let lines: Vec<Line<'_>> = rounds.map(|(name, round)| Line { name, quantiles: &round.quantiles }).collect();
        chart::of_quantiles(&title, "ns a packet", &lines)
    }
}

/// Runs the measurement.
pub(crate) fn run(arguments: &UplinkArguments) -> Result<UplinkReport, String> {
    let items = timing::items(arguments.millions)?;
    let mut rig = UplinkRig::new(arguments, arguments.translation)?;
    rig.warm_up()?;
    let bytes_per_mapping = rig.bytes_per_mapping();
    let progress = &mut Progress::new("measuring", arguments.show.progress);
    let (round, routed) = if arguments.beside_routed {
        let mut routed = UplinkRig::new(arguments, AddressTranslation::None)?;
        routed.warm_up()?;
        let (round, routed) = timing::in_turn(&mut rig, &mut routed, items, progress)?;
        (round, Some(routed))
    } else {
        (timing::measure(&mut rig, items, progress)?, None)
    };
    Ok(UplinkReport {
        flows: arguments.flows,
        size: arguments.size,
        protocol: arguments.protocol,
        translation: arguments.translation,
        rules: arguments.rules,
        packets: (items.div_ceil(CHUNK_ITEMS) * CHUNK_ITEMS) as u64,
        millions_per_second: 1e3 / round.quiet_ns,
        round,
        bytes_per_mapping,
        routed,
    })
}

const GUESTS: u32 = PAIRS as u32 * 2;
/// The first private port of an ENI's connections.
const FIRST_PORT: u16 = 1024;
/// Connections for each external address, of its 64,512 ports: a block is seldom full before its ENI takes another.
const FLOWS_PER_ADDRESS: u32 = 32_768;
const UPLINK_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0xf, 1]);
const NEXT_HOP_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0xf, 0xfe]);
const GATEWAY_MAC: MacAddress = MacAddress([0xee, 0xff, 0xff, 0xff, 0xff, 0xff]);

/// The external address with this number: of a network for benchmarks (RFC 2544).
fn external(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + number)
}

/// The world of `bench path` with an uplink.
fn desired(arguments: &UplinkArguments, translation: AddressTranslation) -> Desired {
    let mut desired = fixture::desired(arguments.rules, 1);
    let all = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16);
    let addresses = arguments.flows.div_ceil(FLOWS_PER_ADDRESS);
    let floating = |number| {
        let std::net::IpAddr::V4(address) = fixture::address(number, false) else { return None };
        Some((external(number.into()), PrivateEnd { eni: fixture::eni_id(number), address }))
    };
    let nat = match translation {
        AddressTranslation::Source => DesiredNat {
            sources: [(all, (0..addresses).map(external).collect())].into(),
            port_blocks_max: 1000,
            ..DesiredNat::default()
        },
        AddressTranslation::Floating => {
            DesiredNat { floating: (1..=GUESTS as u16).filter_map(floating).collect(), ..DesiredNat::default() }
        }
        AddressTranslation::None => DesiredNat { routes_private: true, ..DesiredNat::default() },
    };
    let uplink = DesiredUplink {
        vpc: "vpc-1".into(),
        mac: UPLINK_MAC,
        next_hop_mac: Some(NEXT_HOP_MAC),
        ipv4: Some(UplinkIpv4 {
            address: Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 1), 24),
            next_hop: Ipv4Addr::new(192, 0, 2, 254),
        }),
        ipv6: None,
        port: DesiredPort::Memory,
        nat,
    };
    desired.uplinks.insert("upl-1".into(), uplink);
    desired
}

/// Which packets of a chunk are written.
#[derive(Clone, Copy)]
enum Order {
    /// One of each connection, in order, in this step.
    InOrder(FlowStep),
    /// Of connections drawn at random: a burst of a guest, then one from outside for any guests.
    Mixed,
}

struct UplinkRig {
    snapshot: Snapshot,
    shard: Shard,
    guests: Vec<EniIndex>,
    uplink: EniIndex,
    size: Size,
    protocol: FlowTransport,
    /// By connection: where its peer answers to.
    outside: Vec<(Ipv4Addr, u16)>,
    packets: Vec<Packet>,
    bursts: Vec<EniIndex>,
    /// By packet: its connection.
    chunk: Vec<usize>,
    order: Order,
    written: usize,
    random: FixtureRandom,
    now: Time,
}

impl UplinkRig {
    fn new(arguments: &UplinkArguments, translation: AddressTranslation) -> Result<Self, String> {
        let snapshot = compile(&desired(arguments, translation), 1).map_err(|refusals| format!("{refusals:?}"))?;
        let index = |id| snapshot.eni_index(&id).ok_or("an interface of the world is missing");
        let guests = (1..=GUESTS as u16).map(|number| index(fixture::eni_id(number))).collect::<Result<_, _>>()?;
        let uplink = index("upl-1".into())?;
        let flows = arguments.flows as usize;
        Ok(Self {
            snapshot,
            shard: Shard::new(flows * 6 / 5 + 1024, [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]),
            guests,
            uplink,
            size: arguments.size,
            protocol: arguments.protocol,
            outside: vec![(Ipv4Addr::UNSPECIFIED, 0); flows],
            packets: (0..CHUNK_ITEMS).map(|_| Packet::new(FrameBuffer::with_capacity(2048))).collect(),
            bursts: Vec::with_capacity(CHUNK_ITEMS / BURST_PACKETS),
            chunk: Vec::with_capacity(CHUNK_ITEMS),
            order: Order::Mixed,
            written: 0,
            random: FixtureRandom::new(1),
            now: Time::from_ns(1_000_000_000),
        })
    }

    /// Opens the connections, and learns where their peers answer to.
    fn warm_up(&mut self) -> Result<(), String> {
        for step in [FlowStep::Open, FlowStep::Answer, FlowStep::FromClient] {
            self.order = Order::InOrder(step);
            self.written = 0;
            while self.written < self.outside.len() {
                self.prepare();
                self.work();
                self.check()?;
                if step == FlowStep::Open {
                    self.learn_outside();
                }
            }
        }
        self.order = Order::Mixed;
        Ok(())
    }

    fn learn_outside(&mut self) {
        for (packet, flow) in self.packets.iter().zip(&self.chunk) {
            let frame = packet.buffer.frame();
            let address: [u8; 4] = std::array::from_fn(|place| frame[26 + place]);
            self.outside[*flow] = (address.into(), u16::from_be_bytes([frame[34], frame[35]]));
        }
    }

    fn bytes_per_mapping(&self) -> Option<f64> {
        let of = |guest: &EniIndex| self.shard.stats(&self.snapshot, *guest).map_or(0, |stats| stats.nat_mappings);
        let mappings: u64 = self.guests.iter().map(of).sum();
        (mappings > 0).then(|| self.shard.nat_memory_bytes() as f64 / mappings as f64)
    }

    /// Writes a packet of a connection.
    fn write(&mut self, place: usize, flow: usize, step: FlowStep) {
        let guest = (flow % GUESTS as usize) as u16 + 1;
        let private = (fixture::address(guest, false), FIRST_PORT + (flow / GUESTS as usize) as u16);
        let peer = (Ipv4Addr::new(203, 0, 113, 1 + (flow / 7 % 200) as u8).into(), ADMITTED_PORT);
        let (macs, ends) = if step.is_from_client() {
            ([GATEWAY_MAC, fixture::mac(guest)], [private, peer])
        } else {
            let (address, port) = self.outside[flow];
            ([UPLINK_MAC, NEXT_HOP_MAC], [peer, (address.into(), port)])
        };
        let frame_bytes = self.size.draw(&mut self.random);
        let packet = &mut self.packets[place];
        packet.marker = Marker::None;
        let frame_ends = FrameEnds { macs, ends };
        frames::write_between(&mut packet.buffer, self.protocol, &frame_ends, step.tcp_flags(), frame_bytes);
        self.chunk.push(flow);
    }

    /// The next connection of a burst, whose guest has this number if only one sends it.
    fn next_flow(&mut self, guest: Option<usize>) -> usize {
        let (flows, guests) = (self.outside.len(), GUESTS as usize);
        match (self.order, guest) {
            (Order::InOrder(_), _) => {
                self.written += 1;
                (self.written - 1) % flows
            }
            (Order::Mixed, Some(guest)) => {
                let turns = (flows - guest).div_ceil(guests);
                self.random.below(turns as u64) as usize * guests + guest
            }
            (Order::Mixed, None) => self.random.below(flows as u64) as usize,
        }
    }
}

impl Chunks for UplinkRig {
    fn prepare(&mut self) {
        self.bursts.clear();
        self.chunk.clear();
        while self.chunk.len() < CHUNK_ITEMS {
            let number = self.bursts.len();
            let step = match self.order {
                Order::InOrder(step) => step,
                Order::Mixed if number.is_multiple_of(2) => FlowStep::FromClient,
                Order::Mixed => FlowStep::FromServer,
            };
            let first = self.chunk.len();
            // Opened one after another, connections are of one guest after another: each is a burst.
            let (length, sender) = match self.order {
                Order::InOrder(_) if step.is_from_client() => (1, None),
                Order::Mixed if step.is_from_client() => {
                    let guests = (GUESTS as usize).min(self.outside.len());
                    (BURST_PACKETS, Some(self.random.below(guests as u64) as usize))
                }
                _ => (BURST_PACKETS, None),
            };
            for place in first..(first + length).min(CHUNK_ITEMS) {
                let flow = self.next_flow(sender);
                self.write(place, flow, step);
            }
            let guest = self.guests[self.chunk[first] % GUESTS as usize];
            self.bursts.push(if step.is_from_client() { guest } else { self.uplink });
        }
    }

    fn work(&mut self) {
        let length = match self.order {
            Order::InOrder(step) if step.is_from_client() => 1,
            _ => BURST_PACKETS,
        };
        for (packets, eni) in self.packets.chunks_mut(length).zip(&self.bursts) {
            self.shard.forward((&self.snapshot, self.now), *eni, packets, |_: EniIndex| true);
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.packets.iter().find(|packet| packet.verdict != Verdict::Deliver) {
            None => Ok(()),
            Some(packet) => {
                Err(format!("a packet ended in {:?} against the plan: nothing was measured", packet.verdict))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(flows: u32, protocol: FlowTransport) -> UplinkArguments {
        UplinkArguments {
            flows,
            size: Size::Imix,
            protocol,
            translation: AddressTranslation::Source,
            rules: 20,
            millions: 0.0,
            beside_routed: false,
            show: crate::Show::default(),
        }
    }

    #[test]
    fn every_packet_passes_and_is_translated_as_asked() {
        use AddressTranslation::{Floating, None, Source};
        for protocol in [FlowTransport::Tcp, FlowTransport::Udp] {
            for (flows, translation) in [(1, Source), (3000, Source), (3000, Floating), (70, None)] {
                let mut rig = UplinkRig::new(&arguments(flows, protocol), translation).expect("the world compiles");
                rig.warm_up().expect("connections open");
                let distinct: std::collections::HashSet<_> = rig.outside.iter().collect();
                assert_eq!(distinct.len(), flows as usize, "{translation:?}");
                let is_external = |(address, _): &(Ipv4Addr, u16)| address.octets()[0] == 198;
                assert_eq!(rig.outside.iter().all(is_external), translation != None);
                assert_eq!(rig.bytes_per_mapping().is_some(), translation == Source);
                for _ in 0..2 {
                    rig.prepare();
                    rig.work();
                    rig.check().expect("every packet passes");
                }
            }
        }
    }
}
