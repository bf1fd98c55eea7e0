//! Every kind of reply, byte for byte, in a file that packet analysers read: `scripts/dissect` has `tshark` read it.
//! `WRITE_GOLDEN=1` writes the file anew.

use super::client::{self, Client4, Client6, OWN, OWN_V6};
use super::{SECOND_NS, ServedWorld, network};
use dhcproto::v4::MessageType;
use dhcproto::v6;
use std::path::Path;

/// A capture of Ethernet frames (the classic format of libpcap), one a second.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    const LINK_TYPE_ETHERNET: u32 = 1;
    let mut file = Vec::new();
    let header = [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65_535, LINK_TYPE_ETHERNET];
    // Version 2.4 is two numbers of 16 bits.
    let header = header.map(|number| if number == 0x0002_0004 { 0x0004_0002 } else { number });
    header.iter().for_each(|number| file.extend(number.to_le_bytes()));
    for (second, frame) in (1_u32..).zip(frames) {
        let length = frame.len() as u32;
        [second, 0, length, length].iter().for_each(|number| file.extend(number.to_le_bytes()));
        file.extend(frame);
    }
    file
}

fn replies() -> Vec<Vec<u8>> {
    let all = [1, 3, 6, 12, 15, 26, 42, 58, 59, 66, 67, 119, 121];
    let mut state = network();
    let dhcp = &mut state.vpcs.get_mut(&"vpc-1".into()).unwrap().dhcp;
    dhcp.boot_file = Some("boot.img".into());
    dhcp.tftp_server = Some("tftp.example.com".into());
    dhcp.ntp_servers = vec![[10, 0, 0, 9].into()];
    let request = |kind| Client4::new(kind).asking(&all);
    let association = |kind| Client6::new(kind).with_association(&[OWN_V6]);
    let asked = v6::ORO { opts: vec![v6::OptionCode::DomainNameServers, v6::OptionCode::DomainSearchList] };
    let oro = || v6::DhcpOption::ORO(asked.clone());
    let server = || v6::DhcpOption::ServerId(client::SERVER_DUID.to_vec());
    let prefix = v6::DhcpOption::IAPD(v6::IAPD { id: 2, t1: 0, t2: 0, opts: v6::DhcpOptions::new() });
    let requests = [
        request(MessageType::Discover).frame(),
        request(MessageType::Discover).broadcast().frame(),
        request(MessageType::Request).selecting(OWN).frame(),
        request(MessageType::Request).renewing(OWN).frame(),
        request(MessageType::Request).remembering([10, 9, 9, 9].into()).frame(),
        request(MessageType::Inform).renewing(OWN).frame(),
        request(MessageType::Discover).relayed(OWN).frame(),
        client::router_solicitation(),
        association(v6::MessageType::Solicit).with(oro()).with(prefix).frame(),
        association(v6::MessageType::Solicit).with(v6::DhcpOption::RapidCommit).with(oro()).frame(),
        association(v6::MessageType::Request).with(server()).with(oro()).frame(),
        association(v6::MessageType::Renew).with(server()).frame(),
        association(v6::MessageType::Rebind).frame(),
        association(v6::MessageType::Confirm).frame(),
        Client6::new(v6::MessageType::Confirm).with_association(&["fd00::9".parse().unwrap()]).frame(),
        association(v6::MessageType::Release).with(server()).frame(),
        Client6::new(v6::MessageType::InformationRequest).with(oro()).frame(),
    ];
    let mut served = ServedWorld::new(1, state);
    let mut reply = |request: &Vec<u8>| {
        served.world.now = served.world.now + SECOND_NS;
        let replies: Vec<_> = served.ask(request).into_iter().collect();
        assert_eq!(replies.len(), 1);
        replies
    };
    requests.iter().flat_map(&mut reply).collect()
}

#[test]
fn every_kind_of_reply_is_what_it_was() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/replies.pcap");
    let found = capture(&replies());
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read(&path).expect("WRITE_GOLDEN=1 writes it");
    assert!(found == expected, "other bytes than in {}", path.display());
}
