//! Asks the reference evaluator whether a set of policies allows what was learned (law 1) and
//! nothing else (law 2).
//!
//! Always holds: what is expected comes from the lessons alone, what is allowed from the reference
//! alone, over every ordered pair of subjects, and of each over every face (labels, family, blocks)
//! that the policies can tell apart. Between the subjects and addresses outside, one of each stretch of
//! addresses that no block tells apart is asked for. What the listed generalisations name may be
//! allowed beside the lessons, and nothing beyond it.

use crate::{
    blocks::Blocks,
    closed::DEFAULT_DENY,
    lessons::Lessons,
    naming,
    openings::{Opening, Openings, Scope, Way},
    outside::Block,
    refused::{Broken, Law, Refused},
    subjects::{Presence, Subject, Subjects},
};
use ipnet::IpNet;
use model::{
    cluster::{Cluster, Pod},
    labels::{Labels, Selector},
    ledger::Party,
    policy::{NetworkPolicy, Peer, PolicySet, PortMatch, Protocol, Rule},
    ports::{ALL_PORTS, Ports, difference, intersection, union},
    reference::{Endpoint, Judgement, Reference},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::resume_unwind,
    thread,
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
    /// Ends asked about a pod that no policy names, of namespaces closed by default.
    pub strangers: u64,
    /// Lessons that must be allowed.
    pub lessons: u64,
}

/// Verifies laws 1 and 2: what is allowed holds all that was learned, and nothing beyond it but what the
/// listed generalisations name. A pod that no policy but its namespace's default-deny selects is closed.
///
/// # Errors
/// [`Refused::LawBroken`] names the edges and rules.
pub fn verify(
    policies: &PolicySet,
    cluster: &Cluster,
    subjects: &Subjects,
    lessons: &Lessons,
    openings: &Openings,
) -> Result<Verified, Refused> {
    let expected = Expected::of(subjects, lessons, openings);
    let faces = faces(policies, cluster, subjects);
    let mut inquiry = Inquiry {
        reference: &Reference::new(cluster, policies),
        subjects,
        expected: &expected,
        broken: Vec::new(),
        verified: Verified { lessons: lessons.lessons.len() as u64, ..Verified::default() },
    };
    inquiry.all_pairs(&faces);
    inquiry.addresses(&faces, policies);
    inquiry.strangers(&faces, policies);
    if inquiry.broken.is_empty() { Ok(inquiry.verified) } else { Err(Refused::LawBroken(inquiry.broken)) }
}

/// Ports of each protocol, in [`Protocol::ALL`]'s order.
type ByProtocol = [Ports; 3];

/// Numbers and names of ports, by protocol.
#[derive(Clone, Default)]
struct Items([(Ports, BTreeSet<String>); 3]);

impl Items {
    fn add(&mut self, protocol: Protocol, port: &PortMatch) {
        let (numbers, names) = &mut self.0[Protocol::ALL.iter().position(|p| *p == protocol).unwrap_or_default()];
        match port {
            PortMatch::All => numbers.push(ALL_PORTS),
            PortMatch::Range(first, last) => numbers.push((*first, *last)),
            PortMatch::Named(name) => drop(names.insert(name.clone())),
        }
    }

    /// The numbers at a pod that declares these ports.
    fn at(&self, pod: Option<&Pod>) -> ByProtocol {
        let mut all = ByProtocol::default();
        for ((protocol, (numbers, names)), out) in Protocol::ALL.into_iter().zip(&self.0).zip(&mut all) {
            let declared = pod.into_iter().flat_map(|pod| &pod.ports).filter(|port| port.protocol == protocol);
            let named = declared.filter(|port| port.name.as_ref().is_some_and(|name| names.contains(name)));
            *out = union(numbers.iter().copied().chain(named.map(|port| (port.port, port.port))).collect());
        }
        all
    }
}

