//! Policies and a cluster become what the kernel looks up; a change becomes a [`Plan`], which is data.
//!
//! ```text
//! Cluster + PolicySets -> subjects (pods of the node, what their policies grant)
//!                      -> classes  (addresses that no policy tells apart) -> identities
//!                      -> slots    (identity, protocol, port -> rule)     -> RuleTable -> Plan
//! ```
//!
//! Always holds: a number (identity, slot, rule) never changes its meaning. Another meaning is
//! another number, so an old table and a new one can stand beside each other while a plan is carried out.
//!
//! What the staged slot means: the policies in force, where a staged policy of the same namespace and
//! name replaces one, and the other staged policies beside them: what would hold if they were applied.
#![forbid(unsafe_code)]

mod classes;
mod compiler;
mod ending;
mod frontends;
mod memory;
mod mode;
mod plan;
mod ports;
mod slots;
mod source_prefixes;
mod subjects;
mod terms;

pub use classes::Prefix;
pub use compiler::Compiler;
pub use ending::{Ending, Kept, Remembered, SETTLES_AFTER};
pub use mode::MODE_LABEL;
pub use plan::{Counts, EndpointChange, Limits, Plan, TooLarge};
pub use slots::{PortPrefix, Slot};
pub use source_prefixes::{SOURCE_PREFIXES, SourcePrefixes};

use flow::Address;
use model::{cluster::Cluster, policy::PolicySet, record::RuleName};
use std::{collections::BTreeMap, fmt, sync::Arc};
use verdict::{
    Mode,
    abi::{GenerationRecord, RuleKey, client_peer},
};

/// Everything the kernel program of one node looks up, with numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleTable {
    /// Longest prefix -> identity. 0 stands where a longer prefix takes an address out of a shorter one's class.
    pub identities: BTreeMap<Prefix, u32>,
    /// Ports that lead to Services: [`verdict::abi::frontend_key`] -> whether backends stand behind it.
    pub frontends: BTreeMap<RuleKey, u32>,
    /// Who opens from an address, where that counts beside its identity: nodes, and clients of this node whose own
    /// policy is asked again at the hook of the server ([`verdict::abi::maps::PEERS`]).
    pub peers: BTreeMap<Address, u32>,
    /// Slot number -> its rules, shared by the endpoints with the same ones.
    pub slots: BTreeMap<u32, Arc<Slot>>,
    /// Generation index -> slots and mode.
    pub generations: BTreeMap<u32, GenerationRecord>,
    /// This node's pods by UID.
    pub endpoints: BTreeMap<Arc<str>, Endpoint>,
    /// Rule id -> the rule's name, and whether it is a staged policy's.
    pub rules: BTreeMap<u32, RuleOrigin>,
    /// What was passed over, and why.
    pub warnings: Vec<Warning>,
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its place in the endpoint arrays.
    pub ordinal: u32,
    /// Its UID.
    pub uid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Own addresses: index 0 IPv4, 1 IPv6, 2 and 3 further ones; unused ones are zero.
    pub addresses: [Address; verdict::abi::OWN_ADDRESSES],
    /// Prefixes of addresses it has beside these, by its annotation.
    pub further: Vec<Prefix>,
    /// The mode in effect.
    pub mode: Mode,
    /// Slot in force.
    pub in_force: u32,
    /// Slot staged, 0 when nothing is staged for the pod.
    pub staged: u32,
    /// Index of its generation.
    pub generation: u32,
}

impl Endpoint {
    /// Its addresses, as those of a client whose policy is asked again at the hook of the server.
    pub(crate) fn as_client(&self) -> impl Iterator<Item = (Address, u32)> {
        let used = self.addresses.into_iter().filter(|address| *address != Address::default());
        used.map(|address| (address, client_peer(self.ordinal)))
    }
}

impl RuleTable {
    /// Whether a slot of this endpoint, in force or staged, leaves refusals to the hooks of backends.
    pub fn leaves_refusals(&self, endpoint: &Endpoint) -> bool {
        let slots = [endpoint.in_force, endpoint.staged];
        slots.iter().any(|number| self.slots.get(number).is_some_and(|slot| slot.leaves_refusals()))
    }
}

/// Whether something is other than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Changed {
    Yes,
    No,
}

/// Where a rule id comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleOrigin {
    /// The rule's name.
    pub name: RuleName,
    /// Whether its policy is staged.
    pub staged: bool,
}

/// Something in the input that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// A mode label that is none of learn, audit, enforce; the label is ignored.
    UnknownMode {
        /// `namespace/x` or `Deployment x/y`.
        object: String,
        /// The label's value.
        value: String,
    },
    /// The node is not in the cluster, so its own packets to its pods get no exemption.
    UnknownNode {
        /// Its name.
        node: String,
    },
    /// A pod with more addresses than an endpoint has room for; the first are used.
    TooManyAddresses {
        /// `namespace/name`.
        pod: String,
        /// How many it has.
        addresses: usize,
    },
    /// Something in a pod's annotation [`SOURCE_PREFIXES`] that does not count.
    SourcePrefix {
        /// `namespace/name`.
        pod: String,
        /// A prefix, or all of it.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// Two live pods claim one address; the one that started later is believed.
    AddressClaimedTwice {
        /// The address.
        address: Address,
        /// Who is believed, `namespace/name`.
        believed: String,
        /// Who is not.
        passed_over: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMode { object, value } => {
                write!(f, "{object}: label {MODE_LABEL} is `{value}`, ignored; use learn, audit or enforce")
            }
            Self::UnknownNode { node } => {
                write!(f, "node {node} is not among the cluster's nodes: its probes are judged by policy; add the Node")
            }
            Self::TooManyAddresses { pod, addresses } => {
                write!(f, "pod {pod} has {addresses} addresses, {} are used", verdict::abi::OWN_ADDRESSES)
            }
            Self::SourcePrefix { pod, what, why } => {
                write!(f, "pod {pod}: annotation {SOURCE_PREFIXES}: `{what}` does not count: {why}")
            }
            Self::AddressClaimedTwice { address, believed, passed_over } => {
                write!(
                    f,
                    "{address} is claimed by pods {believed} and {passed_over}; the later, {believed}, is believed"
                )
            }
        }
    }
}

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// A kind of number is used up; only a restart with fresh tables gives new ones.
    #[error("no {what} numbers are left on this node; restart the agent, which begins with fresh tables")]
    Exhausted {
        /// Which numbers.
        what: &'static str,
    },
}

/// Compiles a cluster's policies for one node, with fresh numbers. An agent keeps a [`Compiler`]
/// instead, whose numbers go on.
pub fn compile(
    cluster: &Cluster,
    in_force: &PolicySet,
    staged: &PolicySet,
    node: &str,
    default_mode: Mode,
) -> Result<RuleTable, Error> {
    Compiler::new(node, default_mode).plan(cluster, in_force, staged).map(|plan| plan.table)
}
