//! What the guests of a VPC are told about their network: from the options set that is attached to it.

use crate::model::{Metadata, Model};
use vswitch_core::config::dhcp::DhcpOptionsSet;
use vswitch_core::config::ids::VpcId;

/// What the options set of a VPC is noted under, with the VPC.
pub(crate) const ATTACHED_SET: &str = "DhcpOptionsSetId";

/// The options of a VPC; those of the cloud where nothing is said.
pub(crate) fn options_of(model: &Model, vpc: &VpcId) -> DhcpOptionsSet {
    let default = DhcpOptionsSet::default();
    let Some(set) = set_of(model, vpc) else { return default };
    let text = |name: &str| Some(set.attribute(name).to_owned()).filter(|text| !text.is_empty());
    let servers = text("DomainNameServers").unwrap_or_default();
    let servers: Vec<_> = servers.split(',').filter_map(|server| server.trim().parse().ok()).collect();
    let options = DhcpOptionsSet {
        name_servers: if servers.is_empty() { default.name_servers } else { servers },
        domain_name: text("DomainName").map(|domain| domain.trim_end_matches('.').to_owned()),
        ntp_servers: Vec::new(),
        lease_s: text("LeaseTime").and_then(|lease| seconds(&lease)).unwrap_or(default.lease_s),
        ipv6_lease_s: text("Ipv6LeaseTime").and_then(|lease| seconds(&lease)).unwrap_or(default.ipv6_lease_s),
        boot_file: text("BootFileName"),
        tftp_server: text("TFTPServerName"),
    };
    // A set that was noted before it was told to anybody was checked less.
    Some(options).filter(|options| options.fault().is_none()).unwrap_or_default()
}

/// Whether what guests of a VPC are told depends on the object of this identifier.
pub(crate) fn depends_on(model: &Model, vpc: &VpcId, object: &str) -> bool {
    vpc.as_str() == object || model.label(vpc.as_str()).attribute(ATTACHED_SET) == object
}

fn set_of<'a>(model: &'a Model, vpc: &VpcId) -> Option<&'a Metadata> {
    let set = model.label(vpc.as_str()).attribute(ATTACHED_SET);
    (!set.is_empty()).then(|| model.label(set))
}

/// A lease such as 24h or 10d, seconds.
fn seconds(lease: &str) -> Option<u32> {
    let (number, unit_s) = match (lease.strip_suffix('h'), lease.strip_suffix('d')) {
        (Some(hours), _) => (hours, 3600),
        (_, Some(days)) => (days, 86_400),
        (None, None) => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(unit_s)
}
