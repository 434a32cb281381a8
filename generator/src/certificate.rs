//! How complete the learning was, by workload: what a reviewer must know before these policies are
//! enforced.
//!
//! Always holds: the bound counts whole hours, so that neither a burst nor a shorter slice flatters
//! it, and what was not watched (gaps, unknown ends, jobs that never ran) is said, not assumed quiet.

use crate::{
    lessons::{LeftOutReason, Lessons},
    naming,
    subjects::{Presence, Subject, Subjects},
};
use model::{
    cluster::{Cluster, WorkloadKey},
    ledger::{Edge, Ledger, Party, SLICE, Unfit},
    record::{Gap, UnixNanos},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

/// The JSON's schema.
pub const SCHEMA: &str = "podfence.dev/certificate/v1";

/// What was watched.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// What was seen.
    pub ledger: &'a Ledger,
    /// From when until when; `None`: from the first to the last flow.
    pub window: Option<(UnixNanos, UnixNanos)>,
    /// What was lost or not watched.
    pub gaps: &'a [Gap],
}

/// Completeness of the learning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// When watching began, RFC 3339; absent when nothing was seen.
    pub from: Option<String>,
    /// When it ended.
    pub until: Option<String>,
    /// Hourly slices begun in the window.
    pub slices: u64,
    /// Flows that are whole observations: learned and left out, the client's view of what was
    /// counted at the server apart.
    pub flows: u64,
    /// Share of them with an end that could not be attributed, 0 to 1.
    pub unattributed_share: f64,
    /// Flows left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// What was lost or not watched, by node and reason.
    pub gaps: Vec<GapSum>,
    /// By workload, in order.
    pub workloads: Vec<WorkloadCertificate>,
}

/// Gaps of one node with one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GapSum {
    /// The node.
    pub node: String,
    /// The reason.
    pub reason: String,
    /// Events lost, as far as that is known.
    pub lost: u64,
    /// Seconds that the gaps last, overlaps counted once.
    pub seconds: f64,
    /// Some of these gaps do not know how much they lost.
    pub some_uncounted: Uncounted,
}

/// Whether everything lost was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Uncounted {
    /// All was counted.
    None,
    /// Of some gaps nobody knows how much they lost.
    Some,
}

/// Completeness of one workload's learning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkloadCertificate {
    /// `namespace/Kind/name`.
    pub workload: String,
    /// Whether it ran.
    pub ran: Ran,
    /// Edges it is an end of.
    pub edges: u64,
    /// Of them, seen in exactly one hourly slice.
    pub seen_in_one_slice: u64,
    /// Expected new edges in the next hour: those seen in one slice / slices. Absent without a slice.
    pub new_edges_per_hour: Option<f64>,
    /// Its 95 % upper bound: the exact one-sided Poisson bound of the count / slices; 3 / slices for
    /// a count of none.
    pub upper_bound: Option<f64>,
    /// Its flows left out although its part in them is known, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Events lost on the nodes its pods were on.
    pub lost_on_its_nodes: u64,
    /// Seconds not watched on those nodes.
    pub unwatched_seconds: f64,
}

/// Whether a workload ran in the inventory's time, and was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ran {
    /// It was an end of an edge.
    Observed,
    /// It had pods, and no flow of theirs was seen.
    Silent,
    /// A job whose time did not come.
    NeverRan,
    /// The inventory holds no pod of it: scaled to zero, or only its manifest was given.
    NoPod,
}

impl Certificate {
    /// The certificate of what was watched.
    pub fn of(observation: &Observation<'_>, cluster: &Cluster, subjects: &Subjects, lessons: &Lessons) -> Self {
        let ledger = observation.ledger;
        let window = observation.window.or_else(|| seen_window(ledger));
        let slices = window.map_or(0, slices_in);
        let (flows, left_out) = flows(ledger, lessons);
        let unattributed = left_out.get(Unfit::Unattributed.name()).copied().unwrap_or(0);
        let by_workload = edges_by_workload(ledger);
        let left_by_workload = left_by_workload(lessons);
        let of_subject = |subject: &Subject| {
            let edges = by_workload.get(&*subject.key);
            let left = left_by_workload.get(&*subject.key).cloned().unwrap_or_default();
            workload(subject, cluster, edges, left, slices, observation.gaps)
        };
        Self {
            schema: SCHEMA,
            from: window.map(|(from, _)| naming::instant(from)),
            until: window.map(|(_, until)| naming::instant(until)),
            slices,
            flows,
            unattributed_share: if flows == 0 { 0.0 } else { rounded(unattributed as f64 / flows as f64) },
            left_out,
            gaps: gap_sums(observation.gaps),
            workloads: subjects.all().iter().map(of_subject).collect(),
        }
    }