/// What the lessons say, and what the listed generalisations allow beside it, by subject and direction.
#[derive(Default)]
struct Expected<'o> {
    pairs: HashMap<(usize, usize), Items>,
    addresses: HashMap<(usize, Way, IpAddr), Items>,
    wider_workloads: HashMap<(usize, Way, usize), Items>,
    wider_namespaces: HashMap<(usize, Way, &'o str), Items>,
    wider_blocks: HashMap<(usize, Way), Vec<&'o Opening>>,
}

impl<'o> Expected<'o> {
    fn of(subjects: &Subjects, lessons: &Lessons, openings: &'o Openings) -> Self {
        let mut all = Self::default();
        for lesson in &lessons.lessons {
            let edge = &lesson.edge;
            let Some(protocol) = Protocol::from_number(edge.protocol) else { continue };
            let end = |party: &Party| match party {
                Party::Workload(key) => subjects.find(key).ok_or(None),
                Party::Node(ip) | Party::Outside(ip) => Err(Some(ip.to_canonical())),
            };
            let (client, server) = (end(&edge.client), end(&edge.server));
            let name = server.ok().and_then(|server| openings.names[server].name(protocol, edge.port));
            let port = name.map_or(PortMatch::Range(edge.port, edge.port), |name| PortMatch::Named(name.to_owned()));
            let items = match (client, server) {
                (Ok(client), Ok(server)) => all.pairs.entry((client, server)).or_default(),
                (Ok(client), Err(Some(ip))) => all.addresses.entry((client, Way::Egress, ip)).or_default(),
                (Err(Some(ip)), Ok(server)) => all.addresses.entry((server, Way::Ingress, ip)).or_default(),
                _ => continue,
            };
            items.add(protocol, &port);
        }
        for opening in openings.widened() {
            let (own, way) = (opening.subject, opening.way);
            let items = match &opening.scope {
                Scope::Workload(peer) => all.wider_workloads.entry((own, way, *peer)).or_default(),
                Scope::Namespace(name) => all.wider_namespaces.entry((own, way, name)).or_default(),
                Scope::Block(_) => {
                    all.wider_blocks.entry((own, way)).or_default().push(opening);
                    continue;
                }
            };
            items.add(opening.protocol, &opening.port);
        }
        all
    }

    /// Between two subjects, at a pod of the server: what must be allowed, and the most that may be.
    fn between(&self, client: usize, server: usize, subjects: &Subjects, pod: &Pod) -> (ByProtocol, ByProtocol) {
        let at = |items: Option<&Items>| items.map_or_else(ByProtocol::default, |items| items.at(Some(pod)));
        let least = at(self.pairs.get(&(client, server)));
        let side = |own: usize, way: Way, peer: usize| {
            let namespace = subjects.all()[peer].key.namespace.as_str();
            let to_namespace = at(self.wider_namespaces.get(&(own, way, namespace)));
            let to_workload = at(self.wider_workloads.get(&(own, way, peer)));
            [0, 1, 2]
                .map(|i| union([&least[i], &to_namespace[i], &to_workload[i]].into_iter().flatten().copied().collect()))
        };
        let (out, into) = (side(client, Way::Egress, server), side(server, Way::Ingress, client));
        let most = [0, 1, 2].map(|i| intersection(&out[i], &into[i]));
        (least, most)
    }

    /// Between a subject and an address, the same; `pod` is the subject's.
    fn with(&self, own: usize, way: Way, ip: IpAddr, pod: &Pod) -> (ByProtocol, ByProtocol) {
        let server = (way == Way::Ingress).then_some(pod);
        let known = self.addresses.get(&(own, way, ip));
        let least = known.map_or_else(ByProtocol::default, |items| items.at(server));
        let mut most = Items::default();
        for opening in self.wider_blocks.get(&(own, way)).into_iter().flatten() {
            if matches!(&opening.scope, Scope::Block(block) if block.holds(ip)) {
                most.add(opening.protocol, &opening.port);
            }
        }
        let most = most.at(server);
        let most = [0, 1, 2].map(|i| union(least[i].iter().chain(&most[i]).copied().collect()));
        (least, most)
    }

