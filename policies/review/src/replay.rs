//! What policies would have done to recorded flows, and what they allow that nobody used.
//!
//! Always holds: the answer about a flow is the reference evaluator's, for the pods that held the
//! addresses when the flow was seen; a flow that cannot be asked about is counted with its reason and
//! is neither allowed nor denied; no order of rows changes an answer, and memory goes by pairs of pods,
//! not by flows.

mod json;
mod judged;
mod ranking;
mod text;
mod unseen;

pub use unseen::{Start, Unseen, UnseenEdge};

use crate::{
    Allowed, Input,
    missing::Missing,
    why::{PolicyPlace, policy_place},
};
use model::{
    cluster::{ServicesElsewhere, WorkloadKey},
    ledger::{self, Edge, Party, Unfit},
    policy::{PolicySet, Protocol},
    record::{End, FlowRecord, ObservedAt, UnixNanos},
    reference::Judgement,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// So many flow ids are kept of a row.
const SAMPLES: usize = 3;

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It passed, and would be denied.
    NewlyDenied,
    /// It was denied (or would have been, had the mode been enforce), and would pass.
    NewlyAllowed,
    /// It was denied, and stays so.
    StillDenied,
    /// It passed, and passes.
    StillAllowed,
}

impl Change {
    /// Every change, the worst first.
    pub const ALL: [Self; 4] = [Self::NewlyDenied, Self::NewlyAllowed, Self::StillDenied, Self::StillAllowed];

    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewlyDenied => "newly-denied",
            Self::NewlyAllowed => "newly-allowed",
            Self::StillDenied => "still-denied",
            Self::StillAllowed => "still-allowed",
        }
    }
}

/// An end of recorded flows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Pods of a workload.
    Workload(Arc<WorkloadKey>),
    /// A node's address.
    Node(IpAddr),
    /// An address outside.
    Outside(IpAddr),
    /// Clients outside, taken together where the same is said of all.
    Clients,
}

/// Flows between the same ends at the same port, of which the same is said for the same reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What becomes of them.
    pub change: Change,
    /// Whether any of them was answered; what was not is not in use.
    pub is_answered: bool,
    /// Who opened them.
    pub client: Who,
    /// Addresses of clients outside: the first few, and how many there are.
    pub clients: (Vec<IpAddr>, usize),
    /// Who was called.
    pub server: Who,
    /// The protocol.
    pub protocol: Protocol,
    /// The server's port.
    pub port: u16,
    /// How many began in the log; 0 where all are older than it.
    pub flows: u64,
    /// First packet.
    pub first_seen: UnixNanos,
    /// Last packet.
    pub last_seen: UnixNanos,
    /// Ids of a few of them.
    pub samples: Vec<String>,
    /// The client's side.
    pub egress: Judgement,
    /// The server's side.
    pub ingress: Judgement,
    /// The sides that deny.
    pub denied: Vec<DeniedSide>,
}

/// A side that denies, whose it is, and what it lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct DeniedSide {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// Whose side it is.
    pub owner: Arc<WorkloadKey>,
    /// The policies that isolate it.
    pub policies: Vec<PolicyPlace>,
    /// Which of [`Replayed::missing`] would open it.
    pub missing: Option<usize>,
    /// Why no rule can be proposed.
    pub no_rule: Option<String>,
}

/// Flows about which the policies cannot be asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotAsked {
    /// How many.
    pub flows: u64,
    /// A few of the edges, as far as they are known.
    pub edges: BTreeSet<String>,
    /// Ids of a few.
    pub samples: Vec<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// In order: the worst first, answered before unanswered, then by ends and port.
    pub rows: Vec<Row>,
    /// What would have to be added for what is newly denied, each once.
    pub missing: Vec<Missing>,
    /// By reason.
    pub not_asked: BTreeMap<&'static str, NotAsked>,
    /// What is allowed and was never seen.
    pub unseen: Unseen,
}

impl Replayed {
    /// The rows of one change that were answered or not.
    pub fn of(&self, change: Change, is_answered: bool) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.change == change && row.is_answered == is_answered)
    }

    /// Flows of one change, answered or not.
    pub fn flows(&self, change: Change) -> u64 {
        self.rows.iter().filter(|row| row.change == change).map(|row| row.flows).sum()
    }

    /// The policies with everything that is missing.
    pub fn with_missing(&self, policies: &PolicySet) -> PolicySet {
        let mut all = policies.clone();
        self.missing.iter().for_each(|one| one.add_to(&mut all));
        all
    }
}

/// Takes rows of a flow log one by one, and answers at the end.
pub struct Replay<'c> {
    input: Input<'c>,
    pairs: BTreeMap<Pair, Counters>,
    not_asked: BTreeMap<&'static str, NotAsked>,
    elsewhere: ServicesElsewhere,
}

/// Two pods or addresses at a port: the policies are asked once about all flows between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    edge: Edge,
    client: At,
    server: At,
    was_denied: bool,
}

/// The pod, if it was one, and its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    pod_uid: Option<Arc<str>>,
    address: IpAddr,
}

#[derive(Clone, Debug)]
struct Counters {
    /// Flows that began, as their server saw them, and as their client did: the same flows.
    flows: [u64; 2],
    first_seen: UnixNanos,
    last_seen: UnixNanos,
    is_answered: bool,
    seen_at_server: bool,
    samples: BTreeSet<String>,
}

