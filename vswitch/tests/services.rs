//! What guests are told about their network: requests through a worker and back, and every reply byte for byte.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[path = "services/client.rs"]
mod client;
#[path = "services/golden.rs"]
mod golden;
#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod guests;

use client::{Client4, Client6, GATEWAY, GATEWAY_LINK_LOCAL, MAC, OWN, OWN_V6, router_solicitation};
use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode};
use dhcproto::v6;
use guests::world::GuestWorld;
use guests::{desired, eni};
use std::net::Ipv4Addr;
use vswitch::services::Services;
use vswitch::services::thread::ServiceTurn;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::limits::{SERVICE_REQUESTS_MAX, SERVICE_REQUESTS_PER_S};

const SECOND_NS: u64 = 1_000_000_000;

/// Two guests with addresses of both families in one subnet.
fn network() -> Desired {
    let mut state = desired(2);
    let vswitch = state.vswitches.get_mut(&"vsw-1".into()).unwrap();
    vswitch.ipv6 = "fd00:0:0:1::/64".parse().ok();
    vswitch.ipv6_gateway = "fd00:0:0:1::1".parse().ok();
    for (number, eni) in (1..).zip(state.enis.values_mut()) {
        eni.addresses.push(format!("fd00:0:0:1::{number}0/128").parse().unwrap());
    }
    let vpc = state.vpcs.get_mut(&"vpc-1".into()).unwrap();
    vpc.dhcp.name_servers =
        ["100.100.2.136", "100.100.2.138", "fd00:0:0:1::53"].map(|text| text.parse().unwrap()).to_vec();
    vpc.dhcp.domain_name = Some("lab.example.com".into());
    state
}

struct ServedWorld {
    world: GuestWorld,
    services: Services,
}

impl ServedWorld {
    fn new(workers: usize, state: Desired) -> Self {
        let mut world = GuestWorld::new(workers, 256);
        world.apply(state, 1);
        let services = world.switch.services(7);
        Self { world, services }
    }

    /// What guest 1 gets for a frame that it sends.
    fn ask(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        assert!(self.world.guest(1).inject(frame));
        self.turn();
        self.world.guest(1).collect()
    }

    fn turn(&mut self) {
        self.world.turn(3);
        self.services.turn(self.world.now);
        self.world.turn(3);
    }

    fn ask4(&mut self, client: &Client4) -> Option<v4::Message> {
        let frame = self.ask(&client.frame())?;
        Some(client::read4(&frame))
    }

    fn ask6(&mut self, client: &Client6) -> Option<v6::Message> {
        let frame = self.ask(&client.frame())?;
        Some(client::read6(&frame))
    }
}

fn kind(message: &v4::Message) -> MessageType {
    let Some(DhcpOption::MessageType(kind)) = message.opts().get(OptionCode::MessageType) else {
        panic!("a reply has a type")
    };
    *kind
}

#[test]
fn a_guest_gets_its_address_and_what_it_asks_for_whichever_worker_has_it() {
    for workers in [1, 2] {
        let mut served = ServedWorld::new(workers, network());
        let free = served.world.free_buffers();
        let offer = served.ask4(&Client4::new(MessageType::Discover)).unwrap();
        assert_eq!((kind(&offer), offer.yiaddr()), (MessageType::Offer, OWN));
        assert_eq!(offer.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(GATEWAY)));
        let ack = served.ask4(&Client4::new(MessageType::Request).selecting(OWN)).unwrap();
        assert_eq!((kind(&ack), ack.yiaddr()), (MessageType::Ack, OWN));
        let told = |code| ack.opts().get(code);
        assert_eq!(told(OptionCode::SubnetMask), Some(&DhcpOption::SubnetMask([255, 255, 255, 0].into())));
        assert_eq!(told(OptionCode::Router), Some(&DhcpOption::Router(vec![GATEWAY])));
        assert_eq!(told(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(86_400)));
        assert_eq!(told(OptionCode::Hostname), Some(&DhcpOption::Hostname("eni-1".into())));
        assert_eq!(told(OptionCode::DomainName), Some(&DhcpOption::DomainName("lab.example.com".into())));
        assert_eq!(told(OptionCode::InterfaceMtu), Some(&DhcpOption::InterfaceMtu(9000)));
        let servers = vec![[100, 100, 2, 136].into(), [100, 100, 2, 138].into()];
        assert_eq!(told(OptionCode::DomainNameServer), Some(&DhcpOption::DomainNameServer(servers)));
        assert_eq!(served.world.stats(1).egress.answered, 2);
        assert_eq!(served.world.free_buffers(), free);
    }
}