    /// The blocks that the generalisations of a subject name.
    fn blocks(&self) -> impl Iterator<Item = (usize, Way, &Block)> {
        let all = self.wider_blocks.iter().flat_map(|((own, way), openings)| openings.iter().map(|o| (*own, *way, o)));
        all.filter_map(|(own, way, opening)| match &opening.scope {
            Scope::Block(block) => Some((own, way, block)),
            Scope::Workload(_) | Scope::Namespace(_) => None,
        })
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
    expected: &'a Expected<'a>,
    broken: Vec<Broken>,
    verified: Verified,
}

impl<'a> Inquiry<'a> {
    /// Every pair, on every core: the clients are shared out in order, so that what is found is found in order.
    fn all_pairs(&mut self, faces: &[Face]) {
        let servers: Vec<_> =
            faces.iter().map(|f| self.reference.subject(Endpoint::Pod(&f.sibling, f.address))).collect();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shares = faces.chunks(faces.len().div_ceil(threads).max(1));
        let parts: Vec<Inquiry<'a>> = thread::scope(|scope| {
            let (servers, own) = (&servers, &*self);
            let asking = |clients| {
                let mut part = Inquiry { broken: Vec::new(), verified: Verified::default(), ..*own };
                scope.spawn(move || {
                    part.pairs(clients, faces, servers);
                    part
                })
            };
            let running: Vec<_> = shares.map(asking).collect();
            running.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        for part in parts {
            self.verified.pairs += part.verified.pairs;
            self.broken.extend(part.broken);
        }
        self.broken.truncate(NAMED);
    }

    fn pairs(&mut self, clients: &[Face], faces: &[Face], servers: &[model::reference::Subject<'_>]) {
        for from in clients {
            let client = &self.reference.subject(Endpoint::Pod(&from.pod, from.address));
            for (to, server) in faces.iter().zip(servers) {
                if from.families.is_disjoint(&to.families) {
                    continue;
                }
                self.verified.pairs += 1;
                let expected = self.expected.between(from.subject, to.subject, self.subjects, &to.sibling);
                let subjects = self.subjects;
                self.ask(client, server, &expected, || (name(subjects, from.subject), name(subjects, to.subject)));
                if self.broken.len() >= NAMED {
                    return;
                }
            }
        }
    }

    /// Every address of a lesson and of every block, from and to every subject whose policy names it.
    fn addresses(&mut self, faces: &[Face], policies: &PolicySet) {
        let asked = asked_addresses(self.expected, policies, self.subjects);
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
                let (client, server) = if *way == Way::Egress { (&pod, &outside) } else { (&outside, &pod) };
                let expected = self.expected.with(face.subject, *way, *ip, &face.pod);
                let (own, subjects) = (face.subject, self.subjects);
                self.ask(client, server, &expected, || match way {
                    Way::Egress => (name(subjects, own), ip.to_string()),
                    Way::Ingress => (ip.to_string(), name(subjects, own)),
                });
                if self.broken.len() >= NAMED {
                    return;
                }
            }
        }
    }

    /// A pod that nobody knows yet, in each namespace that is closed by default: nothing from it or to it.
    fn strangers(&mut self, faces: &[Face], policies: &PolicySet) {
        let nothing = (ByProtocol::default(), ByProtocol::default());
        for namespace in policies.policies.iter().filter(|p| p.name == DEFAULT_DENY).map(|p| &p.namespace) {
            let stranger = Pod { namespace: namespace.clone(), name: "(unknown)".to_owned(), ..Pod::default() };
            let means_it = |s: &Subject| s.key.namespace == *namespace && s.selector.matches(&stranger.labels);
            if self.subjects.all().iter().any(means_it) {
                continue;
            }
            let address = Ipv4Addr::UNSPECIFIED.into();
            let unknown = self.reference.subject(Endpoint::Pod(&stranger, address));
            let who = || format!("a pod of {namespace} that no policy names");
            let subjects = self.subjects;
            let other = |face: Option<&Face>| {
                face.map_or_else(|| "an address outside".to_owned(), |face| name(subjects, face.subject))
            };
            for face in faces.iter().map(Some).chain([None]) {
                self.verified.strangers += 1;
                let end = match face {
                    Some(face) => Endpoint::Pod(&face.pod, face.address),
                    None => Endpoint::Address(Ipv4Addr::BROADCAST.into()),
                };
                let end = self.reference.subject(end);
                self.ask(&unknown, &end, &nothing, || (who(), other(face)));
                self.ask(&end, &unknown, &nothing, || (other(face), who()));
                if self.broken.len() >= NAMED {
                    return;
                }
            }
        }
    }

