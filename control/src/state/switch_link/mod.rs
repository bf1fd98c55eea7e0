//! The link to the forwarding plane: changes and queries, each with a connection and a thread of its own, so that
//! changes do not wait for queries, and nothing else waits for either.
//!
//! Changes are level-triggered (`changes.rs`): the link knows what should run, and sends what is missing. A query is
//! answered within the timeout after it was made (`questions.rs`), however many are ahead of it.

mod changes;
mod connection;
mod questions;

use crate::socket::view::LinkView;
use changes::ChangeThread;
use connection::SwitchConnection;
use questions::QuestionThread;
use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{Applied, Delta, RequestBody, Status, SwitchReplyBody};
use vswitch_core::config::refusal::Refusal;

/// Queries that may wait for the link.
const QUESTIONS_MAX: usize = 1024;
/// Changes that may wait for the link. The server passes one at a time.
const CHANGES_MAX: usize = 16;

/// A change for the link to put into force, together with everything not acknowledged before.
#[derive(Debug)]
pub struct LinkChange {
    /// Repeated in the report.
    pub ticket: u64,
    /// What changes in the desired state; empty to put into force only what was not acknowledged.
    pub delta: Delta,
    /// When it was requested. It is reported within the timeout after that, if only as pending.
    pub asked: Instant,
}

/// A query for the link.
#[derive(Debug)]
pub struct Question {
    /// Repeated in the report.
    pub ticket: u64,
    /// The request to the forwarding plane; `None` to ask for the state of the link.
    pub body: Option<RequestBody>,
    /// When it was made. It is answered within the timeout after that.
    pub asked: Instant,
}

/// The result of a change or query.
#[derive(Debug)]
pub enum LinkReport {
    /// Of a [`LinkChange`].
    Apply {
        /// That of the change.
        ticket: u64,
        /// The outcome.
        outcome: LinkOutcome,
    },
    /// Of a [`Question`] to the forwarding plane.
    Ask {
        /// That of the query.
        ticket: u64,
        /// The answer, or why there is none.
        answer: Result<SwitchReplyBody, String>,
    },
    /// Of a [`Question`] about the state of the link.
    Status {
        /// That of the query.
        ticket: u64,
        /// The state of the link.
        link: LinkView,
        /// What the forwarding plane reports about itself, if it can be asked.
        forwarding: Option<Status>,
    },
}

/// The outcome of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkOutcome {
    /// It is in force in every worker.
    Applied(Applied),
    /// It was empty, and everything sent earlier is in force.
    InForce,
    /// The forwarding plane refused it. The link has returned to the state before it.
    Refused(Vec<Refusal>),
    /// It is not in force yet. The link keeps trying.
    Pending(String),
}

/// Too many changes or queries wait for the link.
#[derive(Debug, thiserror::Error)]
#[error("too many requests wait for the forwarding plane")]
pub struct LinkBusy;

/// The link to the forwarding plane.
#[derive(Debug)]
pub struct SwitchLink {
    changes: SyncSender<LinkChange>,
    questions: SyncSender<Question>,
    view: SharedView,
}

/// The state of the link as its change thread sees it.
type SharedView = Arc<Mutex<LinkView>>;

impl SwitchLink {
    /// Starts the link. It connects by itself and puts `desired` into force. It ends when the value is dropped.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(
        socket: &Path,
        timeout: Duration,
        desired: Desired,
        report: impl Fn(LinkReport) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        // Bounded, so that a forwarding plane that hangs refuses instead of piling up requests.
        let (changes, change_inbox) = sync_channel(CHANGES_MAX);
        let (questions, question_inbox) = sync_channel(QUESTIONS_MAX);
        let change_thread = ChangeThread::new(socket, timeout, desired);
        let question_thread = QuestionThread::new(socket, timeout, change_thread.view());
        let (report_answer, view) = (report.clone(), change_thread.view());
        let start = |name: &str| thread::Builder::new().name(name.into());
        start("switch-changes").spawn(move || change_thread.run(&change_inbox, report))?;
        start("switch-questions").spawn(move || question_thread.run(&question_inbox, report_answer))?;
        Ok(Self { changes, questions, view })
    }

    /// Why what was passed on and reported is not known to be in force, if it is not.
    pub fn pending(&self) -> Option<String> {
        let LinkView { in_sync, reason, .. } = get(&self.view);
        let reason = || reason.unwrap_or_else(|| "the forwarding plane has not acknowledged it".into());
        if in_sync { None } else { Some(reason()) }
    }

    /// Passes on a change.
    ///
    /// # Errors
    /// Too many wait, or the link has ended.
    pub fn change(&self, change: LinkChange) -> Result<(), LinkBusy> {
        self.changes.try_send(change).map_err(|_| LinkBusy)
    }

    /// Passes on a query.
    ///
    /// # Errors
    /// Too many wait, or the link has ended.
    pub fn ask(&self, question: Question) -> Result<(), LinkBusy> {
        self.questions.try_send(question).map_err(|_| LinkBusy)
    }
}

/// Sends a request to the forwarding plane at `socket`, without a control plane.
///
/// # Errors
/// Why there is no answer within `timeout`.
pub fn ask(socket: &Path, body: RequestBody, timeout: Duration) -> Result<SwitchReplyBody, String> {
    let deadline = Instant::now() + timeout;
    let asked =
        SwitchConnection::open(socket, timeout, deadline).and_then(|mut connection| connection.ask(body, deadline));
    asked.map_err(|failure| failure.text)
}

/// The status of the forwarding plane at `socket`, without a control plane.
///
/// # Errors
/// Why there is no answer within `timeout`.
pub fn ask_status(socket: &Path, timeout: Duration) -> Result<Status, String> {
    match ask(socket, RequestBody::Status, timeout)? {
        SwitchReplyBody::Status(status) => Ok(status),
        _ => Err("the forwarding plane gave an unexpected answer".into()),
    }
}

fn set(view: &SharedView, now: LinkView) {
    *view.lock().unwrap_or_else(PoisonError::into_inner) = now;
}

fn get(view: &SharedView) -> LinkView {
    view.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
