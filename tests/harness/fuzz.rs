//! The fuzz targets and what must hold for every input: each target is a function of bytes that panics if something is
//! wrong. `tests/fuzz` runs them guided by coverage; `fuzz_corpus.rs` replays the inputs worth keeping.

use crate::frame::{Ip, arp, tagged};
use crate::world::{Build, Fate, Refine, World, accept_in, prefix_of, rule};
use arbitrary::{Result, Unstructured};
use control::conform::{read_cases, run_case};
use control::ecs::{
    Authorization, Format, PARAMETERS_MAX, Parameters, V3Request, canonical, encode, read_pairs, success,
    v1_string_to_sign, v3_string_to_sign,
};
use control::environment::Environment;
use control::model::{Model, Quotas};
use control::socket::protocol::{Operation, read_request};
use control::state::desired_state::desired;
use ipnet::IpNet;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::{Packet, ethernet::EtherTypes};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::compile::compile;
use vswitch_core::config::desired::{Desired, DesiredRule, Direction, Policy, PortRange, Ports, Protocol};
use vswitch_core::config::ids::{EniId, MacAddress};
use vswitch_core::config::protocol::{self, RequestBody, SwitchReply, SwitchRequest};
use vswitch_core::config::validate::validate;

pub mod metadata;
pub mod nat;
pub mod services;
pub mod stream;
pub mod vhost_user;

/// A function that panics if something is wrong.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 13] = [
    ("packets", packets),
    ("protocol", protocol),
    ("commands", commands),
    ("conformance", conformance),
    ("interface", interface),
    ("dhcp", services::dhcp),
    ("dhcpv6", services::dhcpv6),
    ("ra", services::ra),
    ("http", metadata::http),
    ("dns", metadata::dns),
    ("nat", nat::nat),
    ("vhost_user", vhost_user::vhost_user),
    ("stream", stream::stream),
];

const ENIS: [&str; 4] = ["eni-a", "eni-b", "eni-c", "eni-far"];
const GROUPS: [&str; 3] = ["sg-open", "sg-closed", "sg-strict"];
/// The most cases of one file, and commands of one conversation.
const STEPS_MAX: usize = 32;

/// Frames of guests under a random policy: every frame has one fate and is counted once, no spoofed frame passes, and
/// nothing reaches a guest that does not own the destination.
pub fn packets(bytes: &[u8]) {
    // An error means that the bytes are used up.
    let _ = exchange(&mut Unstructured::new(bytes));
}

fn exchange(input: &mut Unstructured<'_>) -> Result<()> {
    let mut desired = lab();
    let settings = &mut desired.settings;
    settings.intra_group_egress_bypass = input.arbitrary()?;
    settings.cut_sessions_on_deny = input.arbitrary()?;
    settings.follow_first_fragment = input.arbitrary()?;
    settings.smtp_closed = input.arbitrary()?;
    for group in GROUPS {
        add_rules(input, &mut desired, group)?;
    }
    let mut world = World::with_shards(desired, 2, 64);
    while !input.is_empty() {
        match input.int_in_range(0..=19)? {
            0 => {
                let mut next = world.desired.clone();
                let group = *input.choose(&GROUPS)?;
                next.groups.get_mut(&group.into()).expect("it is there").rules.clear();
                add_rules(input, &mut next, group)?;
                world.change(|desired| *desired = next);
            }
            1 => world.wait_s(input.int_in_range(0..=1000)?),
            _ => {
                let from = *input.choose(&ENIS)?;
                let frame = frame(input, &world, from)?;
                let (fate, left) = world.send_frame(from, &frame);
                assert_lawful(&world, from, &frame, (&fate, &left));
            }
        }
    }
    Ok(())
}

