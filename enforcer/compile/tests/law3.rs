//! Law 3: over the compiled tables, policy is what the reference evaluator says. And the same while a
//! plan is carried out (law 6): at every step each answer is the old policy's or the new one's.

use compile::{Compiler, Plan, RuleTable, compile};
use flow::{Address, Direction};
use model::{
    cluster::{Cluster, ContainerPort, Namespace, Node, Pod},
    labels::{Labels, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
    reference::{Decision, Endpoint, Reference},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::{collections::BTreeMap, net::IpAddr};
use verdict::{Asked, Mode, Reason, abi, judge, memory::Memory};

const NODE: &str = "n1";
const OUTSIDE: [&str; 5] = ["203.0.113.9", "203.0.113.200", "10.1.9.9", "2001:db8::9", "10.0.0.1"];
const PORTS: [u16; 9] = [0, 1, 79, 80, 81, 8080, 8090, 9000, 65535];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn labels() -> impl Strategy<Value = Labels> {
    let label = (select(vec!["app", "tier"]), select(vec!["a", "b"]));
    vec(label, 0..3).prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn selector() -> impl Strategy<Value = Selector> {
    let operator = select(vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
    let requirement = (select(vec!["app", "tier"]), operator).prop_map(|(key, operator)| {
        let listed = matches!(operator, Operator::In | Operator::NotIn);
        Requirement { key: key.to_owned(), operator, values: if listed { vec!["a".to_owned()] } else { vec![] } }
    });
    (labels(), vec(requirement, 0..2))
        .prop_map(|(match_labels, match_expressions)| Selector { match_labels, match_expressions })
}

fn namespace_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::default()),
        select(vec!["x", "y"])
            .prop_map(|name| Selector::of([("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into())),
        selector(),
    ]
}

fn block() -> impl Strategy<Value = Peer> {
    let nested = [
        ("10.0.0.0/8", vec!["10.1.0.0/16", "10.1.1.1/32", "10.1.1.0/29"]),
        ("10.1.0.0/16", vec!["10.1.1.0/30", "10.1.9.0/24"]),
        ("10.1.1.0/29", vec!["10.1.1.2/32"]),
        ("0.0.0.0/0", vec!["10.0.0.0/8", "203.0.113.128/25", "10.1.1.0/30"]),
        ("203.0.113.0/24", vec!["203.0.113.8/29"]),
        ("::/0", vec!["fd00:1::/64", "2001:db8::/32", "fd00:1::1/128"]),
        ("fd00:1::/64", vec!["fd00:1::2/127"]),
    ];
    (select(nested.to_vec()), any::<u8>()).prop_map(|((cidr, excepts), chosen)| {
        let kept = excepts.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1);
        let except = kept.map(|(_, except)| except.parse().unwrap()).collect();
        Peer::Block { cidr: cidr.parse().unwrap(), except }
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        block(),
        selector().prop_map(|pods| Peer::Pods { namespaces: None, pods: Some(pods) }),
        (namespace_selector(), option::of(selector()))
            .prop_map(|(namespaces, pods)| Peer::Pods { namespaces: Some(namespaces), pods }),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(Protocol::ALL.to_vec())
}

fn port() -> impl Strategy<Value = Port> {
    let number = select(vec![1u16, 80, 8080, 65535]).prop_map(|port| PortMatch::Range(port, port));
    let range =
        select(vec![(1, 65535), (80, 8080), (8080, 9000), (79, 81), (1, 1)]).prop_map(|(a, b)| PortMatch::Range(a, b));
    let named = select(vec!["web", "metrics"]).prop_map(|name| PortMatch::Named(name.to_owned()));
    (protocol(), prop_oneof![Just(PortMatch::All), number, range, named])
        .prop_map(|(protocol, port)| Port { protocol, port })
}

fn rule() -> impl Strategy<Value = Rule> {
    (vec(peer(), 0..3), vec(port(), 0..3)).prop_map(|(peers, ports)| Rule { peers, ports, source: None })
}

fn policies() -> impl Strategy<Value = PolicySet> {
    let rules = || option::of(vec(rule(), 0..3));
    let policy = (select(vec!["x", "y"]), selector(), rules(), rules());
    vec(policy, 0..5).prop_map(|made| {
        let mut policies: Vec<_> = made
            .into_iter()
            .enumerate()
            .map(|(i, (namespace, pod_selector, ingress, egress))| NetworkPolicy {
                namespace: namespace.to_owned(),
                name: format!("p{i}"),
                labels: Labels::new(),
                annotations: Labels::new(),
                pod_selector,
                ingress,
                egress,
                source: None,
            })
            .collect();
        policies.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        PolicySet { policies }
    })
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let port = (option::of(select(vec!["web", "metrics"])), select(vec![80u16, 8080, 9000]), protocol());
    let pod = (select(vec!["x", "y"]), labels(), vec(port, 0..3), any::<bool>(), 0..8u8);
    (vec(pod, 1..6), labels()).prop_map(|(pods, of_y)| {
        let mut cluster = Cluster::default();
        for (name, mut labels) in [("x", Labels::new()), ("y", of_y)] {
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
            cluster.namespaces.insert(name.to_owned(), Namespace { labels, ..Namespace::default() });
        }
        for (name, address) in [(NODE, "10.0.0.1"), ("n2", "10.0.0.2")] {
            cluster.nodes.insert(name.to_owned(), Node { addresses: vec![ip(address)], ..Node::default() });
        }
        for (i, (namespace, labels, ports, here, kind)) in pods.into_iter().enumerate() {
            let ports = ports
                .into_iter()
                .map(|(name, port, protocol)| ContainerPort { name: name.map(str::to_owned), port, protocol })
                .collect();
            let host_network = kind == 7;
            let mut addresses = vec![ip(&format!("10.1.1.{}", i + 1)), ip(&format!("fd00:1::{}", i + 1))];
            if host_network {
                addresses = vec![ip("10.0.0.1")];
            }
            cluster.pods.push(Pod {
                namespace: namespace.to_owned(),
                name: format!("pod{i}"),
                uid: format!("uid{i}"),
                labels,
                addresses,
                node: if here { NODE } else { "n2" }.to_owned(),
                host_network,
                ports,
                ..Pod::default()
            });
        }
        cluster.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        cluster
    })
}

/// Every end there is: pods at each address, and addresses that are no pod's.
fn ends(cluster: &Cluster) -> Vec<(Endpoint<'_>, IpAddr)> {
    let own = cluster.pods.iter().filter(|pod| !pod.host_network);
    let pods = own.flat_map(|pod| pod.addresses.iter().map(move |address| (Endpoint::Pod(pod, *address), *address)));
    pods.chain(OUTSIDE.iter().map(|address| (Endpoint::Address(ip(address)), ip(address)))).collect()
}

fn ask(memory: &Memory, endpoint: u32, opened: Direction, peer: IpAddr, protocol: u8, port: u16) -> Reason {
    let asked = Asked { endpoint, opened, protocol, port, peer: Address::from(peer) };
    judge(memory, &asked, &mut 0).verdict().reason()
}

/// Every question that a covered end can be asked, with the tables' answer.
fn answers(
    table: &RuleTable,
    memory: &Memory,
    cluster: &Cluster,
    asked: &[(Option<Protocol>, u16)],
    mut see: impl FnMut(&str, Reason, Endpoint<'_>, Endpoint<'_>, Option<Protocol>, u16, Direction),
) {
    let ends = ends(cluster);
    for (own, own_ip) in &ends {
        let Some(endpoint) = table.endpoint_at(Address::from(*own_ip)) else { continue };
        for (peer, peer_ip) in ends.iter().filter(|(_, ip)| ip.is_ipv4() == own_ip.is_ipv4() && ip != own_ip) {
            for (protocol, port) in asked {
                let number = protocol.map_or(flow::ICMP, Protocol::number);
                let what = format!("{own_ip} {peer_ip} {protocol:?} {port}");
                let inbound = ask(memory, endpoint.ordinal, Direction::Inbound, *peer_ip, number, *port);
                see(&what, inbound, *peer, *own, *protocol, *port, Direction::Inbound);
                let outbound = ask(memory, endpoint.ordinal, Direction::Outbound, *peer_ip, number, *port);
                see(&what, outbound, *own, *peer, *protocol, *port, Direction::Outbound);
            }
        }
    }
}

fn side(decision: &Decision, direction: Direction) -> bool {
    match direction {
        Direction::Inbound => decision.ingress.allows(),
        Direction::Outbound => decision.egress.allows(),
    }
}

/// Every protocol at every port that rules may tell apart, and a protocol without ports.
fn everything() -> Vec<(Option<Protocol>, u16)> {
    let ports = Protocol::ALL.iter().flat_map(|protocol| PORTS.map(|port| (Some(*protocol), port)));
    ports.chain([(None, 0)]).collect()
}

/// What the tables answer at one step, by endpoint UID so that ordinals may change.
type Answers = BTreeMap<(String, &'static str), bool>;

fn collect(table: &RuleTable, memory: &Memory, cluster: &Cluster) -> Answers {
    let mut all = Answers::new();
    answers(table, memory, cluster, &[(Some(Protocol::Tcp), 80), (None, 0)], |what, reason, _, _, _, _, direction| {
        let side = if direction == Direction::Inbound { "in" } else { "out" };
        all.insert((what.to_owned(), side), reason.allows());
    });
    all
}

/// A memory that goes the way of a plan, with a look after every single store.
fn carry_out(memory: &Memory, plan: &Plan, mut look: impl FnMut(&Memory)) {
    for (number, slot) in &plan.slots_added {
        memory.rules.borrow_mut().extend(slot.rules(*number));
        for (prefix, class) in slot.port_classes() {
            let key = abi::port_key(*number, prefix.protocol, prefix.port);
            memory.put_port_class(key, abi::PORT_PREFIX - u32::from(prefix.bits), class);
        }
    }
    memory.generations.borrow_mut().extend(plan.generations_added.iter().map(|(i, record)| (*i, *record)));
    look(memory);
    for change in &plan.bridging {
        memory.publish(change.ordinal, abi::endpoint_word(2, change.generation));
        look(memory);
    }
    for (prefix, identity) in &plan.identities_set {
        memory.put_identity(prefix.address, prefix.length, *identity);
        look(memory);
    }
    for prefix in &plan.identities_removed {
        memory.identities.borrow_mut().remove(&(prefix.length, prefix.address.octets()));
        look(memory);
    }
    for change in &plan.endpoints {
        memory.publish(change.ordinal, abi::endpoint_word(3, change.generation));
        look(memory);
    }
    for (number, slot) in &plan.slots_removed {
        for (key, _) in slot.rules(*number) {
            memory.rules.borrow_mut().remove(&key);
        }
        for (prefix, _) in slot.port_classes() {
            let bits = abi::PORT_PREFIX - u32::from(prefix.bits);
            memory.port_classes.borrow_mut().remove(&(bits, abi::port_key(*number, prefix.protocol, prefix.port)));
        }
    }
    look(memory);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_tables_say_what_the_reference_says(cluster in cluster(), policies in policies()) {
        let table = compile(&cluster, &policies, &PolicySet::default(), NODE, Mode::Enforce).unwrap();
        let reference = Reference::new(&cluster, &policies);
        let memory = table.in_memory(1);
        let mut wrong = Vec::new();
        answers(&table, &memory, &cluster, &everything(), |what, reason, from, to, protocol, port, direction| {
            let meant = side(&reference.decide(from, to, protocol, port), direction);
            if reason.allows() != meant {
                wrong.push(format!("{what} {direction:?}: tables {reason:?}, reference allows: {meant}"));
            }
        });
        prop_assert!(wrong.is_empty(), "{wrong:#?}");
    }

}

proptest! {
    // Each case looks at every answer after every single store.
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_step_of_a_policy_change_answers_by_the_old_policy_or_the_new(
        cluster in cluster(), old in policies(), new in policies(),
    ) {
        let mut compiler = Compiler::new(NODE, Mode::Enforce);
        let none = PolicySet::default();
        let first = compiler.plan(&cluster, &old, &none).unwrap();
        compiler.adopt(&first);
        let memory = first.table.in_memory(1);
        let plan = compiler.plan(&cluster, &new, &none).unwrap();
        let before = collect(&first.table, &memory, &cluster);
        let after = collect(&plan.table, &plan.table.in_memory(1), &cluster);
        let mut wrong = Vec::new();
        carry_out(&memory, &plan, |memory| {
            for (question, allowed) in collect(&plan.table, memory, &cluster) {
                if allowed != before[&question] && allowed != after[&question] {
                    wrong.push(question);
                }
            }
        });
        prop_assert!(wrong.is_empty(), "{wrong:#?}");
        prop_assert_eq!(collect(&plan.table, &memory, &cluster), after);
        // And nothing is left to do.
        compiler.adopt(&plan);
        let again = compiler.plan(&cluster, &new, &none).unwrap();
        prop_assert!(again.is_empty(), "{again:#?}");
    }

    #[test]
    fn labels_that_change_lead_to_the_tables_of_the_new_cluster(
        old in cluster(), relabelled in vec(labels(), 6), policies in policies(),
    ) {
        let mut new = old.clone();
        for (pod, labels) in new.pods.iter_mut().zip(relabelled) {
            pod.labels = labels;
        }
        let mut compiler = Compiler::new(NODE, Mode::Enforce);
        let none = PolicySet::default();
        let first = compiler.plan(&old, &policies, &none).unwrap();
        compiler.adopt(&first);
        let memory = first.table.in_memory(1);
        let plan = compiler.plan(&new, &policies, &none).unwrap();
        carry_out(&memory, &plan, |_| {});
        let fresh = compile(&new, &policies, &none, NODE, Mode::Enforce).unwrap();
        let meant: Vec<bool> = collect(&fresh, &fresh.in_memory(1), &new).into_values().collect();
        let made: Vec<bool> = collect(&plan.table, &memory, &new).into_values().collect();
        prop_assert_eq!(made, meant);
    }
}
