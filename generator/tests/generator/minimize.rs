//! Minimising changes no answer, over random policies that use everything NetworkPolicy has.

use crate::scenes::{self, labels};
use generator::minimize;
use ipnet::IpNet;
use model::{
    cluster::Cluster,
    labels::{METADATA_NAME, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
    reference::{Endpoint, Reference},
};
use proptest::prelude::*;

fn selector() -> impl Strategy<Value = Selector> {
    let app = prop::sample::select(vec!["on", "0x1f", "1_000"]);
    prop_oneof![
        Just(Selector::default()),
        app.prop_map(|app| Selector::of(labels(&[("app", app)]))),
        Just(Selector {
            match_expressions: vec![Requirement { key: "tier".into(), operator: Operator::Exists, values: vec![] }],
            ..Selector::default()
        }),
    ]
}

fn peer() -> impl Strategy<Value = Peer> {
    let namespace = prop::sample::select(scenes::NAMESPACES.to_vec());
    let namespaces = prop_oneof![
        Just(None),
        Just(Some(Selector::default())),
        namespace.prop_map(|name| Some(Selector::of(labels(&[(METADATA_NAME, name)])))),
    ];
    let pods = (namespaces, prop::option::of(selector())).prop_filter_map("a peer selects", |(namespaces, pods)| {
        (namespaces.is_some() || pods.is_some()).then_some(Peer::Pods { namespaces, pods })
    });
    let block = (0..4u8, 0..=255u8, 29..=32u8, prop::option::of(0..=255u8)).prop_map(|(net, host, length, hole)| {
        let cidr = IpNet::new([10, 244, 0, (net * 4) | (host & 3)].into(), length).unwrap().trunc();
        let hole = hole.map(|h| IpNet::new([10, 244, 0, (net * 4) | (h & 3)].into(), 32).unwrap());
        let except = hole.into_iter().filter(|h| cidr.contains(h) && *h != cidr).collect();
        Peer::Block { cidr, except }
    });
    prop_oneof![3 => pods, 2 => block]
}

fn port() -> impl Strategy<Value = Port> {
    let protocol = prop::sample::select(Protocol::ALL.to_vec());
    let which = prop_oneof![
        Just(PortMatch::All),
        (75..85u16, 0..4u16).prop_map(|(first, more)| PortMatch::Range(first, first + more)),
        (75..85u16).prop_map(|port| PortMatch::Range(port, port)),
        Just(PortMatch::Named("web".into())),
        Just(PortMatch::Named("missing".into())),
    ];
    (protocol, which).prop_map(|(protocol, port)| Port { protocol, port })
}

fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
    let rule = (prop::collection::vec(peer(), 0..4), prop::collection::vec(port(), 0..4))
        .prop_map(|(peers, ports)| Rule { peers, ports, source: None });
    prop::option::weighted(0.9, prop::collection::vec(rule, 0..6))
}

fn policies() -> impl Strategy<Value = PolicySet> {
    let one = (prop::sample::select(scenes::NAMESPACES.to_vec()), selector(), rules(), rules());
    prop::collection::vec(one, 1..5).prop_map(|all| {
        let policies =
            all.into_iter().enumerate().map(|(i, (namespace, pod_selector, ingress, egress))| NetworkPolicy {
                namespace: namespace.to_owned(),
                name: format!("p{i}"),
                labels: labels(&[]),
                annotations: labels(&[]),
                pod_selector,
                ingress,
                egress,
                source: None,
            });
        PolicySet { policies: policies.collect() }
    })
}

fn answers(policies: &PolicySet, cluster: &Cluster) -> Vec<String> {
    let reference = Reference::new(cluster, policies);
    let mut ends: Vec<_> =
        cluster.pods.iter().flat_map(|p| p.addresses.iter().map(move |ip| Endpoint::Pod(p, *ip))).collect();
    ends.extend((0..16u8).map(|low| Endpoint::Address([10, 244, 0, low].into())));
    let mut out = Vec::new();
    for (i, client) in ends.iter().enumerate() {
        for (j, server) in ends.iter().enumerate() {
            for protocol in Protocol::ALL {
                out.push(format!("{i} {j} {protocol:?} {:?}", reference.ports(*client, *server, protocol)));
            }
            // What no rule can name passes only where everything does: an empty port list is not `All` of each protocol.
            out.push(format!("{i} {j} {}", reference.decide(*client, *server, None, 0).allows()));
        }
    }
    out
}

fn size(policies: &PolicySet) -> usize {
    let rules = policies.policies.iter().flat_map(|p| p.ingress.iter().chain(&p.egress)).flatten();
    rules.map(|rule| 1 + rule.peers.len() + rule.ports.len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn minimising_changes_no_answer((cluster, _) in scenes::clusters(), policies in policies()) {
        let minimal = minimize(policies.clone());
        prop_assert_eq!(answers(&policies, &cluster), answers(&minimal, &cluster));
        prop_assert!(size(&minimal) <= size(&policies));
        prop_assert_eq!(&minimize(minimal.clone()), &minimal);
    }

    #[test]
    fn the_order_of_rules_peers_and_ports_does_not_matter(policies in policies()) {
        let mut turned = policies.clone();
        for rules in turned.policies.iter_mut().flat_map(|p| p.ingress.iter_mut().chain(&mut p.egress)) {
            rules.reverse();
            for rule in rules {
                rule.peers.reverse();
                rule.ports.reverse();
            }
        }
        prop_assert_eq!(minimize(policies), minimize(turned));
    }
}