#[test]
fn a_wrong_address_is_refused_at_once_where_the_client_hears_it_and_never_on_discovery() {
    let mut served = ServedWorld::new(1, network());
    let wrong: Ipv4Addr = [10, 9, 9, 9].into();
    let request = || Client4::new(MessageType::Request);
    let refused = [
        request().selecting(wrong),
        // After a reboot, without a discovery.
        request().remembering(wrong),
        // On renewal, from an address that is not its own any more.
        request().renewing(wrong),
        request().renewing(wrong).broadcasting(),
    ];
    for client in refused {
        let frame = served.ask(&client.frame()).unwrap();
        assert_eq!((&frame[..6], &frame[30..34]), ([0xff; 6].as_slice(), [0xff; 4].as_slice()), "to all");
        let reply = client::read4(&frame);
        assert_eq!((kind(&reply), reply.yiaddr()), (MessageType::Nak, Ipv4Addr::UNSPECIFIED));
        served.world.now = served.world.now + SECOND_NS;
    }
    let discover = Client4::new(MessageType::Discover).wishing(wrong);
    assert_eq!(kind(&served.ask4(&discover).unwrap()), MessageType::Offer);
    for client in [request().remembering(OWN), request().renewing(OWN), request().renewing(OWN).broadcasting()] {
        assert_eq!(kind(&served.ask4(&client).unwrap()), MessageType::Ack);
    }
}

#[test]
fn a_reply_goes_where_the_client_can_hear_it() {
    let mut served = ServedWorld::new(1, network());
    let mut destination = |client: Client4| {
        let frame = served.ask(&client.frame()).unwrap();
        served.world.now = served.world.now + SECOND_NS;
        let port = u16::from_be_bytes([frame[36], frame[37]]);
        (frame[..6] == [0xff; 6], Ipv4Addr::from_octets(frame[30..34].try_into().unwrap()), port)
    };
    let discover = || Client4::new(MessageType::Discover);
    assert_eq!(destination(discover()), (false, OWN, 68));
    assert_eq!(destination(discover().broadcast()), (true, Ipv4Addr::BROADCAST, 68));
    assert_eq!(destination(Client4::new(MessageType::Request).renewing(OWN)), (false, OWN, 68));
    assert_eq!(destination(discover().relayed(OWN)), (false, OWN, 67));
    assert_eq!(destination(Client4::new(MessageType::Inform).renewing(OWN)), (false, OWN, 68));
}

#[test]
fn a_reply_has_what_was_asked_for_as_far_as_there_is_room() {
    let mut state = network();
    let dhcp = &mut state.vpcs.get_mut(&"vpc-1".into()).unwrap().dhcp;
    dhcp.boot_file = Some("b".repeat(200));
    dhcp.tftp_server = Some("t".repeat(100));
    dhcp.ntp_servers = vec![[10, 0, 0, 9].into()];
    let mut served = ServedWorld::new(1, state);
    let codes = |reply: &v4::Message| -> Vec<u8> { reply.opts().iter().map(|(code, _)| u8::from(*code)).collect() };
    let discover = || Client4::new(MessageType::Discover);
    let told = codes(&served.ask4(&discover().asking(&[])).unwrap());
    assert_eq!(told, [1, 3, 6, 51, 53, 54], "who asks for nothing gets what no guest can do without");
    let told = codes(&served.ask4(&discover().asking(&[42, 200, 3])).unwrap());
    assert_eq!(told, [3, 42, 51, 53, 54]);
    let all = [1, 3, 6, 12, 15, 26, 42, 58, 59, 66, 67, 119, 121];
    let short = served.ask(&discover().asking(&all).frame()).unwrap();
    assert!(short.len() <= 14 + 576);
    let told = codes(&client::read4(&short));
    assert!(told.contains(&121) && told.contains(&66) && !told.contains(&67), "{told:?}");
    let long = served.ask4(&discover().asking(&all).taking(1400)).unwrap();
    assert_eq!(codes(&long), [1, 3, 6, 12, 15, 26, 42, 51, 53, 54, 58, 59, 66, 67, 119, 121]);
    let least = served.ask(&discover().asking(&[]).frame()).unwrap();
    assert_eq!(least.len(), 14 + 28 + 300, "no shorter than BOOTP was");
}

#[test]
fn what_came_with_a_request_comes_back_with_its_reply() {
    let mut served = ServedWorld::new(1, network());
    let id = DhcpOption::ClientIdentifier(vec![255, 1, 2, 3, 4]);
    for client in
        [Client4::new(MessageType::Discover), Client4::new(MessageType::Request).selecting([1, 1, 1, 1].into())]
    {
        let reply = served.ask4(&client.relayed(OWN).with(id.clone())).unwrap();
        assert_eq!(reply.opts().get(OptionCode::ClientIdentifier), Some(&id));
        assert_eq!((reply.giaddr(), reply.xid(), reply.chaddr()), (OWN, client::TRANSACTION, MAC.as_slice()));
    }
}