    /// Workloads whose bound is above `most` new edges an hour, with what to wait for.
    pub fn incomplete(&self, most: f64) -> Vec<String> {
        let above = self.workloads.iter().filter(|w| w.upper_bound.is_none_or(|bound| bound > most));
        above.map(|w| wait_for(w, most)).collect()
    }

    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        crate::render::json(self)
    }

    /// For a person: the window, what was lost, one line a workload.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let (from, until) = (self.from.as_deref().unwrap_or("-"), self.until.as_deref().unwrap_or("-"));
        let slices = naming::count(self.slices, "hourly slice");
        let _ = writeln!(out, "observed {from} to {until}, {slices}, {}", naming::count(self.flows, "flow"));
        let _ = writeln!(out, "unattributed {:.2} %", self.unattributed_share * 100.0);
        for gap in &self.gaps {
            let (more, seconds) = (if gap.some_uncounted == Uncounted::Some { " or more" } else { "" }, gap.seconds);
            let _ = writeln!(out, "lost on {}: {}, {}{more} in {seconds} s", gap.node, gap.reason, gap.lost);
        }
        let _ = writeln!(out, "expected new edges in the next hour, by workload (95 % upper bound):");
        for w in &self.workloads {
            let rate = w.new_edges_per_hour.map_or("-".to_owned(), |rate| format!("{rate:.3}"));
            let bound = w.upper_bound.map_or("-".to_owned(), |bound| format!("{bound:.3}"));
            let ran = match w.ran {
                Ran::Observed => String::new(),
                Ran::Silent => ", never observed".to_owned(),
                Ran::NeverRan => ", never ran".to_owned(),
                Ran::NoPod => ", never observed, no pod known".to_owned(),
            };
            let edges = naming::count(w.edges, "edge");
            let single = w.seen_in_one_slice;
            let _ = writeln!(out, "  {}: {rate} ({bound}); {edges}, {single} in one slice only{ran}", w.workload);
        }
        out
    }
}

fn wait_for(w: &WorkloadCertificate, most: f64) -> String {
    let bound = w.upper_bound.map_or("unknown".to_owned(), |bound| format!("{bound:.3}"));
    // With every edge seen again, 3 / slices remains.
    let least = (3.0 / most.max(f64::MIN_POSITIVE)).ceil();
    let again = match w.seen_in_one_slice {
        0 => String::new(),
        n => format!(" and until its {} seen in one hour only came again", naming::count(n, "edge")),
    };
    let never = if w.ran == Ran::NeverRan { ", and until it runs: it never ran" } else { "" };
    format!("{}: upper bound {bound} new edges an hour; watch for {least} hours in all{again}{never}", w.workload)
}

fn seen_window(ledger: &Ledger) -> Option<(UnixNanos, UnixNanos)> {
    let from = ledger.edges.values().map(|seen| seen.first_seen).min()?;
    let until = ledger.edges.values().map(|seen| seen.last_seen).max()?;
    Some((from, until))
}

fn slices_in((from, until): (UnixNanos, UnixNanos)) -> u64 {
    let slices = until.div_euclid(SLICE).saturating_sub(from.div_euclid(SLICE)).saturating_add(1);
    u64::try_from(slices).unwrap_or(0)
}

fn flows(ledger: &Ledger, lessons: &Lessons) -> (u64, BTreeMap<&'static str, u64>) {
    let mut left_out: BTreeMap<&'static str, u64> = BTreeMap::new();
    for item in &lessons.left_out {
        *left_out.entry(item.reason.name()).or_default() += item.flows;
    }
    let learned: u64 = ledger.edges.values().map(|seen| seen.flows).sum();
    let told_twice = |unfit: &Unfit| *unfit == Unfit::SeenAtServer;
    let unfit: u64 = ledger.unfit.iter().filter(|((u, _), _)| !told_twice(u)).map(|(_, c)| c.flows).sum();
    (learned + unfit, left_out)
}

type Slices = BTreeSet<UnixNanos>;

/// The slices in which each edge of a workload was seen. Edges that policy refused count too: they
/// are no surprise any more.
fn edges_by_workload(ledger: &Ledger) -> HashMap<&WorkloadKey, HashMap<&Edge, Slices>> {
    let mut all: HashMap<&WorkloadKey, HashMap<&Edge, Slices>> = HashMap::new();
    for (_, slice, edge) in ledger.edges.keys() {
        for key in workloads(edge) {
            all.entry(key).or_default().entry(edge).or_default().insert(*slice);
        }
    }
    all
}

fn left_by_workload(lessons: &Lessons) -> HashMap<&WorkloadKey, BTreeMap<&'static str, u64>> {
    let mut all: HashMap<&WorkloadKey, BTreeMap<&'static str, u64>> = HashMap::new();
    let counted = |reason: &LeftOutReason| !matches!(reason, LeftOutReason::Unfit(Unfit::SeenAtServer | Unfit::Exempt));
    for item in lessons.left_out.iter().filter(|item| counted(&item.reason)) {
        for key in item.edge.iter().flat_map(workloads) {
            *all.entry(key).or_default().entry(item.reason.name()).or_default() += item.flows;
        }
    }
    all
}

