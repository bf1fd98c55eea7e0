//! Devices that outlive the switch that made them.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch::port::factory::PortFactory;
use vswitch::port::tap::persistent;
use vswitch::{VswitchConfig, run_until};
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{self, RequestBody, SwitchReply, SwitchReplyBody, SwitchRequest, VERSION};

/// A switch on a socket that the next one may have, and the namespace of its guest, which somebody else made.
struct PersistenceWorld {
    folder: tempfile::TempDir,
    guest: String,
}

impl PersistenceWorld {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
            eprintln!("SKIPPED: {test} needs root and /dev/net/tun");
            return None;
        }
        let guest = format!("sluice-{test}-{}", std::process::id());
        assert!(Command::new("ip").args(["netns", "add", &guest]).status().unwrap().success());
        Some(Self { folder: tempfile::tempdir().unwrap(), guest })
    }

    fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.split(' ');
        let output = Command::new("ip").args(["-n", &self.guest]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// The number of the guest's device; none if it has none.
    fn index(&self) -> Option<u32> {
        self.ip("-o link show dev eth0").split(':').next()?.parse().ok()
    }

    fn has(&self, address: &str) -> bool {
        self.ip("-o address show dev eth0").contains(&format!(" {address}/"))
    }

    fn start(&self, ports: PortFactory) -> PersistenceSwitch {
        let path = self.folder.path().join("vswitch.sock");
        let (stop, stopped) = UnixStream::pair().unwrap();
        let mut config = VswitchConfig::new(&path);
        (config.workers, config.flows_max_per_worker, config.pin, config.ports) = (2, 4096, false, ports);
        let thread = std::thread::spawn(move || run_until(config, stopped));
        let started = std::time::Instant::now();
        let control = loop {
            match UnixStream::connect(&path) {
                Ok(control) => break BufReader::new(control),
                Err(error) => assert!(started.elapsed().as_secs() < 120, "{error}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        PersistenceSwitch { stop: Some(stop), thread: Some(thread), control, generation: 0 }
    }

    /// One ENI with these addresses, or none.
    fn desired(&self, address: Option<&str>) -> Desired {
        let eni = address.map(|address| {
            format!(
                r#""eni-1": {{"vswitch": "vsw-1", "mac": "02:00:00:00:00:01", "groups": ["sg-1"],
                    "addresses": ["{address}/32"],
                    "port": {{"kind": "tap", "device": "eth0", "namespace": "{}"}}}}"#,
                self.guest
            )
        });
        let json = format!(
            r#"{{"vpcs": {{"vpc-1": {{}}}},
                "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.9.0.0/24", "ipv4_gateway": "10.9.0.253"}}}},
                "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "basic", "inner_access": "accept"}}}},
                "enis": {{{}}}}}"#,
            eni.unwrap_or_default()
        );
        serde_json::from_str(&json).unwrap()
    }
}

impl Drop for PersistenceWorld {
    fn drop(&mut self) {
        let _ = persistent::remove_all(&RunDir::beside(&self.folder.path().join("vswitch.sock")), |_| {});
        let _ = Command::new("ip").args(["netns", "delete", &self.guest]).output();
    }
}

struct PersistenceSwitch {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    control: BufReader<UnixStream>,
    generation: u64,
}

