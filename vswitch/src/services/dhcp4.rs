//! DHCP for IPv4 (RFC 2131, RFC 2132). Every ENI has one address, and it is always the same.

use crate::services::NOT_SERVED;
use crate::services::frame::{self, DatagramEnds};
use dhcproto::v4::{DhcpOption, DhcpOptions, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder, Name};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use vswitch_core::observe::guest_network::GuestNetwork;
use vswitch_core::packet::verdict::DropReason;

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// RFC 2131 §3: what tells options from what BOOTP had in their place, and where it stands.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const MAGIC_AT: usize = 236;
/// RFC 1542 §2.1: what a relay or client of BOOTP may drop if it is shorter.
const MESSAGE_BYTES_MIN: usize = 300;
/// RFC 2131 §2: the datagram that every client takes.
const DATAGRAM_BYTES_MIN: usize = 576;
/// The headers of IP and UDP in such a datagram.
const HEADER_BYTES: usize = 28;
/// The longest datagram that is sent to a client that takes longer ones.
const DATAGRAM_BYTES_MAX: usize = 1500;

/// What the ENI's guest is to get.
#[derive(Clone, Copy)]
struct Lease<'a> {
    network: &'a GuestNetwork<'a>,
    address: Ipv4Net,
    /// The router, which is also the server that the guest sees.
    gateway: Ipv4Addr,
}

pub(super) fn respond(network: &GuestNetwork<'_>, payload: &[u8]) -> Result<Vec<u8>, DropReason> {
    if payload.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(&MAGIC) {
        return Err(DropReason::DhcpMalformed);
    }
    let request = Message::decode(&mut Decoder::new(payload)).map_err(|_| DropReason::DhcpMalformed)?;
    let (Some(address), Some(gateway)) = (network.ipv4, network.ipv4_gateway) else { return Err(NOT_SERVED) };
    let is_own = request.htype() == HType::Eth && request.hlen() == 6 && request.chaddr() == network.mac.0;
    if request.opcode() != Opcode::BootRequest || !is_own {
        return Err(NOT_SERVED);
    }
    let lease = Lease { network, address, gateway };
    let reply = lease.reply_type(&request)?;
    let message = lease.message(&request, reply).ok_or(NOT_SERVED)?;
    lease.frame(&request, reply, &message).ok_or(NOT_SERVED)
}

