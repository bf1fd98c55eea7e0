//! What leaves a VPC: uplinks, floating addresses, NAT gateways, forwards and peerings, and what the forwarding plane is
//! to make of them.

use crate::fixture::{answer, base, command, make};
use control::environment::Environment;
use control::model::Model;
use control::state::desired_state::desired;
use serde_json::{Value, json};
use vswitch_core::config::validate::validate;

/// The base with an uplink by the host, a NAT gateway, and three floating addresses, of which the gateway has one.
fn outside() -> (Model, Environment) {
    let (mut model, environment) = base();
    for value in [
        json!({"op": "uplink-create", "id": "upl-1", "vpc": "vpc-1", "masquerade": true}),
        json!({"op": "nat-create", "id": "ngw-1", "vpc": "vpc-1", "vswitch": "vsw-1"}),
        json!({"op": "eip-allocate", "id": "eip-1"}),
        json!({"op": "eip-allocate", "id": "eip-2", "address": "198.18.5.5"}),
        json!({"op": "eip-allocate", "id": "eip-3", "name": "spare"}),
        json!({"op": "eip-associate", "eip": "eip-2", "target": "ngw-1"}),
        json!({"op": "snat-add", "id": "snat-1", "nat": "ngw-1", "vswitch": "vsw-1"}),
    ] {
        make(&mut model, &environment, value);
    }
    (model, environment)
}

/// The uplinks that the forwarding plane is to have.
fn uplinks(model: &Model) -> Value {
    let desired = desired(model);
    assert_eq!(validate(&desired), vec![]);
    serde_json::to_value(&desired.uplinks).unwrap()
}

#[test]
fn one_command_translates_everything_to_the_address_of_the_uplink() {
    let (mut model, environment) = base();
    make(&mut model, &environment, json!({"op": "uplink-create", "id": "upl-1", "vpc": "vpc-1", "masquerade": true}));
    let uplink = &uplinks(&model)["upl-1"];
    assert_eq!(uplink["ipv4"], json!({"address": "169.254.64.2/30", "next_hop": "169.254.64.1"}));
    assert_eq!(uplink["ipv6"]["next_hop"], json!("fd53:6c75:6963:4000::1"));
    assert_eq!(uplink["nat"]["sources"], json!({"0.0.0.0/0": ["169.254.64.2"]}));
    assert_eq!(uplink["port"]["device"], json!("upl-1"));
    assert_eq!(uplink["port"]["configure"], json!(true));
    make(&mut model, &environment, json!({"op": "uplink-create", "id": "upl-2", "vpc": "vpc-2", "nat": "none"}));
    let uplink = &uplinks(&model)["upl-2"];
    assert_eq!(uplink["ipv4"]["address"], json!("169.254.64.6/30"), "each link has addresses of its own");
    assert_eq!(uplink["ipv6"], json!(null), "the VPC has no IPv6 block");
    assert_eq!(uplink["nat"]["routes_private"], json!(true));
    assert_eq!(uplink["nat"]["sources"], json!(null));
}

#[test]
fn a_nat_gateway_leaves_the_translation_to_its_entries() {
    let (mut model, environment) = outside();
    let nat = &uplinks(&model)["upl-1"]["nat"];
    assert_eq!(nat["sources"], json!({"10.0.1.0/24": ["198.18.5.5"]}));
    make(&mut model, &environment, json!({"op": "snat-remove", "snat": "snat-1"}));
    assert_eq!(uplinks(&model)["upl-1"]["nat"]["sources"], json!(null));
    make(&mut model, &environment, json!({"op": "nat-delete", "nat": "ngw-1", "force": true}));
    assert_eq!(uplinks(&model)["upl-1"]["nat"]["sources"], json!({"0.0.0.0/0": ["169.254.64.2"]}));
}

#[test]
fn a_floating_address_stands_for_a_private_one_and_follows_its_interface() {
    let (mut model, environment) = outside();
    make(&mut model, &environment, json!({"op": "eip-associate", "eip": "eip-1", "target": "eni-1"}));
    let floating = |model: &Model| uplinks(model)["upl-1"]["nat"]["floating"].clone();
    assert_eq!(floating(&model), json!({"198.18.0.1": {"eni": "eni-1", "address": "10.0.1.1"}}));
    let shown = answer(&model, json!({"op": "eni-show", "eni": "eni-1"}));
    let expected = json!([{"eip": "eip-1", "address": "198.18.0.1", "private_ip": "10.0.1.1"}]);
    assert_eq!(shown["eni"]["floating"], expected);
    // The interface ends, and the address stands for nothing.
    make(&mut model, &environment, json!({"op": "eni-delete", "eni": "eni-1", "force": true}));
    assert_eq!(floating(&model), json!(null));
    let shown = answer(&model, json!({"op": "eip-list"}));
    assert_eq!(shown["eips"][0]["eni"], json!(null));
    make(&mut model, &environment, json!({"op": "eip-release", "eip": "eip-1"}));
    make(&mut model, &environment, json!({"op": "eip-allocate", "id": "eip-4"}));
    assert_eq!(answer(&model, json!({"op": "eip-list"}))["eips"][2]["address"], json!("198.18.0.1"));
}

