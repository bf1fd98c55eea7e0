//! Workers with memory ports, turned by hand in virtual time.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod guests;

use guests::world::{GuestWorld, collect};
use guests::{desired, eni, udp};
use std::sync::Arc;
use vswitch::port::factory::PortFactory;
use vswitch::port::faults::Faults;
use vswitch::worker::Worker;
use vswitch_core::config::desired::Policy;
use vswitch_core::config::ids::EniId;
use vswitch_core::config::limits::HANDOFF_PACKETS;
use vswitch_core::config::protocol::{FlowDescription, FlowSelection, PacketDescription, RequestBody, SwitchReplyBody};

fn explain(world: &mut GuestWorld, from: Option<u8>, to: Option<u8>, destination: u8) -> SwitchReplyBody {
    let packet = PacketDescription {
        from: from.map(eni),
        to: to.map(eni),
        protocol: 17,
        source: [10, 0, 0, from.unwrap_or(1)].into(),
        destination: [10, 0, 0, destination].into(),
        source_port: 4096,
        destination_port: 8192,
    };
    world.ask(RequestBody::Explain { packet })
}

#[test]
fn packets_keep_their_order_within_and_across_workers_and_no_buffer_is_lost() {
    for workers in [1, 2, 3] {
        let mut world = GuestWorld::new(workers, 256);
        world.apply(desired(4), 1);
        let free: Vec<_> = world.workers.iter().map(Worker::free_buffers).collect();
        for number in 0..100 {
            for to in [2, 3] {
                assert!(world.guest(1).inject(&udp(1, to, number)));
            }
        }
        world.turn(20);
        let expected: Vec<u32> = (0..100).collect();
        assert_eq!(collect(&world.guest(2)), expected, "{workers} workers");
        assert_eq!(collect(&world.guest(3)), expected, "{workers} workers");
        assert_eq!(world.workers.iter().map(Worker::free_buffers).collect::<Vec<_>>(), free);
    }
}

#[test]
fn a_port_is_born_closed_and_ends_closed() {
    let mut world = GuestWorld::new(2, 256);
    assert!(world.guest(1).inject(&udp(1, 2, 0)), "before there is a policy");
    world.turn(3);
    assert_eq!(world.guest(2).waiting(), 0);
    world.apply(desired(2), 1);
    world.turn(3);
    assert_eq!(collect(&world.guest(2)), [0], "it waited in the port until the policy was live");
    let mut without = desired(2);
    without.enis.remove(&eni(1));
    world.apply(without, 2);
    world.guest(1).inject(&udp(1, 2, 1));
    world.turn(3);
    assert_eq!(world.guest(2).waiting(), 0);
    assert!(world.switch.port_statuses().iter().all(|port| port.eni != eni(1)));
}

#[test]
fn a_detached_port_closes_with_the_state_that_had_it() {
    for workers in [1, 2] {
        let mut world = GuestWorld::new(workers, 256);
        world.apply(desired(2), 1);
        assert!(world.guest(1).inject(&udp(1, 2, 0)) && world.guest(2).inject(&udp(2, 1, 1)));
        let mut detached = desired(2);
        detached.enis.get_mut(&eni(1)).unwrap().port = None;
        world.apply(detached, 2);
        world.turn(3);
        assert_eq!(world.guest(2).waiting(), 0, "{workers} workers: what it sent stays where it is");
        assert_eq!((world.guest(1).waiting(), world.drops(1, "port-down")), (0, 1), "{workers} workers");
        world.apply(desired(2), 3);
        world.turn(3);
        assert_eq!(collect(&world.guest(2)), [0], "{workers} workers: until it is attached again");
    }
}

#[test]
fn after_the_reply_nothing_comes_out_by_the_old_rules() {
    let mut world = GuestWorld::new(2, 4096);
    world.apply(desired(2), 1);
    for number in 0..500 {
        assert!(world.guest(1).inject(&udp(1, 2, number)));
    }
    // Only the sender's worker turns, so that packets it let pass wait in the ring when the rules change.
    let now = world.now;
    assert_eq!(world.workers[0].turn(now).packets, 32);
    let mut closed = desired(2);
    closed.groups.values_mut().for_each(|group| group.inner_access = Policy::Drop);
    world.apply(closed, 2);
    let delivered = world.guest(2).waiting();
    world.turn(50);
    assert_eq!(world.guest(2).waiting(), delivered, "nothing more after the reply");
    assert!(delivered < 500);
}

