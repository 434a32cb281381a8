//! Who is compared: workloads, address blocks, and labels that no pod has in both inputs.

use super::{Namespaces, Party};
use crate::universe::{End, EndId, Nobody, PodClass, Universe, Where};
use model::cluster::WorkloadKey;
use std::collections::BTreeMap;

/// One who is compared.
pub(crate) struct Member {
    pub(crate) is: Is,
    /// By input; none where it is not there.
    pub(crate) ends: [Vec<EndId>; 2],
    /// The ends it has in both.
    pub(crate) both: Vec<EndId>,
}

/// What a member is.
pub(crate) enum Is {
    Workload(WorkloadKey),
    Block,
    /// Labels that no pod has in both inputs, with the inputs in which a workload that is only there has them.
    Labels(Party, [bool; 2]),
}

impl Member {
    /// Whether its pods are others in NEW than in OLD, or in one of them only.
    pub(crate) fn moved(&self) -> bool {
        self.ends[0] != self.ends[1]
    }
}

/// All members, workloads first, then blocks, then labels; and by end the members that have it in both inputs.
pub(crate) fn members(universe: &Universe<'_>) -> (Vec<Member>, Vec<Vec<u32>>) {
    let mut workloads: BTreeMap<&WorkloadKey, [Vec<EndId>; 2]> = BTreeMap::new();
    for input in 0..2 {
        for (key, ends) in universe.workloads(input) {
            workloads.entry(key).or_default()[input].clone_from(ends);
        }
    }
    let mut members: Vec<Member> = Vec::with_capacity(workloads.len());
    let mut told = vec![false; universe.len()];
    // Ends of workloads that are in one input alone.
    let mut alone = vec![[false; 2]; universe.len()];
    for (key, ends) in workloads {
        let both: Vec<EndId> = ends[0].iter().filter(|end| ends[1].contains(end)).copied().collect();
        both.iter().for_each(|end| told[end.index()] = true);
        for input in 0..2 {
            if ends[1 - input].is_empty() {
                ends[input].iter().for_each(|end| alone[end.index()][input] = true);
            }
        }
        members.push(Member { is: Is::Workload(key.clone()), ends, both });
    }
    for block in universe.blocks() {
        members.push(Member { is: Is::Block, ends: [vec![*block], vec![*block]], both: vec![*block] });
    }
    let mut labels: BTreeMap<Party, (Vec<EndId>, [bool; 2])> = BTreeMap::new();
    for (id, end) in universe.ends().filter(|(id, _)| !told[id.index()]) {
        let Some(party) = nobody(universe, end) else { continue };
        let entry = labels.entry(party).or_insert_with(|| (Vec::new(), [true; 2]));
        entry.0.push(id);
        (0..2).for_each(|input| entry.1[input] &= alone[id.index()][input]);
    }
    for (party, (ends, alone)) in labels {
        members.push(Member { is: Is::Labels(party, alone), ends: [ends.clone(), ends.clone()], both: ends });
    }
    let mut by_end: Vec<Vec<u32>> = vec![Vec::new(); universe.len()];
    for (number, member) in (0..).zip(&members) {
        member.both.iter().for_each(|end| by_end[end.index()].push(number));
    }
    (members, by_end)
}

/// An end that no workload has in both inputs, as labels; blocks and the host network are addresses.
fn nobody(universe: &Universe<'_>, end: &End) -> Option<Party> {
    match end {
        End::Block(_) => None,
        End::Pods(class) if class.host_network => None,
        End::Pods(class) => Some(Party::Nobody {
            namespace: Namespaces::Named(class.namespace.clone()),
            pods: described(class),
            at: class.atom.map_or_else(Vec::new, |atom| universe.cidrs_of(atom)),
        }),
        End::Nobody(Nobody { namespace, described, .. }) => Some(Party::Nobody {
            namespace: match namespace {
                Where::Existing(name) => Namespaces::Named(name.clone()),
                Where::New { described, .. } => Namespaces::New(told(described)),
            },
            pods: told(described),
            at: Vec::new(),
        }),
    }
}

/// Nothing where no selector names the labels.
fn told(described: &str) -> Option<String> {
    (!described.starts_with("any other")).then(|| described.to_owned())
}

fn described(class: &PodClass) -> Option<String> {
    let labels = class.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let ports = class.ports.iter().map(|(name, _, port)| format!("{name}={port}")).collect::<Vec<_>>().join(",");
    match (labels.is_empty(), ports.is_empty()) {
        (true, true) => None,
        (false, true) => Some(labels),
        (true, false) => Some(format!("ports {ports}")),
        (false, false) => Some(format!("{labels} and ports {ports}")),
    }
}
