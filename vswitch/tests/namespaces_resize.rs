//! Workers and rx queues that come and go under guests of the kernel that talk with each other. The test makes and removes its own
//! namespaces; without root it says so and passes.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use running::lab::NamespaceLab;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch::port::factory::PortFactory;
use vswitch::port::tap::steering;
use vswitch_core::config::desired::{
    Desired, DesiredRule, Direction, MatchConditions, Policy, Ports, Protocol, Remote,
};
use vswitch_core::config::protocol::{EniStats, Regrouped, RequestBody, SwitchReplyBody};

/// Workers and rx queues, one after the other.
const SHAPES: [(usize, usize); 8] = [(2, 1), (2, 2), (1, 1), (2, 2), (3, 2), (3, 1), (2, 1), (1, 1)];
/// How often all of them.
const ROUNDS: usize = 3;
/// The last bytes of the second guest's addresses: packets to some are in the first queue, to others in the second.
const ADDRESSES: [u8; 4] = [2, 12, 13, 14];
const PORT: u16 = 9000;
/// Between two datagrams of a flow.
const PAUSE: Duration = Duration::from_micros(500);
/// Datagrams of a flow that are on their way at once: fewer than a device holds, whatever else this machine does meanwhile.
const UNDERWAY_MAX: u32 = 64;
/// What the last datagram of a flow has for a number.
const END: u32 = u32::MAX;
/// Datagrams that go there and back between two changes.
const DATAGRAMS_BETWEEN: u32 = 10;
/// For what is on its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is not answered comes into the second guest by a rule, and into the first not at all: every answer needs its session. No packet
/// from the middle of a connection makes up for a session that was lost.
fn stateful(lab: &NamespaceLab) -> Desired {
    let mut desired = lab.desired("drop");
    desired.settings.tcp_pick_up = false;
    let rule = |id: &str, protocol, ports| DesiredRule {
        id: id.into(),
        direction: Direction::Ingress,
        policy: Policy::Accept,
        priority: 1,
        conditions: MatchConditions {
            protocol,
            ports,
            ..MatchConditions::of(Remote::Prefix("0.0.0.0/0".parse().unwrap()))
        },
    };
    let range = || Ports::Range(serde_json::from_str(&format!("[{PORT}, {PORT}]")).unwrap());
    let mut open = desired.groups[&"sg-1".into()].clone();
    open.rules.push(rule("sgr-tcp", Protocol::TCP, range()));
    open.rules.push(rule("sgr-udp", Protocol::UDP, range()));
    open.rules.push(rule("sgr-icmp", Protocol::ICMP, Ports::Any));
    desired.groups.insert("sg-2".into(), open);
    let second = desired.enis.get_mut(&"eni-2".into()).unwrap();
    second.groups = ["sg-2".into()].into();
    second.addresses = ADDRESSES.map(|last| format!("10.9.0.{last}/32").parse().unwrap()).to_vec();
    desired
}

/// The queue of two that a packet to this address is in, as `port/tap/steering.rs` says.
fn queue_of(last: u8) -> u32 {
    let (source, destination) = (0x0a09_0001_u32, 0x0a09_0000 | u32::from(last));
    ((source ^ destination).wrapping_mul(0x9e37_79b1) >> 16) % 2
}

fn socket(namespace: &str, address: SocketAddr) -> UdpSocket {
    let socket = namespace::within(namespace, || UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // What waits while this machine does something else is not the switch's.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 22).unwrap();
    socket
}

/// Numbered datagrams to one address and back; each end sees every number once, in order. How many.
fn exchange<'scope>(
    scope: &'scope Scope<'scope, '_>,
    lab: &NamespaceLab,
    last: u8,
    is_over: &'scope AtomicBool,
    came_back: &'scope AtomicU32,
) -> ScopedJoinHandle<'scope, u32> {
    let near = socket(&lab.namespace(1), ([10, 9, 0, 1], 0).into());
    let far = socket(&lab.namespace(2), ([10, 9, 0, last], PORT).into());
    near.connect(far.local_addr().unwrap()).unwrap();
    scope.spawn(move || {
        let returned = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let (near, returned) = (&near, &returned);
            let reflect = move |bytes: &mut [u8; 4]| {
                let (_, from) = far.recv_from(bytes)?;
                far.send_to(bytes, from).map(drop)
            };
            scope.spawn(move || count(last, &AtomicU32::new(0), reflect));
            let receive = |bytes: &mut [u8; 4]| {
                near.recv(bytes)?;
                came_back.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            scope.spawn(move || count(last, returned, receive));
            let mut sent = 0_u32;
            while !is_over.load(Ordering::Acquire) {
                if sent - returned.load(Ordering::Acquire) < UNDERWAY_MAX {
                    near.send(&sent.to_be_bytes()).unwrap();
                    sent += 1;
                }
                std::thread::sleep(PAUSE);
            }
            near.send(&END.to_be_bytes()).unwrap();
            sent
        })
    })
}

/// Counts datagrams up to the last. Each has the number that follows the one before.
fn count(last: u8, seen: &AtomicU32, mut receive: impl FnMut(&mut [u8; 4]) -> std::io::Result<()>) {
    loop {
        let (mut bytes, expected) = ([0; 4], seen.load(Ordering::Acquire));
        receive(&mut bytes).unwrap_or_else(|error| panic!("10.9.0.{last}, after {expected}: {error}"));
        match u32::from_be_bytes(bytes) {
            END => return,
            number => assert_eq!(number, expected, "10.9.0.{last}"),
        }
        seen.store(expected + 1, Ordering::Release);
    }
}