fn assert_lawful(world: &World, from: &str, frame: &[u8], (fate, left): (&Fate, &[u8])) {
    let Fate::Delivered(to) = fate else { return };
    let (sender, receiver) = (&world.desired.enis[&from.into()], &world.desired.enis[&to.as_str().into()]);
    assert!(!sender.source_dest_check || frame[6..12] == sender.mac.0, "spoofed: {frame:02x?}");
    assert_eq!((&left[..6], &left[6..12]), (&receiver.mac.0[..], &world.gateway_mac(to).0[..]));
    assert_eq!(
        world.desired.vswitches[&sender.vswitch].vpc, world.desired.vswitches[&receiver.vswitch].vpc,
        "{from} reached {to}"
    );
    let (source, destination) = addresses(left).expect("an IP packet");
    let owns = |id: &str, address: IpAddr| {
        world.desired.enis[&id.into()].addresses.iter().any(|prefix: &IpNet| prefix.contains(&address))
    };
    assert!(!sender.source_dest_check || owns(from, source), "{from} sent as {source}");
    assert!(!receiver.source_dest_check || owns(to, destination), "{to} got what is for {destination}");
}

fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let ethernet = EthernetPacket::new(frame)?;
    Some(match ethernet.get_ethertype() {
        EtherTypes::Ipv4 => {
            let packet = Ipv4Packet::new(ethernet.payload())?;
            (packet.get_source().into(), packet.get_destination().into())
        }
        EtherTypes::Ipv6 => {
            let packet = Ipv6Packet::new(ethernet.payload())?;
            (packet.get_source().into(), packet.get_destination().into())
        }
        _ => return None,
    })
}

/// Three ENIs of one VPC, one of which routes for others, and one of another VPC with the addresses of the first.
fn lab() -> Desired {
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .vswitch("vsw-2", "vpc-1", "10.0.1.0/24", "fd00:0:0:2::/64")
        .open_group("sg-open", "vpc-1", &[accept_in("r-0", "0.0.0.0/0").tcp(80)])
        .closed_group("sg-closed", "vpc-1", &[])
        .advanced_group("sg-strict", "vpc-1", &[])
        .eni("eni-a", "vsw-1", &["10.0.0.10", "fd00:0:0:1::10"], &["sg-open", "sg-closed"])
        .eni("eni-b", "vsw-2", &["10.0.1.10", "fd00:0:0:2::10"], &["sg-strict"])
        .eni("eni-c", "vsw-1", &["10.0.0.20", "fd00:0:0:1::20"], &["sg-open"])
        .vpc("vpc-2")
        .vswitch("vsw-3", "vpc-2", "10.0.0.0/24", "fd00:0:0:1::/64")
        .open_group("sg-far", "vpc-2", &[])
        .eni("eni-far", "vsw-3", &["10.0.0.10", "fd00:0:0:1::10"], &["sg-far"]);
    desired.enis.get_mut(&EniId::from("eni-c")).expect("just added").source_dest_check = false;
    let routes = &mut desired.vpcs.get_mut(&"vpc-1".into()).expect("just added").routes;
    routes.insert(prefix_of("192.0.2.0/24"), "eni-c".into());
    routes.insert(prefix_of("2001:db8::/32"), "eni-c".into());
    desired
}

fn add_rules(input: &mut Unstructured<'_>, desired: &mut Desired, group: &str) -> Result<()> {
    for number in 0..input.int_in_range(0..=4)? {
        let added = any_rule(input, number)?;
        desired.groups.get_mut(&group.into()).expect("it is there").rules.push(added);
        if !validate(desired).is_empty() {
            desired.groups.get_mut(&group.into()).expect("it is there").rules.pop();
        }
    }
    Ok(())
}

fn any_rule(input: &mut Unstructured<'_>, number: u8) -> Result<DesiredRule> {
    let direction = *input.choose(&[Direction::Ingress, Direction::Egress])?;
    let policy = *input.choose(&[Policy::Accept, Policy::Drop])?;
    let texts =
        ["0.0.0.0/0", "::/0", "10.0.0.0/24", "10.0.1.10/32", "fd00::/16", "192.0.2.0/25", "sg-open", "sg-strict"];
    let mut rule = rule(&format!("r-{}", number + 1), direction, policy, input.choose(&texts)?);
    rule.priority = input.int_in_range(1..=3)?;
    rule.conditions.protocol = match input.int_in_range(0..=7)? {
        0 => Protocol::All,
        1 => Protocol::ICMP,
        2..=3 => Protocol::TCP,
        4..=5 => Protocol::UDP,
        6 => Protocol::ICMPV6,
        _ => Protocol::Number(input.arbitrary()?),
    };
    if rule.conditions.protocol.has_ports() {
        let (one, other): (u16, u16) = (input.arbitrary()?, input.arbitrary()?);
        let range = PortRange { first: one.min(other).max(1), last: one.max(other).max(1) };
        rule.conditions.ports = Ports::Range(range);
        rule.conditions.source_ports = input.ratio(1, 8)?.then_some(range);
    }
    rule.conditions.local = if input.ratio(1, 8)? { Some(prefix_of("10.0.0.0/25")) } else { None };
    Ok(rule)
}

