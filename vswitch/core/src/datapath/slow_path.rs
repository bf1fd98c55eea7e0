//! The slow path, which any packet may take: both decisions step by step, and what follows from them.

use crate::config::desired::Direction;
use crate::config::desired::Policy;
use crate::config::ids::EniIndex;
use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::conntrack::tables::SessionSlot;
use crate::datapath::anti_spoof;
use crate::datapath::anti_spoof::may_send_from;
use crate::datapath::eligibility;
use crate::datapath::packet_context::PacketContext;
use crate::datapath::shard::Shard;
use crate::hw::time::Tick;
use crate::packet::Packet;
use crate::packet::headers::Addresses;
use crate::packet::verdict::Decision;
use crate::packet::verdict::Stage;
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use crate::policy::evaluate::SessionUpdate;
use crate::policy::evaluate::{Evaluation, Lookup};
use crate::router;
use crate::router::{icmp, mss, ttl};
use crate::tables::address_entry::AddressEntry;
use crate::tables::route::{AddressRoute, may_leave};
use core::slice;

impl Shard {
    /// What to look up to evaluate a packet.
    #[inline]
    pub(super) fn lookup(&self, context: &EniContext<'_>, packet: &Packet, packet_context: &PacketContext) -> Lookup {
        if packet.headers.is_plain {
            Lookup::Session(packet_context.entry)
        } else {
            context.lookup(&self.sessions, &packet.headers, packet.buffer.frame())
        }
    }