#[test]
fn what_asks_for_nothing_or_another_is_not_answered_and_counted() {
    let mut served = ServedWorld::new(1, network());
    let other: Ipv4Addr = [10, 0, 0, 200].into();
    let request = |kind| Client4::new(kind);
    let unserved = [
        request(MessageType::Release).renewing(OWN),
        request(MessageType::Decline).wishing(OWN),
        request(MessageType::Request).selecting(OWN).of_server(other),
        request(MessageType::Offer),
        request(MessageType::LeaseQuery),
        request(MessageType::Discover).of_hardware([2, 0, 0, 0, 0, 9]),
    ];
    for (count, client) in (1..).zip(unserved) {
        assert!(served.ask4(&client).is_none());
        assert_eq!(served.world.drops(1, "dhcp-unserved"), count);
        served.world.now = served.world.now + SECOND_NS;
    }
    let mut no_magic = request(MessageType::Discover).frame();
    no_magic[14 + 28 + 236] ^= 1;
    assert!(served.ask(&no_magic).is_none());
    let cut = client::udp4(&[0; 30]);
    assert!(served.ask(&cut).is_none());
    assert_eq!(served.world.drops(1, "dhcp-malformed"), 2);
}

#[test]
fn an_eni_asks_eight_times_a_second_and_no_more_wait_than_there_is_room_for() {
    let mut served = ServedWorld::new(1, network());
    let frame = Client4::new(MessageType::Discover).frame();
    for _ in 0..SERVICE_REQUESTS_PER_S + 3 {
        served.world.guest(1).inject(&frame);
    }
    served.turn();
    assert_eq!(served.world.guest(1).waiting(), SERVICE_REQUESTS_PER_S as usize);
    assert_eq!(served.world.drops(1, "service-rate"), 3);
    for _ in 0..SERVICE_REQUESTS_MAX.div_ceil(8) + 1 {
        served.world.now = served.world.now + 2 * SECOND_NS;
        (0..8).for_each(|_| assert!(served.world.guest(1).inject(&frame)));
        served.world.turn(3);
    }
    assert_eq!(served.world.drops(1, "service-full"), 8);
    let stats = served.world.stats(1);
    assert_eq!(stats.egress.answered, u64::from(SERVICE_REQUESTS_PER_S), "what waits is not counted yet");
}

#[test]
fn a_reply_for_an_eni_that_is_gone_ends_and_its_buffer_comes_back() {
    let mut served = ServedWorld::new(1, network());
    served.world.guest(1).inject(&Client4::new(MessageType::Discover).frame());
    served.world.turn(3);
    let mut without = network();
    without.enis.remove(&eni(1));
    served.world.apply(without, 2);
    served.world.apply(network(), 3);
    served.turn();
    assert_eq!(served.world.guest(1).waiting(), 0, "another ENI has the number");
    for round in 0..2 * SERVICE_REQUESTS_MAX {
        served.world.now = served.world.now + SECOND_NS;
        assert!(served.ask4(&Client4::new(MessageType::Discover)).is_some(), "round {round}");
    }
}

#[test]
fn a_router_solicitation_is_answered_and_advertisements_come_unasked() {
    let mut served = ServedWorld::new(1, network());
    let asked = served.ask(&router_solicitation()).unwrap();
    assert_eq!(asked[22..38], GATEWAY_LINK_LOCAL.octets());
    assert_eq!((asked[54], asked[59]), (134, 0xc0), "addresses and all else come by DHCP");
    for _ in 0..300 {
        served.world.now = served.world.now + SECOND_NS;
        served.turn();
    }
    let unasked: Vec<_> = std::iter::from_fn(|| served.world.guest(1).collect()).collect();
    assert!((1..=2).contains(&unasked.len()), "{} in 300 s", unasked.len());
    assert!(unasked.iter().all(|frame| *frame == asked));
    let mut without = network();
    without.enis.values_mut().for_each(|eni| eni.addresses.truncate(1));
    served.world.apply(without, 2);
    assert!(served.ask(&router_solicitation()).is_none());
}

