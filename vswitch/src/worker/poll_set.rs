//! Which ports a worker asks for frames, and which it leaves alone until their descriptors become readable.
//!
//! Asking a few ports costs less than asking for descriptors, and a frame that comes meanwhile is taken sooner; asking many costs
//! more. A worker that is about to sleep leaves all alone.

use super::Worker;

/// Empty receives after which a port is left alone, however many there are.
const EMPTY_RECEIVES_MIN: usize = 4;
/// Empty receives of all ports together before they are left alone: about as many as a spin has time for.
const EMPTY_RECEIVES_ALL: usize = 256;

/// Packets in a burst whose receiver is likely to answer before it gets more: it is asked without waiting for its descriptor.
pub(super) const ANSWERED_AT_ONCE_MAX: usize = 8;

/// Empty receives after which one of so many ports is left alone.
pub(super) fn empty_receives_max(ports: usize) -> usize {
    (EMPTY_RECEIVES_ALL / ports.max(1)).max(EMPTY_RECEIVES_MIN)
}

impl Worker {
    /// The descriptor of the port in this slot became readable.
    pub fn mark_ready(&mut self, slot: usize) {
        if let Some(Some(entry)) = self.ports.get_mut(slot) {
            entry.empty_receives = 0;
            if !entry.is_ready {
                entry.is_ready = true;
                self.ready.push(slot as u32);
            }
        }
    }

    /// Leaves those ports alone that said last that they are drained: before a sleep. Whether there may be one: no port has
    /// got frames meanwhile of which its descriptor does not tell.
    pub fn disarm_idle(&mut self) -> bool {
        let ports = &mut self.ports;
        let mut may_sleep = true;
        self.ready.retain(|slot| {
            let Some(Some(entry)) = ports.get_mut(*slot as usize) else { return false };
            entry.is_ready = !entry.has_readiness || entry.empty_receives == 0;
            if let (false, Some(port)) = (entry.is_ready, &mut entry.port) {
                entry.is_ready = !port.await_readiness();
                may_sleep &= !entry.is_ready;
            }
            entry.is_ready
        });
        may_sleep
    }
}
