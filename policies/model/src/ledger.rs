//! Edges and the ledger that counts them (laws 10 and 13).

use crate::{
    cluster::WorkloadKey,
    policy::Protocol,
    record::{DirectionRule, End, EndReason, Entity, FlowEvent, FlowRecord, FlowVerdict, ObservedAt, UnixNanos},
};
use flow::{ParseError, tcp};
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

/// What was seen of an edge in one slice by one observer.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeCounters {
    /// Flows (not slices of flows).
    pub flows: u64,
    /// First packet.
    pub first_seen: UnixNanos,
    /// Last packet.
    pub last_seen: UnixNanos,
    /// Up to eight flow ids, the smallest ones, so that the sample does not depend on the order.
    pub samples: Vec<String>,
    /// The surest way in which direction became known.
    pub direction_rule: DirectionRule,
    /// All flows were older than their observer: adopted by the kernel program, or under way when a capture began.
    pub adopted_only: bool,
    /// Node names that saw it.
    pub nodes: Vec<Arc<str>>,
}

/// Why a flow feeds no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// Direction not known (law 13).
    DirectionUnknown,
    /// A TCP opening without its handshake (law 13).
    HandshakeNotSeen,
    /// Policy in force denied it (law 13).
    Denied,
    /// Staged policy denied it (law 13).
    StagedDenied,
    /// One end is unknown.
    Unattributed,
    /// NetworkPolicy cannot express it (a ping, say).
    Inexpressible,
    /// Neither end is a pod.
    NoPod,
    /// The same flow as the server's row, seen at the client.
    SeenAtServer,
    /// Denied, but not by policy: spoofed, unreadable, not ready, a full table.
    DeniedOtherwise,
    /// A pod to itself or its own node to it: passes whatever the policies say, and needs no rule.
    Exempt,
}

/// Why a flow that fed no rule did not, with how often and samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnfitCounters {
    /// Flows.
    pub flows: u64,
    /// Up to eight flow ids, the smallest ones.
    pub samples: Vec<String>,
}

/// (observer instance, slice start, edge) -> counters. Merging takes the larger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Edges that may become rules.
    pub edges: BTreeMap<(Arc<str>, UnixNanos, Edge), EdgeCounters>,
    /// Flows that may not: reason and the edge as far as it is known (`None`: an end is unknown).
    pub unfit: BTreeMap<(Unfit, Option<Edge>), UnfitCounters>,
}

impl Ledger {
    /// Counts one row of the flow log. `instance` names the observer (node and start).
    ///
    /// A flow is counted with its first slice; later slices only extend when the edge was seen. So
    /// `flows` is 0 where an edge is known in a time slice only from a flow that began earlier.
    pub fn add(&mut self, instance: &Arc<str>, record: &FlowRecord) {
        match fitness(record) {
            Ok(edge) => {
                let key = (instance.clone(), slice_of(record.event.start), edge);
                let seen = counters(record);
                self.edges.entry(key).and_modify(|all| all.add(&seen)).or_insert(seen);
            }
            Err((reason, edge)) => {
                if counts_as_unfit(reason, record) {
                    let all = self.unfit.entry((reason, edge)).or_default();
                    all.flows += 1;
                    add_samples(&mut all.samples, std::slice::from_ref(&record.flow_id));
                }
            }
        }
    }

    /// Merges another ledger: union of keys, the larger counters where both have one (law 10).
    pub fn merge(&mut self, other: &Ledger) {
        for (key, theirs) in &other.edges {
            match self.edges.get_mut(key) {
                Some(ours) => ours.merge(theirs),
                None => drop(self.edges.insert(key.clone(), theirs.clone())),
            }
        }
        for (key, theirs) in &other.unfit {
            let ours = self.unfit.entry(key.clone()).or_default();
            ours.flows = ours.flows.max(theirs.flows);
            add_samples(&mut ours.samples, &theirs.samples);
        }
    }

    /// Edges that policy in force or staged denied: none of them becomes a rule, however often it
    /// was seen otherwise, until a person accepts it by name (law 13).
    pub fn refused(&self) -> BTreeSet<&Edge> {
        let denied = self.unfit.keys().filter(|(reason, _)| reason.is_denial());
        denied.filter_map(|(_, edge)| edge.as_ref()).collect()
    }

    /// The edges that may become rules: each once, all observers and slices taken together, without
    /// the refused ones.
    pub fn learned(&self) -> BTreeMap<&Edge, EdgeCounters> {
        let refused = self.refused();
        let mut all: BTreeMap<&Edge, EdgeCounters> = BTreeMap::new();
        for ((_, _, edge), seen) in self.edges.iter().filter(|((_, _, edge), _)| !refused.contains(edge)) {
            all.entry(edge).and_modify(|sum| sum.add(seen)).or_insert_with(|| seen.clone());
        }
        all
    }

