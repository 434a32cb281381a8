//! What lint calls redundant or without effect can go: over random clusters, the reference evaluator judges every
//! connection alike with it and without it, also of pods that nobody runs yet and with named ports that nobody has yet.
//!
//! `PODFENCE_SEED` is the seed, `PROPTEST_CASES` how many clusters.

use model::{
    cluster::{Cluster, ContainerPort, Namespace, Pod},
    labels::METADATA_NAME,
    policy::{NetworkPolicy, PolicySet, PortMatch, Protocol, Rule},
    reference::{Endpoint, Reference, Subject},
    yaml::read_into,
};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use review::{
    Direction, Input, Reach, RuleRef, Sets, Universe, Where,
    lint::{self, Finding, Texts},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use tests::{objects::objects, random::Random};

const CLUSTERS: u32 = 10_000;
/// Addresses outside, some in blocks that rules have.
const OUTSIDE: [&str; 6] = ["10.0.0.9", "fd00::9", "192.168.0.1", "203.0.113.1", "2001:db8::1", "0.0.0.1"];

/// Policies, rules, peers and ports; all at once leave every verdict as it is.
const REDUNDANT: [&str; 4] = ["PF008", "PF009", "PF010", "PF011"];
/// Each by itself does.
const NO_EFFECT: &str = "PF012";

#[test]
fn what_is_redundant_can_go_at_once_and_what_has_no_effect_one_by_one() {
    over_random(11, |cluster, _| {
        let (redundant, without_effect) = found(cluster);
        if redundant.is_empty() && without_effect.is_empty() {
            return Ok(());
        }
        let people = everyone(cluster);
        let all = redundant.iter().collect::<Vec<_>>();
        for taken_out in [all].into_iter().chain(redundant.iter().chain(&without_effect).map(|finding| vec![finding])) {
            same(&people, &cluster.policies, &without(&cluster.policies, &taken_out), &taken_out)?;
        }
        Ok(())
    });
}

#[test]
fn a_copy_of_a_rule_or_of_a_policy_is_found() {
    over_random(12, |cluster, seed| {
        let rules = touching(cluster);
        let Some(rule) = (!rules.is_empty()).then(|| rules[Random::new(seed).below(rules.len())]) else {
            return Ok(());
        };
        let mut copied = cluster.clone();
        let policy = &mut copied.policies.policies[rule.policy];
        let object = format!("NetworkPolicy {}/{}", policy.namespace, policy.name);
        let rules = rules_of(policy, rule.direction);
        rules.push(rules[rule.index].clone());
        let copy = RuleRef { index: rules.len() - 1, ..rule };
        let (findings, _) = found(&copied);
        let is_copy = |f: &Finding| {
            f.object == object
                && (f.field.is_empty() || part(f).is_some_and(|p| p == (copy.direction, copy.index, None)))
        };
        prop_assert!(findings.iter().any(is_copy), "{:?}: {:#?}", copy, findings);

        let mut copied = cluster.clone();
        let mut twin = copied.policies.policies[rule.policy].clone();
        twin.name.push_str("-twin");
        let object = format!("NetworkPolicy {}/{}", twin.namespace, twin.name);
        copied.policies.policies.push(twin);
        copied.policies.sort();
        let (findings, _) = found(&copied);
        prop_assert!(findings.iter().any(|f| f.object == object && f.field.is_empty()), "{}: {:#?}", object, findings);
        Ok(())
    });
}

fn over_random(default_seed: u64, law: impl Fn(&Cluster, u64) -> Result<(), TestCaseError>) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CLUSTERS);
    let rng_seed = RngSeed::Fixed(Random::seed(default_seed));
    let config = ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&(objects(), any::<u64>()), |(objects, seed)| {
        let mut cluster = Cluster::default();
        let text = objects.to_string();
        read_into(&mut cluster, "objects", &text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        law(&cluster, seed)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// What is redundant, and what has no effect.
fn found(cluster: &Cluster) -> (Vec<Finding>, Vec<Finding>) {
    let report = lint::lint(Input { cluster, policies: &cluster.policies }, &Texts::new(), None);
    let of = |codes: &[&str]| report.findings.iter().filter(|f| codes.contains(&f.kind.code)).cloned().collect();
    (of(&REDUNDANT), of(&[NO_EFFECT]))
}

/// The rules that are about somebody: two ends that could meet.
fn touching(cluster: &Cluster) -> Vec<RuleRef> {
    let universe = Universe::of(&[Input { cluster, policies: &cluster.policies }]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let mut rules = BTreeSet::new();
    for (one, _) in universe.ends() {
        for (other, _) in universe.ends() {
            for direction in [Direction::Ingress, Direction::Egress] {
                let (from, to) = if direction == Direction::Ingress { (other, one) } else { (one, other) };
                if reach.isolated_by(direction, one).is_some() && reach.allowed(from, to) != review::SetId::NONE {
                    rules.extend(reach.rules(direction, from, to).into_iter().map(|(rule, _)| rule));
                }
            }
        }
    }
    rules.into_iter().collect()
}

// --- taking out -----------------------------------------------------------------------------------------------

/// Which list, which rule, and of `from`, `to` or `ports` which item.
type Part<'f> = (Direction, usize, Option<(&'f str, usize)>);

/// The part of a rule that a finding is about.
fn part(finding: &Finding) -> Option<Part<'_>> {
    let item = |text: &'_ str| -> Option<(String, usize)> {
        let (name, rest) = text.split_once('[')?;
        Some((name.to_owned(), rest.strip_suffix(']')?.parse().ok()?))
    };
    let mut steps = finding.field.strip_prefix("spec.")?.split('.');
    let (list, index) = item(steps.next()?)?;
    let direction = if list == "ingress" { Direction::Ingress } else { Direction::Egress };
    let below = steps.next().map(|step| (step, item(step)));
    let below = below.and_then(|(step, item)| Some((step.split('[').next()?, item?.1)));
    Some((direction, index, below))
}

