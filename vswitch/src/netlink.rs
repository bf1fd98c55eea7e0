//! Configures a device through netlink, in the network namespace of the calling thread.

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::{SocketType, netdevice};
use std::io;
use std::net::IpAddr;
use vswitch_core::ids::MacAddress;

/// What the guest's kernel should know of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its hardware address.
    pub mac: MacAddress,
    /// The largest layer-3 packet, bytes.
    pub mtu_bytes: u16,
    /// Its addresses, each with the length of the subnet's prefix.
    pub addresses: Vec<IpNet>,
    /// Where its default routes lead: at most one gateway of each family.
    pub gateways: Vec<IpAddr>,
}

/// Sets `wanted` on the device, brings it and the loopback device up, and takes away what `previous` had set and
/// `wanted` does not. Idempotent; what others set on the device stays.
///
/// # Errors
/// What the kernel refused, naming the step.
pub fn configure(device: &str, wanted: &Interface, previous: Option<&Interface>) -> io::Result<()> {
    quieten(device);
    let probe = rustix::net::socket(rustix::net::AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let index = netdevice::name_to_index(&probe, device).map_err(|error| step(device, "look up", error.into()))?;
    let mut netlink = Netlink::open()?;
    netlink.set_link(index, wanted).map_err(|error| step(device, "set hardware address and MTU", error))?;
    if wanted.addresses.iter().any(|address| matches!(address, IpNet::V6(_))) {
        netlink.stop_link_local(index).map_err(|error| step(device, "set IPv6 address generation", error))?;
    }
    netlink.set_up(index).map_err(|error| step(device, "bring up", error))?;
    let loopback = netdevice::name_to_index(&probe, "lo").map_err(|error| step("lo", "look up", error.into()))?;
    netlink.set_up(loopback).map_err(|error| step("lo", "bring up", error))?;
    if let Some(previous) = previous {
        for gateway in previous.gateways.iter().filter(|gateway| !wanted.gateways.contains(gateway)) {
            forgive(netlink.delete_default_route(index, *gateway), io::ErrorKind::NotFound, rustix::io::Errno::SRCH)
                .map_err(|error| step(device, "remove default route", error))?;
        }
        for address in previous.addresses.iter().filter(|address| !wanted.addresses.contains(address)) {
            let gone = rustix::io::Errno::ADDRNOTAVAIL;
            forgive(netlink.delete_address(index, *address), io::ErrorKind::NotFound, gone)
                .map_err(|error| step(device, "remove address", error))?;
        }
    }
    for address in &wanted.addresses {
        netlink.set_address(index, *address).map_err(|error| step(device, &format!("add {address}"), error))?;
    }
    for gateway in &wanted.gateways {
        let exists = rustix::io::Errno::EXIST;
        forgive(netlink.add_default_route(index, *gateway), io::ErrorKind::AlreadyExists, exists)
            .map_err(|error| step(device, &format!("add default route via {gateway}"), error))?;
    }
    Ok(())
}

/// The number of a device, if there is one of the name.
///
/// # Errors
/// What the kernel says.
pub fn index(device: &str) -> io::Result<Option<u32>> {
    let probe = rustix::net::socket(rustix::net::AddressFamily::UNIX, SocketType::DGRAM, None)?;
    match netdevice::name_to_index(&probe, device) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(step(device, "look up", error.into())),
    }
}

/// Removes a device, if there is one of the name.
///
/// # Errors
/// What the kernel says.
pub fn delete(device: &str) -> io::Result<()> {
    let Some(index) = index(device)? else { return Ok(()) };
    let mut link = LinkMessage::default();
    link.header.index = index;
    let deleted = Netlink::open()?.request(RouteNetlinkMessage::DelLink(link), 0);
    forgive(deleted, io::ErrorKind::NotFound, rustix::io::Errno::NODEV).map_err(|error| step(device, "remove", error))
}

/// Best effort: a switch in a container may see `/proc/sys` read-only, and then the guest is only a little noisier.
fn quieten(device: &str) {
    for (key, value) in [("accept_ra", "0"), ("autoconf", "0"), ("dad_transmits", "0"), ("router_solicitations", "0")] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/{key}"), value);
    }
}

fn forgive(result: io::Result<()>, kind: io::ErrorKind, errno: rustix::io::Errno) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind || error.raw_os_error() == Some(errno.raw_os_error()) => Ok(()),
        result => result,
    }
}

fn step(device: &str, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{device}: {what}: {error}"))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn set_link(&mut self, index: u32, wanted: &Interface) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Address(wanted.mac.0.to_vec()));
        link.attributes.push(LinkAttribute::Mtu(wanted.mtu_bytes.into()));
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// A guest of a VPC has the addresses it was given and no others.
    fn stop_link_local(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![inet6]));
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    fn set_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewAddress(address_message(index, address)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn delete_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelAddress(address_message(index, address)), 0)
    }

    /// Where two ENIs share a namespace, the first keeps the default route.
    fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewRoute(default_route(index, gateway)), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn delete_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelRoute(default_route(index, gateway)), 0)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).map_err(io::Error::other)?;
            match reply.payload {
                NetlinkPayload::Error(error) if reply.header.sequence_number == self.sequence => {
                    return if error.code.is_none() { Ok(()) } else { Err(error.to_io()) };
                }
                _ => {}
            }
        }
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    if matches!(address, IpNet::V6(_)) {
        // The control plane hands out addresses once; probing for duplicates would only delay the first packet.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}
