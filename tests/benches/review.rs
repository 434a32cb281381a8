//! What a review costs: the built command over a generated cluster, from start to the last byte
//! printed. `./run bench review` builds it first.
//!
//! 10,000 pods of 1,000 workloads in 50 namespaces. Each policy isolates one workload both ways: three
//! workloads may call it at one or two ports, here and there by name, here and there a block of
//! addresses too; it may call whom others let it, and ask the DNS.

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tests::random::Random;

const PODS: usize = 10_000;
const WORKLOADS: usize = 1_000;
const NAMESPACES: usize = 50;
const POLICIES: [usize; 4] = [250, 500, 1_000, 2_000];
/// The set that budgets are about.
const NORMAL: usize = 1_000;
/// Policies that differ between the two sets of `diff`.
const CHANGED: usize = 12;
const ROUNDS: usize = 5;

fn main() {
    let built = std::env::current_exe().ok().and_then(|bench| Some(bench.parent()?.parent()?.join("podfence")));
    let Some(podfence) = built.filter(|path| path.is_file()) else {
        println!("bench review: skipped, as there is no command to measure; `./run build` makes it");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = Random::seed(5);
    println!("{PODS} pods, {WORKLOADS} workloads, {NAMESPACES} namespaces, seed {seed}; median of {ROUNDS} runs");
    println!(
        "{:<28} {:>9} {:>10} {:>9} {:>9} {:>11}",
        "command", "policies", "input MiB", "output MB", "wall ms", "peak MiB"
    );
    for policies in POLICIES {
        let items = cluster(seed, policies);
        let json = file(folder.path(), &format!("{policies}.json"), &list(&items));
        measure(&podfence, "reach, JSON", policies, &["reach", "-o", "json"], &[&json]);
        if policies == NORMAL {
            measure(&podfence, "reach --by pod, JSON", policies, &["reach", "--by", "pod", "-o", "json"], &[&json]);
            measure(&podfence, "reach --exposure, JSON", policies, &["reach", "--exposure", "-o", "json"], &[&json]);
            let changed = file(folder.path(), "changed.json", &list(&changed(&items)));
            measure(&podfence, "diff, JSON", policies, &["diff", "-o", "json"], &[&json, &changed]);
            measure(&podfence, "lint, JSON", policies, &["lint", "-o", "json"], &[&json]);
            let yaml = file(folder.path(), "cluster.yaml", &documents(&items));
            measure(&podfence, "reach, YAML", policies, &["reach", "-o", "json"], &[&yaml]);
            for (name, path) in [("reading alone, JSON", &json), ("reading alone, YAML", &yaml)] {
                let began = Instant::now();
                let read = inventory::read(&[path]).expect("what was generated");
                row(name, read.policies.policies.len(), &[path], 0, began.elapsed(), None);
            }
        }
    }
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    path
}

fn measure(podfence: &Path, name: &str, policies: usize, words: &[&str], inputs: &[&PathBuf]) {
    let mut runs: Vec<(Duration, u64, u64)> = (0..ROUNDS).map(|_| run(podfence, words, inputs)).collect();
    runs.sort();
    let (wall, _, bytes) = runs[ROUNDS / 2];
    let peak = runs.iter().map(|(_, peak, _)| *peak).max();
    row(name, policies, inputs, bytes, wall, peak);
}

fn row(name: &str, policies: usize, inputs: &[&PathBuf], bytes: u64, wall: Duration, peak: Option<u64>) {
    let input: u64 = inputs.iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).sum();
    let peak = peak.map_or("-".to_owned(), |kib| (kib >> 10).to_string());
    let (input, output) = (input as f64 / f64::from(1 << 20), bytes as f64 / 1e6);
    println!("{name:<28} {policies:>9} {input:>10.1} {output:>9.1} {:>9} {peak:>11}", wall.as_millis());
}

/// Wall time, peak memory in KiB (the kernel's high-water mark, asked for every millisecond), bytes printed.
fn run(podfence: &Path, words: &[&str], inputs: &[&PathBuf]) -> (Duration, u64, u64) {
    let began = Instant::now();
    let mut child = Command::new(podfence)
        .args(words)
        .args(inputs)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let bytes = std::io::copy(&mut stdout, &mut std::io::sink()).expect("read");
        (bytes, Instant::now())
    });
    let mut peak = 0;
    while !reader.is_finished() {
        let now = fs::read_to_string(&status).unwrap_or_default();
        let mark = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = mark.and_then(|mark| mark.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    let (bytes, ended) = reader.join().expect("read");
    let ending = child.wait().expect("it ends");
    assert!(ending.success(), "podfence {} ended with {ending}", words.join(" "));
    (ended - began, peak, bytes)
}

/// Every object of the cluster.
fn cluster(seed: u64, policies: usize) -> Vec<Value> {
    let mut random = Random::new(seed);
    let mut items: Vec<Value> = (0..NAMESPACES).map(namespace).collect();
    items.push(dns());
    items.extend((0..WORKLOADS).map(deployment));
    items.extend((0..PODS).map(pod));
    // Drawn for all workloads first, so that fewer policies are a part of more.
    let calls: Vec<Vec<(usize, u16)>> = (0..WORKLOADS)
        .map(|_| (0..3).map(|_| (random.below(WORKLOADS), random.one(&[8080, 9090]))).collect())
        .collect();
    let mut called_by = vec![Vec::new(); WORKLOADS];
    for (server, clients) in calls.iter().enumerate() {
        clients.iter().for_each(|(client, port)| called_by[*client].push((server, *port)));
    }
    for index in 0..policies {
        let workload = index % WORKLOADS;
        items.push(policy(&mut random, index, &calls[workload], &called_by[workload]));
    }
    items
}

fn place(workload: usize) -> (String, String) {
    (format!("team-{:02}", workload % NAMESPACES), format!("service-{workload:04}"))
}

fn namespace(index: usize) -> Value {
    let name = format!("team-{index:02}");
    let labels = json!({"kubernetes.io/metadata.name": name, "tier": format!("tier-{}", index % 3)});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn dns() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "coredns-0", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"containers": [{"name": "dns", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.200.0.10"}]},
    })
}

fn containers() -> Value {
    json!([{
        "name": "main",
        "image": "registry.example/team/service:1.2.3",
        "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "REGION", "value": "north"}],
        "ports": [
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"name": "admin", "containerPort": 9090, "protocol": "TCP"},
        ],
        "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}},
        "livenessProbe": {"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 10, "failureThreshold": 3},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
    }])
}

fn deployment(workload: usize) -> Value {
    let (namespace, name) = place(workload);
    let labels = json!({"app": name, "team": namespace});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": PODS / WORKLOADS,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers()}},
        },
    })
}

