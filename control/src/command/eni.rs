//! The words for network interfaces.

use super::vocabulary;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::Read;
use vswitch_core::config::desired::{
    DesiredPort, PacketPort, StreamPort, TapPort, TapSocketPort, Timeouts, Tracking, VhostUserPort,
};
use vswitch_core::config::rate_limits::RateLimits;

/// Bytes of the user data of an ENI, as of an instance in the cloud.
pub(crate) const USER_DATA_BYTES_MAX: usize = 32 << 10;

vocabulary! {
    /// Makes a network interface.
    #[derive(Args)]
    EniCreate {
        /// `eni-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The subnet it is in.
        #[arg(long)]
        vswitch: String,
        /// The primary IPv4 address; the lowest free one of the subnet if absent.
        #[serde(alias = "ip")]
        #[arg(long = "ip", alias = "primary-ip")]
        primary_ip: Option<String>,
        /// Secondary IPv4 addresses, at most 49.
        #[serde(default)]
        #[arg(long = "secondary-ip")]
        secondary_ips: Vec<String>,
        /// IPv6 addresses, at most 10.
        #[serde(default)]
        #[arg(long = "ipv6")]
        ipv6_addresses: Vec<String>,
        /// How many IPv6 addresses to choose besides.
        #[serde(default)]
        #[arg(long, default_value_t = 0)]
        ipv6_count: u8,
        /// Delegated prefixes: IPv4 /28 or IPv6 /80.
        #[serde(default)]
        #[arg(long = "prefix")]
        prefixes: Vec<String>,
        /// The hardware address, as in `02:00:00:00:00:01`; a random locally administered one if absent.
        #[arg(long)]
        mac: Option<String>,
        /// The groups it is a member of, all of one kind and of the subnet's VPC; the VPC's default group, made when
        /// first needed, if empty.
        #[serde(default)]
        #[arg(long = "group")]
        groups: Vec<String>,
        /// Whether what it sends must carry its own address and what it gets must be for one; a router turns it off. If
        /// absent so it is, and blocks that a custom route sends to it count as its own.
        #[arg(long = "no-source-dest-check", num_args = 0, default_missing_value = "false")]
        source_dest_check: Option<bool>,
        /// How long its sessions may idle.
        #[command(flatten)]
        timeouts: Option<TimeoutsChange>,
        /// The most sessions it may hold at once.
        #[arg(long)]
        sessions_max: Option<u32>,
        /// What it may ask of the session tables, and what is checked besides rules.
        #[command(flatten)]
        tracking: Option<TrackingChange>,
        /// How much it may send and receive.
        #[command(flatten)]
        rate_limits: Option<RateLimitsChange>,
        /// The instance it belongs to, if any.
        #[arg(long)]
        instance: Option<String>,
        /// Whether it goes with an instance that it is attached to; it does if absent.
        #[arg(long)]
        delete_on_release: Option<bool>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
        /// User data: text that its guest reads from the metadata service, such as a file for cloud-init. That of an
        /// instance, if it belongs to one, takes its place.
        #[arg(long, value_name = "FILE", value_parser = text_file)]
        user_data: Option<String>,
        /// Where its frames come from and go to; none yet if absent.
        #[arg(skip)]
        port: Option<DesiredPort>,
    }

    /// Idle timeouts, seconds. Absent fields stay, or have their defaults in a new ENI.
    #[derive(Args)]
    TimeoutsChange {
        /// Established TCP: 30, 60, 80, 100, 200, 300, 500, 700 or 910.
        #[arg(long)]
        tcp_established_s: Option<u16>,
        /// Closed TCP: 3 to 15.
        #[arg(long)]
        tcp_closed_s: Option<u16>,
        /// UDP: 10, 20, 30, 60, 80 or 100.
        #[arg(long)]
        udp_s: Option<u16>,
    }

    /// What an ENI may ask of the session tables. Absent fields stay, or have their defaults in a new ENI.
    #[derive(Args)]
    TrackingChange {
        /// Sessions that find room even in a full table.
        #[arg(long)]
        sessions_guaranteed: Option<u32>,
        /// Sessions that it may open in a second; 0 for as many as it likes.
        #[arg(long)]
        new_sessions_per_s: Option<u32>,
        /// Whether TCP segments outside of their window drop.
        #[arg(long)]
        tcp_window_check: Option<bool>,
    }

    /// How much an ENI may send and receive. Absent fields stay, or have their defaults in a new ENI; 0 is unlimited.
    #[derive(Args)]
    RateLimitsChange {
        /// Kilobits of frames that its guest may send per second; 0 is unlimited.
        #[arg(long)]
        egress_kbit_per_s: Option<u32>,
        /// Packets that its guest may send per second; 0 is unlimited.
        #[arg(long)]
        egress_packets_per_s: Option<u32>,
        /// Kilobits of frames that its guest may receive per second; 0 is unlimited.
        #[arg(long)]
        ingress_kbit_per_s: Option<u32>,
        /// Packets that its guest may receive per second; 0 is unlimited.
        #[arg(long)]
        ingress_packets_per_s: Option<u32>,
        /// How much of each may come at once after a pause: what the rate allows in so many ms, 1 to 10,000; 50 by
        /// default.
        #[arg(long = "rate-burst-ms")]
        burst_ms: Option<u32>,
    }

    /// Changes a network interface. Absent fields stay.
    #[derive(Args)]
    EniModify {
        /// The ENI.
        eni: String,
        /// The whole new set of groups.
        #[arg(long = "group")]
        groups: Option<Vec<String>>,
        /// Whether addresses are checked.
        #[arg(long)]
        source_dest_check: Option<bool>,
        /// How long sessions that start from now on may idle.
        #[command(flatten)]
        timeouts: Option<TimeoutsChange>,
        /// The most sessions it may hold at once.
        #[arg(long)]
        sessions_max: Option<u32>,
        /// What it may ask of the session tables, and what is checked besides rules.
        #[command(flatten)]
        tracking: Option<TrackingChange>,
        /// How much it may send and receive.
        #[command(flatten)]
        rate_limits: Option<RateLimitsChange>,
        /// Whether it goes with an instance that it is attached to.
        #[arg(long)]
        delete_on_release: Option<bool>,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
        /// New user data; an empty file for none.
        #[arg(long, value_name = "FILE", value_parser = text_file)]
        user_data: Option<String>,
    }

    /// Removes a network interface.
    #[derive(Args)]
    EniDelete {
        /// The ENI.
        eni: String,
        /// Also if it is attached to a port.
        #[serde(default)]
        #[arg(long)]
        force: bool,
    }

    /// Gives an ENI addresses.
    #[derive(Args)]
    EniAssign {
        /// The ENI.
        eni: String,
        /// Addresses of its subnet's IPv4 or IPv6 block.
        #[serde(default)]
        #[arg(long = "address")]
        addresses: Vec<String>,
        /// Delegated prefixes: IPv4 /28 or IPv6 /80.
        #[serde(default)]
        #[arg(long = "prefix")]
        prefixes: Vec<String>,
        /// How many secondary IPv4 addresses to choose besides.
        #[serde(default)]
        #[arg(long, default_value_t = 0)]
        ipv4_count: u8,
        /// How many IPv6 addresses to choose besides.
        #[serde(default)]
        #[arg(long, default_value_t = 0)]
        ipv6_count: u8,
        /// How many IPv4 prefixes to choose and delegate besides.
        #[serde(default)]
        #[arg(long, default_value_t = 0)]
        ipv4_prefix_count: u8,
        /// How many IPv6 prefixes to choose and delegate besides.
        #[serde(default)]
        #[arg(long, default_value_t = 0)]
        ipv6_prefix_count: u8,
    }

    /// Takes addresses from an ENI.
    #[derive(Args)]
    EniUnassign {
        /// The ENI.
        eni: String,
        /// Its addresses to take, but the primary one.
        #[serde(default)]
        #[arg(long = "address")]
        addresses: Vec<String>,
        /// Its delegated prefixes to take.
        #[serde(default)]
        #[arg(long = "prefix")]
        prefixes: Vec<String>,
    }

    /// Unplugs an ENI.
    #[derive(Args)]
    EniDetach {
        /// The ENI.
        eni: String,
    }

    /// Where the frames of an ENI come from and go to, as people say it: with a namespace or a device a TAP device, with a
    /// host interface that interface, with a socket a virtual machine.
    #[derive(Args)]
    PortSpecification {
        /// The TAP device's name; `eth0` in a namespace.
        #[arg(long)]
        device: Option<String>,
        /// The named network namespace it is in; one for a TAP device is made if it does not exist.
        #[arg(long)]
        namespace: Option<String>,
        /// Instead of a TAP device, an interface that exists, as a card or one end of a veth pair: the guest is what is
        /// behind it.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["device", "configure"])]
        host_interface: Option<String>,
        /// Instead of a device, a virtual machine that shares its memory: the Unix socket of its vhost-user network device,
        /// where the switch listens.
        #[arg(
            long,
            value_name = "PATH",
            group = "socket",
            conflicts_with_all = ["device", "namespace", "host_interface", "configure"]
        )]
        vhost_user: Option<String>,
        /// Instead of a device, a Unix stream socket on which each frame follows its length, as QEMU's `-netdev stream`
        /// and passt speak it: where the switch listens.
        #[arg(
            long,
            value_name = "PATH",
            group = "socket",
            conflicts_with_all = ["device", "namespace", "host_interface", "configure"]
        )]
        stream: Option<String>,
        /// Instead of a device that the switch makes, a TAP device that another process makes, also in namespaces of its own,
        /// and hands over at this Unix socket: `sluice port pass`.
        #[arg(
            long,
            value_name = "PATH",
            group = "socket",
            conflicts_with_all = ["device", "namespace", "host_interface", "configure", "client"]
        )]
        tap_socket: Option<String>,
        /// Whether the hypervisor listens at the socket, and the switch connects to it.
        #[serde(default)]
        #[arg(long, requires = "socket")]
        client: bool,
        /// The most pairs of queues that the virtual machine may use; 16 if absent.
        #[arg(long, requires = "vhost_user")]
        queues: Option<u16>,
        /// Who may connect to the socket, by name or number; the user of the switch if absent.
        #[arg(long, value_name = "USER", requires = "socket")]
        socket_user: Option<String>,
        /// Whether the TAP device gets addresses, routes and link state; left to the guest, as by a virtual machine, one
        /// that is made in a namespace gets the ENI's hardware address and MTU alone.
        #[arg(long = "no-configure", num_args = 0, default_missing_value = "false")]
        configure: Option<bool>,
        /// The largest packet, bytes; 1500 if absent.
        #[arg(long)]
        mtu: Option<u16>,
    }
}

