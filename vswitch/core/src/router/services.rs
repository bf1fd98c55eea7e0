//! What the router leaves to the service thread: DHCP and router solicitations. Here is only decided what goes there.

use crate::config::limits::SERVICE_FRAME_BYTES_MAX;
use crate::packet::headers::{Fragment, Headers};
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;

/// A DHCP message of a guest, whoever it is addressed to: only the switch serves it.
pub(super) fn of_dhcp(headers: &Headers) -> Verdict {
    // A message fits into one frame (RFC 2131 §2, RFC 8415 §5), so nobody needs to send one in parts.
    if headers.fragment != Fragment::Whole || headers.end as usize > SERVICE_FRAME_BYTES_MAX {
        return Verdict::Drop(DropReason::DhcpMalformed);
    }
    Verdict::Serve
}

/// A router solicitation (RFC 4861 §6.2.6). An ENI without IPv6 has no router of that family.
pub(super) fn of_router_solicitation(context: &EniContext<'_>) -> Verdict {
    if context.eni.ipv6.is_some() { Verdict::Serve } else { Verdict::Drop(DropReason::NeighborConsumed) }
}
