//! The way out of a VPC and in: what leaves by its uplink, what comes from there, and what an ENI sends to an external
//! address of its own VPC (hairpin, RFC 4787 REQ-9), which does both without leaving.

mod fast_path;
pub(crate) mod receivers;
pub(crate) mod shard_nat;
mod translation;

use crate::compile::snapshot::Snapshot;
use crate::config::desired::{Direction, Policy};
use crate::config::ids::EniIndex;
use crate::config::limits::{BURST_PACKETS, ETHERNET_HEADER_BYTES};
use crate::conntrack::fragments::FragmentKey;
use crate::datapath::anti_spoof::is_from_inside;
use crate::datapath::packet_context::PacketContext;
use crate::datapath::shard::Shard;
use crate::hw::time::{Tick, Time};
use crate::nat::fragments::FragmentTarget;
use crate::nat::translation::{External, NoExternalEnd};
use crate::packet::headers::{Addresses, Fragment, Headers};
use crate::packet::verdict::{Decision, DropReason, Stage, Verdict};
use crate::packet::{FrameBuffer, Marker, Packet};
use crate::policy::eni_context::{EniContext, UplinkContext};
use crate::router::next_hop::UplinkNextHops;
use crate::router::{self, icmp, mss, ttl};
use crate::tables::route::AddressRoute;
use core::slice;

impl Shard {
    /// Takes a packet that passed the egress checks through its sender's decision and out of the VPC. Counts what passes
    /// egress.
    ///
    /// # Errors
    /// The verdict with which the packet ends in egress, which is not counted yet.
    #[inline(never)]
    pub(in crate::datapath) fn leave(
        &mut self,
        sender: &EniContext<'_>,
        uplink: &UplinkContext<'_>,
        packet: &mut Packet,
        packet_context: &PacketContext,
        now: Tick,
        is_here: &impl Fn(EniIndex) -> bool,
    ) -> Result<Verdict, Verdict> {
        if !packet.headers.is_plain
            && let Some(verdict) = self.track_fragment(sender, packet, now)
        {
            return Err(verdict);
        }
        let lookup = self.lookup(sender, packet, packet_context);
        let evaluation = self.evaluate(sender, (packet, &lookup), now);
        if !evaluation.0.accepts() {
            let _refused_anyway = self.apply(sender, packet, (evaluation, &lookup), now);
            return Err(evaluation.0.refusal());
        }
        // All that can keep it here comes before a session is opened or the packet is changed.
        let hairpin = self.hairpin_target(uplink, packet, now)?;
        let outgoing = match self.outgoing(sender, uplink.entry, packet, now) {
            Ok(outgoing) => outgoing,
            Err(NoExternalEnd::Dropped(reason)) => return Err(Verdict::Drop(reason)),
            Err(NoExternalEnd::NoRoute) => {
                return Err(router::unreachable::no_route(sender, packet, AddressRoute::Nowhere));
            }
        };
        let mtu_bytes = uplink.context.eni.mtu_bytes;
        if sender.snapshot.settings().clamp_mss {
            mss::clamp(packet, sender.eni.mtu_bytes.min(mtu_bytes));
        }
        let opened = self.apply(sender, packet, (evaluation, &lookup), now).map_err(Verdict::Drop)?;
        if let Some(verdict) = ttl::decrement_ttl(sender, packet) {
            return Err(verdict);
        }
        if hairpin.is_none()
            && icmp::is_too_big(packet, mtu_bytes)
            && let Some(verdict) = icmp::refuse_too_big(sender, packet, mtu_bytes)
        {
            return Err(verdict);
        }
        let slot = opened.or_else(|| evaluation.1.continues());
        if let Some(eni) = hairpin.filter(|_| packet.headers.fragment == Fragment::First) {
            self.note_first_fragment(&uplink.context, packet, FragmentTarget { eni, address: 0 }, now);
        }
        self.translate_outgoing(sender, uplink.entry, packet, outgoing, slot, now).map_err(Verdict::Drop)?;
        let next = hairpin.unwrap_or(uplink.context.index);
        self.counters[sender.counters_index()].egress.count(Verdict::Forward(next), packet.wire());
        (packet.verdict, packet.receiver) = (Verdict::Forward(next), next);
        if hairpin.is_some() {
            packet.marker = Marker::Uplink;
        }
        if is_here(next) {
            self.ingress_of(sender.snapshot, next, slice::from_mut(packet), now);
        }
        Ok(packet.verdict)
    }

