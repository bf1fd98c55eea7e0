//! Guests of the kernel that leave their VPC: the host behind the uplink is a namespace with a kernel of its own, which
//! checks every checksum. Without root the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use running::lab::NamespaceLab;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch_core::config::desired::{Desired, DesiredRule, DesiredUplink, Direction, MatchConditions, Policy, Remote};

/// The namespace of the host behind the uplink.
const HOST: u8 = 9;
const PEER: &str = "198.51.100.7";

/// Two guests of one VPC whose uplink has this port: connections have the router's address, the second guest has the floating
/// 203.0.113.5, and 192.0.2.1 port 8080 leads to port 80 of the first.
fn desired(lab: &NamespaceLab, port: &str, next_hop_mac: &str) -> Desired {
    let mut desired = lab.desired("accept");
    let everybody = ["0.0.0.0/0", "::/0"].map(|prefix| DesiredRule {
        id: prefix.into(),
        direction: Direction::Ingress,
        policy: Policy::Accept,
        priority: 1,
        conditions: MatchConditions::of(Remote::Prefix(prefix.parse().unwrap())),
    });
    desired.groups.values_mut().for_each(|group| group.rules = everybody.to_vec());
    let uplink = format!(
        r#"{{"vpc": "vpc-1", "mac": "02:00:00:00:0f:01", {next_hop_mac} "port": {port},
            "ipv4": {{"address": "192.0.2.1/24", "next_hop": "192.0.2.254"}},
            "ipv6": {{"address": "2001:db8:f::1/64", "next_hop": "2001:db8:f::fe"}},
            "nat": {{"sources": {{"10.9.0.0/24": ["192.0.2.1"]}},
                     "floating": {{"203.0.113.5": {{"eni": "eni-2", "address": "10.9.0.2"}}}},
                     "forwards": [{{"external": "192.0.2.1", "protocol": 6, "ports": {{"first": 8080, "last": 8080}},
                                    "to": {{"eni": "eni-1", "address": "10.9.0.1"}}, "port": 80}}]}}}}"#
    );
    let uplink: DesiredUplink = serde_json::from_str(&uplink).unwrap();
    desired.uplinks.insert("upl-1".into(), uplink);
    desired
}

