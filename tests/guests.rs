//! Virtual machines with Linux as guests of a real Sluice, whichever way they are plugged in.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use control::command::{Command, RuleAuthorize, RuleRevoke, RuleSpec};
use harness::guest::{self, MachineSpec, Plug, QemuGuest};
use harness::netns::{Namespace, RunningSluice, cannot_run, eventually};
use std::process::{Child, Output, Stdio};
use vswitch_core::config::desired::Direction;

/// Two virtual machines and a namespace in one VPC.
struct Rig {
    running: RunningSluice,
    guests: Vec<QemuGuest>,
    specs: Vec<MachineSpec>,
    _host: Option<Namespace>,
}

const ADDRESSES: [&str; 2] = ["10.0.1.10", "10.0.1.20"];
const NAMESPACE_ADDRESS: &str = "10.0.1.30";

impl Rig {
    fn new(plug: Plug) -> Option<Self> {
        let why_not = cannot_run().or(guest::files().err());
        if let Some(reason) = why_not {
            eprintln!("\n*** {reason}\n");
            return None;
        }
        let running = RunningSluice::start(2);
        let host = (plug == Plug::TapByName).then(|| Namespace::make(running.namespace("host")));
        let mut lab = String::from(
            r#"
            vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16" }]
            vswitch = [{ id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24" }]
            [[group]]
            id = "sg-1"
            vpc = "vpc-1"
            inner_access = "drop"
            ingress = [
                { id = "sgr-icmp", protocol = "icmp", cidr = "10.0.0.0/16" },
                { id = "sgr-tcp", protocol = "tcp", ports = "5201/5201", cidr = "10.0.0.0/16" },
            ]
            [[eni]]
            id = "eni-namespace"
            vswitch = "vsw-1"
            ip = "10.0.1.30"
            groups = ["sg-1"]
            namespace = "@-namespace"
            "#,
        );
        let mut specs = Vec::new();
        for (number, ip) in ADDRESSES.into_iter().enumerate() {
            let (name, mac) = (format!("vm{number}"), format!("02:00:00:00:01:0{number}"));
            if let Some(host) = &host {
                let device = format!("tap-{name}");
                ip_command(&host.0, &["tuntap", "add", &device, "mode", "tap", "vnet_hdr"]);
                ip_command(&host.0, &["link", "set", &device, "up"]);
            }
            let folder = running.folder().to_owned();
            let port = plug.lab(&folder, &name);
            lab += &format!(
                "[[eni]]\nid = 'eni-{name}'\nvswitch = 'vsw-1'\nip = '{ip}'\nmac = '{mac}'\ngroups = ['sg-1']\n{port}\n"
            );
            let address = [format!("{ip}/24"), "10.0.1.253".into()];
            let namespace = host.as_ref().map(|host| host.0.clone());
            specs.push(MachineSpec { name, plug, mac, address, folder, namespace });
        }
        running.apply(&lab);
        let mut guests: Vec<QemuGuest> = specs.iter().map(QemuGuest::start).collect();
        guests.iter_mut().for_each(QemuGuest::wait_until_ready);
        Some(Self { running, guests, specs, _host: host })
    }

    fn in_namespace(&self, command: &[&str]) -> Output {
        self.running.inside("namespace", command)
    }

    /// What `sluice port list` says of a guest's port.
    fn port(&self, guest: usize) -> String {
        let list = self.running.sluice(&["port", "list"]);
        let list = String::from_utf8(list.stdout).unwrap();
        let line = list.lines().find(|line| line.starts_with(&format!("eni-{}", self.specs[guest].name)));
        line.unwrap_or_else(|| panic!("no port of guest {guest}: {list}")).to_owned()
    }

    fn assert_all_reach_each_other(&mut self) {
        for (guest, other) in [(0, 1), (1, 0)] {
            self.guests[guest].eventually_pings(ADDRESSES[other]);
            self.guests[guest].eventually_pings(NAMESPACE_ADDRESS);
        }
        for address in ADDRESSES {
            eventually("a ping from the namespace", || {
                self.in_namespace(&["ping", "-c1", "-W1", address]).status.success()
            });
        }
    }
}

/// A Sluice with a subnet, and with an ENI that is attached to nothing.
fn with_a_free_eni() -> Option<RunningSluice> {
    if let Some(reason) = cannot_run().or(guest::files().err()) {
        eprintln!("\n*** {reason}\n");
        return None;
    }
    let running = RunningSluice::start(1);
    running.apply(
        "vpc = [{ id = 'vpc-1', cidr = '10.0.0.0/16' }]\n\
         vswitch = [{ id = 'vsw-1', vpc = 'vpc-1', cidr = '10.0.1.0/24' }]\n\
         group = [{ id = 'sg-web', vpc = 'vpc-1' }]\n\
         [[eni]]\nid = 'eni-1'\nvswitch = 'vsw-1'\nip = '10.0.1.10'\nmac = '02:00:00:00:01:07'\n",
    );
    Some(running)
}

fn ip_command(namespace: &str, arguments: &[&str]) {
    let made = std::process::Command::new("ip").args(["-n", namespace]).args(arguments).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

fn close_tcp() -> Command {
    let ids = ["sgr-tcp".to_owned()].into();
    Command::RuleRevoke(RuleRevoke { group: "sg-1".into(), direction: None, ids, rules: Vec::new() })
}

fn open_tcp() -> Command {
    let rule = RuleSpec {
        id: Some("sgr-tcp".into()),
        protocol: "tcp".into(),
        ports: Some("5201/5201".into()),
        cidr: Some("10.0.0.0/16".into()),
        ..RuleSpec::default()
    };
    Command::RuleAuthorize(RuleAuthorize { group: "sg-1".into(), direction: Direction::Ingress, rules: vec![rule] })
}

/// A process that ends with its value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a virtual machine has to be able to do, whichever way it is plugged in.
fn a_guest_is_a_guest(plug: Plug) {
    let Some(mut rig) = Rig::new(plug) else { return };
    rig.assert_all_reach_each_other();
    streams_pass_whole_and_end_with_their_rule(&mut rig);
    guests_come_and_go(&mut rig);
    if plug.survives_restart() {
        let before = rig.running.process("vswitch");
        rig.running.crash("vswitch");
        eventually("another forwarding plane", || {
            harness::netns::is_well(rig.running.folder()) && rig.running.process("vswitch") != before
        });
        rig.assert_all_reach_each_other();
    }
}

fn streams_pass_whole_and_end_with_their_rule(rig: &mut Rig) {
    rig.guests[1].must("iperf3 -s -D");
    let server = rig.running.inside_command("namespace", &["iperf3", "-s"]).stdout(Stdio::null()).spawn().unwrap();
    let server = Killed(server);
    for options in ["", "-R"] {
        let told = rig.guests[0].must(&format!("iperf3 -c {} -t 1 {options}", ADDRESSES[1]));
        eprintln!("{:?} guest to guest {options}: {}", rig.specs[0].plug, receiver_line(&told));
    }
    eventually("an iperf3 between the namespace and a guest", || {
        rig.guests[0].passes(&format!("iperf3 -c {NAMESPACE_ADDRESS} -t 1"))
    });
    drop(server);
    let told = rig.in_namespace(&["iperf3", "-c", ADDRESSES[1], "-t", "1", "--bidir"]);
    assert!(told.status.success(), "{told:?}");
    for guest in &mut rig.guests {
        assert_eq!(guest.checksum_errors(), 0);
    }
    // A stream that would last for minutes stops with its rule, and nothing else does.
    rig.guests[0].must(&format!("iperf3 -c {} -t 300 >/tmp/stream 2>&1 & echo $! >/tmp/stream.id", ADDRESSES[1]));
    let before = rig.guests[1].received_bytes();
    eventually("the stream flows", || rig.guests[1].received_bytes() > before + 200_000);
    rig.running.change(&close_tcp());
    rig.guests[1].eventually_receives_nothing();
    assert!(rig.guests[0].passes("kill -0 $(cat /tmp/stream.id)"), "the sender still tries");
    rig.guests[0].eventually_pings(ADDRESSES[1]);
    rig.guests[0].must("kill $(cat /tmp/stream.id)");
    rig.running.change(&open_tcp());
    rig.guests[1].must("killall iperf3; iperf3 -s -D");
    rig.guests[0].must(&format!("iperf3 -c {} -n 64K", ADDRESSES[1]));
}

fn receiver_line(told: &str) -> &str {
    told.lines().find(|line| line.ends_with("receiver")).unwrap_or("no figure")
}

fn guests_come_and_go(rig: &mut Rig) {
    rig.guests[1].reboot();
    rig.assert_all_reach_each_other();
    rig.guests[1].kill();
    eventually("the port tells that its guest has gone", || rig.port(1).contains("down: "));
    rig.guests[1] = QemuGuest::start(&rig.specs[1]);
    rig.guests[1].wait_until_ready();
    rig.assert_all_reach_each_other();
    assert!(!rig.port(1).contains("down: "), "{}", rig.port(1));
}

#[test]
fn a_guest_connects_to_a_stream_socket() {
    a_guest_is_a_guest(Plug::StreamToSwitch);
}

#[test]
fn a_guest_listens_at_a_stream_socket() {
    a_guest_is_a_guest(Plug::StreamToGuest);
}

#[test]
fn a_guest_opens_a_tap_device_by_name() {
    a_guest_is_a_guest(Plug::TapByName);
}

#[test]
fn a_guest_that_shares_its_memory_connects() {
    a_guest_is_a_guest(Plug::VhostUserToSwitch);
}

#[test]
fn a_guest_that_shares_its_memory_listens() {
    a_guest_is_a_guest(Plug::VhostUserToGuest);
}

#[test]
fn a_guest_that_sluice_runs_has_what_its_eni_says_and_ends_with_the_command() {
    let Some(running) = with_a_free_eni() else { return };
    let files = guest::files().unwrap();
    for attach in
        ["port attach eni-1 --mtu 1400 --client --stream", "port attach eni-1 --mtu 1300 --client --vhost-user"]
    {
        let socket = running.folder().join("own.sock").display().to_string();
        let words: Vec<&str> = attach.split(' ').chain([socket.as_str()]).collect();
        assert!(running.sluice(&words).status.success());
        let mut command = running.sluice_command();
        command.args(["vm", "run", "--eni", "eni-1", "--memory", "128", "--accelerator", "tcg", "--qemu"]);
        command.arg(files.join("qemu")).arg("--kernel").arg(files.join("kernel"));
        command.arg("--initrd").arg(files.join("initrd"));
        command.args(["--append", &guest::kernel_words("10.0.1.10/24", "10.0.1.253"), "--"]);
        let mut guest = QemuGuest::start_by(command, running.folder().join("console"));
        guest.wait_until_ready();
        assert_eq!(guest.must("cat /sys/class/net/eth0/address").trim(), "02:00:00:00:01:07");
        assert_eq!(guest.must("cat /sys/class/net/eth0/mtu").trim(), words[4]);
        guest.eventually_pings("10.0.1.253");
        assert!(guest.power_off().success());
        assert!(running.sluice(&["port", "detach", "eni-1"]).status.success());
    }
}

#[test]
fn a_guest_has_the_descriptor_of_a_tap_device_whose_namespace_it_is_not_in() {
    let Some(running) = with_a_free_eni() else { return };
    let (files, space) = (guest::files().unwrap(), running.namespace("tap"));
    // Another number of queues, and what was left by the last QEMU.
    for (queues, descriptors) in [("1", "fd=3"), ("1", "fd=3"), ("2", "fds=3:4")] {
        let mut command = running.sluice_command();
        command.args(["vm", "exec", "--eni", "eni-1", "--namespace", &space, "--queues", queues, "--"]);
        command.arg(files.join("qemu")).args([
            "-nodefaults",
            "-display",
            "none",
            "-M",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "128",
        ]);
        command.arg("-kernel").arg(files.join("kernel")).arg("-initrd").arg(files.join("initrd"));
        command.args(["-append", &guest::kernel_words("10.0.1.10/24", "10.0.1.253")]);
        command.args(["-netdev", &format!("tap,id=net0,{descriptors}")]);
        command.args(["-device", "virtio-net-pci,netdev=net0,mac=02:00:00:00:01:07,romfile="]);
        let console = running.folder().join("console");
        command.arg("-serial").arg(format!("file:{}", console.display()));
        let mut guest = QemuGuest::start_by(command, console);
        guest.wait_until_ready();
        guest.eventually_pings("10.0.1.253");
        // The kernel of the namespace has the interface, and no frame of it.
        let address = ["addr", "add", "10.0.1.99/24", "dev", "tap0"];
        ip_command(&space, &address);
        let reached = std::process::Command::new("ip")
            .args(["netns", "exec", &space, "ping", "-c2", "-W1", "10.0.1.10"])
            .output()
            .unwrap();
        assert!(!reached.status.success(), "{reached:?}");
        assert!(!guest.passes("ping -c2 -W1 10.0.1.99"));
        assert!(guest.power_off().success());
        ip_command(&space, &["addr", "flush", "dev", "tap0"]);
    }
}

/// The commands of one section of the page on virtual machines, a line each.
fn commands_of(section: &str) -> Vec<String> {
    let page = include_str!("../docs/virtual-machines.md");
    let section = match section {
        "" => page.split("\n## ").next(),
        name => page.split("\n## ").find(|text| text.starts_with(name)),
    };
    let blocks = section.expect("the page has the section").split("\n```").skip(1).step_by(2);
    let shell = blocks.filter_map(|block| block.strip_prefix('\n')).collect::<Vec<_>>().join("\n");
    // What remains is for libvirt, or for programs that Debian does not have.
    let is_run = |line: &&str| ["sluice ", "ip ", "qemu-"].iter().any(|program| line.starts_with(program));
    shell.replace("\\\n", " ").lines().filter(is_run).map(str::to_owned).collect()
}

#[test]
fn the_lines_of_the_page_work_as_pasted() {
    let Some(running) = with_a_free_eni() else { return };
    let (files, folder) = (guest::files().unwrap(), running.folder().display().to_string());
    let host = running.namespace("host");
    let words = guest::kernel_words("10.0.1.77/24", "10.0.1.253");
    let mut booted = 0;
    for section in ["", "vhost-user", "Stream", "TAP by name", "TAP by descriptor"] {
        for line in commands_of(section) {
            // Names that are this test's own, and one address so that the guest can be told it.
            let line = line
                .replace("qemu-system-x86_64", &files.join("qemu").display().to_string())
                .replace("vmlinuz", &files.join("kernel").display().to_string())
                .replace("initrd.img", &files.join("initrd").display().to_string())
                .replace("vm-host", &host)
                .replace("/run/vm", &folder)
                .replace("libvirt-qemu", "root")
                .replace(
                    "sluice vm exec",
                    &format!("{} vm exec --namespace {host}", harness::netns::program().display()),
                )
                .replace("eni create", "eni create --ip 10.0.1.77");
            // What the page says of QEMU 7.2 without KVM.
            let line = if section == "vhost-user" { line.replace("net0,mac", "net0,vectors=0,mac") } else { line };
            let Some(qemu) = line.contains("-netdev").then_some(&line) else {
                let made = match line.strip_prefix("sluice ") {
                    Some(arguments) => running.sluice(&arguments.split_whitespace().collect::<Vec<_>>()),
                    None => std::process::Command::new("sh").args(["-c", &line]).output().unwrap(),
                };
                assert!(made.status.success(), "{line}: {made:?}");
                continue;
            };
            let console = running.folder().join("console");
            let script = format!("exec {qemu} -append '{words}' -serial file:{} \"$@\"", console.display());
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &script, "sh"]).env("SLUICE_RUN_DIR", running.folder().join("run"));
            let mut guest = QemuGuest::start_by(command, console);
            guest.wait_until_ready();
            guest.eventually_pings("10.0.1.253");
            booted += 1;
            drop(guest);
            assert!(running.sluice(&["port", "detach", "eni-vm"]).status.success());
        }
    }
    assert_eq!(booted, 4);
    let _ = std::process::Command::new("ip").args(["netns", "delete", &host]).output();
}

#[test]
fn a_guest_that_moves_to_another_qemu_keeps_its_connections() {
    let Some(mut rig) = Rig::new(Plug::VhostUserToSwitch) else { return };
    let server = rig.running.inside_command("namespace", &["iperf3", "-s"]).stdout(Stdio::null()).spawn().unwrap();
    let _server = Killed(server);
    eventually("the server listens", || rig.guests[0].passes(&format!("iperf3 -c {NAMESPACE_ADDRESS} -n 10K")));
    rig.guests[0]
        .must(&format!("iperf3 -c {NAMESPACE_ADDRESS} -t 300 -b 20M >/tmp/stream 2>&1 & echo $! >/tmp/stream.id"));
    let received = |rig: &Rig| {
        let told = rig.in_namespace(&["cat", "/sys/class/net/eth0/statistics/rx_bytes"]);
        String::from_utf8(told.stdout).unwrap().trim().parse::<u64>().unwrap()
    };
    let before = received(&rig);
    eventually("the stream flows", || received(&rig) > before + 1_000_000);
    let connection = "netstat -tn | grep :5201 | grep ESTABLISHED | sort";
    let before = rig.guests[0].must(connection);
    let mut target = QemuGuest::start_incoming(&rig.specs[0]);
    rig.guests[0].migrate(&rig.specs[0]);
    let moved = received(&rig);
    eventually("the stream goes on", || received(&rig) > moved + 1_000_000);
    let ports = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned)).collect()
    };
    assert_eq!(ports(&target.must(connection)), ports(&before), "the same connections");
    assert!(target.passes("kill -0 $(cat /tmp/stream.id)"));
    target.eventually_pings(ADDRESSES[1]);
    assert_eq!(target.checksum_errors(), 0);
}
