//! Who is judged on this node, and what the policies that select it grant: still by content, without
//! identities.

use crate::{
    Error, Prefix, RuleOrigin, SourcePrefixes, Warning,
    frontends::Frontend,
    mode::mode_of,
    source_prefixes::Taken,
    terms::{Interner, PortName, Term},
};
use flow::{Address, Direction};
use model::{
    cluster::{Cluster, ContainerPort, Pod},
    policy::{NetworkPolicy, PolicySet, Port, PortMatch, Protocol, Rule},
    record::RuleName,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};
use verdict::{
    Mode,
    abi::{OWN_ADDRESSES, RULE_IDS},
};

/// Ports of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ports {
    /// Every port of every protocol, and protocols without ports.
    Everything,
    /// Every port of one protocol.
    All(Protocol),
    /// `first..=last`.
    Range(Protocol, u16, u16),
    /// The numbers this name has on the peer.
    Named(PortName),
}

/// One rule's grant to a subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) direction: Direction,
    /// `None`: everyone. Otherwise who matches any of these terms.
    pub(crate) peers: Option<Vec<u32>>,
    pub(crate) ports: Ports,
    pub(crate) rule: u32,
}

/// What the policies of one subject say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Grants {
    pub(crate) ingress_isolated: bool,
    pub(crate) egress_isolated: bool,
    pub(crate) grants: Vec<Grant>,
}

/// Where modes come from beside labels, and whether annotations count.
#[derive(Clone, Debug)]
pub(crate) struct Modes {
    /// Where no label says one.
    pub(crate) default: Mode,
    /// Of pods, by UID, that only their workload's own label may enforce.
    pub(crate) held: BTreeMap<Arc<str>, Mode>,
    pub(crate) source_prefixes: SourcePrefixes,
}

/// A pod of this node.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) addresses: [Address; OWN_ADDRESSES],
    /// Prefixes of addresses it has beside these.
    pub(crate) further: Vec<Prefix>,
    pub(crate) mode: Mode,
    pub(crate) in_force: Arc<Grants>,
    /// `None`: nothing is staged for it.
    pub(crate) staged: Option<Arc<Grants>>,
}

impl Subject {
    /// Whether some policy, staged or in force, judges what it opens.
    pub(crate) fn is_isolated_for_egress(&self) -> bool {
        self.in_force.egress_isolated || self.staged.as_ref().is_some_and(|staged| staged.egress_isolated)
    }
}

/// Numbers for what rules are made of, carried between compiles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) terms: Interner<Term>,
    pub(crate) ports: Interner<PortName>,
    pub(crate) rules: Interner<RuleOrigin>,
    pub(crate) frontends: Interner<Arc<[Frontend]>>,
}

/// The pods that hold addresses now: address -> pod. A pod that is being deleted holds its own as
/// long as no other pod has it.
pub(crate) fn holders<'a>(cluster: &'a Cluster, warnings: &mut BTreeSet<Warning>) -> BTreeMap<IpAddr, &'a Pod> {
    let mut held: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
    for pod in cluster.pods.iter().filter(|pod| !pod.host_network && !pod.completed) {
        for address in &pod.addresses {
            let Some(other) = held.insert(*address, pod) else { continue };
            let (believed, passed_over) = if claim(pod) >= claim(other) { (pod, other) } else { (other, pod) };
            held.insert(*address, believed);
            if believed.ended.is_none() && passed_over.ended.is_none() {
                warnings.insert(Warning::AddressClaimedTwice {
                    address: Address::from(*address),
                    believed: format!("{}/{}", believed.namespace, believed.name),
                    passed_over: format!("{}/{}", passed_over.namespace, passed_over.name),
                });
            }
        }
    }
    held
}

/// Of two claims the larger is believed: live before ending, then the later start.
fn claim(pod: &Pod) -> (bool, Option<jiff::Timestamp>, &str) {
    (pod.ended.is_none(), pod.started, &pod.uid)
}

