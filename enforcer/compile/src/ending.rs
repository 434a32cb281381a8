//! Policies that go before the pods they isolate.
//!
//! When a namespace is deleted, the API server marks it first, and removes its policies and pods after that, in any
//! order; a pod stays isolated to its last packet (CVE-2024-7598). But watches of different kinds are not ordered
//! between each other: that a policy is gone may be heard before that its namespace ends. So whatever opens a pod
//! because policies went is put off for a time in which the mark must come ([`SETTLES_AFTER`]); what closes is not.
//!
//! Always holds: while policies that went are kept so, what is allowed is what both the policies before and those
//! after allow.

use model::{
    cluster::{Cluster, Namespace, Pod},
    labels::{Labels, Operator, Requirement, Selector},
    policy::{NetworkPolicy, PolicySet},
};
use std::collections::{BTreeMap, BTreeSet};
use verdict::abi::Nanos;

/// How long what a policy's end opens is put off.
pub const SETTLES_AFTER: Nanos = 5_000_000_000;

/// Gives a cluster back what went before the pods of this node that it isolates.
#[derive(Clone, Debug)]
pub struct Ending {
    node: String,
    settles_after: Nanos,
    ending: BTreeSet<String>,
    known: BTreeMap<String, Known>,
    settling: BTreeMap<(String, String), Settling>,
    before: Before,
}

/// What is remembered of a namespace: as it was last in force.
#[derive(Clone, Debug, Default)]
struct Known {
    /// `None`: no object was given, only pods that name it.
    namespace: Option<Namespace>,
    in_force: Vec<NetworkPolicy>,
    staged: Vec<NetworkPolicy>,
}

/// A policy that went from a namespace that stays.
#[derive(Clone, Debug)]
struct Settling {
    policy: NetworkPolicy,
    until: Nanos,
}

/// What was in force before this was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Before {
    /// What was remembered, or nothing at all.
    #[default]
    Known,
    /// Something, and nobody knows what: a namespace that ends and has no policy left is isolated wholly.
    Unknown,
}

/// What a cluster was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Policies of namespaces that end, `namespace/name`.
    pub ending: Vec<String>,
    /// Policies that went and are waited with, `namespace/name`.
    pub settling: Vec<String>,
    /// When the next of these is let go.
    pub until: Option<Nanos>,
}

/// What outlives the process: what was last in force where this node has pods.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Namespaces by name; one that ends is marked so.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Their policies.
    pub policies: PolicySet,
    /// Their staged policies.
    pub staged: PolicySet,
}

impl Ending {
    /// For the pods of a node, with nothing remembered; what opens is put off for `settles_after`.
    pub fn new(node: &str, settles_after: Nanos) -> Self {
        let (known, settling) = (BTreeMap::new(), BTreeMap::new());
        Self { node: node.to_owned(), settles_after, ending: BTreeSet::new(), known, settling, before: Before::Known }
    }

    /// Goes on from what an earlier process remembered.
    pub fn after(&mut self, remembered: Remembered) {
        for (name, namespace) in remembered.namespaces {
            if namespace.terminating {
                self.ending.insert(name.clone());
            }
            self.known.entry(name).or_default().namespace = Some(namespace);
        }
        for policy in remembered.policies.policies {
            self.known.entry(policy.namespace.clone()).or_default().in_force.push(policy);
        }
        for policy in remembered.staged.policies {
            self.known.entry(policy.namespace.clone()).or_default().staged.push(policy);
        }
    }

    /// Goes on from an earlier process of which nothing can be known.
    pub fn after_unknown(&mut self) {
        self.before = Before::Unknown;
    }

    /// What another process must know to go on from here.
    pub fn remembered(&self) -> Remembered {
        let mut remembered = Remembered::default();
        for (name, known) in &self.known {
            if let Some(namespace) = known.namespace.clone() {
                let terminating = self.ending.contains(name);
                remembered.namespaces.insert(name.clone(), Namespace { terminating, ..namespace });
            }
            remembered.policies.policies.extend(known.in_force.iter().cloned());
            remembered.staged.policies.extend(known.staged.iter().cloned());
        }
        remembered.policies.sort();
        remembered.staged.sort();
        remembered
    }

