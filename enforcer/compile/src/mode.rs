//! The mode in effect of a pod: its namespace's label, or the installation's default, strengthened by
//! the labels of the workloads above it.

use crate::Warning;
use model::{
    cluster::{Cluster, Pod, WorkloadKey},
    labels::Labels,
};
use std::collections::BTreeSet;
use verdict::Mode;

/// The label that namespaces and workloads carry.
pub const MODE_LABEL: &str = "podfence.dev/mode";

/// Owners above a pod that are looked at; Kubernetes has two (ReplicaSet, Deployment), and a cycle has no end.
const MAX_OWNERS: usize = 8;

/// The mode of a pod. Labels that name no mode are ignored and reported. What a namespace or the default enforces
/// is `held` back to another mode where one is given; what a workload's own label says is not.
pub(crate) fn mode_of(
    cluster: &Cluster,
    pod: &Pod,
    default: Mode,
    held: Option<Mode>,
    warnings: &mut BTreeSet<Warning>,
) -> Mode {
    let namespace = cluster
        .namespaces
        .get(&pod.namespace)
        .and_then(|namespace| labelled(&namespace.labels, || format!("namespace/{}", pod.namespace), warnings));
    // The smaller number is the stronger mode.
    let mut mode = namespace.unwrap_or(default);
    if mode == Mode::Enforce
        && let Some(held) = held
    {
        mode = held;
    }
    let mut owner = pod.owner.as_ref();
    for _ in 0..MAX_OWNERS {
        let Some(above) = owner else { break };
        let key = WorkloadKey { namespace: pod.namespace.clone(), kind: above.kind.clone(), name: above.name.clone() };
        let Some(workload) = cluster.workloads.get(&key) else { break };
        let object = || format!("{} {}/{}", key.kind, key.namespace, key.name);
        if let Some(stronger) = labelled(&workload.labels, object, warnings) {
            mode = mode.min(stronger);
        }
        owner = workload.owner.as_ref();
    }
    // A bare pod is its own workload object.
    if pod.owner.is_none()
        && let Some(stronger) = labelled(&pod.labels, || format!("Pod {}/{}", pod.namespace, pod.name), warnings)
    {
        mode = mode.min(stronger);
    }
    mode
}

fn labelled(labels: &Labels, object: impl Fn() -> String, warnings: &mut BTreeSet<Warning>) -> Option<Mode> {
    let value = labels.get(MODE_LABEL)?;
    match value.as_str() {
        "learn" => Some(Mode::Learn),
        "audit" => Some(Mode::Audit),
        "enforce" => Some(Mode::Enforce),
        _ => {
            warnings.insert(Warning::UnknownMode { object: object(), value: value.clone() });
            None
        }
    }
}
