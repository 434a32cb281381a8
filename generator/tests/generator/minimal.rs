//! Nothing of a generated set can go: without any peer, port or rule some connection closes, and no two
//! of its rules say what one could. Asked of the reference evaluator, over every pod, a sibling of each,
//! one as each template would make it, and addresses.

use crate::{
    laws::{generated, reach},
    scenes::{self, good, ledger, scenes},
};
use generator::{Nodes, Options};
use ipnet::IpNet;
use model::{
    cluster::Cluster,
    policy::{Peer, PolicySet, Rule},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The cluster with everyone who can be at an end: pods, their siblings, and those of templates, each of both families.
fn with_siblings(cluster: &Cluster) -> Cluster {
    let mut all = cluster.clone();
    let stand_ins = cluster.stand_ins();
    let more = cluster.pods.iter().chain(&stand_ins).enumerate().map(|(number, pod)| {
        let number = u16::try_from(number).unwrap();
        let [high, low] = number.to_be_bytes();
        let addresses = vec![[10, 246, high, low].into(), [0xfd01, 0, 0, 0, 0, 0, 0, number + 1].into()];
        model::cluster::Pod { uid: format!("{}-sibling", pod.uid), addresses, ..pod.clone() }
    });
    all.pods.extend(more.collect::<Vec<_>>());
    let stand_ins = stand_ins.into_iter().enumerate().map(|(number, pod)| {
        let number = u16::try_from(number).unwrap();
        let [high, low] = number.to_be_bytes();
        let addresses = vec![[10, 247, high, low].into(), [0xfd02, 0, 0, 0, 0, 0, 0, number + 1].into()];
        model::cluster::Pod { addresses, ..pod }
    });
    all.pods.extend(stand_ins);
    all
}

/// Every set with one thing less, and what that is.
fn with_one_less(policies: &PolicySet) -> Vec<(String, PolicySet)> {
    let mut out = Vec::new();
    for index in 0..policies.policies.len() {
        for is_ingress in [true, false] {
            let side = |set: &mut PolicySet| -> Option<Vec<Rule>> {
                let policy = &mut set.policies[index];
                if is_ingress { policy.ingress.take() } else { policy.egress.take() }
            };
            let rules = side(&mut policies.clone()).unwrap_or_default();
            let mut without = |what: String, rules: Vec<Rule>| {
                let mut set = policies.clone();
                let policy = &mut set.policies[index];
                *(if is_ingress { &mut policy.ingress } else { &mut policy.egress }) = Some(rules);
                out.push((format!("{}/{} ingress {is_ingress} {what}", policy.namespace, policy.name), set));
            };
            for rule in 0..rules.len() {
                let mut less = rules.clone();
                less.remove(rule);
                without(format!("rule {rule}"), less);
                // A list of one would become a list of none, which means everyone.
                for peer in (0..rules[rule].peers.len()).filter(|_| rules[rule].peers.len() > 1) {
                    let mut less = rules.clone();
                    less[rule].peers.remove(peer);
                    without(format!("rule {rule} peer {peer}"), less);
                }
                for port in (0..rules[rule].ports.len()).filter(|_| rules[rule].ports.len() > 1) {
                    let mut less = rules.clone();
                    less[rule].ports.remove(port);
                    without(format!("rule {rule} port {port}"), less);
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn nothing_can_be_taken_out_without_closing_something(scene in scenes(good()), choice in scenes::choices()) {
        let options = Options { nodes: Some(Nodes::Allow), ..choice };
        let Some(generated) = generated(&ledger(&scene.records), &scene.cluster, &options) else { return Ok(()) };
        let cluster = with_siblings(&scene.cluster);
        let whole = reach(&generated.policies, &cluster);
        for (what, less) in with_one_less(&generated.policies) {
            prop_assert_ne!(&reach(&less, &cluster), &whole, "{} says nothing", what);
        }
    }

    #[test]
    fn no_two_rules_say_what_one_could(scene in scenes(good()), choice in scenes::choices()) {
        let options = Options { nodes: Some(Nodes::Allow), ..choice };
        let Some(generated) = generated(&ledger(&scene.records), &scene.cluster, &options) else { return Ok(()) };
        for policy in &generated.policies.policies {
            for rules in [&policy.ingress, &policy.egress].into_iter().flatten() {
                let peers: BTreeSet<_> = rules.iter().map(|rule| &rule.peers).collect();
                let ports: BTreeSet<_> = rules.iter().map(|rule| &rule.ports).collect();
                prop_assert_eq!((peers.len(), ports.len()), (rules.len(), rules.len()), "{}", &policy.name);
                for rule in rules {
                    let whole: Vec<IpNet> = rule.peers.iter().filter_map(whole_block).collect();
                    prop_assert_eq!(IpNet::aggregate(&whole).len(), whole.len(), "blocks of {} join", &policy.name);
                }
            }
        }
    }
}

fn whole_block(peer: &Peer) -> Option<IpNet> {
    match peer {
        Peer::Block { cidr, except } if except.is_empty() => Some(*cidr),
        _ => None,
    }
}
