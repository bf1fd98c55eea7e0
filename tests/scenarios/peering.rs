//! VPCs whose subnets reach each other.

use super::*;
use harness::frame::TcpFlags;
use harness::world::prefix_of;

/// Two VPCs whose subnets are peers of each other.
fn peered() -> World {
    let mut desired = lab()
        .vpc("vpc-3")
        .vswitch("vsw-4", "vpc-3", "172.16.0.0/24", "fd00:0:0:9::/64")
        .closed_group("sg-peer", "vpc-3", &http())
        .eni("peer", "vsw-4", &[PEER, "fd00:0:0:9::10"], &["sg-peer"]);
    for (vpc, other, blocks) in
        [("vpc-1", "vpc-3", ["172.16.0.0/24", "fd00:0:0:9::/64"]), ("vpc-3", "vpc-1", ["10.0.0.0/16", "fd00::/61"])]
    {
        let peers = blocks.map(|block| (prefix_of(block), other.into()));
        desired.vpcs.get_mut(&vpc.into()).expect("it is there").peers = peers.into();
    }
    World::new(desired)
}

const PEER: &str = "172.16.0.10";

#[test]
fn peers_reach_each_other_as_the_rules_of_both_say() {
    let mut world = peered();
    for (from, to) in [(CLIENT, PEER), (CLIENT_V6, "fd00:0:0:9::10")] {
        assert_eq!(world.send("client", &Ip::new(from, to).tcp(40_000, 80, TcpFlags::SYN)), delivered("peer"));
        let answer = TcpFlags::SYN | TcpFlags::ACK;
        assert_eq!(world.send("peer", &Ip::new(to, from).tcp(80, 40_000, answer)), delivered("client"));
        assert_eq!(world.send("client", &Ip::new(from, to).tcp(40_000, 80, TcpFlags::ACK)), delivered("peer"));
        let other = Ip::new(from, to).tcp(40_000, 22, TcpFlags::SYN);
        assert_eq!(world.send("client", &other), refused("peer", DropReason::DefaultDrop));
    }
    assert_eq!((world.flows("client").len(), world.flows("peer").len()), (4, 2), "port 22 left, and got nowhere");
    // A hop is a hop, an address that nobody has is nobody's, and nobody sends from a peer's.
    let last = Ip::new(CLIENT, PEER).tcp(40_001, 80, TcpFlags::SYN).hop_limit(1);
    assert_eq!(world.send("client", &last), Fate::Answered);
    assert_eq!(world.send("client", &Ip::new(CLIENT, "172.16.0.99").udp(5, 6)), Fate::Answered);
    let forged = Ip::new(PEER, WEB).udp(5, 6);
    assert_eq!(world.send("client", &forged), stopped("client", DropReason::SourceAddressSpoofed));
    // What is revoked ends, and so does everything without the peering.
    world.set_rules("sg-peer", &[]);
    let data = Ip::new(CLIENT, PEER).tcp(40_000, 80, TcpFlags::ACK);
    assert_eq!(world.send("client", &data), refused("peer", DropReason::DefaultDrop));
    world.change(|desired| desired.vpcs.values_mut().for_each(|vpc| vpc.peers.clear()));
    assert_eq!(world.send("client", &data), Fate::Answered);
}
