//! What Kubernetes' controllers would have made of the scenario by now: pods with names, owners, addresses and times,
//! those that ended among them. A plain value: it makes nothing happen.
//!
//! Always holds: no two pods hold an address at the same time, and a pod's time begins after the one before it ended.

use crate::{
    names,
    objects::Template,
    scenario::{NodePlan, Scenario},
};
use jiff::Timestamp;
use model::cluster::{Service, WorkloadKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A pod of the lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its root owner.
    pub workload: WorkloadKey,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its link at the node.
    pub link: String,
    /// Its network namespace's name.
    pub netns: String,
    /// Since when it holds its addresses.
    pub started: Timestamp,
    /// Until when, and how it ended; `None`: it holds them still.
    pub ended: Option<Ended>,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    spec: Map<String, Value>,
    owner: Option<Value>,
}

/// How and when a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When it no longer held its addresses.
    pub at: Timestamp,
    /// How.
    pub how: Ending,
}

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It was deleted.
    Deleted,
    /// Its job is done.
    Succeeded,
}

impl LabPod {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether a Service of this namespace leads to it.
    pub(crate) fn is_behind(&self, namespace: &str, service: &Service) -> bool {
        let label = |key: &str| self.labels.get(key).and_then(Value::as_str);
        self.namespace == namespace
            && !service.selector.is_empty()
            && service.selector.iter().all(|(key, value)| label(key) == Some(value))
    }
}

/// Everything the controllers made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) pods: Vec<LabPod>,
    /// ReplicaSets and Jobs.
    owners: Vec<Value>,
    /// Pods ever made, by workload.
    made: BTreeMap<String, u32>,
    /// Addresses ever given out.
    given: u32,
    /// Pods that are about to end: they hold their addresses, and nobody calls them any more.
    pub(crate) leaving: BTreeSet<String>,
}

impl World {
    /// Pods that serve and call.
    pub(crate) fn living(&self) -> impl Iterator<Item = &LabPod> {
        self.pods.iter().filter(|pod| pod.ended.is_none() && !self.leaving.contains(&pod.uid))
    }

    pub(crate) fn living_of<'a>(&'a self, workload: &'a WorkloadKey) -> impl Iterator<Item = &'a LabPod> {
        self.living().filter(move |pod| pod.workload == *workload)
    }

    fn held(&self, addresses: &[IpAddr]) -> bool {
        let mut holders = self.pods.iter().filter(|pod| pod.ended.is_none());
        holders.any(|pod| pod.addresses.iter().any(|ip| addresses.contains(ip)))
    }