impl Lease<'_> {
    /// RFC 2131 §4.3: what answers a message, if anything does.
    fn reply_type(&self, request: &Message) -> Result<MessageType, DropReason> {
        let Some(DhcpOption::MessageType(kind)) = request.opts().get(OptionCode::MessageType) else {
            return Err(NOT_SERVED); // BOOTP
        };
        let server = match request.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
            _ => None,
        };
        if server.is_some_and(|server| server != self.gateway) {
            return Err(NOT_SERVED);
        }
        match kind {
            MessageType::Discover => Ok(MessageType::Offer),
            MessageType::Request => match wanted(request) {
                None => Err(DropReason::DhcpMalformed),
                Some(wanted) if wanted == self.address.addr() => Ok(MessageType::Ack),
                // At once, so that the client starts over and does not wait until its old lease is over.
                Some(_) => Ok(MessageType::Nak),
            },
            MessageType::Inform => Ok(MessageType::Ack),
            _ => Err(NOT_SERVED),
        }
    }

    fn message(&self, request: &Message, kind: MessageType) -> Option<Vec<u8>> {
        let is_inform = is_inform(request);
        let mut reply = Message::new(request.ciaddr(), NONE, NONE, request.giaddr(), request.chaddr());
        reply.set_opcode(Opcode::BootReply).set_xid(request.xid()).set_flags(request.flags());
        if kind == MessageType::Nak {
            reply.set_ciaddr(NONE);
        } else if !is_inform {
            reply.set_yiaddr(self.address.addr());
        }
        // Options are encoded one by one below: in an order, and as many as there is room for.
        reply.set_opts(DhcpOptions::new());
        let mut bytes = Vec::with_capacity(DATAGRAM_BYTES_MIN);
        reply.encode(&mut Encoder::new(&mut bytes)).ok()?;
        let room = self.room(request);
        for option in self.options(request, kind, is_inform) {
            let mut encoded = Vec::new();
            option.encode(&mut Encoder::new(&mut encoded)).ok()?;
            // One byte is for the end.
            if bytes.len() + encoded.len() < room {
                bytes.extend_from_slice(&encoded);
            }
        }
        bytes.push(u8::from(OptionCode::End));
        bytes.resize(bytes.len().max(MESSAGE_BYTES_MIN), 0);
        Some(bytes)
    }

    /// How long the reply may be, bytes.
    fn room(&self, request: &Message) -> usize {
        let asked = match request.opts().get(OptionCode::MaxMessageSize) {
            Some(DhcpOption::MaxMessageSize(bytes)) => usize::from(*bytes),
            _ => DATAGRAM_BYTES_MIN,
        };
        let most = usize::from(self.network.mtu_bytes).min(DATAGRAM_BYTES_MAX);
        asked.clamp(DATAGRAM_BYTES_MIN, most.max(DATAGRAM_BYTES_MIN)) - HEADER_BYTES
    }

    /// The options of a reply, the most needed first: what every reply has, and what the client asks for.
    fn options(&self, request: &Message, kind: MessageType, is_inform: bool) -> Vec<DhcpOption> {
        let mut options = vec![DhcpOption::MessageType(kind), DhcpOption::ServerIdentifier(self.gateway)];
        // RFC 6842, RFC 3046 §2.2: they come back as they came.
        let returned = [OptionCode::ClientIdentifier, OptionCode::RelayAgentInformation];
        if kind == MessageType::Nak {
            options.extend(returned.iter().filter_map(|code| request.opts().get(*code).cloned()));
            return options;
        }
        let lease_s = self.network.dhcp.lease_s;
        if !is_inform {
            options.push(DhcpOption::AddressLeaseTime(lease_s));
        }
        options.extend(request.opts().get(OptionCode::ClientIdentifier).cloned());
        let asked = match request.opts().get(OptionCode::ParameterRequestList) {
            Some(DhcpOption::ParameterRequestList(codes)) => codes.as_slice(),
            _ => &[OptionCode::SubnetMask, OptionCode::Router, OptionCode::DomainNameServer],
        };
        let told = self.configuration(is_inform).into_iter();
        options.extend(told.filter(|option| asked.contains(&OptionCode::from(option))));
        options.extend(request.opts().get(OptionCode::RelayAgentInformation).cloned());
        options
    }

    /// All that a client can ask for, the most needed first.
    fn configuration(&self, is_inform: bool) -> Vec<DhcpOption> {
        let Self { network, address, gateway } = *self;
        let dhcp = network.dhcp;
        let mut options = vec![
            DhcpOption::SubnetMask(address.netmask()),
            // RFC 3442: who asks for these routes does not look at the router option, so the default route is among them.
            DhcpOption::ClasslessStaticRoute(vec![(Ipv4Net::default(), gateway)]),
            DhcpOption::Router(vec![gateway]),
        ];
        let name_servers: Vec<Ipv4Addr> = dhcp.ipv4_name_servers().collect();
        if !name_servers.is_empty() {
            options.push(DhcpOption::DomainNameServer(name_servers));
        }
        options.push(DhcpOption::InterfaceMtu(network.mtu_bytes));
        if !is_inform {
            let lease_s = dhcp.lease_s;
            options.push(DhcpOption::Renewal(lease_s / 2));
            options.push(DhcpOption::Rebinding((u64::from(lease_s) * 7 / 8) as u32));
        }
        options.push(DhcpOption::Hostname(network.hostname.into()));
        options.extend(dhcp.domain_name.clone().map(DhcpOption::DomainName));
        if !dhcp.ntp_servers.is_empty() {
            options.push(DhcpOption::NtpServers(dhcp.ntp_servers.clone()));
        }
        let domain = dhcp.domain_name.as_deref().and_then(domain_name);
        options.extend(domain.map(|name| DhcpOption::DomainSearch(vec![name])));
        options.extend(dhcp.tftp_server.clone().map(|text| DhcpOption::TFTPServerName(text.into())));
        options.extend(dhcp.boot_file.clone().map(|text| DhcpOption::BootfileName(text.into())));
        options
    }

    /// RFC 2131 §4.1: who can hear the reply where. A refusal is heard by a client with any address, or none.
    fn frame(&self, request: &Message, kind: MessageType, message: &[u8]) -> Option<Vec<u8>> {
        let (destination, destination_port) = match kind {
            _ if request.giaddr() != NONE => (request.giaddr(), SERVER),
            MessageType::Nak => (Ipv4Addr::BROADCAST, CLIENT),
            _ if request.ciaddr() != NONE => (request.ciaddr(), CLIENT),
            _ if request.flags().broadcast() || is_inform(request) => (Ipv4Addr::BROADCAST, CLIENT),
            _ => (self.address.addr(), CLIENT),
        };
        let mac = if destination == Ipv4Addr::BROADCAST { frame::BROADCAST } else { self.network.mac };
        let (source, source_port) = (self.gateway, SERVER);
        frame::udp4(self.network, DatagramEnds { mac, source, destination, source_port, destination_port }, message)
    }
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn is_inform(request: &Message) -> bool {
    request.opts().get(OptionCode::MessageType) == Some(&DhcpOption::MessageType(MessageType::Inform))
}

/// The address that a request is about: the one it has, or the one it was offered or remembers (RFC 2131 §4.3.2).
fn wanted(request: &Message) -> Option<Ipv4Addr> {
    match request.opts().get(OptionCode::RequestedIpAddress) {
        _ if request.ciaddr() != NONE => Some(request.ciaddr()),
        Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
        _ => None,
    }
}

/// A domain as DNS writes it.
pub(super) fn domain_name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}
