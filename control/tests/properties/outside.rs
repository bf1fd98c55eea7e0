//! Commands about what leaves a VPC.

use crate::{addresses, enis, prefixes, text, vpcs, vswitches};
use control::command::*;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn uplinks() -> impl Strategy<Value = String> + Clone {
    text(&["upl-1", "upl-2"])
}

fn eips() -> impl Strategy<Value = String> + Clone {
    text(&["eip-1", "eip-2", "eip-3"])
}

fn nats() -> impl Strategy<Value = String> + Clone {
    text(&["ngw-1", "ngw-2"])
}

fn snats() -> impl Strategy<Value = String> + Clone {
    text(&["snat-1", "snat-2"])
}

fn forwards() -> impl Strategy<Value = String> + Clone {
    text(&["fwd-1", "fwd-2", "fwd-3"])
}

fn externals() -> impl Strategy<Value = String> + Clone {
    text(&["198.18.0.1", "198.18.0.2", "198.18.0.3", "203.0.113.1", "169.254.64.2", "192.0.2.2", "y"])
}

fn ports() -> impl Strategy<Value = String> + Clone {
    text(&["80", "80-90", "85", "any", "8000/8010", "0", "9-1"])
}

fn uplink() -> impl Strategy<Value = Command> {
    let blocks = text(&["198.18.0.0/15", "198.18.0.0/31", "203.0.113.0/24", "192.0.2.0/24", "127.0.0.0/8", "::/64"]);
    let kind = select(vec![UplinkKind::Host, UplinkKind::Interface, UplinkKind::Stream, UplinkKind::Macvtap]);
    let nat = option::of(select(vec![UplinkNat::Source, UplinkNat::None]));
    let device = option::of(text(&["web", "out"]));
    let link =
        option::of(select(vec![("192.0.2.2/24", "192.0.2.1"), ("198.18.0.1/24", "198.18.0.2"), ("192.0.2.2", "x")]));
    prop_oneof![
        3 => (uplinks(), vpcs(), kind, device, link, nat.clone(), any::<bool>()).prop_map(
            |(id, vpc, kind, device, link, nat, masquerade)| {
                let (address, next_hop) = link.map(|(own, hop)| (own.to_owned(), hop.to_owned())).unzip();
                let stream = (kind == UplinkKind::Stream).then(|| "/run/vm.sock".to_owned());
                let id = Some(id);
                let create = UplinkCreate { id, vpc, kind: Some(kind), device, stream, address, next_hop, ..UplinkCreate::default() };
                Command::UplinkCreate(Box::new(UplinkCreate { nat, masquerade, ..create }))
            }),
        1 => (uplinks(), option::of(proptest::collection::vec(blocks, 0..3)), nat).prop_map(|(uplink, addresses, nat)| {
            Command::UplinkModify(UplinkModify { uplink, addresses, nat, ..UplinkModify::default() })
        }),
        1 => uplinks().prop_map(|uplink| Command::UplinkDelete(UplinkDelete { uplink })),
    ]
}

fn eip() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (eips(), option::of(externals())).prop_map(|(id, address)| {
            Command::EipAllocate(EipAllocate { id: Some(id), address, ..EipAllocate::default() })
        }),
        3 => (eips(), prop_oneof![enis(), nats()], option::weighted(0.2, addresses()))
            .prop_map(|(eip, target, private_ip)| Command::EipAssociate(EipAssociate { eip, target, private_ip })),
        1 => (eips(), any::<bool>()).prop_map(|(eip, force)| Command::EipUnassociate(EipUnassociate { eip, force })),
        1 => eips().prop_map(|eip| Command::EipRelease(EipRelease { eip })),
    ]
}

fn nat() -> impl Strategy<Value = Command> {
    let addresses = || proptest::collection::vec(externals(), 0..2);
    prop_oneof![
        2 => (nats(), vpcs(), option::of(vswitches())).prop_map(|(id, vpc, vswitch)| {
            Command::NatCreate(NatCreate { id: Some(id), vpc, vswitch, ..NatCreate::default() })
        }),
        1 => (nats(), any::<bool>()).prop_map(|(nat, force)| Command::NatDelete(NatDelete { nat, force })),
        2 => (snats(), nats(), option::of(vswitches()), option::of(prefixes()), addresses()).prop_map(
            |(id, nat, vswitch, cidr, addresses)| {
                Command::SnatAdd(SnatAdd { id: Some(id), nat, vswitch, cidr, addresses, name: None })
            }),
        1 => (snats(), addresses()).prop_map(|(snat, addresses)| {
            Command::SnatModify(SnatModify { snat, addresses: Some(addresses), name: None })
        }),
        1 => snats().prop_map(|snat| Command::SnatRemove(SnatRemove { snat })),
    ]
}

fn forward() -> impl Strategy<Value = Command> {
    let protocol = option::of(text(&["tcp", "UDP", "any", "icmp"]));
    let port = option::of(select(vec![0_u16, 80, 85, 8000, 65_530]));
    prop_oneof![
        3 => (forwards(), vpcs(), option::of(externals()), protocol.clone(), ports(), addresses(), port.clone()).prop_map(
            |(id, vpc, external, protocol, ports, to, to_port)| {
                Command::ForwardAdd(ForwardAdd { id: Some(id), vpc, external, protocol, ports, to, to_port, name: None })
            }),
        1 => (forwards(), option::of(externals()), protocol, option::of(ports()), option::of(addresses()), port).prop_map(
            |(forward, external, protocol, ports, to, to_port)| {
                Command::ForwardModify(ForwardModify { forward, external, protocol, ports, to, to_port, name: None })
            }),
        1 => forwards().prop_map(|forward| Command::ForwardRemove(ForwardRemove { forward })),
    ]
}

fn peering() -> impl Strategy<Value = Command> {
    let peerings = || text(&["pcc-1", "pcc-2"]);
    prop_oneof![
        (peerings(), vpcs(), vpcs()).prop_map(|(id, vpc, peer)| {
            Command::PeeringCreate(PeeringCreate { id: Some(id), vpc, peer, ..PeeringCreate::default() })
        }),
        peerings().prop_map(|peering| Command::PeeringDelete(PeeringDelete { peering })),
    ]
}

pub(crate) fn outside() -> impl Strategy<Value = Command> {
    prop_oneof![2 => uplink(), 3 => eip(), 3 => nat(), 2 => forward(), 1 => peering()]
}
