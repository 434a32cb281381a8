//! Evidence merges like the ledger does: any order, grouping and repetition gives the same bytes.

use crate::{
    laws::{generated, nodes},
    scenes::{Scene, good, ledger, scenes},
};
use generator::{Evidence, Nodes};
use model::record::FlowRecord;
use proptest::prelude::*;

/// The evidence for the rules of the whole scene, of what one observer saw of it.
fn part(scene: &Scene, whole: &Evidence, of: &dyn Fn(usize, &FlowRecord) -> bool) -> Evidence {
    let records = scene.records.iter().enumerate().filter(|(i, r)| of(*i, r)).map(|(_, record)| record);
    let seen = generated(&ledger(records), &scene.cluster, &nodes(Nodes::Allow)).unwrap().evidence;
    let mut part = whole.clone();
    for (name, policy) in &mut part.policies {
        for rule in &mut policy.rules {
            // The first letter tells the direction.
            let same_way = seen.policies[name].rules.iter().filter(|other| other.rule[..1] == rule.rule[..1]);
            let proofs: Vec<_> = same_way.flat_map(|rule| &rule.proofs).collect();
            let known = rule.proofs.iter().filter_map(|own| {
                let same = |p: &&&generator::evidence::Proof| {
                    (&p.peer, p.port, &p.protocol, &p.basis) == (&own.peer, own.port, &own.protocol, &own.basis)
                };
                proofs.iter().find(same).map(|proof| (*proof).clone())
            });
            rule.proofs = known.collect();
        }
    }
    part
}

fn merged(parts: &[&Evidence]) -> String {
    let mut all = parts[0].clone();
    for part in &parts[1..] {
        assert_eq!(all.merge(part), [""; 0]);
    }
    all.to_json()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn merging_gives_the_same_bytes_in_any_order_grouping_and_repetition(
        scene in scenes(good()),
        owners in prop::collection::vec(0..3usize, 16),
    ) {
        let Some(whole) = generated(&ledger(&scene.records), &scene.cluster, &nodes(Nodes::Allow)) else { return Ok(()) };
        let parts: Vec<Evidence> = (0..3).map(|n| part(&scene, &whole.evidence, &|i, _| owners[i % 16] == n)).collect();
        let (a, b, c) = (&parts[0], &parts[1], &parts[2]);
        let once = merged(&[a, b, c]);
        prop_assert_eq!(&merged(&[c, a, b, a, c]), &once);
        let mut grouped = b.clone();
        grouped.merge(c);
        prop_assert_eq!(&merged(&[a, &grouped]), &once);
        let read = Evidence::from_json(&once).unwrap();
        prop_assert_eq!(read.to_json(), once);
        // What the parts know together is what was seen at all: nothing is lost, first and last are the outermost.
        let mut all = whole.evidence.clone();
        prop_assert_eq!(all.merge(&read), Vec::<String>::new());
        let ends = |evidence: &Evidence| -> Vec<_> {
            let rules = evidence.policies.values().flat_map(|policy| &policy.rules);
            let proofs = rules.flat_map(|rule| &rule.proofs);
            proofs.map(|p| (p.peer.clone(), p.port, p.first_seen.clone(), p.last_seen.clone(), p.nodes.clone())).collect()
        };
        prop_assert_eq!(ends(&read), ends(&whole.evidence));
    }
}

#[test]
fn what_is_for_no_rule_here_is_named() {
    let rule = |allows: &str| format!(r#"{{"rule": "egress[3]", "allows": "{allows}", "proofs": []}}"#);
    let file = |allows: &str| {
        let text = format!(
            r#"{{"schema": "podfence.dev/evidence/v1", "policies": {{"shop/web": {{"workload": "w", "rules": [{}]}}}}}}"#,
            rule(allows)
        );
        Evidence::from_json(&text).unwrap()
    };
    let mut ours = file("to app=cart in shop, TCP 8080");
    assert_eq!(ours.merge(&file("to app=cart in shop, TCP 8080")), [""; 0]);
    assert_eq!(
        ours.merge(&file("to app=db in shop, TCP 1")),
        ["shop/web egress to app=db in shop, TCP 1: no such rule here"]
    );
}
