//! Fragmentation of IPv4 (RFC 791 §3.2): cuts a packet that its receiver's port cannot carry, and whose sender permits it,
//! into parts that the port can. IPv6 packets are fragmented by their senders alone.

use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::packet::checksum;
use crate::packet::offload::Segmentation;
use crate::packet::{FrameBuffer, Packet};

const NETWORK: usize = ETHERNET_HEADER_BYTES;
const FIXED_BYTES: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Offsets are counted in eights.
const UNIT: usize = 8;

/// How far a packet has been fragmented.
#[derive(Clone, Copy, Debug)]
pub struct IpFragments {
    /// Bytes of the packet's own header.
    header_bytes: usize,
    /// The identification's neighbour: flags and offset of the packet itself, which may be a fragment already.
    flags_and_offset: u16,
    /// Where its payload ends in the frame.
    end: usize,
    /// The longest frame, bytes.
    frame_bytes_max: usize,
    payload_done: usize,
}

impl IpFragments {
    /// The fragments of a packet, each in a frame of at most so many bytes. `None` if the packet is not to be fragmented:
    /// it is not IPv4, its sender forbids it, or it stands for several packets.
    pub fn of(packet: &Packet, frame_bytes_max: usize) -> Option<Self> {
        let frame = packet.buffer.frame();
        let fixed: &[u8; FIXED_BYTES] = frame.get(NETWORK..)?.first_chunk()?;
        // What stands for several packets is segmented, never fragmented.
        if frame[12..NETWORK] != [8, 0] || packet.offload.segmentation != Segmentation::None {
            return None;
        }
        let flags_and_offset = u16::from_be_bytes([fixed[6], fixed[7]]);
        let header_bytes = usize::from(fixed[0] & 0x0f) * 4;
        let end = NETWORK + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let is_whole = header_bytes >= FIXED_BYTES && end <= frame.len() && end > NETWORK + header_bytes;
        // Each fragment carries something even behind the longest header.
        let has_room = frame_bytes_max >= NETWORK + header_bytes + UNIT;
        let is_permitted = flags_and_offset & DONT_FRAGMENT == 0 && is_whole && has_room;
        is_permitted.then_some(Self { header_bytes, flags_and_offset, end, frame_bytes_max, payload_done: 0 })
    }

    /// Bytes of the next fragment's frame; `None` after the last one.
    pub fn next_bytes(&self, packet: &Packet) -> Option<usize> {
        let left = self.left();
        (left > 0).then(|| NETWORK + self.next_header(packet).len() + self.next_payload(packet))
    }

    /// How many fragments of full length are still to be written, at least.
    pub fn count_left(&self) -> u32 {
        let room = (self.frame_bytes_max - NETWORK - self.header_bytes) / UNIT * UNIT;
        self.left().div_ceil(room) as u32
    }

