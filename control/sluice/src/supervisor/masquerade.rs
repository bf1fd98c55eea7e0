//! Masquerades: tables of nftables that translate what leaves a host uplink to the machine's own address.
//!
//! The control plane says on a socket which there should be. Each is one table, `sluice_DEVICE` of the family `inet`, which
//! is replaced as a whole; no other table is touched. The tables outlive this process as the devices do; what was made is
//! recorded, so that a later process, or `sluice down`, removes what is not wanted any more.

use control::os::privileges::with_capability;
use control::os::small_file;
use control::state::masquerade::{DevicePlace, LINE_BYTES_MAX, Masquerade, MasqueradeAnswer, MasqueradeRequest};
use rustix::net::sockopt::socket_peercred;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use vswitch::os::namespace;

/// How long a client may take to write its line or to read its answer.
const CLIENT_TIME: Duration = Duration::from_secs(5);
/// Where administrators' programs are; the environment of whoever started Sluice says nothing here.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// What was made, and is to be removed one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MasqueradeRecord {
    /// The devices with a table.
    tables: BTreeSet<DevicePlace>,
    /// The devices for which forwarding was turned on.
    forwarding: BTreeSet<DevicePlace>,
}

impl MasqueradeRecord {
    fn read(path: &Path) -> Self {
        fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn write(&self, path: &Path) {
        let written = match self == &Self::default() {
            true => fs::remove_file(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
            false => small_file::write(path, &serde_json::to_vec(self).unwrap_or_default()),
        };
        if let Err(error) = written {
            log::warn!("what is masqueraded cannot be recorded at {}: {error}", path.display());
        }
    }
}

/// Serves the control plane on a thread of its own.
///
/// # Errors
/// The socket cannot be made.
pub(super) fn serve(socket: &Path, record: PathBuf) -> io::Result<()> {
    // The lock of the folder is held, so a socket that is there is left over.
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    let serve = move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => serve_client(&stream, &record),
                // Out of descriptors, for example: there may be some later.
                Err(_) => thread::sleep(CLIENT_TIME),
            }
        }
    };
    thread::Builder::new().name("masquerade".into()).spawn(serve).map(drop)
}

fn serve_client(stream: &UnixStream, record: &Path) {
    let own = rustix::process::geteuid();
    if !socket_peercred(stream).is_ok_and(|peer| peer.uid == own || peer.uid.is_root()) {
        return;
    }
    let limits = stream.set_read_timeout(Some(CLIENT_TIME)).and(stream.set_write_timeout(Some(CLIENT_TIME)));
    let mut line = String::new();
    let read = limits.and_then(|()| BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line));
    let Some(request) = read.ok().and_then(|_| serde_json::from_str::<MasqueradeRequest>(&line).ok()) else { return };
    let faults = apply(&request.masquerades, record);
    let mut answer = serde_json::to_vec(&MasqueradeAnswer { faults }).unwrap_or_default();
    answer.push(b'\n');
    let mut stream = stream;
    // The control plane asks again if it does not get the answer.
    let _ = stream.write_all(&answer);
}

/// Makes what is wanted and removes what is not. Returns what failed, by device.
fn apply(wanted: &[Masquerade], record: &Path) -> Vec<(String, String)> {
    let before = MasqueradeRecord::read(record);
    let mut made = before.clone();
    let mut faults = Vec::new();
    let (sound, unsound): (Vec<&Masquerade>, Vec<&Masquerade>) = wanted.iter().partition(|it| is_plain(&it.device));
    for it in unsound {
        let fault = "give the uplink a device with letters, digits, -, _ and . alone".to_owned();
        faults.push((it.device.clone(), fault));
    }
    let kept: BTreeSet<DevicePlace> = sound.iter().map(|it| place(it)).collect();
    for place in before.tables.difference(&kept) {
        match run(place.0.as_deref(), &removal(&place.1)) {
            Ok(()) => drop(made.tables.remove(place)),
            Err(fault) => faults.push((place.1.clone(), fault)),
        }
    }
    for it in &sound {
        // Recorded first: a table that is not there is no harm to whoever removes it.
        made.tables.insert(place(it));
        made.write(record);
        let done = run(it.namespace.as_deref(), &table(it)).and_then(|()| forward(it, &mut made));
        if let Err(fault) = done {
            faults.push((it.device.clone(), fault));
        }
    }
    let namespaces: BTreeSet<&Option<String>> = kept.iter().map(|(namespace, _)| namespace).collect();
    let unused = made.forwarding.iter().filter(|(namespace, _)| !namespaces.contains(namespace));
    for (namespace, device) in unused.cloned().collect::<Vec<_>>() {
        // A device that is gone took its setting along.
        let _ = set_forwarding(namespace.as_deref(), &device, "0");
        made.forwarding.remove(&(namespace, device));
    }
    made.write(record);
    faults
}

/// Removes all that was made, and returns the devices.
pub(crate) fn remove_all(record: &Path) -> Vec<String> {
    let made = MasqueradeRecord::read(record);
    for (device, fault) in apply(&[], record) {
        log::warn!("the table {} cannot be removed: {fault}", table_name(&device));
    }
    made.tables.into_iter().map(|(_, device)| table_name(&device)).collect()
}

