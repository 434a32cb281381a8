//! Asks the reference evaluator whether a set of policies allows what was learned (law 1) and
//! nothing else (law 2).
//!
//! Always holds: what is expected comes from the lessons alone, what is allowed from the reference
//! alone, over every ordered pair of subjects, and of each over every face (labels, family, blocks)
//! that the policies can tell apart. Between the subjects and addresses outside, every address that
//! any block holds is asked for.

use crate::{
    blocks::Blocks,
    lessons::Lessons,
    naming,
    refused::{Broken, Law, Refused},
    subjects::{Presence, Subject, Subjects},
};
use ipnet::IpNet;
use model::{
    cluster::{Cluster, Pod},
    labels::{Labels, Selector},
    ledger::Party,
    policy::{NetworkPolicy, Peer, PolicySet, Protocol, Rule},
    ports::{Ports, union},
    reference::{Endpoint, Judgement, Reference},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// So many broken pairs are named; the rest would say the same.
const NAMED: usize = 20;

/// What was asked, when nothing was found wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Pairs of subjects' faces.
    pub pairs: u64,
    /// Pairs of a subject's face and an address.
    pub addresses: u64,
    /// Lessons that must be allowed.
    pub lessons: u64,
}

/// Verifies laws 1 and 2.
///
/// # Errors
/// [`Refused::LawBroken`] names the edges and rules.
pub fn verify(
    policies: &PolicySet,
    cluster: &Cluster,
    subjects: &Subjects,
    lessons: &Lessons,
) -> Result<Verified, Refused> {
    let expected = Expected::of(subjects, lessons);
    let faces = faces(policies, cluster, subjects);
    let mut inquiry = Inquiry {
        reference: &Reference::new(cluster, policies),
        subjects,
        expected: &expected,
        broken: Vec::new(),
        verified: Verified { lessons: lessons.lessons.len() as u64, ..Verified::default() },
    };
    inquiry.pairs(&faces);
    inquiry.addresses(&faces, policies);
    if inquiry.broken.is_empty() { Ok(inquiry.verified) } else { Err(Refused::LawBroken(inquiry.broken)) }
}

/// Ports of each protocol, in [`Protocol::ALL`]'s order.
type ByProtocol = [Ports; 3];

/// From the subject, or to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Way {
    To,
    From,
}

/// What the lessons say.
#[derive(Default)]
struct Expected {
    pairs: HashMap<(usize, usize), ByProtocol>,
    addresses: HashMap<(usize, Way, IpAddr), ByProtocol>,
}

impl Expected {
    fn of(subjects: &Subjects, lessons: &Lessons) -> Self {
        let mut all = Self::default();
        for lesson in &lessons.lessons {
            let edge = &lesson.edge;
            let Some(protocol) = Protocol::ALL.iter().position(|p| p.number() == edge.protocol) else { continue };
            let end = |party: &Party| match party {
                Party::Workload(key) => subjects.find(key).ok_or(None),
                Party::Node(ip) | Party::Outside(ip) => Err(Some(ip.to_canonical())),
            };
            let ports = match (end(&edge.client), end(&edge.server)) {
                (Ok(client), Ok(server)) => all.pairs.entry((client, server)).or_default(),
                (Ok(client), Err(Some(ip))) => all.addresses.entry((client, Way::To, ip)).or_default(),
                (Err(Some(ip)), Ok(server)) => all.addresses.entry((server, Way::From, ip)).or_default(),
                _ => continue,
            };
            ports[protocol].push((edge.port, edge.port));
        }
        for ports in all.pairs.values_mut().chain(all.addresses.values_mut()) {
            *ports = std::mem::take(ports).map(union);
        }
        all
    }
}

/// Pods of a subject that the policies cannot tell apart, shown by one of them.
struct Face {
    subject: usize,
    pod: Pod,
    /// The same pod under another UID: its sibling, not itself.
    sibling: Pod,
    address: IpAddr,
    /// The families that some pod of this face has.
    families: BTreeSet<Family>,
}

