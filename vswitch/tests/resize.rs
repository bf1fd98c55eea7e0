//! Workers and rx queues that come and go while packets are on their way: with memory ports, turned by hand.
//! `namespaces_resize.rs` does the same to guests of the kernel.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod guests;

use guests::world::{GuestWorld, collect};
use guests::{desired, udp};
use vswitch::exchange::handoff::pool_size;
use vswitch::port::factory::PortFactory;
use vswitch::port::memory::MemoryHub;
use vswitch::worker::Worker;
use vswitch::worker::driver::{ManualDriver, WorkerDriver, WorkerEndpoint};
use vswitch_core::config::desired::{
    Desired, DesiredRule, Direction, MatchConditions, Policy, Ports, Protocol, Remote,
};
use vswitch_core::config::protocol::{FlowDescription, FlowSelection, RequestBody, SwitchReplyBody};
use vswitch_core::hw::time::Time;

/// Workers and rx queues, one after the other.
const SHAPES: [(usize, usize); 10] = [(2, 1), (2, 2), (1, 1), (4, 4), (3, 2), (3, 3), (1, 1), (2, 2), (2, 1), (1, 1)];

fn with_rx_queues(workers: usize, rx_queues: usize, rx_queues_max: usize) -> GuestWorld {
    GuestWorld::with_ports(workers, 4096, PortFactory { rx_queues, rx_queues_max, ..PortFactory::default() })
}

fn flows(world: &mut GuestWorld) -> Vec<FlowDescription> {
    let list = RequestBody::Flows { selection: FlowSelection::default(), cursor: None, limit: 4096 };
    let SwitchReplyBody::Flows { mut flows, next: None } = world.ask(list) else { panic!("one page holds all") };
    flows.sort_by_key(|flow| (flow.eni.clone(), flow.source, flow.destination, flow.source_port));
    flows
}

/// `udp`, back from the port that it goes to.
fn reply(from: u8, to: u8, number: u32) -> Vec<u8> {
    let mut frame = udp(from, to, number);
    let (source, destination) = (frame[34..36].to_vec(), frame[36..38].to_vec());
    frame[34..36].copy_from_slice(&destination);
    frame[36..38].copy_from_slice(&source);
    frame
}

/// Nothing comes in but what `udp` sends, and what answers it.
fn closed_but_for_udp(count: u8) -> Desired {
    let mut desired = desired(count);
    for group in desired.groups.values_mut() {
        group.inner_access = Policy::Drop;
        group.rules.push(DesiredRule {
            id: "sgr-in".into(),
            direction: Direction::Ingress,
            policy: Policy::Accept,
            priority: 1,
            conditions: MatchConditions {
                protocol: Protocol::UDP,
                ports: Ports::Range(serde_json::from_str("[8192, 8192]").unwrap()),
                ..MatchConditions::of(Remote::Prefix("10.0.0.0/24".parse().unwrap()))
            },
        });
    }
    desired
}

#[test]
fn whatever_is_on_its_way_arrives_in_order() {
    let mut world = with_rx_queues(1, 1, 4);
    world.apply(desired(5), 1);
    let mut sent = 0;
    for (round, (workers, rx_queues)) in SHAPES.into_iter().cycle().take(40).enumerate() {
        for _ in 0..25 {
            // A flow to each of four guests; each is in one queue always.
            for to in [2, 3, 4, 5] {
                assert!(world.guest_rx_queue(1, usize::from(to) % 4).inject(&udp(1, to, sent)));
            }
            sent += 1;
        }
        // Some workers have taken what others have not yet evaluated or sent.
        for step in 0..=round % 5 {
            world.turn_one(step % world.workers.len(), 1 + round % 3);
        }
        let resized = world.resize(workers, rx_queues).unwrap();
        assert_eq!((resized.workers, resized.lanes, world.workers.len()), (workers, rx_queues, workers));
    }
    world.turn(200);
    for to in [2, 3, 4, 5] {
        assert_eq!(collect(&world.guest(to)), (0..sent).collect::<Vec<_>>(), "to {to}");
    }
    assert_eq!(world.free_buffers(), vec![pool_size(1).total()], "every buffer is back");
    let stats = world.stats(1);
    assert_eq!((stats.egress.packets, stats.flows), (u64::from(sent) * 4, 4));
    assert!(stats.egress.drops.is_empty(), "{stats:?}");
}

