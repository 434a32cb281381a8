//! Whose a pod is: from pod to root owner, and the selector that a policy for that owner uses.
//!
//! Always holds: no selector names a label that changes from one pod, revision or run of a workload
//! to the next.

use crate::{
    cluster::{Cluster, Mode, Owner, Pod, WorkloadKey},
    labels::{Labels, Selector},
};
use std::collections::{BTreeMap, BTreeSet};

/// The label that sets the mode, on a namespace or a workload.
pub const MODE_LABEL: &str = "podfence.dev/mode";

/// Owners of owners end here: Kubernetes has three levels at most, a cycle would have no end.
const MAX_LEVELS: usize = 8;

impl Cluster {
    /// The topmost owner of a pod: Deployment, CronJob, StatefulSet, DaemonSet, a custom
    /// controller, or the pod itself.
    pub fn root_owner(&self, pod: &Pod) -> WorkloadKey {
        let Some(owner) = &pod.owner else {
            return WorkloadKey { namespace: pod.namespace.clone(), kind: "Pod".to_owned(), name: pod.name.clone() };
        };
        let mut key = key_of(&pod.namespace, owner);
        for _ in 0..MAX_LEVELS {
            match self.workloads.get(&key).or_else(|| self.past.workloads.get(&key)) {
                Some(workload) => match &workload.owner {
                    Some(above) => key = key_of(&pod.namespace, above),
                    None => break,
                },
                None => return self.vanished_owner(key, pod),
            }
        }
        key
    }

    /// Every root owner with its pods, in order; one pass over all pods.
    pub fn pods_by_root_owner(&self) -> BTreeMap<WorkloadKey, Vec<&Pod>> {
        let mut all: BTreeMap<WorkloadKey, Vec<&Pod>> = BTreeMap::new();
        for pod in &self.pods {
            all.entry(self.root_owner(pod)).or_default().push(pod);
        }
        all
    }

    /// The pods of one root owner, in the cluster's order.
    pub fn pods_of(&self, key: &WorkloadKey) -> Vec<&Pod> {
        self.pods.iter().filter(|pod| pod.namespace == key.namespace && self.root_owner(pod) == *key).collect()
    }

    /// What a policy selects a workload's pods by: its `spec.selector`; of a Job or CronJob the
    /// labels of its pod template, of anything else (a custom controller, say) the labels that its
    /// pods share over time, without those that mean one pod, revision or run. `None` when nothing
    /// stable is left.
    pub fn selector_of(&self, key: &WorkloadKey) -> Option<Selector> {
        let workload = self.workloads.get(key);
        if let Some(selector) = workload.and_then(|w| w.selector.clone()) {
            return Some(selector);
        }
        let (labels, passing) = match workload {
            Some(workload) if !workload.template_labels.is_empty() => {
                (workload.template_labels.clone(), BTreeSet::new())
            }
            _ => {
                let pods = self.pods_of(key);
                (shared_labels(&pods), self.passing_labels(key, &pods))
            }
        };
        let stable = labels.into_iter().filter(|(name, _)| is_stable(name) && !passing.contains(name));
        let stable: Labels = stable.collect();
        (!stable.is_empty()).then(|| Selector::of(stable))
    }

    /// Labels of its pods that mean one pod, revision or run of a workload, whatever they are called: their value
    /// is the name or UID of a pod or of something that stands between it and its root owner, or what
    /// such a name adds to its owner's.
    pub fn passing_labels(&self, key: &WorkloadKey, pods: &[&Pod]) -> BTreeSet<String> {
        let mut passing = BTreeSet::new();
        for pod in pods {
            let own = [(pod.name.as_str(), pod.uid.as_str())];
            let owners = self.owners(pod);
            let between = owners.iter().filter(|(owner, _)| owner != key);
            let names: Vec<(&str, &str)> =
                between.map(|(owner, uid)| (owner.name.as_str(), uid.as_str())).chain(own).collect();
            for (label, value) in &pod.labels {
                let is_suffix = |name: &str| {
                    let rest = name.strip_prefix(key.name.as_str()).and_then(|rest| rest.strip_prefix('-'));
                    rest.is_some_and(|rest| rest.split('-').any(|part| part == value))
                };
                // A bare pod's name may well be what it is called by.
                let is_own = pod.owner.is_none();
                if !is_own
                    && !value.is_empty()
                    && names.iter().any(|(name, uid)| name == value || uid == value || is_suffix(name))
                {
                    passing.insert(label.clone());
                }
            }
        }
        passing
    }

