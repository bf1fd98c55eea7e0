//! The connections of one ENI.

use super::device::PacketQueues;
use super::{BUFFER_BYTES, CONNECTIONS_PER_ENI_MAX, REQUEST_MS, Reaction, Respond, SegmentEnds};
use crate::directory::Asker;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::config::limits::{ETHERNET_HEADER_BYTES, SERVICE_FRAME_BYTES_MAX};
use vswitch_core::config::services::ServiceAddress;
use vswitch_core::config::services::frame::{ServedEni, ServiceFrame};

/// The largest packet that is sent, whatever the ENI's port carries.
const MTU_BYTES_MAX: usize = SERVICE_FRAME_BYTES_MAX - ETHERNET_HEADER_BYTES;
/// The smallest: every host takes one of this size (RFC 791).
const MTU_BYTES_MIN: usize = 576;
/// The longest request, bytes; also what is kept of one that is not whole.
const INPUT_BYTES_MAX: usize = BUFFER_BYTES;

struct GuestConnection {
    handle: SocketHandle,
    port: u16,
    input: Vec<u8>,
    /// The rest of a reply that the socket had no room for.
    output: Vec<u8>,
    /// Whether it ends once everything is sent.
    is_closing: bool,
    /// When the request or the reply has to be through.
    deadline: Instant,
}

pub(super) struct TcpStack {
    asker: Asker,
    queues: PacketQueues,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<GuestConnection>,
}

impl fmt::Debug for TcpStack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.connections.len();
        formatter.debug_struct("TcpStack").field("asker", &self.asker).field("connections", &connections).finish()
    }
}