#[test]
fn what_a_rx_queue_of_another_worker_took_is_judged_by_whoever_owns_the_eni_then() {
    for (workers, rx_queues) in SHAPES {
        let mut world = with_rx_queues(2, 2, 2);
        world.apply(desired(2), 1);
        let owner = world.worker_of(1);
        for number in 0..60 {
            assert!(world.guest_rx_queue(1, 1).inject(&udp(1, 2, number)));
        }
        // The rx queue's worker, which is not the owner, takes some; they wait in the ring to the owner.
        world.turn_one(1 - owner, 1);
        assert_eq!(world.stats(1).egress.packets, 0, "nobody has evaluated them");
        assert!(world.workers[owner].has_input(), "they wait for the owner");
        let rx_queues = rx_queues.min(2);
        world.resize(workers, rx_queues).unwrap();
        let came = collect(&world.guest(2));
        assert!(!came.is_empty(), "what was taken has arrived before anybody goes on");
        world.turn(20);
        let all: Vec<u32> = came.into_iter().chain(collect(&world.guest(2))).collect();
        assert_eq!(all, (0..60).collect::<Vec<_>>(), "to {workers} workers and {rx_queues} rx queues");
    }
}

#[test]
fn sessions_are_what_they_were_and_only_they_let_the_answers_in() {
    let mut world = GuestWorld::new(1, 256);
    world.apply(closed_but_for_udp(6), 1);
    for to in 2..=6 {
        world.guest(1).inject(&udp(1, to, 0));
    }
    world.turn(4);
    (2..=6).for_each(|number| assert_eq!(collect(&world.guest(number)), [0]));
    let before = flows(&mut world);
    assert_eq!(before.len(), 10);
    for (round, (workers, _)) in SHAPES.into_iter().enumerate() {
        let owners: Vec<usize> = (1..=6).map(|number| world.worker_of(number)).collect();
        let resized = world.resize(workers, 1).unwrap();
        let moved = (1..=6).zip(owners).filter(|(number, owner)| world.worker_of(*number) != *owner).count();
        assert_eq!(resized.enis_moved, moved);
        let told = flows(&mut world);
        let essence = |flow: &FlowDescription| FlowDescription { age_ms: 0, idle_ms: 0, ..flow.clone() };
        if round == 0 {
            let [told, before] = [&told, &before].map(|all| all.iter().map(essence).collect::<Vec<_>>());
            assert_eq!(told, before, "the sessions are told of as before");
        }
        for from in 2..=6 {
            world.guest(from).inject(&reply(from, 1, from.into()));
        }
        world.turn(6);
        let mut answers = collect(&world.guest(1));
        answers.sort_unstable();
        assert_eq!(answers, [2, 3, 4, 5, 6], "{workers} workers");
        assert_eq!(flows(&mut world).len(), 10, "nobody opened another session");
    }
    world.guest(2).inject(&reply(2, 3, 7));
    world.turn(6);
    assert!(collect(&world.guest(3)).is_empty(), "what answers nothing does not come in");
}

#[test]
fn connections_share_a_record_again_once_both_ends_are_together() {
    let mut world = GuestWorld::new(1, 256);
    world.apply(desired(2), 1);
    let records = |world: &mut GuestWorld| {
        let SwitchReplyBody::Status(status) = world.ask(RequestBody::Status) else { panic!() };
        status.workers.iter().map(|worker| worker.flows).collect::<Vec<_>>()
    };
    world.guest(1).inject(&udp(1, 2, 0));
    world.turn(2);
    assert_eq!(records(&mut world), [1]);
    world.resize(2, 1).unwrap();
    assert_eq!(records(&mut world), [1, 1]);
    world.guest(2).inject(&reply(2, 1, 0));
    world.turn(4);
    world.resize(1, 1).unwrap();
    assert_eq!(records(&mut world), [1]);
    world.guest(1).inject(&udp(1, 2, 1));
    world.turn(2);
    assert_eq!(flows(&mut world).iter().map(|flow| flow.packets).collect::<Vec<_>>(), [[2, 1], [2, 1]]);
}

#[test]
fn a_rule_that_changes_after_a_move_is_obeyed_at_once() {
    let mut world = GuestWorld::new(1, 256);
    world.apply(desired(2), 1);
    world.guest(1).inject(&udp(1, 2, 0));
    world.turn(2);
    world.resize(2, 1).unwrap();
    let mut closed = desired(2);
    closed.groups.values_mut().for_each(|group| group.inner_access = Policy::Drop);
    world.apply(closed, 2);
    world.guest(1).inject(&udp(1, 2, 1));
    world.turn(4);
    assert_eq!(collect(&world.guest(2)), [0]);
    world.resize(1, 1).unwrap();
    world.guest(2).inject(&reply(2, 1, 2));
    world.turn(4);
    assert_eq!(world.guest(1).waiting(), 0, "what was revoked stays so, wherever it is");
    assert!(flows(&mut world).iter().any(|flow| flow.state == "revoked"));
    world.apply(desired(2), 3);
    world.guest(1).inject(&udp(1, 2, 3));
    world.turn(4);
    assert_eq!(collect(&world.guest(2)), [3]);
}

