//! The words for the way out of a VPC.

use super::{choice, vocabulary};
use clap::Args;
use serde::{Deserialize, Serialize};
use vswitch_core::config::uplink::NatFiltering;

/// What an uplink's frames go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UplinkKind {
    /// A TAP device of the machine, whose kernel is the next hop.
    #[default]
    Host,
    /// An interface that exists.
    Interface,
    /// A Unix stream socket.
    Stream,
    /// A device with an address of its own on the network of another device.
    Macvtap,
}

impl UplinkKind {
    /// Every kind with its name.
    pub const NAMES: [(Self, &'static str); 4] =
        [(Self::Host, "host"), (Self::Interface, "interface"), (Self::Stream, "stream"), (Self::Macvtap, "macvtap")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// What happens to private IPv4 source addresses on an uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UplinkNat {
    /// They are translated: as the NAT gateways of the VPC say; to the uplink's own address if there are none.
    #[default]
    Source,
    /// They leave as they are, unless an address of their own stands for them.
    None,
}

impl UplinkNat {
    /// Both with their names.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Source, "source"), (Self::None, "none")];
}

const FILTERING: [(NatFiltering, &str); 2] = [(NatFiltering::Session, "session"), (NatFiltering::Endpoint, "endpoint")];

vocabulary! {
    /// Makes the way out of a VPC.
    #[derive(Args)]
    UplinkCreate {
        /// `upl-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The VPC, which has no uplink yet.
        #[arg(long)]
        vpc: String,
        /// What its frames go through. `host`: a TAP device that is made, with the machine's kernel as the next hop;
        /// `interface`: an interface that exists; `macvtap`: a device that is made on the network of another, with a
        /// hardware address of its own; `stream`: a Unix stream socket, as of passt; `host` if absent.
        #[arg(long, value_parser = choice(UplinkKind::NAMES))]
        kind: Option<UplinkKind>,
        /// The name of a device: of the TAP device that is made for a `host`, by default after the identifier; of the
        /// interface; of the device whose network a `macvtap` is on.
        #[arg(long)]
        device: Option<String>,
        /// The named network namespace that the device is in, such as that of a router; the machine's own if absent.
        #[arg(long)]
        namespace: Option<String>,
        /// The Unix stream socket, on which each frame follows its length.
        #[arg(long, value_name = "PATH")]
        stream: Option<String>,
        /// Whether somebody else listens at the socket, and the switch connects to it.
        #[serde(default)]
        #[arg(long)]
        client: bool,
        /// Who may connect to the socket, by name or number; the user of the switch if absent.
        #[arg(long, value_name = "USER")]
        socket_user: Option<String>,
        /// The VPC's own IPv4 address outside, with the length of the link's prefix, as in `192.0.2.2/24`; chosen for a
        /// `host`.
        #[arg(long)]
        address: Option<String>,
        /// The IPv4 address of the router that packets go to.
        #[arg(long)]
        next_hop: Option<String>,
        /// The VPC's own IPv6 address outside, with the length of the link's prefix; chosen for a `host` if the VPC has
        /// an IPv6 block.
        #[arg(long)]
        ipv6_address: Option<String>,
        /// The IPv6 address of the router that packets go to.
        #[arg(long)]
        ipv6_next_hop: Option<String>,
        /// The largest packet, bytes; 1500 if absent.
        #[arg(long)]
        mtu: Option<u16>,
        /// Blocks of external IPv4 addresses, from which floating addresses come; 198.18.0.0/15, which is nobody's on
        /// the Internet, if absent.
        #[serde(default)]
        #[arg(long = "addresses", value_name = "CIDR", num_args = 1..)]
        addresses: Vec<String>,
        /// What happens to private IPv4 source addresses. `source`: they are translated as the NAT gateways of the VPC
        /// say, or to the uplink's own address if there are none; `none`: they leave as they are.
        #[arg(long, value_parser = choice(UplinkNat::NAMES))]
        nat: Option<UplinkNat>,
        /// Who may use the external port of a connection that was opened inside. `session`: whoever it has a session
        /// with; `endpoint`: anybody whom the ingress rules admit; `session` if absent.
        #[arg(long, value_parser = choice(FILTERING))]
        nat_filtering: Option<NatFiltering>,
        /// How many blocks of 64 external ports one ENI may have; 64 if absent.
        #[arg(long, value_name = "N")]
        nat_port_blocks: Option<u16>,
        /// The least time for which an idle UDP mapping stays, seconds; 120 if absent.
        #[arg(long, value_name = "SECONDS")]
        nat_udp_timeout_s: Option<u16>,
        /// Whether the machine translates what leaves a `host` uplink to its own address and forwards it: one table of
        /// nftables, which goes with the uplink.
        #[serde(default)]
        #[arg(long)]
        masquerade: bool,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    }

    /// Changes an uplink. Absent fields stay.
    #[derive(Args)]
    UplinkModify {
        /// The uplink.
        uplink: String,
        /// All blocks of external addresses; those in use have to stay.
        #[arg(long = "addresses", value_name = "CIDR", num_args = 1..)]
        addresses: Option<Vec<String>>,
        /// What happens to private IPv4 source addresses.
        #[arg(long, value_parser = choice(UplinkNat::NAMES))]
        nat: Option<UplinkNat>,
        /// Who may use the external port of a connection that was opened inside.
        #[arg(long, value_parser = choice(FILTERING))]
        nat_filtering: Option<NatFiltering>,
        /// How many blocks of 64 external ports one ENI may have.
        #[arg(long, value_name = "N")]
        nat_port_blocks: Option<u16>,
        /// The least time for which an idle UDP mapping stays, seconds.
        #[arg(long, value_name = "SECONDS")]
        nat_udp_timeout_s: Option<u16>,
        /// Whether the machine translates what leaves to its own address.
        #[arg(long)]
        masquerade: Option<bool>,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
    }

    /// Removes an uplink: nothing leaves the VPC any more.
    #[derive(Args)]
    UplinkDelete {
        /// The uplink.
        uplink: String,
    }
}
