//! What connection tracking makes of real kernels' TCP and UDP over bad links: loss, duplication, reordering and delay
//! between the guests' stacks and the switch. Every check that can be asked for is on: nothing that a kernel sends may
//! fall to it.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::frame::{Ip, TcpFlags};
use harness::netns::{PATIENCE, can_run, eventually};
use harness::plane::TestPlane;
use harness::random::Random;
use harness::world::{Build, Refine, accept_in, prefix_of};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use vswitch::port::factory::PortFactory;
use vswitch::port::faults::Faults;
use vswitch_core::config::desired::{Desired, DesiredEni, DesiredPrefixList, Policy, SecurityGroup};

const WEB: &str = "10.0.0.10";
const WEB_V6: &str = "fd00:0:0:1::10";
const PORT: u16 = 9000;

/// A web server, a client, and a neighbour in one subnet; every check is on.
fn lab() -> Desired {
    let open = [accept_in("v4", "0.0.0.0/0").tcp(PORT), accept_in("v6", "::/0").tcp(PORT)];
    let udp = [accept_in("udp", "0.0.0.0/0").udp(PORT), accept_in("udp-v6", "::/0").udp(PORT)];
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .closed_group("sg-web", "vpc-1", &[open, udp].concat())
        .closed_group("sg-client", "vpc-1", &[])
        .eni("web", "vsw-1", &[WEB, WEB_V6], &["sg-web"])
        .eni("client", "vsw-1", &["10.0.0.20", "fd00:0:0:1::20"], &["sg-client"])
        .eni("neighbour", "vsw-1", &["10.0.0.30", "fd00:0:0:1::30"], &["sg-client"])
        .eni("attacker", "vsw-1", &["10.0.0.40"], &["sg-client"]);
    desired.settings.tcp_pick_up = false;
    for eni in desired.enis.values_mut() {
        eni.tracking.tcp_window_check = true;
    }
    desired
}

fn start(workers: usize, faults: Faults, plain_taps: bool) -> Option<TestPlane> {
    if !can_run(&[]) {
        return None;
    }
    let faults = (faults != Faults::default()).then_some(faults);
    let mut plane = TestPlane::start(workers, 4096, PortFactory { faults, plain_taps, ..PortFactory::default() });
    plane.run(&lab());
    Some(plane)
}

/// Bytes that no other place of the stream has.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length.div_ceil(8)).flat_map(|_| random.next_u64().to_be_bytes()).take(length).collect()
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

fn listener(plane: &TestPlane, at: IpAddr) -> TcpListener {
    plane.within("web", || TcpListener::bind(SocketAddr::new(at, PORT)))
}

fn connect(plane: &TestPlane, guest: &str, to: IpAddr) -> TcpStream {
    let stream = plane.within(guest, || TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE));
    patient(&stream);
    stream
}

/// The client sends all and half closes; then the server sends all. Each must get what the other sent.
fn exchange(plane: &TestPlane, to: IpAddr, length: usize) {
    let listener = listener(plane, to);
    let (question, answer) = (content(length, 1), content(length, 2));
    let (expected, reply) = (question.clone(), answer.clone());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        patient(&stream);
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == expected, "the server got {} of {} bytes, or others", got.len(), expected.len());
        stream.write_all(&reply).unwrap();
    });
    let mut stream = connect(plane, "client", to);
    stream.write_all(&question).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == answer, "the client got {} of {} bytes, or others", got.len(), answer.len());
    server.join().unwrap();
}

/// No packet fell to the checks of state and windows.
fn assert_no_packet_was_out_of_place(plane: &mut TestPlane) {
    for guest in ["web", "client", "neighbour"] {
        let stats = plane.stats(guest);
        for drops in [&stats.egress.drops, &stats.ingress.drops] {
            let wrong = ["tcp-out-of-state", "tcp-out-of-window"].iter().filter_map(|name| drops.get(*name));
            assert_eq!(wrong.sum::<u64>(), 0, "{guest}: {drops:?}");
        }
    }
}

