//! Moves ENIs between shards with everything that belongs to them: sessions, counters, rate limits, and fragmented
//! packets. Either all moves succeed or nothing moves. Runs between two turns, while no packet is evaluated.
//!
//! Two ENIs of one shard may share a record. If only one of them leaves, it takes a copy that holds its session alone,
//! as if the two had always been in different shards. When the two sessions of a connection meet again, they share a
//! record if both have seen the same packets (`ConnectionTables::adopt`).

use crate::compile::snapshot::Snapshot;
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::LISTED_PLACES_PER_TURN;
use crate::conntrack::recent::RecentSessions;
use crate::conntrack::tables::{LookupKey, SessionSlot};
use crate::conntrack::{Connection, Origin, Session};
use crate::datapath::counters::EniCounters;
use crate::datapath::shard::Shard;
use crate::hw::time::{Tick, Time};
use crate::packet::verdict::DropReason;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A move of an ENI between shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The ENI.
    pub eni: EniIndex,
    /// The number of the shard it leaves.
    pub from: usize,
    /// The number of the shard it goes to.
    pub to: usize,
}

/// A table has no room for the sessions of an ENI that should move there. Nothing has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// The ENI.
    pub eni: EniIndex,
    /// The shard without room.
    pub to: usize,
}

/// Makes the moves and returns how many sessions moved. Expired sessions do not.
///
/// # Errors
/// [`NoRoom`]; nothing has moved then.
pub fn migrate(shards: &mut [&mut Shard], moves: &[Move], (snapshot, now): (&Snapshot, Time)) -> Result<usize, NoRoom> {
    let mut migration = Migration::new(moves, snapshot, now.tick());
    // All sessions are copied before any is removed, so that a full table can still refuse the whole move.
    for from in 0..shards.len() {
        if let Err(no_room) = migration.copy_sessions(shards, from) {
            migration.undo(shards);
            return Err(no_room);
        }
    }
    Ok(migration.complete(shards))
}

/// A session that was copied to another shard.
struct Copied {
    epoch: EniEpoch,
    old: (usize, SessionSlot),
    new: (usize, SessionSlot),
}

struct Migration<'a> {
    snapshot: &'a Snapshot,
    now: Tick,
    /// By the ENI's epoch, with the salt of its network.
    moves: BTreeMap<EniEpoch, (Move, u32)>,
    copied: Vec<Copied>,
    /// Expired sessions, with the shard that holds each.
    over: Vec<(usize, SessionSlot, EniEpoch)>,
}

impl<'a> Migration<'a> {
    fn new(moves: &[Move], snapshot: &'a Snapshot, now: Tick) -> Self {
        // A move to the same shard would copy sessions onto themselves.
        let known = moves.iter().filter(|step| step.from != step.to).filter_map(|step| {
            let eni = snapshot.eni(step.eni)?;
            Some((eni.epoch, (*step, snapshot.network(eni)?.0.salt)))
        });
        Self { snapshot, now, moves: known.collect(), copied: Vec::new(), over: Vec::new() }
    }

    /// Copies the sessions that leave `from`, some places at a time. What was copied there from other shards stays.
    fn copy_sessions(&mut self, shards: &mut [&mut Shard], from: usize) -> Result<(), NoRoom> {
        // Walking a table of millions of records for nothing would lengthen the pause.
        if !self.moves.values().any(|(step, _)| step.from == from) || shards[from].sessions.is_empty() {
            return Ok(());
        }
        let mut some: Vec<(Move, EniEpoch, SessionSlot, LookupKey, Connection, Origin)> = Vec::new();
        for place in (0..shards[from].sessions.places()).step_by(LISTED_PLACES_PER_TURN) {
            let sessions = &shards[from].sessions;
            for listed in sessions.scan(place, LISTED_PLACES_PER_TURN) {
                let epoch = listed.connection.sessions[listed.index].epoch();
                let Some((step, salt)) = self.moves.get(&epoch).filter(|(step, _)| step.from == from) else { continue };
                // Expired sessions need no room at the new owner; they end once nothing can fail any more.
                if listed.connection.is_expired(self.snapshot.settings(), self.now) {
                    self.over.push((from, listed.slot, epoch));
                    continue;
                }
                let mut connection = *listed.connection;
                // The other end may stay: the copy holds the session of the ENI that moves, and it alone.
                connection.sessions[1 - listed.index] = Session::default();
                // All shards have the same secret.
                let (entry, bucket) = shards[step.to].sessions.reach_for(&listed.tuple, *salt);
                shards[step.to].sessions.prefetch_origin(&entry, bucket);
                some.push((*step, epoch, listed.slot, entry, connection, *sessions.origin(listed.slot)));
            }
            // A second pass: the places in the other table, prefetched above, have arrived by now.
            for (step, epoch, slot, entry, connection, origin) in some.drain(..) {
                let adopted = shards[step.to].sessions.adopt(&entry, connection, origin);
                let new = adopted.map_err(|_| NoRoom { eni: step.eni, to: step.to })?;
                let syn = shards[from].sessions.syn_key(slot, epoch);
                // A SYN that awaits its answer moves along, or the answer would be compared with the old numbers.
                if let Some(found) = shards[from].sessions.syns.of(&syn, self.now) {
                    shards[step.to].sessions.syns.note(syn, found);
                }
                self.copied.push(Copied { epoch, old: (from, slot), new: (step.to, new) });
            }
        }
        Ok(())
    }

