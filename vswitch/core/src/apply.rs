//! Does to the sessions what a judgement asks for.

use crate::eni::{Desk, Shard};
use crate::flow::fragments::{Fate, FragmentKey};
use crate::flow::sessions::{Entry, SessionSlot};
use crate::flow::{Flow, FlowState, Origin, Side};
use crate::headers::Fragment;
use crate::ids::FlowScope;
use crate::judge::{Action, Lookup, Ruling};
use crate::limits::SESSIONS_PER_FRAGMENT_FATE;
use crate::packet::Packet;
use crate::time::Tick;
use crate::verdict::{DropReason, Judgement};

impl Shard {
    /// Does what the judgement of a packet at one ENI asks for. Returns the record that was opened, if one was.
    #[inline]
    pub(crate) fn apply(
        &mut self,
        desk: &Desk<'_>,
        packet: &Packet,
        ((judgement, action), lookup): (Ruling, &Lookup),
        now: Tick,
    ) -> Result<Option<SessionSlot>, DropReason> {
        let mut opened = None;
        if let Lookup::Session(entry) = lookup {
            match action {
                Action::None => {}
                Action::Touch(slot) | Action::Readmit(slot, _) => {
                    let slot = self.own(slot, entry, desk.seat.eni.scope);
                    self.go_on(slot, &[(desk, (judgement, action))], (packet, lookup), now);
                }
                Action::Revoke(slot) => self.revoke(slot, entry, desk, now),
                Action::Open => opened = Some(self.open(desk, packet, (judgement, entry), now)?),
                Action::Reopen(slot) => {
                    self.end(slot, desk);
                    opened = Some(self.open(desk, packet, (judgement, entry), now)?);
                }
            }
        }
        self.note_fragment(desk, packet, judgement, now);
        Ok(opened)
    }

    /// Keeps the judgement of a first fragment, if later ones are to follow it.
    #[inline]
    pub(crate) fn note_fragment(&mut self, desk: &Desk<'_>, packet: &Packet, judgement: Judgement, now: Tick) {
        if packet.headers.fragment == Fragment::First && desk.seat.snapshot.settings().follow_first_fragment {
            self.remember_fate(desk, packet, judgement, now);
        }
    }

    /// The record of a session that goes on, if the session of `other` is in it as well.
    #[inline]
    pub(crate) fn shared_record(&self, action: Action, other: FlowScope) -> Option<SessionSlot> {
        action.continues().filter(|slot| self.sessions.flow(*slot).place_of(other).is_some())
    }

