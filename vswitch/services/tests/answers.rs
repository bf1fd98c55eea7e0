//! What guests are told: metadata and names, from records of two VPCs with the same addresses.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::{Value, json};
use services::directory::{Asker, GuestDirectory};
use services::tcp::Reaction;
use services::{dns, metadata};

const NOW_S: u64 = 1_700_000_000;

fn record(vpc: &str, mac: &str, ipv4: &str, instance: &Value) -> Value {
    json!({
        "vpc": vpc, "vpc_blocks": ["10.0.0.0/16", "2001:db8::/56"], "vswitch": format!("vsw-of-{vpc}"),
        "ipv4_block": "10.0.1.0/24", "ipv6_block": "2001:db8::/64", "ipv4_gateway": "10.0.1.253",
        "ipv6_gateway": "2001:db8::fffd", "mac": mac, "ipv4": [ipv4], "ipv6": ["2001:db8::10"], "public_ipv4": null,
        "name_servers": ["100.100.2.136"], "ntp_servers": [], "region": "cn-hangzhou", "zone": "cn-hangzhou-h",
        "owner": "1", "forwards_dns": false, "instance": instance,
    })
}

fn instance(id: &str, enis: &[&str], changes: &Value) -> Value {
    let mut instance = json!({
        "id": id, "name": id, "host_name": "web", "instance_type": "ecs.g7.large", "image": "debian", "serial_number": "7",
        "enis": enis, "tags": {"team": "red", "a/b": "hidden"}, "public_keys": {"kp": "ssh-ed25519 AAAA"},         "user_data": "I2Nsb3VkLWNvbmZpZwo=", "has_metadata": true, "needs_token": false, "put_response_hop_limit": null,
    });
    instance.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    instance
}

fn enter(directory: &mut GuestDirectory, line: Value) {
    directory.enter(serde_json::from_value(line).unwrap());
}

fn directory() -> GuestDirectory {
    let mut directory = GuestDirectory::default();
    enter(&mut directory, json!({"begin": {"token_key": "5a".repeat(32)}}));
    let of_two = |changes: Value| instance("i-1", &["eni-1", "eni-2"], &changes);
    let records = [
        ("eni-1", record("vpc-1", "02:00:00:00:00:01", "10.0.1.10", &of_two(json!({})))),
        ("eni-2", record("vpc-1", "02:00:00:00:00:02", "10.0.1.11", &of_two(json!({})))),
        (
            "eni-3",
            record(
                "vpc-2",
                "02:00:00:00:00:03",
                "10.0.1.10",
                &instance("i-3", &["eni-3"], &json!({"needs_token": true, "put_response_hop_limit": 2})),
            ),
        ),
        ("eni-4", record("vpc-1", "02:00:00:00:00:04", "10.0.1.12", &Value::Null)),
        (
            "eni-5",
            record(
                "vpc-1",
                "02:00:00:00:00:05",
                "10.0.1.13",
                &instance("i-5", &["eni-5"], &json!({"has_metadata": false, "host_name": ""})),
            ),
        ),
    ];
    for (eni, record) in records {
        enter(&mut directory, json!({"record": {"eni": eni, "record": record}}));
    }
    enter(&mut directory, json!({"complete": {}}));
    directory
}

fn asker(vpc: &str, eni: &str) -> Asker {
    Asker { vpc: vpc.into(), eni: eni.into() }
}

/// The status and the body of the reply to a request with this head.
fn ask(directory: &GuestDirectory, who: (&str, &str), head: &str) -> (u16, String) {
    let input = format!("{}\r\nHost: 100.100.100.200\r\n\r\n", head.replace('|', "\r\n"));
    let Reaction::Reply { consumed, bytes, .. } =
        metadata::react(directory, &asker(who.0, who.1), input.as_bytes(), NOW_S)
    else {
        panic!("the request is whole: {input}");
    };
    assert_eq!(consumed, input.len());
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())) || input.starts_with("HEAD"), "{head}");
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn read(directory: &GuestDirectory, who: (&str, &str), path: &str) -> (u16, String) {
    ask(directory, who, &format!("GET {path} HTTP/1.1"))
}

const FIRST: (&str, &str) = ("vpc-1", "eni-1");

