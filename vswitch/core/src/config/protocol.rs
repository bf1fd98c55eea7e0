//! The control protocol of the forwarding plane: messages as values, and as lines of JSON.
//!
//! One request or reply is one line. Every line carries the protocol version; a reply repeats the request's id. The
//! control plane numbers its desired states; a [`RequestBody::Apply`] names the generation it builds on, and on any
//! mismatch the control plane sends the whole state with [`RequestBody::Replace`].

pub use crate::config::delta::Delta;
use crate::config::desired::{Desired, Direction};
use crate::config::ids::{EniId, RuleId};
use crate::config::limits::MESSAGE_BYTES_MAX;
use crate::config::phase_times::PhaseTimes;
use crate::config::refusal::Refusal;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// A request to the forwarding plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchRequest {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// Chosen by the sender; the reply repeats it.
    pub id: u64,
    /// The request itself.
    #[serde(flatten)]
    pub body: RequestBody,
}

/// A request to the forwarding plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum RequestBody {
    /// Report identity and running generation.
    Status,
    /// Run exactly this state from now on.
    Replace {
        /// The number of the new state.
        generation: u64,
        /// The state.
        desired: Desired,
    },
    /// Change the running state.
    Apply {
        /// The generation that the sender believes is running.
        base: u64,
        /// The number of the new state.
        generation: u64,
        /// What changes.
        delta: Delta,
    },
    /// The state of all ports.
    Ports,
    /// Counters of one ENI or of all.
    Stats {
        /// The only ENI to report; all if absent.
        #[serde(default)]
        eni: Option<EniId>,
    },
    /// Some sessions, in no particular order; all pages together are all sessions.
    Flows {
        /// Which sessions.
        #[serde(default)]
        selection: FlowSelection,
        /// Where the previous page ended; the first page if absent.
        #[serde(default)]
        cursor: Option<FlowCursor>,
        /// How many sessions to report at most.
        limit: usize,
    },
    /// End sessions, one part of the tables per request. Packets sent on them afterwards are evaluated as new.
    FlushFlows {
        /// Which sessions.
        selection: FlowSelection,
        /// Where the previous part ended; from the beginning if absent.
        #[serde(default)]
        cursor: Option<FlowCursor>,
    },
    /// Change the number of workers and rx queues (`lanes` on the wire) while traffic flows.
    Regroup {
        /// How many workers are to forward.
        workers: usize,
        /// How many of them receive for each port; unchanged if absent.
        #[serde(default)]
        lanes: Option<usize>,
    },
    /// What would happen to this packet now, and why? Changes nothing.
    Explain {
        /// The packet.
        packet: PacketDescription,
    },
}

/// Selects the sessions that match every given field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowSelection {
    /// Those of this ENI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniId>,
    /// Those with an end inside this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
    /// Those of TCP or UDP with this port at an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Those of this IP protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Those in this state, as [`FlowDescription::state`] tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Those that this rule admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
}

/// Where a walk through all sessions continues. A session keeps its bucket, so one that lives from the first page to
/// the last is met exactly once, unless it moves to another worker meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowCursor {
    /// The worker that the walk has come to.
    pub worker: usize,
    /// The bucket in that worker's tables.
    pub place: u64,
}

/// A packet described by its fields, for explain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketDescription {
    /// The ENI whose guest sends it; absent for a packet that is evaluated only where it arrives.
    #[serde(default)]
    pub from: Option<EniId>,
    /// The ENI at which it arrives; determined by routing if absent.
    #[serde(default)]
    pub to: Option<EniId>,
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port; ICMP identifier for echo.
    #[serde(default)]
    pub source_port: u16,
    /// Destination port.
    #[serde(default)]
    pub destination_port: u16,
}

/// A reply of the forwarding plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchReply {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The request's id; 0 where the request could not be parsed.
    pub id: u64,
    /// The reply itself.
    #[serde(flatten)]
    pub body: SwitchReplyBody,
}

