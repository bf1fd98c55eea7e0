//! Long frames and checksums left undone, through workers with memory ports that take them so, and with such that do
//! not.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod guests;

use guests::desired;
use vswitch::port::factory::PortFactory;
use vswitch::port::memory::MemoryGuest;
use vswitch_core::config::protocol::EniStats;
use vswitch_core::packet::offload::{Offload, Offloads, PartialChecksum, Segmentation};

struct OffloadWorld {
    world: guests::world::GuestWorld,
    free: Vec<usize>,
}

impl OffloadWorld {
    /// Guests 1 to 3; the second takes what `second_takes` undone, the others everything.
    fn new(workers: usize, second_takes: Offloads) -> Self {
        let ports = PortFactory { gro: true, ..PortFactory::default() };
        let mut world = guests::world::GuestWorld::with_ports(workers, 256, ports);
        for number in [1, 3] {
            world.guest(number).set_offloads(Offloads::ALL);
        }
        world.guest(2).set_offloads(second_takes);
        let free = world.free_buffers();
        world.apply(desired(3), 1);
        Self { world, free }
    }

    fn guest(&self, number: u8) -> MemoryGuest {
        self.world.guest(number)
    }

    fn turn(&mut self) {
        self.world.turn(8);
        assert_eq!(self.world.free_buffers(), self.free, "no buffer is lost");
    }

    fn stats(&mut self, number: u8) -> EniStats {
        self.world.stats(number)
    }
}

const HEADER_BYTES: usize = 14 + 20 + 8;

/// Datagrams of `segment_bytes` from guest 1 as one frame; a plain datagram with its checksum undone if that is zero.
fn datagrams(to: u8, data_bytes: usize, segment_bytes: u16) -> (Vec<u8>, Offload) {
    let length = (8 + data_bytes) as u16;
    let mut frame = guests::udp(1, to, 0);
    frame.truncate(HEADER_BYTES);
    frame[16..18].copy_from_slice(&(20 + length).to_be_bytes());
    frame[38..40].copy_from_slice(&length.to_be_bytes());
    let ends: u32 = 0x0a00 + 1 + 0x0a00 + u32::from(to);
    let sum = ends + 17 + u32::from(length);
    frame[40..42].copy_from_slice(&((sum & 0xffff) + (sum >> 16)).to_be_bytes()[2..]);
    frame.extend((0..data_bytes).map(|at| at as u8));
    let offload = Offload {
        checksum: Some(PartialChecksum { start: 34, offset: 6 }),
        segmentation: if segment_bytes == 0 { Segmentation::None } else { Segmentation::Udp },
        segment_bytes,
        header_bytes: if segment_bytes == 0 { 0 } else { HEADER_BYTES as u16 },
        marks_congestion_once: false,
    };
    (frame, offload)
}

