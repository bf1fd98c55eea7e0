//! A TAP device of an ordinary user, who has namespaces of its own and hands the device over to a real Sluice.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::{RunningSluice, can_run, program};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Nobody's numbers, without a name on some machines.
const USER: &str = "65534";

/// What the user runs in namespaces of its own: each line that it reads has it ping, until that succeeds.
const SCRIPT: &str = r#"
    "$1" port pass "$2" --device eth0 --stay &
    trap "kill $!" EXIT
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
    ip link set eth0 address 02:00:00:00:01:77 up
    ip addr add 10.0.1.77/24 dev eth0
    while read -r address; do
        until ping -c1 -W1 "$address" >/dev/null 2>&1; do :; done
        echo reached
    done
"#;

#[test]
fn an_ordinary_user_hands_over_a_device_of_its_own_namespaces() {
    if !can_run(&[]) {
        return;
    }
    let mut running = RunningSluice::start(1);
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (binary, socket) = (shared.path().join("sluice"), shared.path().join("user.sock"));
    // The user need not be able to reach the folder of the build.
    std::fs::copy(program(), &binary).unwrap();
    let lab = r#"
        vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16" }]
        vswitch = [{ id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24" }]
        [[group]]
        id = "sg-1"
        vpc = "vpc-1"
        ingress = [{ id = "sgr-icmp", protocol = "icmp", cidr = "10.0.0.0/16" }]
        [[eni]]
        id = "eni-web"
        vswitch = "vsw-1"
        ip = "10.0.1.10"
        groups = ["sg-1"]
        namespace = "@-web"
        [[eni]]
        id = "eni-user"
        vswitch = "vsw-1"
        ip = "10.0.1.77"
        mac = "02:00:00:00:01:77"
        groups = ["sg-1"]
    "#;
    running.apply(&format!("{lab}tap_socket = '{}'\nsocket_user = '{USER}'\n", socket.display()));
    let list = |running: &RunningSluice| String::from_utf8(running.sluice(&["port", "list"]).stdout).unwrap();
    assert!(list(&running).contains("no TAP device has been handed over"), "{}", list(&running));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    command.args(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", SCRIPT, "sh"]).arg(&binary).arg(&socket);
    let mut user = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut orders = user.stdin.take().unwrap();
    let mut answers = BufReader::new(user.stdout.take().unwrap()).lines();
    let mut reaches = |address: &str| {
        writeln!(orders, "{address}").unwrap();
        assert_eq!(answers.next().expect("the script goes on").unwrap(), "reached");
    };
    reaches("10.0.1.10");
    // The control plane has no part in it, and a new forwarding plane is handed the device again.
    running.crash("control");
    running.wait_until_ready();
    reaches("10.0.1.10");
    running.crash("vswitch");
    running.wait_until_ready();
    reaches("10.0.1.10");
    let inside = running.inside("web", &["ping", "-c1", "-W5", "10.0.1.77"]);
    assert!(inside.status.success(), "{inside:?}");
    drop(orders);
    user.wait().unwrap();
}
