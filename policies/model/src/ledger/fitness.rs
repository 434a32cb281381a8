//! Which rows of the flow log feed an edge, and why the others do not (law 13).
//!
//! Always holds: the answer is a function of the row alone, so that no order of rows changes a ledger.

use super::{Edge, Party};
use crate::{
    policy::Protocol,
    record::{DirectionRule, End, EndReason, Entity, FlowRecord, FlowVerdict, ObservedAt},
};
use flow::{ParseError, tcp};

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

/// All of a row that decides whether it feeds an edge: what counts is decided here alone, whether a row comes as a
/// record or as columns.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What the client's address was.
    pub client: Entity,
    /// What the server's was.
    pub server: Entity,
    /// Both ends are pods whose workload is known, as far as they are pods.
    pub workloads_known: bool,
    /// Both ends are the same pod.
    pub itself: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// How its direction became known.
    pub direction_rule: DirectionRule,
    /// Where it was seen.
    pub observed_at: ObservedAt,
    /// What was decided.
    pub verdict: FlowVerdict,
    /// Why.
    pub reason: &'a str,
    /// What the staged policies would say.
    pub staged_verdict: FlowVerdict,
    /// Why they would.
    pub staged_reason: &'a str,
    /// Packets of this slice went both ways.
    pub both_ways: bool,
    /// Union of the TCP flags so far, client to server.
    pub tcp_flags_to_server: u8,
    /// Union of the TCP flags so far, server to client.
    pub tcp_flags_to_client: u8,
    /// Why the slice ended.
    pub end_reason: EndReason,
    /// The connection was older than its table entry.
    pub adopted: bool,
    /// It is its flow's first slice.
    pub is_first_slice: bool,
}

impl<'a> Facts<'a> {
    /// Of a record.
    pub fn of(record: &'a FlowRecord) -> Self {
        let (event, client, server) = (&record.event, &record.client, &record.server);
        let known = |end: &End| end.entity != Entity::Pod || end.workload.is_some();
        Self {
            client: client.entity,
            server: server.entity,
            workloads_known: known(client) && known(server),
            itself: client.pod_uid.is_some() && client.pod_uid == server.pod_uid,
            protocol: event.key.protocol,
            direction_rule: event.direction_rule,
            observed_at: event.observed_at,
            verdict: event.verdict,
            reason: &event.reason,
            staged_verdict: event.staged_verdict,
            staged_reason: &event.staged_reason,
            both_ways: event.packets_to_server > 0 && event.packets_to_client > 0,
            tcp_flags_to_server: event.tcp_flags_to_server,
            tcp_flags_to_client: event.tcp_flags_to_client,
            end_reason: event.end_reason,
            adopted: event.adopted,
            is_first_slice: is_first_slice(record),
        }
    }

    /// Whether it feeds its edge, or why not.
    pub(super) fn fitness(&self) -> Result<(), Unfit> {
        if let Some(reason) = self.denial() {
            return Err(reason);
        }
        let is_clients_view =
            self.observed_at == ObservedAt::Client && matches!(self.server, Entity::Pod | Entity::Service);
        match self.asked() {
            Err(Unfit::Exempt) => Err(Unfit::Exempt),
            _ if is_clients_view => Err(Unfit::SeenAtServer),
            Ok(()) if !self.is_answered() => Err(Unfit::HandshakeNotSeen),
            other => other,
        }
    }

    /// Each unfit flow is counted once: with its first slice, or, while the answer to its opening may
    /// still come, with its last.
    pub(super) fn counts_as(&self, reason: Unfit) -> bool {
        match reason {
            Unfit::HandshakeNotSeen if self.is_opening_seen() => self.end_reason != EndReason::Active,
            // A connection may be revoked late in its life: each slice that says so counts.
            Unfit::Denied | Unfit::StagedDenied | Unfit::DeniedOtherwise => true,
            _ => self.is_first_slice,
        }
    }

