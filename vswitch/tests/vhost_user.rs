//! Ports for virtual machines that share memory: what front ends and guests do to them, right and wrong.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod virtio;

use rustix::fs::ftruncate;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use virtio::driver::{DriverPiece, descriptor};
use virtio::socket_rig::{SocketRig, frame};
use virtio::*;
use vswitch::port::vhost_user::VhostUser;
use vswitch_core::config::desired::VhostUserPort;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::packet::offload::{Offload, Offloads};
use vswitch_core::packet::verdict::{DropReason, Verdict};

/// Both formats of rings.
const FORMATS: [u64; 2] = [MODERN, MODERN | PACKED];

fn machine(features: u64) -> VirtualMachine {
    VirtualMachine::new(features, 1, 64)
}

#[test]
fn the_socket_is_for_its_owner_alone_and_a_stale_one_is_replaced() {
    let rig = SocketRig::new();
    assert_eq!(std::fs::metadata(rig.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let spec = |path: &str| VhostUserPort {
        path: path.into(),
        is_client: false,
        queues: 1,
        socket_user: None,
        mtu_bytes: 1500,
    };
    let stale = rig.folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    VhostUser::open(&spec(stale.to_str().unwrap()), MacAddress::default(), 1).unwrap();
    let error = VhostUser::open(&spec(rig.path().to_str().unwrap()), MacAddress::default(), 1).unwrap_err();
    assert!(error.to_string().contains("another process listens"), "{error}");
    let error = VhostUser::open(&spec("/nowhere/at/all.sock"), MacAddress::default(), 1).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all.sock"), "{error}");
}

#[test]
fn features_are_told_and_only_those_that_were_offered_are_taken() {
    let mut rig = SocketRig::new();
    let mut guest = machine(MODERN);
    guest.connect(&rig.path());
    guest.message(GET_FEATURES, &[], &[]);
    guest.message(GET_PROTOCOL_FEATURES, &[], &[]);
    rig.receive();
    let features = u64::from_ne_bytes(guest.reply().try_into().unwrap());
    assert_eq!(features & (MODERN | PACKED | LOG_ALL), MODERN | PACKED | LOG_ALL);
    // Log, reply acknowledgement, configuration, memory slots, status.
    let protocol = u64::from_ne_bytes(guest.reply().try_into().unwrap());
    let wanted = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 15 | 1 << 16;
    assert_eq!(protocol & wanted, wanted, "{protocol:#x}");
    guest.message(SET_FEATURES, &(1_u64 << 60).to_ne_bytes(), &[]);
    rig.until("it is let go", |rig, _| rig.faults() > 0);
}

#[test]
fn every_message_of_the_log_protocol_is_answered() {
    let mut rig = SocketRig::new();
    let mut guest = machine(MODERN | LOG_ALL);
    rig.start(&mut guest);
    guest.message(SET_PROTOCOL_FEATURES, &(1_u64 | 1 << 1 | 1 << 2 | 1 << 3).to_ne_bytes(), &[]);
    let log = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&log, 4096).unwrap();
    let log = std::fs::File::from(log);
    guest.message(SET_LOG_BASE, &words(&[4096, 0]), &[log.as_fd()]);
    rig.receive();
    assert_eq!(guest.reply().len(), 16, "the log itself comes back");
    for request in [SEND_RARP, SET_STATUS] {
        guest.message_with_flags(request, 1 | NEED_REPLY, &15_u64.to_ne_bytes(), &[]);
        rig.receive();
        assert_eq!(guest.reply(), 0_u64.to_ne_bytes());
    }
    let pages = || {
        let mut bytes = vec![0; 4096];
        log.read_exact_at(&mut bytes, 0).unwrap();
        bytes.iter().map(|byte| byte.count_ones()).sum::<u32>()
    };
    let before = pages();
    rig.check_traffic(&mut guest);
    assert!(pages() > before, "what is written for the guest is in the log");
    assert!(pages() < 64, "and nothing else");
}

#[test]
fn a_guest_that_agreed_to_little_gets_little() {
    for (features, header_bytes) in [(0, 10), (VERSION_1, 12), (MERGEABLE, 12), (PROTOCOL_FEATURES, 10)] {
        let mut rig = SocketRig::new();
        let mut guest = machine(features);
        assert_eq!(guest.header_bytes(), header_bytes);
        rig.start(&mut guest);
        assert_eq!(rig.parts[0].offloads(), Offloads::NONE);
        rig.check_traffic(&mut guest);
    }
}

#[test]
fn a_frame_that_is_too_long_for_a_buffer_is_dropped_alone() {
    let mut rig = SocketRig::new();
    let mut guest = machine(VERSION_1);
    guest.connect(&rig.path());
    guest.start();
    let address = guest.take_memory(4096);
    for offset in [0, 1024] {
        let piece = DriverPiece { address: address + offset, bytes: 1024, is_writable: true };
        guest.queues[0].offer(&guest.memory, &[piece], None).unwrap();
    }
    rig.until("it starts", |rig, _| rig.problem().is_none());
    let long = vec![7; 1200];
    let verdicts = rig.send(&[frame(1), long, frame(2), frame(3)]);
    let full = Verdict::Drop(DropReason::PortFull);
    assert_eq!(verdicts, [Verdict::Deliver, Verdict::Drop(DropReason::PortRefused), Verdict::Deliver, full]);
}

#[test]
fn after_a_thousand_reconnections_every_buffer_is_still_there() {
    for features in FORMATS {
        let mut rig = SocketRig::new();
        let mut guest = machine(features);
        rig.start(&mut guest);
        let buffers = guest.queues[0].free();
        for time in 0..1000 {
            // Made available while nobody is there, with a kick that nobody hears.
            guest.socket = None;
            rig.until("it is gone", |rig, _| rig.problem().is_some());
            guest.send(1, &frame(time % 7), Offload::NONE, FrameLayout::Pieces);
            guest.connect(&rig.path());
            guest.start();
            let got = rig.until("it is back", |_, frames| !frames.is_empty());
            assert_eq!(got, [frame(time % 7)], "{time}");
            assert_eq!(rig.send(&[frame(3)]), [Verdict::Deliver]);
            assert_eq!(guest.collect(0).len(), 1, "{time}");
        }
        assert_eq!(guest.queues[0].free(), buffers);
        // All of them take a frame.
        let count = 64 - buffers;
        assert_eq!(
            rig.send(&vec![frame(0); count + 1])[count - 1..],
            [Verdict::Deliver, Verdict::Drop(DropReason::PortFull)]
        );
        assert_eq!(guest.collect(0).len(), count);
    }
}

#[test]
fn a_switch_that_starts_anew_finds_the_rings_where_they_were() {
    for features in FORMATS {
        let mut rig = SocketRig::new();
        let mut guest = machine(features);
        rig.start(&mut guest);
        rig.check_traffic(&mut guest);
        let folder = std::mem::replace(&mut rig, SocketRig::new());
        drop(folder);
        rig.start(&mut guest);
        rig.check_traffic(&mut guest);
    }
}

#[test]
fn a_client_connects_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hypervisor.sock");
    let name = path.to_str().unwrap().to_owned();
    let mut rig = SocketRig::with(|spec| (spec.path, spec.is_client) = (name, true), 1);
    rig.receive();
    assert!(rig.problem().unwrap().contains("no front end listens"), "{:?}", rig.problem());
    for _ in 0..3 {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut guest = machine(MODERN);
        rig.until("it connects", |_, _| {
            guest.socket = listener.accept().ok().map(|(socket, _)| socket);
            guest.socket.is_some()
        });
        guest.start();
        guest.fill();
        rig.until("it starts", |rig, _| rig.problem().is_none());
        rig.check_traffic(&mut guest);
        drop((listener, guest));
        std::fs::remove_file(&path).unwrap();
        rig.until("it is gone", |rig, _| rig.problem().is_some());
    }
}

