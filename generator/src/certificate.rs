//! How complete the learning was, by namespace and workload: what a reviewer must know before these policies are
//! enforced, and what a rollout reads.
//!
//! Always holds: the bound counts whole hours, so that neither a burst nor a shorter slice flatters it; an hour in
//! which a node was not watched is none for the workloads on it; and what was not seen (gaps, unknown ends, unknown
//! directions, jobs that never ran) is said, not assumed quiet.

mod bound;
pub mod conditions;
mod coverage;
mod text;

pub use bound::{Novelty, poisson_upper_bound};
pub use conditions::{Condition, Status};

use crate::{
    lessons::{LeftOutReason, Lessons},
    naming,
    subjects::{Presence, Subject, Subjects},
};
use coverage::{Coverage, Hours};
use model::{
    cluster::{Cluster, Pod, WorkloadKey},
    ledger::{Edge, Hour, Ledger, Seen, Unfit, hour_of},
    record::{Gap, UnixNanos},
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The JSON's schema.
pub const SCHEMA: &str = "podfence.dev/certificate/v1";

/// New edges an hour that may still be expected, unless somebody says otherwise: one in twenty hours.
pub const REQUIRED: f64 = 0.05;

/// Completeness of the learning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The bound up to which learning counts as complete, new edges an hour.
    pub required: f64,
    /// When watching began, RFC 3339; absent when nothing was watched.
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
    /// What was watched, by node.
    pub nodes: Vec<NodeHours>,
    /// What was lost or not watched, by node and reason.
    pub gaps: Vec<GapSum>,
    /// By namespace, in order: of all edges with an end there, each once.
    pub namespaces: Vec<Completeness>,
    /// By workload, in order.
    pub workloads: Vec<Completeness>,
}

/// How long a node was watched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeHours {
    /// The node.
    pub node: String,
    /// Hourly slices that count; of the certificate's slices.
    pub slices: u64,
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

/// Completeness of one namespace's or workload's learning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completeness {
    /// `namespace/Kind/name` of a workload, or a namespace.
    pub name: String,
    /// Whether it ran; of a namespace, whether anything in it did.
    pub ran: Ran,
    /// Hourly slices since it is known.
    pub slices: u64,
    /// Of them, those in which every node that its pods were on was watched. Only these count below.
    pub slices_watched: u64,
    /// The nodes that its pods were or are on.
    pub nodes: Vec<String>,
    /// Edges it is an end of.
    pub edges: u64,
    /// Of them, seen in exactly one hourly slice.
    pub seen_in_one_slice: u64,
    /// Of them, seen in exactly two.
    pub seen_in_two_slices: u64,
    /// When an edge was first seen that had not been seen before, last; RFC 3339.
    pub newest_edge: Option<String>,
    /// Expected new edges in the next hour: those seen in one slice / slices watched. Absent without a slice.
    pub new_edges_per_hour: Option<f64>,
    /// Its 95 % upper bound ([`Novelty`]); 3 / slices watched when no edge is rare.
    pub upper_bound: Option<f64>,
    /// How much longer to watch until the bound is as required.
    pub wait: Wait,
    /// Flows that it is an end of, left out or not.
    pub flows: u64,
    /// Of them, the share whose other end could not be attributed, 0 to 1.
    pub unattributed_share: f64,
    /// Of them, those of which nobody knows who opened.
    pub direction_unknown: u64,
    /// Its flows left out although its part in them is known, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Events lost on its nodes.
    pub lost_on_its_nodes: u64,
    /// Seconds not watched on those nodes.
    pub unwatched_seconds: f64,
    /// Jobs that never ran in the window: what they will do is not in the bound.
    pub jobs_never_ran: Vec<String>,
    /// Other workloads that were never seen in it.
    pub never_seen: Vec<String>,
    /// The same as a rollout's status carries it.
    pub conditions: Vec<Condition>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Hours until the bound is as required while as many edges as now stay rare, hours that do not count included at
    /// their present share; absent when no hour counts.
    pub hours_at_present_rate: Option<u64>,
    /// The same if every edge comes again and none is new.
    pub hours_at_least: Option<u64>,
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
    /// The certificate of a ledger; complete is what has no higher bound than `required` new edges an hour.
    pub fn of(ledger: &Ledger, cluster: &Cluster, subjects: &Subjects, lessons: &Lessons, required: f64) -> Self {
        let window = window(ledger);
        let coverage = Coverage::of(ledger, cluster);
        let desk = Desk { ledger, cluster, coverage: &coverage, required };
        let flows_of = FlowsOf::of(ledger, lessons);
        let edges = known_edges(ledger);
        let edges_of = by_workload(&edges);
        let none = Vec::new();
        let scopes: Vec<Scope<'_>> = subjects
            .all()
            .iter()
            .map(|subject| desk.scope(subject, edges_of.get(&*subject.key).unwrap_or(&none), &flows_of))
            .collect();
        let (flows, left_out) = flows(ledger, lessons);
        let unattributed = left_out.get(Unfit::Unattributed.name()).copied().unwrap_or(0);
        Self {
            schema: SCHEMA,
            required,
            from: window.map(|(from, _)| naming::instant(from)),
            until: window.map(|(_, until)| naming::instant(until)),
            slices: Hours::of(vec![coverage.window]).count(),
            flows,
            unattributed_share: share(unattributed, flows),
            left_out,
            nodes: desk.node_hours(),
            gaps: gap_sums(&ledger.gaps),
            namespaces: by_namespace(&scopes, &flows_of).into_iter().map(|scope| desk.completeness(scope)).collect(),
            workloads: scopes.into_iter().map(|scope| desk.completeness(scope)).collect(),
        }
    }

    /// Namespaces and workloads whose bound is above what is required, with what to wait for.
    pub fn incomplete(&self) -> Vec<String> {
        let all = self.namespaces.iter().chain(&self.workloads);
        all.filter(|one| !one.is_complete(self.required)).map(|one| text::wait_for(one, self.required)).collect()
    }

    /// Jobs that never ran while anybody watched: whatever they do is not in any bound.
    pub fn jobs_never_ran(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().flat_map(|one| &one.jobs_never_ran).map(String::as_str)
    }

    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        crate::render::json(self)
    }

    /// For a person: the window, what was lost, a line for each namespace and workload.
    pub fn to_text(&self) -> String {
        text::text(self)
    }
}

