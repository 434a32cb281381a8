//! Why no policies are printed: what stands in the way, where, and what to try.

use crate::naming;
use model::{cluster::WorkloadKey, policy::Protocol};
use std::sync::Arc;

/// Why [`crate::synthesize`] printed nothing. Each says everything that is wrong of its sort, not
/// only the first.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Workloads that no stable label tells apart.
    #[error("{}", lines("no selector tells these workloads apart", .0))]
    Indistinguishable(Vec<Indistinguishable>),
    /// Workloads reached from node addresses, and no word what to do about it.
    #[error("{}; {}", lines("these workloads are reached from node addresses, which may be hostNetwork pods or anyone behind a masquerade", .0), "say `--nodes allow` (opens these ports to every node) or `--nodes deny` (closes them; what only the own node's kubelet sends passes all the same)")]
    NodeIngress(Vec<NodeIngress>),
    /// An accepted edge that is not among those left out, or is several.
    #[error("{}", .0.join("; "))]
    Accept(Vec<String>),
    /// Servers that pick ports at random, and no word which.
    #[error("{}; give the range that the server picks from with --port-range, wider if you know it", lines("these open ports one after the other that nobody declares, and a rule for each would not hold tomorrow", .0))]
    ManyPorts(Vec<ManyPorts>),
    /// Namespaces to be left open in which no workload is.
    #[error("--no-default-deny: no workload that gets a policy is in {}; check the name", .0.join(", "))]
    NoSuchNamespace(Vec<String>),
    /// A name that the API server would refuse, and that must not become a file's name.
    #[error("{}; names have lower-case letters, digits, `-` and `.` and begin and end with a letter or digit: check the cluster file", lines("these are no names of Kubernetes objects", .0))]
    Name(Vec<String>),
    /// The policies do not do what they should (a defect of podfence).
    #[error("{}; nothing was written: please report this with the ledger and the cluster file", lines("the generated policies fail their verification", .0))]
    LawBroken(Vec<Broken>),
}

/// Ports of one server that a client opened and that look picked at random.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{ports} ports within {name}")]
pub struct ManyPorts {
    /// How many.
    pub ports: usize,
    /// The range from the first to the last, as `--port-range` takes it.
    pub name: String,
}

fn lines<T: ToString>(what: &str, items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("{what}: {}", items.join("; "))
}

/// Two workloads of one namespace that share all stable labels.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{} cannot be selected without {}: add a label to its pod template that the other lacks", naming::workload(.workload), naming::workload(.other))]
pub struct Indistinguishable {
    /// Whose policy cannot be written.
    pub workload: Arc<WorkloadKey>,
    /// Whose pods it would select too.
    pub other: Arc<WorkloadKey>,
}

/// A port of a workload that node addresses opened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{} at {} from {}", naming::workload(.workload), .ports.join(", "), .clients.join(", "))]
pub struct NodeIngress {
    /// The server.
    pub workload: Arc<WorkloadKey>,
    /// `8080/tcp`.
    pub ports: Vec<String>,
    /// The node addresses seen.
    pub clients: Vec<String>,
}

/// One pair for which the policies allow too little (law 1) or too much (law 2).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{law}: {client} -> {server} {} {}{}", .protocol.name(), naming::ports(.ports), because_of(.rules))]
pub struct Broken {
    /// Which law.
    pub law: Law,
    /// Who opens.
    pub client: String,
    /// Who answers.
    pub server: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports that are missing or too many.
    pub ports: Vec<(u16, u16)>,
    /// The rules that open too much.
    pub rules: Vec<String>,
}

fn because_of(rules: &[String]) -> String {
    if rules.is_empty() { String::new() } else { format!(" because of {}", rules.join(", ")) }
}

/// The law that a set of policies breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// A learned edge is not allowed.
    LearnedIsAllowed,
    /// What was not learned is allowed.
    NothingElseIsAllowed,
}

impl std::fmt::Display for Law {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LearnedIsAllowed => "law 1, learned but denied",
            Self::NothingElseIsAllowed => "law 2, allowed but not learned",
        })
    }
}
