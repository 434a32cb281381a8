//! The cluster as the steps make it: what an API server would show of it, and what it means.

use crate::step::Step;
use model::cluster::Cluster;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tests::{
    objects::{NAMESPACES, NODE, NODE_NAME},
    questions::read,
};

/// The namespace of an object that names none.
const DEFAULT: &str = "default";

#[derive(Clone)]
struct Pod {
    uid: u64,
    namespace: &'static str,
    labels: Value,
    ports: Value,
    here: bool,
    address: u8,
}

/// Whether a policy is staged, and its number.
type PolicyKey = (bool, usize);

/// Everything that is there.
#[derive(Default)]
pub(crate) struct World {
    policies: BTreeMap<PolicyKey, Value>,
    pods: BTreeMap<usize, Pod>,
    services: BTreeMap<u8, Value>,
    labels: BTreeMap<&'static str, Value>,
    modes: BTreeMap<&'static str, &'static str>,
    /// Namespaces that are being deleted: their policies stand until the last pod is gone.
    ending: BTreeSet<&'static str>,
    started: u64,
}

impl World {
    /// What a step makes of it. In a namespace that is being deleted nothing is made any more.
    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Policy { number, staged, object } => {
                if !self.ending.contains(namespace(object)) && self.may_change((*staged, *number)) {
                    self.policies.insert((*staged, *number), object.clone());
                }
            }
            Step::PolicyGoes { number, staged } => {
                if self.may_change((*staged, *number)) {
                    self.policies.remove(&(*staged, *number));
                }
            }
            Step::Pod { number, namespace, labels, ports, here, address } => {
                self.pods.remove(number);
                self.pods.retain(|_, pod| pod.address != *address);
                if !self.ending.contains(namespace) {
                    self.started += 1;
                    let (labels, ports) = (labels.clone(), ports.clone());
                    let pod = Pod { uid: self.started, namespace, labels, ports, here: *here, address: *address };
                    self.pods.insert(*number, pod);
                }
            }
            Step::PodGoes { number } => drop(self.pods.remove(number)),
            Step::PodLabels { number, labels } => {
                if let Some(pod) = self.pods.get_mut(number) {
                    pod.labels = labels.clone();
                }
            }
            Step::NamespaceLabels { namespace, labels } => drop(self.labels.insert(namespace, labels.clone())),
            Step::Mode { namespace, mode: Some(mode) } => drop(self.modes.insert(namespace, mode)),
            Step::Mode { namespace, mode: None } => drop(self.modes.remove(namespace)),
            Step::Service { number, namespace, app, port, target } => {
                let ports = json!([{"port": port, "targetPort": target, "protocol": "TCP"}]);
                let ips = [format!("10.96.0.{number}"), format!("fd00:96::{number}")];
                let spec = json!({"selector": {"app": app}, "ports": ports, "clusterIP": ips[0], "clusterIPs": ips});
                let metadata = json!({"name": format!("s{number}"), "namespace": namespace});
                self.services.insert(
                    *number,
                    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}),
                );
            }
            Step::ServiceGoes { number } => drop(self.services.remove(number)),
            Step::NamespaceEnds { namespace } => drop(self.ending.insert(namespace)),
            Step::DoesNotFit | Step::AgentKilled | Step::EntriesLost => {}
        }
        // With its last pod a namespace is gone, and its policies with it; another of its name begins.
        let gone: Vec<_> =
            self.ending.iter().copied().filter(|name| !self.pods.values().any(|pod| pod.namespace == *name)).collect();
        for name in gone {
            self.ending.remove(name);
            self.policies.retain(|_, policy| namespace(policy) != name);
        }
    }

    fn may_change(&self, key: PolicyKey) -> bool {
        self.policies.get(&key).is_none_or(|before| !self.ending.contains(namespace(before)))
    }

    /// Whether a namespace is being deleted: only the agent that saw it before knows its policies.
    pub(crate) fn is_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// What the API server shows.
    pub(crate) fn shown(&self) -> Cluster {
        self.cluster(|policy| !self.ending.contains(namespace(policy)))
    }

    /// What it means.
    pub(crate) fn meant(&self) -> Cluster {
        self.cluster(|_| true)
    }

    fn cluster(&self, is_shown: impl Fn(&Value) -> bool) -> Cluster {
        let mut objects = vec![json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME},
            "status": {"addresses": NODE.map(|address| json!({"type": "InternalIP", "address": address}))},
        })];
        for name in NAMESPACES {
            let mut labels = self.labels.get(name).cloned().unwrap_or_else(|| json!({}));
            if let Some(mode) = self.modes.get(name) {
                labels["podfence.dev/mode"] = json!(mode);
            }
            let phase = if self.ending.contains(name) { "Terminating" } else { "Active" };
            let mut metadata = json!({"name": name, "labels": labels});
            if self.ending.contains(name) {
                metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            objects.push(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "status": {"phase": phase}}),
            );
        }
        objects.extend(self.pods.iter().map(|(number, pod)| pod.object(*number)));
        objects.extend(self.services.values().cloned());
        for ((staged, number), policy) in self.policies.iter().filter(|(_, policy)| is_shown(policy)) {
            let mut policy = policy.clone();
            policy["metadata"]["name"] = json!(format!("p{number}"));
            if *staged {
                policy["apiVersion"] = json!("podfence.dev/v1alpha1");
                policy["kind"] = json!("StagedNetworkPolicy");
            }
            objects.push(policy);
        }
        read(&objects.iter().map(|object| format!("---\n{object}\n")).collect::<String>())
    }
}

impl Pod {
    fn object(&self, number: usize) -> Value {
        let ips = [format!("10.0.0.{}", self.address + 1), format!("fd00::{}", self.address + 1)];
        let node = if self.here { NODE_NAME } else { "n2" };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod{number}"), "namespace": self.namespace, "uid": format!("uid{}", self.uid), "labels": self.labels},
            "spec": {"nodeName": node, "containers": [{"ports": self.ports}]},
            "status": {"phase": "Running", "podIP": ips[0], "podIPs": ips.map(|ip| json!({"ip": ip}))},
        })
    }
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or(DEFAULT)
}
