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
    choose_by(run, Path::new("/dev/kvm"), FIRST_WORD_MAX)
}

fn choose_by(run: &VmRun, device: &Path, patience: Duration) -> Result<(Accelerator, String), CliError> {
    match run.accelerator {
        Accelerator::Kvm => Ok((Accelerator::Kvm, "KVM, as asked for".into())),
        Accelerator::Tcg => Ok((Accelerator::Tcg, "emulated, as asked for".into())),
        Accelerator::Auto => {
            if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(device) {
                let why = format!("emulated, for {} cannot be used: {error}", device.display());
                return Ok((Accelerator::Tcg, why));
            }
            // A device that can be opened is no proof: on some machines no kernel ever runs on it.
            if boots(run, Accelerator::Kvm, patience)? {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[derive(Parser)]
    struct VmRunLine {
        #[command(flatten)]
        run: VmRun,
    }

    /// What is chosen where `/dev/kvm` is this file, and the emulator this script.
    fn chosen(has_device: bool, script: &str, more: &[&str]) -> (Accelerator, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let (device, qemu) = (folder.path().join("kvm"), folder.path().join("qemu"));
        if has_device {
            fs::write(&device, "").unwrap();
        }
        let told = folder.path().join("told");
        fs::write(&qemu, format!("#!/bin/sh\necho \"$@\" > {}\n{script}\n", told.display())).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o700)).unwrap();
        let words = ["vm", "--eni", "eni-1", "--kernel", "vmlinuz", "--qemu", qemu.to_str().unwrap()];
        let VmRunLine { run } = VmRunLine::parse_from(words.iter().chain(more));
        let (accelerator, why) = choose_by(&run, &device, FIRST_WORD_MAX).unwrap();
        (accelerator, why, fs::read_to_string(told).unwrap_or_default())
    }

    #[test]
    fn kvm_runs_the_guest_where_its_kernel_says_a_word_under_it() {
        let (accelerator, why, told) = chosen(true, "echo Linux version 6; exec sleep 60", &[]);
        assert_eq!((accelerator, why.as_str()), (Accelerator::Kvm, "KVM"));
        assert!(told.contains("-accel kvm") && told.contains("-kernel vmlinuz"), "{told}");
    }

    #[test]
    fn a_device_that_can_be_opened_is_no_proof() {
        for script in ["exit 1", "echo no KVM here >&2", "exec >&-; exec sleep 60"] {
            let (accelerator, why, _) = chosen(true, script, &[]);
            assert_eq!(accelerator, Accelerator::Tcg, "{script}");
            assert!(why.contains("does not boot under the KVM of this machine"), "{why}");
        }
    }

    #[test]
    fn nothing_is_probed_where_there_is_no_device_or_the_choice_is_given() {
        let (accelerator, why, told) = chosen(false, "echo Linux", &[]);
        assert_eq!((accelerator, told.as_str()), (Accelerator::Tcg, ""));
        assert!(why.contains("cannot be used"), "{why}");
        let (accelerator, why, told) = chosen(true, "echo Linux", &["--accelerator", "tcg"]);
        assert_eq!((accelerator, why.as_str(), told.as_str()), (Accelerator::Tcg, "emulated, as asked for", ""));
        let (accelerator, why, told) = chosen(false, "exit 1", &["--accelerator", "kvm"]);
        assert_eq!((accelerator, why.as_str(), told.as_str()), (Accelerator::Kvm, "KVM, as asked for", ""));
    }
}