fn rules_of(policy: &mut NetworkPolicy, direction: Direction) -> &mut Vec<Rule> {
    let list = match direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    };
    list.as_mut().expect("a list that has the rule")
}

/// The policies without what these findings are about.
fn without(policies: &PolicySet, findings: &[&Finding]) -> PolicySet {
    let mut left = policies.clone();
    for policy in &mut left.policies {
        let object = format!("NetworkPolicy {}/{}", policy.namespace, policy.name);
        let mut parts: Vec<_> = findings.iter().filter(|f| f.object == object).filter_map(|f| part(f)).collect();
        // From behind, so that indices stay right; parts of a rule before the rule.
        parts.sort_by_key(|(direction, index, below)| {
            (*direction, std::cmp::Reverse(*index), std::cmp::Reverse(*below))
        });
        for (direction, index, below) in parts {
            let rules = rules_of(policy, direction);
            match below {
                None => drop(rules.remove(index)),
                Some(("ports", item)) => drop(rules[index].ports.remove(item)),
                Some((_, item)) => drop(rules[index].peers.remove(item)),
            }
        }
    }
    let gone = |policy: &NetworkPolicy| {
        let object = format!("NetworkPolicy {}/{}", policy.namespace, policy.name);
        findings.iter().any(|f| f.object == object && f.field.is_empty())
    };
    left.policies.retain(|policy| !gone(policy));
    left
}

// --- judging --------------------------------------------------------------------------------------------------

