//! A raw socket on one network interface (`AF_PACKET`), which moves many frames per system call. A virtio header of
//! [`HEADER_BYTES`] precedes each frame, as with TAP devices.

use crate::port::virtio_header::HEADER_BYTES;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::io;
use std::mem::zeroed;
use std::ptr::null_mut;
use vswitch_core::config::limits::BURST_PACKETS;

/// The size of the kernel's queue in each direction, bytes. By default it holds three frames of 64 KiB.
const QUEUE_BYTES: libc::c_int = 8 << 20;

/// An open socket.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// A received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedFrame {
    /// The number of bytes in its buffer, including the header.
    pub bytes: usize,
    /// Whether it was longer than its buffer.
    pub is_cut: bool,
    /// The IEEE 802.1Q tag that the kernel removed from it.
    pub vlan_tag: Option<[u8; 4]>,
}

/// A control message with what the kernel reports beside a frame (`PACKET_AUXDATA`).
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    header: libc::cmsghdr,
    data: libc::tpacket_auxdata,
}

impl PacketSocket {
    /// Opens a socket for all frames that the interface of this name receives, whatever their destination.
    ///
    /// # Errors
    /// The kernel's error, such as `NETDOWN` for an interface that is down; `InvalidInput` if it is not Ethernet.
    pub fn open(device: &str) -> io::Result<Self> {
        let (socket, index) = Self::open_unbound(device)?;
        for option in [
            libc::PACKET_VNET_HDR,
            libc::PACKET_AUXDATA,
            // The switch must not receive the frames that it sends.
            libc::PACKET_IGNORE_OUTGOING,
            libc::PACKET_QDISC_BYPASS,
        ] {
            socket.set(libc::SOL_PACKET, option, &1_i32)?;
        }
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE_BYTES)?;
        socket.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &QUEUE_BYTES)?;
        socket.bind(index)?;
        if socket.address()?.sll_hatype != libc::ARPHRD_ETHER {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not an Ethernet interface"));
        }
        // Binding to an interface that is down succeeds, but leaves this error on the socket.
        rustix::net::sockopt::socket_error(&socket.0)??;
        Ok(socket)
    }

    /// Opens a socket that receives nothing, since it has no protocol and is not bound. While it is open, the interface
    /// is in promiscuous mode.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open_unbound(device: &str) -> io::Result<(Self, i32)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = Self(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?);
        let index = netdevice::name_to_index(&socket.0, device)? as i32;
        let (mr_type, mr_alen, mr_address) = (libc::PACKET_MR_PROMISC as u16, 0, [0; 8]);
        let everyone = libc::packet_mreq { mr_ifindex: index, mr_type, mr_alen, mr_address };
        socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &everyone)?;
        Ok((socket, index))
    }

    /// Receives a frame into each of the buffers, in order, while there are frames; at most [`BURST_PACKETS`]. Appends
    /// an arrival for each buffer used.
    ///
    /// # Errors
    /// Why not even one was received: `AGAIN` if there is none; `NETDOWN`, once, if the interface went down or
    /// disappeared (the kernel does not tell which, nor does it report the second after the first); `INVAL` for a frame
    /// that no virtio header can describe, which is lost.
    pub fn receive<'a>(
        &self,
        rooms: impl Iterator<Item = &'a mut [u8]>,
        frames: &mut Vec<ReceivedFrame>,
    ) -> rustix::io::Result<()> {
        let mut spans = [libc::iovec { iov_base: null_mut(), iov_len: 0 }; BURST_PACKETS];
        let count = spans.iter_mut().zip(rooms).map(|(span, room)| *span = span_of(room)).count();
        // SAFETY: both types are plain numbers and pointers, for which zero is a value.
        let (mut messages, mut all_aux_data): ([libc::mmsghdr; BURST_PACKETS], [AuxData; BURST_PACKETS]) =
            unsafe { zeroed() };
        for ((message, span), aux_data) in messages.iter_mut().zip(&mut spans).zip(&mut all_aux_data).take(count) {
            message.msg_hdr.msg_iov = span;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = (&raw mut *aux_data).cast();
            message.msg_hdr.msg_controllen = size_of::<AuxData>() as _;
        }
        // SAFETY: the first `count` messages are filled in; each points to a span and auxiliary data of its own, which live
        // until the end of this function and are not touched meanwhile, and each span to a room that is exclusively
        // borrowed for `'a`, which outlives this call. The kernel writes within the lengths given, and returns at once.
        let received = unsafe {
            let flags = libc::MSG_DONTWAIT as _;
            libc::recvmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), count as u32, flags, null_mut())
        };
        let received = usize::try_from(received).map_err(|_| last_error())?;
        frames.extend(messages.iter().zip(&all_aux_data).take(received).map(|(message, aux_data)| ReceivedFrame {
            bytes: message.msg_len as usize,
            is_cut: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            vlan_tag: aux_data.vlan_tag(message.msg_hdr.msg_controllen),
        }));
        Ok(())
    }

    /// Sends the pieces, each a virtio header and a frame, in order; at most [`BURST_PACKETS`]. Returns how many were
    /// sent.
    ///
    /// # Errors
    /// Why the first was not sent.
    pub fn send<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> rustix::io::Result<usize> {
        let mut spans = [libc::iovec { iov_base: null_mut(), iov_len: 0 }; BURST_PACKETS];
        let filled = spans.iter_mut().zip(pieces).map(|(span, piece)| {
            *span = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        });
        let count = filled.count();
        // SAFETY: the type is plain numbers and pointers, for which zero is a value.
        let mut messages: [libc::mmsghdr; BURST_PACKETS] = unsafe { zeroed() };
        for (message, span) in messages.iter_mut().zip(&mut spans).take(count) {
            message.msg_hdr.msg_iov = span;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `count` messages are filled in; each points to a span of its own, which lives until the end
        // of this function, and each span to a piece that is borrowed for `'a`, which outlives this call, and that the
        // kernel only reads.
        let sent = unsafe {
            let flags = libc::MSG_DONTWAIT as _;
            libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), count as u32, flags)
        };
        usize::try_from(sent).map_err(|_| last_error())
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes from `value`, which is borrowed and that long; the socket is open.
        let result = unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const *value).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn bind(&self, index: i32) -> io::Result<()> {
        // SAFETY: the type is plain numbers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes from `address`, which is that long; the socket is open.
        let result = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn address(&self) -> io::Result<libc::sockaddr_ll> {
        // SAFETY: the type is plain numbers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        let mut length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `address`, which is that long; the socket is open.
        let result = unsafe { libc::getsockname(self.0.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
        if result == 0 { Ok(address) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AuxData {
    /// The tag, if the kernel filled `control_bytes` of this with one.
    fn vlan_tag(&self, control_bytes: usize) -> Option<[u8; 4]> {
        let is_told = control_bytes >= size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>()
            && (self.header.cmsg_level, self.header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA);
        let status = self.data.tp_status;
        if !is_told || status & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let is_kind_told = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        let kind = if is_kind_told { self.data.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
        let ([a, b], [c, d]) = (kind.to_be_bytes(), self.data.tp_vlan_tci.to_be_bytes());
        Some([a, b, c, d])
    }
}

fn span_of(room: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

const _: () = assert!(HEADER_BYTES == 10, "the kernel's header has this length unless told otherwise");
