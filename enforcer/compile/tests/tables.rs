//! What goes into a table beside policy's answers: modes, nodes, staged slots, shared slots, limits.

use compile::{Compiler, Limits, MODE_LABEL, Warning, compile};
use flow::Address;
use model::{
    cluster::{Cluster, Namespace, Node, Owner, Pod, Service, ServicePort, TargetPort, Workload, WorkloadKey},
    labels::{Labels, Selector},
    policy::{NetworkPolicy, PolicySet, Protocol, Rule},
};
use verdict::Mode;

const NODE: &str = "n1";

fn labelled(value: Option<&str>) -> Labels {
    value.map(|value| (MODE_LABEL.to_owned(), value.to_owned())).into_iter().collect()
}

/// One namespace, two pods of one Deployment on the node.
fn cluster(namespace: Option<&str>, deployment: Option<&str>) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.namespaces.insert("x".into(), Namespace { labels: labelled(namespace), ..Namespace::default() });
    cluster.nodes.insert(NODE.into(), Node { addresses: vec!["10.0.0.1".parse().unwrap()], ..Node::default() });
    let key = |kind: &str, name: &str| WorkloadKey { namespace: "x".into(), kind: kind.into(), name: name.into() };
    let owner = |kind: &str, name: &str| Some(Owner { kind: kind.into(), name: name.into(), uid: name.into() });
    let set = Workload { owner: owner("Deployment", "shop"), ..Workload::default() };
    cluster.workloads.insert(key("ReplicaSet", "shop-1"), set);
    let shop = Workload { labels: labelled(deployment), ..Workload::default() };
    cluster.workloads.insert(key("Deployment", "shop"), shop);
    for i in 1..=2 {
        cluster.pods.push(Pod {
            namespace: "x".into(),
            name: format!("shop-{i}"),
            uid: format!("uid{i}"),
            addresses: vec![format!("10.1.0.{i}").parse().unwrap()],
            node: NODE.into(),
            owner: owner("ReplicaSet", "shop-1"),
            ..Pod::default()
        });
    }
    cluster
}

fn deny_all(name: &str) -> NetworkPolicy {
    NetworkPolicy {
        namespace: "x".into(),
        name: name.into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector: Selector::default(),
        ingress: Some(vec![]),
        egress: None,
        source: None,
    }
}

fn set(policies: Vec<NetworkPolicy>) -> PolicySet {
    PolicySet { policies }
}

fn mode(namespace: Option<&str>, deployment: Option<&str>, default: Mode) -> Mode {
    let none = PolicySet::default();
    let table = compile(&cluster(namespace, deployment), &none, &none, NODE, default).unwrap();
    table.endpoints["uid1"].mode
}

#[test]
fn the_namespaces_label_is_the_mode_and_a_workloads_may_only_strengthen_it() {
    assert_eq!(mode(None, None, Mode::Learn), Mode::Learn);
    assert_eq!(mode(None, None, Mode::Audit), Mode::Audit);
    assert_eq!(mode(Some("learn"), None, Mode::Enforce), Mode::Learn);
    assert_eq!(mode(Some("audit"), Some("enforce"), Mode::Learn), Mode::Enforce);
    assert_eq!(mode(Some("enforce"), Some("learn"), Mode::Learn), Mode::Enforce);
}

#[test]
fn a_label_that_names_no_mode_is_ignored_and_reported() {
    let none = PolicySet::default();
    let table = compile(&cluster(Some("enfroce"), None), &none, &none, NODE, Mode::Audit).unwrap();
    assert_eq!(table.endpoints["uid1"].mode, Mode::Audit);
    let expected = Warning::UnknownMode { object: "namespace/x".into(), value: "enfroce".into() };
    assert_eq!(table.warnings, [expected]);
}

#[test]
fn a_node_that_nobody_described_is_reported() {
    let none = PolicySet::default();
    let mut unknown = cluster(None, None);
    unknown.nodes.clear();
    let table = compile(&unknown, &none, &none, NODE, Mode::Learn).unwrap();
    assert_eq!(table.warnings, [Warning::UnknownNode { node: NODE.into() }]);
}

#[test]
fn pods_with_the_same_rules_share_a_slot_and_a_generation() {
    let none = PolicySet::default();
    let table = compile(&cluster(None, None), &set(vec![deny_all("a")]), &none, NODE, Mode::Learn).unwrap();
    let (one, two) = (&table.endpoints["uid1"], &table.endpoints["uid2"]);
    assert_eq!((one.in_force, one.generation), (two.in_force, two.generation));
    assert_ne!(one.ordinal, two.ordinal);
    assert_eq!((table.slots.len(), table.generations.len()), (1, 1));
    assert_eq!(one.in_force & 7, verdict::abi::INGRESS_ISOLATED);
}