    /// The owners of a pod from its own to the topmost that is known, with their UIDs.
    fn owners(&self, pod: &Pod) -> Vec<(WorkloadKey, String)> {
        let mut owners: Vec<(WorkloadKey, String)> = Vec::new();
        let mut next = pod.owner.as_ref();
        while let Some(owner) = next.take().filter(|_| owners.len() < MAX_LEVELS) {
            let key = key_of(&pod.namespace, owner);
            next = self.workloads.get(&key).or_else(|| self.past.workloads.get(&key)).and_then(|w| w.owner.as_ref());
            owners.push((key, owner.uid.clone()));
        }
        owners
    }

    /// The mode of a pod: its namespace's label or else `default`, strengthened (never weakened)
    /// by the label of its root owner.
    pub fn mode(&self, pod: &Pod, default: Mode) -> Mode {
        let labelled = |labels: &Labels| labels.get(MODE_LABEL).and_then(|mode| mode.parse::<Mode>().ok());
        let floor = self.namespaces.get(&pod.namespace).and_then(|n| labelled(&n.labels)).unwrap_or(default);
        let own = match &pod.owner {
            None => labelled(&pod.labels),
            Some(_) => self.workloads.get(&self.root_owner(pod)).and_then(|w| labelled(&w.labels)),
        };
        own.map_or(floor, |mode| mode.max(floor))
    }

    /// An owner that is not in the inventory (any more). A ReplicaSet's or Job's name still tells
    /// what made it.
    fn vanished_owner(&self, key: WorkloadKey, pod: &Pod) -> WorkloadKey {
        let above = match key.kind.as_str() {
            "ReplicaSet" => pod
                .labels
                .get("pod-template-hash")
                .and_then(|hash| key.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
                .map(|name| ("Deployment", name)),
            "Job" => key
                .name
                .rsplit_once('-')
                .filter(|(_, minute)| !minute.is_empty() && minute.bytes().all(|b| b.is_ascii_digit()))
                .map(|(name, _)| ("CronJob", name)),
            _ => None,
        };
        let Some((kind, name)) = above.filter(|(_, name)| !name.is_empty()) else { return key };
        let above = WorkloadKey { namespace: key.namespace.clone(), kind: kind.to_owned(), name: name.to_owned() };
        // Any Job may end in a number: only a CronJob that exists vouches for the name.
        if kind == "CronJob" && !self.workloads.contains_key(&above) { key } else { above }
    }
}

pub(crate) fn key_of(namespace: &str, owner: &Owner) -> WorkloadKey {
    WorkloadKey { namespace: namespace.to_owned(), kind: owner.kind.clone(), name: owner.name.clone() }
}

fn shared_labels(pods: &[&Pod]) -> Labels {
    let Some((first, rest)) = pods.split_first() else { return Labels::new() };
    let shared = first.labels.iter().filter(|(name, value)| rest.iter().all(|p| p.labels.get(*name) == Some(*value)));
    shared.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether a label means the workload rather than one pod, revision, run or place of it.
pub fn is_stable(label: &str) -> bool {
    const CHANGING: [&str; 11] = [
        "controller-uid",
        "job-name",
        "pod-template-hash",
        "rollouts-pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "kubernetes.io/hostname",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
    !CHANGING.contains(&label) && !matches!(prefix, "batch.kubernetes.io" | "topology.kubernetes.io" | "podfence.dev")
}
