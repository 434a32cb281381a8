//! What podfence looks at, by kind: the rest of a JSON object is checked for its syntax and not kept.
//! YAML is read whole.
//!
//! Always holds: where a field is looked at that is missing here, the whole object is read again with
//! everything; it is never taken for absent.

/// Which fields of a value are read; the items of a list have their list's.
pub(super) enum Shape {
    /// Everything.
    Whole,
    /// These fields of a map, and everything that is no map.
    Fields(&'static [(&'static str, Shape)]),
}

use Shape::{Fields, Whole};

impl Shape {
    /// How a field is read; `None`: not at all.
    pub(super) fn below(&self, key: &str) -> Option<&Shape> {
        match self {
            Whole => Some(self),
            Fields(fields) => fields.iter().find(|(name, _)| *name == key).map(|(_, shape)| shape),
        }
    }

    /// How an object of this kind is read.
    pub(super) fn of(kind: &str) -> &'static Shape {
        match kind {
            "Pod" => &POD,
            "CronJob" => &CRON_JOB,
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => &WORKLOAD,
            "Node" => &NODE,
            "Namespace" | "Service" => &Whole,
            "EndpointSlice" => &ENDPOINT_SLICE,
            _ => &HEAD,
        }
    }
}

/// What says what an object is.
pub(super) const HEAD: Shape = Fields(&[("apiVersion", Whole), ("kind", Whole)]);

const OBJECT_META: Shape = Fields(&[
    ("annotations", Whole),
    ("creationTimestamp", Whole),
    ("deletionTimestamp", Whole),
    ("labels", Whole),
    ("name", Whole),
    ("namespace", Whole),
    ("ownerReferences", Whole),
    ("uid", Whole),
]);

const CONTAINER: Shape = Fields(&[("ports", Whole), ("restartPolicy", Whole)]);
const POD_SPEC: Shape =
    Fields(&[("containers", CONTAINER), ("hostNetwork", Whole), ("initContainers", CONTAINER), ("nodeName", Whole)]);
const CONTAINER_STATUS: Shape = Fields(&[(
    "state",
    Fields(&[
        ("running", Fields(&[("startedAt", Whole)])),
        ("terminated", Fields(&[("finishedAt", Whole), ("startedAt", Whole)])),
    ]),
)]);
const POD_STATUS: Shape = Fields(&[
    ("containerStatuses", CONTAINER_STATUS),
    ("initContainerStatuses", CONTAINER_STATUS),
    ("phase", Whole),
    ("podIP", Whole),
    ("podIPs", Whole),
    ("startTime", Whole),
]);
const POD: Shape = Fields(&[("metadata", OBJECT_META), ("spec", POD_SPEC), ("status", POD_STATUS)]);

const TEMPLATE: Shape = Fields(&[("metadata", OBJECT_META), ("spec", POD_SPEC)]);
const WORKLOAD_SPEC: Shape = Fields(&[("replicas", Whole), ("selector", Whole), ("template", TEMPLATE)]);
const CONDITION: Shape = Fields(&[("status", Whole), ("type", Whole)]);
const WORKLOAD: Shape =
    Fields(&[("metadata", OBJECT_META), ("spec", WORKLOAD_SPEC), ("status", Fields(&[("conditions", CONDITION)]))]);
const CRON_JOB: Shape = Fields(&[
    ("metadata", OBJECT_META),
    ("spec", Fields(&[("jobTemplate", Fields(&[("spec", WORKLOAD_SPEC)])), ("replicas", Whole), ("selector", Whole)])),
    ("status", Fields(&[("conditions", CONDITION)])),
]);

const ENDPOINT_SLICE: Shape = Fields(&[
    ("addressType", Whole),
    ("endpoints", Fields(&[("addresses", Whole)])),
    ("metadata", OBJECT_META),
    ("ports", Whole),
]);

const NODE: Shape = Fields(&[
    ("metadata", OBJECT_META),
    ("spec", Fields(&[("podCIDR", Whole), ("podCIDRs", Whole)])),
    ("status", Fields(&[("addresses", Whole)])),
]);