#[test]
fn a_guest_reads_what_its_record_says() {
    let directory = directory();
    for (path, text) in [
        ("/", "2014-05-26\n2016-01-01\nlatest"),
        ("/latest/", "dynamic/\nmeta-data/\nuser-data"),
        ("/latest/meta-data/instance-id", "i-1"),
        ("/2016-01-01/meta-data/hostname/", "web"),
        ("/latest/meta-data/public-keys/kp/openssh-key", "ssh-ed25519 AAAA"),
        ("/latest/meta-data/tags/instance/", "team"),
        ("/latest/meta-data/network/interfaces/macs/", "02:00:00:00:00:01/\n02:00:00:00:00:02/"),
        ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:02/network-interface-id", "eni-2"),
        ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/vpc-ipv6-cidr-blocks", "[2001:db8::/56]"),
        ("/latest/user-data", "#cloud-config\n"),
        ("/latest/meta-data/instance-id?x=1", "i-1"),
    ] {
        assert_eq!(read(&directory, FIRST, path), (200, text.into()), "{path}");
    }
    assert_eq!(ask(&directory, FIRST, "HEAD /latest/meta-data/mac HTTP/1.1"), (200, String::new()));
    // Every name that a list has leads to something.
    let mut folders = vec!["/latest/meta-data/".to_owned(), "/latest/dynamic/".to_owned()];
    while let Some(folder) = folders.pop() {
        let (status, list) = read(&directory, FIRST, &folder);
        assert!(status == 200 && !list.is_empty(), "{folder}");
        for name in list.lines() {
            let path = format!("{folder}{name}");
            assert_eq!(read(&directory, FIRST, &path).0, 200, "{path}");
            folders.extend(name.ends_with('/').then_some(path));
        }
    }
    let bare = ("vpc-1", "eni-4");
    assert_eq!(read(&directory, bare, "/latest/meta-data/instance-id"), (200, "eni-4".into()));
    assert_eq!(read(&directory, bare, "/latest/user-data").0, 404);
    for path in
        ["/latest/meta-data/none", "/latest/meta-data/mac/x", "/2000-01-01/", "/latest/api", "/latest/user-data/x"]
    {
        assert_eq!(read(&directory, FIRST, path).0, 404, "{path}");
    }
}

#[test]
fn who_asks_decides_and_no_address_does() {
    let directory = directory();
    assert_eq!(read(&directory, ("vpc-1", "eni-5"), "/latest/").0, 403, "it has no metadata");
    // A record of another VPC than the one that the port is in now, and an ENI that nobody has told of.
    for who in [("vpc-2", "eni-1"), ("vpc-1", "eni-9")] {
        assert_eq!(read(&directory, who, "/latest/meta-data/instance-id").0, 503);
    }
    assert_eq!(read(&GuestDirectory::default(), FIRST, "/").0, 503);
    let forwarded = "GET /latest/ HTTP/1.1|X-Forwarded-For: 10.0.1.10";
    assert_eq!(ask(&directory, FIRST, forwarded).0, 403);
}

#[test]
fn a_token_is_needed_where_the_instance_says_so() {
    let directory = directory();
    let (who, path) = (("vpc-2", "eni-3"), "/latest/meta-data/instance-id");
    assert_eq!(read(&directory, who, path).0, 401);
    let put = "PUT /latest/api/token HTTP/1.1|x-aliyun-ecs-metadata-token-ttl-seconds: 60";
    let (status, token) = ask(&directory, who, put);
    assert_eq!(status, 200);
    let with =
        |who, token: &str| ask(&directory, who, &format!("GET {path} HTTP/1.1|X-Aliyun-ECS-Metadata-Token: {token}"));
    assert_eq!(with(who, &token), (200, "i-3".into()));
    // Where none is needed, a wrong one is refused all the same.
    assert_eq!(with(FIRST, &token).0, 401);
    for ttl in ["0", "21601", "", "-5", "6e1"] {
        let put = format!("PUT /latest/api/token HTTP/1.1|X-aliyun-ecs-metadata-token-ttl-seconds: {ttl}");
        assert_eq!(ask(&directory, who, &put).0, 400, "{ttl}");
    }
    assert_eq!(ask(&directory, who, "PUT /latest/api/token HTTP/1.1").0, 400);
    assert_eq!(ask(&directory, who, "GET /latest/api/token HTTP/1.1").0, 405);
    let input = format!("{}\r\n\r\n", put.replace('|', "\r\n"));
    let reaction = metadata::react(&directory, &asker(who.0, who.1), input.as_bytes(), NOW_S);
    assert!(matches!(reaction, Reaction::Reply { hop_limit: Some(2), .. }));
}

