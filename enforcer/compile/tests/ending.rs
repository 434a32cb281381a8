//! What is kept of policies that go before their pods.

use compile::{Ending, Kept, MODE_LABEL, compile};
use model::{
    cluster::{Cluster, Namespace, Pod, Source},
    labels::{Labels, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Rule},
    reference::{Endpoint, Reference},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use verdict::{Mode, abi::Nanos};

const NODE: &str = "n1";
const SETTLES: Nanos = 100;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Pods `a` (app=a) and `b` (app=b, tier=x) of a namespace in enforce.
fn cluster(policies: &[NetworkPolicy]) -> Cluster {
    let mut cluster = Cluster::default();
    let source = Some(Source { file: "cluster.yaml".into(), line: 1 });
    let namespace = Namespace { labels: labels(&[(MODE_LABEL, "enforce")]), source, ..Namespace::default() };
    cluster.namespaces.insert("x".into(), namespace);
    for (name, address, labels) in
        [("a", "10.1.0.1", labels(&[("app", "a")])), ("b", "10.1.0.2", labels(&[("app", "b"), ("tier", "x")]))]
    {
        cluster.pods.push(Pod {
            namespace: "x".into(),
            name: name.into(),
            uid: name.into(),
            labels,
            addresses: vec![address.parse().unwrap()],
            node: NODE.into(),
            ..Pod::default()
        });
    }
    cluster.policies = PolicySet::new(policies.to_vec());
    cluster
}

fn policy(name: &str, pod_selector: Selector, rules: usize) -> NetworkPolicy {
    NetworkPolicy {
        namespace: "x".into(),
        name: name.into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector,
        ingress: Some(vec![Rule::default(); rules]),
        egress: None,
        source: None,
    }
}

fn deny_all() -> NetworkPolicy {
    policy("deny-all", Selector::default(), 0)
}

fn ends(mut cluster: Cluster) -> Cluster {
    cluster.namespaces.get_mut("x").unwrap().terminating = true;
    cluster
}

/// Pod by pod: its mode, whether it is isolated for ingress, whether somebody may come in.
fn judged(cluster: &Cluster) -> Vec<(Mode, bool, bool)> {
    let table = compile(cluster, &cluster.policies, &cluster.staged, NODE, Mode::Learn).unwrap();
    let of = |endpoint: &compile::Endpoint| {
        let slot = &table.slots[&endpoint.in_force];
        (endpoint.mode, slot.ingress_isolated, slot.rules_len() > 0)
    };
    table.endpoints.values().map(of).collect()
}

const CLOSED: (Mode, bool, bool) = (Mode::Enforce, true, false);
const OPEN: (Mode, bool, bool) = (Mode::Enforce, false, false);

fn keep(ending: &mut Ending, mut cluster: Cluster, now: Nanos) -> (Cluster, Kept) {
    let kept = ending.keep(&mut cluster, now);
    (cluster, kept)
}

#[test]
fn a_namespace_that_is_being_deleted_keeps_its_policies_and_its_mode_while_it_has_pods() {
    let mut ending = Ending::new(NODE, SETTLES);
    let (now, kept) = keep(&mut ending, cluster(&[deny_all()]), 0);
    assert_eq!((judged(&now), kept), (vec![CLOSED; 2], Kept::default()));
    let (now, kept) = keep(&mut ending, ends(cluster(&[])), 1);
    assert_eq!((judged(&now), kept.ending), (vec![CLOSED; 2], vec!["x/deny-all".to_owned()]));
    // Also once the namespace's own object, whose label is the mode, is gone; for however long.
    let gone = || {
        let mut gone = cluster(&[]);
        gone.namespaces.clear();
        gone
    };
    for time in [2, 1_000_000] {
        let (now, _) = keep(&mut ending, gone(), time);
        assert_eq!(judged(&now), vec![CLOSED; 2]);
    }
    // A new namespace of the same name begins without them.
    assert_eq!(judged(&keep(&mut ending.clone(), cluster(&[]), 3 + SETTLES * 9).0), vec![CLOSED; 2]);
    let mut anew = ending.clone();
    keep(&mut anew, cluster(&[]), 3);
    assert_eq!(judged(&keep(&mut anew, cluster(&[]), 3 + SETTLES).0), vec![OPEN; 2]);
    // And once no pod of the node is left in it, nothing is kept.
    let mut empty = gone();
    empty.pods.iter_mut().for_each(|pod| pod.node = "n2".into());
    assert_eq!(keep(&mut ending, empty, 4).1, Kept::default());
    assert!(ending.remembered().namespaces.is_empty() && ending.remembered().policies.policies.is_empty());
}

#[test]
fn a_policys_end_that_is_seen_before_its_namespaces_opens_nothing() {
    let mut ending = Ending::new(NODE, SETTLES);
    keep(&mut ending, cluster(&[deny_all()]), 0);
    let (now, kept) = keep(&mut ending, cluster(&[]), 10);
    assert_eq!(judged(&now), vec![CLOSED; 2]);
    assert_eq!((kept.settling, kept.until), (vec!["x/deny-all".to_owned()], Some(10 + SETTLES)));
    // The namespace's mark comes: kept to the last pod.
    let mut marked = ending.clone();
    for time in [50, 10 * SETTLES] {
        let (now, kept) = keep(&mut marked, ends(cluster(&[])), time);
        assert_eq!((judged(&now), kept.ending.len(), kept.until), (vec![CLOSED; 2], 1, None));
    }
    // No mark comes: the policy was deleted, and nothing more.
    let (now, kept) = keep(&mut ending, cluster(&[]), 9 + SETTLES);
    assert_eq!((judged(&now), kept.until), (vec![CLOSED; 2], Some(10 + SETTLES)));
    let (now, kept) = keep(&mut ending, cluster(&[]), 10 + SETTLES);
    assert_eq!((judged(&now), kept), (vec![OPEN; 2], Kept::default()));
    // It stays gone.
    assert_eq!(judged(&keep(&mut ending, cluster(&[]), 11 + SETTLES).0), vec![OPEN; 2]);
}

#[test]
fn what_a_policys_end_closes_closes_at_once() {
    let mut ending = Ending::new(NODE, SETTLES);
    let of_a = policy("of-a", Selector::of(labels(&[("app", "a")])), 0);
    let all_may = policy("all-may", Selector::default(), 1);
    let open = (Mode::Enforce, true, true);
    assert_eq!(judged(&keep(&mut ending, cluster(&[of_a.clone(), all_may]), 0).0), [open; 2]);
    // Pod `a` is isolated by another policy, which allows nothing; pod `b` by none any more.
    let (now, _) = keep(&mut ending, cluster(std::slice::from_ref(&of_a)), 1);
    assert_eq!(judged(&now), [CLOSED, open]);
    assert_eq!(judged(&keep(&mut ending, cluster(&[of_a]), 1 + SETTLES).0), [CLOSED, OPEN]);
}

#[test]
fn another_process_goes_on_from_what_was_remembered() {
    let mut first = Ending::new(NODE, SETTLES);
    keep(&mut first, cluster(&[deny_all()]), 0);
    let after = |remembered| {
        let mut ending = Ending::new(NODE, SETTLES);
        ending.after(remembered);
        ending
    };
    // All of it happened while nobody looked.
    assert_eq!(judged(&keep(&mut after(first.remembered()), ends(cluster(&[])), 7).0), vec![CLOSED; 2]);
    // Or half of it: by now the namespace's object is gone too.
    keep(&mut first, ends(cluster(&[])), 1);
    let mut gone = cluster(&[]);
    gone.namespaces.clear();
    assert_eq!(judged(&keep(&mut after(first.remembered()), gone, 7).0), vec![CLOSED; 2]);
    // With nothing remembered, there is nothing to keep.
    assert_eq!(judged(&keep(&mut Ending::new(NODE, SETTLES), ends(cluster(&[])), 7).0), vec![OPEN; 2]);
    // Where it cannot be known what was, what ends is closed, and what does not is as its policies say.
    let mut unknown = Ending::new(NODE, SETTLES);
    unknown.after_unknown();
    assert_eq!(judged(&keep(&mut unknown.clone(), cluster(&[]), 7).0), vec![OPEN; 2]);
    for time in [7, 10 * SETTLES] {
        assert_eq!(judged(&keep(&mut unknown, ends(cluster(&[])), time).0), vec![CLOSED; 2]);
    }
}

fn some_labels() -> impl Strategy<Value = Labels> {
    vec((select(vec!["app", "tier"]), select(vec!["a", "b"])), 0..3).prop_map(|pairs| labels(&pairs))
}

fn selector() -> impl Strategy<Value = Selector> {
    let operator = select(vec![Operator::Exists, Operator::DoesNotExist]);
    let requirement = (select(vec!["app", "tier"]), operator).prop_map(|(key, operator)| Requirement {
        key: key.to_owned(),
        operator,
        values: Vec::new(),
    });
    (some_labels(), vec(requirement, 0..2))
        .prop_map(|(match_labels, match_expressions)| Selector { match_labels, match_expressions })
}

fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
    let peers = vec(selector().prop_map(|pods| Peer::Pods { namespaces: None, pods: Some(pods) }), 0..2);
    option::of(vec(peers.prop_map(|peers| Rule { peers, ..Rule::default() }), 0..2))
}

