//! What is told of ports, and what is noted of what was made for them, between real kernels.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::{Namespace, RunningSluice, eventually};
use std::process::Command;
use vswitch::os::namespace;

const LAB: &str = r#"
    vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16" }]
    vswitch = [{ id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24" }]
    group = [{ id = "sg-1", vpc = "vpc-1" }]
    [[eni]]
    id = "eni-a"
    vswitch = "vsw-1"
    ip = "10.0.1.10"
    groups = ["sg-1"]
    namespace = "@-a"
    [[eni]]
    id = "eni-b"
    vswitch = "vsw-1"
    ip = "10.0.1.20"
    groups = ["sg-1"]
    namespace = "@-b"
"#;

fn lab() -> Option<RunningSluice> {
    RunningSluice::start_lab(1, LAB, &[])
}

fn told(running: &RunningSluice, arguments: &str) -> String {
    let output = running.sluice(&arguments.split(' ').collect::<Vec<_>>());
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn row(running: &RunningSluice, eni: &str) -> String {
    let ports = told(running, "port list");
    ports.lines().find(|line| line.starts_with(eni)).unwrap_or_else(|| panic!("{ports}")).to_owned()
}

fn is_up(running: &RunningSluice, eni: &str) -> bool {
    row(running, eni).split_whitespace().any(|word| word == "up")
}

fn ip(namespace: &str, arguments: &str) {
    let output = Command::new("ip").args(["-n", namespace]).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
}

fn pings(running: &RunningSluice, guest: &str, target: &str) -> bool {
    running.inside(guest, &["ping", "-q", "-c", "1", "-W", "1", target]).status.success()
}

#[test]
fn a_port_is_as_its_device_is_at_that_moment() {
    let Some(running) = lab() else { return };
    let (guest, elsewhere) = (running.namespace("b"), Namespace::make(running.namespace("elsewhere")));
    assert!(is_up(&running, "eni-a") && is_up(&running, "eni-b"));
    assert!(!told(&running, "status").contains("is down"));
    let says = |reason: &str| {
        let row = row(&running, "eni-b");
        assert!(row.contains("down: ") && row.contains(reason), "{row}");
        let status = told(&running, "status");
        assert!(status.contains("port of eni-b is down: ") && status.contains(reason), "{status}");
        assert!(is_up(&running, "eni-a"), "the other one is not concerned");
    };
    ip(&guest, "link set eth0 down");
    says("set down");
    let explained = told(&running, "explain --from eni-a --destination 10.0.1.20 --protocol icmp");
    assert!(explained.contains("dropped: port-down"), "{explained}");
    let status: serde_json::Value = serde_json::from_str(&told(&running, "status --json")).unwrap();
    assert_eq!(status["ports_down"][0]["eni"], "eni-b", "{status}");
    ip(&guest, "link set eth0 up");
    eventually("it is up again", || is_up(&running, "eni-b"));
    ip(&guest, "link set eth0 carrier off");
    says("no carrier");
    ip(&guest, "link set eth0 carrier on");
    eventually("it has its carrier", || is_up(&running, "eni-b"));
    ip(&guest, &format!("link set eth0 netns {}", elsewhere.0));
    says("moved to another network namespace");
    ip(&elsewhere.0, &format!("link set eth0 netns {guest}"));
    ip(&guest, "link set eth0 up");
    eventually("it is back", || is_up(&running, "eni-b"));
    ip(&guest, "link delete eth0");
    eventually("another device takes its place", || is_up(&running, "eni-b") && pings(&running, "a", "10.0.1.20"));
}

#[test]
fn an_interface_without_carrier_is_down() {
    let Some(running) = lab() else { return };
    let hosting = Namespace::make(running.namespace("hosting"));
    ip(&hosting.0, "link add port0 type veth peer name peer0");
    ip(&hosting.0, "link set port0 up");
    let create = "eni create --id eni-c --vswitch vsw-1 --ip 10.0.1.30 --group sg-1 --host-interface port0 --namespace";
    let created = told(&running, &format!("{create} {}", hosting.0));
    assert!(created.contains("eni eni-c created"), "{created}");
    assert!(row(&running, "eni-c").contains("no carrier"), "{}", row(&running, "eni-c"));
    assert!(told(&running, "status").contains("port of eni-c is down"));
    ip(&hosting.0, "link set peer0 up");
    eventually("both ends are up", || is_up(&running, "eni-c"));
    ip(&hosting.0, "link set port0 down");
    eventually("it is set down", || !is_up(&running, "eni-c"));
}

/// A guest that sets addresses and routes itself begins with the hardware address that it may send from.
#[test]
fn a_guest_that_configures_itself_has_the_hardware_address_of_its_eni() {
    let Some(running) = lab() else { return };
    let guest = running.namespace("own");
    let create = "eni create --id eni-own --vswitch vsw-1 --ip 10.0.1.40 --mac 02:00:00:00:00:40 --group sg-1 \
                  --no-configure --mtu 1400 --namespace";
    let created = told(&running, &format!("{create} {guest}"));
    assert!(created.contains("eni eni-own created") && !created.contains("WARNING"), "{created}");
    assert!(row(&running, "eni-own").contains("set down"), "link state is the guest's: {}", row(&running, "eni-own"));
    let link = || String::from_utf8(running.inside("own", &["ip", "link", "show", "eth0"]).stdout).unwrap();
    assert!(link().contains("02:00:00:00:00:40") && link().contains("mtu 1400"), "{}", link());
    ip(&guest, "address add 10.0.1.40/24 dev eth0");
    ip(&guest, "link set eth0 up");
    eventually("its packets pass", || pings(&running, "own", "10.0.1.10"));
    assert!(running.stats("eni-own").egress.drops.keys().all(|reason| !reason.contains("spoof")));
    // What the guest changes stays, whatever ends.
    ip(&guest, "link set eth0 mtu 1300");
    let mut running = running;
    running.crash("vswitch");
    running.wait_until_ready();
    eventually("the port is there again", || is_up(&running, "eni-own"));
    let link = String::from_utf8(running.inside("own", &["ip", "link", "show", "eth0"]).stdout).unwrap();
    assert!(link.contains("mtu 1300") && link.contains("02:00:00:00:00:40"), "{link}");
}

#[test]
fn what_is_made_is_noted_beside_the_sockets() {
    let Some(running) = lab() else { return };
    let (guest, run) = (running.namespace("a"), running.folder().join("run"));
    assert!(run.join("namespaces").join(&guest).is_file());
    assert!(run.join("devices/namespaces").join(&guest).join("eth0").is_file());
    assert!(!std::path::Path::new("/run/sluice/namespaces").join(&guest).exists());
    // Another switch that uses a namespace has not made it, and does not remove it.
    let other = RunningSluice::start(1);
    let lab = LAB.replace("@-a", &guest).replace("eni-a\"", "eni-a\"\n device = \"eth9\"");
    other.apply(&lab);
    assert!(told(&other, "eni delete eni-a --force").contains("eni eni-a deleted"));
    assert!(namespace::identity(&guest).is_ok(), "it is the first one's");
    // A namespace that went and came under the same name is somebody else's, also for whoever made the first.
    assert!(Command::new("ip").args(["netns", "delete", &guest]).status().unwrap().success());
    let stranger = Namespace::make(guest.clone());
    assert!(told(&running, "eni delete eni-a --force").contains("eni eni-a deleted"));
    assert!(namespace::identity(&stranger.0).is_ok() && !run.join("namespaces").join(&guest).exists());
}

#[test]
fn sessions_of_what_is_gone_are_not_counted() {
    let Some(running) = lab() else { return };
    assert!(pings(&running, "a", "10.0.1.20"));
    let counted = || running.status().forwarding.unwrap().flows;
    assert!(counted() > 0);
    for eni in ["eni-a", "eni-b"] {
        assert!(told(&running, &format!("eni delete {eni} --force")).contains("deleted"));
    }
    assert_eq!(counted(), 0);
    assert!(!told(&running, "workers show").contains("eni-"));
}

#[test]
fn what_cannot_work_is_said() {
    let Some(running) = lab() else { return };
    told(&running, "eni modify eni-a --source-dest-check true");
    let routed = told(&running, "vpc add-route vpc-1 0.0.0.0/0 eni-a");
    assert!(
        routed.contains("WARNING") && routed.contains("sluice eni modify eni-a --source-dest-check false"),
        "{routed}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&told(&running, "vpc add-route vpc-1 192.168.0.0/16 eni-a --json")).unwrap();
    assert!(json["warnings"][0].as_str().unwrap().contains("192.168.0.0/16"), "{json}");
    assert!(!told(&running, "eni modify eni-a --source-dest-check false").contains("WARNING"));
    assert!(told(&running, "eni modify eni-a --source-dest-check true").contains("WARNING"));
    let unknown = told(&running, "rule add sg-1 ingress --protocol tcp --ports 80 --peer sg-web2");
    assert!(unknown.contains("there is no security group sg-web2"), "{unknown}");
    let unknown = told(&running, "flow list --eni eni-none");
    assert!(unknown.contains("sluice: there is no ENI eni-none"), "{unknown}");
}
