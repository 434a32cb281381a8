//! Random clusters and random flows in them, for the laws. Small on purpose: three namespaces whose
//! names a careless YAML reader changes, workloads that share labels, pods of one family or both,
//! owners with and without pods, node and outside addresses.

use flow::{FlowKey, TCP, UDP};
use generator::{Options, Outside, PeerScope, Providers};
use model::{
    cluster::{Cluster, ContainerPort, Namespace, Node, Owner, Pod, Workload, WorkloadKey},
    labels::{Labels, METADATA_NAME, Selector},
    ledger::{Edge, EdgeCounters, Ledger, SLICE},
    policy::Protocol,
    record::{
        DirectionRule, End, EndReason, Entity, FlowEvent, FlowRecord, FlowSource, FlowVerdict, ObservedAt, UnixNanos,
    },
};
use proptest::prelude::*;
use std::{net::IpAddr, sync::Arc};

pub(crate) const NAMESPACES: [&str; 3] = ["on", "0x1f", "shop"];
const APPS: [&str; 5] = ["on", "0x1f", "1_000", "12e3", "null"];
const KINDS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "CronJob", "Pod"];
pub(crate) const OUTSIDE: [&str; 6] =
    ["198.51.100.6", "198.51.100.7", "198.51.100.8", "203.0.113.9", "2001:db8::2", "2001:db8::3"];
pub(crate) const NODES: [&str; 4] = ["192.0.2.1", "192.0.2.2", "2001:db8:1::1", "2001:db8:1::2"];
const PORTS: [u16; 5] = [53, 80, 81, 6379, 40_000];
const HOUR_ZERO: UnixNanos = 1_700_000_000 * 1_000_000_000 / SLICE * SLICE;

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(crate) fn key(namespace: &str, kind: &str, name: &str) -> WorkloadKey {
    WorkloadKey { namespace: namespace.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

pub(crate) fn cluster_of_nodes() -> Cluster {
    let mut cluster = Cluster::default();
    for name in NAMESPACES {
        let labels = labels(&[(METADATA_NAME, name)]);
        cluster.namespaces.insert(name.to_owned(), Namespace { labels, ..Namespace::default() });
    }
    for (index, addresses) in NODES.chunks(1).enumerate() {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        cluster.nodes.insert(format!("node-{index}"), Node { addresses, ..Node::default() });
    }
    cluster
}

/// Adds a workload of `replicas` pods with these labels; `selector` says by which of them its
/// controller selects. Returns its key.
pub(crate) fn add(
    cluster: &mut Cluster,
    (namespace, kind, name): (&str, &str, &str),
    pod_labels: &Labels,
    selector: &[&str],
    replicas: usize,
    families: Families,
) -> WorkloadKey {
    let own = key(namespace, kind, name);
    let replicas = if kind == "Pod" { replicas.min(1) } else { replicas };
    let selector = pod_labels.iter().filter(|(k, _)| selector.contains(&k.as_str()));
    let selector: Labels = selector.map(|(k, v)| (k.clone(), v.clone())).collect();
    if kind != "Pod" {
        let selector = (kind != "CronJob").then(|| Selector::of(selector));
        let workload = Workload { selector, template_labels: pod_labels.clone(), replicas: 1, ..Workload::default() };
        cluster.workloads.insert(own.clone(), workload);
    }
    let middle = match kind {
        "Deployment" => Some(key(namespace, "ReplicaSet", &format!("{name}-5d89"))),
        "CronJob" => Some(key(namespace, "Job", &format!("{name}-2800"))),
        _ => None,
    };
    let owner_of = |key: &WorkloadKey| Owner { kind: key.kind.clone(), name: key.name.clone(), uid: String::new() };
    if let Some(middle) = &middle {
        let workload = Workload { owner: Some(owner_of(&own)), ..Workload::default() };
        cluster.workloads.insert(middle.clone(), workload);
    }
    for replica in 0..replicas {
        let number = cluster.pods.len();
        let mut of_pod = pod_labels.clone();
        for changing in ["pod-template-hash", "controller-revision-hash", "batch.kubernetes.io/job-name"] {
            of_pod.insert(changing.to_owned(), format!("h{number}"));
        }
        let name = if kind == "Pod" { name.to_owned() } else { format!("{name}-{replica}") };
        cluster.pods.push(Pod {
            namespace: namespace.to_owned(),
            uid: format!("uid-{namespace}-{kind}-{name}"),
            name,
            labels: of_pod,
            addresses: families.addresses(number as u16),
            node: "node-0".to_owned(),
            ports: vec![ContainerPort { name: Some("web".to_owned()), port: 80, protocol: Protocol::Tcp }],
            owner: (kind != "Pod").then(|| owner_of(middle.as_ref().unwrap_or(&own))),
            ..Pod::default()
        });
    }
    cluster.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    own
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Families {
    V4,
    V6,
    Both,
}

impl Families {
    fn addresses(self, number: u16) -> Vec<IpAddr> {
        let [high, low] = number.to_be_bytes();
        let v4 = IpAddr::from([10, 244, high, low]);
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number + 1]);
        match self {
            Self::V4 => vec![v4],
            Self::V6 => vec![v6],
            Self::Both => vec![v4, v6],
        }
    }
}

/// One side of a random flow.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    Workload(usize),
    Node(usize),
    Outside(usize),
}