/// A port whose kernel takes nothing of what it was given: what was evaluated by rules that are gone must not come out
/// later, and no port that has nothing in line is touched.
#[test]
fn what_a_port_cannot_get_out_before_the_reply_is_dropped_with_the_port() {
    for workers in [1, 2] {
        let faults = Faults { seed: 3, unsent: 1_000_000, ..Faults::default() };
        let mut world =
            GuestWorld::with_ports(workers, 256, PortFactory { faults: Some(faults), ..PortFactory::default() });
        world.apply(desired(2), 1);
        for number in 0..5 {
            world.guest(1).inject(&udp(1, 2, number));
        }
        world.turn(5);
        assert_eq!(world.guest(2).waiting(), 0, "they are said to be out, and are not");
        assert_eq!((world.stats(2).ingress.packets, world.drops(2, "port-down")), (5, 0));
        let mut closed = desired(2);
        closed.groups.values_mut().for_each(|group| group.inner_access = Policy::Drop);
        let applied = world.apply(closed, 2);
        let down: Vec<&EniId> = applied.ports_down.iter().map(|port| &port.eni).collect();
        assert_eq!(down, [&eni(2)], "{workers} workers");
        assert_eq!(world.drops(2, "port-down"), 5, "{workers} workers");
        let status = world.switch.port_statuses().into_iter().find(|port| port.eni == eni(2)).unwrap();
        assert!(status.error.is_some_and(|error| error.contains("older rules admitted")));
        world.tick(1000);
        world.turn(5);
        assert!(world.switch.port_statuses().iter().all(|port| port.up), "it is tried again as any other");
        assert_eq!(world.guest(2).waiting(), 0, "{workers} workers");
    }
}

#[test]
fn a_full_ring_and_a_full_port_drop_and_count() {
    let mut world = GuestWorld::new(2, 2 * HANDOFF_PACKETS);
    world.apply(desired(2), 1);
    let guest = world.guest(1);
    let sent = HANDOFF_PACKETS + 64;
    for number in 0..sent {
        assert!(guest.inject(&udp(1, 2, number as u32)));
    }
    let now = world.now;
    let owner = (0..2).find(|worker| world.workers[*worker].turn(now).packets > 0).unwrap();
    for _ in 0..200 {
        world.workers[owner].turn(now);
    }
    world.turn(10);
    let delivered = collect(&world.guest(2)).len();
    let full = world.drops(1, "handoff-full") as usize;
    assert!(full > 0 && delivered + full == sent, "{delivered} + {full} of {sent}");

    let mut world = GuestWorld::new(1, 8);
    world.apply(desired(2), 1);
    for round in 0..2 {
        (0..8).for_each(|number| assert!(world.guest(1).inject(&udp(1, 2, round * 8 + number))));
        world.turn(2);
    }
    assert_eq!((world.drops(2, "port-full"), world.guest(2).waiting()), (8, 8));
}

/// A refused packet costs its worker as much as several that pass: who sends nothing else is served the less often for it
/// while others have frames, and not a turn less while nobody has.
#[test]
fn who_sends_what_is_refused_takes_no_more_time_than_others() {
    const TURNS: usize = 100;
    for others in [true, false] {
        let mut world = GuestWorld::new(1, 2 * TURNS * 32);
        world.apply(desired(3), 1);
        for number in 0..2 * TURNS as u32 * 32 {
            assert!(world.guest(3).inject(&udp(3, 3, number)), "nothing is said about what it sends to itself");
            assert!(!others || world.guest(1).inject(&udp(1, 2, number)));
        }
        world.turn(TURNS);
        let refused = world.drops(3, "no-route") as usize;
        if others {
            assert!(world.guest(2).waiting() >= TURNS * 32, "a burst in each turn");
            assert!((TURNS * 32 / 6..=TURNS * 32 / 4).contains(&refused), "{refused}");
            world.turn(TURNS * 6);
            assert_eq!(world.drops(3, "no-route") as usize, 2 * TURNS * 32, "all of it is looked at in the end");
        } else {
            assert!(refused >= TURNS * 32, "{refused}");
        }
    }
}

#[test]
fn a_port_that_fails_goes_down_and_comes_back_and_the_others_stay() {
    let mut world = GuestWorld::new(2, 256);
    world.apply(desired(3), 1);
    world.guest(2).set_failed(true);
    world.guest(1).inject(&udp(1, 2, 0));
    world.guest(1).inject(&udp(1, 3, 0));
    world.turn(4);
    world.tick(1);
    assert_eq!(collect(&world.guest(3)), [0]);
    let down = world.switch.ports_down();
    assert_eq!((down.len(), down[0].failures), (1, 1));
    assert!(down[0].error.as_ref().unwrap().contains("disconnected"), "{down:?}");
    world.guest(1).inject(&udp(1, 2, 1));
    world.turn(4);
    assert!(world.drops(2, "port-down") >= 1);
    world.guest(2).set_failed(false);
    world.tick(200);
    world.turn(4);
    assert!(world.switch.ports_down().is_empty());
    world.guest(1).inject(&udp(1, 2, 2));
    world.turn(4);
    assert_eq!(collect(&world.guest(2)), [2]);
}