    fn undo(self, shards: &mut [&mut Shard]) {
        for Copied { epoch, new: (shard, slot), .. } in self.copied {
            shards[shard].sessions.end(slot, epoch);
        }
    }

    /// Removes what was copied, and moves everything that cannot fail for lack of room.
    fn complete(self, shards: &mut [&mut Shard]) -> usize {
        for (shard, slot, epoch) in self.over {
            shards[shard].end_session(slot, epoch);
        }
        for Copied { epoch, old: (shard, slot), .. } in &self.copied {
            shards[*shard].sessions.end(*slot, *epoch);
        }
        for (epoch, (step, _)) in &self.moves {
            let (counters, recent) = shards[step.from].give_counters(step.eni, *epoch);
            *shards[step.to].counters_at(step.eni, *epoch) = counters;
            shards[step.to].recent[step.eni.0 as usize] = recent;
            // External ports stay the same, or the connections would not.
            let nat = shards[step.from].nat.take(step.eni);
            shards[step.to].nat.put(step.eni, nat);
        }
        let mut ways: Vec<(usize, usize)> = self.moves.values().map(|(step, _)| (step.from, step.to)).collect();
        ways.sort_unstable();
        ways.dedup();
        for (from, to) in ways {
            let Ok([one, other]) = shards.get_disjoint_mut([from, to]) else { continue };
            let (one, other) = (&mut **one, &mut **other);
            let leaves = |epoch| self.moves.get(&epoch).is_some_and(|(step, _)| (step.from, step.to) == (from, to));
            let Shard { sessions, counters, places, .. } = other;
            // Fragments that find no room are lost like any that overflow, and counted at the ENI's new owner.
            one.sessions.fragments.move_to(&mut sessions.fragments, leaves, self.now, |epoch| {
                if let Some(place) = places.of(epoch, counters) {
                    counters[place].egress.count_undelivered(DropReason::FragmentsFull, 1);
                }
            });
        }
        self.copied.len()
    }
}

