//! What one object of the input becomes, and how it comes into a cluster.
//!
//! Always holds: of two objects of the same kind, namespace and name the first stays, and the second
//! is an error that names both places. Pods with another UID are another pod.

use super::ReadError;
use crate::{
    cluster::{Cluster, Namespace, Pod, Source},
    history::Entry,
    labels::{Labels, METADATA_NAME},
    policy::{NetworkPolicy, PolicySet},
};
use std::collections::{BTreeSet, HashMap};

impl Entry {
    /// The namespace it lives in.
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(..) | Self::Node(..) => None,
            Self::Pod(pod) => Some(&pod.namespace),
            Self::Service((namespace, _), _) | Self::EndpointSlice((namespace, _), _) => Some(namespace),
            Self::Workload(key, _) => Some(&key.namespace),
            Self::Policy(policy) | Self::Staged(policy) => Some(&policy.namespace),
        }
    }

    /// Annotations are for people and other programs, and may be longer than all else together.
    pub(super) fn without_annotations(mut self) -> Self {
        match &mut self {
            Self::Namespace(_, namespace) => namespace.annotations.clear(),
            Self::Pod(pod) => pod.annotations.clear(),
            Self::Workload(_, workload) => workload.annotations.clear(),
            Self::Policy(policy) | Self::Staged(policy) => policy.annotations.clear(),
            Self::Node(..) | Self::Service(..) | Self::EndpointSlice(..) => {}
        }
        self
    }

    fn source(&self) -> Option<&Source> {
        match self {
            Self::Namespace(_, namespace) => namespace.source.as_ref(),
            Self::Node(_, node) => node.source.as_ref(),
            Self::Pod(pod) => pod.source.as_ref(),
            Self::Service(_, service) => service.source.as_ref(),
            Self::EndpointSlice(_, slice) => slice.source.as_ref(),
            Self::Workload(_, workload) => workload.source.as_ref(),
            Self::Policy(policy) | Self::Staged(policy) => policy.source.as_ref(),
        }
    }

    /// `Pod shop/web`.
    fn title(&self) -> String {
        let (kind, name) = match self {
            Self::Namespace(name, _) => ("Namespace", name),
            Self::Node(name, _) => ("Node", name),
            Self::Pod(pod) => ("Pod", &pod.name),
            Self::Service((_, name), _) => ("Service", name),
            Self::EndpointSlice((_, name), _) => ("EndpointSlice", name),
            Self::Workload(key, _) => (key.kind.as_str(), &key.name),
            Self::Policy(policy) => ("NetworkPolicy", &policy.name),
            Self::Staged(policy) => ("StagedNetworkPolicy", &policy.name),
        };
        self.namespace().map_or_else(|| format!("{kind} {name}"), |namespace| format!("{kind} {namespace}/{name}"))
    }
}

/// What a cluster's lists hold already, by name.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By namespace, name and UID, which a slash cannot stand in.
    pods: HashMap<Box<str>, usize>,
    policies: HashMap<Box<str>, usize>,
    staged: HashMap<Box<str>, usize>,
}

fn pod_id(pod: &Pod) -> Box<str> {
    format!("{}/{}/{}", pod.namespace, pod.name, pod.uid).into()
}

fn policy_id(policy: &NetworkPolicy) -> Box<str> {
    format!("{}/{}", policy.namespace, policy.name).into()
}

