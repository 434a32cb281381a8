//! Selectors that lead to nobody, or to pods on which policies have no effect.

use super::{Found, Subject, count, kinds, peers_field, some_of};
use crate::{
    reach::PeerSets,
    universe::{End, EndId, namespaces_matching},
};
use model::{
    cluster::{Cluster, Pod},
    labels::{METADATA_NAME, Operator, Selector},
    policy::{NetworkPolicy, Peer},
};
use std::collections::BTreeSet;

/// Namespaces that every cluster has, in the input or not.
const EVERY_CLUSTER: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

pub(super) fn look(subject: &Subject<'_, '_>, found: &mut Found) {
    let on_host: Vec<&Pod> =
        subject.universe.pods(0).iter().map(|(pod, _)| &**pod).filter(|p| p.host_network).collect();
    for policy in subject.policies() {
        host_network(subject, policy, &on_host, found);
    }
    if subject.universe.pods(0).is_empty() {
        if !subject.policies().is_empty() {
            found.unchecked.push(
                "no pods and no workloads in the input: selectors, peers and ports that match nothing (PF001 to PF007)"
                    .to_owned(),
            );
        }
        return;
    }
    let mut peers = PeerSets::new(subject.universe, 0);
    for policy in subject.policies() {
        selector(subject, policy, &on_host, found);
    }
    for rule in subject.rules() {
        let Some((policy, content)) = subject.reach.rule(rule) else { continue };
        for (index, peer) in content.peers.iter().enumerate() {
            let Peer::Pods { namespaces, pods } = peer else { continue };
            let field = format!(".{}[{index}]", peers_field(rule.direction));
            if let Some(selector) = namespaces {
                let unknown = unknown_namespaces(subject.input.cluster, selector);
                for name in &unknown {
                    let what = format!("there is no namespace {name} in the input");
                    found.rule(kinds::UNKNOWN_NAMESPACE, subject.reach, rule, &field, what);
                }
                if namespaces_matching(subject.input.cluster, selector).is_empty() {
                    if unknown.is_empty() && !asks_for_a_builtin(selector) {
                        let what = no_namespace(subject.input.cluster, selector);
                        found.rule(kinds::NO_NAMESPACE, subject.reach, rule, &field, what);
                    }
                    continue;
                }
            }
            let ends = peers.of_peer(peer, policy);
            if !ends.ones().any(|end| is_running(subject, end)) {
                let what = no_pod(policy, namespaces.as_ref(), pods.as_ref());
                found.rule(kinds::NO_PEER_POD, subject.reach, rule, &field, what);
            }
        }
    }
}

fn is_running(subject: &Subject<'_, '_>, end: usize) -> bool {
    let end = EndId(u32::try_from(end).unwrap_or(u32::MAX));
    matches!(subject.universe.end(end), End::Pods(class) if !class.host_network)
}

/// A policy whose selector no pod has; one on host network pods alone is told of elsewhere.
fn selector(subject: &Subject<'_, '_>, policy: &NetworkPolicy, on_host: &[&Pod], found: &mut Found) {
    let here = subject.universe.in_namespace(&policy.namespace);
    let selects = |id: &&EndId| match subject.universe.end(**id) {
        End::Pods(class) => policy.pod_selector.matches(&class.labels),
        End::Block(_) | End::Nobody(_) => false,
    };
    if here.iter().any(|id| selects(&id)) || on_host.iter().any(|pod| would_select(policy, pod)) {
        return;
    }
    let what = no_pod(policy, None, Some(&policy.pod_selector));
    found.policy(kinds::SELECTS_NO_POD, policy, what).field = "spec.podSelector".to_owned();
}

fn host_network(subject: &Subject<'_, '_>, policy: &NetworkPolicy, on_host: &[&Pod], found: &mut Found) {
    let pods = on_host.iter().filter(|pod| would_select(policy, pod));
    let owners: BTreeSet<String> = pods.map(|pod| subject.input.cluster.root_owner(pod).to_string()).collect();
    if owners.is_empty() {
        return;
    }
    let what = format!("it matches pods of the host network: {}", some_of(&Vec::from_iter(owners), 3));
    found.policy(kinds::HOST_NETWORK, policy, what).field = "spec.podSelector".to_owned();
}

fn would_select(policy: &NetworkPolicy, pod: &Pod) -> bool {
    pod.namespace == policy.namespace && policy.pod_selector.matches(&pod.labels)
}

/// Names in `kubernetes.io/metadata.name` that no namespace has.
fn unknown_namespaces(cluster: &Cluster, selector: &Selector) -> Vec<String> {
    let named = selector.match_labels.get(METADATA_NAME).into_iter();
    let listed = selector.match_expressions.iter().filter(|r| r.key == METADATA_NAME && r.operator == Operator::In);
    let names: BTreeSet<&String> = named.chain(listed.flat_map(|r| &r.values)).collect();
    let unknown = |name: &&&String| !cluster.namespaces.contains_key(**name) && !EVERY_CLUSTER.contains(&name.as_str());
    names.iter().filter(unknown).map(|name| (*name).clone()).collect()
}

/// Whether it asks by name for a namespace that every cluster has, though the input does not.
fn asks_for_a_builtin(selector: &Selector) -> bool {
    let listed = selector.match_expressions.iter().filter(|r| r.key == METADATA_NAME && r.operator == Operator::In);
    let mut names = selector.match_labels.get(METADATA_NAME).into_iter().chain(listed.flat_map(|r| &r.values));
    names.any(|name| EVERY_CLUSTER.contains(&name.as_str()))
}

fn no_namespace(cluster: &Cluster, selector: &Selector) -> String {
    let by_name_only = cluster.namespaces.values().filter(|namespace| namespace.source.is_none()).count();
    let what = format!("no namespace has {selector}");
    match by_name_only {
        0 => what,
        n => format!("{what} ({} known by name only, as the input does not hold their objects)", count(n, "namespace")),
    }
}

fn no_pod(policy: &NetworkPolicy, namespaces: Option<&Selector>, pods: Option<&Selector>) -> String {
    let at = match namespaces {
        None => format!("in namespace {}", policy.namespace),
        Some(selector) if *selector == Selector::default() => "in any namespace".to_owned(),
        Some(selector) => format!("in the namespaces with {selector}"),
    };
    match pods.filter(|selector| **selector != Selector::default()) {
        Some(selector) => format!("no pod {at} has {selector}"),
        None => format!("no pod {at}"),
    }
}