#[test]
fn a_flooding_port_does_not_starve_another() {
    let mut world = GuestWorld::new(1, 4096);
    world.apply(desired(3), 1);
    for number in 0..4096 {
        world.guest(1).inject(&udp(1, 3, number));
    }
    world.guest(2).inject(&udp(2, 3, 99_999));
    world.turn(2);
    assert!(collect(&world.guest(3)).contains(&99_999), "served within a turn or two");
}

/// 31 ports flood one receiver; one port sends a frame at a time to another.
struct Flood {
    world: GuestWorld,
    flooded: u8,
    quiet: u8,
    friend: u8,
}

impl Flood {
    const PORTS: u8 = 34;

    fn new(workers: usize) -> Self {
        let mut world = GuestWorld::new(workers, 256);
        world.apply(desired(Self::PORTS), 1);
        let mut flood = Self { world, flooded: 0, quiet: 1, friend: 0 };
        // With two workers, both receivers are a ring away from the quiet port.
        let is_away = |number: &u8| workers == 1 || flood.worker_of(*number) != flood.worker_of(1);
        let mut away = (2..=Self::PORTS).filter(is_away);
        (flood.flooded, flood.friend) = (away.next().unwrap(), away.next().unwrap());
        flood
    }

    fn worker_of(&self, number: u8) -> usize {
        self.world.worker_of(number)
    }

    fn inject(&self, number: u32) {
        for flooding in (1..=Self::PORTS).filter(|port| ![self.flooded, self.quiet, self.friend].contains(port)) {
            while self.world.guest(flooding).inject(&udp(flooding, self.flooded, 0)) {}
        }
        assert!(self.world.guest(self.quiet).inject(&udp(self.quiet, self.friend, number)));
    }

    fn collect(&self) -> Vec<u32> {
        collect(&self.world.guest(self.friend))
    }

    fn turn(&mut self, worker: usize) {
        let now = self.world.now;
        self.world.workers[worker].turn(now);
    }
}

#[test]
fn a_quiet_port_among_31_that_flood_is_served_every_turn_and_loses_nothing() {
    let mut flood = Flood::new(1);
    for number in 0..40 {
        flood.inject(number);
        flood.turn(0);
        assert_eq!(flood.collect(), [number]);
    }
    assert!(flood.world.drops(flood.flooded, "port-full") > 0);
}

#[test]
fn a_full_ring_is_paid_for_by_the_ports_that_fill_it() {
    let mut flood = Flood::new(2);
    let (near, far) = (flood.worker_of(flood.quiet), flood.worker_of(flood.friend));
    let mut got = Vec::new();
    for number in 0..80 {
        flood.inject(number);
        flood.turn(near);
        // The receiving worker is slow.
        if number % 8 == 7 {
            flood.turn(far);
            got.extend(flood.collect());
        }
    }
    let full: u64 = (1..=Flood::PORTS).map(|number| flood.world.drops(number, "handoff-full")).sum();
    assert!(full > 0, "the ring was full");
    assert_eq!(flood.world.drops(flood.quiet, "handoff-full"), 0);
    assert_eq!(got, (0..80).collect::<Vec<_>>(), "all of its frames, in order");
}

#[test]
fn placement_is_stable_and_even() {
    let mut world = GuestWorld::new(2, 16);
    world.apply(desired(4), 1);
    let worker_of = |world: &GuestWorld| -> Vec<(EniId, usize)> {
        world.switch.port_statuses().into_iter().map(|port| (port.eni, port.worker)).collect()
    };
    let before = worker_of(&world);
    assert_eq!(before.iter().filter(|(_, worker)| *worker == 0).count(), 2);
    let mut next = desired(6);
    next.enis.remove(&eni(2));
    world.apply(next, 2);
    let after = worker_of(&world);
    for (eni, worker) in before.iter().filter(|(id, _)| *id != eni(2)) {
        assert!(after.contains(&(eni.clone(), *worker)));
    }
    assert_eq!(after.len(), 5);
}

