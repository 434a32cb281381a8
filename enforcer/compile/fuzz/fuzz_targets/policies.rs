//! Two clusters with their policies out of any bytes: compiling them does not panic, the tables say what the reference
//! evaluator says, and so do those that a plan leads to from the first to the second; then nothing is left to do.
#![no_main]

use compile::{Compiler, RuleTable};
use flow::{Address, Direction};
use model::{
    cluster::{Cluster, ContainerPort, Namespace, Node, Pod},
    labels::{Labels, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
    reference::{Endpoint, Reference},
};
use std::net::IpAddr;
use verdict::{Asked, Mode, judge};

const NODE: &str = "n1";
const NAMESPACES: [&str; 2] = ["x", "y"];
const OUTSIDE: [&str; 3] = ["203.0.113.9", "10.1.9.9", "2001:db8::9"];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Bytes(bytes);
    let mut compiler = Compiler::new(NODE, Mode::Enforce);
    for _ in 0..2 {
        let (cluster, in_force, staged) = (bytes.cluster(), bytes.policies(), bytes.policies());
        let plan = compiler.plan(&cluster, &in_force, &staged).expect("numbers are left");
        compiler.adopt(&plan);
        hold(&plan.table, &cluster, &in_force);
        assert!(compiler.plan(&cluster, &in_force, &staged).expect("numbers are left").is_empty());
    }
});

/// Every pod with every other end, both ways, at ports around those that rules name.
fn hold(table: &RuleTable, cluster: &Cluster, policies: &PolicySet) {
    let (reference, memory) = (Reference::new(cluster, policies), table.in_memory(1));
    let outside = OUTSIDE.iter().map(|text| text.parse().expect("an address"));
    let ends = cluster.pods.iter().flat_map(|pod| pod.addresses.iter().copied()).chain(outside);
    let ends: Vec<IpAddr> = ends.collect();
    let end = |address: IpAddr| {
        let pod = cluster.pods.iter().find(|pod| pod.addresses.contains(&address));
        pod.map_or(Endpoint::Address(address), |pod| Endpoint::Pod(pod, address))
    };
    for own in &ends {
        let Some(endpoint) = table.endpoint_at(Address::from(*own)) else { continue };
        for peer in ends.iter().filter(|peer| peer.is_ipv4() == own.is_ipv4() && *peer != own) {
            for (protocol, port) in
                Protocol::ALL.iter().flat_map(|p| [0u16, 1, 79, 80, 81, 8080, 65535].map(|n| (*p, n)))
            {
                for opened in [Direction::Inbound, Direction::Outbound] {
                    let asked = Asked {
                        endpoint: endpoint.ordinal,
                        opened,
                        protocol: protocol.number(),
                        port,
                        peer: Address::from(*peer),
                    };
                    let said = judge(&memory, &asked, &mut 0).verdict().reason().allows();
                    let meant = match opened {
                        Direction::Inbound => reference.decide(end(*peer), end(*own), Some(protocol), port).ingress,
                        Direction::Outbound => reference.decide(end(*own), end(*peer), Some(protocol), port).egress,
                    };
                    assert_eq!(said, meant.allows(), "{own} {peer} {protocol:?} {port} {opened:?}");
                }
            }
        }
    }
}

/// Bytes that choices are made by; zeros behind the last.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn labels(&mut self) -> Labels {
        let pairs = self.some(2, |b| (b.one(&["app", "tier"]).to_owned(), b.one(&["a", "b"]).to_owned()));
        pairs.into_iter().collect()
    }

    fn selector(&mut self) -> Selector {
        let match_labels = self.labels();
        let match_expressions = self.some(2, |b| {
            let operator = b.one(&[Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
            let listed = matches!(operator, Operator::In | Operator::NotIn);
            let values = if listed { vec![b.one(&["a", "b"]).to_owned()] } else { Vec::new() };
            Requirement { key: b.one(&["app", "tier"]).to_owned(), operator, values }
        });
        Selector { match_labels, match_expressions }
    }

    fn peer(&mut self) -> Peer {
        match self.below(3) {
            0 => {
                let (cidr, within) = self.one(&[
                    ("10.0.0.0/8", "10.1.0.0/16"),
                    ("10.1.1.0/29", "10.1.1.2/31"),
                    ("0.0.0.0/0", "10.1.1.0/30"),
                    ("::/0", "fd00:1::/64"),
                    ("fd00:1::/64", "fd00:1::2/127"),
                ]);
                let except = self.some(1, |_| within.parse().expect("a block"));
                Peer::Block { cidr: cidr.parse().expect("a block"), except }
            }
            1 => Peer::Pods { namespaces: None, pods: Some(self.selector()) },
            _ => Peer::Pods { namespaces: Some(self.selector()), pods: self.some(1, Self::selector).pop() },
        }
    }

    fn port(&mut self) -> Port {
        let protocol = self.one(&Protocol::ALL);
        let port = match self.below(4) {
            0 => PortMatch::All,
            1 => PortMatch::Named("web".to_owned()),
            2 => PortMatch::Range(80, 80),
            _ => {
                let (one, other) = (self.one(&[1u16, 79, 80, 81]), self.one(&[80u16, 81, 8080, 65535]));
                PortMatch::Range(one.min(other), one.max(other))
            }
        };
        Port { protocol, port }
    }

    fn rules(&mut self) -> Option<Vec<Rule>> {
        if self.below(3) == 0 {
            return None;
        }
        Some(self.some(2, |b| Rule { peers: b.some(2, Self::peer), ports: b.some(2, Self::port), source: None }))
    }

    fn policies(&mut self) -> PolicySet {
        let mut policies = self.some(3, |b| NetworkPolicy {
            namespace: b.one(&NAMESPACES).to_owned(),
            name: String::new(),
            labels: Labels::new(),
            annotations: Labels::new(),
            pod_selector: b.selector(),
            ingress: b.rules(),
            egress: b.rules(),
            source: None,
        });
        policies.iter_mut().enumerate().for_each(|(i, policy)| policy.name = format!("p{i}"));
        policies.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        PolicySet { policies }
    }

    fn cluster(&mut self) -> Cluster {
        let mut cluster = Cluster::default();
        for name in NAMESPACES {
            let mut labels = self.labels();
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
            cluster.namespaces.insert(name.to_owned(), Namespace { labels, ..Namespace::default() });
        }
        cluster.nodes.insert(NODE.to_owned(), Node::default());
        cluster.pods = self.some(4, |b| Pod {
            namespace: b.one(&NAMESPACES).to_owned(),
            labels: b.labels(),
            node: b.one(&[NODE, NODE, "n2"]).to_owned(),
            ports: b.some(2, |b| ContainerPort {
                name: Some("web".to_owned()),
                port: b.one(&[80, 8080]),
                protocol: b.one(&Protocol::ALL),
            }),
            ..Pod::default()
        });
        for (i, pod) in cluster.pods.iter_mut().enumerate() {
            (pod.name, pod.uid) = (format!("pod{i}"), format!("uid{}", i + self.below(2) * 10));
            let number = i + 1;
            pod.addresses = [format!("10.1.1.{number}"), format!("fd00:1::{number}")]
                .map(|text| text.parse().expect("an address"))
                .to_vec();
        }
        cluster.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        cluster
    }
}
