//! A flow as capture saw it ([`FlowEvent`]) and with both ends attributed ([`FlowRecord`]).

use crate::{cluster::WorkloadKey, policy::NetworkPolicy};
use flow::FlowKey;
use std::{net::IpAddr, sync::Arc};

/// Nanoseconds since the Unix epoch.
pub type UnixNanos = i64;

/// How it became known which end opened the flow; the first of these that answers (law 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DirectionRule {
    /// A listening or connected socket of the pod (kernel source only).
    Socket,
    /// A SYN without ACK was seen.
    Syn,
    /// One end's port is a Service or container port and the other's is not.
    Port,
    /// Not known: the client is merely who was seen to send first. Feeds no rule.
    #[default]
    Unknown,
}

/// What was decided about a flow, and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FlowVerdict {
    /// Nobody judged it (captures, imports).
    #[default]
    Observed,
    /// Allowed.
    Allow,
    /// Denied by policy, passed because the mode is learn or audit.
    AuditDeny,
    /// Denied and dropped.
    Deny,
    /// Allowed once, denied after a change, dropped (or, outside enforce, passed: see `reason`).
    Revoked,
}

/// Where a flow was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ObservedAt {
    /// At the server's veth: this row is the flow.
    Server,
    /// At the client's veth.
    Client,
    /// Elsewhere, or where is not known.
    #[default]
    Wire,
}

/// Why a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum EndReason {
    /// The flow goes on; a later slice follows.
    Active,
    /// FIN both ways.
    Fin,
    /// RST.
    Reset,
    /// Nothing for its lifetime.
    #[default]
    Idle,
    /// Denied packets make no flow that could end: one attempt.
    Denied,
    /// The source stopped (end of the capture, agent stopped).
    Stopped,
}

/// Where the row came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FlowSource {
    /// The kernel program.
    #[default]
    Kernel,
    /// A capture file or live interface.
    Pcap,
    /// An import.
    Import,
}

/// The rule that decided, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// The policy's namespace.
    pub namespace: Arc<str>,
    /// The policy's name.
    pub name: Arc<str>,
    /// `ingress[2]` or `egress[0]`.
    pub rule: Arc<str>,
}

impl RuleName {
    /// The policy's ingress rule of this index.
    pub fn ingress(policy: &NetworkPolicy, index: usize) -> Self {
        Self::of(policy, format!("ingress[{index}]"))
    }

    /// The policy's egress rule of this index.
    pub fn egress(policy: &NetworkPolicy, index: usize) -> Self {
        Self::of(policy, format!("egress[{index}]"))
    }

    fn of(policy: &NetworkPolicy, rule: String) -> Self {
        Self { namespace: policy.namespace.as_str().into(), name: policy.name.as_str().into(), rule: rule.into() }
    }
}

impl std::fmt::Display for RuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.namespace, self.name, self.rule)
    }
}

/// A slice of a flow as capture saw it: key, counters, times, verdict; no names. The key is
/// oriented: `key.source` is the client as far as `direction_rule` knows, else who sent first.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowEvent {
    /// Client to server.
    pub key: FlowKey,
    /// How the orientation became known.
    pub direction_rule: DirectionRule,
    /// At which end's hook.
    pub observed_at: ObservedAt,
    /// First packet of the flow, the same in all its slices (it names the flow, see `FlowRecord::flow_id`).
    pub flow_start: UnixNanos,
    /// First packet of the slice.
    pub start: UnixNanos,
    /// Last packet of the slice.
    pub end: UnixNanos,
    /// Packets client to server in this slice.
    pub packets_to_server: u64,
    /// Packets server to client in this slice.
    pub packets_to_client: u64,
    /// IP bytes (from the IP length) client to server in this slice.
    pub bytes_to_server: u64,
    /// IP bytes server to client in this slice.
    pub bytes_to_client: u64,
    /// Union of the TCP flags seen so far in the flow's life, client to server.
    pub tcp_flags_to_server: u8,
    /// Union of the TCP flags seen so far, server to client.
    pub tcp_flags_to_client: u8,
    /// The connection was older than its table entry, and adopted.
    pub adopted: bool,
    /// What was decided.
    pub verdict: FlowVerdict,
    /// Why, as a stable name (`allowed-by-rule`, `no-rule`, …); empty when nobody judged.
    pub reason: Arc<str>,
    /// The deciding rule.
    pub rule: Option<RuleName>,
    /// Policy generation the verdict was made under.
    pub policy_generation: u64,
    /// What the staged policies would say; `Observed` when nothing is staged for the pod.
    pub staged_verdict: FlowVerdict,
    /// Why they would.
    pub staged_reason: Arc<str>,
    /// Why the slice ended.
    pub end_reason: EndReason,
    /// SYN to SYN-ACK (server's hook) or SYN-ACK to ACK, microseconds.
    pub rtt_us: Option<u32>,
    /// The interface it was seen on.
    pub interface: Arc<str>,
    /// Where it came from.
    pub source: FlowSource,
}

