//! Virtual machines as guests: QEMU boots a kernel of Debian's with a small file system, and runs the commands of a test.
//! `scripts/guest` unpacks what that takes.

use crate::netns::{PATIENCE, eventually};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Set where a machine that cannot boot guests is a failure and not a reason to skip tests.
const REQUIRED_VARIABLE: &str = "SLUICE_GUESTS_REQUIRED";

/// Memory of a guest, MiB.
const MEMORY_MIB: usize = 128;

/// The folder that `scripts/guest` made, found out once for all tests of a process; without it why there is none, said loudly.
///
/// # Panics
/// Where guests are required and cannot be had.
pub fn files() -> Result<&'static Path, String> {
    static FILES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/guest");
        let made = Command::new(script).output().map_err(|error| error.to_string())?;
        let told = String::from_utf8_lossy(&made.stdout);
        match made.status.success() {
            true => Ok(PathBuf::from(told.trim())),
            false => Err(String::from_utf8_lossy(&made.stderr).into_owned()),
        }
    };
    let files = FILES.get_or_init(make).as_deref();
    files.map_err(|error| {
        assert!(std::env::var_os(REQUIRED_VARIABLE).is_none(), "no guest, though {REQUIRED_VARIABLE} is set: {error}");
        format!("NOT RUN: `scripts/guest` could not make a guest: {error}")
    })
}

/// How a virtual machine is plugged into the switch: the options of `sluice port attach` on one side, those of QEMU on the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug {
    /// The switch listens at a stream socket.
    StreamToSwitch,
    /// QEMU listens at a stream socket, and the switch connects.
    StreamToGuest,
    /// QEMU opens a TAP device by its name; the switch has the interface of it.
    TapByName,
    /// QEMU shares its memory, and connects to the switch, again and again.
    VhostUserToSwitch,
    /// QEMU shares its memory and listens, and the switch connects.
    VhostUserToGuest,
}

impl Plug {
    /// Whether the guest has its network again after the forwarding plane was started anew, though QEMU was not.
    pub fn survives_restart(self) -> bool {
        match self {
            // QEMU connects again since its version 8.0 only.
            Self::StreamToSwitch => false,
            Self::StreamToGuest | Self::TapByName | Self::VhostUserToSwitch | Self::VhostUserToGuest => true,
        }
    }

    /// What a lab file says of the port of guest `name`, whose socket or namespace are in `folder` or have that prefix.
    pub fn lab(self, folder: &Path, name: &str) -> String {
        let socket = socket(folder, name);
        match self {
            Self::StreamToSwitch => format!("stream = '{}'", socket.display()),
            Self::StreamToGuest => format!("stream = '{}'\nclient = true", socket.display()),
            Self::VhostUserToSwitch => format!("vhost_user = '{}'", socket.display()),
            Self::VhostUserToGuest => format!("vhost_user = '{}'\nclient = true", socket.display()),
            Self::TapByName => format!("host_interface = 'tap-{name}'\nnamespace = '@-host'"),
        }
    }

    /// The options of QEMU's for the interface.
    fn netdev(self, folder: &Path, name: &str) -> Vec<String> {
        let socket = socket(folder, name);
        let socket = socket.display();
        let shared = |end: &str| {
            let memory = format!("memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on");
            let chardev = format!("socket,id=net,path={socket},{end}");
            let options = ["-object", &memory, "-numa", "node,memdev=memory", "-chardev", &chardev];
            options.into_iter().chain(["-netdev", "vhost-user,id=net0,chardev=net"]).map(str::to_owned).collect()
        };
        let netdev = match self {
            Self::StreamToSwitch => format!("stream,id=net0,server=off,addr.type=unix,addr.path={socket}"),
            Self::StreamToGuest => format!("stream,id=net0,server=on,addr.type=unix,addr.path={socket}"),
            Self::TapByName => format!("tap,id=net0,ifname=tap-{name},script=no,downscript=no"),
            Self::VhostUserToSwitch => return shared("reconnect=1"),
            // Else QEMU waits for the switch before it listens to anybody.
            Self::VhostUserToGuest => return shared("server=on,wait=off"),
        };
        vec!["-netdev".into(), netdev]
    }

    /// What further options the device in the guest has.
    fn device(self) -> &'static str {
        match self {
            Self::StreamToSwitch | Self::StreamToGuest | Self::TapByName => "",
            // Interrupts by message make QEMU 7.2 crash where it emulates the processor and another process the device.
            Self::VhostUserToSwitch | Self::VhostUserToGuest => ",vectors=0",
        }
    }
}