/// IPv4 or IPv6: what a packet is, both its ends are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Selectors do not see addresses: a pod's two are one face, unless a block holds one of them.
fn faces(policies: &PolicySet, cluster: &Cluster, subjects: &Subjects) -> Vec<Face> {
    let sight = Sight::of(policies);
    let mut out = Vec::new();
    for (subject, of_subject) in subjects.all().iter().enumerate() {
        let mut seen: BTreeMap<_, Face> = BTreeMap::new();
        for pod in shown(cluster, of_subject) {
            let labels = sight.labels(&pod.labels);
            for address in addresses(&pod) {
                let face = seen.entry((labels.clone(), ports_of(&pod), sight.blocks(address))).or_insert_with(|| {
                    let sibling = Pod { uid: format!("{} (sibling)", pod.uid), ..pod.clone() };
                    Face { subject, pod: pod.clone(), sibling, address, families: BTreeSet::new() }
                });
                face.families.insert(Family::of(address));
            }
        }
        out.extend(seen.into_values());
    }
    out
}

/// The pods of a subject, and one as its template would make it.
fn shown(cluster: &Cluster, subject: &Subject) -> Vec<Pod> {
    let mut pods: Vec<Pod> = subject.pods.iter().map(|i| cluster.pods[*i].clone()).collect();
    for ended in pods.iter_mut().filter(|pod| pod.ended.is_some() || pod.completed) {
        ended.addresses.clear();
    }
    let template = cluster.workloads.get(&*subject.key).filter(|w| !w.template_labels.is_empty());
    if let Some(workload) = template {
        pods.push(Pod {
            namespace: subject.key.namespace.clone(),
            name: format!("{} (next)", subject.key.name),
            uid: format!("{} (next)", naming::workload(&subject.key)),
            labels: workload.template_labels.clone(),
            ports: workload.template_ports.clone(),
            ..Pod::default()
        });
    }
    pods
}

/// A pod without an address may get one of either family.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    if pod.addresses.is_empty() {
        return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    pod.addresses.iter().map(IpAddr::to_canonical).collect()
}

fn ports_of(pod: &Pod) -> Vec<(Option<String>, u16, Protocol)> {
    pod.ports.iter().filter(|p| p.name.is_some()).map(|p| (p.name.clone(), p.port, p.protocol)).collect()
}

/// What the policies look at.
struct Sight<'p> {
    keys: BTreeSet<&'p str>,
    blocks: Blocks,
}

impl<'p> Sight<'p> {
    fn of(policies: &'p PolicySet) -> Self {
        let (mut keys, mut blocks) = (BTreeSet::new(), BTreeSet::<&IpNet>::new());
        for policy in &policies.policies {
            keys.extend(policy.pod_selector.keys());
            for peer in peers(policy) {
                match peer {
                    Peer::Pods { pods, .. } => keys.extend(pods.iter().flat_map(Selector::keys)),
                    Peer::Block { cidr, except } => blocks.extend(except.iter().chain([cidr])),
                }
            }
        }
        Self { keys, blocks: blocks.into_iter().enumerate().map(|(place, block)| (*block, place)).collect() }
    }

