//! Configures a device through netlink, in the network namespace of the calling thread.
//!
//! All namespaces of a machine share one neighbour table, and a guest that resolves every address of its subnet would
//! fill it for all. So a guest that the switch configures has one neighbour of each family, the gateway, with a
//! permanent hardware address; its own subnet is routed through the gateway like everything else.

use ipnet::IpNet;
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVtap, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, MacVtapMode,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::{SocketType, netdevice};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use vswitch_core::config::ids::MacAddress;

/// `IFA_RT_PRIORITY` of `linux/if_addr.h`: the metric of the route that comes with an address.
const ADDRESS_METRIC: u16 = 9;
/// The metric of routes through a gateway, to which the index of the device is added.
const METRIC_THROUGH_GATEWAY: u32 = 1 << 10;
/// The metric of the routes that come with addresses. They are not used while the others exist. A guest that sets its
/// device down and up has lost those, and can still resolve its neighbours.
const METRIC_WITHOUT_GATEWAY: u32 = 1 << 20;

/// Messages in a datagram are aligned to this many bytes (`NLMSG_ALIGNTO`).
const NETLINK_ALIGNMENT: usize = 4;

/// How to configure the device in the guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its hardware address.
    pub mac: MacAddress,
    /// The largest layer-3 packet, bytes.
    pub mtu_bytes: u16,
    /// Its addresses, each with the prefix length of the subnet.
    pub addresses: Vec<IpNet>,
    /// The gateways of its default routes: at most one of each family, each in the subnet of one of the addresses.
    pub gateways: Vec<IpAddr>,
    /// The hardware address of all gateways.
    pub gateway_mac: MacAddress,
    /// Other prefixes that are reached through the router, each with its address on the link.
    pub routes: Vec<(IpNet, IpAddr)>,
}

impl Interface {
    /// The gateway of the subnet of an address.
    fn gateway_of(&self, address: &IpNet) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| address.contains(gateway))
    }

    /// The subnets that have a gateway, and the other prefixes, each with it.
    fn subnets(&self) -> BTreeSet<(IpNet, IpAddr)> {
        let own = self.addresses.iter().filter_map(|address| Some((address.trunc(), self.gateway_of(address)?)));
        own.chain(self.routes.iter().copied()).collect()
    }
}

/// Configures the device as `wanted`, brings it and the loopback device up, and removes what `previous` had and
/// `wanted` does not. Idempotent; settings that others made remain.
///
/// # Errors
/// The kernel's error, with the step that failed.
pub fn configure(device: &str, wanted: &Interface, previous: Option<&Interface>) -> io::Result<()> {
    // Before the device is up: the kernel would send its first solicitations at once.
    disable_autoconfiguration(device);
    let index = interface_index(device).map_err(|error| explain(device, "look up", error))?;
    let mut netlink = Netlink::open()?;
    netlink
        .set_link(index, wanted.mac, wanted.mtu_bytes)
        .map_err(|error| explain(device, "set hardware address and MTU", error))?;
    // Before the device is up, since addresses are generated at that moment.
    if wanted.addresses.iter().any(|address| matches!(address, IpNet::V6(_))) {
        netlink.stop_link_local(index).map_err(|error| explain(device, "set IPv6 address generation", error))?;
    }
    netlink.set_up(index).map_err(|error| explain(device, "bring up", error))?;
    let loopback = interface_index("lo").map_err(|error| explain("lo", "look up", error))?;
    // Guests expect to reach themselves, and a new namespace has its loopback device down.
    netlink.set_up(loopback).map_err(|error| explain("lo", "bring up", error))?;
    if let Some(previous) = previous {
        // Routes go before the addresses that they depend on.
        for gateway in previous.gateways.iter().filter(|gateway| !wanted.gateways.contains(gateway)) {
            ignore_error(netlink.delete_route(default_route(index, *gateway)), io::ErrorKind::NotFound, Errno::SRCH)
                .map_err(|error| explain(device, "remove default route", error))?;
        }
        netlink.remove_subnets(index, previous, wanted).map_err(|error| explain(device, "remove subnet", error))?;
        // The kernel may have removed it together with something else, which is as good.
        for address in previous.addresses.iter().filter(|address| !wanted.addresses.contains(address)) {
            ignore_error(netlink.delete_address(index, *address), io::ErrorKind::NotFound, Errno::ADDRNOTAVAIL)
                .map_err(|error| explain(device, "remove address", error))?;
        }
    }
    for address in &wanted.addresses {
        // With a gateway, the address brings a route that gives way to the one through the gateway.
        let is_behind_gateway = wanted.gateway_of(address).is_some();
        netlink
            .set_address(index, *address, is_behind_gateway)
            .map_err(|error| explain(device, &format!("add {address}"), error))?;
    }
    for (subnet, gateway) in wanted.subnets() {
        netlink
            .add_subnet(index, (subnet, gateway), wanted.gateway_mac)
            .map_err(|error| explain(device, &format!("route {subnet} through {gateway}"), error))?;
    }
    for gateway in &wanted.gateways {
        // If two ENIs share a namespace, the first keeps the default route.
        netlink
            .add_route(default_route(index, *gateway))
            .map_err(|error| explain(device, &format!("add default route via {gateway}"), error))?;
    }
    Ok(())
}

