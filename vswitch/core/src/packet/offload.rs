//! What the sender of a frame left for hardware to do: completing a checksum, segmenting a long frame into packets.
//!
//! The guest's claim is not trusted: before anything is evaluated, `settle` compares it with the headers that the
//! switch itself parsed. A claim is refused if it would write into a header, or if some segments would get headers
//! other than those that were evaluated. An accepted claim is rewritten from the headers, so no port ever sees a number
//! that a guest chose.

use crate::config::limits::{SEGMENTS_MAX_TCP, SEGMENTS_MAX_UDP};
use crate::packet::checksum;
use crate::packet::headers::fast_parse::{self, Family, Plain};
use crate::packet::headers::{self, Addresses, Fragment, Headers, ICMP_HEADER_BYTES, Network, protocol, tcp_flags};
use crate::packet::verdict::DropReason;

/// A checksum that is still to be completed: the field holds only the sum of the pseudo-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where in the frame the sum begins; it extends to the end of the packet.
    pub start: u16,
    /// Where the field is, relative to `start`.
    pub offset: u16,
}

/// How a frame is to be segmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// Not at all: the frame is one packet.
    #[default]
    None,
    /// As TCP over IPv4.
    TcpV4,
    /// As TCP over IPv6.
    TcpV6,
    /// As UDP datagrams of one size, over either address family.
    Udp,
    /// In a way that was never negotiated.
    Unknown,
}

/// What the sender of a frame left undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum to complete.
    pub checksum: Option<PartialChecksum>,
    /// How to segment the frame.
    pub segmentation: Segmentation,
    /// Bytes of payload in every segment except the last.
    pub segment_bytes: u16,
    /// Bytes of headers that every segment repeats.
    pub header_bytes: u16,
    /// Whether only the first segment may carry the mark that the congestion window was reduced (CWR, RFC 3168 §6.1.2).
    pub marks_congestion_once: bool,
}

/// The offloads that a port supports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u8);

/// What has to be done to a packet before a port can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Nothing.
    Pass,
    /// Its checksum has to be completed.
    Checksum,
    /// It has to be segmented; every segment gets its checksum.
    Segment,
}

/// A frame as others see it on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// How many packets it is.
    pub packets: u32,
    /// Bytes of all their frames.
    pub bytes: u64,
}

impl Offloads {
    /// No offloads.
    pub const NONE: Self = Self(0);
    /// Completing checksums.
    pub const CHECKSUM: Self = Self(1);
    /// Segmenting TCP over IPv4.
    pub const TCP_V4: Self = Self(2);
    /// Segmenting TCP over IPv6.
    pub const TCP_V6: Self = Self(4);
    /// Segmenting UDP.
    pub const UDP: Self = Self(8);
    /// All offloads.
    pub const ALL: Self = Self(15);

    /// The union of both sets.
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether this includes all of `others`.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The set as a number, for [`Offloads::from_bits`].
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set for a number; unknown bits are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// What has to be done to a packet with this `offload` before it is sent.
    #[inline]
    pub const fn preparation(self, offload: &Offload) -> Preparation {
        let cut = match offload.segmentation {
            Segmentation::None => Self::NONE,
            Segmentation::TcpV4 => Self::TCP_V4,
            Segmentation::TcpV6 => Self::TCP_V6,
            Segmentation::Udp | Segmentation::Unknown => Self::UDP,
        };
        if !self.contains(cut)
            // A port that segments also completes checksums; without the latter, its segments would be wrong.
            || (!matches!(offload.segmentation, Segmentation::None) && !self.contains(Self::CHECKSUM))
        {
            Preparation::Segment
        } else if offload.checksum.is_some() && !self.contains(Self::CHECKSUM) {
            Preparation::Checksum
        } else {
            Preparation::Pass
        }
    }
}

impl Offload {
    /// The claim about a frame from whose head so many bytes were taken. What then is no claim any more is refused later.
    pub(super) fn move_forward(&mut self, bytes: u16) {
        self.header_bytes = self.header_bytes.saturating_sub(bytes);
        if let Some(checksum) = &mut self.checksum {
            checksum.start = checksum.start.saturating_sub(bytes);
        }
    }

    /// Nothing is left undone.
    pub const NONE: Self = Self {
        checksum: None,
        segmentation: Segmentation::None,
        segment_bytes: 0,
        header_bytes: 0,
        marks_congestion_once: false,
    };

