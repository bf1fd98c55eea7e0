//! Names of objects. Configuration uses text identifiers; packets only meet the dense numbers that a
//! [`Snapshot`](crate::compile::snapshot::Snapshot) assigns to them.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::Ipv6Addr;
use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

/// Text that a user wrote, in the form in which an error message repeats it: `"10.0.0.0/33"`.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

text_id! {
    /// A virtual private cloud, `vpc-…`.
    VpcId,
    /// A subnet of a VPC, `vsw-…`.
    VSwitchId,
    /// A network interface, `eni-…`.
    EniId,
    /// A security group, `sg-…`.
    GroupId,
    /// A rule of a security group, `sgr-…`.
    RuleId,
    /// A list of address prefixes, `pl-…`.
    PrefixListId,
    /// A list of port ranges, `prl-…`.
    PortListId,
    /// The way out of a VPC, `upl-…`.
    UplinkId,
}

impl UplinkId {
    /// The name of the uplink's interface among those of ENIs: ports, counters and packets treat the two alike.
    pub fn interface(&self) -> EniId {
        EniId(self.0.clone())
    }
}

/// An ENI's index in a snapshot. An ENI keeps its number over all generations in which it exists; another ENI gets the
/// number only together with a new [`EniEpoch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EniIndex(pub u32);

/// A VPC's index in a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VpcIndex(pub u32);

/// The number by which sessions tell ENIs apart. It is not reused for long enough that the sessions of a removed ENI
/// can be left to expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EniEpoch(pub u32);

/// An Ethernet hardware address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether the group bit is set: broadcast or multicast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The link-local IPv6 address that follows from it (RFC 4291 appendix A).
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Text that is not a hardware address of six colon-separated octets.
#[derive(Debug, thiserror::Error)]
#[error("not a hardware address like 02:00:00:00:00:01")]
pub struct MacAddressError;

impl core::str::FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(MacAddressError)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| MacAddressError)?;
        }
        if parts.next().is_some() { Err(MacAddressError) } else { Ok(Self(octets)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