    /// The ENI that a packet for an external address of its own VPC goes to. None if it leaves.
    ///
    /// # Errors
    /// It stands for no ENI.
    fn hairpin_target(
        &self,
        uplink: &UplinkContext<'_>,
        packet: &Packet,
        now: Tick,
    ) -> Result<Option<EniIndex>, Verdict> {
        match packet.headers.tuple.addresses {
            Addresses::V4 { destination, .. } if uplink.entry.nat.is_external(destination) => {
                let target = self.target(uplink, &packet.headers, packet.buffer.frame(), now);
                target.map(Some).ok_or(Verdict::Drop(DropReason::NatUnmapped))
            }
            _ => Ok(None),
        }
    }

    /// The ENI that a packet from outside goes to.
    pub(crate) fn target(
        &self,
        uplink: &UplinkContext<'_>,
        headers: &Headers,
        frame: &[u8],
        now: Tick,
    ) -> Option<EniIndex> {
        let UplinkContext { context, entry } = uplink;
        let owner = || match context.network.route(headers.tuple.addresses) {
            AddressRoute::Owner(eni) | AddressRoute::Via(eni) => Some(eni),
            AddressRoute::Nowhere | AddressRoute::Unowned | AddressRoute::Gateway | AddressRoute::Peer(_) => None,
        };
        let Addresses::V4 { destination, .. } = headers.tuple.addresses else { return owner() };
        if !entry.nat.is_external(destination) {
            return owner().filter(|_| entry.nat.routes_private);
        }
        if headers.fragment == Fragment::Later {
            let key = self.sessions.fragment_entry(FragmentKey::of(context.eni.epoch, headers));
            if let Some(first) = self.nat.fragments.find(&key, now) {
                return Some(first.eni);
            }
        }
        let External { protocol, end, .. } = External::of(headers, frame)?;
        entry.nat.eni_of(protocol, end)
    }

    /// Takes packets that came from outside to the ENIs that they are for: through their ingress, if they are in this shard.
    #[inline(never)]
    fn enter_slowly(
        &mut self,
        uplink: &UplinkContext<'_>,
        burst: &mut [Packet],
        now: Tick,
        is_here: &impl Fn(EniIndex) -> bool,
    ) {
        for packet in &mut *burst {
            packet.decision = None;
            packet.marker = Marker::Uplink;
            let verdict = match packet.parse() {
                Ok(()) => self.admit(uplink, packet, now),
                Err(reason) => Verdict::Drop(reason),
            };
            packet.verdict = self.counters[uplink.context.counters_index()].limit_answers(verdict, now);
            self.counters[uplink.context.counters_index()].egress.count(packet.verdict, packet.wire());
        }
        let mut rest = burst;
        while let Some(first) = rest.first() {
            let target = first.verdict;
            let length = rest.iter().take(BURST_PACKETS).take_while(|packet| packet.verdict == target).count();
            let (run, others) = rest.split_at_mut(length);
            if let Verdict::Forward(eni) = target
                && is_here(eni)
            {
                self.ingress_of(uplink.context.snapshot, eni, run, now);
            }
            rest = others;
        }
    }