#[test]
fn of_two_front_ends_the_one_that_started_last_has_the_queues() {
    let mut rig = SocketRig::new();
    let (mut source, mut destination) = (machine(MODERN), machine(MODERN));
    rig.start(&mut source);
    destination.connect(&rig.path());
    rig.receive();
    rig.check_traffic(&mut source);
    source.message(GET_VRING_BASE, &pair(0, 0), &[]);
    source.message(GET_VRING_BASE, &pair(1, 0), &[]);
    destination.start();
    destination.fill();
    rig.until("it starts", |rig, _| rig.problem().is_none());
    source.socket = None;
    rig.check_traffic(&mut destination);
}

#[test]
fn front_ends_that_only_connect_keep_nobody_out() {
    let mut rig = SocketRig::new();
    let mut idle: Vec<_> = (0..100).map(|_| machine(MODERN)).collect();
    for one in &mut idle {
        one.connect(&rig.path());
        rig.receive();
    }
    let mut guest = machine(MODERN);
    rig.start(&mut guest);
    idle.iter_mut().for_each(|one| {
        one.connect(&rig.path());
        rig.receive();
    });
    rig.check_traffic(&mut guest);
}

#[test]
fn queues_are_those_that_the_guest_enabled() {
    for rx_queues in [1, 2, 3] {
        let mut rig = SocketRig::with(|_| {}, rx_queues);
        let mut guest = VirtualMachine::new(MODERN, 4, 64);
        rig.start(&mut guest);
        // In any order, and fewer than there are.
        for index in [0, 2, 4, 6, 7, 3] {
            guest.message(SET_VRING_ENABLE, &pair(index, 0), &[]);
        }
        guest.message(SET_VRING_ENABLE, &pair(4, 1), &[]);
        assert!(rig.settle().is_empty());
        assert_eq!(rig.send(&[frame(0), frame(1)]), [Verdict::Deliver; 2]);
        assert_eq!(guest.collect(4).len(), 2, "the only one to the guest");
        (1..8).step_by(2).for_each(|index| guest.send(index, &frame(index), Offload::NONE, FrameLayout::One));
        let mut got = rig.until("two come", |_, frames| frames.len() >= 2);
        got.sort();
        got.sort();
        assert_eq!(got.iter().map(|frame| frame[14]).collect::<Vec<_>>(), [1, 5], "{rx_queues} rx queues");
        assert!(rig.receive().is_empty());
        guest.message(SET_VRING_ENABLE, &pair(7, 1), &[]);
        let got = rig.until("what waited comes", |_, frames| !frames.is_empty());
        assert_eq!(got, [frame(7)]);
    }
}

