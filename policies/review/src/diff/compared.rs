//! Two inputs compared: end by end where an end is in both, workload by workload where its pods are others.

use super::{
    Diff, Kind, Named, Party, Row,
    causes::Causes,
    members::{Is, Member, members},
};
use crate::{
    reach::{Reach, Unlike},
    sets::{SetId, Sets},
    universe::{End, EndId, Input, Nobody, Universe},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) fn compare(old: Input<'_>, new: Input<'_>) -> Diff {
    let universe = Universe::of(&[old, new]);
    let sets = Sets::default();
    let reaches = [Reach::new(&universe, 0, &sets), Reach::new(&universe, 1, &sets)];
    let (members, by_end) = members(&universe);
    let comparison = Comparison { universe: &universe, reaches: &reaches, sets: &sets, members: &members };
    let unlike = Unlike::of(&reaches[0], &reaches[1]);
    let mut causes = Causes::new(&universe, &reaches, &sets);
    let moved: Vec<usize> = (0..members.len()).filter(|number| members[*number].moved()).collect();
    let mut found = Vec::new();
    let mut deltas = Deltas { servers: vec![NOTHING; universe.len()], touched: Vec::new() };
    for from in 0..members.len() {
        let mut changes: BTreeMap<usize, [SetId; 2]> = BTreeMap::new();
        comparison.end_by_end(from, &unlike, &by_end, &mut deltas, &mut changes);
        match members[from].moved() {
            true => (0..members.len()).for_each(|to| comparison.as_whole(from, to, &mut changes)),
            false => moved.iter().for_each(|to| comparison.as_whole(from, *to, &mut changes)),
        }
        for (to, change) in changes {
            comparison.rows(from, to, change, &mut causes, &mut found);
        }
    }
    let incomplete = universe.incomplete().to_vec();
    let (parties, mut rows) = by_party(&universe, &members, found);
    // Workloads come first, in the members' order.
    let standing = members.iter().take_while(|member| matches!(member.is, Is::Workload(_)));
    let standing = standing.map(|member| member.ends.iter().all(|ends| !ends.is_empty())).collect();
    let (causes, because) = causes.finish();
    let mut order: Vec<u32> = (0..).take(parties.len()).collect();
    order.sort_by_key(|party| &parties[*party as usize]);
    let mut place = vec![0_u32; parties.len()];
    (0..).zip(&order).for_each(|(rank, party)| place[*party as usize] = rank);
    let by = |row: &Row| (row.kind, place[row.from as usize], place[row.to as usize], row.partial);
    rows.sort_by(|a, b| {
        let ports = || sets.get(a.ports).cmp(&sets.get(b.ports));
        by(a).cmp(&by(b)).then_with(ports).then_with(|| because[a.because as usize].cmp(&because[b.because as usize]))
    });
    drop(reaches);
    Diff {
        parties,
        standing,
        rows,
        causes,
        because,
        sets,
        incomplete,
        log: None,
        old: Named::default(),
        new: Named::default(),
    }
}

const NOTHING: [SetId; 2] = [SetId::NONE; 2];

/// What one client's end may open at each server's end only in NEW and only in OLD.
struct Deltas {
    servers: Vec<[SetId; 2]>,
    touched: Vec<EndId>,
}

/// A row between members; blocks are not joined yet.
struct Found {
    kind: Kind,
    from: usize,
    to: usize,
    ports: SetId,
    partial: bool,
    because: u32,
}

struct Comparison<'a, 'u, 'c> {
    universe: &'u Universe<'c>,
    reaches: &'a [Reach<'u, 'c>; 2],
    sets: &'u Sets,
    members: &'a [Member],
}

/// Over all pairs of ends of two members: what some pair may, and what every pair may.
#[derive(Clone, Copy)]
struct Reached {
    some: SetId,
    every: SetId,
}

