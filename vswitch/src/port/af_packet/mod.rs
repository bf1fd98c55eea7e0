//! An existing network interface of the machine: a network card as an uplink, or one end of a veth pair. The switch
//! receives and sends through it, and changes nothing on it but promiscuous mode and the filters that keep the kernel's
//! own stack away (`os/isolation.rs`). When the interface goes down, so does the port, until the interface is up again.

pub mod socket;

use crate::os::namespace;
use crate::port::af_packet::socket::{PacketSocket, ReceivedFrame};
use crate::port::batch_size::BatchSize;
use crate::port::buffer_pool::BufferPool;
use crate::port::virtio_header::{self, HEADER_BYTES};
use crate::port::{Port, Received};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use vswitch_core::config::desired;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::offload::{Offload, Offloads, Segmentation};
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// Where a VLAN tag is in a frame: after both hardware addresses.
const VLAN_TAG_OFFSET: usize = 12;
/// The offload request of a frame that cannot be accepted as it was sent. The core drops and counts it.
const UNTAKEABLE: Offload = Offload { segmentation: Segmentation::Unknown, ..Offload::NONE };

/// An interface in use.
#[derive(Debug)]
pub struct AfPacketPort {
    socket: PacketSocket,
    offloads: Offloads,
    batch_size: BatchSize,
    /// Both only keep their memory between bursts.
    buffers: Vec<FrameBuffer>,
    frames: Vec<ReceivedFrame>,
    /// For error messages.
    description: String,
}

impl AfPacketPort {
    /// Opens the interface in its namespace.
    ///
    /// # Errors
    /// What failed, with interface and namespace.
    pub fn open(port: &desired::PacketPort) -> io::Result<Self> {
        let description = describe(port);
        let work = || PacketSocket::open(&port.device);
        let opened = namespace::within_any(port.namespace.as_deref(), work);
        let socket = opened.map_err(|error| explain(&description, error))?;
        let (buffers, frames) = (Vec::with_capacity(BURST_PACKETS), Vec::with_capacity(BURST_PACKETS));
        Ok(Self { socket, offloads: offloads(), batch_size: BatchSize::new(), buffers, frames, description })
    }
}

/// What the kernel completes for the interface if necessary. Segmentation of UDP works through such sockets since Linux
/// 6.2.
fn offloads() -> Offloads {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let cuts_udp = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 2);
    let others = Offloads::CHECKSUM.with(Offloads::TCP_V4).with(Offloads::TCP_V6);
    if cuts_udp { Offloads::ALL } else { others }
}

pub(super) fn describe(port: &desired::PacketPort) -> String {
    match &port.namespace {
        Some(name) => format!("network interface {} in network namespace {name}", port.device),
        None => format!("network interface {}", port.device),
    }
}

pub(super) fn explain(description: &str, error: io::Error) -> io::Error {
    let text = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NODEV) => "there is no such interface".to_owned(),
        Some(Errno::NETDOWN | Errno::NXIO) => "the interface is down, or was removed".to_owned(),
        Some(Errno::PERM | Errno::ACCESS) => {
            format!("{error}; this needs the capabilities CAP_NET_RAW and CAP_NET_ADMIN")
        }
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{description}: {text}"))
}

/// Trims the buffer to the received frame and returns the offload request in its header.
fn claim(buffer: &mut FrameBuffer, frame: ReceivedFrame) -> Offload {
    buffer.set_length(frame.bytes.saturating_sub(HEADER_BYTES));
    let claimed = buffer.room_with_header(HEADER_BYTES).first_chunk().map_or(UNTAKEABLE, virtio_header::decode);
    if let Some(tag) = frame.vlan_tag {
        // The tag is put back: a frame of another network must not look like one of this network.
        let length = buffer.frame().len();
        buffer.set_length(length + tag.len());
        if let Some(rest) = buffer.frame_mut().get_mut(VLAN_TAG_OFFSET..) {
            rest.rotate_right(tag.len().min(rest.len()));
            rest.iter_mut().zip(tag).for_each(|(byte, of_tag)| *byte = of_tag);
        }
    }
    if frame.is_cut { UNTAKEABLE } else { claimed }
}

impl Port for AfPacketPort {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        let (socket, buffers, frames) = (&self.socket, &mut self.buffers, &mut self.frames);
        let ended = self.batch_size.receive(burst, packets_max, |burst, wanted| {
            buffers.extend((0..wanted).map_while(|_| pool.take_large()));
            let rooms = buffers.iter_mut().map(|buffer| buffer.room_with_header(HEADER_BYTES));
            let mut failure = socket.receive(rooms, frames).err();
            // A frame that no virtio header can describe is lost, but has to be counted.
            if failure == Some(Errno::INVAL)
                && let Some(mut buffer) = buffers.pop()
            {
                failure = None;
                buffer.set_length(0);
                burst.push(Packet::claiming(pool.exchange(buffer), UNTAKEABLE));
            }
            let is_drained = failure.is_none() && frames.len() < buffers.len();
            let mut received = frames.drain(..);
            for mut buffer in buffers.drain(..) {
                match received.next() {
                    Some(frame) => {
                        let offload = claim(&mut buffer, frame);
                        burst.push(Packet::claiming(pool.exchange(buffer), offload));
                    }
                    None => pool.put(buffer),
                }
            }
            failure.or(is_drained.then_some(Errno::AGAIN))
        });
        match ended {
            None | Some(Errno::INTR) => Ok(Received::MaybeMore),
            Some(Errno::AGAIN) => Ok(Received::Drained),
            Some(error) => Err(explain(&self.description, error.into())),
        }
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        let (mut done, mut failure) = (0, None);
        while done < burst.len() {
            let pieces = burst[done..].iter_mut().map(|packet| {
                let header = virtio_header::encode(&packet.offload);
                packet.buffer.frame_with_header(&header)
            });
            let (count, verdict) = match self.socket.send(pieces) {
                Ok(sent) if sent > 0 => (sent, Verdict::Deliver),
                // No room is for now, so only this frame is lost, not the port.
                Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => {
                    (1, Verdict::Drop(DropReason::PortFull))
                }
                Err(Errno::NETDOWN) => (1, Verdict::Drop(DropReason::PortDown)),
                // The kernel examines frames. What it refuses is the sender's fault, not the port's.
                Err(Errno::INVAL | Errno::MSGSIZE) => (1, Verdict::Drop(DropReason::PortRefused)),
                Err(error) => {
                    // All later frames have the same fate: the port has failed.
                    failure = Some(error);
                    (burst.len() - done, Verdict::Drop(DropReason::PortDown))
                }
            };
            burst[done..done + count].iter_mut().for_each(|packet| packet.verdict = verdict);
            done += count;
        }
        failure.map_or(Ok(()), |error| Err(explain(&self.description, error.into())))
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}