    /// Says that a pod no longer holds its addresses.
    pub(crate) fn end(&mut self, uid: &str, how: Ending) {
        let at = Timestamp::now();
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod.uid == uid && pod.ended.is_none()) {
            pod.ended = Some(Ended { at, how });
        }
        self.leaving.remove(uid);
    }

    /// Makes the next pod of a workload, with these addresses or fresh ones. `None` when another pod holds one of these,
    /// or the node has none left.
    pub(crate) fn add(
        &mut self,
        scenario: &Scenario,
        prefix: &str,
        workload: &WorkloadKey,
        addresses: Option<Vec<IpAddr>>,
    ) -> Option<LabPod> {
        let template = &scenario.workloads.get(workload)?.template;
        let addresses = match addresses {
            Some(addresses) if self.held(&addresses) => return None,
            Some(addresses) => addresses,
            None => {
                self.given += 1;
                fresh_addresses(&scenario.node, self.given)?
            }
        };
        let made = self.made.entry(format!("{}/{}/{}", workload.namespace, workload.kind, workload.name)).or_default();
        let ordinal = *made;
        *made += 1;
        let identity = self.identity(workload, template, ordinal);
        let uid = names::uid(&["pod", &workload.namespace, &identity.name, &ordinal.to_string()]);
        let mut labels = template.labels.clone();
        labels.extend(identity.labels);
        let mut spec = template.spec.clone();
        spec.insert("nodeName".to_owned(), json!(scenario.node.name));
        let pod = LabPod {
            namespace: workload.namespace.clone(),
            link: format!("veth{}", names::hex(&["link", &uid], 8)),
            netns: format!("{prefix}{}.{}", workload.namespace, identity.name),
            name: identity.name,
            uid,
            workload: workload.clone(),
            addresses,
            started: Timestamp::now(),
            ended: None,
            labels,
            annotations: template.annotations.clone(),
            spec,
            owner: identity.owner,
        };
        self.pods.push(pod.clone());
        Some(pod)
    }

    /// What the workload's controller calls its pod, and what it adds to it.
    fn identity(&mut self, workload: &WorkloadKey, template: &Template, ordinal: u32) -> Identity {
        let WorkloadKey { namespace, kind, name } = workload;
        let count = ordinal.to_string();
        let short = names::suffix(&["pod", namespace, kind, name, &count], 5);
        let owner = owner_of(workload);
        let hash = |length| {
            names::suffix(&["template", namespace, name, &Value::Object(template.labels.clone()).to_string()], length)
        };
        match kind.as_str() {
            "Deployment" => {
                let hash = hash(10);
                let labels = labels([("pod-template-hash", hash.clone())]);
                let set = format!("{name}-{hash}");
                let owner = self.middle("apps/v1", "ReplicaSet", namespace, &set, &owner, template, &labels);
                Identity { name: format!("{set}-{short}"), labels, owner: Some(owner) }
            }
            "CronJob" => {
                // Kubernetes names a CronJob's Job by its scheduled minute since the epoch.
                let job = format!("{name}-{}", 29_000_000 + ordinal);
                let uid = names::uid(&["Job", namespace, &job]);
                let labels = job_labels(&job, &uid);
                let owner = self.middle("batch/v1", "Job", namespace, &job, &owner, template, &labels);
                Identity { name: format!("{job}-{short}"), labels, owner: Some(owner) }
            }
            "Job" => {
                let labels = job_labels(name, &names::uid(&["Job", namespace, name]));
                Identity { name: format!("{name}-{short}"), labels, owner: Some(owner) }
            }
            "StatefulSet" => {
                // Nothing else but a pod of the same ordinal replaces one.
                let pod = format!("{name}-{ordinal}");
                let labels = labels([
                    ("apps.kubernetes.io/pod-index", count),
                    ("controller-revision-hash", format!("{name}-{}", hash(10))),
                    ("statefulset.kubernetes.io/pod-name", pod.clone()),
                ]);
                Identity { name: pod, labels, owner: Some(owner) }
            }
            "DaemonSet" => {
                let labels =
                    labels([("controller-revision-hash", hash(10)), ("pod-template-generation", "1".to_owned())]);
                Identity { name: format!("{name}-{short}"), labels, owner: Some(owner) }
            }
            "Pod" => Identity { name: name.clone(), labels: Map::new(), owner: None },
            _ => Identity { name: format!("{name}-{short}"), labels: Map::new(), owner: Some(owner) },
        }
    }

    /// The object between a workload and its pod; makes it when it is not there. Returns the reference to it.
    #[allow(clippy::too_many_arguments)]
    fn middle(
        &mut self,
        api: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        above: &Value,
        template: &Template,
        added: &Map<String, Value>,
    ) -> Value {
        let key = WorkloadKey { namespace: namespace.to_owned(), kind: kind.to_owned(), name: name.to_owned() };
        let is_it = |object: &Value| crate::objects::key_of(object) == key;
        if !self.owners.iter().any(is_it) {
            let mut labels = template.labels.clone();
            labels.extend(added.clone());
            self.owners.push(json!({
                "apiVersion": api,
                "kind": kind,
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": names::uid(&[kind, namespace, name]),
                    "labels": labels,
                    "ownerReferences": [above],
                },
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": template.spec},
                },
            }));
        }
        owner_of(&key)
    }

    /// Every object, as the API server would list them.
    pub(crate) fn objects(&self, scenario: &Scenario) -> Vec<Value> {
        let kept = scenario.objects.iter().filter(|object| object["kind"] != "Pod").cloned().map(with_uid);
        let owners = self.owners.iter().cloned();
        let mut pods: Vec<&LabPod> = self.pods.iter().collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name, a.started).cmp(&(&b.namespace, &b.name, b.started)));
        kept.chain(owners).chain(pods.into_iter().map(|pod| pod_object(pod, &scenario.node))).collect()
    }

    /// What the DNS server answers: Services by their addresses, headless ones by their living pods, outside
    /// hosts by themselves.
    pub(crate) fn records(&self, scenario: &Scenario) -> BTreeMap<String, Vec<IpAddr>> {
        let mut records: BTreeMap<String, Vec<IpAddr>> =
            scenario.outside.iter().map(|(name, addresses)| (format!("{name}."), addresses.clone())).collect();
        for ((namespace, name), service) in &scenario.cluster.services {
            let pods = self.living().filter(|pod| pod.is_behind(namespace, service));
            let addresses = match &service.cluster_ips[..] {
                [] => pods.flat_map(|pod| pod.addresses.iter().copied()).collect(),
                given => given.to_vec(),
            };
            records.insert(format!("{name}.{namespace}.svc.cluster.local."), addresses);
        }
        records
    }
}

