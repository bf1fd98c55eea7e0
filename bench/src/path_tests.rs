use super::*;
use crate::traffic::mix::Size;
use vswitch_core::packet::headers::{self, tcp_flags};

fn mix() -> Mix {
    Mix {
        flows: 2048,
        size: Size::Bytes(64),
        new_share: 0.0,
        denied_share: 0.0,
        zipf: 0.0,
        services: 1,
        addresses: 1,
        pairs: PAIRS,
        protocol: FlowTransport::Tcp,
        ipv6: false,
        checksums_undone: false,
        seed: 7,
    }
}

/// Runs chunks of a mix. Returns how many packets opened a flow, by their flags or by ports not used before, and how
/// many should be denied.
fn chunks_of(mix: &Mix, count: usize) -> (usize, u64) {
    mix.check().expect("there is such a mix");
    let mut desired = fixture::desired(20, 1);
    fixture::give_addresses(&mut desired, mix.addresses);
    let snapshot = compile(&desired, 1).expect("the world compiles");
    let mut rig = PathRig::in_world(snapshot, mix, (count * CHUNK_ITEMS / BURST_PACKETS) as f64);
    rig.warm_up().expect("what exists can be brought about");
    rig.denied = 0;
    let mut opened = 0;
    for _ in 0..count {
        rig.prepare();
        opened += rig.packets.iter().filter(|packet| opens(packet.buffer.frame())).count();
        rig.work();
        rig.check().expect("every packet ends as planned");
    }
    (opened, rig.denied)
}

fn opens(frame: &[u8]) -> bool {
    let headers = headers::parse::parse(frame).expect("frames are sound");
    headers.tcp_flags == tcp_flags::SYN && headers.tuple.destination_port == 443
}

fn assert_share(count: usize, packets: usize, share: f64) {
    let found = count as f64 / packets as f64;
    assert!((found - share).abs() < 0.01, "{found} instead of {share}");
}

#[test]
fn every_packet_of_every_mix_ends_as_planned() {
    let (tcp, udp) = (FlowTransport::Tcp, FlowTransport::Udp);
    for (protocol, new_share, denied_share, zipf) in
        [(tcp, 0.1, 0.15, 0.0), (tcp, 0.05, 0.0, 1.0), (udp, 0.3, 0.1, 0.0), (udp, 0.0, 0.5, 1.0), (tcp, 1.0, 0.0, 0.0)]
    {
        for (ipv6, addresses, pairs) in [(false, 1, PAIRS), (true, 1, PAIRS), (false, 128, 3), (true, 40, 3)] {
            let mix = Mix { protocol, new_share, denied_share, zipf, ipv6, addresses, pairs, ..mix() };
            chunks_of(&Mix { services: 7, size: Size::Imix, ..mix }, 6);
        }
    }
}

#[test]
fn the_mix_has_the_shares_asked_for() {
    const COUNT: usize = 8;
    let packets = COUNT * CHUNK_ITEMS;
    for (new_share, denied_share) in [(0.0, 0.0), (0.05, 0.0), (0.0, 0.3), (0.1, 0.2), (0.16, 0.01), (1.0, 0.0)] {
        let (opened, denied) = chunks_of(&Mix { new_share, denied_share, ..mix() }, COUNT);
        assert_share(opened, packets, new_share);
        assert_share(denied as usize, packets, denied_share);
    }
}

#[test]
fn mixes_that_cannot_be_are_refused() {
    for (new_share, denied_share) in [(0.2, 0.0), (-0.1, 0.0), (0.1, 0.3), (1.0, 0.1), (0.0, 0.6), (f64::NAN, 0.0)] {
        assert!(Mix { new_share, denied_share, ..mix() }.check().is_err(), "{new_share} {denied_share}");
    }
    assert!(Mix { new_share: 0.2, protocol: FlowTransport::Udp, ..mix() }.check().is_ok());
    assert!(Mix { flows: 0, ..mix() }.check().is_err());
}

#[test]
fn the_same_seed_makes_the_same_frames_and_another_makes_others() {
    let snapshot = || compile(&fixture::desired(20, 1), 1).expect("the world compiles");
    let frames = |seed| {
        let mix = Mix { seed, new_share: 0.1, ..mix() };
        PathRig::in_world(snapshot(), &mix, 256.0).first_frames(&mix)
    };
    assert_eq!(frames(1), frames(1));
    assert_ne!(frames(1), frames(2));
}