/// What makes a flow unfit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Defect {
    None,
    Denied,
    StagedDenied,
    DirectionUnknown,
    HandshakeNotSeen,
    Unattributed,
    Ping,
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) client: Who,
    pub(crate) server: Who,
    pub(crate) udp: bool,
    pub(crate) port: u16,
    pub(crate) hour: i64,
    pub(crate) defect: Defect,
    pub(crate) node: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) workloads: Vec<WorkloadKey>,
    pub(crate) records: Vec<FlowRecord>,
}

type WorkloadDraw = (usize, usize, usize, Option<bool>, bool, usize, usize);

pub(crate) fn clusters() -> impl Strategy<Value = (Cluster, Vec<WorkloadKey>)> {
    let one = (0..3usize, 0..5usize, 0..5usize, any::<Option<bool>>(), prop::bool::weighted(0.8), 0..3usize, 0..3usize);
    prop::collection::vec(one, 1..8).prop_map(|all| build(&all))
}

fn build(all: &[WorkloadDraw]) -> (Cluster, Vec<WorkloadKey>) {
    let mut cluster = cluster_of_nodes();
    let mut keys = Vec::new();
    for (index, (namespace, kind, app, tier, has_id, replicas, families)) in all.iter().enumerate() {
        // Every third name is shared by two kinds.
        let name = format!("w{}", index / 3 * 3 + (index % 3).min(1));
        let id = format!("{}", index * 10);
        let mut drawn = labels(&[("app", APPS[*app])]);
        if let Some(tier) = tier {
            drawn.extend(labels(&[("tier", if *tier { "yes" } else { "no" })]));
        }
        if *has_id {
            drawn.extend(labels(&[("id", id.as_str())]));
        }
        let whose = (NAMESPACES[*namespace], KINDS[*kind], name.as_str());
        if keys.contains(&key(whose.0, whose.1, whose.2)) {
            continue;
        }
        let families = [Families::V4, Families::V6, Families::Both][*families];
        let replicas = if *kind == 4 { 1 } else { *replicas };
        keys.push(add(&mut cluster, whose, &drawn, &["app"], replicas, families));
    }
    (cluster, keys)
}

pub(crate) fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        8 => (0..8usize).prop_map(Who::Workload),
        1 => (0..NODES.len()).prop_map(Who::Node),
        2 => (0..OUTSIDE.len()).prop_map(Who::Outside),
    ]
}

pub(crate) fn defects() -> impl Strategy<Value = Defect> {
    prop_oneof![
        Just(Defect::Denied),
        Just(Defect::StagedDenied),
        Just(Defect::DirectionUnknown),
        Just(Defect::HandshakeNotSeen),
        Just(Defect::Unattributed),
        Just(Defect::Ping),
    ]
}

pub(crate) fn seen(defect: impl Strategy<Value = Defect>) -> impl Strategy<Value = Seen> {
    let port = prop::sample::select(PORTS.to_vec());
    (who(), who(), any::<bool>(), port, 0..3i64, defect, 0..2usize).prop_map(
        |(client, server, udp, port, hour, defect, node)| Seen { client, server, udp, port, hour, defect, node },
    )
}

pub(crate) fn scenes(defect: impl Strategy<Value = Defect>) -> impl Strategy<Value = Scene> {
    (clusters(), prop::collection::vec(seen(defect), 0..16)).prop_map(|((cluster, workloads), seen)| {
        let records = seen.iter().enumerate().map(|(i, s)| record(&cluster, &workloads, s, i)).collect();
        Scene { cluster, workloads, records }
    })
}

pub(crate) fn good() -> Just<Defect> {
    Just(Defect::None)
}

pub(crate) fn mostly_good() -> impl Strategy<Value = Defect> {
    prop_oneof![3 => Just(Defect::None), 1 => prop::sample::select(vec![
        Defect::Denied, Defect::StagedDenied, Defect::DirectionUnknown, Defect::HandshakeNotSeen,
        Defect::Unattributed, Defect::Ping,
    ])]
}

pub(crate) fn ledger<'r>(records: impl IntoIterator<Item = &'r FlowRecord>) -> Ledger {
    let mut ledger = Ledger::default();
    for record in records {
        ledger.add(&record.node, record);
    }
    ledger
}

/// A ledger in which each edge was seen seven times in one hour, by syn, on node-0.
pub(crate) fn ledger_of(edges: &[Edge]) -> Ledger {
    let mut ledger = Ledger::default();
    for edge in edges {
        sight(&mut ledger, "node-0", 0, edge);
    }
    ledger
}