fn bad_link(seed: u64) -> Faults {
    Faults { seed, lost: 10_000, doubled: 20_000, swapped: 50_000, held: 20_000, ..Faults::default() }
}

#[test]
fn transfers_over_a_bad_link_complete_byte_for_byte() {
    for (workers, plain_taps) in [(1, true), (2, true), (1, false)] {
        let Some(mut plane) = start(workers, bad_link(workers as u64), plain_taps) else { return };
        for to in [WEB, WEB_V6] {
            exchange(&plane, to.parse().unwrap(), 1 << 20);
        }
        assert_no_packet_was_out_of_place(&mut plane);
    }
}

#[test]
fn transfers_over_a_slow_link_complete_byte_for_byte() {
    let Some(mut plane) = start(1, Faults::default(), false) else { return };
    for guest in ["web", "client"] {
        slow_down(&plane.namespace(guest));
    }
    exchange(&plane, WEB.parse().unwrap(), 1 << 20);
    assert_no_packet_was_out_of_place(&mut plane);
}

/// Delay with jitter where the kernel can; else a narrow link, whose queue delays as well.
fn slow_down(namespace: &str) {
    let add = |rest: &[&str]| {
        let start = ["-n", namespace, "qdisc", "add", "dev", "eth0", "root"];
        Command::new("tc").args(start).args(rest).output().unwrap().status.success()
    };
    let is_slow = add(&["netem", "delay", "15ms", "5ms", "reorder", "5%", "loss", "1%", "duplicate", "1%"])
        || add(&["tbf", "rate", "30mbit", "burst", "16kb", "latency", "20ms"]);
    assert!(is_slow, "the kernel has neither netem nor tbf");
}

#[test]
fn a_reader_that_pauses_stalls_nobody_for_good() {
    let Some(mut plane) = start(1, Faults { lost: 5_000, ..Faults::default() }, true) else { return };
    let to: IpAddr = WEB.parse().unwrap();
    let listener = listener(&plane, to);
    let sent = content(8 << 20, 3);
    let expected = sent.clone();
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        patient(&stream);
        let mut got = Vec::new();
        // The window closes meanwhile, and probes find it open again.
        thread::sleep(Duration::from_secs(2));
        stream.read_to_end(&mut got).unwrap();
        assert!(got == expected, "{} of {} bytes, or others", got.len(), expected.len());
    });
    let mut stream = connect(&plane, "client", to);
    stream.write_all(&sent).unwrap();
    drop(stream);
    reader.join().unwrap();
    assert_no_packet_was_out_of_place(&mut plane);
}

/// What a guest's kernel sends and receives by TCP, one line for each segment.
struct Capture {
    tcpdump: Child,
    lines: Arc<Mutex<String>>,
}

impl Capture {
    fn start(namespace: &str) -> Self {
        let arguments = ["netns", "exec", namespace, "tcpdump", "-n", "-l", "--immediate-mode", "-i", "eth0", "tcp"];
        let pipes = (Stdio::piped(), Stdio::piped());
        let mut tcpdump = Command::new("ip").args(arguments).stdout(pipes.0).stderr(pipes.1).spawn().unwrap();
        let mut told = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
        assert!(told.any(|line| line.unwrap().contains("listening")), "tcpdump does not listen");
        let output = BufReader::new(tcpdump.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&lines);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                shared.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { tcpdump, lines }
    }