    /// Counts a packet of a record of which each of `sessions` goes on, and restarts its timer.
    #[inline]
    pub(crate) fn go_on(
        &mut self,
        slot: SessionSlot,
        sessions: &[(&Desk<'_>, Ruling)],
        (packet, lookup): (&Packet, &Lookup),
        now: Tick,
    ) {
        for (desk, ruling) in sessions {
            if let Action::Readmit(_, admitted_by) = ruling.1 {
                self.readmit(slot, desk, admitted_by);
            }
        }
        let Lookup::Session(entry) = lookup else { return };
        let carry = self.sessions.flow_mut(slot).count(&packet.headers, packet.wire(), entry.swapped, now);
        if let Some(way) = carry {
            self.sessions.origin_mut(slot).bytes_high[way] += 1;
        }
    }

    #[cold]
    fn readmit(&mut self, slot: SessionSlot, desk: &Desk<'_>, admitted_by: Option<Judgement>) {
        let flow = self.sessions.flow_mut(slot);
        let Some(place) = flow.place_of(desk.seat.eni.scope) else { return };
        let side = &mut flow.sides[place];
        side.revision = desk.seat.revision;
        side.set_revoked(false);
        if let Some(judgement) = admitted_by {
            side.set_stage(judgement.stage);
            self.sessions.origin_mut(slot).grounds[place] = judgement.ground;
        }
    }

    #[cold]
    fn revoke(&mut self, slot: SessionSlot, entry: &Entry, desk: &Desk<'_>, now: Tick) {
        let slot = self.own(slot, entry, desk.seat.eni.scope);
        let flow = self.sessions.flow_mut(slot);
        let Some(place) = flow.place_of(desk.seat.eni.scope) else { return };
        flow.sides[place].revision = desk.seat.revision;
        flow.sides[place].set_revoked(true);
        flow.last_seen = now;
    }

    /// A record in which the session of `scope` is alone.
    #[inline]
    fn own(&mut self, slot: SessionSlot, entry: &Entry, scope: FlowScope) -> SessionSlot {
        if self.sessions.flow(slot).is_shared() { self.sessions.split(slot, entry, scope) } else { slot }
    }

    fn open(
        &mut self,
        desk: &Desk<'_>,
        packet: &Packet,
        (judgement, entry): (Judgement, &Entry),
        now: Tick,
    ) -> Result<SessionSlot, DropReason> {
        if !self.has_room(desk) {
            return Err(DropReason::SessionLimit);
        }
        let (mut flow, mut origin) = connection(packet, desk, now);
        flow.sides[0] = side(desk, judgement, entry.swapped);
        origin.grounds[0] = judgement.ground;
        let slot = self.sessions.insert(entry, flow, origin).map_err(|_| DropReason::FlowTableFull)?;
        self.counters[desk.place].sessions += 1;
        Ok(slot)
    }

    /// Whether an ENI may have one more session.
    pub(crate) fn has_room(&self, desk: &Desk<'_>) -> bool {
        self.counters[desk.place].sessions < desk.seat.eni.sessions_max
    }

    /// Opens the receiver's session of a packet that opened the sender's in the record `slot`: in the same record, if
    /// the two will end at the same time.
    pub(crate) fn join(
        &mut self,
        slot: SessionSlot,
        desk: &Desk<'_>,
        packet: &Packet,
        ((judgement, action), lookup): (Ruling, &Lookup),
        now: Tick,
    ) -> Result<Option<SessionSlot>, DropReason> {
        let Lookup::Session(entry) = lookup else { return Ok(None) };
        if self.sessions.flow(slot).timeouts != desk.seat.eni.timeouts || packet.headers.fragment == Fragment::First {
            return self.apply(desk, packet, ((judgement, action), lookup), now);
        }
        if let Action::Reopen(over) = action {
            self.end(over, desk);
        }
        if !self.has_room(desk) {
            return Err(DropReason::SessionLimit);
        }
        self.sessions.flow_mut(slot).sides[1] = side(desk, judgement, entry.swapped);
        self.sessions.origin_mut(slot).grounds[1] = judgement.ground;
        self.counters[desk.place].sessions += 1;
        Ok(Some(slot))
    }

    fn end(&mut self, slot: SessionSlot, desk: &Desk<'_>) {
        self.sessions.end(slot, desk.seat.eni.scope);
        self.counters[desk.place].forget_session();
    }

    /// Without room the later ones are judged alone.
    #[cold]
    fn remember_fate(&mut self, desk: &Desk<'_>, packet: &Packet, judgement: Judgement, now: Tick) {
        let eni = desk.seat.eni;
        let key = FragmentKey::of(eni.scope, &packet.headers);
        let counters = &mut self.counters[desk.place];
        if self.sessions.fragments.remove(&key) {
            counters.forget_fate();
        }
        // Strangers can send what is refused at will: it must not push out what is accepted.
        let fates_max = (eni.sessions_max / SESSIONS_PER_FRAGMENT_FATE).max(1);
        let share = if judgement.accepts() { fates_max } else { fates_max / 2 };
        let fate = Fate::new(judgement, desk.seat.revision, packet.headers.tuple, now);
        if counters.fates < share && self.sessions.fragments.insert(key, fate) {
            counters.fates += 1;
        }
    }
}

/// The record of a connection that this packet opens, with nobody's session yet.
#[inline]
pub(crate) fn connection(packet: &Packet, desk: &Desk<'_>, now: Tick) -> (Flow, Origin) {
    let wire = packet.wire();
    let flow = Flow {
        protocol: packet.headers.tuple.protocol,
        state: FlowState::opened_by(&packet.headers),
        timeouts: desk.seat.eni.timeouts,
        last_seen: now,
        packets: [wire.packets, 0],
        bytes_low: [wire.bytes as u32, 0],
        ..Flow::default()
    };
    (flow, Origin { opened_at: now, ..Origin::default() })
}

/// The session of an ENI that a judgement of it opens; `swapped` as the key has the packet's ends.
#[inline]
pub(crate) const fn side(desk: &Desk<'_>, judgement: Judgement, swapped: bool) -> Side {
    let seat = &desk.seat;
    Side::new((seat.eni.scope, seat.revision), seat.direction, swapped, judgement.stage)
}
