//! The reference evaluator: what the policies of a cluster mean, written for clarity and checked
//! against everything faster (laws 1 to 3, 11, 12).
//!
//! Always holds: both ends must allow; policies of one namespace add up and none takes away what
//! another gives; a pod that no policy selects in a direction is free in it.

use crate::{
    cluster::{Cluster, Pod},
    labels::{Labels, METADATA_NAME},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
    ports::{ALL_PORTS, Ports, intersection, union},
    record::RuleName,
};
use std::{borrow::Cow, collections::HashMap, net::IpAddr};

/// One end of a connection to be judged.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint<'a> {
    /// A pod with addresses of its own, at one of its addresses. A hostNetwork pod is taken for
    /// the address alone, as policies do. Whether the pod held the address is the asker's to know
    /// (a flow of yesterday is asked with the pod of yesterday).
    Pod(&'a Pod, IpAddr),
    /// Anything else: a node, a hostNetwork pod, an address outside.
    Address(IpAddr),
    /// Packets that the other end's own node made itself (the kubelet's probes). Always allowed.
    /// Which packets those are, the datapath decides; what a node merely forwards is an `Address`.
    OwnNode,
}

/// What one direction says, and why.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// The pod is not isolated in this direction (or is no pod that policies select).
    NotIsolated,
    /// A pod to itself, or its own node to it: no policy is asked.
    Exempt,
    /// These rules allow it, in order of policy and rule.
    AllowedBy(Vec<RuleName>),
    /// Isolated by these policies (namespace/name), none of which allows it.
    Denied(Vec<String>),
}

impl Judgement {
    /// Whether this direction lets the connection pass.
    #[must_use]
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

/// Both directions.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Decision {
    /// The client's side.
    pub egress: Judgement,
    /// The server's side.
    pub ingress: Judgement,
}

impl Decision {
    /// Both ends must allow.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
    }
}

/// Policies over a cluster.
pub struct Reference<'a> {
    /// Where selectors look.
    pub cluster: &'a Cluster,
    /// What is evaluated.
    pub policies: &'a PolicySet,
    by_namespace: HashMap<&'a str, Vec<&'a NetworkPolicy>>,
}

/// An endpoint with what selects it looked up: who asks about many pairs makes each subject once.
#[derive(Clone, Debug)]
pub struct Subject<'s> {
    endpoint: Endpoint<'s>,
    namespace_labels: Cow<'s, Labels>,
    selected_by: Vec<&'s NetworkPolicy>,
}

impl<'s> Subject<'s> {
    /// Whether some policy isolates it for incoming connections.
    pub fn is_isolated_for_ingress(&self) -> bool {
        self.selected_by.iter().any(|p| p.ingress.is_some())
    }

    /// Whether some policy isolates it for outgoing connections.
    pub fn is_isolated_for_egress(&self) -> bool {
        self.selected_by.iter().any(|p| p.egress.is_some())
    }

    /// The policies that select it, in order.
    pub fn selected_by(&self) -> &[&'s NetworkPolicy] {
        &self.selected_by
    }

