//! What the services process may know about an ENI: what its own guest is told, and nothing of rules or of others'
//! secrets. The control plane sends records as lines of JSON.

use crate::config::ids::{EniId, MacAddress, VSwitchId, VpcId};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Bytes of one line, its end included. Metadata of one object, with user data, is at most 64 KiB.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// One line from the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RecordLine {
    /// All records follow.
    Begin {
        /// The secret that tokens of the metadata service are made with, in hexadecimal.
        token_key: String,
    },
    /// The record of an ENI as it is from now on; `None` if there is no such ENI.
    Record {
        /// The ENI.
        eni: EniId,
        /// Its record.
        record: Option<Box<GuestRecord>>,
    },
    /// All records have been sent: those that were not sent again are gone. Changes follow as they happen.
    Complete {},
}

/// What the guest of one ENI may be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestRecord {
    /// The VPC.
    pub vpc: VpcId,
    /// The blocks of the VPC, its own first.
    pub vpc_blocks: Vec<IpNet>,
    /// The subnet.
    pub vswitch: VSwitchId,
    /// The IPv4 block of the subnet.
    pub ipv4_block: Ipv4Net,
    /// The IPv6 block of the subnet.
    pub ipv6_block: Option<Ipv6Net>,
    /// The router's IPv4 address.
    pub ipv4_gateway: Ipv4Addr,
    /// The router's IPv6 address.
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// The hardware address.
    pub mac: MacAddress,
    /// IPv4 addresses, the primary one first.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
    /// User data of the ENI itself, in Base64; that of an instance takes its place.
    #[serde(default)]
    pub user_data: String,
    /// The public address, if there is one.
    pub public_ipv4: Option<Ipv4Addr>,
    /// The name servers that the guest is told by DHCP.
    pub name_servers: Vec<IpAddr>,
    /// The time servers that it is told.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// The region.
    pub region: String,
    /// The zone.
    pub zone: String,
    /// The account that owns it.
    pub owner: String,
    /// Whether names outside of the VPC are looked up for its guests.
    pub forwards_dns: bool,
    /// The instance that the ENI belongs to.
    pub instance: Option<InstanceRecord>,
}

/// What the guests of an instance may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceRecord {
    /// The identifier.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// The host name.
    pub host_name: String,
    /// The type.
    pub instance_type: String,
    /// The image.
    pub image: String,
    /// The serial number in its firmware.
    pub serial_number: String,
    /// Its interfaces, the primary one first.
    pub enis: Vec<EniId>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Public keys by the names of their pairs.
    pub public_keys: BTreeMap<String, String>,
    /// User data in Base64, as the API was given it; empty if there is none.
    pub user_data: String,
    /// Whether metadata is served at all.
    pub has_metadata: bool,
    /// Whether every request needs a token.
    pub needs_token: bool,
    /// How many hops a new token may travel, if not as many as any packet.
    pub put_response_hop_limit: Option<u8>,
}
