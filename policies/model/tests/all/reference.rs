//! The evaluator against itself: `ports` says what `decide` says.

use crate::random;
use model::{
    policy::{PolicySet, Protocol, Rule},
    reference::{Endpoint, Judgement, Reference},
};
use proptest::prelude::*;
use std::net::IpAddr;

fn endpoints(cluster: &model::cluster::Cluster) -> Vec<Endpoint<'_>> {
    let outside: [IpAddr; 2] = ["10.0.0.200".parse().unwrap(), "fd00::1".parse().unwrap()];
    let pods = cluster.pods.iter().map(|pod| Endpoint::Pod(pod, pod.addresses[0]));
    pods.chain(outside.map(Endpoint::Address)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn ports_agree_with_asking_each_port(cluster in random::small_cluster(), policies in random::policies()) {
        let reference = Reference::new(&cluster, &policies);
        for from in endpoints(&cluster) {
            for to in endpoints(&cluster) {
                for protocol in Protocol::ALL {
                    let open = reference.ports(from, to, protocol);
                    prop_assert!(open.windows(2).all(|w| u32::from(w[0].1) + 1 < u32::from(w[1].0)));
                    for port in (1..=17).chain([u16::MAX]) {
                        let listed = open.iter().any(|(first, last)| (*first..=*last).contains(&port));
                        let decided = reference.decide(from, to, Some(protocol), port).allows();
                        prop_assert_eq!(listed, decided, "{:?} {:?} {:?} {}", from, to, protocol, port);
                    }
                }
            }
        }
    }

    /// Policies add up: one more rule opens and never closes (the evaluator's half of law 11).
    #[test]
    fn one_more_rule_never_closes_anything(
        cluster in random::small_cluster(),
        policies in random::policies(),
        rule in random::rule(),
        at in any::<prop::sample::Index>(),
    ) {
        let more = with_one_more(&policies, rule, at);
        let (before, after) = (Reference::new(&cluster, &policies), Reference::new(&cluster, &more));
        for from in endpoints(&cluster) {
            for to in endpoints(&cluster) {
                for port in 1..=16 {
                    let ask = |r: &Reference<'_>| r.decide(from, to, Some(Protocol::Tcp), port).allows();
                    prop_assert!(!ask(&before) || ask(&after));
                }
                let portless = |r: &Reference<'_>| r.decide(from, to, None, 0).allows();
                prop_assert!(!portless(&before) || portless(&after));
            }
        }
    }

    #[test]
    fn a_denial_names_policies_that_isolate_and_an_allowance_names_rules(
        cluster in random::small_cluster(),
        policies in random::policies(),
    ) {
        let reference = Reference::new(&cluster, &policies);
        for from in endpoints(&cluster) {
            for to in endpoints(&cluster) {
                let decision = reference.decide(from, to, Some(Protocol::Tcp), 8);
                for judgement in [&decision.egress, &decision.ingress] {
                    match judgement {
                        Judgement::AllowedBy(rules) => prop_assert!(!rules.is_empty()),
                        Judgement::Denied(by) => prop_assert!(!by.is_empty()),
                        Judgement::NotIsolated | Judgement::Exempt => {}
                    }
                }
            }
        }
    }
}

fn with_one_more(policies: &PolicySet, rule: Rule, at: prop::sample::Index) -> PolicySet {
    let mut more = policies.clone();
    if !more.policies.is_empty() {
        let policy = at.get_mut(&mut more.policies);
        match (&mut policy.ingress, &mut policy.egress) {
            (Some(rules), _) | (None, Some(rules)) => rules.push(rule),
            (None, None) => {}
        }
    }
    more
}
