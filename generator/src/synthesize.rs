//! From ledger and cluster to verified policies.
//!
//! Always holds: every subject has one policy that isolates it both ways, so that a workload never
//! seen is closed and one more flow only opens (law 11); beside these only a namespace's default-deny;
//! what is returned was verified.

use crate::{
    certificate::{self, Certificate},
    closed::Closed,
    evidence::Evidence,
    lessons::{LeftOut, LeftOutReason, Lessons},
    minimize::minimize,
    naming,
    openings::{Opening, Openings, Way},
    outside::Outside,
    refused::Refused,
    subjects::{Presence, Subject, Subjects, WithoutPolicy},
    verify::{Verified, verify},
};
use model::{
    cluster::{Cluster, WorkloadKey},
    labels::{Labels, Selector},
    ledger::{Edge, Ledger, Party},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Rule},
    routes::Routes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    panic::resume_unwind,
    thread,
};

/// The label on everything podfence writes (Kubernetes' recommended labels).
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "podfence");

/// A client that opens more ports of one server than this is pointed out.
const MANY_PORTS: usize = 32;

/// A workload with more clients outside than this probably serves everyone.
const MANY_CLIENTS: usize = 64;

/// What to do about workloads that node addresses reach. Such an address may be a hostNetwork
/// client or anyone behind a masquerade; what only the own node's kubelet sends passes either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Open the ports seen to the addresses of all nodes; what that opens is listed.
    Allow,
    /// Open nothing; what was seen is listed.
    Deny,
}

/// What a rule names for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerScope {
    /// The workload that was seen.
    #[default]
    Workload,
    /// All pods of its namespace.
    Namespace,
}

impl PeerScope {
    /// As the command line has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Namespace => "namespace",
        }
    }
}

/// What the operator says beside the ledger and the cluster.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What to do about ingress from nodes; `None` refuses where there is any.
    pub nodes: Option<Nodes>,
    /// Edges accepted by name although they were denied, of unknown direction or without a
    /// handshake: `NAMESPACE/NAME->NAMESPACE/NAME:PORT/PROTOCOL`, as the summary lists them.
    pub accept: Vec<String>,
    /// What rules name for addresses outside.
    pub outside: Outside,
    /// What rules name for pods.
    pub peers: PeerScope,
    /// Ranges of ports that servers pick from: `NAMESPACE/NAME->NAMESPACE/NAME:FIRST-LAST/PROTOCOL`.
    pub port_ranges: Vec<String>,
    /// Namespaces that get no default-deny.
    pub no_default_deny: BTreeSet<String>,
    /// New edges an hour up to which learning counts as complete; `None`: [`certificate::REQUIRED`].
    pub required: Option<f64>,
    /// The ways that clients took, for the evidence.
    pub routes: Routes,
}

/// Policies with their proof, and all that they open beyond what was seen or leave out.
#[derive(Clone, Debug)]
pub struct Generated {
    /// One policy a subject, minimised and verified, and the default-deny of each namespace.
    pub policies: PolicySet,
    /// Who the policies are for.
    pub subjects: Subjects,
    /// What they were written from.
    pub lessons: Lessons,
    /// What they open, and how far beyond the lessons.
    pub openings: Openings,
    /// The namespaces that are closed by default.
    pub closed: Closed,
    /// What was chosen for addresses outside, and for pods.
    pub chosen: (&'static str, &'static str),
    /// What stands behind every rule.
    pub evidence: Evidence,
    /// How complete the learning was.
    pub certificate: Certificate,
    /// Subjects never observed in the window: closed both ways.
    pub never_observed: Vec<WorkloadKey>,
    /// What a reviewer should know beside the lists above, in order.
    pub notes: Vec<String>,
    /// What verification asked.
    pub verified: Verified,
}

