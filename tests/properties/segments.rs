//! Cutting and summing in software, against the book: `harness::offload`.

use super::cases;
use harness::frame::{Ip, TcpFlags};
use harness::offload::{cut_slowly, mend_checksum};
use proptest::prelude::*;
use proptest::sample::select;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::FRAME_BYTES_MAX;
use vswitch_core::packet::gso::Segments;
use vswitch_core::packet::offload::{Offload, Segmentation};
use vswitch_core::packet::{FrameBuffer, Packet};

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

fn packet_of(frame: &[u8], offload: Offload) -> Packet {
    let mut buffer = FrameBuffer::with_capacity(FRAME_BYTES_MAX);
    buffer.fill(frame);
    Packet::claiming(buffer, offload)
}

fn headers() -> impl Strategy<Value = Ip> {
    (any::<bool>(), any::<bool>(), any::<(u16, u16, u8)>(), select(vec![0usize, 4, 40])).prop_map(
        |(is_v4, is_tcp, (near, far, last), options)| {
            let ip = if is_v4 {
                Ip::new("10.0.0.1", &format!("10.0.0.{last}")).options(&vec![1; options])
            } else {
                Ip::new("2001:db8::1", &format!("2001:db8::{last:x}"))
            };
            let flags = TcpFlags::ACK | TcpFlags::PSH | if last % 2 == 0 { TcpFlags::FIN } else { 0 };
            if is_tcp { ip.tcp(near, far, flags) } else { ip.udp(near, far) }
        },
    )
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_long_frame_is_cut_as_by_the_book(
        headers in headers(),
        sequence in any::<u32>(),
        seed in any::<u8>(),
        data_bytes in prop_oneof![1usize..3000, 1usize..65_000],
        segment_bytes in prop_oneof![64u16..1500, 600u16..9000],
    ) {
        let data: Vec<u8> = (0..data_bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let mut ip = headers;
        if ip.protocol == 6 {
            ip.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
        }
        let ip = ip.undone(&data);
        let frame = ip.frame(MAC, MAC);
        let offload = ip.offload(segment_bytes);
        let mut packet = packet_of(&frame, offload);
        let parts_max = if ip.protocol == 17 { 128 } else { 1024 };
        let expected = cut_slowly(&frame, &offload);
        let parsed = packet.parse();
        prop_assert_eq!(parsed.is_ok(), expected.len() <= parts_max, "{} parts", expected.len());
        prop_assume!(parsed.is_ok());
        let wire = packet.wire();
        prop_assert_eq!(wire.packets as usize, expected.len());
        prop_assert_eq!(wire.bytes as usize, expected.iter().map(Vec::len).sum::<usize>());
        prop_assert_eq!(packet.longest_frame_bytes(), expected[0].len());
        if expected.len() == 1 {
            prop_assert_eq!(packet.offload.segmentation, Segmentation::None);
            return Ok(());
        }
        prop_assert_eq!(packet.offload, offload, "what is true stays as it was claimed");
        let (mut segments, mut target) = (Segments::default(), FrameBuffer::with_capacity(FRAME_BYTES_MAX));
        let mut put_together = Vec::new();
        for (number, part) in expected.iter().enumerate() {
            prop_assert_eq!(segments.left(&packet) as usize, expected.len() - number);
            prop_assert_eq!(segments.next_bytes(&packet), Some(part.len()));
            prop_assert!(segments.write_next(&packet, &mut target));
            prop_assert_eq!(target.frame(), part.as_slice(), "part {}", number);
            put_together.extend_from_slice(&target.frame()[usize::from(offload.header_bytes)..]);
        }
        prop_assert!(!segments.write_next(&packet, &mut target));
        prop_assert_eq!(put_together, &frame[usize::from(offload.header_bytes)..]);
    }

    #[test]
    fn a_checksum_is_completed_as_by_the_book(headers in headers(), data in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let ip = headers.undone(&data);
        let frame = ip.frame(MAC, MAC);
        let offload = ip.offload(0);
        let mut packet = packet_of(&frame, offload);
        packet.parse().expect("a well-formed frame");
        packet.complete_checksum();
        let mut expected = frame.clone();
        mend_checksum(&mut expected, ip.offload(0).checksum.map_or(0, |checksum| checksum.start as usize));
        prop_assert_eq!(packet.buffer.frame(), expected.as_slice());
        prop_assert_eq!(packet.offload, Offload::NONE);
    }

    #[test]
    fn no_claim_makes_anything_panic_or_changes_a_header(
        headers in headers(),
        data in proptest::collection::vec(any::<u8>(), 0..300),
        claim in (any::<(u16, u16, u16)>(), any::<(u8, u8)>()),
        is_near in any::<bool>(),
    ) {
        let ip = headers.undone(&data);
        let frame = ip.frame(MAC, MAC);
        let ((start, offset, size), (flags, kind)) = claim;
        let (start, offset) = if is_near { (start % 120, offset % 40) } else { (start, offset) };
        let mut header = [flags & 3, kind % 8, 0, 0, 0, 0, 0, 0, 0, 0];
        header[4..6].copy_from_slice(&size.to_ne_bytes());
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        header[8..10].copy_from_slice(&offset.to_ne_bytes());
        let mut packet = packet_of(&frame, vswitch::port::virtio_header::decode(&header));
        let headers_end = usize::from(ip.offload(0).header_bytes);
        if packet.parse().is_ok() {
            prop_assert_eq!(&packet.buffer.frame()[..headers_end], &frame[..headers_end]);
            let (mut segments, mut target) = (Segments::default(), FrameBuffer::with_capacity(FRAME_BYTES_MAX));
            while segments.write_next(&packet, &mut target) {
                let ports = headers_end - if ip.protocol == 6 { 20 } else { 8 };
                prop_assert_eq!(&target.frame()[ports..ports + 4], &frame[ports..ports + 4]);
            }
            packet.complete_checksum();
        }
    }
}
