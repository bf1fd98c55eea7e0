//! The thread that sends changes to the forwarding plane.
//!
//! It is level-triggered: the thread knows what should run (`target`) and which part of it has not been acknowledged
//! (`pending`). It sends that delta, or the whole state whenever the other end may run something else. Generations
//! begin above what the forwarding plane reports, so either side may restart. A lost message costs no more than a
//! reconnection.

use super::connection::{Failure, SwitchConnection};
use super::{LinkChange, LinkOutcome, LinkReport, SharedView, set};
use crate::socket::view::LinkView;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{Delta, RequestBody, SwitchReplyBody};

/// How often an idle connection is checked.
const WATCH_PERIOD: Duration = Duration::from_millis(100);
/// The first and the longest pause between attempts to reconnect or to apply a refused state.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The least time for a change that had to wait for others, so that it is attempted at all.
const GRACE: Duration = Duration::from_millis(250);

/// The thread's state.
pub(super) struct ChangeThread {
    socket: PathBuf,
    timeout: Duration,
    /// What should run.
    target: Desired,
    /// The delta from what was last acknowledged, if anything was, to the target.
    pending: Delta,
    connection: Option<SwitchConnection>,
    /// The generation that the forwarding plane last acknowledged on this connection.
    running: Option<u64>,
    /// The highest generation that either side has used.
    generation: u64,
    /// Why the target is not in force.
    reason: Option<String>,
    retry_at: Instant,
    back_off: Duration,
    /// Whether it accepts connections and does not answer. Changes are then not delayed by new attempts.
    is_silent: bool,
    view: SharedView,
}

impl ChangeThread {
    pub(super) fn new(socket: &Path, timeout: Duration, desired: Desired) -> Self {
        let reason = "no attempt to connect has been made yet";
        let view = LinkView {
            socket: socket.display().to_string(),
            connected: false,
            in_sync: false,
            generation: 0,
            reason: Some(reason.into()),
        };
        Self {
            socket: socket.into(),
            timeout,
            target: desired,
            pending: Delta::default(),
            connection: None,
            running: None,
            generation: 0,
            reason: Some(reason.into()),
            retry_at: Instant::now(),
            back_off: BACK_OFF.0,
            is_silent: false,
            view: Arc::new(Mutex::new(view)),
        }
    }

    /// The state of the link.
    pub(super) fn view(&self) -> SharedView {
        Arc::clone(&self.view)
    }

