//! Scenario folders, read: what is right, and what a stranger may get wrong, with what he is told.

use lab::{Destination, ExpectedEdge, Party, Scenario};
use model::{cluster::WorkloadKey, policy::Protocol};
use std::{collections::BTreeSet, path::Path};

const CLUSTER: &str = include_str!("../../../policies/examples/tiny/cluster.yaml");
const TRAFFIC: &str = include_str!("../../../policies/examples/tiny/traffic.yaml");

fn parse(cluster: &str, traffic: &str) -> Result<Scenario, lab::Error> {
    Scenario::parse("case", Path::new("case"), ("cluster.yaml", cluster), ("traffic.yaml", traffic))
}

fn example(name: &str) -> Scenario {
    Scenario::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/examples").join(name)).unwrap()
}

fn workload(namespace: &str, kind: &str, name: &str) -> Party {
    Party::Workload(WorkloadKey { namespace: namespace.into(), kind: kind.into(), name: name.into() })
}

#[test]
fn what_tiny_must_show_follows_from_its_traffic_alone() {
    let scenario = parse(CLUSTER, TRAFFIC).unwrap();
    let web = || workload("shop", "Deployment", "web");
    let edge = |server, protocol, port| ExpectedEdge { client: web(), server, protocol: Some(protocol), port };
    let api = || workload("shop", "Deployment", "api");
    let dns = workload("kube-system", "Deployment", "coredns");
    let expected = BTreeSet::from([edge(dns, Protocol::Udp, 53), edge(api(), Protocol::Tcp, 8080)]);
    assert_eq!(scenario.expected_edges(), expected);
    let added = scenario.edges_of_attack(&scenario.attacks[0]);
    assert_eq!(added, BTreeSet::from([edge(api(), Protocol::Tcp, 9000)]), "its look-up is nothing new");
}

#[test]
fn shop_is_as_large_as_it_says() {
    let shop = example("shop");
    let edges = shop.expected_edges();
    let parties: BTreeSet<&Party> = edges.iter().flat_map(|edge| [&edge.client, &edge.server]).collect();
    let workloads: Vec<&WorkloadKey> = parties
        .into_iter()
        .filter_map(|party| match party {
            Party::Workload(key) => Some(key),
            Party::Outside(_) => None,
        })
        .collect();
    let namespaces: BTreeSet<&str> = workloads.iter().map(|key| key.namespace.as_str()).collect();
    assert!(workloads.len() >= 12 && namespaces.len() >= 3, "{} in {namespaces:?}", workloads.len());
    assert_eq!(edges.iter().filter(|edge| edge.protocol.is_none()).count(), 1, "one ping");
    for attack in &shop.attacks {
        assert!(!shop.edges_of_attack(attack).is_empty(), "{}: an attack is an edge that no call makes", attack.name);
    }
}

