//! Policies of a large cluster: how long it takes to work out the tables and to write them, the first time
//! and after one rule has changed, and what the tables take.

use compile::Compiler;
use datapath::{Bindings, Datapath, Options};
use model::{
    cluster::{Cluster, Namespace, Node, Pod},
    labels::{Labels, METADATA_NAME, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};
use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};
use verdict::Mode;

const NODE: &str = "node-1";
/// Endpoints on the node, rules of a slot, which are as many identities.
const SIZES: [(usize, usize); 4] = [(1, 1), (500, 1_000), (500, 70_000), (500, 100_000)];

pub(crate) fn main() {
    println!("Publishing: tables worked out and written, and again after one more rule; the tables' memory");
    println!(
        "{:>9} {:>10} {:>8} {:>11} {:>11} {:>11} {:>11} {:>10}",
        "endpoints", "identities", "rules", "compile", "publish", "compile +1", "publish +1", "tables"
    );
    for (endpoints, rules) in SIZES {
        row(endpoints, rules);
    }
}

fn row(endpoints: usize, rules: usize) {
    let none = PolicySet::default();
    let mut datapath = Datapath::load(&Options::default()).expect("the program loads");
    let mut compiler = Compiler::new(NODE, Mode::Enforce);
    let mut cluster = cluster(endpoints);
    let mut times = Vec::new();
    let (mut identities, mut held) = (0, 0);
    for more in [0, 1] {
        cluster.policies = policies(rules + more);
        let begin = Instant::now();
        let plan = compiler.plan(&cluster, &cluster.policies, &none).expect("a plan");
        times.push(begin.elapsed());
        let begin = Instant::now();
        datapath.publish(&plan, &Bindings::default()).expect("it fits");
        times.push(begin.elapsed());
        (identities, held) = (plan.table.identities.len(), plan.peak.rules);
        compiler.adopt(&plan);
    }
    let ms = |time: &Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let times: Vec<String> = times.iter().map(|time| format!("{:>11}", ms(time))).collect();
    println!("{endpoints:>9} {identities:>10} {held:>8} {} {:>6} MiB", times.join(" "), memory() >> 20);
}

/// What the kernel says that the maps of this process take, in bytes.
fn memory() -> u64 {
    let files = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().filter_map(Result::ok);
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let maps = texts.filter(|text| text.contains("map_type"));
    maps.filter_map(|text| text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok()))
        .sum()
}

fn cluster(endpoints: usize) -> Cluster {
    let mut cluster = Cluster::default();
    let labels = Labels::from([(METADATA_NAME.to_owned(), "x".to_owned())]);
    cluster.namespaces.insert("x".into(), Namespace { labels, ..Namespace::default() });
    let address = |b: usize, number: usize| IpAddr::from([10, b as u8, (number >> 8) as u8, number as u8]);
    cluster.nodes.insert(NODE.into(), Node { addresses: vec![address(0, 1)], ..Node::default() });
    for number in 0..endpoints {
        cluster.pods.push(Pod {
            namespace: "x".into(),
            name: format!("pod-{number}"),
            uid: format!("uid-{number}"),
            addresses: vec![address(1, number + 1)],
            node: NODE.into(),
            ..Pod::default()
        });
    }
    cluster
}

/// One policy for all pods, whose peers are addresses that nothing else names.
fn policies(rules: usize) -> PolicySet {
    let peers = (0..rules).map(|number| {
        let [_, b, c, d] = (number as u32 + 1).to_be_bytes();
        Peer::Block { cidr: IpAddr::from([11, b, c, d]).into(), except: Vec::new() }
    });
    let ports = vec![Port { protocol: Protocol::Tcp, port: PortMatch::Range(443, 443) }];
    let rule = Rule { peers: peers.collect(), ports, source: None };
    let policy = NetworkPolicy {
        namespace: "x".into(),
        name: "all".into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector: Selector::default(),
        ingress: Some(vec![rule]),
        egress: None,
        source: None,
    };
    PolicySet { policies: vec![policy] }
}
