//! The promise of a reply, with threads and under load: nothing comes out by the old rules after it.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod guests;
#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use guests::{desired, eni, udp};
use running::RunningSwitch;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vswitch::port::factory::PortFactory;
use vswitch::port::faults::Faults;
use vswitch::port::memory::{MemoryGuest, MemoryHub};
use vswitch_core::config::desired::{Desired, DesiredRule, Direction, MatchConditions, Policy, Remote};
use vswitch_core::config::protocol::{RequestBody, SwitchReplyBody};

/// Only the sender's egress changes, so that what its worker let pass and still waits in the ring would be let in.
fn with_egress(policy: Policy) -> Desired {
    let rule = |id: &str, direction, policy| DesiredRule {
        id: id.into(),
        direction,
        policy,
        priority: 1,
        conditions: MatchConditions::of(Remote::Prefix("0.0.0.0/0".parse().unwrap())),
    };
    let mut desired = desired(2);
    for group in desired.groups.values_mut() {
        group.inner_access = Policy::Drop;
        group.rules.push(rule("sgr-in", Direction::Ingress, Policy::Accept));
        group.rules.push(rule("sgr-out", Direction::Egress, policy));
    }
    desired
}

/// Ends the flood, also when an assertion fails.
struct FloodEnd<'a>(&'a AtomicBool);

impl Drop for FloodEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many IP packets came.
fn drain(guest: &MemoryGuest) -> usize {
    let is_ip = |frame: &[u8]| frame.get(12..14) == Some(&[8, 0]);
    std::iter::from_fn(|| guest.collect_with(is_ip)).filter(|is_ip| *is_ip).count()
}

/// The second guest asks for the gateway, which is answered whatever the rules say: its port has something to send.
fn question() -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 2];
    let mut frame = [[0xff; 6].as_slice(), &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &[10, 0, 0, 2]].concat();
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 253]);
    frame
}

/// Packets that pass before what lets them pass is taken away: without traffic there would be nothing to stop.
const PACKETS_A_GENERATION: usize = 30;

/// Opens and closes the sender's egress under load; `workers` tells how many there are in each generation.
fn nothing_comes_out_by_the_old_rules(workers: impl Fn(u64) -> usize, faults: Option<Faults>) {
    let hub = MemoryHub::new(8192, true);
    let running =
        RunningSwitch::start_with(workers(1), PortFactory { memory: hub.clone(), faults, ..PortFactory::default() });
    let mut client = running.connect();
    let (sender, receiver) = (hub.guest(&eni(1)), hub.guest(&eni(2)));
    let is_over = AtomicBool::new(false);
    let (mut barriers, mut passed) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let frame = udp(1, 2, 0);
            while !is_over.load(Ordering::Relaxed) {
                if !sender.inject(&frame) {
                    std::thread::yield_now();
                }
            }
        });
        let _ending = FloodEnd(&is_over);
        for generation in 1..=60 {
            let policy = if generation % 2 == 1 { Policy::Accept } else { Policy::Drop };
            let replace = RequestBody::Replace { generation, desired: with_egress(policy) };
            let SwitchReplyBody::Applied(applied) = client.ask(replace) else { panic!() };
            barriers.push(applied.barrier_ns / 1000);
            let mut at_reply = drain(&receiver);
            let started = Instant::now();
            while policy == Policy::Accept && at_reply < PACKETS_A_GENERATION {
                assert!(started.elapsed() < Duration::from_secs(60), "generation {generation}: nothing passes");
                at_reply += drain(&receiver);
            }
            let next = workers(generation + 1);
            if next != workers(generation) {
                let resize = RequestBody::Regroup { workers: next, lanes: None };
                let SwitchReplyBody::Regrouped(_) = client.ask(resize) else { panic!() };
            }
            for _ in 0..5 {
                receiver.inject(&question());
                std::thread::sleep(Duration::from_millis(1));
            }
            let after = drain(&receiver);
            match policy {
                Policy::Accept => passed += at_reply + after,
                Policy::Drop => assert_eq!(after, 0, "generation {generation}, {next} workers"),
            }
        }
    });
    barriers.sort_unstable();
    println!(
        "{passed} packets: barrier median {} µs, worst {} µs",
        barriers[barriers.len() / 2],
        barriers[barriers.len() - 1]
    );
}

#[test]
fn after_the_reply_nothing_comes_out_by_the_old_rules() {
    for workers in [1, 2] {
        nothing_comes_out_by_the_old_rules(|_| workers, None);
    }
}

/// Ports whose kernel takes at once only a part of what they are given.
#[test]
fn after_the_reply_nothing_comes_out_of_what_ports_had_in_line() {
    for workers in [1, 2] {
        let faults = Faults { seed: 11, unsent: 700_000, ..Faults::default() };
        nothing_comes_out_by_the_old_rules(|_| workers, Some(faults));
    }
}

#[test]
fn after_the_reply_nothing_comes_out_while_workers_come_and_go() {
    nothing_comes_out_by_the_old_rules(|generation| [1, 2, 2, 3, 1][generation as usize % 5], None);
}
