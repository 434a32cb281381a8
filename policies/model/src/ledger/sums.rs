//! What was seen of one edge, or left out, while a tally is made: observers and nodes by their numbers there.

use super::{Hour, SAMPLES, Seen, Sightings, hour_of, sightings, tally::Row};
use crate::record::{DirectionRule, UnixNanos};
use std::{collections::BTreeMap, sync::Arc};

/// Hours with flows, each observer instance's in order, by its number.
pub(super) type ByInstance = Vec<(u32, Vec<(Hour, u32)>)>;

/// What was seen so far.
pub(super) struct Sums {
    /// The instance that saw it last at the end.
    pub(super) by_instance: ByInstance,
    /// The numbers of the nodes that saw it.
    pub(super) nodes: Vec<u32>,
    pub(super) first_seen: UnixNanos,
    pub(super) last_seen: UnixNanos,
    /// The smallest few, in order.
    pub(super) samples: Vec<Arc<str>>,
    /// The head of the last sample, where there are as many as are kept.
    pub(super) highest: u64,
    pub(super) direction_rule: DirectionRule,
    pub(super) adopted_only: bool,
}

impl Default for Sums {
    /// Of nothing: whatever comes is earlier, later and surer.
    fn default() -> Self {
        Self {
            by_instance: Vec::new(),
            nodes: Vec::new(),
            first_seen: UnixNanos::MAX,
            last_seen: UnixNanos::MIN,
            samples: Vec::new(),
            highest: u64::MAX,
            direction_rule: DirectionRule::Unknown,
            adopted_only: true,
        }
    }
}

impl Sums {
    /// Adds a row of the log; the node names its observer too.
    pub(super) fn add(&mut self, row: &Row<'_>, node: u32, flows: u32) {
        sightings::add(self.hours_of(node), hour_of(row.start), flows);
        self.first_seen = self.first_seen.min(row.start);
        self.last_seen = self.last_seen.max(row.end.max(row.start));
        self.direction_rule = self.direction_rule.min(row.facts.direction_rule);
        self.adopted_only &= row.facts.is_older_than_its_observer();
        self.sample(row.flow_id, || row.flow_id.into());
        if self.nodes.last() != Some(&node) {
            self.seen_by(node);
        }
    }

    /// Takes what another ledger has of the same: the larger, the smaller, or both (law 10).
    pub(super) fn merge(&mut self, theirs: Self) {
        for (instance, hours) in theirs.by_instance {
            sightings::join(self.hours_of(instance), hours, u32::max);
        }
        self.first_seen = self.first_seen.min(theirs.first_seen);
        self.last_seen = self.last_seen.max(theirs.last_seen);
        self.direction_rule = self.direction_rule.min(theirs.direction_rule);
        self.adopted_only &= theirs.adopted_only;
        for id in theirs.samples {
            self.sample(&id, || id.clone());
        }
        theirs.nodes.into_iter().for_each(|node| self.seen_by(node));
    }

    fn hours_of(&mut self, instance: u32) -> &mut Vec<(Hour, u32)> {
        let known = self.by_instance.iter().rposition(|(known, _)| *known == instance);
        let place = known.unwrap_or_else(|| {
            self.by_instance.push((instance, Vec::new()));
            self.by_instance.len() - 1
        });
        let last = self.by_instance.len() - 1;
        self.by_instance.swap(place, last);
        &mut self.by_instance[last].1
    }

    fn seen_by(&mut self, node: u32) {
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
    }

    fn sample(&mut self, id: &str, kept: impl FnOnce() -> Arc<str>) {
        // Nearly every id is larger than the few that are kept, and its head tells.
        if head(id) > self.highest {
            return;
        }
        if let Err(place) = self.samples.binary_search_by(|known| (**known).cmp(id)) {
            self.samples.insert(place, kept());
            self.samples.truncate(SAMPLES);
        }
        if self.samples.len() == SAMPLES {
            self.highest = self.samples.last().map_or(u64::MAX, |last| head(last));
        }
    }

    /// With the names behind the numbers.
    pub(super) fn seen(self, names: &[Arc<str>]) -> Seen {
        let name = |number: u32| names[number as usize].clone();
        let by_instance: BTreeMap<_, _> =
            self.by_instance.into_iter().map(|(number, hours)| (name(number), hours)).collect();
        let mut nodes: Vec<Arc<str>> = self.nodes.into_iter().map(name).collect();
        nodes.sort_unstable();
        Seen {
            sightings: Sightings::of(by_instance),
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            samples: self.samples,
            direction_rule: self.direction_rule,
            adopted_only: self.adopted_only,
            nodes,
        }
    }
}

/// The first eight bytes of a text, as a number that orders as these do.
fn head(text: &str) -> u64 {
    let (mut head, length) = ([0; 8], text.len().min(8));
    head[..length].copy_from_slice(&text.as_bytes()[..length]);
    u64::from_be_bytes(head)
}
