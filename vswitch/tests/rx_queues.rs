//! Rx queues: an ENI whose frames several workers receive. With memory ports, turned by hand; and with queues of the kernel,
//! which need root and say so without.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod guests;

use guests::world::{GuestWorld, collect};
use guests::{desired, eni, udp};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch::os::netlink::Interface;
use vswitch::os::run_dir::RunDir;
use vswitch::port::Port;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::factory::PortFactory;
use vswitch::port::tap::{Tap, TapIo};
use vswitch_core::config::desired::TapPort;
use vswitch_core::packet::offload::Offloads;

fn with_rx_queues(workers: usize, rx_queues: usize) -> GuestWorld {
    GuestWorld::with_ports(workers, 4096, PortFactory { rx_queues, ..PortFactory::default() })
}

#[test]
fn every_rx_queue_keeps_the_order_of_its_flows_and_no_buffer_is_lost() {
    for (workers, rx_queues) in [(1, 4), (2, 2), (3, 2), (4, 4)] {
        let mut world = with_rx_queues(workers, rx_queues);
        world.apply(desired(4), 1);
        let free = world.free_buffers();
        let rx_queues = rx_queues.min(workers);
        // A flow to each of three guests; each has an rx queue of its own, as far as there are any.
        for number in 0..500 {
            for to in [2, 3, 4] {
                assert!(world.guest_rx_queue(1, usize::from(to) % rx_queues).inject(&udp(1, to, number)));
            }
        }
        world.turn(100);
        for to in [2, 3, 4] {
            assert_eq!(
                collect(&world.guest_rx_queue(to, 0)),
                (0..500).collect::<Vec<_>>(),
                "{workers} workers, {rx_queues} rx queues"
            );
        }
        assert_eq!(world.free_buffers(), free, "each pool has what it had");
        assert_eq!(world.stats(1).egress.packets, 1500, "the owner counts for all rx queues");
    }
}

#[test]
fn sessions_are_the_owners_whichever_rx_queue_a_packet_comes_by() {
    let mut world = with_rx_queues(2, 2);
    world.apply(desired(2), 1);
    assert!(world.guest_rx_queue(1, 0).inject(&udp(1, 2, 0)) && world.guest_rx_queue(1, 1).inject(&udp(1, 2, 1)));
    world.turn(5);
    assert_eq!(collect(&world.guest_rx_queue(2, 0)).len(), 2);
    let flows: usize =
        world.with_switch(|switch, driver| switch.worker_statuses(driver).iter().map(|worker| worker.flows).sum());
    let mut one_rx_queue = with_rx_queues(2, 1);
    one_rx_queue.apply(desired(2), 1);
    assert!(one_rx_queue.guest_rx_queue(1, 0).inject(&udp(1, 2, 0)));
    one_rx_queue.turn(5);
    let expected: usize = one_rx_queue
        .with_switch(|switch, driver| switch.worker_statuses(driver).iter().map(|worker| worker.flows).sum());
    assert_eq!(flows, expected);
}

#[test]
fn while_the_owner_is_slow_frames_wait_and_none_is_lost() {
    let mut world = with_rx_queues(2, 2);
    world.apply(desired(2), 1);
    let free = world.free_buffers();
    for number in 0..3000 {
        assert!(world.guest_rx_queue(1, 1).inject(&udp(1, 2, number)));
    }
    let (owner, other) = if world.switch.port_statuses()[0].worker == 0 { (0, 1) } else { (1, 0) };
    world.turn_one(other, 200);
    assert!(world.workers[other].turn(world.now).is_starved, "it knows that there is more");
    world.turn_one(owner, 1);
    world.turn(400);
    assert_eq!(collect(&world.guest_rx_queue(2, 0)), (0..3000).collect::<Vec<_>>());
    assert_eq!(world.free_buffers(), free);
    assert!(world.stats(1).egress.drops.is_empty());
}

#[test]
fn neighbours_that_come_and_go_cost_a_flow_nothing() {
    let mut world = with_rx_queues(3, 3);
    world.apply(desired(2), 1);
    for round in 0..40_u32 {
        for number in 0..50 {
            assert!(world.guest_rx_queue(1, 1).inject(&udp(1, 2, round * 50 + number)));
        }
        // The rx queues of the others open and close beside, while what was injected is on its way.
        world.apply(desired(2 + (round % 3) as u8 * 3), u64::from(round) + 2);
    }
    world.turn(100);
    assert_eq!(collect(&world.guest_rx_queue(2, 0)), (0..2000).collect::<Vec<_>>());
}

#[test]
fn lanes_are_born_closed_and_end_with_their_eni() {
    let mut world = with_rx_queues(2, 2);
    assert!(world.guest_rx_queue(1, 1).inject(&udp(1, 2, 0)));
    world.turn(3);
    world.apply(desired(2), 1);
    world.turn(3);
    assert_eq!(collect(&world.guest_rx_queue(2, 0)), [0], "it waited in its rx queue until the policy was live");
    let mut without = desired(2);
    without.enis.remove(&eni(1));
    world.apply(without, 2);
    assert!(world.guest_rx_queue(1, 1).inject(&udp(1, 2, 1)));
    world.turn(3);
    assert_eq!(world.guest_rx_queue(2, 0).waiting(), 0);
}

