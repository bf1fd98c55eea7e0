//! One connection of a hypervisor, or of another program that is the front end of a device.
//!
//! Messages are taken by the worker that has the port, so nothing here may wait: a message is read once all of it has come, and a
//! reply is written while there is room for it.

use super::device::VirtioDevice;
use super::port_queues::SharedQueues;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendFlags, recv, recvmsg, send};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use vhost::vhost_user::{BackendReqHandler, Error, VhostUserBackendReqHandlerMut};

/// Bytes of the header of a message, and the longest body.
const MESSAGE_HEADER_BYTES: usize = 12;
const MESSAGE_BODY_BYTES_MAX: usize = 4096;
/// Messages that are handled before the worker goes on with packets.
const MESSAGES_MAX: usize = 32;
/// Descriptors that a message which is not used may carry.
const DESCRIPTORS_MAX: usize = 8;

/// In the header: version 1, a reply, and the wish for one.
const FLAGS_REPLY: u32 = 1 | 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;

/// Requests that the library does not know, by their numbers.
const SET_LOG_FD: u32 = 7;
/// One that it refuses where the features that were set lack the bit for protocol features: QEMU before 8.0 negotiates those
/// all the same, and sets what the guest's driver acknowledged.
const SET_VRING_ENABLE: u32 = 18;
const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;
const SET_STATUS: u32 = 39;
const GET_STATUS: u32 = 40;

/// A message that has come as a whole, by the beginning of its header.
#[derive(Clone, Copy, Debug)]
struct MessageHeader {
    request: u32,
    flags: u32,
    body_bytes: usize,
}

/// A front end that is connected.
pub(super) struct FrontEnd {
    number: u64,
    stream: UnixStream,
    handler: BackendReqHandler<Mutex<VirtioDevice>>,
    device: Arc<Mutex<VirtioDevice>>,
    registry: Registry,
    /// The status that the driver set last (VIRTIO 1.2 §2.1).
    status: u64,
}

impl std::fmt::Debug for FrontEnd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FrontEnd").field("number", &self.number).finish_non_exhaustive()
    }
}

impl FrontEnd {
    /// Takes up a connection.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn new(
        number: u64,
        stream: UnixStream,
        queues: SharedQueues,
        registry: Registry,
        token: Token,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let device = Arc::new(Mutex::new(VirtioDevice::new(number, queues)));
        let handler = BackendReqHandler::from_stream(stream.try_clone()?, Arc::clone(&device));
        registry.register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { number, stream, handler, device, registry, status: 0 })
    }

    /// Its number, of which no other front end of the port has the same.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Handles what has come; whether there may be more.
    ///
    /// # Errors
    /// It is gone, or broke the protocol. It is to be dropped.
    pub(super) fn attend(&mut self) -> io::Result<bool> {
        for _ in 0..MESSAGES_MAX {
            let Some(header) = self.next_message()? else { return Ok(false) };
            self.check_room_for_reply()?;
            match header.request {
                SET_LOG_FD | SET_VRING_ENABLE | SEND_RARP | NET_SET_MTU | SET_STATUS | GET_STATUS => {
                    self.handle_alone(header)?
                }
                _ => match self.handler.handle_request() {
                    Ok(()) => {}
                    Err(error) => return Err(io_error(error)),
                },
            }
        }
        Ok(true)
    }

    /// The header of the next message, once all of it has come.
    fn next_message(&self) -> io::Result<Option<MessageHeader>> {
        let mut header = [0; MESSAGE_HEADER_BYTES];
        match recv(&self.stream, &mut header, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Ok((_, MESSAGE_HEADER_BYTES)) => {}
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let message = MessageHeader { request: word(0), flags: word(4), body_bytes: word(8) as usize };
        if message.body_bytes > MESSAGE_BODY_BYTES_MAX {
            return Err(io::Error::other(format!("a message of {} bytes", message.body_bytes)));
        }
        let has_come = rustix::io::ioctl_fionread(&self.stream)?;
        Ok(Some(message).filter(|message| has_come >= (MESSAGE_HEADER_BYTES + message.body_bytes) as u64))
    }

    fn check_room_for_reply(&self) -> io::Result<()> {
        let mut ready = [PollFd::new(&self.stream, PollFlags::OUT)];
        match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(1) if ready[0].revents().contains(PollFlags::OUT) => Ok(()),
            _ => Err(io::Error::other("it does not read what it is replied")),
        }
    }

    /// Handles a message that the library does not know.
    fn handle_alone(&mut self, header: MessageHeader) -> io::Result<()> {
        let mut message = vec![0; MESSAGE_HEADER_BYTES + header.body_bytes];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        // Descriptors that came along are closed with this.
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut message)], &mut control, flags)?;
        if received.bytes < message.len() {
            let rest = &mut message[received.bytes..];
            if recv(&self.stream, &mut *rest, RecvFlags::DONTWAIT)?.1 < rest.len() {
                return Err(io::Error::other("a message came in more than two parts"));
            }
        }
        let value = message[MESSAGE_HEADER_BYTES..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let needs_reply =
            header.flags & FLAG_NEED_REPLY != 0 && self.device.lock().is_ok_and(|device| device.has_reply_ack());
        let mut done = Ok(());
        match header.request {
            GET_STATUS => self.reply(header.request, self.status)?,
            SET_VRING_ENABLE => {
                let words = message[MESSAGE_HEADER_BYTES..].chunks_exact(size_of::<u32>());
                let mut words = words.map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
                let (index, is_enabled) = (words.next().unwrap_or(u32::MAX), words.next() == Some(1));
                if let Ok(mut device) = self.device.lock() {
                    done = device.set_vring_enable(index, is_enabled);
                }
            }
            SET_STATUS => {
                self.status = value;
                if value == 0
                    && let Ok(mut device) = self.device.lock()
                {
                    device.reset();
                }
            }
            // The driver need not be told of a full log, every frame goes where addresses say and not where announcements come
            // from, and the MTU is the ENI's.
            _ => {}
        }
        if needs_reply && header.request != GET_STATUS {
            self.reply(header.request, u64::from(done.is_err()))?;
        }
        done.map_err(io_error)
    }

    fn reply(&self, request: u32, value: u64) -> io::Result<()> {
        let mut message = Vec::with_capacity(MESSAGE_HEADER_BYTES + size_of::<u64>());
        for word in [request, FLAGS_REPLY, size_of::<u64>() as u32] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend_from_slice(&value.to_ne_bytes());
        match send(self.stream.as_fd(), &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? {
            sent if sent == message.len() => Ok(()),
            _ => Err(io::Error::other("it does not read what it is replied")),
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::ReqHandlerError(error) => error,
        error => io::Error::other(error.to_string()),
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        let _ = self.registry.deregister(&mut SourceFd(&self.stream.as_raw_fd()));
    }
}