impl Completeness {
    /// Whether its bound is as low as required.
    pub fn is_complete(&self, required: f64) -> bool {
        // Six places are written, and a bound of 3 / 60 is 0.05.
        self.upper_bound.is_some_and(|bound| bound <= required + 5e-7)
    }
}

/// What a completeness is worked out from.
struct Scope<'a> {
    name: String,
    namespace: &'a str,
    ran: Ran,
    /// The hours since it is known.
    known: Hours,
    /// Of them, those in which a node of its was not watched.
    unwatched: Hours,
    nodes: BTreeSet<&'a str>,
    edges: BTreeMap<&'a Edge, &'a Known<'a>>,
    flows: Flows,
    jobs_never_ran: Vec<String>,
    never_seen: Vec<String>,
}

/// Flows of a scope.
#[derive(Clone, Debug, Default)]
struct Flows {
    all: u64,
    unattributed: u64,
    left_out: BTreeMap<&'static str, u64>,
}

struct Desk<'a> {
    ledger: &'a Ledger,
    cluster: &'a Cluster,
    coverage: &'a Coverage<'a>,
    required: f64,
}

impl<'a> Desk<'a> {
    fn scope(&self, subject: &'a Subject, edges: &[&'a Known<'a>], flows: &FlowsOf<'_>) -> Scope<'a> {
        let pods: Vec<&Pod> = subject.pods.iter().map(|i| &self.cluster.pods[*i]).collect();
        let ran = ran(subject, edges.is_empty());
        let name = naming::workload(&subject.key);
        let (begun, until) = (self.known_since(&pods, edges), self.coverage.window.1);
        let (nodes, unwatched) = self.unwatched(&pods, edges, begun);
        Scope {
            namespace: &subject.key.namespace,
            ran,
            known: Hours::of(vec![(begun, until)]),
            unwatched,
            nodes,
            edges: edges.iter().map(|known| (known.edge, *known)).collect(),
            flows: flows.get(Whose::Workload(&subject.key)),
            jobs_never_ran: (ran == Ran::NeverRan).then(|| name.clone()).into_iter().collect(),
            never_seen: matches!(ran, Ran::Silent | Ran::NoPod).then(|| name.clone()).into_iter().collect(),
            name,
        }
    }

    /// Since which hour a workload is there: since its first flow or its oldest pod.
    fn known_since(&self, pods: &[&Pod], edges: &[&Known<'_>]) -> Hour {
        let (first, last) = self.coverage.window;
        let seen = edges.iter().map(|known| hour_of(known.seen.first_seen)).min();
        let started = pods.iter().map(|pod| hour_of(begins(pod))).min();
        seen.into_iter().chain(started).min().unwrap_or(first).clamp(first, last)
    }

    /// The nodes that a workload's pods were on while they were there, and when one of them was not watched. Without
    /// pods, those that saw it; of what nobody saw, all.
    fn unwatched(&self, pods: &[&'a Pod], edges: &[&'a Known<'a>], begun: Hour) -> (BTreeSet<&'a str>, Hours) {
        let until = self.coverage.window.1;
        let placed = pods.iter().filter(|pod| !pod.node.is_empty());
        let lives = placed.map(|pod| {
            let (from, to) = (hour_of(begins(pod)).max(begun), hour_of(ends(pod)).saturating_add(1).min(until));
            (pod.node.as_str(), from, to)
        });
        let mut lives: Vec<(&str, Hour, Hour)> = lives.filter(|(_, from, to)| from < to).collect();
        if lives.is_empty() {
            let seen = edges.iter().flat_map(|known| &known.seen.nodes).map(|node| (&**node, begun, until));
            lives.extend(seen);
        }
        if lives.is_empty() {
            lives.extend(self.coverage.nodes.keys().map(|node| (*node, begun, until)));
        }
        lives.sort_unstable();
        lives.dedup();
        let hours = lives.iter().map(|(node, from, to)| self.coverage.unwatched(node, *from, *to));
        let unwatched = Hours::union(hours);
        (lives.iter().map(|(node, ..)| *node).collect(), unwatched)
    }

    fn completeness(&self, scope: Scope<'_>) -> Completeness {
        let watched = scope.known.without(&scope.unwatched);
        let mut novelty = Novelty::new(watched.count());
        for known in scope.edges.values() {
            // Three hours say that it is not rare.
            let hours: Vec<Hour> = known.hours.iter().copied().filter(|hour| watched.holds(*hour)).take(3).collect();
            novelty.add(&hours);
        }
        let here = |node: &str| scope.nodes.contains(node) || self.coverage.elsewhere.contains(node);
        let gaps: Vec<&Gap> = self.ledger.gaps.iter().filter(|gap| here(&gap.node)).collect();
        let newest = scope.edges.values().map(|known| known.seen.first_seen).max();
        let unknown = scope.flows.left_out.get(Unfit::DirectionUnknown.name()).copied().unwrap_or_default();
        let mut one = Completeness {
            name: scope.name,
            ran: scope.ran,
            slices: scope.known.count(),
            slices_watched: novelty.hours,
            nodes: scope.nodes.iter().map(|node| naming::printable(node)).collect(),
            edges: scope.edges.len() as u64,
            seen_in_one_slice: novelty.once,
            seen_in_two_slices: novelty.twice,
            newest_edge: newest.map(naming::second),
            new_edges_per_hour: novelty.expected().map(rounded),
            upper_bound: novelty.upper_bound().map(rounded),
            wait: wait(&novelty, scope.known.count(), self.required),
            flows: scope.flows.all,
            unattributed_share: share(scope.flows.unattributed, scope.flows.all),
            direction_unknown: unknown,
            left_out: scope.flows.left_out,
            lost_on_its_nodes: gaps.iter().map(|gap| gap.lost).sum(),
            unwatched_seconds: seconds(gaps.iter().map(|gap| (gap.start, gap.end))),
            jobs_never_ran: scope.jobs_never_ran,
            never_seen: scope.never_seen,
            conditions: Vec::new(),
        };
        one.conditions = conditions::of(&one, self.required);
        one
    }

    fn node_hours(&self) -> Vec<NodeHours> {
        let one = |(node, hours): (&&str, &Hours)| NodeHours { node: naming::printable(node), slices: hours.count() };
        self.coverage.nodes.iter().map(one).collect()
    }
}

/// Everything of a namespace in one: edges within it once, the hours in which all of its workloads were watched.
fn by_namespace<'a>(scopes: &[Scope<'a>], flows: &FlowsOf<'_>) -> Vec<Scope<'a>> {
    let mut all: BTreeMap<&str, Vec<&Scope<'a>>> = BTreeMap::new();
    for scope in scopes {
        all.entry(scope.namespace).or_default().push(scope);
    }
    let one = |(namespace, scopes): (&'a str, Vec<&Scope<'a>>)| {
        let best = [Ran::Observed, Ran::Silent, Ran::NoPod, Ran::NeverRan];
        let ran = best.into_iter().find(|ran| scopes.iter().any(|scope| scope.ran == *ran));
        Scope {
            name: naming::printable(namespace),
            namespace,
            ran: ran.unwrap_or(Ran::NoPod),
            known: Hours::union(scopes.iter().map(|scope| scope.known.clone())),
            unwatched: Hours::union(scopes.iter().map(|scope| scope.unwatched.clone())),
            nodes: scopes.iter().flat_map(|scope| scope.nodes.iter().copied()).collect(),
            edges: scopes.iter().flat_map(|scope| scope.edges.iter().map(|(edge, seen)| (*edge, *seen))).collect(),
            flows: flows.get(Whose::Namespace(namespace)),
            jobs_never_ran: scopes.iter().flat_map(|scope| scope.jobs_never_ran.clone()).collect(),
            never_seen: scopes.iter().flat_map(|scope| scope.never_seen.clone()).collect(),
        }
    };
    all.into_iter().map(one).collect()
}

