//! Guests with memory ports, and the packets they send.

pub(crate) mod world;

use vswitch_core::config::desired::Desired;
use vswitch_core::config::ids::EniId;

pub(crate) fn eni(number: u8) -> EniId {
    EniId(format!("eni-{number}"))
}

/// `count` ENIs of one open group, 10.0.0.1 and up.
pub(crate) fn desired(count: u8) -> Desired {
    let mut json = String::new();
    for number in 1..=count {
        json += &format!(
            r#"{}"eni-{number}": {{"vswitch": "vsw-1", "mac": "02:00:00:00:00:{number:02x}", "groups": ["sg-1"],
               "addresses": ["10.0.0.{number}/32"], "port": {{"kind": "memory"}}}}"#,
            if number == 1 { "" } else { "," }
        );
    }
    let json = format!(
        r#"{{"vpcs": {{"vpc-1": {{}}}},
            "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.0.0.0/24", "ipv4_gateway": "10.0.0.253"}}}},
            "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "basic", "inner_access": "accept"}}}},
            "enis": {{{json}}}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

/// A UDP packet with a number in it.
pub(crate) fn udp(from: u8, to: u8, number: u32) -> Vec<u8> {
    let mut frame = vec![0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, from, 8, 0];
    let mut header = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to];
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame.extend(header);
    frame.extend([0x10, 0, 0x20, 0, 0, 12, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame
}

pub(crate) fn number_of(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[frame.len() - 4..].try_into().unwrap())
}
