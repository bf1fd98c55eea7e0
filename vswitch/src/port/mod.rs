//! Where frames enter and leave. A port moves bytes in bursts and evaluates nothing.
//!
//! The worker that owns a port calls it; [`factory::PortFactory::open`] runs on the control thread, where it may take its time. A port that
//! fails says so with an `io::Error` and is not called again: the control thread closes it and opens another.

pub mod af_packet;
pub mod af_xdp;
mod batch_size;
pub mod buffer_pool;
pub mod factory;
pub mod faults;
pub mod isolation;
pub mod link_state;
pub mod memory;
pub mod peer_state;
mod reconnection;
pub mod socket_listener;
pub mod spec;
pub mod stream;
pub mod tap;
pub mod vhost_user;
pub mod virtio_header;

use buffer_pool::BufferPool;
use peer_state::PeerState;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use vhost_user::DeferredPayloads;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::Offloads;
use vswitch_core::packet::verdict::{DropReason, Verdict};

/// What a port has left after a burst was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing: the next frame makes the port's descriptor readable anew.
    Drained,
    /// There may be more: the burst or the pool came to its end first.
    MaybeMore,
}

/// How many packets a port said were out, since it was opened, and how many of these its kernel has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets with the verdict [`Verdict::Deliver`].
    pub given: u64,
    /// Those of them that can be kept from the guest no more: they are in the kernel's hands.
    pub taken: u64,
}

impl Sent {
    /// Packets that are still inside the port.
    pub const fn held(self) -> u64 {
        self.given - self.taken
    }
}

/// A source and sink of frames, owned by one worker.
pub trait Port: Send + fmt::Debug {
    /// Receives up to `packets_max` packets into buffers of the pool and appends them to the burst, in order.
    ///
    /// # Errors
    /// The port has failed for good. Packets received before the failure are in the burst.
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received>;

    /// [`Port::receive`], but the ends of long frames may be [deferred](vswitch_core::packet::FrameBuffer::defer): they stay where
    /// the guest has them until [`Port::release`], which has to come next.
    ///
    /// # Errors
    /// As [`Port::receive`].
    fn receive_deferred(
        &mut self,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
        packets_max: usize,
        payloads: &mut DeferredPayloads,
    ) -> io::Result<Received> {
        debug_assert!(payloads.is_empty(), "the last burst is over");
        self.receive(pool, burst, packets_max)
    }

    /// Nobody needs the deferred payloads of the last burst any more.
    fn release(&mut self) {}

    /// Sends a burst in order. What is left undone in its packets is among [`Port::offloads`]. Sets the verdict of
    /// every packet, also where it fails: [`Verdict::Deliver`] if it is out, or will be as [`Port::sent`] tells, else
    /// why it is dropped: the port is full ([`DropReason::PortFull`]) or down, or will never take such a packet
    /// ([`DropReason::PortRefused`]). Frames stay as they are; what is in front of them may change.
    ///
    /// # Errors
    /// The port has failed for good.
    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()>;

    /// [`Port::send`] for frames whose ends may be deferred.
    ///
    /// # Errors
    /// As [`Port::send`].
    fn send_deferred(&mut self, burst: &mut [Packet], payloads: &DeferredPayloads) -> io::Result<()> {
        if !payloads.is_empty() {
            burst.iter_mut().for_each(|packet| payloads.fetch(&mut packet.buffer));
        }
        self.send(burst)
    }

    /// How much of what it sent is really out. A port whose [`Port::send`] returns with nothing inside need not count.
    fn sent(&self) -> Sent {
        Sent::default()
    }

    /// Tries once more to get out what is still inside.
    ///
    /// # Errors
    /// The port has failed for good.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What packets for this port may leave undone. Changes only while it receives.
    fn offloads(&self) -> Offloads {
        Offloads::NONE
    }

    /// It will not be opened again: a device that was made for it goes with it.
    fn retire(&mut self) {}

    /// Its worker is about to leave it alone until its descriptor becomes readable. Whether it may: frames may have come
    /// meanwhile of which the descriptor does not tell.
    fn await_readiness(&mut self) -> bool {
        true
    }

    /// Whether a receive that finds nothing makes no system call, so that asking often costs less than being told.
    fn is_polled_without_call(&self) -> bool {
        false
    }

    /// What it knows of the program at its other end, where there is one that may come and go while the port is open.
    fn peer(&self) -> Option<PeerState> {
        None
    }

    /// What becomes readable when the port has frames; a port without is asked at every turn.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Tells of packets that none of them is out.
fn drop_all(burst: &mut [Packet], reason: DropReason) {
    burst.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(reason));
}
