//! The words for addresses outside: floating addresses (EIPs), NAT gateways, and port forwards.

use super::vocabulary;
use clap::Args;
use serde::{Deserialize, Serialize};

vocabulary! {
    /// Takes an address from the blocks of the uplinks.
    #[derive(Args)]
    EipAllocate {
        /// `eip-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The address; the lowest free one if absent.
        #[arg(long)]
        address: Option<String>,
        /// The block it is taken from while there are no uplinks; 198.18.0.0/15 if absent.
        #[arg(long, value_name = "CIDR")]
        pool: Option<String>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    }

    /// Changes a floating address. Absent fields stay.
    #[derive(Args)]
    EipModify {
        /// The floating address, by its identifier.
        eip: String,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
    }

    /// Makes a floating address stand for a private one, both ways and for all protocols, or gives it to a NAT gateway.
    #[derive(Args)]
    EipAssociate {
        /// The floating address, by its identifier.
        eip: String,
        /// The ENI, the instance, whose primary ENI it is then, or the NAT gateway.
        target: String,
        /// The private IPv4 address of the ENI; the primary one if absent.
        #[arg(long)]
        private_ip: Option<String>,
    }

    /// Ends what a floating address stands for.
    #[derive(Args)]
    EipUnassociate {
        /// The floating address, by its identifier.
        eip: String,
        /// Also if entries of its NAT gateway use it: they end too.
        #[serde(default)]
        #[arg(long)]
        force: bool,
    }

    /// Gives a floating address back. It stands for nothing.
    #[derive(Args)]
    EipRelease {
        /// The floating address, by its identifier.
        eip: String,
    }

    /// Makes a NAT gateway: from then on, only its entries say which private addresses are translated to what.
    #[derive(Args)]
    NatCreate {
        /// `ngw-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The VPC.
        #[arg(long)]
        vpc: String,
        /// The subnet it is placed in, which is stored and without effect.
        #[arg(long)]
        vswitch: Option<String>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    }

    /// Changes a NAT gateway. Absent fields stay.
    #[derive(Args)]
    NatModify {
        /// The NAT gateway.
        nat: String,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
    }

    /// Removes a NAT gateway.
    #[derive(Args)]
    NatDelete {
        /// The NAT gateway.
        nat: String,
        /// Also if it has entries or floating addresses: the entries end, and the addresses stand for nothing.
        #[serde(default)]
        #[arg(long)]
        force: bool,
    }

    /// Translates the private addresses of a subnet or a block to floating addresses of a NAT gateway (SNAT).
    #[derive(Args)]
    SnatAdd {
        /// `snat-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The NAT gateway.
        nat: String,
        /// The subnet whose addresses are translated; instead of a block.
        #[arg(long, conflicts_with = "cidr")]
        vswitch: Option<String>,
        /// The block whose addresses are translated; all if neither is given.
        #[arg(long)]
        cidr: Option<String>,
        /// The external addresses, which are floating addresses of the gateway; all that it has if absent.
        #[serde(default)]
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
    }

    /// Changes an entry for sources. Absent fields stay.
    #[derive(Args)]
    SnatModify {
        /// The entry.
        snat: String,
        /// The external addresses.
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Option<Vec<String>>,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
    }

    /// Ends an entry for sources.
    #[derive(Args)]
    SnatRemove {
        /// The entry.
        snat: String,
    }

    /// Leads ports of an external address to a private one (DNAT).
    #[derive(Args)]
    ForwardAdd {
        /// `fwd-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The VPC.
        #[arg(long)]
        vpc: String,
        /// The external address: a floating address of a NAT gateway of the VPC, or the uplink's own, which it is if
        /// absent.
        #[arg(long, value_name = "ADDRESS")]
        external: Option<String>,
        /// `tcp`, `udp` or `any`, which is both; `tcp` if absent.
        #[arg(long)]
        protocol: Option<String>,
        /// The external ports, as in `80`, `8000-8010` or `any`.
        #[arg(long)]
        ports: String,
        /// The private address they lead to: that of an ENI, which may come later.
        #[arg(long, value_name = "ADDRESS")]
        to: String,
        /// The private port of the first external one, the others follow in order; the same ports if absent.
        #[arg(long, value_name = "PORT")]
        to_port: Option<u16>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
    }

    /// Changes a forward. Absent fields stay.
    #[derive(Args)]
    ForwardModify {
        /// The forward.
        forward: String,
        /// Another external address.
        #[arg(long, value_name = "ADDRESS")]
        external: Option<String>,
        /// Another protocol.
        #[arg(long)]
        protocol: Option<String>,
        /// Other external ports.
        #[arg(long)]
        ports: Option<String>,
        /// Another private address.
        #[arg(long, value_name = "ADDRESS")]
        to: Option<String>,
        /// Another first private port.
        #[arg(long, value_name = "PORT")]
        to_port: Option<u16>,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
    }

    /// Ends a forward.
    #[derive(Args)]
    ForwardRemove {
        /// The forward.
        forward: String,
    }
}
