//! Which worker owns which ENI. An ENI stays with its worker as long as it exists. It moves only if the number of
//! workers changes, and then no more ENIs move than are needed for no worker to have two more than another.

use crate::exchange::publish::EniLocation;
use std::collections::BTreeMap;
use vswitch_core::config::ids::{EniId, EniIndex};
use vswitch_core::datapath::migrate::Move;
use vswitch_core::tables::cow_array::CowArray;

#[derive(Clone, Copy, Debug)]
struct Owner {
    worker: usize,
    index: EniIndex,
    eni_generation: u32,
}

/// The owners of all ENIs, and the free port slots of each worker.
#[derive(Debug)]
pub struct Placement {
    owners: BTreeMap<EniId, Owner>,
    load: Vec<usize>,
    free_slots: Vec<Vec<u32>>,
    slots: Vec<u32>,
    eni_generations: u32,
    table: CowArray<Option<EniLocation>>,
}

impl Placement {
    /// A placement without ENIs for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            owners: BTreeMap::new(),
            load: vec![0; workers],
            free_slots: vec![Vec::new(); workers],
            slots: vec![0; workers],
            eni_generations: 0,
            table: CowArray::default(),
        }
    }

    /// Updates the placement of `enis`, each with its index if it exists: new ones go to the worker with the fewest,
    /// removed ones free their place.
    pub fn update<'a>(&mut self, enis: impl Iterator<Item = (&'a EniId, Option<EniIndex>)>) {
        let mut new = Vec::new();
        for (eni, index) in enis {
            match (self.owners.get(eni), index) {
                (Some(owner), Some(index)) if owner.index == index => {}
                // Another index under the same name: the ENI was deleted and created anew.
                (Some(owner), index) => {
                    self.load[owner.worker] -= 1;
                    *self.table.get_mut(owner.index.0 as usize) = None;
                    self.owners.remove(eni);
                    new.extend(index.map(|index| (eni, index)));
                }
                (None, index) => new.extend(index.map(|index| (eni, index))),
            }
        }
        // New ones are placed after all removals, when the load is what it will be.
        for (eni, index) in new {
            let worker = (0..self.load.len()).min_by_key(|worker| self.load[*worker]).unwrap_or(0);
            self.load[worker] += 1;
            self.eni_generations = self.eni_generations.wrapping_add(1);
            self.owners.insert(eni.clone(), Owner { worker, index, eni_generation: self.eni_generations });
            self.set_slot(eni, None);
        }
    }

    /// The worker that owns an ENI, and the ENI's index.
    pub fn owner(&self, eni: &EniId) -> Option<(usize, EniIndex)> {
        self.owners.get(eni).map(|owner| (owner.worker, owner.index))
    }

    /// The number of an ENI among those that have had its index.
    pub fn eni_generation(&self, eni: &EniId) -> Option<u32> {
        self.owners.get(eni).map(|owner| owner.eni_generation)
    }

    /// The moves after which the workers differ by at most one ENI.
    pub fn moves_to(&self, workers: usize) -> Vec<(EniId, Move)> {
        let mut load: Vec<usize> = (0..workers).map(|worker| self.load.get(worker).copied().unwrap_or(0)).collect();
        let fewest = |load: &[usize]| (0..load.len()).min_by_key(|worker| load[*worker]).unwrap_or(0);
        let mut moves = Vec::new();
        let mut note = |load: &mut [usize], eni: &EniId, owner: &Owner, to: usize| {
            load[to] += 1;
            moves.push((eni.clone(), Move { eni: owner.index, from: owner.worker, to }));
        };
        // ENIs of workers that go away move first, so that evening out sees the final load.
        for (eni, owner) in self.owners.iter().filter(|(_, owner)| owner.worker >= workers) {
            let to = fewest(&load);
            note(&mut load, eni, owner, to);
        }
        for (eni, owner) in self.owners.iter().filter(|(_, owner)| owner.worker < workers) {
            let to = fewest(&load);
            // A difference of one cannot be evened out, only moved around.
            if load[owner.worker] > load[to] + 1 {
                load[owner.worker] -= 1;
                note(&mut load, eni, owner, to);
            }
        }
        moves
    }

    /// Makes room for the port slots of `workers` workers; those of others are empty.
    pub fn resize(&mut self, workers: usize) {
        self.load.resize(workers, 0);
        self.free_slots.resize(workers, Vec::new());
        self.slots.resize(workers, 0);
    }

    /// Assigns an ENI to another worker.
    pub fn set_owner(&mut self, eni: &EniId, worker: usize) {
        let Some(owner) = self.owners.get_mut(eni) else { return };
        self.load[owner.worker] -= 1;
        self.load[worker] += 1;
        owner.worker = worker;
    }

    /// How many ENIs the worker owns.
    pub fn load(&self, worker: usize) -> usize {
        self.load[worker]
    }

    /// Takes a free port slot.
    pub fn take_slot(&mut self, worker: usize) -> u32 {
        // Free slots are reused, so that a worker's array of ports stays short.
        self.free_slots[worker].pop().unwrap_or_else(|| {
            self.slots[worker] += 1;
            self.slots[worker] - 1
        })
    }

    /// Returns a port slot that is free again.
    pub fn put_slot(&mut self, worker: usize, slot: u32) {
        self.free_slots[worker].push(slot);
    }

    /// Sets the slot of an ENI's port in the table, if it has one.
    pub fn set_slot(&mut self, eni: &EniId, slot: Option<u32>) {
        let Some(owner) = self.owners.get(eni) else { return };
        let location = EniLocation { worker: owner.worker as u16, slot, eni_generation: owner.eni_generation };
        *self.table.get_mut(owner.index.0 as usize) = Some(location);
    }

    /// The location of each ENI, by index.
    pub fn table(&self) -> CowArray<Option<EniLocation>> {
        self.table.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(enis: u32, workers: usize) -> Placement {
        let mut placement = Placement::new(workers);
        let names: Vec<_> = (0..enis).map(|number| (EniId(format!("eni-{number:03}")), EniIndex(number))).collect();
        placement.update(names.iter().map(|(eni, index)| (eni, Some(*index))));
        placement
    }

    fn resize(placement: &mut Placement, workers: usize) -> usize {
        let moves = placement.moves_to(workers);
        placement.resize(workers.max(placement.load.len()));
        moves.iter().for_each(|(eni, step)| placement.set_owner(eni, step.to));
        placement.resize(workers);
        moves.len()
    }

    #[test]
    fn as_few_enis_move_as_must() {
        let mut placement = with(100, 1);
        assert_eq!(resize(&mut placement, 4), 75);
        assert_eq!(placement.load, [25; 4]);
        assert_eq!(resize(&mut placement, 3), 25);
        assert_eq!(placement.load.iter().sum::<usize>(), 100);
        assert!(placement.load.iter().all(|load| (33..=34).contains(load)), "{:?}", placement.load);
        assert_eq!(resize(&mut placement, 3), 0, "nothing is better elsewhere");
        assert_eq!(resize(&mut placement, 1), 66);
        assert_eq!(placement.load, [100]);
        assert_eq!(resize(&mut with(1, 1), 64), 0);
    }
}
