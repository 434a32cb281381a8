//! Who can be at an end of a connection now.

use crate::cluster;
use model::cluster::Cluster;

/// A workload, its status or the rest of its spec in `more`.
fn workload(api: &str, kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: a}}\n{spec}\n---\n")
}

fn template(app: &str) -> String {
    format!(
        "template: {{metadata: {{labels: {{app: {app}}}}}, spec: {{containers: [{{ports: [{{containerPort: 80, name: http}}]}}]}}}}"
    )
}

fn pod(name: &str, owner: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: a, ownerReferences: [{{{owner}, controller: true}}]}}\n{rest}\n---\n"
    )
}

/// `owner: stand-in` for each.
fn stand_ins(cluster: &Cluster) -> Vec<String> {
    cluster.stand_ins().iter().map(|pod| format!("{}: {}", cluster.root_owner(pod), pod.name)).collect()
}

#[test]
fn a_template_stands_for_a_workload_without_pods() {
    let kinds = [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
    ];
    for (api, kind) in kinds {
        let cluster = cluster(&workload(api, kind, "w", &format!("spec: {{replicas: 0, {}}}", template("web"))));
        let [pod] = &cluster.stand_ins()[..] else { panic!("{kind}") };
        assert_eq!(cluster.root_owner(pod).to_string(), format!("a/{kind}/w"));
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("a", "w"));
        assert_eq!(pod.uid, format!("stand-in/{kind}/a/w"));
        assert_eq!(pod.labels["app"], "web");
        assert_eq!(pod.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [80]);
        assert_eq!(pod.source.as_ref().map(|s| s.line), Some(1));
        assert!(pod.is_stand_in() && pod.lives() && pod.addresses.is_empty() && pod.node.is_empty());
    }
    let cron =
        workload("batch/v1", "CronJob", "w", &format!("spec: {{jobTemplate: {{spec: {{{}}}}}}}", template("web")));
    let cluster = cluster(&cron);
    assert_eq!(stand_ins(&cluster), ["a/CronJob/w: w"]);
    assert_eq!(cluster.stand_ins()[0].labels["app"], "web");
}

#[test]
fn the_host_network_of_a_template_is_the_stand_ins() {
    let cluster = cluster(&workload("apps/v1", "DaemonSet", "w", "spec: {template: {spec: {hostNetwork: true}}}"));
    assert!(cluster.stand_ins()[0].host_network);
}

#[test]
fn only_a_pod_that_lives_takes_a_stand_ins_place() {
    let web = workload("apps/v1", "Deployment", "web", &format!("spec: {{{}}}", template("web")));
    let set = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: web-1, namespace: a, \
               ownerReferences: [{kind: Deployment, name: web, controller: true}]}\nspec: {}\n---\n";
    let of_set = |rest: &str| pod("web-1-x", "kind: ReplicaSet, name: web-1", rest);
    let table = [
        (of_set("status: {phase: Running}"), &[][..]),
        (of_set(""), &[][..]),
        (of_set("status: {phase: Pending}"), &[][..]),
        (of_set("status: {phase: Failed}"), &["a/Deployment/web: web"][..]),
        (of_set("status: {phase: Succeeded}"), &["a/Deployment/web: web"][..]),
        (
            of_set("").replace("controller: true}]", "controller: true}], deletionTimestamp: '2026-01-02T03:05:00Z'"),
            &["a/Deployment/web: web"][..],
        ),
        (String::new(), &["a/Deployment/web: web"][..]),
    ];
    for (pod, expected) in table {
        assert_eq!(stand_ins(&cluster(&format!("{web}{set}{pod}"))), expected, "{pod}");
    }
}

#[test]
fn a_job_that_ran_to_its_end_does_not_stand_and_a_cron_job_does() {
    let job = workload("batch/v1", "Job", "once", "spec: {}");
    let of_job = |name: &str, phase: &str| pod(name, "kind: Job, name: once", &format!("status: {{phase: {phase}}}"));
    assert_eq!(stand_ins(&cluster(&job)), ["a/Job/once: once"]);
    assert!(stand_ins(&cluster(&format!("{job}{}", of_job("x", "Succeeded")))).is_empty());
    assert!(stand_ins(&cluster(&format!("{job}{}{}", of_job("x", "Failed"), of_job("z", "Running")))).is_empty());
    for status in ["Complete", "Failed"] {
        let over = format!("spec: {{}}\nstatus: {{conditions: [{{type: {status}, status: 'True'}}]}}");
        assert!(stand_ins(&cluster(&workload("batch/v1", "Job", "once", &over))).is_empty());
    }
    let suspended =
        "spec: {}\nstatus: {conditions: [{type: Suspended, status: 'True'}, {type: Complete, status: 'False'}]}";
    assert_eq!(stand_ins(&cluster(&workload("batch/v1", "Job", "once", suspended))), ["a/Job/once: once"]);
    let cron = workload("batch/v1", "CronJob", "tidy", "spec: {}");
    let ran = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: tidy-1, namespace: a, \
               ownerReferences: [{kind: CronJob, name: tidy, controller: true}]}\nspec: {}\n---\n";
    let over = pod("tidy-1-x", "kind: Job, name: tidy-1", "status: {phase: Succeeded}");
    assert_eq!(stand_ins(&cluster(&format!("{cron}{ran}{over}"))), ["a/CronJob/tidy: tidy"]);
}

#[test]
fn what_an_absent_owner_made_stands_for_it_by_the_revision_in_use() {
    let set = |name: &str, kind: &str, replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: {name}, namespace: a, \
             ownerReferences: [{{kind: {kind}, name: web, controller: true}}]}}\nspec: {{replicas: {replicas}}}\n---\n"
        )
    };
    let both = |old: u32, new: u32| format!("{}{}", set("web-1", "Deployment", old), set("web-2", "Deployment", new));
    assert_eq!(stand_ins(&cluster(&both(0, 3))), ["a/Deployment/web: web-2"]);
    assert_eq!(stand_ins(&cluster(&both(0, 0))), ["a/Deployment/web: web-1", "a/Deployment/web: web-2"]);
    assert_eq!(stand_ins(&cluster(&set("web-1", "Rollout", 1))), ["a/Rollout/web: web-1"]);
    let living = pod("web-2-x", "kind: ReplicaSet, name: web-2", "");
    assert!(stand_ins(&cluster(&format!("{}{living}", both(0, 3)))).is_empty());
}

#[test]
fn the_ends_are_the_living_and_the_stand_ins_in_order() {
    let web = workload("apps/v1", "Deployment", "web", "spec: {}");
    let set = workload("apps/v1", "StatefulSet", "web", "spec: {}");
    let bare = "apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: a}\n---\n";
    let zoo = "apiVersion: v1\nkind: Pod\nmetadata: {name: zoo, namespace: a}\n---\n";
    let over = "apiVersion: v1\nkind: Pod\nmetadata: {name: over, namespace: a}\nstatus: {phase: Succeeded}\n---\n";
    let cluster = cluster(&format!("{web}{set}{bare}{zoo}{over}"));
    let ends: Vec<_> = cluster.ends().iter().map(|pod| pod.uid.clone()).collect();
    assert_eq!(ends, ["bare", "stand-in/Deployment/a/web", "stand-in/StatefulSet/a/web", "zoo"]);
}
