//! Masquerade: what leaves a host uplink leaves the machine with the machine's address. The supervisor makes the rules for
//! that, because it may start a program and this process may not; this side tells it which there should be.
//!
//! One line of JSON goes each way on the supervisor's socket: all masquerades, and why each that is not there is not.

use crate::model::Model;
use crate::os::unix_socket;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vswitch_core::config::desired::DesiredPort;

/// Bytes of a line, either way.
pub const LINE_BYTES_MAX: u64 = 1 << 20;
/// How long the supervisor may take to accept a connection, and to answer.
const CONNECT_TIME: Duration = Duration::from_secs(1);
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// When to try again what failed.
const RETRY: Duration = Duration::from_secs(5);

/// A device in a namespace.
pub type DevicePlace = (Option<String>, String);

/// What the machine translates of what one device brings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masquerade {
    /// The TAP device of the uplink.
    pub device: String,
    /// The named network namespace it is in; the machine's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Which sources are translated.
    pub sources: BTreeSet<IpNet>,
}

/// The request: all that there should be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasqueradeRequest {
    /// All masquerades.
    pub masquerades: Vec<Masquerade>,
}

/// The answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct MasqueradeAnswer {
    /// Why what is not there is not, by device.
    pub faults: Vec<(String, String)>,
}

/// What the machine is to translate.
fn wanted(model: &Model) -> Vec<Masquerade> {
    let uplinks = model.uplinks.values().filter(|uplink| uplink.masquerade);
    let masquerades = uplinks.filter_map(|uplink| {
        let DesiredPort::Tap(tap) = &uplink.port else { return None };
        let own = uplink.ipv4.map(|it| Ipv4Net::from(it.address.addr()));
        let vpc = model.vpcs.get(&uplink.vpc)?;
        // Where nothing is translated before, private addresses arrive as they are.
        let private = vpc.ipv4_cidrs().filter(|_| uplink.nat == crate::command::UplinkNat::None);
        let ipv4 = own.into_iter().chain(uplink.addresses.iter().copied()).chain(private).map(IpNet::V4);
        let sources = ipv4.chain(vpc.ipv6_cidr.map(IpNet::V6)).collect();
        Some(Masquerade { device: tap.device.clone(), namespace: tap.namespace.clone(), sources })
    });
    masquerades.collect()
}

/// Brings the machine's rules in line with the model.
pub(crate) struct MasqueradeLink {
    /// The supervisor's socket; none if there is no supervisor.
    socket: Option<PathBuf>,
    /// What the supervisor has confirmed; unknown at the start.
    confirmed: Option<Vec<Masquerade>>,
    retry_at: Option<Instant>,
}

impl MasqueradeLink {
    pub(crate) fn new(socket: Option<PathBuf>) -> Self {
        // The supervisor is asked at once: an earlier process may have left other rules.
        let retry_at = socket.is_some().then(Instant::now);
        Self { socket, confirmed: None, retry_at }
    }

    /// When something is to be tried again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tries again what is due. What fails is logged.
    pub(crate) fn try_again(&mut self, model: &Model) {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.converge(model).iter().for_each(|warning| log::warn!("{warning}"));
        }
    }

    /// Makes the rules what the model says, and returns what is not in force, in words.
    pub(crate) fn converge(&mut self, model: &Model) -> Vec<String> {
        let wanted = wanted(model);
        if self.confirmed.as_ref() == Some(&wanted) {
            return Vec::new();
        }
        let Some(socket) = &self.socket else {
            let fault = "there is no `sluice up` that could make the rules";
            return wanted.iter().map(|it| warning(&it.device, fault)).collect();
        };
        let request = MasqueradeRequest { masquerades: wanted };
        let faults = match ask(socket, &request) {
            Ok(answer) => answer.faults,
            Err(error) => request.masquerades.iter().map(|it| (it.device.clone(), error.to_string())).collect(),
        };
        // One whose removal failed is not among them, and is tried again all the same.
        self.retry_at = (!faults.is_empty()).then(|| Instant::now() + RETRY);
        self.confirmed = faults.is_empty().then_some(request.masquerades);
        let by_device: BTreeMap<String, String> = faults.into_iter().collect();
        by_device.iter().map(|(device, fault)| warning(device, fault)).collect()
    }
}

fn warning(device: &str, fault: &str) -> String {
    format!("what leaves by {device} is not masqueraded: {fault}")
}

fn ask(socket: &Path, request: &MasqueradeRequest) -> io::Result<MasqueradeAnswer> {
    let mut stream = unix_socket::connect(socket, CONNECT_TIME)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::environment::Environment;
    use crate::model::Quotas;
    use std::os::unix::net::UnixListener;

    fn made(model: &mut Model, command: &str) {
        let command: Command = serde_json::from_str(command).unwrap();
        for event in model.decide(&command, &Environment::fixed(0, 0)).unwrap() {
            model.apply(event);
        }
    }

    fn model() -> Model {
        let mut model = Model::new(Quotas::default());
        made(&mut model, r#"{"op":"vpc-create","id":"vpc-1","cidr":"10.0.0.0/16","ipv6_cidr":"fd00:1::/56"}"#);
        made(&mut model, r#"{"op":"uplink-create","id":"upl-1","vpc":"vpc-1","masquerade":true,"namespace":"out"}"#);
        model
    }

    #[test]
    fn what_is_translated_before_needs_its_external_addresses_alone() {
        let mut model = model();
        let texts = |model: &Model| -> Vec<String> {
            wanted(model).iter().flat_map(|it| it.sources.iter()).map(ToString::to_string).collect()
        };
        assert_eq!(texts(&model), ["169.254.64.2/32", "198.18.0.0/15", "fd00:1::/56"]);
        made(&mut model, r#"{"op":"uplink-modify","uplink":"upl-1","nat":"none"}"#);
        assert!(texts(&model).contains(&"10.0.0.0/16".to_owned()));
        made(&mut model, r#"{"op":"uplink-modify","uplink":"upl-1","masquerade":false}"#);
        assert_eq!(wanted(&model), []);
    }

    #[test]
    fn what_the_supervisor_cannot_do_is_told_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.sock");
        let model = model();
        let mut link = MasqueradeLink::new(Some(path.clone()));
        assert!(link.converge(&model)[0].starts_with("what leaves by upl-1 is not masqueraded: "));
        assert!(link.due().is_some());
        let listener = UnixListener::bind(&path).unwrap();
        let supervisor = std::thread::spawn(move || {
            for answer in [r#"{"faults":[["upl-1","no nft"]]}"#, r#"{"faults":[]}"#] {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let request: MasqueradeRequest = serde_json::from_str(&line).unwrap();
                assert_eq!(request.masquerades[0].namespace.as_deref(), Some("out"));
                writeln!(&stream, "{answer}").unwrap();
            }
        });
        assert_eq!(link.converge(&model), ["what leaves by upl-1 is not masqueraded: no nft"]);
        assert_eq!(link.converge(&model), Vec::<String>::new());
        supervisor.join().unwrap();
        // Nobody listens any more, and nothing is asked.
        assert_eq!((link.converge(&model), link.due()), (Vec::new(), None));
    }
}