    /// What was captured, once all of it that is wanted is there: the kernel hands captured frames over in a while.
    fn wait_for(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        let text = || self.lines.lock().unwrap().clone();
        let started = Instant::now();
        while !is_wanted(&text()) {
            assert!(started.elapsed() < PATIENCE, "{}", text());
            thread::sleep(Duration::from_millis(10));
        }
        text()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// Where the first line is that has all of these words.
fn line_with(capture: &str, words: &[&str]) -> Option<usize> {
    capture.lines().position(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn what_kernels_see_of_a_half_closed_connection_is_data_after_the_first_fin() {
    let Some(plane) = start(1, Faults::default(), false) else { return };
    let capture = Capture::start(&plane.namespace("client"));
    exchange(&plane, WEB.parse().unwrap(), 1000);
    let fin_of = |capture: &str| line_with(capture, &["10.0.0.20.", "> 10.0.0.10.9000", "Flags [F"]);
    let answer_of = |capture: &str| line_with(capture, &["10.0.0.10.9000 > 10.0.0.20.", "length 1000"]);
    let is_over = |capture: &str| line_with(capture, &["10.0.0.10.9000 > 10.0.0.20.", "Flags [F"]).is_some();
    let capture =
        capture.wait_for(|capture| is_over(capture) && fin_of(capture).is_some() && answer_of(capture).is_some());
    let (fin, answer) = (fin_of(&capture), answer_of(&capture));
    assert!(fin.is_some() && fin < answer, "FIN at {fin:?}, the answer at {answer:?}:\n{capture}");
    assert_eq!(line_with(&capture, &["Flags [R"]), None, "{capture}");
}

#[test]
fn what_kernels_see_of_a_closed_window_are_probes_and_more_data() {
    let Some(plane) = start(1, Faults::default(), false) else { return };
    let to: IpAddr = WEB.parse().unwrap();
    let listener = listener(&plane, to);
    let mut client = connect(&plane, "client", to);
    let (mut server, _) = listener.accept().unwrap();
    patient(&server);
    let capture = Capture::start(&plane.namespace("client"));
    let sent = content(8 << 20, 4);
    let expected = sent.len();
    let sender = thread::spawn(move || client.write_all(&sent).unwrap());
    let after_closed = |capture: &str| {
        let closed = line_with(capture, &["10.0.0.10.9000 > 10.0.0.20.", "win 0,"])?;
        Some(capture.lines().skip(closed).map(|line| line.to_owned() + "\n").collect::<String>())
    };
    let has =
        |capture: &str, words: &[&str]| after_closed(capture).is_some_and(|after| line_with(&after, words).is_some());
    capture.wait_for(|capture| has(capture, &["> 10.0.0.10.9000", "length 0"]));
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert_eq!(got.len(), expected);
    let capture = capture.wait_for(|capture| has(capture, &["10.0.0.20.", "> 10.0.0.10.9000", "Flags [P"]));
    assert_eq!(line_with(&capture, &["Flags [R"]), None);
}

#[test]
fn an_aborted_connection_is_closed_at_both_enis() {
    let Some(mut plane) = start(1, Faults::default(), false) else { return };
    let to: IpAddr = WEB.parse().unwrap();
    let listener = listener(&plane, to);
    let mut client = connect(&plane, "client", to);
    let (mut server, _) = listener.accept().unwrap();
    patient(&server);
    client.write_all(b"half a question").unwrap();
    let mut got = [0; 15];
    server.read_exact(&mut got).unwrap();
    // A socket that is closed with data unread resets the connection.
    server.write_all(b"an answer that nobody reads").unwrap();
    assert_eq!(client.peek(&mut got).unwrap_or(0), got.len(), "it has come");
    drop(client);
    for guest in ["client", "web"] {
        eventually("the session is closed", || plane.flows(guest).iter().any(|flow| flow.state == "closed"));
    }
    assert_eq!(server.read(&mut got).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_refused_connection_is_told_at_once_and_forgotten_soon() {
    let Some(mut plane) = start(1, Faults::default(), false) else { return };
    let nobody = SocketAddr::new(WEB.parse().unwrap(), PORT);
    let refused = plane.within("client", || Ok(TcpStream::connect_timeout(&nobody, PATIENCE)));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(plane.flows("web").iter().all(|flow| flow.state == "closed" && flow.timeout_s == 3));
}
#[test]
fn long_datagrams_arrive_whole_whatever_the_order_of_their_parts() {
    let faults = Faults { seed: 5, swapped: 300_000, held: 50_000, ..Faults::default() };
    let Some(plane) = start(1, faults, true) else { return };
    let datagrams: Vec<Vec<u8>> = (0..50).map(|number| content(20_000, number)).collect();
    for to in [WEB, WEB_V6] {
        let to = SocketAddr::new(to.parse().unwrap(), PORT);
        let server = plane.within("web", || UdpSocket::bind(to));
        server.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let client = plane.within("client", || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any).and_then(|socket| socket.connect(to).map(|()| socket))
        });
        let mut got = vec![0; 65_536];
        for (number, datagram) in datagrams.iter().enumerate() {
            client.send(datagram).unwrap();
            let mut is_whole = false;
            for _ in 0..100 {
                while let Ok(length) = server.recv(&mut got) {
                    is_whole |= got[..length] == datagram[..];
                }
                if is_whole {
                    break;
                }
                // A short one pushes out the parts that wait for a later packet.
                client.send(b"short").unwrap();
            }
            assert!(is_whole, "datagram {number} to {to} never came whole");
        }
    }
}

/// Echoes what every client says, until all are gone and nobody new comes for a while.
fn echo(listener: TcpListener) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            patient(&stream);
            thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if &bytes[..length] == b"end" || stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    })
}

fn say(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).unwrap();
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, word);
}