fn pod(index: usize) -> Value {
    let (namespace, name) = place(index % WORKLOADS);
    let address = format!("10.{}.{}.{}", 1 + (index >> 16), (index >> 8) & 255, index & 255);
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-31T12:00:05Z"});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{name}-{:05}", index / WORKLOADS),
            "namespace": namespace,
            "uid": format!("00000000-0000-4000-8000-{index:012}"),
            "creationTimestamp": "2026-01-31T12:00:00Z",
            "labels": {"app": name, "team": namespace, "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d4f8c7b9"),
                "uid": format!("00000000-0000-4000-9000-{:012}", index % WORKLOADS),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": format!("node-{:03}", index % 100),
            "serviceAccountName": "default",
            "containers": containers(),
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": "token", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "startTime": "2026-01-31T12:00:00Z",
            "conditions": [ready],
            "containerStatuses": [{
                "name": "main", "ready": true, "restartCount": 0, "started": true,
                "image": "registry.example/team/service:1.2.3",
                "containerID": format!("containerd://{index:064}"),
                "state": {"running": {"startedAt": "2026-01-31T12:00:04Z"}},
            }],
        },
    })
}

fn peer(workload: usize) -> Value {
    let (namespace, name) = place(workload);
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app": name}},
    })
}

fn policy(random: &mut Random, index: usize, callers: &[(usize, u16)], servers: &[(usize, u16)]) -> Value {
    let (namespace, name) = place(index % WORKLOADS);
    let port = |random: &mut Random, port: u16| match (random.once_in(10), port) {
        (true, 8080) => json!({"port": "http"}),
        (true, _) => json!({"port": "admin"}),
        (false, port) => json!({"port": port}),
    };
    let mut ingress: Vec<Value> = callers
        .iter()
        .map(|(client, number)| json!({"from": [peer(*client)], "ports": [port(random, *number)]}))
        .collect();
    if random.once_in(2) {
        ingress[0]["ports"].as_array_mut().expect("ports").push(json!({"port": 8443}));
    }
    if random.once_in(10) {
        let cidr = format!("192.{}.{}.0/24", random.below(200), random.below(20));
        ingress.push(json!({"from": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": 8080}]}));
    }
    let dns = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    let mut egress = vec![json!({
        "to": [{"namespaceSelector": dns, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    })];
    let calls =
        servers.iter().map(|(server, port)| json!({"to": [peer(*server)], "ports": [{"port": port}, {"port": 8443}]}));
    egress.extend(calls);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("{name}-{}", index / WORKLOADS), "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"app": name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress, "egress": egress,
        },
    })
}

/// The same with some policies changed: one rule less, or another port.
fn changed(items: &[Value]) -> Vec<Value> {
    let mut items = items.to_vec();
    let policies = items.iter_mut().filter(|item| item["kind"] == "NetworkPolicy");
    for (index, policy) in policies.step_by(NORMAL / CHANGED).take(CHANGED).enumerate() {
        let rules = policy["spec"]["ingress"].as_array_mut().expect("rules");
        match index % 2 {
            0 => drop(rules.pop()),
            _ => rules[0]["ports"] = json!([{"port": 7070}]),
        }
    }
    items
}

/// As `kubectl get -o json` prints it.
fn list(items: &[Value]) -> String {
    serde_json::to_string_pretty(&json!({"apiVersion": "v1", "kind": "List", "items": items})).expect("JSON")
}

/// As a stream of YAML documents.
fn documents(items: &[Value]) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str("---\n");
        block(&mut text, item, 0);
    }
    text
}

/// A map in block style, a list in its lines; texts as JSON has them.
fn block(text: &mut String, value: &Value, indent: usize) {
    let blanks = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let nested = matches!(field, Value::Object(_) | Value::Array(_));
                text.push_str(&format!("{blanks}{key}:"));
                match nested {
                    true => {
                        text.push('\n');
                        block(text, field, indent + 2);
                    }
                    false => text.push_str(&format!(" {field}\n")),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(_) | Value::Array(_) => {
                        text.push_str(&format!("{blanks}-\n"));
                        block(text, item, indent + 2);
                    }
                    item => text.push_str(&format!("{blanks}- {item}\n")),
                }
            }
        }
        other => text.push_str(&format!("{blanks}{other}\n")),
    }
}
