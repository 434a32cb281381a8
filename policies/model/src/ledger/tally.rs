//! A ledger of very many rows, or of very many ledgers, made by numbers instead of names.
//!
//! Always holds: a tally's ledger is the one that [`Ledger::add`] makes of the same rows, each node's observer being its
//! instance; so the ledgers of tallies of different rows append to each other. Of ledgers that were read into it, it is
//! the one that [`Ledger::merge`] makes of them.

use super::{Edge, Facts, Ledger, LeftUnfit, Party, Unfit, fitness, hour_of, sums::Sums};
use crate::{cluster::WorkloadKey, record::UnixNanos};
use foldhash::fast::RandomState;
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
pub(super) struct Ends {
    pub(super) client: PartyId,
    pub(super) server: PartyId,
    pub(super) protocol: u8,
    pub(super) port: u16,
}

/// The node of the last row, and from when until when it watched.
struct Watching {
    node: Arc<str>,
    number: u32,
    from: UnixNanos,
    until: UnixNanos,
}

/// Counts rows, or merges ledgers.
#[derive(Default)]
pub struct Tally {
    parties: Vec<Party>,
    numbers: HashMap<Party, PartyId, RandomState>,
    /// Of nodes, of observer instances, and the reasons of gaps.
    names: Vec<Arc<str>>,
    numbers_of_names: HashMap<Arc<str>, u32, RandomState>,
    seen: HashMap<Ends, Sums, RandomState>,
    unfit: HashMap<(Unfit, Option<Ends>), Sums, RandomState>,
    /// What has no place by number: who watched when, gaps, and half known flows.
    pub(super) rest: Ledger,
    watching: Option<Watching>,
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

    /// The number of a node's or an observer instance's name.
    pub(super) fn name(&mut self, name: &str) -> u32 {
        if let Some(known) = self.numbers_of_names.get(name) {
            return *known;
        }
        let (name, number): (Arc<str>, _) = (name.into(), u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name.clone());
        self.numbers_of_names.insert(name, number);
        number
    }

    /// A name of which there is one copy.
    pub(super) fn shared(&mut self, name: &str) -> Arc<str> {
        let number = self.name(name);
        self.named(number).clone()
    }

    /// The name behind a number.
    pub(super) fn named(&self, number: u32) -> &Arc<str> {
        &self.names[number as usize]
    }

    /// Counts a row.
    pub fn add(&mut self, row: &Row<'_>) {
        let node = self.watch(row);
        let Row { facts, client, server, .. } = *row;
        let port = fitness::port_of(facts.protocol, row.port);
        let ends = client.zip(server).map(|(client, server)| Ends { client, server, protocol: facts.protocol, port });
        match (facts.fitness(), ends) {
            (Ok(()), Some(ends)) => self.seen.entry(ends).or_default().add(row, node, u32::from(facts.is_first_slice)),
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
                self.unfit.entry((reason, ends)).or_default().add(row, node, 1);
            }
        }
    }

    /// The number of a row's node. Rows of a node come together, so that its name is seldom looked up.
    fn watch(&mut self, row: &Row<'_>) -> u32 {
        if let Some(watching) = &mut self.watching
            && Arc::ptr_eq(&watching.node, row.node)
        {
            watching.from = watching.from.min(row.start);
            watching.until = watching.until.max(row.end);
            return watching.number;
        }
        self.note_watching();
        let number = self.name(row.node);
        self.watching = Some(Watching { node: row.node.clone(), number, from: row.start, until: row.end });
        number
    }

    fn note_watching(&mut self) {
        if let Some(Watching { node, from, until, .. }) = self.watching.take() {
            self.rest.watch(&node, &node, from, until);
        }
    }

    /// Merges what a ledger says of an edge.
    pub(super) fn merge_seen(&mut self, ends: Ends, theirs: Sums) {
        self.seen.entry(ends).or_default().merge(theirs);
    }

    /// Merges what a ledger says of flows that feed no rule.
    pub(super) fn merge_unfit(&mut self, what: (Unfit, Option<Ends>), theirs: Sums) {
        self.unfit.entry(what).or_default().merge(theirs);
    }

    /// The ledger of all rows, or of all that was merged.
    pub fn finish(mut self) -> Ledger {
        self.note_watching();
        let (parties, names, mut ledger) = (self.parties, self.names, self.rest);
        let edge = |ends: Ends| Edge {
            client: parties[ends.client.0 as usize].clone(),
            server: parties[ends.server.0 as usize].clone(),
            protocol: ends.protocol,
            port: ends.port,
        };
        ledger.edges = self.seen.into_iter().map(|(ends, sums)| (edge(ends), sums.seen(&names))).collect();
        let unfit = self.unfit.into_iter().map(|((reason, ends), sums)| {
            let seen = sums.seen(&names);
            ((reason, ends.map(edge)), LeftUnfit { sightings: seen.sightings, samples: seen.samples })
        });
        ledger.unfit = unfit.collect();
        ledger
    }
}
