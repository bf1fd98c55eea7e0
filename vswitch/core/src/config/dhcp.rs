//! What the guests of a VPC are told about their network by DHCP (RFC 2131, RFC 8415) and router advertisements
//! (RFC 4861), beside what follows from their ENI and subnet.

use crate::config::services::{NAME_SERVERS_V4, NAME_SERVERS_V6};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use serde::{Deserialize, Serialize};

/// Name servers, or time servers, of one set.
const SERVERS_MAX: usize = 8;
/// Bytes of a domain name as text (RFC 1035 §2.3.4), or of another text that one option carries.
const TEXT_BYTES_MAX: usize = 253;
/// The shortest lease, seconds.
const LEASE_S_MIN: u32 = 60;

/// The DHCP options set of a VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DhcpOptionsSet {
    /// Name servers of both families (options 6 and 23, RDNSS).
    pub name_servers: Vec<IpAddr>,
    /// The domain of the guests, and the one that they search (options 15, 119 and 24, DNSSL).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// Time servers (option 42).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<Ipv4Addr>,
    /// How long an IPv4 address is leased, seconds.
    pub lease_s: u32,
    /// How long an IPv6 address is leased, seconds.
    pub ipv6_lease_s: u32,
    /// The name of a boot file (option 67).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_file: Option<String>,
    /// The name or address of the server that has it (option 66).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tftp_server: Option<String>,
}

impl DhcpOptionsSet {
    /// The name servers of the switch: at the cloud's addresses, and at addresses for guests with IPv6 alone.
    pub const NAME_SERVERS: [IpAddr; 4] = [
        IpAddr::V4(NAME_SERVERS_V4[0]),
        IpAddr::V4(NAME_SERVERS_V4[1]),
        IpAddr::V6(NAME_SERVERS_V6[0]),
        IpAddr::V6(NAME_SERVERS_V6[1]),
    ];
    /// The default lease: a day.
    pub const LEASE_S: u32 = 86_400;

    /// The name servers of one family.
    pub fn ipv4_name_servers(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.name_servers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(*server),
            IpAddr::V6(_) => None,
        })
    }

    /// The name servers of the other family.
    pub fn ipv6_name_servers(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.name_servers.iter().filter_map(|server| match server {
            IpAddr::V4(_) => None,
            IpAddr::V6(server) => Some(*server),
        })
    }

    /// What is wrong with it, if anything is.
    pub fn fault(&self) -> Option<&'static str> {
        let texts = [&self.boot_file, &self.tftp_server];
        let is_text = |text: &String| (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b >= b' ');
        if self.name_servers.len() > SERVERS_MAX || self.ntp_servers.len() > SERVERS_MAX {
            return Some("a VPC has at most 8 name servers and 8 time servers");
        }
        if self.domain_name.as_ref().is_some_and(|name| !is_domain_name(name)) {
            return Some("a domain name has labels of letters, digits, - and _");
        }
        if self.lease_s < LEASE_S_MIN || self.ipv6_lease_s < LEASE_S_MIN {
            return Some("an address is leased for 60 s at least");
        }
        let is_wrong = texts.into_iter().flatten().any(|text| !is_text(text));
        is_wrong.then_some("the text of an option has 1 to 253 printable bytes")
    }
}

impl Default for DhcpOptionsSet {
    fn default() -> Self {
        Self {
            name_servers: Self::NAME_SERVERS.to_vec(),
            domain_name: None,
            ntp_servers: Vec::new(),
            lease_s: Self::LEASE_S,
            ipv6_lease_s: Self::LEASE_S,
            boot_file: None,
            tftp_server: None,
        }
    }
}

/// Whether a text is one or more labels with dots between them (RFC 1035 §2.3.1, and underscores).
pub(super) fn is_domain_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= TEXT_BYTES_MAX && text.split('.').all(is_label)
}
