//! The ports of an external address when somebody wants all of them.

use super::nat::{Kind, PEER, UPLINK, nat, packet};
use super::*;
use harness::world::packet_of;
use std::net::Ipv4Addr;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::uplink::DesiredNat;
use vswitch_core::datapath::shard::Shard;
use vswitch_core::packet::verdict::Verdict;

/// A million connections within a minute, each of another port or to another peer; a neighbour opens one every 60 ms.
#[test]
fn a_flood_of_connections_takes_no_port_from_neighbors() {
    const FLOWS: u32 = 1_000_000;
    const BURST: u32 = 32;
    const BETWEEN_NEIGHBORS: u32 = FLOWS / 1000 / BURST * BURST;
    let mut world = World::with_shards(lab().uplink(UPLINK, "vpc-1", nat()), 2, 1 << 16);
    world.change_eni("client", |eni| eni.sessions_max = 1 << 14);
    let client = world.index("client");
    let (own, shards) = (world.shard_of(client), world.shards.len());
    let (mut left, mut refused, mut neighbors) = (0, 0, 0);
    for first in (0..FLOWS).step_by(BURST as usize) {
        let peer = Ipv4Addr::from_bits(Ipv4Addr::new(198, 51, 100, 0).to_bits() + first / 60_000).to_string();
        let mut frame = world.frame_from("client", &packet(Kind::Udp, (CLIENT, 0), (&peer, 53), false));
        // Only the port differs, and nobody sums these packets.
        let mut flow = |number: u32| {
            frame[34..36].copy_from_slice(&(1024 + (number % 60_000) as u16).to_be_bytes());
            packet_of(&frame)
        };
        let mut burst: Vec<_> = (first..first + BURST).map(&mut flow).collect();
        world.shards[own]
            .forward((&world.snapshot, world.now), client, &mut burst, |to: EniIndex| to.0 as usize % shards == own);
        for packet in &mut burst {
            world.ingress(packet);
            match packet.verdict {
                Verdict::Deliver => left += 1,
                Verdict::Drop(DropReason::NatPortsExhausted) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        world.now = world.now + u64::from(BURST) * 60_000;
        if first % BETWEEN_NEIGHBORS == 0 {
            let sent = packet(Kind::Udp, (WEB, 1024 + neighbors), (PEER, 53), false);
            assert_eq!(world.send("web", &sent), delivered(UPLINK), "connection {neighbors} of the neighbour");
            neighbors += 1;
        }
        if first % (BETWEEN_NEIGHBORS * 16) == 0 {
            world.sweep_all();
        }
    }
    assert_eq!((left + refused, neighbors >= 1000, refused > FLOWS / 2), (FLOWS, true, true));
    let mappings = |id: &str| {
        let of_shard =
            |shard: &Shard| shard.stats(&world.snapshot, world.index(id)).map_or(0, |stats| stats.nat_mappings);
        world.shards.iter().map(of_shard).sum::<u64>()
    };
    assert_eq!(mappings("client"), u64::from(DesiredNat::PORT_BLOCKS_MAX_DEFAULT) * 64, "as many as its blocks have");
    assert_eq!(mappings("web"), u64::from(neighbors));
}
