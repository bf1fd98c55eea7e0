//! The system calls for which no safe wrapper exists. All of this package's `unsafe` is here.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{self, Getter, IntegerSetter, Setter};
use std::io;

/// `TUNSETIFF` of `linux/if_tun.h`: `_IOW('T', 202, int)`. The size in the number is that of an `int`, though the
/// kernel reads a whole `struct ifreq`.
const TUNSETIFF: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 202);
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_MULTI_QUEUE: i16 = 0x0100;
const IFF_VNET_HDR: i16 = 0x4000;
/// `TUNSETPERSIST` of `linux/if_tun.h`: `_IOW('T', 203, int)`. The argument is the number itself.
const TUNSETPERSIST: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 203);
/// `TUNSETOFFLOAD` of `linux/if_tun.h`: `_IOW('T', 208, unsigned int)`. The argument is the number itself.
const TUNSETOFFLOAD: ioctl::Opcode = ioctl::opcode::write::<u32>(b'T', 208);
/// `TUNGETIFF` of `linux/if_tun.h`: `_IOR('T', 210, unsigned int)`. The kernel writes a whole `struct ifreq`.
const TUNGETIFF: ioctl::Opcode = ioctl::opcode::read::<u32>(b'T', 210);
/// `TUNSETVNETHDRSZ` of `linux/if_tun.h`: `_IOW('T', 216, int)`.
const TUNSETVNETHDRSZ: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 216);
/// `TUNSETSTEERINGEBPF` of `linux/if_tun.h`: `_IOR('T', 224, int)`. The kernel reads the `int`, whatever the name says.
const TUNSETSTEERINGEBPF: ioctl::Opcode = ioctl::opcode::read::<i32>(b'T', 224);
/// The numbers of `/dev/net/tun`: `MISC_MAJOR` and `TUN_MINOR`.
const TUN_DEVICE: (u32, u32) = (10, 200);
/// `SO_NETNS_COOKIE` of `asm-generic/socket.h`.
const SO_NETNS_COOKIE: i32 = 71;
/// Bytes of a device name, the closing zero included (`IFNAMSIZ`).
const DEVICE_NAME_BYTES: usize = 16;
/// The size of what follows the name in `struct ifreq`: a union of 24 bytes on every 64-bit Linux.
const REQUEST_UNION_BYTES: usize = 24;

/// `struct ifreq`, with the flags as the part of its union that is used.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; DEVICE_NAME_BYTES],
    flags: i16,
    padding: [u8; REQUEST_UNION_BYTES - size_of::<i16>()],
}

const _: () = assert!(size_of::<InterfaceRequest>() == DEVICE_NAME_BYTES + REQUEST_UNION_BYTES);

/// What the guest of a TAP device may offload: flags of `linux/if_tun.h`.
pub mod tap_offloads {
    /// `TUN_F_CSUM`: checksums.
    pub const CHECKSUM: u32 = 1;
    /// `TUN_F_TSO4`, `TUN_F_TSO6` and `TUN_F_TSO_ECN`: segmentation of TCP.
    pub const TCP: u32 = 2 | 4 | 8;
    /// `TUN_F_USO4` and `TUN_F_USO6`, since Linux 6.2 and only together: segmentation of UDP.
    pub const UDP: u32 = 0x20 | 0x40;
}

/// The descriptor of a poll, which becomes readable when anything that is registered there does.
pub fn poll_descriptor(poll: &mio::Poll) -> rustix::fd::BorrowedFd<'_> {
    // SAFETY: the poll owns its descriptor, and outlives what is borrowed from it here.
    unsafe { rustix::fd::BorrowedFd::borrow_raw(rustix::fd::AsRawFd::as_raw_fd(poll)) }
}