impl Known {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let policies =
            |set: &PolicySet| set.policies.iter().enumerate().map(|(index, p)| (policy_id(p), index)).collect();
        Self {
            pods: cluster.pods.iter().enumerate().map(|(index, pod)| (pod_id(pod), index)).collect(),
            policies: policies(&cluster.policies),
            staged: policies(&cluster.staged),
        }
    }

    /// Adds an object to the cluster, and the namespace it lives in.
    pub(super) fn insert(&mut self, cluster: &mut Cluster, entry: Entry) -> Result<(), ReadError> {
        if let Some(first) = self.first(cluster, &entry) {
            let place = first.map_or("another input".to_owned(), |first| format!("{}:{}", first.file, first.line));
            let message = format!("{}: was already read from {place}; give each object once", entry.title());
            let (file, line) = entry.source().map_or(("".into(), 0), |source| (source.file.clone(), source.line));
            return Err(ReadError::new(&file, line, message));
        }
        if let Some(namespace) = entry.namespace().filter(|name| !cluster.namespaces.contains_key(*name)) {
            cluster.namespaces.insert(namespace.to_owned(), named(namespace));
        }
        match entry {
            Entry::Namespace(name, namespace) => drop(cluster.namespaces.insert(name, namespace)),
            Entry::Node(name, node) => drop(cluster.nodes.insert(name, node)),
            Entry::Service(name, service) => drop(cluster.services.insert(name, service)),
            Entry::EndpointSlice(name, slice) => drop(cluster.endpoint_slices.insert(name, slice)),
            Entry::Workload(key, workload) => drop(cluster.workloads.insert(key, workload)),
            Entry::Pod(pod) => {
                self.pods.insert(pod_id(&pod), cluster.pods.len());
                cluster.pods.push(pod);
            }
            Entry::Policy(policy) => {
                self.policies.insert(policy_id(&policy), cluster.policies.policies.len());
                cluster.policies.policies.push(policy);
            }
            Entry::Staged(policy) => {
                self.staged.insert(policy_id(&policy), cluster.staged.policies.len());
                cluster.staged.policies.push(policy);
            }
        }
        Ok(())
    }

    /// Where the same object was read before, if it was.
    fn first<'c>(&self, cluster: &'c Cluster, entry: &Entry) -> Option<Option<&'c Source>> {
        match entry {
            // One that another object named before has no source.
            Entry::Namespace(name, _) => cluster.namespaces.get(name)?.source.as_ref().map(Some),
            Entry::Node(name, _) => cluster.nodes.get(name).map(|node| node.source.as_ref()),
            Entry::Service(name, _) => cluster.services.get(name).map(|service| service.source.as_ref()),
            Entry::EndpointSlice(name, _) => cluster.endpoint_slices.get(name).map(|slice| slice.source.as_ref()),
            Entry::Workload(key, _) => cluster.workloads.get(key).map(|workload| workload.source.as_ref()),
            Entry::Pod(pod) => {
                let index = self.pods.get(&pod_id(pod))?;
                cluster.pods.get(*index).map(|pod| pod.source.as_ref())
            }
            Entry::Policy(policy) => {
                let index = self.policies.get(&policy_id(policy))?;
                cluster.policies.policies.get(*index).map(|policy| policy.source.as_ref())
            }
            Entry::Staged(policy) => {
                let index = self.staged.get(&policy_id(policy))?;
                cluster.staged.policies.get(*index).map(|policy| policy.source.as_ref())
            }
        }
    }
}

/// Names the namespaces that objects live in.
pub(super) fn name_namespaces(cluster: &mut Cluster) {
    let pods = cluster.pods.iter().map(|pod| &pod.namespace);
    let workloads = cluster.workloads.keys().map(|key| &key.namespace);
    let services = cluster.services.keys().chain(cluster.endpoint_slices.keys()).map(|(namespace, _)| namespace);
    let policies = cluster.policies.policies.iter().chain(&cluster.staged.policies).map(|policy| &policy.namespace);
    let all: BTreeSet<String> = pods.chain(workloads).chain(services).chain(policies).cloned().collect();
    for name in all {
        cluster.namespaces.entry(name).or_insert_with_key(|name| named(name));
    }
}

/// A namespace known only because another object names it.
fn named(name: &str) -> Namespace {
    Namespace { labels: Labels::from([(METADATA_NAME.to_owned(), name.to_owned())]), ..Namespace::default() }
}
