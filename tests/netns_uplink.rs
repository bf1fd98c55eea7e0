//! The way out of a VPC, as somebody at the command line sees it: in namespaces of the test, one command leads from a fresh
//! VPC to a server outside, and what it made goes with it.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::{Namespace, RunningSluice, eventually};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

const LAB: &str = r#"
    vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16" }]
    vswitch = [{ id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24" }]
    [[group]]
    id = "sg-1"
    vpc = "vpc-1"
    ingress = [{ protocol = "tcp", ports = "80/80", cidr = "203.0.113.0/24" }]
    [[eni]]
    id = "eni-a"
    vswitch = "vsw-1"
    ip = "10.0.1.10"
    groups = ["sg-1"]
    namespace = "@-a"
"#;

/// The server outside, which knows no way to anybody but its own link.
const SERVER: &str = "203.0.113.9";
/// The machine's address on that link.
const MACHINE: &str = "203.0.113.1";

/// A running Sluice, and two namespaces of the test: `machine`, whose kernel is to be the next hop, and `server`.
struct OutsideLab {
    running: RunningSluice,
    _namespaces: [Namespace; 2],
}

impl OutsideLab {
    fn new() -> Option<Self> {
        let outside = Self::without_uplink()?;
        let machine = outside.running.namespace("machine");
        let create = format!("uplink create --id upl-1 --vpc vpc-1 --namespace {machine} --masquerade");
        let said = outside.sluice(&create);
        assert!(!said.contains("WARNING"), "{said}");
        Some(outside)
    }

    /// Both namespaces, and no way there.
    fn without_uplink() -> Option<Self> {
        let running = RunningSluice::start_lab(1, LAB, &["nft"])?;
        let namespaces = ["machine", "server"].map(|name| Namespace::make(running.namespace(name)));
        let outside = Self { running, _namespaces: namespaces };
        outside.join("machine", "server");
        Some(outside)
    }

    /// Makes the link between both.
    fn join(&self, machine: &str, server: &str) {
        let namespace = self.running.namespace(server);
        self.succeeds(machine, &format!("ip link add out type veth peer name in netns {namespace}"));
        self.succeeds(machine, &format!("ip address add {MACHINE}/24 dev out"));
        self.succeeds(machine, "ip link set out up");
        self.succeeds(machine, &format!("ip route add default via {SERVER}"));
        self.succeeds(server, &format!("ip address add {SERVER}/24 dev in"));
        self.succeeds(server, "ip link set in up");
        self.succeeds(server, "ip link set lo up");
    }

    fn inside(&self, place: &str, line: &str) -> Output {
        self.running.inside(place, &line.split(' ').collect::<Vec<_>>())
    }

    fn succeeds(&self, place: &str, line: &str) -> String {
        let output = self.inside(place, line);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        said
    }

    fn sluice(&self, line: &str) -> String {
        self.running.sluice_line(line)
    }

    /// Connects from one place to a server at another, and returns which address the server saw.
    fn connect(&self, from: &str, at: &str, listen: &str, target: &str) -> Option<Ipv4Addr> {
        let (listen, target): (SocketAddr, SocketAddr) = (listen.parse().unwrap(), target.parse().unwrap());
        let listener = self.running.within(at, || TcpListener::bind(listen));
        let connecting = self.running.within(from, || Ok(TcpStream::connect_timeout(&target, Duration::from_secs(3))));
        let mut stream = connecting.ok()?;
        let (mut accepted, peer) = listener.accept().unwrap();
        stream.write_all(b"?").unwrap();
        let mut byte = [0];
        accepted.read_exact(&mut byte).unwrap();
        accepted.write_all(b"!").unwrap();
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"!");
        match peer {
            SocketAddr::V4(peer) => Some(*peer.ip()),
            SocketAddr::V6(_) => None,
        }
    }
}

#[test]
fn one_command_leads_from_a_fresh_vpc_to_a_server_outside() {
    let Some(outside) = OutsideLab::new() else { return };
    let server = format!("{SERVER}:8000");
    let seen = || outside.connect("a", "server", &server, &server);
    assert_eq!(seen(), Some(MACHINE.parse().unwrap()), "the server sees the machine, which masquerades");
    let table = outside.succeeds("machine", "nft list tables");
    assert_eq!(table.trim(), "table inet sluice_upl-1", "one table, and nothing else");
    // Without the table the server has no way back.
    outside.sluice("uplink modify upl-1 --masquerade false");
    assert_eq!(outside.succeeds("machine", "nft list tables"), "");
    assert_eq!(seen(), None);
    outside.sluice("uplink modify upl-1 --masquerade true");
    assert!(seen().is_some());
    outside.sluice("uplink delete upl-1");
    assert_eq!(outside.succeeds("machine", "nft list tables"), "");
    assert_eq!(seen(), None, "without an uplink, nothing leaves");
}

#[test]
fn floating_addresses_and_forwards_lead_to_a_guest_if_its_rules_admit() {
    let Some(outside) = OutsideLab::new() else { return };
    outside.succeeds("server", &format!("ip route add 198.18.0.0/15 via {MACHINE}"));
    outside.succeeds("server", &format!("ip route add 169.254.64.0/18 via {MACHINE}"));
    outside.sluice("uplink modify upl-1 --masquerade false");
    outside.succeeds("machine", "sysctl -qw net.ipv4.ip_forward=1");
    let web = "10.0.1.10:80";
    outside.sluice("eip allocate --id eip-1 --address 198.18.0.7");
    assert_eq!(outside.connect("server", "a", web, "198.18.0.7:80"), None, "it stands for nothing yet");
    outside.sluice("eip associate eip-1 eni-a");
    let seen = outside.connect("server", "a", web, "198.18.0.7:80");
    assert_eq!(seen, Some(SERVER.parse().unwrap()), "the guest and its rules see who is really there");
    assert_eq!(outside.connect("server", "a", "10.0.1.10:81", "198.18.0.7:81"), None, "no rule admits this port");
    let server = format!("{SERVER}:8000");
    assert_eq!(outside.connect("a", "server", &server, &server), Some("198.18.0.7".parse().unwrap()));
    outside.sluice("eip unassociate eip-1");
    assert_eq!(outside.connect("server", "a", web, "198.18.0.7:80"), None);
    outside.sluice("forward add --id fwd-1 --vpc vpc-1 --ports 8080 --to 10.0.1.10 --to-port 80");
    let seen = outside.connect("server", "a", web, "169.254.64.2:8080");
    assert_eq!(seen, Some(SERVER.parse().unwrap()));
    outside.sluice("forward remove fwd-1");
    assert_eq!(outside.connect("server", "a", web, "169.254.64.2:8080"), None);
}

#[test]
fn what_is_masqueraded_is_made_again_at_the_start_and_removed_at_the_end() {
    let Some(mut outside) = OutsideLab::new() else { return };
    outside.succeeds("machine", "nft add table inet other");
    outside.succeeds("machine", "nft delete table inet sluice_upl-1");
    outside.running.restart_violently();
    eventually("the table is there again", || {
        outside.succeeds("machine", "nft list tables").contains("table inet sluice_upl-1")
    });
    outside.sluice("down");
    assert_eq!(outside.succeeds("machine", "nft list tables").trim(), "table inet other", "what is not its own stays");
}

/// The devices of the machine that the tests run on; the macvtap devices of Sluice are there, wherever their lower device is.
fn has_device(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// What the frames of a macvtap device go through.
fn character_device(name: &str) -> std::path::PathBuf {
    let entries = std::fs::read_dir(format!("/sys/class/net/{name}")).unwrap();
    let mut names = entries.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    std::path::Path::new("/dev").join(names.find(|name| name.starts_with("tap")).unwrap())
}

#[test]
fn a_macvtap_uplink_is_on_the_network_of_its_lower_device() {
    let Some(mut outside) = OutsideLab::without_uplink() else { return };
    let machine = outside.running.namespace("machine");
    // Unlike namespaces, it shares its name with what other tests of the machine make.
    let uplink = format!("upl-{}m", std::process::id());
    let create = format!(
        "uplink create --id {uplink} --vpc vpc-1 --kind macvtap --device out --namespace {machine} \
         --address 203.0.113.2/24 --next-hop {SERVER} --addresses 203.0.113.64/26 \
         --ipv6-address 2001:db8:f::2/64 --ipv6-next-hop 2001:db8:f::9"
    );
    outside.sluice(&create);
    outside.succeeds("server", "ip -6 address add 2001:db8:f::9/64 dev in nodad");
    assert!(has_device(&uplink), "{}", outside.sluice("port list"));
    let (web, server) = ("10.0.1.10:80", format!("{SERVER}:8000"));
    let seen = |outside: &OutsideLab| outside.connect("a", "server", &server, &server);
    let own = Some("203.0.113.2".parse().unwrap());
    eventually("the next hop is found", || seen(&outside) == own);
    // Its neighbours ask for it by multicast.
    let ping = "ping -q -c 1 -W 5 2001:db8:f::2";
    eventually("it has an IPv6 address too", || outside.inside("server", ping).status.success());
    // The server has no route to the floating address: it is on its link, and the VPC's router answers for it.
    outside.sluice("eip allocate --id eip-1 --address 203.0.113.70");
    outside.sluice("eip associate eip-1 eni-a");
    let who = outside.connect("server", "a", web, "203.0.113.70:80");
    assert_eq!(who, Some(SERVER.parse().unwrap()), "the guest and its rules see who is really there");
    assert_eq!(outside.connect("server", "a", "10.0.1.10:81", "203.0.113.70:81"), None, "no rule admits this port");
    let floating = Some("203.0.113.70".parse().unwrap());
    assert_eq!(seen(&outside), floating);
    // The kernel that has the device takes no part in it.
    let addresses = Command::new("ip").args(["address", "show", "dev", &uplink]).output().unwrap();
    let addresses = String::from_utf8_lossy(&addresses.stdout).into_owned();
    assert!(addresses.contains(&uplink) && !addresses.contains("inet"), "{addresses}");
    // It goes with its lower device, and comes back with it.
    outside.succeeds("machine", "ip link delete out");
    eventually("it is gone", || !has_device(&uplink));
    outside.join("machine", "server");
    eventually("it is back", || seen(&outside) == floating);
    outside.running.restart_violently();
    eventually("it is taken over", || seen(&outside) == floating);
    // Where nothing makes the character device, what is missing is said, and then it works.
    std::fs::remove_file(character_device(&uplink)).unwrap();
    outside.running.crash("vswitch");
    let mut told = String::new();
    eventually("what is missing is said", || {
        let ports = outside.running.sluice(&["port", "list"]).stdout;
        told = String::from_utf8_lossy(&ports).into_owned();
        told.contains("`mknod ")
    });
    let command = told.split('`').nth(1).unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{told}");
    eventually("it is taken over", || seen(&outside) == floating);
    outside.sluice(&format!("uplink delete {uplink}"));
    assert!(!has_device(&uplink), "what was made goes with the uplink");
    assert_eq!(seen(&outside), None);
}

#[test]
fn a_macvtap_uplink_that_cannot_be_says_what_is_missing() {
    let Some(outside) = OutsideLab::without_uplink() else { return };
    let machine = outside.running.namespace("machine");
    let uplink = format!("upl-{}n", std::process::id());
    let said = outside.sluice(&format!(
        "uplink create --id {uplink} --vpc vpc-1 --kind macvtap --device absent0 --namespace {machine} \
         --address 203.0.113.2/24 --next-hop {SERVER}"
    ));
    let why = format!("macvtap device {uplink} on absent0 in network namespace {machine}: there is no device absent0");
    let ports = outside.sluice("port list");
    assert!(said.contains("WARNING") || said.contains("down"), "{said}");
    assert!(ports.contains(&why), "{ports}");
    outside.sluice(&format!("uplink delete {uplink}"));
    // A device of somebody else is not taken.
    let taken = format!("upl-{}o", std::process::id());
    let made = Command::new("ip").args(["tuntap", "add", &taken, "mode", "tap"]).status().unwrap();
    assert!(made.success());
    outside.sluice(&format!(
        "uplink create --id {taken} --vpc vpc-1 --kind macvtap --device out --namespace {machine} \
         --address 203.0.113.2/24 --next-hop {SERVER}"
    ));
    let ports = outside.sluice("port list");
    outside.sluice(&format!("uplink delete {taken}"));
    let is_left = has_device(&taken);
    Command::new("ip").args(["link", "delete", &taken]).status().unwrap();
    assert!(ports.contains("that the switch did not make"), "{ports}");
    assert!(is_left, "and not removed either");
}