/// The cookie of the calling thread's network namespace, which is unique until the machine reboots (Linux 5.14).
pub fn network_namespace_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    let (mut cookie, mut bytes) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `bytes` bytes to `cookie`, which has as many, and how many to `bytes`; both outlive the
    // call.
    let result = unsafe {
        libc::getsockopt(
            rustix::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut bytes,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Asks the kernel to use huge pages for an array of `bytes` at `address` before it is written, which saves one level
/// of page table walks per look-up. It is a hint: without huge pages, the array has ordinary ones.
pub fn advise_huge_pages(address: usize, bytes: usize) {
    const HUGE_PAGE_BYTES: usize = 2 << 20;
    let (start, end) =
        (address.next_multiple_of(HUGE_PAGE_BYTES), (address + bytes) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
    if start >= end {
        return;
    }
    // SAFETY: `MADV_HUGEPAGE` changes neither what memory holds nor who may use it, only how the kernel maps it, whatever
    // range it is given; rustix has no safe form because other advice does.
    let _refused_is_fine = unsafe {
        rustix::mm::madvise(std::ptr::without_provenance_mut(start), end - start, rustix::mm::Advice::LinuxHugepage)
    };
}

/// The mode of a TAP device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapMode {
    /// Whether a virtio header precedes each frame.
    pub has_header: bool,
    /// Whether it may have several queues; each time it is opened adds one.
    pub has_queues: bool,
}

/// Creates the TAP device in the network namespace of the calling thread, or attaches to it if it exists.
///
/// # Errors
/// `InvalidInput` for an invalid name; otherwise the kernel's error.
pub fn open_tap(device: &str, mode: TapMode) -> io::Result<OwnedFd> {
    let mut name = [0; DEVICE_NAME_BYTES];
    // One byte is left for the closing zero.
    let room = name.get_mut(..device.len()).filter(|room| !room.is_empty() && room.len() < DEVICE_NAME_BYTES);
    room.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a device name has 1 to 15 bytes"))?
        .copy_from_slice(device.as_bytes());
    // Non-blocking from the beginning: a worker never waits in a read.
    let fd = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let padding = [0; REQUEST_UNION_BYTES - size_of::<i16>()];
    let flags_if = |is_wanted, flags| if is_wanted { flags } else { 0 };
    let flags =
        IFF_TAP | IFF_NO_PI | flags_if(mode.has_header, IFF_VNET_HDR) | flags_if(mode.has_queues, IFF_MULTI_QUEUE);
    let request = InterfaceRequest { name, flags, padding };
    // SAFETY: `TUNSETIFF` reads one `struct ifreq` (and writes it back) through the pointer that `Setter` passes. The
    // pointer leads to `request`, which `Setter` owns for the call, has that layout (`repr(C)`, 40 bytes, asserted
    // above) and is initialised whole; `fd` is an open descriptor. Rustix has no safe form of this request.
    unsafe { ioctl::ioctl(fd.as_fd(), Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }?;
    Ok(fd)
}

/// Has frames of a macvtap device, opened by its character device, come with a virtio header and nothing else in front.
///
/// # Errors
/// The kernel's error.
pub fn set_macvtap_header(device: impl AsFd) -> io::Result<()> {
    let padding = [0; REQUEST_UNION_BYTES - size_of::<i16>()];
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    let request = InterfaceRequest { name: [0; DEVICE_NAME_BYTES], flags, padding };
    // SAFETY: as in `open_tap`; a macvtap device reads the flags alone.
    unsafe { ioctl::ioctl(device.as_fd(), Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }?;
    Ok(())
}

/// The name of the TAP device that a descriptor is of, and its mode. Whatever the descriptor is of, the call does not wait.
///
/// # Errors
/// It is of something else, or of a device whose frames have another form.
pub fn tap_of(descriptor: impl AsFd) -> io::Result<(String, TapMode)> {
    use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
    // A file system or device that another process serves may never answer: asked is only what the kernel itself knows.
    let known = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let file = statx(&descriptor, "", known, StatxFlags::TYPE)?;
    let is_device = FileType::from_raw_mode(file.stx_mode.into()) == FileType::CharacterDevice;
    if !is_device || (file.stx_rdev_major, file.stx_rdev_minor) != TUN_DEVICE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no TAP device"));
    }
    // SAFETY: `TUNGETIFF` writes one `struct ifreq` through the pointer that `Getter` passes, which leads to room for an
    // `InterfaceRequest`, of that layout and valid for any bytes; the kernel fills all of it. The descriptor is borrowed and
    // thereby open; one that is of no TAP device refuses the request.
    let request = unsafe { ioctl::ioctl(descriptor.as_fd(), Getter::<TUNGETIFF, InterfaceRequest>::new()) }?;
    if request.flags & (IFF_TAP | IFF_NO_PI) != IFF_TAP | IFF_NO_PI {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no TAP device without packet information"));
    }
    let has = |flag| request.flags & flag != 0;
    let name = request.name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    Ok((name, TapMode { has_header: has(IFF_VNET_HDR), has_queues: has(IFF_MULTI_QUEUE) }))
}

/// Another descriptor of what this process was given under a number.
///
/// # Errors
/// It was given nothing under that number.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: `F_DUPFD_CLOEXEC` takes numbers and follows no pointer; the kernel refuses one that is not open.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for this call, so nobody else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(duplicate) })
}

/// Gives descriptors to the program that this process becomes, under the numbers from `first` on.
///
/// # Errors
/// The program would lose what whoever started this process gave it under one of these numbers; or the kernel's error.
pub fn bequeath(descriptors: &[OwnedFd], first: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let above = first + descriptors.len() as i32;
    let mut moved = Vec::new();
    for descriptor in descriptors {
        // Out of the way first, so that none takes the number of one that follows.
        // SAFETY: `F_DUPFD_CLOEXEC` takes numbers and follows no pointer.
        moved.push(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) });
    }
    for (number, moved) in (first..).zip(moved) {
        // SAFETY: `F_GETFD` takes a number and follows no pointer.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            let text = format!("descriptor {number} is taken: this process was started with it");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        // SAFETY: `dup2` takes numbers and follows no pointer. What it replaces would be closed when this process becomes another
        // program, which it is about to.
        if moved < 0 || unsafe { libc::dup2(moved, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets the length of a TAP device's virtio header.
///
/// # Errors
/// The kernel's error.
pub fn set_tap_header_bytes(device: impl AsFd, header_bytes: i32) -> io::Result<()> {
    // SAFETY: `TUNSETVNETHDRSZ` reads one `int` through the pointer that `Setter` passes, which leads to the `i32` that
    // `Setter` owns for the call; the descriptor is borrowed and thereby open. Rustix has no safe form of this request.
    unsafe { ioctl::ioctl(device.as_fd(), Setter::<TUNSETVNETHDRSZ, i32>::new(header_bytes)) }?;
    Ok(())
}

/// Sets what the guest of a TAP device may offload, as [`tap_offloads`].
///
/// # Errors
/// `EINVAL` if the kernel does not know one of the flags.
pub fn set_tap_offloads(device: impl AsFd, offloads: u32) -> io::Result<()> {
    // SAFETY: `TUNSETOFFLOAD` takes its argument as a number and follows no pointer, so any number is valid; the kernel
    // refuses unknown bits. The descriptor is borrowed and thereby open.
    unsafe { ioctl::ioctl(device.as_fd(), IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads as usize)) }?;
    Ok(())
}

/// Sets whether a TAP device stays when no process has it open.
///
/// # Errors
/// The kernel's error.
pub fn set_tap_persistence(device: impl AsFd, stays: bool) -> io::Result<()> {
    // SAFETY: `TUNSETPERSIST` takes its argument as a number and follows no pointer, so any number is valid. The
    // descriptor is borrowed and thereby open.
    unsafe { ioctl::ioctl(device.as_fd(), IntegerSetter::<TUNSETPERSIST>::new_usize(stays.into())) }?;
    Ok(())
}

/// An eBPF instruction (RFC 9669 §3.1): opcode, registers (source in the upper half), jump offset, constant.
#[repr(C)]
pub struct Instruction(pub u8, pub u8, pub i16, pub i32);

/// The part of `union bpf_attr` that the command `BPF_PROG_LOAD` reads.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Loads a program that examines frames and returns a number (`BPF_PROG_TYPE_SOCKET_FILTER`).
///
/// # Errors
/// `EPERM` without the capability; `EINVAL` or `EACCES` if the verifier rejects the program.
pub fn load_frame_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    load_program(1, instructions)
}

/// Loads a program that decides about the frames that an interface receives (`BPF_PROG_TYPE_XDP`).
///
/// # Errors
/// As in [`load_frame_program`].
pub fn load_xdp_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    load_program(6, instructions)
}

fn load_program(program_type: u32, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let load = ProgramLoad {
        program_type,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: c"".as_ptr().expose_provenance() as u64,
        log: [0, 0],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the pointers lead to `instruction_count` instructions and to a string that ends with zero, borrowed for the call.
    // The kernel checks the program itself.
    unsafe { bpf_descriptor(&load) }
}

/// A command of `bpf` and the attributes that it reads: parts of `union bpf_attr`.
trait BpfCommand {
    const NUMBER: i32;
}

/// Makes a map.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

/// Inserts an entry into a map.
#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Attaches a program for as long as the returned descriptor is open.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

impl BpfCommand for MapCreate {
    const NUMBER: i32 = 0;
}

impl BpfCommand for MapUpdate {
    const NUMBER: i32 = 2;
}

impl BpfCommand for ProgramLoad {
    const NUMBER: i32 = 5;
}

impl BpfCommand for LinkCreate {
    const NUMBER: i32 = 28;
}

/// Calls `bpf`.
///
/// # Safety
/// The pointers in the command must be valid for what the kernel reads there until this returns. It writes nothing.
unsafe fn bpf<C: BpfCommand>(command: &C) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<C>()` bytes at the pointer, which leads to a command that is initialised whole and
    // laid out as the kernel's part of that command (`repr(C)`, no padding of its own); the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, C::NUMBER, &raw const *command, size_of::<C>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

/// The same as [`bpf`], for commands that return a descriptor.
///
/// # Safety
/// As in [`bpf`].
unsafe fn bpf_descriptor<C: BpfCommand>(command: &C) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: by the caller's promise. The call returns a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(bpf(command)?) })
}

/// Makes a map from queues to XDP sockets (`BPF_MAP_TYPE_XSKMAP`), for one queue.
///
/// # Errors
/// `EPERM` without the capability.
pub fn create_socket_map() -> io::Result<OwnedFd> {
    let create = MapCreate { map_type: 17, key_bytes: 4, value_bytes: 4, entries: 1, flags: 0 };
    // SAFETY: there are no pointers in it.
    unsafe { bpf_descriptor(&create) }
}

/// Inserts the socket of the first queue into such a map.
///
/// # Errors
/// The kernel's error.
pub fn put_socket(map: impl AsFd, socket: impl AsFd) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let (key, value) = (0_u32, socket.as_fd().as_raw_fd());
    let update = MapUpdate {
        map: map.as_fd().as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key).expose_provenance() as u64,
        value: (&raw const value).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the pointers lead to a key and a value of four bytes each, as the map has them, which outlive the call.
    unsafe { bpf(&update) }.map(drop)
}

/// Runs a program on all frames that an interface receives, in its driver, for as long as the result is open.
///
/// # Errors
/// `EOPNOTSUPP` if the driver does not support XDP, `EBUSY` if another program is attached.
pub fn attach_xdp(program: impl AsFd, interface: u32) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    const BPF_XDP: u32 = 37;
    const XDP_FLAGS_DRV_MODE: u32 = 4;
    let program = program.as_fd().as_raw_fd() as u32;
    let link = LinkCreate { program, target: interface, attach_type: BPF_XDP, flags: XDP_FLAGS_DRV_MODE };
    // SAFETY: there are no pointers in it.
    unsafe { bpf_descriptor(&link) }
}

/// How many BPF programs are attached to an interface at an attach point, by its number in `enum bpf_attach_type`; none
/// if the kernel does not know the attach point.
///
/// # Errors
/// The kernel's error, such as `EPERM` without the capability.
pub fn bpf_programs_at(interface: u32, attach_type: u32) -> io::Result<u32> {
    const BPF_PROG_QUERY: i32 = 16;
    /// The part of `union bpf_attr` that the command reads and writes: 64 bytes without unnamed padding.
    #[repr(C)]
    #[derive(Default)]
    struct ProgramQuery {
        interface: u32,
        attach_type: u32,
        flags: [u32; 2],
        program_ids: u64,
        count: u32,
        padding: u32,
        others: [u64; 4],
    }
    let mut query = ProgramQuery { interface, attach_type, ..ProgramQuery::default() };
    // SAFETY: the kernel reads and writes within the `size_of::<ProgramQuery>()` bytes at the pointer, which leads to
    // `query`, laid out as the kernel's part of this command, initialised whole and exclusively borrowed. There is no
    // list of programs to write to: the pointer to it is null, and it has no entries.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<ProgramQuery>()) };
    let error = io::Error::last_os_error();
    match (result, error.raw_os_error()) {
        (0, _) => Ok(query.count),
        // A kernel that does not know the attach point can have no program there.
        (_, Some(libc::EINVAL | libc::ENOSYS)) => Ok(0),
        _ => Err(error),
    }
}

/// The number of queues over which an interface spreads received frames; one if its driver does not report any.
///
/// # Errors
/// The kernel's error, such as `ENODEV` if there is no such interface.
pub fn receive_queues(socket: impl AsFd, device: &str) -> io::Result<u32> {
    use std::os::fd::AsRawFd as _;
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    /// The command, four maxima, then the numbers of queues that receive, send, do other things, and do both.
    type Channels = [u32; 9];
    #[repr(C)]
    struct ChannelsRequest {
        name: [u8; DEVICE_NAME_BYTES],
        channels: *mut Channels,
        padding: [u8; REQUEST_UNION_BYTES - size_of::<*mut Channels>()],
    }
    let mut channels: Channels = [0; 9];
    channels[0] = ETHTOOL_GCHANNELS;
    let padding = [0; REQUEST_UNION_BYTES - size_of::<*mut Channels>()];
    let mut request = ChannelsRequest { name: [0; DEVICE_NAME_BYTES], channels: &raw mut channels, padding };
    let room = request.name.get_mut(..device.len()).filter(|room| room.len() < DEVICE_NAME_BYTES);
    room.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.copy_from_slice(device.as_bytes());
    // SAFETY: `SIOCETHTOOL` reads a `struct ifreq` through the pointer, which leads to `request`, laid out so and as long; with
    // this command it reads and writes the 36 bytes at the pointer in it, which leads to `channels`, as long and not touched
    // meanwhile. The socket is borrowed and thereby open.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    let error = io::Error::last_os_error();
    match (result, error.raw_os_error()) {
        // Queues that both receive and send count as well.
        (0, _) => Ok((channels[5] + channels[8]).max(1)),
        (_, Some(libc::EOPNOTSUPP)) => Ok(1),
        _ => Err(error),
    }
}

/// Lets a program choose the queue of a TAP device for each frame: the result modulo the number of queues.
///
/// # Errors
/// The kernel's error.
pub fn set_tap_steering(device: impl AsFd, program: impl AsFd) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let program = program.as_fd().as_raw_fd();
    // SAFETY: `TUNSETSTEERINGEBPF` reads one `int` through the pointer that `Setter` passes, which leads to the `i32` that
    // `Setter` owns for the call; both descriptors are borrowed and thereby open. Rustix has no safe form of this request.
    unsafe { ioctl::ioctl(device.as_fd(), Setter::<TUNSETSTEERINGEBPF, i32>::new(program)) }?;
    Ok(())
}

/// Marks all descriptors of this process from this number on to be closed in programs that it starts.
///
/// # Errors
/// `ENOSYS` or `EINVAL` on a kernel before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with `CLOSE_RANGE_CLOEXEC` the call closes nothing: it sets a flag of descriptors that counts at an `exec`, after
    // which nothing of this program is left that could rely on them. It takes numbers, no pointers.
    let result = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread to a new, empty network namespace of its own.
///
/// # Errors
/// The kernel's error, such as `EPERM` without the capability.
pub fn enter_new_network_namespace() -> io::Result<()> {
    // SAFETY: what makes `unshare` unsafe is `UnshareFlags::FILES`, which splits the table of descriptors between
    // threads. Only the network namespace is unshared here; descriptors stay shared by all threads.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    Ok(())
}
