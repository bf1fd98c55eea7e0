//! Which ports a worker polls for frames, and which it leaves alone until their descriptors become readable.
//!
//! Polling a few ports costs less than waiting for descriptors, and takes new frames sooner; polling many costs more. A
//! worker that is about to sleep polls none.

use super::Worker;

/// The fewest empty receives after which a port is left alone.
const EMPTY_RECEIVES_MIN: usize = 4;
/// Empty receives of all ports together before they are left alone: about as many as fit into a spin.
const EMPTY_RECEIVES_ALL: usize = 256;

/// Up to so many ports are polled for as long as the worker is awake, if that takes no system call: to be told instead, a guest
/// has to make one for each burst.
pub(super) const PORTS_ALWAYS_POLLED_MAX: usize = 16;

/// A receiver of at most this many packets in a burst probably answers before it gets more, so it is polled without
/// waiting for its descriptor.
pub(super) const ANSWERED_AT_ONCE_MAX: usize = 8;

/// The number of empty receives after which one of `ports` ports is left alone.
pub(super) fn empty_receives_max(ports: usize) -> usize {
    (EMPTY_RECEIVES_ALL / ports.max(1)).max(EMPTY_RECEIVES_MIN)
}

impl Worker {
    /// Notes that the descriptor of the port in this slot became readable.
    pub fn mark_ready(&mut self, slot: usize) {
        if let Some(Some(entry)) = self.ports.get_mut(slot) {
            // The descriptor announced something, so the count of empty receives starts anew.
            entry.empty_receives = 0;
            if !entry.is_ready {
                entry.is_ready = true;
                self.ready.push(slot as u32);
            }
        }
    }

    /// Stops polling the ports that were empty, before a sleep. Returns whether the worker may sleep: no port has
    /// received frames in the meantime that its descriptor will not announce.
    pub fn disarm_idle(&mut self) -> bool {
        let ports = &mut self.ports;
        let mut may_sleep = true;
        self.ready.retain(|slot| {
            let Some(Some(entry)) = ports.get_mut(*slot as usize) else { return false };
            entry.is_ready = !entry.has_readiness || entry.empty_receives == 0;
            if let (false, Some(port)) = (entry.is_ready, &mut entry.port) {
                // Frames that arrived before the promise are not announced; the worker then stays awake.
                entry.is_ready = !port.await_readiness();
                may_sleep &= !entry.is_ready;
            }
            entry.is_ready
        });
        may_sleep
    }
}
