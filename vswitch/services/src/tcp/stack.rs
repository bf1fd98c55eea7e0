//! The connections of one ENI.

use super::device::PacketQueues;
use super::{BUFFER_BYTES, CONNECTIONS_PER_ENI_MAX, ConnectionId, REQUEST_MS, Reaction, Respond, SegmentEnds};
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
/// How long a client may take to end a connection that the service has ended.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest request, bytes; also what is kept of one that is not whole.
const INPUT_BYTES_MAX: usize = BUFFER_BYTES;

struct GuestConnection {
    handle: SocketHandle,
    id: ConnectionId,
    /// Whether the reply to its request comes later.
    is_waiting: bool,
    input: Vec<u8>,
    /// The rest of a reply that the socket had no room for.
    output: Vec<u8>,
    /// Whether it ends once everything is sent.
    is_closing: bool,
    /// When the request or the reply has to be through.
    deadline: Instant,
}

impl GuestConnection {
    /// Whether it is between two requests.
    fn is_idle(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && !self.is_waiting
    }

    /// Takes a request out of what has arrived.
    fn take(&mut self, consumed: usize, now: Instant) {
        self.input.drain(..consumed.min(self.input.len()));
        self.deadline = now + Duration::from_millis(REQUEST_MS);
    }
}

pub(super) struct TcpStack {
    eni: ServedEni,
    asker: Asker,
    /// Connections that it has had.
    opened: u64,
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
    pub(super) fn new((eni, asker): (ServedEni, Asker), mtu_bytes: u16, seed: u64, now: Instant) -> Self {
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
        Self { eni, asker, opened: 0, queues, interface, sockets: SocketSet::new(Vec::new()), connections: Vec::new() }
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
                connection.is_idle() && socket.send_queue() == 0 && socket.state() != State::SynReceived
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
        let deadline = now + Duration::from_millis(REQUEST_MS);
        let handle = self.sockets.add(socket);
        let (input, output) = (Vec::new(), Vec::new());
        self.opened += 1;
        let id = ConnectionId { eni: self.eni, number: self.opened, port: ends.to.1 };
        self.connections.push(GuestConnection {
            handle,
            id,
            is_waiting: false,
            input,
            output,
            is_closing: false,
            deadline,
        });
    }

    fn remove(&mut self, handle: SocketHandle) {
        self.connections.retain(|connection| connection.handle != handle);
        self.sockets.remove(handle);
    }

    /// Replies to the request of a connection that waits for that.
    pub(super) fn answer(&mut self, number: u64, reply: Vec<u8>) {
        let mut connections = self.connections.iter_mut();
        if let Some(connection) = connections.find(|connection| connection.id.number == number && connection.is_waiting)
        {
            (connection.output, connection.is_waiting) = (reply, false);
        }
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
                // A client that has nothing to ask is told so; one in the middle of something has had its time.
                if connection.is_idle() && !connection.is_closing {
                    (connection.is_closing, connection.deadline) = (true, now + FAREWELL);
                    socket.close();
                } else {
                    socket.abort();
                }
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
    pub(super) fn send_to(&mut self, send: &mut dyn FnMut(&ServiceFrame<'_>)) {
        for packet in self.queues.outgoing.drain(..) {
            send(&ServiceFrame { eni: self.eni, mtu_bytes: 0, names: ["", ""], packet: &packet });
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
        if connection.output.is_empty() && !connection.is_closing && !connection.is_waiting {
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
            let reaction = match connection.input.is_empty() {
                true => Reaction::Wait,
                false => respond.respond(asker, connection.id, &connection.input),
            };
            match reaction {
                Reaction::Reply { consumed, bytes, closes, hop_limit } => {
                    connection.take(consumed, now);
                    (connection.output, connection.is_closing) = (bytes, closes);
                    socket.set_hop_limit(hop_limit);
                }
                Reaction::Later { consumed } => {
                    connection.take(consumed, now);
                    connection.is_waiting = true;
                }
                // More than any request has, or the client has ended in the middle of one.
                Reaction::Wait if connection.input.len() >= INPUT_BYTES_MAX || !socket.may_recv() => {
                    connection.is_closing = !matches!(socket.state(), State::Listen | State::SynReceived);
                }
                Reaction::Wait => {}
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
