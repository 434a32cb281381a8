//! The cluster that the agent on the range is told of, and policies in few words.

use crate::range::Who;
use model::{
    cluster::{Cluster, ContainerPort, MODE_LABEL, Mode, Namespace, Node, Pod, Source},
    labels::{Labels, METADATA_NAME, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};

/// The namespace of the range's pods, unless a class moves one.
pub(crate) const NAMESPACE: &str = "range";
/// The name of the range's node.
pub(crate) const NODE: &str = "range-node";

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The three pods, labelled `app: NAME`, in one namespace with this mode.
pub(crate) fn cluster(mode: Mode) -> Cluster {
    let mut cluster = Cluster::default();
    add_namespace(&mut cluster, NAMESPACE, mode);
    cluster.nodes.insert(NODE.into(), Node { addresses: Who::Node.addresses().to_vec(), ..Node::default() });
    cluster.pods = Who::PODS.map(pod).to_vec();
    cluster
}

fn pod(who: Who) -> Pod {
    Pod {
        namespace: NAMESPACE.into(),
        name: who.name().into(),
        uid: format!("uid-{}", who.name()),
        labels: labels(&[("app", who.name())]),
        addresses: who.addresses().to_vec(),
        node: NODE.into(),
        ports: vec![ContainerPort { name: None, port: OPEN, protocol: Protocol::Tcp }],
        ..Pod::default()
    }
}

/// The port that rules open.
pub(crate) const OPEN: u16 = 8080;
/// A port that none opens.
pub(crate) const SHUT: u16 = 9090;

pub(crate) fn add_namespace(cluster: &mut Cluster, name: &str, mode: Mode) {
    let labels = labels(&[(METADATA_NAME, name), (MODE_LABEL, mode.name())]);
    // As one whose object was given, not one that pods merely name.
    let source = Some(Source { file: "selftest".into(), line: 1 });
    cluster.namespaces.insert(name.into(), Namespace { labels, source, ..Namespace::default() });
}

/// The pod of a cluster that somebody is.
pub(crate) fn pod_of(cluster: &mut Cluster, who: Who) -> Option<&mut Pod> {
    cluster.pods.iter_mut().find(|pod| pod.name == who.name())
}

/// Who is selected: these labels in the policy's own namespace.
pub(crate) fn pods(pairs: &[(&str, &str)]) -> Peer {
    Peer::Pods { namespaces: None, pods: Some(Selector::of(labels(pairs))) }
}

/// The pod that somebody is.
pub(crate) fn one(who: Who) -> Peer {
    pods(&[("app", who.name())])
}

/// A block of addresses; one that cannot be read is everyone's nobody.
pub(crate) fn block(cidr: &str, except: &[&str]) -> Peer {
    let read = |text: &str| text.parse().unwrap_or_else(|_| ipnet::IpNet::from(std::net::IpAddr::from([0, 0, 0, 0])));
    Peer::Block { cidr: read(cidr), except: except.iter().map(|text| read(text)).collect() }
}

/// These peers at every port.
pub(crate) fn anything(peers: Vec<Peer>) -> Rule {
    Rule { peers, ports: Vec::new(), source: None }
}

/// These peers at these ports, over TCP and UDP.
pub(crate) fn at(peers: Vec<Peer>, first: u16, last: u16) -> Rule {
    let port = |protocol| Port { protocol, port: PortMatch::Range(first, last) };
    Rule { peers, ports: vec![port(Protocol::Tcp), port(Protocol::Udp)], source: None }
}

/// A policy of the range's namespace.
pub(crate) fn policy(name: &str, select: &[(&str, &str)]) -> NetworkPolicy {
    NetworkPolicy {
        namespace: NAMESPACE.into(),
        name: name.into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector: Selector::of(labels(select)),
        ingress: None,
        egress: None,
        source: None,
    }
}

/// A policy that isolates somebody for ingress.
pub(crate) fn ingress(who: Who, rules: Vec<Rule>) -> NetworkPolicy {
    NetworkPolicy { ingress: Some(rules), ..policy(&format!("{}-in", who.name()), &[("app", who.name())]) }
}

/// A policy that isolates somebody for egress.
pub(crate) fn egress(who: Who, rules: Vec<Rule>) -> NetworkPolicy {
    NetworkPolicy { egress: Some(rules), ..policy(&format!("{}-out", who.name()), &[("app", who.name())]) }
}

pub(crate) fn set(policies: Vec<NetworkPolicy>) -> PolicySet {
    PolicySet::new(policies)
}
