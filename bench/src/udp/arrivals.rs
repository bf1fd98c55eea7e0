//! Which packets of a numbered sequence arrived: once, again, late, or never.

/// How far behind the newest packet one may be and still be distinguished from a duplicate.
const WINDOW: u64 = 1 << 16;

/// Whether a packet is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketArrival {
    /// It had not arrived before.
    New,
    /// It had arrived before, or is too old to tell.
    Again,
}

/// The arrivals. See the module's page.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// The highest number that arrived, plus one.
    next: u64,
    /// One bit for each of the last numbers.
    here: Vec<u64>,
    pub(crate) received: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self { next: 0, here: vec![0; (WINDOW / 64) as usize], received: 0, duplicates: 0, reordered: 0 }
    }

    /// Records a packet.
    pub(crate) fn note(&mut self, number: u64) -> PacketArrival {
        let is_late = number < self.next;
        if is_late {
            if self.next - number > WINDOW || *self.word(number) >> (number % 64) & 1 == 1 {
                self.duplicates += 1;
                return PacketArrival::Again;
            }
            self.reordered += 1;
        } else {
            // Bits of numbers that never arrived are reused from now on.
            let skipped = self.next..number;
            if skipped.end - skipped.start >= WINDOW {
                self.here.fill(0);
            } else {
                skipped.for_each(|number| *self.word(number) &= !(1 << (number % 64)));
            }
            self.next = number.saturating_add(1);
        }
        *self.word(number) |= 1 << (number % 64);
        self.received += 1;
        PacketArrival::New
    }

    /// How many of `sent` packets never arrived.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.received)
    }

    fn word(&mut self, number: u64) -> &mut u64 {
        &mut self.here[(number % WINDOW / 64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::FixtureRandom;
    use std::collections::HashSet;

    #[test]
    fn what_is_told_is_what_happened() {
        let mut random = FixtureRandom::new(11);
        let (mut arrivals, mut seen, mut highest) = (Arrivals::new(), HashSet::new(), None);
        let (mut duplicates, mut reordered) = (0, 0);
        for step in 0..200_000u64 {
            // Mostly forward, sometimes by gaps of a window and more, sometimes back within the window.
            let number = match random.below(1000) {
                0 => step * 3 + random.below(1 << 18),
                1..300 => (step * 3).saturating_sub(random.below(1 << 14)),
                _ => step * 3,
            };
            let is_late = highest.is_some_and(|highest| number < highest);
            if highest.is_some_and(|highest| number + WINDOW <= highest) {
                continue; // Too old to tell.
            }
            let is_new = seen.insert(number);
            duplicates += u64::from(!is_new);
            reordered += u64::from(is_new && is_late);
            highest = highest.max(Some(number));
            assert_eq!(arrivals.note(number) == PacketArrival::New, is_new, "{number} at step {step}");
        }
        assert_eq!((arrivals.duplicates, arrivals.reordered), (duplicates, reordered));
        assert_eq!(arrivals.received, seen.len() as u64);
        assert!(duplicates > 0 && reordered > 1000);
        assert_eq!(arrivals.lost(seen.len() as u64 + 5), 5);
    }

    #[test]
    fn the_highest_number_there_is_does_no_harm() {
        let mut arrivals = Arrivals::new();
        assert_eq!(arrivals.note(u64::MAX), PacketArrival::New);
        assert_eq!(arrivals.note(0), PacketArrival::Again);
        assert_eq!(arrivals.lost(1), 0);
    }
}
