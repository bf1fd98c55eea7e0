//! Translation at the worker that owns an ENI: after its egress has admitted a packet that leaves, and before its ingress
//! evaluates one from outside. Rules see the private address of the guest and the real one of its peer.

use crate::compile::snapshot::UplinkEntry;
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::uplink::NatFiltering;
use crate::conntrack::fragments::FragmentKey;
use crate::conntrack::tables::SessionSlot;
use crate::datapath::packet_context::PacketContext;
use crate::datapath::shard::Shard;
use crate::hw::time::{TICKS_PER_SECOND, Tick};
use crate::nat::fragments::FragmentTarget;
use crate::nat::mappings::PrivatePort;
use crate::nat::rewrite::TranslatedEnd;
use crate::nat::table::{NatEnd, NatTable};
use crate::nat::translation::{EniNat, NoExternalEnd, Translation, private_port, remote_of};
use crate::packet::Packet;
use crate::packet::headers::{Addresses, Fragment, Tuple, protocol};
use crate::packet::verdict::DropReason;
use crate::policy::eni_context::EniContext;
use crate::policy::evaluate::Lookup;

/// A packet's source with what it becomes.
#[derive(Clone, Copy, Debug)]
pub(in crate::datapath) struct Outgoing {
    translation: Translation,
    mapping: Option<UsedMapping>,
}

/// A mapping that a packet used.
#[derive(Clone, Copy, Debug)]
struct UsedMapping {
    inside: PrivatePort,
    /// Stands for the remote end.
    remote: u32,
}

impl UsedMapping {
    /// The mapping that a packet of this tuple leaves by.
    fn of(sent: &Tuple) -> Option<Self> {
        let Addresses::V4 { source, .. } = sent.addresses else { return None };
        let inside = PrivatePort { address: source, port: sent.source_port, protocol: sent.protocol };
        Some(Self { inside, remote: remote_of(sent) })
    }
}

impl Shard {
    /// What the source of a packet becomes that egress has admitted.
    ///
    /// # Errors
    /// Why it cannot leave.
    #[inline]
    pub(in crate::datapath) fn outgoing(
        &mut self,
        sender: &EniContext<'_>,
        uplink: &UplinkEntry,
        packet: &Packet,
        now: Tick,
    ) -> Result<Outgoing, NoExternalEnd> {
        let headers = &packet.headers;
        if headers.fragment == Fragment::Later && matches!(headers.tuple.addresses, Addresses::V4 { .. }) {
            let translation = self.of_later_fragment(sender, uplink, packet, now)?;
            return Ok(Outgoing { translation, mapping: None });
        }
        let translation = self.nat.of(sender).outgoing(&uplink.nat, headers, packet.buffer.frame(), now)?;
        let mapping = match translation {
            Translation::End(NatEnd { port: Some(_), .. }) => private_port(headers),
            Translation::End(_) | Translation::Quote(_) | Translation::None => None,
        };
        Ok(Outgoing {
            translation,
            mapping: mapping.map(|inside| UsedMapping { inside, remote: remote_of(&headers.tuple) }),
        })
    }

    /// What the source of a later fragment becomes: what that of its first one became.
    #[cold]
    fn of_later_fragment(
        &mut self,
        sender: &EniContext<'_>,
        uplink: &UplinkEntry,
        packet: &Packet,
        now: Tick,
    ) -> Result<Translation, NoExternalEnd> {
        let Addresses::V4 { source, .. } = packet.headers.tuple.addresses else { return Ok(Translation::None) };
        let entry = self.sessions.fragment_entry(FragmentKey::of(sender.eni.epoch, &packet.headers));
        let (table, end) = (&uplink.nat, NatEnd { address: source, port: None });
        match self.nat.fragments.find(&entry, now) {
            Some(first) => Ok(Translation::End(NatEnd { address: first.address, port: None })),
            None => match table.external_of(packet.headers.tuple.protocol, end) {
                Some(external) => Ok(Translation::End(external)),
                None if table.routes_private && table.pool_of(source).is_none() => Ok(Translation::None),
                None => Err(NoExternalEnd::Dropped(DropReason::NatUnmapped)),
            },
        }
    }

    /// Rewrites the source of a packet that leaves, and keeps its mapping as long as its session in `slot`.
    ///
    /// # Errors
    /// The packet is not what its headers say.
    #[inline]
    pub(in crate::datapath) fn translate_outgoing(
        &mut self,
        sender: &EniContext<'_>,
        uplink: &UplinkEntry,
        packet: &mut Packet,
        outgoing: Outgoing,
        slot: Option<SessionSlot>,
        now: Tick,
    ) -> Result<(), DropReason> {
        if packet.headers.fragment == Fragment::First
            && let Translation::End(NatEnd { address, .. }) = outgoing.translation
        {
            self.note_first_fragment(sender, packet, FragmentTarget { eni: sender.index, address }, now);
        }
        if let Some(mapping) = outgoing.mapping {
            self.keep_mapping(sender, uplink, mapping, slot, now);
        }
        outgoing.translation.apply(packet, TranslatedEnd::Source)
    }

    /// Remembers for later fragments what became of a first one.
    #[cold]
    pub(in crate::datapath) fn note_first_fragment(
        &mut self,
        context: &EniContext<'_>,
        packet: &Packet,
        target: FragmentTarget,
        now: Tick,
    ) {
        let entry = self.sessions.fragment_entry(FragmentKey::of(context.eni.epoch, &packet.headers));
        self.nat.fragments.note(&entry, target, now);
    }