impl Comparison<'_, '_, '_> {
    /// Adds what changed between ends that both members have in both inputs.
    fn end_by_end(
        &self,
        from: usize,
        unlike: &Unlike,
        by_end: &[Vec<u32>],
        deltas: &mut Deltas,
        changes: &mut BTreeMap<usize, [SetId; 2]>,
    ) {
        for client in &self.members[from].both {
            for server in unlike.at(*client) {
                let [opened, closed] = self.delta(*client, server);
                if [opened, closed] == NOTHING {
                    continue;
                }
                let so_far = &mut deltas.servers[server.index()];
                if *so_far == NOTHING {
                    deltas.touched.push(server);
                }
                *so_far = [self.sets.union(so_far[0], opened), self.sets.union(so_far[1], closed)];
            }
        }
        for server in deltas.touched.drain(..) {
            let [opened, closed] = std::mem::replace(&mut deltas.servers[server.index()], NOTHING);
            for to in &by_end[server.index()] {
                self.add(changes, *to as usize, [opened, closed]);
            }
        }
    }

    /// What is told of these ends as may pass only in NEW, and only in OLD. Nobody who is like pods that run tells
    /// only what these do not.
    fn delta(&self, from: EndId, to: EndId) -> [SetId; 2] {
        if !self.universe.could_meet(from, to) {
            return NOTHING;
        }
        let [mut opened, mut closed] = self.changed(from, to);
        let (clients, servers) = (self.like(from), self.like(to));
        let by_clients = clients.iter().map(|client| (*client, to));
        let by_servers = servers.iter().map(|server| (from, *server));
        let by_both = clients.iter().flat_map(|client| servers.iter().map(move |server| (*client, *server)));
        for (client, server) in by_clients.chain(by_servers).chain(by_both) {
            if [opened, closed] == NOTHING {
                break;
            }
            let told = self.changed(client, server);
            [opened, closed] = [self.sets.minus(opened, told[0]), self.sets.minus(closed, told[1])];
        }
        [opened, closed]
    }

    /// The pods that run and are like nobody.
    fn like(&self, end: EndId) -> &[EndId] {
        match self.universe.end(end) {
            End::Nobody(Nobody { like, .. }) => like,
            End::Pods(_) | End::Block(_) => &[],
        }
    }

    /// What may pass at these ends only in NEW, and only in OLD.
    fn changed(&self, from: EndId, to: EndId) -> [SetId; 2] {
        let [old, new] = [self.reaches[0].allowed(from, to), self.reaches[1].allowed(from, to)];
        [self.sets.minus(new, old), self.sets.minus(old, new)]
    }

    /// Adds what changed between two members of which one has other ends in NEW than in OLD.
    fn as_whole(&self, from: usize, to: usize, changes: &mut BTreeMap<usize, [SetId; 2]>) {
        if [from, to].iter().any(|number| matches!(self.members[*number].is, Is::Labels(..))) {
            return;
        }
        let [old, new] = [self.reached(0, from, to), self.reached(1, from, to)];
        let only = |a: Reached, b: Reached| {
            self.sets.union(self.sets.minus(a.some, b.some), self.sets.minus(a.every, b.every))
        };
        self.add(changes, to, [only(new, old), only(old, new)]);
    }

    fn add(&self, changes: &mut BTreeMap<usize, [SetId; 2]>, to: usize, more: [SetId; 2]) {
        if more != NOTHING {
            let all = changes.entry(to).or_insert(NOTHING);
            *all = [self.sets.union(all[0], more[0]), self.sets.union(all[1], more[1])];
        }
    }

    /// What the pods of one member may open at those of another.
    fn reached(&self, input: usize, from: usize, to: usize) -> Reached {
        let mut all: Option<Reached> = None;
        for client in &self.members[from].ends[input] {
            for server in &self.members[to].ends[input] {
                if !self.reaches[input].can_meet(*client, *server) || !self.universe.could_meet(*client, *server) {
                    continue;
                }
                let open = self.reaches[input].allowed(*client, *server);
                all = Some(all.map_or(Reached { some: open, every: open }, |all| Reached {
                    some: self.sets.union(all.some, open),
                    every: self.sets.intersection(all.every, open),
                }));
            }
        }
        all.unwrap_or(Reached { some: SetId::NONE, every: SetId::NONE })
    }

    /// The rows of a change, those for all pods apart from those for some.
    fn rows(
        &self,
        from: usize,
        to: usize,
        change: [SetId; 2],
        causes: &mut Causes<'_, '_, '_>,
        found: &mut Vec<Found>,
    ) {
        let [old, new] = [self.reached(0, from, to), self.reached(1, from, to)];
        for (kind, ports, before, after) in [(Kind::Opened, change[0], old, new), (Kind::Closed, change[1], new, old)] {
            if ports == SetId::NONE || self.is_told_elsewhere(kind, from, to) {
                continue;
            }
            let whole = self.sets.minus(self.sets.intersection(ports, after.every), before.some);
            for (ports, partial) in [(whole, false), (self.sets.minus(ports, whole), true)] {
                if ports != SetId::NONE {
                    let because = causes.of(&self.members[from], &self.members[to], kind, ports);
                    found.push(Found { kind, from, to, ports, partial, because });
                }
            }
        }
    }

    /// Labels that only a new workload has (or only one that is gone): its own rows tell what opens (or closes).
    fn is_told_elsewhere(&self, kind: Kind, from: usize, to: usize) -> bool {
        let input = if kind == Kind::Opened { 1 } else { 0 };
        let by_workload = |number: usize| match &self.members[number].is {
            Is::Labels(_, alone) => alone[input].then_some(true),
            Is::Workload(_) | Is::Block => Some(false),
        };
        matches!((by_workload(from), by_workload(to)), (Some(a), Some(b)) if a || b)
    }
}