#[test]
fn queues_wait_to_be_enabled_where_the_protocol_has_features_whatever_bits_are_set() {
    let mut rig = SocketRig::new();
    let mut guest = VirtualMachine::new(MODERN & !PROTOCOL_FEATURES, 2, 64);
    guest.connect(&rig.path());
    guest.message(SET_PROTOCOL_FEATURES, &(1_u64 | 1 << 3).to_ne_bytes(), &[]);
    guest.start();
    guest.fill();
    rig.settle();
    assert!(rig.problem().unwrap().contains("has not started"), "{:?}", rig.problem());
    (0..2).for_each(|index| guest.message(SET_VRING_ENABLE, &pair(index, 1), &[]));
    rig.until("it starts", |rig, _| rig.problem().is_none());
    assert_eq!(rig.send(&vec![frame(0); 16]), [Verdict::Deliver; 16]);
    assert_eq!((guest.collect(0).len(), guest.collect(2).len()), (16, 0));
}

#[test]
fn a_flow_keeps_its_queue_among_several() {
    let mut rig = SocketRig::new();
    let mut guest = VirtualMachine::new(MODERN, 4, 64);
    rig.start(&mut guest);
    let of_flow = |flow: u8, number: u8| {
        let mut frame = frame(0);
        frame[12..14].copy_from_slice(&[8, 0]);
        (frame[29], frame[33], frame[40]) = (flow, 255 - flow, number);
        frame
    };
    let mut queues = std::collections::BTreeMap::new();
    for number in 0..3 {
        let burst: Vec<_> = (0..16).map(|flow| of_flow(flow, number)).collect();
        assert_eq!(rig.send(&burst), [Verdict::Deliver; 16]);
        for index in [0, 2, 4, 6] {
            for (frame, _) in guest.collect(index) {
                assert_eq!(*queues.entry(frame[29]).or_insert(index), index, "flow {}", frame[29]);
            }
        }
    }
    let used: std::collections::BTreeSet<_> = queues.values().collect();
    assert!(used.len() > 1, "flows are spread: {queues:?}");
}

#[test]
fn memory_comes_and_goes_under_the_port() {
    let mut rig = SocketRig::new();
    let mut guest = machine(MODERN);
    rig.start(&mut guest);
    let region = |address: u64, bytes: u64| words(&[0, address, bytes, USER_BASE + address, 0]);
    let more = rustix::fs::memfd_create("more", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&more, 1 << 20).unwrap();
    for _ in 0..20 {
        guest.message(ADD_MEM_REG, &region(1 << 40, 1 << 20), &[more.as_fd()]);
        rig.check_traffic(&mut guest);
        guest.share_memory();
        rig.check_traffic(&mut guest);
        guest.message(ADD_MEM_REG, &region(1 << 40, 1 << 20), &[more.as_fd()]);
        guest.message(REM_MEM_REG, &region(1 << 40, 1 << 20), &[]);
        rig.check_traffic(&mut guest);
    }
    assert_eq!(rig.faults(), 0);
}