    pub(super) fn run(mut self, inbox: &Receiver<LinkChange>, report: impl Fn(LinkReport)) {
        loop {
            let pause = match self.in_sync() {
                true => WATCH_PERIOD,
                false => self.retry_at.saturating_duration_since(Instant::now()).min(WATCH_PERIOD),
            };
            let done = match inbox.recv_timeout(pause) {
                Ok(change) => Some(self.perform(change)),
                Err(RecvTimeoutError::Timeout) => {
                    self.watch();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Update the state of the link before the change is reported.
            set(&self.view, self.view_now());
            done.into_iter().for_each(&report);
            if self.is_silent {
                // Changes in quick succession leave no pause for checking whether it answers again.
                self.watch();
                set(&self.view, self.view_now());
            }
        }
    }

    fn perform(&mut self, LinkChange { ticket, delta, asked }: LinkChange) -> LinkReport {
        if delta.is_empty() && self.still_in_sync() {
            return LinkReport::Apply { ticket, outcome: LinkOutcome::InForce };
        }
        // Kept, since a refusal brings back what was pending before.
        let pending = self.pending.clone();
        // Without a running state the whole is sent anyway, and no delta is kept.
        if self.running.is_some() {
            extend(&mut self.pending, delta.clone());
        }
        let undo = delta.apply(&mut self.target);
        // A forwarding plane that does not answer must not hold up each change for the whole timeout.
        let outcome = match self.is_silent {
            true => LinkOutcome::Pending(Failure::silence(self.timeout).text),
            // However long the change had to wait, it is tried once.
            false => self.converge((asked + self.timeout).max(Instant::now() + GRACE)),
        };
        if matches!(outcome, LinkOutcome::Refused(_)) {
            undo.apply(&mut self.target);
            self.pending = pending;
        }
        LinkReport::Apply { ticket, outcome }
    }

    fn in_sync(&self) -> bool {
        self.connection.is_some() && self.running.is_some() && self.pending.is_empty()
    }

    /// Notices that the connection ended: the process that acknowledged the state on it may be gone.
    fn still_in_sync(&mut self) -> bool {
        if self.connection.as_ref().is_some_and(SwitchConnection::has_ended) {
            self.disconnect("the forwarding plane closed the connection".into());
            // A connection that ended is mostly a restart, so the first attempt follows at once.
            (self.retry_at, self.back_off) = (Instant::now(), BACK_OFF.0);
        }
        self.in_sync()
    }

    /// Notices that the connection ended, and retries what is due.
    fn watch(&mut self) {
        if !self.still_in_sync() && Instant::now() >= self.retry_at {
            // The outcome is in `reason`.
            self.converge(Instant::now() + self.timeout);
        }
    }

    /// Puts the target into force.
    fn converge(&mut self, deadline: Instant) -> LinkOutcome {
        let outcome = match self.try_converge(deadline) {
            Ok(outcome) => outcome,
            Err(Failure { text, is_silent }) => {
                self.is_silent = is_silent;
                self.disconnect(text.clone());
                LinkOutcome::Pending(text)
            }
        };
        match &outcome {
            LinkOutcome::Applied(_) | LinkOutcome::InForce => {
                self.reason = None;
                self.is_silent = false;
                self.back_off = BACK_OFF.0;
            }
            LinkOutcome::Refused(refusals) => {
                self.is_silent = false;
                self.back_off(format!(
                    "the forwarding plane refused: {}",
                    crate::socket::protocol::refusals_text(refusals)
                ));
            }
            LinkOutcome::Pending(reason) => self.back_off(reason.clone()),
        }
        outcome
    }

    fn try_converge(&mut self, deadline: Instant) -> Result<LinkOutcome, Failure> {
        self.connect(deadline)?;
        // A delta needs a base that both know; after a reconnection there is none.
        if let Some(base) = self.running {
            let delta = self.pending.clone();
            let body = RequestBody::Apply { base, generation: self.generation + 1, delta };
            match self.submit(body, deadline)? {
                LinkOutcome::Refused(refusals)
                    if refusals.iter().any(|refusal| refusal.code == "generation-mismatch") =>
                {
                    self.running = None;
                    self.learn_generation(deadline)?;
                }
                outcome => return Ok(outcome),
            }
        }
        let body = RequestBody::Replace { generation: self.generation + 1, desired: self.target.clone() };
        self.submit(body, deadline)
    }

    fn submit(&mut self, body: RequestBody, deadline: Instant) -> Result<LinkOutcome, Failure> {
        // A number is never used twice, even if the request is lost.
        self.generation += 1;
        match self.exchange(body, deadline)? {
            SwitchReplyBody::Applied(applied) => {
                self.generation = self.generation.max(applied.generation);
                self.running = Some(applied.generation);
                self.pending = Delta::default();
                Ok(LinkOutcome::Applied(applied))
            }
            SwitchReplyBody::Refused { refusals } => {
                if refusals.iter().any(|refusal| refusal.code == "timeout") {
                    // Either state may be in force, so the whole state has to be sent.
                    self.running = None;
                }
                Ok(LinkOutcome::Refused(refusals))
            }
            _ => Err("the forwarding plane gave an unexpected answer".to_owned().into()),
        }
    }

    fn connect(&mut self, deadline: Instant) -> Result<(), Failure> {
        if self.connection.is_some() {
            return Ok(());
        }
        self.connection = Some(SwitchConnection::open(&self.socket, self.timeout, deadline)?);
        // A new connection may lead to another process, which runs something else.
        self.running = None;
        self.learn_generation(deadline)
    }

    fn learn_generation(&mut self, deadline: Instant) -> Result<(), Failure> {
        match self.exchange(RequestBody::Status, deadline)? {
            SwitchReplyBody::Status(status) => self.generation = self.generation.max(status.generation),
            _ => return Err("the forwarding plane did not report its generation".to_owned().into()),
        }
        Ok(())
    }

    fn exchange(&mut self, body: RequestBody, deadline: Instant) -> Result<SwitchReplyBody, Failure> {
        let connection = self.connection.as_mut();
        connection.ok_or_else(|| "the forwarding plane is not connected".to_owned())?.ask(body, deadline)
    }

    fn disconnect(&mut self, reason: String) {
        self.connection = None;
        self.running = None;
        self.reason = Some(reason);
    }

    fn back_off(&mut self, reason: String) {
        self.reason = Some(reason);
        self.retry_at = Instant::now() + self.back_off;
        // Doubled after use, so that the first pause is the short one.
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    fn view_now(&self) -> LinkView {
        LinkView {
            socket: self.socket.display().to_string(),
            connected: self.connection.is_some(),
            in_sync: self.in_sync(),
            generation: self.running.unwrap_or(0),
            reason: if self.in_sync() { None } else { self.reason.clone() },
        }
    }
}

/// Adds a later change to an earlier one.
fn extend(delta: &mut Delta, later: Delta) {
    let Delta { settings, vpcs, vswitches, groups, rules, prefix_lists, port_lists, enis, uplinks } = later;
    delta.settings = settings.or(delta.settings.take());
    delta.vpcs.extend(vpcs);
    delta.vswitches.extend(vswitches);
    // A group that is sent as a whole replaces all earlier changes of its rules.
    delta.rules.retain(|id, _| !groups.contains_key(id));
    delta.groups.extend(groups);
    for (id, rules) in rules {
        delta.rules.entry(id).or_default().extend(rules);
    }
    delta.prefix_lists.extend(prefix_lists);
    delta.port_lists.extend(port_lists);
    delta.enis.extend(enis);
    delta.uplinks.extend(uplinks);
}