#[test]
fn a_flood_of_syns_leaves_a_neighbour_its_connections_old_and_new() {
    let Some(mut plane) = start(1, Faults::default(), false) else { return };
    let mut desired = lab();
    for eni in desired.enis.values_mut() {
        eni.tracking.sessions_guaranteed = 256;
    }
    plane.run(&desired);
    let to: IpAddr = WEB.parse().unwrap();
    let _echo = echo(listener(&plane, to));
    let mut old: Vec<TcpStream> = (0..20).map(|_| connect(&plane, "neighbour", to)).collect();
    let stop = AtomicBool::new(false);
    let namespace = plane.namespace("attacker");
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| vswitch::os::namespace::within(&namespace, || flood(&stop)).unwrap());
        eventually("the flood has filled the table", || plane.stats("attacker").flows_evicted > 1000);
        for round in 0..20 {
            old.iter_mut().for_each(|stream| say(stream, format!("round {round}").as_bytes()));
            say(&mut connect(&plane, "neighbour", to), b"a new connection");
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    let (attacker, neighbour) = (plane.stats("attacker"), plane.stats("neighbour"));
    assert!(sent > 8192, "{sent} SYNs are no flood");
    assert!(attacker.flows_evicted > 1000, "the flood found room: {attacker:?}");
    assert_eq!(neighbour.flows_evicted, 0);
    assert!(neighbour.egress.drops.keys().all(|reason| reason == "multicast"), "{:?}", neighbour.egress.drops);
}

/// SYNs from all ports, as fast as the kernel takes them: how many.
fn flood(stop: &AtomicBool) -> std::io::Result<u64> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    let to = std::net::SocketAddrV4::new(WEB.parse().expect("an address"), 0);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) && sent < 2_000_000 {
        let port = 1 + (sent % 65_000) as u16;
        let syn = Ip::new("10.0.0.40", WEB).tcp(port, PORT, TcpFlags::SYN);
        // A full queue is as good as a sent packet here.
        let _ = sendto(&raw, &syn.bytes(), SendFlags::empty(), &to);
        sent += 1;
    }
    Ok(sent)
}

/// How many changes are made on real devices: a few, or as many as the nightly run asks for.
fn changes_wanted() -> usize {
    std::env::var("SLUICE_TAP_CHANGES").ok().and_then(|text| text.parse().ok()).unwrap_or(240)
}

