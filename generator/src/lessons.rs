//! What was learned, as the edges that rules will be written for, and everything left out with its
//! reason.
//!
//! Always holds: only `Ledger::edges` teach; what the ledger holds unfit teaches when a person
//! accepted that edge by name, and not otherwise (law 13). Every other edge of a lesson is listed as
//! a generalisation with its reason. One more learned edge never takes a lesson away (law 11).

use crate::{
    naming::{self, EdgeName},
    refused::{NodeIngress, Refused},
    routes,
    subjects::Subjects,
    synthesize::{Nodes, Options},
};
use model::{
    cluster::{Cluster, TargetPort, WorkloadKey},
    ledger::{Edge, EdgeCounters, Ledger, Party, Unfit},
    policy::Protocol,
    routes::Routes,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// The port of DNS (RFC 1035, 4.2).
const DNS: u16 = 53;

/// An edge that the policies must allow, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson {
    /// The edge.
    pub edge: Edge,
    /// Why it is allowed.
    pub basis: Basis,
    /// What was seen of it; of an accepted edge only flows and samples are known, of a
    /// generalisation nothing.
    pub seen: Option<EdgeCounters>,
    /// Flows of an accepted edge.
    pub accepted_flows: u64,
    /// Sample flows of an accepted edge.
    pub accepted_samples: Vec<Arc<str>>,
}

/// Why an edge is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// It was seen.
    Learned,
    /// A person accepted it by name, although it was unfit for this reason.
    Accepted(Unfit),
    /// DNS over UDP was seen at these pods; an answer that does not fit is asked for again over TCP.
    DnsOverTcp,
    /// A node reached it, and the operator lets nodes in.
    AnyNode,
    /// The client was seen to call a Service that has this endpoint, which is no pod: the API server's, say.
    ServiceEndpoint,
}

impl Basis {
    /// A stable name.
    pub fn name(&self) -> String {
        match self {
            Self::Learned => "learned".to_owned(),
            Self::Accepted(unfit) => format!("accepted ({})", unfit.name()),
            Self::DnsOverTcp => "dns-over-tcp".to_owned(),
            Self::AnyNode => "any-node".to_owned(),
            Self::ServiceEndpoint => "service-endpoint".to_owned(),
        }
    }

    /// Whether the edge itself was neither seen nor accepted.
    pub const fn is_generalisation(&self) -> bool {
        matches!(self, Self::DnsOverTcp | Self::AnyNode | Self::ServiceEndpoint)
    }
}

/// Why something that was seen is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOutReason {
    /// The ledger says it may not become a rule.
    Unfit(Unfit),
    /// A node reached it, and the operator keeps nodes out.
    NodesKeptOut,
    /// An end has no policy and cannot be named in one; why.
    NoSubject(&'static str),
    /// The address was outside when the flow was seen and is now this workload's pod's.
    AddressIsAPodNow(Arc<WorkloadKey>),
    /// Port 0 or a protocol that rules cannot name.
    NotExpressible,
}

impl LeftOutReason {
    /// A stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unfit(unfit) => unfit.name(),
            Self::NodesKeptOut => "nodes-kept-out",
            Self::NoSubject(_) => "no-subject",
            Self::AddressIsAPodNow(_) => "address-is-a-pod-now",
            Self::NotExpressible => "inexpressible",
        }
    }

    /// What it means, for a person.
    pub fn meaning(&self) -> String {
        match self {
            Self::Unfit(unfit) => unfit.meaning().to_owned(),
            Self::NodesKeptOut => "from a node address, and nodes are kept out".to_owned(),
            Self::NoSubject(why) => format!("an end that no policy can name: {why}"),
            Self::AddressIsAPodNow(key) => {
                format!("an address outside that is now a pod's of {}", naming::workload(key))
            }
            Self::NotExpressible => Unfit::Inexpressible.meaning().to_owned(),
        }
    }

    /// Whether a person may accept such an edge by name.
    pub const fn can_be_accepted(&self) -> bool {
        matches!(
            self,
            Self::Unfit(Unfit::DirectionUnknown | Unfit::HandshakeNotSeen | Unfit::Denied | Unfit::StagedDenied)
        )
    }
}

/// Something that was seen and is not allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    /// Why.
    pub reason: LeftOutReason,
    /// The edge as far as it is known.
    pub edge: Option<Edge>,
    /// Flows.
    pub flows: u64,
    /// Sample flows.
    pub samples: Vec<Arc<str>>,
}