    /// What becomes of a packet from outside before the ENI that it is for evaluates it.
    fn admit(&mut self, uplink: &UplinkContext<'_>, packet: &mut Packet, now: Tick) -> Verdict {
        let UplinkContext { context, entry } = *uplink;
        let place = self.next_hops_of(uplink);
        if let Some(verdict) = router::uplink::answer(uplink, packet, &mut self.next_hops[place], now) {
            return verdict;
        }
        if is_from_inside(uplink, packet.headers.tuple.addresses) {
            return Verdict::Drop(DropReason::SourceInside);
        }
        if let Some(verdict) = self.track_fragment(&context, packet, now) {
            return verdict;
        }
        let Some(eni) = self.target(uplink, &packet.headers, packet.buffer.frame(), now) else {
            let is_external = entry.nat.is_external_destination(packet.headers.tuple.addresses);
            return Verdict::Drop(if is_external { DropReason::NatUnmapped } else { DropReason::NoRoute });
        };
        let Some(receiver) = context.snapshot.eni(eni) else { return Verdict::Drop(DropReason::EniGone) };
        if context.snapshot.settings().clamp_mss {
            mss::clamp(packet, context.eni.mtu_bytes.min(receiver.mtu_bytes));
        }
        // Reports quote what came: they are made before it is translated.
        if let Some(verdict) = ttl::decrement_ttl(&context, packet) {
            return verdict;
        }
        if icmp::is_too_big(packet, receiver.mtu_bytes)
            && let Some(verdict) = icmp::refuse_too_big(&context, packet, receiver.mtu_bytes)
        {
            return verdict;
        }
        if packet.headers.fragment == Fragment::First {
            self.note_first_fragment(&context, packet, FragmentTarget { eni, address: 0 }, now);
            // The others may go now; what becomes of them is decided at the ENI.
            self.note_fragment(&context, packet, Decision::by(Policy::Accept, Stage::Session), now);
        }
        packet.receiver = eni;
        Verdict::Forward(eni)
    }

    /// Sends a packet to the next hop of an uplink of this shard.
    pub(in crate::datapath) fn send_out(
        &mut self,
        uplink: &UplinkContext<'_>,
        packet: &mut Packet,
        now: Tick,
    ) -> Verdict {
        let UplinkContext { context, entry } = *uplink;
        let place = self.next_hops_of(uplink);
        let resolved = || self.next_hops[place].mac(packet.headers.tuple.addresses, now);
        let mac = entry.next_hop_mac.or_else(resolved);
        let header = packet.buffer.frame_mut().get_mut(..ETHERNET_HEADER_BYTES);
        packet.verdict = match (mac, header) {
            (Some(mac), Some(header)) => {
                header[..6].copy_from_slice(&mac.0);
                header[6..12].copy_from_slice(&entry.mac.0);
                Verdict::Deliver
            }
            _ => Verdict::Drop(DropReason::NextHopUnresolved),
        };
        packet.receiver = context.index;
        self.counters[context.counters_index()].ingress.count(packet.verdict, packet.wire());
        packet.verdict
    }

    /// Writes what an uplink of this shard has to ask its next hop into `buffer`, if it is time. The frame is to be sent to
    /// the uplink's port.
    pub fn ask_next_hop(&mut self, snapshot: &Snapshot, uplink: EniIndex, buffer: &mut FrameBuffer, now: Time) -> bool {
        let context = self.context_of(snapshot, uplink, Direction::Ingress);
        let Some(uplink) = context.and_then(EniContext::as_uplink) else { return false };
        let place = self.next_hops_of(&uplink);
        self.next_hops[place].ask(uplink.entry, buffer, now.tick())
    }

    /// The place of what is known of an uplink's next hops.
    fn next_hops_of(&mut self, uplink: &UplinkContext<'_>) -> usize {
        let (index, epoch) = (uplink.context.index, uplink.context.eni.epoch);
        let place = self.next_hops.iter().position(|it| it.index == index).unwrap_or_else(|| {
            self.next_hops.push(UplinkNextHops::new(index, epoch));
            self.next_hops.len() - 1
        });
        if self.next_hops[place].epoch != epoch {
            self.next_hops[place] = UplinkNextHops::new(index, epoch);
        }
        place
    }
}
