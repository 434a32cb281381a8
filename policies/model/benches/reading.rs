//! How fast a large cluster is read, and in how much memory, beside what the same text costs a parser
//! that keeps nothing and one that keeps everything. Prints a table; says nothing about right or
//! wrong. `cargo bench -p model --bench reading [PODS]`
#![allow(missing_docs)]

use model::{cluster::Cluster, yaml::read_into};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::{
    env, fs,
    hint::black_box,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const PODS_OF_A_WORKLOAD: usize = 10;
const NAMESPACES: usize = 50;
const RUNS: usize = 5;

/// What is measured, over which file.
type Row = (&'static str, &'static str, fn(&str));

const ROWS: [Row; 6] = [
    ("JSON List: only loaded", "list.json", |text| assert!(!text.is_empty())),
    ("JSON List: checked, nothing kept", "list.json", |text| drop(serde_json::from_str::<IgnoredAny>(text))),
    ("JSON List: a tree of everything", "list.json", |text| drop(black_box(serde_json::from_str::<Value>(text)))),
    ("JSON List: into a cluster", "list.json", |text| drop(black_box(cluster(text)))),
    ("YAML stream, a tenth: into a cluster", "stream.yaml", |text| drop(black_box(cluster(text)))),
    ("YAML List, a tenth: into a cluster", "list.yaml", |text| drop(black_box(cluster(text)))),
];

fn main() {
    let mut args = env::args().skip(1).filter(|arg| arg != "--bench");
    match (args.next().as_deref(), args.next()) {
        (Some(index), Some(folder)) => measure(index.parse().expect("a row"), Path::new(&folder)),
        (pods, _) => all(pods.map_or(10_000, |pods| pods.parse().expect("a number of pods"))),
    }
}

/// Each row in a process of its own, as peaks of memory are the process's.
fn all(pods: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("room for the input");
    let every = objects(pods);
    let tenth = objects(pods / 10);
    let list = |items: &[Value]| json!({"apiVersion": "v1", "items": items, "kind": "List"});
    write("list.json", as_kubectl_prints_it(&list(&every)));
    write("list.yaml", yaml(&list(&tenth)));
    write("stream.yaml", tenth.iter().map(|object| format!("---\n{}", yaml(object))).collect());
    println!("{:38} {:>8} {:>9} {:>8} {:>9}", "what", "MB", "best ms", "MB/s", "peak MB");
    for index in 0..ROWS.len() {
        let this = env::current_exe().expect("a path");
        let row = Command::new(this).arg(index.to_string()).arg(folder.path()).status();
        assert!(row.expect("a process").success());
    }
}

fn measure(row: usize, folder: &Path) {
    let (what, file, run) = ROWS[row];
    let text = fs::read_to_string(folder.join(file)).expect("the input");
    let (mut best, mut peak) = (Duration::MAX, 0.0);
    for nth in 0..RUNS {
        let begin = Instant::now();
        run(black_box(&text));
        best = best.min(begin.elapsed());
        if nth == 0 {
            peak = peak_megabytes();
        }
    }
    let (megabytes, seconds) = (text.len() as f64 / 1e6, best.as_secs_f64());
    println!("{what:38} {megabytes:8.1} {:9.1} {:8.0} {peak:9.1}", seconds * 1e3, megabytes / seconds);
}

fn cluster(text: &str) -> Cluster {
    let mut cluster = Cluster::default();
    read_into(&mut cluster, "bench", text).expect("a right cluster");
    cluster
}

fn peak_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let row = status.lines().find_map(|row| row.strip_prefix("VmHWM:"));
    row.and_then(|row| row.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1e3
}

fn as_kubectl_prints_it(list: &Value) -> String {
    use serde::Serialize as _;
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    list.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format)).expect("memory is enough");
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("JSON is YAML")
}

/// Namespaces, workloads, their pods and a policy for each workload.
fn objects(pods: usize) -> Vec<Value> {
    let workloads = pods / PODS_OF_A_WORKLOAD;
    let mut random = Random(1);
    let mut all: Vec<Value> = (0..NAMESPACES).map(namespace).collect();
    all.extend((0..workloads).map(deployment));
    all.extend((0..pods).map(|index| pod(index, workloads, &mut random)));
    all.extend((0..workloads).map(|index| policy(index, workloads, &mut random)));
    all
}

