//! Edges and the ledger that counts them (laws 10 and 13).
//!
//! Always holds: all that a ledger keeps is merged by taking the larger, the smaller or both, so that any order,
//! grouping and repetition gives the same; what an edge takes grows with the hours it was seen in, not with its flows.

mod fitness;
mod lines;
mod sightings;
mod sums;
mod tally;

pub use fitness::{Facts, Unfit, asked_edge, denial, is_answered, is_first_slice, party};
pub use lines::LinesError;
pub use sightings::{Hour, Hours, Sightings, hour_of};
pub use tally::{PartyId, Row, Tally};

use crate::{
    cluster::WorkloadKey,
    record::{DirectionRule, FlowRecord, Gap, UnixNanos},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Length of a ledger's time slice: one hour, so that neither bursts nor shorter slices flatter a certificate.
pub const SLICE: i64 = 3_600 * 1_000_000_000;

/// How many flow ids an edge keeps.
pub const SAMPLES: usize = 8;

/// One side of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A workload (root owner).
    Workload(Arc<WorkloadKey>),
    /// A node or hostNetwork pod; the class, not the address (as a client), see DESIGN on nodes.
    Node(IpAddr),
    /// An address outside.
    Outside(IpAddr),
}

impl Party {
    /// The workload, if it is one.
    pub fn workload(&self) -> Option<&Arc<WorkloadKey>> {
        match self {
            Self::Workload(key) => Some(key),
            Self::Node(_) | Self::Outside(_) => None,
        }
    }
}

/// Client workload, server workload, protocol, server port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Who opens.
    pub client: Party,
    /// Who answers.
    pub server: Party,
    /// IP protocol number.
    pub protocol: u8,
    /// The server's port; 0 for protocols without ports.
    pub port: u16,
}

impl Edge {
    /// The workloads at its ends, one that talks to itself once.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<WorkloadKey>> {
        let (client, server) = (self.client.workload(), self.server.workload());
        client.into_iter().chain(server.filter(move |server| client != Some(*server)))
    }
}

/// What was seen of an edge, all observers and hours taken together.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeCounters {
    /// Flows (not slices of flows).
    pub flows: u64,
    /// First packet.
    pub first_seen: UnixNanos,
    /// Last packet.
    pub last_seen: UnixNanos,
    /// Up to eight flow ids, the smallest ones, so that the sample does not depend on the order.
    pub samples: Vec<Arc<str>>,
    /// The surest way in which direction became known.
    pub direction_rule: DirectionRule,
    /// All flows were older than their observer: adopted by the kernel program, or under way when a capture began.
    pub adopted_only: bool,
    /// Node names that saw it.
    pub nodes: Vec<Arc<str>>,
}

/// What a ledger keeps of an edge: flows by observer and hour, the rest for all of them together.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Flows, by who saw them and when.
    pub sightings: Sightings,
    /// First packet.
    pub first_seen: UnixNanos,
    /// Last packet.
    pub last_seen: UnixNanos,
    /// As [`EdgeCounters::samples`].
    pub samples: Vec<Arc<str>>,
    /// As [`EdgeCounters::direction_rule`].
    pub direction_rule: DirectionRule,
    /// As [`EdgeCounters::adopted_only`].
    pub adopted_only: bool,
    /// As [`EdgeCounters::nodes`].
    pub nodes: Vec<Arc<str>>,
}

/// Flows that fed no rule, with samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeftUnfit {
    /// Flows, by who saw them and when.
    pub sightings: Sightings,
    /// Up to eight flow ids, the smallest ones.
    pub samples: Vec<Arc<str>>,
}

/// When an observer instance watched which node. What it did not see within is in the gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The node.
    pub node: Arc<str>,
    /// From when.
    pub from: UnixNanos,
    /// Until when.
    pub until: UnixNanos,
}

/// What observers learned: (observer instance, hour, edge) -> flows, with who watched when and what was lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Edges that may become rules.
    pub edges: BTreeMap<Edge, Seen>,
    /// Flows that may not: reason and the edge as far as it is known (`None`: an end is unknown).
    pub unfit: BTreeMap<(Unfit, Option<Edge>), LeftUnfit>,
    /// Flows of which one end is this workload's pod and nobody knows the other.
    pub half_known: BTreeMap<Arc<WorkloadKey>, Sightings>,
    /// The observer instances.
    pub watched: BTreeMap<Arc<str>, Watched>,
    /// What they lost or did not watch.
    pub gaps: BTreeSet<Gap>,
}