/// A reply of the forwarding plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum SwitchReplyBody {
    /// Reply to [`RequestBody::Status`].
    Status(Status),
    /// Reply to [`RequestBody::Replace`] and [`RequestBody::Apply`]: every worker has crossed to the new generation.
    Applied(Applied),
    /// Reply to [`RequestBody::Ports`].
    Ports {
        /// All ports, by ENI.
        ports: Vec<PortStatus>,
    },
    /// Reply to [`RequestBody::Stats`].
    Stats {
        /// Counters by ENI.
        enis: Vec<EniStats>,
    },
    /// Reply to [`RequestBody::Flows`].
    Flows {
        /// The sessions; there may be none here and more behind the cursor.
        flows: Vec<FlowDescription>,
        /// Where the next page begins; absent after the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<FlowCursor>,
    },
    /// Reply to [`RequestBody::FlushFlows`]: the sessions have ended, and no worker forwards by them.
    Flushed {
        /// How many sessions ended.
        flows: u64,
        /// Where the next part begins; absent after the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<FlowCursor>,
    },
    /// Reply to [`RequestBody::Regroup`].
    Regrouped(Regrouped),
    /// Reply to [`RequestBody::Explain`].
    Explained(crate::config::explanation::Explanation),
    /// The request was refused, and nothing changed.
    Refused {
        /// Every reason found.
        refusals: Vec<Refusal>,
    },
}

/// The forwarding plane at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The generation that all workers run; 0 before the first.
    pub generation: u64,
    /// The process id, which reveals a restart.
    pub process_id: u32,
    /// Time since the start, ms.
    pub uptime_ms: u64,
    /// ENIs configured.
    pub enis: usize,
    /// Live sessions over all workers.
    pub flows: usize,
    /// Workers that receive for each port: rx queues.
    #[serde(default)]
    pub lanes: usize,
    /// How many rx queues there can be while the switch runs.
    #[serde(default)]
    pub lanes_max: usize,
    /// Each worker's load.
    pub workers: Vec<WorkerStatus>,
}

/// One worker at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// ENIs it owns.
    pub enis: usize,
    /// Sessions it holds.
    pub flows: usize,
    /// Sessions it has room for.
    pub flows_max: usize,
    /// Occupancy of its fuller table, percent of the capacity.
    #[serde(default)]
    pub table_percent: usize,
    /// Turns that moved at least one packet.
    pub turns_busy: u64,
    /// Turns that found nothing to do.
    pub turns_idle: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Where its time goes, measured on some bursts.
    #[serde(default)]
    pub phases: PhaseTimes,
}

/// A finished change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation that all workers run.
    pub generation: u64,
    /// From parsing the request to the compiled snapshot, ns.
    pub compile_ns: u64,
    /// From publishing the snapshot until the last worker had crossed to it, ns.
    pub barrier_ns: u64,
    /// Ports that are configured but not up.
    pub ports_down: Vec<PortStatus>,
}

/// A finished change of the number of workers or rx queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regrouped {
    /// Workers that forward.
    pub workers: usize,
    /// Workers that receive for each port: rx queues.
    pub lanes: usize,
    /// ENIs that moved to another worker.
    pub enis_moved: usize,
    /// Sessions that moved along.
    pub sessions_moved: usize,
    /// How long no worker turned, ns. Frames waited in their devices meanwhile.
    pub pause_ns: u64,
    /// Ports that are configured but not up.
    pub ports_down: Vec<PortStatus>,
}

/// The state of one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The ENI that the port belongs to.
    pub eni: EniId,
    /// `tap`, `packet`, `vhost-user` or `memory`.
    pub kind: String,
    /// The device's name or the path of its socket, if it has one.
    pub device: Option<String>,
    /// The namespace the device is in, if it is in one.
    pub namespace: Option<String>,
    /// The worker that owns it.
    pub worker: usize,
    /// Whether it moves frames.
    pub up: bool,
    /// Why it is down.
    pub error: Option<String>,
    /// How often it went down, or its guest broke a rule, since it was configured.
    pub failures: u64,
}

