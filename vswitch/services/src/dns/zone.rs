//! The names of a VPC.

use crate::directory::{Asker, GuestDirectory};
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::IpAddr;
use vswitch_core::config::services::record::GuestRecord;

/// The domain of all VPCs.
pub(super) const DOMAIN: &str = "sluice";
/// How long a client may remember an answer, seconds: an address may soon be another guest's.
const TTL_S: u32 = 10;

/// What is known of a name.
pub(super) enum NameLookup {
    /// It exists, with these records of the type that was asked for.
    Found(Vec<Record>),
    /// It does not exist.
    Unknown,
    /// It is a name outside of the VPC.
    Elsewhere,
}

pub(super) fn look_up(
    directory: &GuestDirectory,
    (asker, record): (&Asker, &GuestRecord),
    query: &Query,
) -> NameLookup {
    let name = query.name();
    if let Ok(block) = name.parse_arpa_name()
        && block.prefix_len() == block.max_prefix_len()
    {
        return of_address(directory, (asker, record), (name, block.addr()), query.query_type());
    }
    let text = name.to_ascii().to_ascii_lowercase();
    let mut labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
    if labels.pop() != Some(DOMAIN) {
        return NameLookup::Elsewhere;
    }
    match labels.as_slice() {
        [] => NameLookup::Found(Vec::new()),
        // Other VPCs are none of the asker's business.
        [.., vpc] if !vpc.eq_ignore_ascii_case(asker.vpc.as_str()) => NameLookup::Unknown,
        [_] => NameLookup::Found(Vec::new()),
        [guest, _] => of_guest(directory, asker, (name, guest), query.query_type()),
        _ => NameLookup::Unknown,
    }
}

fn of_guest(
    directory: &GuestDirectory,
    asker: &Asker,
    (name, guest): (&Name, &str),
    record_type: RecordType,
) -> NameLookup {
    let mut records = directory.named(&asker.vpc, guest).peekable();
    if records.peek().is_none() {
        return NameLookup::Unknown;
    }
    let data: Vec<RData> = match record_type {
        RecordType::A => records.filter_map(|record| record.ipv4.first()).map(|v4| RData::A(A(*v4))).collect(),
        RecordType::AAAA => records.flat_map(|record| &record.ipv6).map(|v6| RData::AAAA(AAAA(*v6))).collect(),
        _ => Vec::new(),
    };
    NameLookup::Found(data.into_iter().map(|data| Record::from_rdata(name.clone(), TTL_S, data)).collect())
}

fn of_address(
    directory: &GuestDirectory,
    (asker, record): (&Asker, &GuestRecord),
    (name, address): (&Name, IpAddr),
    record_type: RecordType,
) -> NameLookup {
    let guest = directory.name_at(&asker.vpc, address);
    let pointer = guest.and_then(|guest| Name::from_ascii(format!("{guest}.{}.{DOMAIN}.", asker.vpc)).ok());
    match pointer {
        Some(pointer) => {
            let data = (record_type == RecordType::PTR).then_some(RData::PTR(PTR(pointer)));
            NameLookup::Found(data.into_iter().map(|data| Record::from_rdata(name.clone(), TTL_S, data)).collect())
        }
        None if record.vpc_blocks.iter().any(|block| block.contains(&address)) => NameLookup::Unknown,
        None => NameLookup::Elsewhere,
    }
}
