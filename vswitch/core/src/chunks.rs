//! An array that generations share: a copy costs as much as its table of contents, a change one chunk.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// Elements of a chunk.
const CHUNK: usize = 64;

/// A growing array of values, each of which has a default until it is set. Clones share all chunks; the first change
/// of a shared chunk copies it.
#[derive(Clone, Debug)]
pub struct Chunks<T> {
    chunks: Vec<Arc<[T]>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    /// The value at `index`; none if no place as high was ever changed.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// Every value, by ascending index: those that were set, and defaults between and after them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

impl<T: Clone + Default> Chunks<T> {
    /// The value at `index`, to be changed.
    pub fn get_mut(&mut self, index: usize) -> &mut T {
        let number = index / CHUNK;
        while self.chunks.len() <= number {
            self.chunks.push((0..CHUNK).map(|_| T::default()).collect());
        }
        &mut Arc::make_mut(&mut self.chunks[number])[index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_no_clone_and_copies_one_chunk() {
        let mut new: Chunks<Option<u32>> = Chunks::default();
        for index in 0..CHUNK * 3 {
            *new.get_mut(index) = Some(index as u32);
        }
        let old = new.clone();
        *new.get_mut(CHUNK) = None;
        assert_eq!(old.get(CHUNK), Some(&Some(CHUNK as u32)));
        assert_eq!(new.get(CHUNK), Some(&None));
        let shared = old.chunks.iter().zip(&new.chunks).map(|(old, new)| Arc::ptr_eq(old, new));
        assert_eq!(shared.collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(new.get(CHUNK * 3), None);
        assert_eq!(new.iter().flatten().count(), CHUNK * 3 - 1);
    }
}
