//! What the model must not obtain by itself: the time, and unused identifiers. They are arguments, so that a test that
//! runs twice makes the same decisions.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};
use vswitch_core::config::ids::MacAddress;

/// Characters of a generated identifier after its prefix: 62 bits, from the operating system's random source.
const ID_CHARACTERS: usize = 12;

/// The circumstances of one decision.
#[derive(Debug)]
pub struct Environment {
    /// The time, seconds since 1970 in UTC.
    pub now_s: u64,
    source: RefCell<RandomSource>,
}

#[derive(Debug)]
enum RandomSource {
    OperatingSystem,
    Counter(u64),
}

impl Environment {
    /// The real environment: the system's clock, and identifiers from its random source.
    pub fn real() -> Self {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Self { now_s, source: RefCell::new(RandomSource::OperatingSystem) }
    }

    /// An environment for tests: identifiers count upwards from `first`.
    pub fn fixed(now_s: u64, first: u64) -> Self {
        Self { now_s, source: RefCell::new(RandomSource::Counter(first)) }
    }

    /// An identifier such as `sg-k3x09q2m7d1c`.
    pub fn new_id(&self, prefix: &str) -> String {
        let mut digits = [b'0'; ID_CHARACTERS];
        let mut rest = self.next();
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
        }
        format!("{prefix}-{}", String::from_utf8_lossy(&digits))
    }

    /// An identifier for one request, as in `473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E`.
    pub fn new_request_id(&self) -> String {
        let (high, low) = (self.next(), self.next());
        let digits = format!("{high:016X}{low:016X}");
        format!("{}-{}-4{}-A{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
    }

    /// A hardware address for one interface, locally administered.
    pub fn new_mac(&self) -> MacAddress {
        let [_, _, _, a, b, c, d, e] = self.next().to_be_bytes();
        MacAddress([0x02, a, b, c, d, e])
    }

    fn next(&self) -> u64 {
        match &mut *self.source.borrow_mut() {
            RandomSource::Counter(next) => {
                *next += 1;
                *next
            }
            RandomSource::OperatingSystem => random(),
        }
    }
}

/// # Panics
/// If the operating system has no random source, since identifiers must not be predictable.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "the operating system's random source answers");
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_in_tests_and_differ_in_life() {
        let fixed = Environment::fixed(0, 34);
        assert_eq!(fixed.new_id("sg"), "sg-00000000000z");
        assert_eq!(fixed.new_id("eni"), "eni-000000000010");
        let real = Environment::real();
        assert_ne!(real.new_id("sg"), real.new_id("sg"));
        assert_eq!(real.new_mac().0[0], 0x02);
    }
}