impl Ledger {
    /// Counts one row of the flow log. `instance` names the observer (node and start).
    ///
    /// A flow is counted with its first slice; later slices only extend when the edge was seen. So
    /// an hour has no flows where an edge is known in it only from a flow that began earlier.
    pub fn add(&mut self, instance: &Arc<str>, record: &FlowRecord) {
        let (facts, event) = (Facts::of(record), &record.event);
        self.watch(instance, &record.node, event.start, event.end);
        let edge = fitness::edge_of(record);
        match (facts.fitness(), edge) {
            (Ok(()), Some(edge)) => self.see(instance, edge, counters(record, &facts)),
            (fitness, edge) => {
                let reason = fitness.err().unwrap_or(Unfit::Unattributed);
                if facts.counts_as(reason) {
                    let parties = [&record.client, &record.server].map(fitness::party);
                    let known = parties.iter().flatten().filter_map(Party::workload);
                    if edge.is_none() {
                        known.for_each(|key| self.half_know(instance, hour_of(event.start), key, 1));
                    }
                    let sample = [record.flow_id.as_str().into()];
                    self.leave_out(instance, hour_of(event.start), (reason, edge), 1, &sample);
                }
            }
        }
    }

    /// Adds what an observer saw of an edge in the hour in which `seen` begins.
    pub fn see(&mut self, instance: &Arc<str>, edge: Edge, seen: EdgeCounters) {
        let (hour, flows) = (hour_of(seen.first_seen), seen.flows);
        let entry = self.edges.entry(edge).and_modify(|all| all.join(&seen)).or_insert_with(|| Seen::from(seen));
        entry.sightings.add(instance, hour, flows);
    }

    /// Adds flows that feed no rule.
    pub fn leave_out(
        &mut self,
        instance: &Arc<str>,
        hour: Hour,
        what: (Unfit, Option<Edge>),
        flows: u64,
        samples: &[Arc<str>],
    ) {
        let all = self.unfit.entry(what).or_default();
        all.sightings.add(instance, hour, flows);
        add_samples(&mut all.samples, samples);
    }

    /// Adds flows of which one end is this workload's pod and the other is not known.
    pub fn half_know(&mut self, instance: &Arc<str>, hour: Hour, key: &Arc<WorkloadKey>, flows: u64) {
        self.half_known.entry(key.clone()).or_default().add(instance, hour, flows);
    }

    /// Notes that an observer instance watched a node from then until then, quiet or not.
    pub fn watch(&mut self, instance: &Arc<str>, node: &Arc<str>, from: UnixNanos, until: UnixNanos) {
        match self.watched.get_mut(instance) {
            Some(watched) => watched.join(node, from, until),
            None => drop(self.watched.insert(instance.clone(), Watched { node: node.clone(), from, until })),
        }
    }

    /// Merges another ledger: union of keys, the larger counters where both have one (law 10).
    pub fn merge(&mut self, other: Ledger) {
        self.join(other, Sightings::merge);
    }

    /// Takes a ledger of other rows, of the same observers perhaps: its flows come to ours.
    pub fn append(&mut self, other: Ledger) {
        self.join(other, Sightings::sum);
    }

    fn join(&mut self, other: Ledger, sightings: fn(&mut Sightings, Sightings)) {
        for (edge, mut theirs) in other.edges {
            match self.edges.get_mut(&edge) {
                Some(ours) => {
                    sightings(&mut ours.sightings, std::mem::take(&mut theirs.sightings));
                    ours.join(&theirs.counters());
                }
                None => drop(self.edges.insert(edge, theirs)),
            }
        }
        for (what, theirs) in other.unfit {
            let ours = self.unfit.entry(what).or_default();
            sightings(&mut ours.sightings, theirs.sightings);
            add_samples(&mut ours.samples, &theirs.samples);
        }
        for (key, theirs) in other.half_known {
            sightings(self.half_known.entry(key).or_default(), theirs);
        }
        for (instance, theirs) in other.watched {
            self.watch(&instance, &theirs.node, theirs.from, theirs.until);
        }
        self.gaps.extend(other.gaps);
    }