/// Of every pair of pods and both ends: whether the opening may pass there.
fn allowed(cluster: &Cluster) -> Vec<[bool; 2]> {
    let reference = Reference::new(cluster, &cluster.policies);
    let pairs = cluster.pods.iter().flat_map(|from| cluster.pods.iter().map(move |to| (from, to)));
    let decided = pairs.filter(|(from, to)| from.uid != to.uid).map(|(from, to)| {
        let ends = [from, to].map(|pod| Endpoint::Pod(pod, pod.addresses[0]));
        let decision = reference.decide(ends[0], ends[1], None, 0);
        [decision.egress.allows(), decision.ingress.allows()]
    });
    decided.collect()
}

proptest! {
    #[test]
    fn while_policies_that_went_are_kept_what_is_allowed_is_what_both_before_and_after_allow(
        pods in vec(some_labels(), 2..6),
        policies in vec((selector(), rules(), rules(), any::<bool>()), 1..5),
    ) {
        let mut before = cluster(&[]);
        let pod = before.pods[0].clone();
        before.pods = pods.into_iter().zip(1u8..).map(|(labels, number)| Pod {
            name: format!("p{number}"),
            uid: format!("u{number}"),
            labels,
            addresses: vec![[10, 1, 0, number].into()],
            ..pod.clone()
        }).collect();
        let mut after = before.clone();
        for (number, (pod_selector, ingress, egress, stays)) in policies.into_iter().enumerate() {
            let made = NetworkPolicy { ingress, egress, ..policy(&format!("p{number}"), pod_selector, 0) };
            if stays {
                after.policies.policies.push(made.clone());
            }
            before.policies.policies.push(made);
        }
        let mut ending = Ending::new(NODE, SETTLES);
        keep(&mut ending, before.clone(), 0);
        let (held, _) = keep(&mut ending.clone(), after.clone(), 1);
        let both = allowed(&before).into_iter().zip(allowed(&after));
        let both: Vec<[bool; 2]> = both.map(|(before, after)| [before[0] && after[0], before[1] && after[1]]).collect();
        prop_assert_eq!(allowed(&held), both);
        // Should the namespace end, all of it holds as it was.
        let (ended, _) = keep(&mut ending.clone(), ends(after.clone()), 2);
        prop_assert_eq!(allowed(&ended), allowed(&before));
        // And should it not, it is as the policies say.
        keep(&mut ending, after.clone(), 1);
        let (let_go, kept) = keep(&mut ending, after.clone(), 1 + SETTLES);
        prop_assert_eq!(allowed(&let_go), allowed(&after));
        prop_assert_eq!(kept, Kept::default());
    }
}
