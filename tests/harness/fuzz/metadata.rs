//! What guests send to the services process: whatever it is, a reply is about the guest alone, whole, and bounded.

use serde_json::json;
use services::directory::{Asker, GuestDirectory};
use services::tcp::Reaction;
use services::{dns, metadata};

/// What no guest but that of `eni-other` may be told.
const SECRET: &str = "only-for-the-other";

fn directory() -> GuestDirectory {
    let record = |vpc: &str, mac: &str, id: &str, text: &str| {
        json!({
            "vpc": vpc, "vpc_blocks": ["10.0.0.0/16"], "vswitch": "vsw-1", "ipv4_block": "10.0.1.0/24",
            "ipv6_block": null, "ipv4_gateway": "10.0.1.253", "ipv6_gateway": null, "mac": mac, "ipv4": ["10.0.1.10"],
            "ipv6": [], "public_ipv4": null, "name_servers": [], "ntp_servers": [], "region": "r", "zone": "z", "owner": text,
            "forwards_dns": false,
            "instance": {
                "id": id, "name": text, "host_name": "web", "instance_type": "t", "image": "i", "serial_number": text,
                "enis": [if vpc == "vpc-1" { "eni-own" } else { "eni-other" }], "tags": {"k": text},
                "public_keys": {"kp": text}, "user_data": text, "has_metadata": true,
                "needs_token": false, "put_response_hop_limit": null,
            },
        })
    };
    let mut directory = GuestDirectory::default();
    let mut enter = |line| directory.enter(serde_json::from_value(line).expect("a line of this version"));
    enter(json!({"begin": {"token_key": "5a".repeat(32)}}));
    let own = record("vpc-1", "02:00:00:00:00:01", "i-own", "own");
    enter(json!({"record": {"eni": "eni-own", "record": own}}));
    let other = record("vpc-2", "02:00:00:00:00:02", "i-other", SECRET);
    enter(json!({"record": {"eni": "eni-other", "record": other}}));
    enter(json!({"complete": {}}));
    directory
}

fn own() -> Asker {
    Asker { vpc: "vpc-1".into(), eni: "eni-own".into() }
}

fn is_about_other(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
}

/// The bytes of a connection to the metadata service. A line that begins with a path stands for a request for it.
pub fn http(bytes: &[u8]) {
    const REPLIES_MAX: usize = 64;
    let directory = directory();
    let request = match std::str::from_utf8(bytes) {
        Ok(text) if text.starts_with('/') => format!("GET {} HTTP/1.1\r\n\r\n", text.trim_end()).into_bytes(),
        _ => bytes.to_vec(),
    };
    let mut rest = request.as_slice();
    for _ in 0..REPLIES_MAX {
        let Reaction::Reply { consumed, bytes, closes, .. } = metadata::react(&directory, &own(), rest, 1_700_000_000)
        else {
            // Nobody waits for more than a request may have.
            return assert!(rest.len() < services::http::HEAD_BYTES_MAX);
        };
        assert!((1..=rest.len()).contains(&consumed), "a reply answers something");
        assert!(bytes.starts_with(b"HTTP/1.1 ") && bytes.windows(4).any(|part| part == b"\r\n\r\n"));
        assert!(!is_about_other(&bytes), "{}", String::from_utf8_lossy(&bytes));
        if closes || consumed == rest.len() {
            return;
        }
        rest = &rest[consumed..];
    }
}

/// A message to a name server, over both transports.
pub fn dns(bytes: &[u8]) {
    let directory = directory();
    if let Some(reply) = dns::answer(&directory, &own(), bytes, dns::DnsTransport::Datagram, true).into_reply() {
        assert!(reply.len() <= dns::DATAGRAM_BYTES_MAX, "{} bytes", reply.len());
        assert!(reply[..2] == bytes[..2] && reply[2] & 0x80 != 0, "a reply to this question");
        assert_eq!(
            dns::answer(&directory, &own(), &reply, dns::DnsTransport::Datagram, true),
            dns::Outcome::Nothing,
            "which ends there"
        );
    }
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let framed = [length.to_be_bytes().as_slice(), bytes].concat();
    if let Reaction::Reply { consumed, bytes, .. } = dns::react(&directory, &own(), &framed, || true, |_| None) {
        assert!(consumed <= framed.len());
        if let Some((length, rest)) = bytes.split_first_chunk::<2>() {
            assert_eq!(usize::from(u16::from_be_bytes(*length)), rest.len());
        }
    }
}