/// The text of the file that an option names.
fn text_file(path: &str) -> Result<String, String> {
    let read = std::fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        // One byte more than there may be, so that too much is told from just enough.
        file.take(USER_DATA_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
        Ok(text)
    });
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => format!("{path} is no text: user data is text in UTF-8"),
        _ => format!("{path}: {error}"),
    })
}

impl PortSpecification {
    /// The port, if one is described.
    ///
    /// # Errors
    /// In words, where what is said excludes each other.
    pub fn port(&self) -> Result<Option<DesiredPort>, &'static str> {
        let Self {
            device,
            namespace,
            host_interface,
            vhost_user,
            stream,
            tap_socket,
            client,
            queues,
            socket_user,
            configure,
            mtu,
        } = self.clone();
        let mtu_bytes = mtu.unwrap_or(TapPort::default_mtu_bytes());
        let has_device = device.is_some() || namespace.is_some() || host_interface.is_some() || configure.is_some();
        let sockets = [&vhost_user, &stream, &tap_socket].into_iter().flatten().count();
        if sockets > 1 {
            return Err("vhost_user, stream and tap_socket are sockets of different kinds: name one");
        }
        if has_device && sockets > 0 {
            return Err(
                "vhost_user, stream and tap_socket name a socket; leave device, namespace, host_interface and configure out",
            );
        }
        if queues.is_some() && vhost_user.is_none() {
            return Err("queues are of a virtual machine that shares its memory: name its socket by vhost_user");
        }
        if let Some(path) = tap_socket {
            if client {
                return Err("at tap_socket the switch listens: leave client out");
            }
            return Ok(Some(DesiredPort::TapSocket(TapSocketPort { path, socket_user, mtu_bytes })));
        }
        if let Some(path) = stream {
            return Ok(Some(DesiredPort::Stream(StreamPort { path, is_client: client, socket_user, mtu_bytes })));
        }
        if let Some(path) = vhost_user {
            let queues = queues.unwrap_or(VhostUserPort::default_queues());
            let port = VhostUserPort { path, is_client: client, queues, socket_user, mtu_bytes };
            return Ok(Some(DesiredPort::VhostUser(port)));
        }
        if client || socket_user.is_some() {
            return Err("client and socket_user are of a socket: name it by vhost_user, stream or tap_socket");
        }
        if let Some(interface) = host_interface {
            if device.is_some() || configure.is_some() {
                return Err("host_interface names a device that is there; leave device and configure out");
            }
            return Ok(Some(DesiredPort::Packet(PacketPort { device: interface, namespace, mtu_bytes })));
        }
        let default = namespace.is_some().then(|| "eth0".to_owned());
        let Some(device) = device.or(default) else { return Ok(None) };
        let (create_namespace, configure) = (namespace.is_some(), configure.unwrap_or(true));
        Ok(Some(DesiredPort::Tap(TapPort { device, namespace, create_namespace, configure, mtu_bytes })))
    }
}