/// Sets the hardware address and MTU of a device, and nothing else.
///
/// # Errors
/// The kernel's error.
pub fn set_link(device: &str, mac: MacAddress, mtu_bytes: u16) -> io::Result<()> {
    let index = interface_index(device).map_err(|error| explain(device, "look up", error))?;
    let set = Netlink::open()?.set_link(index, mac, mtu_bytes);
    set.map_err(|error| explain(device, "set hardware address and MTU", error))
}

/// Makes a macvtap device in bridge mode on `lower_device`, which is in the namespace of the calling thread; the new device is
/// in `namespace`. Its kernel sends nothing from it of its own accord once it is up.
///
/// # Errors
/// The kernel's error, as it is.
pub fn add_macvtap(device: &str, lower_device: &str, mac: MacAddress, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let mode = InfoData::MacVtap(vec![InfoMacVtap::Mode(MacVtapMode::Bridge)]);
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(device.into()),
        LinkAttribute::Link(interface_index(lower_device)?),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVtap), LinkInfo::Data(mode)]),
    ];
    Netlink::open()?.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
}

/// Brings up a device whose frames are the switch's alone: its kernel gives it no addresses, and it gets all multicast frames,
/// among which are those that ask for its neighbours.
///
/// # Errors
/// The kernel's error, as it is.
pub fn start_macvtap(device: &str, mac: MacAddress, mtu_bytes: u16) -> io::Result<()> {
    let index = interface_index(device)?;
    let mut netlink = Netlink::open()?;
    netlink.set_link(index, mac, mtu_bytes)?;
    // Before it is up, since addresses are generated at that moment. A kernel without IPv6 has none to generate.
    ignore_error(netlink.stop_link_local(index), io::ErrorKind::Unsupported, Errno::AFNOSUPPORT)?;
    netlink.set_flags(index, LinkFlags::Up | LinkFlags::Allmulti)
}

/// The index of a device, if one of this name exists.
///
/// # Errors
/// The kernel's error.
pub fn index(device: &str) -> io::Result<Option<u32>> {
    match interface_index(device) {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(explain(device, "look up", error)),
    }
}

/// Removes a device, if one of this name exists.
///
/// # Errors
/// The kernel's error.
pub fn delete(device: &str) -> io::Result<()> {
    let Some(index) = index(device)? else { return Ok(()) };
    let mut link = LinkMessage::default();
    link.header.index = index;
    let deleted = Netlink::open()?.request(RouteNetlinkMessage::DelLink(link), 0);
    ignore_error(deleted, io::ErrorKind::NotFound, Errno::NODEV).map_err(|error| explain(device, "remove", error))
}

/// Best effort: in a container `/proc/sys` may be read-only, and then the guest merely sends a little more.
fn disable_autoconfiguration(device: &str) {
    for (key, value) in [("accept_ra", "0"), ("autoconf", "0"), ("dad_transmits", "0"), ("router_solicitations", "0")] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/{key}"), value);
    }
}

fn ignore_error(result: io::Result<()>, kind: io::ErrorKind, errno: Errno) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind || error.raw_os_error() == Some(errno.raw_os_error()) => Ok(()),
        result => result,
    }
}

