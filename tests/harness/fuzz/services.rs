//! What guests ask of the services: whatever they send, a reply is a whole frame from the router, for the guest alone.

use crate::frame::{Ip, assert_checksums};
use crate::world::{Build, World};
use std::net::IpAddr;
use vswitch::services::respond;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::dhcp::DhcpOptionsSet;
use vswitch_core::packet::headers::parse::parse;

/// The longest reply, bytes: a frame of the MTU that every port has room for.
const REPLY_BYTES_MAX: usize = 14 + 1500;

fn world(dhcp: DhcpOptionsSet) -> World {
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .open_group("sg-1", "vpc-1", &[])
        .eni("eni-a", "vsw-1", &["10.0.0.10", "fd00:0:0:1::10", "fd00:0:0:1:8000::/80"], &["sg-1"]);
    desired.vpcs.get_mut(&"vpc-1".into()).expect("just added").dhcp = dhcp;
    World::new(desired)
}

/// A set with something of everything.
fn full_set() -> DhcpOptionsSet {
    DhcpOptionsSet {
        name_servers: ["100.100.2.136", "fd00::53"].map(|text| text.parse().expect("an address")).to_vec(),
        domain_name: Some("lab.example.com".into()),
        ntp_servers: vec![[10, 0, 0, 9].into()],
        boot_file: Some("boot.img".into()),
        tftp_server: Some("tftp.example.com".into()),
        ..DhcpOptionsSet::default()
    }
}

fn ask(world: &World, request: &Ip) {
    let network = world.snapshot.guest_network(world.index("eni-a")).expect("it is there");
    let Ok(reply) = respond(&network, &world.frame_from("eni-a", request)) else { return };
    assert!(reply.len() <= REPLY_BYTES_MAX, "{} bytes", reply.len());
    assert_eq!(reply[6..12], world.gateway_mac("eni-a").0, "from the router");
    assert!(reply[..6] == world.mac("eni-a").0 || reply[0] & 1 == 1, "to the guest, or to all on its link");
    let headers = parse(&reply).expect("a whole frame");
    assert_eq!(headers.end as usize, reply.len());
    assert_checksums(&reply);
}

/// A datagram with a payload.
fn datagram(ends: (&str, &str), ports: (u16, u16), payload: &[u8]) -> Ip {
    let mut request = Ip::new(ends.0, ends.1).udp(ports.0, ports.1);
    request.payload.extend_from_slice(payload);
    let length = (request.payload.len() as u16).to_be_bytes();
    request.payload[4..6].copy_from_slice(&length);
    request
}

/// The payload of a message to a DHCP server. A message that names this client has its hardware address in it, so that
/// nearly all of them get as far as to be answered.
pub fn dhcp(bytes: &[u8]) {
    const HARDWARE_ADDRESS: std::ops::Range<usize> = 28..34;
    let world = world(full_set());
    let mut payload = bytes[..bytes.len().min(1400)].to_vec();
    if let Some(address) = payload.get_mut(HARDWARE_ADDRESS) {
        address.copy_from_slice(&world.mac("eni-a").0);
    }
    ask(&world, &datagram(("0.0.0.0", "255.255.255.255"), (68, 67), &payload));
}

/// The payload of a message to a DHCPv6 server.
pub fn dhcpv6(bytes: &[u8]) {
    let payload = &bytes[..bytes.len().min(1400)];
    ask(&world(full_set()), &datagram(("fe80::1", "ff02::1:2"), (546, 547), payload));
}

/// A router solicitation, and the options set of the VPC: whatever it says, options are whole and end with the frame.
pub fn ra(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let (servers, rest) = rest.split_at(rest.len().min(usize::from(count % 9) * 16));
    let name_servers = servers.as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets)).collect();
    let domain_name = std::str::from_utf8(rest).ok().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let set = DhcpOptionsSet { name_servers, domain_name, ..full_set() };
    if set.fault().is_some() {
        return;
    }
    let world = world(set);
    let solicitation = Ip::new("fe80::1", "ff02::2").hop_limit(255).icmp(133, 0, [0; 4], &[]);
    ask(&world, &solicitation);
    let network = world.snapshot.guest_network(world.index("eni-a")).expect("it is there");
    let reply = respond(&network, &world.frame_from("eni-a", &solicitation)).expect("it is answered");
    let mut options = &reply[14 + 40 + 16..];
    while let [_, units, ..] = *options {
        assert!(units > 0, "an option has a length");
        options = options.get(usize::from(units) * 8..).expect("options are whole");
    }
    assert!(options.is_empty());
}
