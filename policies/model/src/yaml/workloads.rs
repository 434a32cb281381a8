//! Controllers of pods.

use super::{
    ReadError,
    field::{Field, Object},
    network_policy::selector,
    objects::{container_ports, labels_with_mode, owner},
};
use crate::{
    cluster::{Workload, WorkloadKey},
    history::Entry,
    labels::Selector,
};

pub(super) fn read(object: &Object<'_>) -> Result<Entry, ReadError> {
    let root = object.root();
    let (metadata, spec) = (root.at("metadata")?, root.at("spec")?);
    let job_template = spec.at("jobTemplate")?;
    let job_spec = job_template.at("spec")?;
    let template = if object.kind == "CronJob" { job_spec.at("template")? } else { spec.at("template")? };
    let pod_metadata = template.at("metadata")?;
    let pod_spec = template.at("spec")?;
    let own_selector = spec.at("selector")?;
    let selector = match object.kind {
        // A Job's selects one run by its controller-uid.
        "Job" | "CronJob" => None,
        "ReplicationController" => {
            own_selector.is_there().then(|| own_selector.labels()).transpose()?.map(Selector::of)
        }
        _ => selector(&own_selector)?,
    };
    let replicas = spec.at("replicas")?;
    let replicas = match replicas.whole()? {
        None => 1,
        Some(n) => {
            u32::try_from(n).map_err(|_| replicas.wrong(format_args!("{n} is no number of replicas; use 0 or more")))?
        }
    };
    let workload = Workload {
        // A ReplicaSet or Job that another object made has copies of the pod template's labels.
        labels: labels_with_mode(&metadata)?,
        annotations: metadata.at("annotations")?.labels()?,
        selector,
        template_labels: pod_metadata.at("labels")?.labels()?,
        template_ports: container_ports(&pod_spec)?,
        host_network: pod_spec.at("hostNetwork")?.flag()?,
        replicas,
        finished: object.kind == "Job" && finished(&root.at("status")?)?,
        owner: owner(&metadata)?,
        source: Some(object.source()),
    };
    let key =
        WorkloadKey { namespace: object.namespace.clone(), kind: object.kind.to_owned(), name: object.name.clone() };
    Ok(Entry::Workload(key, workload))
}

/// Whether a Job's status says that it will not run again.
fn finished(status: &Field<'_>) -> Result<bool, ReadError> {
    for condition in status.at("conditions")?.items()? {
        let ends = matches!(condition.at("type")?.text()?, Some("Complete" | "Failed"));
        if ends && condition.at("status")?.text()? == Some("True") {
            return Ok(true);
        }
    }
    Ok(false)
}