    /// Keeps a mapping as long as the session in `slot`, and UDP at least as long as configured.
    #[inline]
    fn keep_mapping(
        &mut self,
        context: &EniContext<'_>,
        uplink: &UplinkEntry,
        mapping: UsedMapping,
        slot: Option<SessionSlot>,
        now: Tick,
    ) {
        let settings = context.snapshot.settings();
        let of_session_s = slot.map_or(settings.icmp_timeout_s.into(), |slot| {
            let connection = self.sessions.connection(slot);
            connection.state.timeout_s(connection.timeouts, settings)
        });
        keep(self.nat.of(context), &uplink.nat, mapping, of_session_s, now);
    }

    /// Keeps the mapping of packets that leave with this tuple as long as their session, which idles for `timeout_s`.
    pub(super) fn keep_mapping_of(
        &mut self,
        eni: EniIndex,
        epoch: EniEpoch,
        table: &NatTable,
        sent: &Tuple,
        timeout_s: u32,
        now: Tick,
    ) {
        if let (Some(nat), Some(mapping)) = (self.nat.checked_mut(eni, epoch, table), UsedMapping::of(sent)) {
            keep(nat, table, mapping, timeout_s, now);
        }
    }

    /// Rewrites the destination of a packet from outside. Whether only a connection that was opened inside gives it one.
    ///
    /// # Errors
    /// Why it is dropped.
    #[inline]
    pub(in crate::datapath) fn translate_incoming(
        &mut self,
        receiver: &EniContext<'_>,
        packet: &mut Packet,
        now: Tick,
    ) -> Result<bool, DropReason> {
        let Addresses::V4 { .. } = packet.headers.tuple.addresses else { return Ok(false) };
        let uplink = receiver.network.uplink.as_deref().ok_or(DropReason::NatUnmapped)?;
        let headers = packet.headers;
        if headers.fragment == Fragment::Later {
            let entry = self.sessions.fragment_entry(FragmentKey::of(receiver.eni.epoch, &headers));
            let first = self.nat.fragments.find(&entry, now).map(|first| first.address);
            let nat = self.nat.of(receiver);
            let translation = match first {
                Some(address) => Translation::End(NatEnd { address, port: None }),
                None => nat.incoming(&uplink.nat, &headers, packet.buffer.frame())?.0,
            };
            return translation.apply(packet, TranslatedEnd::Destination).map(|()| false);
        }
        let nat = self.nat.of(receiver);
        let (translation, is_mapped) = nat.incoming(&uplink.nat, &headers, packet.buffer.frame())?;
        if headers.fragment == Fragment::First
            && let Translation::End(NatEnd { address, .. }) = translation
        {
            self.note_first_fragment(receiver, packet, FragmentTarget { eni: receiver.index, address }, now);
        }
        translation.apply(packet, TranslatedEnd::Destination)?;
        Ok(is_mapped)
    }

    /// Whether a packet that only a connection from inside gives a destination belongs to one, or need not (RFC 4787 §5).
    #[inline]
    pub(in crate::datapath) fn is_solicited(
        &self,
        receiver: &EniContext<'_>,
        packet: &Packet,
        packet_context: &PacketContext,
        now: Tick,
    ) -> bool {
        let Some(nat) = receiver.network.uplink.as_deref().map(|uplink| &uplink.nat) else { return false };
        // Who comes from inside has an external source, which nobody outside may claim (`enter`): rules decide.
        let is_from_inside = nat.is_external_destination(packet.headers.tuple.addresses.reverse());
        if nat.filtering == NatFiltering::Endpoint || is_from_inside {
            return true;
        }
        match self.lookup(receiver, packet, packet_context) {
            Lookup::Session(entry) | Lookup::Related(entry) => {
                let found = self.sessions.find(&entry, receiver.eni.epoch);
                found.is_some_and(|found| !found.connection.is_expired(receiver.snapshot.settings(), now))
            }
            // They follow their first, and forged quotes are counted as such.
            Lookup::Fragment(_) | Lookup::Misquoted(_) => true,
            Lookup::None => false,
        }
    }

    /// Keeps the mapping by which a packet came in that ingress has admitted.
    #[inline]
    pub(in crate::datapath) fn keep_incoming(
        &mut self,
        receiver: &EniContext<'_>,
        tuple: &Tuple,
        slot: Option<SessionSlot>,
        now: Tick,
    ) {
        let Some(uplink) = receiver.network.uplink.as_deref() else { return };
        if let Some(mapping) = UsedMapping::of(&tuple.reverse()) {
            self.keep_mapping(receiver, uplink, mapping, slot, now);
        }
    }
}

/// Keeps a mapping for as long as its session idles, and UDP at least as long as configured.
#[inline]
fn keep(nat: &mut EniNat, table: &NatTable, mapping: UsedMapping, of_session_s: u32, now: Tick) {
    let least_s = if mapping.inside.protocol == protocol::UDP { table.udp_timeout_s } else { 0 };
    // The session must not be the one that lasts longer: it may see packets for a second more before the mapping is told
    // of one (`fast_path`), and both end in whole ticks.
    let ticks = of_session_s.max(least_s).saturating_add(1).saturating_mul(TICKS_PER_SECOND as u32).saturating_add(1);
    nat.keep(mapping.inside, mapping.remote, ticks, now);
}
