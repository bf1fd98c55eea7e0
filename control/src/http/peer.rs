//! Who is at the other end of a connection: a user of this machine, or an address elsewhere.
//!
//! The kernel reports the owner of the socket at the other end (`sock_diag`), with one look-up however many sockets
//! there are. If the report is uncertain, the peer counts as unknown, because a socket that its process has closed
//! would count as root's.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// The peer of a connection, as far as limits distinguish peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HttpPeer {
    /// A user of this machine.
    User(u32),
    /// A process of this machine whose user is unknown.
    Local,
    /// A remote address; of IPv6, the first 64 bits, which belong to one subscriber.
    Address(IpAddr),
}

impl HttpPeer {
    /// Whether it is root or the user this process runs as.
    pub(super) fn is_privileged(self) -> bool {
        matches!(self, Self::User(user) if user == 0 || user == rustix::process::geteuid().as_raw())
    }

    /// The peer at `peer`, connected to `own`.
    pub(super) fn at(peer: SocketAddr, own: SocketAddr) -> Self {
        // A listener for both families reports IPv4 addresses as mapped ones, which neither look-up would find.
        let (peer, own) = (canonical(peer), canonical(own));
        match peer.ip() {
            // A connection from this machine to its own address also comes from that address.
            address if address.is_loopback() || address == own.ip() => user(peer, own).map_or(Self::Local, Self::User),
            IpAddr::V4(address) => Self::Address(address.into()),
            IpAddr::V6(address) => Self::Address(Ipv6Addr::from(u128::from(address) >> 64 << 64).into()),
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` of `linux/netlink.h`.
const NLM_F_REQUEST: u16 = 1;
/// `TCP_ESTABLISHED` of `net/tcp_states.h`.
const TCP_ESTABLISHED: u8 = 1;
const IPPROTO_TCP: u8 = 6;
/// Bytes of `nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Bytes of `nlmsghdr` and `inet_diag_msg`.
const ANSWER_BYTES: usize = HEADER_BYTES + 72;

/// Whether this kernel has ever answered by `sock_diag`, which not all support.
static ANSWERS: AtomicBool = AtomicBool::new(false);

/// The user whose socket, open and connected, is at `peer`.
fn user(peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    let found = ask(peer, own);
    match found {
        Some(_) => ANSWERS.store(true, Ordering::Relaxed),
        // Fall back to searching one long list, unless `sock_diag` works: then the list would not have it either.
        None if !ANSWERS.load(Ordering::Relaxed) => return look(peer, own),
        None => {}
    }
    found
}

/// The same as [`user`], from the list of all sockets.
fn look(peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    let path = if peer.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let list = std::fs::read_to_string(path).ok()?;
    let ends = [listed(peer), listed(own)];
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let [local, remote, state] = [words.next()?, words.next()?, words.next()?];
        let (user, inode) = (words.nth(3)?, words.nth(1)?);
        let is_his = [local, remote] == ends && state == "01" && inode != "0";
        if is_his { user.parse().ok() } else { None }
    })
}

/// An address in the format of that list: 32 bits at a time, in the machine's byte order.
fn listed(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let word = |word: &[u8]| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let words: String = bytes.chunks_exact(4).map(word).collect();
    format!("{words}:{:04X}", address.port())
}

/// The same as [`user`], by a single query.
fn ask(peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG)).ok()?;
    send(&socket, &question(peer, own)?, SendFlags::empty()).ok()?;
    let mut answer = [0; 256];
    // The kernel answers while it receives the query.
    let (count, _) = recv(&socket, &mut answer[..], RecvFlags::empty()).ok()?;
    read_answer(answer.get(..count)?, peer)
}

/// A `nlmsghdr` and an `inet_diag_req_v2`: the socket at `peer` that is connected to `own`.
fn question(peer: SocketAddr, own: SocketAddr) -> Option<Vec<u8>> {
    let family = match (peer, own) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => AddressFamily::INET,
        (SocketAddr::V6(_), SocketAddr::V6(_)) => AddressFamily::INET6,
        _ => return None,
    };
    let mut body = vec![u8::try_from(family.as_raw()).ok()?, IPPROTO_TCP, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(peer.port().to_be_bytes());
    body.extend(own.port().to_be_bytes());
    for address in [peer.ip(), own.ip()] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        body.extend(bytes);
    }
    // Any interface, and no cookie of an earlier answer.
    body.extend(0_u32.to_ne_bytes());
    body.extend([u8::MAX; 8]);
    let mut message = Vec::new();
    message.extend(u32::try_from(HEADER_BYTES + body.len()).ok()?.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    Some(message)
}

/// The user in an `inet_diag_msg`, if it is about a socket at `peer` that a process still has open.
fn read_answer(answer: &[u8], peer: SocketAddr) -> Option<u32> {
    let word = |place: usize| answer.get(place..place + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let kind = answer.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
    let body = answer.get(HEADER_BYTES..ANSWER_BYTES)?;
    let (state, port) = (body[1], u16::from_be_bytes([body[4], body[5]]));
    let (user, inode) = (word(HEADER_BYTES + 64)?, word(HEADER_BYTES + 68)?);
    // Without such a connection the kernel reports a listener at the port, whose owner is somebody else.
    let is_his = kind == SOCK_DIAG_BY_FAMILY && state == TCP_ESTABLISHED && port == peer.port() && inode != 0;
    is_his.then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_user_at_the_other_end_is_found_and_of_a_closed_one_nobody() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Without IPv6 there is nothing to look up.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let at = || HttpPeer::at(peer, server.local_addr().unwrap());
            assert_eq!(at(), HttpPeer::User(rustix::process::getuid().as_raw()), "{address}");
            assert!(at().is_privileged());
            let own = server.local_addr().unwrap();
            assert_eq!((look(peer, own), look(own, peer)), (ask(peer, own), ask(own, peer)), "{address}");
            // When a process exits, the kernel reports its socket as root's.
            drop(client);
            assert_eq!((at(), look(peer, own)), (HttpPeer::Local, None), "{address}");
        }
    }

    #[test]
    fn addresses_elsewhere_are_told_apart_by_subscriber() {
        let own = "192.0.2.1:80".parse().unwrap();
        let at = |text: &str| HttpPeer::at(text.parse().unwrap(), own);
        assert_eq!(at("198.51.100.7:1"), at("198.51.100.7:2"));
        assert_ne!(at("198.51.100.7:1"), at("198.51.100.8:1"));
        assert_eq!(at("[2001:db8::1]:1"), at("[2001:db8::ffff:1]:1"));
        assert_ne!(at("[2001:db8::1]:1"), at("[2001:db8:0:1::1]:1"));
        assert_eq!(at("[::ffff:198.51.100.7]:1"), at("198.51.100.7:1"));
        assert!(!at("198.51.100.7:1").is_privileged());
    }

    #[test]
    fn whatever_the_kernel_answers_is_read_or_nobody() {
        let peer: SocketAddr = "127.0.0.1:4660".parse().unwrap();
        let mut answer = vec![0; ANSWER_BYTES];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[17] = TCP_ESTABLISHED;
        answer[20..22].copy_from_slice(&4660_u16.to_be_bytes());
        answer[80..84].copy_from_slice(&7_u32.to_ne_bytes());
        answer[84..88].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(read_answer(&answer, peer), Some(7));
        for length in 0..ANSWER_BYTES {
            assert_eq!(read_answer(&answer[..length], peer), None, "{length}");
        }
        for place in [4, 17, 20, 84] {
            let mut other = answer.clone();
            other[place] ^= 1;
            assert_eq!(read_answer(&other, peer), None, "{place}");
        }
    }
}
