//! When a worker has drained a change: nothing that older rules admitted is inside it any more, neither in its rings,
//! which the turn has already emptied, nor in a port that has reported everything as sent.
//!
//! A port may share rings with the kernel, which takes frames from them when it likes. Whatever was in them at the time
//! of the request has to leave before the worker reports that it has drained. If the kernel takes too long, the frames
//! are dropped with the port, which goes to the control thread to be closed before it replies.

use super::Worker;
use std::io;
use vswitch_core::config::desired::Direction;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::verdict::DropReason;

/// How long a port may hold frames that older rules admitted before it is closed, ns.
const HELD_MAX_NS: u64 = 100_000_000;

impl Worker {
    /// Drains what is requested, once the worker has crossed to it. Called when the rings are empty of what was in them
    /// at the time of the request.
    pub(super) fn drain(&mut self, requested: u64, now: Time) -> usize {
        // Not crossed yet: packets may still be evaluated by the old rules.
        if requested == self.drained || requested > self.current.sequence {
            return 0;
        }
        debug_assert!(
            self.outgoing.is_empty() && self.ingress_packets.is_empty(),
            "what is lined up is sent before a turn ends"
        );
        // What the ports hold is measured once per request: what they are given later, new rules admitted.
        if self.draining.requested != requested {
            self.draining.requested = requested;
            self.draining.began = now;
            self.draining.ports.clear();
            for (slot, entry) in self.ports.iter().enumerate() {
                let Some(port) = entry.as_ref().and_then(|entry| entry.port.as_ref()) else { continue };
                let sent = port.sent();
                if sent.held() > 0 {
                    self.draining.ports.push((slot as u32, sent.given));
                }
            }
        }
        self.flush_held(now);
        if !self.draining.ports.is_empty() {
            return 0;
        }
        self.drained = requested;
        self.peers.publication.drained(self.peers.number, requested);
        1
    }

    /// Makes ports send what they hold. A port that takes too long is closed.
    fn flush_held(&mut self, now: Time) {
        let is_late = now.as_ns().saturating_sub(self.draining.began.as_ns()) >= HELD_MAX_NS;
        let mut at = 0;
        while let Some(&(slot, given)) = self.draining.ports.get(at) {
            let port = self.ports.get_mut(slot as usize).and_then(Option::as_mut).and_then(|entry| entry.port.as_mut());
            let failure = match port {
                None => None,
                // Tried in each turn: the kernel may have made room since.
                Some(port) => match port.flush() {
                    Ok(()) if port.sent().taken >= given => None,
                    Ok(()) if !is_late => {
                        at += 1;
                        continue;
                    }
                    Ok(()) => Some(io::Error::other(
                        "its kernel does not take frames that older rules admitted; they are dropped",
                    )),
                    Err(error) => Some(error),
                },
            };
            self.draining.ports.remove(at);
            if let Some(error) = failure {
                self.fail(slot, error);
            }
        }
    }

    /// Counts what a port that is about to be closed was given and never sent.
    pub(super) fn count_held(&mut self, slot: u32) {
        let Some(Some(entry)) = self.ports.get(slot as usize) else { return };
        let held = entry.port.as_ref().map_or(0, |port| port.sent().held());
        if held > 0 {
            let packets = u32::try_from(held).unwrap_or(u32::MAX);
            self.shard.count_drop(entry.eni, Direction::Ingress, DropReason::PortDown, packets);
        }
    }
}