#[test]
fn memory_that_is_gone_stops_its_queues_and_nothing_else() {
    let mut rig = SocketRig::new();
    let mut guest = machine(MODERN);
    rig.start(&mut guest);
    ftruncate(&guest.memory, 0).unwrap();
    rig.until("it is noticed", |rig, _| rig.problem().is_some());
    assert!(rig.problem().unwrap().contains("became shorter"), "{:?}", rig.problem());
    assert_eq!(rig.send(&[frame(0)]), [Verdict::Drop(DropReason::PortDown)]);
    rig.start(&mut machine(MODERN));
}

#[test]
fn memory_that_is_not_shared_is_noticed() {
    let mut rig = SocketRig::new();
    let mut guest = machine(MODERN);
    guest.connect(&rig.path());
    guest.start();
    rig.until("it starts", |rig, _| rig.problem().is_none());
    // What the guest writes is in its own copy of the file.
    for _ in 0..3 {
        guest.kick(1);
        rig.receive();
    }
    assert!(rig.problem().unwrap().contains("share=on"), "{:?}", rig.problem());
    guest.fill();
    guest.send(1, &frame(0), Offload::NONE, FrameLayout::One);
    rig.until("it is shared after all", |rig, _| rig.problem().is_none());
}

#[test]
fn bursts_pass_both_ways_for_a_long_time() {
    for features in FORMATS {
        let mut rig = SocketRig::new();
        let mut guest = VirtualMachine::new(features, 1, 256);
        rig.start(&mut guest);
        for _ in 0..200 {
            (0..32).for_each(|_| guest.send(1, &frame(0), Offload::NONE, FrameLayout::One));
            let got = rig.until("a burst comes", |_, frames| frames.len() >= 32);
            assert_eq!(rig.send(&got), [Verdict::Deliver; 32]);
            assert_eq!(guest.collect(0).len(), 32);
        }
    }
}

#[test]
fn a_guest_that_waits_is_told_and_one_that_polls_is_not() {
    for features in [MODERN & !EVENT_INDEX, MODERN, MODERN & !EVENT_INDEX | PACKED, MODERN | PACKED] {
        let mut rig = SocketRig::new();
        let mut guest = machine(features);
        rig.start(&mut guest);
        guest.interrupts(0);
        rig.send(&[frame(0)]);
        assert_eq!(guest.interrupts(0), 1, "{features:#x}");
        let [_, driver, _] = guest.queues[0].addresses();
        let (place, flags) = if features & PACKED != 0 { (driver + 2, 1_u16) } else { (driver, 1) };
        guest.memory.write_all_at(&flags.to_le_bytes(), place).unwrap();
        if features & (PACKED | EVENT_INDEX) == EVENT_INDEX {
            // It has passed this entry.
            guest.memory.write_all_at(&0_u16.to_le_bytes(), driver + 4 + 64 * 2).unwrap();
        }
        rig.send(&[frame(0)]);
        assert_eq!(guest.interrupts(0), 0, "{features:#x}");
    }
}

/// Breaks a rule of split rings in the queue from the guest.
type Breach = fn(&mut VirtualMachine);

fn write_descriptor(guest: &VirtualMachine, at: u64, address: u64, bytes: u32, words: [u16; 2]) {
    let [descriptors, ..] = guest.queues[1].addresses();
    guest.memory.write_all_at(&descriptor(address, bytes, words), descriptors + at * 16).unwrap();
}