/// Writes the least-privilege policies for what a ledger holds about a cluster.
///
/// # Errors
/// See [`Refused`]: each variant says where, and what to try.
pub fn synthesize(ledger: &Ledger, cluster: &Cluster, options: &Options) -> Result<Generated, Refused> {
    let subjects = Subjects::of(cluster)?;
    let lessons = Lessons::of(ledger, cluster, &subjects, options)?;
    let openings = Openings::of(&lessons, cluster, &subjects, options)?;
    let closed = Closed::of(&subjects, &options.no_default_deny)?;
    let mut policies = minimize(write_policies(&subjects, &openings));
    policies.policies.extend(closed.policies());
    policies.sort();
    let verified = verify(&policies, cluster, &subjects, &lessons, &openings)?;
    let required = options.required.unwrap_or(certificate::REQUIRED);
    let (evidence, certificate) = thread::scope(|scope| {
        let certificate = scope.spawn(|| Certificate::of(ledger, cluster, &subjects, &lessons, required));
        let evidence = Evidence::of(&policies, cluster, &subjects, &lessons, &openings, &options.routes);
        (evidence, certificate.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let never_observed = never_observed(&subjects, ledger);
    let notes = notes(cluster, &subjects, &lessons, &openings, &policies);
    let chosen = (options.outside.name(), options.peers.name());
    Ok(Generated {
        policies,
        subjects,
        lessons,
        openings,
        closed,
        chosen,
        evidence,
        certificate,
        never_observed,
        notes,
        verified,
    })
}

/// Peers of one direction with the ports opened to each.
type PortsByPeer = BTreeMap<Peer, BTreeSet<Port>>;

fn write_policies(subjects: &Subjects, openings: &Openings) -> PolicySet {
    let mut sides: Vec<(PortsByPeer, PortsByPeer)> = vec![Default::default(); subjects.all().len()];
    for opening in &openings.all {
        let (ingress, egress) = &mut sides[opening.subject];
        let side = if opening.way == Way::Ingress { ingress } else { egress };
        side.entry(opening.peer(subjects)).or_default().insert(opening.port());
    }
    let both = subjects.all().iter().zip(sides);
    PolicySet::new(both.map(|(subject, (ingress, egress))| policy(subject, ingress, egress)).collect())
}

fn policy(subject: &Subject, ingress: PortsByPeer, egress: PortsByPeer) -> NetworkPolicy {
    NetworkPolicy {
        namespace: subject.key.namespace.clone(),
        name: subject.policy.clone(),
        labels: Labels::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]),
        annotations: Labels::new(),
        pod_selector: subject.selector.clone(),
        ingress: Some(rules(ingress)),
        egress: Some(rules(egress)),
        source: None,
    }
}

fn rules(openings: PortsByPeer) -> Vec<Rule> {
    let one = |(peer, ports): (Peer, BTreeSet<Port>)| Rule {
        peers: vec![peer],
        ports: ports.into_iter().collect(),
        source: None,
    };
    openings.into_iter().map(one).collect()
}

fn never_observed(subjects: &Subjects, ledger: &Ledger) -> Vec<WorkloadKey> {
    let seen: BTreeSet<&WorkloadKey> = ledger.edges.keys().flat_map(Edge::workloads).map(|key| &**key).collect();
    let here = subjects.all().iter().filter(|s| s.presence != Presence::Gone && !seen.contains(&*s.key));
    here.map(|s| (*s.key).clone()).collect()
}

fn notes(
    cluster: &Cluster,
    subjects: &Subjects,
    lessons: &Lessons,
    openings: &Openings,
    policies: &PolicySet,
) -> Vec<String> {
    let mut notes = Vec::new();
    for subject in subjects.all() {
        let who = naming::workload(&subject.key);
        for narrowed in &subject.narrowed {
            let (by, from) = (naming::printable(&narrowed.by), naming::workload(&narrowed.from));
            notes.push(format!("{who} is selected by {by} too, which tells it from {from}"));
        }
        if subject.selector == Selector::default() {
            let namespace = &subject.key.namespace;
            notes.push(format!("{who} has no label: its selector means every pod of {namespace}, later ones too"));
        }
    }
    notes.extend(subjects.without_policy.iter().map(|(key, why)| no_policy(key, *why)));
    notes.extend(opened_to_nodes(cluster, lessons));
    notes.extend(many_ports(openings, lessons));
    notes.extend(many_clients(lessons));
    notes.extend(standing_policies(cluster, policies));
    notes
}

fn no_policy(key: &WorkloadKey, why: WithoutPolicy) -> String {
    format!("{} gets no policy: {}", naming::workload(key), why.meaning())
}

/// What a block of a node's address holds beside what was seen (law 2).
fn opened_to_nodes(cluster: &Cluster, lessons: &Lessons) -> Vec<String> {
    let mut sharing: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for pod in cluster.pods.iter().filter(|pod| pod.host_network && pod.ended.is_none() && !pod.completed) {
        sharing.entry(&pod.node).or_default().insert(naming::workload(&cluster.root_owner(pod)));
    }
    let named = cluster.nodes.iter().flat_map(|(name, node)| node.addresses.iter().map(move |ip| (ip, name)));
    let names: BTreeMap<IpAddr, &String> = named.map(|(ip, name)| (ip.to_canonical(), name)).collect();
    let mut out = Vec::new();
    for lesson in &lessons.lessons {
        let (ip, way) = match (&lesson.edge.client, &lesson.edge.server) {
            (Party::Node(ip), _) => (ip, "from"),
            (_, Party::Node(ip)) => (ip, "to"),
            _ => continue,
        };
        let name = names.get(ip).map_or_else(|| ip.to_string(), |name| naming::printable(name));
        let mut who: Vec<String> =
            names.get(ip).and_then(|n| sharing.get(n.as_str())).into_iter().flatten().cloned().collect();
        if way == "from" {
            who.push("whoever is masqueraded behind it".to_owned());
        }
        let with = if who.is_empty() { String::new() } else { format!(", with {}", who.join(", ")) };
        let edge = naming::edge(&lesson.edge);
        out.push(format!("{edge} opens {way} all of node {name}{with}: no selector tells them apart"));
    }
    out
}

/// Ports that somebody declares, or that no system picks from: each is a rule item, whoever picked it.
fn many_ports(openings: &Openings, lessons: &Lessons) -> Vec<String> {
    let mut by_pair: BTreeMap<(&Party, &Party, u8), BTreeSet<u16>> = BTreeMap::new();
    let single = |opening: &&Opening| matches!(opening.port, PortMatch::Range(first, last) if first == last);
    for lesson in openings.all.iter().filter(single).flat_map(|opening| &opening.lessons) {
        let edge = &lessons.lessons[*lesson].edge;
        by_pair.entry((&edge.client, &edge.server, edge.protocol)).or_default().insert(edge.port);
    }
    let many = by_pair.into_iter().filter(|(_, ports)| ports.len() > MANY_PORTS);
    many.map(|((client, server, protocol), ports)| {
        let (client, server) = (naming::party_in_full(client), naming::party_in_full(server));
        let (ports, protocol) = (ports.len(), naming::protocol(protocol));
        format!("{client} opened {ports} {protocol} ports of {server}, each its own rule item: where the server picks them at random, give their range with --port-range")
    })
    .collect()
}

/// Learning cannot tell a public service from one with many partners.
fn many_clients(lessons: &Lessons) -> Vec<String> {
    let mut clients: BTreeMap<(&Party, u16, u8), usize> = BTreeMap::new();
    for lesson in lessons.lessons.iter().filter(|lesson| matches!(lesson.edge.client, Party::Outside(_))) {
        *clients.entry((&lesson.edge.server, lesson.edge.port, lesson.edge.protocol)).or_default() += 1;
    }
    let many = clients.into_iter().filter(|(_, clients)| *clients > MANY_CLIENTS);
    many.map(|((server, port, protocol), clients)| {
        let (server, protocol) = (naming::party_in_full(server), naming::protocol(protocol));
        format!("{server} was reached from {clients} addresses outside at {port}/{protocol}, and only these are let in: if it serves everyone, say so in a policy of your own beside this one")
    })
    .collect()
}

/// Policies add up: what stands in the cluster opens beside what is written here, and a name taken
/// by someone else's policy would be overwritten.
fn standing_policies(cluster: &Cluster, policies: &PolicySet) -> Vec<String> {
    let ours = |p: &NetworkPolicy| p.labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
    let mut out = Vec::new();
    let is_gone = |p: &&NetworkPolicy| ours(p) && policies.get(&p.namespace, &p.name).is_none();
    for gone in cluster.policies.policies.iter().filter(is_gone) {
        let (namespace, name) = (naming::printable(&gone.namespace), naming::printable(&gone.name));
        out.push(format!(
            "{namespace}/{name} stands in the cluster, is podfence's and not in this set any more: `kubectl delete networkpolicy --namespace {namespace} {name}` removes it"
        ));
    }
    for theirs in cluster.policies.policies.iter().filter(|p| !ours(p)) {
        let name = naming::printable(&format!("{}/{}", theirs.namespace, theirs.name));
        let same = policies.policies.iter().any(|p| (&p.namespace, &p.name) == (&theirs.namespace, &theirs.name));
        out.push(if same {
            format!("{name} stands in the cluster already and is not podfence's: applying overwrites it")
        } else {
            format!("{name} stands in the cluster already: what it allows stays allowed")
        });
    }
    out
}

impl Generated {
    /// What was left out, by reason: flows, and the edges known.
    pub fn left_out(&self) -> BTreeMap<LeftOutReason, Vec<&LeftOut>> {
        let mut by_reason: BTreeMap<LeftOutReason, Vec<&LeftOut>> = BTreeMap::new();
        for item in &self.lessons.left_out {
            by_reason.entry(item.reason.clone()).or_default().push(item);
        }
        by_reason
    }
}
