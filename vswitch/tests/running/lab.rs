//! A running switch with guests of the kernel, each in a namespace that is made for it and goes with it.

use super::{RunningSwitch, TestClient};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch::port::factory::PortFactory;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{Applied, PortStatus, RequestBody, SwitchReplyBody};

/// Two guests of one open group in one VPC, each in a namespace of its own.
pub(crate) struct NamespaceLab {
    prefix: String,
    running: RunningSwitch,
    pub(crate) client: TestClient,
    generation: u64,
}

impl NamespaceLab {
    pub(crate) fn new(test: &str, workers: usize) -> Option<Self> {
        Self::with_ports(test, workers, PortFactory::default())
    }

    pub(crate) fn with_ports(test: &str, workers: usize, ports: PortFactory) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIPPED: {test} needs root and /dev/net/tun");
            return None;
        }
        let running = RunningSwitch::start_with(workers, ports);
        let client = running.connect();
        Some(Self { prefix: format!("sluice-{test}-{}", std::process::id()), running, client, generation: 0 })
    }

    pub(crate) fn namespace(&self, number: u8) -> String {
        format!("{}-{number}", self.prefix)
    }

    pub(crate) fn desired(&self, inner_access: &str) -> Desired {
        let eni = |number: u8| {
            format!(
                r#""eni-{number}": {{"vswitch": "vsw-1", "mac": "02:00:00:00:00:0{number}", "groups": ["sg-1"],
                   "addresses": ["10.9.0.{number}/32", "2001:db8::{number}/128"],
                   "port": {{"kind": "tap", "device": "eth0", "namespace": "{}", "create_namespace": true}}}}"#,
                self.namespace(number)
            )
        };
        let json = format!(
            r#"{{"vpcs": {{"vpc-1": {{}}}},
                "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.9.0.0/24", "ipv4_gateway": "10.9.0.253",
                                          "ipv6": "2001:db8::/64", "ipv6_gateway": "2001:db8::fd"}}}},
                "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "basic", "inner_access": "{inner_access}"}}}},
                "enis": {{{}, {}}}}}"#,
            eni(1),
            eni(2)
        );
        serde_json::from_str(&json).unwrap()
    }

    pub(crate) fn apply(&mut self, desired: Desired) -> Applied {
        self.generation += 1;
        match self.client.ask(RequestBody::Replace { generation: self.generation, desired }) {
            SwitchReplyBody::Applied(applied) => applied,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ports(&mut self) -> Vec<PortStatus> {
        match self.client.ask(RequestBody::Ports) {
            SwitchReplyBody::Ports { ports } => ports,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn wait_for_port(&mut self, number: u8, up: bool) -> PortStatus {
        let started = Instant::now();
        loop {
            let port = self.ports().into_iter().find(|port| port.eni.0 == format!("eni-{number}")).unwrap();
            if port.up == up {
                return port;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{port:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command inside a guest; what it said, and whether it was content.
    pub(crate) fn run(&self, number: u8, command: &str) -> (String, bool) {
        let words = command.split(' ');
        let output = Command::new("ip").args(["netns", "exec", &self.namespace(number)]).args(words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.success())
    }

    /// Starts a command inside a guest.
    pub(crate) fn start(&self, number: u8, command: &str) -> Started {
        let words = command.split(' ');
        let namespace = self.namespace(number);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace]).args(words).stdout(Stdio::piped());
        Started(Some(command.spawn().unwrap()))
    }

    pub(crate) fn ping(&self, target: &str) -> bool {
        self.run(1, &format!("ping -c 1 -W 1 {target}")).1
    }
}

/// A command that runs inside a guest; it ends with this.
pub(crate) struct Started(Option<Child>);

impl Started {
    /// Interrupts it; what it said.
    pub(crate) fn interrupt(mut self) -> String {
        let child = self.0.take().unwrap();
        let process = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
        String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for NamespaceLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A switch that runs makes a namespace that is gone anew.
            let _ = self.running.end();
            for number in [1, 2] {
                let _ = Command::new("ip").args(["netns", "delete", &self.namespace(number)]).output();
            }
            return;
        }
        let was = [1, 2].map(|number| namespace::identity(&self.namespace(number)).ok());
        self.running.stop();
        let is = [1, 2].map(|number| namespace::identity(&self.namespace(number)).ok());
        assert_eq!(is, was, "the end of a switch removes no namespace");
    }
}
