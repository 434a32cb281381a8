//! Edges and the ledger that counts them (laws 10 and 13).

use crate::{
    cluster::WorkloadKey,
    record::{DirectionRule, FlowRecord, UnixNanos},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Length of a ledger's time slice: one hour, so that neither bursts nor shorter slices flatter a certificate.
pub const SLICE: i64 = 3_600 * 1_000_000_000;

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
    /// All flows were adopted ones.
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
}

/// Why a flow that fed no rule did not, with how often and samples.
#[derive(Clone, Debug, PartialEq)]
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
    pub fn add(&mut self, instance: &Arc<str>, record: &FlowRecord) {
        let _ = (instance, record);
        unimplemented!()
    }

    /// Merges another ledger: union of keys, the larger counters where both have one (law 10).
    pub fn merge(&mut self, other: &Ledger) {
        let _ = other;
        unimplemented!()
    }
}