/// A connection that the first guest opened, and on which the second sends for as long as may be. How many bytes.
fn stream<'scope>(
    scope: &'scope Scope<'scope, '_>,
    lab: &NamespaceLab,
    is_over: &'scope AtomicBool,
) -> ScopedJoinHandle<'scope, usize> {
    let listener = namespace::within(&lab.namespace(2), || TcpListener::bind(("10.9.0.2", PORT))).unwrap();
    let mut receiver = namespace::within(&lab.namespace(1), || TcpStream::connect(("10.9.0.2", PORT))).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut sender, _) = listener.accept().unwrap();
    sender.set_write_timeout(Some(PATIENCE)).unwrap();
    scope.spawn(move || {
        let mut sent = 0_usize;
        while !is_over.load(Ordering::Acquire) {
            let chunk: Vec<u8> = (0..16_384).map(|place| ((sent + place) % 251) as u8).collect();
            sender.write_all(&chunk).unwrap();
            sent += chunk.len();
        }
    });
    scope.spawn(move || {
        let (mut chunk, mut received) = (vec![0; 65_536], 0_usize);
        loop {
            let count = receiver.read(&mut chunk).unwrap_or_else(|error| panic!("after {received} bytes: {error}"));
            if count == 0 {
                return received;
            }
            let is_right = |(place, byte): (usize, &u8)| *byte == ((received + place) % 251) as u8;
            assert!(chunk[..count].iter().enumerate().all(is_right), "after {received} bytes");
            received += count;
        }
    })
}

/// Waits until some more datagrams have gone there and back.
fn wait_for_traffic(came_back: &AtomicU32) {
    let (before, started) = (came_back.load(Ordering::Relaxed), Instant::now());
    while came_back.load(Ordering::Relaxed) < before + DATAGRAMS_BETWEEN {
        assert!(started.elapsed() < PATIENCE, "no datagram comes");
        std::thread::sleep(PAUSE);
    }
}

fn resize(lab: &mut NamespaceLab, workers: usize, rx_queues: usize) -> Regrouped {
    match lab.client.ask(RequestBody::Regroup { workers, lanes: Some(rx_queues) }) {
        SwitchReplyBody::Regrouped(resized) => resized,
        other => panic!("{other:?}"),
    }
}

fn stats(lab: &mut NamespaceLab, number: u8) -> EniStats {
    match lab.client.ask(RequestBody::Stats { eni: Some(format!("eni-{number}").as_str().into()) }) {
        SwitchReplyBody::Stats { mut enis } => enis.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Ends what is going on, also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn workers_and_rx_queues_come_and_go_and_nothing_is_lost() {
    if steering::load().is_err() {
        return eprintln!("SKIPPED: rx queues need root and the capability for BPF");
    }
    let queues: Vec<u32> = ADDRESSES.map(queue_of).to_vec();
    assert!(queues.contains(&0) && queues.contains(&1), "{queues:?}");
    let ports = PortFactory { rx_queues_max: 2, ..PortFactory::default() };
    let Some(mut lab) = NamespaceLab::with_ports("resize", 1, ports) else { return };
    let desired = stateful(&lab);
    let applied = lab.apply(desired);
    assert!(applied.ports_down.is_empty(), "{applied:?}");
    assert!(lab.ping("10.9.0.2"));
    let (is_over, came_back) = (AtomicBool::new(false), AtomicU32::new(0));
    let ping = lab.start(1, "ping -i 0.01 10.9.0.2");
    let mut pauses = Vec::new();
    let (datagrams, bytes) = std::thread::scope(|scope| {
        let _ending = StopOnDrop(&is_over);
        let exchanges: Vec<_> =
            ADDRESSES.iter().map(|last| exchange(scope, &lab, *last, &is_over, &came_back)).collect();
        let stream = stream(scope, &lab, &is_over);
        wait_for_traffic(&came_back);
        for (workers, rx_queues) in SHAPES.into_iter().cycle().take(SHAPES.len() * ROUNDS) {
            let resized = resize(&mut lab, workers, rx_queues);
            assert_eq!((resized.workers, resized.lanes), (workers, rx_queues));
            assert!(resized.ports_down.is_empty(), "{resized:?}");
            pauses.push(resized.pause_ns / 1000);
            wait_for_traffic(&came_back);
            std::thread::sleep(Duration::from_millis(40));
        }
        is_over.store(true, Ordering::Release);
        let datagrams: u32 = exchanges.into_iter().map(|exchange| exchange.join().unwrap()).sum();
        (datagrams, stream.join().unwrap())
    });
    let pings = ping.interrupt();
    pauses.sort_unstable();
    println!("{datagrams} datagrams and {bytes} bytes in {} changes, paused {pauses:?} µs", pauses.len());
    let answered = pings.lines().filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok());
    let answered: Vec<usize> = answered.collect();
    assert_eq!(answered, (1..=answered.len()).collect::<Vec<_>>(), "each ping is answered once, in order");
    let has_traffic = datagrams > 200 && bytes > 1 << 18 && answered.len() > 10;
    assert!(has_traffic, "{datagrams} datagrams, {bytes} bytes, {} pings", answered.len());
    for number in [1, 2] {
        let stats = stats(&mut lab, number);
        let lost = |drops: &std::collections::BTreeMap<String, u64>| -> u64 {
            drops.iter().filter(|(reason, _)| *reason != "multicast").map(|(_, count)| *count).sum()
        };
        assert_eq!(lost(&stats.egress.drops) + lost(&stats.ingress.drops), 0, "{stats:?}");
    }
}
