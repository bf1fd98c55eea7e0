//! Questions about names outside of the VPC, for guests of VPCs with a way out: they are put to resolvers that the
//! configuration names.
//!
//! Each question goes out from a port of its own that the kernel draws, with an identifier and letter cases that are drawn
//! here, and only a reply that repeats them, from where the question went, counts.

use super::cache::AnswerCache;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Name;
use rustix::fd::{AsFd, BorrowedFd};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use vswitch_core::config::services::frame::ServedEni;

/// Questions that wait for a resolver.
const PENDING_MAX: usize = 256;
/// Questions of one ENI that wait for a resolver.
const PENDING_PER_ENI_MAX: usize = 32;
/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a question is put.
const ATTEMPTS_MAX: usize = 2;
/// The longest reply that is taken.
const REPLY_BYTES_MAX: usize = 4096;

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTarget {
    /// The ENI whose guest asked.
    pub eni: ServedEni,
    /// How it asked.
    pub by: AskedBy,
}

/// How a guest asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// In a datagram between these addresses and ports.
    Datagram {
        /// From where, and to where.
        addresses: [IpAddr; 2],
        /// The ports, in that order.
        ports: [u16; 2],
    },
    /// Over the connection with this number.
    Connection(u64),
}

struct PendingForward {
    socket: UdpSocket,
    question: Message,
    /// The question as it was put.
    put: (u16, Query),
    target: AnswerTarget,
    attempts: usize,
    deadline: Instant,
}

/// Questions on their way to resolvers, and answers that are still good.
pub struct Forwarder {
    resolvers: Vec<SocketAddr>,
    pending: Vec<PendingForward>,
    cache: AnswerCache,
    random: Box<dyn FnMut() -> u64 + Send>,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Forwarder").field("resolvers", &self.resolvers).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// A forwarder to these resolvers; `random` draws numbers that nobody can guess.
    pub fn new(resolvers: Vec<SocketAddr>, random: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self { resolvers, pending: Vec::new(), cache: AnswerCache::default(), random: Box::new(random) }
    }

    /// Puts a guest's question. Returns the answer if it is known, or cannot be asked for.
    pub fn ask(&mut self, question: Message, target: AnswerTarget, (now, now_s): (Instant, u64)) -> Option<Message> {
        let Some(query) = question.queries.first() else { return Some(failed(&question, ResponseCode::FormErr)) };
        if let Some(known) = self.cache.find(query, now_s) {
            return Some(reply_from(&question, known));
        }
        let of_eni = self.pending.iter().filter(|pending| pending.target.eni == target.eni).count();
        if self.pending.len() >= PENDING_MAX || of_eni >= PENDING_PER_ENI_MAX {
            return Some(failed(&question, ResponseCode::Refused));
        }
        match self.put(&question, 0) {
            Some((socket, put)) => {
                let deadline = now + PATIENCE;
                self.pending.push(PendingForward { socket, question, put, target, attempts: 1, deadline });
                None
            }
            None => Some(failed(&question, ResponseCode::ServFail)),
        }
    }

    /// Sends a question to the resolver whose turn it is.
    fn put(&mut self, question: &Message, attempt: usize) -> Option<(UdpSocket, (u16, Query))> {
        let resolver = *self.resolvers.get(attempt % self.resolvers.len().max(1))?;
        let query = question.queries.first()?;
        let id = (self.random)() as u16;
        let mut drawn = Query::query(self.draw_case(query.name())?, query.query_type());
        drawn.set_query_class(query.query_class());
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let mut edns = Edns::new();
        edns.set_max_payload(super::DATAGRAM_BYTES_MAX as u16).set_version(0);
        message.edns = Some(edns);
        message.add_query(drawn.clone());
        let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let sent = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            // From now on the kernel drops what comes from elsewhere.
            socket.connect(resolver)?;
            socket.send(&message.to_vec().map_err(|error| io::Error::other(error.to_string()))?)?;
            Ok(socket)
        });
        sent.ok().map(|socket| (socket, (id, drawn)))
    }

    /// A name with letter cases that are hard to guess: a forged reply has to repeat them.
    fn draw_case(&mut self, name: &Name) -> Option<Name> {
        let (mut bits, mut left) = ((self.random)(), u64::BITS);
        let mut labels: Vec<Vec<u8>> = Vec::new();
        for label in name.iter() {
            let mut drawn = label.to_ascii_lowercase();
            for letter in drawn.iter_mut().filter(|letter| letter.is_ascii_lowercase()) {
                if left == 0 {
                    (bits, left) = ((self.random)(), u64::BITS);
                }
                if bits & 1 == 1 {
                    letter.make_ascii_uppercase();
                }
                (bits, left) = (bits >> 1, left - 1);
            }
            labels.push(drawn);
        }
        let mut drawn = Name::from_labels(labels.iter().map(Vec::as_slice)).ok()?;
        drawn.set_fqdn(true);
        Some(drawn)
    }

    /// Settles what has been answered, and what is late: where that goes, the question, and the reply.
    pub fn turn(&mut self, (now, now_s): (Instant, u64), settle: &mut dyn FnMut(AnswerTarget, Message, Message)) {
        let mut place = 0;
        while place < self.pending.len() {
            let pending = &self.pending[place];
            let answered = receive(pending);
            if answered.is_none() && now < pending.deadline {
                place += 1;
                continue;
            }
            let mut pending = self.pending.swap_remove(place);
            if let Some(answer) = answered {
                if let Some(query) = pending.question.queries.first() {
                    self.cache.keep(query, &answer, now_s);
                }
                let reply = reply_from(&pending.question, answer);
                settle(pending.target, pending.question, reply);
            } else if pending.attempts < ATTEMPTS_MAX
                && let Some((socket, put)) = self.put(&pending.question, pending.attempts)
            {
                (pending.socket, pending.put, pending.deadline) = (socket, put, now + PATIENCE);
                pending.attempts += 1;
                self.pending.push(pending);
            } else {
                let reply = failed(&pending.question, ResponseCode::ServFail);
                settle(pending.target, pending.question, reply);
            }
        }
    }

    /// When the next question is late.
    pub fn next_due(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.deadline).min()
    }

    /// The sockets on which answers come.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pending.iter().map(|pending| pending.socket.as_fd())
    }

    /// Forgets who asked: nobody is there who could deliver answers.
    pub fn clear(&mut self) {
        self.pending.clear();
    }
}

/// The reply to a question that was put, if one has come. What does not repeat the question is passed over.
fn receive(pending: &PendingForward) -> Option<Message> {
    let mut room = [0; REPLY_BYTES_MAX];
    // An error means that the resolver refuses: the next one is asked once this one is late.
    while let Ok(length) = pending.socket.recv(&mut room) {
        let Ok(message) = Message::from_vec(&room[..length]) else { continue };
        let (id, query) = &pending.put;
        let repeats = message.queries.as_slice() == [query.clone()] && message.queries[0].name().eq_case(query.name());
        if message.metadata.message_type == MessageType::Response && message.metadata.id == *id && repeats {
            return Some(message);
        }
    }
    None
}

/// The reply to a guest's question from a resolver's answer.
fn reply_from(question: &Message, answer: Message) -> Message {
    let mut reply = failed(question, answer.metadata.response_code);
    reply.metadata.truncation = answer.metadata.truncation;
    reply.answers = answer.answers;
    reply.authorities = answer.authorities;
    reply
}

fn failed(question: &Message, code: ResponseCode) -> Message {
    let mut reply = super::reply_to(question);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply
}
