//! What learning costs: the built command from a flow log of ten million records, and from the ledgers of a thousand
//! nodes, to policies with their proof. `./run bench generate` builds it first; `-- N` makes a log of N records.
//!
//! 10,000 pods of 1,000 workloads on 20 nodes, 50,000 edges of which some are used a thousand times as often as
//! others, over a day. Beside it, in the same run: reading the log's bytes, and the query engine grouping the same
//! columns.

use flowlog::{Options, Writer};
use model::{
    cluster::WorkloadKey,
    ledger::{Edge, EdgeCounters, Ledger, Party, SLICE},
    record::{
        DirectionRule, End, EndReason, Entity, FlowEvent, FlowRecord, FlowSource, FlowVerdict, ObservedAt, UnixNanos,
    },
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tests::random::Random;

const RECORDS: usize = 10_000_000;
const PODS: usize = 10_000;
const WORKLOADS: usize = 1_000;
const NAMESPACES: usize = 50;
const EDGES: usize = 50_000;
const NODES: usize = 20;
const HOURS: usize = 24;
const BEGIN: UnixNanos = 500_000 * SLICE;
/// Nodes whose ledgers are merged, with so many edges each.
const LEDGERS: usize = 1_000;
const EDGES_OF_A_LEDGER: usize = 500;

fn main() {
    let built = std::env::current_exe().ok().and_then(|bench| Some(bench.parent()?.parent()?.join("podfence")));
    let Some(podfence) = built.filter(|path| path.is_file()) else {
        println!("bench generate: skipped, as there is no command to measure; `./run build` makes it");
        return;
    };
    let records = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(RECORDS);
    let mut random = Random::new(Random::seed(11));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let town = Town::new(&mut random);
    fs::write(path("cluster.json"), cluster()).expect("written");
    let began = Instant::now();
    town.write_log(Path::new(&path("log")), records, &mut random);
    let size = bytes(Path::new(&path("log")));
    println!(
        "{records} records of {PODS} pods and {EDGES} edges on {NODES} nodes in {HOURS} hours: {:.0} MB, {:.1} bytes a record, written in {:.0} s",
        size as f64 / 1e6,
        size as f64 / records as f64,
        began.elapsed().as_secs_f64()
    );
    town.write_ledgers(Path::new(&path("ledgers")), &mut random);
    let ledgers: Vec<String> = (0..LEDGERS).map(|node| path(&format!("ledgers/{node}.ledger"))).collect();
    println!(
        "{LEDGERS} ledgers of {EDGES_OF_A_LEDGER} edges: {:.0} MB",
        bytes(Path::new(&path("ledgers"))) as f64 / 1e6
    );
    println!("{:<44} {:>9} {:>9}", "", "wall s", "peak MiB");
    let (log, all) = (path("log"), path("all.ledger"));
    let began = Instant::now();
    let read = read_all(Path::new(&log));
    println!(
        "{:<44} {:>9.2} {:>9}",
        format!("reading its {:.0} MB", read as f64 / 1e6),
        began.elapsed().as_secs_f64(),
        "-"
    );
    let sql = "select client_namespace, client_workload, server_namespace, server_workload, server_port, protocol, node, \
               count(*), min(start_ns), max(end_ns), min(flow_id) from flows group by 1, 2, 3, 4, 5, 6, 7 order by 8 desc limit 1";
    measure(&podfence, "the query engine, grouping the same", &["flows", "--log", &log, "--sql", sql], &[]);
    measure(&podfence, "ledger --log", &["ledger", "--log", &log, "--out", &all], &[]);
    let (cluster, out) = (path("cluster.json"), path("out"));
    let generate = ["generate", "--cluster", &cluster, "--out", &out];
    let with = |more: [&'static str; 1]| [&generate[..], &more[..]].concat();
    measure(&podfence, "generate --log", &with(["--log"]), &[log]);
    measure(&podfence, "generate --ledger, of that log", &with(["--ledger"]), &[all]);
    let merged = path("merged.ledger");
    measure(&podfence, "ledger --ledger, of 1,000 nodes", &["ledger", "--out", &merged, "--ledger"], &ledgers);
    measure(&podfence, "generate --ledger, of 1,000 nodes", &with(["--ledger"]), &ledgers);
}

fn measure(podfence: &Path, name: &str, words: &[&str], more: &[String]) {
    let began = Instant::now();
    let mut child = Command::new(podfence)
        .args(words)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ending = loop {
        let now = fs::read_to_string(&status).unwrap_or_default();
        let mark = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(mark.and_then(|mark| mark.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0_u64));
        match child.try_wait().expect("it can be waited for") {
            Some(ending) => break ending,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let wall = began.elapsed();
    if !ending.success() {
        let mut told = String::new();
        io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut told).expect("text");
        panic!("podfence {} ended with {ending}: {told}", words.join(" "));
    }
    println!("{name:<44} {:>9.2} {:>9}", wall.as_secs_f64(), peak >> 10);
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() { all.extend(files(&entry.path())) } else { all.push(entry.path()) }
    }
    all
}

fn bytes(folder: &Path) -> u64 {
    files(folder).iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).sum()
}

fn read_all(folder: &Path) -> u64 {
    let read = |path: &PathBuf| io::copy(&mut File::open(path).expect("a file"), &mut io::sink()).expect("read");
    files(folder).iter().map(read).sum()
}

/// Who talks to whom.
struct Town {
    ends: Vec<End>,
    /// Client workload, server workload, port.
    edges: Vec<(usize, usize, u16)>,
    /// By node: edges with a server pod there, and that pod.
    served: Vec<Vec<(usize, usize)>>,
}

impl Town {
    fn new(random: &mut Random) -> Self {
        let edges: Vec<_> = (0..EDGES)
            .map(|index| (random.below(WORKLOADS), index % WORKLOADS, 8_000 + (index / WORKLOADS) as u16))
            .collect();
        let mut served = vec![Vec::new(); NODES];
        for (edge, (_, server, _)) in edges.iter().enumerate() {
            for pod in (*server..PODS).step_by(WORKLOADS) {
                served[node_of(pod)].push((edge, pod));
            }
        }
        Self { ends: (0..PODS).map(end).collect(), edges, served }
    }

    fn write_log(&self, root: &Path, records: usize, random: &mut Random) {
        let (each, none): (usize, Arc<str>) = (records.div_ceil(NODES * HOURS), "".into());
        let texts: [Arc<str>; 3] = ["allowed-by-rule".into(), "veth0".into(), none];
        for (node, served) in self.served.iter().enumerate() {
            let name: Arc<str> = format!("node-{node}").into();
            let options = Options { rows_per_segment: each as u64, rows_per_batch: 4096, ..Options::default() };
            let mut writer = Writer::open(root, "bench", &name, options, BEGIN).expect("a log");
            for row in 0..each * HOURS {
                // Some a thousand times as often as others.
                let (edge, pod) =
                    served[random.below(served.len()).min(random.below(served.len())) * random.below(1_000) / 1_000];
                let at = BEGIN + (row / each) as i64 * SLICE + random.below(SLICE as usize / 1_000) as i64 * 1_000;
                writer.append(&self.record(edge, pod, at, &name, &texts, random)).expect("written");
            }
            writer.close().expect("written");
        }
    }

    fn record(
        &self,
        edge: usize,
        pod: usize,
        start: UnixNanos,
        node: &Arc<str>,
        [reason, interface, none]: &[Arc<str>; 3],
        random: &mut Random,
    ) -> FlowRecord {
        let (client, _, port) = self.edges[edge];
        let client = &self.ends[client + WORKLOADS * random.below(PODS / WORKLOADS)];
        let client = End { port: 32_768 + random.below(28_000) as u16, ..client.clone() };
        let server = End { port, ..self.ends[pod].clone() };
        let id = random.bits();
        FlowRecord {
            flow_id: format!("{id:016x}"),
            community_id: format!("1:{:016x}{id:010x}=", random.bits()),
            event: FlowEvent {
                key: flow::FlowKey {
                    source: client.ip.into(),
                    destination: server.ip.into(),
                    source_port: client.port,
                    destination_port: port,
                    protocol: flow::TCP,
                },
                direction_rule: DirectionRule::Syn,
                observed_at: ObservedAt::Server,
                flow_start: start,
                start,
                end: start + 1_000_000 * (1 + random.below(500) as i64),
                packets_to_server: 5 + random.below(20) as u64,
                packets_to_client: 4 + random.below(20) as u64,
                bytes_to_server: 500 + random.below(5_000) as u64,
                bytes_to_client: 500 + random.below(50_000) as u64,
                tcp_flags_to_server: 0x1b,
                tcp_flags_to_client: 0x1b,
                adopted: false,
                verdict: FlowVerdict::Allow,
                reason: reason.clone(),
                rule: None,
                policy_generation: 1,
                staged_verdict: FlowVerdict::Observed,
                staged_reason: none.clone(),
                end_reason: EndReason::Fin,
                rtt_us: Some(50 + random.below(500) as u32),
                interface: interface.clone(),
                source: FlowSource::Kernel,
            },
            client,
            server,
            service: None,
            dns_name: None,
            node: node.clone(),
            sampling: 1,
        }
    }

    /// What a thousand agents would push, ten thousand sightings each.
    fn write_ledgers(&self, folder: &Path, random: &mut Random) {
        fs::create_dir(folder).expect("a folder");
        for number in 0..LEDGERS {
            let node: Arc<str> = format!("node-{}", number % NODES).into();
            let instance: Arc<str> = format!("{node}@{number}").into();
            let mut ledger = Ledger::default();
            ledger.watch(&instance, &node, BEGIN, BEGIN + HOURS as i64 * SLICE - 1);
            for _ in 0..EDGES_OF_A_LEDGER {
                let (client, server, port) = self.edges[random.below(EDGES)];
                let party = |index: usize| Party::Workload(self.ends[index].workload.clone().expect("a pod's"));
                let edge = Edge { client: party(client), server: party(server), protocol: flow::TCP, port };
                for hour in (0..HOURS).filter(|_| random.below(6) > 0).collect::<Vec<_>>() {
                    let at = BEGIN + hour as i64 * SLICE;
                    let seen = EdgeCounters {
                        flows: 1 + random.below(50) as u64,
                        first_seen: at,
                        last_seen: at + 1_000,
                        samples: vec![format!("{:016x}", random.bits()).into()],
                        direction_rule: DirectionRule::Syn,
                        adopted_only: false,
                        nodes: vec![node.clone()],
                    };
                    ledger.see(&instance, edge.clone(), seen);
                }
            }
            let file = File::create(folder.join(format!("{number}.ledger"))).expect("a file");
            let mut to = zstd::Encoder::new(file, 3).expect("an encoder");
            ledger.write_lines(&mut to).expect("written");
            to.finish().expect("written").flush().expect("written");
        }
    }
}

fn node_of(pod: usize) -> usize {
    pod / 7 % NODES
}

fn place(workload: usize) -> (String, String) {
    (format!("team-{:02}", workload % NAMESPACES), format!("service-{workload:04}"))
}

fn address(pod: usize) -> IpAddr {
    IpAddr::from([10, 1, (pod >> 8) as u8, (pod & 255) as u8])
}

fn end(pod: usize) -> End {
    let (namespace, name) = place(pod % WORKLOADS);
    let key = WorkloadKey { namespace: namespace.clone(), kind: "Deployment".to_owned(), name: name.clone() };
    End {
        ip: address(pod),
        port: 0,
        entity: Entity::Pod,
        namespace: Some(namespace.into()),
        name: Some(format!("{name}-{:02}", pod / WORKLOADS).into()),
        pod_uid: Some(format!("00000000-0000-4000-8000-{pod:012}").into()),
        workload: Some(Arc::new(key)),
        unknown_reason: None,
    }
}

/// The cluster's objects, as `kubectl get -o json` prints them.
fn cluster() -> String {
    let mut items: Vec<Value> = Vec::new();
    for index in 0..NAMESPACES {
        let name = format!("team-{index:02}");
        let labels = json!({"kubernetes.io/metadata.name": name});
        items.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
    }
    for workload in 0..WORKLOADS {
        let (namespace, name) = place(workload);
        let template = json!({"metadata": {"labels": {"app": name}}});
        items.push(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
        }));
    }
    for pod in 0..PODS {
        let (namespace, name) = place(pod % WORKLOADS);
        let owner = json!({"kind": "Deployment", "name": name, "uid": format!("d-{name}"), "controller": true});
        items.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{name}-{:02}", pod / WORKLOADS), "namespace": namespace,
                "uid": format!("00000000-0000-4000-8000-{pod:012}"), "labels": {"app": name}, "ownerReferences": [owner],
            },
            "spec": {"nodeName": format!("node-{}", node_of(pod))},
            "status": {"phase": "Running", "podIPs": [{"ip": address(pod).to_string()}]},
        }));
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}
