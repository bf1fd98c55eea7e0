//! A raw socket on an interface of a guest: whole frames, as an attacker would write them, and everything that arrives.

use std::io;
use vswitch::port::af_packet::socket::PacketSocket;
use vswitch_core::config::limits::BURST_PACKETS;

/// The kernel's virtio header, in front of each frame.
const HEADER_BYTES: usize = 10;
const FRAME_BYTES_MAX: usize = 65_536;

/// A raw socket.
#[derive(Debug)]
pub struct RawSocket(PacketSocket);

impl RawSocket {
    /// Opens it on a device of the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open(device: &str) -> io::Result<Self> {
        PacketSocket::open(device).map(Self)
    }

    /// Sends frames in order, as many as the device has room for; how many that were.
    pub fn send(&self, frames: &[Vec<u8>]) -> usize {
        let pieces: Vec<Vec<u8>> = frames.iter().map(|frame| [&[0; HEADER_BYTES], frame.as_slice()].concat()).collect();
        let bursts = pieces.chunks(BURST_PACKETS);
        bursts.map(|burst| self.0.send(burst.iter().map(Vec::as_slice)).unwrap_or(0)).sum()
    }

    /// The frames that have arrived since the last call, whoever they are for. What the device itself sends is not among
    /// them.
    pub fn receive(&self) -> Vec<Vec<u8>> {
        let mut rooms = vec![vec![0; HEADER_BYTES + FRAME_BYTES_MAX]; BURST_PACKETS];
        let mut frames = Vec::new();
        loop {
            let mut received = Vec::new();
            if self.0.receive(rooms.iter_mut().map(Vec::as_mut_slice), &mut received).is_err() || received.is_empty() {
                return frames;
            }
            let filled = rooms.iter().zip(&received);
            frames.extend(filled.filter_map(|(room, it)| room.get(HEADER_BYTES..it.bytes).map(<[u8]>::to_vec)));
        }
    }
}

/// Whether bytes are somewhere in a frame.
pub fn contains(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|some| some == bytes)
}