const BREACHES: [(&str, Breach); 11] = [
    ("more chains are available", |guest| {
        let [_, driver, _] = guest.queues[1].addresses();
        guest.memory.write_all_at(&65_u16.to_le_bytes(), driver + 2).unwrap();
    }),
    ("descriptor that the ring does not have", |guest| guest.queues[1].offer_head(&guest.memory, 64)),
    ("descriptor that the ring does not have", |guest| {
        write_descriptor(guest, 0, 1 << 20, 16, [1, 9999]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("no end", |guest| {
        write_descriptor(guest, 0, 1 << 20, 16, [1, 1]);
        write_descriptor(guest, 1, 1 << 20, 16, [1, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("not shared", |guest| {
        write_descriptor(guest, 0, u64::MAX - 5, 100, [0, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("not shared", |guest| {
        write_descriptor(guest, 0, MEMORY_BYTES - 50, 100, [0, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("other direction", |guest| {
        write_descriptor(guest, 0, 1 << 20, 100, [2, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("indirect table", |guest| {
        write_descriptor(guest, 0, 1 << 20, 17, [4, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("indirect table", |guest| {
        write_descriptor(guest, 0, 1 << 20, 0, [4, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("indirect table", |guest| {
        guest.memory.write_all_at(&descriptor(1 << 21, 16, [4, 0]), 1 << 20).unwrap();
        write_descriptor(guest, 0, 1 << 20, 16, [4, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
    ("no end", |guest| {
        guest.memory.write_all_at(&descriptor(1 << 21, 16, [1, 0]), 1 << 20).unwrap();
        write_descriptor(guest, 0, 1 << 20, 16, [4, 0]);
        guest.queues[1].offer_head(&guest.memory, 0);
    }),
];

#[test]
fn a_ring_that_breaks_a_rule_stops_alone_until_its_driver_starts_anew() {
    for (reason, breach) in BREACHES {
        let mut rig = SocketRig::new();
        let mut guest = machine(MODERN);
        rig.start(&mut guest);
        breach(&mut guest);
        rig.until(reason, |rig, _| rig.problem().is_some());
        let problem = rig.problem().unwrap();
        assert!(problem.contains("queue 1") && problem.contains(reason), "{reason}: {problem}");
        assert_eq!(rig.faults(), 1, "{reason}");
        assert_eq!(rig.send(&[frame(0)]), [Verdict::Deliver], "{reason}: the other queue goes on");
        // Its driver is loaded anew, over the same connection.
        guest.message(GET_VRING_BASE, &pair(0, 0), &[]);
        guest.message(GET_VRING_BASE, &pair(1, 0), &[]);
        let mut again = machine(MODERN);
        std::mem::swap(&mut again.socket, &mut guest.socket);
        again.start();
        again.fill();
        rig.until("it starts anew", |rig, _| rig.problem().is_none());
        rig.check_traffic(&mut again);
    }
}

#[test]
fn what_is_no_frame_is_dropped_by_itself_and_its_descriptors_come_back() {
    for features in FORMATS {
        let mut rig = SocketRig::new();
        let mut guest = machine(features);
        rig.start(&mut guest);
        let piece = |bytes| DriverPiece { address: 1 << 22, bytes, is_writable: false };
        // No header, only a part of one, nothing but a header, and longer than any frame.
        for pieces in [vec![piece(0)], vec![piece(5)], vec![piece(12)], vec![piece(0), piece(12), piece(70_000)]] {
            guest.queues[1].offer(&guest.memory, &pieces, None).unwrap();
        }
        let got = rig.until("they come", |_, frames| frames.len() >= 4);
        assert_eq!(got, vec![Vec::<u8>::new(); 4], "they count as frames that are too short");
        while guest.queues[1].take_used(&guest.memory).is_some() {}
        assert_eq!(guest.queues[1].free(), 64);
        rig.check_traffic(&mut guest);
    }
}

#[test]
fn rings_without_a_sensible_size_and_counters_that_are_none_are_refused() {
    for size in [0, 3, 32_769, u32::MAX] {
        let mut rig = SocketRig::new();
        let mut guest = machine(MODERN);
        guest.connect(&rig.path());
        guest.message(SET_FEATURES, &MODERN.to_ne_bytes(), &[]);
        guest.share_memory();
        guest.set_up_queue(1, size);
        guest.message(SET_VRING_ENABLE, &pair(1, 1), &[]);
        rig.until("it is let go", |rig, _| rig.faults() > 0);
        rig.start(&mut machine(MODERN));
    }
    let mut rig = SocketRig::new();
    let mut guest = machine(MODERN);
    guest.connect(&rig.path());
    let pipe = rustix::pipe::pipe().unwrap();
    guest.message(SET_VRING_CALL, &words(&[0]), &[pipe.1.as_fd()]);
    rig.until("it is let go", |rig, _| rig.faults() > 0);
}

#[test]
fn messages_in_any_order_and_of_any_content_harm_nobody() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut rig = SocketRig::new();
    for _ in 0..300 {
        let mut guest = machine(FORMATS[random(2) as usize]);
        guest.connect(&rig.path());
        for _ in 0..random(40) {
            let request = random(45) as u32;
            let flags = [1, 1 | NEED_REPLY, 0, 5][random(4) as usize];
            let body: Vec<u8> = match random(4) {
                0 => Vec::new(),
                1 => words(&[random(70), random(1 << 40)]),
                2 => words(&[1, random(1 << 20), MEMORY_BYTES, USER_BASE, random(1 << 30)]),
                _ => pair(random(5) as u32, random(70) as u32).to_vec(),
            };
            let (kick, call) = &guest.counters[0];
            let descriptors = [guest.memory.as_fd(), kick.as_fd(), call.as_fd()];
            guest.message_with_flags(request, flags, &body, &descriptors[..random(3) as usize]);
            rig.receive();
        }
        if random(2) == 0 {
            guest.start();
            guest.fill();
            rig.receive();
        }
    }
    let mut guest = machine(MODERN);
    rig.start(&mut guest);
    rig.check_traffic(&mut guest);
}