#[test]
fn parts_that_wait_for_their_first_wait_on_elsewhere() {
    let part = |number: u8, last: bool| {
        let mut frame = udp(1, 2, 0);
        frame[18..20].copy_from_slice(&[7, 7]);
        let place = if last { [0, 1 + number * 2 - 2] } else { [0x20, 0] };
        frame[20..22].copy_from_slice(&if number == 0 { [0x20, 0] } else { place });
        frame[16..18].copy_from_slice(&[0, if number == 0 { 28 } else { 32 }]);
        frame.truncate(if number == 0 { 42 } else { 46 });
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        frame[24..26].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
        frame
    };
    let mut world = GuestWorld::new(1, 256);
    world.apply(desired(2), 1);
    world.guest(1).inject(&part(1, true));
    world.turn(2);
    assert_eq!(world.guest(2).waiting(), 0, "it waits");
    world.resize(2, 1).unwrap();
    assert_eq!(world.resize(1, 1).unwrap().workers, 1);
    // One ENI moved away and back, so that whichever sends has been at both.
    world.resize(2, 1).unwrap();
    world.guest(1).inject(&part(0, false));
    world.turn(6);
    assert_eq!(world.guest(2).waiting(), 2, "both parts arrive, the first before the other");
}

#[test]
fn a_table_without_room_refuses_and_nothing_has_changed() {
    let mut world = GuestWorld::with_tables(2, 64, MemoryHub::new(4096, false), PortFactory::default());
    world.apply(desired(4), 1);
    let owners = |world: &GuestWorld| [1, 2, 3, 4].map(|number| world.worker_of(number));
    let before = owners(&world);
    // Two ENIs of each worker talk with each other, and fill most of its table.
    let partner = |number: u8| {
        (1..=4)
            .find(|other| *other != number && before[usize::from(*other) - 1] == before[usize::from(number) - 1])
            .unwrap()
    };
    let senders = [1, (2..=4).find(|number| before[usize::from(*number) - 1] != before[0]).unwrap()];
    for port in 0..60_u16 {
        for from in senders {
            let mut frame = udp(from, partner(from), port.into());
            frame[34..36].copy_from_slice(&port.to_be_bytes());
            assert!(world.guest(from).inject(&frame));
        }
    }
    world.turn(6);
    let sessions = flows(&mut world);
    assert_eq!(sessions.len(), 240);
    let refusal = world.resize(1, 1).unwrap_err().remove(0);
    assert_eq!((refusal.code.as_str(), refusal.object.as_str()), ("limit", "workers/0"), "{refusal:?}");
    assert!(refusal.message.contains("nothing has changed") && refusal.message.contains("eni-"), "{refusal:?}");
    assert_eq!((world.workers.len(), owners(&world)), (2, before));
    assert_eq!(flows(&mut world), sessions);
    for from in senders {
        let to = partner(from);
        collect(&world.guest(to));
        world.guest(from).inject(&udp(from, to, 99));
        world.turn(2);
        assert_eq!(collect(&world.guest(to)), [99], "they go on");
    }
    world.resize(4, 1).unwrap();
    assert_eq!(flows(&mut world).len(), 244, "but there is room for more workers");
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let mut world = with_rx_queues(2, 1, 2);
    world.apply(desired(2), 1);
    for (workers, rx_queues, object, says) in [
        (0, 1, "workers", "1 to 64"),
        (65, 1, "workers", "1 to 64"),
        (1, 2, "lanes", "a worker of its own"),
        (2, 0, "lanes", "there must be at least one"),
        (3, 3, "lanes", "--rx-queues-max 3"),
    ] {
        let refusal = world.resize(workers, rx_queues).unwrap_err().remove(0);
        assert_eq!(refusal.object, object, "{refusal:?}");
        assert!(refusal.message.contains(says), "{refusal:?}");
    }
    let SwitchReplyBody::Status(status) = world.ask(RequestBody::Status) else { panic!() };
    assert_eq!((status.workers.len(), status.lanes, status.lanes_max), (2, 1, 2));
    let SwitchReplyBody::Regrouped(told) = world.ask(RequestBody::Regroup { workers: 2, lanes: Some(2) }) else {
        panic!()
    };
    assert_eq!((told.workers, told.lanes, told.enis_moved), (2, 2, 0));
    let SwitchReplyBody::Regrouped(told) = world.ask(RequestBody::Regroup { workers: 3, lanes: None }) else {
        panic!()
    };
    assert_eq!((told.workers, told.lanes), (3, 2), "as many rx queues as before");
    let mut world = with_rx_queues(2, 2, 0);
    world.resize(1, 1).unwrap();
    assert_eq!(world.resize(2, 2).unwrap().lanes, 2, "as many rx queues as at the start there may be again");
}

