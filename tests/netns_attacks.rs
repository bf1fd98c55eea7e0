//! What a hostile guest sends, with the tools that are made for it and with frames of its own: its neighbours' kernels notice
//! nothing, and every frame is counted.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::frame::{Ip, TcpSegment, tagged};
use harness::netns::{RunningSluice, eventually};
use harness::random::Random;
use harness::raw_socket::{RawSocket, contains};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use vswitch_core::config::desired::DesiredVpc;
use vswitch_core::config::ids::MacAddress;

/// The attacker (a) and two neighbours of one VPC, and a guest of another VPC with the attacker's addresses (d). Kernels of a
/// and b are as they come: they take what routers advertise.
const LAB: &str = r#"
    vpc = [
        { id = "vpc-1", cidr = "10.0.0.0/16", ipv6_cidr = "2001:db8:1::/56" },
        { id = "vpc-2", cidr = "10.0.0.0/16", ipv6_cidr = "2001:db8:1::/56" },
    ]
    vswitch = [
        { id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24", ipv6_cidr = "2001:db8:1:1::/64" },
        { id = "vsw-2", vpc = "vpc-2", cidr = "10.0.1.0/24", ipv6_cidr = "2001:db8:1:1::/64" },
    ]
    group = [{ id = "sg-1", vpc = "vpc-1" }, { id = "sg-2", vpc = "vpc-2" }]
    eni = [
        { id = "eni-a", vswitch = "vsw-1", ip = "10.0.1.10", ipv6_addresses = ["2001:db8:1:1::10"], groups = ["sg-1"],
          namespace = "@-a", configure = false },
        { id = "eni-b", vswitch = "vsw-1", ip = "10.0.1.20", ipv6_addresses = ["2001:db8:1:1::20"], groups = ["sg-1"],
          namespace = "@-b", configure = false },
        { id = "eni-c", vswitch = "vsw-1", ip = "10.0.1.30", ipv6_addresses = ["2001:db8:1:1::30"], groups = ["sg-1"],
          namespace = "@-c" },
        { id = "eni-d", vswitch = "vsw-2", ip = "10.0.1.10", ipv6_addresses = ["2001:db8:1:1::10"], groups = ["sg-2"],
          namespace = "@-d" },
    ]
"#;

/// A prefix that only the attacker ever names, and how it begins in a frame.
const ROGUE: &str = "2001:db8:bad";
const ROGUE_BYTES: [u8; 6] = [0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad];

struct AttackLab {
    running: RunningSluice,
}

impl AttackLab {
    /// A lab. None, and it says why, where a tool is missing.
    fn new(tool: &str) -> Option<Self> {
        let lab = Self { running: RunningSluice::start_lab(1, LAB, &[tool])? };
        for (guest, number) in [("a", 10), ("b", 20)] {
            lab.succeeds(guest, "ip link set eth0 up");
            lab.succeeds(guest, &format!("ip address add 10.0.1.{number}/24 dev eth0"));
            lab.succeeds(guest, "ip route add default via 10.0.1.253");
            lab.succeeds(guest, &format!("ip -6 address add 2001:db8:1:1::{number}/128 dev eth0 nodad"));
            eventually("the switch's own router is there", || {
                lab.succeeds(guest, "ip -6 route show default").contains("proto ra")
            });
        }
        Some(lab)
    }

    fn succeeds(&self, guest: &str, line: &str) -> String {
        self.running.inside_line(guest, line)
    }

    fn raw(&self, guest: &str) -> RawSocket {
        self.running.within(guest, || RawSocket::open("eth0"))
    }

    /// What a guest's kernel has learnt: addresses, routes and neighbours, without what only counts down.
    fn knowledge(&self, guest: &str) -> Vec<String> {
        let lines =
            |command: &str| -> Vec<String> { self.succeeds(guest, command).lines().map(str::to_owned).collect() };
        let mut all = Vec::new();
        for command in ["ip -o address show dev eth0", "ip -4 route show table all", "ip -6 route show table all"] {
            all.extend(lines(command).into_iter().map(|line| {
                let line = line.split(" expires ").next().unwrap_or_default();
                line.split(" valid_lft ").next().unwrap_or_default().to_owned()
            }));
        }
        // The state of an entry changes as it is used.
        let neighbors = lines("ip neigh show dev eth0").into_iter().filter(|line| line.contains("lladdr"));
        all.extend(neighbors.map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")));
        all.sort();
        all.dedup();
        all
    }

    /// What the switch has counted of a guest's frames, each of which it read from the guest's device once: passed, answered
    /// or dropped.
    fn counted(&self, guest: &str) -> (u64, BTreeMap<String, u64>) {
        let egress = self.running.stats(&format!("eni-{guest}")).egress;
        (egress.packets + egress.answered + egress.drops.values().sum::<u64>(), egress.drops)
    }

    fn sent(&self, guest: &str) -> u64 {
        self.succeeds(guest, "cat /sys/class/net/eth0/statistics/tx_packets").trim().parse().unwrap()
    }

    /// Waits until everything that a guest has sent is counted, and nothing that it has not.
    fn assert_all_counted(&self, guest: &str) {
        eventually("every frame is counted", || {
            let sent = self.sent(guest);
            self.counted(guest).0 == sent && self.sent(guest) == sent
        });
    }
}

/// The attacker's command lines. What does not end by itself is ended after a second.
const THC: &[&str] = &[
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 eth0",
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 -E F eth0",
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 -E H eth0",
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 -E 1 eth0",
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 -E H111 eth0",
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 -E D eth0",
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 -E O eth0",
    "atk6-fake_router26 -A @:1::/64 -R @:2::/48 -D @::53 -n 3 -i 0 -E o eth0",
    "atk6-fake_router26 -A @:1::/64 -D @::53 -n 3 -i 0 -s fe80::ecff:ffff:feff:ffff -S ee:ff:ff:ff:ff:ff eth0",
    // At the neighbour itself, by its own address.
    "atk6-fake_router26 -A @:1::/64 -D @::53 -n 3 -i 0 eth0 2001:db8:1:1::20",
    "atk6-fake_router26 -A @:1::/64 -D @::53 -n 3 -i 0 -E H eth0 2001:db8:1:1::20",
    "atk6-fake_router26 -A @:1::/64 -D @::53 -n 3 -i 0 -E D eth0 2001:db8:1:1::20",
    "atk6-fake_router6 eth0 @:3::/64 @::53",
    "atk6-fake_router6 -H eth0 @:3::/64 @::53",
    "atk6-fake_router6 -F eth0 @:3::/64 @::53",
    "atk6-fake_router6 -D eth0 @:3::/64 @::53",
    "atk6-kill_router6 eth0 fe80::ecff:ffff:feff:ffff",
    "atk6-kill_router6 -H eth0 fe80::ecff:ffff:feff:ffff",
    "atk6-flood_router26 eth0",
    "atk6-flood_router26 -F eth0",
    "atk6-flood_router26 -H -f eth0",
    "atk6-flood_router26 -s -m eth0",
    "atk6-fake_dhcps6 eth0 @:4::/64 @::53",
    "atk6-flood_dhcpc6 eth0",
    "atk6-flood_solicitate6 eth0",
    "atk6-flood_solicitate6 -k eth0 2001:db8:1:1::20 2001:db8:1:1::20",
    "atk6-flood_advertise6 eth0",
    "atk6-flood_advertise6 -k eth0 2001:db8:1:1::20",
    "atk6-flood_rs6 -s eth0",
    "atk6-fake_advertise6 -n 3 -w 0 eth0 fe80::ecff:ffff:feff:ffff 2001:db8:1:1::20",
    "atk6-fake_advertise6 -n 3 -w 0 -r -F eth0 2001:db8:1:1::30 2001:db8:1:1::20",
    "atk6-fake_advertise6 -n 3 -w 0 -H eth0 2001:db8:1:1::30",
    "atk6-fake_advertise6 -n 3 -w 0 -D eth0 2001:db8:1:1::30 2001:db8:1:1::20",
    "atk6-fake_solicitate6 -H eth0 2001:db8:1:1::20 2001:db8:1:1::20",
    "atk6-redir6 eth0 2001:db8:1:1::20 2001:db8:1:1::30 fe80::ecff:ffff:feff:ffff @::1",
    "atk6-fake_mld6 eth0 add ff02::1:ff00:20",
];

/// A round trip each tenth of a second, while something else happens.
fn ping(lab: &AttackLab, address: &str) -> Child {
    let words = ["ping", "-q", "-i", "0.1", "-c", "8", "-W", "30", address];
    lab.running.inside_command("b", &words).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn no_tool_of_thc_ipv6_teaches_a_neighbour_anything() {
    let Some(lab) = AttackLab::new("atk6-fake_router26") else { return };
    // The neighbours that it needs are known before.
    for address in ["10.0.1.30", "2001:db8:1:1::30"] {
        lab.succeeds("b", &format!("ping -q -c 1 -W 30 {address}"));
    }
    lab.assert_all_counted("a");
    let before = lab.knowledge("b");
    assert!(before.iter().any(|line| line.contains("proto ra")), "{before:#?}");
    let arrivals = lab.raw("b");
    let mut heard = 0;
    for line in THC {
        let before_line = lab.running.stats("eni-a").egress;
        let pings = ["10.0.1.30", "2001:db8:1:1::30"].map(|address| ping(&lab, address));
        let words = format!("timeout --signal=KILL 1 {}", line.replace('@', ROGUE));
        // Many of them end with a status of their own, and some only when they are killed.
        lab.running.inside("a", &words.split(' ').collect::<Vec<_>>());
        for ping in pings {
            let output = ping.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("8 received"), "{line}: {said}");
        }
        lab.assert_all_counted("a");
        let after_line = lab.running.stats("eni-a").egress;
        assert_eq!(after_line.packets, before_line.packets, "{line}: something passed");
        // A solicitation of its own for an address that somebody has may be answered.
        let is_asked = after_line.answered > before_line.answered && line.contains("solicit");
        assert!(is_asked || after_line.drops != before_line.drops, "{line}: it sends nothing: {after_line:?}");
        let frames = arrivals.receive();
        assert!(!frames.iter().any(|frame| contains(frame, &ROGUE_BYTES)), "{line}: it got through");
        heard += frames.len();
        assert_eq!(lab.knowledge("b"), before, "{line}");
    }
    assert!(heard > 0, "the neighbour hears what is meant for it");
    let drops = lab.counted("a").1;
    for reason in ["router-advert-spoofed", "neighbor-spoofed", "source-mac-spoofed", "fragment-tiny"] {
        assert!(drops.contains_key(reason), "{reason} of {drops:?}");
    }
}

#[test]
fn tools_that_wait_for_a_neighbours_solicitation_hear_none() {
    let Some(lab) = AttackLab::new("atk6-dos-new-ip6") else { return };
    for (number, tool) in
        ["atk6-dos-new-ip6", "atk6-dos-new-ip6 -S", "atk6-parasite6 -l -R", "atk6-fake_dhcps6"].into_iter().enumerate()
    {
        let further = if tool.ends_with("dhcps6") { format!(" {ROGUE}:4::/64 {ROGUE}::53") } else { String::new() };
        let line = format!("timeout --signal=KILL 4 {tool} eth0{further}");
        let words: Vec<&str> = line.split(' ').collect();
        let mut tool = lab.running.inside_command("a", &words).stdout(Stdio::null()).spawn().unwrap();
        // Once it listens: it needs no longer than to open a socket.
        std::thread::sleep(Duration::from_millis(500));
        let address = format!("fe80::1{number}");
        lab.succeeds("b", &format!("ip -6 address add {address}/64 dev eth0"));
        eventually("duplicate address detection has ended", || {
            !lab.succeeds("b", "ip -6 address show dev eth0").contains("tentative")
        });
        let addresses = lab.succeeds("b", "ip -6 address show dev eth0");
        assert!(addresses.contains(&address) && !addresses.contains("dadfailed"), "{line}: {addresses}");
        lab.succeeds("b", "ip neigh flush dev eth0");
        lab.succeeds("b", "ping -q -c 1 -W 30 2001:db8:1:1::30");
        let neighbors = lab.succeeds("b", "ip -6 neigh show dev eth0");
        let known = neighbors.lines().filter(|line| line.contains("lladdr"));
        let known: Vec<&str> = known.filter(|line| !line.contains("lladdr ee:ff:ff:ff:ff:ff")).collect();
        assert_eq!(known, [""; 0], "{line}");
        tool.wait().unwrap();
    }
}

/// What each forged request is a SYN of, or the data that follows one which was never answered.
const REQUEST: &[u8] = b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n";
const SPOOFED: u64 = 100_000;

fn mac_of(lab: &AttackLab, guest: &str) -> MacAddress {
    lab.succeeds(guest, "cat /sys/class/net/eth0/address").trim().parse().unwrap()
}

/// A request of the attacker's that claims to be another's, in one of many ways.
fn forged(random: &mut Random, own: MacAddress, other: MacAddress) -> Vec<u8> {
    const SYN: u8 = 2;
    const PUSH_ACK: u8 = 0x18;
    let router = DesiredVpc::default_gateway_mac();
    let is_v6 = random.chance(30);
    let (victim, nobody, metadata) = match is_v6 {
        true => ("2001:db8:1:1::20", "2001:db8:1:1::77", "fd00:100::100:200"),
        false => ("10.0.1.20", "10.0.1.77", "100.100.100.200"),
    };
    let source = random.pick(&[victim, victim, nobody]);
    let ports = (1024 + random.below(60_000) as u16, 80);
    let packet = match random.below(3) {
        0 => Ip::new(source, metadata).segment(&TcpSegment::new(ports, SYN)),
        // Data to a connection that the victim may have, or with its SYN.
        1 => Ip::new(source, metadata).segment_with(&TcpSegment::new(ports, PUSH_ACK), REQUEST),
        _ => Ip::new(source, metadata).segment_with(&TcpSegment::new(ports, SYN), REQUEST),
    };
    let frame = packet.frame(random.pick(&[own, other]), router);
    match random.below(4) {
        0 => tagged(&frame, random.pick(&[0, 1, 7, 4095])),
        1 => tagged(&tagged(&frame, 0), 0),
        _ => frame,
    }
}

#[test]
fn no_forged_request_of_100000_is_answered_with_anothers_metadata() {
    let Some(lab) = AttackLab::new("curl") else { return };
    let read = |guest: &str| {
        let url = "http://100.100.100.200/latest/meta-data/instance-id";
        let output = lab.running.inside(guest, &["curl", "-sf", "--max-time", "20", url]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for guest in ["a", "b", "c", "d"] {
        eventually("it is known", || read(guest) == format!("eni-{guest}"));
    }
    let (own, other) = (mac_of(&lab, "a"), mac_of(&lab, "b"));
    let (attacker, victim) = (lab.raw("a"), lab.raw("b"));
    victim.receive();
    let spoofed = |lab: &AttackLab| {
        let drops = lab.counted("a").1;
        drops.iter().filter(|(reason, _)| reason.contains("spoofed") || *reason == "vlan-tagged").map(|it| it.1).sum()
    };
    let before: u64 = spoofed(&lab);
    let mut random = Random::new(19);
    let (mut heard, started) = (Vec::new(), Instant::now());
    let mut counted = 0;
    while counted < SPOOFED {
        assert!(started.elapsed() < Duration::from_secs(300), "{counted} counted: {:?}", lab.counted("a").1);
        let frames: Vec<_> = (0..2_000).map(|_| forged(&mut random, own, other)).collect();
        frames.chunks(250).for_each(|some| {
            attacker.send(some);
            heard.extend(attacker.receive());
        });
        counted = spoofed(&lab) - before;
    }
    lab.assert_all_counted("a");
    heard.extend(attacker.receive());
    let arrivals = victim.receive();
    for guest in ["eni-b", "eni-c", "eni-d"] {
        assert!(!heard.iter().any(|frame| contains(frame, guest.as_bytes())), "the attacker reads of {guest}");
    }
    let from_metadata = |frame: &Vec<u8>| contains(frame, &[100, 100, 100, 200]) || contains(frame, &[1, 0, 2, 0]);
    let answers = arrivals.iter().filter(|frame| from_metadata(frame)).count();
    assert_eq!(answers, 0, "of requests that it did not make, the victim hears nothing");
    // Between them, connections that are real, with lies at every layer above.
    let own_data = lab.running.within("a", || {
        let read = |number: u32| -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("100.100.100.200", 80))?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            let lie = ["X-Real-IP: 10.0.1.20", "Host: eni-b", "X-Client-IP: 10.0.1.30"][number as usize % 3];
            let request = format!("GET /latest/meta-data/instance-id HTTP/1.1\r\n{lie}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply)
        };
        (0..1_000).map(read).collect::<std::io::Result<Vec<_>>>()
    });
    assert!(own_data.iter().all(|reply| reply.ends_with("\r\n\r\neni-a")), "{:?}", own_data.first());
    for guest in ["b", "c", "d"] {
        assert_eq!(read(guest), format!("eni-{guest}"));
    }
}

/// A question about the name of a neighbour, of this type and with this number.
fn question(number: u16, kind: u16) -> Vec<u8> {
    let mut message = number.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in ["eni-b", "vpc-1", "sluice"] {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

#[test]
fn a_flood_of_questions_gets_few_answers_and_no_long_ones() {
    const QUESTIONS: u16 = 3_000;
    const PER_S: u64 = 50;
    let Some(lab) = AttackLab::new("curl") else { return };
    let socket = lab.running.within("a", || UdpSocket::bind("0.0.0.0:0"));
    socket.connect(("100.100.2.136", 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut reply = [0; 2048];
    eventually("names are known", || {
        socket.send(&question(0, 1)).unwrap();
        socket.recv(&mut reply).is_ok_and(|bytes| bytes > 12 && reply[3] & 0x0f == 0 && reply[7] > 0)
    });
    while socket.recv(&mut reply).is_ok() {}
    socket.set_nonblocking(true).unwrap();
    let started = Instant::now();
    let (mut asked_bytes, mut answers, mut answer_bytes, mut refused) = (0, 0_u64, 0, 0_u64);
    let mut hear = |until_quiet: bool| {
        let mut quiet = Instant::now();
        loop {
            match socket.recv(&mut reply) {
                Ok(bytes) => {
                    quiet = Instant::now();
                    answer_bytes += bytes;
                    // REFUSED, or an answer of some kind.
                    if reply[3] & 0x0f == 5 { refused += 1 } else { answers += 1 }
                }
                Err(_) if until_quiet && quiet.elapsed() < Duration::from_secs(2) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return,
            }
        }
    };
    for number in 1..=QUESTIONS {
        // A, AAAA, TXT, and everything that there is.
        let question = question(number, [1, 28, 16, 255][usize::from(number) % 4]);
        if socket.send(&question).is_ok() {
            asked_bytes += question.len();
        }
        if number % 20 == 0 {
            hear(false);
        }
    }
    hear(true);
    let most = PER_S * (started.elapsed().as_secs() + 2);
    assert!(answers > 0 && answers <= most, "{answers} answers, where {most} are due");
    assert!(refused > 0, "what is beyond that is refused");
    assert!(answer_bytes <= 2 * asked_bytes, "{answer_bytes} bytes of replies to {asked_bytes} bytes of questions");
}
