//! DHCP for IPv6 (RFC 8415). Every ENI has one address, and perhaps a prefix, and they are always the same.

use crate::services::NOT_SERVED;
use crate::services::dhcp4::domain_name;
use crate::services::frame::{self, DatagramEnds};
use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IAPrefix, IATA, Message, MessageType, OptionCode, Status, StatusCode,
};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use std::net::Ipv6Addr;
use vswitch_core::observe::guest_network::GuestNetwork;
use vswitch_core::packet::verdict::DropReason;

const SERVER: u16 = 547;
const CLIENT: u16 = 546;
/// The longest message that is read: what a link of the minimum MTU carries.
const MESSAGE_BYTES_MAX: usize = 1280 - 48;
/// The bytes before a message's options: its type and transaction.
const MESSAGE_HEADER_BYTES: usize = 4;
/// How deep options stand in options: a status in an address in an association.
const DEPTH_MAX: usize = 2;

pub(super) fn respond(network: &GuestNetwork<'_>, client: Ipv6Addr, payload: &[u8]) -> Result<Vec<u8>, DropReason> {
    let options = payload.get(MESSAGE_HEADER_BYTES..).filter(|_| payload.len() <= MESSAGE_BYTES_MAX);
    // The decoder calls itself for each level of options.
    if !options.is_some_and(|options| is_shallow(options, 0)) {
        return Err(DropReason::DhcpMalformed);
    }
    let request = Message::decode(&mut Decoder::new(payload)).map_err(|_| DropReason::DhcpMalformed)?;
    let address = network.ipv6.ok_or(NOT_SERVED)?;
    let binding = Binding { network, address, server: duid(network) };
    let reply = binding.reply(&request)?;
    let mut message = Vec::new();
    reply.encode(&mut Encoder::new(&mut message)).map_err(|_| NOT_SERVED)?;
    let ends = DatagramEnds {
        mac: network.mac,
        source: network.gateway_mac.link_local(),
        destination: client,
        source_port: SERVER,
        destination_port: CLIENT,
    };
    frame::udp6(network, ends, &message).ok_or(NOT_SERVED)
}

/// Whether options are whole, and none of them holds others too deep.
fn is_shallow(mut options: &[u8], depth: usize) -> bool {
    while let Some((&[code_high, code_low, length_high, length_low], rest)) = options.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let Some((body, others)) = rest.split_at_checked(length) else { return false };
        // The bytes of an option before the options in it.
        let fixed_bytes = match u16::from_be_bytes([code_high, code_low]) {
            3 | 25 => Some(12),
            4 | 17 => Some(4),
            5 => Some(24),
            26 => Some(25),
            // A relayed message: guests are no relays.
            9 => return false,
            _ => None,
        };
        if let Some(fixed_bytes) = fixed_bytes {
            let Some(inner) = body.get(fixed_bytes..) else { return false };
            if !inner.is_empty() && (depth == DEPTH_MAX || !is_shallow(inner, depth + 1)) {
                return false;
            }
        }
        options = others;
    }
    options.is_empty()
}

/// The server's identifier: that of the router's hardware address (RFC 8415 §11.4).
fn duid(network: &GuestNetwork<'_>) -> Vec<u8> {
    let mut duid = vec![0, 3, 0, 1];
    duid.extend_from_slice(&network.gateway_mac.0);
    duid
}

struct Binding<'a> {
    network: &'a GuestNetwork<'a>,
    address: Ipv6Addr,
    server: Vec<u8>,
}