/// Counters of one ENI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniStats {
    /// The ENI.
    pub eni: EniId,
    /// Live sessions.
    pub flows: u64,
    /// Sessions it may hold at once.
    #[serde(default)]
    pub flows_max: u64,
    /// Sessions opened since it was attached.
    #[serde(default)]
    pub flows_opened: u64,
    /// Sessions evicted in favour of other ENIs' sessions, or of newer ones of its own.
    #[serde(default)]
    pub flows_evicted: u64,
    /// External ports that its connections have at the uplink.
    #[serde(default)]
    pub nat_mappings: u64,
    /// Blocks of external ports that it has.
    #[serde(default)]
    pub nat_port_blocks: u64,
    /// When its guest asked for its configuration last.
    #[serde(default)]
    pub asked: GuestAsked,
    /// Counters of what its guest sent.
    pub egress: DirectionStats,
    /// Counters of what was addressed to its guest.
    pub ingress: DirectionStats,
}

/// How long ago the guest of an ENI asked for its configuration last, and was told, ms; nothing if it has not since the
/// forwarding plane started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestAsked {
    /// By DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_ms_ago: Option<u64>,
    /// By DHCPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp6_ms_ago: Option<u64>,
    /// By a router solicitation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_ms_ago: Option<u64>,
}

/// Counters of one ENI and direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionStats {
    /// Packets that passed.
    pub packets: u64,
    /// Bytes of the frames that passed.
    pub bytes: u64,
    /// Packets that the virtual router answered itself.
    pub answered: u64,
    /// Packets dropped, by name of the reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
}

/// One session of one ENI.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowDescription {
    /// The ENI that the session belongs to.
    pub eni: EniId,
    /// The direction of the packet that opened it.
    pub opened: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// Source of the packet that opened it.
    pub source: IpAddr,
    /// Destination of the packet that opened it.
    pub destination: IpAddr,
    /// Source port, or ICMP identifier.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The state of the session, as in `established`.
    pub state: String,
    /// The step that admitted it.
    pub stage: String,
    /// The rule that admitted it, if it was a rule.
    pub rule: Option<RuleId>,
    /// The policy revision it was last admitted under.
    pub revision: u32,
    /// The generation that brought this revision; absent where it is no longer known.
    pub generation: Option<u64>,
    /// Time since it was opened, ms.
    pub age_ms: u64,
    /// Time since its last packet, ms.
    pub idle_ms: u64,
    /// Idle time after which it ends, seconds.
    pub timeout_s: u32,
    /// Packets, in the opening direction and in the other.
    pub packets: [u64; 2],
    /// Bytes, in the opening direction and in the other.
    pub bytes: [u64; 2],
}

/// Parses one message from the bytes of a line.
///
/// # Errors
/// `too-large` beyond [`MESSAGE_BYTES_MAX`]; `version` where the message names another version; `malformed`, with the
/// place and the field, where it is not a message of this protocol.
pub fn read<M: DeserializeOwned>(line: &[u8]) -> Result<M, Refusal> {
    if line.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::new("too-large", "", alloc::format!("a message has at most {MESSAGE_BYTES_MAX} bytes")));
    }
    #[derive(Deserialize)]
    struct Envelope {
        version: Option<u32>,
    }
    match serde_json::from_slice::<Envelope>(line) {
        Ok(Envelope { version: Some(version) }) if version != VERSION => {
            let message = alloc::format!("this is version {VERSION} of the protocol, the message has {version}");
            return Err(Refusal::new("version", "version", message));
        }
        Ok(Envelope { version: None }) => {
            return Err(Refusal::new("version", "version", "the message names no protocol version"));
        }
        _ => {}
    }
    serde_json::from_slice(line).map_err(|error| Refusal::new("malformed", "", error.to_string()))
}

/// Writes one message as a line, newline included.
///
/// # Panics
/// Never on messages of this module: they hold nothing that JSON cannot express.
pub fn write<M: Serialize>(message: &M) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("protocol messages are always expressible as JSON");
    line.push(b'\n');
    line
}