impl Shard {
    /// Takes out the counters of an ENI, which start anew here, and its recent sessions, whose buckets are the same in
    /// all shards.
    fn give_counters(&mut self, eni: EniIndex, epoch: EniEpoch) -> (EniCounters, RecentSessions) {
        let counters = core::mem::replace(self.counters_at(eni, epoch), EniCounters::new(epoch));
        (counters, core::mem::take(&mut self.recent[eni.0 as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::config::desired::Desired;
    use crate::packet::verdict::Verdict;
    use crate::packet::{FrameBuffer, Packet};
    use alloc::format;

    const SECRET: [u64; 2] = [1, 2];
    const NOW: Time = Time::from_ns(1_000_000_000);

    fn snapshot() -> Snapshot {
        let eni = |number: u8| {
            format!(
                r#""eni-{number}": {{"vswitch": "vsw-1", "mac": "02:00:00:00:00:0{number}", "groups": ["sg-1"],
                   "addresses": ["10.0.0.{number}/32"]}}"#
            )
        };
        let json = format!(
            r#"{{"vpcs": {{"vpc-1": {{}}}},
                "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.0.0.0/24", "ipv4_gateway": "10.0.0.253"}}}},
                "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "basic", "inner_access": "accept"}}}},
                "enis": {{{}, {}}}}}"#,
            eni(1),
            eni(2)
        );
        let desired: Desired = serde_json::from_str(&json).unwrap();
        compile(&desired, 1).unwrap()
    }

    /// A datagram from one ENI to the other, between these ports.
    fn datagram(from: u8, to: u8, ports: [u16; 2]) -> Packet {
        let mut frame = alloc::vec![0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, from, 8, 0];
        let mut header = alloc::vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to];
        let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        header[10..12].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
        frame.extend(header);
        frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        frame.extend([0, 12, 0, 0, 0, 0, 0, 0]);
        let mut buffer = FrameBuffer::with_capacity(frame.len());
        buffer.fill(&frame);
        Packet::new(buffer)
    }

    fn index(snapshot: &Snapshot, number: u8) -> EniIndex {
        snapshot.eni_index(&format!("eni-{number}").as_str().into()).unwrap()
    }

    fn send(shard: &mut Shard, snapshot: &Snapshot, from: u8, packet: Packet) -> Verdict {
        let mut burst = [packet];
        shard.forward((snapshot, NOW), index(snapshot, from), &mut burst, |_: EniIndex| true);
        burst[0].verdict
    }

    fn step(snapshot: &Snapshot, number: u8, from: usize, to: usize) -> Move {
        Move { eni: index(snapshot, number), from, to }
    }

    #[test]
    fn what_two_enis_share_is_parted_and_comes_together_again() {
        let snapshot = snapshot();
        let (mut one, mut other) = (Shard::new(64, SECRET), Shard::new(64, SECRET));
        for port in 0..20 {
            assert_eq!(send(&mut one, &snapshot, 1, datagram(1, 2, [port, 9])), Verdict::Deliver);
        }
        assert_eq!((one.sessions.len(), other.sessions.len()), (20, 0));
        let mut shards = [&mut one, &mut other];
        assert_eq!(migrate(&mut shards, &[step(&snapshot, 2, 0, 1)], (&snapshot, NOW)), Ok(20));
        assert_eq!((shards[0].sessions.len(), shards[1].sessions.len()), (20, 20));
        let held = |shard: &Shard, number: u8| shard.stats(&snapshot, index(&snapshot, number)).unwrap();
        assert_eq!((held(shards[0], 1).flows, held(shards[1], 2).flows), (20, 20));
        assert_eq!((held(shards[1], 2).ingress.packets, held(shards[0], 2).ingress.packets), (20, 0));
        // They swap shards, and are never in the same one.
        let both = [step(&snapshot, 1, 0, 1), step(&snapshot, 2, 1, 0)];
        assert_eq!(migrate(&mut shards, &both, (&snapshot, NOW)), Ok(40));
        assert_eq!((held(shards[1], 1).flows, held(shards[0], 2).flows), (20, 20));
        assert_eq!(migrate(&mut shards, &[step(&snapshot, 2, 0, 1)], (&snapshot, NOW)), Ok(20));
        assert_eq!((shards[0].sessions.len(), shards[1].sessions.len()), (0, 20), "one record each again");
        assert_eq!(send(&mut other, &snapshot, 2, datagram(2, 1, [9, 7])), Verdict::Deliver);
        assert_eq!(other.sessions.len(), 20);
    }

    #[test]
    fn ends_that_saw_other_packets_keep_records_of_their_own() {
        let snapshot = snapshot();
        let (mut one, mut other) = (Shard::new(64, SECRET), Shard::new(64, SECRET));
        send(&mut one, &snapshot, 1, datagram(1, 2, [7, 9]));
        let mut shards = [&mut one, &mut other];
        migrate(&mut shards, &[step(&snapshot, 2, 0, 1)], (&snapshot, NOW)).unwrap();
        // It passes the first, and is lost on its way to the second.
        let mut burst = [datagram(1, 2, [7, 9])];
        shards[0].egress(&snapshot, index(&snapshot, 1), &mut burst, NOW);
        assert_eq!(burst[0].verdict, Verdict::Forward(index(&snapshot, 2)));
        migrate(&mut shards, &[step(&snapshot, 2, 1, 0)], (&snapshot, NOW)).unwrap();
        assert_eq!((one.sessions.len(), other.sessions.len()), (2, 0));
        let selection = Default::default();
        let listed = one.list_flows((&snapshot, NOW), &selection, (0, 10)).flows;
        let mut packets: Vec<_> =
            listed.iter().map(|connection| (connection.eni.as_str(), connection.packets)).collect();
        packets.sort_unstable();
        assert_eq!(packets, [("eni-1", [2, 0]), ("eni-2", [1, 0])]);
        assert_eq!(send(&mut one, &snapshot, 2, datagram(2, 1, [9, 7])), Verdict::Deliver);
    }

    #[test]
    fn without_room_nothing_moves() {
        let snapshot = snapshot();
        let (mut one, mut other) = (Shard::new(64, SECRET), Shard::new(4, SECRET));
        for port in 0..20 {
            send(&mut one, &snapshot, 1, datagram(1, 2, [port, 9]));
        }
        let mut shards = [&mut one, &mut other];
        let no_room = NoRoom { eni: index(&snapshot, 1), to: 1 };
        assert_eq!(migrate(&mut shards, &[step(&snapshot, 1, 0, 1)], (&snapshot, NOW)), Err(no_room));
        assert_eq!((one.sessions.len(), other.sessions.len()), (20, 0));
        let stats = one.stats(&snapshot, index(&snapshot, 1)).unwrap();
        assert_eq!((stats.flows, stats.egress.packets), (20, 20));
    }

    #[test]
    fn what_is_over_stays_behind_and_is_counted_no_more() {
        let snapshot = snapshot();
        let (mut one, mut other) = (Shard::new(64, SECRET), Shard::new(64, SECRET));
        send(&mut one, &snapshot, 1, datagram(1, 2, [1, 9]));
        let later = NOW + 3_600_000_000_000;
        let mut shards = [&mut one, &mut other];
        assert_eq!(migrate(&mut shards, &[step(&snapshot, 1, 0, 1)], (&snapshot, later)), Ok(0));
        assert_eq!(other.stats(&snapshot, index(&snapshot, 1)).unwrap().flows, 0);
    }
}
