//! How many new edges the next hour must be expected to bring, from how often those known were seen.
//!
//! Always holds: only the hours in which an edge was seen count. What happens within an hour changes nothing, so
//! neither a burst nor a busier edge nor a finer clock flatters the bound; seeing an edge in one more hour never
//! raises it.
//!
//! The estimate is Good and Turing's (Good 1953): of edges that come by chance, those seen in exactly one hour are as
//! many, on average, as the unseen ones will bring in as many hours as were watched. The bound is for what this very
//! cluster has still to show, not for its average: that differs from the estimate with the variance `once + 2 twice`
//! (Esty 1983), so the margin above the estimate is that of a Poisson count of as many. A bound from the seen-once
//! edges alone (`generator::certificate::poisson_upper_bound`) is too low in up to one run out of six where there are many
//! equally rare edges. Edges that come together vary more: where those seen once share their hours more often than
//! chance would have it, the margin grows by as much.
//!
//! What it cannot know: a group of edges of which none was ever seen counts as one new thing, and a change of the
//! cluster (a release, another schedule) is not foreseen by anything that was counted before it.

use model::ledger::Hour;
use std::collections::HashMap;

/// How often the edges of a scope were seen: all that the bound needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Novelty {
    /// Hours that were watched.
    pub hours: u64,
    /// Edges seen in exactly one of them.
    pub once: u64,
    /// Edges seen in exactly two.
    pub twice: u64,
    by_hour: HashMap<Hour, u64>,
    by_pair: HashMap<(Hour, Hour), u64>,
}

impl Novelty {
    /// Nothing seen in so many hours.
    pub fn new(hours: u64) -> Self {
        Self { hours, ..Self::default() }
    }

    /// Adds an edge by the watched hours in which it was seen, each once. One that was seen only in hours that do not
    /// count is known, and counts as seen once.
    pub fn add(&mut self, hours: &[Hour]) {
        match *hours {
            [] => self.once += 1,
            [only] => {
                self.once += 1;
                *self.by_hour.entry(only).or_default() += 1;
            }
            [first, second] => {
                self.twice += 1;
                *self.by_pair.entry((first.min(second), first.max(second))).or_default() += 1;
            }
            _ => {}
        }
    }

    /// New edges that the next hour must be expected to bring; `None` when nothing was watched.
    pub fn expected(&self) -> Option<f64> {
        (self.hours > 0).then(|| self.once as f64 / self.hours as f64)
    }

    /// Its 95 % upper bound; 3 / hours when no edge was seen in one or two hours only.
    pub fn upper_bound(&self) -> Option<f64> {
        (self.hours > 0).then(|| self.at_most() / self.hours as f64)
    }

    /// The bound of what as many hours as were watched would bring.
    fn at_most(&self) -> f64 {
        let rare = self.once as f64 + 2.0 * self.twice as f64;
        if rare == 0.0 {
            return poisson_upper_bound(0);
        }
        // Edges that come in groups of s vary like 1/s as many, each s times as large.
        let group = 1.0 + self.crowding() / rare;
        let count = rare / group;
        self.once as f64 + group * (between(count) - count)
    }

    /// By how many pairs more than chance would have it the rare edges share their hours.
    fn crowding(&self) -> f64 {
        let pairs = |n: f64| n * (n - 1.0);
        let hours = self.hours as f64;
        let more = |shared: f64, of: u64, places: f64| match places > 0.0 {
            true => (shared - pairs(of as f64) / places).max(0.0),
            false => 0.0,
        };
        let once: f64 = self.by_hour.values().map(|n| pairs(*n as f64)).sum();
        let twice: f64 = self.by_pair.values().map(|n| pairs(*n as f64)).sum();
        more(once, self.once, hours) + 2.0 * more(twice, self.twice, pairs(hours) / 2.0)
    }

    /// Hours of watching in all until the bound is this low, while as many edges as now stay rare.
    pub(super) fn hours_until(&self, most: f64) -> u64 {
        hours(self.at_most() / most)
    }

    /// The same if every edge comes again, and none is new.
    pub(super) fn least_hours_until(most: f64) -> u64 {
        hours(poisson_upper_bound(0) / most)
    }
}

fn hours(hours: f64) -> u64 {
    // Ten years: whoever asks for less than a new edge in ten years is told to wait for that long.
    (hours - 1e-9).ceil().clamp(0.0, 87_600.0) as u64
}

