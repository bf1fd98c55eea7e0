//! Both planes as processes of this program, on one core, in a folder that is removed with them.

use control::ecs::AccessKey;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The planes, which end when this is dropped.
pub(super) struct ApiPlanes {
    folder: PathBuf,
    /// The control plane, then the forwarding plane.
    children: Vec<Child>,
    address: SocketAddr,
}

impl ApiPlanes {
    /// Starts them, with a single access key and generous quotas.
    pub(super) fn start(parent: Option<&Path>, key: &AccessKey, core: usize) -> Result<Self, String> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = parent.join(format!("sluice-bench-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut planes = Self { folder, children: Vec::new(), address: nowhere };
        let config = planes.folder.join("sluice.toml");
        let text = format!(
            "listen = \"{nowhere}\"\n[quotas]\ngroups_max = 100000\nenis_max = 16384\nrules_per_eni_max = 10000\n\
             basic_group_addresses_max = 100000\n[[api.access_keys]]\nid = \"{}\"\nsecret = \"{}\"\n",
            key.id, key.secret
        );
        fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        // Processes start on the core of the thread that starts them.
        let fault = |error: rustix::io::Errno| format!("core {core} is not available: {error}");
        let everywhere = sched_getaffinity(None).map_err(fault)?;
        let mut there = CpuSet::new();
        there.set(core);
        sched_setaffinity(None, &there).map_err(fault)?;
        let started = planes.start_both(&config);
        sched_setaffinity(None, &everywhere).map_err(fault)?;
        started.map(|()| planes)
    }

    fn start_both(&mut self, config: &Path) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let begin = |plane: &str| {
            let mut command = Command::new(&program);
            command.args([plane, "--with-parent"]);
            command.arg("--run-dir").arg(self.folder.join("run")).arg("--data-dir").arg(self.folder.join("data"));
            command
        };
        fs::create_dir_all(self.folder.join("run")).map_err(|error| error.to_string())?;
        let spawn = |command: &mut Command| command.spawn().map_err(|error| format!("a plane does not start: {error}"));
        let mut vswitch = begin("vswitch");
        let vswitch = spawn(vswitch.args(["--workers", "1", "--no-pin", "--busy-poll", "never"]))?;
        let mut control = begin("control");
        let mut control = spawn(control.arg("--config").arg(config).stdout(Stdio::piped()))?;
        let output = control.stdout.take();
        self.children = vec![control, vswitch];
        let mut lines = output.map(BufReader::new).into_iter().flat_map(BufReader::lines).map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once("http://")?.1.trim_end_matches('/').parse().ok());
        self.address = address.ok_or("the control plane does not report where it listens")?;
        Ok(())
    }

    /// The address of the HTTP interface.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The processor times of the control plane and the forwarding plane so far.
    pub(super) fn processor_times(&self) -> Result<[Duration; 2], String> {
        let time = |child: &Child| {
            let path = format!("/proc/{}/schedstat", child.id());
            let threads =
                fs::read_dir(format!("/proc/{}/task", child.id())).map_err(|error| format!("{path}: {error}"))?;
            let spent_ns = threads.flatten().filter_map(|thread| {
                let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<u64>().ok()
            });
            Ok::<_, String>(Duration::from_nanos(spent_ns.sum()))
        };
        Ok([time(&self.children[0])?, time(&self.children[1])?])
    }
}

impl Drop for ApiPlanes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
