//! Rules alone, over a burst: which rule decides about packets without a session. The packet path asks the same
//! questions in its own phases.

use crate::desired::Direction;
use crate::headers::Tuple;
use crate::ids::EniIndex;
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
        let mut places = [Place::NOWHERE; BURST_PACKETS];
        for burst in tuples.chunks(BURST_PACKETS) {
            burst.iter().for_each(|tuple| seat.network.prefetch_source(from_peer(direction, tuple)));
            for (place, tuple) in places.iter_mut().zip(burst) {
                *place = seat.network.source(from_peer(direction, tuple));
            }
            places[..burst.len()].iter().for_each(|peer| seat.filter.prefetch(direction, peer.class));
            judgements
                .extend(burst.iter().zip(&places).map(|(tuple, peer)| seat.judge_by_place(direction, tuple, *peer)));
        }
    }

    /// Bytes that the rules of an ENI take, compiled, with their rows for both directions and without names. Other ENIs
    /// with the same groups share them.
    pub fn filter_bytes(&self, eni: EniIndex) -> Option<usize> {
        Some(self.network(self.eni(eni)?)?.1.filter.bytes())
    }
}