    /// What a frame's own bytes show to be left undone, where no metadata came with it: a TCP or UDP checksum that
    /// equals the sum of the pseudo-header alone. A checksum that has this value by chance is correct, and completing
    /// it does not change it.
    pub fn undone_in(frame: &[u8]) -> Self {
        let mut headers = Headers::default();
        let is_whole = headers::parse::read(frame, &mut headers).is_ok()
            && headers.network == Network::Ip
            && headers.fragment == Fragment::Whole;
        let start = headers.transport_offset as usize;
        let transport = if is_whole { Transport::of(headers.tuple.protocol, start, frame) } else { None };
        let Some(Transport { start, checksum_offset, .. }) = transport else { return Self::NONE };
        let length = (headers.end as usize).saturating_sub(start) as u64;
        let sum = checksum::of_addresses(headers.tuple.addresses) + u64::from(headers.tuple.protocol) + length;
        let field = frame.get(start + checksum_offset..).and_then(|rest| rest.first_chunk());
        // The complement of the pseudo-header's sum is a finished checksum; what is undone is the sum itself.
        if field.is_none_or(|field| u16::from_be_bytes(*field) != !checksum::finish(sum)) {
            return Self::NONE;
        }
        Self { checksum: Some(PartialChecksum { start: start as u16, offset: checksum_offset as u16 }), ..Self::NONE }
    }

    /// Whether nothing is left undone.
    #[inline]
    pub const fn is_none(&self) -> bool {
        self.checksum.is_none() && matches!(self.segmentation, Segmentation::None)
    }

    /// What a frame of `frame_bytes` is on the wire. All counters count by this.
    #[inline]
    pub fn wire(&self, frame_bytes: usize) -> Wire {
        if self.segmentation == Segmentation::None || self.segment_bytes == 0 {
            return Wire { packets: 1, bytes: frame_bytes as u64 };
        }
        let header_bytes = usize::from(self.header_bytes);
        let payload_bytes = frame_bytes.saturating_sub(header_bytes);
        // A frame without data still is one packet.
        let packets = payload_bytes.div_ceil(usize::from(self.segment_bytes)).max(1);
        Wire { packets: packets as u32, bytes: (payload_bytes + packets * header_bytes) as u64 }
    }

    /// The longest frame that a frame of `frame_bytes` is segmented into; itself if it is not segmented.
    #[inline]
    pub fn longest_frame_bytes(&self, frame_bytes: usize) -> usize {
        match self.segmentation {
            Segmentation::None => frame_bytes,
            _ => frame_bytes.min(usize::from(self.header_bytes) + usize::from(self.segment_bytes)),
        }
    }
}

/// The transport header of an unfragmented TCP or UDP packet.
struct Transport {
    start: usize,
    header_bytes: usize,
    checksum_offset: usize,
    segments_max: usize,
}

impl Transport {
    #[inline]
    fn of(number: u8, start: usize, frame: &[u8]) -> Option<Self> {
        match number {
            protocol::TCP => {
                let header_bytes = usize::from(*frame.get(start + 12)? >> 4) * 4;
                Some(Self { start, header_bytes, checksum_offset: 16, segments_max: SEGMENTS_MAX_TCP })
            }
            protocol::UDP => Some(Self { start, header_bytes: 8, checksum_offset: 6, segments_max: SEGMENTS_MAX_UDP }),
            _ => None,
        }
    }

    /// Whether a checksum is that of this header.
    fn has(&self, partial: PartialChecksum) -> bool {
        let PartialChecksum { start, offset } = partial;
        (usize::from(start), usize::from(offset)) == (self.start, self.checksum_offset)
    }
}

/// What the headers of a packet say that a claim is compared with.
struct ClaimedPacket {
    protocol: u8,
    is_ipv4: bool,
    tcp_flags: u8,
    /// Where it ends in the frame, and how long that is.
    end: usize,
    frame_bytes: usize,
}

/// [`settle`] for what `fast_parse` has read of a frame of `frame_bytes`. `None` if the claim is about anything but the transport header, or contradicts
/// the headers: the slow path tells these apart.
#[inline]
pub(crate) fn settle_plain<A>(
    claimed: &Offload,
    plain: &Plain<A>,
    family: Family,
    frame: &[u8],
    frame_bytes: usize,
) -> Option<Offload> {
    let transport = Transport::of(plain.protocol, fast_parse::transport_offset(family), frame)?;
    if !transport.has(claimed.checksum?) {
        return None;
    }
    let packet = ClaimedPacket {
        protocol: plain.protocol,
        is_ipv4: matches!(family, Family::V4),
        tcp_flags: plain.segment.flags,
        end: plain.end as usize,
        frame_bytes,
    };
    settle_segmentation(claimed, &transport, &packet, frame)
}