/// Both policy sets as they are asked: in force, and what would hold were the staged ones applied.
pub(crate) struct Policies<'a> {
    in_force: Vec<Sourced<'a>>,
    staged: Vec<Sourced<'a>>,
    staged_only: Vec<&'a NetworkPolicy>,
}

#[derive(Clone, Copy)]
struct Sourced<'a> {
    policy: &'a NetworkPolicy,
    staged: bool,
}

impl<'a> Policies<'a> {
    pub(crate) fn new(in_force: &'a PolicySet, staged: &'a PolicySet) -> Self {
        let name = |policy: &'a NetworkPolicy| (policy.namespace.as_str(), policy.name.as_str());
        let sourced = |staged| move |policy| Sourced { policy, staged };
        let replaced: BTreeSet<_> = staged.policies.iter().map(name).collect();
        let kept = in_force.policies.iter().filter(|policy| !replaced.contains(&name(policy)));
        let mut merged: Vec<_> = kept.map(sourced(false)).chain(staged.policies.iter().map(sourced(true))).collect();
        merged.sort_by_key(|sourced| name(sourced.policy));
        Self {
            in_force: in_force.policies.iter().map(sourced(false)).collect(),
            staged: merged,
            staged_only: staged.policies.iter().collect(),
        }
    }
}

/// The subjects of a node, by UID.
pub(crate) fn subjects(
    cluster: &Cluster,
    held: &BTreeMap<IpAddr, &Pod>,
    policies: &Policies<'_>,
    node: &str,
    modes: &Modes,
    names: &mut Names,
    warnings: &mut BTreeSet<Warning>,
) -> Result<BTreeMap<Arc<str>, Subject>, Error> {
    let mut subjects = BTreeMap::new();
    let mut memo = Memo::default();
    let taken = Taken::of(cluster, node);
    for pod in cluster.pods.iter().filter(|pod| pod.node == node && !pod.host_network) {
        let own: Vec<IpAddr> = pod
            .addresses
            .iter()
            .copied()
            .filter(|address| held.get(address).is_some_and(|holder| std::ptr::eq(*holder, pod)))
            .collect();
        if own.is_empty() {
            continue;
        }
        let in_force = grants(&policies.in_force, pod, names, &mut memo)?;
        let staged = match policies.staged_only.iter().any(|policy| selects(policy, pod)) {
            true => Some(grants(&policies.staged, pod, names, &mut memo)?),
            false => None,
        };
        let uid: Arc<str> = pod.uid.as_str().into();
        let subject = Subject {
            namespace: pod.namespace.as_str().into(),
            name: pod.name.as_str().into(),
            addresses: own_addresses(pod, &own, warnings),
            further: taken.prefixes(pod, modes.source_prefixes, warnings),
            mode: mode_of(cluster, pod, modes.default, modes.held.get(&uid).copied(), warnings),
            in_force,
            staged,
        };
        subjects.insert(uid, subject);
    }
    Ok(subjects)
}

/// IPv4 at index 0, IPv6 at 1, further ones behind.
fn own_addresses(pod: &Pod, own: &[IpAddr], warnings: &mut BTreeSet<Warning>) -> [Address; OWN_ADDRESSES] {
    let mut places = [Address::default(); OWN_ADDRESSES];
    let (mut four, mut six): (Vec<_>, Vec<_>) = own.iter().copied().map(Address::from).partition(|a| a.is_v4());
    let further = four.split_off(four.len().min(1)).into_iter().chain(six.split_off(six.len().min(1)));
    let further: Vec<_> = further.collect();
    if further.len() > OWN_ADDRESSES - 2 {
        let pod = format!("{}/{}", pod.namespace, pod.name);
        warnings.insert(Warning::TooManyAddresses { pod, addresses: own.len() });
    }
    places[0] = four.first().copied().unwrap_or_default();
    places[1] = six.first().copied().unwrap_or_default();
    for (place, address) in places.iter_mut().skip(2).zip(further) {
        *place = address;
    }
    places
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    policy.namespace == pod.namespace && policy.pod_selector.matches(&pod.labels)
}