#[test]
fn a_public_address_of_an_instance_stands_for_its_primary_one() {
    let (mut model, environment) = outside();
    for value in [
        json!({"op": "instance-create", "id": "i-1", "port": "none", "primary": {"vswitch": "vsw-1", "groups": ["sg-a"]}}),
        json!({"op": "label-modify", "object": "i-1", "attributes": {"PublicIpAddress": "198.18.9.9"}}),
    ] {
        make(&mut model, &environment, value);
    }
    let end = uplinks(&model)["upl-1"]["nat"]["floating"]["198.18.9.9"].clone();
    assert!(end["address"].as_str().unwrap().starts_with("10.0.1."), "{end}");
    let taken = command(json!({"op": "eip-allocate", "address": "198.18.9.9"}));
    assert_eq!(model.decide(&taken, &environment).unwrap_err().code, "InvalidIpAddress.NotAvailable");
    let second = command(json!({"op": "eip-associate", "eip": "eip-1", "target": "i-1"}));
    assert_eq!(model.decide(&second, &environment).unwrap_err().code, "InvalidAssociation.Duplicated");
}

#[test]
fn a_forward_leads_to_whoever_has_the_address() {
    let (mut model, environment) = outside();
    for value in [
        json!({"op": "forward-add", "id": "fwd-1", "vpc": "vpc-1", "ports": "8080", "to": "10.0.1.1", "to_port": 80}),
        json!({"op": "forward-add", "id": "fwd-2", "vpc": "vpc-1", "external": "198.18.5.5", "protocol": "any",
               "ports": "53-54", "to": "10.0.1.77"}),
    ] {
        make(&mut model, &environment, value);
    }
    let forwards = |model: &Model| uplinks(model)["upl-1"]["nat"]["forwards"].as_array().unwrap().clone();
    let to = json!({"eni": "eni-1", "address": "10.0.1.1"});
    let first = json!({"external": "169.254.64.2", "protocol": 6, "ports": {"first": 8080, "last": 8080}, "to": to, "port": 80});
    assert_eq!(forwards(&model), std::slice::from_ref(&first), "nobody has the other address yet");
    let eni =
        json!({"op": "eni-create", "id": "eni-3", "vswitch": "vsw-1", "primary_ip": "10.0.1.77", "groups": ["sg-a"]});
    make(&mut model, &environment, eni);
    let [one, tcp, udp] = forwards(&model).try_into().unwrap();
    assert_eq!((&one, &tcp["protocol"], &udp["protocol"]), (&first, &json!(6), &json!(17)));
    assert_eq!(answer(&model, json!({"op": "forward-list"}))["forwards"][1]["to_ports"], json!("53-54"));
}

#[test]
fn peers_reach_each_others_subnets() {
    let (mut model, environment) = base();
    for value in [
        json!({"op": "vpc-create", "id": "vpc-3", "cidr": "10.0.0.0/8"}),
        json!({"op": "peering-create", "id": "pcc-1", "vpc": "vpc-1", "peer": "vpc-3"}),
    ] {
        make(&mut model, &environment, value);
    }
    let peers = |model: &Model, vpc: &str| {
        let desired = desired(model);
        assert_eq!(validate(&desired), vec![]);
        serde_json::to_value(&desired.vpcs[&vpc.into()]).unwrap()["peers"].clone()
    };
    assert_eq!(peers(&model, "vpc-1"), json!(null), "the other has no subnet yet");
    make(
        &mut model,
        &environment,
        json!({"op": "vswitch-create", "id": "vsw-3", "vpc": "vpc-3", "cidr": "10.7.0.0/24"}),
    );
    assert_eq!(peers(&model, "vpc-1"), json!({"10.7.0.0/24": "vpc-3"}));
    assert_eq!(peers(&model, "vpc-3"), json!({"10.0.1.0/24": "vpc-1", "2001:db8:1:1::/64": "vpc-1"}));
    for (value, code) in [
        (json!({"op": "peering-create", "vpc": "vpc-3", "peer": "vpc-1"}), "ResourceAlreadyExist.Router"),
        (json!({"op": "peering-create", "vpc": "vpc-1", "peer": "vpc-1"}), "InvalidParameter"),
        // Both have 10.0.1.0/24.
        (json!({"op": "peering-create", "vpc": "vpc-1", "peer": "vpc-2"}), "InvalidCidrBlock.Overlapped"),
        (json!({"op": "peering-create", "vpc": "vpc-2", "peer": "vpc-3"}), "InvalidCidrBlock.Overlapped"),
        (json!({"op": "vswitch-create", "vpc": "vpc-3", "cidr": "10.0.1.0/25"}), "InvalidCidrBlock.Overlapped"),
        (json!({"op": "vpc-delete", "vpc": "vpc-2"}), "DependencyViolation.VSwitch"),
        (json!({"op": "peering-delete", "peering": "pcc-9"}), "ResourceNotFound.InstanceId"),
    ] {
        assert_eq!(model.decide(&command(value.clone()), &environment).unwrap_err().code, code, "{value}");
    }
    make(&mut model, &environment, json!({"op": "peering-delete", "peering": "pcc-1"}));
    assert_eq!(peers(&model, "vpc-3"), json!(null));
}

