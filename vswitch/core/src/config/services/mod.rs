//! The services that guests reach at addresses of their own: metadata and name servers, at the cloud's addresses. A
//! process of its own answers there, and knows who asks by the ENI that a frame came from.

pub mod frame;
pub mod record;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 address of the metadata service.
pub const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
/// The IPv6 address of the metadata service.
pub const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200);
/// The IPv4 addresses of the name servers.
pub const NAME_SERVERS_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 2, 136), Ipv4Addr::new(100, 100, 2, 138)];
/// The IPv6 addresses of the name servers. The cloud has none; these stand beside that of its metadata service.
pub const NAME_SERVERS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x136), Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x138)];
/// Where other clouds have their metadata. An image that asks there is told at once that nobody answers.
pub const METADATA_ELSEWHERE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The port of the metadata service.
pub const METADATA_PORT: u16 = 80;
/// The port of the name servers.
pub const DNS_PORT: u16 = 53;

/// The user and group that the services process runs as where it is started by root: nobody's.
pub const PROCESS_USER: u32 = 65_534;
/// The socket, in the folder of the sockets, at which the forwarding plane exchanges guests' packets with the services
/// process.
pub const FRAMES_SOCKET: &str = "frames.sock";
/// The socket at which the control plane tells the services process what each ENI is.
pub const RECORDS_SOCKET: &str = "records.sock";

/// What stands at an address of the switch's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceAddress {
    /// The metadata service. No rule forbids it.
    Metadata,
    /// A name server. Rules apply (`semantics.md` §3.4).
    NameServer,
    /// The address of another cloud's metadata service, where nobody answers.
    Elsewhere,
}

impl ServiceAddress {
    /// What stands at an address; `None` if it is no address of a service.
    #[inline]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(METADATA_V4) => Some(Self::Metadata),
            IpAddr::V6(METADATA_V6) => Some(Self::Metadata),
            IpAddr::V4(METADATA_ELSEWHERE) => Some(Self::Elsewhere),
            IpAddr::V4(address) if NAME_SERVERS_V4.contains(&address) => Some(Self::NameServer),
            IpAddr::V6(address) if NAME_SERVERS_V6.contains(&address) => Some(Self::NameServer),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// Every address at which the services process answers.
    pub fn served() -> impl Iterator<Item = IpAddr> {
        let v4 = [METADATA_V4].into_iter().chain(NAME_SERVERS_V4).map(IpAddr::V4);
        v4.chain([METADATA_V6].into_iter().chain(NAME_SERVERS_V6).map(IpAddr::V6))
    }
}
