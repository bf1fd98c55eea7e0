//! Calls through HTTP, carried out on the one model in the order of all changes.

use super::changes::{ChangeSource, QueuedChange};
use super::{ReplyTarget, ResponseBody, Server};
use crate::ecs::{Call, CallInput, Plan, check, completed, hash, plan, refusal};
use crate::environment::Environment;
use crate::error::{ApiError, DRY_RUN, SERVICE_UNAVAILABLE, TOKEN_MISMATCH, TOKEN_PROCESSING};
use crate::http::{CallResponse, PendingCall, ResponseSender};
use crate::model::Token;
use crate::state::transaction::Summary;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;

/// How many calls the server works on at once, and how many more may wait for it. Further calls are refused.
pub(super) const CALLS_MAX: usize = 1024;

/// Somebody who waits for a response.
pub(super) struct Caller {
    reply: ResponseSender,
    call: Arc<Call>,
    /// The client token of the request.
    token: Option<String>,
}

/// The result of a call.
pub(super) enum CallResult {
    /// It was a query, or had been made before.
    Answer(ResponseBody),
    /// It was decided, and takes effect once it is stored.
    Staged(Summary, ResponseBody),
}

impl Server {
    /// Takes calls: queries are answered at once, changes wait for their turn. Returns whether there may be more to
    /// take.
    pub(super) fn take_calls(&mut self) -> bool {
        // Callers that are gone free their places before new ones are counted.
        self.forget_callers();
        for _ in 0..CALLS_MAX {
            if self.callers.len() >= CALLS_MAX {
                return false;
            }
            let Ok(PendingCall { call, reply }) = self.calls.try_recv() else { return false };
            let (number, call) = (self.ticket(), Arc::new(call));
            let origin = ReplyTarget::Http(number);
            let token = token_id(&call);
            // The first request with the token may still be under way; its answer is not known yet.
            let is_repeated = token.is_some() && self.callers.values().any(|caller| caller.token == token);
            self.callers
                // Only the first holds the token, so that its end frees it.
                .insert(number, Caller { reply, call: Arc::clone(&call), token: token.filter(|_| !is_repeated) });
            if self.stopping {
                self.refuse(origin, SERVICE_UNAVAILABLE.error("the control plane is stopping"));
            } else if is_repeated {
                let message = "The previous idempotent request(s) is still processing.";
                self.refuse(origin, TOKEN_PROCESSING.error(message));
            } else if call.action.is_question() {
                let answer = self.perform(&call).map(|performed| match performed {
                    CallResult::Answer(answer) | CallResult::Staged(_, answer) => answer,
                });
                self.answer_call(origin, answer, self.pending());
            } else {
                self.waiting.push_back(QueuedChange {
                    origin,
                    source: ChangeSource::Call(call),
                    asked: Instant::now(),
                    alone: false,
                });
            }
        }
        true
    }

    /// Drops waiting changes whose callers are gone, since nobody would learn that they were made.
    fn forget_callers(&mut self) {
        let callers = &mut self.callers;
        self.waiting.retain(|queued| match queued.origin {
            ReplyTarget::Http(number) if callers.get(&number).is_none_or(|caller| !caller.reply.is_awaited()) => {
                callers.remove(&number);
                false
            }
            _ => true,
        });
    }

    /// Carries out a call.
    pub(super) fn perform(&mut self, call: &Call) -> Result<CallResult, ApiError> {
        let environment = Environment::real();
        let settings = &self.settings;
        let input = CallInput { model: self.state.model(), call, settings, environment: &environment };
        check(&input)?;
        let token = token_id(call).map(|id| (id, fingerprint(call)));
        let known = token.as_ref().and_then(|(id, request)| Some((input.token(id)?, request)));
        // Before planning: a repeated request gets the first answer, even if it could not be made any more.
        if let Some((token, request)) = known {
            return repeated(token, request).map(CallResult::Answer).map_err(|error| refusal(call, error));
        }
        let dry_run = call.action.has_dry_run() && call.parameters.boolean("DryRun")?.unwrap_or(false);
        let (command, answer_of) = match plan(&input)? {
            Plan::Answer(_) if dry_run => return Err(refusal(call, dry_run_passed())),
            Plan::Answer(answer) => return Ok(CallResult::Answer(completed(call.action, answer))),
            Plan::Change(command, answer_of) => (command, answer_of),
        };
        if dry_run {
            // Tried on the staged state, so that the answer is that of the change at this moment.
            let tried = self.state.could_change(&command, &environment);
            return Err(refusal(call, tried.err().unwrap_or_else(dry_run_passed)));
        }
        let mut answer = ResponseBody::new();
        // The answer is written from the state that the change leads to, and stored with it in one transaction.
        let staged = self.state.stage(&command, &environment, |next| {
            let input = CallInput { model: next, call, settings, environment: &environment };
            answer = completed(call.action, answer_of(&input));
            let Some((id, request)) = token else { return Vec::new() };
            let text = Value::Object(answer.clone()).to_string();
            next.keep_token(id, Token { request, answer: text, created_s: environment.now_s })
        });
        let summary = staged.map_err(|error| refusal(call, error))?;
        Ok(CallResult::Staged(summary, answer))
    }

    /// Answers a call. If its sender is gone, nothing is sent.
    pub(super) fn answer_call(
        &mut self,
        origin: ReplyTarget,
        answer: Result<ResponseBody, ApiError>,
        pending: Option<String>,
    ) {
        let ReplyTarget::Http(number) = origin else { return };
        let Some(Caller { reply, call, .. }) = self.callers.remove(&number) else { return };
        let environment = Environment::real();
        let (model, settings) = (self.state.model(), &self.settings);
        let input = CallInput { model, call: &call, settings, environment: &environment };
        let answer = answer.map_err(|error| input.redacted(refusal(&call, error)));
        reply.send(CallResponse { answer, pending });
    }

    /// Why what is stored is not known to be in force, if it is not.
    pub(super) fn pending(&self) -> Option<String> {
        let at_work = self.in_flight.as_ref().filter(|in_flight| in_flight.affects_forwarding());
        at_work.map(|_| "the forwarding plane is applying it".to_owned()).or_else(|| self.link.pending())
    }
}

fn dry_run_passed() -> ApiError {
    DRY_RUN.error("Request validation has been passed with DryRun flag set.")
}

/// The key under which a client token's answer is stored: tokens are separate for each account, action and region.
fn token_id(call: &Call) -> Option<String> {
    let token = call.parameters.text("ClientToken")?;
    let region = call.parameters.text("RegionId").unwrap_or_default();
    let product = call.action.product.name();
    Some(hash(format!("{}\n{product}\n{}\n{region}\n{token}", call.account, call.action.name).as_bytes()))
}

fn fingerprint(call: &Call) -> String {
    // An empty parameter counts as an absent one.
    let pairs: Vec<(&str, &str)> = call.parameters.pairs().filter(|(_, value)| !value.is_empty()).collect();
    hash(format!("{pairs:?}").as_bytes())
}

fn repeated(token: &Token, request: &str) -> Result<ResponseBody, ApiError> {
    if token.request != request {
        let message = "Request uses a client token in a previous request but is not Identical to that request.";
        return Err(TOKEN_MISMATCH.error(message).field("ClientToken"));
    }
    Ok(serde_json::from_str(&token.answer).unwrap_or_default())
}
