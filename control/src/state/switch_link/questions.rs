//! Queries to the forwarding plane, one after another, each with a time limit.

use super::connection::{Failure, SwitchConnection};
use super::{LinkReport, Question, SharedView, get};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use vswitch_core::config::protocol::{RequestBody, SwitchReplyBody};

/// The thread's state.
pub(super) struct QuestionThread {
    socket: PathBuf,
    timeout: Duration,
    view: SharedView,
    connection: Option<SwitchConnection>,
}

impl QuestionThread {
    pub(super) fn new(socket: &Path, timeout: Duration, view: SharedView) -> Self {
        Self { socket: socket.into(), timeout, view, connection: None }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Question>, report: impl Fn(LinkReport)) {
        while let Ok(Question { ticket, body, asked }) = inbox.recv() {
            let deadline = asked + self.timeout;
            report(match body {
                Some(body) => {
                    LinkReport::Ask { ticket, answer: self.ask(body, deadline).map_err(|failure| failure.text) }
                }
                None => {
                    let forwarding = match self.ask(RequestBody::Status, deadline) {
                        Ok(SwitchReplyBody::Status(status)) => Some(status),
                        _ => None,
                    };
                    LinkReport::Status { ticket, link: get(&self.view), forwarding }
                }
            });
        }
    }

    fn ask(&mut self, body: RequestBody, deadline: Instant) -> Result<SwitchReplyBody, Failure> {
        if Instant::now() >= deadline {
            // It waited behind others that were not answered. Whoever made it must not wait any longer.
            return Err(Failure::silence(self.timeout));
        }
        // Only use shows whether a connection is from before a restart of the other end.
        let kept = self.connection.take().filter(|connection| !connection.has_ended());
        let mut connection = match kept {
            Some(connection) => connection,
            None => SwitchConnection::open(&self.socket, self.timeout, deadline)?,
        };
        // Only kept after success: after an error, an answer may still be on its way.
        let answer = connection.ask(body, deadline)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}