fn monitor_socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.monitor"))
}

fn migration_socket(folder: &Path) -> PathBuf {
    folder.join("migration.sock")
}

fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

/// What a guest is started with.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Its name, unique in the folder.
    pub name: String,
    /// How it is plugged in.
    pub plug: Plug,
    /// Its hardware address.
    pub mac: String,
    /// Its address with the length of the prefix, and its gateway.
    pub address: [String; 2],
    /// Where sockets and consoles are.
    pub folder: PathBuf,
    /// The network namespace that QEMU runs in, if another than the test's own.
    pub namespace: Option<String>,
}

/// The kernel's command line for a guest with this address and gateway.
pub fn kernel_words(address: &str, gateway: &str) -> String {
    // Whatever a busy machine does to the clocks of an emulated one is no fault to report.
    let words = "console=ttyS0 quiet panic=-1 no_timer_check nowatchdog mitigations=off random.trust_cpu=on";
    format!("{words} guest.address={address} guest.gateway={gateway}")
}

/// A running virtual machine. It ends with its value.
pub struct QemuGuest {
    process: Child,
    /// What the guest answers on its second serial port, and what of it was not looked at yet.
    control: UnixStream,
    unread: Vec<u8>,
    /// Numbers the commands, so that no answer is taken for another's.
    commands: u32,
    console: PathBuf,
}

impl QemuGuest {
    /// Starts QEMU; [`QemuGuest::wait_until_ready`] then waits for the guest, so that several boot at once.
    pub fn start(spec: &MachineSpec) -> Self {
        Self::start_with(spec, &[])
    }

    /// Starts a QEMU that waits for the guest of [`QemuGuest::migrate`].
    pub fn start_incoming(spec: &MachineSpec) -> Self {
        let socket = migration_socket(&spec.folder);
        let target = MachineSpec { name: format!("{}-target", spec.name), ..spec.clone() };
        let target = Self::start_with(&target, &["-incoming", &format!("unix:{}", socket.display())]);
        eventually("the target listens", || socket.exists());
        target
    }