    /// Gives the cluster back what its pods on this node lost since the last call, as long as they need it. `now` is
    /// of a clock that nobody sets.
    pub fn keep(&mut self, cluster: &mut Cluster, now: Nanos) -> Kept {
        let peopled: BTreeSet<String> =
            cluster.pods.iter().filter(|pod| self.is_judged(pod)).map(|pod| pod.namespace.clone()).collect();
        self.note_ends(cluster, &peopled);
        self.note_gone(&cluster.policies, &peopled, now);
        let mut kept = Kept { until: self.settling.values().map(|settling| settling.until).min(), ..Kept::default() };
        let reduced: Vec<_> = self.settling.values().flat_map(|gone| reduced(&gone.policy, cluster)).collect();
        kept.settling.extend(self.settling.keys().map(|(namespace, name)| format!("{namespace}/{name}")));
        for name in &self.ending {
            self.restore(name, cluster, &mut kept);
        }
        self.before = Before::Known;
        self.known = peopled.into_iter().map(|name| self.remember(name, cluster)).collect();
        cluster.policies.policies.extend(reduced);
        cluster.policies.sort();
        cluster.staged.sort();
        kept
    }

    fn is_judged(&self, pod: &Pod) -> bool {
        pod.node == self.node && !pod.completed && !pod.host_network
    }

    /// A namespace ends from when it says so, or its object goes before its pods, until it is there anew or its last
    /// pod is gone.
    fn note_ends(&mut self, cluster: &Cluster, peopled: &BTreeSet<String>) {
        let given = |name: &str| cluster.namespaces.get(name).filter(|namespace| namespace.source.is_some());
        self.ending.retain(|name| given(name).is_none());
        let says_so = peopled.iter().filter(|name| given(name).is_some_and(|namespace| namespace.terminating));
        let went = self.known.iter().filter(|(name, known)| known.namespace.is_some() && given(name).is_none());
        self.ending.extend(says_so.chain(went.map(|(name, _)| name)).cloned());
        self.ending.retain(|name| peopled.contains(name));
    }

    /// Policies that went from namespaces that stay begin to settle; those that are there again, or waited long enough,
    /// are let go.
    fn note_gone(&mut self, there: &PolicySet, peopled: &BTreeSet<String>, now: Nanos) {
        let there: BTreeSet<(&str, &str)> = there.policies.iter().map(id).collect();
        let stays = |namespace: &str| peopled.contains(namespace) && !self.ending.contains(namespace);
        let over = |settling: &Settling| now >= settling.until;
        for ((namespace, name), _) in self.settling.iter().filter(|(_, settling)| over(settling)) {
            let known = self.known.get_mut(namespace).filter(|_| stays(namespace));
            known.into_iter().for_each(|known| known.in_force.retain(|policy| policy.name != *name));
        }
        self.settling.retain(|(namespace, name), settling| {
            stays(namespace) && !over(settling) && !there.contains(&(namespace, name))
        });
        let until = now.saturating_add(self.settles_after);
        let before = self.known.iter().filter(|(name, _)| stays(name) && self.settles_after > 0);
        for policy in before.flat_map(|(_, known)| &known.in_force).filter(|policy| !there.contains(&id(policy))) {
            let settling = || Settling { policy: policy.clone(), until };
            self.settling.entry((policy.namespace.clone(), policy.name.clone())).or_insert_with(settling);
        }
    }

    /// Adds what a namespace that ends has lost.
    fn restore(&self, name: &str, cluster: &mut Cluster, kept: &mut Kept) {
        let unknown = Known { in_force: vec![nothing_allowed(name)], ..Known::default() };
        let known = match (self.known.get(name), self.before) {
            (Some(known), _) => known,
            (None, Before::Unknown) => &unknown,
            (None, Before::Known) => return,
        };
        if let Some(namespace) = &known.namespace
            && cluster.namespaces.get(name).is_none_or(|namespace| namespace.source.is_none())
        {
            cluster.namespaces.insert(name.to_owned(), Namespace { terminating: true, ..namespace.clone() });
        }
        for (lost, set) in [(&known.in_force, &mut cluster.policies), (&known.staged, &mut cluster.staged)] {
            let there: BTreeSet<String> = of(name, set).map(|policy| policy.name.clone()).collect();
            for policy in lost.iter().filter(|policy| !there.contains(&policy.name)) {
                kept.ending.push(format!("{name}/{}", policy.name));
                set.policies.push(policy.clone());
            }
        }
    }