fn wait(novelty: &Novelty, known: u64, required: f64) -> Wait {
    if novelty.hours == 0 {
        return Wait { hours_at_present_rate: None, hours_at_least: None };
    }
    // Watched hours take longer to come where not every hour counts.
    let more = |until: u64| (until.saturating_sub(novelty.hours) * known.max(novelty.hours)).div_ceil(novelty.hours);
    Wait {
        hours_at_present_rate: Some(more(novelty.hours_until(required))),
        hours_at_least: Some(more(Novelty::least_hours_until(required))),
    }
}

fn ran(subject: &Subject, unseen: bool) -> Ran {
    let no_pod = subject.pods.is_empty() && subject.presence == Presence::NoPodNow;
    match (unseen, no_pod) {
        (false, _) => Ran::Observed,
        (true, false) => Ran::Silent,
        (true, true) if matches!(subject.key.kind.as_str(), "CronJob" | "Job") => Ran::NeverRan,
        (true, true) => Ran::NoPod,
    }
}

fn begins(pod: &Pod) -> UnixNanos {
    pod.started.map_or(UnixNanos::MIN, |at| nanos(at.as_nanosecond()))
}

fn ends(pod: &Pod) -> UnixNanos {
    pod.ended.map_or(UnixNanos::MAX, |at| nanos(at.as_nanosecond()))
}

