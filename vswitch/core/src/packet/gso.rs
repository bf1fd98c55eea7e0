//! Generic segmentation offload: segments a long frame into the packets that it stands for, for ports that cannot.
//! Every packet has the headers that were evaluated; only lengths, sequence numbers and checksums differ.

use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::packet::checksum;
use crate::packet::headers::{Addresses, protocol, tcp_flags};
use crate::packet::offload::Segmentation;
use crate::packet::{FrameBuffer, Packet};

const NETWORK: usize = ETHERNET_HEADER_BYTES;
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const UDP_LENGTH: usize = 4;

/// How far a frame has been segmented.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segments {
    number: u16,
    payload_done: usize,
}

impl Segments {
    /// Bytes of the next packet's frame; `None` after the last packet, or if the frame is not to be segmented.
    pub fn next_bytes(&self, packet: &Packet) -> Option<usize> {
        let offload = &packet.offload;
        let header_bytes = usize::from(offload.header_bytes);
        let left = packet.buffer.frame().len().saturating_sub(header_bytes + self.payload_done);
        let is_left = offload.segmentation != Segmentation::None && left > 0;
        is_left.then(|| header_bytes + left.min(usize::from(offload.segment_bytes)))
    }

    /// How many packets are still to be written.
    pub fn left(&self, packet: &Packet) -> u32 {
        packet.wire().packets.saturating_sub(u32::from(self.number))
    }

    /// Writes the next packet into `target`, which must have room for it. Returns whether there was one.
    pub fn write_next(&mut self, packet: &Packet, target: &mut FrameBuffer) -> bool {
        let Some(bytes) = self.next_bytes(packet) else { return false };
        let (frame, header_bytes) = (packet.buffer.frame(), usize::from(packet.offload.header_bytes));
        let payload_at = header_bytes + self.payload_done;
        let payload_bytes = bytes - header_bytes;
        let Some(room) = target.room().get_mut(..bytes) else { return false };
        let (headers, payload) = room.split_at_mut(header_bytes);
        headers.copy_from_slice(&frame[..header_bytes]);
        payload.copy_from_slice(&frame[payload_at..payload_at + payload_bytes]);
        let is_last = payload_at + payload_bytes == frame.len();
        self.write_network(packet, room);
        self.write_transport(packet, room, is_last);
        target.set_length(bytes);
        self.number = self.number.wrapping_add(1);
        self.payload_done += payload_bytes;
        true
    }

    fn write_network(&self, packet: &Packet, frame: &mut [u8]) {
        let transport_at = packet.headers.transport_offset as usize;
        let packet_bytes = (frame.len() - NETWORK) as u16;
        match packet.headers.tuple.addresses {
            Addresses::V4 { .. } => {
                let header = &mut frame[NETWORK..transport_at];
                header[2..4].copy_from_slice(&packet_bytes.to_be_bytes());
                // Consecutive identifications, as Linux gives them: merging the packets again requires these.
                let identification = u16::from_be_bytes([header[4], header[5]]).wrapping_add(self.number);
                header[4..6].copy_from_slice(&identification.to_be_bytes());
                header[10..12].fill(0);
                let sum = checksum::finish(checksum::add(0, header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Addresses::V6 { .. } => {
                frame[NETWORK + 4..NETWORK + 6].copy_from_slice(&(packet_bytes - 40).to_be_bytes());
            }
        }
    }

    fn write_transport(&self, packet: &Packet, frame: &mut [u8], is_last: bool) {
        const CONGESTION_WINDOW_REDUCED: u8 = 0x80;
        const PUSH: u8 = 0x08;
        let (offload, tuple) = (&packet.offload, &packet.headers.tuple);
        let transport = &mut frame[packet.headers.transport_offset as usize..];
        let length = transport.len() as u32;
        let checksum_at = if tuple.protocol == protocol::TCP {
            let sequence = &mut transport[TCP_SEQUENCE..TCP_SEQUENCE + 4];
            let first = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
            sequence.copy_from_slice(&first.wrapping_add(self.payload_done as u32).to_be_bytes());
            // The end of the data is marked in the last segment only.
            if !is_last {
                transport[TCP_FLAGS] &= !(tcp_flags::FIN | PUSH);
            }
            // CWR reports one reduction of the window, not one per segment (RFC 3168 §6.1.2).
            if offload.marks_congestion_once && self.number > 0 {
                transport[TCP_FLAGS] &= !CONGESTION_WINDOW_REDUCED;
            }
            16
        } else {
            transport[UDP_LENGTH..UDP_LENGTH + 2].copy_from_slice(&(length as u16).to_be_bytes());
            6
        };
        transport[checksum_at..checksum_at + 2].fill(0);
        let pseudo = checksum::of_addresses(tuple.addresses) + u64::from(tuple.protocol) + u64::from(length);
        // Zero means "no checksum" in UDP; in TCP both forms of zero are valid.
        let sum = checksum::never_zero(checksum::finish(checksum::add(pseudo, transport)));
        transport[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
