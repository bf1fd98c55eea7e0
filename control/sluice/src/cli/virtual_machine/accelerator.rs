//! What runs the instructions of a guest: KVM where that works, else emulation.

use super::{VmRun, machine};
use crate::cli::CliError;
use clap::ValueEnum;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

/// How long a kernel may take to its first word under KVM.
const FIRST_WORD_MAX: Duration = Duration::from_secs(5);

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Accelerator {
    /// KVM where this kernel boots under it, else emulation.
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Tcg,
}

/// What is to run the guest, and why in words.
pub(super) fn choose(run: &VmRun) -> Result<(Accelerator, String), CliError> {
    match run.accelerator {
        Accelerator::Kvm => Ok((Accelerator::Kvm, "KVM, as asked for".into())),
        Accelerator::Tcg => Ok((Accelerator::Tcg, "emulated, as asked for".into())),
        Accelerator::Auto => {
            let device = Path::new("/dev/kvm");
            if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(device) {
                return Ok((Accelerator::Tcg, format!("emulated, for /dev/kvm cannot be used: {error}")));
            }
            // A device that can be opened is no proof: on some machines no kernel ever runs on it.
            if boots(run, Accelerator::Kvm, FIRST_WORD_MAX)? {
                return Ok((Accelerator::Kvm, "KVM".into()));
            }
            Ok((Accelerator::Tcg, "emulated, for this kernel does not boot under the KVM of this machine".into()))
        }
    }
}

/// Whether the kernel says a word at its first serial port in time.
fn boots(run: &VmRun, accelerator: Accelerator, patience: Duration) -> Result<bool, CliError> {
    let mut qemu = machine(run, accelerator);
    qemu.args(["-append", "earlyprintk=serial,ttyS0 console=ttyS0 panic=-1", "-no-reboot", "-serial", "stdio"]);
    let mut probe = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| CliError::Usage(format!("{} cannot be started: {error}", run.qemu.display())))?;
    let (said, heard) = mpsc::channel();
    let console = probe.stdout.take();
    // Ends with the probe, whose output it reads.
    std::thread::spawn(move || said.send(console.is_some_and(|mut console| matches!(console.read(&mut [0]), Ok(1)))));
    let boots = heard.recv_timeout(patience).unwrap_or(false);
    let _ = probe.kill();
    let _ = probe.wait();
    Ok(boots)
}
