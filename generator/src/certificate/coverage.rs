//! Which hours count: those in which the nodes that a workload's pods were on were watched.
//!
//! Always holds: an hour counts for a node when one of its observers ran in it, nothing interrupted that (a gap that
//! lasted, a minute between one observer and the next), and at most one in a hundred of its flows was lost. An
//! observer under a name that no node of the cluster has (a capture made elsewhere) stands for every node.

use model::{
    cluster::Cluster,
    ledger::{Hour, Ledger, hour_of},
    record::{Gap, UnixNanos},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Between one observer of a node and the next.
const CHANGE: i64 = 60 * 1_000_000_000;

/// Of so many flows of an hour one may be lost.
const LOST_OF: u64 = 100;

/// Hours, as half-open intervals in order, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hours(Vec<(Hour, Hour)>);

impl Hours {
    pub(super) fn of(mut spans: Vec<(Hour, Hour)>) -> Self {
        spans.retain(|(from, until)| from < until);
        spans.sort_unstable();
        let mut all: Vec<(Hour, Hour)> = Vec::new();
        for (from, until) in spans {
            match all.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => all.push((from, until)),
            }
        }
        Self(all)
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(from, until)| u64::from(until.abs_diff(*from))).sum()
    }

    pub(super) fn holds(&self, hour: Hour) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= hour);
        after > 0 && hour < self.0[after - 1].1
    }

    /// Those of these that are not among the others.
    pub(super) fn without(&self, others: &Self) -> Self {
        let mut left = Vec::new();
        for &(mut from, until) in &self.0 {
            let first = others.0.partition_point(|(_, end)| *end <= from);
            for &(begin, end) in others.0[first..].iter().take_while(|(begin, _)| *begin < until) {
                left.push((from, begin));
                from = from.max(end);
            }
            left.push((from, until));
        }
        Self::of(left)
    }

    pub(super) fn union(all: impl Iterator<Item = Self>) -> Self {
        Self::of(all.flat_map(|hours| hours.0).collect())
    }

    pub(super) fn within(&self, from: Hour, until: Hour) -> Self {
        Self::of(self.0.iter().map(|span| (span.0.max(from), span.1.min(until))).collect())
    }
}

/// What was watched, node by node.
pub(super) struct Coverage<'a> {
    /// From the first to the last hour of anybody's watching, half-open.
    pub(super) window: (Hour, Hour),
    /// The hours that count, by node; of the cluster's nodes and of those that watched.
    pub(super) nodes: BTreeMap<&'a str, Hours>,
    /// Observers under names that no node of the cluster has.
    pub(super) elsewhere: BTreeSet<&'a str>,
}

impl<'a> Coverage<'a> {
    pub(super) fn of(ledger: &'a Ledger, cluster: &'a Cluster) -> Self {
        let mut spans: BTreeMap<&str, Vec<(UnixNanos, UnixNanos)>> = BTreeMap::new();
        for watched in ledger.watched.values() {
            spans.entry(&watched.node).or_default().push((watched.from, watched.until));
        }
        let flows = FlowsByHour::of(ledger);
        let mut nodes: BTreeMap<&str, Hours> = BTreeMap::new();
        for (node, mut spans) in spans {
            spans.sort_unstable();
            let ran = Hours::of(spans.iter().map(|(from, until)| (hour_of(*from), after(*until))).collect());
            let gaps = ledger.gaps.iter().filter(|gap| &*gap.node == node);
            let lost = gaps.flat_map(|gap| flows.spoilt(gap, &ran));
            nodes.insert(node, ran.without(&Hours::of(lost.chain(breaks(&spans)).collect())));
        }
        let ends = ledger.watched.values().map(|w| (hour_of(w.from), after(w.until)));
        let window = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
        let of_pods = cluster.pods.iter().map(|pod| pod.node.as_str()).filter(|node| !node.is_empty());
        let known: BTreeSet<&str> = cluster.nodes.keys().map(String::as_str).chain(of_pods).collect();
        let elsewhere: BTreeSet<&str> = nodes.keys().copied().filter(|node| !known.contains(node)).collect();
        let foreign = Hours::union(elsewhere.iter().map(|node| nodes[node].clone()));
        for node in known {
            let own = nodes.entry(node).or_default();
            *own = Hours::union([std::mem::take(own), foreign.clone()].into_iter());
        }
        Self { window, nodes, elsewhere }
    }

    /// Hours of a span in which a node was not watched.
    pub(super) fn unwatched(&self, node: &str, from: Hour, until: Hour) -> Hours {
        let span = Hours::of(vec![(from.max(self.window.0), until.min(self.window.1))]);
        self.nodes.get(node).map_or_else(|| span.clone(), |watched| span.without(watched))
    }
}

/// The hours in which one observer of a node had ended and the next had not begun.
fn breaks(spans: &[(UnixNanos, UnixNanos)]) -> Vec<(Hour, Hour)> {
    let (mut out, mut reached) = (Vec::new(), None::<UnixNanos>);
    for (from, until) in spans {
        if let Some(reached) = reached.filter(|reached| from.saturating_sub(*reached) > CHANGE) {
            out.push((hour_of(reached), after(*from)));
        }
        reached = reached.max(Some(*until));
    }
    out
}