impl<'c> Replay<'c> {
    /// For the policies of an input, over its pods.
    pub fn new(input: Input<'c>) -> Self {
        let elsewhere = input.cluster.services_elsewhere();
        Self { input, pairs: BTreeMap::new(), not_asked: BTreeMap::new(), elsewhere }
    }

    /// One row of the log: a slice of a flow.
    pub fn add(&mut self, record: &FlowRecord) {
        let was_denied = match ledger::denial(record) {
            // What was staged passed all the same.
            None | Some(Unfit::StagedDenied) => false,
            Some(Unfit::Denied) => true,
            Some(otherwise) => return self.leave_out(otherwise, None, record),
        };
        match ledger::asked_edge(record) {
            Err((reason, edge)) => self.leave_out(reason, edge.as_ref(), record),
            Ok(edge) => {
                let at = |end: &End| At { pod_uid: end.pod_uid.clone(), address: end.ip };
                let (client, server) = (at(&record.client), at(&record.server));
                // Whatever is behind a Service may be meant the next time.
                for edge in self.elsewhere.behind(&edge).unwrap_or_else(|| vec![edge]) {
                    let server = match &edge.server {
                        Party::Outside(ip) | Party::Node(ip) => At { address: *ip, ..server.clone() },
                        Party::Workload(_) => server.clone(),
                    };
                    self.count(Pair { edge, client: client.clone(), server, was_denied }, record);
                }
            }
        }
    }

    fn count(&mut self, pair: Pair, record: &FlowRecord) {
        let event = &record.event;
        let counters = self.pairs.entry(pair).or_insert_with(|| Counters {
            flows: [0, 0],
            first_seen: event.start,
            last_seen: event.end,
            is_answered: false,
            seen_at_server: false,
            samples: BTreeSet::new(),
        });
        let is_clients_view = event.observed_at == ObservedAt::Client;
        // A denied attempt is a row of its own each time.
        let begins = ledger::is_first_slice(record);
        counters.flows[usize::from(is_clients_view)] += u64::from(begins);
        counters.first_seen = counters.first_seen.min(event.start);
        counters.last_seen = counters.last_seen.max(event.end.max(event.start));
        counters.is_answered |= ledger::is_answered(record);
        counters.seen_at_server |= !is_clients_view;
        counters.samples.insert(record.flow_id.clone());
        while counters.samples.len() > SAMPLES {
            counters.samples.pop_last();
        }
    }

    fn leave_out(&mut self, reason: Unfit, edge: Option<&Edge>, record: &FlowRecord) {
        let edge = edge.map(judged::edge_text).unwrap_or_default();
        self.leave_out_flows(reason.meaning(), edge, u64::from(ledger::is_first_slice(record)), [&record.flow_id]);
    }

    fn leave_out_flows<'s>(
        &mut self,
        reason: &'static str,
        edge: String,
        flows: u64,
        samples: impl IntoIterator<Item = &'s String>,
    ) {
        let all = self.not_asked.entry(reason).or_default();
        all.flows += flows;
        if !edge.is_empty() {
            all.edges.insert(edge);
        }
        while all.edges.len() > SAMPLES {
            all.edges.pop_last();
        }
        all.samples.extend(samples.into_iter().cloned());
        all.samples.sort_unstable();
        all.samples.dedup();
        all.samples.truncate(SAMPLES);
    }

    /// What the policies say about all of it.
    pub fn finish(mut self) -> Replayed {
        self.fold_attempts();
        let used = self.used();
        let unseen = unseen::unseen(self.input, &used);
        let (rows, missing) = judged::rows(&mut self);
        Replayed { rows, missing, not_asked: self.not_asked, unseen }
    }

    /// A client's hook lets pass what its server's then denies: one attempt, seen twice.
    fn fold_attempts(&mut self) {
        let only_asked = |counters: &Counters| !counters.is_answered && !counters.seen_at_server;
        let tried: Vec<Pair> = self
            .pairs
            .iter()
            .filter(|(pair, counters)| !pair.was_denied && only_asked(counters))
            .map(|(pair, _)| pair.clone())
            .filter(|pair| self.pairs.contains_key(&Pair { was_denied: true, ..pair.clone() }))
            .collect();
        for pair in tried {
            self.pairs.remove(&pair);
        }
    }

    /// What was in use: passed and answered.
    fn used(&self) -> BTreeMap<(Party, Party), Allowed> {
        let mut used: BTreeMap<(Party, Party), Allowed> = BTreeMap::new();
        for (pair, _) in self.pairs.iter().filter(|(pair, counters)| !pair.was_denied && counters.is_answered) {
            let Some(protocol) = Protocol::from_number(pair.edge.protocol) else { continue };
            let port = Allowed::of(protocol, vec![(pair.edge.port, pair.edge.port)]);
            let all = used.entry((pair.edge.client.clone(), pair.edge.server.clone())).or_default();
            *all = all.union(&port);
        }
        used
    }
}

/// All rows of a log at once.
pub fn replay<'r>(input: Input<'_>, records: impl IntoIterator<Item = &'r FlowRecord>) -> Replayed {
    let mut replay = Replay::new(input);
    records.into_iter().for_each(|record| replay.add(record));
    replay.finish()
}

/// The place of a policy by its `namespace/name`.
fn place_of(input: Input<'_>, name: &str) -> PolicyPlace {
    let found = name.split_once('/').and_then(|(namespace, name)| input.policies.get(namespace, name));
    found.map_or_else(|| PolicyPlace { name: name.to_owned(), source: None }, policy_place)
}