    /// The slow path for a packet that egress admitted and that goes to `next`. `other` is the receiver of the last
    /// such packet.
    #[inline(never)]
    pub(super) fn slow_path_to<'a>(
        &mut self,
        next: EniIndex,
        (sender, other): (&EniContext<'a>, &mut Option<EniContext<'a>>),
        (packet, packet_context): (&mut Packet, &PacketContext),
        (now, is_here): (Tick, &impl Fn(EniIndex) -> bool),
    ) {
        if other.as_ref().is_none_or(|other| other.index != next) {
            *other = self.context_of(sender.snapshot, next, Direction::Ingress);
        }
        let passed = match other {
            Some(receiver) => match receiver.as_uplink() {
                Some(uplink) => self.leave(sender, &uplink, packet, packet_context, now, is_here),
                None if receiver.eni.vpc != sender.eni.vpc => {
                    let passed = self.slow_path(sender, receiver, (packet, packet_context), (now, false));
                    // The receiver's sessions have keys of its own network, so it decides as if it were elsewhere.
                    if passed == Ok(Verdict::Forward(next)) && is_here(next) {
                        packet.verdict = Verdict::Forward(next);
                        self.ingress_of(sender.snapshot, next, slice::from_mut(packet), now);
                        Ok(packet.verdict)
                    } else {
                        passed
                    }
                }
                None => self.slow_path(sender, receiver, (packet, packet_context), (now, is_here(next))),
            },
            None => Err(Verdict::Drop(DropReason::EniGone)),
        };
        packet.verdict = passed.unwrap_or_else(|verdict| {
            let verdict = self.counters[sender.counters_index()].limit_answers(verdict, now);
            self.counters[sender.counters_index()].egress.count(verdict, packet.wire());
            verdict
        });
    }

    /// Takes a packet that passed the egress checks through both decisions, the second only if its receiver is in this
    /// shard. Counts what passes egress and everything in ingress.
    ///
    /// # Errors
    /// The verdict with which the packet ends in egress, which is not counted yet.
    #[inline(never)]
    pub(super) fn slow_path(
        &mut self,
        sender: &EniContext<'_>,
        receiver: &EniContext<'_>,
        (packet, packet_context): (&mut Packet, &PacketContext),
        (now, is_here): (Tick, bool),
    ) -> Result<Verdict, Verdict> {
        if !packet.headers.is_plain
            && let Some(verdict) = self.track_fragment(sender, packet, now)
        {
            return Err(verdict);
        }
        let next = receiver.index;
        packet.receiver = next;
        let lookup = self.lookup(sender, packet, packet_context);
        let evaluation = self.evaluate(sender, (packet, &lookup), now);
        if !evaluation.0.accepts() {
            let _refused_anyway = self.apply(sender, packet, (evaluation, &lookup), now);
            return Err(evaluation.0.refusal());
        }
        let route = packet_context.place.route();
        let crosses =
            receiver.eni.vswitch != sender.eni.vswitch || matches!(route, AddressRoute::Via(_) | AddressRoute::Peer(_));
        let mtu_bytes = receiver.eni.mtu_bytes;
        let is_last_hop = crosses && packet.headers.hop_limit <= 1;
        let is_too_big = icmp::is_too_big(packet, mtu_bytes);
        if sender.snapshot.settings().clamp_mss {
            mss::clamp(packet, sender.eni.mtu_bytes.min(mtu_bytes));
        }
        let checked = if is_here {
            ingress_checks(receiver, packet, packet_context.place.route())
        } else {
            Verdict::Forward(next)
        };
        let enters = is_here && !is_last_hop && !is_too_big && checked == Verdict::Forward(next);
        // If the session shares its record with the receiver's, it is updated after the receiver's decision.
        let shared = if enters { self.shared_record(evaluation.1, receiver.eni.epoch) } else { None };
        let opened = match shared {
            Some(_) => None,
            None => self.apply(sender, packet, (evaluation, &lookup), now).map_err(Verdict::Drop)?,
        };
        if crosses && let Some(verdict) = ttl::decrement_ttl(sender, packet) {
            return Err(verdict);
        }
        if is_too_big && let Some(verdict) = icmp::refuse_too_big(sender, packet, mtu_bytes) {
            return Err(verdict);
        }
        self.counters[sender.counters_index()].egress.count(Verdict::Forward(next), packet.wire());
        if !is_here {
            return Ok(Verdict::Forward(next));
        }
        packet.verdict = match checked {
            Verdict::Forward(_) => {
                self.ingress_half((sender, receiver), (packet, packet_context), (evaluation, shared, opened), now)
            }
            other => other,
        };
        self.finish(receiver, packet);
        Ok(packet.verdict)
    }

    /// The second decision about a packet whose first is `evaluation`. That one has been applied, and may have `opened`
    /// a record, unless both ENIs have their sessions in one `shared` record.
    pub(super) fn ingress_half(
        &mut self,
        (sender, receiver): (&EniContext<'_>, &EniContext<'_>),
        (packet, packet_context): (&mut Packet, &PacketContext),
        (evaluation, shared, opened): (Evaluation, Option<SessionSlot>, Option<SessionSlot>),
        now: Tick,
    ) -> Verdict {
        let its_lookup = self.lookup(receiver, packet, packet_context);
        let its_evaluation = self.evaluate(receiver, (packet, &its_lookup), now);
        if let Some(slot) = shared {
            if its_evaluation.1.continues() == Some(slot) {
                self.refresh(slot, &[(sender, evaluation), (receiver, its_evaluation)], (packet, &its_lookup), now);
                self.note_fragment(sender, packet, evaluation.0, now);
                self.note_fragment(receiver, packet, its_evaluation.0, now);
                return Verdict::Deliver;
            }
            // From now on the two sessions see different packets. The receiver's keeps the record.
            let lookup = self.lookup(sender, packet, packet_context);
            let applied = self.apply(sender, packet, (evaluation, &lookup), now);
            debug_assert!(applied.is_ok(), "a session that goes on needs no room");
        }
        let applied = match opened {
            Some(slot) if its_evaluation.1.admission().is_some() => {
                self.add_session(slot, receiver, packet, (its_evaluation, &its_lookup), now)
            }
            _ => self.apply(receiver, packet, (its_evaluation, &its_lookup), now),
        };
        match applied {
            _ if !its_evaluation.0.accepts() => its_evaluation.0.refusal(),
            Ok(_) => Verdict::Deliver,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    #[inline]
    pub(super) fn evaluate(
        &self,
        context: &EniContext<'_>,
        (packet, lookup): (&mut Packet, &Lookup),
        now: Tick,
    ) -> Evaluation {
        let sessions = &self.sessions;
        let evaluation =
            match eligibility::deciding_session(context, sessions, (&packet.headers, lookup, packet.marker), now) {
                Some(found) => (Decision::by(Policy::Accept, Stage::Session), SessionUpdate::Touch(found.slot)),
                None => context.evaluate(sessions, &packet.headers, (lookup, packet.marker), now),
            };
        packet.decision = Some(evaluation.0);
        evaluation
    }

    /// Counts a packet at the end of ingress and writes the guest's addresses.
    #[inline]
    pub(super) fn finish(&mut self, context: &EniContext<'_>, packet: &mut Packet) {
        if packet.verdict == Verdict::Deliver {
            packet.receiver = context.index;
            address_to(context, packet);
        }
        self.counters[context.counters_index()].ingress.count(packet.verdict, packet.wire());
    }
}

/// The egress steps before any decision: parse, check the sender, and route.
#[inline]
pub(super) fn egress_checks(context: &EniContext<'_>, packet: &mut Packet) -> (Verdict, AddressEntry) {
    let guarded = match packet.parse() {
        Ok(()) => anti_spoof::check(context, &packet.headers, packet.buffer.frame()),
        Err(reason) => Err(reason),
    };
    if let Err(reason) = guarded {
        return (Verdict::Drop(reason), AddressEntry::NOWHERE);
    }
    let place = context.network.destination(packet.headers.tuple.addresses);
    if let Some(verdict) = router::answer(context, packet, place.route()) {
        // A service may have had a decision made.
        packet.decision = packet.decision.or_else(|| context.exempt(&packet.headers, packet.marker));
        return (verdict, place);
    }
    let verdict = match next_eni(context, place.route(), packet.headers.tuple.addresses) {
        Some(next) => Verdict::Forward(next),
        None => router::unreachable::no_route(context, packet, place.route()),
    };
    (verdict, place)
}

/// The ingress step before any decision: whether the ENI owns the destination, to which `route` leads.
#[inline]
pub(super) fn ingress_checks(context: &EniContext<'_>, packet: &Packet, route: AddressRoute) -> Verdict {
    let is_owner = route == AddressRoute::Owner(context.index)
        || !context.eni.source_dest_check
        || may_send_from(context, packet.headers.tuple.addresses.reverse());
    if is_owner { Verdict::Forward(context.index) } else { Verdict::Drop(DropReason::DestinationNotOwned) }
}

/// The ENI to which a packet of the guest goes, or the uplink. It is never the same one: packets to its own address stay
/// inside the guest.
#[inline]
pub(crate) fn next_eni(context: &EniContext<'_>, route: AddressRoute, addresses: Addresses) -> Option<EniIndex> {
    match route {
        AddressRoute::Owner(next) | AddressRoute::Via(next) => Some(next).filter(|next| *next != context.index),
        AddressRoute::Nowhere => {
            let uplink = context.network.uplink.as_deref()?;
            // An external address comes back in, so it may be one that never leaves.
            (uplink.nat.is_external_destination(addresses) || may_leave(addresses)).then_some(uplink.index)
        }
        AddressRoute::Peer(vpc) => match context.snapshot.vpc(vpc)?.route(addresses) {
            AddressRoute::Owner(next) => Some(next),
            // Peering does not lead any further (the cloud's is not transitive either).
            _ => None,
        },
        AddressRoute::Unowned | AddressRoute::Gateway => None,
    }
}

/// Writes the Ethernet header of the last hop, from the router to the guest.
#[inline]
fn address_to(context: &EniContext<'_>, packet: &mut Packet) {
    if let Some(header) = packet.buffer.frame_mut().get_mut(..ETHERNET_HEADER_BYTES) {
        header[..6].copy_from_slice(&context.eni.mac.0);
        header[6..12].copy_from_slice(&context.network.gateway_mac.0);
    }
}