/// A TAP that the switch makes and configures in the host's namespace.
fn host_tap(lab: &NamespaceLab) -> Desired {
    let namespace = lab.namespace(HOST);
    let port = format!(r#"{{"kind": "tap", "device": "up0", "namespace": "{namespace}", "create_namespace": true}}"#);
    desired(lab, &port, r#""next_hop_mac": "02:00:00:00:0f:fe","#)
}

/// The host gets the address of somebody outside, as if it were the Internet.
fn be_outside(lab: &NamespaceLab) {
    for command in [format!("ip addr add {PEER}/32 dev lo"), "ip addr add 2001:db8:ffff::7/128 dev lo nodad".into()] {
        assert!(lab.run(HOST, &command).1, "{command}");
    }
}

/// A connection from one namespace to another carries what is sent, both ways. Whom the listener saw.
fn connects(lab: &NamespaceLab, from: u8, to: u8, listen: &str, connect: &str) -> SocketAddr {
    const BYTES: usize = 300_000;
    let listener = namespace::within(&lab.namespace(to), || TcpListener::bind(listen)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = connect.replace("PORT", &port.to_string());
    let client = namespace::within(&lab.namespace(from), || TcpStream::connect(&connect)).unwrap();
    let (server, seen) = listener.accept().unwrap();
    let sent: Vec<u8> = (0..BYTES).map(|number| (number % 251) as u8).collect();
    for (one, mut other) in [(&client, &server), (&server, &client)] {
        let (mut writer, bytes) = (one.try_clone().unwrap(), sent.clone());
        let thread = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        let mut got = vec![0; BYTES];
        other.read_exact(&mut got).unwrap();
        thread.join().unwrap();
        assert!(got == sent, "{from} to {connect}");
    }
    seen
}

fn ip(address: SocketAddr) -> String {
    address.ip().to_string()
}

#[test]
fn guests_reach_the_outside_and_the_outside_reaches_what_it_may() {
    for workers in [1, 2] {
        let Some(mut lab) = NamespaceLab::new(&format!("uplink{workers}"), workers) else { return };
        let applied = lab.apply(host_tap(&lab));
        assert!(applied.ports_down.is_empty(), "{applied:?}");
        be_outside(&lab);
        for target in [PEER, "2001:db8:ffff::7", "192.0.2.254"] {
            assert!(lab.ping(target), "{target} with {workers} workers");
        }
        assert_eq!(ip(connects(&lab, 1, HOST, &format!("{PEER}:0"), &format!("{PEER}:PORT"))), "192.0.2.1");
        assert_eq!(ip(connects(&lab, 2, HOST, &format!("{PEER}:0"), &format!("{PEER}:PORT"))), "203.0.113.5");
        assert_eq!(ip(connects(&lab, HOST, 2, "0.0.0.0:0", "203.0.113.5:PORT")), "192.0.2.254");
        assert_eq!(ip(connects(&lab, HOST, 1, "0.0.0.0:80", "192.0.2.1:8080")), "192.0.2.254");
        assert_eq!(ip(connects(&lab, 1, 2, "0.0.0.0:0", "203.0.113.5:PORT")), "192.0.2.1", "hairpin");
        let (v6, peer) = ("[2001:db8:ffff::7]:0", "[2001:db8:ffff::7]:PORT");
        assert_eq!(ip(connects(&lab, 1, HOST, v6, peer)), "2001:db8::1", "IPv6 is not translated");
        assert_eq!(ip(connects(&lab, HOST, 2, "[::]:0", "[2001:db8::2]:PORT")), "2001:db8:f::fe");
        datagrams_pass_in_parts(&lab);
        assert!(lab.run(HOST, "ping -c 1 -W 2 192.0.2.1").1, "the router has its address");
        // Without the uplink nothing leaves, and the guest hears so at once.
        let mut closed = host_tap(&lab);
        closed.uplinks.clear();
        lab.apply(closed);
        let (text, reached) = lab.run(1, &format!("ping -c 1 -W 5 {PEER}"));
        assert!(!reached && text.contains("Unreachable"), "{text}");
    }
}

/// Datagrams longer than the MTU, from inside and back.
fn datagrams_pass_in_parts(lab: &NamespaceLab) {
    let server = namespace::within(&lab.namespace(HOST), || UdpSocket::bind((PEER, 5353))).unwrap();
    let client = namespace::within(&lab.namespace(1), || UdpSocket::bind("0.0.0.0:0")).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    }
    let sent: Vec<u8> = (0..5000).map(|number| (number % 253) as u8).collect();
    client.send_to(&sent, (PEER, 5353)).unwrap();
    let mut got = vec![0; 8000];
    let (length, from) = server.recv_from(&mut got).unwrap();
    assert_eq!((&got[..length], ip(from).as_str()), (sent.as_slice(), "192.0.2.1"));
    server.send_to(&sent, from).unwrap();
    let (length, from) = client.recv_from(&mut got).unwrap();
    assert_eq!((&got[..length], ip(from).as_str()), (sent.as_slice(), PEER));
}

#[test]
fn reports_of_a_router_outside_reach_the_guest() {
    let Some(mut lab) = NamespaceLab::new("uplinkmtu", 1) else { return };
    lab.apply(host_tap(&lab));
    // Behind the host is a link that takes less.
    for command in [
        "ip link add far0 type veth peer name far1",
        "ip link set far0 mtu 1300 up",
        "ip link set far1 mtu 1300 up",
        "ip addr add 198.18.0.1/24 dev far0",
        "sysctl -qw net.ipv4.ip_forward=1",
        "ip neigh add 198.18.0.2 lladdr 02:00:00:00:00:77 dev far0",
    ] {
        assert!(lab.run(HOST, command).1, "{command}");
    }
    let (text, _) = lab.run(1, "ping -c 2 -W 1 -M do -s 1400 198.18.0.2");
    assert!(text.contains("mtu=1300") || text.contains("mtu = 1300"), "{text}");
    let (text, _) = lab.run(1, "ping -c 1 -W 5 -t 1 198.18.0.2");
    assert!(text.contains("From 10.9.0.253") && text.contains("Time to live exceeded"), "the first hop: {text}");
    let (text, _) = lab.run(1, "ping -c 1 -W 5 -t 2 198.18.0.2");
    assert!(text.contains("From 192.0.2.254") && text.contains("Time to live exceeded"), "the second: {text}");
}

#[test]
fn the_next_hop_behind_an_interface_is_found() {
    let Some(mut lab) = NamespaceLab::new("uplinkarp", 1) else { return };
    namespace::ensure(&lab.namespace(HOST), &RunDir::default()).unwrap();
    for command in [
        "ip link add port0 type veth peer name up0",
        "ip link set lo up",
        "ip link set port0 up",
        "ip link set up0 up",
        "ip addr add 192.0.2.254/24 dev up0",
        "ip addr add 2001:db8:f::fe/64 dev up0 nodad",
        "ip route add 203.0.113.0/24 dev up0",
        "ip route add 2001:db8::/64 dev up0",
    ] {
        assert!(lab.run(HOST, command).1, "{command}");
    }
    be_outside(&lab);
    let port = format!(r#"{{"kind": "packet", "device": "port0", "namespace": "{}"}}"#, lab.namespace(HOST));
    let applied = lab.apply(desired(&lab, &port, ""));
    assert!(applied.ports_down.is_empty(), "{applied:?}");
    let started = std::time::Instant::now();
    while !lab.ping(PEER) || !lab.ping("2001:db8:ffff::7") {
        assert!(started.elapsed().as_secs() < 60, "the next hop is asked for");
    }
    assert_eq!(ip(connects(&lab, 1, HOST, &format!("{PEER}:0"), &format!("{PEER}:PORT"))), "192.0.2.1");
    assert_eq!(
        ip(connects(&lab, HOST, 2, "0.0.0.0:0", "203.0.113.5:PORT")),
        "192.0.2.254",
        "the router answers for it"
    );
    assert_eq!(ip(connects(&lab, HOST, 2, "[::]:0", "[2001:db8::2]:PORT")), "2001:db8:f::fe");
    lab.apply(Desired::default());
    namespace::remove_if_made(&lab.namespace(HOST), &RunDir::default()).unwrap();
}

#[test]
fn a_connection_outlives_more_and_fewer_workers() {
    use vswitch_core::config::protocol::{RequestBody, SwitchReplyBody};
    let Some(mut lab) = NamespaceLab::new("uplinkmove", 1) else { return };
    lab.apply(host_tap(&lab));
    be_outside(&lab);
    let listener = namespace::within(&lab.namespace(HOST), || TcpListener::bind((PEER, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let client = namespace::within(&lab.namespace(1), || TcpStream::connect(target)).unwrap();
    let (server, _) = listener.accept().unwrap();
    for workers in [2, 3, 1] {
        let reply = lab.client.ask(RequestBody::Regroup { workers, lanes: None });
        assert!(!matches!(reply, SwitchReplyBody::Refused { .. }), "{reply:?}");
        for (mut one, mut other) in [(&client, &server), (&server, &client)] {
            one.write_all(b"still here").unwrap();
            let mut got = [0; 10];
            other.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"still here", "{workers} workers");
        }
    }
}

#[test]
fn a_revoked_rule_ends_a_translated_connection_at_once() {
    let Some(mut lab) = NamespaceLab::new("uplinkcut", 2) else { return };
    let open = host_tap(&lab);
    lab.apply(open.clone());
    be_outside(&lab);
    let listener = namespace::within(&lab.namespace(1), || TcpListener::bind("0.0.0.0:80")).unwrap();
    let mut client = namespace::within(&lab.namespace(HOST), || TcpStream::connect("192.0.2.1:8080")).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut got = [0; 2];
    client.write_all(b"in").unwrap();
    server.read_exact(&mut got).unwrap();
    let mut closed = open;
    for group in closed.groups.values_mut() {
        group.rules.iter_mut().filter(|rule| rule.direction == Direction::Ingress).for_each(|rule| {
            rule.policy = Policy::Drop;
        });
    }
    lab.apply(closed);
    client.write_all(b"no").unwrap();
    server.set_read_timeout(Some(std::time::Duration::from_millis(700))).unwrap();
    assert!(server.read_exact(&mut got).is_err(), "nothing comes in by the old rules");
}