/// The policies that select a pod, each with whether it is staged, and the pod's ports, which names in rules
/// may mean.
type MadeOf<'a> = (Vec<(*const NetworkPolicy, bool)>, &'a [ContainerPort]);

/// Grants by what they were made of, and by content.
#[derive(Default)]
struct Memo<'a> {
    of: HashMap<MadeOf<'a>, Arc<Grants>>,
    by_content: HashSet<Arc<Grants>>,
}

/// What the policies that select the pod grant, in order of policy and rule. Pods with the same
/// grants share them.
fn grants<'a>(
    policies: &[Sourced<'_>],
    pod: &'a Pod,
    names: &mut Names,
    memo: &mut Memo<'a>,
) -> Result<Arc<Grants>, Error> {
    let selecting: Vec<Sourced<'_>> = policies.iter().copied().filter(|sourced| selects(sourced.policy, pod)).collect();
    let of = selecting.iter().map(|sourced| (std::ptr::from_ref(sourced.policy), sourced.staged)).collect();
    let key = (of, &pod.ports[..]);
    if let Some(grants) = memo.of.get(&key) {
        return Ok(grants.clone());
    }
    let mut made = Grants::default();
    for Sourced { policy, staged } in selecting {
        let directions =
            [(Direction::Inbound, "ingress", &policy.ingress), (Direction::Outbound, "egress", &policy.egress)];
        for (direction, word, rules) in directions {
            let Some(rules) = rules else { continue };
            match direction {
                Direction::Inbound => made.ingress_isolated = true,
                Direction::Outbound => made.egress_isolated = true,
            }
            for (index, rule) in rules.iter().enumerate() {
                let name = RuleName {
                    namespace: policy.namespace.as_str().into(),
                    name: policy.name.as_str().into(),
                    rule: format!("{word}[{index}]").into(),
                };
                let origin = RuleOrigin { name, staged };
                let number = names.rules.number(&origin, RULE_IDS).ok_or(Error::Exhausted { what: "rule" })?;
                grant(&mut made.grants, direction, rule, number, policy, pod, names)?;
            }
        }
    }
    let made = memo.by_content.get(&made).cloned().unwrap_or_else(|| Arc::new(made));
    memo.by_content.insert(made.clone());
    memo.of.insert(key, made.clone());
    Ok(made)
}

fn grant(
    grants: &mut Vec<Grant>,
    direction: Direction,
    rule: &Rule,
    number: u32,
    policy: &NetworkPolicy,
    pod: &Pod,
    names: &mut Names,
) -> Result<(), Error> {
    let peers = if rule.peers.is_empty() {
        None
    } else {
        let mut peers = Vec::new();
        for peer in &rule.peers {
            let term = Term::of(peer, &policy.namespace);
            peers.push(names.terms.number(&term, u32::MAX).ok_or(Error::Exhausted { what: "peer" })?);
        }
        peers.sort_unstable();
        peers.dedup();
        Some(peers)
    };
    let mut add = |ports| grants.push(Grant { direction, peers: peers.clone(), ports, rule: number });
    if rule.ports.is_empty() {
        add(Ports::Everything);
    }
    for Port { protocol, port } in &rule.ports {
        match port {
            PortMatch::All => add(Ports::All(*protocol)),
            PortMatch::Range(first, last) => add(Ports::Range(*protocol, *first, *last)),
            PortMatch::Named(name) => {
                let name = PortName { protocol: *protocol, name: name.clone() };
                match direction {
                    // The destination is the subject itself.
                    Direction::Inbound => {
                        name.on(pod).into_iter().for_each(|port| add(Ports::Range(*protocol, port, port)));
                    }
                    Direction::Outbound => {
                        names.ports.number(&name, u32::MAX).ok_or(Error::Exhausted { what: "port name" })?;
                        add(Ports::Named(name));
                    }
                }
            }
        }
    }
    Ok(())
}