    /// Asks the reference what it allows between two ends, and holds it against the least and the most.
    fn ask(
        &mut self,
        client: &model::reference::Subject<'_>,
        server: &model::reference::Subject<'_>,
        (least, most): &(ByProtocol, ByProtocol),
        ends: impl Fn() -> (String, String),
    ) {
        let allowed = Reference::all_ports_between(client, server, Protocol::ALL);
        for ((protocol, allowed), (least, most)) in Protocol::ALL.into_iter().zip(allowed).zip(least.iter().zip(most)) {
            if allowed != *least || allowed != *most {
                let ask = |port| Reference::decide_between(client, server, Some(protocol), port);
                let (missing, extra) = (difference(least, &allowed), difference(&allowed, most));
                self.differs(&ends(), protocol, [missing, extra], ask);
            }
        }
    }

    fn differs(
        &mut self,
        (client, server): &(String, String),
        protocol: Protocol,
        [missing, extra]: [Ports; 2],
        ask: impl Fn(u16) -> model::reference::Decision,
    ) {
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
}

fn name(subjects: &Subjects, subject: usize) -> String {
    let subject = &subjects.all()[subject];
    let gone = if subject.presence == Presence::Gone { " (gone)" } else { "" };
    format!("{}{gone}", naming::workload(&subject.key))
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

/// The addresses to ask about, by subject: the first of each block that the policy or its generalisations
/// name and the first after it. Between two of these no answer can change.
fn asked_addresses(
    expected: &Expected<'_>,
    policies: &PolicySet,
    subjects: &Subjects,
) -> BTreeMap<usize, BTreeSet<(Way, IpAddr)>> {
    let mut asked: BTreeMap<usize, BTreeSet<(Way, IpAddr)>> = BTreeMap::new();
    let mut ask = |subject: usize, way: Way, block: IpNet| {
        let places = asked.entry(subject).or_default();
        places.extend([Some(block.network()), after(block)].into_iter().flatten().map(|ip| (way, ip)));
    };
    for (subject, way, ip) in expected.addresses.keys() {
        ask(*subject, *way, IpNet::from(*ip));
    }
    for (subject, way, block) in expected.blocks() {
        block.except.iter().chain([&block.cidr]).for_each(|net| ask(subject, way, *net));
    }
    let by_policy: HashMap<(&str, &str), usize> =
        subjects.all().iter().enumerate().map(|(i, s)| ((s.key.namespace.as_str(), s.policy.as_str()), i)).collect();
    for policy in &policies.policies {
        let Some(subject) = by_policy.get(&(policy.namespace.as_str(), policy.name.as_str())) else { continue };
        for (way, rules) in [(Way::Ingress, &policy.ingress), (Way::Egress, &policy.egress)] {
            for peer in rules.iter().flatten().flat_map(|rule| &rule.peers) {
                if let Peer::Block { cidr, except } = peer {
                    except.iter().chain([cidr]).for_each(|net| ask(*subject, way, *net));
                }
            }
        }
    }
    asked
}

/// The first address after a block, if there is one.
fn after(block: IpNet) -> Option<IpAddr> {
    match block.broadcast() {
        IpAddr::V4(last) => Some(Ipv4Addr::from(u32::from(last).checked_add(1)?).into()),
        IpAddr::V6(last) => Some(Ipv6Addr::from(u128::from(last).checked_add(1)?).into()),
    }
}
