//! The default-deny of each namespace: pods that nobody knows are closed, and nobody else.

use crate::{
    laws::{generated, nodes, reach},
    scenes::{self, Families, key, labels, ledger, scenes},
};
use generator::{DEFAULT_DENY, Nodes, Options, Refused, render, synthesize};
use model::{
    cluster::{Cluster, Pod, Workload},
    ledger::Ledger,
    policy::PolicySet,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The cluster with a pod of labels that nobody heard of in each of these namespaces.
fn with_strangers<'n>(cluster: &Cluster, namespaces: impl IntoIterator<Item = &'n String>) -> Cluster {
    let mut cluster = cluster.clone();
    for (number, namespace) in (1u8..).zip(namespaces) {
        cluster.pods.push(Pod {
            namespace: namespace.clone(),
            name: "stranger".to_owned(),
            uid: format!("stranger-{namespace}"),
            labels: labels(&[("nobody", "knows")]),
            addresses: vec![[10, 245, 0, number].into()],
            ..Pod::default()
        });
    }
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn law_2_a_pod_that_nobody_knows_is_closed(scene in scenes(scenes::good()), choice in scenes::choices()) {
        let ledger = ledger(&scene.records);
        let options = Options { nodes: Some(Nodes::Allow), ..choice };
        let Some(generated) = generated(&ledger, &scene.cluster, &options) else { return Ok(()) };
        let everyones: BTreeSet<&String> =
            generated.subjects.all().iter().filter(|s| s.selector.keys().next().is_none()).map(|s| &s.key.namespace).collect();
        let named = generated.closed.closed.iter().filter(|namespace| !everyones.contains(namespace));
        let cluster = with_strangers(&scene.cluster, named);
        let of_strangers = |policies: &PolicySet| -> Vec<_> {
            reach(policies, &cluster).into_keys().filter(|(a, b, _)| a.contains("stranger") || b.contains("stranger")).collect()
        };
        prop_assert_eq!(of_strangers(&generated.policies), vec![]);
        // Without the objects the same pods are open, where there is anyone.
        let without = generated.policies.policies.iter().filter(|p| p.name != DEFAULT_DENY).cloned().collect();
        if cluster.pods.len() > scene.cluster.pods.len() {
            prop_assert!(!of_strangers(&PolicySet::new(without)).is_empty());
        }
    }

    #[test]
    fn a_default_deny_closes_no_pod_that_the_generator_knows(scene in scenes(scenes::good())) {
        let ledger = ledger(&scene.records);
        let Some(generated) = generated(&ledger, &scene.cluster, &nodes(Nodes::Allow)) else { return Ok(()) };
        let without = generated.policies.policies.iter().filter(|p| p.name != DEFAULT_DENY).cloned().collect();
        prop_assert_eq!(reach(&generated.policies, &scene.cluster), reach(&PolicySet::new(without), &scene.cluster));
    }
}

fn shop() -> Cluster {
    let mut cluster = scenes::cluster_of_nodes();
    scenes::add(&mut cluster, ("shop", "Deployment", "cart"), &labels(&[("app", "cart")]), &["app"], 1, Families::V4);
    scenes::add(&mut cluster, ("on", "Deployment", "dns"), &labels(&[("app", "dns")]), &["app"], 1, Families::V4);
    cluster
}

fn closed(cluster: &Cluster, options: &Options) -> (Vec<String>, String) {
    let all = synthesize(&Ledger::default(), cluster, options).unwrap();
    let objects = all.policies.policies.iter().filter(|p| p.name == DEFAULT_DENY).map(|p| p.namespace.clone());
    (objects.collect(), render::summary(&all))
}

#[test]
fn each_namespace_with_a_workload_has_one_and_it_is_said() {
    let (objects, summary) = closed(&shop(), &Options::default());
    assert_eq!(objects, ["on", "shop"]);
    let said = "closed by default-deny (every pod there that no other policy names, those of tomorrow too): on, shop";
    assert!(summary.contains(said), "{summary}");
}

#[test]
fn where_it_would_close_a_workload_that_no_policy_can_open_there_is_none() {
    let mut cluster = shop();
    cluster.workloads.insert(key("on", "Deployment", "bare"), Workload::default());
    let (objects, summary) = closed(&cluster, &Options::default());
    assert_eq!(objects, ["shop"]);
    assert!(summary.contains("on: it would close on/Deployment/bare: no pod of it was seen"), "{summary}");
}

#[test]
fn the_operator_leaves_a_namespace_open_by_name() {
    let open = |name: &str| Options { no_default_deny: BTreeSet::from([name.to_owned()]), ..Options::default() };
    let (objects, summary) = closed(&shop(), &open("on"));
    assert_eq!(objects, ["shop"]);
    assert!(summary.contains("on: left open by --no-default-deny"), "{summary}");
    let misspelt = synthesize(&Ledger::default(), &shop(), &open("no")).map(|_| ());
    assert!(matches!(misspelt, Err(Refused::NoSuchNamespace(_))), "{misspelt:?}");
}

#[test]
fn a_workload_of_that_name_has_a_policy_of_another() {
    let mut cluster = shop();
    let whose = ("shop", "Deployment", DEFAULT_DENY);
    scenes::add(&mut cluster, whose, &labels(&[("app", "x")]), &["app"], 1, Families::V4);
    let all = synthesize(&Ledger::default(), &cluster, &Options::default()).unwrap();
    let here = all.policies.policies.iter().filter(|p| p.namespace == "shop").map(|p| p.name.as_str());
    assert_eq!(here.collect::<Vec<_>>(), ["cart", "default-deny", "deployment-default-deny"]);
}