    /// Writes the next fragment into `target`, which must have room for it. Returns whether there was one.
    pub fn write_next(&mut self, packet: &Packet, target: &mut FrameBuffer) -> bool {
        let Some(bytes) = self.next_bytes(packet) else { return false };
        let (frame, payload_bytes) = (packet.buffer.frame(), self.next_payload(packet));
        let header = self.next_header(packet);
        let Some(room) = target.room().get_mut(..bytes) else { return false };
        let payload_at = NETWORK + self.header_bytes + self.payload_done;
        room[..NETWORK].copy_from_slice(&frame[..NETWORK]);
        let (target_header, target_payload) = room[NETWORK..].split_at_mut(header.len());
        target_header.copy_from_slice(header.as_slice());
        target_payload.copy_from_slice(&frame[payload_at..payload_at + payload_bytes]);
        let is_last = self.payload_done + payload_bytes == self.end - NETWORK - self.header_bytes;
        // The last part of a fragment keeps its flag, since more fragments of the packet may follow.
        let more = if is_last { self.flags_and_offset & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
        let offset = (self.flags_and_offset & OFFSET) + (self.payload_done / UNIT) as u16;
        target_header[0] = 0x40 | (header.len() / 4) as u8;
        target_header[2..4].copy_from_slice(&((header.len() + payload_bytes) as u16).to_be_bytes());
        target_header[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        target_header[10..12].fill(0);
        let sum = checksum::finish(checksum::add(0, target_header));
        target_header[10..12].copy_from_slice(&sum.to_be_bytes());
        target.set_length(bytes);
        self.payload_done += payload_bytes;
        true
    }

    fn left(&self) -> usize {
        self.end - NETWORK - self.header_bytes - self.payload_done
    }

    fn next_payload(&self, packet: &Packet) -> usize {
        let room = self.frame_bytes_max - NETWORK - self.next_header(packet).len();
        // Only the last fragment may have a length that is no multiple of eight (RFC 791).
        if self.left() <= room { self.left() } else { room / UNIT * UNIT }
    }

    /// The header of the next fragment: that of the packet, in later ones with the options alone that all fragments have.
    fn next_header(&self, packet: &Packet) -> FragmentHeader {
        let own = &packet.buffer.frame()[NETWORK..NETWORK + self.header_bytes];
        let mut header = FragmentHeader { bytes: [0; 60], length: FIXED_BYTES };
        header.bytes[..FIXED_BYTES].copy_from_slice(&own[..FIXED_BYTES]);
        if self.payload_done == 0 {
            header.push(&own[FIXED_BYTES..]);
            return header;
        }
        const COPIED: u8 = 0x80;
        let mut options = &own[FIXED_BYTES..];
        while let [kind, rest @ ..] = options
            && *kind != 0
        {
            // No operation is one byte long.
            let length = if *kind == 1 { 1 } else { rest.first().map_or(0, |length| usize::from(*length)) };
            let Some((option, others)) = options.split_at_checked(length).filter(|_| length > 0) else { break };
            // RFC 791 §3.1: options with this bit are copied to every fragment, all others only to the first.
            if kind & COPIED != 0 {
                header.push(option);
            }
            options = others;
        }
        // A header consists of words of four bytes; zeros end the options.
        header.length = header.length.next_multiple_of(4);
        header
    }
}

struct FragmentHeader {
    bytes: [u8; 60],
    length: usize,
}

impl FragmentHeader {
    const fn len(&self) -> usize {
        self.length
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn packet(options: &[u8], payload: usize, flags_and_offset: u16) -> Packet {
        let header_bytes = FIXED_BYTES + options.len();
        let mut frame = vec![0; NETWORK];
        frame[12..].copy_from_slice(&[8, 0]);
        frame.push(0x40 | (header_bytes / 4) as u8);
        frame.push(0);
        frame.extend(((header_bytes + payload) as u16).to_be_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend(flags_and_offset.to_be_bytes());
        frame.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(options);
        frame.extend((0..payload).map(|number| number as u8));
        let mut buffer = FrameBuffer::with_capacity(frame.len());
        buffer.fill(&frame);
        Packet::new(buffer)
    }

    fn fragments(packet: &Packet, frame_bytes_max: usize) -> Vec<Vec<u8>> {
        let mut fragments = IpFragments::of(packet, frame_bytes_max).expect("it may be fragmented");
        let mut all = Vec::new();
        while let Some(bytes) = fragments.next_bytes(packet) {
            let mut buffer = FrameBuffer::with_capacity(bytes);
            assert!(fragments.write_next(packet, &mut buffer) && buffer.length() == bytes);
            all.push(buffer.frame().to_vec());
        }
        all
    }

    #[test]
    fn the_parts_are_the_packet_again() {
        for (options, payload, flags) in [
            (&[][..], 3000, 0),
            (&[], 1481, 0),
            (&[], 2000, MORE_FRAGMENTS | 185),
            (&[0x94, 4, 0, 0, 7, 4, 0, 0], 3000, 0),
        ] {
            let packet = packet(options, payload, flags);
            let parts = fragments(&packet, NETWORK + 576);
            let mut bytes = Vec::new();
            for (number, part) in parts.iter().enumerate() {
                let header_bytes = usize::from(part[NETWORK] & 0x0f) * 4;
                assert!(part.len() <= NETWORK + 576);
                assert_eq!(checksum::finish(checksum::add(0, &part[NETWORK..NETWORK + header_bytes])), 0);
                let found = u16::from_be_bytes([part[NETWORK + 6], part[NETWORK + 7]]);
                let expected_offset = usize::from(flags & OFFSET) + bytes.len() / UNIT;
                assert_eq!(usize::from(found & OFFSET), expected_offset);
                let is_last = number + 1 == parts.len();
                assert_eq!(found & MORE_FRAGMENTS != 0, !is_last || flags & MORE_FRAGMENTS != 0);
                bytes.extend_from_slice(&part[NETWORK + header_bytes..]);
                // The router alert is copied, the record of the route is not.
                let options_expected = if number == 0 { options } else { &options[..options.len() / 2] };
                assert_eq!(&part[NETWORK + FIXED_BYTES..NETWORK + header_bytes], options_expected);
            }
            assert_eq!(bytes, packet.buffer.frame()[NETWORK + FIXED_BYTES + options.len()..]);
        }
    }

    #[test]
    fn what_must_not_be_fragmented_is_not() {
        assert!(IpFragments::of(&packet(&[], 3000, DONT_FRAGMENT), NETWORK + 576).is_none());
        let mut six = packet(&[], 3000, 0);
        six.buffer.frame_mut()[12..NETWORK].copy_from_slice(&[0x86, 0xdd]);
        assert!(IpFragments::of(&six, NETWORK + 576).is_none());
        let mut cut = packet(&[], 3000, 0);
        cut.buffer.set_length(100);
        assert!(IpFragments::of(&cut, NETWORK + 576).is_none());
    }
}
