//! Which bytes of an IP packet its fragments have covered so far, so that none overwrites another (RFC 1858, RFC 3128,
//! RFC 5722).

use crate::config::limits::FRAGMENT_RUNS_MAX;
use crate::packet::verdict::DropReason;

/// The bytes of the packet's payload that a fragment carries, from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: u16,
    pub(crate) end: u16,
    /// Whether it ends the packet.
    pub(crate) is_last: bool,
}

impl Part {
    /// The part of a packet that is not fragmented.
    pub(crate) const NONE: Self = Self { start: 0, end: 0, is_last: false };
}

/// The bytes of a packet that have arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FragmentCoverage {
    /// Contiguous runs of bytes that have arrived, in order; neighbouring runs do not touch.
    runs: [(u16, u16); FRAGMENT_RUNS_MAX],
    count: u8,
    /// Where the packet ends, once its last fragment has arrived.
    end: Option<u16>,
    /// Whether fragments overlapped: then no more of this packet may pass.
    is_broken: bool,
}

impl FragmentCoverage {
    /// No byte has arrived.
    pub(crate) const NONE: Self = Self { runs: [(0, 0); FRAGMENT_RUNS_MAX], count: 0, end: None, is_broken: false };

    /// Adds a fragment.
    ///
    /// # Errors
    /// Why the fragment must not pass. If it overlaps others, no later one may pass either.
    pub(crate) fn add(&mut self, part: Part) -> Result<(), DropReason> {
        // Which bytes of an overlap a receiver keeps is its own choice, so nothing more of the packet passes (RFC
        // 5722).
        if self.is_broken || self.overlaps(part) {
            self.is_broken = true;
            return Err(DropReason::FragmentOverlap);
        }
        // Networks duplicate packets, so a repetition does not spoil the packet as an overlap does.
        if self.runs().iter().any(|run| run.0 <= part.start && part.end <= run.1) {
            return Err(DropReason::FragmentDuplicate);
        }
        self.join(part)?;
        if part.is_last {
            self.end = Some(part.end);
        }
        Ok(())
    }

    /// Whether the first fragment has arrived.
    pub(crate) fn has_first(&self) -> bool {
        self.runs().first().is_some_and(|run| run.0 == 0)
    }

    /// Whether all fragments have arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.end.is_some_and(|end| self.runs() == [(0, end)])
    }

    fn runs(&self) -> &[(u16, u16)] {
        &self.runs[..usize::from(self.count)]
    }

    /// Whether a fragment covers both bytes that have arrived and bytes that have not, or contradicts where the packet
    /// ends.
    fn overlaps(&self, part: Part) -> bool {
        let furthest = self.runs().last().map_or(0, |run| run.1);
        let contradicts = match self.end {
            Some(end) => part.end > end || (part.is_last && part.end != end),
            None => part.is_last && part.end < furthest,
        };
        let is_partial = |run: &(u16, u16)| {
            let meets = part.start < run.1 && run.0 < part.end;
            meets && !(run.0 <= part.start && part.end <= run.1)
        };
        contradicts || self.runs().iter().any(is_partial)
    }

    /// Adds a fragment that overlaps no other to the runs that it touches.
    fn join(&mut self, part: Part) -> Result<(), DropReason> {
        let count = usize::from(self.count);
        let at = self.runs().iter().position(|run| run.0 > part.start).unwrap_or(count);
        let joins_before = at > 0 && self.runs[at - 1].1 == part.start;
        let joins_behind = at < count && self.runs[at].0 == part.end;
        match (joins_before, joins_behind) {
            (true, true) => {
                self.runs[at - 1].1 = self.runs[at].1;
                self.runs.copy_within(at + 1..count, at);
                self.count -= 1;
            }
            (true, false) => self.runs[at - 1].1 = part.end,
            (false, true) => self.runs[at].0 = part.start,
            // A bounded number of gaps: whoever sends more of them would make the search ever longer.
            (false, false) if count == FRAGMENT_RUNS_MAX => return Err(DropReason::FragmentsFull),
            (false, false) => {
                self.runs.copy_within(at..count, at + 1);
                self.runs[at] = (part.start, part.end);
                self.count += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const fn part(start: u16, end: u16, is_last: bool) -> Part {
        Part { start, end, is_last }
    }

    /// Compares with a plain list of bytes: random fragments of a packet of 128 bytes.
    #[test]
    fn agrees_with_a_list_of_bytes() {
        let mut random = 1u64;
        let mut next = move |bound: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % bound
        };
        let (mut whole, mut broken) = (0, 0);
        let rounds = if cfg!(miri) { 200 } else { 20_000 };
        for _ in 0..rounds {
            let mut coverage = FragmentCoverage::NONE;
            let mut bytes: Vec<bool> = vec![false; 128];
            let (mut end, mut is_broken): (Option<usize>, bool) = (None, false);
            for _ in 0..12 {
                let start = 8 * next(8) as usize;
                let stop = start + 8 * (1 + next(3) as usize);
                let is_last = next(6) == 0;
                let covered = bytes[start..stop].iter().filter(|byte| **byte).count();
                let last_byte = bytes.iter().rposition(|byte| *byte).map_or(0, |at| at + 1);
                let contradicts = match end {
                    Some(end) => stop > end || (is_last && stop != end),
                    None => is_last && stop < last_byte,
                };
                is_broken |= contradicts || (covered > 0 && covered < stop - start);
                let expected = match () {
                    () if is_broken => Err(DropReason::FragmentOverlap),
                    () if covered > 0 => Err(DropReason::FragmentDuplicate),
                    () => {
                        bytes[start..stop].fill(true);
                        end = end.or(is_last.then_some(stop));
                        Ok(())
                    }
                };
                assert_eq!(coverage.add(part(start as u16, stop as u16, is_last)), expected);
                assert_eq!(coverage.has_first(), bytes[0]);
                let is_whole = end.is_some_and(|end| bytes[..end].iter().all(|byte| *byte));
                assert_eq!(coverage.is_whole(), is_whole);
                whole += usize::from(is_whole);
                broken += usize::from(is_broken);
            }
        }
        assert!(whole > rounds / 200 && broken > rounds / 20, "{whole} {broken}");
    }

    #[test]
    fn gaps_are_bounded() {
        let mut coverage = FragmentCoverage::NONE;
        for number in 0..FRAGMENT_RUNS_MAX as u16 {
            assert_eq!(coverage.add(part(16 * number, 16 * number + 8, false)), Ok(()));
        }
        let far = part(8000, 8008, false);
        assert_eq!(coverage.add(far), Err(DropReason::FragmentsFull));
        assert_eq!(coverage.add(part(8, 16, false)), Ok(()), "what closes a gap has room");
        assert_eq!(coverage.add(far), Ok(()));
    }
}
