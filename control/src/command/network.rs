//! The commands for networks: VPCs, subnets and routes.

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
        /// Another IPv4 block, which has to contain the subnets that are in the old one.
        #[arg(long)]
        cidr: Option<String>,
        /// Another IPv6 block, which has to contain those of its subnets; empty for none.
        #[arg(long)]
        ipv6_cidr: Option<String>,
        /// Additional IPv4 blocks, which must not overlap each other or those it has.
        #[serde(default)]
        #[arg(long = "add-cidr", value_name = "CIDR")]
        add_cidrs: Vec<String>,
        /// Additional IPv4 blocks to remove, which must not contain a subnet.
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
        /// The instance to route to, where the ENI is its primary interface.
        #[arg(long)]
        instance: Option<String>,
        /// A name for people; by default that of the route it replaces.
        #[arg(long)]
        name: Option<String>,
        /// What it is for; by default that of the route it replaces.
        #[arg(long)]
        description: Option<String>,
    }

    /// Removes a custom route.
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
        /// The IPv4 block, 16 to 29 bits long, inside the VPC's and apart from its other subnets. The first address and
        /// the last three are reserved; the third last is the gateway.
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
        /// Another IPv6 block, allowed only while no interface has an address of the old one; empty for none.
        #[arg(long)]
        ipv6_cidr: Option<String>,
    }

    /// Removes a subnet.
    #[derive(Args)]
    VswitchDelete {
        /// The subnet.
        vswitch: String,
    }

    /// Reserves a part of a subnet's block for delegated prefixes. Give `cidr` or `mask`.
    #[derive(Args)]
    VswitchReserve {
        /// `vcr-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The subnet.
        vswitch: String,
        /// The part: a prefix of at most 28 bits of the IPv4 block, or of at most 80 bits of the IPv6 block.
        #[arg(long)]
        cidr: Option<String>,
        /// The prefix length; the first unused part of this length is reserved.
        #[arg(long)]
        mask: Option<u8>,
        /// Whether `mask` applies to the IPv6 block.
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

    /// Changes a reservation. Absent fields stay.
    #[derive(Args)]
    VswitchReservationModify {
        /// The subnet.
        vswitch: String,
        /// The identifier of the reservation.
        reservation: String,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
    }

    /// Ends a reservation of which no prefix is delegated.
    #[derive(Args)]
    VswitchUnreserve {
        /// The subnet.
        vswitch: String,
        /// The identifier of the reservation.
        reservation: String,
    }

    /// Joins two VPCs: each reaches the subnets of the other directly.
    #[derive(Args)]
    PeeringCreate {
        /// `pcc-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// One VPC.
        vpc: String,
        /// The other, none of whose subnets overlaps those of the first.
        peer: String,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    }

    /// Parts two VPCs.
    #[derive(Args)]
    PeeringDelete {
        /// The peering.
        peering: String,
    }
}
