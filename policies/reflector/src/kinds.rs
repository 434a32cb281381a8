//! What is watched. The manifests' ClusterRole allows to list and watch these, and nothing else.

use model::yaml::Class;

/// A kind of object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    /// As paths and RBAC rules have it.
    pub(crate) resource: &'static str,
}

/// Every kind's version here.
pub(crate) const VERSION: &str = "v1";

const fn kind(group: &'static str, kind: &'static str, resource: &'static str) -> Kind {
    Kind { group, kind, resource }
}

pub(crate) const KINDS: [Kind; 13] = [
    kind("", "Namespace", "namespaces"),
    kind("", "Node", "nodes"),
    kind("", "Pod", "pods"),
    kind("", "Service", "services"),
    kind("", "ReplicationController", "replicationcontrollers"),
    kind("apps", "DaemonSet", "daemonsets"),
    kind("apps", "Deployment", "deployments"),
    kind("apps", "ReplicaSet", "replicasets"),
    kind("apps", "StatefulSet", "statefulsets"),
    kind("batch", "CronJob", "cronjobs"),
    kind("batch", "Job", "jobs"),
    kind("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    kind("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
];

impl Kind {
    pub(crate) fn class(self) -> Class {
        Class { group: self.group.to_owned(), version: VERSION.to_owned(), kind: self.kind.to_owned() }
    }

    /// `networkpolicies.networking.k8s.io`, as `kubectl get` takes it.
    pub(crate) fn full_name(self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }
}
