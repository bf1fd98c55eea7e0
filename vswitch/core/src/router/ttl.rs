//! The time to live of packets that cross from one subnet to another.

use super::icmp::IcmpError;
use super::reply::{NETWORK, set_ipv4_ttl};
use crate::packet::Packet;
use crate::packet::headers::Addresses;
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use etherparse::{Icmpv4Type, Icmpv6Type};

/// Takes one hop from a packet that crosses from one subnet to another (RFC 1812 §5.3.1, RFC 8200 §3), or turns it
/// into the report that none is left.
pub(crate) fn decrement_ttl(context: &EniContext<'_>, packet: &mut Packet) -> Option<Verdict> {
    let headers = packet.headers;
    if headers.hop_limit > 1 {
        let header = packet.buffer.frame_mut().get_mut(NETWORK..)?;
        match headers.tuple.addresses {
            Addresses::V4 { .. } => set_ipv4_ttl(header, headers.hop_limit - 1)?,
            Addresses::V6 { .. } => *header.get_mut(7)? = headers.hop_limit - 1,
        }
        return None;
    }
    let report = IcmpError {
        v4: Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit),
        v6: Icmpv6Type::TimeExceeded(etherparse::icmpv6::TimeExceededCode::HopLimitExceeded),
    };
    Some(report.instead_of(context, packet).unwrap_or(Verdict::Drop(DropReason::TtlExpired)))
}