#[test]
fn a_port_that_is_down_moves_too_and_comes_back() {
    let mut world = GuestWorld::new(1, 256);
    world.apply(desired(4), 1);
    for number in 1..=4 {
        world.guest(number).set_failed(true);
    }
    world.turn(3);
    let resized = world.resize(2, 1).unwrap();
    assert_eq!(resized.ports_down.len(), 4, "what failed before the move is known after it");
    for number in 1..=4 {
        world.guest(number).set_failed(false);
    }
    world.tick(1000);
    world.turn(3);
    assert!(world.switch.ports_down().is_empty());
    for to in 2..=4 {
        world.guest(1).inject(&udp(1, to, 5));
    }
    world.turn(4);
    (2..=4).for_each(|number| assert_eq!(collect(&world.guest(number)), [5]));
}

/// What a port owes for refused packets, others are served for. A slot that it had before a resize is no other port.
#[test]
fn a_port_does_not_wait_for_the_slot_that_it_had_before() {
    let mut world = GuestWorld::new(1, 256);
    world.apply(desired(6), 1);
    for number in 0..32 {
        assert!(world.guest(1).inject(&udp(1, 1, number)), "it never leaves");
    }
    world.turn_one(0, 1);
    // There and back, into the slot that another port had.
    world.resize(3, 1).unwrap();
    world.resize(1, 1).unwrap();
    world.guest(1).inject(&udp(1, 2, 32));
    world.turn_one(0, 1);
    assert_eq!(collect(&world.guest(2)), [32], "nobody else has anything to send");
    assert_eq!(world.drops(1, "no-route"), 32);
}

#[test]
fn enis_come_and_go_beside() {
    let mut world = with_rx_queues(1, 1, 3);
    let mut sent = 0;
    for (round, (workers, rx_queues)) in SHAPES.into_iter().cycle().take(30).enumerate() {
        world.apply(desired(2 + (round % 4) as u8 * 2), round as u64 + 1);
        for _ in 0..20 {
            assert!(world.guest_rx_queue(1, 1).inject(&udp(1, 2, sent)));
            sent += 1;
        }
        world.turn_one(round % world.workers.len(), 1);
        world.resize(workers, rx_queues.min(3)).unwrap();
    }
    world.turn(60);
    assert_eq!(collect(&world.guest(2)), (0..sent).collect::<Vec<_>>());
}

/// Workers that there cannot be, or that do not come.
struct Stubborn<'a> {
    hand: ManualDriver<'a>,
    has_threads: bool,
}

impl WorkerDriver for Stubborn<'_> {
    fn now(&self) -> Time {
        self.hand.now()
    }

    fn wait(&mut self) {
        self.hand.wait();
    }

    fn reserve(&mut self, workers: usize) -> std::io::Result<Vec<WorkerEndpoint>> {
        if self.has_threads { self.hand.reserve(workers) } else { Err(std::io::Error::other("no thread left")) }
    }

    fn pause_all(&mut self) -> Option<Vec<Worker>> {
        None
    }

    fn resume(&mut self, _: Vec<Worker>) {
        panic!("nobody has them");
    }
}

#[test]
fn a_thread_that_cannot_be_had_or_a_worker_that_does_not_come_changes_nothing() {
    let mut world = GuestWorld::new(1, 256);
    world.apply(desired(2), 1);
    world.guest(1).inject(&udp(1, 2, 0));
    world.turn(2);
    for (has_threads, code, says) in [(false, "limit", "no thread left"), (true, "timeout", "did not finish its turn")]
    {
        let refusal = world.with_switch(|switch, driver| {
            let hand = ManualDriver { workers: driver.workers, now: driver.now };
            switch.resize(2, None, &mut Stubborn { hand, has_threads }).unwrap_err().remove(0)
        });
        assert_eq!(refusal.code, code, "{refusal:?}");
        assert!(refusal.message.contains(says) && refusal.message.contains("nothing has changed"), "{refusal:?}");
        world.guest(1).inject(&udp(1, 2, 1));
        world.turn(2);
        assert_eq!(world.workers.len(), 1);
    }
    assert_eq!(collect(&world.guest(2)), [0, 1, 1]);
    assert_eq!(world.resize(2, 1).unwrap().sessions_moved, 1, "what was refused can be had later");
}