/// What an address was at the flow's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Entity {
    /// A pod of its own address.
    Pod,
    /// A Service's address.
    Service,
    /// A node's address: the node, a hostNetwork pod, or anyone behind a masquerade.
    Node,
    /// An address outside the cluster.
    Outside,
    /// Not attributed; `End::unknown_reason` says why.
    #[default]
    Unknown,
}

/// One end of a flow, attributed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// What the address was.
    pub entity: Entity,
    /// Pod or Service namespace.
    pub namespace: Option<Arc<str>>,
    /// Pod, Service or node name.
    pub name: Option<Arc<str>>,
    /// The pod's UID.
    pub pod_uid: Option<Arc<str>>,
    /// Root owner.
    pub workload: Option<Arc<WorkloadKey>>,
    /// Why the address could not be attributed: one of [`unknown::ALL`].
    pub unknown_reason: Option<&'static str>,
}

/// Why an address could not be attributed.
pub mod unknown {
    /// A pod's address by its range, and no pod was ever seen with it.
    pub const NEVER_SEEN: &str = "never-seen";
    /// More than one may have held it then.
    pub const AMBIGUOUS: &str = "ambiguous";
    /// Held at other times only, as far as is known; or so long ago that it is forgotten.
    pub const OUTSIDE_WINDOW: &str = "outside-window";
    /// Nobody watched the cluster then, and who was there before and after does not settle it.
    pub const WATCH_GAP: &str = "watch-gap";
    /// What happened then has not been told.
    pub const NOT_TOLD_YET: &str = "not-told-yet";
    /// Every reason.
    pub const ALL: [&str; 5] = [NEVER_SEEN, AMBIGUOUS, OUTSIDE_WINDOW, WATCH_GAP, NOT_TOLD_YET];
}

/// A [`FlowEvent`] with both ends attributed: one row of the flow log.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowRecord {
    /// Hex of a hash over (node, source, interface, key, start of the flow): the same for all slices of a flow.
    pub flow_id: String,
    /// Community ID v1.
    pub community_id: String,
    /// Who opened it (as far as `event.direction_rule` knows).
    pub client: End,
    /// Who answers.
    pub server: End,
    /// The Service through which the client came, `namespace/name`.
    pub service: Option<Arc<str>>,
    /// The DNS name that led there, when known.
    pub dns_name: Option<Arc<str>>,
    /// The node that saw it.
    pub node: Arc<str>,
    /// One in how many packets or flows was looked at; 1 is all.
    pub sampling: u32,
    /// The slice itself.
    pub event: FlowEvent,
}

/// Something that was lost or not watched: silence here is not peace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// From when.
    pub start: UnixNanos,
    /// Until when.
    pub end: UnixNanos,
    /// The node.
    pub node: Arc<str>,
    /// `events-lost`, `agent-down`, `capture-dropped`, `packets-unreadable`, …
    pub reason: Arc<str>,
    /// How many, 0 when that cannot be known.
    pub lost: u64,
}

macro_rules! names {
    ($type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name in the log and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                match s {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(format!("`{s}` is none of {}", [$($name),+].join(", "))),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

names!(DirectionRule { Socket => "socket", Syn => "syn", Port => "port", Unknown => "unknown" });
names!(FlowVerdict { Observed => "observed", Allow => "allow", AuditDeny => "audit_deny", Deny => "deny", Revoked => "revoked" });
names!(ObservedAt { Server => "server", Client => "client", Wire => "wire" });
names!(EndReason { Active => "active", Fin => "fin", Reset => "reset", Idle => "idle", Denied => "denied", Stopped => "stopped" });
names!(FlowSource { Kernel => "kernel", Pcap => "pcap", Import => "import" });
names!(Entity { Pod => "pod", Service => "service", Node => "node", Outside => "outside", Unknown => "unknown" });