/// Everything the ledger teaches about a cluster.
#[derive(Clone, Debug, Default)]
pub struct Lessons {
    /// What is to be allowed: each edge once, in order.
    pub lessons: Vec<Lesson>,
    /// What is not, by reason and edge.
    pub left_out: Vec<LeftOut>,
}

impl Lessons {
    /// Sorts the ledger into what becomes rules and what does not.
    ///
    /// # Errors
    /// Workloads reached from nodes while [`Options::nodes`] says nothing; accepted edges that are
    /// not among those left out.
    pub fn of(ledger: &Ledger, cluster: &Cluster, subjects: &Subjects, options: &Options) -> Result<Self, Refused> {
        let mut desk = Desk { subjects, pods: pod_addresses(cluster), taught: BTreeMap::new(), left_out: Vec::new() };
        let accepted = accepted(ledger, &options.accept)?;
        let services = cluster.services_elsewhere();
        for (edge, seen) in ledger.learned() {
            match services.behind(edge) {
                Some(edges) => edges.iter().for_each(|edge| desk.learn(edge, seen.clone())),
                None => desk.learn(edge, seen),
            }
        }
        for (edge, reason) in accepted.iter().map(|(reason, edge)| (edge, *reason)) {
            desk.accept(edge, reason, ledger);
        }
        desk.service_endpoints(ledger, cluster, &options.routes);
        desk.nodes(cluster, options.nodes)?;
        desk.dns_over_tcp(cluster);
        desk.list_unfit(ledger, &accepted);
        let mut left_out = desk.left_out;
        left_out.sort_by(|a, b| (&a.reason, &a.edge).cmp(&(&b.reason, &b.edge)));
        Ok(Self { lessons: desk.taught.into_values().collect(), left_out })
    }

    /// Lessons that were neither seen nor accepted.
    pub fn generalisations(&self) -> impl Iterator<Item = &Lesson> {
        self.lessons.iter().filter(|lesson| lesson.basis.is_generalisation())
    }
}

/// Whose pods hold which addresses; of several claimants the first by name.
fn pod_addresses(cluster: &Cluster) -> HashMap<IpAddr, Arc<WorkloadKey>> {
    let mut all: HashMap<IpAddr, Arc<WorkloadKey>> = HashMap::new();
    for pod in cluster.pods.iter().filter(|pod| !pod.host_network && pod.ended.is_none() && !pod.completed) {
        let key = Arc::new(cluster.root_owner(pod));
        for ip in &pod.addresses {
            let first = all.entry(ip.to_canonical()).or_insert_with(|| key.clone());
            if key < *first {
                *first = key.clone();
            }
        }
    }
    all
}

type Accepted = BTreeSet<(Unfit, Edge)>;

