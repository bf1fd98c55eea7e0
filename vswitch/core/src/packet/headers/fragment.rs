//! Fragments of IP packets: where each belongs, and which are refused by themselves.

use crate::packet::fragment_coverage::Part;
use crate::packet::headers::{Fragment, protocol};
use crate::packet::verdict::DropReason;

/// Whether the bytes are a complete packet, or only the beginning of one.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Trust {
    Whole,
    Quote,
}

/// Where a fragment's bytes belong in its packet.
#[derive(Clone, Copy)]
pub(super) struct PartOfPacket {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) more: bool,
}

impl PartOfPacket {
    /// The fragment in the form that is stored once its fields are known to fit.
    pub(super) const fn kept(self) -> Part {
        // An atomic fragment (RFC 6946) is a whole packet.
        if self.start == 0 && !self.more {
            return Part::NONE;
        }
        Part { start: self.start as u16, end: self.end as u16, is_last: !self.more }
    }

    /// Classifies a fragment. Refuses those made to slip past rules or to overflow a reassembly buffer.
    pub(super) fn classify(self, protocol_number: u8, trust: Trust) -> Result<Fragment, DropReason> {
        let Self { start, end, more } = self;
        if start == 0 && !more {
            return Ok(Fragment::Whole);
        }
        // The classic overflow of a reassembly buffer: offset and length together exceed what a packet can have.
        if end > u16::MAX.into() {
            return Err(DropReason::FragmentOversized);
        }
        // RFC 1858 §4, RFC 3128: the fragment would overwrite the flags of a TCP header.
        if protocol_number == protocol::TCP && (1..20).contains(&start) {
            return Err(DropReason::FragmentTiny);
        }
        // RFC 791: every fragment but the last is a multiple of 8 bytes, and none is empty.
        let is_odd = more && !(end - start).is_multiple_of(8);
        // A quote may be cut anywhere, so its length says nothing.
        if trust == Trust::Whole && (is_odd || (start > 0 && start == end)) {
            return Err(DropReason::FragmentMalformed);
        }
        Ok(if start == 0 { Fragment::First } else { Fragment::Later })
    }
}