impl Binding<'_> {
    fn reply(&self, request: &Message) -> Result<Message, DropReason> {
        let kind = request.msg_type();
        let options = request.opts();
        let client = match options.get(OptionCode::ClientId) {
            Some(DhcpOption::ClientId(client)) => Some(client.clone()),
            _ if kind == MessageType::InformationRequest => None,
            _ => return Err(DropReason::DhcpMalformed),
        };
        let named = match options.get(OptionCode::ServerId) {
            Some(DhcpOption::ServerId(server)) => Some(server),
            _ => None,
        };
        // RFC 8415 §16: which messages name their server, and which must not.
        let is_for_this = match kind {
            MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => named.is_none(),
            MessageType::InformationRequest => named.is_none_or(|named| *named == self.server),
            _ => named == Some(&self.server),
        };
        if !is_for_this {
            return Err(NOT_SERVED);
        }
        let is_rapid = kind == MessageType::Solicit && options.get(OptionCode::RapidCommit).is_some();
        let reply_type = match kind {
            MessageType::Solicit if !is_rapid => MessageType::Advertise,
            _ => MessageType::Reply,
        };
        let mut reply = Message::new_with_id(reply_type, request.xid());
        let told = reply.opts_mut();
        told.insert(DhcpOption::ServerId(self.server.clone()));
        client.into_iter().for_each(|client| told.insert(DhcpOption::ClientId(client)));
        if is_rapid {
            told.insert(DhcpOption::RapidCommit);
        }
        match kind {
            MessageType::Solicit | MessageType::Request | MessageType::Renew | MessageType::Rebind => {
                if reply_type == MessageType::Advertise {
                    // RFC 8415 §18.2.1: there is no other server to wait for.
                    told.insert(DhcpOption::Preference(u8::MAX));
                }
                self.associations(options).into_iter().for_each(|association| told.insert(association));
            }
            MessageType::Confirm => told.insert(self.confirm(options)?),
            MessageType::Release | MessageType::Decline => told.insert(status(Status::Success)),
            MessageType::InformationRequest => {}
            _ => return Err(NOT_SERVED),
        }
        self.configuration(options).into_iter().for_each(|option| told.insert(option));
        Ok(reply)
    }

    /// What each association of the client gets (RFC 8415 §18.3): the first of a kind all there is, others nothing.
    fn associations(&self, options: &DhcpOptions) -> Vec<DhcpOption> {
        let lease_s = self.network.dhcp.ipv6_lease_s;
        let (t1, t2) = (lease_s / 2, (u64::from(lease_s) * 4 / 5) as u32);
        let (mut addresses, mut prefixes) = (Some(self.address), self.network.ipv6_prefix);
        let mut told = Vec::new();
        for option in options.iter() {
            match option {
                DhcpOption::IANA(IANA { id, opts, .. }) => {
                    let own = addresses.take();
                    let mut inner = vec![own.map_or(status(Status::NoAddrsAvail), |address| leased(address, lease_s))];
                    // What the client has beside that is nobody's here: it is to stop using it.
                    let others = opts.iter().filter_map(|option| match option {
                        DhcpOption::IAAddr(held) if Some(held.addr) != own => Some(leased(held.addr, 0)),
                        _ => None,
                    });
                    inner.extend(others);
                    told.push(DhcpOption::IANA(IANA { id: *id, t1, t2, opts: inner.into_iter().collect() }));
                }
                DhcpOption::IATA(IATA { id, .. }) => {
                    let opts = [status(Status::NoAddrsAvail)].into_iter().collect();
                    told.push(DhcpOption::IATA(IATA { id: *id, opts }));
                }
                DhcpOption::IAPD(IAPD { id, .. }) => {
                    let prefix = prefixes.take().map(|prefix| {
                        DhcpOption::IAPrefix(IAPrefix {
                            preferred_lifetime: lease_s,
                            valid_lifetime: lease_s,
                            prefix_len: prefix.prefix_len(),
                            prefix_ip: prefix.network(),
                            opts: DhcpOptions::new(),
                        })
                    });
                    let opts = [prefix.unwrap_or(status(Status::NoPrefixAvail))].into_iter().collect();
                    told.push(DhcpOption::IAPD(IAPD { id: *id, t1, t2, opts }));
                }
                _ => {}
            }
        }
        told
    }

    /// Whether the addresses that the client has are good on this link (RFC 8415 §18.3.3).
    fn confirm(&self, options: &DhcpOptions) -> Result<DhcpOption, DropReason> {
        let associations = options.get_all(OptionCode::IANA).unwrap_or_default().iter();
        let inner = associations.filter_map(|option| match option {
            DhcpOption::IANA(association) => Some(&association.opts),
            _ => None,
        });
        let held: Vec<Ipv6Addr> = inner
            .flat_map(DhcpOptions::iter)
            .filter_map(|option| match option {
                DhcpOption::IAAddr(held) => Some(held.addr),
                _ => None,
            })
            .collect();
        if held.is_empty() {
            return Err(NOT_SERVED);
        }
        let is_good = held.iter().all(|address| *address == self.address);
        Ok(status(if is_good { Status::Success } else { Status::NotOnLink }))
    }

    /// The options that the client asks for.
    fn configuration(&self, options: &DhcpOptions) -> Vec<DhcpOption> {
        let Some(DhcpOption::ORO(asked)) = options.get(OptionCode::ORO) else { return Vec::new() };
        let dhcp = self.network.dhcp;
        let name_servers: Vec<Ipv6Addr> = dhcp.ipv6_name_servers().collect();
        let domain = dhcp.domain_name.as_deref().and_then(domain_name);
        let name_servers = (!name_servers.is_empty()).then_some(DhcpOption::DomainNameServers(name_servers));
        let domain = domain.map(|name| DhcpOption::DomainSearchList(vec![name]));
        let told = name_servers.into_iter().chain(domain);
        told.filter(|option| asked.opts.contains(&OptionCode::from(option))).collect()
    }
}

fn leased(addr: Ipv6Addr, lease_s: u32) -> DhcpOption {
    DhcpOption::IAAddr(IAAddr { addr, preferred_life: lease_s, valid_life: lease_s, opts: DhcpOptions::new() })
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: String::new() })
}
