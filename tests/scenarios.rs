//! Scenarios through the door: data in, fates out, and after every packet exactly the counters that its fate names.

#[path = "scenarios/delivery.rs"]
mod delivery;
#[path = "scenarios/fragments.rs"]
mod fragments;
#[path = "scenarios/frames.rs"]
mod frames;
#[path = "scenarios/handshakes.rs"]
mod handshakes;
#[path = "scenarios/listing.rs"]
mod listing;
#[path = "scenarios/nat.rs"]
mod nat;
#[path = "scenarios/nat_ports.rs"]
mod nat_ports;
#[path = "scenarios/offloads.rs"]
mod offloads;
#[path = "scenarios/peering.rs"]
mod peering;
#[path = "scenarios/pick_up.rs"]
mod pick_up;
#[path = "scenarios/quotas.rs"]
mod quotas;
#[path = "scenarios/revocation.rs"]
mod revocation;
#[path = "scenarios/router.rs"]
mod router;
#[path = "scenarios/rules.rs"]
mod rules;
#[path = "scenarios/sessions.rs"]
mod sessions;
#[path = "scenarios/tracking.rs"]
mod tracking;

use harness::frame::Ip;
use harness::world::{Build, Fate, Refine, World, accept_in};
use vswitch_core::config::desired::{Desired, DesiredRule, Direction};
use vswitch_core::packet::verdict::DropReason;

const WEB: &str = "10.0.0.10";
const WEB_V6: &str = "fd00:0:0:1::10";
const CLIENT: &str = "10.0.0.20";
const CLIENT_V6: &str = "fd00:0:0:1::20";
const FAR: &str = "10.0.1.30";
const FAR_V6: &str = "fd00:0:0:2::30";
const OUTSIDE: &str = "192.0.2.1";

/// The fate of every packet of every scenario is the same where the setting `fast_path` is off: all of them, once more.
#[test]
fn every_scenario_holds_without_the_fast_path() {
    let is_inner = std::env::var(harness::world::FAST_PATH).is_ok();
    if is_inner {
        return;
    }
    let scenarios = std::env::current_exe().expect("this program");
    let inner =
        std::process::Command::new(scenarios).env(harness::world::FAST_PATH, "off").output().expect("it starts");
    assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stdout));
}

/// HTTP from everywhere.
fn http() -> [DesiredRule; 2] {
    [accept_in("http", "0.0.0.0/0").tcp(80), accept_in("http-v6", "::/0").tcp(80)]
}

/// A web server and its client in one subnet, another client in a second one, and a VPC with the same addresses.
fn lab() -> Desired {
    Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .vswitch("vsw-2", "vpc-1", "10.0.1.0/24", "fd00:0:0:2::/64")
        .closed_group("sg-web", "vpc-1", &http())
        .closed_group("sg-client", "vpc-1", &[])
        .eni("web", "vsw-1", &[WEB, WEB_V6], &["sg-web"])
        .eni("client", "vsw-1", &[CLIENT, CLIENT_V6], &["sg-client"])
        .eni("far", "vsw-2", &[FAR, FAR_V6], &["sg-client"])
        .vpc("vpc-2")
        .vswitch("vsw-3", "vpc-2", "10.0.0.0/24", "fd00:0:0:1::/64")
        .open_group("sg-shadow", "vpc-2", &[])
        .eni("shadow-web", "vsw-3", &[WEB, WEB_V6], &["sg-shadow"])
        .eni("shadow-client", "vsw-3", &[CLIENT, CLIENT_V6], &["sg-shadow"])
}

fn delivered(to: &str) -> Fate {
    Fate::Delivered(to.into())
}

/// Dropped on the way out of an ENI.
fn stopped(at: &str, reason: DropReason) -> Fate {
    Fate::Dropped(at.into(), Direction::Egress, reason)
}

/// Dropped on the way into an ENI.
fn refused(at: &str, reason: DropReason) -> Fate {
    Fate::Dropped(at.into(), Direction::Ingress, reason)
}

/// From the client to the web server.
fn request() -> Ip {
    Ip::new(CLIENT, WEB)
}

/// From the web server to the client.
fn reply() -> Ip {
    Ip::new(WEB, CLIENT)
}

/// A world in which the client and the web server have shaken hands.
fn connected() -> World {
    use harness::frame::TcpFlags;
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::SYN)), delivered("web"));
    assert_eq!(world.send("web", &reply().tcp(80, 40000, TcpFlags::SYN | TcpFlags::ACK)), delivered("client"));
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::ACK)), delivered("web"));
    world
}
