//! Parts of IP packets: where each belongs, and which are refused for what they are alone.

use crate::packet::fragment_coverage::Part;
use crate::packet::headers::{Fragment, protocol};
use crate::packet::verdict::DropReason;

/// Whether the bytes are a packet, or only the beginning of one.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Trust {
    Whole,
    Quote,
}

/// Where a packet's bytes belong in the one that it may be a part of.
#[derive(Clone, Copy)]
pub(super) struct PartOfPacket {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) more: bool,
}

impl PartOfPacket {
    /// As it is kept once it is known to fit.
    pub(super) const fn kept(self) -> Part {
        if self.start == 0 && !self.more {
            return Part::NONE;
        }
        Part { start: self.start as u16, end: self.end as u16, is_last: !self.more }
    }

    /// Classifies a part of a packet, refusing those made to slip past rules or to overflow a reassembly buffer.
    pub(super) fn classify(self, protocol_number: u8, trust: Trust) -> Result<Fragment, DropReason> {
        let Self { start, end, more } = self;
        if start == 0 && !more {
            return Ok(Fragment::Whole);
        }
        if end > u16::MAX.into() {
            return Err(DropReason::FragmentOversized);
        }
        // RFC 1858 §4, RFC 3128: would overwrite the flags of a TCP header.
        if protocol_number == protocol::TCP && (1..20).contains(&start) {
            return Err(DropReason::FragmentTiny);
        }
        // RFC 791: every part but the last is a multiple of 8 bytes, and none is empty.
        let is_odd = more && !(end - start).is_multiple_of(8);
        if trust == Trust::Whole && (is_odd || (start > 0 && start == end)) {
            return Err(DropReason::FragmentMalformed);
        }
        Ok(if start == 0 { Fragment::First } else { Fragment::Later })
    }
}
