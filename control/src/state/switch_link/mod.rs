//! The link to the forwarding plane: changes and questions, each on a connection and a thread of its own, so that no change
//! waits for a question and nobody else for either.
//!
//! Changes are level-triggered (`changes.rs`): the link knows what should run, and closes the gap. A question is answered
//! within the timeout after it was asked (`questions.rs`), however many were asked before it.

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

/// Questions that may wait for the link.
const QUESTIONS_MAX: usize = 1024;
/// Changes that may. The server gives one after another.
const CHANGES_MAX: usize = 16;

/// A change for the link to make true, and with it all that was not acknowledged before.
#[derive(Debug)]
pub struct LinkChange {
    /// Repeated in the report.
    pub ticket: u64,
    /// What changes in the state that should run; empty to bring about only what was not acknowledged.
    pub delta: Delta,
    /// When it was asked for: it is reported within the timeout after that, if only as pending.
    pub asked: Instant,
}

/// A question for the link to ask.
#[derive(Debug)]
pub struct Question {
    /// Repeated in the report.
    pub ticket: u64,
    /// What is asked of the forwarding plane; none for how the link is doing.
    pub body: Option<RequestBody>,
    /// When it was asked: it is answered within the timeout after that.
    pub asked: Instant,
}

/// What became of a change or a question.
#[derive(Debug)]
pub enum LinkReport {
    /// Of a [`LinkChange`].
    Apply {
        /// The change's.
        ticket: u64,
        /// What became of the state.
        outcome: LinkOutcome,
    },
    /// Of a [`Question`] to the forwarding plane.
    Ask {
        /// The question's.
        ticket: u64,
        /// The answer, or why there is none.
        answer: Result<SwitchReplyBody, String>,
    },
    /// Of a [`Question`] how the link is doing.
    Status {
        /// The question's.
        ticket: u64,
        /// How the link is doing.
        link: LinkView,
        /// What the forwarding plane says of itself, if it can be asked.
        forwarding: Option<Status>,
    },
}

/// What became of a state.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkOutcome {
    /// Every worker runs it.
    Applied(Applied),
    /// It was empty, and every worker runs all that was told before.
    InForce,
    /// The forwarding plane refused it. The link has returned to the state before it.
    Refused(Vec<Refusal>),
    /// It does not run yet. The link goes on trying.
    Pending(String),
}

/// More waits for the link than may.
#[derive(Debug, thiserror::Error)]
#[error("too many requests wait for the forwarding plane")]
pub struct LinkBusy;

/// The near end of the link.
#[derive(Debug)]
pub struct SwitchLink {
    changes: SyncSender<LinkChange>,
    questions: SyncSender<Question>,
    view: SharedView,
}

/// How the link is doing, as the thread of changes sees it.
type SharedView = Arc<Mutex<LinkView>>;

impl SwitchLink {
    /// Starts the link. It connects by itself and makes `desired` run. It ends when the value is dropped.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start(
        socket: &Path,
        timeout: Duration,
        desired: Desired,
        report: impl Fn(LinkReport) + Clone + Send + 'static,
    ) -> io::Result<Self> {
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

    /// Why what was handed over and reported is not known to run, if it is not.
    pub fn pending(&self) -> Option<String> {
        let LinkView { in_sync, reason, .. } = get(&self.view);
        let reason = || reason.unwrap_or_else(|| "the forwarding plane has not acknowledged it".into());
        if in_sync { None } else { Some(reason()) }
    }

    /// Hands a change over.
    ///
    /// # Errors
    /// Where too many wait or the link has ended.
    pub fn change(&self, change: LinkChange) -> Result<(), LinkBusy> {
        self.changes.try_send(change).map_err(|_| LinkBusy)
    }

    /// Hands a question over.
    ///
    /// # Errors
    /// Where too many wait or the link has ended.
    pub fn ask(&self, question: Question) -> Result<(), LinkBusy> {
        self.questions.try_send(question).map_err(|_| LinkBusy)
    }
}

/// Asks the forwarding plane at `socket`, without a control plane.
///
/// # Errors
/// Why there is no answer within `timeout`.
pub fn ask(socket: &Path, body: RequestBody, timeout: Duration) -> Result<SwitchReplyBody, String> {
    let deadline = Instant::now() + timeout;
    let asked =
        SwitchConnection::open(socket, timeout, deadline).and_then(|mut connection| connection.ask(body, deadline));
    asked.map_err(|failure| failure.text)
}

/// Asks the forwarding plane at `socket` what it says of itself, without a control plane.
///
/// # Errors
/// Why there is no answer within `timeout`.
pub fn ask_status(socket: &Path, timeout: Duration) -> Result<Status, String> {
    match ask(socket, RequestBody::Status, timeout)? {
        SwitchReplyBody::Status(status) => Ok(status),
        _ => Err("the forwarding plane answered something else than was asked".into()),
    }
}

fn set(view: &SharedView, now: LinkView) {
    *view.lock().unwrap_or_else(PoisonError::into_inner) = now;
}

fn get(view: &SharedView) -> LinkView {
    view.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
