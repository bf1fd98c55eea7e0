//! An array that generations share: cloning it costs next to nothing, a change costs copying two chunks.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// Elements per chunk, and chunks per group.
const CHUNK: usize = 64;

type ChunkGroup<T> = Arc<[Arc<[T; CHUNK]>]>;

/// A growing array whose values are defaults until set. Clones share all chunks; the first change to a shared chunk
/// copies it, and its group's table.
#[derive(Clone, Debug)]
pub struct CowArray<T> {
    groups: Vec<ChunkGroup<T>>,
}

impl<T> Default for CowArray<T> {
    fn default() -> Self {
        Self { groups: Vec::new() }
    }
}

impl<T> CowArray<T> {
    /// The value at `index`; `None` above every index that was ever changed.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        Some(&self.groups.get(index / CHUNK / CHUNK)?.get(index / CHUNK % CHUNK)?[index % CHUNK])
    }

    /// Every value by ascending index: those that were set, and defaults between them.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.groups.iter().flat_map(|group| group.iter().flat_map(|chunk| chunk.iter()))
    }
}

impl<T: Clone + Default> CowArray<T> {
    /// The value at `index`, for changes.
    pub fn get_mut(&mut self, index: usize) -> &mut T {
        let (group, chunk) = (index / CHUNK / CHUNK, index / CHUNK % CHUNK);
        while self.groups.len() <= group {
            self.groups.push(Arc::new([]));
        }
        let group = &mut self.groups[group];
        if group.len() <= chunk {
            let new = (group.len()..=chunk).map(|_| Arc::new(core::array::from_fn(|_| T::default())));
            // Older generations share the group, so it is rebuilt, not grown in place.
            *group = group.iter().cloned().chain(new).collect();
        }
        &mut Arc::make_mut(&mut Arc::make_mut(group)[chunk])[index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_no_clone_and_copies_one_chunk() {
        let mut new: CowArray<Option<u32>> = CowArray::default();
        for index in 0..CHUNK * 3 {
            *new.get_mut(index) = Some(index as u32);
        }
        let old = new.clone();
        *new.get_mut(CHUNK) = None;
        assert_eq!(old.get(CHUNK), Some(&Some(CHUNK as u32)));
        assert_eq!(new.get(CHUNK), Some(&None));
        let shared = old.groups[0].iter().zip(&*new.groups[0]).map(|(old, new)| Arc::ptr_eq(old, new));
        assert_eq!(shared.collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(new.get(CHUNK * 3), None);
        *new.get_mut(CHUNK * CHUNK) = Some(1);
        assert_eq!((new.get(CHUNK * CHUNK), old.get(CHUNK * CHUNK)), (Some(&Some(1)), None));
        *new.get_mut(CHUNK * CHUNK) = None;
        assert_eq!(new.iter().flatten().count(), CHUNK * 3 - 1);
    }
}