/// Noise, or a packet that is valid except for a few bytes.
fn frame(input: &mut Unstructured<'_>, world: &World, from: &str) -> Result<Vec<u8>> {
    if input.ratio(1, 8)? {
        let length = input.int_in_range(0..=120)?.min(input.len());
        return Ok(input.bytes(length)?.to_vec());
    }
    let (mac, gateway) = (world.mac(from), world.gateway_mac(from));
    let mut frame = if input.ratio(1, 10)? {
        let address = |input: &mut Unstructured<'_>| Ok(Ipv4Addr::new(10, 0, 0, *input.choose(&[0, 1, 10, 20, 99])?));
        arp(input.arbitrary()?, (mac, address(input)?), (MacAddress(input.arbitrary()?), address(input)?))
    } else {
        packet(input, mac)?.frame(mac, gateway)
    };
    for _ in 0..input.int_in_range(0..=7_usize)?.saturating_sub(4) {
        let place = input.choose_index(frame.len())?;
        frame[place] = input.arbitrary()?;
    }
    if input.ratio(1, 16)? {
        frame.truncate(input.int_in_range(0..=frame.len())?);
    }
    Ok(if frame.len() > 12 && input.ratio(1, 32)? { tagged(&frame, 1) } else { frame })
}

fn packet(input: &mut Unstructured<'_>, mac: MacAddress) -> Result<Ip> {
    const V4: [&str; 10] = [
        "10.0.0.10",
        "10.0.1.10",
        "10.0.0.20",
        "10.0.0.1",
        "10.0.0.99",
        "192.0.2.9",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "100.100.100.200",
    ];
    const V6: [&str; 8] = [
        "fd00:0:0:1::10",
        "fd00:0:0:2::10",
        "fd00:0:0:1::20",
        "fd00:0:0:1::1",
        "2001:db8::9",
        "::",
        "fe80::1",
        "ff02::1",
    ];
    let is_v6 = input.ratio(2, 5)?;
    let address = |input: &mut Unstructured<'_>| Ok(*if is_v6 { input.choose(&V6)? } else { input.choose(&V4)? });
    let mut ip = Ip::new(address(input)?, address(input)?).hop_limit(*input.choose(&[64, 64, 64, 255, 1, 0])?);
    if input.ratio(1, 8)? {
        let length = input.int_in_range(0..=39)?.min(input.len());
        ip = ip.options(input.bytes(length)?);
    }
    for _ in 0..if is_v6 { input.int_in_range(0..=9_usize)?.saturating_sub(6) } else { 0 } {
        let body: [u8; 6] = input.arbitrary()?;
        ip = ip.extension(*input.choose(&[0, 43, 60, 135, 51])?, &body);
    }
    if input.ratio(1, 6)? {
        ip = ip.part(input.int_in_range(0..=2)?, input.int_in_range(0..=8)? * 8, input.arbitrary()?);
    }
    let port = |input: &mut Unstructured<'_>| Ok(*input.choose(&[80, 53, 25, 67, 68, 546, 547, 4000, 0])?);
    Ok(match input.int_in_range(0..=9)? {
        0..=2 => ip.tcp(port(input)?, port(input)?, input.arbitrary()?),
        3..=4 => ip.udp(port(input)?, port(input)?),
        5 => ip.ping(input.int_in_range(0..=1)?),
        6 => ip.pong(input.int_in_range(0..=1)?),
        7 if is_v6 => ip.solicit(address(input)?.parse::<Ipv6Addr>().expect("an address"), mac),
        7 => ip.unreachable(&Ip::new(address(input)?, address(input)?).udp(port(input)?, port(input)?)),
        8 => {
            let (kind, code, rest): (u8, u8, [u8; 4]) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
            let body: [u8; 12] = input.arbitrary()?;
            ip.icmp(kind, code, rest, &body)
        }
        _ => ip.raw(input.arbitrary()?, &input.arbitrary::<[u8; 10]>()?),
    })
}

