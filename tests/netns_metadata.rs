//! Metadata and name servers, as stock clients in namespaces reach them through a real Sluice.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use control::command::{Command as Change, EniCreate, InstanceCreate, LabelModify, PortKind};
use harness::netns::{RunningSluice, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};

const METADATA: &str = "http://100.100.100.200";
const METADATA_V6: &str = "http://[fd00:100::100:200]";

/// Two VPCs in which guests have the same addresses.
const LAB: &str = r#"
    vpc = [
        { id = "vpc-1", cidr = "10.0.0.0/16", ipv6_cidr = "2001:db8:1::/56" },
        { id = "vpc-2", cidr = "10.0.0.0/16", ipv6_cidr = "2001:db8:1::/56" },
    ]
    vswitch = [
        { id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24", ipv6_cidr = "2001:db8:1:1::/64" },
        { id = "vsw-2", vpc = "vpc-2", cidr = "10.0.1.0/24", ipv6_cidr = "2001:db8:1:1::/64" },
    ]
    group = [{ id = "sg-1", vpc = "vpc-1" }, { id = "sg-2", vpc = "vpc-2" }]
    [[eni]]
    id = "eni-a"
    vswitch = "vsw-1"
    ip = "10.0.1.10"
    ipv6_addresses = ["2001:db8:1:1::10"]
    groups = ["sg-1"]
    namespace = "@-a"
    [[eni]]
    id = "eni-b"
    vswitch = "vsw-1"
    ip = "10.0.1.20"
    ipv6_addresses = ["2001:db8:1:1::20"]
    groups = ["sg-1"]
    namespace = "@-b"
    [[eni]]
    id = "eni-c"
    vswitch = "vsw-2"
    ip = "10.0.1.10"
    ipv6_addresses = ["2001:db8:1:1::10"]
    groups = ["sg-2"]
    namespace = "@-c"
"#;

struct MetadataLab {
    running: RunningSluice,
}

impl MetadataLab {
    /// A lab. None, and it says why, where a client is missing.
    fn new(client: &str) -> Option<Self> {
        let lab = Self { running: RunningSluice::start_lab(1, LAB, &[client])? };
        for guest in ["a", "b", "c"] {
            eventually("the services process is there", || lab.read(guest, &format!("{METADATA}/")).is_ok());
        }
        Some(lab)
    }

    /// What `curl` in a guest prints for these arguments; its exit status and what it says if it fails.
    fn curl(&self, guest: &str, arguments: &[&str]) -> Result<String, String> {
        let fixed = ["curl", "--silent", "--show-error", "--max-time", "20"];
        let output = self.running.inside(guest, &[&fixed, arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.code() {
            Some(0) => Ok(text(&output.stdout)),
            other => Err(format!("{other:?} {}{}", text(&output.stdout), text(&output.stderr))),
        }
    }

    fn read(&self, guest: &str, url: &str) -> Result<String, String> {
        self.curl(guest, &["--fail", url])
    }

    fn status_of(&self, guest: &str, arguments: &[&str]) -> String {
        self.curl(guest, &[&["--output", "/dev/null", "--write-out", "%{http_code}"], arguments].concat()).unwrap()
    }
}

#[test]
fn a_guest_reads_its_own_metadata_over_both_families() {
    let Some(lab) = MetadataLab::new("curl") else { return };
    for base in [METADATA, METADATA_V6] {
        let read = |guest: &str, path: &str| lab.read(guest, &format!("{base}{path}"));
        for (guest, eni, vpc) in [("a", "eni-a", "vpc-1"), ("b", "eni-b", "vpc-1"), ("c", "eni-c", "vpc-2")] {
            assert_eq!(read(guest, "/latest/meta-data/instance-id").unwrap(), eni);
            assert_eq!(read(guest, "/2016-01-01/meta-data/vpc-id").unwrap(), vpc);
        }
        assert_eq!(read("b", "/latest/meta-data/private-ipv4").unwrap(), "10.0.1.20");
        let mac = read("a", "/latest/meta-data/mac").unwrap();
        assert_eq!(read("a", "/latest/meta-data/network/interfaces/macs/").unwrap(), format!("{mac}/"));
        let interface = format!("/latest/meta-data/network/interfaces/macs/{mac}");
        assert_eq!(read("a", &format!("{interface}/private-ipv4s")).unwrap(), "[\"10.0.1.10\"]");
        assert_eq!(read("a", &format!("{interface}/ipv6s")).unwrap(), "[2001:db8:1:1::10]");
        assert_eq!(read("a", &format!("{interface}/gateway")).unwrap(), "10.0.1.253");
        let document = read("a", "/latest/dynamic/instance-identity/document").unwrap();
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!((&document["instance-id"], &document["private-ipv4"]), (&"eni-a".into(), &"10.0.1.10".into()));
        let status_of = |path: &str| lab.status_of("a", &[&format!("{base}{path}")]);
        for path in ["/latest/user-data", "/latest/meta-data/none", "/1999-01-01/", "/latest/api", "/favicon.ico"] {
            assert_eq!(status_of(path), "404", "{path}");
        }
        assert_eq!(lab.status_of("a", &["-H", "X-Forwarded-For: 10.0.0.1", &format!("{base}/latest/")]), "403");
        assert_eq!(lab.status_of("a", &["-X", "POST", &format!("{base}/latest/")]), "405");
    }
}

#[test]
fn a_guest_reads_the_user_data_of_its_eni() {
    let Some(lab) = MetadataLab::new("curl") else { return };
    let url = format!("{METADATA}/latest/user-data");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user-data").display().to_string();
    let modify = |data: &[u8]| {
        std::fs::write(&path, data).unwrap();
        lab.running.sluice(&["eni", "modify", "eni-a", "--user-data", &path])
    };
    let text = "#cloud-config\nhostname: wéb\n";
    assert!(modify(text.as_bytes()).status.success());
    eventually("it is told", || lab.read("a", &url).is_ok_and(|told| told == text));
    assert!(lab.read("b", &url).is_err(), "nobody else is");
    assert!(lab.read("a", &format!("{METADATA}/latest/")).unwrap().contains("user-data"));
    for (data, reason) in [(vec![b'x'; 40_000], "32768 bytes"), (vec![0xff], "no text")] {
        let refused = modify(&data);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(reason), "{said}");
    }
    // The same by file, where it is the text itself.
    lab.running.apply(&LAB.replace("namespace = \"@-b\"", "namespace = \"@-b\"\nuser_data = \"of b\""));
    eventually("it is told", || lab.read("b", &url).is_ok_and(|told| told == "of b"));
    assert_eq!(lab.read("a", &url).unwrap(), text, "what a file does not say stays");
    assert!(modify(b"").status.success());
    eventually("there is none", || lab.status_of("a", &[&url]) == "404");
}

#[test]
fn a_token_is_good_for_the_eni_that_made_it() {
    let Some(lab) = MetadataLab::new("curl") else { return };
    let url = format!("{METADATA}/latest/api/token");
    let put = |guest: &str, ttl_s: &str| {
        let ttl = format!("X-aliyun-ecs-metadata-token-ttl-seconds: {ttl_s}");
        lab.curl(guest, &["--fail", "-X", "PUT", "-H", &ttl, &url])
    };
    let token = put("a", "21600").unwrap();
    let with_token = |guest: &str, token: &str| {
        let field = format!("X-aliyun-ecs-metadata-token: {token}");
        lab.status_of(guest, &["-H", &field, &format!("{METADATA}/latest/meta-data/instance-id")])
    };
    assert_eq!(with_token("a", &token), "200");
    // Another guest of the VPC, and the one with the same address in another VPC.
    assert_eq!(with_token("b", &token), "401");
    assert_eq!(with_token("c", &token), "401");
    assert_eq!(with_token("a", "none"), "401");
    for ttl_s in ["0", "21601", "-1", "x"] {
        assert!(put("a", ttl_s).unwrap_err().contains("400"), "{ttl_s}");
    }
    // No process remembers tokens.
    for process in ["services", "control", "vswitch"] {
        let before = lab.running.process(process);
        lab.running.signal(process, Signal::KILL);
        eventually("it is back", || {
            std::fs::read(lab.running.folder().join("run/supervisor.json")).is_ok_and(|told| !told.is_empty())
                && harness::netns::is_well(lab.running.folder())
                && lab.running.process(process) != before
        });
        eventually("its token is good", || {
            lab.read("a", &format!("{METADATA}/")).is_ok() && with_token("a", &token) == "200"
        });
    }
}

#[test]
fn what_is_not_served_is_refused_at_once() {
    let Some(lab) = MetadataLab::new("curl") else { return };
    let refused = |url: &str| lab.read("a", url).unwrap_err();
    // Status 7 of curl: failed to connect. Had nobody answered, it would be 28.
    for url in [
        "http://100.100.100.200:8080/",
        "http://100.100.2.136/",
        "http://169.254.169.254/latest/",
        "http://[fd00:100::100:200]:81/",
    ] {
        assert!(refused(url).starts_with("Some(7)"), "{url}: {}", refused(url));
    }
    lab.running.signal("up", Signal::STOP);
    lab.running.signal("services", Signal::KILL);
    eventually("it is away", || {
        lab.read("a", &format!("{METADATA}/")).is_err_and(|error| error.starts_with("Some(7)"))
    });
    lab.running.signal("up", Signal::CONT);
    eventually("it is back", || lab.read("a", &format!("{METADATA}/latest/")).is_ok());
}

#[test]
fn a_services_process_that_hangs_is_as_one_that_is_away_and_then_another() {
    let Some(lab) = MetadataLab::new("curl") else { return };
    let before = lab.running.process("services");
    // It exists and its sockets are open, but it reads nothing.
    lab.running.signal("services", Signal::STOP);
    eventually("what is asked of it is refused", || {
        lab.read("a", &format!("{METADATA}/")).is_err_and(|error| error.starts_with("Some(7)"))
    });
    eventually("another takes its place", || lab.running.process("services") != before);
    for guest in ["a", "b", "c"] {
        let url = format!("{METADATA}/latest/meta-data/instance-id");
        eventually("it serves", || lab.read(guest, &url).is_ok_and(|told| told == format!("eni-{guest}")));
    }
    let told = std::fs::read_to_string(lab.running.folder().join("run/supervisor.json")).unwrap();
    assert!(told.contains("did not react"), "{told}");
}

#[test]
fn names_are_looked_up_over_both_families_and_transports() {
    let Some(lab) = MetadataLab::new("dig") else { return };
    let dig = |guest: &str, arguments: &str| {
        let fixed = ["dig", "+short", "+time=5", "+tries=2"];
        let output = lab.running.inside(guest, &[&fixed, arguments.split(' ').collect::<Vec<_>>().as_slice()].concat());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    for server in ["100.100.2.136", "100.100.2.138", "fd00:100::100:136", "fd00:100::100:138"] {
        for transport in ["+notcp", "+tcp"] {
            let dig = |guest: &str, question: &str| dig(guest, &format!("@{server} {transport} {question}"));
            assert_eq!(dig("a", "eni-b.vpc-1.sluice A"), "10.0.1.20", "{server} {transport}");
            assert_eq!(dig("a", "eni-b.vpc-1.sluice AAAA"), "2001:db8:1:1::20");
            assert_eq!(dig("b", "-x 10.0.1.10"), "eni-a.vpc-1.sluice.");
            assert_eq!(dig("c", "-x 10.0.1.10"), "eni-c.vpc-2.sluice.");
            assert_eq!(dig("c", "eni-a.vpc-1.sluice A"), "");
        }
    }
    assert!(
        lab.running
            .inside("a", &["dig", "@100.100.2.136", "example.com"])
            .stdout
            .windows(7)
            .any(|part| part == b"REFUSED")
    );
    // Rules apply to names, and not to metadata.
    let denied = lab.running.sluice(&[
        "rule",
        "add",
        "sg-1",
        "egress",
        "--policy",
        "drop",
        "--protocol",
        "all",
        "--peer",
        "0.0.0.0/0",
    ]);
    assert!(denied.status.success(), "{}", String::from_utf8_lossy(&denied.stderr));
    let output = lab.running.inside("a", &["dig", "+time=1", "+tries=1", "@100.100.2.136", "eni-b.vpc-1.sluice"]);
    assert_eq!(output.status.code(), Some(9), "no reply");
    assert_eq!(lab.read("a", &format!("{METADATA}/latest/meta-data/instance-id")).unwrap(), "eni-a");
    assert!(lab.running.stats("eni-a").egress.drops["rule-drop"] > 0);
}

/// A client that opens connections and never ends its requests.
const SLOW_CLIENT: &str = r#"
import socket, sys
held = []
for number in range(256):
    one = socket.socket()
    one.settimeout(5)
    try:
        one.connect(("100.100.100.200", 80))
        one.send(b"GET / HTTP/1.1\r\nX: ")
        held.append(one)
    except OSError:
        one.close()
print(len(held), flush=True)
sys.stdin.read()
"#;

#[test]
fn connections_of_one_guest_that_say_nothing_leave_others_served() {
    const READS: usize = 40;
    let Some(lab) = MetadataLab::new("python3") else { return };
    let mut slow = lab.running.inside_command("a", &["python3", "-c", SLOW_CLIENT]);
    let mut slow = slow.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(slow.stdout.as_mut().unwrap()), &mut told).unwrap();
    assert!((1..256).contains(&told.trim().parse::<usize>().unwrap()), "connections of one guest are bounded: {told}");
    for guest in ["b", "c"] {
        let served =
            (0..READS).filter(|_| lab.read(guest, &format!("{METADATA}/latest/meta-data/mac")).is_ok()).count();
        assert_eq!(served, READS, "{guest}");
    }
    drop(slow.stdin.take());
    slow.wait().unwrap();
    eventually("it is served again", || lab.read("a", &format!("{METADATA}/")).is_ok());
}

/// What `cloud-init` finds at boot, by its data source for the cloud. One that asks for no tokens, which is older than 23.1,
/// is led by its own crawler with a token from here.
const CRAWL: &str = r#"
import json, sys, requests
from cloudinit import helpers, settings, util
from cloudinit.sources.DataSourceAliYun import DataSourceAliYun, parse_public_keys
from cloudinit.sources.helpers import ec2
base = "http://100.100.100.200"
if sys.argv[1] == "plain" or hasattr(DataSourceAliYun, "imdsv2_token_put_header"):
    paths = helpers.Paths({"run_dir": sys.argv[2], "cloud_dir": sys.argv[2]})
    source = DataSourceAliYun(dict(settings.CFG_BUILTIN), None, paths)
    # It is no machine of the cloud's, which a later version looks at before it asks for a token.
    source._cloud_name = "aliyun"
    found = source.crawl_metadata()
else:
    ttl = {"X-aliyun-ecs-metadata-token-ttl-seconds": "60"}
    token = requests.put(base + "/latest/api/token", headers=ttl, timeout=20)
    token.raise_for_status()
    headers = lambda url: {"X-aliyun-ecs-metadata-token": token.text}
    found = {
        "meta-data": ec2.get_instance_metadata("2016-01-01", base, headers_cb=headers),
        "user-data": ec2.get_instance_userdata("2016-01-01", base, headers_cb=headers),
    }
found["keys"] = parse_public_keys(found.get("meta-data", {}).get("public-keys", {}))
found["user-data"] = util.decode_binary(found.get("user-data", b""))
print(json.dumps(found, default=util.decode_binary))
"#;

#[test]
fn cloud_init_crawls_an_instance_with_and_without_tokens() {
    let Some(lab) = MetadataLab::new("dpkg-deb") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cloud-init");
    let unpacked = Command::new(script).output().unwrap();
    if !unpacked.status.success() {
        return eprintln!("\n*** NOT RUN: {}\n", String::from_utf8_lossy(&unpacked.stderr));
    }
    let modules = String::from_utf8(unpacked.stdout).unwrap().trim().to_owned();
    // A checkout of another version, if somebody wants to try one.
    let modules = match std::env::var("SLUICE_CLOUD_INIT") {
        Ok(other) => format!("{other}:{modules}"),
        Err(_) => modules,
    };
    let id = format!("i-{}", lab.running.namespace("d"));
    let create = InstanceCreate {
        id: Some(id.clone()),
        primary: EniCreate { vswitch: "vsw-1".into(), groups: vec!["sg-1".into()], ..EniCreate::default() },
        primary_eni: None,
        port: PortKind::Namespace,
        sockets: None,
        running: true,
        name: None,
        description: None,
        host_name: Some("web-1".into()),
        instance_type: Some("ecs.g7.large".into()),
        image: None,
        deletion_protection: false,
    };
    lab.running.client().change(&Change::InstanceCreate(Box::new(create))).unwrap();
    let note = |name: &str, value: &str| {
        let attributes = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let modify = LabelModify { object: id.clone(), attributes, ..LabelModify::default() };
        lab.running.client().change(&Change::LabelModify(modify)).unwrap();
    };
    note("UserData", "I2Nsb3VkLWNvbmZpZwpob3N0bmFtZTogd2ViLTEK");
    let folder = tempfile::tempdir().unwrap();
    let crawl = |mode: &str| -> Value {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &id, "/usr/bin/python3", "-c", CRAWL, mode]).arg(folder.path());
        let output = inside.env("PYTHONPATH", &modules).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let assert_found = |found: &Value| {
        let metadata = &found["meta-data"];
        assert_eq!(
            (&metadata["instance-id"], &metadata["hostname"]),
            (&id.as_str().into(), &"web-1".into()),
            "{found}"
        );
        let macs = metadata["network"]["interfaces"]["macs"].as_object().unwrap();
        assert_eq!(macs[metadata["mac"].as_str().unwrap()]["vpc-id"], "vpc-1");
        assert_eq!(metadata["instance"]["instance-type"], "ecs.g7.large");
        assert_eq!(found["user-data"], "#cloud-config\nhostname: web-1\n");
    };
    eventually("the record has arrived", || crawl("plain")["user-data"] != "");
    assert_found(&crawl("plain"));
    assert_found(&crawl("token"));
    note("HttpTokens", "required");
    let status_of = || {
        let url = format!("{METADATA}/latest/");
        let words = ["netns", "exec", &id, "curl", "-so", "/dev/null", "-w", "%{http_code}", &url];
        String::from_utf8(Command::new("ip").args(words).output().unwrap().stdout).unwrap()
    };
    eventually("tokens are required", || status_of() == "401");
    assert_found(&crawl("token"));
    note("HttpEndpoint", "disabled");
    eventually("there is no metadata", || status_of() == "403");
}

/// Answers each line of a connection with the same line.
const ECHO_SERVER: &str = r#"
import socket
server = socket.create_server(("0.0.0.0", 5000))
print("ready", flush=True)
connection, _ = server.accept()
while data := connection.recv(4096):
    connection.sendall(data)
"#;

/// Sends each line of its input over one connection, and prints what comes back.
const ECHO_CLIENT: &str = r#"
import socket, sys
connection = socket.create_connection(("10.0.1.10", 5000), timeout=20)
for line in sys.stdin:
    connection.sendall(line.encode())
    data = b""
    while not data.endswith(b"\n"):
        data += connection.recv(4096)
    print(data.decode(), end="", flush=True)
"#;

#[test]
fn no_connection_of_guests_notices_the_death_of_the_services_process() {
    let Some(lab) = MetadataLab::new("python3") else { return };
    let spawn = |guest: &str, program: &str| {
        let mut command = lab.running.inside_command(guest, &["python3", "-c", program]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let next_line = |output: &mut BufReader<ChildStdout>| {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    let mut server = spawn("a", ECHO_SERVER);
    assert_eq!(next_line(&mut BufReader::new(server.stdout.take().unwrap())), "ready\n");
    let mut client = spawn("b", ECHO_CLIENT);
    let (mut input, mut output) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
    for round in 0..3 {
        for number in 0..20 {
            writeln!(input, "{round} {number}").unwrap();
            assert_eq!(next_line(&mut output), format!("{round} {number}\n"));
        }
        let before = lab.running.process("services");
        lab.running.signal("services", Signal::KILL);
        writeln!(input, "meanwhile").unwrap();
        assert_eq!(next_line(&mut output), "meanwhile\n");
        eventually("another process", || lab.running.process("services") != before);
        eventually("it serves", || lab.read("c", &format!("{METADATA}/")).is_ok());
    }
    drop(input);
    assert!(client.wait().unwrap().success());
    server.wait().unwrap();
    let drops = lab.running.stats("eni-b").egress.drops;
    assert_eq!(drops.get("service-away"), None, "{drops:?}");
}

#[test]
fn a_guest_with_ipv6_alone_reads_its_metadata_and_looks_names_up() {
    let Some(lab) = MetadataLab::new("rdisc6") else { return };
    lab.running.apply(&format!(
        "{LAB}
    [[eni]]
    id = \"eni-d\"
    vswitch = \"vsw-1\"
    ipv6_addresses = [\"2001:db8:1:1::40\"]
    groups = [\"sg-1\"]
    namespace = \"@-d\"
    configure = false
"
    ));
    let inside = |line: &str| {
        let output = lab.running.inside("d", &line.split(' ').collect::<Vec<_>>());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    inside("ip link set eth0 up");
    eventually("its link-local address is there", || {
        inside("ip -6 address show dev eth0 scope link -tentative").len() > 10
    });
    // What DHCPv6 says (`netns_services.rs`); the way to everything else is advertised.
    inside("ip -6 address add 2001:db8:1:1::40/128 dev eth0 nodad");
    let mut advertised = String::new();
    eventually("it is told name servers", || {
        advertised = inside("rdisc6 -1 -r 3 eth0");
        advertised.contains("fd00:100::100:136") && advertised.contains("fd00:100::100:138")
    });
    eventually("it has a router", || !inside("ip -6 route show default").is_empty());
    assert_eq!(inside("ip -4 address show dev eth0"), "");
    let url = format!("{METADATA_V6}/latest/meta-data/instance-id");
    eventually("it is known", || lab.read("d", &url).is_ok());
    assert_eq!(lab.read("d", &url).unwrap(), "eni-d");
    assert_eq!(inside("dig +short +time=5 @fd00:100::100:136 eni-b.vpc-1.sluice AAAA").trim(), "2001:db8:1:1::20");
    assert_eq!(inside("dig +short +tcp +time=5 @fd00:100::100:138 eni-d.vpc-1.sluice AAAA").trim(), "2001:db8:1:1::40");
}

/// Requests over one connection each that claim to be another guest's, in every way that a request has. Prints how many
/// replies had another's data.
const LIAR: &str = r#"
import socket, sys
own, wrong, replies = sys.argv[1].encode(), 0, 0
lies = ["Host: 10.0.1.20", "X-Real-IP: 10.0.1.20", "Forwarded: for=10.0.1.20", "X-Client-IP: 10.0.1.20", "Via: 1.1 eni-b",
        "X-Forwarded-For: 10.0.1.20", "X-aliyun-ecs-metadata-token: eni-b", "Authorization: eni-b", "Cookie: eni=eni-b"]
paths = ["/latest/meta-data/instance-id", "/latest/meta-data/../../eni-b", "/latest/meta-data/instance-id?eni=eni-b",
         "//latest//meta-data//instance-id", "/latest/meta-data/instance-id#eni-b"]
for number in range(int(sys.argv[2])):
    one = socket.create_connection(("100.100.100.200", 80), timeout=20)
    request = f"GET {paths[number % len(paths)]} HTTP/1.1\r\n{lies[number % len(lies)]}\r\nConnection: close\r\n\r\n"
    one.sendall(request.encode())
    reply = b""
    while part := one.recv(4096):
        reply += part
    one.close()
    status, body = reply.split(b" ")[1], reply.split(b"\r\n\r\n", 1)[1]
    replies += 1
    wrong += status == b"200" and body != own
print(replies, wrong)
"#;

#[test]
fn no_guest_sees_anothers_data_whatever_it_claims() {
    const REQUESTS: u32 = 300;
    let Some(lab) = MetadataLab::new("python3") else { return };
    let lie = |guest: &str| {
        let own = format!("eni-{guest}");
        let words = ["python3", "-c", LIAR, &own, &REQUESTS.to_string()];
        lab.running.inside_command(guest, &words).stdout(Stdio::piped()).spawn().unwrap()
    };
    // The first and the last have the same address, and take turns on it.
    let told = ["a", "b", "c"].map(lie).map(|child| child.wait_with_output().unwrap());
    for output in told {
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{REQUESTS} 0"));
    }
}
