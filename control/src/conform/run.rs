//! Runs one case through the core and compares the result.

use super::format::{self, Body, Case, CaseError, CaseStep, Expect, PacketText, RuleText};
use super::{frame, world};
use crate::socket::protocol::refusal_text;
use serde_json::Value;
use std::fmt;
use vswitch_core::compile::Compiler;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::{Desired, Direction, Policy};
use vswitch_core::config::explanation::DecisionReport;
use vswitch_core::config::ids::{EniId, EniIndex, GroupId, quoted};
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;
use vswitch_core::observe::explain::report_decision;
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Marker, Packet};

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseOutcome {
    /// As expected.
    Passed,
    /// Not as expected: the differences, with each decision and its reason.
    Failed(Vec<String>),
    /// Not run, with the reason.
    Skipped(String),
}

/// One case and how it ended.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// The case's name.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// How it ended.
    pub outcome: CaseOutcome,
}

/// Runs a case.
pub fn run_case(case: &Case) -> CaseReport {
    let outcome = match case.kind.as_str() {
        "packet" | "flow" | "sequence" | "api" => match differences(case) {
            Ok(differences) if differences.is_empty() => CaseOutcome::Passed,
            Ok(differences) => CaseOutcome::Failed(differences),
            Err(error) => CaseOutcome::Failed(vec![error.to_string()]),
        },
        other => CaseOutcome::Failed(vec![format!("unknown kind {}", quoted(other))]),
    };
    CaseReport { id: case.id.clone(), title: case.title.clone(), outcome }
}

fn differences(case: &Case) -> Result<Vec<String>, CaseError> {
    if case.kind == "api" {
        return super::api::differences(case);
    }
    let body: Body = case.read()?;
    let mut rig = CoreRig::new(world::build(&body)?)?;
    match case.kind.as_str() {
        "packet" => {
            let (at, direction) = (named(&body.at, "at")?, world::direction(named(&body.dir, "dir")?)?);
            let decision = rig.send(at, direction, present(&body.packet, "packet")?)?;
            Ok(decision.compare("", &body.expect))
        }
        "flow" => flow(&mut rig, &body),
        _ => {
            let mut differences = Vec::new();
            for (number, step) in body.steps.iter().enumerate() {
                let place = format!("step {} at {} s: ", number + 1, step.t);
                let found = perform(&mut rig, &body, step).map_err(|error| CaseError(format!("{place}{error}")))?;
                differences.extend(found.into_iter().map(|difference| format!("{place}{difference}")));
            }
            Ok(differences)
        }
    }
}

fn named<'a>(field: &'a Option<String>, name: &str) -> Result<&'a str, CaseError> {
    field.as_deref().ok_or_else(|| CaseError(format!("the field {name} is missing")))
}

fn present<'a, T>(field: &'a Option<T>, name: &str) -> Result<&'a T, CaseError> {
    field.as_ref().ok_or_else(|| CaseError(format!("the field {name} is missing")))
}

/// Egress at the initiator, then ingress at the responder, the packet going from one to the other.
fn flow(rig: &mut CoreRig, body: &Body) -> Result<Vec<String>, CaseError> {
    let packet = present(&body.packet, "packet")?;
    let mut decisions = Vec::new();
    if let Some(initiator) = &body.initiator {
        decisions.push((format!("{initiator}:egress"), rig.send(initiator, Direction::Egress, packet)?));
    }
    let passed = decisions.last().is_none_or(|(_, decision)| decision.accepts());
    if let Some(responder) = body.responder.as_ref().filter(|_| passed) {
        decisions.push((format!("{responder}:ingress"), rig.send(responder, Direction::Ingress, packet)?));
    }
    let denied_at = decisions.iter().find(|(_, decision)| !decision.accepts()).map(|(place, _)| place.clone());
    let verdict = if denied_at.is_none() { "accept" } else { "drop" };
    let mut differences = Vec::new();
    if body.expect.verdict.as_deref().is_some_and(|expected| expected != verdict) {
        differences.push(format!("the flow ends in {verdict}"));
    }
    if body.expect.denied_at != denied_at {
        let named = |place: &Option<String>| place.clone().unwrap_or_else(|| "no place".into());
        differences.push(format!("denied at {}, not at {}", named(&denied_at), named(&body.expect.denied_at)));
    }
    let places: Vec<&str> = decisions.iter().map(|(place, _)| place.as_str()).collect();
    let expected: Vec<String> = body.expect.checks.iter().map(|check| format!("{}:{}", check.at, check.dir)).collect();
    if !expected.is_empty() && places != expected {
        differences.push(format!("evaluated at {}, not at {}", places.join(", "), expected.join(", ")));
    }
    for (check, (place, decision)) in body.expect.checks.iter().zip(&decisions) {
        differences.extend(decision.compare(&format!("{place}: "), &check.expect()));
    }
    Ok(differences)
}