/// A line for the forwarding plane: it is parsed or refused, and a parsed one means the same after it is written again.
pub fn protocol(bytes: &[u8]) {
    if let Ok(request) = protocol::read::<SwitchRequest>(bytes) {
        let again = protocol::read::<SwitchRequest>(&protocol::write(&request));
        assert_eq!(again.as_ref(), Ok(&request));
        perform(request.body);
    }
    if let Ok(reply) = protocol::read::<SwitchReply>(bytes) {
        assert_eq!(protocol::read::<SwitchReply>(&protocol::write(&reply)), Ok(reply));
    }
}

fn perform(body: RequestBody) {
    let compiled = |desired: &Desired| drop(compile(desired, 1));
    match body {
        RequestBody::Replace { desired, .. } => compiled(&desired),
        RequestBody::Apply { delta, .. } => {
            let mut desired = lab();
            delta.apply(&mut desired);
            compiled(&desired);
        }
        RequestBody::Explain { packet } => {
            let world = World::new(lab());
            for direction in [Direction::Egress, Direction::Ingress] {
                drop(world.shards[0].explain(&world.snapshot, (world.index("eni-a"), direction), &packet, world.now));
            }
        }
        _ => {}
    }
}

/// Lines for the control plane, one command after the other: each is refused and changes nothing, or leads to a state
/// that the forwarding plane accepts and that is the same after a restart.
pub fn commands(bytes: &[u8]) {
    let mut model = Model::new(Quotas::default());
    for (number, line) in bytes.split(|byte| *byte == b'\n').take(STEPS_MAX).enumerate() {
        let (_, Ok(Operation::Change(command))) = read_request(line) else { continue };
        let environment = Environment::fixed(1_700_000_000, number as u64 * 1000);
        let Ok(events) = model.decide(&command, &environment) else { continue };
        events.into_iter().for_each(|event| model.apply(event));
        let refusals = validate(&desired(&model));
        assert!(refusals.is_empty(), "{command:?} leads to {refusals:?}");
        assert_eq!(Model::load(Quotas::default(), model.events()), model, "after {command:?}");
    }
}

/// A file of cases: it is parsed or refused, and every case ends.
pub fn conformance(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let is_toml = !text.trim_start().starts_with(['[', '{']) || text.starts_with("[[");
    for case in read_cases(text, is_toml).iter().flatten().take(STEPS_MAX) {
        drop(run_case(case));
    }
}

/// Parameters, signatures and responses of the HTTP interface: what is parsed means the same after it is written and
/// parsed again, and every response is well formed.
pub fn interface(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(pairs) = read_pairs(&text) {
        let written = canonical(pairs.iter());
        let mut sorted = pairs.clone();
        sorted.sort_by_key(|(name, value)| (encode(name), encode(value)));
        assert_eq!(read_pairs(&written).expect("what was written"), sorted);
        let _ = v1_string_to_sign("POST", &pairs);
        if let Ok(parameters) = Parameters::new(pairs) {
            for (name, _) in parameters.pairs() {
                let stem = name.split('.').next().unwrap_or(name);
                let _ = (parameters.boolean(name), parameters.integer(name), parameters.json_list(name));
                let list = parameters.list(stem).unwrap_or_default();
                let objects = parameters.objects(stem).unwrap_or_default();
                assert!(list.len() + objects.len() <= PARAMETERS_MAX);
                assert!(objects.iter().all(|(_, object)| object.pairs().next().is_some()), "an object without a field");
                let _ = parameters.object(stem);
            }
        }
    }
    if let Some(authorization) = Authorization::read(&text) {
        let request = V3Request { method: "GET", path: "/", query: &[], body_hash: "" };
        let signed = v3_string_to_sign(request, &authorization.signed_headers, |_| Some(&text));
        assert!(signed.starts_with("ACS3-HMAC-SHA256\n"));
    }
    let answer = [("Text".to_owned(), serde_json::Value::from(&*text))].into_iter().collect();
    let json = success(Format::Json, "DescribeRegions", answer, "request");
    let read: serde_json::Value = serde_json::from_str(&json).expect("an answer is JSON");
    assert_eq!(read["Text"], *text);
}