impl TcpStack {
    pub(super) fn new(asker: Asker, mtu_bytes: u16, seed: u64, now: Instant) -> Self {
        let mut queues = PacketQueues::new(usize::from(mtu_bytes).clamp(MTU_BYTES_MIN, MTU_BYTES_MAX));
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, now);
        interface.update_ip_addrs(|addresses| {
            for address in ServiceAddress::served() {
                let prefix_bits = if address.is_ipv4() { 32 } else { 128 };
                let added = addresses.push(IpCidr::new(address.into(), prefix_bits));
                debug_assert!(added.is_ok(), "a feature of smoltcp says how many addresses there may be");
            }
        });
        // There is one way out, to the guest: the gateway's address is never used.
        let routes = interface.routes_mut();
        let is_added = [
            routes.add_default_ipv4_route(Ipv4Addr::LOCALHOST).is_ok(),
            routes.add_default_ipv6_route(Ipv6Addr::LOCALHOST).is_ok(),
        ];
        debug_assert_eq!(is_added, [true; 2], "there is room for two routes");
        Self { asker, queues, interface, sockets: SocketSet::new(Vec::new()), connections: Vec::new() }
    }

    pub(super) fn asker(&self) -> &Asker {
        &self.asker
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Makes a socket for a connection that begins, if there is room: in the pool, and among the ENI's own, where one between
    /// two requests gives way. Without a socket the stack refuses the connection.
    pub(super) fn make_room(&mut self, ends: SegmentEnds, pool_has_room: bool, now: Instant) {
        let local = IpEndpoint::new(ends.to.0.into(), ends.to.1);
        let remote = IpEndpoint::new(ends.from.0.into(), ends.from.1);
        let is_known = self.connections.iter().any(|connection| {
            let socket = self.sockets.get::<Socket<'_>>(connection.handle);
            socket.remote_endpoint() == Some(remote) && socket.local_endpoint() == Some(local)
        });
        if is_known {
            return;
        }
        if self.connections.len() >= CONNECTIONS_PER_ENI_MAX || !pool_has_room {
            let sockets = &self.sockets;
            let is_idle = |connection: &&GuestConnection| {
                let socket = sockets.get::<Socket<'_>>(connection.handle);
                connection.input.is_empty()
                    && connection.output.is_empty()
                    && socket.send_queue() == 0
                    && socket.state() != State::SynReceived
            };
            let idle = self.connections.iter().filter(is_idle).min_by_key(|connection| connection.deadline);
            let Some(idle) = idle.map(|connection| connection.handle) else { return };
            self.sockets.get_mut::<Socket<'_>>(idle).abort();
            self.interface.poll_egress(now, &mut self.queues, &mut self.sockets);
            self.remove(idle);
        }
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        if socket.listen(local).is_err() {
            return;
        }
        let deadline = now + Duration::from_millis(REQUEST_MS.unsigned_abs());
        let handle = self.sockets.add(socket);
        let (input, output) = (Vec::new(), Vec::new());
        self.connections.push(GuestConnection { handle, port: ends.to.1, input, output, is_closing: false, deadline });
    }

    fn remove(&mut self, handle: SocketHandle) {
        self.connections.retain(|connection| connection.handle != handle);
        self.sockets.remove(handle);
    }

    pub(super) fn receive(&mut self, packet: &[u8], now: Instant) {
        self.queues.incoming.push_back(packet.to_vec());
        self.interface.poll(now, &mut self.queues, &mut self.sockets);
    }

    /// Has requests answered, and ends connections that are over or late.
    pub(super) fn serve(&mut self, respond: &mut dyn Respond, now: Instant) {
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
            if now >= connection.deadline {
                socket.abort();
                continue;
            }
            serve_connection((connection, socket), (&self.asker, respond), now);
        }
        self.interface.poll(now, &mut self.queues, &mut self.sockets);
        let over: Vec<SocketHandle> = self.connections.iter().map(|connection| connection.handle).collect();
        for handle in over {
            // A socket that still listens was made for a segment that did not begin a connection. One that only waits for
            // late segments has nothing to send any more: who sends one is answered by a reset.
            if matches!(self.sockets.get::<Socket<'_>>(handle).state(), State::Closed | State::Listen | State::TimeWait)
            {
                self.remove(handle);
            }
        }
    }

    /// Hands over what is to be sent.
    pub(super) fn send_to(&mut self, eni: ServedEni, send: &mut dyn FnMut(&ServiceFrame<'_>)) {
        for packet in self.queues.outgoing.drain(..) {
            send(&ServiceFrame { eni, mtu_bytes: 0, names: ["", ""], packet: &packet });
        }
    }

    pub(super) fn next_due(&mut self, now: Instant) -> Option<Instant> {
        let deadline = self.connections.iter().map(|connection| connection.deadline).min();
        [self.interface.poll_at(now, &self.sockets), deadline].into_iter().flatten().min()
    }
}

fn serve_connection(
    (connection, socket): (&mut GuestConnection, &mut Socket<'_>),
    (asker, respond): (&Asker, &mut dyn Respond),
    now: Instant,
) {
    loop {
        // One request at a time: the next one waits in the window until the reply is in the socket.
        if connection.output.is_empty() && !connection.is_closing {
            while socket.can_recv() && connection.input.len() < INPUT_BYTES_MAX {
                let room = INPUT_BYTES_MAX - connection.input.len();
                let taken = socket.recv(|bytes| {
                    let length = bytes.len().min(room);
                    connection.input.extend_from_slice(&bytes[..length]);
                    (length, length)
                });
                if taken.is_err() {
                    break;
                }
            }
            if !connection.input.is_empty()
                && let Reaction::Reply { consumed, bytes, closes, hop_limit } =
                    respond.respond(asker, connection.port, &connection.input)
            {
                connection.input.drain(..consumed.min(connection.input.len()));
                connection.output = bytes;
                connection.is_closing = closes;
                connection.deadline = now + Duration::from_millis(REQUEST_MS.unsigned_abs());
                socket.set_hop_limit(hop_limit);
            } else if connection.input.len() >= INPUT_BYTES_MAX || !socket.may_recv() {
                // More than any request has, or the client has ended in the middle of one.
                connection.is_closing = !matches!(socket.state(), State::Listen | State::SynReceived);
            }
        }
        let had_output = !connection.output.is_empty();
        if had_output {
            let sent = socket.send_slice(&connection.output).unwrap_or(connection.output.len());
            connection.output.drain(..sent);
        }
        if !connection.output.is_empty() {
            return;
        }
        if connection.is_closing {
            return socket.close();
        }
        if !had_output {
            return;
        }
    }
}
