//! How many questions an ENI's guest may ask.

use crate::directory::Asker;
use std::collections::BTreeMap;

/// Questions per second of an ENI, and as many at once after an idle second.
const QUESTIONS_PER_S: u64 = 50;
const NS_PER_S: u64 = 1_000_000_000;
const COST_NS: u64 = NS_PER_S / QUESTIONS_PER_S;
/// ENIs whose recent questions are remembered: as many as a switch may have.
const ASKERS_MAX: usize = 65_536;

/// When what each ENI has asked will be used up at the permitted rate, ns.
#[derive(Debug, Default)]
pub struct QuestionRates(BTreeMap<Asker, u64>);

impl QuestionRates {
    /// Whether an ENI's guest may ask another question now.
    pub fn admits(&mut self, asker: &Asker, now_ns: u64) -> bool {
        if self.0.len() >= ASKERS_MAX && !self.0.contains_key(asker) {
            self.0.retain(|_, used_up_ns| *used_up_ns > now_ns);
            if self.0.len() >= ASKERS_MAX {
                return false;
            }
        }
        let used_up_ns = self.0.entry(asker.clone()).or_insert(0);
        let after_ns = (*used_up_ns).max(now_ns) + COST_NS;
        if after_ns > now_ns + NS_PER_S {
            return false;
        }
        *used_up_ns = after_ns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eni_has_a_second_s_worth_at_once_and_takes_nothing_from_another() {
        let mut rates = QuestionRates::default();
        let asker = |eni: &str| Asker { vpc: "vpc-1".into(), eni: eni.into() };
        let ask =
            |rates: &mut QuestionRates, eni, now_ns| (0..200).filter(|_| rates.admits(&asker(eni), now_ns)).count();
        assert_eq!(ask(&mut rates, "eni-1", NS_PER_S), 50);
        assert_eq!(ask(&mut rates, "eni-2", NS_PER_S), 50);
        assert_eq!(ask(&mut rates, "eni-1", NS_PER_S + NS_PER_S / 10), 5);
        assert_eq!(ask(&mut rates, "eni-1", 10 * NS_PER_S), 50);
    }
}