    fn pod(&self) -> Option<&'s Pod> {
        match self.endpoint {
            Endpoint::Pod(pod, _) => Some(pod),
            Endpoint::Address(_) | Endpoint::OwnNode => None,
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        match self.endpoint {
            Endpoint::Pod(_, ip) | Endpoint::Address(ip) => Some(ip),
            Endpoint::OwnNode => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    Ingress,
    Egress,
}

impl Way {
    fn rules(self, policy: &NetworkPolicy) -> Option<&[Rule]> {
        match self {
            Self::Ingress => policy.ingress.as_deref(),
            Self::Egress => policy.egress.as_deref(),
        }
    }

    fn name(self, policy: &NetworkPolicy, index: usize) -> RuleName {
        match self {
            Self::Ingress => RuleName::ingress(policy, index),
            Self::Egress => RuleName::egress(policy, index),
        }
    }
}

impl<'a> Reference<'a> {
    /// The policies, ready to be asked.
    pub fn new(cluster: &'a Cluster, policies: &'a PolicySet) -> Self {
        let mut by_namespace: HashMap<&str, Vec<&NetworkPolicy>> = HashMap::new();
        for policy in &policies.policies {
            by_namespace.entry(&policy.namespace).or_default().push(policy);
        }
        Self { cluster, policies, by_namespace }
    }

    /// May `from` open a connection to `to`? `protocol` is `None` for protocols that rules cannot
    /// name (`port` means nothing then): allowed only by a rule for all protocols and ports, or
    /// without isolation.
    pub fn decide(&self, from: Endpoint<'_>, to: Endpoint<'_>, protocol: Option<Protocol>, port: u16) -> Decision {
        Self::decide_between(&self.subject(from), &self.subject(to), protocol, port)
    }

    /// The ports of `protocol` that `from` may open at `to`, as sorted, disjoint, non-adjacent
    /// closed intervals within 1..=65535.
    pub fn ports(&self, from: Endpoint<'_>, to: Endpoint<'_>, protocol: Protocol) -> Ports {
        Self::ports_between(&self.subject(from), &self.subject(to), protocol)
    }

    /// What selects an endpoint, looked up once.
    pub fn subject<'s>(&'s self, endpoint: Endpoint<'s>) -> Subject<'s> {
        let endpoint = match endpoint {
            Endpoint::Pod(pod, ip) if pod.host_network => Endpoint::Address(ip.to_canonical()),
            Endpoint::Pod(pod, ip) => Endpoint::Pod(pod, ip.to_canonical()),
            Endpoint::Address(ip) => Endpoint::Address(ip.to_canonical()),
            Endpoint::OwnNode => Endpoint::OwnNode,
        };
        let Endpoint::Pod(pod, _) = endpoint else {
            return Subject { endpoint, namespace_labels: Cow::Owned(Labels::new()), selected_by: Vec::new() };
        };
        let namespace_labels = match self.cluster.namespaces.get(&pod.namespace) {
            Some(namespace) => Cow::Borrowed(&namespace.labels),
            None => Cow::Owned(Labels::from([(METADATA_NAME.to_owned(), pod.namespace.clone())])),
        };
        let here = self.by_namespace.get(pod.namespace.as_str()).map_or(&[][..], Vec::as_slice);
        let selected_by = here.iter().copied().filter(|p| p.pod_selector.matches(&pod.labels)).collect();
        Subject { endpoint, namespace_labels, selected_by }
    }

    /// [`Reference::decide`] between subjects.
    pub fn decide_between(from: &Subject<'_>, to: &Subject<'_>, protocol: Option<Protocol>, port: u16) -> Decision {
        if is_exempt(from, to) {
            return Decision { egress: Judgement::Exempt, ingress: Judgement::Exempt };
        }
        let ports_allow = |rule: &Rule| allows_port(rule, to, protocol, port);
        Decision {
            egress: judge(Way::Egress, from, to, ports_allow),
            ingress: judge(Way::Ingress, to, from, ports_allow),
        }
    }

    /// [`Reference::ports`] between subjects.
    pub fn ports_between(from: &Subject<'_>, to: &Subject<'_>, protocol: Protocol) -> Ports {
        let [ports] = Self::all_ports_between(from, to, [protocol]);
        ports
    }

    /// The same of several protocols: who is whose peer is looked at once.
    pub fn all_ports_between<const N: usize>(
        from: &Subject<'_>,
        to: &Subject<'_>,
        protocols: [Protocol; N],
    ) -> [Ports; N] {
        if is_exempt(from, to) {
            return protocols.map(|_| vec![ALL_PORTS]);
        }
        let egress = rules_for(Way::Egress, from, to);
        if egress.as_ref().is_some_and(Vec::is_empty) {
            return protocols.map(|_| Ports::new());
        }
        let ingress = rules_for(Way::Ingress, to, from);
        let open = |rules: &Option<Vec<&Rule>>, protocol| open_ports(rules.as_deref(), to, protocol);
        protocols.map(|protocol| intersection(&open(&egress, protocol), &open(&ingress, protocol)))
    }
}

/// A pod always reaches itself, and its own node reaches it.
fn is_exempt(from: &Subject<'_>, to: &Subject<'_>) -> bool {
    let itself = from
        .pod()
        .zip(to.pod())
        .is_some_and(|(a, b)| (&a.uid, &a.name, &a.namespace) == (&b.uid, &b.name, &b.namespace));
    itself || matches!(from.endpoint, Endpoint::OwnNode) || matches!(to.endpoint, Endpoint::OwnNode)
}

fn judge(way: Way, own: &Subject<'_>, peer: &Subject<'_>, ports_allow: impl Fn(&Rule) -> bool) -> Judgement {
    let (mut isolated_by, mut allowed_by) = (Vec::new(), Vec::new());
    for policy in &own.selected_by {
        let Some(rules) = way.rules(policy) else { continue };
        isolated_by.push(policy);
        for (index, rule) in rules.iter().enumerate() {
            if allows_peer(rule, policy, peer) && ports_allow(rule) {
                allowed_by.push(way.name(policy, index));
            }
        }
    }
    if isolated_by.is_empty() {
        Judgement::NotIsolated
    } else if allowed_by.is_empty() {
        Judgement::Denied(isolated_by.iter().map(|p| format!("{}/{}", p.namespace, p.name)).collect())
    } else {
        Judgement::AllowedBy(allowed_by)
    }
}

/// The rules that name a peer; `None`: it is not isolated.
fn rules_for<'s>(way: Way, own: &Subject<'s>, peer: &Subject<'_>) -> Option<Vec<&'s Rule>> {
    let mut found = None;
    for policy in own.selected_by.iter().copied() {
        let Some(rules) = way.rules(policy) else { continue };
        let all: &mut Vec<&'s Rule> = found.get_or_insert_default();
        all.extend(rules.iter().filter(|rule| allows_peer(rule, policy, peer)));
    }
    found
}

fn open_ports(rules: Option<&[&Rule]>, to: &Subject<'_>, protocol: Protocol) -> Ports {
    let Some(rules) = rules else { return vec![ALL_PORTS] };
    let mut open = Vec::new();
    rules.iter().for_each(|rule| add_ports(&mut open, rule, to, protocol));
    union(open)
}

fn allows_peer(rule: &Rule, policy: &NetworkPolicy, peer: &Subject<'_>) -> bool {
    rule.peers.is_empty() || rule.peers.iter().any(|p| is_peer(p, policy, peer))
}

fn is_peer(peer: &Peer, policy: &NetworkPolicy, subject: &Subject<'_>) -> bool {
    match peer {
        // The pod first: its labels tell more peers apart than a namespace's.
        Peer::Pods { namespaces, pods } => subject.pod().is_some_and(|pod| {
            pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
                && match namespaces {
                    None => pod.namespace == policy.namespace,
                    Some(selector) => selector.matches(&subject.namespace_labels),
                }
        }),
        Peer::Block { cidr, except } => {
            subject.ip().is_some_and(|ip| cidr.contains(&ip) && !except.iter().any(|hole| hole.contains(&ip)))
        }
    }
}

fn allows_port(rule: &Rule, to: &Subject<'_>, protocol: Option<Protocol>, port: u16) -> bool {
    if rule.ports.is_empty() {
        return true;
    }
    let Some(protocol) = protocol else { return false };
    rule.ports.iter().filter(|item| item.protocol == protocol).any(|item| match &item.port {
        PortMatch::All => true,
        PortMatch::Range(first, last) => (*first..=*last).contains(&port),
        PortMatch::Named(name) => named_ports(to, name, protocol).any(|number| number == port),
    })
}

fn add_ports(open: &mut Ports, rule: &Rule, to: &Subject<'_>, protocol: Protocol) {
    if rule.ports.is_empty() {
        open.push(ALL_PORTS);
    }
    for Port { port, .. } in rule.ports.iter().filter(|item| item.protocol == protocol) {
        match port {
            PortMatch::All => open.push(ALL_PORTS),
            PortMatch::Range(first, last) => open.push((*first.max(&1), *last)),
            PortMatch::Named(name) => open.extend(named_ports(to, name, protocol).map(|number| (number, number))),
        }
    }
}

/// A named port is the destination pod's own; addresses that are no pod have none.
fn named_ports<'p>(to: &Subject<'p>, name: &'p str, protocol: Protocol) -> impl Iterator<Item = u16> + 'p {
    to.pod()
        .into_iter()
        .flat_map(|pod| &pod.ports)
        .filter(move |p| p.protocol == protocol && p.name.as_deref() == Some(name))
        .map(|p| p.port)
}
