//! Which worker owns which ENI. Stable: an ENI stays with its worker for as long as it exists.

use crate::publish::Place;
use std::collections::BTreeMap;
use vswitch_core::chunks::Chunks;
use vswitch_core::ids::{EniId, EniIndex};

#[derive(Clone, Copy, Debug)]
struct Home {
    worker: usize,
    index: EniIndex,
    incarnation: u32,
}

/// The homes of all ENIs, and the free places for ports at each worker.
#[derive(Debug)]
pub struct Placement {
    homes: BTreeMap<EniId, Home>,
    load: Vec<usize>,
    free_slots: Vec<Vec<u32>>,
    slots: Vec<u32>,
    incarnations: u32,
    table: Chunks<Option<Place>>,
}

impl Placement {
    /// No ENIs on `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            homes: BTreeMap::new(),
            load: vec![0; workers],
            free_slots: vec![Vec::new(); workers],
            slots: vec![0; workers],
            incarnations: 0,
            table: Chunks::default(),
        }
    }

    /// Takes in what became of `enis`, each with its number if it exists: new ones go to the worker with the fewest, gone
    /// ones make room.
    pub fn follow<'a>(&mut self, enis: impl Iterator<Item = (&'a EniId, Option<EniIndex>)>) {
        let mut new = Vec::new();
        for (eni, index) in enis {
            match (self.homes.get(eni), index) {
                (Some(home), Some(index)) if home.index == index => {}
                (Some(home), index) => {
                    self.load[home.worker] -= 1;
                    *self.table.get_mut(home.index.0 as usize) = None;
                    self.homes.remove(eni);
                    new.extend(index.map(|index| (eni, index)));
                }
                (None, index) => new.extend(index.map(|index| (eni, index))),
            }
        }
        for (eni, index) in new {
            let worker = (0..self.load.len()).min_by_key(|worker| self.load[*worker]).unwrap_or(0);
            self.load[worker] += 1;
            self.incarnations = self.incarnations.wrapping_add(1);
            self.homes.insert(eni.clone(), Home { worker, index, incarnation: self.incarnations });
            self.set_slot(eni, None);
        }
    }

    /// The worker that owns the ENI, and the ENI's number.
    pub fn home(&self, eni: &EniId) -> Option<(usize, EniIndex)> {
        self.homes.get(eni).map(|home| (home.worker, home.index))
    }

    /// Which of the ENIs that ever had its number the ENI is.
    pub fn incarnation(&self, eni: &EniId) -> Option<u32> {
        self.homes.get(eni).map(|home| home.incarnation)
    }

    /// How many ENIs the worker owns.
    pub fn load(&self, worker: usize) -> usize {
        self.load[worker]
    }

    /// A free place for a port.
    pub fn take_slot(&mut self, worker: usize) -> u32 {
        self.free_slots[worker].pop().unwrap_or_else(|| {
            self.slots[worker] += 1;
            self.slots[worker] - 1
        })
    }

    /// A place that no port is in any more.
    pub fn put_slot(&mut self, worker: usize, slot: u32) {
        self.free_slots[worker].push(slot);
    }

    /// Notes the place of an ENI's port, if it has one, for the table.
    pub fn set_slot(&mut self, eni: &EniId, slot: Option<u32>) {
        let Some(home) = self.homes.get(eni) else { return };
        let place = Place { worker: home.worker as u16, slot, incarnation: home.incarnation };
        *self.table.get_mut(home.index.0 as usize) = Some(place);
    }

    /// Where each ENI lives, by its number.
    pub fn table(&self) -> Chunks<Option<Place>> {
        self.table.clone()
    }
}