/// The workloads at the ends of an edge, one that talks to itself once.
fn workloads(edge: &Edge) -> impl Iterator<Item = &WorkloadKey> {
    let (client, server) = (workload_of(&edge.client), workload_of(&edge.server));
    client.into_iter().chain(server.filter(move |server| client != Some(*server)))
}

fn workload_of(party: &Party) -> Option<&WorkloadKey> {
    match party {
        Party::Workload(key) => Some(key),
        Party::Node(_) | Party::Outside(_) => None,
    }
}

fn workload(
    subject: &Subject,
    cluster: &Cluster,
    edges: Option<&HashMap<&Edge, Slices>>,
    left_out: BTreeMap<&'static str, u64>,
    slices: u64,
    gaps: &[Gap],
) -> WorkloadCertificate {
    let single = edges.map_or(0, |edges| edges.values().filter(|slices| slices.len() == 1).count() as u64);
    let per_slice = |count: f64| (slices > 0).then(|| rounded(count / slices as f64));
    let nodes: BTreeSet<&str> = subject.pods.iter().map(|i| cluster.pods[*i].node.as_str()).collect();
    let here: Vec<&Gap> = gaps.iter().filter(|gap| nodes.contains(&*gap.node)).collect();
    let no_pod = subject.pods.is_empty() && subject.presence == Presence::NoPodNow;
    let ran = match (edges, no_pod) {
        (Some(_), _) => Ran::Observed,
        (None, false) => Ran::Silent,
        (None, true) if matches!(subject.key.kind.as_str(), "CronJob" | "Job") => Ran::NeverRan,
        (None, true) => Ran::NoPod,
    };
    WorkloadCertificate {
        workload: naming::workload(&subject.key),
        ran,
        edges: edges.map_or(0, |edges| edges.len() as u64),
        seen_in_one_slice: single,
        new_edges_per_hour: per_slice(single as f64),
        upper_bound: per_slice(poisson_upper_bound(single)),
        left_out,
        lost_on_its_nodes: here.iter().map(|gap| gap.lost).sum(),
        unwatched_seconds: seconds(here.iter().map(|gap| (gap.start, gap.end))),
    }
}

fn gap_sums(gaps: &[Gap]) -> Vec<GapSum> {
    let mut all: BTreeMap<(&str, &str), Vec<&Gap>> = BTreeMap::new();
    for gap in gaps {
        all.entry((&gap.node, &gap.reason)).or_default().push(gap);
    }
    let sum = |((node, reason), gaps): ((&str, &str), Vec<&Gap>)| GapSum {
        node: naming::printable(node),
        reason: naming::printable(reason),
        lost: gaps.iter().map(|gap| gap.lost).sum(),
        seconds: seconds(gaps.iter().map(|gap| (gap.start, gap.end))),
        some_uncounted: if gaps.iter().any(|gap| gap.lost == 0) { Uncounted::Some } else { Uncounted::None },
    };
    all.into_iter().map(sum).collect()
}

/// Seconds that the intervals cover together.
fn seconds(intervals: impl Iterator<Item = (UnixNanos, UnixNanos)>) -> f64 {
    let mut sorted: Vec<_> = intervals.collect();
    sorted.sort_unstable();
    let (mut covered, mut reached) = (0i64, i64::MIN);
    for (start, end) in sorted {
        covered = covered.saturating_add(end.saturating_sub(start.max(reached)).max(0));
        reached = reached.max(end);
    }
    rounded(covered as f64 / 1e9)
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
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if chance_of_at_most(count, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// P(X <= count) of a Poisson variable. Summed from its largest term down, so that nothing underflows.
fn chance_of_at_most(count: u64, mean: f64) -> f64 {
    let log_factorial: f64 = (2..=count).map(|n| (n as f64).ln()).sum();
    let largest = count as f64 * mean.ln() - mean - log_factorial;
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

/// To six places: further ones say nothing, and differ between machines.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_textbook_one() {
        // One-sided 95 % Garwood bounds.
        for (count, bound) in [(1, 4.744), (2, 6.296), (3, 7.754), (5, 10.513), (10, 16.962), (100, 118.079)] {
            assert!((poisson_upper_bound(count) - bound).abs() < 0.001, "{count}: {}", poisson_upper_bound(count));
        }
        assert_eq!(poisson_upper_bound(0), 3.0);
        assert!((poisson_upper_bound(100_000) - 100_521.0).abs() < 2.0, "{}", poisson_upper_bound(100_000));
    }

    #[test]
    fn an_hour_counts_once_however_short_the_watch() {
        assert_eq!(slices_in((0, 0)), 1);
        assert_eq!(slices_in((SLICE - 1, SLICE)), 2);
        assert_eq!(slices_in((10, SLICE - 1)), 1);
        assert_eq!(slices_in((SLICE, 0)), 0);
    }

    #[test]
    fn overlapping_gaps_are_counted_once() {
        let second = 1_000_000_000;
        assert_eq!(
            seconds([(0, 10 * second), (5 * second, 12 * second), (20 * second, 21 * second)].into_iter()),
            13.0
        );
    }
}
