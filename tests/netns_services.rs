//! Stock clients in namespaces that nobody configured: they get all that they need from the switch.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::{RunningSluice, eventually};
use rustix::process::{Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Output};

const LAB: &str = r#"
    vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16", ipv6_cidr = "2001:db8:1::/56" }]
    vswitch = [{ id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24", ipv6_cidr = "2001:db8:1:1::/64" }]
    group = [{ id = "sg-1", vpc = "vpc-1" }]
    [[eni]]
    id = "eni-a"
    vswitch = "vsw-1"
    ip = "10.0.1.10"
    ipv6_addresses = ["2001:db8:1:1::10"]
    groups = ["sg-1"]
    namespace = "@-a"
    configure = false
    mtu = 1400
    [[eni]]
    id = "eni-b"
    vswitch = "vsw-1"
    ip = "10.0.1.20"
    ipv6_addresses = ["2001:db8:1:1::20"]
    groups = ["sg-1"]
    namespace = "@-b"
"#;

/// Runs networkd on the device as a container's, in which nobody but it says what devices are there: as long as `@/go`
/// exists, and keeps copies of what it was told.
const NETWORKD: &str = r#"#!/bin/sh
mount -t tmpfs tmpfs /run
mount -o remount,ro /sys
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network /run/systemd/netif
printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n' >/run/systemd/network/10-eth0.network
/lib/systemd/systemd-networkd >"@/networkd.log" 2>&1 &
networkd=$!
while [ -e "@/go" ] && kill -0 $networkd; do
    cat /run/systemd/netif/links/* /run/systemd/netif/leases/* >"@/told.new" 2>/dev/null
    mv "@/told.new" "@/told.networkd"
    sleep 0.2
done
kill $networkd
wait $networkd
"#;

/// Runs dhcpcd with folders of its own, where it keeps leases and process identifiers by the name of the interface.
const DHCPCD: &str = r#"#!/bin/sh
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/dhcpcd
mount -t tmpfs tmpfs /var/lib/dhcpcd
exec dhcpcd "$@"
"#;

/// Writes down what a client was told, and sets the address as its own script would, without the host's files.
const SCRIPT: &str = r#"#!/bin/sh
[ -n "$reason" ] || reason="$1"
env | sort > "@.$reason"
case "$reason" in
bound | renew)
    ip address replace "$ip/$mask" dev "$interface"
    ip route replace default via "$router"
    ;;
BOUND | REBOOT) ip address replace "$new_ip_address/24" dev "$interface" ;;
BOUND6 | REBOOT6) ip -6 address replace "$new_ip6_address/128" dev "$interface" nodad ;;
esac
exit 0
"#;

struct StockLab {
    running: RunningSluice,
    folder: tempfile::TempDir,
}

impl StockLab {
    /// A lab whose guest a has its device up and nothing else. None, and it says why, where a client is missing.
    fn new(client: &str) -> Option<Self> {
        let running = RunningSluice::start_lab(1, LAB, &[client])?;
        let folder = tempfile::tempdir().unwrap();
        let script = SCRIPT.replace('@', &folder.path().join("told").display().to_string());
        std::fs::write(folder.path().join("script"), script).unwrap();
        let networkd = NETWORKD.replace('@', &folder.path().display().to_string());
        std::fs::write(folder.path().join("networkd"), networkd).unwrap();
        std::fs::write(folder.path().join("dhcpcd"), DHCPCD).unwrap();
        let lab = Self { running, folder };
        lab.inside("chmod +x @/script");
        // As on a host whose DHCP client is in charge.
        lab.inside("sysctl -qw net.ipv6.conf.eth0.accept_ra=0");
        lab.inside("ip link set lo up");
        lab.inside("ip link set eth0 up");
        eventually("its link-local address is there", || {
            lab.inside("ip -6 address show dev eth0 scope link -tentative").stdout.len() > 10
        });
        Some(lab)
    }

    /// A command line for guest a, in which `@` is the folder of the test.
    fn line(&self, line: &str) -> String {
        line.replace('@', &self.folder.path().display().to_string())
    }

    /// Runs a command line inside guest a.
    fn inside(&self, line: &str) -> Output {
        self.running.inside("a", &self.line(line).split(' ').collect::<Vec<_>>())
    }

    /// Starts a command line inside guest a, with mounts of its own.
    fn spawn_mounted(&self, line: &str) -> Child {
        let line = self.line(&format!("unshare --mount --propagation private {line}"));
        self.running.inside_command("a", &line.split(' ').collect::<Vec<_>>()).spawn().unwrap()
    }

    fn succeeds(&self, line: &str) -> String {
        self.running.inside_line("a", &self.line(line))
    }

    /// What Sluice shows of the guest's ENI.
    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.running.sluice(&["eni", "show", "eni-a"]).stdout).into_owned()
    }

    /// Waits until these answer; an IPv6 address is of use only once nobody else was found to have it.
    fn eventually_reaches(&self, addresses: &[&str]) {
        for address in addresses {
            eventually(&format!("{address} answers"), || {
                self.inside(&format!("ping -q -c 1 -W 2 {address}")).status.success()
            });
        }
    }

    /// What the client said to its script for a reason.
    fn told(&self, reason: &str) -> String {
        let path: PathBuf = self.folder.path().join(format!("told.{reason}"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn assert_told(&self, reason: &str, lines: &[&str]) {
        let told = self.told(reason);
        for line in lines {
            assert!(told.lines().any(|told| told == *line), "{line} of:\n{told}");
        }
    }
}

#[test]
fn udhcpc_configures_an_untouched_guest() {
    let Some(lab) = StockLab::new("udhcpc") else { return };
    let shown = lab.shown();
    assert!(shown.contains("10.0.1.10/24 for 86400 s, default via 10.0.1.253; not asked yet"), "{shown}");
    lab.succeeds("udhcpc -i eth0 -s @/script -n -q -t 5 -O mtu -O staticroutes -O search");
    let shown = lab.shown();
    for words in [
        "10.0.1.10/24 for 86400 s, default via 10.0.1.253; asked ",
        "2001:db8:1:1::10 for 86400 s; not asked yet",
        "host name eni-a, MTU 1400, name servers 100.100.2.136,100.100.2.138,",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    lab.assert_told(
        "bound",
        &["ip=10.0.1.10", "mask=24", "router=10.0.1.253", "dns=100.100.2.136 100.100.2.138", "mtu=1400", "lease=86400"],
    );
    lab.succeeds("ping -q -c 1 -W 2 10.0.1.20");
    lab.succeeds("ping -q -c 1 -W 2 10.0.1.253");
}

#[test]
fn udhcpc_is_served_while_the_control_plane_is_down() {
    let Some(lab) = StockLab::new("udhcpc") else { return };
    let control = lab.running.process("control");
    kill_process(control, Signal::STOP).unwrap();
    lab.succeeds("udhcpc -i eth0 -s @/script -n -q -t 5");
    kill_process(control, Signal::CONT).unwrap();
    lab.assert_told("bound", &["ip=10.0.1.10"]);
}

#[test]
fn udhcpc_that_asks_for_another_address_gets_its_own() {
    let Some(lab) = StockLab::new("udhcpc") else { return };
    lab.succeeds("udhcpc -i eth0 -s @/script -n -q -t 5 -r 10.0.1.99");
    lab.assert_told("bound", &["ip=10.0.1.10"]);
}

#[test]
fn dhclient_gets_its_address_and_after_a_reboot_elsewhere_its_new_one() {
    let Some(lab) = StockLab::new("dhclient") else { return };
    let client = "dhclient -1 -v -sf @/script -cf /dev/null -pf @/pid -lf @/leases eth0";
    lab.succeeds(client);
    lab.assert_told("BOUND", &["new_ip_address=10.0.1.10", "new_routers=10.0.1.253"]);
    lab.succeeds("dhclient -x -sf @/script -cf /dev/null -pf @/pid -lf @/leases eth0");
    // The lease that it remembers is of another network.
    let leases = lab.folder.path().join("leases");
    let remembered = std::fs::read_to_string(&leases).unwrap().replace("10.0.1.10", "10.0.1.77");
    std::fs::write(&leases, remembered).unwrap();
    let said = lab.succeeds(client);
    assert!(said.contains("DHCPNAK"), "{said}");
    lab.assert_told("BOUND", &["new_ip_address=10.0.1.10"]);
    lab.succeeds("dhclient -r -sf @/script -cf /dev/null -pf @/pid -lf @/leases eth0");
}

#[test]
fn dhclient_gets_an_ipv6_address() {
    let Some(lab) = StockLab::new("dhclient") else { return };
    lab.succeeds("dhclient -6 -1 -v -sf @/script -cf /dev/null -pf @/pid -lf @/leases eth0");
    lab.assert_told("BOUND6", &["new_ip6_address=2001:db8:1:1::10", "new_preferred_life=86400"]);
    lab.succeeds("dhclient -6 -r -sf @/script -cf /dev/null -pf @/pid -lf @/leases eth0");
}

#[test]
fn dhcpcd_configures_an_untouched_guest() {
    let Some(lab) = StockLab::new("dhcpcd") else { return };
    let line = "sh @/dhcpcd --oneshot --nobackground --noipv6 --noarp --script /bin/true --timeout 10 eth0";
    lab.spawn_mounted(line).wait().unwrap();
    let addresses = lab.succeeds("ip -4 address show dev eth0");
    assert!(addresses.contains("10.0.1.10/24"), "{addresses}");
    lab.succeeds("ping -q -c 1 -W 2 10.0.1.20");
}

#[test]
fn rdisc6_sees_the_router_and_the_kernel_takes_it() {
    let Some(lab) = StockLab::new("rdisc6") else { return };
    let seen = lab.succeeds("rdisc6 -1 -r 3 eth0");
    for words in
        ["Stateful address conf.    :          Yes", "1800", "1400 bytes", "2001:db8:1:1::/64", "EE:FF:FF:FF:FF:FF"]
    {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    lab.inside("ip link set eth0 down");
    lab.inside("sysctl -qw net.ipv6.conf.eth0.accept_ra=2");
    lab.inside("ip link set eth0 up");
    eventually("the kernel has its default route", || {
        let routes = lab.inside("ip -6 route show default");
        String::from_utf8_lossy(&routes.stdout).contains("via fe80::ecff:ffff:feff:ffff dev eth0 proto ra")
    });
    let addresses = lab.succeeds("ip -6 address show dev eth0 scope global");
    assert!(!addresses.contains("inet6"), "no address of its own choice: {addresses}");
}

/// A client of Debian's that is unpacked and not installed. None, and it says why, if that fails.
fn unpacked(package: &str) -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/stock-client");
    let output = std::process::Command::new(script).arg(package).output().unwrap();
    if output.status.success() {
        return Some(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    eprintln!("\n*** NOT RUN: {}\n", String::from_utf8_lossy(&output.stderr));
    None
}

#[test]
fn rdnssd_takes_the_name_servers_that_are_advertised() {
    let Some(lab) = StockLab::new("rdisc6") else { return };
    let Some(folder) = unpacked("rdnssd") else { return };
    std::fs::write(lab.folder.path().join("hook"), "#!/bin/sh\n").unwrap();
    lab.succeeds("chmod +x @/hook");
    // The kernel passes on what it accepts.
    lab.succeeds("sysctl -qw net.ipv6.conf.eth0.accept_ra=2");
    let at = lab.folder.path().display().to_string();
    let words = format!("{folder}/sbin/rdnssd -f -u root -H {at}/hook -r {at}/resolv.conf -p {at}/rdnssd.pid");
    let mut daemon = lab.running.inside_command("a", &words.split(' ').collect::<Vec<_>>()).spawn().unwrap();
    let mut told = String::new();
    eventually("it has written its file", || {
        // Any solicitation is answered to all nodes.
        lab.inside("rdisc6 -1 -r 1 eth0");
        told = std::fs::read_to_string(lab.folder.path().join("resolv.conf")).unwrap_or_default();
        told.contains("nameserver")
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), Signal::TERM).unwrap();
    daemon.wait().unwrap();
    let servers: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("nameserver ")).collect();
    assert_eq!(servers, ["fd00:100::100:136", "fd00:100::100:138"], "{told}");
}

#[test]
fn dhcpcd_configures_both_families() {
    let Some(lab) = StockLab::new("dhcpcd") else { return };
    // With --oneshot it ends with the first address that it has.
    let mut daemon = lab.spawn_mounted("sh @/dhcpcd --nobackground --noarp --script /bin/true eth0");
    eventually("it has an address of each family", || {
        let addresses = lab.succeeds("ip address show dev eth0");
        ["10.0.1.10/24", "2001:db8:1:1::10/128"].iter().all(|address| addresses.contains(address))
    });
    lab.eventually_reaches(&["10.0.1.20", "2001:db8:1:1::20"]);
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), Signal::TERM).unwrap();
    daemon.wait().unwrap();
}

#[test]
fn systemd_networkd_configures_both_families() {
    let Some(lab) = StockLab::new("/lib/systemd/systemd-networkd") else { return };
    std::fs::write(lab.folder.path().join("go"), "").unwrap();
    let mut daemon = lab.spawn_mounted("--uts sh @/networkd");
    let wanted = ["OPER_STATE=routable", "ADDRESS=10.0.1.10", "ROUTER=10.0.1.253", "LIFETIME=86400"];
    let mut told = String::new();
    eventually("it says that it is configured", || {
        told = std::fs::read_to_string(lab.folder.path().join("told.networkd")).unwrap_or_default();
        wanted.iter().all(|line| told.lines().any(|told| told == *line))
            && lab.succeeds("ip -6 address show dev eth0 scope global").contains("2001:db8:1:1::10/128")
    });
    assert!(told.contains("DNS=100.100.2.136 100.100.2.138"), "{told}");
    let route = lab.succeeds("ip -6 route show default");
    assert!(route.contains("via fe80::ecff:ffff:feff:ffff dev eth0 proto ra"), "{route}");
    lab.eventually_reaches(&["10.0.1.20", "2001:db8:1:1::20"]);
    std::fs::remove_file(lab.folder.path().join("go")).unwrap();
    daemon.wait().unwrap();
}
