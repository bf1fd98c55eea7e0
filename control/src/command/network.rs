//! The words for networks: VPCs, subnets and routes.

use super::vocabulary;
use clap::Args;
use serde::{Deserialize, Serialize};

vocabulary! {
    /// Makes a VPC.
    #[derive(Args)]
    VpcCreate {
        /// `vpc-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The IPv4 block, 8 to 28 bits long, as in `10.0.0.0/16`.
        #[arg(long)]
        cidr: String,
        /// The IPv6 block, at most 64 bits long and best 56, as in `2001:db8:1:100::/56`.
        #[arg(long)]
        ipv6_cidr: Option<String>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    }

    /// Changes a VPC. Absent fields stay.
    #[derive(Args)]
    VpcModify {
        /// The VPC.
        vpc: String,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
        /// Another IPv4 block, which has to hold what its subnets have of the old one.
        #[arg(long)]
        cidr: Option<String>,
        /// Another IPv6 block, which has to hold those of its subnets; empty for none.
        #[arg(long)]
        ipv6_cidr: Option<String>,
        /// More IPv4 blocks, apart from each other and from those that it has.
        #[serde(default)]
        #[arg(long = "add-cidr", value_name = "CIDR")]
        add_cidrs: Vec<String>,
        /// Blocks of these to take away, in which no subnet is.
        #[serde(default)]
        #[arg(long = "remove-cidr", value_name = "CIDR")]
        remove_cidrs: Vec<String>,
    }

    /// Removes a VPC.
    #[derive(Args)]
    VpcDelete {
        /// The VPC.
        vpc: String,
    }

    /// Adds or replaces a custom route.
    #[derive(Args)]
    VpcRouteAdd {
        /// The VPC.
        vpc: String,
        /// The destination, IPv4 or IPv6, outside every subnet of the VPC, as in `192.168.0.0/16`.
        destination: String,
        /// The ENI that packets for it go to: in this VPC, normally with its source and destination check off.
        eni: String,
        /// `rte-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The instance that is meant, where the ENI is its primary interface.
        #[arg(long)]
        instance: Option<String>,
        /// A name for people; that of the route it replaces if absent.
        #[arg(long)]
        name: Option<String>,
        /// What it is for; that of the route it replaces if absent.
        #[arg(long)]
        description: Option<String>,
    }

    /// Takes a custom route away.
    #[derive(Args)]
    VpcRouteRemove {
        /// The VPC.
        vpc: String,
        /// The destination of the route.
        destination: String,
    }

    /// Makes a subnet.
    #[derive(Args)]
    VswitchCreate {
        /// `vsw-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The VPC it is part of.
        #[arg(long)]
        vpc: String,
        /// The IPv4 block, 16 to 29 bits long, inside the VPC's and apart from its other subnets. The first and the
        /// last three addresses are the cloud's; the third last is the gateway.
        #[arg(long)]
        cidr: String,
        /// The IPv6 block: a /64 inside the VPC's. The third last address is the gateway.
        #[arg(long)]
        ipv6_cidr: Option<String>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    }

    /// Changes a subnet. Absent fields stay.
    #[derive(Args)]
    VswitchModify {
        /// The subnet.
        vswitch: String,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
        /// Another IPv6 block, as long as no interface has an address of the old one; empty for none.
        #[arg(long)]
        ipv6_cidr: Option<String>,
    }

    /// Removes a subnet.
    #[derive(Args)]
    VswitchDelete {
        /// The subnet.
        vswitch: String,
    }

    /// Keeps a part of a subnet's block for delegated prefixes. Give `cidr` or `mask`.
    #[derive(Args)]
    VswitchReserve {
        /// `vcr-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The subnet.
        vswitch: String,
        /// The part: of the IPv4 block at most 28 bits long, of the IPv6 block at most 80.
        #[arg(long)]
        cidr: Option<String>,
        /// Its length, for the first part in which nothing is.
        #[arg(long)]
        mask: Option<u8>,
        /// Whether `mask` is about the IPv6 block.
        #[serde(default)]
        #[arg(long)]
        ipv6: bool,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
        /// Its tags.
        #[serde(default)]
        #[arg(skip)]
        tags: std::collections::BTreeMap<String, String>,
    }

    /// Changes a part that is kept. Absent fields stay.
    #[derive(Args)]
    VswitchReservationModify {
        /// The subnet.
        vswitch: String,
        /// The part, by its identifier.
        reservation: String,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
    }

    /// Gives a part that was kept back, once no prefix of it is delegated.
    #[derive(Args)]
    VswitchUnreserve {
        /// The subnet.
        vswitch: String,
        /// The part, by its identifier.
        reservation: String,
    }
}