/// The unfit edges that the names mean. A name must mean exactly one edge; all reasons for which
/// that edge is unfit are then accepted.
fn accepted(ledger: &Ledger, names: &[String]) -> Result<Accepted, Refused> {
    let acceptable: Vec<(Unfit, &Edge)> = ledger
        .unfit
        .keys()
        .filter(|(unfit, _)| LeftOutReason::Unfit(*unfit).can_be_accepted())
        .filter_map(|(unfit, edge)| Some((*unfit, edge.as_ref()?)))
        .collect();
    let (mut all, mut wrong) = (Accepted::new(), Vec::new());
    for text in names {
        let name: EdgeName = match text.parse() {
            Ok(name) => name,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        let named: Vec<_> = acceptable.iter().filter(|(_, edge)| name.names(edge)).collect();
        let edges: BTreeSet<&Edge> = named.iter().map(|(_, edge)| *edge).collect();
        match edges.len() {
            1 => all.extend(named.iter().map(|(unfit, edge)| (*unfit, (*edge).clone()))),
            0 => wrong.push(not_left_out(text, &acceptable)),
            _ => wrong.push(format!(
                "`{}` names {} edges: write NAMESPACE/KIND/NAME for its ends",
                naming::printable(text),
                edges.len()
            )),
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(Refused::Accept(wrong)) }
}

fn not_left_out(text: &str, acceptable: &[(Unfit, &Edge)]) -> String {
    let text = naming::printable(text);
    let known: BTreeSet<String> = acceptable.iter().map(|(_, edge)| naming::edge(edge)).collect();
    let some: Vec<_> = known.iter().take(5).map(String::as_str).collect();
    match (some.is_empty(), known.len() > some.len()) {
        (true, _) => format!("`{text}` is not among the edges left out, of which there are none: drop it"),
        (false, more) => format!(
            "`{text}` is not among the edges left out that can be accepted: {}{}",
            some.join(", "),
            if more { ", …" } else { "" }
        ),
    }
}

/// Where edges are sorted.
struct Desk<'a> {
    subjects: &'a Subjects,
    pods: HashMap<IpAddr, Arc<WorkloadKey>>,
    taught: BTreeMap<Edge, Lesson>,
    left_out: Vec<LeftOut>,
}

impl Desk<'_> {
    fn learn(&mut self, edge: &Edge, seen: EdgeCounters) {
        if let Some(reason) = self.obstacle(edge) {
            let (flows, samples) = (seen.flows, seen.samples);
            self.left_out.push(LeftOut { reason, edge: Some(edge.clone()), flows, samples });
            return;
        }
        self.teach(edge.clone(), Basis::Learned, Some(seen));
    }

    fn accept(&mut self, edge: &Edge, unfit: Unfit, ledger: &Ledger) {
        let left = ledger.unfit.get(&(unfit, Some(edge.clone()))).cloned().unwrap_or_default();
        let (flows, samples) = (left.sightings.flows(), left.samples);
        if let Some(reason) = self.obstacle(edge) {
            self.left_out.push(LeftOut { reason, edge: Some(edge.clone()), flows, samples });
            return;
        }
        let lesson = self.teach(edge.clone(), Basis::Accepted(unfit), None);
        lesson.accepted_flows += flows;
        lesson.accepted_samples.extend(samples);
        lesson.accepted_samples.sort_unstable();
        lesson.accepted_samples.dedup();
    }

    /// The first basis given to an edge stays.
    fn teach(&mut self, edge: Edge, basis: Basis, seen: Option<EdgeCounters>) -> &mut Lesson {
        self.taught.entry(edge.clone()).or_insert_with(|| Lesson {
            edge,
            basis,
            seen,
            accepted_flows: 0,
            accepted_samples: Vec::new(),
        })
    }

    /// What keeps an edge out of every policy.
    fn obstacle(&self, edge: &Edge) -> Option<LeftOutReason> {
        if Protocol::from_number(edge.protocol).is_none() || edge.port == 0 {
            return Some(LeftOutReason::NotExpressible);
        }
        let mut any_subject = false;
        for party in [&edge.client, &edge.server] {
            match party {
                Party::Workload(key) if self.subjects.find(key).is_some() => any_subject = true,
                Party::Workload(key) => {
                    let known = self.subjects.without_policy.get(&**key).map(|why| why.meaning());
                    return Some(LeftOutReason::NoSubject(known.unwrap_or("the cluster file does not know it")));
                }
                Party::Outside(ip) | Party::Node(ip) if ip.is_unspecified() => {
                    return Some(LeftOutReason::NotExpressible);
                }
                Party::Outside(ip) => {
                    if let Some(key) = self.pods.get(&ip.to_canonical()) {
                        return Some(LeftOutReason::AddressIsAPodNow(key.clone()));
                    }
                }
                Party::Node(_) => {}
            }
        }
        if any_subject { None } else { Some(LeftOutReason::Unfit(Unfit::NoPod)) }
    }

    /// Edges from node addresses: asked about, widened to all nodes, or left out.
    fn nodes(&mut self, cluster: &Cluster, nodes: Option<Nodes>) -> Result<(), Refused> {
        let from_nodes: Vec<Edge> =
            self.taught.keys().filter(|edge| matches!(edge.client, Party::Node(_))).cloned().collect();
        match nodes {
            None if from_nodes.is_empty() => {}
            None => return Err(Refused::NodeIngress(node_ingress(&from_nodes))),
            Some(Nodes::Deny) => {
                for edge in from_nodes {
                    let Some(lesson) = self.taught.remove(&edge) else { continue };
                    let (flows, samples) = lesson.seen.map_or((0, Vec::new()), |seen| (seen.flows, seen.samples));
                    let reason = LeftOutReason::NodesKeptOut;
                    self.left_out.push(LeftOut { reason, edge: Some(edge), flows, samples });
                }
            }
            Some(Nodes::Allow) => {
                let addresses = cluster.nodes.values().flat_map(|node| &node.addresses);
                let addresses: BTreeSet<IpAddr> = addresses.map(IpAddr::to_canonical).collect();
                for edge in from_nodes {
                    for ip in &addresses {
                        self.teach(Edge { client: Party::Node(*ip), ..edge.clone() }, Basis::AnyNode, None);
                    }
                }
            }
        }
        Ok(())
    }

    /// The endpoints of Services that were called, where they are no pods.
    fn service_endpoints(&mut self, ledger: &Ledger, cluster: &Cluster, taken: &Routes) {
        let refused = ledger.refused();
        for edge in routes::endpoints(taken, cluster) {
            if !refused.contains(&edge) && self.obstacle(&edge).is_none() {
                self.teach(edge, Basis::ServiceEndpoint, None);
            }
        }
    }

    /// TCP beside UDP to the DNS pods that were really used.
    fn dns_over_tcp(&mut self, cluster: &Cluster) {
        let mut twins: HashMap<(Arc<WorkloadKey>, u16), Vec<u16>> = HashMap::new();
        let asked: Vec<Edge> = self.taught.keys().filter(|edge| edge.protocol == flow::UDP).cloned().collect();
        for edge in asked {
            let Party::Workload(key) = &edge.server else { continue };
            let ports =
                twins.entry((key.clone(), edge.port)).or_insert_with(|| self.tcp_twins(cluster, key, edge.port));
            for port in ports.clone() {
                self.teach(Edge { protocol: flow::TCP, port, ..edge.clone() }, Basis::DnsOverTcp, None);
            }
        }
    }

    /// The TCP ports of a DNS server at whose UDP port `port` it was asked: 53, or what a Service
    /// maps 53 to where it maps UDP 53 to `port`.
    fn tcp_twins(&self, cluster: &Cluster, server: &WorkloadKey, port: u16) -> Vec<u16> {
        if port == DNS {
            return vec![DNS];
        }
        let Some(subject) = self.subjects.find(server).map(|i| &self.subjects.all()[i]) else { return Vec::new() };
        let pods: Vec<_> = subject.pods.iter().map(|i| &cluster.pods[*i]).collect();
        let mut twins = BTreeSet::new();
        for ((namespace, _), service) in &cluster.services {
            let target = |protocol| {
                let item = service.ports.iter().find(|p| p.port == DNS && p.protocol == protocol)?;
                match &item.target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(name) => pods
                        .iter()
                        .flat_map(|pod| &pod.ports)
                        .filter(|p| p.name.as_ref() == Some(name) && p.protocol == protocol)
                        .map(|p| p.port)
                        .min(),
                }
            };
            if *namespace == server.namespace && pods.iter().any(|pod| service.selects(&pod.labels)) {
                let both = (target(Protocol::Udp), target(Protocol::Tcp));
                twins.extend(both.0.filter(|udp| *udp == port).and(both.1).filter(|tcp| *tcp != 0));
            }
        }
        twins.into_iter().collect()
    }

    fn list_unfit(&mut self, ledger: &Ledger, accepted: &Accepted) {
        for ((unfit, edge), left) in &ledger.unfit {
            if edge.as_ref().is_some_and(|edge| accepted.contains(&(*unfit, edge.clone()))) {
                continue;
            }
            self.left_out.push(LeftOut {
                reason: LeftOutReason::Unfit(*unfit),
                edge: edge.clone(),
                flows: left.sightings.flows(),
                samples: left.samples.clone(),
            });
        }
    }
}

fn node_ingress(edges: &[Edge]) -> Vec<NodeIngress> {
    let mut by_workload: BTreeMap<&Arc<WorkloadKey>, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for edge in edges {
        let Party::Workload(key) = &edge.server else { continue };
        let (ports, clients) = by_workload.entry(key).or_default();
        ports.insert(format!("{}/{}", edge.port, naming::protocol(edge.protocol)));
        clients.insert(naming::party(&edge.client));
    }
    let all = by_workload.into_iter();
    all.map(|(workload, (ports, clients))| NodeIngress {
        workload: workload.clone(),
        ports: ports.into_iter().collect(),
        clients: clients.into_iter().collect(),
    })
    .collect()
}
