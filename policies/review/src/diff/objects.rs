//! What about a workload's pods, or about a namespace, differs between two inputs.

use super::{Cause, Change, Effect, Subject};
use crate::universe::{End, EndId, Nobody, PodClass, Universe, Where};
use model::{
    cluster::{Namespace, Pod, Source, WorkloadKey},
    labels::{Labels, Selector},
    policy::{NetworkPolicy, Peer, Rule},
};
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

type Members = HashMap<(WorkloadKey, EndId), usize>;

/// The pods and namespaces of both inputs.
pub(crate) struct Objects<'u, 'c> {
    universe: &'u Universe<'c>,
    /// By input: a pod of a workload at an end.
    pods: [OnceCell<Members>; 2],
}

impl<'u, 'c> Objects<'u, 'c> {
    pub(crate) fn new(universe: &'u Universe<'c>) -> Self {
        Self { universe, pods: Default::default() }
    }

    fn pod(&self, input: usize, key: &WorkloadKey, end: EndId) -> Option<&'u Pod> {
        let universe = self.universe;
        let all = self.pods[input].get_or_init(|| {
            let mut all = Members::new();
            for (index, (pod, ends)) in universe.pods(input).iter().enumerate() {
                let key = universe.inputs()[input].cluster.root_owner(pod);
                for end in ends {
                    all.entry((key.clone(), *end)).or_insert(index);
                }
            }
            all
        });
        all.get(&(key.clone(), end)).map(|index| &*universe.pods(input)[*index].0)
    }

    /// Where a workload stands: its own object, else one of its pods.
    fn place(&self, input: usize, key: &WorkloadKey, end: EndId) -> Option<Source> {
        let cluster = self.universe.inputs()[input].cluster;
        let own = cluster.workloads.get(key).and_then(|workload| workload.source.clone());
        own.or_else(|| self.pod(input, key, end)?.source.clone())
    }

    /// A workload that only this input has.
    pub(crate) fn alone(&self, input: usize, key: &WorkloadKey, end: EndId) -> Cause {
        let place = self.place(input, key, end);
        let (change, old, new) = match input {
            0 => (Change::WorkloadRemoved, place, None),
            _ => (Change::WorkloadAdded, None, place),
        };
        Cause {
            change,
            subject: Subject::Workload(key.clone()),
            effect: Effect::Differs,
            was: None,
            is: None,
            old,
            new,
            evidence: None,
        }
    }

    /// What tells a workload's pods at an end of OLD from those at an end of NEW.
    pub(crate) fn differences(&self, key: &WorkloadKey, old: EndId, new: EndId) -> Vec<Cause> {
        let (End::Pods(before), End::Pods(after)) = (self.universe.end(old), self.universe.end(new)) else {
            return Vec::new();
        };
        let [was, is] = [self.pod(0, key, old), self.pod(1, key, new)];
        let [old_at, new_at] = [self.place(0, key, old), self.place(1, key, new)];
        let cause = |change, was: Option<String>, is: Option<String>| Cause {
            change,
            subject: Subject::Workload(key.clone()),
            effect: Effect::Differs,
            was,
            is,
            old: old_at.clone(),
            new: new_at.clone(),
            evidence: None,
        };
        let mut causes = Vec::new();
        if before.host_network != after.host_network {
            let text = |on: bool| Some(format!("hostNetwork: {on}"));
            causes.push(cause(Change::HostNetworkChanged, text(before.host_network), text(after.host_network)));
            return causes;
        }
        for (was, is) in label_differences(&before.labels, &after.labels) {
            causes.push(cause(Change::LabelChanged, was, is));
        }
        for (was, is) in port_differences(before, after) {
            causes.push(cause(Change::ContainerPortChanged, was, is));
        }
        if (before.family, before.atom) != (after.family, after.atom) {
            let addresses = |pod: Option<&Pod>| {
                let all: Vec<String> =
                    pod.into_iter().flat_map(|pod| &pod.addresses).map(ToString::to_string).collect();
                Some(if all.is_empty() { "no address known".to_owned() } else { all.join(", ") })
            };
            causes.push(cause(Change::AddressChanged, addresses(was), addresses(is)));
        }
        causes
    }

    /// Whether a rule would hold an end if the rule stood in this input.
    pub(crate) fn holds(&self, input: usize, policy: &NetworkPolicy, rule: &'c Rule, end: EndId) -> bool {
        let (name, labels) = (self.universe.namespace(end), self.universe.labels(end));
        let namespace = match self.universe.end(end) {
            End::Nobody(Nobody { namespace: Where::New { labels, .. }, .. }) => Some(labels),
            _ => name.and_then(|name| self.universe.inputs()[input].cluster.namespaces.get(name)).map(|n| &n.labels),
        };
        let is_one = |peer: &'c Peer| match peer {
            Peer::Block { cidr, except } => self.universe.at_block(cidr, except).any(|held| held == end),
            Peer::Pods { namespaces, pods } => {
                let in_namespace = match namespaces {
                    None => name == Some(policy.namespace.as_str()),
                    Some(selector) => namespace.is_some_and(|labels| selector.matches(labels)),
                };
                let selected = |pods: &Selector| labels.is_some_and(|labels| pods.matches(labels));
                in_namespace && pods.as_ref().is_none_or(selected)
            }
        };
        rule.peers.is_empty() || rule.peers.iter().any(is_one)
    }

    /// The labels of an end's namespace that differ and that a rule's peers look at.
    pub(crate) fn namespace_differences(&self, end: EndId, rule: &Rule) -> Vec<Cause> {
        let Some(name) = self.universe.namespace(end) else { return Vec::new() };
        let keys: BTreeSet<&str> = rule
            .peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Pods { namespaces, .. } => namespaces.as_ref(),
                Peer::Block { .. } => None,
            })
            .flat_map(|selector| selector.keys())
            .collect();
        let [old, new] = [0, 1].map(|input: usize| self.universe.inputs()[input].cluster.namespaces.get(name));
        let labels = |namespace: Option<&Namespace>| -> Labels {
            let all = namespace.into_iter().flat_map(|namespace| &namespace.labels);
            all.filter(|(key, _)| keys.contains(key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let place = |namespace: Option<&Namespace>| namespace.and_then(|namespace| namespace.source.clone());
        let cause = |(was, is)| Cause {
            change: Change::NamespaceLabelChanged,
            subject: Subject::Namespace(name.to_owned()),
            effect: Effect::Differs,
            was,
            is,
            old: place(old),
            new: place(new),
            evidence: None,
        };
        label_differences(&labels(old), &labels(new)).into_iter().map(cause).collect()
    }
}

fn label_differences(old: &Labels, new: &Labels) -> Vec<(Option<String>, Option<String>)> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |labels: &Labels, key: &String| labels.get(key).map(|value| format!("{key}={value}"));
    keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).map(|key| (text(old, key), text(new, key))).collect()
}

/// Named container ports that differ, by name and protocol.
fn port_differences(old: &PodClass, new: &PodClass) -> Vec<(Option<String>, Option<String>)> {
    let by_name = |class: &PodClass| -> BTreeMap<(String, u8), Vec<String>> {
        let mut all: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (name, protocol, port) in &class.ports {
            all.entry((name.clone(), *protocol)).or_default().push(port.to_string());
        }
        all
    };
    let (old, new) = (by_name(old), by_name(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let text = |all: &BTreeMap<(String, u8), Vec<String>>, key: &(String, u8)| {
        let protocol = model::policy::Protocol::from_number(key.1).map_or("", |protocol| protocol.name());
        all.get(key).map(|ports| format!("{}={} {protocol}", key.0, ports.join(",")))
    };
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| (text(&old, key), text(&new, key)))
        .collect()
}