    /// It was under way before anybody watched.
    pub(super) fn is_older_than_its_observer(&self) -> bool {
        self.adopted || (self.protocol == flow::TCP && !self.is_opening_seen())
    }

    pub(crate) fn denial(&self) -> Option<Unfit> {
        if is_denied(self.verdict) {
            return Some(if is_policy(self.reason) { Unfit::Denied } else { Unfit::DeniedOtherwise });
        }
        (is_denied(self.staged_verdict) && is_policy(self.staged_reason)).then_some(Unfit::StagedDenied)
    }

    fn asked(&self) -> Result<(), Unfit> {
        let unattributed = self.client == Entity::Unknown || self.server == Entity::Unknown || !self.workloads_known;
        if self.itself || matches!(self.reason, "own-node" | "itself") {
            Err(Unfit::Exempt)
        } else if unattributed {
            Err(Unfit::Unattributed)
        } else if self.client != Entity::Pod && self.server != Entity::Pod {
            Err(Unfit::NoPod)
        } else if Protocol::from_number(self.protocol).is_none() || self.server == Entity::Service {
            Err(Unfit::Inexpressible)
        } else if self.direction_rule == DirectionRule::Unknown {
            Err(Unfit::DirectionUnknown)
        } else if self.client == Entity::Service {
            Err(Unfit::Unattributed)
        } else {
            Ok(())
        }
    }

    /// TCP needs its handshake; a connection older than its observer needs packets both ways, as does
    /// SCTP. UDP has no openings: a datagram whose direction is known is one.
    pub(crate) fn is_answered(&self) -> bool {
        match Protocol::from_number(self.protocol) {
            Some(Protocol::Tcp) if self.is_opening_seen() => {
                self.tcp_flags_to_client & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK
            }
            Some(Protocol::Tcp | Protocol::Sctp) => self.both_ways,
            _ => true,
        }
    }

    /// TCP flags are those of the flow's whole life so far, so all slices agree once the SYN was seen.
    fn is_opening_seen(&self) -> bool {
        self.protocol == flow::TCP && self.tcp_flags_to_server & tcp::SYN != 0
    }
}

/// Why a row's flow was denied, in force or staged; `None`: it passed.
pub fn denial(record: &FlowRecord) -> Option<Unfit> {
    Facts::of(record).denial()
}

/// The edge about which policies can be asked for this row, whatever became of its flow; or why they
/// cannot.
pub fn asked_edge(record: &FlowRecord) -> Result<Edge, (Unfit, Option<Edge>)> {
    match (Facts::of(record).asked(), edge_of(record)) {
        (Ok(()), Some(edge)) => Ok(edge),
        (Ok(()), None) => Err((Unfit::Unattributed, None)),
        (Err(reason), edge) => Err((reason, edge)),
    }
}

/// Whether a row's flow was answered: TCP by its handshake, what is older than its observer by packets both ways.
pub fn is_answered(record: &FlowRecord) -> bool {
    Facts::of(record).is_answered()
}

/// Whether a row is its flow's first: each flow is counted with it.
pub fn is_first_slice(record: &FlowRecord) -> bool {
    record.event.start <= record.event.flow_start
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

pub(super) fn edge_of(record: &FlowRecord) -> Option<Edge> {
    let protocol = record.event.key.protocol;
    let port = port_of(protocol, record.server.port);
    Some(Edge { client: party(&record.client)?, server: party(&record.server)?, protocol, port })
}

/// The port of an edge: 0 for protocols without ports.
pub(super) fn port_of(protocol: u8, port: u16) -> u16 {
    if Protocol::from_number(protocol).is_some() { port } else { 0 }
}

/// The party that an end is, where it is known.
pub fn party(end: &End) -> Option<Party> {
    match end.entity {
        Entity::Pod => end.workload.clone().map(Party::Workload),
        Entity::Node => Some(Party::Node(end.ip)),
        Entity::Outside => Some(Party::Outside(end.ip)),
        Entity::Service | Entity::Unknown => None,
    }
}
