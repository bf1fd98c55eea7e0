//! The name servers: names of the asker's VPC.
//!
//! `NAME.VPC.sluice` has the addresses of the guest that is known by NAME in that VPC, and its addresses have that name. What
//! is asked about other names is refused, unless the VPC has a way out.

pub mod datagram;
mod rate;
mod zone;

pub use rate::QuestionRates;

use crate::directory::{Asker, GuestDirectory};
use crate::tcp::Reaction;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use zone::NameLookup;

/// The longest reply in a datagram: what fits into a packet of IPv6 on every link, less headers.
pub const DATAGRAM_BYTES_MAX: usize = 1232;
/// The longest reply in a datagram to who did not say what it takes (RFC 1035 §4.2.1).
const PLAIN_DATAGRAM_BYTES_MAX: usize = 512;
/// Bytes of the length in front of a message over TCP.
const LENGTH_BYTES: usize = 2;
/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsTransport {
    /// In a datagram.
    Datagram,
    /// Over a connection.
    Connection,
}

/// The reply to a message of an ENI's guest. None to what is no question: a reply could be asked for again and again.
pub fn answer(
    directory: &GuestDirectory,
    asker: &Asker,
    message: &[u8],
    transport: DnsTransport,
    is_within_rate: bool,
) -> Option<Vec<u8>> {
    // Bit 7 of the third byte tells a reply from a question.
    if message.len() < HEADER_BYTES || message[2] & 0x80 != 0 {
        return None;
    }
    let Ok(question) = Message::from_vec(message) else {
        let id = u16::from_be_bytes([message[0], message[1]]);
        return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
    };
    let mut reply = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = directory.record(asker).is_some_and(|record| record.forwards_dns);
    reply.queries.clone_from(&question.queries);
    let bytes_max = match (transport, &question.edns) {
        (DnsTransport::Connection, _) => usize::from(u16::MAX),
        (DnsTransport::Datagram, None) => PLAIN_DATAGRAM_BYTES_MAX,
        (DnsTransport::Datagram, Some(edns)) => {
            usize::from(edns.max_payload()).clamp(PLAIN_DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX)
        }
    };
    if let Some(asked) = &question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX as u16).set_version(0);
        reply.edns = Some(edns);
        if asked.version() > 0 {
            reply.metadata.response_code = ResponseCode::BADVERS;
            return reply.to_vec().ok();
        }
    }
    reply.metadata.response_code = match question.queries.as_slice() {
        _ if !is_within_rate => ResponseCode::Refused,
        _ if question.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [query] if query.query_class() == DNSClass::IN => look_up(directory, asker, query, &mut reply.answers),
        [_] => ResponseCode::Refused,
        _ => ResponseCode::FormErr,
    };
    reply.metadata.authoritative =
        reply.metadata.response_code == ResponseCode::NoError || reply.metadata.response_code == ResponseCode::NXDomain;
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= bytes_max { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

fn look_up(directory: &GuestDirectory, asker: &Asker, query: &Query, answers: &mut Vec<Record>) -> ResponseCode {
    // Until the control plane has told about an ENI, nothing is known to exist or not to.
    let Some(record) = directory.record(asker) else { return ResponseCode::ServFail };
    // Whole zones, and all that there is of a name, are worth more to others than to guests.
    if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR | RecordType::ANY) {
        return ResponseCode::Refused;
    }
    match zone::look_up(directory, (asker, record), query) {
        NameLookup::Found(found) => {
            answers.extend(found);
            ResponseCode::NoError
        }
        NameLookup::Unknown => ResponseCode::NXDomain,
        NameLookup::Elsewhere => ResponseCode::Refused,
    }
}

/// The reaction to what a client has sent over a connection: each message follows its length (RFC 1035 §4.2.2).
pub fn react(
    directory: &GuestDirectory,
    asker: &Asker,
    input: &[u8],
    is_within_rate: impl FnOnce() -> bool,
) -> Reaction {
    let Some((length, rest)) = input.split_first_chunk::<LENGTH_BYTES>() else { return Reaction::Wait };
    let length = usize::from(u16::from_be_bytes(*length));
    let Some(message) = rest.get(..length) else { return Reaction::Wait };
    let reply = answer(directory, asker, message, DnsTransport::Connection, is_within_rate());
    let framed = reply.and_then(|reply| {
        let length = u16::try_from(reply.len()).ok()?;
        Some([length.to_be_bytes().as_slice(), &reply].concat())
    });
    Reaction::Reply {
        consumed: LENGTH_BYTES + length,
        closes: framed.is_none(),
        bytes: framed.unwrap_or_default(),
        hop_limit: None,
    }
}
