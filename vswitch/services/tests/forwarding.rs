//! Questions about names outside of a VPC, put to a resolver on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use services::dns::{AnswerTarget, AskedBy, Forwarder};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::services::frame::ServedEni;

const NOW_S: u64 = 1_700_000_000;

struct Resolver(UdpSocket);

impl Resolver {
    fn new() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(socket)
    }

    fn next(&self) -> (Message, SocketAddr) {
        let mut room = [0; 4096];
        let (length, from) = self.0.recv_from(&mut room).unwrap();
        (Message::from_vec(&room[..length]).unwrap(), from)
    }

    fn reply(&self, question: &Message, to: SocketAddr, change: impl FnOnce(&mut Message)) {
        let mut reply = question.clone().into_response();
        let name = question.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 7))));
        change(&mut reply);
        self.0.send_to(&reply.to_vec().unwrap(), to).unwrap();
    }
}

fn forwarder(resolvers: &[&Resolver]) -> Forwarder {
    let mut drawn = 0x1234_5678_9abc_def1_u64;
    let random = move || {
        drawn = drawn.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        drawn >> 8
    };
    Forwarder::new(resolvers.iter().map(|resolver| resolver.0.local_addr().unwrap()).collect(), random)
}

fn question(name: &str) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

fn target(number: u64) -> AnswerTarget {
    AnswerTarget { eni: ServedEni { index: EniIndex(1), generation: 1 }, by: AskedBy::Connection(number) }
}

/// What is settled by then, at the latest in a minute.
fn settled(forwarder: &mut Forwarder, now: Instant) -> (AnswerTarget, Message) {
    let asked = Instant::now();
    loop {
        let mut found = None;
        forwarder.turn((now, NOW_S), &mut |target, _, reply| found = Some((target, reply)));
        if let Some(found) = found {
            return found;
        }
        assert!(asked.elapsed() < Duration::from_secs(60), "nothing is settled");
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_that_repeats_the_question_goes_to_who_asked_and_is_kept() {
    let resolver = Resolver::new();
    let (mut forwarder, now) = (forwarder(&[&resolver]), Instant::now());
    let asked = question("www.An-Example.test.");
    assert_eq!(forwarder.ask(asked.clone(), target(7), (now, NOW_S)), None);
    let (put, from) = resolver.next();
    let (name, own) = (put.queries[0].name(), asked.queries[0].name());
    assert!(name == own && !name.eq_case(own) && put.metadata.id != asked.metadata.id, "{name}");
    resolver.reply(&put, from, |_| {});
    let (to, reply) = settled(&mut forwarder, now);
    assert_eq!((to, reply.metadata.id, &reply.queries), (target(7), asked.metadata.id, &asked.queries));
    assert_eq!(reply.answers[0].data, RData::A(A::new(192, 0, 2, 7)));
    // Another guest that asks has it at once.
    let again = question("WWW.an-example.test.");
    let known = forwarder.ask(again.clone(), target(8), (now, NOW_S + 50)).unwrap();
    assert_eq!((known.metadata.id, known.answers[0].ttl), (again.metadata.id, 10));
}

#[test]
fn what_does_not_repeat_the_question_is_no_answer() {
    let (first, second) = (Resolver::new(), Resolver::new());
    let (mut forwarder, now) = (forwarder(&[&first, &second]), Instant::now());
    assert_eq!(forwarder.ask(question("www.example.test."), target(1), (now, NOW_S)), None);
    let forge = |resolver: &Resolver| {
        let (put, from) = resolver.next();
        resolver.reply(&put, from, |reply| reply.metadata.id ^= 1);
        resolver.reply(&put, from, |reply| reply.queries = question("www.example.test.").queries);
        resolver.reply(&put, from, |reply| reply.queries = question("other.example.test.").queries);
        // A reply from elsewhere, right in all else.
        let elsewhere = Resolver::new();
        elsewhere.reply(&put, from, |_| {});
        from
    };
    let port = forge(&first);
    let mut count = 0;
    forwarder.turn((now, NOW_S), &mut |_, _, _| count += 1);
    // The other one is asked once the first is late, from another port.
    forwarder.turn((now + Duration::from_secs(3), NOW_S), &mut |_, _, _| count += 1);
    assert_eq!(count, 0);
    assert_ne!(forge(&second), port);
    let (_, reply) = settled(&mut forwarder, now + Duration::from_secs(9));
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::ServFail, 0));
}

#[test]
fn so_many_questions_wait_and_without_a_resolver_none() {
    let resolver = Resolver::new();
    let (mut some, now) = (forwarder(&[&resolver]), Instant::now());
    let refused =
        (0..40).filter_map(|number| some.ask(question(&format!("{number}.test.")), target(number), (now, NOW_S)));
    let codes: Vec<ResponseCode> = refused.map(|reply| reply.metadata.response_code).collect();
    assert_eq!(codes, [ResponseCode::Refused; 8]);
    let reply = forwarder(&[]).ask(question("www.test."), target(1), (now, NOW_S)).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}