    /// What fed no rule, for a person: `12 flows: direction not known`, most frequent first.
    pub fn unfit_summary(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<Unfit, u64> = BTreeMap::new();
        for ((reason, _), counters) in &self.unfit {
            *by_reason.entry(*reason).or_default() += counters.flows;
        }
        let mut rows: Vec<_> = by_reason.into_iter().collect();
        rows.sort_by_key(|(reason, flows)| (std::cmp::Reverse(*flows), *reason));
        let flows = |n: u64| if n == 1 { "1 flow".to_owned() } else { format!("{n} flows") };
        rows.into_iter().map(|(reason, n)| format!("{}: {}", flows(n), reason.meaning())).collect()
    }
}

impl EdgeCounters {
    /// Another sighting of the same edge: flows add up.
    fn add(&mut self, more: &Self) {
        let flows = self.flows + more.flows;
        self.merge(more);
        self.flows = flows;
    }

    /// The same sighting told twice, perhaps more fully: the larger of each.
    fn merge(&mut self, other: &Self) {
        self.flows = self.flows.max(other.flows);
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.direction_rule = self.direction_rule.min(other.direction_rule);
        self.adopted_only &= other.adopted_only;
        add_samples(&mut self.samples, &other.samples);
        self.nodes.extend_from_slice(&other.nodes);
        self.nodes.sort_unstable();
        self.nodes.dedup();
    }
}

impl Unfit {
    /// Every reason, in order.
    pub const ALL: [Self; 10] = [
        Self::DirectionUnknown,
        Self::HandshakeNotSeen,
        Self::Denied,
        Self::StagedDenied,
        Self::Unattributed,
        Self::Inexpressible,
        Self::NoPod,
        Self::SeenAtServer,
        Self::DeniedOtherwise,
        Self::Exempt,
    ];

    /// Whether a policy said no.
    pub const fn is_denial(self) -> bool {
        matches!(self, Self::Denied | Self::StagedDenied)
    }

    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DirectionUnknown => "direction-unknown",
            Self::HandshakeNotSeen => "handshake-not-seen",
            Self::Denied => "denied",
            Self::StagedDenied => "staged-denied",
            Self::Unattributed => "unattributed",
            Self::Inexpressible => "inexpressible",
            Self::NoPod => "no-pod",
            Self::SeenAtServer => "seen-at-server",
            Self::DeniedOtherwise => "denied-otherwise",
            Self::Exempt => "exempt",
        }
    }

    /// What it means, for a person.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::DirectionUnknown => "nobody knows which end opened it",
            Self::HandshakeNotSeen => "an opening without an answer",
            Self::Denied => "denied by the policy in force",
            Self::StagedDenied => "denied by the staged policy",
            Self::Unattributed => "an end that could not be attributed",
            Self::Inexpressible => "NetworkPolicy cannot express it",
            Self::NoPod => "neither end is a pod",
            Self::SeenAtServer => "the client's view of a flow that is counted at its server",
            Self::DeniedOtherwise => "denied for a reason other than policy",
            Self::Exempt => "a pod to itself, or its own node to it, which always passes",
        }
    }
}

/// The edge a row feeds, or why it feeds none. A function of the row alone, so that no order of
/// rows changes a ledger.
fn fitness(record: &FlowRecord) -> Result<Edge, (Unfit, Option<Edge>)> {
    if let Some(reason) = denial(record) {
        return Err((reason, edge_of(record)));
    }
    let is_clients_view =
        record.event.observed_at == ObservedAt::Client && matches!(record.server.entity, Entity::Pod | Entity::Service);
    match asked_edge(record) {
        Err((Unfit::Exempt, edge)) => Err((Unfit::Exempt, edge)),
        _ if is_clients_view => Err((Unfit::SeenAtServer, edge_of(record))),
        Ok(edge) if !is_answered(record) => Err((Unfit::HandshakeNotSeen, Some(edge))),
        other => other,
    }
}

/// Why a row's flow was denied, in force or staged; `None`: it passed.
pub fn denial(record: &FlowRecord) -> Option<Unfit> {
    let event = &record.event;
    if is_denied(event.verdict) {
        return Some(if is_policy(&event.reason) { Unfit::Denied } else { Unfit::DeniedOtherwise });
    }
    (is_denied(event.staged_verdict) && is_policy(&event.staged_reason)).then_some(Unfit::StagedDenied)
}