#[test]
fn a_refused_state_changes_nothing() {
    let mut world = GuestWorld::new(1, 16);
    world.apply(desired(2), 1);
    let mut broken = desired(2);
    broken.enis.values_mut().next().unwrap().groups.insert("sg-none".into());
    let refused = world.with_switch(|switch, driver| switch.apply(broken, 2, driver).unwrap_err());
    assert!(!refused.is_empty());
    assert_eq!(world.switch.generation(), 1);
    world.guest(1).inject(&udp(1, 2, 5));
    world.turn(2);
    assert_eq!(collect(&world.guest(2)), [5]);
}

#[test]
fn old_snapshots_are_freed() {
    let mut world = GuestWorld::new(2, 16);
    world.apply(desired(2), 1);
    for generation in 2..50 {
        world.apply(desired(2), generation);
        world.turn(1);
    }
    world.tick(0);
    assert_eq!(Arc::strong_count(&world.switch.snapshot()), 3, "the switch, the publication, and the one asked for");
}

#[test]
fn explain_goes_from_worker_to_worker_as_the_packet_would() {
    let mut world = GuestWorld::new(2, 16);
    world.apply(desired(2), 1);
    let SwitchReplyBody::Explained(told) = explain(&mut world, Some(1), None, 2) else { panic!() };
    assert!(told.delivered && told.verdict == "deliver", "{told:?}");
    let evaluating: Vec<_> = told.decisions.iter().map(|decision| decision.eni.as_str()).collect();
    assert_eq!(evaluating, ["eni-1", "eni-2"]);
    let SwitchReplyBody::Explained(told) = explain(&mut world, None, Some(2), 2) else { panic!() };
    assert_eq!(told.decisions.len(), 1);
    let SwitchReplyBody::Explained(told) = explain(&mut world, Some(1), None, 99) else { panic!() };
    assert_eq!((told.delivered, told.verdict.as_str()), (false, "no-route"));
    let SwitchReplyBody::Refused { refusals } = explain(&mut world, Some(1), Some(1), 2) else { panic!() };
    assert_eq!((refusals[0].code.as_str(), refusals[0].object.as_str()), ("invalid", "packet/to"));
    let SwitchReplyBody::Refused { refusals } = explain(&mut world, Some(9), None, 2) else { panic!() };
    assert_eq!((refusals[0].code.as_str(), refusals[0].object.as_str()), ("unknown", "packet/from"));
    assert_eq!(world.stats(1).egress.packets, 0, "explaining changes nothing");
    world.guest(2).set_failed(true);
    world.turn(2);
    world.tick(1);
    let SwitchReplyBody::Explained(told) = explain(&mut world, Some(1), None, 2) else { panic!() };
    assert_eq!(told.verdict, "port-down");
}

/// All pages of a listing.
fn all_flows(world: &mut GuestWorld, selection: &FlowSelection, limit: usize) -> Vec<FlowDescription> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let SwitchReplyBody::Flows { flows, next } =
            world.ask(RequestBody::Flows { selection: selection.clone(), cursor, limit })
        else {
            panic!()
        };
        assert!(flows.len() <= limit + 1, "the two sessions of one connection come together");
        all.extend(flows);
        cursor = Some(match next {
            Some(next) => next,
            None => return all,
        });
    }
}

#[test]
fn flows_of_all_workers_are_told_page_by_page_and_ended() {
    let mut world = GuestWorld::new(2, 64);
    world.apply(desired(4), 1);
    for to in 2..=4 {
        world.guest(1).inject(&udp(1, to, 0));
    }
    world.turn(4);
    let all = FlowSelection::default();
    let of_one = FlowSelection { eni: Some(eni(1)), ..FlowSelection::default() };
    let whole = all_flows(&mut world, &all, 100);
    assert_eq!(whole.len(), 6, "three sessions at their sender and one at each receiver");
    assert!(whole.iter().all(|flow| flow.generation == Some(1)));
    assert_eq!(all_flows(&mut world, &all, 1), whole, "a page of one after another");
    assert_eq!(all_flows(&mut world, &of_one, 2).len(), 3);
    let SwitchReplyBody::Status(status) = world.ask(RequestBody::Status) else { panic!() };
    assert_eq!((status.enis, status.workers.len()), (4, 2));
    let flush = RequestBody::FlushFlows { selection: of_one.clone(), cursor: None };
    assert_eq!(world.ask(flush), SwitchReplyBody::Flushed { flows: 3, next: None });
    assert!(all_flows(&mut world, &of_one, 2).is_empty());
    assert_eq!(all_flows(&mut world, &all, 2).len(), 3, "those of the receivers stay");
}
