//! Random clusters and policies over a world so small that things meet.

use ipnet::IpNet;
use model::{
    cluster::{Cluster, ContainerPort, Namespace, Pod},
    labels::{Labels, METADATA_NAME, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::net::{IpAddr, Ipv4Addr};

pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "on"];
const KEYS: [&str; 3] = ["app", "tier", "example.com/n"];
const VALUES: [&str; 8] = ["web", "on", "1_000", "0x1f", "12e3", "null", "", "2001-01-01"];

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    vec((select(&KEYS[..]), select(&VALUES[..])), 0..3)
        .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let operator = select(vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
    (select(&KEYS[..]), operator, vec(select(&VALUES[..]), 1..3)).prop_map(|(key, operator, values)| {
        let has_values = matches!(operator, Operator::In | Operator::NotIn);
        let values = if has_values { values.into_iter().map(str::to_owned).collect() } else { Vec::new() };
        Requirement { key: key.to_owned(), operator, values }
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    (labels(), vec(requirement(), 0..2))
        .prop_map(|(match_labels, match_expressions)| Selector { match_labels, match_expressions })
}

fn namespace_selector() -> impl Strategy<Value = Selector> {
    let by_name = select(&NAMESPACES[..])
        .prop_map(|name| Selector::of(Labels::from([(METADATA_NAME.to_owned(), name.to_owned())])));
    prop_oneof![by_name, selector()]
}

fn block() -> impl Strategy<Value = Peer> {
    let v4 = (any::<u8>(), 8u8..=32, vec(1u8..8, 0..2)).prop_map(|(low, bits, more)| {
        let net = |bits| IpNet::new(Ipv4Addr::new(10, 0, 0, low).into(), bits).expect("at most 32").trunc();
        let cidr = net(bits);
        let except = more.into_iter().map(|m| net((bits + m).min(32))).filter(|hole| *hole != cidr).collect();
        Peer::Block { cidr, except }
    });
    let v6 = (0u8..=128).prop_map(|bits| Peer::Block {
        cidr: IpNet::new("fd00::1".parse().expect("an address"), bits).expect("at most 128").trunc(),
        except: Vec::new(),
    });
    prop_oneof![3 => v4, 1 => v6]
}

fn peer() -> impl Strategy<Value = Peer> {
    let pods = (option::of(namespace_selector()), option::of(selector()))
        .prop_filter_map("an empty peer is refused", |(namespaces, pods)| {
            (namespaces.is_some() || pods.is_some()).then_some(Peer::Pods { namespaces, pods })
        });
    prop_oneof![2 => pods, 1 => block()]
}

fn port() -> impl Strategy<Value = Port> {
    let range = (1u16..12, 0u16..4).prop_map(|(first, more)| PortMatch::Range(first, first + more));
    let named = select(vec!["http", "dns", "on"]).prop_map(|name| PortMatch::Named(name.to_owned()));
    let which = prop_oneof![1 => Just(PortMatch::All), 3 => range, 2 => named];
    (select(Protocol::ALL.to_vec()), which).prop_map(|(protocol, port)| Port { protocol, port })
}

pub(crate) fn rule() -> impl Strategy<Value = Rule> {
    (vec(peer(), 0..3), vec(port(), 0..3)).prop_map(|(peers, ports)| Rule { peers, ports, source: None })
}

pub(crate) fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || option::of(vec(rule(), 0..3));
    let meaning = (selector(), rules(), rules())
        .prop_filter("a policy has a type", |(_, ingress, egress)| ingress.is_some() || egress.is_some());
    (select(&NAMESPACES[..]), "[a-z]([-a-z0-9]{0,8}[a-z0-9])?", labels(), labels(), meaning).prop_map(
        |(namespace, name, labels, annotations, (pod_selector, ingress, egress))| NetworkPolicy {
            namespace: namespace.to_owned(),
            name,
            labels,
            annotations,
            pod_selector,
            ingress,
            egress,
            source: None,
        },
    )
}

pub(crate) fn policies() -> impl Strategy<Value = PolicySet> {
    vec(policy(), 0..5).prop_map(|mut policies| {
        for (index, policy) in policies.iter_mut().enumerate() {
            policy.name = format!("p{index}");
        }
        PolicySet::new(policies)
    })
}

fn pod(index: u8) -> impl Strategy<Value = Pod> {
    let port = (select(vec![None, Some("http"), Some("dns")]), 1u16..12, select(Protocol::ALL.to_vec()))
        .prop_map(|(name, port, protocol)| ContainerPort { name: name.map(str::to_owned), port, protocol });
    (select(&NAMESPACES[..]), labels(), vec(port, 0..3), prop::bool::weighted(0.1)).prop_map(
        move |(namespace, labels, ports, host_network)| Pod {
            namespace: namespace.to_owned(),
            name: format!("pod{index}"),
            uid: format!("uid{index}"),
            labels,
            ports,
            host_network,
            addresses: vec![IpAddr::from(Ipv4Addr::new(10, 0, 0, index))],
            ..Pod::default()
        },
    )
}

pub(crate) fn small_cluster() -> impl Strategy<Value = Cluster> {
    let pods = (pod(1), pod(2), pod(3), pod(64)).prop_map(|(a, b, c, d)| vec![a, b, c, d]);
    let namespaces = [labels(), labels(), labels()].prop_map(|all| {
        let named = NAMESPACES.iter().zip(all).map(|(name, mut labels)| {
            labels.insert(METADATA_NAME.to_owned(), (*name).to_owned());
            ((*name).to_owned(), Namespace { labels, ..Namespace::default() })
        });
        named.collect()
    });
    (pods, namespaces).prop_map(|(pods, namespaces)| Cluster { pods, namespaces, ..Cluster::default() })
}
