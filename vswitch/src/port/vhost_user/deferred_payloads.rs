//! Payloads of a burst that are still in the memory of the guest that sent it.
//!
//! A long frame is received without its payload, and its chain is given back once the burst has been sent: a port of another guest
//! copies the payload straight from the one memory to the other, once. Nobody judges a payload, so the guest gains nothing by
//! changing it meanwhile.

use super::chain::BufferPiece;
use super::guest_memory::{GuestMemory, GuestSlice};
use std::sync::Arc;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::{DeferredPayload, FrameBuffer};

/// Payloads of a burst that are still in the memory of the guest that sent it.
#[derive(Debug, Default)]
pub struct DeferredPayloads {
    /// The memory that they are in; none if there are no payloads.
    memory: Option<Arc<GuestMemory>>,
    /// The pieces of all payloads, and where those of each end.
    pieces: Vec<BufferPiece>,
    ends: Vec<usize>,
}

impl DeferredPayloads {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.memory = None;
        self.pieces.clear();
        self.ends.clear();
    }

    /// Says in which memory those are that have been [added](Self::add).
    pub(super) fn set_memory(&mut self, memory: &Arc<GuestMemory>) {
        self.memory = Some(Arc::clone(memory));
    }

    /// Whether there are fewer than a burst has packets.
    pub(super) fn has_room(&self) -> bool {
        self.ends.len() < BURST_PACKETS
    }

    /// Adds what is behind the first `skipped_bytes` of the pieces of a chain, all of them mapped.
    pub(super) fn add<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a BufferPiece>,
        mut skipped_bytes: usize,
    ) -> DeferredPayload {
        let (number, mut bytes) = (self.ends.len() as u8, 0);
        for &BufferPiece { address, bytes: piece_bytes } in pieces {
            let skipped = skipped_bytes.min(piece_bytes as usize);
            skipped_bytes -= skipped;
            let piece =
                BufferPiece { address: address.wrapping_add(skipped as u64), bytes: piece_bytes - skipped as u32 };
            if piece.bytes > 0 {
                bytes += piece.bytes as usize;
                self.pieces.push(piece);
            }
        }
        self.ends.push(self.pieces.len());
        DeferredPayload { number, bytes }
    }

    /// The pieces of a payload in the guest's memory.
    #[inline]
    pub(super) fn slices(&self, payload: DeferredPayload) -> impl Iterator<Item = GuestSlice<'_>> {
        let number = usize::from(payload.number);
        let start = number.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        let pieces = start.and_then(|start| self.pieces.get(start..*self.ends.get(number)?)).unwrap_or_default();
        let slice = |piece: &BufferPiece| self.memory.as_ref()?.slice(piece.address, piece.bytes as usize);
        pieces.iter().filter_map(slice)
    }

    /// Makes a frame whole, part of which is deferred.
    #[inline(never)]
    pub fn fetch(&self, buffer: &mut FrameBuffer) {
        let Some(payload) = buffer.deferred() else { return };
        let mut place = buffer.place_of_deferred();
        for slice in self.slices(payload) {
            let (piece, rest) = place.split_at_mut(slice.len().min(place.len()));
            slice.read(piece);
            place = rest;
        }
        debug_assert!(place.is_empty(), "the pieces are as long as the payload");
        // Nobody shall get what the buffer held before.
        place.fill(0);
    }
}
