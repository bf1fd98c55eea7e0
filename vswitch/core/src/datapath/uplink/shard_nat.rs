//! What a shard knows of translation: the mappings of its ENIs, and what became of first fragments.

use crate::compile::snapshot::Snapshot;
use crate::config::ids::{EniEpoch, EniIndex};
use crate::hw::time::Tick;
use crate::nat::fragments::TranslatedFragments;
use crate::nat::table::NatTable;
use crate::nat::translation::EniNat;
use crate::policy::eni_context::EniContext;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// ENIs that one call of the sweep looks at.
const ENIS_PER_CALL: usize = 64;

/// What a shard knows of translation.
#[derive(Debug)]
pub(crate) struct ShardNat {
    /// By the index of the ENI.
    by_eni: Vec<Option<Box<EniNat>>>,
    pub(crate) fragments: TranslatedFragments,
    seed: [u64; 2],
    /// The ENI that is swept next, and when the round began.
    next_swept: usize,
    round: Tick,
}

impl ShardNat {
    pub(in crate::datapath) fn new(secret: [u64; 2]) -> Self {
        let fragments = TranslatedFragments::default();
        Self { by_eni: Vec::new(), fragments, seed: secret, next_swept: 0, round: Tick(0) }
    }

    /// The mappings of an ENI, none yet if another had the index before.
    #[inline]
    pub(super) fn of(&mut self, context: &EniContext<'_>) -> &mut EniNat {
        let (epoch, seed) = (context.eni.epoch, self.seed);
        let slot = self.slot(context.index);
        if slot.as_ref().is_none_or(|nat| nat.epoch() != epoch) {
            *slot = None;
        }
        slot.get_or_insert_with(|| Box::new(EniNat::new(context.index, epoch, seed)))
    }

    /// The place of an ENI's mappings.
    #[inline]
    fn slot(&mut self, eni: EniIndex) -> &mut Option<Box<EniNat>> {
        let place = eni.0 as usize;
        if self.by_eni.len() <= place {
            self.by_eni.resize_with(place + 1, || None);
        }
        &mut self.by_eni[place]
    }

    /// The mappings of an ENI, if it has any and they are what `table` permits.
    #[inline]
    pub(super) fn checked(&self, eni: EniIndex, epoch: EniEpoch, table: &NatTable) -> Option<&EniNat> {
        let nat = self.by_eni.get(eni.0 as usize)?.as_deref()?;
        (nat.epoch() == epoch && nat.is_checked(table)).then_some(nat)
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn checked_mut(&mut self, eni: EniIndex, epoch: EniEpoch, table: &NatTable) -> Option<&mut EniNat> {
        let nat = self.by_eni.get_mut(eni.0 as usize)?.as_deref_mut()?;
        (nat.epoch() == epoch && nat.is_checked(table)).then_some(nat)
    }

    /// How many mappings and port blocks an ENI has.
    pub(crate) fn counts(&self, eni: EniIndex) -> (usize, usize) {
        self.by_eni.get(eni.0 as usize).and_then(Option::as_ref).map_or((0, 0), |nat| nat.counts())
    }

    /// What all mappings take, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let slots = self.by_eni.capacity() * size_of::<Option<Box<EniNat>>>();
        slots + self.by_eni.iter().flatten().map(|nat| nat.memory_bytes()).sum::<usize>()
    }

    /// Takes the mappings of an ENI out, for another shard.
    pub(in crate::datapath) fn take(&mut self, eni: EniIndex) -> Option<Box<EniNat>> {
        self.by_eni.get_mut(eni.0 as usize).and_then(Option::take)
    }

    /// Puts the mappings of an ENI in that were another shard's.
    pub(in crate::datapath) fn put(&mut self, eni: EniIndex, nat: Option<Box<EniNat>>) {
        if nat.is_some() {
            *self.slot(eni) = nat;
        }
    }

    /// Ends mappings whose time has come, and all of ENIs that are gone: of one ENI in each call, and of each once a second.
    pub(in crate::datapath) fn sweep(&mut self, snapshot: &Snapshot, now: Tick) {
        if self.next_swept >= self.by_eni.len() {
            if self.by_eni.is_empty() || !self.round.is_older_than(1, now) {
                return;
            }
            (self.next_swept, self.round) = (0, now);
        }
        for _ in 0..ENIS_PER_CALL {
            let place = self.next_swept;
            let Some(slot) = self.by_eni.get_mut(place) else { return };
            self.next_swept += 1;
            let Some(nat) = slot else { continue };
            if snapshot.eni(EniIndex(place as u32)).is_some_and(|eni| eni.epoch == nat.epoch()) {
                return nat.sweep(now);
            }
            *slot = None;
        }
    }
}
