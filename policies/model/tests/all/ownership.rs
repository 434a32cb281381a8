//! Whose a pod is, what selects it, and in which mode it is.

use crate::cluster;
use model::cluster::{Cluster, Mode, WorkloadKey};

const WORLD: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {podfence.dev/mode: audit}}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: a, labels: {podfence.dev/mode: enforce}}
  spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web, x: '1'}}}}
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata: {name: web-abc, namespace: a, ownerReferences: [{kind: Deployment, name: web, controller: true}]}
  spec: {selector: {matchLabels: {app: web, pod-template-hash: abc}}}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: tidy, namespace: a, labels: {podfence.dev/mode: learn}}
  spec:
    jobTemplate:
      spec: {template: {metadata: {labels: {app: tidy, job-name: x, batch.kubernetes.io/job-name: x}}}}
- apiVersion: batch/v1
  kind: Job
  metadata: {name: tidy-1, namespace: a, ownerReferences: [{kind: CronJob, name: tidy, controller: true}]}
  spec: {selector: {matchLabels: {controller-uid: u}}}
- {apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: a, labels: {app: web}, ownerReferences: [{kind: ReplicaSet, name: web-abc, controller: true}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: old-1, namespace: a, labels: {app: old, pod-template-hash: '77'}, ownerReferences: [{kind: ReplicaSet, name: old-77, controller: true}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: tidy-1-x, namespace: a, labels: {app: tidy, controller-uid: u}, ownerReferences: [{kind: Job, name: tidy-1, controller: true}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: tidy-29-x, namespace: a, labels: {app: tidy}, ownerReferences: [{kind: Job, name: tidy-29, controller: true}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: once-1-x, namespace: a, labels: {app: once}, ownerReferences: [{kind: Job, name: once-1, controller: true}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: bare, namespace: a, labels: {app: bare, podfence.dev/mode: enforce}}}
- {apiVersion: v1, kind: Pod, metadata: {name: r-0, namespace: a, labels: {app: r, shard: '0', topology.kubernetes.io/zone: z}, ownerReferences: [{kind: Rollout, name: r, controller: true}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: r-1, namespace: a, labels: {app: r, shard: '1', topology.kubernetes.io/zone: z}, ownerReferences: [{kind: Rollout, name: r, controller: true}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: nameless, namespace: a, labels: {pod-template-hash: x}}}
- {apiVersion: v1, kind: Pod, metadata: {name: other, namespace: b}}
";

fn owner(cluster: &Cluster, pod: &str) -> String {
    cluster.root_owner(cluster.pods.iter().find(|p| p.name == pod).expect("a pod of the world")).to_string()
}

fn key(kind: &str, name: &str) -> WorkloadKey {
    WorkloadKey { namespace: "a".to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

#[test]
fn the_root_owner_is_the_topmost_one() {
    let cluster = cluster(WORLD);
    let table = [
        ("web-1", "a/Deployment/web"),
        ("tidy-1-x", "a/CronJob/tidy"),
        ("bare", "a/Pod/bare"),
        ("r-0", "a/Rollout/r"),
        // Their ReplicaSet and Job are gone; the CronJob is there, one named `once` is not.
        ("old-1", "a/Deployment/old"),
        ("tidy-29-x", "a/CronJob/tidy"),
        ("once-1-x", "a/Job/once-1"),
    ];
    for (pod, expected) in table {
        assert_eq!(owner(&cluster, pod), expected);
    }
}

#[test]
fn owners_in_a_circle_end() {
    let circle = |name: &str, owner: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: a, \
             ownerReferences: [{{kind: Deployment, name: {owner}, controller: true}}]}}\n---\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a, ownerReferences: [{kind: Deployment, name: x, controller: true}]}\n";
    let cluster = cluster(&format!("{}{}{pod}", circle("x", "z"), circle("z", "x")));
    assert!(owner(&cluster, "p").starts_with("a/Deployment/"));
}

#[test]
fn a_policys_selector_is_the_root_owners_and_never_a_changing_label() {
    let cluster = cluster(WORLD);
    let table = [
        (key("Deployment", "web"), Some("app=web")),
        (key("CronJob", "tidy"), Some("app=tidy")),
        (key("Pod", "bare"), Some("app=bare")),
        (key("Rollout", "r"), Some("app=r")),
        (key("Deployment", "old"), Some("app=old")),
        (key("Pod", "nameless"), None),
        (key("Deployment", "absent"), None),
    ];
    for (workload, expected) in table {
        assert_eq!(cluster.selector_of(&workload).map(|s| s.to_string()).as_deref(), expected, "{workload}");
    }
}

#[test]
fn pods_are_found_by_their_root_owner() {
    let cluster = cluster(WORLD);
    let names: Vec<_> = cluster.pods_of(&key("CronJob", "tidy")).iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["tidy-1-x", "tidy-29-x"]);
    let all = cluster.pods_by_root_owner();
    assert_eq!(all.values().map(Vec::len).sum::<usize>(), cluster.pods.len());
    assert_eq!(all[&key("CronJob", "tidy")].len(), 2);
}

#[test]
fn a_workload_strengthens_its_namespaces_mode_and_never_weakens_it() {
    let cluster = cluster(WORLD);
    let mode = |pod: &str, default| {
        cluster.mode(cluster.pods.iter().find(|p| p.name == pod).expect("a pod of the world"), default)
    };
    assert_eq!(mode("web-1", Mode::Learn), Mode::Enforce, "strengthened");
    assert_eq!(mode("tidy-1-x", Mode::Learn), Mode::Audit, "not weakened");
    assert_eq!(mode("old-1", Mode::Enforce), Mode::Audit, "the namespace's label, not the default");
    assert_eq!(mode("bare", Mode::Learn), Mode::Enforce, "a bare pod is its own workload");
    assert_eq!(mode("other", Mode::Learn), Mode::Learn);
    assert_eq!(mode("other", Mode::Enforce), Mode::Enforce);
}
