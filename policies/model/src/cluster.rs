//! The cluster's objects, as far as podfence needs them, with where each was read.

use crate::{
    labels::{Labels, Selector},
    policy::{PolicySet, Protocol},
    tenure::Tenure,
};
use jiff::Timestamp;
use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, sync::Arc};

pub use crate::{
    history::Past,
    ownership::{MODE_LABEL, is_stable},
    services::{Backend, EndpointSlice, Frontend, Place, ServicesElsewhere, SlicePort},
};

/// Where something was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The file as the user named it, `-` for standard input.
    pub file: Arc<str>,
    /// One-based line.
    pub line: u32,
}

/// A cluster at one time, or over a time when `pods` holds finished and deleted ones too.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// By name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// By name.
    pub nodes: BTreeMap<String, Node>,
    /// In order of namespace, name, start. One name may stand more than once with different UIDs:
    /// pods that ended and their successors.
    pub pods: Vec<Pod>,
    /// Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs, ReplicationControllers.
    pub workloads: BTreeMap<WorkloadKey, Workload>,
    /// By (namespace, name).
    pub services: BTreeMap<(String, String), Service>,
    /// By (namespace, name).
    pub endpoint_slices: BTreeMap<(String, String), EndpointSlice>,
    /// NetworkPolicies in the input.
    pub policies: PolicySet,
    /// StagedNetworkPolicies in the input (`podfence.dev/v1alpha1`, same spec).
    pub staged: PolicySet,
    /// Objects of kinds podfence does not look at: kind to count.
    pub passed_over: BTreeMap<String, usize>,
    /// What it was before, for attributing flows of then; of a snapshot nothing.
    pub past: Past,
}

impl Cluster {
    /// The namespaces that objects live in and the input does not hold, in order: of their labels only
    /// `kubernetes.io/metadata.name` is known, so that selectors looking at others may not match.
    pub fn namespaces_not_given(&self) -> Vec<&str> {
        let named_only = self.namespaces.iter().filter(|(_, namespace)| namespace.source.is_none());
        named_only.map(|(name, _)| name.as_str()).collect()
    }
}

/// What is done about a denial, weakest first. The verdict itself never depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// Everything passes; flows are recorded.
    #[default]
    Learn,
    /// Everything passes; what would have been denied is logged as such.
    Audit,
    /// Denied is dropped and logged.
    Enforce,
}

impl Mode {
    /// Every mode, weakest first.
    pub const ALL: [Mode; 3] = [Mode::Learn, Mode::Audit, Mode::Enforce];

    /// As the label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learn => "learn",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of learn, audit, enforce"))
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Always with `kubernetes.io/metadata.name`.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// It is being deleted, and with it everything in it, in any order.
    pub terminating: bool,
    /// Where it was read; `None` when only named by another object.
    pub source: Option<Source>,
}

/// A node and the addresses it answers at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// InternalIP and ExternalIP addresses.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<ipnet::IpNet>,
    /// Its labels.
    pub labels: Labels,
    /// `metadata.creationTimestamp`; `None`: since ever.
    pub created: Option<Timestamp>,
    /// When it held its addresses; `None`: nobody watched, and its stamp tells.
    pub tenure: Option<Tenure>,
    /// Where it was read.
    pub source: Option<Source>,
}

/// Kind, namespace and name of a workload: what a person means by "who".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct WorkloadKey {
    /// Its namespace.
    pub namespace: String,
    /// `Deployment`, `StatefulSet`, `CronJob`, `Pod` for a bare pod, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for WorkloadKey {
    /// `namespace/kind/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}/{}", self.namespace, self.kind, self.name))
    }
}

/// A controller of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its own labels (the mode label is looked for here).
    pub labels: Labels,
    /// Its own annotations.
    pub annotations: Labels,
    /// `spec.selector`; a Job's or CronJob's is not usable for policies and is `None`.
    pub selector: Option<Selector>,
    /// Labels of the pod template.
    pub template_labels: Labels,
    /// Container ports of the pod template.
    pub template_ports: Vec<ContainerPort>,
    /// hostNetwork of the pod template.
    pub host_network: bool,
    /// `spec.replicas`, 1 when absent.
    pub replicas: u32,
    /// A Job whose status says that it ran to its end, well or not.
    pub finished: bool,
    /// The controller's own controller.
    pub owner: Option<Owner>,
    /// Where it was read.
    pub source: Option<Source>,
}

/// A controlling owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Owner {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// A pod, alive or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`; the name when absent.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// `status.podIPs`, one a family.
    pub addresses: Vec<IpAddr>,
    /// `spec.nodeName`.
    pub node: String,
    /// hostNetwork pods share their node's addresses and are selected by nothing.
    pub host_network: bool,
    /// Named and numbered container ports, init containers that restart included.
    pub ports: Vec<ContainerPort>,
    /// The controlling owner reference.
    pub owner: Option<Owner>,
    /// `status.startTime`, else `metadata.creationTimestamp`; `None`: since ever.
    pub started: Option<Timestamp>,
    /// When the first container of those it has now was started: it had its addresses by then.
    pub running_since: Option<Timestamp>,
    /// When it stopped holding its addresses: the last container's `finishedAt` of a Succeeded or
    /// Failed pod, or `metadata.deletionTimestamp`. `None`: it holds them still.
    pub ended: Option<Timestamp>,
    /// Succeeded or Failed; or deleted, and its containers ended.
    pub completed: bool,
    /// When it held its addresses; `None`: nobody watched, and its stamps tell.
    pub tenure: Option<Tenure>,
    /// Where it was read.
    pub source: Option<Source>,
}

/// A port a container declares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ContainerPort {
    pub name: Option<String>,
    pub port: u16,
    pub protocol: Protocol,
}

/// A Service; it is not a pod, rules name its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.selector`; empty: endpoints come from EndpointSlices alone.
    pub selector: Labels,
    /// ClusterIPs; empty for headless.
    pub cluster_ips: Vec<IpAddr>,
    /// External addresses, and those of a load balancer that the node stands in for (its `ipMode` is not
    /// `Proxy`; KEP 1860).
    pub external_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `metadata.creationTimestamp`; `None`: since ever.
    pub created: Option<Timestamp>,
    /// When it held its addresses; `None`: nobody watched, and its stamp tells.
    pub tenure: Option<Tenure>,
    /// Where it was read.
    pub source: Option<Source>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty when it has none.
    pub name: String,
    /// The Service's own port.
    pub port: u16,
    /// TCP when absent.
    pub protocol: Protocol,
    /// The backend's port by number or name; the Service's own when absent.
    pub target: TargetPort,
    /// The port at every node's addresses, if it has one.
    pub node_port: Option<u16>,
}

/// `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TargetPort {
    Number(u16),
    Name(String),
}