    fn labels(&self, labels: &Labels) -> Labels {
        labels.iter().filter(|(key, _)| self.keys.contains(key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The blocks that hold an address.
    fn blocks(&self, ip: IpAddr) -> Vec<usize> {
        self.blocks.holding(ip).collect()
    }
}

fn peers(policy: &NetworkPolicy) -> impl Iterator<Item = &Peer> {
    policy.ingress.iter().chain(&policy.egress).flatten().flat_map(|rule| &rule.peers)
}

struct Inquiry<'a> {
    reference: &'a Reference<'a>,
    subjects: &'a Subjects,
    expected: &'a Expected,
    broken: Vec<Broken>,
    verified: Verified,
}

impl Inquiry<'_> {
    fn pairs(&mut self, faces: &[Face]) {
        let nothing = ByProtocol::default();
        let clients: Vec<_> = faces.iter().map(|f| self.reference.subject(Endpoint::Pod(&f.pod, f.address))).collect();
        let servers: Vec<_> =
            faces.iter().map(|f| self.reference.subject(Endpoint::Pod(&f.sibling, f.address))).collect();
        for (from, client) in faces.iter().zip(&clients) {
            for (to, server) in faces.iter().zip(&servers) {
                if from.families.is_disjoint(&to.families) {
                    continue;
                }
                self.verified.pairs += 1;
                let expected = self.expected.pairs.get(&(from.subject, to.subject)).unwrap_or(&nothing);
                for (protocol, expected) in Protocol::ALL.into_iter().zip(expected) {
                    let allowed = Reference::ports_between(client, server, protocol);
                    if allowed != *expected {
                        let ends = (self.name(from.subject), self.name(to.subject));
                        let ask = |port| Reference::decide_between(client, server, Some(protocol), port);
                        self.differs(ends, protocol, &allowed, expected, ask);
                    }
                }
                if self.broken.len() >= NAMED {
                    return;
                }
            }
        }
    }

    /// Every address of a lesson and of every block, from and to every subject whose policy names it.
    fn addresses(&mut self, faces: &[Face], policies: &PolicySet) {
        let asked = asked_addresses(self.expected, policies, self.subjects);
        let nothing = ByProtocol::default();
        for face in faces {
            let pod = Endpoint::Pod(&face.pod, face.address);
            let named = Named::of(self.reference.subject(pod).selected_by());
            for (way, ip) in asked.get(&face.subject).into_iter().flatten() {
                if !face.families.contains(&Family::of(*ip)) {
                    continue;
                }
                self.verified.addresses += 1;
                let policies = named.those_holding(*ip);
                let reference = Reference::new(self.reference.cluster, &policies);
                let (pod, outside) = (reference.subject(pod), reference.subject(Endpoint::Address(*ip)));
                let (client, server) = if *way == Way::To { (&pod, &outside) } else { (&outside, &pod) };
                let expected = self.expected.addresses.get(&(face.subject, *way, *ip)).unwrap_or(&nothing);
                for (protocol, expected) in Protocol::ALL.into_iter().zip(expected) {
                    let allowed = Reference::ports_between(client, server, protocol);
                    if allowed != *expected {
                        let own = self.name(face.subject);
                        let ends = if *way == Way::To { (own, ip.to_string()) } else { (ip.to_string(), own) };
                        let ask = |port| Reference::decide_between(client, server, Some(protocol), port);
                        self.differs(ends, protocol, &allowed, expected, ask);
                    }
                }
                if self.broken.len() >= NAMED {
                    return;
                }
            }
        }
    }

    fn differs(
        &mut self,
        (client, server): (String, String),
        protocol: Protocol,
        allowed: &Ports,
        expected: &Ports,
        ask: impl Fn(u16) -> model::reference::Decision,
    ) {
        let missing = without(expected, allowed);
        let extra = without(allowed, expected);
        for (law, ports) in [(Law::LearnedIsAllowed, missing), (Law::NothingElseIsAllowed, extra)] {
            let Some((first, _)) = ports.first().copied() else { continue };
            let decision = ask(first);
            let mut rules = Vec::new();
            for judgement in [&decision.egress, &decision.ingress] {
                match (law, judgement) {
                    (Law::NothingElseIsAllowed, Judgement::AllowedBy(names)) => {
                        rules.extend(names.iter().map(ToString::to_string));
                    }
                    (Law::LearnedIsAllowed, Judgement::Denied(by)) => rules.extend(by.iter().cloned()),
                    _ => {}
                }
            }
            let (client, server) = (client.clone(), server.clone());
            self.broken.push(Broken { law, client, server, protocol, ports, rules });
        }
    }

    fn name(&self, subject: usize) -> String {
        let subject = &self.subjects.all()[subject];
        let gone = if subject.presence == Presence::Gone { " (gone)" } else { "" };
        format!("{}{gone}", naming::workload(&subject.key))
    }
}

/// The policies of one pod, to be asked about many addresses: a block that does not hold an address
/// says nothing about it, and neither does a selector.
struct Named<'p>(Vec<(&'p NetworkPolicy, [Vec<Blocks>; 2])>);

