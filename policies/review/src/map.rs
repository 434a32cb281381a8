//! The whole map: who may open a connection to whom, as rows, and who else could.
//!
//! Always holds: rows are in one order; no two rows have the same two ends; a row of a workload is the
//! union over its pods, and `partial` where these differ; addresses outside stand in the fewest blocks
//! for each workload and set of ports. What is computed is kept by groups of pods that are treated
//! alike; rows are made one by one when they are asked for.

mod build;
mod chosen;
mod document;
mod drawing;
mod matrix;
mod nobody;
mod notes;
mod outside;
mod table;

pub use chosen::Filter;

use crate::{SetId, Sets};
use ipnet::IpNet;
use model::cluster::WorkloadKey;
use std::{collections::HashSet, fmt};

/// Whose rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// A row for each two workloads.
    #[default]
    Workload,
    /// A row for each two pods.
    Pod,
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose.
    pub by: By,
    /// Only from here.
    pub from: Option<Filter>,
    /// Only to there.
    pub to: Option<Filter>,
    /// Also who else could connect: pods with labels that nobody has yet.
    pub exposure: bool,
    /// Addresses outside as blocks that no two rows share in part, each with all addresses that are
    /// treated alike: for a truth table.
    pub disjoint: bool,
}

/// A party's number in its [`Map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartyId(u32);

impl PartyId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who stands at an end of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A workload, or a pod: its kind is then `Pod`.
    Pods(WorkloadKey),
    /// Addresses that no pod of the input has; one block, several where they are disjoint.
    Outside(Vec<IpNet>),
    /// Pods that nobody runs yet.
    Nobody(Newcomers),
}

/// Pods that nobody runs yet, as far as policies tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Newcomers {
    /// With any labels that nobody has yet, in any namespace.
    Anywhere,
    /// In a namespace of the input.
    In {
        /// Its name.
        namespace: String,
        /// Their labels; `None`: any that nobody has there yet.
        pods: Option<String>,
    },
    /// In namespaces that do not exist yet.
    New {
        /// The labels of these namespaces.
        namespaces: String,
        /// The labels of the pods; `None`: any.
        pods: Option<String>,
    },
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = |pods: &Option<String>| match pods {
            None => "any new pod".to_owned(),
            Some(labels) => format!("new pods with {labels}"),
        };
        match self {
            Self::Pods(key) => key.fmt(f),
            Self::Outside(nets) => f.pad(&nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            Self::Nobody(Newcomers::Anywhere) => f.pad("(any new pod)"),
            Self::Nobody(Newcomers::In { namespace, pods: labels }) => {
                f.pad(&format!("({} in {namespace})", pods(labels)))
            }
            Self::Nobody(Newcomers::New { namespaces, pods: labels }) => {
                f.pad(&format!("({} in new namespaces with {namespaces})", pods(labels)))
            }
        }
    }
}

/// What may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Open {
    /// By some pod of the one end at some pod of the other.
    pub allowed: SetId,
    /// Not by all at all: pods differ, or the addresses of one.
    pub partial: bool,
}

impl Open {
    const NOTHING: Self = Self { allowed: SetId::NONE, partial: false };

    /// The union of what pairs of ends may, no pair: nothing.
    fn of(sets: &Sets, mut pairs: impl Iterator<Item = SetId>) -> Self {
        let Some(first) = pairs.next() else { return Self::NOTHING };
        pairs.fold(Self { allowed: first, partial: false }, |open, set| Self {
            allowed: sets.union(open.allowed, set),
            partial: open.partial || set != open.allowed,
        })
    }
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The client.
    pub from: PartyId,
    /// The server.
    pub to: PartyId,
    /// What it may open there; never nothing.
    pub open: Open,
}

/// All rows.
pub struct Map<'u> {
    sets: &'u Sets,
    /// In the order of rows: pods, then addresses, then nobody.
    parties: Vec<Party>,
    /// Which of them no policy selects.
    host_network: Vec<PartyId>,
    /// Who has rows, in order.
    clients: Vec<Client>,
    /// Every server that was asked about, by its group of pods that are treated alike, in order.
    servers: Vec<Vec<PartyId>>,
    /// What clients may open; clients of one group share theirs.
    targets: Vec<Targets>,
    /// Who was asked about on each side: clients, servers.
    asked: [Asked; 2],
    notes: Vec<String>,
}

/// Whom rows of a side are about.
#[derive(Clone, Debug, Default)]
struct Asked {
    pods: HashSet<PartyId>,
    outside: bool,
    newcomers: bool,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    party: PartyId,
    /// Index into [`Map::targets`].
    targets: usize,
}

/// What a client may open, and where.
#[derive(Clone, Debug, Default)]
struct Targets {
    /// At groups of servers.
    groups: Vec<(usize, Open)>,
    /// At addresses and at nobody, in order.
    others: Vec<(PartyId, Open)>,
}

impl Map<'_> {
    /// Who stands behind a number.
    pub fn party(&self, id: PartyId) -> &Party {
        &self.parties[id.index()]
    }

    /// The numbers of all parties, those without rows too, in order.
    pub fn parties(&self) -> impl Iterator<Item = PartyId> + use<> {
        (0..u32::try_from(self.parties.len()).unwrap_or(u32::MAX)).map(PartyId)
    }

    /// Pods of the host network: no policy selects them.
    pub fn host_network(&self) -> &[PartyId] {
        &self.host_network
    }

    /// What the API leaves open, and what podfence does; what was left out.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Calls `each` with every row, in order, up to its first error.
    pub fn for_each<E>(&self, mut each: impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
        let mut known: Option<(usize, Vec<(PartyId, Open)>)> = None;
        for Client { party: from, targets } in &self.clients {
            let known = match &mut known {
                Some((of, rows)) if of == targets => rows,
                other => &mut other.insert((*targets, self.expanded(*targets))).1,
            };
            let is_pod = matches!(self.party(*from), Party::Pods(key) if key.kind == "Pod");
            for (to, open) in known.iter() {
                // A workload to itself is one pod of it to another; a pod is no other.
                if !(is_pod && from == to) {
                    each(Row { from: *from, to: *to, open: *open })?;
                }
            }
        }
        Ok(())
    }

    /// What a client may open at each party, in order.
    fn expanded(&self, targets: usize) -> Vec<(PartyId, Open)> {
        let Targets { groups, others } = &self.targets[targets];
        let pods = groups.iter().flat_map(|(group, open)| self.servers[*group].iter().map(|to| (*to, *open)));
        let mut all: Vec<(PartyId, Open)> = pods.collect();
        all.sort_unstable_by_key(|(to, _)| *to);
        all.extend(others);
        all
    }
}