#[test]
fn an_rx_queue_that_fails_takes_the_port_down_once_and_all_rx_queues_come_back() {
    let mut world = with_rx_queues(2, 2);
    world.apply(desired(2), 1);
    for rx_queue in [0, 1] {
        world.guest_rx_queue(1, rx_queue).set_failed(true);
    }
    world.turn(3);
    world.with_switch(|switch, driver| switch.tick(driver));
    let status = world.switch.port_statuses().remove(0);
    assert!(!status.up && status.failures == 1, "{status:?}");
    for rx_queue in [0, 1] {
        world.guest_rx_queue(1, rx_queue).set_failed(false);
    }
    world.now = world.now + 1_000_000_000;
    world.with_switch(|switch, driver| switch.tick(driver));
    assert!(world.switch.port_statuses()[0].up);
    assert!(world.guest_rx_queue(1, 0).inject(&udp(1, 2, 0)) && world.guest_rx_queue(1, 1).inject(&udp(1, 2, 1)));
    world.turn(5);
    assert_eq!(collect(&world.guest_rx_queue(2, 0)).len(), 2);
}

/// A namespace that is gone when the test is.
struct GuestNamespace(String);

impl Drop for GuestNamespace {
    fn drop(&mut self) {
        let _ = namespace::remove_if_made(&self.0, &RunDir::default());
    }
}

/// What the queues received: for each destination the queues and numbers of its datagrams, as they came.
fn receive_all(queues: &mut [Tap], expected: usize) -> BTreeMap<u8, Vec<(usize, u8)>> {
    let mut pool = BufferPool::new(PoolSize { small: 256, large: 64 });
    let mut by_flow: BTreeMap<u8, Vec<(usize, u8)>> = BTreeMap::new();
    let (started, mut count) = (Instant::now(), 0);
    while count < expected {
        assert!(started.elapsed() < Duration::from_secs(60), "{count} of {expected} came");
        for (number, queue) in queues.iter_mut().enumerate() {
            let mut burst = Vec::new();
            queue.receive(&mut pool, &mut burst, 32).unwrap();
            for packet in burst {
                let frame = packet.buffer.frame();
                if frame[12..14] == [8, 0] && frame[23] == 17 {
                    by_flow.entry(frame[33]).or_default().push((number, frame[42]));
                    count += 1;
                }
                pool.put(packet.buffer);
            }
        }
    }
    by_flow
}

#[test]
fn queues_of_a_tap_have_each_flow_in_one_of_them_and_in_order() {
    if !rustix::process::geteuid().is_root() || vswitch::port::tap::steering::load().is_err() {
        return eprintln!("SKIPPED: needs root, /dev/net/tun and the capability for BPF");
    }
    const FLOWS: u8 = 24;
    const DATAGRAMS: u8 = 20;
    let name = format!("sluice-rx-queues-{}", std::process::id());
    let _guest = GuestNamespace(name.clone());
    let (namespace, create_namespace) = (Some(name.clone()), true);
    let tap = TapPort { device: "eth0".into(), namespace, create_namespace, configure: true, mtu_bytes: 1400 };
    let (mac, addresses) = ("02:00:00:00:00:05".parse().unwrap(), vec!["10.9.0.5/24".parse().unwrap()]);
    let interface =
        Interface { mac, mtu_bytes: 1400, addresses, gateways: Vec::new(), gateway_mac: mac, routes: Vec::new() };
    for io in [TapIo::Plain, TapIo::Uring] {
        let mut queues = Tap::open_rx_queues(&tap, Some(&interface), (Offloads::ALL, io), 3).unwrap();
        assert_eq!(queues.len(), 3);
        for flow in 0..FLOWS {
            let address = format!("10.9.0.{}", 100 + flow);
            let neighbour = ["neigh", "replace", &address, "lladdr", "02:00:00:00:00:99", "dev", "eth0"];
            assert!(Command::new("ip").args(["-n", &name]).args(neighbour).status().unwrap().success());
        }
        let socket = namespace::within(&name, || UdpSocket::bind("10.9.0.5:0")).unwrap();
        for number in 0..DATAGRAMS {
            for flow in 0..FLOWS {
                socket.send_to(&[number], (format!("10.9.0.{}", 100 + flow), 9)).unwrap();
            }
        }
        let by_flow = receive_all(&mut queues, usize::from(FLOWS) * usize::from(DATAGRAMS));
        let mut used = std::collections::BTreeSet::new();
        for came in by_flow.values() {
            let expected: Vec<_> = (0..DATAGRAMS).map(|number| (came[0].0, number)).collect();
            assert_eq!(came, &expected, "{io:?}");
            used.insert(came[0].0);
        }
        assert_eq!(used.len(), 3, "flows are spread over all queues");
    }
}