fn perform(rig: &mut CoreRig, body: &Body, step: &CaseStep) -> Result<Vec<String>, CaseError> {
    rig.now = Time::from_ns((step.t * 1e9).round() as u64);
    let group = || named(&step.group, "group").map(GroupId::from);
    match step.op.as_str() {
        "packet" => {
            let at = step.at.as_ref().or(body.at.as_ref()).or(step.eni.as_ref());
            let at = at.ok_or_else(|| CaseError("the field at is missing".into()))?;
            let direction = world::direction(named(&step.dir, "dir")?)?;
            let decision = rig.send(at, direction, present(&step.packet, "packet")?)?;
            return Ok(step.expect.as_ref().map_or_else(Vec::new, |expect| decision.compare("", expect)));
        }
        "authorize" => {
            let text: RuleText = format::read("rule", present(&step.rule, "rule")?)?;
            let rule = world::rule(&text)?;
            rig.group_mut(&group()?)?.rules.push(rule);
        }
        "revoke" => {
            let id = match present(&step.rule, "rule")? {
                Value::Object(fields) if fields.len() == 1 && fields.contains_key("id") => fields["id"].clone(),
                Value::Object(fields) => format::read::<RuleText>("rule", &fields.clone().into())?.id.into(),
                other => other.clone(),
            };
            let id = id.as_str().ok_or_else(|| CaseError(format!("{id} is not the id of a rule")))?;
            let rules = &mut rig.group_mut(&group()?)?.rules;
            let before = rules.len();
            rules.retain(|rule| rule.id.as_str() != id);
            if rules.len() == before {
                return Err(CaseError(format!("there is no rule {id}")));
            }
        }
        "join" => drop(rig.eni_mut(&step.eni, &body.at)?.groups.insert(group()?)),
        "leave" => drop(rig.eni_mut(&step.eni, &body.at)?.groups.remove(&group()?)),
        "inner" => rig.group_mut(&group()?)?.inner_access = world::policy(named(&step.inner, "inner")?)?,
        "prefix-list" => {
            let list = world::prefix_list(&step.entries)?;
            rig.desired.prefix_lists.insert(named(&step.list, "list")?.into(), list);
        }
        "port-list" => {
            let list = world::port_list(&step.entries)?;
            rig.desired.port_lists.insert(named(&step.list, "list")?.into(), list);
        }
        "timeouts" => {
            let timeouts = world::timeouts(*present(&step.timeouts, "ConnectionTrackingConfiguration")?);
            rig.eni_mut(&step.eni, &body.at)?.timeouts = timeouts;
        }
        "detach" => rig.eni_mut(&step.eni, &body.at)?.port = None,
        "attach" => rig.eni_mut(&step.eni, &body.at)?.port = Some(vswitch_core::config::desired::DesiredPort::Memory),
        other => return Err(CaseError(format!("unknown op {}", quoted(other)))),
    }
    rig.publish()?;
    Ok(Vec::new())
}

/// The core of a switch with one worker, and a clock controlled by the case.
struct CoreRig {
    desired: Desired,
    compiler: Compiler,
    snapshot: Snapshot,
    shard: Shard,
    now: Time,
}

/// What was decided about a packet.
struct CaseDecision {
    report: Option<DecisionReport>,
    verdict: Verdict,
}

impl CoreRig {
    fn new(desired: Desired) -> Result<Self, CaseError> {
        let mut compiler = Compiler::new([0; 2]);
        let snapshot = compiler.replace(&desired, 1).map_err(refused)?;
        let shard = Shard::new(1024, [0x5851_f42d_4c95_7f2d, 0x1405_7b7e_f767_814f]);
        Ok(Self { desired, compiler, snapshot, shard, now: Time::default() })
    }

    fn publish(&mut self) -> Result<(), CaseError> {
        world::complete(&mut self.desired);
        let generation = self.snapshot.generation() + 1;
        self.snapshot = self.compiler.replace(&self.desired, generation).map_err(refused)?;
        Ok(())
    }

    fn group_mut(&mut self, id: &GroupId) -> Result<&mut vswitch_core::config::desired::SecurityGroup, CaseError> {
        self.desired.groups.get_mut(id).ok_or_else(|| CaseError(format!("there is no group {id}")))
    }

