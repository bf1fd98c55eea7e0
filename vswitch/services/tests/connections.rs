//! Connections of guests, by clients with a stack of their own, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use services::directory::Asker;
use services::tcp::{CONNECTIONS_MAX, CONNECTIONS_PER_ENI_MAX, ConnectionId, Reaction, Respond, TcpPool};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::services::METADATA_V4;
use vswitch_core::config::services::frame::{ServedEni, ServiceFrame};

#[derive(Default)]
struct PacketWire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Taken(Vec<u8>);
struct Given<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Given<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for PacketWire {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Given<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Taken, Given<'_>)> {
        Some((Taken(self.incoming.pop_front()?), Given(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Given<'_>> {
        Some(Given(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ip, 1500);
        capabilities
    }
}

/// A guest: all have the same address.
struct TcpGuest {
    eni: ServedEni,
    name: String,
    wire: PacketWire,
    interface: Interface,
    sockets: SocketSet<'static>,
}

/// Replies to each line with who asked.
struct Echo;

impl Respond for Echo {
    fn respond(&mut self, asker: &Asker, _: ConnectionId, input: &[u8]) -> Reaction {
        match input.iter().position(|byte| *byte == b'\n') {
            None => Reaction::Wait,
            Some(end) => {
                let line = String::from_utf8_lossy(&input[..=end]);
                let bytes = format!("{}/{} {line}", asker.vpc, asker.eni).into_bytes();
                Reaction::Reply { consumed: end + 1, bytes, closes: false, hop_limit: None }
            }
        }
    }
}

struct TcpWorld {
    pool: TcpPool,
    guests: BTreeMap<u32, TcpGuest>,
    now: Instant,
}

impl TcpWorld {
    fn new() -> Self {
        Self { pool: TcpPool::new(7), guests: BTreeMap::new(), now: Instant::from_millis(1000) }
    }

    fn guest(&mut self, number: u32) -> &mut TcpGuest {
        let now = self.now;
        self.guests.entry(number).or_insert_with(|| {
            let mut wire = PacketWire::default();
            let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, now);
            interface.update_ip_addrs(|addresses| {
                addresses.push(IpCidr::new(Ipv4Addr::new(10, 0, 1, 10).into(), 32)).unwrap();
            });
            interface.routes_mut().add_default_ipv4_route(Ipv4Addr::new(10, 0, 1, 253)).unwrap();
            let eni = ServedEni { index: EniIndex(number), generation: 1 };
            TcpGuest { eni, name: format!("eni-{number}"), wire, interface, sockets: SocketSet::new(Vec::new()) }
        })
    }

    /// Opens a connection from a port.
    fn connect(&mut self, number: u32, port: u16) -> SocketHandle {
        let guest = self.guest(number);
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.connect(guest.interface.context(), (IpAddr::V4(METADATA_V4), 80), port).unwrap();
        guest.sockets.add(socket)
    }

    fn socket(&mut self, number: u32, handle: SocketHandle) -> &mut Socket<'static> {
        self.guest(number).sockets.get_mut(handle)
    }

    /// Has all packets delivered, and time pass.
    fn pass(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        loop {
            let mut moved = 0;
            let mut replies: Vec<(ServedEni, Vec<u8>)> = Vec::new();
            let mut send = |frame: &ServiceFrame<'_>| replies.push((frame.eni, frame.packet.to_vec()));
            self.pool.tick(&mut Echo, self.now, &mut send);
            for guest in self.guests.values_mut() {
                guest.interface.poll(self.now, &mut guest.wire, &mut guest.sockets);
                while let Some(packet) = guest.wire.outgoing.pop_front() {
                    moved += 1;
                    let sliced = SlicedPacket::from_ip(&packet).unwrap();
                    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("IPv4") };
                    let addresses = [ip.header().source_addr().into(), ip.header().destination_addr().into()];
                    let Some(TransportSlice::Tcp(segment)) = &sliced.transport else { panic!("TCP") };
                    let names = [if guest.eni.index.0 % 2 == 0 { "vpc-even" } else { "vpc-odd" }, &guest.name];
                    let frame = ServiceFrame { eni: guest.eni, mtu_bytes: 1500, names, packet: &packet };
                    self.pool.receive((&frame, addresses, segment), &mut Echo, self.now, &mut send);
                }
            }
            for (eni, packet) in replies {
                moved += 1;
                self.guests.get_mut(&eni.index.0).unwrap().wire.incoming.push_back(packet);
            }
            if moved == 0 {
                if self.now >= until {
                    return;
                }
                self.now += Duration::from_millis(millis.clamp(1, 250));
            }
        }
    }