#[test]
fn a_guest_gets_its_ipv6_address_in_four_messages_or_two() {
    let mut served = ServedWorld::new(1, network());
    let address = |message: &v6::Message| {
        let Some(v6::DhcpOption::IANA(association)) = message.opts().get(v6::OptionCode::IANA) else { return None };
        match association.opts.get(v6::OptionCode::IAAddr) {
            Some(v6::DhcpOption::IAAddr(leased)) => Some((leased.addr, leased.valid_life)),
            _ => None,
        }
    };
    let advertise = served.ask6(&Client6::new(v6::MessageType::Solicit).with_association(&[])).unwrap();
    assert_eq!((advertise.msg_type(), address(&advertise)), (v6::MessageType::Advertise, Some((OWN_V6, 86_400))));
    let server = advertise.opts().get(v6::OptionCode::ServerId).unwrap().clone();
    for kind in [v6::MessageType::Request, v6::MessageType::Renew] {
        let client = Client6::new(kind).with_association(&[OWN_V6]).with(server.clone());
        let reply = served.ask6(&client).unwrap();
        assert_eq!((reply.msg_type(), address(&reply)), (v6::MessageType::Reply, Some((OWN_V6, 86_400))));
    }
    let rapid = Client6::new(v6::MessageType::Solicit).with_association(&[]).with(v6::DhcpOption::RapidCommit);
    let reply = served.ask6(&rapid).unwrap();
    assert_eq!((reply.msg_type(), address(&reply)), (v6::MessageType::Reply, Some((OWN_V6, 86_400))));
    assert!(reply.opts().get(v6::OptionCode::RapidCommit).is_some());
    served.world.now = served.world.now + SECOND_NS;
    let stale = Client6::new(v6::MessageType::Rebind).with_association(&["fd00::9".parse().unwrap()]);
    let reply = served.ask6(&stale).unwrap();
    let Some(v6::DhcpOption::IANA(association)) = reply.opts().get(v6::OptionCode::IANA) else { panic!("{reply:?}") };
    let told = association.opts.get_all(v6::OptionCode::IAAddr).unwrap().iter();
    let lives: Vec<u32> = told
        .map(|option| match option {
            v6::DhcpOption::IAAddr(leased) => leased.valid_life,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(lives.contains(&86_400) && lives.contains(&0), "{lives:?}");
}

#[test]
fn dhcpv6_messages_of_each_kind_are_answered_as_they_ask() {
    let mut served = ServedWorld::new(1, network());
    let status = |message: &v6::Message| match message.opts().get(v6::OptionCode::StatusCode) {
        Some(v6::DhcpOption::StatusCode(code)) => Some(code.status),
        _ => None,
    };
    let foreign = ["fd00::9".parse().unwrap()];
    for (held, expected) in [(&[OWN_V6], v6::Status::Success), (&foreign, v6::Status::NotOnLink)] {
        let reply = served.ask6(&Client6::new(v6::MessageType::Confirm).with_association(held)).unwrap();
        assert_eq!(status(&reply), Some(expected));
    }
    let server = v6::DhcpOption::ServerId(client::SERVER_DUID.to_vec());
    let release = Client6::new(v6::MessageType::Release).with_association(&[OWN_V6]);
    assert_eq!(status(&served.ask6(&release.with(server)).unwrap()), Some(v6::Status::Success));
    let asked = v6::ORO { opts: vec![v6::OptionCode::DomainNameServers, v6::OptionCode::DomainSearchList] };
    let information = Client6::new(v6::MessageType::InformationRequest).with(v6::DhcpOption::ORO(asked));
    let reply = served.ask6(&information).unwrap();
    let servers = v6::DhcpOption::DomainNameServers(vec!["fd00:0:0:1::53".parse().unwrap()]);
    assert_eq!(reply.opts().get(v6::OptionCode::DomainNameServers), Some(&servers));
    assert!(reply.opts().get(v6::OptionCode::DomainSearchList).is_some());
    let other = v6::DhcpOption::ServerId(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 9]);
    let mistaken = Client6::new(v6::MessageType::Request).with_association(&[OWN_V6]).with(other);
    assert!(served.ask6(&mistaken).is_none());
    assert_eq!(served.world.drops(1, "dhcp-unserved"), 1);
    let relayed = client::udp6(&[[12; 34].as_slice(), &[0, 9, 0, 4, 1, 0, 0, 1]].concat());
    assert!(served.ask(&relayed).is_none());
    // A status in an address in an association is as deep as options stand.
    let mut nested = vec![0, 13, 0, 2, 0, 0];
    for _ in 0..3 {
        let length = (nested.len() + 12) as u16;
        nested = [&[0, 3], length.to_be_bytes().as_slice(), &[0; 12], &nested].concat();
    }
    assert!(served.ask(&client::udp6(&[[1, 0, 0, 1].as_slice(), &nested].concat())).is_none());
    assert_eq!(served.world.drops(1, "dhcp-malformed"), 2);
}

#[test]
fn an_eni_without_an_address_of_a_family_is_not_served_in_it() {
    let mut state = network();
    state.enis.get_mut(&eni(1)).unwrap().addresses.remove(0);
    let mut served = ServedWorld::new(1, state);
    assert!(served.ask4(&Client4::new(MessageType::Discover)).is_none());
    assert!(served.ask6(&Client6::new(v6::MessageType::Solicit).with_association(&[])).is_some());
    assert_eq!(served.world.drops(1, "dhcp-unserved"), 1);
}
