//! Translation at an uplink. What comes out is compared byte for byte with the same packet built for the other ends, so that
//! every checksum is, in the packet and in what it quotes.

use super::*;
use harness::frame::{TcpFlags, protocol};
use harness::frame::{arp, assert_checksums};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use vswitch_core::config::desired::PortRange;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::uplink::{DesiredNat, NatFiltering, PortForward, PrivateEnd};
use vswitch_core::packet::FrameBuffer;
use vswitch_core::packet::offload::{Offload, PartialChecksum};

pub(super) const UPLINK: &str = "upl";
/// The external addresses: of connections, of the forward, and the floating one of `far`.
const POOL: &str = "203.0.113.1";
const FORWARDED: &str = "203.0.113.2";
const FLOATING: &str = "203.0.113.3";
/// Somebody outside.
pub(super) const PEER: &str = "198.51.100.7";
const OTHER_PEER: &str = "198.51.100.8";

type End = (&'static str, u16);

pub(super) fn nat() -> DesiredNat {
    let end = |eni: &str, address: &str| PrivateEnd { eni: eni.into(), address: address.parse().expect("an address") };
    let external = |text: &str| text.parse().expect("an address");
    let forward = |protocol, port, to: PrivateEnd| PortForward {
        external: external(FORWARDED),
        protocol,
        ports: PortRange { first: 8080, last: 8089 },
        to,
        port,
    };
    DesiredNat {
        sources: [("10.0.0.0/16".parse().expect("a prefix"), [external(POOL)].into())].into(),
        floating: [(external(FLOATING), end("far", FAR))].into(),
        forwards: vec![forward(6, 80, end("web", WEB)), forward(17, 80, end("web", WEB))],
        ..DesiredNat::default()
    }
}

/// The lab with an uplink. Everybody may be talked to at port 80 and pinged.
fn lab_with(nat: DesiredNat) -> World {
    lab_on(1, nat)
}

/// The same on several workers, so that ENIs and their uplink belong to different ones.
fn lab_on(shards: usize, nat: DesiredNat) -> World {
    let mut world = World::with_shards(lab().uplink(UPLINK, "vpc-1", nat), shards, 1024);
    let udp = accept_in("udp", "0.0.0.0/0").udp(80);
    let rules = [accept_in("tcp", "0.0.0.0/0").tcp(80), udp, accept_in("ping", "0.0.0.0/0").protocol(protocol::ICMP)];
    world.set_rules("sg-web", &rules);
    world.set_rules("sg-client", &rules);
    world
}

/// A packet of a connection: its opener's, or an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Ping,
}

const KINDS: [Kind; 3] = [Kind::Tcp, Kind::Udp, Kind::Ping];

/// A packet from one end to another; of a ping the opener's port is the identifier, whoever sends it.
pub(super) fn packet(
    kind: Kind,
    (source, source_port): (&str, u16),
    (destination, port): (&str, u16),
    is_answer: bool,
) -> Ip {
    let ip = Ip::new(source, destination);
    match (kind, is_answer) {
        (Kind::Tcp, false) => ip.tcp(source_port, port, TcpFlags::SYN),
        (Kind::Tcp, true) => ip.tcp(source_port, port, TcpFlags::SYN | TcpFlags::ACK),
        (Kind::Udp, _) => ip.udp(source_port, port),
        (Kind::Ping, false) => ip.ping(source_port),
        (Kind::Ping, true) => ip.pong(port),
    }
}

/// How a connection is translated: whose it is, its end inside and outside, and its peer.
#[derive(Clone, Copy, Debug)]
struct Translated {
    eni: &'static str,
    inside: End,
    outside: End,
    peer: End,
    is_opened_inside: bool,
}

impl Translated {
    /// The packet that leaves, as its guest sends it and as it is outside.
    fn out(&self, kind: Kind) -> [Ip; 2] {
        [self.inside, self.outside].map(|end| packet(kind, end, self.peer, !self.is_opened_inside))
    }

    /// The packet that comes in, as it is outside and as its guest gets it.
    fn back(&self, kind: Kind) -> [Ip; 2] {
        [self.outside, self.inside].map(|end| packet(kind, self.peer, end, self.is_opened_inside))
    }
}

