//! The device of a stack: packets that have arrived, and packets that are to be sent.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::collections::VecDeque;

/// Packets that a stack may have sent before they are taken. A window's worth of every connection is less.
const OUTGOING_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct PacketQueues {
    pub(super) incoming: VecDeque<Vec<u8>>,
    pub(super) outgoing: VecDeque<Vec<u8>>,
    mtu_bytes: usize,
}

impl PacketQueues {
    pub(super) fn new(mtu_bytes: usize) -> Self {
        Self { incoming: VecDeque::new(), outgoing: VecDeque::new(), mtu_bytes }
    }
}

pub(super) struct ReceivedPacket(Vec<u8>);
pub(super) struct SentPacket<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for ReceivedPacket {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for SentPacket<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for PacketQueues {
    type RxToken<'a> = ReceivedPacket;
    type TxToken<'a> = SentPacket<'a>;

    fn receive(&mut self, _: Instant) -> Option<(ReceivedPacket, SentPacket<'_>)> {
        Some((ReceivedPacket(self.incoming.pop_front()?), SentPacket(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<SentPacket<'_>> {
        (self.outgoing.len() < OUTGOING_MAX).then_some(SentPacket(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu_bytes;
        capabilities
    }
}