impl TimeoutsChange {
    /// What becomes of `old`.
    pub fn over(&self, old: Timeouts) -> Timeouts {
        Timeouts {
            tcp_established_s: self.tcp_established_s.unwrap_or(old.tcp_established_s),
            tcp_closed_s: self.tcp_closed_s.unwrap_or(old.tcp_closed_s),
            udp_s: self.udp_s.unwrap_or(old.udp_s),
        }
    }
}

impl TrackingChange {
    /// What becomes of `old`.
    pub fn over(&self, old: Tracking) -> Tracking {
        Tracking {
            sessions_guaranteed: self.sessions_guaranteed.unwrap_or(old.sessions_guaranteed),
            new_sessions_per_s: match self.new_sessions_per_s {
                Some(0) => None,
                Some(rate) => Some(rate),
                None => old.new_sessions_per_s,
            },
            tcp_window_check: self.tcp_window_check.unwrap_or(old.tcp_window_check),
        }
    }
}

impl RateLimitsChange {
    /// The limits after the change of `old`.
    pub fn over(&self, old: RateLimits) -> RateLimits {
        let rate = |new: Option<u32>, old: Option<u32>| match new {
            Some(0) => None,
            Some(rate) => Some(rate),
            None => old,
        };
        RateLimits {
            egress_kbit_per_s: rate(self.egress_kbit_per_s, old.egress_kbit_per_s),
            egress_packets_per_s: rate(self.egress_packets_per_s, old.egress_packets_per_s),
            ingress_kbit_per_s: rate(self.ingress_kbit_per_s, old.ingress_kbit_per_s),
            ingress_packets_per_s: rate(self.ingress_packets_per_s, old.ingress_packets_per_s),
            burst_ms: self.burst_ms.unwrap_or(old.burst_ms),
        }
    }
}

/// Attaches an ENI to a port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EniAttach {
    /// The ENI, not attached yet.
    pub eni: String,
    /// The port.
    pub port: DesiredPort,
}