fn place(masquerade: &Masquerade) -> DevicePlace {
    (masquerade.namespace.clone(), masquerade.device.clone())
}

/// Whether a name can stand in a script of nftables.
fn is_plain(device: &str) -> bool {
    let letters = device.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    letters && (1..=15).contains(&device.len()) && !device.starts_with('.')
}

fn table_name(device: &str) -> String {
    format!("sluice_{device}")
}

/// A script that removes a table, if there is one.
fn removal(device: &str) -> String {
    let name = table_name(device);
    format!("add table inet {name}\ndelete table inet {name}\n")
}

/// A script that replaces a table.
fn table(masquerade: &Masquerade) -> String {
    let Masquerade { device, sources, .. } = masquerade;
    let mut script = removal(device);
    let name = table_name(device);
    let _ = writeln!(script, "table inet {name} {{\n chain postrouting {{");
    let _ = writeln!(script, "  type nat hook postrouting priority srcnat; policy accept;");
    for source in sources {
        let family = if source.addr().is_ipv6() { "ip6" } else { "ip" };
        let _ = writeln!(script, "  {family} saddr {source} oifname != \"{device}\" masquerade");
    }
    script.push_str(" }\n}\n");
    script
}

/// Runs a script in a namespace.
fn run(namespace: Option<&str>, script: &str) -> Result<(), String> {
    // A namespace that is gone took its tables along.
    if namespace.is_some_and(|name| namespace::identity(name).is_err()) && !script.contains("chain") {
        return Ok(());
    }
    let done = privileged(namespace, || {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]).env_clear().env("PATH", PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut nft = command.spawn()?;
        let written = nft.stdin.take().map_or(Ok(()), |mut input| input.write_all(script.as_bytes()));
        let output = nft.wait_with_output()?;
        match output.status.success() {
            true => written,
            false => {
                let text = String::from_utf8_lossy(&output.stderr);
                let words: Vec<&str> = text.lines().next().unwrap_or("it failed").split_whitespace().collect();
                Err(io::Error::other(format!("nft: {}", words.join(" "))))
            }
        }
    });
    done.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if namespace.is_none_or(|name| namespace::identity(name).is_ok()) => {
            "the program nft is missing: install the package nftables".into()
        }
        _ => error.to_string(),
    })
}

/// Turns on IPv4 forwarding for the uplink's device, and for the devices by which the machine's default routes lead: the
/// kernel asks for it where a packet comes in.
fn forward(masquerade: &Masquerade, made: &mut MasqueradeRecord) -> Result<(), String> {
    let namespace = masquerade.namespace.as_deref();
    let routes = privileged(namespace, || fs::read_to_string("/proc/thread-self/net/route"));
    let routes = routes.map_err(|error| format!("the routes cannot be read: {error}"))?;
    for device in std::iter::once(masquerade.device.as_str()).chain(default_devices(&routes)) {
        let changed = set_forwarding(namespace, device, "1");
        let changed = changed.map_err(|error| {
            format!("{device} does not forward: {error}; run `sysctl -w net.ipv4.conf.{device}.forwarding=1`")
        })?;
        if changed && device != masquerade.device {
            made.forwarding.insert((masquerade.namespace.clone(), device.to_owned()));
        }
    }
    Ok(())
}

/// The devices of the default routes, of what `/proc/net/route` says.
fn default_devices(routes: &str) -> impl Iterator<Item = &str> {
    let fields = routes.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000"))
        .map(|fields| fields[0])
}

/// Returns whether the setting was another one.
fn set_forwarding(namespace: Option<&str>, device: &str, value: &str) -> io::Result<bool> {
    privileged(namespace, || {
        let path = Path::new("/proc/sys/net/ipv4/conf").join(device).join("forwarding");
        let is_set = fs::read_to_string(&path)?.trim() == value;
        if !is_set {
            fs::write(&path, value)?;
        }
        Ok(!is_set)
    })
}

/// Does a piece of work on a thread of its own, with what this process may do but does not usually have in effect.
fn privileged<T: Send>(namespace: Option<&str>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
        let work = move || with_capability(needed, || namespace::within_any(namespace, work));
        let thread = thread::Builder::new().name("masquerade".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_replaces_one_table_and_names_no_other() {
        let masquerade = Masquerade {
            device: "upl-1".into(),
            namespace: None,
            sources: ["169.254.64.2/32", "fd00::/56"].iter().filter_map(|text| text.parse().ok()).collect(),
        };
        let script = table(&masquerade);
        assert!(
            script
                .starts_with("add table inet sluice_upl-1\ndelete table inet sluice_upl-1\ntable inet sluice_upl-1 {")
        );
        assert!(script.contains("ip saddr 169.254.64.2/32 oifname != \"upl-1\" masquerade\n"));
        assert!(script.contains("ip6 saddr fd00::/56 oifname != \"upl-1\" masquerade\n"));
    }

    #[test]
    fn names_that_would_be_a_script_of_their_own_are_refused() {
        for name in ["", "a b", "a\"b", "a;b", "a{", ".", "far-too-long-a-name"] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("uplk3x09q2m7d1c"));
    }

    #[test]
    fn default_routes_are_found_by_destination_and_mask() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t010000C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth0\t000000C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_devices(routes).collect::<Vec<_>>(), ["eth0"]);
    }
}
