//! The form of a guest's packet on the socket between the forwarding plane and the services process.
//!
//! Each message is one IP packet behind a header. The header, and no address in the packet, says which ENI it is from or
//! for: addresses of two VPCs may be the same.

use crate::config::ids::EniIndex;
use crate::config::limits::SERVICE_FRAME_BYTES_MAX;
use alloc::vec::Vec;

/// The version of the form. Both processes run the same program, but one may be older for a moment.
const VERSION: u8 = 1;
/// Bytes of the part that every header has.
const FIXED_BYTES: usize = 14;
/// The longest identifier that a header has room for, bytes.
pub const ID_BYTES_MAX: usize = 255;
/// The longest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = FIXED_BYTES + 2 * ID_BYTES_MAX + SERVICE_FRAME_BYTES_MAX;

/// One of the ENIs that ever had a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServedEni {
    /// Its number.
    pub index: EniIndex,
    /// Which of those that ever had it is meant.
    pub generation: u32,
}

/// A packet between a guest and the services process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceFrame<'a> {
    /// The guest's ENI.
    pub eni: ServedEni,
    /// The largest packet that its port carries.
    pub mtu_bytes: u16,
    /// The identifiers of its VPC and of the ENI; empty in a reply.
    pub names: [&'a str; 2],
    /// The packet, from its IP header on.
    pub packet: &'a [u8],
}

/// What the services process says for packets that it has taken, whether or not something follows from them: no packet.
pub const TAKEN: [u8; 1] = [VERSION];

impl<'a> ServiceFrame<'a> {
    /// Writes the message over `target`. `None` if an identifier is too long for the header.
    pub fn write(&self, target: &mut Vec<u8>) -> Option<()> {
        let lengths = self.names.map(|name| u8::try_from(name.len()).ok());
        target.clear();
        target.extend([VERSION, lengths[0]?, lengths[1]?, 0]);
        target.extend(self.eni.index.0.to_be_bytes());
        target.extend(self.eni.generation.to_be_bytes());
        target.extend(self.mtu_bytes.to_be_bytes());
        self.names.iter().for_each(|name| target.extend(name.as_bytes()));
        target.extend(self.packet);
        Some(())
    }

    /// Reads a message. `None` if it is none of this version.
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let (&[version, vpc_bytes, eni_bytes, _, ref numbers @ ..], rest) =
            message.split_first_chunk::<FIXED_BYTES>()?;
        let number = |at: usize| u32::from_be_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
        let (vpc, rest) = rest.split_at_checked(vpc_bytes.into())?;
        let (eni, packet) = rest.split_at_checked(eni_bytes.into())?;
        (version == VERSION).then_some(())?;
        Some(Self {
            eni: ServedEni { index: EniIndex(number(0)), generation: number(4) },
            mtu_bytes: u16::from_be_bytes([numbers[8], numbers[9]]),
            names: [core::str::from_utf8(vpc).ok()?, core::str::from_utf8(eni).ok()?],
            packet,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let eni = ServedEni { index: EniIndex(7), generation: 1 << 31 };
        let frame = ServiceFrame { eni, mtu_bytes: 1500, names: ["vpc-1", "eni-12"], packet: &[0x45, 0, 1] };
        let mut message = Vec::new();
        assert_eq!(frame.write(&mut message), Some(()));
        assert_eq!(ServiceFrame::read(&message), Some(frame));
        // What is cut off inside the header is no message.
        let header_bytes = message.len() - 3;
        assert!((0..header_bytes).all(|length| ServiceFrame::read(&message[..length]).is_none()));
        message[0] = 2;
        assert_eq!(ServiceFrame::read(&message), None);
        assert_eq!(ServiceFrame::read(&TAKEN), None, "an acknowledgement is no packet");
        let long = alloc::string::String::from_utf8(alloc::vec![b'v'; 256]).unwrap_or_default();
        assert_eq!(ServiceFrame { names: [&long, ""], ..frame }.write(&mut message), None);
    }
}