/// Refuses each command with this code and field, and changes nothing.
fn refuses(cases: &[(Value, &str, &str)]) {
    let (mut model, environment) = outside();
    for value in [
        json!({"op": "eip-associate", "eip": "eip-1", "target": "eni-1"}),
        json!({"op": "forward-add", "id": "fwd-1", "vpc": "vpc-1", "external": "198.18.5.5", "ports": "80",
               "to": "10.0.1.1"}),
    ] {
        make(&mut model, &environment, value);
    }
    let before = model.clone();
    for (value, code, field) in cases {
        let error = model.decide(&command(value.clone()), &environment).unwrap_err();
        assert_eq!((error.code, error.field.as_deref().unwrap_or("")), (*code, *field), "{value}: {error}");
        assert!(error.message.len() > 10, "{value}: {error}");
        assert_eq!(model, before);
    }
}

#[test]
fn uplinks_are_refused_with_their_reason() {
    let uplink = |fields: Value| {
        let mut whole = json!({"op": "uplink-create", "vpc": "vpc-2"});
        whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        whole
    };
    refuses(&[
        (json!({"op": "uplink-create", "vpc": "vpc-1"}), "InvalidVpcId.UplinkExists", "vpc"),
        (json!({"op": "uplink-create", "vpc": "vpc-9"}), "InvalidVpcId.NotFound", "vpc"),
        (uplink(json!({"kind": "macvtap"})), "MissingParameter", "device"),
        (uplink(json!({"kind": "macvtap", "device": "eth9"})), "MissingParameter", "address"),
        (uplink(json!({"kind": "interface"})), "MissingParameter", "device"),
        (uplink(json!({"kind": "interface", "device": "eth9"})), "MissingParameter", "address"),
        (
            uplink(json!({"kind": "interface", "device": "eth9", "address": "192.0.2.2", "next_hop": "192.0.2.1"})),
            "InvalidParameter",
            "address",
        ),
        (
            uplink(json!({"kind": "interface", "device": "eth9", "address": "192.0.2.2/24", "next_hop": "192.0.3.1"})),
            "InvalidParameter",
            "next_hop",
        ),
        (
            uplink(
                json!({"kind": "interface", "device": "eth9", "address": "198.18.5.5/24", "next_hop": "198.18.5.1"}),
            ),
            "InvalidParameter",
            "address",
        ),
        (uplink(json!({"kind": "stream"})), "MissingParameter", "stream"),
        (uplink(json!({"kind": "host", "stream": "/run/a"})), "InvalidParameter.Conflict", "stream"),
        (uplink(json!({"address": "192.0.2.2/24"})), "InvalidParameter.Conflict", "address"),
        (uplink(json!({"device": "upl-1"})), "InvalidParameter.Conflict", "device"),
        (uplink(json!({"device": "far too long a name"})), "InvalidParameter", "device"),
        (uplink(json!({"addresses": ["2001:db8::/64"]})), "InvalidParameter", "addresses[0]"),
        (uplink(json!({"addresses": ["127.0.0.0/24"]})), "InvalidParameter", "addresses[0]"),
        (uplink(json!({"addresses": ["192.0.2.0/24", "192.0.2.0/25"]})), "InvalidParameter", "addresses[1]"),
        (uplink(json!({"nat_port_blocks": 1009})), "InvalidParameter", "nat_port_blocks"),
        (
            json!({"op": "uplink-modify", "uplink": "upl-1", "addresses": ["192.0.2.0/24"]}),
            "OperationFailed.CidrInUse",
            "addresses",
        ),
        (json!({"op": "uplink-modify", "uplink": "upl-9"}), "InvalidUplinkId.NotFound", "uplink"),
        (json!({"op": "vpc-delete", "vpc": "vpc-1"}), "DependencyViolation.VSwitch", ""),
    ]);
}