fn nanos(at: i128) -> UnixNanos {
    UnixNanos::try_from(at).unwrap_or(if at < 0 { UnixNanos::MIN } else { UnixNanos::MAX })
}

fn window(ledger: &Ledger) -> Option<(UnixNanos, UnixNanos)> {
    let from = ledger.watched.values().map(|watched| watched.from).min()?;
    let until = ledger.watched.values().map(|watched| watched.until).max()?;
    Some((from, until))
}

fn flows(ledger: &Ledger, lessons: &Lessons) -> (u64, BTreeMap<&'static str, u64>) {
    let mut left_out: BTreeMap<&'static str, u64> = BTreeMap::new();
    for item in &lessons.left_out {
        *left_out.entry(item.reason.name()).or_default() += item.flows;
    }
    let learned: u64 = ledger.edges.values().map(|seen| seen.sightings.flows()).sum();
    let whole = ledger.unfit.iter().filter(|((unfit, _), _)| *unfit != Unfit::SeenAtServer);
    (learned + whole.map(|(_, left)| left.sightings.flows()).sum::<u64>(), left_out)
}

/// An edge with the hours in which it was seen.
struct Known<'a> {
    edge: &'a Edge,
    seen: &'a Seen,
    hours: Vec<Hour>,
}

/// Every edge. Those that policy refused count too: they are no surprise any more.
fn known_edges(ledger: &Ledger) -> Vec<Known<'_>> {
    // Each hour once, however many observers saw the edge in it.
    let hours = |seen: &Seen| {
        let mut all: Vec<Hour> = seen.sightings.cells().map(|(_, hour, _)| hour).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    ledger.edges.iter().map(|(edge, seen)| Known { edge, seen, hours: hours(seen) }).collect()
}

