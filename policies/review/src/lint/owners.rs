//! Workloads whose selectors reach into each other.

use super::{Found, Subject, kinds, some_of};
use model::cluster::{Pod, WorkloadKey};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) fn look(subject: &Subject<'_, '_>, found: &mut Found) {
    let cluster = subject.input.cluster;
    let mut by_namespace: HashMap<&str, Vec<(&Pod, WorkloadKey)>> = HashMap::new();
    for (pod, _) in subject.universe.pods(0) {
        by_namespace.entry(&pod.namespace).or_default().push((pod, cluster.root_owner(pod)));
    }
    let mut told: BTreeSet<(WorkloadKey, WorkloadKey)> = BTreeSet::new();
    for (key, workload) in &cluster.workloads {
        // What another owns is told of at its owner.
        let Some(selector) = workload.selector.as_ref().filter(|_| workload.owner.is_none()) else { continue };
        let mut others: BTreeMap<&WorkloadKey, &Pod> = BTreeMap::new();
        for (pod, owner) in by_namespace.get(key.namespace.as_str()).into_iter().flatten() {
            if owner != key && selector.matches(&pod.labels) {
                others.entry(owner).or_insert(pod);
            }
        }
        // Where both reach into each other, it is said once.
        others.retain(|other, _| !told.contains(&((*other).clone(), key.clone())));
        if others.is_empty() {
            continue;
        }
        told.extend(others.keys().map(|other| (key.clone(), (*other).clone())));
        let names: Vec<String> = others.keys().map(|other| format!("{} {}", other.kind, other.name)).collect();
        let what = format!("its selector {selector} also matches pods of {}", some_of(&names, 3));
        let object = format!("{} {}/{}", key.kind, key.namespace, key.name);
        found.object(kinds::OWNERS, object, workload.source.as_ref(), what).field = "spec.selector".to_owned();
    }
}
