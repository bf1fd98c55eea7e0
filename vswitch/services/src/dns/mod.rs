//! The name servers: names of the asker's VPC.
//!
//! `NAME.VPC.sluice` has the addresses of the guest that is known by NAME in that VPC, and its addresses have that name.
//! Questions about other names are refused, unless the VPC has a way out: then they are forwarded.

mod cache;
pub mod datagram;
mod forwarder;
mod rate;
mod zone;

pub use forwarder::{AnswerTarget, AskedBy, Forwarder};
pub use rate::QuestionRates;

use crate::directory::{Asker, GuestDirectory};
use crate::tcp::Reaction;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
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

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is no question. A reply could be replied to, again and again.
    Nothing,
    /// There is a reply.
    Reply(Vec<u8>),
    /// It is about a name outside of the VPC, and may be forwarded.
    Forward(Box<Message>),
}

impl Outcome {
    /// The reply, if there is one already.
    pub fn into_reply(self) -> Option<Vec<u8>> {
        match self {
            Self::Reply(reply) => Some(reply),
            Self::Nothing | Self::Forward(_) => None,
        }
    }
}

/// What becomes of a message of an ENI's guest.
pub fn answer(
    directory: &GuestDirectory,
    asker: &Asker,
    message: &[u8],
    transport: DnsTransport,
    is_within_rate: bool,
) -> Outcome {
    // Bit 7 of the third byte tells a reply from a question.
    if message.len() < HEADER_BYTES || message[2] & 0x80 != 0 {
        return Outcome::Nothing;
    }
    let Ok(question) = Message::from_vec(message) else {
        let id = u16::from_be_bytes([message[0], message[1]]);
        let refusal = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec();
        return refusal.map_or(Outcome::Nothing, Outcome::Reply);
    };
    let mut reply = reply_to(&question);
    reply.metadata.recursion_available = directory.record(asker).is_some_and(|record| record.forwards_dns);
    let is_of_version = question.edns.as_ref().is_none_or(|edns| edns.version() == 0);
    reply.metadata.response_code = match question.queries.as_slice() {
        _ if !is_of_version => ResponseCode::BADVERS,
        _ if !is_within_rate => ResponseCode::Refused,
        _ if question.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [query] if query.query_class() == DNSClass::IN => match look_up(directory, asker, query) {
            Ok(NameLookup::Found(found)) => {
                reply.answers = found;
                reply.metadata.authoritative = true;
                ResponseCode::NoError
            }
            Ok(NameLookup::Unknown) => {
                reply.metadata.authoritative = true;
                ResponseCode::NXDomain
            }
            Ok(NameLookup::Elsewhere) if reply.metadata.recursion_available => {
                return Outcome::Forward(Box::new(question));
            }
            Ok(NameLookup::Elsewhere) => ResponseCode::Refused,
            Err(code) => code,
        },
        [_] => ResponseCode::Refused,
        _ => ResponseCode::FormErr,
    };
    fitted(&question, &reply, transport).map_or(Outcome::Nothing, Outcome::Reply)
}

/// A reply without an answer.
fn reply_to(question: &Message) -> Message {
    let mut reply = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.queries.clone_from(&question.queries);
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX as u16).set_version(0);
        reply.edns = Some(edns);
    }
    reply
}

/// A reply as bytes: what is longer than the question allows is marked as truncated.
pub fn fitted(question: &Message, reply: &Message, transport: DnsTransport) -> Option<Vec<u8>> {
    let bytes_max = match (transport, &question.edns) {
        (DnsTransport::Connection, _) => usize::from(u16::MAX),
        (DnsTransport::Datagram, None) => PLAIN_DATAGRAM_BYTES_MAX,
        (DnsTransport::Datagram, Some(edns)) => {
            usize::from(edns.max_payload()).clamp(PLAIN_DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX)
        }
    };
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= bytes_max { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

/// What is known of a name.
///
/// # Errors
/// Why nothing is said about it.
fn look_up(directory: &GuestDirectory, asker: &Asker, query: &Query) -> Result<NameLookup, ResponseCode> {
    // Until the control plane has told about an ENI, nothing is known to exist or not to.
    let record = directory.record(asker).ok_or(ResponseCode::ServFail)?;
    // Whole zones, and all that there is of a name, are worth more to others than to guests.
    if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR | RecordType::ANY) {
        return Err(ResponseCode::Refused);
    }
    Ok(zone::look_up(directory, (asker, record), query))
}

/// What a client has sent over a connection: each message follows its length (RFC 1035 §4.2.2). Returns its bytes, if it is
/// whole, and how many bytes that is with the length.
pub fn framed_message(input: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = input.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some((rest.get(..length)?, LENGTH_BYTES + length))
}

/// A message behind its length.
pub fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    Some([length.to_be_bytes().as_slice(), message].concat())
}

/// The reaction to what a client has sent over a connection. `forward` says what becomes of a question about a name outside
/// of the VPC: its answer, or that it comes later.
pub fn react(
    directory: &GuestDirectory,
    asker: &Asker,
    input: &[u8],
    is_within_rate: impl FnOnce() -> bool,
    forward: impl FnOnce(Message) -> Option<Message>,
) -> Reaction {
    let Some((message, consumed)) = framed_message(input) else { return Reaction::Wait };
    let reply = match answer(directory, asker, message, DnsTransport::Connection, is_within_rate()) {
        Outcome::Reply(reply) => Some(reply),
        Outcome::Nothing => None,
        Outcome::Forward(question) => match forward((*question).clone()) {
            None => return Reaction::Later { consumed },
            Some(reply) => fitted(&question, &reply, DnsTransport::Connection),
        },
    };
    let bytes = reply.and_then(|reply| framed(&reply));
    Reaction::Reply { consumed, closes: bytes.is_none(), bytes: bytes.unwrap_or_default(), hop_limit: None }
}