fn after(at: UnixNanos) -> Hour {
    hour_of(at).saturating_add(1)
}

/// Flows that each node saw, by hour: only where something was lost that was counted.
struct FlowsByHour<'a>(HashMap<(&'a str, Hour), u64>);

impl<'a> FlowsByHour<'a> {
    fn of(ledger: &'a Ledger) -> Self {
        let mut all = HashMap::new();
        if ledger.gaps.iter().any(|gap| gap.lost > 0) {
            let edges = ledger.edges.values().map(|seen| &seen.sightings);
            let cells = edges.chain(ledger.unfit.values().map(|left| &left.sightings));
            for (instance, hour, flows) in cells.flat_map(|sightings| sightings.cells()) {
                if let Some(watched) = ledger.watched.get(instance) {
                    *all.entry((&*watched.node, hour)).or_default() += u64::from(flows);
                }
            }
        }
        Self(all)
    }

    /// The hours that a gap makes not count.
    fn spoilt(&self, gap: &Gap, ran: &Hours) -> Vec<(Hour, Hour)> {
        let span = (hour_of(gap.start), after(gap.end.max(gap.start)));
        match (gap.lost, gap.start < gap.end) {
            // A moment at which a capture broke off: what came before it was seen.
            (0, false) => Vec::new(),
            (0, true) => vec![span],
            (lost, _) => {
                let hours = ran.within(span.0, span.1);
                let each = lost.div_ceil(hours.count().max(1));
                let of = |hour| self.0.get(&(&*gap.node, hour)).copied().unwrap_or_default();
                let all = hours.0.iter().flat_map(|(from, until)| *from..*until);
                all.filter(|hour| each > of(*hour) / LOST_OF).map(|hour| (hour, hour.saturating_add(1))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ledger::SLICE;
    use std::sync::Arc;

    fn hours(spans: &[(Hour, Hour)]) -> Hours {
        Hours::of(spans.to_vec())
    }

    #[test]
    fn hours_are_joined_cut_and_counted() {
        assert_eq!(hours(&[(5, 7), (1, 3), (3, 4), (9, 9)]), hours(&[(1, 4), (5, 7)]));
        assert_eq!(hours(&[(0, 10)]).without(&hours(&[(0, 1), (4, 5), (9, 12)])), hours(&[(1, 4), (5, 9)]));
        assert_eq!(hours(&[(0, 3), (5, 8)]).without(&hours(&[(2, 6)])), hours(&[(0, 2), (6, 8)]));
        assert_eq!(hours(&[(0, 3), (5, 8)]).count(), 6);
        let all = hours(&[(0, 3), (5, 8)]);
        assert!(all.holds(0) && all.holds(7) && !all.holds(3) && !all.holds(8) && !all.holds(-1));
        assert_eq!(all.within(2, 6), hours(&[(2, 3), (5, 6)]));
    }

    fn of(ledger: &Ledger, node: &str) -> Hours {
        Coverage::of(ledger, &Cluster::default()).nodes[node].clone()
    }

    fn gap(start: i64, end: i64, lost: u64) -> Gap {
        Gap { start, end, node: "n".into(), reason: "agent-killed".into(), lost }
    }

    #[test]
    fn hours_with_a_break_or_a_gap_that_lasted_do_not_count() {
        let node: Arc<str> = "n".into();
        let mut ledger = Ledger::default();
        ledger.watch(&"n@0".into(), &node, 0, 3 * SLICE + 5);
        assert_eq!(of(&ledger, "n"), hours(&[(0, 4)]));
        ledger.watch(&"n@1".into(), &node, 3 * SLICE + 6, 9 * SLICE);
        assert_eq!(of(&ledger, "n"), hours(&[(0, 10)]), "another took over at once");
        ledger.watch(&"n@2".into(), &node, 11 * SLICE, 12 * SLICE);
        assert_eq!(of(&ledger, "n"), hours(&[(0, 9), (12, 13)]), "and later after two hours");
        ledger.gaps.insert(gap(2 * SLICE + 1, 2 * SLICE + 2, 0));
        ledger.gaps.insert(gap(5 * SLICE, 5 * SLICE, 0));
        assert_eq!(of(&ledger, "n"), hours(&[(0, 2), (3, 9), (12, 13)]));
    }

    #[test]
    fn an_hour_that_lost_more_than_one_flow_in_a_hundred_does_not_count() {
        let (node, instance): (Arc<str>, Arc<str>) = ("n".into(), "n@0".into());
        let mut ledger = Ledger::default();
        ledger.watch(&instance, &node, 0, 3 * SLICE);
        let nobody = || (model::ledger::Unfit::NoPod, None);
        for hour in 0..3 {
            ledger.leave_out(&instance, hour, nobody(), 1000, &[]);
        }
        ledger.gaps.insert(gap(0, 1, 10));
        assert_eq!(of(&ledger, "n"), hours(&[(0, 4)]));
        ledger.gaps.insert(gap(SLICE, SLICE + 1, 11));
        assert_eq!(of(&ledger, "n"), hours(&[(0, 1), (2, 4)]));
        ledger.gaps.insert(gap(3 * SLICE, 3 * SLICE, 1));
        assert_eq!(of(&ledger, "n"), hours(&[(0, 1), (2, 3)]), "of an hour without flows nothing may be lost");
    }
}