#[test]
fn what_is_no_request_is_refused_and_ends_the_connection() {
    let (directory, who) = (directory(), asker(FIRST.0, FIRST.1));
    let react = |input: &[u8]| metadata::react(&directory, &who, input, NOW_S);
    let whole = b"GET /latest/ HTTP/1.1\r\nHost: x\r\n\r\n";
    for length in 0..whole.len() {
        assert_eq!(react(&whole[..length]), Reaction::Wait);
    }
    let long = format!("GET /latest/ HTTP/1.1\r\nX: {}", "y".repeat(5000));
    let many = format!("GET /latest/ HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(40));
    for (input, status) in [
        ("\0\0\0\r\n\r\n", "400"),
        ("GET http://other/ HTTP/1.1\r\n\r\n", "400"),
        ("POST /latest/ HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "413"),
        ("GET /latest/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "413"),
        (&long, "431"),
        (&many, "431"),
    ] {
        let Reaction::Reply { consumed, bytes, closes, .. } = react(input.as_bytes()) else { panic!("{input}") };
        assert!(closes && consumed == input.len() && bytes[9..].starts_with(status.as_bytes()), "{input}");
    }
    // Two requests at once: one reply, and the other one waits.
    let two = [whole.as_slice(), whole].concat();
    assert!(matches!(react(&two), Reaction::Reply { consumed, closes: false, .. } if consumed == whole.len()));
    let old = b"GET /latest/ HTTP/1.0\r\n\r\n";
    assert!(matches!(react(old), Reaction::Reply { closes: true, .. }));
}

#[test]
fn records_that_are_not_sent_again_are_gone() {
    let mut directory = directory();
    enter(&mut directory, json!({"begin": {"token_key": "5a".repeat(32)}}));
    let record = record("vpc-1", "02:00:00:00:00:01", "10.0.1.99", &Value::Null);
    enter(&mut directory, json!({"record": {"eni": "eni-1", "record": record}}));
    // Until all have been sent, the others are as they were.
    assert_eq!(read(&directory, ("vpc-1", "eni-4"), "/latest/").0, 200);
    enter(&mut directory, json!({"complete": {}}));
    assert_eq!(read(&directory, ("vpc-1", "eni-4"), "/latest/").0, 503);
    assert_eq!(read(&directory, FIRST, "/latest/meta-data/private-ipv4"), (200, "10.0.1.99".into()));
    enter(&mut directory, json!({"record": {"eni": "eni-1", "record": null}}));
    assert_eq!(read(&directory, FIRST, "/latest/").0, 503);
}

fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn answer(directory: &GuestDirectory, who: (&str, &str), message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let reply =
        dns::answer(directory, &asker(who.0, who.1), &bytes, dns::DnsTransport::Datagram, true).into_reply().unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!((reply.metadata.id, &reply.queries), (message.metadata.id, &message.queries));
    reply
}

#[test]
fn names_and_addresses_are_those_of_the_asker_s_vpc() {
    let directory = directory();
    let look_up = |who, name: &str, record_type| {
        let reply = answer(&directory, who, &question(name, record_type));
        let data = reply.answers.iter().map(|record| record.data.to_string()).collect::<Vec<_>>();
        (reply.metadata.response_code, data)
    };
    let found = |data: &[&str]| (ResponseCode::NoError, data.iter().map(ToString::to_string).collect::<Vec<_>>());
    let none = |code| (code, Vec::new());
    let second = ("vpc-2", "eni-3");
    assert_eq!(look_up(FIRST, "WEB.vpc-1.Sluice.", RecordType::A), found(&["10.0.1.10"]));
    assert_eq!(look_up(FIRST, "i-1.vpc-1.sluice.", RecordType::AAAA), found(&["2001:db8::10"]));
    assert_eq!(look_up(FIRST, "eni-2.vpc-1.sluice.", RecordType::A), found(&["10.0.1.11"]));
    assert_eq!(look_up(FIRST, "eni-4.vpc-1.sluice.", RecordType::MX), found(&[]));
    assert_eq!(look_up(second, "web.vpc-2.sluice.", RecordType::A), found(&["10.0.1.10"]));
    assert_eq!(look_up(FIRST, "11.1.0.10.in-addr.arpa.", RecordType::PTR), found(&["eni-2.vpc-1.sluice."]));
    assert_eq!(look_up(second, "10.1.0.10.in-addr.arpa.", RecordType::PTR), found(&["web.vpc-2.sluice."]));
    for name in ["i-3.vpc-1.sluice.", "web.vpc-2.sluice.", "a.web.vpc-1.sluice.", "200.1.0.10.in-addr.arpa."] {
        assert_eq!(look_up(FIRST, name, RecordType::A), none(ResponseCode::NXDomain), "{name}");
    }
    for name in ["example.com.", "sluice.example.", "1.2.0.192.in-addr.arpa.", "."] {
        assert_eq!(look_up(FIRST, name, RecordType::A), none(ResponseCode::Refused), "{name}");
    }
    for record_type in [RecordType::ANY, RecordType::AXFR] {
        assert_eq!(look_up(FIRST, "web.vpc-1.sluice.", record_type), none(ResponseCode::Refused));
    }
    assert_eq!(look_up(("vpc-1", "eni-9"), "web.vpc-1.sluice.", RecordType::A), none(ResponseCode::ServFail));
}

#[test]
fn a_reply_is_no_longer_than_the_question_allows() {
    let mut directory = directory();
    let mut many = record("vpc-1", "02:00:00:00:00:06", "10.0.1.66", &Value::Null);
    many["ipv6"] = (0..200).map(|number| format!("2001:db8::1:{number:x}")).collect();
    enter(&mut directory, json!({"record": {"eni": "eni-6", "record": many}}));
    let mut message = question("eni-6.vpc-1.sluice.", RecordType::AAAA);
    let length = |message: &Message, transport| {
        let bytes = message.to_vec().unwrap();
        let reply = dns::answer(&directory, &asker("vpc-1", "eni-1"), &bytes, transport, true).into_reply().unwrap();
        (reply.len(), Message::from_vec(&reply).unwrap())
    };
    let (bytes, reply) = length(&message, dns::DnsTransport::Datagram);
    assert!(bytes <= 512 && reply.metadata.truncation, "{bytes}");
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    let (bytes, reply) = length(&message, dns::DnsTransport::Datagram);
    assert!(bytes <= dns::DATAGRAM_BYTES_MAX && reply.metadata.truncation, "{bytes}");
    let (_, reply) = length(&message, dns::DnsTransport::Connection);
    assert!(!reply.metadata.truncation && reply.answers.len() == 200);
    assert!(matches!(reply.answers[0].data, RData::AAAA(_)));
}

#[test]
fn what_is_no_question_gets_no_reply_and_what_is_malformed_an_error() {
    let directory = directory();
    let who = asker("vpc-1", "eni-1");
    let reply = |bytes: &[u8]| dns::answer(&directory, &who, bytes, dns::DnsTransport::Datagram, true).into_reply();
    let whole = question("web.vpc-1.sluice.", RecordType::A).to_vec().unwrap();
    assert_eq!(reply(&whole[..11]), None);
    let code = |bytes: &[u8]| Message::from_vec(&reply(bytes).unwrap()).unwrap().metadata.response_code;
    assert_eq!(code(&whole[..20]), ResponseCode::FormErr);
    let mut a_reply = whole.clone();
    a_reply[2] |= 0x80;
    assert_eq!(reply(&a_reply), None);
    let mut update = whole.clone();
    update[2] = 5 << 3;
    assert!(matches!(code(&update), ResponseCode::NotImp | ResponseCode::FormErr));
    let over = dns::answer(&directory, &who, &whole, dns::DnsTransport::Datagram, false).into_reply().unwrap();
    assert_eq!(Message::from_vec(&over).unwrap().metadata.response_code, ResponseCode::Refused);
}