#[test]
fn floating_addresses_are_refused_with_their_reason() {
    refuses(&[
        (json!({"op": "eip-allocate", "address": "8.8.8.8"}), "InvalidIpAddress.NotAvailable", "address"),
        (json!({"op": "eip-allocate", "address": "198.18.0.1"}), "InvalidIpAddress.NotAvailable", "address"),
        (json!({"op": "eip-associate", "eip": "eip-9", "target": "eni-1"}), "InvalidAllocationId.NotFound", "eip"),
        (json!({"op": "eip-associate", "eip": "eip-3", "target": "eni-9"}), "InvalidInstanceId.NotFound", "target"),
        (json!({"op": "eip-associate", "eip": "eip-3", "target": "eni-1"}), "InvalidAssociation.Duplicated", "target"),
        (json!({"op": "eip-associate", "eip": "eip-1", "target": "eni-2"}), "IncorrectEipStatus", ""),
        (
            json!({"op": "eip-associate", "eip": "eip-3", "target": "eni-2", "private_ip": "10.0.1.1"}),
            "InvalidIp.IpUnassigned",
            "private_ip",
        ),
        (json!({"op": "eip-release", "eip": "eip-1"}), "IncorrectEipStatus", ""),
        (json!({"op": "eip-unassociate", "eip": "eip-2"}), "EipUsedInNatEntry", ""),
    ]);
}

#[test]
fn entries_of_nat_gateways_are_refused_with_their_reason() {
    let forward = |external: &str, ports: &str, to: &str| json!({"op": "forward-add", "vpc": "vpc-1", "external": external, "ports": ports, "to": to});
    refuses(&[
        (json!({"op": "nat-create", "vpc": "vpc-1", "vswitch": "vsw-2"}), "InvalidParameter", "vswitch"),
        (json!({"op": "nat-delete", "nat": "ngw-1"}), "DependencyViolation.Eips", ""),
        (json!({"op": "snat-add", "nat": "ngw-9"}), "InvalidNatGatewayId.NotFound", "nat"),
        (json!({"op": "snat-add", "nat": "ngw-1", "cidr": "10.0.1.0/24"}), "Forbidden.SourceVSwitchId.Duplicated", ""),
        (json!({"op": "snat-add", "nat": "ngw-1", "addresses": ["198.18.0.1"]}), "InvalidSnatIp.NotFound", "addresses"),
        (json!({"op": "snat-add", "nat": "ngw-1", "cidr": "::/0"}), "InvalidParameter", "cidr"),
        (json!({"op": "snat-remove", "snat": "snat-9"}), "InvalidSnatEntryId.NotFound", "snat"),
        (forward("198.18.0.1", "81", "10.0.1.1"), "InvalidExternalIp.NotFound", "external"),
        (forward("198.18.5.5", "0", "10.0.1.1"), "InvalidExternalPort.Malformed", "ports"),
        (forward("198.18.5.5", "9-1", "10.0.1.1"), "InvalidExternalPort.Malformed", "ports"),
        (forward("198.18.5.5", "81", "192.168.0.1"), "Forbidden.DestnationIpOutOfVpcCIDR", "to"),
        (forward("198.18.5.5", "79-81", "10.0.1.2"), "Forbidden.DuplicatedForward", "ports"),
        (forward("169.254.64.2", "80", "10.0.1.1"), "Forbidden.DuplicatedForward", "ports"),
        (json!({"op": "forward-modify", "forward": "fwd-1", "to_port": 0}), "InvalidParameter", "to_port"),
        (
            json!({"op": "forward-modify", "forward": "fwd-1", "protocol": "icmp"}),
            "InvalidProtocal.ValueNotSupported",
            "protocol",
        ),
        (json!({"op": "forward-remove", "forward": "fwd-9"}), "InvalidForwardEntryId.NotFound", "forward"),
    ]);
}

#[test]
fn entries_end_with_the_address_that_they_name_if_it_is_forced() {
    let (mut model, environment) = outside();
    let port = json!({"op": "forward-add", "vpc": "vpc-1", "external": "198.18.5.5", "ports": "80", "to": "10.0.1.1"});
    make(&mut model, &environment, port);
    make(&mut model, &environment, json!({"op": "eip-unassociate", "eip": "eip-2", "force": true}));
    assert_eq!(answer(&model, json!({"op": "forward-list"}))["forwards"], json!([]));
    assert_eq!(answer(&model, json!({"op": "nat-list"}))["nat-gateways"][0]["sources"], json!([]));
}