/// The cluster with a pod for every label combination that nobody runs, and a twin of every pod that runs, at another
/// address, whose named ports have other numbers.
fn everyone(cluster: &Cluster) -> Cluster {
    let universe = Universe::of(&[Input { cluster, policies: &cluster.policies }]);
    let mut all = cluster.clone();
    let names = names(&cluster.policies);
    let ports = |first: u16| {
        let one = |(n, (protocol, name)): (u16, &(Protocol, String))| ContainerPort {
            name: Some(name.clone()),
            port: first + n,
            protocol: *protocol,
        };
        (0..).zip(&names).map(one).collect::<Vec<_>>()
    };
    for (n, pod) in (1000u16..).zip(cluster.pods.iter().filter(|pod| pod.lives())) {
        let name = format!("twin-{n}");
        all.pods.push(Pod { uid: name.clone(), name, ports: ports(7000), addresses: vec![address(n)], ..pod.clone() });
    }
    for (n, (_, nobody)) in (0u16..).zip(universe.nobody()) {
        let namespace = match &nobody.namespace {
            Where::Existing(name) => {
                let labels = [(METADATA_NAME.to_owned(), name.clone())].into();
                all.namespaces.entry(name.clone()).or_insert_with(|| Namespace { labels, ..Namespace::default() });
                name.clone()
            }
            Where::New { labels, .. } => {
                let name = format!("new-{n}");
                all.namespaces.insert(name.clone(), Namespace { labels: labels.clone(), ..Namespace::default() });
                name
            }
        };
        let name = format!("nobody-{n}");
        let labels = nobody.labels.clone();
        let ports = if n % 3 == 0 { Vec::new() } else { ports(6000 + n) };
        let uid = name.clone();
        all.pods.push(Pod { namespace, name, uid, labels, ports, addresses: vec![address(n)], ..Pod::default() });
    }
    all
}

/// Near the pods of the cluster, in blocks that rules have and outside them.
fn address(n: u16) -> IpAddr {
    let low = u128::from(n % 256);
    match n % 4 {
        0 => IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + u32::from(n % 256))),
        1 => IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) + low)),
        2 => IpAddr::V4(Ipv4Addr::from(0xc633_6400 + u32::from(n))),
        _ => IpAddr::V6(Ipv6Addr::from((0xfd77_u128 << 112) + low)),
    }
}

/// Every named port of the policies.
fn names(policies: &PolicySet) -> BTreeSet<(Protocol, String)> {
    let rules = policies.policies.iter().flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
    let named = rules.flat_map(|rule| &rule.ports).filter_map(|port| match &port.port {
        PortMatch::Named(name) => Some((port.protocol, name.clone())),
        PortMatch::All | PortMatch::Range(..) => None,
    });
    named.collect()
}

/// Every verdict between two of these people, or one of them and an address outside, is the same.
fn same(people: &Cluster, old: &PolicySet, new: &PolicySet, taken_out: &[&Finding]) -> Result<(), TestCaseError> {
    let (old, new) = (Reference::new(people, old), Reference::new(people, new));
    let pods = people.pods.iter().filter(|pod| pod.lives());
    let pods = pods.flat_map(|pod| pod.addresses.iter().map(move |address| Endpoint::Pod(pod, *address)));
    let outside = OUTSIDE.iter().map(|address| Endpoint::Address(address.parse().expect("an address")));
    let ends: Vec<Endpoint<'_>> = pods.chain(outside).collect();
    let is_v4 = |end: &Endpoint<'_>| match end {
        Endpoint::Pod(_, address) | Endpoint::Address(address) => address.is_ipv4(),
        Endpoint::OwnNode => true,
    };
    let (before, after) = (subjects(&old, &ends), subjects(&new, &ends));
    for from in 0..ends.len() {
        for to in (0..ends.len()).filter(|to| is_v4(&ends[from]) == is_v4(&ends[*to])) {
            let question = || format!("{:?} to {:?} without {taken_out:#?}", ends[from], ends[to]);
            for protocol in Protocol::ALL {
                let open = Reference::ports_between(&before[from], &before[to], protocol);
                let open_after = Reference::ports_between(&after[from], &after[to], protocol);
                prop_assert_eq!(open, open_after, "{} {}", protocol.name(), question());
            }
            let ping = |all: &[Subject<'_>]| Reference::decide_between(&all[from], &all[to], None, 0).allows();
            prop_assert_eq!(ping(&before), ping(&after), "a ping {}", question());
        }
    }
    Ok(())
}

fn subjects<'s>(reference: &'s Reference<'_>, ends: &[Endpoint<'s>]) -> Vec<Subject<'s>> {
    ends.iter().map(|end| reference.subject(*end)).collect()
}
