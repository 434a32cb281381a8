//! Shares counted anew. Two CPUs that complete or revoke one connection at the same moment may count it twice, and
//! a share that lost count would in the end refuse what fits, or let one pod have too much.
//!
//! Always holds: a share is corrected only where the kernel's count was the same at two counts in a row, and so
//! were the entries, one by one. What changes meanwhile is left alone.

use std::collections::BTreeMap;
use verdict::{
    Share,
    abi::{ConnectionKey, Nanos},
};

/// How often.
const EVERY: Nanos = 2_000_000_000;

/// Which share of which endpoint: ordinal, and the share as a number.
pub(crate) type Of = (u32, u8);

/// All shares, as numbers.
pub(crate) const SHARES: [Share; 3] = [Share::HalfOpen, Share::Established, Share::Tombstone];

/// A share at one count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Entries there are.
    pub(crate) there: u64,
    /// What tells these entries from as many others.
    pub(crate) print: u64,
    /// The kernel's count.
    pub(crate) counted: u64,
}

impl Count {
    /// One more entry.
    pub(crate) fn add(&mut self, key: &ConnectionKey, started: Nanos) {
        self.there += 1;
        let words = key.iter().chain([&started]);
        self.print = self.print.wrapping_add(words.fold(0, |sum, word| (sum ^ word).wrapping_mul(ODD).rotate_left(29)));
    }
}

/// Spreads what is summed up; any odd number would do.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the last count found.
#[derive(Debug, Default)]
pub(crate) struct Recount {
    at: Nanos,
    disagreed: BTreeMap<Of, Count>,
}

impl Recount {
    /// Whether it is time.
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        now.saturating_sub(self.at) >= EVERY
    }

    /// The shares to correct, with how many the kernel counted too many (a wrapping number: too few is one as well).
    pub(crate) fn compare(&mut self, now: Nanos, found: impl Iterator<Item = (Of, Count)>) -> Vec<(Of, u64)> {
        self.at = now;
        let disagree: BTreeMap<Of, Count> = found.filter(|(_, count)| count.there != count.counted).collect();
        let twice = disagree.iter().filter(|(of, count)| self.disagreed.get(of) == Some(count));
        let wrong = twice.map(|(of, count)| (*of, count.counted.wrapping_sub(count.there))).collect();
        self.disagreed = disagree;
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_disagreement_twice_in_a_row_is_corrected() {
        let mut recount = Recount::default();
        assert!(recount.is_due(EVERY));
        let count = |first: u64, there, counted| {
            let mut count = Count { counted, ..Count::default() };
            (first..first + there).for_each(|entry| count.add(&[entry, 1, 2], entry));
            count
        };
        let mut compare = |now, counts: &[(Of, Count)]| recount.compare(now, counts.iter().copied());
        let (stands, right, moves) = ((1, 0), (1, 1), (2, 0));
        assert_eq!(compare(1, &[(stands, count(0, 3, 5)), (right, count(0, 4, 4)), (moves, count(0, 8, 6))]), []);
        // As many entries as before, and others: a share in use.
        let second = compare(2, &[(stands, count(0, 3, 5)), (right, count(0, 4, 4)), (moves, count(1, 8, 6))]);
        assert_eq!(second, [(stands, 2)]);
        let third = compare(3, &[(stands, count(0, 3, 3)), (moves, count(1, 8, 6))]);
        assert_eq!(third, [(moves, 2u64.wrapping_neg())]);
    }
}