#[test]
fn a_mistake_in_traffic_is_told_with_line_and_remedy() {
    let cases = [
        ("serve:", "serves:", "traffic.yaml:1:", "unknown field"),
        ("http: 8080}", "http: 8080, tcp: 1}", "traffic.yaml:3: serve[1]:", "exactly one of"),
        ("http: 8080}", "http: 80800}", "traffic.yaml:3:", "80800 is no port; write 1 to 65535"),
        ("http: 8080}", "http: 0}", "traffic.yaml:3:", "0 is no port"),
        ("dns: 53", "dns: 5353", "traffic.yaml:2: serve[0]:", "write `dns: 53`"),
        ("tcp: 9000}", "redis: 8080}", "traffic.yaml:4: serve[2]:", "served already"),
        (
            "shop/api, http",
            "shop/apy, http",
            "traffic.yaml:3: serve[1].workload:",
            "there are kube-system/coredns, shop/api",
        ),
        (
            "from: shop/web, to: \"http",
            "from: web, to: \"http",
            "traffic.yaml:6: calls[0].from:",
            "write namespace/name",
        ),
        ("http://api:8080/", "http://api:80/", "traffic.yaml:6: calls[0].to:", "shop/api serves http 8080"),
        ("http://api:8080/", "redis://api:8080", "traffic.yaml:6: calls[0].to:", "nobody answers"),
        ("http://api:8080/", "http://ape:8080/", "traffic.yaml:6: calls[0].to:", "neither a Service"),
        ("http://api:8080/", "http://10.77.0.3:8080/", "traffic.yaml:6: calls[0].to:", "name pods by their Service"),
        ("http://api:8080/", "api:8080", "traffic.yaml:6: calls[0].to:", "is no scheme"),
        ("every: 200ms", "every: 1ms", "traffic.yaml:6: calls[0].every:", "too often"),
        ("every: 200ms", "every: 5", "traffic.yaml:6:", "write for example 500ms"),
        ("every: 200ms", "every: 2h", "traffic.yaml:6:", "more than an hour"),
        ("every: 200ms", "connection: open", "traffic.yaml:6:", "expected one of new, kept"),
        (
            "to: \"http://api:8080/\"",
            "connection: kept, to: \"icmp://api\"",
            "traffic.yaml:6: calls[0].connection:",
            "no connection to keep",
        ),
        ("every: 200ms", "families: [5]", "traffic.yaml:6:", "write 4 or 6"),
        ("every: 200ms", "families: []", "traffic.yaml:6: calls[0].families:", "write [4], [6] or [4, 6]"),
        ("expect: denied", "expect: maybe", "traffic.yaml:8:", "denied"),
        (
            "attacks:",
            "jobs: [{workload: shop/web, at: [1s]}]\nattacks:",
            "traffic.yaml:7: jobs[0].workload:",
            "CronJob",
        ),
        (
            "attacks:",
            "events: [{at: 1s, delete: kube-system/coredns}]\nattacks:",
            "traffic.yaml:7: events[0].delete:",
            "resolvers",
        ),
        (
            "attacks:",
            "events: [{at: 1s, delete: shop/api, address_to: shop/api}]\nattacks:",
            "traffic.yaml:7: events[0].address_to:",
            "another workload",
        ),
        (
            "attacks:",
            "outside: [{name: a.example, addresses: [10.77.0.9]}]\nattacks:",
            "traffic.yaml:7: outside[0]",
            "10.77.0.9",
        ),
        (
            "attacks:",
            "outside: [{name: a.example, addresses: [1.1.1.1, 8.8.8.8]}]\nattacks:",
            "traffic.yaml:7:",
            "one of each",
        ),
        ("  - {workload: kube-system/coredns, dns: 53}\n", "", "traffic.yaml:5: calls[0].to:", "add `dns: 53`"),
    ];
    for (from, to, place, says) in cases {
        assert!(TRAFFIC.contains(from), "{from}");
        let error = parse(CLUSTER, &TRAFFIC.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(
            error.starts_with(place) && error.contains(says),
            "{from} -> {to}:\n  {error}\n  lacks {place} … {says}"
        );
    }
}

#[test]
fn a_mistake_in_the_cluster_is_told_with_its_object() {
    let cases = [
        ("kind: Node\n", "kind: Nodes\n", "Node: none is there"),
        ("10.77.0.0/24, ", "", "write an IPv4 range"),
        ("10.77.0.0/24", "10.77.0.0/30", "write an IPv4 range"),
        ("    - {type: InternalIP, address: 192.0.2.10}\n", "", "write an InternalIP of each family"),
        ("replicas: 1", "replicas: 5000", "the lab plays 200 at most"),
        ("app: web\n        canary", "app: web\n        canary: [1]\n        x", "cluster.yaml:"),
        (
            "    spec:\n      containers:\n        - name: web",
            "    spec:\n      hostNetwork: true\n      containers:\n        - name: web",
            "leave hostNetwork out",
        ),
        ("name: web\n  namespace: shop", "name: ../web\n  namespace: shop", "name"),
        ("name: web\n  namespace: shop", "name: web\n  namespace: \"a\\nb\"", "name"),
        ("{", "[", "cluster.yaml:"),
    ];
    for (from, to, says) in cases {
        assert!(CLUSTER.contains(from), "{from}");
        let error = parse(&CLUSTER.replacen(from, to, 1), TRAFFIC).unwrap_err().to_string();
        assert!(
            error.starts_with("cluster.yaml") && error.contains(says),
            "{from} -> {to}:\n  {error}\n  lacks {says}"
        );
    }
}

#[test]
fn a_call_to_a_services_address_is_an_edge_to_the_backends_port() {
    let scenario = example("shop");
    let carts = scenario.calls.iter().filter(|call| call.to.to_string() == "http://cart:80/cart");
    assert!(carts.count() > 1);
    let cart = |edge: &&lab::ExpectedEdge| edge.server.to_string().ends_with("/cart") && edge.port != 9100;
    let edges = scenario.expected_edges();
    assert!(edges.iter().filter(cart).count() > 1);
    assert!(edges.iter().filter(cart).all(|edge| edge.port == 8080), "{edges:?}");
}

#[test]
fn a_call_reads_as_it_was_written() {
    let scenario = example("shop");
    let written: Vec<String> = scenario.calls.iter().map(|call| call.to.to_string()).collect();
    assert!(written.contains(&"http://*.kube-system:9153/metrics".to_owned()));
    for text in written {
        assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
    }
}

#[test]
fn any_folder_makes_a_name_for_a_lab() {
    for (folder, name) in
        [("/x/My Shop_2", "my-shop-2"), ("/x/.hidden", "hidden"), ("/", "scenario"), ("/x/é", "scenario")]
    {
        assert_eq!(lab::name_of(Path::new(folder)), name);
    }
}