/// Sends a packet and returns what comes out, without its Ethernet header.
fn send(world: &mut World, from: &str, packet: &Ip, to: &str) -> Vec<u8> {
    let (fate, frame) = world.send_frame(from, &world.frame_from(from, packet));
    assert_eq!(fate, delivered(to), "{packet:?}");
    frame[14..].to_vec()
}

/// Bytes of a packet one hop later.
fn later(packet: Ip) -> Vec<u8> {
    let hop_limit = packet.hop_limit - 1;
    packet.hop_limit(hop_limit).bytes()
}

/// The port that an IPv4 packet without options was sent from, or its ICMP identifier.
fn source_port(packet: &[u8]) -> u16 {
    let at = if packet[9] == protocol::ICMP { 24 } else { 20 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// A connection of each kind of translation, established.
fn connections(kind: Kind, shards: usize) -> Vec<(World, Translated)> {
    let mut world = lab_on(shards, nat());
    let (inside, peer) = ((CLIENT, 40_000), (PEER, 443));
    let sent = send(&mut world, "client", &packet(kind, inside, peer, false), UPLINK);
    let outside = (POOL, source_port(&sent));
    let of_source = Translated { eni: "client", inside, outside, peer, is_opened_inside: true };
    assert_eq!(sent, later(of_source.out(kind)[1].clone()));
    let mut all = vec![(world, of_source)];
    let floating = |is_opened_inside| {
        let ports = if is_opened_inside || kind == Kind::Ping { (40_000, 443) } else { (80, 40_000) };
        let (inside, outside) = ((FAR, ports.0), (FLOATING, ports.0));
        Translated { eni: "far", inside, outside, peer: (PEER, ports.1), is_opened_inside }
    };
    let forwarded = Translated {
        eni: "web",
        inside: (WEB, 82),
        outside: (FORWARDED, 8082),
        peer: (PEER, 40_000),
        is_opened_inside: false,
    };
    for translated in [floating(true), floating(false), forwarded] {
        if kind == Kind::Ping && translated.eni == "web" {
            continue;
        }
        let mut world = lab_on(shards, nat());
        world.set_rules("sg-web", &[accept_in("all", "0.0.0.0/0")]);
        if translated.is_opened_inside {
            let [sent, outside] = translated.out(kind);
            assert_eq!(send(&mut world, translated.eni, &sent, UPLINK), later(outside));
        } else {
            let [sent, inside] = translated.back(kind);
            assert_eq!(send(&mut world, UPLINK, &sent, translated.eni), later(inside));
        }
        all.push((world, translated));
    }
    all
}

/// For each protocol and each kind of translation, with everything on one worker, and on different ones.
fn for_each(check: impl Fn(&mut World, Translated, Kind)) {
    for (kind, shards) in KINDS.into_iter().flat_map(|kind| [(kind, 1), (kind, 2), (kind, 5)]) {
        for (mut world, translated) in connections(kind, shards) {
            check(&mut world, translated, kind);
        }
    }
}

#[test]
fn both_directions_of_a_connection_are_translated() {
    for_each(|world, translated, kind| {
        for _ in 0..2 {
            let [sent, inside] = translated.back(kind);
            assert_eq!(send(world, UPLINK, &sent, translated.eni), later(inside), "{translated:?} {kind:?}");
            let [sent, outside] = translated.out(kind);
            assert_eq!(send(world, translated.eni, &sent, UPLINK), later(outside), "{translated:?} {kind:?}");
        }
        let flows = world.flows(translated.eni);
        assert_eq!(flows.len(), 1, "the session has the private and the real remote address: {flows:?}");
        let ends = [flows[0].source.to_string(), flows[0].destination.to_string()];
        assert!(ends.contains(&translated.inside.0.into()) && ends.contains(&translated.peer.0.into()), "{ends:?}");
    });
}

/// An ICMP error with a quote of so many bytes of what follows the IP header.
fn error(from: &str, to: &str, (kind, code, rest): (u8, u8, [u8; 4]), about: &Ip, bytes: usize) -> Ip {
    let quote = about.bytes();
    let header = quote.len() - about.payload.len();
    Ip::new(from, to).icmp(kind, code, rest, &quote[..quote.len().min(header + bytes)])
}

const TIME_EXCEEDED: (u8, u8, [u8; 4]) = (11, 0, [0; 4]);
const FRAGMENTATION_NEEDED: (u8, u8, [u8; 4]) = (3, 4, [0, 0, 5, 0]);
const PORT_UNREACHABLE: (u8, u8, [u8; 4]) = (3, 3, [0; 4]);

#[test]
fn reports_of_routers_reach_who_sent_what_they_quote() {
    const ROUTER: &str = "198.51.100.99";
    for_each(|world, translated, kind| {
        for what in [TIME_EXCEEDED, FRAGMENTATION_NEEDED] {
            for (bytes, options) in [(8, [].as_slice()), (64, &[]), (8, &[148, 4, 0, 0]), (64, &[148, 4, 0, 0])] {
                let quoted = translated.out(kind).map(|packet| packet.options(options).hop_limit(3));
                let sent = error(ROUTER, translated.outside.0, what, &quoted[1], bytes);
                let expected = error(ROUTER, translated.inside.0, what, &quoted[0], bytes);
                assert_eq!(
                    send(world, UPLINK, &sent, translated.eni),
                    later(expected),
                    "{translated:?} {kind:?} {bytes}"
                );
            }
        }
    });
}

#[test]
fn reports_of_guests_quote_what_was_sent_to_them() {
    for_each(|world, translated, kind| {
        let [sent, got] = translated.back(kind);
        send(world, UPLINK, &sent, translated.eni);
        let own = error(translated.inside.0, PEER, PORT_UNREACHABLE, &got, 8);
        let expected = error(translated.outside.0, PEER, PORT_UNREACHABLE, &sent, 8);
        assert_eq!(send(world, translated.eni, &own, UPLINK), later(expected), "{translated:?} {kind:?}");
    });
}

/// A packet in two parts, the second of 8 bytes.
fn parts(whole: &Ip, id: u32) -> [Ip; 2] {
    let (first, rest) = whole.payload.split_at(whole.payload.len() - 8);
    let part = |payload: &[u8], at, more| whole.clone().raw(whole.protocol, payload).part(id, at, more);
    [part(first, 0, true), part(rest, first.len() as u16, false)]
}

/// Sends the parts of a packet, and returns what comes out at `to`, also of those that waited.
fn send_parts<'a>(world: &mut World, from: &str, parts: impl Iterator<Item = &'a Ip>, to: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for part in parts {
        match world.send_frame(from, &world.frame_from(from, part)) {
            (Fate::Waiting, _) => {}
            (fate, frame) => {
                assert_eq!(fate, delivered(to), "{part:?}");
                found.push(frame[14..].to_vec());
            }
        }
    }
    for (_, fate, frame) in world.release() {
        assert_eq!(fate, delivered(to));
        found.push(frame[14..].to_vec());
    }
    found
}

#[test]
fn fragments_follow_their_first_both_ways_and_in_any_order() {
    for_each(|world, translated, kind| {
        let eni = translated.eni;
        let [sent, outside] = translated.out(kind).map(|whole| parts(&whole, 1));
        assert_eq!(send_parts(world, eni, sent.iter(), UPLINK), outside.map(later), "{translated:?} {kind:?} out");
        let [sent, inside] = translated.back(kind).map(|whole| parts(&whole, 2));
        assert_eq!(send_parts(world, UPLINK, sent.iter(), eni), inside.map(later), "{translated:?} {kind:?} in");
        let [sent, outside] = translated.out(kind).map(|whole| parts(&whole, 3));
        assert_eq!(send_parts(world, eni, sent.iter().rev(), UPLINK), outside.map(later), "out, last part first");
        let [sent, inside] = translated.back(kind).map(|whole| parts(&whole, 4));
        assert_eq!(send_parts(world, UPLINK, sent.iter().rev(), eni), inside.map(later), "in, last part first");
    });
}

#[test]
fn the_last_hop_is_reported_with_the_addresses_that_its_sender_knows() {
    for_each(|world, translated, kind| {
        let quoted = |frame: &[u8]| frame[14 + 28..].to_vec();
        let sent = translated.out(kind)[0].clone().hop_limit(1);
        let (fate, frame) = world.send_frame(translated.eni, &world.frame_from(translated.eni, &sent));
        assert_eq!((fate, quoted(&frame)), (Fate::Answered, sent.bytes()), "{translated:?} {kind:?}");
        let sent = translated.back(kind)[0].clone().hop_limit(1);
        let (fate, frame) = world.send_frame(UPLINK, &world.frame_from(UPLINK, &sent));
        assert_eq!((fate, quoted(&frame)), (Fate::Answered, sent.bytes()), "{translated:?} {kind:?}");
        assert_eq!(frame[26..30], [192, 0, 2, 1], "the router is known there by its address there");
    });
}

#[test]
fn a_connection_to_an_external_address_of_the_own_vpc_comes_back_in() {
    for (kind, shards) in [(Kind::Tcp, 1), (Kind::Udp, 2), (Kind::Tcp, 5)] {
        for (external, port, eni, inside) in [(FORWARDED, 8080, "web", (WEB, 80)), (FLOATING, 80, "far", (FAR, 80))] {
            let mut world = lab_on(shards, nat());
            let sent = packet(kind, (CLIENT, 40_000), (external, port), false);
            let got = send(&mut world, "client", &sent, eni);
            let seen = (POOL, source_port(&got));
            assert_eq!(got, later(packet(kind, seen, inside, false)), "the peer has its external address");
            let answer = packet(kind, inside, seen, true);
            let got = send(&mut world, eni, &answer, "client");
            assert_eq!(got, later(packet(kind, (external, port), (CLIENT, 40_000), true)));
            // An error about a packet that was translated twice.
            let about = packet(kind, seen, inside, false);
            let own = error(inside.0, POOL, PORT_UNREACHABLE, &about, 8);
            let got = send(&mut world, eni, &own, "client");
            assert_eq!(got, later(error(external, CLIENT, PORT_UNREACHABLE, &sent, 8)));
        }
    }
    let mut world = lab_with(nat());
    let nowhere = Ip::new(CLIENT, FORWARDED).udp(40_000, 9999);
    assert_eq!(world.send("client", &nowhere), stopped("client", DropReason::NatUnmapped));
}

/// RFC 4787 REQ-9: a guest reaches the mapping of another, and of its own, whomever the owner has talked to; rules decide.
#[test]
fn guests_reach_each_other_s_mappings() {
    // Also where the external address is one that never leaves: an uplink's own may be link-local.
    for external in [POOL, "169.254.64.2"] {
        let addresses = [external.parse().expect("an address")].into();
        let sources = [("10.0.0.0/16".parse().expect("a prefix"), addresses)].into();
        let mut world = lab_on(2, DesiredNat { sources, ..DesiredNat::default() });
        let mapped = packet(Kind::Udp, (CLIENT, 80), (PEER, 53), false);
        let port = source_port(&send(&mut world, "client", &mapped, UPLINK));
        for (eni, address) in [("web", WEB), ("client", CLIENT)] {
            let got = send(&mut world, eni, &packet(Kind::Udp, (address, 5000), (external, port), false), "client");
            let seen = (external, source_port(&got));
            assert_eq!(got, later(packet(Kind::Udp, seen, (CLIENT, 80), false)));
            let got = send(&mut world, "client", &packet(Kind::Udp, (CLIENT, 80), seen, true), eni);
            assert_eq!(got, later(packet(Kind::Udp, (external, port), (address, 5000), true)));
        }
        world.set_rules("sg-client", &[]);
        let another = packet(Kind::Udp, (WEB, 5001), (external, port), false);
        assert_eq!(world.send("web", &another), refused("client", DropReason::DefaultDrop));
    }
}

#[test]
fn a_mapping_is_the_same_for_all_peers_and_only_those_talked_to_use_it() {
    let mut world = lab_with(nat());
    let sent = |peer| packet(Kind::Udp, (CLIENT, 5000), (peer, 53), false);
    let port = source_port(&send(&mut world, "client", &sent(PEER), UPLINK));
    let answer = |peer, from| packet(Kind::Udp, (peer, from), (POOL, port), true);
    assert_eq!(world.send(UPLINK, &answer(OTHER_PEER, 53)), refused("client", DropReason::NatUnsolicited));
    assert_eq!(world.send(UPLINK, &answer(PEER, 54)), refused("client", DropReason::NatUnsolicited), "another port");
    assert_eq!(world.send(UPLINK, &answer(PEER, 53)), delivered("client"));
    assert_eq!(source_port(&send(&mut world, "client", &sent(OTHER_PEER), UPLINK)), port);
    assert_eq!(world.send(UPLINK, &answer(OTHER_PEER, 53)), delivered("client"));
    // With the other filter the rules of ingress decide.
    let mut world = lab_with(DesiredNat { filtering: NatFiltering::Endpoint, ..nat() });
    let sent = packet(Kind::Udp, (CLIENT, 80), (PEER, 53), false);
    let port = source_port(&send(&mut world, "client", &sent, UPLINK));
    let stranger = packet(Kind::Udp, (OTHER_PEER, 99), (POOL, port), true);
    assert_eq!(world.send(UPLINK, &stranger), delivered("client"));
    world.set_rules("sg-client", &[]);
    let another = packet(Kind::Udp, (OTHER_PEER, 98), (POOL, port), true);
    assert_eq!(world.send(UPLINK, &another), refused("client", DropReason::DefaultDrop));
}

#[test]
fn an_eni_uses_up_its_own_blocks_and_nobody_else_s() {
    let mut world = lab_with(DesiredNat { port_blocks_max: 2, ..nat() });
    let sent = |from, port| packet(Kind::Udp, (from, port), (PEER, 53), false);
    let mut ports = BTreeSet::new();
    for port in 1..=128 {
        ports.insert(source_port(&send(&mut world, "client", &sent(CLIENT, port), UPLINK)));
    }
    assert_eq!((ports.len(), ports.first().is_some_and(|port| *port >= 1024)), (128, true));
    let exhausted = stopped("client", DropReason::NatPortsExhausted);
    for port in 129..200 {
        assert_eq!(world.send("client", &sent(CLIENT, port)), exhausted);
    }
    assert_eq!(world.send("client", &sent(CLIENT, 1)), delivered(UPLINK), "what has a port keeps it");
    let other = source_port(&send(&mut world, "web", &sent(WEB, 1), UPLINK));
    assert!(!ports.contains(&other));
    // Mappings of UDP last two minutes at least, whatever the session does.
    world.wait_s(119);
    world.sweep_all();
    assert_eq!(world.send("client", &sent(CLIENT, 300)), exhausted);
    world.wait_s(3);
    world.sweep_all();
    assert_eq!(world.send("client", &sent(CLIENT, 300)), delivered(UPLINK));
}

#[test]
fn what_has_no_end_on_the_other_side_goes_nowhere() {
    let mut world = lab_with(nat());
    let unmapped = |from| stopped(from, DropReason::NatUnmapped);
    assert_eq!(world.send(UPLINK, &Ip::new(PEER, POOL).udp(53, 5000)), unmapped(UPLINK));
    assert_eq!(world.send(UPLINK, &Ip::new(PEER, FORWARDED).udp(53, 79)), unmapped(UPLINK));
    assert_eq!(world.send(UPLINK, &Ip::new(PEER, CLIENT).udp(53, 80)), stopped(UPLINK, DropReason::NoRoute));
    assert_eq!(world.send("client", &Ip::new(CLIENT, PEER).gre()), unmapped("client"), "it has no ports");
    let of_floating = Ip::new(FAR, PEER).gre();
    assert_eq!(send(&mut world, "far", &of_floating, UPLINK), later(Ip::new(FLOATING, PEER).gre()));
    for source in [CLIENT, POOL, FLOATING] {
        let forged = Ip::new(source, FLOATING).udp(5, 80);
        assert_eq!(world.send(UPLINK, &forged), stopped(UPLINK, DropReason::SourceInside), "{source}");
    }
    for nearby in ["169.254.7.7", "127.0.0.1", "0.1.2.3", "250.1.2.3"] {
        assert_eq!(world.send("client", &Ip::new(CLIENT, nearby).udp(5, 6)), Fate::Answered, "{nearby} is not outside");
    }
    // Without an external address nothing leaves, and its sender hears so.
    let mut world = lab_with(DesiredNat::default());
    assert_eq!(world.send("client", &Ip::new(CLIENT, PEER).udp(5, 6)), Fate::Answered);
}

#[test]
fn an_uplink_without_translation_routes() {
    let mut world = lab_with(DesiredNat { routes_private: true, ..DesiredNat::default() });
    let sent = Ip::new(CLIENT, PEER).udp(5000, 53);
    assert_eq!(send(&mut world, "client", &sent, UPLINK), later(sent));
    let answer = Ip::new(PEER, CLIENT).udp(53, 5000);
    assert_eq!(send(&mut world, UPLINK, &answer, "client"), later(answer));
    // IPv6 is routed whatever IPv4 does.
    let mut world = lab_with(nat());
    let (peer, sent) = ("2001:db8:ffff::7", Ip::new(CLIENT_V6, "2001:db8:ffff::7").udp(5000, 53));
    assert_eq!(send(&mut world, "client", &sent, UPLINK), later(sent));
    let answer = Ip::new(peer, CLIENT_V6).udp(53, 5000);
    assert_eq!(send(&mut world, UPLINK, &answer, "client"), later(answer));
    assert_eq!(
        world.send(UPLINK, &Ip::new(peer, FAR_V6).tcp(5, 22, TcpFlags::SYN)),
        refused("far", DropReason::DefaultDrop)
    );
}

#[test]
fn a_change_of_addresses_ends_what_depended_on_the_old_ones() {
    let mut world = lab_with(nat());
    let sent = packet(Kind::Udp, (CLIENT, 5000), (PEER, 53), false);
    let port = source_port(&send(&mut world, "client", &sent, UPLINK));
    let change = |world: &mut World, edit: fn(&mut DesiredNat)| {
        world.change(|desired| edit(&mut desired.uplinks.get_mut(&UPLINK.into()).expect("it is there").nat));
    };
    // What does not concern it leaves it alone.
    change(&mut world, |nat| nat.floating.clear());
    assert_eq!(source_port(&send(&mut world, "client", &sent, UPLINK)), port);
    let answer = packet(Kind::Udp, (PEER, 53), (POOL, port), true);
    assert_eq!(world.send(UPLINK, &answer), delivered("client"));
    change(&mut world, |nat| {
        nat.sources.values_mut().for_each(|addresses| *addresses = [FLOATING.parse().expect("an address")].into());
    });
    assert_eq!(world.send(UPLINK, &answer), stopped(UPLINK, DropReason::NoRoute), "the address is nobody's");
    let got = send(&mut world, "client", &sent, UPLINK);
    assert_eq!(got, later(packet(Kind::Udp, (FLOATING, source_port(&got)), (PEER, 53), false)));
    world.change(|desired| desired.uplinks.clear());
    assert_eq!(world.send("client", &sent), Fate::Answered, "there is no way out");
}

/// Port blocks end with their address: what an ENI had of it is not a block of an address that is there anew.
#[test]
fn an_address_that_went_and_came_back_works_anew() {
    let mut world = lab_with(nat());
    let sent = packet(Kind::Udp, (CLIENT, 5000), (PEER, 53), false);
    send(&mut world, "client", &sent, UPLINK);
    let uplinks = world.desired.uplinks.clone();
    world.change(|desired| desired.uplinks.clear());
    world.change(|desired| desired.uplinks = uplinks);
    for _ in 0..2 {
        let got = send(&mut world, "client", &sent, UPLINK);
        let answer = packet(Kind::Udp, (PEER, 53), (POOL, source_port(&got)), true);
        assert_eq!(world.send(UPLINK, &answer), delivered("client"));
    }
}

#[test]
fn explain_follows_a_packet_by_its_external_ends() {
    use vswitch_core::config::protocol::PacketDescription;
    use vswitch_core::packet::verdict::Verdict;
    let mut world = lab_with(nat());
    world.set_rules("sg-web", &[accept_in("pool", "203.0.113.1/32").tcp(80)]);
    let explain = |world: &World, at: &str, direction, source: &str, (destination, port): End| {
        let [source, destination] = [source, destination].map(|text| text.parse().expect("an address"));
        let (from, to, protocol) = (None, None, 6);
        let packet =
            PacketDescription { from, to, protocol, source, destination, source_port: 40_000, destination_port: port };
        let shard = &world.shards[0];
        shard.explain(&world.snapshot, (world.index(at), direction), &packet, world.now).expect("it can be explained").1
    };
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let (web, uplink) = (Verdict::Forward(world.index("web")), Verdict::Forward(world.index(UPLINK)));
    assert_eq!(explain(&world, "client", egress, CLIENT, (PEER, 443)), uplink);
    assert_eq!(explain(&world, UPLINK, ingress, CLIENT, (PEER, 443)), Verdict::Deliver);
    assert_eq!(explain(&world, "client", egress, CLIENT, (FORWARDED, 8080)), web, "hairpin");
    assert_eq!(explain(&world, "web", ingress, CLIENT, (FORWARDED, 8080)), Verdict::Deliver, "as its external source");
    assert_eq!(explain(&world, UPLINK, egress, PEER, (FORWARDED, 8080)), web);
    let refusal = Verdict::Drop(DropReason::DefaultDrop);
    assert_eq!(explain(&world, "web", ingress, PEER, (FORWARDED, 8080)), refusal);
    let unmapped = Verdict::Drop(DropReason::NatUnmapped);
    assert_eq!(explain(&world, UPLINK, egress, PEER, (FORWARDED, 9)), unmapped);
    assert_eq!(explain(&world, "client", egress, CLIENT, (FORWARDED, 9)), unmapped);
    let sent = packet(Kind::Tcp, (CLIENT, 40_000), (FORWARDED, 8080), false);
    assert_eq!(world.send("client", &sent), delivered("web"), "as explained");
}

#[test]
fn rules_see_the_guest_and_its_real_peer() {
    let mut world = lab_with(nat());
    world.set_rules("sg-web", &[accept_in("one", "198.51.100.7/32").tcp(80)]);
    let syn = |peer| packet(Kind::Tcp, (peer, 40_000), (FORWARDED, 8080), false);
    assert_eq!(world.send(UPLINK, &syn(OTHER_PEER)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send(UPLINK, &syn(PEER)), delivered("web"));
    let data = Ip::new(PEER, FORWARDED).tcp(40_000, 8080, TcpFlags::ACK);
    assert_eq!(world.send(UPLINK, &data), delivered("web"));
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send(UPLINK, &data), refused("web", DropReason::DefaultDrop), "what is revoked ends at once");
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

#[test]
fn the_router_answers_outside_for_what_it_stands_for() {
    let mut world = lab_with(nat());
    let (station, router) = (MacAddress([2, 0, 0, 0, 0xf, 0x77]), world.gateway_mac(UPLINK));
    let question = |target| arp(true, (station, address("192.0.2.9")), (MacAddress::default(), address(target)));
    for target in ["192.0.2.1", POOL, FORWARDED, FLOATING] {
        let (fate, answer) = world.send_frame(UPLINK, &question(target));
        assert_eq!(fate, Fate::Answered, "{target}");
        assert_eq!(answer, arp(false, (router, address(target)), (station, address("192.0.2.9"))));
    }
    for target in ["192.0.2.2", CLIENT, PEER] {
        let (fate, _) = world.send_frame(UPLINK, &question(target));
        assert_eq!(fate, stopped(UPLINK, DropReason::NoRoute), "{target}");
    }
    let ping = Ip::new(PEER, "192.0.2.1").ping(7).frame(station, router);
    let (fate, answer) = world.send_frame(UPLINK, &ping);
    assert_eq!((fate, &answer[..12]), (Fate::Answered, [station.0, router.0].concat().as_slice()));
    assert_checksums(&answer);
    let solicited = |target: &str| {
        let target = target.parse().expect("an IPv6 address");
        Ip::new("2001:db8:f::9", "ff02::1:ff00:1").solicit(target, station).frame(station, router)
    };
    for target in ["2001:db8:f::1", CLIENT_V6] {
        assert_eq!(world.send_frame(UPLINK, &solicited(target)).0, Fate::Answered, "{target}");
    }
    let (fate, _) = world.send_frame(UPLINK, &solicited("fd00:0:0:1::99"));
    assert_eq!(fate, stopped(UPLINK, DropReason::NoRoute));
    let foreign = Ip::new(PEER, FLOATING).udp(5, 80).frame(station, MacAddress([2, 0, 0, 0, 0, 0x99]));
    assert_eq!(world.send_frame(UPLINK, &foreign).0, stopped(UPLINK, DropReason::DestinationMacForeign));
}

#[test]
fn the_next_hop_is_asked_for_and_only_its_answer_is_believed() {
    let mut world = lab_with(nat());
    world.change(|desired| desired.uplinks.get_mut(&UPLINK.into()).expect("it is there").next_hop_mac = None);
    let router = world.gateway_mac(UPLINK);
    let (next_hop, liar) = (MacAddress([2, 0, 0, 0, 0xf, 0x11]), MacAddress([2, 0, 0, 0, 0xf, 0x66]));
    let (own, hop) = (address("192.0.2.1"), address("192.0.2.254"));
    let answer = |mac| arp(false, (mac, hop), (router, own));
    let sent = Ip::new(CLIENT, PEER).udp(5000, 53);
    let unresolved = refused(UPLINK, DropReason::NextHopUnresolved);
    let ask = |world: &mut World| {
        let (mut buffer, index) = (FrameBuffer::with_capacity(2048), world.index(UPLINK));
        let is_due = world.shards[0].ask_next_hop(&world.snapshot, index, &mut buffer, world.now);
        is_due.then(|| buffer.frame().to_vec())
    };
    world.send_frame(UPLINK, &answer(liar));
    assert_eq!(world.send("client", &sent), unresolved, "nobody asked yet");
    assert_eq!(ask(&mut world), Some(arp(true, (router, own), (MacAddress::default(), hop))));
    let solicitation = ask(&mut world).expect("the next hop of IPv6");
    assert_checksums(&solicitation);
    assert_eq!((&solicitation[..6], ask(&mut world)), ([0x33, 0x33, 0xff, 0, 0, 0xfe].as_slice(), None));
    world.send_frame(UPLINK, &answer(next_hop));
    world.send_frame(UPLINK, &answer(liar));
    let (fate, frame) = world.send_frame("client", &world.frame_from("client", &sent));
    assert_eq!((fate, &frame[..12]), (delivered(UPLINK), [next_hop.0, router.0].concat().as_slice()));
    world.wait_s(31);
    assert!(ask(&mut world).is_some(), "it is asked again before the answer is too old");
    assert_eq!(world.send("client", &sent), delivered(UPLINK));
    world.wait_s(120);
    assert_eq!(world.send("client", &sent), unresolved);
}

/// A guest leaves a checksum undone: what stands there is the sum of the pseudo-header, which has the addresses.
#[test]
fn an_undone_checksum_is_right_once_it_is_done() {
    for kind in [Kind::Tcp, Kind::Udp] {
        let mut world = lab_with(nat());
        let whole = packet(kind, (CLIENT, 40_000), (PEER, 443), false);
        let mut frame = world.frame_from("client", &whole);
        let (at, number) = if kind == Kind::Tcp { (34 + 16, 6) } else { (34 + 6, 17) };
        let words = [CLIENT, PEER].map(|text| u32::from(address(text)));
        let sum = words.iter().map(|word| (word >> 16) + (word & 0xffff)).sum::<u32>();
        let sum = sum + number + whole.payload.len() as u32;
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[at..at + 2].copy_from_slice(&(((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        let undone = PartialChecksum { start: 34, offset: at as u16 - 34 };
        let (fate, mut got) =
            world.send_claiming("client", &frame, Offload { checksum: Some(undone), ..Offload::NONE });
        assert_eq!(fate, delivered(UPLINK));
        got.complete_checksum();
        let got = &got.buffer.frame()[14..];
        assert_eq!(got, later(packet(kind, (POOL, source_port(got)), (PEER, 443), false)), "{kind:?}");
    }
    // A datagram without a checksum keeps having none.
    let mut world = lab_with(nat());
    let mut sent = packet(Kind::Udp, (CLIENT, 40_000), (PEER, 443), false);
    sent.payload[6..8].copy_from_slice(&[0, 0]);
    let got = send(&mut world, "client", &sent, UPLINK);
    assert_eq!(got[26..28], [0, 0]);
}