impl<'p> Named<'p> {
    fn of(policies: &[&'p NetworkPolicy]) -> Self {
        let blocks = |rules: &Option<Vec<Rule>>| rules.iter().flatten().map(|rule| Blocks::of(&rule.peers)).collect();
        let one = |policy: &&'p NetworkPolicy| (*policy, [&policy.ingress, &policy.egress].map(blocks));
        Self(policies.iter().map(one).collect())
    }

    /// The same policies, every rule at its place, each with the peers that hold the address; with
    /// one that does not where none does, since no peer at all would mean everyone.
    fn those_holding(&self, ip: IpAddr) -> PolicySet {
        let short = |rules: &Option<Vec<Rule>>, blocks: &[Blocks]| {
            let one = |(rule, blocks): (&Rule, &Blocks)| {
                let mut peers: Vec<Peer> = blocks.holding(ip).map(|place| rule.peers[place].clone()).collect();
                if peers.is_empty() {
                    peers.extend(rule.peers.first().cloned());
                }
                Rule { peers, ports: rule.ports.clone(), source: None }
            };
            rules.as_ref().map(|rules| rules.iter().zip(blocks).map(one).collect())
        };
        let one = |(policy, [into, out]): &(&NetworkPolicy, [Vec<Blocks>; 2])| NetworkPolicy {
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            labels: Labels::new(),
            annotations: Labels::new(),
            pod_selector: policy.pod_selector.clone(),
            ingress: short(&policy.ingress, into),
            egress: short(&policy.egress, out),
            source: None,
        };
        PolicySet { policies: self.0.iter().map(one).collect() }
    }
}

/// The addresses to ask about, by subject. A block larger than all lessons together holds
/// addresses nobody learned: its first ones beyond them suffice to show it.
fn asked_addresses(
    expected: &Expected,
    policies: &PolicySet,
    subjects: &Subjects,
) -> BTreeMap<usize, BTreeSet<(Way, IpAddr)>> {
    let mut asked: BTreeMap<usize, BTreeSet<(Way, IpAddr)>> = BTreeMap::new();
    for (subject, way, ip) in expected.addresses.keys() {
        asked.entry(*subject).or_default().insert((*way, *ip));
    }
    let enough = expected.addresses.len() + 1;
    let by_policy: HashMap<(&str, &str), usize> =
        subjects.all().iter().enumerate().map(|(i, s)| ((s.key.namespace.as_str(), s.policy.as_str()), i)).collect();
    for policy in &policies.policies {
        let Some(subject) = by_policy.get(&(policy.namespace.as_str(), policy.name.as_str())) else { continue };
        for (way, rules) in [(Way::From, &policy.ingress), (Way::To, &policy.egress)] {
            for peer in rules.iter().flatten().flat_map(|rule| &rule.peers) {
                if let Peer::Block { cidr, .. } = peer {
                    let inside = inside(*cidr, enough);
                    asked.entry(*subject).or_default().extend(inside.into_iter().map(|ip| (way, ip)));
                }
            }
        }
    }
    asked
}

/// The first addresses of a block, network and broadcast addresses too.
fn inside(block: IpNet, most: usize) -> Vec<IpAddr> {
    match block.network() {
        IpAddr::V4(first) => {
            let last = match block.broadcast() {
                IpAddr::V4(last) => u32::from(last),
                IpAddr::V6(_) => u32::from(first),
            };
            (u32::from(first)..=last).take(most).map(|n| Ipv4Addr::from(n).into()).collect()
        }
        IpAddr::V6(first) => {
            let last = match block.broadcast() {
                IpAddr::V6(last) => u128::from(last),
                IpAddr::V4(_) => u128::from(first),
            };
            (u128::from(first)..=last).take(most).map(|n| Ipv6Addr::from(n).into()).collect()
        }
    }
}

/// What `a` holds and `b` does not; both in the one form.
fn without(a: &Ports, b: &Ports) -> Ports {
    let mut out = Vec::new();
    for (first, last) in a {
        let mut next = u32::from(*first);
        for (f, l) in b {
            let (f, l) = (u32::from(*f), u32::from(*l));
            if l < next || f > u32::from(*last) {
                continue;
            }
            if f > next {
                out.push((next as u16, (f - 1) as u16));
            }
            next = l + 1;
        }
        if next <= u32::from(*last) {
            out.push((next as u16, *last));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_set_of_ports_has_beyond_another() {
        assert_eq!(without(&vec![(1, u16::MAX)], &vec![(80, 80)]), [(1, 79), (81, u16::MAX)]);
        assert_eq!(without(&vec![(80, 90)], &vec![(70, 80), (90, 95)]), [(81, 89)]);
        assert_eq!(without(&vec![(80, 80)], &vec![]), [(80, 80)]);
        assert_eq!(without(&vec![(80, 80)], &vec![(1, u16::MAX)]), []);
    }
}
