//! Rules alone, over a burst: which rule decides about packets without a session. The packet path asks the same
//! questions in its own phases.

use crate::desired::Direction;
use crate::headers::{Addresses, Tuple};
use crate::ids::{EniIndex, RuleId};
use crate::judge::{Seat, from_peer};
use crate::limits::BURST_PACKETS;
use crate::snapshot::{Place, Snapshot};
use crate::verdict::Judgement;
use alloc::vec::Vec;

impl Snapshot {
    /// Judges packets at an ENI as first packets are: by its rules alone. Empty if there is no such ENI.
    pub fn judge_by_rules(
        &self,
        (eni, direction): (EniIndex, Direction),
        tuples: &[Tuple],
        judgements: &mut Vec<Judgement>,
    ) {
        judgements.clear();
        let Some(seat) = Seat::new(self, eni, direction) else { return };
        let mut addresses = [Addresses::V4 { source: 0, destination: 0 }; BURST_PACKETS];
        let mut places = [Place::NOWHERE; BURST_PACKETS];
        for burst in tuples.chunks(BURST_PACKETS) {
            for (addresses, tuple) in addresses.iter_mut().zip(burst) {
                *addresses = from_peer(direction, tuple);
            }
            seat.network.sources(&addresses[..burst.len()], &mut places);
            let peers = burst.iter().zip(&places);
            peers.for_each(|(tuple, peer)| seat.filter.prefetch(direction, tuple, peer.class));
            judgements
                .extend(burst.iter().zip(&places).map(|(tuple, peer)| seat.judge_by_place(direction, tuple, *peer)));
        }
    }

    /// The name of the rule that a judgement by the rules of an ENI names as its ground.
    pub fn rule_of(&self, eni: EniIndex, direction: Direction, ground: u32) -> Option<&RuleId> {
        Some(self.network(self.eni(eni)?)?.1.filter.rule(direction, ground)?.0)
    }

    /// Bytes that the rules of an ENI take, compiled, with their rows for both directions and without names. Other ENIs
    /// with the same groups share them.
    pub fn filter_bytes(&self, eni: EniIndex) -> Option<usize> {
        Some(self.network(self.eni(eni)?)?.1.filter.bytes())
    }
}
