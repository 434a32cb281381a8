//! What is allowed and was never seen, ranked by what it would give an attacker.

use super::ranking::{Graph, Rank};
use crate::{Allowed, Direction, End, EndId, Input, Reach, SetId, Sets, Universe};
use ipnet::IpNet;
use model::{cluster::WorkloadKey, ledger::Party};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Where the attacker starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Addresses outside, as some workload lets them in.
    Outside,
    /// The workload that the most others may open connections to, as nothing lets the outside in.
    Workload(WorkloadKey),
    /// There is no workload.
    Nobody,
}

/// An edge that is allowed, as far as it was never seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnseenEdge {
    /// Who may open it; `None`: addresses outside, see `cidrs`.
    pub from: Option<Arc<WorkloadKey>>,
    /// To whom; `None`: addresses outside.
    pub to: Option<Arc<WorkloadKey>>,
    /// The addresses, the fewest blocks; empty between workloads.
    pub cidrs: Vec<IpNet>,
    /// The ports that are allowed and were never seen.
    pub allowed: Arc<Allowed>,
    /// Other ports between the two were seen.
    pub is_used_otherwise: bool,
    /// Workloads that an attacker could no longer get to were it closed.
    pub closes: usize,
    /// Workloads it adds to those that the used edges lead to.
    pub adds: usize,
}

/// All of them, and what the ranking stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The worst first.
    pub edges: Vec<UnseenEdge>,
    /// Where the attacker starts.
    pub start: Start,
    /// How many workloads there are.
    pub workloads: usize,
    /// How many of them an attacker gets to over what is allowed.
    pub reachable: usize,
    /// How many over what was used alone.
    pub reachable_used: usize,
    /// Workloads on the host network: a log shows their node, so that nobody knows what they used.
    pub left_out: Vec<WorkloadKey>,
}

/// A workload by its index, or the outside.
const OUTSIDE: usize = 0;

