//! Laws 1, 2, 8, 11 and 13, over random clusters and flows. What is allowed is asked of the
//! reference evaluator for every pair of pods, one by one; nothing of the generator's own
//! verification is used.

use crate::scenes::{self, Defect, Scene, Who, good, ledger, mostly_good, scenes};
use generator::{Generated, Nodes, Options, Refused, naming, render, synthesize};
use model::{
    cluster::{Cluster, WorkloadKey},
    ledger::{Edge, Ledger, Party},
    policy::{PolicySet, Protocol},
    ports::Ports,
    reference::{Endpoint, Reference},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Workloads that no label tells apart are refused; such a scene shows nothing else.
pub(crate) fn generated(ledger: &Ledger, cluster: &Cluster, options: &Options) -> Option<Generated> {
    match synthesize(ledger, cluster, options) {
        Ok(generated) => Some(generated),
        Err(Refused::Indistinguishable(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

pub(crate) fn nodes(nodes: Nodes) -> Options {
    Options { nodes: Some(nodes), ..Options::default() }
}

/// Who may open what: client, server, protocol, ports; pods by name and address, addresses as they are.
pub(crate) type Reach = BTreeMap<(String, String, Protocol), Ports>;

pub(crate) fn reach(policies: &PolicySet, cluster: &Cluster) -> Reach {
    let reference = Reference::new(cluster, policies);
    let mut ends: Vec<(String, Endpoint<'_>, IpAddr)> = Vec::new();
    for pod in &cluster.pods {
        for ip in &pod.addresses {
            ends.push((format!("{}/{} {ip}", pod.namespace, pod.uid), Endpoint::Pod(pod, *ip), *ip));
        }
    }
    for text in scenes::OUTSIDE.iter().chain(&scenes::NODES).chain(&["198.51.100.9", "2001:db8::9"]) {
        let ip = text.parse().unwrap();
        ends.push(((*text).to_owned(), Endpoint::Address(ip), ip));
    }
    let mut all = Reach::new();
    for (from, client, a) in &ends {
        for (to, server, b) in &ends {
            let both_addresses = matches!((client, server), (Endpoint::Address(_), Endpoint::Address(_)));
            if a.is_ipv4() != b.is_ipv4() || from == to || both_addresses || same_pod(*client, *server) {
                continue;
            }
            for protocol in Protocol::ALL {
                let ports = reference.ports(*client, *server, protocol);
                if !ports.is_empty() {
                    all.insert((from.clone(), to.clone(), protocol), ports);
                }
            }
        }
    }
    all
}

fn same_pod(a: Endpoint<'_>, b: Endpoint<'_>) -> bool {
    matches!((a, b), (Endpoint::Pod(a, _), Endpoint::Pod(b, _)) if a.uid == b.uid)
}

/// What laws 1 and 2 ask for, written down from the edges alone.
fn wanted(edges: &BTreeSet<Edge>, cluster: &Cluster) -> Reach {
    let pods_of = |key: &WorkloadKey| cluster.pods_of(key);
    let ends = |party: &Party| -> Vec<(String, String, IpAddr)> {
        match party {
            Party::Workload(key) => pods_of(key)
                .into_iter()
                .flat_map(|pod| {
                    let name = |ip: &IpAddr| (format!("{}/{} {ip}", pod.namespace, pod.uid), pod.uid.clone(), *ip);
                    pod.addresses.iter().map(name).collect::<Vec<_>>()
                })
                .collect(),
            Party::Node(ip) | Party::Outside(ip) => vec![(ip.to_string(), ip.to_string(), *ip)],
        }
    };
    let mut all: Reach = Reach::new();
    for edge in edges {
        let protocol = Protocol::from_number(edge.protocol).unwrap();
        for (from, a, x) in ends(&edge.client) {
            for (to, b, y) in ends(&edge.server) {
                if a != b && x.is_ipv4() == y.is_ipv4() {
                    all.entry((from.clone(), to, protocol)).or_default().push((edge.port, edge.port));
                }
            }
        }
    }
    all.into_iter().map(|(ends, ports)| (ends, model::ports::union(ports))).collect()
}

/// Learned edges, with the generalisations that the design allows.
fn edges_with_generalisations(ledger: &Ledger, nodes: Nodes) -> BTreeSet<Edge> {
    let mut all = BTreeSet::new();
    for edge in ledger.learned().into_keys() {
        match (&edge.client, nodes) {
            (Party::Node(_), Nodes::Deny) => {}
            (Party::Node(_), Nodes::Allow) => {
                all.extend(
                    scenes::NODES.iter().map(|ip| Edge { client: Party::Node(ip.parse().unwrap()), ..edge.clone() }),
                );
            }
            _ => drop(all.insert(edge.clone())),
        }
    }
    let dns = all.iter().filter(|e| e.protocol == flow::UDP && e.port == 53 && matches!(e.server, Party::Workload(_)));
    let over_tcp: Vec<Edge> = dns.map(|e| Edge { protocol: flow::TCP, ..e.clone() }).collect();
    all.extend(over_tcp);
    all
}

pub(crate) fn is_within(smaller: &Reach, larger: &Reach) -> Result<(), String> {
    for (ends, ports) in smaller {
        let theirs = larger.get(ends).map_or(&[][..], Vec::as_slice);
        if model::ports::intersection(ports, theirs) != *ports {
            return Err(format!("{ends:?}: {ports:?} was open, now {theirs:?}"));
        }
    }
    Ok(())
}

fn bytes(generated: &Generated) -> BTreeMap<String, String> {
    render::files(generated)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_global_rejects: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn law_1_and_2_the_learned_edges_are_allowed_and_nothing_else(scene in scenes(mostly_good()), allow: bool) {
        let ledger = ledger(&scene.records);
        let choice = if allow { Nodes::Allow } else { Nodes::Deny };
        let Some(generated) = generated(&ledger, &scene.cluster, &nodes(choice)) else { return Ok(()) };
        let wanted = wanted(&edges_with_generalisations(&ledger, choice), &scene.cluster);
        prop_assert_eq!(reach(&generated.policies, &scene.cluster), wanted);
    }

    #[test]
    fn law_2_every_generalisation_and_everything_left_out_is_listed(scene in scenes(mostly_good()), allow: bool) {
        let ledger = ledger(&scene.records);
        let choice = if allow { Nodes::Allow } else { Nodes::Deny };
        let Some(generated) = generated(&ledger, &scene.cluster, &nodes(choice)) else { return Ok(()) };
        let learned: BTreeSet<&Edge> = ledger.learned().into_keys().collect();
        let taught: BTreeSet<&Edge> = generated.lessons.lessons.iter().map(|l| &l.edge).collect();
        let listed: BTreeSet<&Edge> = generated.lessons.generalisations().map(|l| &l.edge).collect();
        let beyond: BTreeSet<&Edge> = taught.difference(&learned).copied().collect();
        prop_assert_eq!(beyond, listed);
        let left_out: BTreeSet<&Edge> = generated.lessons.left_out.iter().filter_map(|l| l.edge.as_ref()).collect();
        for edge in learned.difference(&taught) {
            prop_assert!(left_out.contains(edge), "{}", naming::edge(edge));
        }
        let unfit: u64 = ledger.unfit.values().map(|left| left.sightings.flows()).sum();
        let said: u64 = generated.lessons.left_out.iter().filter(|l| matches!(l.reason, generator::lessons::LeftOutReason::Unfit(_))).map(|l| l.flows).sum();
        prop_assert_eq!(unfit, said);
    }

    #[test]
    fn every_rule_has_evidence_and_every_edge_is_behind_a_rule_at_each_end(scene in scenes(good())) {
        let ledger = ledger(&scene.records);
        let Some(generated) = generated(&ledger, &scene.cluster, &nodes(Nodes::Allow)) else { return Ok(()) };
        let mut proofs = 0;
        for policy in &generated.policies.policies {
            let own = &generated.evidence.policies[&format!("{}/{}", policy.namespace, policy.name)];
            let rules = policy.ingress.as_ref().unwrap().len() + policy.egress.as_ref().unwrap().len();
            prop_assert_eq!(own.rules.len(), rules);
            for rule in &own.rules {
                prop_assert!(!rule.proofs.is_empty(), "{} has no evidence", rule.rule);
                proofs += rule.proofs.len();
            }
        }
        let ends = |edge: &Edge| [&edge.client, &edge.server].into_iter().filter(|p| matches!(p, Party::Workload(_))).count();
        let wanted: usize = generated.lessons.lessons.iter().map(|l| ends(&l.edge)).sum();
        prop_assert_eq!(proofs, wanted);
    }

    #[test]
    fn law_8_the_same_input_gives_the_same_bytes_in_whatever_order(
        scene in scenes(mostly_good()),
        keys in prop::collection::vec(any::<u64>(), 16),
        pods in prop::collection::vec(any::<u64>(), 32),
        choice in scenes::choices(),
    ) {
        let by_node = |records: &[&model::record::FlowRecord], name: &str| {
            ledger(records.iter().copied().filter(|r| &*r.node == name))
        };
        let in_order: Vec<_> = scene.records.iter().collect();
        let mut one = by_node(&in_order, "node-0");
        one.merge(by_node(&in_order, "node-1"));
        let mut shuffled: Vec<_> = scene.records.iter().zip(&keys).collect();
        shuffled.sort_by_key(|(_, key)| **key);
        let shuffled: Vec<_> = shuffled.into_iter().map(|(record, _)| record).collect();
        let (late, early) = (by_node(&shuffled, "node-1"), by_node(&shuffled, "node-0"));
        let mut other = late.clone();
        for again in [&early, &late, &early] {
            other.merge(again.clone());
        }
        let mut cluster = scene.cluster.clone();
        let mut order: Vec<_> = cluster.pods.drain(..).zip(&pods).collect();
        order.sort_by_key(|(_, key)| **key);
        cluster.pods = order.into_iter().map(|(pod, _)| pod).collect();
        let options = Options { nodes: Some(Nodes::Allow), ..choice };
        let Some(first) = generated(&one, &scene.cluster, &options) else { return Ok(()) };
        let second = generated(&other, &cluster, &options).unwrap();
        prop_assert_eq!(bytes(&first), bytes(&second));
        let graphs = [&one, &other].map(generator::CommunicationGraph::of);
        let drawn = graphs.map(|g| (g.to_json(), g.to_dot(), g.to_mermaid(), g.rows()));
        prop_assert_eq!(&drawn[0], &drawn[1]);
    }

    #[test]
    fn law_11_one_more_learned_flow_closes_nothing(scene in scenes(good()), more in scenes::seen(good()), allow: bool) {
        let options = nodes(if allow { Nodes::Allow } else { Nodes::Deny });
        let before = ledger(&scene.records);
        let one = scenes::record(&scene.cluster, &scene.workloads, &more, scene.records.len());
        let after = ledger(scene.records.iter().chain([&one]));
        let Some(first) = generated(&before, &scene.cluster, &options) else { return Ok(()) };
        let second = generated(&after, &scene.cluster, &options).unwrap();
        let result = is_within(&reach(&first.policies, &scene.cluster), &reach(&second.policies, &scene.cluster));
        prop_assert!(result.is_ok(), "{:?}", result);
    }

    #[test]
    fn law_13_no_unfit_flow_becomes_a_rule_until_it_is_accepted_by_name(scene in scenes(scenes::defects())) {
        let ledger = ledger(&scene.records);
        let Some(none) = generated(&ledger, &scene.cluster, &Options::default()) else { return Ok(()) };
        for policy in &none.policies.policies {
            prop_assert_eq!((policy.ingress.as_deref(), policy.egress.as_deref()), (Some(&[][..]), Some(&[][..])));
        }
        let can_be_accepted = none.lessons.left_out.iter().filter(|l| l.reason.can_be_accepted());
        let edges: BTreeSet<Edge> = can_be_accepted.filter_map(|l| l.edge.clone()).collect();
        let from_a_node = |edge: &Edge| matches!(edge.client, Party::Node(_));
        let between_pods = |edge: &Edge| matches!((&edge.client, &edge.server), (Party::Workload(_), Party::Workload(_)));
        for edge in edges.into_iter().filter(|e| between_pods(e) && !from_a_node(e)) {
            let kind = |party: &Party| naming::party_in_full(party);
            let (client, server) = (kind(&edge.client), kind(&edge.server));
            let name = format!("{client}->{server}:{}/{}", edge.port, naming::protocol(edge.protocol));
            let options = Options { accept: vec![name], ..Options::default() };
            let one = generated(&ledger, &scene.cluster, &options).unwrap();
            let mut wanted_edges = BTreeSet::from([edge.clone()]);
            if edge.protocol == flow::UDP && edge.port == 53 {
                wanted_edges.insert(Edge { protocol: flow::TCP, ..edge.clone() });
            }
            prop_assert_eq!(reach(&one.policies, &scene.cluster), wanted(&wanted_edges, &scene.cluster));
        }
    }
}

#[test]
fn a_denied_edge_is_no_rule_even_where_it_was_seen_to_pass_before() {
    let (cluster, keys) = two_workloads();
    let seen = |defect| scenes::Seen {
        client: Who::Workload(0),
        server: Who::Workload(1),
        udp: false,
        port: 6379,
        hour: 0,
        defect,
        node: 0,
    };
    let record = |defect, n| scenes::record(&cluster, &keys, &seen(defect), n);
    let passed = ledger(&[record(Defect::None, 0)]);
    let both = ledger(&[record(Defect::None, 0), record(Defect::Denied, 1)]);
    let open = |ledger: &Ledger| {
        !reach(&synthesize(ledger, &cluster, &Options::default()).unwrap().policies, &cluster).is_empty()
    };
    assert!(open(&passed), "the same edge, never denied, is a rule");
    assert!(!open(&both));
}

fn two_workloads() -> (Cluster, Vec<WorkloadKey>) {
    let mut cluster = scenes::cluster_of_nodes();
    let keys = ["frontend", "db"]
        .map(|name| {
            let labels = scenes::labels(&[("app", name)]);
            scenes::add(&mut cluster, ("shop", "Deployment", name), &labels, &["app"], 2, scenes::Families::Both)
        })
        .to_vec();
    (cluster, keys)
}

#[test]
fn the_random_scenes_are_worth_their_name() {
    // A property over scenes that are all refused or all empty would hold for the wrong reason.
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut refused, mut narrowed, mut open, mut dual) = (0, 0, 0, 0);
    for _ in 0..200 {
        let scene: Scene = scenes(good()).new_tree(&mut runner).unwrap().current();
        let Some(generated) = generated(&ledger(&scene.records), &scene.cluster, &nodes(Nodes::Allow)) else {
            refused += 1;
            continue;
        };
        narrowed += u32::from(generated.subjects.all().iter().any(|s| !s.narrowed.is_empty()));
        open += u32::from(!reach(&generated.policies, &scene.cluster).is_empty());
        dual += u32::from(scene.cluster.pods.iter().any(|p| p.addresses.len() == 2));
    }
    assert!(refused < 100, "{refused} of 200 refused");
    assert!(narrowed >= 20 && open >= 80 && dual >= 50, "narrowed {narrowed}, open {open}, dual {dual}");
}
