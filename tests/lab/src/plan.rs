//! What cluster.yaml asks the lab to make: one node, and workloads with their pods' templates.

use crate::{
    destination::{Family, is_name},
    error::Error,
    objects,
    scenario::{NodePlan, WorkloadPlan},
};
use model::cluster::{Cluster, WorkloadKey};
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// The workloads, each with its template.
pub(crate) fn workloads(
    file: &str,
    cluster: &Cluster,
    objects: &[Value],
) -> Result<BTreeMap<WorkloadKey, WorkloadPlan>, Error> {
    let mut all = BTreeMap::new();
    for object in objects {
        let Some(template) = objects::template_of(object) else { continue };
        let key = objects::key_of(object);
        let line = cluster.workloads.get(&key).and_then(|w| w.source.as_ref()).map_or(0, |at| u64::from(at.line));
        let named = format!("{} {}/{}", key.kind, key.namespace, key.name);
        // Names become names of namespaces and files.
        if ![&key.namespace, &key.name].into_iter().all(|name| is_name(name)) {
            let message = "is no name for an object; write lower-case letters, digits, `-` and `.`";
            return Err(Error::scenario(file, line, format!("{named}: metadata.name"), message));
        }
        if object.pointer("/metadata/ownerReferences").is_some() {
            let message = "has an owner; the lab makes what controllers own by itself, leave it out";
            return Err(Error::scenario(file, line, format!("{named}: metadata.ownerReferences"), message));
        }
        if template.spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
            let message = "the lab gives every pod a namespace of its own; leave hostNetwork out";
            return Err(Error::scenario(file, line, format!("{named}: spec.hostNetwork"), message));
        }
        let replicas = match key.kind.as_str() {
            // Their pods come and go as traffic.yaml's `jobs` say.
            "Job" | "CronJob" => 0,
            "Pod" | "DaemonSet" => 1,
            _ => cluster.workloads.get(&key).map_or(1, |workload| workload.replicas),
        };
        all.insert(key, WorkloadPlan { replicas, template });
    }
    Ok(all)
}

/// The one node.
pub(crate) fn node(file: &str, cluster: &Cluster) -> Result<NodePlan, Error> {
    let fail = |field: &str, message: String| Err(Error::scenario(file, 0, field, message));
    let mut nodes = cluster.nodes.iter();
    let (name, node) = match (nodes.next(), nodes.next()) {
        (Some(one), None) => one,
        (None, _) => return fail("Node", "none is there; write one with InternalIPs and podCIDRs".to_owned()),
        (Some(_), Some((second, _))) => {
            return fail("Node", format!("the lab has one node, and {second} is a second; leave it out"));
        }
    };
    let v4 = node.pod_cidrs.iter().find_map(|cidr| match cidr {
        ipnet::IpNet::V4(net) if net.prefix_len() <= 26 => Some(net.trunc()),
        _ => None,
    });
    let v6 = node.pod_cidrs.iter().find_map(|cidr| match cidr {
        ipnet::IpNet::V6(net) if net.prefix_len() <= 112 => Some(net.trunc()),
        _ => None,
    });
    let (Some(pods_v4), Some(pods_v6)) = (v4, v6) else {
        return fail(
            &format!("Node {name}: spec.podCIDRs"),
            "pods are dual-stack; write an IPv4 range of /26 or wider and an IPv6 one of /112 or wider".to_owned(),
        );
    };
    let addresses: Vec<IpAddr> = Family::BOTH.iter().filter_map(|family| family.pick(&node.addresses)).collect();
    if addresses.len() != 2 {
        return fail(
            &format!("Node {name}: status.addresses"),
            "write an InternalIP of each family, outside podCIDRs".to_owned(),
        );
    }
    Ok(NodePlan { name: name.clone(), addresses, pods_v4, pods_v6 })
}