    /// Moves the guest to the QEMU that waits for it, where it goes on; this one has none any more.
    pub fn migrate(&mut self, spec: &MachineSpec) {
        let monitor = UnixStream::connect(monitor_socket(&spec.folder, &spec.name)).expect("QEMU's monitor");
        let mut answers = BufReader::new(monitor.try_clone().expect("a socket")).lines();
        let mut ask = |command: &str| {
            writeln!(&monitor, "{command}").expect("QEMU listens");
            let is_answer = |line: &String| line.contains("\"return\"") || line.contains("\"error\"");
            answers.by_ref().map_while(Result::ok).find(is_answer).expect("QEMU answers")
        };
        ask(r#"{"execute":"qmp_capabilities"}"#);
        let socket = migration_socket(&spec.folder);
        let uri = socket.display();
        let started = ask(&format!(r#"{{"execute":"migrate","arguments":{{"uri":"unix:{uri}"}}}}"#));
        assert!(started.contains("return"), "{started}");
        eventually("the guest has moved", || {
            let told = ask(r#"{"execute":"query-migrate"}"#);
            assert!(!told.contains("\"failed\""), "{told}");
            told.contains("\"completed\"")
        });
        self.kill();
    }

    fn start_with(spec: &MachineSpec, further: &[&str]) -> Self {
        let files = files().expect("whoever starts a guest has asked for the files");
        let console = spec.folder.join(format!("{}.console", spec.name));
        let qemu = files.join("qemu");
        let mut command = match &spec.namespace {
            None => Command::new(qemu),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(qemu);
                command
            }
        };
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-M", "q35", "-accel", "tcg"]);
        command.args(["-m", &MEMORY_MIB.to_string()]);
        command.arg("-kernel").arg(files.join("kernel")).arg("-initrd").arg(files.join("initrd"));
        let [address, gateway] = &spec.address;
        command.args(["-append", &kernel_words(address, gateway)]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        // The target of a migration is plugged in where its source is.
        let port = spec.name.strip_suffix("-target").unwrap_or(&spec.name);
        command.args(spec.plug.netdev(&spec.folder, port));
        let (mac, options) = (&spec.mac, spec.plug.device());
        command.args(["-device", &format!("virtio-net-pci,netdev=net0,mac={mac},romfile={options}")]);
        let monitor = monitor_socket(&spec.folder, &spec.name);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())]).args(further);
        Self::start_by(command, console)
    }

    /// Starts QEMU by a command that lacks the second serial port only.
    pub fn start_by(mut command: Command, console: PathBuf) -> Self {
        let (control, theirs) = UnixStream::pair().expect("a pair of sockets");
        // Above those that `sluice vm exec` gives to QEMU.
        let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, 32).expect("a descriptor");
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).expect("a descriptor to be inherited");
        control.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        command.args([
            "-chardev",
            &format!("socket,id=control,fd={}", theirs.as_raw_fd()),
            "-serial",
            "chardev:control",
        ]);
        let process = command.stdin(Stdio::null()).spawn().expect("QEMU starts");
        Self { process, control, unread: Vec::new(), commands: 0, console }
    }

    /// Waits until the guest takes commands.
    pub fn wait_until_ready(&mut self) {
        self.read_until("guest ready");
    }

    /// Runs a command of the guest's shell, and gives its status and what it wrote.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        self.commands += 1;
        let number = self.commands;
        writeln!(self.control, "{number} {command}").expect("the guest listens");
        let text = self.read_until(&format!("guest {number} ended with "));
        let status = self.read_until("\n");
        (status.trim().parse().expect("a status"), text)
    }

    /// Runs a command that has to succeed.
    pub fn must(&mut self, command: &str) -> String {
        let (status, text) = self.run(command);
        assert_eq!(status, 0, "{command}: {text}");
        text
    }

    /// Whether a command succeeds.
    pub fn passes(&mut self, command: &str) -> bool {
        self.run(command).0 == 0
    }

    /// Starts the guest anew, as its user would, and waits until it takes commands again.
    pub fn reboot(&mut self) {
        self.commands += 1;
        writeln!(self.control, "{} reboot -f", self.commands).expect("the guest listens");
        self.wait_until_ready();
    }

    /// Switches the guest off, and waits until QEMU has ended.
    pub fn power_off(mut self) -> ExitStatus {
        self.commands += 1;
        writeln!(self.control, "{} poweroff -f", self.commands).expect("the guest listens");
        self.process.wait().expect("it ends")
    }

    /// Ends QEMU without a chance to say so.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// What has come before `marker`, waiting for that.
    fn read_until(&mut self, marker: &str) -> String {
        let (started, marker) = (Instant::now(), marker.as_bytes());
        loop {
            if let Some(at) = self.unread.windows(marker.len()).position(|some| some == marker) {
                let before = self.unread.drain(..at + marker.len()).collect::<Vec<_>>();
                return String::from_utf8_lossy(&before[..at]).into_owned();
            }
            let mut some = [0; 4096];
            let read = if started.elapsed() < PATIENCE { self.control.read(&mut some).unwrap_or(0) } else { 0 };
            if read == 0 {
                let console = std::fs::read(&self.console).unwrap_or_default();
                panic!(
                    "the guest does not answer {}: {}\n{}",
                    String::from_utf8_lossy(marker),
                    String::from_utf8_lossy(&self.unread),
                    String::from_utf8_lossy(&console)
                );
            }
            self.unread.extend_from_slice(&some[..read]);
        }
    }
}

impl QemuGuest {
    /// Segments and datagrams whose checksum this guest found wrong.
    pub fn checksum_errors(&mut self) -> u64 {
        // A line of names, and below it one of numbers, for each protocol.
        let text = self.must("cat /proc/net/snmp");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let pairs = lines.windows(2).filter(|pair| pair[0].first() == pair[1].first());
        let errors = pairs.flat_map(|pair| pair[0].iter().zip(&pair[1])).filter(|(name, _)| **name == "InCsumErrors");
        errors.map(|(_, count)| count.parse::<u64>().expect("a count")).sum()
    }

    /// Waits until this guest reaches an address.
    pub fn eventually_pings(&mut self, address: &str) {
        eventually(&format!("a ping of {address}"), || self.passes(&format!("ping -c1 -W1 {address}")));
    }

    /// Bytes that its interface has received.
    pub fn received_bytes(&mut self) -> u64 {
        self.must("cat /sys/class/net/eth0/statistics/rx_bytes").trim().parse().expect("a count")
    }

    /// Waits until nothing more comes, which has to happen while its peers still send.
    pub fn eventually_receives_nothing(&mut self) {
        let mut last = self.received_bytes();
        eventually("no more bytes", || {
            std::thread::sleep(Duration::from_millis(200));
            // Whatever the router and its neighbours say is less than one full segment.
            let now = self.received_bytes();
            now - std::mem::replace(&mut last, now) < 1400
        });
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        self.kill();
    }
}