/// What the input's policies allow beyond `used`.
pub(super) fn unseen(input: Input<'_>, used: &BTreeMap<(Party, Party), Allowed>) -> Unseen {
    let universe = Universe::of(&[input]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let is_host =
        |ends: &[EndId]| ends.iter().all(|end| matches!(universe.end(*end), End::Pods(class) if class.host_network));
    let (left_out, asked): (Vec<_>, Vec<_>) = universe.workloads(0).iter().partition(|(_, ends)| is_host(ends));
    let workloads: Vec<(&WorkloadKey, &Vec<EndId>)> = asked;
    // Places: each workload its own, and each block of addresses.
    let places: Vec<&[EndId]> = workloads.iter().map(|(_, ends)| ends.as_slice()).collect();
    let blocks: Vec<EndId> = universe.blocks().to_vec();
    let seen = seen(&universe, &workloads, used);

    let mut allowed_graph = Graph::new(workloads.len() + 1);
    let mut used_graph = Graph::new(workloads.len() + 1);
    let mut between: Vec<(usize, usize, SetId, bool)> = Vec::new();
    // Of one workload and direction, blocks of which the same is said.
    let mut outside: BTreeMap<(usize, Direction, SetId, bool), Vec<EndId>> = BTreeMap::new();
    let seen_set = |from: Place, to: Place| seen.get(&(from, to)).map_or(SetId::NONE, |set| sets.id(set.clone()));
    for (from, ends) in places.iter().enumerate() {
        let row = union_of_rows(&reach, ends);
        for (to, ends) in places.iter().enumerate() {
            let allowed = ends.iter().fold(SetId::NONE, |all, end| sets.union(all, row[end.index()]));
            let used = sets.intersection(allowed, seen_set(Place::Workload(from), Place::Workload(to)));
            if allowed != SetId::NONE {
                allowed_graph.add(from + 1, to + 1);
            }
            if used != SetId::NONE {
                used_graph.add(from + 1, to + 1);
            }
            let left = sets.minus(allowed, used);
            if left != SetId::NONE {
                between.push((from, to, left, used != SetId::NONE));
            }
        }
        for block in &blocks {
            let allowed = row[block.index()];
            let used = sets.intersection(allowed, seen_set(Place::Workload(from), Place::Block(*block)));
            let left = sets.minus(allowed, used);
            if left != SetId::NONE {
                outside.entry((from, Direction::Egress, left, used != SetId::NONE)).or_default().push(*block);
            }
        }
    }
    for block in &blocks {
        let row = reach.row(*block);
        for (to, ends) in places.iter().enumerate() {
            let allowed = ends.iter().fold(SetId::NONE, |all, end| sets.union(all, row[end.index()]));
            let used = sets.intersection(allowed, seen_set(Place::Block(*block), Place::Workload(to)));
            if allowed != SetId::NONE {
                allowed_graph.add(OUTSIDE, to + 1);
            }
            if used != SetId::NONE {
                used_graph.add(OUTSIDE, to + 1);
            }
            let left = sets.minus(allowed, used);
            if left != SetId::NONE {
                outside.entry((to, Direction::Ingress, left, used != SetId::NONE)).or_default().push(*block);
            }
        }
    }

    let (start, at) = start(&allowed_graph, &workloads);
    let rank = Rank::new(&allowed_graph, &used_graph, at);
    // A cluster without policies has an edge between any two workloads: names and sets are shared.
    let names: Vec<Arc<WorkloadKey>> = workloads.iter().map(|(key, _)| Arc::new((*key).clone())).collect();
    let mut known: HashMap<SetId, Arc<Allowed>> = HashMap::new();
    let mut ports = |set: SetId| known.entry(set).or_insert_with(|| Arc::new(sets.get(set))).clone();
    let mut edges = Vec::with_capacity(between.len() + outside.len());
    for (from, to, left, is_used_otherwise) in between {
        let (closes, adds) = rank.of(from + 1, to + 1, is_used_otherwise);
        let (from, to) = (Some(names[from].clone()), Some(names[to].clone()));
        let allowed = ports(left);
        edges.push(UnseenEdge { from, to, cidrs: Vec::new(), allowed, is_used_otherwise, closes, adds });
    }
    let mut ways_in = vec![0; workloads.len()];
    outside.keys().filter(|key| key.1 == Direction::Ingress).for_each(|key| ways_in[key.0] += 1);
    for ((workload, direction, left, is_used_otherwise), blocks) in outside {
        let key = Some(names[workload].clone());
        let (closes, adds, from, to) = match direction {
            Direction::Egress => (0, 0, key, None),
            Direction::Ingress => {
                let is_used = used_graph.has(OUTSIDE, workload + 1);
                let (closes, adds) = rank.of(OUTSIDE, workload + 1, is_used);
                // Closing one of several ways in takes nobody away.
                (if ways_in[workload] == 1 { closes } else { 0 }, adds, None, key)
            }
        };
        let (cidrs, allowed) = (universe.cidrs(blocks), ports(left));
        edges.push(UnseenEdge { from, to, cidrs, allowed, is_used_otherwise, closes, adds });
    }
    edges.sort_by(|a, b| {
        let worst = |edge: &UnseenEdge| (edge.closes, edge.adds, !edge.is_used_otherwise, width(&edge.allowed));
        worst(b).cmp(&worst(a)).then_with(|| (&a.from, &a.to, &a.cidrs).cmp(&(&b.from, &b.to, &b.cidrs)))
    });
    Unseen {
        edges,
        start,
        workloads: workloads.len(),
        reachable: rank.reachable(),
        reachable_used: rank.reachable_used(),
        left_out: left_out.into_iter().map(|(key, _)| key.clone()).collect(),
    }
}

/// How many ports of all protocols.
fn width(allowed: &Allowed) -> u32 {
    let ports = allowed.by_protocol().flat_map(|(_, ports)| ports);
    ports.map(|(first, last)| u32::from(*last) - u32::from(*first) + 1).sum()
}

/// The outside if it gets in anywhere, else whom the most others may call, the first by name of several.
fn start(allowed: &Graph, workloads: &[(&WorkloadKey, &Vec<EndId>)]) -> (Start, usize) {
    if allowed.leads_anywhere(OUTSIDE) {
        return (Start::Outside, OUTSIDE);
    }
    let callers = allowed.callers();
    let most = (0..workloads.len()).max_by_key(|at| (callers[at + 1], std::cmp::Reverse(*at)));
    most.map_or((Start::Nobody, OUTSIDE), |at| (Start::Workload(workloads[at].0.clone()), at + 1))
}

fn union_of_rows(reach: &Reach<'_, '_>, ends: &[EndId]) -> Vec<SetId> {
    let mut rows = ends.iter().map(|end| reach.row(*end));
    let Some(mut all) = rows.next() else { return vec![SetId::NONE; reach.universe().len()] };
    for row in rows {
        for (sum, more) in all.iter_mut().zip(row) {
            *sum = reach.sets().union(*sum, more);
        }
    }
    all
}

/// A workload by its index here, or a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Workload(usize),
    Block(EndId),
}

/// What was used between places of the universe.
fn seen(
    universe: &Universe<'_>,
    workloads: &[(&WorkloadKey, &Vec<EndId>)],
    used: &BTreeMap<(Party, Party), Allowed>,
) -> BTreeMap<(Place, Place), Allowed> {
    let place = |party: &Party| match party {
        Party::Workload(key) => workloads.binary_search_by(|(known, _)| (*known).cmp(&**key)).ok().map(Place::Workload),
        Party::Node(ip) | Party::Outside(ip) => Some(Place::Block(universe.block_at(*ip))),
    };
    let mut all: BTreeMap<(Place, Place), Allowed> = BTreeMap::new();
    for ((client, server), ports) in used {
        if let (Some(client), Some(server)) = (place(client), place(server)) {
            let sum = all.entry((client, server)).or_default();
            *sum = sum.union(ports);
        }
    }
    all
}

impl Unseen {
    /// How it is ranked, in a line.
    pub fn explained(&self) -> String {
        let start = match &self.start {
            Start::Outside => "from outside".to_owned(),
            Start::Workload(key) => format!("from {key}, which the most others may call (nothing lets the outside in)"),
            Start::Nobody => return "there is no workload to get to".to_owned(),
        };
        format!(
            "an attacker {start} gets to {} of {} workloads over what is allowed, to {} over what was used; ranked by how \
             many workloads closing the edge takes away, then by how many it adds to what was used",
            self.reachable, self.workloads, self.reachable_used
        )
    }
}
