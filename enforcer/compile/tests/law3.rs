//! Law 3: over the compiled tables, policy is what the reference evaluator says. And the same while a
//! plan is carried out (law 6): at every step each answer is the old policy's or the new one's.

use compile::{Compiler, Plan, RuleTable, compile};
use flow::{Address, Direction, FlowKey, Kind, Packet};
use model::{
    cluster::{
        Backend, Cluster, ContainerPort, EndpointSlice, Frontend, Namespace, Node, Place, Pod, Service, ServicePort,
        SlicePort, TargetPort,
    },
    labels::{Labels, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
    reference::{Decision, Endpoint, Reference},
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use verdict::{Asked, Hook, Mode, Reason, Refuser, Sheet, Tables, Verdict, abi, decide, judge, memory::Memory};

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
    (vec(pod, 1..6), labels(), vec(service(), 0..4)).prop_map(|(pods, of_y, services)| {
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
        for (i, (namespace, (service, slice))) in services.into_iter().enumerate() {
            let name = (namespace.to_owned(), format!("s{i}"));
            let cluster_ips = vec![ip(&format!("10.96.0.{}", i + 1)), ip(&format!("fd00:96::{}", i + 1))];
            cluster.services.insert(name.clone(), Service { cluster_ips, ..service });
            if let Some(slice) = slice {
                cluster.endpoint_slices.insert(name, EndpointSlice { service: Some(format!("s{i}")), ..slice });
            }
        }
        cluster
    })
}

/// A Service of some pods, or of addresses in a slice of its own.
fn service() -> impl Strategy<Value = (&'static str, (Service, Option<EndpointSlice>))> {
    let target = prop_oneof![
        select(vec![80u16, 8080]).prop_map(TargetPort::Number),
        select(vec!["web", "metrics"]).prop_map(|name| TargetPort::Name(name.to_owned())),
    ];
    let port = (select(vec![80u16, 81]), protocol(), target, option::of(select(vec![30_080u16, 30_081])));
    let slice = vec(select(vec!["10.1.1.1", "10.1.1.2", "fd00:1::1", "203.0.113.9", "10.0.0.1"]), 0..3);
    (select(vec!["x", "y"]), labels(), port, option::weighted(0.3, slice)).prop_map(
        |(namespace, selector, (port, protocol, target, node_port), slice)| {
            let port = ServicePort { name: "p".to_owned(), port, protocol, target, node_port };
            let slice = slice.map(|addresses| EndpointSlice {
                addresses: addresses.into_iter().map(ip).collect(),
                ports: vec![SlicePort { name: "p".to_owned(), protocol, port: Some(8080) }],
                ..EndpointSlice::default()
            });
            (namespace, (Service { selector, ports: vec![port], ..Service::default() }, slice))
        },
    )
}

/// A client on its way to a Service.
struct Way<'c> {
    reference: &'c Reference<'c>,
    cluster: &'c Cluster,
    /// The pods at whose links both hooks stand.
    covered: &'c BTreeSet<Arc<str>>,
    client: &'c Pod,
    own: IpAddr,
    frontend: &'c Frontend,
}

