//! Frames that a guest may try.

use vswitch_core::packet::{FrameBuffer, Packet};

/// The hosting end's hardware address, and the guest's.
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Types of frames that protocols of the kernel take; the last is for local experiments (IEEE 802 §9.2.4).
pub(crate) const ETHER_TYPES: [u16; 4] = [0x0800, 0x0806, 0x86dd, 0x88b5];

/// Frames of every kind to every kind of address: plain, tagged once and twice.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let targets = [HOST_MAC, [0xff; 6], [1, 0, 0x5e, 1, 1, 1], [0x33, 0x33, 0, 0, 0, 1], [1, 0x80, 0xc2, 0, 0, 0]];
    let tags: [&[u8]; 4] = [&[], &[0x81, 0, 0, 5], &[0x81, 0, 0, 0], &[0x88, 0xa8, 0, 6, 0x81, 0, 0, 5]];
    let mut all = Vec::new();
    for (target, tag, ether_type) in targets.iter().flat_map(|target| {
        tags.iter().flat_map(move |tag| ETHER_TYPES.iter().map(move |ether_type| (target, tag, ether_type)))
    }) {
        let mut frame = [target.as_slice(), &GUEST_MAC, tag, &ether_type.to_be_bytes()].concat();
        match ether_type {
            0x0800 => frame.extend(ipv4([10, 9, 9, 1])),
            0x0806 => {
                frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
                frame.extend([GUEST_MAC.as_slice(), &[10, 9, 9, 2], &[0; 6], &[10, 9, 9, 1]].concat());
            }
            0x86dd => {
                frame.extend([0x60, 0, 0, 0, 0, 0, 59, 64]);
                frame.extend("fe80::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
                frame.extend("fe80::fe".parse::<std::net::Ipv6Addr>().unwrap().octets());
            }
            _ => {}
        }
        frame.resize(64, 0);
        all.push(frame);
    }
    all
}

/// A header of IPv4 with its checksum, from the guest, and nothing behind it.
pub(crate) fn ipv4(to: [u8; 4]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 9, 9, 2];
    header.extend(to);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    header[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    header
}

pub(crate) fn packet_of(frame: &[u8]) -> Packet {
    let mut buffer = FrameBuffer::with_capacity(frame.len());
    buffer.fill(frame);
    Packet::new(buffer)
}