/// Whether the sum over pseudo-header and datagram is that of a right checksum.
fn is_summed(frame: &[u8]) -> bool {
    let words = |bytes: &[u8]| -> u64 {
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(&frame[26..34]) + 17 + (frame.len() as u64 - 34) + words(&frame[34..]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn between_ports_that_share_the_feature_a_long_frame_passes_as_it_is() {
    for workers in [1, 2] {
        let mut world = OffloadWorld::new(workers, Offloads::ALL);
        let (frame, offload) = datagrams(2, 60_000, 1400);
        assert!(world.guest(1).inject_with_offload(&frame, offload));
        world.turn();
        let (got, left) = world.guest(2).collect_with_offload().unwrap();
        assert_eq!((&got[14..], left), (&frame[14..], offload));
        assert_eq!(world.guest(2).waiting(), 0);
        let (sent, received) = (world.stats(1).egress, world.stats(2).ingress);
        assert_eq!((sent.packets, sent.bytes), (43, 60_000 + 43 * HEADER_BYTES as u64));
        assert_eq!((received.packets, received.bytes), (sent.packets, sent.bytes));
    }
}

#[test]
fn toward_a_port_without_the_feature_the_switch_cuts_and_sums() {
    let without = [Offloads::NONE, Offloads::CHECKSUM, Offloads::CHECKSUM.with(Offloads::TCP_V4), Offloads::UDP];
    for (workers, takes) in without.into_iter().flat_map(|takes| [(1, takes), (2, takes)]) {
        let mut world = OffloadWorld::new(workers, takes);
        let (frame, offload) = datagrams(2, 60_000, 1400);
        let (other, plain) = datagrams(2, 101, 0);
        for _ in 0..3 {
            assert!(world.guest(1).inject_with_offload(&frame, offload));
            assert!(world.guest(1).inject_with_offload(&other, plain));
        }
        world.turn();
        for _ in 0..3 {
            let mut data = Vec::new();
            for number in 0..43_u16 {
                let (part, left) = world.guest(2).collect_with_offload().unwrap();
                assert_eq!(left, Offload::NONE);
                assert!(is_summed(&part) && part.len() <= HEADER_BYTES + 1400);
                assert_eq!(part[18..20], number.to_be_bytes());
                data.extend_from_slice(&part[HEADER_BYTES..]);
            }
            assert_eq!(data, frame[HEADER_BYTES..]);
            let (got, left) = world.guest(2).collect_with_offload().unwrap();
            let takes_sums = takes.contains(Offloads::CHECKSUM);
            assert_eq!((is_summed(&got), left == plain), (!takes_sums, takes_sums), "{takes:?}");
        }
        assert_eq!(world.guest(2).waiting(), 0);
        assert_eq!(world.stats(2).ingress.packets, 3 * 44);
    }
}

#[test]
fn a_full_port_drops_the_rest_of_a_long_frame_and_counts_it() {
    let mut world = OffloadWorld::new(1, Offloads::NONE);
    let (frame, offload) = datagrams(2, 60_000, 1400);
    (0..10).for_each(|_| assert!(world.guest(1).inject_with_offload(&frame, offload)));
    world.turn();
    let (received, taken) = (world.stats(2).ingress, world.guest(2).waiting() as u64);
    assert_eq!((received.packets, taken), (430, 256));
    assert_eq!(received.drops["port-full"], 430 - 256);
}

#[test]
fn parts_that_are_too_long_for_the_port_are_dropped_and_counted() {
    let mut world = OffloadWorld::new(1, Offloads::ALL);
    let (frame, offload) = datagrams(2, 60_000, 9000 - 28 + 1);
    assert!(world.guest(1).inject_with_offload(&frame, offload));
    let (fits, fitting) = datagrams(2, 60_000, 9000 - 28);
    assert!(world.guest(1).inject_with_offload(&fits, fitting));
    world.turn();
    assert_eq!(world.guest(2).collect_with_offload().unwrap().1, fitting);
    assert_eq!((world.guest(2).waiting(), world.stats(2).ingress.drops["frame-too-long"]), (0, 7));
}

#[test]
fn what_a_port_refuses_is_dropped_alone() {
    let mut world = OffloadWorld::new(1, Offloads::ALL);
    world.guest(2).refuse(HEADER_BYTES + 2);
    for data_bytes in [1, 2, 3, 2, 2, 4] {
        let (frame, offload) = datagrams(2, data_bytes, 0);
        assert!(world.guest(1).inject_with_offload(&frame, offload));
    }
    world.turn();
    let lengths: Vec<_> = std::iter::from_fn(|| world.guest(2).collect()).map(|frame| frame.len()).collect();
    assert_eq!(lengths, [1, 3, 4].map(|data_bytes| HEADER_BYTES + data_bytes));
    assert_eq!(world.stats(2).ingress.drops["port-refused"], 3);
}

#[test]
fn a_port_that_floods_long_frames_does_not_starve_another() {
    let mut world = OffloadWorld::new(1, Offloads::ALL);
    let (frame, offload) = datagrams(3, 60_000, 1400);
    (0..256).for_each(|_| assert!(world.guest(1).inject_with_offload(&frame, offload)));
    assert!(world.guest(2).inject(&guests::udp(2, 3, 99)));
    for _ in 0..2 {
        world.world.turn_one(0, 1);
    }
    let lengths: Vec<_> = std::iter::from_fn(|| world.guest(3).collect()).map(|frame| frame.len()).collect();
    assert!(lengths.contains(&guests::udp(2, 3, 99).len()), "served within two turns");
    let bytes: usize = lengths.iter().sum();
    assert!(bytes < 2 * (vswitch_core::config::limits::BURST_BYTES + frame.len()), "{bytes} bytes before it");
}

/// Segments of a connection of guest 1, each summed.
fn segments(to: u8, count: u16) -> Vec<Vec<u8>> {
    let folded = |sum: u32| ((sum & 0xffff) + (sum >> 16)) as u16;
    let words = |bytes: &[u8]| bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let segment = |number: u16| {
        let mut frame = guests::udp(1, to, 0);
        frame.truncate(34);
        frame[16..18].copy_from_slice(&(20 + 20 + SEGMENT_BYTES as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&number.to_be_bytes());
        (frame[23], frame[24], frame[25]) = (6, 0, 0);
        let sum = !folded(words(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let sequence = u32::from(number) * SEGMENT_BYTES as u32;
        frame.extend([0x10, 0, 0x20, 0]);
        frame.extend(sequence.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
        frame.extend((0..SEGMENT_BYTES).map(|at| at as u8));
        let pseudo = words(&frame[26..34]) + 6 + (frame.len() - 34) as u32;
        let sum = !folded(u32::from(folded(words(&frame[34..]))) + pseudo);
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    (0..count).map(segment).collect()
}

const SEGMENT_BYTES: usize = 1000;

#[test]
fn segments_that_come_together_leave_as_one_frame_where_the_port_takes_it() {
    for (workers, takes, frames) in
        [(1, Offloads::ALL, 1), (2, Offloads::ALL, 1), (1, Offloads::NONE, 20), (2, Offloads::CHECKSUM, 20)]
    {
        let mut world = OffloadWorld::new(workers, takes);
        for segment in segments(2, 20) {
            assert!(world.guest(1).inject(&segment));
        }
        world.turn();
        let got: Vec<_> = std::iter::from_fn(|| world.guest(2).collect_with_offload()).collect();
        assert_eq!(got.len(), frames, "{workers} workers, {takes:?}");
        let data: Vec<u8> = got.iter().flat_map(|(frame, _)| frame[54..].to_vec()).collect();
        let sent: Vec<u8> = segments(2, 20).iter().flat_map(|frame| frame[54..].to_vec()).collect();
        assert_eq!(data, sent);
        let offload = got[0].1;
        assert_eq!(offload.segmentation, if frames == 1 { Segmentation::TcpV4 } else { Segmentation::None });
        assert_eq!(usize::from(offload.segment_bytes), if frames == 1 { SEGMENT_BYTES } else { 0 });
        let received = world.stats(2).ingress;
        assert_eq!((received.packets, received.bytes), (20, 20 * (54 + SEGMENT_BYTES as u64)), "as on a wire");
    }
}
