//! A store that lives as long as its process: for tests, and for a lab that should leave nothing behind.

use super::{Store, StoreError};
use crate::model::Event;
use std::collections::BTreeMap;

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<String, Vec<u8>>,
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<Event>, StoreError> {
        let read = self.records.iter().map(|(key, value)| Event::from_record(key, value));
        read.collect::<Result<_, _>>().map_err(|error| StoreError::record("memory", &error))
    }

    fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        for event in events {
            match event.value() {
                Some(value) => drop(self.records.insert(event.key(), value)),
                None => drop(self.records.remove(&event.key())),
            }
        }
        Ok(())
    }
}
