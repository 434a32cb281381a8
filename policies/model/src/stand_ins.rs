//! Who can be at an end of a connection now: the pods that live, and for a workload that has none
//! the pod its template would make.
//!
//! Always holds: a workload has living pods or one stand-in for each template it would run now,
//! never both; a stand-in has no address, and its root owner is that of the pods its workload would
//! have.

use crate::{
    cluster::{Cluster, Owner, Pod, Workload, WorkloadKey},
    ownership::key_of,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// How the UID of a stand-in begins; the API server's are no paths.
pub(crate) const STAND_IN: &str = "stand-in/";

impl Pod {
    /// Whether it runs or will, as far as its object tells: not completed, not deleted. A manifest
    /// without a status lives.
    pub fn lives(&self) -> bool {
        !self.completed && self.ended.is_none()
    }

    /// Whether it is a workload's template rather than a pod ([`Cluster::stand_ins`]).
    pub fn is_stand_in(&self) -> bool {
        self.uid.starts_with(STAND_IN)
    }
}

impl Cluster {
    /// A pod for each workload whose root owner has none that lives, in order of namespace and
    /// name, then kind: named as the workload, with its template's labels and ports and its place in
    /// the input, without addresses and node. A workload whose owner is in the input has none of its
    /// own; of several that one absent owner made, those with replicas count. Replicas of 0 else
    /// change nothing. A Job that ran to its end has none, a CronJob has.
    pub fn stand_ins(&self) -> Vec<Pod> {
        let living: BTreeSet<WorkloadKey> =
            self.pods.iter().filter(|p| p.lives()).map(|p| self.root_owner(p)).collect();
        let over = self.jobs_over();
        let mut by_root: BTreeMap<WorkloadKey, Vec<(&Workload, Pod)>> = BTreeMap::new();
        for (key, workload) in &self.workloads {
            let is_child =
                workload.owner.as_ref().is_some_and(|o| self.workloads.contains_key(&key_of(&key.namespace, o)));
            if is_child || over.contains(key) {
                continue;
            }
            let pod = stand_in(key, workload);
            let root = self.root_owner(&pod);
            if !living.contains(&root) {
                by_root.entry(root).or_default().push((workload, pod));
            }
        }
        let mut all: Vec<Pod> = by_root.into_values().flat_map(in_use).collect();
        all.sort_by(|a, b| order(a).cmp(&order(b)));
        all
    }

    /// Everyone who can be at an end of a connection now: the pods that live and the stand-ins, in
    /// order of namespace, name and start. Pods of the host network are among them.
    pub fn ends(&self) -> Vec<Cow<'_, Pod>> {
        let living = self.pods.iter().filter(|pod| pod.lives()).map(Cow::Borrowed);
        let mut all: Vec<Cow<'_, Pod>> = living.chain(self.stand_ins().into_iter().map(Cow::Owned)).collect();
        all.sort_by(|a, b| order(a).cmp(&order(b)));
        all
    }

    /// Jobs that will not run again: their status says so, or all their pods are completed.
    fn jobs_over(&self) -> BTreeSet<WorkloadKey> {
        let mut jobs: BTreeMap<WorkloadKey, bool> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(owner) = pod.owner.as_ref().filter(|owner| owner.kind == "Job") {
                *jobs.entry(key_of(&pod.namespace, owner)).or_insert(true) &= pod.completed;
            }
        }
        let by_pods = jobs.into_iter().filter(|(_, all_completed)| *all_completed).map(|(key, _)| key);
        let by_status = self.workloads.iter().filter(|(_, workload)| workload.finished).map(|(key, _)| key.clone());
        by_pods.chain(by_status).collect()
    }
}

/// Of what one absent owner made, the revisions in use: it scales its old ones to none.
fn in_use(made: Vec<(&Workload, Pod)>) -> impl Iterator<Item = Pod> {
    let some_run = made.iter().any(|(workload, _)| workload.replicas > 0);
    made.into_iter().filter(move |(workload, _)| !some_run || workload.replicas > 0).map(|(_, pod)| pod)
}

fn order(pod: &Pod) -> impl Ord + '_ {
    (&pod.namespace, &pod.name, pod.started, &pod.uid)
}

fn stand_in(key: &WorkloadKey, workload: &Workload) -> Pod {
    Pod {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: format!("{STAND_IN}{}/{}/{}", key.kind, key.namespace, key.name),
        labels: workload.template_labels.clone(),
        host_network: workload.host_network,
        ports: workload.template_ports.clone(),
        owner: Some(Owner { kind: key.kind.clone(), name: key.name.clone(), uid: String::new() }),
        source: workload.source.clone(),
        ..Pod::default()
    }
}