/// [`poisson_upper_bound`] between two counts.
fn between(count: f64) -> f64 {
    let (below, part) = (count.floor(), count.fract());
    let at = |count: f64| poisson_upper_bound(count as u64);
    if part == 0.0 { at(below) } else { at(below) * (1.0 - part) + at(below + 1.0) * part }
}

/// The 95 % upper bound of a Poisson mean of which `count` were seen: the mean at which so few or
/// fewer have a chance of 5 % (Garwood 1936, one-sided; half the chi-square quantile at 2 count + 2
/// degrees). 3 for none, which rounds 2.996 up.
pub fn poisson_upper_bound(count: u64) -> f64 {
    if count == 0 {
        return 3.0;
    }
    let k = count as f64;
    let (mut low, mut high) = (k, k + 10.0 + 4.0 * k.sqrt());
    // Until the bounds are next to each other.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if chance_of_at_most(count, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// P(X <= count) of a Poisson variable. Summed from its largest term down, so that nothing underflows.
fn chance_of_at_most(count: u64, mean: f64) -> f64 {
    let largest = count as f64 * mean.ln() - mean - log_factorial(count);
    let (mut term, mut sum) = (1.0, 1.0);
    for n in (1..=count).rev() {
        term *= n as f64 / mean;
        sum += term;
        if term < 1e-17 * sum {
            break;
        }
    }
    (largest + f64::ln(sum)).exp()
}

/// Summed where that is short, else Stirling's series, which is exact to twelve digits there.
fn log_factorial(n: u64) -> f64 {
    if n < 256 {
        return (2..=n).map(|n| (n as f64).ln()).sum();
    }
    let n = n as f64;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(hours: u64, edges: &[&[Hour]]) -> f64 {
        let mut novelty = Novelty::new(hours);
        edges.iter().for_each(|seen| novelty.add(seen));
        novelty.upper_bound().unwrap()
    }

    #[test]
    fn the_poisson_bound_is_the_textbook_one() {
        // One-sided 95 % Garwood bounds.
        for (count, bound) in [(1, 4.744), (2, 6.296), (3, 7.754), (5, 10.513), (10, 16.962), (100, 118.079)] {
            assert!((poisson_upper_bound(count) - bound).abs() < 0.001, "{count}: {}", poisson_upper_bound(count));
        }
        assert_eq!(poisson_upper_bound(0), 3.0);
        assert!((poisson_upper_bound(100_000) - 100_521.0).abs() < 2.0, "{}", poisson_upper_bound(100_000));
    }

    #[test]
    fn without_rare_edges_it_is_the_rule_of_three() {
        assert_eq!(bound(60, &[]), 0.05);
        assert_eq!(bound(60, &[&[1, 2, 3], &[1, 5, 9, 11]]), 0.05);
        assert_eq!(Novelty::new(0).upper_bound(), None);
    }

    #[test]
    fn edges_seen_once_are_expected_again_and_bounded_as_a_count() {
        assert!((bound(100, &[&[7]]) - 0.04744).abs() < 1e-5);
        assert!((bound(1, &[&[7], &[7], &[7]]) - 7.754).abs() < 1e-3, "in a single hour everything shares it");
    }

    #[test]
    fn seeing_an_edge_once_more_lowers_the_bound() {
        let (once, twice, often) = (bound(100, &[&[7]]), bound(100, &[&[7, 9]]), bound(100, &[&[7, 8, 9]]));
        assert!(once > twice && twice > often, "{once} {twice} {often}");
    }

    #[test]
    fn edges_that_come_together_widen_the_bound() {
        let apart: Vec<[Hour; 1]> = (0..10).map(|hour| [hour]).collect();
        let apart: Vec<&[Hour]> = apart.iter().map(|hours| &hours[..]).collect();
        let together = vec![&[4][..]; 10];
        assert!(bound(1000, &together) > 2.0 * bound(1000, &apart));
    }

    #[test]
    fn a_count_that_is_no_whole_number_lies_between() {
        assert!(between(2.5) > poisson_upper_bound(2) && between(2.5) < poisson_upper_bound(3));
        assert!((log_factorial(256) - log_factorial(255) - 256_f64.ln()).abs() < 1e-9);
    }
}