#[test]
fn staged_is_what_would_hold_were_the_staged_policies_applied() {
    let open = NetworkPolicy { ingress: Some(vec![Rule::default()]), ..deny_all("a") };
    let none = PolicySet::default();
    let staged_slot = |in_force: &PolicySet, staged: &PolicySet| {
        let table = compile(&cluster(None, None), in_force, staged, NODE, Mode::Learn).unwrap();
        let endpoint = &table.endpoints["uid1"];
        (endpoint.staged != 0).then(|| table.slots[&endpoint.staged].clone())
    };
    assert!(staged_slot(&set(vec![deny_all("a")]), &none).is_none(), "nothing is staged");
    // Of the same name: it takes the other's place.
    let replaced = staged_slot(&set(vec![deny_all("a")]), &set(vec![open.clone()])).unwrap();
    assert!(replaced.ingress_isolated && replaced.rules_len() == 4);
    // Of another name: it comes beside, and what is allowed already stays allowed.
    let beside = staged_slot(&set(vec![open]), &set(vec![deny_all("b")])).unwrap();
    assert_eq!(beside.rules_len(), 4);
}

#[test]
fn a_plan_that_does_not_fit_says_which_table_and_leaves_the_old_one() {
    let none = PolicySet::default();
    let mut compiler = Compiler::new(NODE, Mode::Learn);
    let plan = compiler.plan(&cluster(None, None), &set(vec![deny_all("a")]), &none).unwrap();
    let small = Limits { endpoints: 2, peers: 1, generations: 8, ..Limits::default() };
    let refused = plan.fits(&small).unwrap_err();
    assert_eq!(refused.tables, [("endpoints", 3, 2)]);
    let text = "the policies do not fit, the old ones stay in force: endpoints 3 of 2; give the agent larger tables, or fewer rules";
    assert_eq!(refused.to_string(), text);
    assert!(compiler.table().endpoints.is_empty());
}

#[test]
fn a_pods_number_is_kept_until_its_addresses_change() {
    let none = PolicySet::default();
    let mut compiler = Compiler::new(NODE, Mode::Learn);
    let mut now = cluster(None, None);
    let first = compiler.plan(&now, &none, &none).unwrap();
    compiler.adopt(&first);
    let before = first.table.endpoints["uid1"].ordinal;
    now.pods[0].addresses = vec!["10.1.0.9".parse().unwrap()];
    let second = compiler.plan(&now, &none, &none).unwrap();
    assert_ne!(second.table.endpoints["uid1"].ordinal, before);
    assert_eq!(second.endpoints_removed[0].ordinal, before);
    assert_eq!(second.table.endpoint_at(Address::v4([10, 1, 0, 9])).unwrap().name.as_ref(), "shop-1");
}

#[test]
fn an_address_that_went_to_another_pod_is_the_later_pods() {
    let none = PolicySet::default();
    let mut reused = cluster(None, None);
    let ended = "2026-01-01T00:00:00Z".parse().unwrap();
    reused.pods[1].addresses = reused.pods[0].addresses.clone();
    reused.pods[0].ended = Some(ended);
    let table = compile(&reused, &none, &none, NODE, Mode::Learn).unwrap();
    assert_eq!(table.endpoints.keys().map(|uid| &**uid).collect::<Vec<_>>(), ["uid2"]);
    // One that is being deleted, and whose address nobody else has, is judged until it is gone.
    reused.pods[1].addresses = vec!["10.1.0.2".parse().unwrap()];
    let table = compile(&reused, &none, &none, NODE, Mode::Learn).unwrap();
    assert_eq!(table.endpoints.len(), 2);
}

#[test]
fn where_an_address_becomes_a_services_standing_connections_to_it_are_judged_again() {
    let everywhere = NetworkPolicy { ingress: None, egress: Some(vec![Rule::default()]), ..deny_all("out") };
    let (in_force, staged) = (set(vec![everywhere]), PolicySet::default());
    let mut compiler = Compiler::new(NODE, Mode::Enforce);
    let mut cluster = cluster(None, None);
    let first = compiler.plan(&cluster, &in_force, &staged).unwrap();
    compiler.adopt(&first);
    // Without backends, so that no slot has a rule for it.
    let selector = [("app".to_owned(), "nobody".to_owned())].into();
    let target = TargetPort::Number(80);
    let port = ServicePort { name: "p".into(), port: 80, protocol: Protocol::Tcp, target, node_port: None };
    let cluster_ips = vec!["10.96.0.1".parse().unwrap()];
    let service = Service { selector, ports: vec![port], cluster_ips, ..Service::default() };
    cluster.services.insert(("x".into(), "empty".into()), service);
    let plan = compiler.plan(&cluster, &in_force, &staged).unwrap();
    assert_eq!(plan.endpoints.len(), 2, "{plan:?}");
}
