//! The header that virtio devices, and TAP devices with `IFF_VNET_HDR`, put before each frame (VIRTIO 1.2 §5.1.6; the
//! ten bytes without the number of buffers). This only decodes it; the core checks what it claims.

use vswitch_core::packet::offload::{Offload, PartialChecksum, Segmentation};

/// The length of the header, bytes.
pub const HEADER_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
/// The checksum has been verified. That is ignored: the receiver verifies it itself.
const CHECKSUM_IS_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_CONGESTION: u8 = 0x80;

/// The offload request in the header. Numbers are in this machine's byte order, as the kernel has them by default.
pub fn decode(header: &[u8; HEADER_BYTES]) -> Offload {
    let word = |offset: usize| u16::from_ne_bytes([header[offset], header[offset + 1]]);
    let [flags, kind, ..] = *header;
    let (segmentation, marks_congestion_once) = match (kind & !GSO_CONGESTION, kind & GSO_CONGESTION != 0) {
        // A flag that was never negotiated could mean anything, so the frame is refused by the core.
        _ if flags & !(NEEDS_CHECKSUM | CHECKSUM_IS_VALID) != 0 => (Segmentation::Unknown, false),
        (GSO_NONE, false) => (Segmentation::None, false),
        (GSO_TCP_V4, marks) => (Segmentation::TcpV4, marks),
        (GSO_TCP_V6, marks) => (Segmentation::TcpV6, marks),
        (GSO_UDP, false) => (Segmentation::Udp, false),
        _ => (Segmentation::Unknown, false),
    };
    let needs_checksum = flags & NEEDS_CHECKSUM != 0;
    let checksum = needs_checksum.then(|| PartialChecksum { start: word(6), offset: word(8) });
    Offload { checksum, segmentation, segment_bytes: word(4), header_bytes: word(2), marks_congestion_once }
}

/// The header for an offload request.
pub fn encode(offload: &Offload) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    if let Some(checksum) = offload.checksum {
        header[0] = NEEDS_CHECKSUM;
        header[6..8].copy_from_slice(&checksum.start.to_ne_bytes());
        header[8..10].copy_from_slice(&checksum.offset.to_ne_bytes());
    }
    header[1] = match offload.segmentation {
        Segmentation::None | Segmentation::Unknown => return header,
        Segmentation::TcpV4 => GSO_TCP_V4,
        Segmentation::TcpV6 => GSO_TCP_V6,
        Segmentation::Udp => GSO_UDP,
    };
    if offload.marks_congestion_once {
        header[1] |= GSO_CONGESTION;
    }
    header[2..4].copy_from_slice(&offload.header_bytes.to_ne_bytes());
    header[4..6].copy_from_slice(&offload.segment_bytes.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let checksum = Some(PartialChecksum { start: 34, offset: 16 });
        for segmentation in [Segmentation::TcpV4, Segmentation::TcpV6, Segmentation::Udp] {
            let offload =
                Offload { checksum, segmentation, segment_bytes: 1448, header_bytes: 66, marks_congestion_once: false };
            assert_eq!(decode(&encode(&offload)), offload);
        }
        let marking = Offload {
            checksum,
            segmentation: Segmentation::TcpV4,
            segment_bytes: 1,
            header_bytes: 2,
            marks_congestion_once: true,
        };
        assert_eq!(decode(&encode(&marking)), marking);
        let summed = Offload { checksum, ..Offload::NONE };
        assert_eq!(decode(&encode(&summed)), summed);
        assert_eq!(decode(&encode(&Offload::NONE)), Offload::NONE);
    }

    #[test]
    fn what_nobody_agreed_on_is_unknown() {
        for (flags, kind) in [(4, 0), (0x80, 1), (0, 2), (0, 3), (0, 0x80), (0, 0x85), (1, 0x7f)] {
            let decoded = decode(&[flags, kind, 0, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(decoded.segmentation, Segmentation::Unknown, "{flags:#x}, {kind:#x}");
        }
    }
}
