//! What a process may do, according to `/proc/PID/status`.

use rustix::thread::CapabilitySet;
use serde::Serialize;
use std::fs;
use std::io;

/// What a process may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Privileges {
    /// The user it acts as: a name, or a number if it has no name.
    pub user: String,
    /// Effective capabilities.
    pub effective: Vec<String>,
    /// Permitted capabilities, which it can make effective.
    pub permitted: Vec<String>,
    /// The bounding set: the most that a program it starts can have.
    pub bounding: Vec<String>,
    /// Inheritable capabilities, for programs that have them in their file.
    pub inheritable: Vec<String>,
    /// Ambient capabilities, which any program it starts has.
    pub ambient: Vec<String>,
    /// Whether no program that it starts can have more than it has.
    pub no_new_privs: bool,
    /// How its system calls are filtered: `filter`, `strict`, `off`, or `unknown` if the kernel has no filters.
    pub seccomp: String,
}

impl Privileges {
    /// The present privileges of a process.
    ///
    /// # Errors
    /// `NotFound` if there is no such process; otherwise the operating system's error.
    pub fn of(process_id: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process_id}/status"))?;
        // A process that has exited stays in the table until its parent collects it.
        let has_ended = status.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX"));
        if has_ended { Err(io::ErrorKind::NotFound.into()) } else { Ok(Self::read(&status)) }
    }

    fn read(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim()
        };
        let seccomp = match field("Seccomp") {
            "0" => "off",
            "1" => "strict",
            "2" => "filter",
            _ => "unknown",
        };
        Self {
            // Real, effective, saved and file system user.
            user: user_name(field("Uid").split_whitespace().nth(1).unwrap_or_default()),
            effective: names(field("CapEff")),
            permitted: names(field("CapPrm")),
            bounding: names(field("CapBnd")),
            inheritable: names(field("CapInh")),
            ambient: names(field("CapAmb")),
            no_new_privs: field("NoNewPrivs") == "1",
            seccomp: seccomp.into(),
        }
    }
}

/// The names of capabilities, as in `CAP_NET_ADMIN`; a number for one without a name here.
fn names(hexadecimal: &str) -> Vec<String> {
    let set = CapabilitySet::from_bits_retain(u64::from_str_radix(hexadecimal, 16).unwrap_or_default());
    let each = (0..u64::BITS).map(|number| (number, CapabilitySet::from_bits_retain(1 << number)));
    let held = each.filter(|(_, capability)| set.contains(*capability));
    held.map(|(number, capability)| match capability.iter_names().next() {
        Some((name, _)) => format!("CAP_{name}"),
        None => format!("CAP_{number}"),
    })
    .collect()
}

fn user_name(number: &str) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let status = "Name:\tsluice\nUid:\t0\t4294967294\t0\t0\nCapInh:\t0000000000000000\nCapPrm:\t0000008000203000\n\
                      CapEff:\t0000000000001000\nCapBnd:\t8000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let privileges = Privileges::read(status);
        assert_eq!(privileges.user, "4294967294", "nobody has this number");
        assert_eq!(privileges.permitted, ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_BPF"]);
        assert_eq!(privileges.effective, ["CAP_NET_ADMIN"]);
        assert_eq!(privileges.bounding, ["CAP_63"]);
        assert!(privileges.inheritable.is_empty() && privileges.ambient.is_empty() && privileges.no_new_privs);
        assert_eq!(privileges.seccomp, "filter");
        let bare = Privileges::read("Name:\tsluice\nSeccomp:\t0\n");
        assert_eq!((bare.no_new_privs, bare.seccomp.as_str()), (false, "off"));
        assert_eq!(Privileges::read("").seccomp, "unknown");
    }
}