fn by_workload<'a>(edges: &'a [Known<'a>]) -> HashMap<&'a WorkloadKey, Vec<&'a Known<'a>>> {
    let mut all: HashMap<&WorkloadKey, Vec<&Known<'_>>> = HashMap::new();
    for known in edges {
        for key in known.edge.workloads() {
            all.entry(key).or_default().push(known);
        }
    }
    all
}

/// Whose flows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Whose<'a> {
    Workload(&'a WorkloadKey),
    Namespace(&'a str),
}

impl<'a> Whose<'a> {
    fn both(key: &'a WorkloadKey) -> [Self; 2] {
        [Self::Workload(key), Self::Namespace(&key.namespace)]
    }

    /// Those at the ends of an edge, each once.
    fn of(edge: &'a Edge) -> Vec<Self> {
        let mut all = Vec::with_capacity(4);
        for one in edge.workloads().flat_map(|key| Self::both(key)) {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }
}

/// Flows by workload and by namespace, each flow once.
struct FlowsOf<'a>(HashMap<Whose<'a>, Flows>);

impl<'a> FlowsOf<'a> {
    fn of(ledger: &'a Ledger, lessons: &'a Lessons) -> Self {
        let mut all: HashMap<Whose<'_>, Flows> = HashMap::new();
        let learned = ledger.edges.iter().map(|(edge, seen)| (Some(edge), &seen.sightings));
        let whole = ledger.unfit.iter().filter(|((unfit, _), _)| *unfit != Unfit::SeenAtServer);
        let unfit = whole.map(|((_, edge), left)| (edge.as_ref(), &left.sightings));
        for (edge, sightings) in learned.chain(unfit) {
            let flows = sightings.flows();
            edge.map(Whose::of).into_iter().flatten().for_each(|whose| all.entry(whose).or_default().all += flows);
        }
        for (key, sightings) in &ledger.half_known {
            for whose in Whose::both(key) {
                let of = all.entry(whose).or_default();
                of.all += sightings.flows();
                of.unattributed += sightings.flows();
            }
        }
        let counted =
            |reason: &LeftOutReason| !matches!(reason, LeftOutReason::Unfit(Unfit::SeenAtServer | Unfit::Exempt));
        for item in lessons.left_out.iter().filter(|item| counted(&item.reason)) {
            for whose in item.edge.iter().flat_map(Whose::of) {
                *all.entry(whose).or_default().left_out.entry(item.reason.name()).or_default() += item.flows;
            }
        }
        Self(all)
    }

    fn get(&self, whose: Whose<'_>) -> Flows {
        self.0.get(&whose).cloned().unwrap_or_default()
    }
}

fn gap_sums(gaps: &BTreeSet<Gap>) -> Vec<GapSum> {
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

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { rounded(part as f64 / of as f64) }
}

/// To six places: further ones say nothing, and differ between machines.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_gaps_are_counted_once() {
        let second = 1_000_000_000;
        assert_eq!(
            seconds([(0, 10 * second), (5 * second, 12 * second), (20 * second, 21 * second)].into_iter()),
            13.0
        );
    }

    #[test]
    fn waiting_takes_longer_where_not_every_hour_counts() {
        let mut novelty = Novelty::new(30);
        assert_eq!(wait(&novelty, 30, 0.05), Wait { hours_at_present_rate: Some(30), hours_at_least: Some(30) });
        assert_eq!(wait(&novelty, 60, 0.05), Wait { hours_at_present_rate: Some(60), hours_at_least: Some(60) });
        novelty.add(&[4]);
        assert_eq!(wait(&novelty, 30, 0.05), Wait { hours_at_present_rate: Some(65), hours_at_least: Some(30) });
        let nothing = Wait { hours_at_present_rate: None, hours_at_least: None };
        assert_eq!(wait(&Novelty::new(0), 7, 0.05), nothing);
    }
}