fn explain(device: &str, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{device}: {what}: {error}"))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The index of an interface in the network namespace of the calling thread.
///
/// # Errors
/// `NODEV` if none of this name exists.
pub(crate) fn interface_index(device: &str) -> io::Result<u32> {
    // Any socket of the namespace answers this request.
    let probe = rustix::net::socket(rustix::net::AddressFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(&probe, device)?)
}

/// A netlink socket for routing, in the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Connected to the kernel (port 0), so that no other process can send answers.
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn set_link(&mut self, index: u32, mac: MacAddress, mtu_bytes: u16) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        link.attributes.push(LinkAttribute::Mtu(mtu_bytes.into()));
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// A guest of a VPC has only the addresses it was given.
    fn stop_link_local(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![inet6]));
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.set_flags(index, LinkFlags::Up)
    }

    fn set_flags(&mut self, index: u32, flags: LinkFlags) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        // Only these flags are to change; all others of the device stay.
        link.header.change_mask = flags;
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    fn set_address(&mut self, index: u32, address: IpNet, is_behind_gateway: bool) -> io::Result<()> {
        let mut message = address_message(index, address);
        if is_behind_gateway {
            message.attributes.push(AddressAttribute::Other(DefaultNla::new(
                ADDRESS_METRIC,
                (METRIC_WITHOUT_GATEWAY + index).to_ne_bytes().to_vec(),
            )));
        }
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn delete_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelAddress(address_message(index, address)), 0)
    }

    /// Routes a subnet through its gateway, which is on the link and has a permanent neighbour entry.
    fn add_subnet(&mut self, index: u32, (subnet, gateway): (IpNet, IpAddr), mac: MacAddress) -> io::Result<()> {
        let neighbor = neighbor(index, gateway, mac);
        // The neighbour first: with the route in place and no neighbour, the guest would ask for it.
        self.request(RouteNetlinkMessage::NewNeighbour(neighbor), NLM_F_CREATE | NLM_F_REPLACE)?;
        // The gateway has to be on the link before a route through it is accepted.
        self.add_route(link_route(index, gateway))?;
        self.add_route(subnet_route(index, subnet, gateway))
    }

    /// Removes routes to subnets of `previous` that are not in `wanted`.
    fn remove_subnets(&mut self, index: u32, previous: &Interface, wanted: &Interface) -> io::Result<()> {
        let (before, now) = (previous.subnets(), wanted.subnets());
        for &(subnet, gateway) in before.difference(&now) {
            for route in [subnet_route(index, subnet, gateway), link_route(index, gateway)] {
                ignore_error(self.delete_route(route), io::ErrorKind::NotFound, Errno::SRCH)?;
            }
            let neighbor = RouteNetlinkMessage::DelNeighbour(neighbor(index, gateway, previous.gateway_mac));
            ignore_error(self.request(neighbor, 0), io::ErrorKind::NotFound, Errno::NOENT)?;
        }
        Ok(())
    }

    /// Adds a route unless there is one with the same destination and metric.
    fn add_route(&mut self, route: RouteMessage) -> io::Result<()> {
        let added = self.request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL);
        ignore_error(added, io::ErrorKind::AlreadyExists, Errno::EXIST)
    }

    fn delete_route(&mut self, route: RouteMessage) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelRoute(route), 0)
    }

    /// Requests a change and waits until it is made.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive().map(drop)
    }

    /// Requests one object.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        self.receive()
    }

    /// Requests all objects of a kind.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.receive()
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// The kernel's answer to the last request, up to its end.
    fn receive(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut told = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                let length = (reply.header.length as usize).next_multiple_of(NETLINK_ALIGNMENT);
                rest = rest.get(length.max(1)..).unwrap_or_default();
                if reply.header.sequence_number != self.sequence {
                    continue;
                }
                match reply.payload {
                    // An acknowledgement is an error message with the code zero.
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(told),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => return Ok(told),
                    NetlinkPayload::InnerMessage(message) => told.push(message),
                    _ => {}
                }
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
        // The control plane assigns addresses only once; duplicate detection would just delay the first packet.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = route(index, gateway);
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
    message
}

/// A route to a gateway on the link. The metric distinguishes several devices in one namespace.
fn link_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = route(index, gateway);
    message.header.scope = RouteScope::Link;
    message.header.destination_prefix_length = if gateway.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(gateway)));
    message.attributes.push(RouteAttribute::Priority(METRIC_THROUGH_GATEWAY + index));
    message
}

fn subnet_route(index: u32, subnet: IpNet, gateway: IpAddr) -> RouteMessage {
    let mut message = default_route(index, gateway);
    message.header.destination_prefix_length = subnet.prefix_len();
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(subnet.network())));
    message.attributes.push(RouteAttribute::Priority(METRIC_THROUGH_GATEWAY + index));
    message
}

/// A permanent neighbour entry, which the kernel neither counts nor removes.
fn neighbor(index: u32, address: IpAddr, mac: MacAddress) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}
