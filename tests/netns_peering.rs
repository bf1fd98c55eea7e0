//! Two VPCs that are peers, between real kernels.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::RunningSluice;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// The guests, with their addresses of both families.
const GUESTS: [(&str, [&str; 2]); 2] =
    [("a", ["10.1.1.10", "2001:db8:1:1::10"]), ("b", ["10.2.1.10", "2001:db8:2:1::10"])];

/// A VPC, a subnet and a group for each guest, which lets in all that comes from the other's VPC.
fn lab_file() -> String {
    let mut lab = String::from("peering = [{ id = \"pcc-1\", vpc = \"vpc-1\", peer = \"vpc-2\" }]\n");
    for (number, peer, (guest, [address, address_v6])) in [(1, 2, GUESTS[0]), (2, 1, GUESTS[1])] {
        lab += &format!(
            r#"
            [[vpc]]
            id = "vpc-{number}"
            cidr = "10.{number}.0.0/16"
            ipv6_cidr = "2001:db8:{number}::/56"
            [[vswitch]]
            id = "vsw-{number}"
            vpc = "vpc-{number}"
            cidr = "10.{number}.1.0/24"
            ipv6_cidr = "2001:db8:{number}:1::/64"
            [[group]]
            id = "sg-{number}"
            vpc = "vpc-{number}"
            ingress = [
                {{ id = "sgr-{number}", protocol = "all", cidr = "10.{peer}.0.0/16" }},
                {{ id = "sgr-{number}-v6", protocol = "all", ipv6_cidr = "2001:db8:{peer}::/56" }},
            ]
            [[eni]]
            id = "eni-{guest}"
            vswitch = "vsw-{number}"
            ip = "{address}"
            ipv6_addresses = ["{address_v6}"]
            groups = ["sg-{number}"]
            namespace = "@-{guest}"
            "#
        );
    }
    lab
}

struct PeeringLab {
    running: RunningSluice,
}

impl PeeringLab {
    fn new(workers: usize) -> Option<Self> {
        Some(Self { running: RunningSluice::start_lab(workers, &lab_file(), &[])? })
    }

    fn sluice(&self, line: &str) {
        let said = self.running.sluice_line(line);
        assert!(said.contains("in force"), "{line}: {said}");
    }

    fn pings(&self, from: &str, to: &str) -> bool {
        self.running.inside(from, &["ping", "-q", "-c", "1", "-W", "20", to]).status.success()
    }

    /// A connection and its other end.
    fn connect(&self, from: &str, at: &str, address: &str) -> std::io::Result<[TcpStream; 2]> {
        let target: SocketAddr = (address.parse::<std::net::IpAddr>().unwrap(), 5000).into();
        let listener = self.running.within(at, || TcpListener::bind(target));
        let connect = || Ok(TcpStream::connect_timeout(&target, Duration::from_secs(3)));
        let client = self.running.within(from, connect)?;
        let (server, _) = listener.accept()?;
        Ok([client, server])
    }
}

/// Whether what one end sends arrives at the other within this time.
fn arrives(one: &TcpStream, other: &TcpStream, patience: Duration) -> bool {
    let (mut one, mut other) = (one, other);
    other.set_read_timeout(Some(patience)).unwrap();
    let mut byte = [0];
    one.write_all(b"!").is_ok() && other.read_exact(&mut byte).is_ok()
}

/// How long to wait for what has to come, and for what must not.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(700);

#[test]
fn peers_reach_each_other_both_ways_until_a_rule_or_nothing_lets_them() {
    for workers in [1, 2] {
        let Some(lab) = PeeringLab::new(workers) else { return };
        let mut connections = Vec::new();
        for [(from, _), (to, addresses)] in [GUESTS, [GUESTS[1], GUESTS[0]]] {
            for address in addresses {
                assert!(lab.pings(from, address), "{from} to {address}");
                let [client, server] = lab.connect(from, to, address).unwrap();
                assert!(arrives(&client, &server, LONG) && arrives(&server, &client, LONG), "{from} to {address}");
                connections.push((from, [client, server]));
            }
        }
        // A rule that forbids one direction ends what was opened in it, and nothing else.
        lab.sluice("rule add sg-2 ingress --id sgr-no --policy drop --priority 1 --protocol tcp --ports 5000/5000 --peer 10.1.0.0/16");
        assert!(lab.connect("a", "b", "10.2.1.10").is_err(), "it is refused");
        assert!(lab.pings("a", "10.2.1.10"), "and nothing else");
        for (from, [client, server]) in &connections {
            let is_refused = *from == "a" && client.peer_addr().unwrap().is_ipv4();
            let patience = if is_refused { SHORT } else { LONG };
            assert_eq!(arrives(client, server, patience), !is_refused, "{from}: {client:?}");
        }
        lab.sluice("rule revoke sg-2 sgr-no");
        // What TCP has sent meanwhile comes first.
        let [client, server] = &connections[0].1;
        assert!(arrives(client, server, LONG), "the connection goes on");
        // Without the peering, nothing is left of it at once.
        lab.sluice("peering delete pcc-1");
        for (from, [client, server]) in &connections[1..] {
            assert!(!arrives(client, server, SHORT) && !arrives(server, client, SHORT), "{from}: {client:?}");
        }
        for [(from, _), (to, addresses)] in [GUESTS, [GUESTS[1], GUESTS[0]]] {
            for address in addresses {
                let error = lab.connect(from, to, address).unwrap_err();
                assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{from} hears at once that there is no way");
            }
        }
        // And with it again, what TCP has kept arrives.
        lab.sluice("peering create vpc-1 vpc-2");
        let [client, server] = &connections[1].1;
        assert!(arrives(client, server, LONG));
    }
}
