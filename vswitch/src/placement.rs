//! Which worker owns which ENI. Stable: an ENI stays with its worker for as long as it exists.

use crate::publish::Place;
use std::collections::BTreeMap;
use vswitch_core::ids::{EniId, EniIndex};
use vswitch_core::snapshot::Snapshot;

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
        }
    }

    /// Takes in the ENIs of a snapshot: new ones go to the worker with the fewest, gone ones make room.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let load = &mut self.load;
        self.homes.retain(|eni, home| {
            let stays = snapshot.eni_index(eni) == Some(home.index);
            load[home.worker] -= usize::from(!stays);
            stays
        });
        for (index, eni) in snapshot.enis() {
            if self.homes.contains_key(eni) {
                continue;
            }
            let worker = (0..load.len()).min_by_key(|worker| load[*worker]).unwrap_or(0);
            load[worker] += 1;
            self.incarnations = self.incarnations.wrapping_add(1);
            self.homes.insert(eni.clone(), Home { worker, index, incarnation: self.incarnations });
        }
    }

    /// The worker that owns the ENI, and the ENI's number.
    pub fn home(&self, eni: &EniId) -> Option<(usize, EniIndex)> {
        self.homes.get(eni).map(|home| (home.worker, home.index))
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

    /// The table of places by ENI number, with the ports' slots as `slot` tells them.
    pub fn table(&self, slot: impl Fn(&EniId) -> Option<u32>) -> Vec<Option<Place>> {
        let length = self.homes.values().map(|home| home.index.0 as usize + 1).max().unwrap_or(0);
        let mut places = vec![None; length];
        for (eni, home) in &self.homes {
            let place = Place { worker: home.worker as u16, slot: slot(eni), incarnation: home.incarnation };
            places[home.index.0 as usize] = Some(place);
        }
        places
    }
}
