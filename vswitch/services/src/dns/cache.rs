//! Answers of resolvers that are still good.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use std::collections::{BTreeMap, VecDeque};

/// Questions whose answers are kept.
pub(super) const ANSWERS_MAX: usize = 4096;
/// The longest that an answer is kept, whatever it says, seconds.
const KEPT_S_MAX: u32 = 3600;
/// How long it is kept that a name does not exist, seconds.
const KEPT_NEGATIVE_S: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct AnswerCache {
    answers: BTreeMap<(String, RecordType), CachedAnswer>,
    /// By age, the oldest first.
    order: VecDeque<(String, RecordType)>,
}

#[derive(Debug)]
struct CachedAnswer {
    message: Message,
    since_s: u64,
    until_s: u64,
}

fn key(query: &Query) -> (String, RecordType) {
    (query.name().to_ascii().to_ascii_lowercase(), query.query_type())
}

impl AnswerCache {
    /// The answer to a question, as it is by now.
    pub(super) fn find(&self, query: &Query, now_s: u64) -> Option<Message> {
        let found = self.answers.get(&key(query)).filter(|answer| now_s < answer.until_s)?;
        let mut message = found.message.clone();
        let age_s = u32::try_from(now_s.saturating_sub(found.since_s)).unwrap_or(u32::MAX);
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.ttl = record.ttl.saturating_sub(age_s);
        }
        Some(message)
    }

    /// Keeps an answer for as long as it says. Failures are not kept.
    pub(super) fn keep(&mut self, query: &Query, message: &Message, now_s: u64) {
        let is_answer = matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        if !is_answer || message.metadata.truncation {
            return;
        }
        let ttl_s = message.answers.iter().map(|record| record.ttl).min().unwrap_or(KEPT_NEGATIVE_S);
        let until_s = now_s + u64::from(ttl_s.min(KEPT_S_MAX));
        let key = key(query);
        if !self.answers.contains_key(&key) {
            if self.answers.len() >= ANSWERS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.answers.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.answers.insert(key, CachedAnswer { message: message.clone(), since_s: now_s, until_s });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record};

    fn query(name: &str) -> Query {
        Query::query(Name::from_ascii(name).expect("a name"), RecordType::A)
    }

    fn message(ttl_s: u32) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.add_answer(Record::from_rdata(
            query("a.example.").name().clone(),
            ttl_s,
            RData::A(A::new(192, 0, 2, 1)),
        ));
        message
    }

    #[test]
    fn an_answer_is_kept_for_as_long_as_it_says() {
        let mut cache = AnswerCache::default();
        cache.keep(&query("A.example."), &message(60), 1000);
        assert_eq!(cache.find(&query("a.EXAMPLE."), 1040).map(|found| found.answers[0].ttl), Some(20));
        assert_eq!(cache.find(&query("a.example."), 1060), None);
        let mut failed = message(60);
        failed.metadata.response_code = ResponseCode::ServFail;
        cache.keep(&query("b.example."), &failed, 1000);
        assert_eq!(cache.find(&query("b.example."), 1000), None);
    }

    #[test]
    fn the_oldest_give_way() {
        let mut cache = AnswerCache::default();
        for number in 0..=ANSWERS_MAX {
            cache.keep(&query(&format!("{number}.example.")), &message(60), 1000);
        }
        assert_eq!(cache.answers.len(), ANSWERS_MAX);
        assert_eq!(cache.find(&query("0.example."), 1000), None);
        assert!(cache.find(&query("1.example."), 1000).is_some());
    }
}
