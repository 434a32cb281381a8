//! Choices that open more than was seen: exactly what they name, with their price.

use crate::{
    laws::{generated, reach},
    scenes::{self, Families, good, key, labels, ledger, ledger_of, scenes},
};
use generator::{Generated, Nodes, Options, Outside, PeerScope, Providers, Refused, render, synthesize};
use model::{
    cluster::{Cluster, ContainerPort, Pod, WorkloadKey},
    ledger::{Edge, Party},
    policy::{PortMatch, Protocol},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// One end of the test's own reading: whose pod, or which address.
#[derive(Clone, PartialEq)]
enum Is {
    Pod(WorkloadKey),
    Address(IpAddr),
}

/// Whether a party of an edge, as wide as the choice says, means this end. `alike`: the addresses of edges that
/// differ from it in this party alone.
fn means(party: &Party, end: &Is, options: &Options, alike: &BTreeSet<IpAddr>) -> bool {
    match (party, end) {
        (Party::Workload(key), Is::Pod(own)) if options.peers == PeerScope::Namespace => key.namespace == own.namespace,
        (Party::Workload(key), Is::Pod(own)) => **key == *own,
        (Party::Node(ip), Is::Address(own)) => ip == own,
        (Party::Outside(ip), Is::Address(own)) if options.outside == Outside::MinimalCover => {
            // Brute force: the smallest block of the neighbourhood over all that are alike.
            let bits = if ip.is_ipv4() { 24 } else { 64 };
            let around = ipnet::IpNet::new(*ip, bits).unwrap().trunc();
            let here: Vec<IpAddr> = alike.iter().copied().filter(|other| around.contains(other)).collect();
            let widths = (bits..=around.max_prefix_len()).rev();
            let mut nets = widths.map(|width| ipnet::IpNet::new(*ip, width).unwrap().trunc());
            nets.find(|net| here.iter().all(|other| net.contains(other))).is_some_and(|net| net.contains(own))
                && !scenes::NODES.iter().any(|node| node.parse::<IpAddr>().unwrap() == *own)
        }
        (Party::Outside(ip), Is::Address(own)) => match &options.outside {
            Outside::ProviderRanges(_) if !scenes::OUTSIDE[3..4].contains(&ip.to_string().as_str()) => {
                let range = |ip: &IpAddr| if ip.is_ipv4() { "198.51.100.0/24" } else { "2001:db8::/64" };
                range(ip).parse::<ipnet::IpNet>().unwrap().contains(own)
            }
            _ => ip == own,
        },
        _ => false,
    }
}

fn alike(edges: &BTreeSet<Edge>, edge: &Edge, is_client: bool) -> BTreeSet<IpAddr> {
    let same = |other: &&Edge| {
        let ends = if is_client { (&other.server, &edge.server) } else { (&other.client, &edge.client) };
        ends.0 == ends.1 && (other.protocol, other.port) == (edge.protocol, edge.port)
    };
    let address = |other: &Edge| match if is_client { &other.client } else { &other.server } {
        Party::Outside(ip) => Some(*ip),
        _ => None,
    };
    edges.iter().filter(same).filter_map(address).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Laws 1 and 2, as far as the choice says: an end allows what one of its edges says, widened at the other end.
    #[test]
    fn law_1_and_2_what_is_opened_is_what_the_choice_names(scene in scenes(good()), choice in scenes::choices()) {
        let options = Options { nodes: Some(Nodes::Deny), ..choice };
        let ledger = ledger(&scene.records);
        let Some(generated) = generated(&ledger, &scene.cluster, &options) else { return Ok(()) };
        let edges: BTreeSet<Edge> = generated.lessons.lessons.iter().map(|lesson| lesson.edge.clone()).collect();
        let learned: BTreeSet<Edge> = ledger.learned().into_keys().cloned().collect();
        for edge in &edges {
            prop_assert!(learned.contains(edge) || edge.port == 53, "{:?}", edge);
        }
        let cluster = &scene.cluster;
        let is = |name: &str| -> Is {
            let pod = |pod: &&Pod| pod.addresses.iter().any(|ip| name == format!("{}/{} {ip}", pod.namespace, pod.uid));
            match cluster.pods.iter().find(pod) {
                Some(pod) => Is::Pod(cluster.root_owner(pod)),
                None => Is::Address(name.parse().unwrap()),
            }
        };
        let allowed = reach(&generated.policies, cluster);
        for (from, to) in pairs(cluster) {
            for protocol in Protocol::ALL {
                let (client, server) = (is(&from), is(&to));
                // `None`: an address lets everything pass.
                let side = |is_client: bool| -> Option<BTreeSet<u16>> {
                    let (own, peer) = if is_client { (&client, &server) } else { (&server, &client) };
                    let Is::Pod(own) = own else { return None };
                    let own = Party::Workload(Arc::new(own.clone()));
                    let of_protocol = edges.iter().filter(|edge| edge.protocol == protocol.number());
                    let ends = of_protocol.map(|edge| match is_client {
                        true => (&edge.client, &edge.server, edge),
                        false => (&edge.server, &edge.client, edge),
                    });
                    let of_own = ends.filter(|(end, _, _)| **end == own);
                    let named = of_own.filter(|(_, other, edge)| {
                        means(other, peer, &options, &alike(&edges, edge, !is_client))
                    });
                    Some(named.map(|(_, _, edge)| edge.port).collect())
                };
                let wanted: BTreeSet<u16> = match (side(true), side(false)) {
                    (Some(out), Some(into)) => out.intersection(&into).copied().collect(),
                    (one, other) => one.or(other).unwrap_or_default(),
                };
                let is_allowed: BTreeSet<u16> = allowed.get(&(from.clone(), to.clone(), protocol)).into_iter().flatten().flat_map(|(a, b)| *a..=*b).collect();
                prop_assert_eq!(&is_allowed, &wanted, "{} -> {} {:?} with {:?}", &from, &to, protocol, &options);
            }
        }
    }

    /// Law 11 with every choice: one more flow only adds.
    #[test]
    fn law_11_one_more_learned_flow_closes_nothing_with_any_choice(
        scene in scenes(good()), more in scenes::seen(good()), choice in scenes::choices(),
    ) {
        let options = Options { nodes: Some(Nodes::Allow), ..choice };
        let one = scenes::record(&scene.cluster, &scene.workloads, &more, scene.records.len());
        let Some(first) = generated(&ledger(&scene.records), &scene.cluster, &options) else { return Ok(()) };
        let second = generated(&ledger(scene.records.iter().chain([&one])), &scene.cluster, &options).unwrap();
        let (before, after) = (reach(&first.policies, &scene.cluster), reach(&second.policies, &scene.cluster));
        prop_assert_eq!(crate::laws::is_within(&before, &after), Ok(()));
    }

    /// The price between workloads is what the reference allows between them beyond what was learned.
    #[test]
    fn the_price_between_workloads_is_what_opens_beyond_what_was_seen(scene in scenes(good()), choice in scenes::choices()) {
        let options = Options { nodes: Some(Nodes::Deny), ..choice };
        let ledger = ledger(&scene.records);
        let Some(generated) = generated(&ledger, &scene.cluster, &options) else { return Ok(()) };
        let cluster = everyone(&scene.cluster);
        let mut open: BTreeSet<(WorkloadKey, WorkloadKey, u8, u16)> = BTreeSet::new();
        let owner = |name: &str| cluster.pods.iter().find(|pod| pod.addresses.iter().any(|ip| name == format!("{}/{} {ip}", pod.namespace, pod.uid))).map(|pod| cluster.root_owner(pod));
        for ((from, to, protocol), ports) in reach(&generated.policies, &cluster) {
            if let (Some(client), Some(server)) = (owner(&from), owner(&to)) {
                for port in ports.into_iter().flat_map(|(a, b)| a..=b) {
                    open.insert((client.clone(), server.clone(), protocol.number(), port));
                }
            }
        }
        for edge in ledger.learned().into_keys() {
            if let (Party::Workload(client), Party::Workload(server)) = (&edge.client, &edge.server) {
                open.remove(&((**client).clone(), (**server).clone(), edge.protocol, edge.port));
            }
        }
        prop_assert_eq!(generated.openings.price.edges, open.len() as u64);
    }
}

/// Two pods of both families for each workload, and no others.
fn everyone(cluster: &Cluster) -> Cluster {
    let mut all = cluster.clone();
    let mut pods = cluster.pods.clone();
    pods.extend(cluster.stand_ins());
    let twice = pods.into_iter().enumerate().flat_map(|(number, pod)| {
        [0u8, 1].map(|sibling| {
            let number = u8::try_from(number).unwrap();
            let v6 = [0xfd01, 0, 0, 0, 0, 0, u16::from(sibling), u16::from(number)].into();
            let addresses = vec![[10, 246, sibling, number].into(), v6];
            Pod { uid: format!("{}-{sibling}", pod.uid), addresses, ..pod.clone() }
        })
    });
    all.pods = twice.collect();
    all
}

fn pairs(cluster: &Cluster) -> Vec<(String, String)> {
    let mut names: Vec<(String, IpAddr, Option<&str>)> = Vec::new();
    for pod in &cluster.pods {
        names.extend(
            pod.addresses.iter().map(|ip| (format!("{}/{} {ip}", pod.namespace, pod.uid), *ip, Some(pod.uid.as_str()))),
        );
    }
    for text in scenes::OUTSIDE.iter().chain(&scenes::NODES).chain(&["198.51.100.9", "2001:db8::9"]) {
        names.push(((*text).to_owned(), text.parse().unwrap(), None));
    }
    let mut out = Vec::new();
    for (from, a, x) in &names {
        for (to, b, y) in &names {
            let both_addresses = x.is_none() && y.is_none();
            if a.is_ipv4() == b.is_ipv4() && from != to && !both_addresses && (x != y || x.is_none()) {
                out.push((from.clone(), to.clone()));
            }
        }
    }
    out
}

fn shop(names: &[&str]) -> Cluster {
    let mut cluster = scenes::cluster_of_nodes();
    for name in names {
        scenes::add(&mut cluster, ("shop", "Deployment", name), &labels(&[("app", name)]), &["app"], 2, Families::Both);
    }
    cluster
}

fn named(name: &str) -> Party {
    Party::Workload(Arc::new(key("shop", "Deployment", name)))
}

fn to(server: Party, protocol: u8, port: u16) -> Edge {
    Edge { client: named("web"), server, protocol, port }
}

fn opened(all: &Generated) -> Vec<String> {
    let lines = all.openings.generalisations(&all.subjects).into_iter();
    lines.map(|(name, why, price)| format!("{name} ({}): {price}", why.join("; "))).collect()
}

fn ports_of(all: &Generated, name: &str) -> Vec<PortMatch> {
    let policy = all.policies.get("shop", name).unwrap();
    policy.ingress.iter().flatten().flat_map(|rule| &rule.ports).map(|port| port.port.clone()).collect()
}

#[test]
fn passive_ftp_is_one_range_and_its_price_is_said() {
    let cluster = shop(&["web", "ftp"]);
    let edges = [21, 33_000, 41_234, 60_001].map(|port| to(named("ftp"), flow::TCP, port));
    let all = synthesize(&ledger_of(&edges), &cluster, &Options::default()).unwrap();
    assert_eq!(ports_of(&all, "ftp"), [PortMatch::Range(21, 21), PortMatch::Range(32_768, 60_999)]);
    let said =
        "shop/web->shop/ftp:32768-60999/tcp (passive FTP: the server picks its data ports): 28229 between workloads";
    assert_eq!(opened(&all), [said]);
    let wider = &all.evidence.policies["shop/ftp"].rules[0].wider;
    assert_eq!((wider.len(), wider[0].price.edges), (1, 28_229));
    assert!(
        render::summary(&all).contains("connections never observed: 28229 between workloads"),
        "{}",
        render::summary(&all)
    );
    // A configured range: from the first to the last seen.
    let edges = [21, 30_000, 30_003, 30_007, 30_009].map(|port| to(named("ftp"), flow::TCP, port));
    let all = synthesize(&ledger_of(&edges), &cluster, &Options::default()).unwrap();
    assert_eq!(ports_of(&all, "ftp"), [PortMatch::Range(21, 21), PortMatch::Range(30_000, 30_009)]);
}

#[test]
fn the_portmapper_opens_ranges_of_both_protocols_and_dce_rpc_the_dynamic_ports() {
    let cluster = shop(&["web", "nfs"]);
    let edges = [(flow::UDP, 111), (flow::TCP, 40_000), (flow::TCP, 40_010), (flow::UDP, 50_000), (flow::UDP, 50_001)];
    let edges = edges.map(|(protocol, port)| to(named("nfs"), protocol, port));
    let all = synthesize(&ledger_of(&edges), &cluster, &Options::default()).unwrap();
    let range = PortMatch::Range(32_768, 60_999);
    assert_eq!(ports_of(&all, "nfs"), [range.clone(), PortMatch::Range(111, 111), range]);
    let edges = [135, 49_200, 65_000].map(|port| to(named("nfs"), flow::TCP, port));
    let all = synthesize(&ledger_of(&edges), &cluster, &Options::default()).unwrap();
    assert_eq!(ports_of(&all, "nfs"), [PortMatch::Range(135, 135), PortMatch::Range(49_152, 65_535)]);
}

#[test]
fn ports_picked_by_no_known_protocol_are_refused_until_their_range_is_given() {
    let cluster = shop(&["web", "media"]);
    let edges: Vec<Edge> = (0..9u16).map(|n| to(named("media"), flow::UDP, 40_000 + n * 7)).collect();
    let refused = synthesize(&ledger_of(&edges), &cluster, &Options::default()).unwrap_err();
    assert!(matches!(refused, Refused::ManyPorts(_)));
    let said = refused.to_string();
    assert!(said.contains("9 ports within shop/web->shop/media:40000-40056/udp; give the range"), "{said}");
    let give = |range: &str| Options { port_ranges: vec![range.to_owned()], ..Options::default() };
    let all = synthesize(&ledger_of(&edges), &cluster, &give("shop/web->shop/media:40000-40099/udp")).unwrap();
    assert_eq!(ports_of(&all, "media"), [PortMatch::Range(40_000, 40_099)]);
    assert_eq!(opened(&all), ["shop/web->shop/media:40000-40099/udp (a range given by name): 91 between workloads"]);
    let nobodys = synthesize(&ledger_of(&edges), &cluster, &give("shop/web->shop/media:50000-50099/udp")).unwrap_err();
    assert!(nobodys.to_string().contains("no learned edge lies in this range"), "{nobodys}");
}

#[test]
fn ports_that_somebody_declares_are_ports_of_their_own() {
    let mut cluster = shop(&["web", "media"]);
    for pod in cluster.pods.iter_mut().filter(|pod| pod.labels["app"] == "media") {
        let port = |n: u16| ContainerPort { name: None, port: 40_000 + n, protocol: Protocol::Udp };
        pod.ports = (0..9).map(port).collect();
    }
    let edges: Vec<Edge> = (0..9u16).map(|n| to(named("media"), flow::UDP, 40_000 + n)).collect();
    let all = synthesize(&ledger_of(&edges), &cluster, &Options::default()).unwrap();
    assert_eq!(ports_of(&all, "media").len(), 9);
}

/// Two pods of `api`, one old at 8080 and one new at 9090, both under the name `http`.
fn rollout() -> Cluster {
    let mut cluster = shop(&["web", "api"]);
    let http = |port| vec![ContainerPort { name: Some("http".to_owned()), port, protocol: Protocol::Tcp }];
    let api = cluster.pods.iter_mut().filter(|pod| pod.labels["app"] == "api");
    for (pod, port) in api.zip([8080, 9090]) {
        pod.ports = http(port);
    }
    cluster.workloads.get_mut(&key("shop", "Deployment", "api")).unwrap().template_ports = http(9090);
    cluster
}

#[test]
fn a_port_that_moves_is_named_and_opens_each_pod_at_its_own_number() {
    let cluster = rollout();
    let all = synthesize(&ledger_of(&[to(named("api"), flow::TCP, 8080)]), &cluster, &Options::default()).unwrap();
    assert_eq!(ports_of(&all, "api"), [PortMatch::Named("http".to_owned())]);
    assert_eq!(
        opened(&all),
        ["shop/web->shop/api:http/tcp (the pods have this port at different numbers): 1 between workloads"]
    );
    let open = reach(&all.policies, &cluster);
    let at = |uid: &str| {
        let to_it = open.iter().filter(|((_, to, _), _)| to.contains(uid)).map(|(_, ports)| ports.clone());
        to_it.collect::<BTreeSet<_>>().into_iter().flatten().collect::<Vec<_>>()
    };
    assert_eq!(at("api-0"), [(8080, 8080)]);
    assert_eq!(at("api-1"), [(9090, 9090)]);
    let both = [8080, 9090].map(|port| to(named("api"), flow::TCP, port));
    let all = synthesize(&ledger_of(&both), &cluster, &Options::default()).unwrap();
    assert_eq!(ports_of(&all, "api"), [PortMatch::Named("http".to_owned())]);
    assert_eq!(opened(&all), [""; 0], "both numbers were seen");
}

#[test]
fn a_port_is_a_number_where_its_name_would_mean_something_else() {
    let of_both = [8080, 9090].map(|port| to(named("api"), flow::TCP, port));
    let numbers = |change: &dyn Fn(&mut Vec<ContainerPort>)| {
        let mut cluster = rollout();
        cluster.pods.iter_mut().filter(|pod| pod.name == "api-0").for_each(|pod| change(&mut pod.ports));
        let all = synthesize(&ledger_of(&of_both), &cluster, &Options::default()).unwrap();
        ports_of(&all, "api").iter().all(|port| matches!(port, PortMatch::Range(..)))
    };
    let port = |name: &str, port| ContainerPort { name: Some(name.to_owned()), port, protocol: Protocol::Tcp };
    assert!(!numbers(&|_| {}), "by name where every backend has it");
    assert!(numbers(&|ports| ports.clear()), "a backend without it");
    assert!(numbers(&|ports| ports.push(port("admin", 9090))), "another port of one of its numbers");
    assert!(numbers(&|ports| ports[0].port = 9090), "the same number everywhere");
    assert!(numbers(&|ports| ports[0].protocol = Protocol::Udp), "another protocol's");
}

#[test]
fn every_pod_of_the_namespace_costs_what_both_ends_open() {
    let cluster = shop(&["web", "cart", "db"]);
    let edge = |client: &str, server: &str| Edge {
        client: named(client),
        server: named(server),
        protocol: flow::TCP,
        port: 80,
    };
    let options = Options { peers: PeerScope::Namespace, ..Options::default() };
    let all = synthesize(&ledger_of(&[edge("web", "cart"), edge("cart", "db")]), &cluster, &options).unwrap();
    let lines = [
        "every pod of shop->shop/cart:80/tcp, ingress (--peers namespace): 1 between workloads",
        "every pod of shop->shop/db:80/tcp, ingress (--peers namespace): 1 between workloads",
        "shop/cart->every pod of shop:80/tcp, egress (--peers namespace): 1 between workloads",
        "shop/web->every pod of shop:80/tcp, egress (--peers namespace): 1 between workloads",
    ];
    assert_eq!(opened(&all), lines);
    // cart to itself and web to db, each once in the sum although a rule of either end names it.
    assert_eq!(all.openings.price.edges, 2);
    assert!(render::summary(&all).contains("(--outside exact, --peers namespace)"));
}

#[test]
fn blocks_around_addresses_cost_the_addresses_nobody_saw() {
    let mut cluster = shop(&["web"]);
    let outside = |ip: &str| to(Party::Outside(ip.parse().unwrap()), flow::TCP, 443);
    let edges = ["198.51.100.6", "198.51.100.9", "203.0.113.1"].map(outside);
    let opened_with = |cluster: &Cluster, outside| {
        let options = Options { outside, ..Options::default() };
        opened(&synthesize(&ledger_of(&edges), cluster, &options).unwrap())
    };
    assert_eq!(opened_with(&cluster, Outside::Exact), [""; 0]);
    let cover = "shop/web->198.51.100.0/28:443/tcp (--outside minimal-cover): 14 with addresses";
    assert_eq!(opened_with(&cluster, Outside::MinimalCover), [cover]);
    let providers = Providers::from_json(r#"{"providers": {"pay": ["198.51.100.0/24"]}}"#).unwrap();
    let range = "shop/web->198.51.100.0/24:443/tcp (--outside provider-ranges: pay): 254 with addresses";
    assert_eq!(opened_with(&cluster, Outside::ProviderRanges(providers)), [range]);
    // A node in the middle is the cluster's own, and stays closed.
    cluster.nodes.insert(
        "edge".to_owned(),
        model::cluster::Node { addresses: vec!["198.51.100.8".parse().unwrap()], ..Default::default() },
    );
    let without = "shop/web->198.51.100.0/28 without the cluster's own 1 block:443/tcp (--outside minimal-cover): 13 with addresses";
    assert_eq!(opened_with(&cluster, Outside::MinimalCover), [without]);
    let reached: BTreeMap<_, _> = reach(
        &synthesize(&ledger_of(&edges), &cluster, &Options { outside: Outside::MinimalCover, ..Options::default() })
            .unwrap()
            .policies,
        &cluster,
    );
    assert!(reached.keys().any(|(_, to, _)| to == "198.51.100.7"), "within the block");
}
