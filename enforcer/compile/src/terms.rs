//! What policies can ask of an address: the peers of rules, each content once, and the named ports.

use model::{
    cluster::{Cluster, Pod},
    labels::{Labels, Selector},
    policy::{Peer, Protocol},
};
use std::collections::HashMap;

/// A peer of a rule, independent of the policy it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Term {
    /// Pods of one namespace.
    PodsIn { namespace: String, pods: Option<Selector> },
    /// Pods of the namespaces that a selector finds.
    Pods { namespaces: Selector, pods: Option<Selector> },
    /// Addresses.
    Block { cidr: ipnet::IpNet, except: Vec<ipnet::IpNet> },
}

impl Term {
    pub(crate) fn of(peer: &Peer, namespace: &str) -> Self {
        match peer {
            Peer::Pods { namespaces: None, pods } => {
                Self::PodsIn { namespace: namespace.to_owned(), pods: pods.clone() }
            }
            Peer::Pods { namespaces: Some(namespaces), pods } => {
                Self::Pods { namespaces: namespaces.clone(), pods: pods.clone() }
            }
            Peer::Block { cidr, except } => {
                let mut except: Vec<_> = except.iter().map(ipnet::IpNet::trunc).collect();
                except.sort();
                except.dedup();
                Self::Block { cidr: cidr.trunc(), except }
            }
        }
    }

    /// Whether it selects a pod by labels; blocks select by address.
    pub(crate) fn selects(&self, cluster: &Cluster, pod: &Pod) -> bool {
        let selected = |pods: &Option<Selector>| pods.as_ref().is_none_or(|pods| pods.matches(&pod.labels));
        match self {
            Self::PodsIn { namespace, pods } => *namespace == pod.namespace && selected(pods),
            Self::Pods { namespaces, pods } => namespaces.matches(&namespace_labels(cluster, pod)) && selected(pods),
            Self::Block { .. } => false,
        }
    }
}

/// A namespace nobody described still has its name as a label.
fn namespace_labels<'a>(cluster: &'a Cluster, pod: &Pod) -> std::borrow::Cow<'a, Labels> {
    use std::borrow::Cow;
    match cluster.namespaces.get(&pod.namespace) {
        Some(namespace) => Cow::Borrowed(&namespace.labels),
        None => Cow::Owned([("kubernetes.io/metadata.name".to_owned(), pod.namespace.clone())].into()),
    }
}

/// A port name that an egress rule uses: it is another number on each destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortName {
    pub(crate) protocol: Protocol,
    pub(crate) name: String,
}

impl PortName {
    /// The numbers it stands for on a pod, sorted.
    pub(crate) fn on(&self, pod: &Pod) -> Vec<u16> {
        let named = pod
            .ports
            .iter()
            .filter(|port| port.protocol == self.protocol && port.name.as_deref() == Some(self.name.as_str()));
        let mut numbers: Vec<u16> = named.map(|port| port.port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// A number for each content, never given to another.
#[derive(Clone, Debug)]
pub(crate) struct Interner<T> {
    numbers: HashMap<T, u32>,
    contents: HashMap<u32, T>,
    next: u32,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), contents: HashMap::new(), next: 1 }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Interner<T> {
    /// The number of this content; below `limit`, or `None` when they are used up.
    pub(crate) fn number(&mut self, content: &T, limit: u32) -> Option<u32> {
        if let Some(number) = self.numbers.get(content) {
            return Some(*number);
        }
        let number = self.next;
        if number >= limit {
            return None;
        }
        self.next += 1;
        self.numbers.insert(content.clone(), number);
        self.contents.insert(number, content.clone());
        Some(number)
    }

    /// The number of a content that has one.
    pub(crate) fn known(&self, content: &T) -> Option<u32> {
        self.numbers.get(content).copied()
    }

    pub(crate) fn content(&self, number: u32) -> Option<&T> {
        self.contents.get(&number)
    }

    /// Forgets contents that nobody uses; their numbers are not given again.
    pub(crate) fn retain(&mut self, used: impl Fn(u32) -> bool) {
        self.numbers.retain(|_, number| used(*number));
        self.contents.retain(|number, _| used(*number));
    }
}