/// The ways of taking the ground away from the client's datagrams to the web server, and one that does not.
fn without_ground(kind: usize) -> (Desired, bool) {
    let mut desired = with_ground(kind);
    let group = |desired: &mut Desired, id: &str, edit: &dyn Fn(&mut SecurityGroup)| {
        edit(desired.groups.get_mut(&id.into()).expect("a group"));
    };
    let web =
        |desired: &mut Desired, edit: &dyn Fn(&mut DesiredEni)| edit(desired.enis.get_mut(&"web".into()).expect("web"));
    match kind % 6 {
        0 => group(&mut desired, "sg-list", &|group| group.rules.clear()),
        1 => desired.enis.get_mut(&"client".into()).expect("the client").groups = ["sg-other".into()].into(),
        2 => desired.prefix_lists.get_mut(&"pl-1".into()).expect("a list").entries.clear(),
        3 => group(&mut desired, "sg-inner", &|group| group.inner_access = Policy::Drop),
        4 => web(&mut desired, &|eni| eni.groups = ["sg-other".into()].into()),
        _ => web(&mut desired, &|eni| eni.timeouts.udp_s = 100),
    }
    (desired, kind % 6 != 5)
}

/// The datagrams pass for one ground at a time: a rule for a list, or membership in an open group.
fn grounds() -> Desired {
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .closed_group("sg-list", "vpc-1", &[accept_in("list", "pl-1").udp(PORT)])
        .open_group("sg-inner", "vpc-1", &[])
        .closed_group("sg-other", "vpc-1", &[]);
    desired.prefix_lists.insert("pl-1".into(), DesiredPrefixList { entries: [prefix_of("10.0.0.20/32")].into() });
    desired.eni("web", "vsw-1", &[WEB], &["sg-list"]).eni("client", "vsw-1", &["10.0.0.20"], &["sg-other"])
}

/// The state before a change of this kind.
fn with_ground(kind: usize) -> Desired {
    let mut desired = grounds();
    if matches!(kind % 6, 1 | 3) {
        for eni in desired.enis.values_mut() {
            eni.groups = ["sg-inner".into()].into();
        }
    }
    desired
}

#[test]
fn nothing_that_is_sent_after_the_reply_passes_by_a_revoked_ground() {
    if !can_run(&[]) {
        return;
    }
    let mut plane = TestPlane::start(2, 4096, PortFactory::default());
    plane.run(&grounds());
    let to = SocketAddr::new(WEB.parse().unwrap(), PORT);
    let server = plane.within("web", || UdpSocket::bind(to));
    server.set_nonblocking(true).unwrap();
    let client = plane.within("client", || UdpSocket::bind("0.0.0.0:0").and_then(|one| one.connect(to).map(|()| one)));
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut late, mut revocations) = (0, 0);
    thread::scope(|scope| {
        let _pump = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::SeqCst) + 1;
                // Not always is somebody there, and not always room.
                let _ = client.send(&number.to_be_bytes());
                thread::sleep(Duration::from_micros(20));
            }
        });
        let newest = || {
            let (mut bytes, mut newest) = ([0; 8], 0);
            while server.recv(&mut bytes).is_ok() {
                newest = u64::from_be_bytes(bytes);
            }
            newest
        };
        for change in 0..changes_wanted() / 2 {
            plane.run(&with_ground(change));
            eventually("datagrams pass", || newest() > 0);
            let (desired, is_revoked) = without_ground(change);
            plane.run(&desired);
            let at_reply = sent.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(2));
            let after = newest();
            if is_revoked {
                revocations += 1;
                // The one in the hand of the pump at the reply may have been sent before it.
                late += u64::from(after > at_reply);
            } else {
                eventually("a change of timeouts ends nothing", || newest() > at_reply);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{revocations} revocations, late: {late}");
    assert_eq!(late, 0);
}