    /// Sends a line and returns the reply.
    fn ask(&mut self, number: u32, handle: SocketHandle, line: &str) -> String {
        self.socket(number, handle).send_slice(line.as_bytes()).unwrap();
        self.pass(1);
        let mut reply = [0; 256];
        let length = self.socket(number, handle).recv_slice(&mut reply).unwrap();
        String::from_utf8_lossy(&reply[..length]).into_owned()
    }
}

#[test]
fn equal_addresses_and_ports_of_two_vpcs_never_meet() {
    const ROUNDS: usize = 500;
    let mut world = TcpWorld::new();
    let handles = [1, 2].map(|number| (number, world.connect(number, 40_000)));
    world.pass(10);
    for round in 0..ROUNDS {
        for (number, handle) in handles {
            let vpc = if number == 2 { "vpc-even" } else { "vpc-odd" };
            assert_eq!(world.ask(number, handle, &format!("{round}\n")), format!("{vpc}/eni-{number} {round}\n"));
        }
    }
    assert_eq!(world.pool.connections(), 2);
    // Another ENI gets the number of one of them, and nothing of its connection.
    world.guest(1).name = "eni-other".into();
    let (_, handle) = handles[0];
    world.socket(1, handle).send_slice(b"x\n").unwrap();
    world.pass(1);
    assert_eq!(world.socket(1, handle).state(), State::Closed, "reset");
    assert_eq!(world.pool.connections(), 1);
}

#[test]
fn slow_clients_of_one_eni_take_nothing_from_another() {
    let mut world = TcpWorld::new();
    let slow: Vec<SocketHandle> = (0..256).map(|number| world.connect(1, 1000 + number)).collect();
    world.pass(10);
    for handle in &slow {
        let socket = world.socket(1, *handle);
        if socket.may_send() {
            socket.send_slice(b"never ends").unwrap();
        }
    }
    world.pass(10);
    assert_eq!(world.pool.connections(), CONNECTIONS_PER_ENI_MAX);
    let open = slow.iter().filter(|handle| world.socket(1, **handle).state() == State::Established).count();
    assert_eq!(open, CONNECTIONS_PER_ENI_MAX, "the others were told at once");
    for number in 2..40 {
        let handle = world.connect(number, 40_000);
        world.pass(1);
        assert!(world.ask(number, handle, "a\n").ends_with(" a\n"));
    }
    // They have had their time.
    world.pass(11_000);
    assert!(slow.iter().all(|handle| world.socket(1, *handle).state() != State::Established));
    let handle = world.connect(1, 50_000);
    world.pass(1);
    assert!(world.ask(1, handle, "b\n").ends_with(" b\n"));
}

#[test]
fn a_connection_between_two_requests_gives_way_to_another_of_its_eni() {
    let mut world = TcpWorld::new();
    let handles: Vec<SocketHandle> =
        (0..CONNECTIONS_PER_ENI_MAX as u16).map(|number| world.connect(1, 2000 + number)).collect();
    world.pass(10);
    for handle in &handles {
        assert!(world.ask(1, *handle, "a\n").ends_with(" a\n"));
        world.pass(100);
    }
    let another = world.connect(1, 3000);
    world.pass(1);
    assert!(world.ask(1, another, "b\n").ends_with(" b\n"));
    assert_eq!(world.socket(1, handles[0]).state(), State::Closed, "the one that has waited longest");
    assert!(world.ask(1, handles[3], "c\n").ends_with(" c\n"));
    // One that asks nothing more is ended in order.
    world.pass(11_000);
    assert_eq!(world.socket(1, another).state(), State::CloseWait);
    world.pass(3_000);
    assert_eq!(world.pool.connections(), 0);
}

#[test]
fn there_are_so_many_connections_in_all() {
    let mut world = TcpWorld::new();
    let handles: Vec<(u32, SocketHandle)> =
        (0..CONNECTIONS_MAX as u32 + 8).map(|number| (number, world.connect(number, 40_000))).collect();
    world.pass(10);
    assert_eq!(world.pool.connections(), CONNECTIONS_MAX);
    let refused =
        handles.iter().filter(|(number, handle)| world.socket(*number, *handle).state() == State::Closed).count();
    assert_eq!(refused, 8, "who finds no room is told at once");
    world.pool.clear();
    assert_eq!(world.pool.connections(), 0);
}