/// SplitMix64: the same objects in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn namespace_of(workload: usize) -> String {
    format!("team-{:02}", workload % NAMESPACES)
}

fn namespace(index: usize) -> Value {
    let name = namespace_of(index);
    let labels = json!({"kubernetes.io/metadata.name": name, "team": format!("t{}", index % 7)});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn labels(workload: usize) -> Value {
    json!({
        "app.kubernetes.io/name": format!("service-{workload}"),
        "app.kubernetes.io/part-of": format!("product-{}", workload % 40),
        "tier": format!("t{}", workload % 3),
    })
}

fn deployment(index: usize) -> Value {
    let template = json!({"metadata": {"labels": labels(index)}, "spec": {"containers": [container(index)]}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("service-{index}"), "namespace": namespace_of(index), "labels": labels(index)},
        "spec": {"replicas": PODS_OF_A_WORKLOAD, "selector": {"matchLabels": labels(index)}, "template": template},
    })
}

fn container(workload: usize) -> Value {
    json!({
        "env": [
            {"name": "DATABASE_URL", "value": format!("postgres://db-{workload}.internal:5432/main")},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
        ],
        "image": format!("registry.example.com/team/service-{workload}:1.4.2"),
        "name": "main",
        "ports": [
            {"containerPort": 8080, "name": "http", "protocol": "TCP"},
            {"containerPort": 9090, "name": "metrics", "protocol": "TCP"},
        ],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
    })
}

fn pod(index: usize, workloads: usize, random: &mut Random) -> Value {
    let workload = index % workloads;
    let hash = format!("{:08x}", workload.wrapping_mul(2_654_435_761) & 0xffff_ffff);
    let mut all = labels(workload);
    all["pod-template-hash"] = json!(hash);
    let ip = format!("10.{}.{}.{}", 1 + (index >> 16), (index >> 8) & 255, index & 255);
    let uid = format!("{:08x}-0000-4000-8000-{:012x}", random.next() & 0xffff_ffff, index);
    let owner = json!({
        "apiVersion": "apps/v1", "blockOwnerDeletion": true, "controller": true, "kind": "ReplicaSet",
        "name": format!("service-{workload}-{hash}"), "uid": uid,
    });
    let condition = |kind: &str| json!({"lastTransitionTime": "2026-01-02T03:04:06Z", "status": "True", "type": kind});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "creationTimestamp": "2026-01-02T03:04:05Z", "generateName": format!("service-{workload}-{hash}-"),
            "labels": all, "name": format!("service-{workload}-{hash}-{index:05}"),
            "namespace": namespace_of(workload), "ownerReferences": [owner],
            "resourceVersion": "123456", "uid": uid,
        },
        "spec": {
            "containers": [container(workload)], "nodeName": format!("node-{}", random.below(200)),
            "restartPolicy": "Always", "serviceAccountName": "default",
        },
        "status": {
            "conditions": [condition("Initialized"), condition("Ready")], "hostIP": "192.168.0.10",
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": "2026-01-02T03:04:05Z",
        },
    })
}

fn policy(index: usize, workloads: usize, random: &mut Random) -> Value {
    let mut peer = || {
        let other = random.below(workloads);
        json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace_of(other)}},
            "podSelector": {"matchLabels": labels(other)},
        })
    };
    let ports = json!([{"port": 8080, "protocol": "TCP"}]);
    let block = json!({"ipBlock": {"cidr": format!("172.{}.0.0/16", 16 + index % 16)}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("service-{index}"), "namespace": namespace_of(index)},
        "spec": {
            "egress": [{"ports": ports, "to": [peer(), peer()]}, {"ports": [{"port": 443}], "to": [block]}],
            "ingress": [{"from": [peer(), peer(), peer()], "ports": ports}],
            "podSelector": {"matchLabels": labels(index)}, "policyTypes": ["Ingress", "Egress"],
        },
    })
}