impl Way<'_> {
    /// Who stands behind an address.
    fn holder(&self, address: IpAddr) -> Option<&Pod> {
        self.cluster.pods.iter().find(|pod| !pod.host_network && pod.addresses.contains(&address))
    }

    /// What the reference says of a backend.
    fn decide(&self, backend: &Backend) -> Decision {
        let holder = self.holder(backend.address);
        let to = holder.map_or(Endpoint::Address(backend.address), |pod| Endpoint::Pod(pod, backend.address));
        let from = Endpoint::Pod(self.client, self.own);
        self.reference.decide(from, to, Some(self.frontend.protocol), backend.port)
    }

    fn is_client(&self, backend: &Backend) -> bool {
        self.client.addresses.contains(&backend.address)
    }

    /// Whether a hook of this node stands before a backend.
    fn is_covered(&self, backend: &Backend) -> bool {
        self.holder(backend.address).is_some_and(|pod| pod.node == NODE && self.covered.contains(&*pod.uid))
    }

    /// What the client's hook says, by each backend but the client itself.
    fn meant(&self) -> Reason {
        let backends = &self.frontend.backends;
        let others: Vec<&Backend> = backends.iter().filter(|backend| !self.is_client(backend)).collect();
        let refused: Vec<_> = others.iter().filter(|backend| !self.decide(backend).egress.allows()).collect();
        let in_part = self.frontend.place == Place::ClusterIp
            && others.len() == backends.len()
            && refused.iter().all(|backend| self.is_covered(backend));
        match (backends.is_empty(), refused.len() < others.len(), refused.is_empty()) {
            (true, ..) => Reason::ServiceNoBackends,
            (_, true, true) => Reason::AllowedByRule,
            (_, true, false) if in_part => Reason::AllowedByRule,
            (_, false, true) => Reason::Itself,
            (_, false, false) if others.len() == backends.len() => Reason::NoRule,
            (_, _, false) => Reason::ServiceMixed,
        }
    }

    /// What the hook of a backend says of the client's opening, once it is translated.
    fn at(&self, backend: &Backend, table: &RuleTable, memory: &Memory) -> Option<Verdict> {
        let endpoint = table.endpoint_at(Address::from(backend.address))?;
        let key = FlowKey {
            source: Address::from(self.own),
            destination: Address::from(backend.address),
            source_port: 40_000,
            destination_port: backend.port,
            protocol: self.frontend.protocol.number(),
        };
        let hook = Hook {
            endpoint: endpoint.ordinal,
            direction: Direction::Inbound,
            ifindex: 7,
            ingress_ifindex: 8,
            segments: 1,
            now: 1,
        };
        let packet = Packet { key, kind: Kind::Transport, tcp_flags: flow::tcp::SYN, message: 1, ..Packet::EMPTY };
        memory.connections.borrow_mut().clear();
        Some(decide(memory, &hook, &mut Sheet::of(packet)))
    }
}

/// The tables of a first compile, with hooks at these pods.
fn compiled(cluster: &Cluster, policies: &PolicySet, covered: &BTreeSet<Arc<str>>) -> RuleTable {
    let mut compiler = Compiler::new(NODE, Mode::Enforce);
    compiler.cover(covered.clone());
    compiler.plan(cluster, policies, &PolicySet::default()).unwrap().table
}

/// A cluster whose Services lead to pods of which policy tells some apart from others, mostly here.
fn divided() -> impl Strategy<Value = (Cluster, PolicySet)> {
    let behind = vec((proptest::bool::weighted(0.6), proptest::bool::weighted(0.9)), 6);
    let ingress = option::weighted(0.4, vec(rule(), 0..2));
    (cluster(), policies(), behind, selector(), vec(port(), 0..2), ingress).prop_map(
        |(mut cluster, mut policies, behind, pods, ports, ingress)| {
            for (pod, (behind, here)) in cluster.pods.iter_mut().zip(behind) {
                pod.namespace = "x".to_owned();
                if here {
                    pod.node = NODE.to_owned();
                }
                if behind {
                    pod.labels.insert("of".to_owned(), "s".to_owned());
                }
            }
            cluster.services = std::mem::take(&mut cluster.services)
                .into_iter()
                .map(|((_, name), mut service)| {
                    service.selector = [("of".to_owned(), "s".to_owned())].into();
                    (("x".to_owned(), name), service)
                })
                .collect();
            let rule = Rule { peers: vec![Peer::Pods { namespaces: None, pods: Some(pods) }], ports, source: None };
            policies.policies.insert(
                0,
                NetworkPolicy {
                    namespace: "x".to_owned(),
                    name: "divides".to_owned(),
                    labels: Labels::new(),
                    annotations: Labels::new(),
                    pod_selector: Selector::default(),
                    ingress,
                    egress: Some(vec![rule]),
                    source: None,
                },
            );
            (cluster, policies)
        },
    )
}