    /// Edges that policy in force or staged denied: none of them becomes a rule, however often it
    /// was seen otherwise, until a person accepts it by name (law 13).
    pub fn refused(&self) -> BTreeSet<&Edge> {
        let denied = self.unfit.keys().filter(|(reason, _)| reason.is_denial());
        denied.filter_map(|(_, edge)| edge.as_ref()).collect()
    }

    /// The edges that may become rules: each once, all observers and hours taken together, without
    /// the refused ones.
    pub fn learned(&self) -> BTreeMap<&Edge, EdgeCounters> {
        let refused = self.refused();
        let may = self.edges.iter().filter(|(edge, _)| !refused.contains(edge));
        may.map(|(edge, seen)| (edge, seen.counters())).collect()
    }

    /// What fed no rule, for a person: `12 flows: direction not known`, most frequent first.
    pub fn unfit_summary(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<Unfit, u64> = BTreeMap::new();
        for ((reason, _), left) in &self.unfit {
            *by_reason.entry(*reason).or_default() += left.sightings.flows();
        }
        let mut rows: Vec<_> = by_reason.into_iter().collect();
        rows.sort_by_key(|(reason, flows)| (std::cmp::Reverse(*flows), *reason));
        let flows = |n: u64| if n == 1 { "1 flow".to_owned() } else { format!("{n} flows") };
        rows.into_iter().map(|(reason, n)| format!("{}: {}", flows(n), reason.meaning())).collect()
    }
}

impl From<EdgeCounters> for Seen {
    /// Without its flows: who saw them is not said.
    fn from(seen: EdgeCounters) -> Self {
        Self {
            sightings: Sightings::default(),
            first_seen: seen.first_seen,
            last_seen: seen.last_seen,
            samples: seen.samples,
            direction_rule: seen.direction_rule,
            adopted_only: seen.adopted_only,
            nodes: seen.nodes,
        }
    }
}

impl Seen {
    /// All of it in one.
    pub fn counters(&self) -> EdgeCounters {
        EdgeCounters {
            flows: self.sightings.flows(),
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            samples: self.samples.clone(),
            direction_rule: self.direction_rule,
            adopted_only: self.adopted_only,
            nodes: self.nodes.clone(),
        }
    }

    /// Everything but the flows: the wider, the surer, both.
    fn join(&mut self, more: &EdgeCounters) {
        self.first_seen = self.first_seen.min(more.first_seen);
        self.last_seen = self.last_seen.max(more.last_seen);
        self.direction_rule = self.direction_rule.min(more.direction_rule);
        self.adopted_only &= more.adopted_only;
        add_samples(&mut self.samples, &more.samples);
        for node in &more.nodes {
            if let Err(place) = self.nodes.binary_search(node) {
                self.nodes.insert(place, node.clone());
            }
        }
    }
}

impl Watched {
    /// An instance has one node; were there two, the first by name, in whatever order they came.
    fn join(&mut self, node: &Arc<str>, from: UnixNanos, until: UnixNanos) {
        if *node < self.node {
            self.node = node.clone();
        }
        self.from = self.from.min(from);
        self.until = self.until.max(until);
    }
}

fn counters(record: &FlowRecord, facts: &Facts<'_>) -> EdgeCounters {
    EdgeCounters {
        flows: u64::from(facts.is_first_slice),
        first_seen: record.event.start,
        last_seen: record.event.end.max(record.event.start),
        samples: vec![record.flow_id.as_str().into()],
        direction_rule: record.event.direction_rule,
        adopted_only: facts.is_older_than_its_observer(),
        nodes: vec![record.node.clone()],
    }
}

/// The smallest few ids of both.
fn add_samples(samples: &mut Vec<Arc<str>>, more: &[Arc<str>]) {
    for id in more {
        if samples.len() >= SAMPLES && samples.last().is_some_and(|last| id >= last) {
            continue;
        }
        if let Err(place) = samples.binary_search(id) {
            samples.insert(place, id.clone());
            samples.truncate(SAMPLES);
        }
    }
}
