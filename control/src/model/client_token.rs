//! Client tokens and the answers to their requests, so that a repeated request gets the same answer and is carried out
//! once.

use super::{Event, Model};
use serde::{Deserialize, Serialize};

/// How long an answer is kept, seconds.
const KEPT_S: u64 = 24 * 3600;
/// Answers kept at most; beyond, the oldest go first.
const TOKENS_MAX: usize = 65_536;

/// A request that was carried out, and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The fingerprint of the request's parameters.
    pub request: String,
    /// The answer, as JSON text.
    pub answer: String,
    /// When it was answered, seconds since 1970.
    pub created_s: u64,
}

impl Token {
    /// Whether the answer need not be kept any longer.
    pub(crate) fn is_over(&self, now_s: u64) -> bool {
        self.created_s.saturating_add(KEPT_S) < now_s
    }
}

impl Model {
    /// The events that store an answer and remove expired ones.
    pub(crate) fn keep_token(&self, id: String, token: Token) -> Vec<Event> {
        let now_s = token.created_s;
        let mut ended: Vec<String> = Vec::new();
        if self.tokens.len() >= TOKENS_MAX {
            let old = self.tokens.iter().filter(|(_, token)| token.is_over(now_s));
            ended.extend(old.map(|(id, _)| id.clone()));
            let oldest = self.tokens.iter().min_by_key(|(_, token)| token.created_s);
            if let Some((oldest, _)) = oldest.filter(|_| ended.is_empty()) {
                ended.push(oldest.clone());
            }
        }
        ended.into_iter().map(|id| Event::Token(id, None)).chain([Event::Token(id, Some(token))]).collect()
    }
}