/// Adds seven flows of an edge in one hour.
pub(crate) fn sight(ledger: &mut Ledger, node: &str, hour: i64, edge: &Edge) {
    let start = HOUR_ZERO + hour * SLICE;
    let seen = EdgeCounters {
        flows: 7,
        first_seen: start,
        last_seen: start + 1_000_000_000,
        samples: vec![format!("f{hour}").into()],
        direction_rule: DirectionRule::Syn,
        adopted_only: false,
        nodes: vec![node.into()],
    };
    ledger.watch(&node.into(), &node.into(), seen.first_seen, seen.last_seen);
    ledger.see(&node.into(), edge.clone(), seen);
}

fn end(cluster: &Cluster, workloads: &[WorkloadKey], who: &Who, port: u16) -> End {
    let none = End {
        ip: IpAddr::from([10, 244, 99, 99]),
        port,
        entity: Entity::Pod,
        namespace: None,
        name: None,
        pod_uid: None,
        workload: None,
        unknown_reason: None,
    };
    match who {
        Who::Workload(index) => {
            let key = &workloads[index % workloads.len()];
            let pods = cluster.pods_of(key);
            let pod = pods.first();
            End {
                ip: pod.and_then(|p| p.addresses.first().copied()).unwrap_or(none.ip),
                namespace: Some(key.namespace.as_str().into()),
                pod_uid: pod.map(|p| p.uid.as_str().into()),
                workload: Some(Arc::new(key.clone())),
                ..none
            }
        }
        Who::Node(index) => End { ip: NODES[*index].parse().unwrap(), entity: Entity::Node, ..none },
        Who::Outside(index) => End { ip: OUTSIDE[*index].parse().unwrap(), entity: Entity::Outside, ..none },
    }
}

pub(crate) fn record(cluster: &Cluster, workloads: &[WorkloadKey], seen: &Seen, number: usize) -> FlowRecord {
    let client = end(cluster, workloads, &seen.client, 50_000);
    let mut server = end(cluster, workloads, &seen.server, seen.port);
    if seen.defect == Defect::Unattributed {
        server = End { entity: Entity::Unknown, workload: None, unknown_reason: Some("never-seen"), ..server };
    }
    let protocol = match (seen.defect, seen.udp) {
        (Defect::Ping, _) => flow::ICMP,
        (Defect::HandshakeNotSeen, _) | (_, false) => TCP,
        _ => UDP,
    };
    let start = HOUR_ZERO + seen.hour * SLICE + number as i64 * 1_000_000_000;
    let syn_ack = if seen.defect == Defect::HandshakeNotSeen { 0 } else { 0x12 };
    FlowRecord {
        flow_id: format!("{number:016x}"),
        community_id: String::new(),
        service: None,
        dns_name: None,
        node: format!("node-{}", seen.node).as_str().into(),
        sampling: 1,
        event: FlowEvent {
            key: FlowKey {
                source: client.ip.into(),
                destination: server.ip.into(),
                source_port: client.port,
                destination_port: server.port,
                protocol,
            },
            direction_rule: match seen.defect {
                Defect::DirectionUnknown => DirectionRule::Unknown,
                _ => DirectionRule::Syn,
            },
            observed_at: ObservedAt::Wire,
            flow_start: start,
            start,
            end: start + 1_000_000,
            packets_to_server: 3,
            packets_to_client: if syn_ack == 0 { 0 } else { 2 },
            bytes_to_server: 300,
            bytes_to_client: 200,
            tcp_flags_to_server: 0x02,
            tcp_flags_to_client: syn_ack,
            adopted: false,
            verdict: if seen.defect == Defect::Denied { FlowVerdict::AuditDeny } else { FlowVerdict::Observed },
            reason: if seen.defect == Defect::Denied { "no-rule" } else { "" }.into(),
            rule: None,
            policy_generation: 0,
            staged_verdict: match seen.defect {
                Defect::StagedDenied => FlowVerdict::Deny,
                _ => FlowVerdict::Observed,
            },
            staged_reason: if seen.defect == Defect::StagedDenied { "no-rule" } else { "" }.into(),
            end_reason: EndReason::Fin,
            rtt_us: None,
            interface: "veth0".into(),
            source: FlowSource::Pcap,
        },
        client,
        server,
    }
}

/// What the operator may choose for addresses and peers; of the addresses outside, the provider has two ranges.
pub(crate) fn choices() -> impl Strategy<Value = Options> {
    let ranges = r#"{"providers": {"cloud": ["198.51.100.0/24", "2001:db8::/64"]}}"#;
    let outside =
        [Outside::Exact, Outside::MinimalCover, Outside::ProviderRanges(Providers::from_json(ranges).unwrap())];
    let peers = [PeerScope::Workload, PeerScope::Namespace];
    (prop::sample::select(outside.to_vec()), prop::sample::select(peers.to_vec()))
        .prop_map(|(outside, peers)| Options { outside, peers, ..Options::default() })
}
