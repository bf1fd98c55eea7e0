//! What clients of DHCP and neighbour discovery send, and how they read what comes back.

use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder, v6};
use etherparse::{PacketBuilder, PacketBuilderStep};
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const GATEWAY_MAC: [u8; 6] = [0xee, 0xff, 0xff, 0xff, 0xff, 0xff];
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 253);
pub(crate) const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 0x10);
pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);
pub(crate) const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecff, 0xffff, 0xfeff, 0xffff);
pub(crate) const SERVER_DUID: [u8; 10] = [0, 3, 0, 1, 0xee, 0xff, 0xff, 0xff, 0xff, 0xff];
pub(crate) const TRANSACTION: u32 = 0x1234_5678;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// A client of DHCP for IPv4, about to send.
#[derive(Clone)]
pub(crate) struct Client4 {
    message: Message,
    source: Ipv4Addr,
    is_to_all: bool,
}

impl Client4 {
    pub(crate) fn new(kind: MessageType) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(TRANSACTION, none, none, none, none, &MAC);
        message.set_opcode(Opcode::BootRequest).set_htype(HType::Eth);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        Self { message, source: none, is_to_all: true }.asking(&[1, 3, 6, 12, 15, 26, 119, 121])
    }

    pub(crate) fn with(mut self, option: DhcpOption) -> Self {
        self.message.opts_mut().insert(option);
        self
    }

    pub(crate) fn wishing(self, address: Ipv4Addr) -> Self {
        self.with(DhcpOption::RequestedIpAddress(address))
    }

    pub(crate) fn of_server(self, server: Ipv4Addr) -> Self {
        self.with(DhcpOption::ServerIdentifier(server))
    }

    /// After an offer.
    pub(crate) fn selecting(self, address: Ipv4Addr) -> Self {
        self.wishing(address).of_server(GATEWAY)
    }

    /// After a reboot.
    pub(crate) fn remembering(self, address: Ipv4Addr) -> Self {
        self.wishing(address)
    }

    /// With the address in use, to the server alone.
    pub(crate) fn renewing(mut self, address: Ipv4Addr) -> Self {
        self.message.set_ciaddr(address);
        (self.source, self.is_to_all) = (address, false);
        self
    }

    /// To any server.
    pub(crate) fn broadcasting(mut self) -> Self {
        self.is_to_all = true;
        self
    }

    pub(crate) fn broadcast(mut self) -> Self {
        self.message.set_flags(self.message.flags().set_broadcast());
        self
    }

    pub(crate) fn relayed(mut self, by: Ipv4Addr) -> Self {
        self.message.set_giaddr(by);
        self
    }

    pub(crate) fn of_hardware(mut self, mac: [u8; 6]) -> Self {
        self.message.set_chaddr(&mac);
        self
    }

    pub(crate) fn taking(self, bytes: u16) -> Self {
        self.with(DhcpOption::MaxMessageSize(bytes))
    }

    pub(crate) fn asking(mut self, codes: &[u8]) -> Self {
        self.message.opts_mut().remove(OptionCode::ParameterRequestList);
        if codes.is_empty() {
            return self;
        }
        self.with(DhcpOption::ParameterRequestList(codes.iter().map(|code| OptionCode::from(*code)).collect()))
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        let (mac, to) = if self.is_to_all { ([0xff; 6], Ipv4Addr::BROADCAST) } else { (GATEWAY_MAC, GATEWAY) };
        let ip = PacketBuilder::ethernet2(MAC, mac).ipv4(self.source.octets(), to.octets(), 64);
        finish(ip.udp(68, 67), &bytes)
    }
}

/// A client of DHCP for IPv6, about to send.
#[derive(Clone)]
pub(crate) struct Client6(v6::Message);

impl Client6 {
    pub(crate) fn new(kind: v6::MessageType) -> Self {
        let mut message = v6::Message::new_with_id(kind, [1, 2, 3]);
        message.opts_mut().insert(v6::DhcpOption::ClientId([&[0, 3, 0, 1], MAC.as_slice()].concat()));
        Self(message)
    }

    pub(crate) fn with(mut self, option: v6::DhcpOption) -> Self {
        self.0.opts_mut().insert(option);
        self
    }

    /// With an association for addresses, of which it has these.
    pub(crate) fn with_association(self, held: &[Ipv6Addr]) -> Self {
        let addresses = held.iter().map(|addr| {
            v6::DhcpOption::IAAddr(v6::IAAddr {
                addr: *addr,
                preferred_life: 0,
                valid_life: 0,
                opts: v6::DhcpOptions::new(),
            })
        });
        self.with(v6::DhcpOption::IANA(v6::IANA { id: 1, t1: 0, t2: 0, opts: addresses.collect() }))
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.encode(&mut Encoder::new(&mut bytes)).unwrap();
        udp6(&bytes)
    }
}

/// A frame to a DHCP server.
pub(crate) fn udp4(payload: &[u8]) -> Vec<u8> {
    let ip = PacketBuilder::ethernet2(MAC, [0xff; 6]).ipv4([0; 4], [255; 4], 64);
    finish(ip.udp(68, 67), payload)
}

/// A frame to all DHCPv6 servers.
pub(crate) fn udp6(payload: &[u8]) -> Vec<u8> {
    let ends = (LINK_LOCAL.octets(), ALL_SERVERS.octets());
    let ip = PacketBuilder::ethernet2(MAC, [0x33, 0x33, 0, 1, 0, 2]).ipv6(ends.0, ends.1, 64);
    finish(ip.udp(546, 547), payload)
}

pub(crate) fn router_solicitation() -> Vec<u8> {
    let ends = (LINK_LOCAL.octets(), ALL_ROUTERS.octets());
    let ip = PacketBuilder::ethernet2(MAC, [0x33, 0x33, 0, 0, 0, 2]).ipv6(ends.0, ends.1, 255);
    let mut frame = Vec::new();
    ip.icmpv6_raw(133, 0, [0; 4]).write(&mut frame, &[&[1, 1], MAC.as_slice()].concat()).unwrap();
    frame
}

fn finish(builder: PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

pub(crate) fn read4(frame: &[u8]) -> Message {
    Message::decode(&mut Decoder::new(&frame[14 + 28..])).unwrap()
}

pub(crate) fn read6(frame: &[u8]) -> v6::Message {
    v6::Message::decode(&mut Decoder::new(&frame[14 + 48..])).unwrap()
}