impl PersistenceSwitch {
    fn run(&mut self, desired: Desired) {
        self.generation += 1;
        let body = RequestBody::Replace { generation: self.generation, desired };
        let request = protocol::write(&SwitchRequest { version: VERSION, id: 1, body });
        self.control.get_mut().write_all(&request).unwrap();
        let mut line = Vec::new();
        self.control.read_until(b'\n', &mut line).unwrap();
        let reply: SwitchReply = protocol::read(&line).unwrap();
        match reply.body {
            SwitchReplyBody::Applied(applied) => assert!(applied.ports_down.is_empty(), "{:?}", applied.ports_down),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for PersistenceSwitch {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || matches!(ended, Ok(Ok(()))), "{ended:?}");
    }
}

#[test]
fn a_device_stays_with_all_that_its_guest_set_and_goes_with_its_eni() {
    let Some(world) = PersistenceWorld::new("stays") else { return };
    let mut switch = world.start(PortFactory::default());
    switch.run(world.desired(Some("10.9.0.5")));
    let first = world.index().unwrap();
    for own in ["address add 10.77.0.1/24 dev eth0", "route add 10.78.0.0/16 via 10.9.0.253 dev eth0"] {
        assert_eq!(world.ip(own), "");
    }
    drop(switch);
    assert_eq!(world.index(), Some(first));
    assert!(world.has("10.9.0.5") && world.has("10.77.0.1"));
    assert!(world.ip("route").contains("default via 10.9.0.253"), "{}", world.ip("route"));
    // The next one changes what has changed meanwhile, and nothing else.
    let mut switch = world.start(PortFactory::default());
    switch.run(world.desired(Some("10.9.0.6")));
    assert_eq!(world.index(), Some(first));
    assert!(!world.has("10.9.0.5") && world.has("10.9.0.6") && world.has("10.77.0.1"));
    assert!(world.ip("route").contains("10.78.0.0/16"), "{}", world.ip("route"));
    switch.run(world.desired(Some("10.9.0.7")));
    drop(switch);
    let mut switch = world.start(PortFactory::default());
    switch.run(world.desired(Some("10.9.0.8")));
    assert!(!world.has("10.9.0.7") && world.has("10.9.0.8"), "what a running switch changed is known as well");
    switch.run(world.desired(None));
    assert_eq!(world.index(), None);
    // Also where its ENI was deleted while no switch ran.
    switch.run(world.desired(Some("10.9.0.5")));
    drop(switch);
    let other = |desired: Desired| {
        let text = serde_json::to_string(&desired).unwrap().replace("eth0", "eth1").replace("eni-1", "eni-2");
        serde_json::from_str(&text).unwrap()
    };
    // A state without any ENI is rather one that was lost than one from which all were deleted.
    let mut switch = world.start(PortFactory::default());
    switch.run(world.desired(None));
    drop(switch);
    assert!(world.index().is_some());
    let mut switch = world.start(PortFactory::default());
    switch.run(other(world.desired(Some("10.9.0.6"))));
    assert_eq!(world.index(), None);
}

#[test]
fn a_device_that_cannot_be_what_is_wanted_now_is_made_anew() {
    let Some(world) = PersistenceWorld::new("anew") else { return };
    if vswitch::port::tap::steering::load().is_err() {
        eprintln!("SKIPPED: rx queues need the capability for BPF");
        return;
    }
    let rx_queues = |rx_queues| PortFactory { rx_queues, ..PortFactory::default() };
    let mut indices = Vec::new();
    for ports in [rx_queues(1), rx_queues(2), rx_queues(2), rx_queues(1)] {
        let plain = PortFactory { plain_taps: ports.rx_queues == 2, ..ports };
        let mut switch = world.start(plain);
        switch.run(world.desired(Some("10.9.0.5")));
        indices.push(world.index().unwrap());
        assert!(world.has("10.9.0.5"));
    }
    assert!(indices[0] != indices[1] && indices[1] == indices[2] && indices[2] != indices[3], "{indices:?}");
}

#[test]
fn a_device_of_somebody_else_is_left_as_it_was_found() {
    let Some(world) = PersistenceWorld::new("foreign") else { return };
    assert_eq!(world.ip("tuntap add dev eth0 mode tap"), "");
    let first = world.index();
    for _ in 0..2 {
        let mut switch = world.start(PortFactory::default());
        switch.run(world.desired(Some("10.9.0.5")));
        assert_eq!(world.index(), first);
        switch.run(world.desired(None));
        assert_eq!(world.index(), first);
    }
    assert_eq!(persistent::made(&RunDir::beside(&world.folder.path().join("vswitch.sock"))), []);
    assert!(namespace::identity(&world.guest).is_ok());
}