/// Most pods are covered.
fn covered() -> impl Strategy<Value = BTreeSet<Arc<str>>> {
    vec(proptest::bool::weighted(0.8), 6).prop_map(|covered| {
        covered.into_iter().enumerate().filter(|(_, covered)| *covered).map(|(i, _)| format!("uid{i}").into()).collect()
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
    for pod in cluster.pods.iter().filter(|pod| !pod.host_network) {
        for own in &pod.addresses {
            let Some(endpoint) = table.endpoint_at(Address::from(*own)) else { continue };
            for to in cluster.frontends().iter().filter(|of| of.address.is_ipv4() == own.is_ipv4()) {
                let protocol = to.protocol.number();
                let reason = ask(memory, endpoint.ordinal, Direction::Outbound, to.address, protocol, to.port);
                let what = format!("{own} {} {} {}", to.address, to.protocol.name(), to.port);
                all.insert((what, "service"), reason.allows());
            }
        }
    }
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
    memory.rules.borrow_mut().extend(plan.frontends_added.iter().map(|(key, backends)| (*key, *backends)));
    memory.peers.borrow_mut().extend(plan.peers_set.iter().map(|(address, peer)| (*address, *peer)));
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
    for change in &plan.rejudging {
        memory.publish(change.ordinal, abi::endpoint_word(4, change.generation));
        look(memory);
    }
}

/// What is removed once nobody looks at it any more.
fn clean_up(memory: &Memory, plan: &Plan) {
    for address in &plan.peers_removed {
        memory.peers.borrow_mut().remove(address);
    }
    for change in &plan.rejudging {
        memory.publish(change.ordinal, abi::endpoint_word(5, change.generation));
    }
    for key in &plan.frontends_removed {
        memory.rules.borrow_mut().remove(key);
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

/// To the address of a Service: allowed only if the reference allows it at some backend, and no refused backend is
/// reached.
#[test]
fn a_service_is_allowed_at_some_backend_and_no_refused_one_is_reached() {
    let met: RefCell<BTreeMap<Reason, usize>> = RefCell::default();
    let met_behind: RefCell<BTreeMap<(Reason, Refuser), usize>> = RefCell::default();
    let mut runner = TestRunner::new(Config { cases: 4_000, failure_persistence: None, ..Config::default() });
    let outcome =
        runner.run(&(prop_oneof![(cluster(), policies()), divided()], covered()), |((cluster, policies), covered)| {
            let table = compiled(&cluster, &policies, &covered);
            let reference = Reference::new(&cluster, &policies);
            let memory = table.in_memory(1);
            let clients = cluster.pods.iter().filter(|pod| !pod.host_network);
            for (pod, own) in clients.flat_map(|pod| pod.addresses.iter().map(move |address| (pod, *address))) {
                let Some(endpoint) = table.endpoint_at(Address::from(own)) else { continue };
                let isolated = policies.policies.iter().any(|policy| {
                    policy.namespace == pod.namespace
                        && policy.egress.is_some()
                        && policy.pod_selector.matches(&pod.labels)
                });
                for frontend in cluster.frontends().iter().filter(|of| of.address.is_ipv4() == own.is_ipv4()) {
                    let (reference, cluster, covered) = (&reference, &cluster, &covered);
                    let way = Way { reference, cluster, covered, client: pod, own, frontend };
                    let meant = if isolated { way.meant() } else { Reason::NotIsolated };
                    let protocol = frontend.protocol.number();
                    let said =
                        ask(&memory, endpoint.ordinal, Direction::Outbound, frontend.address, protocol, frontend.port);
                    prop_assert_eq!(said, meant, "{} to {:?}", own, frontend);
                    *met.borrow_mut().entry(said).or_default() += 1;
                    if !said.allows() {
                        continue;
                    }
                    for backend in frontend.backends.iter().filter(|backend| !way.is_client(backend)) {
                        let decision = way.decide(backend);
                        let refused = !decision.egress.allows();
                        let Some(verdict) = way.at(backend, &table, &memory) else {
                            prop_assert!(!refused, "{} reaches {:?} of {:?}", own, backend, frontend);
                            continue;
                        };
                        let (reason, refuser) = (verdict.reason(), verdict.refuser());
                        let ingress = decision.ingress.allows();
                        prop_assert_eq!(
                            reason.allows(),
                            ingress && !refused,
                            "{} to {:?}: {:?}",
                            own,
                            backend,
                            verdict
                        );
                        let by = match (ingress, refused) {
                            (true, true) => Refuser::Client,
                            (false, true) => Refuser::Both,
                            _ => Refuser::Endpoint,
                        };
                        prop_assert_eq!(refuser, by, "{} to {:?}: {:?}", own, backend, verdict);
                        prop_assert_eq!(reason == Reason::RefusedByClient, by == Refuser::Client, "{:?}", verdict);
                        *met_behind.borrow_mut().entry((reason, refuser)).or_default() += 1;
                    }
                }
            }
            Ok(())
        });
    outcome.expect("law 3 for Services");
    let met = met.into_inner();
    use Reason::{AllowedByRule, Itself, NoRule, NotIsolated, ServiceMixed, ServiceNoBackends};
    for reason in [AllowedByRule, Itself, NoRule, NotIsolated, ServiceMixed, ServiceNoBackends] {
        assert!(met.get(&reason).is_some_and(|times| *times >= 5), "{reason:?}: {met:?}");
    }
    let behind = met_behind.into_inner();
    for met in [(AllowedByRule, Refuser::Endpoint), (Reason::RefusedByClient, Refuser::Client), (NoRule, Refuser::Both)]
    {
        assert!(behind.get(&met).is_some_and(|times| *times >= 5), "{met:?}: {behind:?}");
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
        let mut look = |memory: &Memory| {
            for (question, allowed) in collect(&plan.table, memory, &cluster) {
                if allowed != before[&question] && allowed != after[&question] {
                    wrong.push(question);
                }
            }
        };
        carry_out(&memory, &plan, &mut look);
        clean_up(&memory, &plan);
        look(&memory);
        prop_assert!(wrong.is_empty(), "{wrong:#?}");
        prop_assert_eq!(collect(&plan.table, &memory, &cluster), after);
        // And nothing is left to do.
        compiler.adopt(&plan);
        let again = compiler.plan(&cluster, &new, &none).unwrap();
        prop_assert!(again.is_empty(), "{again:#?}");
    }

    /// It has read its endpoint's word and the identity, and looks its rules up when all is published but nothing removed.
    #[test]
    fn a_packet_held_up_under_the_old_word_answers_by_the_old_policy(
        (cluster, old) in divided(), new in policies(),
    ) {
        let mut compiler = Compiler::new(NODE, Mode::Enforce);
        let none = PolicySet::default();
        let first = compiler.plan(&cluster, &old, &none).unwrap();
        compiler.adopt(&first);
        let memory = first.table.in_memory(1);
        let before = collect(&first.table, &memory, &cluster);
        let plan = compiler.plan(&cluster, &new, &none).unwrap();
        carry_out(&memory, &plan, |_| {});
        let (identities, endpoints) = (memory.identities.take(), memory.endpoints.take());
        let as_read = first.table.in_memory(1);
        memory.identities.swap(&as_read.identities);
        memory.endpoints.swap(&as_read.endpoints);
        prop_assert_eq!(collect(&first.table, &memory, &cluster), before);
        // Afterwards nobody may be there any more: what is left answers for the new policies alone.
        memory.identities.replace(identities);
        memory.endpoints.replace(endpoints);
        clean_up(&memory, &plan);
        let after = collect(&plan.table, &plan.table.in_memory(1), &cluster);
        prop_assert_eq!(collect(&plan.table, &memory, &cluster), after);
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
        clean_up(&memory, &plan);
        let fresh = compile(&new, &policies, &none, NODE, Mode::Enforce).unwrap();
        let meant: Vec<bool> = collect(&fresh, &fresh.in_memory(1), &new).into_values().collect();
        let made: Vec<bool> = collect(&plan.table, &memory, &new).into_values().collect();
        prop_assert_eq!(made, meant);
    }
}

/// The identity of an address in tables.
fn identity(table: &RuleTable, address: IpAddr) -> u32 {
    table.in_memory(1).identity(Address::from(address))
}

/// A packet may pass the client's hook at one step and come to a backend's at a later one. Where both the old policies
/// and the new ones refuse that backend, it is reached at no two steps.
#[test]
fn while_a_change_is_carried_out_no_backend_is_reached_that_old_and_new_policies_refuse() {
    let (mut ways, mut passed) = (0, 0);
    let mut runner = TestRunner::new(Config { cases: 1_000, failure_persistence: None, ..Config::default() });
    let counts = RefCell::new((&mut ways, &mut passed));
    let relabelled = vec(proptest::bool::weighted(0.6), 6);
    let outcome = runner.run(&(divided(), divided(), covered(), covered(), relabelled), |drawn| {
        let ((old_cluster, old), (_, new), covered, covered_then, behind) = drawn;
        let mut new_cluster = old_cluster.clone();
        for (pod, behind) in new_cluster.pods.iter_mut().zip(behind) {
            pod.labels.remove("of");
            if behind {
                pod.labels.insert("of".to_owned(), "s".to_owned());
            }
        }
        let mut compiler = Compiler::new(NODE, Mode::Enforce);
        let none = PolicySet::default();
        compiler.cover(covered.clone());
        let first = compiler.plan(&old_cluster, &old, &none).unwrap();
        compiler.adopt(&first);
        let memory = first.table.in_memory(1);
        compiler.cover(covered_then.clone());
        let plan = compiler.plan(&new_cluster, &new, &none).unwrap();
        let references = [Reference::new(&old_cluster, &old), Reference::new(&new_cluster, &new)];
        let frontends = [old_cluster.frontends(), new_cluster.frontends()];
        // Ways that both refuse, with where their backend stands behind the Service.
        let mut refused = Vec::new();
        for (client, own) in old_cluster.pods.iter().flat_map(|pod| pod.addresses.iter().map(move |own| (pod, *own))) {
            if first.table.endpoint_at(Address::from(own)).is_none() {
                continue;
            }
            for (before, after) in frontends[0].iter().zip(&frontends[1]) {
                assert_eq!((before.address, before.protocol, before.port), (after.address, after.protocol, after.port));
                let backends: BTreeSet<&Backend> = before.backends.iter().chain(&after.backends).collect();
                for backend in backends.into_iter().filter(|of| of.address.is_ipv4() == own.is_ipv4()) {
                    let way = |now: usize| Way {
                        reference: &references[now],
                        cluster: [&old_cluster, &new_cluster][now],
                        covered: [&covered, &covered_then][now],
                        client,
                        own,
                        frontend: [before, after][now],
                    };
                    let is_refused = |now: usize| !way(now).decide(backend).egress.allows();
                    if !client.addresses.contains(&backend.address) && is_refused(0) && is_refused(1) {
                        let behind = [before.backends.contains(backend), after.backends.contains(backend)];
                        refused.push((way(0), backend, before, behind, RefCell::new(false)));
                    }
                }
            }
        }
        let wrong = RefCell::new(Vec::new());
        let look = |memory: &Memory| {
            for (way, backend, to, behind, let_through) in &refused {
                let endpoint = first.table.endpoint_at(Address::from(way.own)).unwrap();
                let protocol = to.protocol.number();
                let said = ask(memory, endpoint.ordinal, Direction::Outbound, to.address, protocol, to.port);
                // It is translated to a backend of the Service as it is then.
                let now = memory.identity(Address::from(to.address));
                let may_lead_there = behind[0] && now == identity(&first.table, to.address)
                    || behind[1] && now == identity(&plan.table, to.address);
                if said.allows() && may_lead_there {
                    *let_through.borrow_mut() = true;
                    *counts.borrow_mut().1 += 1;
                }
                let at = way.at(backend, &first.table, memory);
                if *let_through.borrow() && at.is_none_or(|verdict| verdict.reason().allows()) {
                    wrong.borrow_mut().push(format!("{} reaches {backend:?} of {to:?}", way.own));
                }
            }
        };
        *counts.borrow_mut().0 += refused.len();
        look(&memory);
        carry_out(&memory, &plan, look);
        let wrong = wrong.into_inner();
        prop_assert!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    });
    outcome.expect("law 6 for Services");
    assert!(
        ways > 1_000 && passed > 300,
        "{ways} ways that are refused, let through by the client's hook {passed} times"
    );
}
