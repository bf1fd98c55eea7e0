//! The bytes of a frame with its header, on their way into the buffers of a guest.

use crate::port::vhost_user::guest_memory::GuestSlice;

/// The bytes of a frame with its header, the last of which may be in the memory of the guest that sent it.
pub(super) struct FrameBytes<'a, P> {
    /// What is here.
    present: &'a [u8],
    /// What is in the sender's memory: the piece that has been begun, and the others.
    begun: Option<GuestSlice<'a>>,
    others: P,
}

impl<'a, P: Iterator<Item = GuestSlice<'a>>> FrameBytes<'a, P> {
    pub(super) const fn new(present: &'a [u8], deferred: P) -> Self {
        Self { present, begun: None, others: deferred }
    }

    /// Writes the next bytes, as many as there is room for; how many.
    #[inline]
    pub(super) fn write_to(&mut self, room: GuestSlice<'_>) -> usize {
        let (now, later) = self.present.split_at(self.present.len().min(room.len()));
        room.write(now);
        self.present = later;
        let mut rest = room.from(now.len());
        while rest.len() > 0 {
            let Some(piece) = self.begun.take().or_else(|| self.others.next()) else { break };
            rest.write_from(&piece);
            let written = piece.len().min(rest.len());
            self.begun = Some(piece.from(written)).filter(|left| left.len() > 0);
            rest = rest.from(written);
        }
        room.len() - rest.len()
    }
}
