//! Putting segments together: whatever it does, cutting its result gives what was put in, byte for byte and in order.

use super::cases;
use harness::frame::{Ip, TcpFlags};
use harness::offload::cut_slowly;
use proptest::prelude::*;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::FRAME_BYTES_MAX;
use vswitch_core::packet::gro::{Relation, append, relation};
use vswitch_core::packet::gso::Segments;
use vswitch_core::packet::offload::Offload;
use vswitch_core::packet::{FrameBuffer, Packet};

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

fn packet_of(frame: &[u8]) -> Packet {
    let mut buffer = FrameBuffer::with_capacity(FRAME_BYTES_MAX);
    buffer.fill(frame);
    Packet::new(buffer)
}

/// What a sender without offloads sends of `data_bytes` of data.
fn segments(is_v4: bool, port: u16, flags: u8, (data_bytes, segment_bytes): (usize, u16)) -> Vec<Vec<u8>> {
    let (source, destination) = if is_v4 { ("10.0.0.1", "10.0.0.2") } else { ("2001:db8::1", "2001:db8::2") };
    let data: Vec<u8> = (0..data_bytes).map(|at| (at as u8).wrapping_mul(31)).collect();
    let ip = Ip::new(source, destination).tcp(port, 80, TcpFlags::ACK | flags).undone(&data);
    cut_slowly(&ip.frame(MAC, MAC), &ip.offload(segment_bytes))
}

/// As a worker does with a burst for one port.
fn put_together(frames: &[Vec<u8>]) -> Vec<Packet> {
    let mut lined_up: Vec<Packet> = Vec::new();
    'next: for frame in frames {
        let packet = packet_of(frame);
        for head in lined_up.iter_mut().rev() {
            match relation(head, &packet) {
                Relation::Other => {}
                Relation::Behind => break,
                Relation::Next(bytes) => {
                    append(head, &packet);
                    assert_eq!(head.buffer.frame().len(), bytes);
                    continue 'next;
                }
            }
        }
        lined_up.push(packet);
    }
    lined_up
}

/// What a packet stands for.
fn cut(mut packet: Packet) -> Vec<Vec<u8>> {
    let offload = packet.offload;
    if offload == Offload::NONE {
        return vec![packet.buffer.frame().to_vec()];
    }
    packet.parse().expect("what was put together is well-formed");
    assert_eq!(packet.offload, offload, "and says of itself what is so");
    let (mut segments, mut target) = (Segments::default(), FrameBuffer::with_capacity(FRAME_BYTES_MAX));
    let mut frames = Vec::new();
    while segments.write_next(&packet, &mut target) {
        frames.push(target.frame().to_vec());
    }
    assert_eq!(packet.wire().packets as usize, frames.len());
    frames
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn segments_that_follow_each_other_become_one_frame(
        is_v4 in any::<bool>(),
        flags in prop::sample::select(vec![0, TcpFlags::PSH, TcpFlags::PSH | TcpFlags::FIN]),
        segment_bytes in 64u16..1460,
        count in 2usize..32,
        last_bytes in 1usize..64,
    ) {
        let bytes = (count - 1) * usize::from(segment_bytes) + last_bytes;
        let frames = segments(is_v4, 1000, flags, (bytes, segment_bytes));
        let mut one = put_together(&frames);
        prop_assert_eq!(one.len(), 1);
        prop_assert_eq!(cut(one.remove(0)), frames);
    }

    #[test]
    fn whatever_is_put_together_can_be_cut_again(
        is_v4 in any::<bool>(),
        sizes in (1usize..20_000, 64u16..1460),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..80, any::<u8>()), 0..4),
        moves in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
        is_mixed in any::<bool>(),
    ) {
        let mut frames = segments(is_v4, 1000, TcpFlags::PSH, sizes);
        if is_mixed {
            let others = segments(is_v4, 2000, TcpFlags::PSH, (sizes.0 / 2, sizes.1));
            let places = (0..others.len()).map(|number| 2 * number + 1);
            places.zip(others).for_each(|(place, other)| frames.insert(place.min(frames.len()), other));
        }
        for (frame, at, bits) in changes {
            let frame = frame.index(frames.len());
            let at = at % frames[frame].len();
            frames[frame][at] ^= bits;
        }
        for (from, to) in moves {
            let frame = frames.remove(from.index(frames.len()));
            frames.insert(to.index(frames.len() + 1), frame);
        }
        // Between flows the order does not matter.
        let flow = if is_v4 { 26..38 } else { 22..58 };
        let flow_of = |frame: &Vec<u8>| frame.get(flow.clone()).map(<[u8]>::to_vec);
        let mut got: Vec<_> = put_together(&frames).into_iter().flat_map(cut).collect();
        got.sort_by_key(&flow_of);
        frames.sort_by_key(&flow_of);
        prop_assert_eq!(got, frames);
    }
}