/// The edge about which policies can be asked for this row, whatever became of its flow; or why they
/// cannot.
pub fn asked_edge(record: &FlowRecord) -> Result<Edge, (Unfit, Option<Edge>)> {
    let (event, edge) = (&record.event, edge_of(record));
    let reason = if is_exempt(record) {
        Unfit::Exempt
    } else if [&record.client, &record.server].iter().any(|end| is_unattributed(end)) {
        Unfit::Unattributed
    } else if [&record.client, &record.server].iter().all(|end| end.entity != Entity::Pod) {
        Unfit::NoPod
    } else if Protocol::from_number(event.key.protocol).is_none() || record.server.entity == Entity::Service {
        Unfit::Inexpressible
    } else if event.direction_rule == DirectionRule::Unknown {
        Unfit::DirectionUnknown
    } else {
        return edge.ok_or((Unfit::Unattributed, None));
    };
    Err((reason, edge))
}

const fn is_denied(verdict: FlowVerdict) -> bool {
    matches!(verdict, FlowVerdict::Deny | FlowVerdict::AuditDeny | FlowVerdict::Revoked)
}

/// Whether a denial's stable name means that no rule allowed it. A name that is not known is taken
/// for policy: what it denied then waits for a person.
fn is_policy(reason: &str) -> bool {
    const OTHERWISE: [&str; 11] = [
        "not-ready",
        "unknown-pod",
        "spoofed",
        "not-for-this-pod",
        "half-open-share-full",
        "established-share-full",
        "table-full",
        "fragment-without-first",
        "unrelated-icmp-error",
        "neighbor-rate",
        "neighbor-forged",
    ];
    !OTHERWISE.contains(&reason) && !ParseError::ALL.iter().any(|error| error.name() == reason)
}

fn is_exempt(record: &FlowRecord) -> bool {
    let itself = record.client.pod_uid.is_some() && record.client.pod_uid == record.server.pod_uid;
    itself || matches!(&*record.event.reason, "own-node" | "itself")
}

fn edge_of(record: &FlowRecord) -> Option<Edge> {
    let protocol = record.event.key.protocol;
    let port = if Protocol::from_number(protocol).is_some() { record.server.port } else { 0 };
    Some(Edge { client: party(&record.client)?, server: party(&record.server)?, protocol, port })
}

fn party(end: &End) -> Option<Party> {
    match end.entity {
        Entity::Pod => end.workload.clone().map(Party::Workload),
        Entity::Node => Some(Party::Node(end.ip)),
        Entity::Outside => Some(Party::Outside(end.ip)),
        Entity::Service | Entity::Unknown => None,
    }
}

fn is_unattributed(end: &End) -> bool {
    end.entity == Entity::Unknown || (end.entity == Entity::Pod && end.workload.is_none())
}

/// TCP needs its handshake; a connection older than its observer needs packets both ways, as does
/// SCTP. UDP has no openings: a datagram whose direction is known is one.
pub fn is_answered(record: &FlowRecord) -> bool {
    let event = &record.event;
    match Protocol::from_number(event.key.protocol) {
        Some(Protocol::Tcp) if is_opening_seen(event) => {
            event.tcp_flags_to_client & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK
        }
        Some(Protocol::Tcp | Protocol::Sctp) => event.packets_to_server > 0 && event.packets_to_client > 0,
        _ => true,
    }
}

/// TCP flags are those of the flow's whole life so far, so all slices agree once the SYN was seen.
fn is_opening_seen(event: &FlowEvent) -> bool {
    event.key.protocol == flow::TCP && event.tcp_flags_to_server & tcp::SYN != 0
}

/// Each unfit flow is counted once: with its first slice, or, while the answer to its opening may
/// still come, with its last.
fn counts_as_unfit(reason: Unfit, record: &FlowRecord) -> bool {
    match reason {
        Unfit::HandshakeNotSeen if is_opening_seen(&record.event) => record.event.end_reason != EndReason::Active,
        // A connection may be revoked late in its life: each slice that says so counts.
        Unfit::Denied | Unfit::StagedDenied | Unfit::DeniedOtherwise => true,
        _ => is_first_slice(record),
    }
}

/// Whether a row is its flow's first: each flow is counted with it.
pub fn is_first_slice(record: &FlowRecord) -> bool {
    record.event.start <= record.event.flow_start
}

fn counters(record: &FlowRecord) -> EdgeCounters {
    EdgeCounters {
        flows: u64::from(is_first_slice(record)),
        first_seen: record.event.start,
        last_seen: record.event.end.max(record.event.start),
        samples: vec![record.flow_id.clone()],
        direction_rule: record.event.direction_rule,
        adopted_only: record.event.adopted
            || (record.event.key.protocol == flow::TCP && !is_opening_seen(&record.event)),
        nodes: vec![record.node.clone()],
    }
}

fn slice_of(at: UnixNanos) -> UnixNanos {
    at.div_euclid(SLICE).saturating_mul(SLICE)
}

/// The smallest few ids of both.
fn add_samples(samples: &mut Vec<String>, more: &[String]) {
    samples.extend_from_slice(more);
    samples.sort_unstable();
    samples.dedup();
    samples.truncate(SAMPLES);
}