/// Verifies the sender's claim against the headers. A checksum that lies behind all headers, as in a packet inside a
/// tunnel, is completed at once.
///
/// # Errors
/// The reason under which a frame with such a claim is to be dropped.
pub(crate) fn settle(claimed: Offload, headers: &Headers, frame: &mut [u8]) -> Result<Offload, DropReason> {
    const MALFORMED: DropReason = DropReason::OffloadMalformed;
    if claimed.checksum.is_none() && claimed.segmentation == Segmentation::None {
        return Ok(Offload::NONE);
    }
    // A frame to be segmented has a checksum to complete (VIRTIO 1.2 §5.1.6.2). Fragments have neither.
    let partial = claimed.checksum.ok_or(MALFORMED)?;
    if headers.network != Network::Ip || headers.fragment != Fragment::Whole {
        return Err(MALFORMED);
    }
    let (start, place) = (usize::from(partial.start), usize::from(partial.start) + usize::from(partial.offset));
    let transport_offset = headers.transport_offset as usize;
    let transport = Transport::of(headers.tuple.protocol, transport_offset, frame);
    if let Some(transport) = transport.as_ref().filter(|transport| transport.has(partial)) {
        let packet = ClaimedPacket {
            protocol: headers.tuple.protocol,
            is_ipv4: matches!(headers.tuple.addresses, Addresses::V4 { .. }),
            tcp_flags: headers.tcp_flags,
            end: headers.end as usize,
            frame_bytes: frame.len(),
        };
        return settle_segmentation(&claimed, transport, &packet, frame).ok_or(MALFORMED);
    }
    let is_icmp = headers.icmp_kind().is_some();
    // The checksum of ICMP is at offset two (RFC 792), and its field may lie inside the header.
    let is_of_icmp = is_icmp && start == transport_offset && place == start + 2;
    let headers_end = match &transport {
        Some(transport) => transport_offset + transport.header_bytes,
        None if is_icmp => transport_offset + ICMP_HEADER_BYTES,
        None => transport_offset,
    };
    // A field inside the headers would let a guest change what has been evaluated.
    let is_behind_headers = start >= transport_offset && place >= headers_end;
    let packet = frame.get_mut(..headers.end as usize).ok_or(MALFORMED)?;
    if claimed.segmentation != Segmentation::None || !(is_of_icmp || is_behind_headers) || place + 2 > packet.len() {
        return Err(MALFORMED);
    }
    // Completed on the spot, so that the bytes that are delivered are those that were evaluated.
    checksum::complete(&mut packet[start..], place - start);
    Ok(Offload::NONE)
}

/// The verified form of a claim whose checksum is that of the transport header; `None` if it contradicts the headers.
#[inline]
fn settle_segmentation(
    claimed: &Offload,
    transport: &Transport,
    packet: &ClaimedPacket,
    frame: &[u8],
) -> Option<Offload> {
    let header_bytes = transport.start + transport.header_bytes;
    let checksum =
        PartialChecksum { start: transport.start.try_into().ok()?, offset: transport.checksum_offset as u16 };
    let summed = Offload { checksum: Some(checksum), ..Offload::NONE };
    match (claimed.segmentation, packet.protocol, packet.is_ipv4) {
        (Segmentation::None, ..) => return Some(summed),
        (Segmentation::TcpV4, protocol::TCP, true)
        | (Segmentation::TcpV6, protocol::TCP, false)
        | (Segmentation::Udp, protocol::UDP, _) => {}
        _ => return None,
    }
    // Bytes behind the packet would become segments of their own.
    if claimed.segment_bytes == 0 || packet.end != packet.frame_bytes {
        return None;
    }
    // A datagram that claims another length would be evaluated as one and delivered as another.
    if claimed.segmentation == Segmentation::Udp {
        let length: [u8; 2] = *frame.get(transport.start + 4..)?.first_chunk()?;
        if usize::from(u16::from_be_bytes(length)) != packet.frame_bytes - transport.start {
            return None;
        }
    }
    let settled = Offload {
        segmentation: claimed.segmentation,
        segment_bytes: claimed.segment_bytes,
        header_bytes: header_bytes.try_into().ok()?,
        marks_congestion_once: claimed.marks_congestion_once && packet.protocol == protocol::TCP,
        ..summed
    };
    match settled.wire(packet.frame_bytes).packets as usize {
        // One segment: the frame needs its checksum, and no port has to cut it.
        0 | 1 => Some(summed),
        // Every segment would repeat these flags.
        _ if packet.tcp_flags & (tcp_flags::SYN | tcp_flags::RST) != 0 => None,
        packets => (packets <= transport.segments_max).then_some(settled),
    }
}