    /// A namespace as it is in force now, with what settles in it: should it end by now, that stays.
    fn remember(&self, name: String, cluster: &Cluster) -> (String, Known) {
        let namespace = cluster.namespaces.get(&name).filter(|namespace| namespace.source.is_some());
        let settling =
            self.settling.values().map(|settling| &settling.policy).filter(|policy| policy.namespace == name);
        let known = Known {
            namespace: namespace.cloned(),
            in_force: of(&name, &cluster.policies).chain(settling).cloned().collect(),
            staged: of(&name, &cluster.staged).cloned().collect(),
        };
        (name, known)
    }
}

fn id(policy: &NetworkPolicy) -> (&str, &str) {
    (&policy.namespace, &policy.name)
}

fn of<'s>(namespace: &'s str, set: &'s PolicySet) -> impl Iterator<Item = &'s NetworkPolicy> {
    set.policies.iter().filter(move |policy| policy.namespace == namespace)
}

/// A policy that isolates every pod of a namespace and allows nothing.
fn nothing_allowed(namespace: &str) -> NetworkPolicy {
    NetworkPolicy {
        namespace: namespace.to_owned(),
        // Beside policies of the namespace that are still there.
        name: "podfence-not-known".to_owned(),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector: Selector::default(),
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        source: None,
    }
}

/// A policy that went, for the pods and directions that nothing isolates any more: for others it allows nothing
/// from now on. Where that is some of its pods, a policy for each set of labels that they have.
fn reduced(policy: &NetworkPolicy, cluster: &Cluster) -> Vec<NetworkPolicy> {
    let isolates = |other: &NetworkPolicy| [other.ingress.is_some(), other.egress.is_some()];
    let pods = cluster.pods.iter().filter(|pod| pod.namespace == policy.namespace && !pod.completed);
    let labels: BTreeSet<&Labels> = pods.map(|pod| &pod.labels).collect();
    let keys: BTreeSet<&String> = labels.iter().flat_map(|labels| labels.keys()).collect();
    let mut of_labels = Vec::new();
    for labels in labels.iter().filter(|labels| policy.pod_selector.matches(labels)) {
        let mut needed = isolates(policy);
        for other in of(&policy.namespace, &cluster.policies).filter(|other| other.pod_selector.matches(labels)) {
            needed.iter_mut().zip(isolates(other)).for_each(|(needed, isolated)| *needed &= !isolated);
        }
        of_labels.push((labels, needed));
    }
    if of_labels.iter().all(|(_, needed)| *needed == isolates(policy)) {
        return vec![policy.clone()];
    }
    let needed = of_labels.into_iter().filter(|(_, [ingress, egress])| *ingress || *egress).enumerate();
    let reduced = needed.map(|(number, (labels, [ingress, egress]))| NetworkPolicy {
        name: format!("{}~{number}", policy.name),
        pod_selector: exactly(labels, &keys),
        ingress: policy.ingress.clone().filter(|_| ingress),
        egress: policy.egress.clone().filter(|_| egress),
        ..policy.clone()
    });
    reduced.collect()
}

/// Selects pods that have these labels, and no other of `keys`.
fn exactly(labels: &Labels, keys: &BTreeSet<&String>) -> Selector {
    let missing = keys.iter().filter(|key| !labels.contains_key(**key));
    let missing =
        missing.map(|key| Requirement { key: (*key).clone(), operator: Operator::DoesNotExist, values: Vec::new() });
    Selector { match_labels: labels.clone(), match_expressions: missing.collect() }
}
