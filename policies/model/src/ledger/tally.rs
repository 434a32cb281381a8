//! A ledger of very many rows, counted by numbers instead of names.
//!
//! Always holds: a tally's ledger is the one that [`Ledger::add`] makes of the same rows, each node's observer being its
//! instance; so the ledgers of tallies of different rows append to each other.

use super::{Edge, Facts, Ledger, LeftUnfit, Party, SAMPLES, Seen, Sightings, Unfit, fitness, hour_of};
use crate::{
    cluster::WorkloadKey,
    record::{DirectionRule, UnixNanos},
};
use std::{collections::HashMap, sync::Arc};

/// The number of a party in a tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartyId(u32);

/// One row of the flow log, as far as a ledger looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// What decides whether it feeds an edge.
    pub facts: Facts<'a>,
    /// The client, where it is known.
    pub client: Option<PartyId>,
    /// The server, where it is known.
    pub server: Option<PartyId>,
    /// The server's port.
    pub port: u16,
    /// First packet.
    pub start: UnixNanos,
    /// Last packet.
    pub end: UnixNanos,
    /// The flow's id.
    pub flow_id: &'a str,
    /// The node that saw it, which names the observer too.
    pub node: &'a Arc<str>,
}

/// An edge by numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    client: PartyId,
    server: PartyId,
    protocol: u8,
    port: u16,
}

/// What was seen of an edge, or left out, so far.
struct Sums {
    sightings: Sightings,
    first_seen: UnixNanos,
    last_seen: UnixNanos,
    samples: Vec<Box<str>>,
    direction_rule: DirectionRule,
    adopted_only: bool,
    nodes: Vec<Arc<str>>,
}

/// Counts rows.
#[derive(Default)]
pub struct Tally {
    parties: Vec<Party>,
    numbers: HashMap<Party, PartyId>,
    seen: HashMap<Ends, Sums>,
    unfit: HashMap<(Unfit, Option<Ends>), Sums>,
    /// What has no place by number: who watched when, and half known flows.
    rest: Ledger,
    /// The node of the last row, and from when until when it watched.
    watching: Option<(Arc<str>, UnixNanos, UnixNanos)>,
}

impl Tally {
    /// The number of a party.
    pub fn party(&mut self, party: Party) -> PartyId {
        let next = PartyId(u32::try_from(self.parties.len()).unwrap_or(u32::MAX));
        *self.numbers.entry(party).or_insert_with_key(|party| {
            self.parties.push(party.clone());
            next
        })
    }

    /// The workload behind a number, if it is one.
    pub fn workload(&self, id: PartyId) -> Option<&Arc<WorkloadKey>> {
        self.parties[id.0 as usize].workload()
    }

    /// Counts a row.
    pub fn add(&mut self, row: &Row<'_>) {
        self.watch(row);
        let Row { facts, client, server, .. } = *row;
        let port = fitness::port_of(facts.protocol, row.port);
        let ends = client.zip(server).map(|(client, server)| Ends { client, server, protocol: facts.protocol, port });
        match (facts.fitness(), ends) {
            (Ok(()), Some(ends)) => {
                self.seen.entry(ends).or_insert_with(|| Sums::new(row)).add(row, u64::from(facts.is_first_slice));
            }
            (fitness, ends) => {
                let reason = fitness.err().unwrap_or(Unfit::Unattributed);
                if !facts.counts_as(reason) {
                    return;
                }
                if ends.is_none() {
                    for id in client.into_iter().chain(server) {
                        if let Party::Workload(key) = &self.parties[id.0 as usize] {
                            self.rest.half_know(row.node, hour_of(row.start), key, 1);
                        }
                    }
                }
                self.unfit.entry((reason, ends)).or_insert_with(|| Sums::new(row)).add(row, 1);
            }
        }
    }

    /// Rows of a node come together, so that its name is seldom looked up.
    fn watch(&mut self, row: &Row<'_>) {
        match &mut self.watching {
            Some((node, from, until)) if Arc::ptr_eq(node, row.node) => {
                *from = (*from).min(row.start);
                *until = (*until).max(row.end);
            }
            _ => {
                self.note_watching();
                self.watching = Some((row.node.clone(), row.start, row.end));
            }
        }
    }

    fn note_watching(&mut self) {
        if let Some((node, from, until)) = self.watching.take() {
            self.rest.watch(&node, &node, from, until);
        }
    }

    /// The ledger of all rows.
    pub fn finish(mut self) -> Ledger {
        self.note_watching();
        let (parties, mut ledger) = (self.parties, self.rest);
        let edge = |ends: Ends| Edge {
            client: parties[ends.client.0 as usize].clone(),
            server: parties[ends.server.0 as usize].clone(),
            protocol: ends.protocol,
            port: ends.port,
        };
        ledger.edges = self.seen.into_iter().map(|(ends, sums)| (edge(ends), sums.seen())).collect();
        let unfit = self.unfit.into_iter().map(|((reason, ends), sums)| {
            let seen = sums.seen();
            ((reason, ends.map(edge)), LeftUnfit { sightings: seen.sightings, samples: seen.samples })
        });
        ledger.unfit = unfit.collect();
        ledger
    }
}

impl Sums {
    fn new(row: &Row<'_>) -> Self {
        Self {
            sightings: Sightings::default(),
            first_seen: row.start,
            last_seen: row.end,
            samples: Vec::new(),
            direction_rule: row.facts.direction_rule,
            adopted_only: true,
            nodes: Vec::new(),
        }
    }

    fn add(&mut self, row: &Row<'_>, flows: u64) {
        self.sightings.add(row.node, hour_of(row.start), flows);
        self.first_seen = self.first_seen.min(row.start);
        self.last_seen = self.last_seen.max(row.end.max(row.start));
        self.direction_rule = self.direction_rule.min(row.facts.direction_rule);
        self.adopted_only &= row.facts.is_older_than_its_observer();
        if let Err(place) = self.nodes.binary_search(row.node) {
            self.nodes.insert(place, row.node.clone());
        }
        // Nearly every id is larger than the few that are kept.
        if (self.samples.len() < SAMPLES || self.samples.last().is_some_and(|last| row.flow_id < &**last))
            && let Err(place) = self.samples.binary_search_by(|id| (**id).cmp(row.flow_id))
        {
            self.samples.insert(place, row.flow_id.into());
            self.samples.truncate(SAMPLES);
        }
    }

    fn seen(self) -> Seen {
        Seen {
            sightings: self.sightings,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            samples: self.samples.into_iter().map(String::from).collect(),
            direction_rule: self.direction_rule,
            adopted_only: self.adopted_only,
            nodes: self.nodes,
        }
    }
}