struct Identity {
    name: String,
    labels: Map<String, Value>,
    owner: Option<Value>,
}

fn labels<const N: usize>(pairs: [(&str, String); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect()
}

fn job_labels(job: &str, uid: &str) -> Map<String, Value> {
    labels([
        ("batch.kubernetes.io/controller-uid", uid.to_owned()),
        ("batch.kubernetes.io/job-name", job.to_owned()),
        ("controller-uid", uid.to_owned()),
        ("job-name", job.to_owned()),
    ])
}

fn owner_of(key: &WorkloadKey) -> Value {
    let api = match key.kind.as_str() {
        "Job" | "CronJob" => "batch/v1",
        "ReplicationController" => "v1",
        _ => "apps/v1",
    };
    json!({
        "apiVersion": api,
        "kind": key.kind,
        "name": key.name,
        "uid": names::uid(&[&key.kind, &key.namespace, &key.name]),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A written object has no UID before an API server gives it one.
fn with_uid(mut object: Value) -> Value {
    let key = crate::objects::key_of(&object);
    let uid = names::uid(&[&key.kind, &key.namespace, &key.name]);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.entry("uid").or_insert(Value::String(uid));
    }
    object
}

/// The `n`th pod's addresses, the same place in both ranges; the first places are the node's own.
fn fresh_addresses(node: &NodePlan, n: u32) -> Option<Vec<IpAddr>> {
    let place = n + 1;
    let v4 = Ipv4Addr::from(u32::from(node.pods_v4.network()).checked_add(place)?);
    let v6 = Ipv6Addr::from(u128::from(node.pods_v6.network()).checked_add(u128::from(place))?);
    (node.pods_v4.contains(&v4) && v4 != node.pods_v4.broadcast()).then(|| vec![v4.into(), v6.into()])
}

fn pod_object(pod: &LabPod, node: &NodePlan) -> Value {
    let mut metadata = json!({
        "name": pod.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "labels": pod.labels,
        "creationTimestamp": pod.started.to_string(),
    });
    if !pod.annotations.is_empty() {
        metadata["annotations"] = Value::Object(pod.annotations.clone());
    }
    if let Some(owner) = &pod.owner {
        metadata["ownerReferences"] = json!([owner]);
    }
    let ips = |all: &[IpAddr]| all.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    let mut status = json!({
        "phase": "Running",
        "hostIP": node.addresses.first(),
        "hostIPs": ips(&node.addresses),
        "podIP": pod.addresses.first(),
        "podIPs": ips(&pod.addresses),
        "startTime": pod.started.to_string(),
    });
    let started = pod.started.to_string();
    let mut state = json!({"running": {"startedAt": started}});
    match pod.ended {
        Some(Ended { at, how: Ending::Deleted }) => metadata["deletionTimestamp"] = json!(at.to_string()),
        Some(Ended { at, how: Ending::Succeeded }) => {
            status["phase"] = json!("Succeeded");
            state = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": at.to_string()}});
        }
        None => {}
    }
    let containers = pod.spec.get("containers").and_then(Value::as_array).into_iter().flatten();
    let statuses: Vec<Value> = containers
        .map(|container| json!({"name": container["name"], "ready": pod.ended.is_none(), "state": state}))
        .collect();
    status["containerStatuses"] = Value::Array(statuses);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec, "status": status})
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn shop() -> Scenario {
        Scenario::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/examples/shop")).unwrap()
    }

    /// Adds a pod of the `n`th workload, now and then with the address of one that is or was there; or ends the `n`th
    /// pod.
    fn play(scenario: &Scenario, steps: &[(usize, bool)]) -> World {
        let mut world = World::default();
        let workloads: Vec<&WorkloadKey> = scenario.workloads.keys().collect();
        for (n, ends) in steps {
            let nth = world.pods.get(n % world.pods.len().max(1)).cloned();
            if *ends {
                let how = if n % 2 == 0 { Ending::Deleted } else { Ending::Succeeded };
                nth.into_iter().for_each(|pod| world.end(&pod.uid, how));
            } else {
                let addresses = nth.filter(|_| n % 3 == 0).map(|pod| pod.addresses);
                world.add(scenario, "pf-x.", workloads[n % workloads.len()], addresses);
            }
        }
        world
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_two_pods_hold_an_address_at_one_time(steps in prop::collection::vec((0usize..1000, any::<bool>()), 0..60)) {
            let scenario = shop();
            let world = play(&scenario, &steps);
            for a in &world.pods {
                for b in world.pods.iter().filter(|b| b.uid != a.uid && b.addresses == a.addresses) {
                    let apart = a.ended.is_some_and(|end| end.at <= b.started) || b.ended.is_some_and(|end| end.at <= a.started);
                    prop_assert!(apart, "{} and {}", a.full_name(), b.full_name());
                }
            }
            let uids: BTreeSet<&str> = world.pods.iter().map(|pod| pod.uid.as_str()).collect();
            let links: BTreeSet<&str> = world.pods.iter().map(|pod| pod.link.as_str()).collect();
            prop_assert_eq!(uids.len(), world.pods.len());
            prop_assert_eq!(links.len(), world.pods.len());
        }

        #[test]
        fn what_is_written_reads_back_as_the_same_pods(steps in prop::collection::vec((0usize..1000, any::<bool>()), 0..40)) {
            let scenario = shop();
            let world = play(&scenario, &steps);
            let text: String =
                world.objects(&scenario).iter().map(|o| format!("---\n{}", serde_saphyr::to_string(o).unwrap())).collect();
            let mut cluster = model::cluster::Cluster::default();
            model::yaml::read_into(&mut cluster, "cluster.yaml", &text).unwrap();
            prop_assert_eq!(cluster.pods.len(), world.pods.len());
            for read in &cluster.pods {
                let pod = world.pods.iter().find(|pod| pod.uid == read.uid).unwrap();
                prop_assert_eq!(&read.addresses, &pod.addresses);
                prop_assert_eq!(read.started, Some(pod.started));
                prop_assert_eq!(read.ended, pod.ended.map(|end| end.at));
                prop_assert_eq!(cluster.root_owner(read), pod.workload.clone());
                for (key, value) in &pod.labels {
                    prop_assert_eq!(read.labels.get(key).map(String::as_str), value.as_str());
                }
            }
        }
    }

    #[test]
    fn the_same_scenario_makes_the_same_names() {
        let scenario = shop();
        let steps: Vec<(usize, bool)> = (0..40).map(|n| (n * 7, n % 5 == 0)).collect();
        let names = |world: World| world.pods.into_iter().map(|pod| (pod.name, pod.uid, pod.link)).collect::<Vec<_>>();
        assert_eq!(names(play(&scenario, &steps)), names(play(&scenario, &steps)));
    }

    #[test]
    fn names_and_owners_are_as_kubernetes_makes_them() {
        let scenario = shop();
        let mut world = World::default();
        let mut made = |kind: &str, name: &str| {
            let key = scenario.workloads.keys().find(|key| key.kind == kind && key.name == name).unwrap().clone();
            let pod = world.add(&scenario, "pf-x.", &key, None).unwrap();
            let owner = pod.owner.as_ref().map_or("", |owner| owner["kind"].as_str().unwrap_or("")).to_owned();
            (pod.name.clone(), owner)
        };
        let parts = |name: &str| name.split('-').map(str::len).collect::<Vec<_>>();
        let (name, owner) = made("Deployment", "frontend");
        assert_eq!((parts(&name), owner.as_str()), (vec![8, 10, 5], "ReplicaSet"), "{name}");
        assert_eq!(made("StatefulSet", "orders-db"), ("orders-db-0".to_owned(), "StatefulSet".to_owned()));
        assert_eq!(made("StatefulSet", "orders-db").0, "orders-db-1");
        let (name, owner) = made("CronJob", "report");
        assert_eq!((parts(&name), owner.as_str()), (vec![6, 8, 5], "Job"), "{name}");
        let (name, owner) = made("DaemonSet", "events");
        assert_eq!((parts(&name), owner.as_str()), (vec![6, 5], "DaemonSet"), "{name}");
    }
}
