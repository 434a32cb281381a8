//! NetworkPolicy (networking.k8s.io/v1) as podfence understands it: defaults applied, validity checked.

use crate::{
    cluster::Source,
    labels::{Labels, Selector},
};
use ipnet::IpNet;

/// Policies, and nothing else about the cluster; ordered by namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// Sorted by (namespace, name), names unique.
    pub policies: Vec<NetworkPolicy>,
}

impl PolicySet {
    /// A set of these policies, put into order.
    pub fn new(policies: Vec<NetworkPolicy>) -> Self {
        let mut set = Self { policies };
        set.sort();
        set
    }

    /// The policy of this namespace and name; the set is in order.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&NetworkPolicy> {
        let order = |p: &NetworkPolicy| (p.namespace.as_str(), p.name.as_str()).cmp(&(namespace, name));
        self.policies.binary_search_by(order).ok().and_then(|index| self.policies.get(index))
    }

    /// Puts a policy in the place of the one of its namespace and name, or takes it out.
    pub(crate) fn replace(&mut self, policy: NetworkPolicy, deleted: bool) {
        let order = |p: &NetworkPolicy| (&p.namespace, &p.name).cmp(&(&policy.namespace, &policy.name));
        match (self.policies.binary_search_by(order), deleted) {
            (Ok(index), true) => drop(self.policies.remove(index)),
            (Ok(index), false) => self.policies[index] = policy,
            (Err(_), true) => {}
            (Err(index), false) => self.policies.insert(index, policy),
        }
    }

    /// Puts the policies into the order that a set promises.
    pub fn sort(&mut self) {
        self.policies.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }
}

/// One NetworkPolicy, defaulted as the API server does: `ingress` and `egress` say which
/// directions it isolates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// The namespace it lives in and selects in.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its own labels.
    pub labels: Labels,
    /// Its own annotations.
    pub annotations: Labels,
    /// The pods it selects; empty selects all of the namespace.
    pub pod_selector: Selector,
    /// `Some` when Ingress is among its types: the rules, none of which denies all.
    pub ingress: Option<Vec<Rule>>,
    /// `Some` when Egress is among its types.
    pub egress: Option<Vec<Rule>>,
    /// Where it was read; `None` when podfence made it.
    pub source: Option<Source>,
}

/// One ingress or egress rule: any of the peers at any of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Empty: everyone, in the cluster or out.
    pub peers: Vec<Peer>,
    /// Empty: every port of every protocol.
    pub ports: Vec<Port>,
    /// The line it begins at.
    pub source: Option<Source>,
}

/// Who a rule lets in or out to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods. No namespace selector: the policy's own namespace; no pod selector: all pods.
    Pods {
        /// `None`: the policy's own namespace.
        namespaces: Option<Selector>,
        /// `None`: all pods of the selected namespaces.
        pods: Option<Selector>,
    },
    /// Addresses, canonical (host bits zero).
    Block {
        /// The block.
        cidr: IpNet,
        /// Strict subsets taken away from this block only.
        except: Vec<IpNet>,
    },
}

/// The transport protocols a rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// All three, in IP protocol number order.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => flow::TCP,
            Self::Udp => flow::UDP,
            Self::Sctp => flow::SCTP,
        }
    }

    /// The protocol of an IP protocol number, if rules can name it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            flow::TCP => Some(Self::Tcp),
            flow::UDP => Some(Self::Udp),
            flow::SCTP => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// One `ports` item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// TCP when the object says none.
    pub protocol: Protocol,
    /// Which of its ports.
    pub port: PortMatch,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMatch {
    /// All of them.
    All,
    /// `first..=last`; one port when both are equal.
    Range(u16, u16),
    /// Looked up on the destination pod, by name and protocol.
    Named(String),
}
