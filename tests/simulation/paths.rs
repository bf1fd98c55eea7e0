//! More pairs of addresses than a worker remembers the paths of, mixed within every burst: each packet ends as if it came
//! alone, whatever path took another's place, and whichever receivers are in another shard.

use harness::frame::Ip;
use harness::random::Random;
use harness::world::{Build, Refine, World, accept_in, packet_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::Desired;
use vswitch_core::config::ids::{EniId, EniIndex};
use vswitch_core::config::limits::{BURST_PACKETS, PATHS_CACHED_MAX};
use vswitch_core::packet::Packet;
use vswitch_core::packet::verdict::Verdict;

const SENDER: &str = "sender";
const RECEIVERS: [&str; 3] = ["one", "two", "three"];
/// Of each family.
const ADDRESSES_OF_SENDER: usize = 64;
const ADDRESSES_OF_RECEIVER: usize = 24;
const PAIRS: usize = ADDRESSES_OF_SENDER * ADDRESSES_OF_RECEIVER * RECEIVERS.len();
const BURSTS: usize = 1500;

const _: () = assert!(PAIRS > 2 * PATHS_CACHED_MAX);

fn address(eni: usize, number: usize, is_v6: bool) -> IpAddr {
    if is_v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, eni as u16 + 1, number as u16).into()
    } else {
        Ipv4Addr::new(10, 0, eni as u8 + 1, number as u8).into()
    }
}

fn world() -> World {
    let rules = [accept_in("v4", "10.0.0.0/17").udp(80), accept_in("v6", "fd00::/16").udp(80)];
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/16", "fd00:0:0:1::/64")
        .closed_group("sg-1", "vpc-1", &rules)
        .eni(SENDER, "vsw-1", &[], &["sg-1"]);
    for id in RECEIVERS {
        desired = desired.eni(id, "vsw-1", &[], &["sg-1"]);
    }
    for (eni, id) in [SENDER].into_iter().chain(RECEIVERS).enumerate() {
        let count = if id == SENDER { ADDRESSES_OF_SENDER } else { ADDRESSES_OF_RECEIVER };
        let addresses = (1..=count).flat_map(|number| [false, true].map(|is_v6| address(eni, number, is_v6).into()));
        desired.enis.get_mut(&EniId::from(id)).expect("an ENI").addresses = addresses.collect();
    }
    World::with_shards(desired, 1, 1 << 16)
}

/// Packets that the sender sends, some of them to a port that the receivers refuse.
fn burst(world: &World, random: &mut Random) -> Vec<Packet> {
    let one = |_| {
        let (receiver, is_v6) = (1 + random.below(RECEIVERS.len()), random.chance(30));
        let source = address(0, 1 + random.below(ADDRESSES_OF_SENDER), is_v6);
        let destination = address(receiver, 1 + random.below(ADDRESSES_OF_RECEIVER), is_v6);
        let port = if random.chance(10) { 81 } else { 80 };
        packet_of(&world.frame_from(SENDER, &Ip::between(source, destination).udp(40_000, port)))
    };
    (0..BURST_PACKETS).map(one).collect()
}

#[test]
fn paths_take_the_places_of_others_and_no_packet_is_misled() {
    let mut random = Random::new(7);
    let (mut together, mut apart) = (world(), world());
    let receivers = RECEIVERS.map(|id| together.index(id));
    let sender = together.index(SENDER);
    for number in 0..BURSTS {
        // Few bursts in a row have the same receivers in this shard.
        let here: Vec<EniIndex> = receivers.into_iter().filter(|_| random.chance(80)).collect();
        let mut found = burst(&together, &mut random);
        let mut expected: Vec<Packet> = found.iter().map(|packet| packet_of(packet.buffer.frame())).collect();
        let World { shards, snapshot, now, .. } = &mut together;
        shards[0].forward((snapshot, *now), sender, &mut found, |to: EniIndex| here.contains(&to));
        let World { shards, snapshot, now, .. } = &mut apart;
        for packet in &mut expected {
            let alone = std::slice::from_mut(packet);
            shards[0].egress(snapshot, sender, alone, *now);
            if matches!(alone[0].verdict, Verdict::Forward(to) if here.contains(&to)) {
                shards[0].ingress(snapshot, alone, *now);
            }
        }
        for (place, (one, other)) in found.iter().zip(&expected).enumerate() {
            let (found, expected) = ((one.verdict, one.buffer.frame()), (other.verdict, other.buffer.frame()));
            assert_eq!(found, expected, "packet {place} of burst {number}");
        }
    }
    assert_eq!(together.stats(), apart.stats());
}