    fn eni_mut(
        &mut self,
        named: &Option<String>,
        otherwise: &Option<String>,
    ) -> Result<&mut vswitch_core::config::desired::DesiredEni, CaseError> {
        let id = present(if named.is_some() { named } else { otherwise }, "eni")?;
        let eni = self.desired.enis.get_mut(&EniId::from(id.as_str()));
        eni.ok_or_else(|| CaseError(format!("there is no ENI {id}")))
    }

    /// Passes one packet through one ENI.
    fn send(&mut self, at: &str, direction: Direction, text: &PacketText) -> Result<CaseDecision, CaseError> {
        let id = EniId::from(at);
        let known = self.snapshot.eni_index(&id).zip(self.desired.enis.get(&id));
        let (eni, desired) = known.ok_or_else(|| CaseError(format!("there is no ENI {at}")))?;
        let gateway = vswitch_core::config::desired::DesiredVpc::default_gateway_mac();
        let (source, destination) = match direction {
            Direction::Egress => (desired.mac, gateway),
            Direction::Ingress => (gateway, desired.mac),
        };
        let mut packet = Packet::new(FrameBuffer::with_capacity(512));
        packet.buffer.fill(&frame::frame(text, source, destination)?);
        packet.marker = marker(text)?;
        let burst = std::slice::from_mut(&mut packet);
        match direction {
            Direction::Egress => self.shard.egress(&self.snapshot, eni, burst, self.now),
            Direction::Ingress => match burst[0].parse() {
                Ok(()) => {
                    burst[0].verdict = Verdict::Forward(eni);
                    self.shard.ingress(&self.snapshot, burst, self.now);
                }
                Err(reason) => burst[0].verdict = Verdict::Drop(reason),
            },
        }
        Ok(self.decision(eni, direction, &packet))
    }

    fn decision(&self, eni: EniIndex, direction: Direction, packet: &Packet) -> CaseDecision {
        let report = packet.decision.and_then(|decision| report_decision(&self.snapshot, eni, direction, decision));
        CaseDecision { report, verdict: packet.verdict }
    }
}

fn refused(refusals: Vec<vswitch_core::config::refusal::Refusal>) -> CaseError {
    let texts: Vec<String> = refusals.iter().map(refusal_text).collect();
    CaseError(format!("the configuration is refused: {}", texts.join("; ")))
}

fn marker(packet: &PacketText) -> Result<Marker, CaseError> {
    match packet.via.as_deref() {
        None => Ok(Marker::None),
        Some("slb" | "alb" | "nlb" | "clb") => Ok(Marker::LoadBalancer),
        Some("platform-probe") => Ok(Marker::Probe),
        Some(other) => Err(CaseError(format!("packet: unknown mark {other}"))),
    }
}

impl CaseDecision {
    /// Whether the decision accepts it, if there is one. What else happens to the packet is not up to the groups.
    fn accepts(&self) -> bool {
        match &self.report {
            Some(report) => report.policy == Policy::Accept,
            None => !matches!(self.verdict, Verdict::Drop(_)),
        }
    }

    fn compare(&self, place: &str, expect: &Expect) -> Vec<String> {
        let verdict = if self.accepts() { "accept" } else { "drop" };
        let stage = self.report.as_ref().map(|report| report.stage.as_str());
        let rule = self.report.as_ref().and_then(|report| report.rule.as_ref()).map(|rule| rule.as_str());
        let group = self.report.as_ref().and_then(|report| report.group.as_ref()).map(|group| group.as_str());
        let differs = |expected: &Option<String>, found: Option<&str>| {
            expected.as_deref().is_some_and(|expected| Some(expected) != found)
        };
        let equal = !differs(&expect.verdict, Some(verdict))
            && !differs(&expect.stage, stage)
            && !differs(&expect.rule, rule)
            && !differs(&expect.via, group);
        if equal { Vec::new() } else { vec![format!("{place}expected {}, decided {self}", told(expect))] }
    }
}

fn told(expect: &Expect) -> String {
    let mut text = expect.verdict.clone().unwrap_or_default();
    for (name, value) in [("by", &expect.stage), ("rule", &expect.rule), ("group", &expect.via)] {
        if let Some(value) = value {
            text.push_str(&format!(" {name} {value}"));
        }
    }
    text
}

impl fmt::Display for CaseDecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.accepts() { "accept" } else { "drop" })?;
        let Some(report) = &self.report else {
            return match self.verdict {
                Verdict::Drop(reason) => write!(formatter, " before any decision, as {reason}"),
                _ => Ok(()),
            };
        };
        write!(formatter, " by {} at {} {}", report.stage, report.eni, report.direction)?;
        if let Some(rule) = &report.rule {
            write!(formatter, " rule {rule}")?;
        }
        if let Some(group) = &report.group {
            write!(formatter, " group {group}")?;
        }
        Ok(())
    }
}