/// Kind, whether the block is the client, the other end, ports, whether partial, causes.
type AllButTheBlock = (Kind, bool, u32, SetId, bool, u32);

/// Rows by party: blocks of addresses of which the same is said are one.
fn by_party(universe: &Universe<'_>, members: &[Member], found: Vec<Found>) -> (Vec<Party>, Vec<Row>) {
    let mut parties = Parties::default();
    let numbers: Vec<Option<u32>> = members
        .iter()
        .map(|member| match &member.is {
            Is::Workload(key) => Some(parties.number(Party::Workload(key.clone()))),
            Is::Labels(party, _) => Some(parties.number(party.clone())),
            Is::Block => None,
        })
        .collect();
    let mut rows = Vec::with_capacity(found.len());
    let mut blocks: BTreeMap<AllButTheBlock, BTreeSet<EndId>> = BTreeMap::new();
    for Found { kind, from, to, ports, partial, because } in found {
        match (numbers[from], numbers[to]) {
            (Some(from), Some(to)) => rows.push(Row { kind, from, to, ports, partial, because }),
            (None, Some(to)) => {
                blocks.entry((kind, true, to, ports, partial, because)).or_default().extend(&members[from].both);
            }
            (Some(from), None) => {
                blocks.entry((kind, false, from, ports, partial, because)).or_default().extend(&members[to].both);
            }
            // Two addresses outside have no connection that policies speak of.
            (None, None) => {}
        }
    }
    for ((kind, is_client, other, ports, partial, because), ends) in blocks {
        let block = parties.number(Party::Outside(universe.cidrs(ends)));
        let (from, to) = if is_client { (block, other) } else { (other, block) };
        rows.push(Row { kind, from, to, ports, partial, because });
    }
    (parties.list, rows)
}

#[derive(Default)]
struct Parties {
    list: Vec<Party>,
    numbers: HashMap<Party, u32>,
}

impl Parties {
    fn number(&mut self, party: Party) -> u32 {
        if let Some(known) = self.numbers.get(&party) {
            return *known;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(party.clone());
        self.numbers.insert(party, number);
        number
    }
}
