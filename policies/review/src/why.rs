//! Why a connection may or may not be opened: both directions, every policy and rule that takes part,
//! and where it is denied the nearest rule that is missing.
//!
//! Always holds: the verdict is the reference evaluator's for every pair of pods it is given for; each
//! rule named as allowing would do so alone; a missing rule is shown only after the policies with it
//! were read back from YAML and the reference evaluator found the connection allowed.

mod asked;
mod json;
mod judge;
mod text;

pub(crate) use asked::find;
pub(crate) use json::{allowed as allowed_json, missing as missing_json, policy as policy_json};
pub(crate) use text::place_text;

pub use asked::{AskedPort, Named, PortName, Problem, Target};

use crate::{
    Allowed, Direction, Evidence, EvidenceOf, Input, Reach, RuleRef, Sets, Universe,
    missing::{self, Missing, PeerEnd},
};
use asked::{Member, Who};
use model::{
    cluster::{Cluster, Pod, Source, WorkloadKey},
    policy::{NetworkPolicy, PolicySet, Port, PortMatch},
    record::RuleName,
    reference::{Endpoint, Reference},
};
use std::{borrow::Cow, net::IpAddr};

/// What is asked: may `from` open a connection to `to`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub from: Named,
    /// The server and the port.
    pub to: Target,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// For all pods asked about.
    Allowed,
    /// For all pods asked about.
    Denied,
    /// Pods of one workload differ: the cases tell which.
    Differs,
}

impl Verdict {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Differs => "differs",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    /// The client as it was found.
    pub from: Asked,
    /// The server.
    pub to: Asked,
    /// The port, if one was asked about.
    pub port: Option<AskedPort>,
    /// For all cases.
    pub verdict: Verdict,
    /// Pods that are treated alike; one where none differ.
    pub cases: Vec<Case>,
    /// What would have to be added, each once.
    pub missing: Vec<Missing>,
    /// What the API leaves open or policy does not judge, and what podfence does.
    pub notes: Vec<String>,
}

/// An end of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// In full: `shop/Deployment/web`, `shop/Pod/web-1`, an address.
    pub name: String,
    /// Whose pods.
    pub workload: Option<WorkloadKey>,
    /// The pod, where one alone was asked for.
    pub pod: Option<String>,
    /// The address, where one was asked for.
    pub address: Option<IpAddr>,
}

/// Pods between which the same is said for the same reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Clients: pods, or the address.
    pub from: Vec<String>,
    /// Servers.
    pub to: Vec<String>,
    /// The number of the port at these servers, where it was asked for by name.
    pub number: Option<u16>,
    /// Where a port is asked about: whether it is open. Else whether any is.
    pub is_allowed: bool,
    /// Every port that is open from these clients to these servers.
    pub allowed: Allowed,
    /// The client's side.
    pub egress: Side,
    /// The server's.
    pub ingress: Side,
}

/// One direction of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// What is said.
    pub judgement: Judgement,
    /// The policies that isolate these pods in this direction.
    pub isolated_by: Vec<PolicyPlace>,
    /// The rules that let it pass; each is enough. Without a port: all that open some port.
    pub rules: Vec<RulePlace>,
    /// Where it is denied: rules that would fit but for one thing.
    pub near: Vec<NearRule>,
    /// Where it is denied: why no missing rule can be written.
    pub no_rule: Option<String>,
    /// Where it is denied: which of [`Why::missing`] would open it.
    pub missing: Option<usize>,
}

/// What one side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Judgement {
    /// Rules allow it.
    Allowed,
    /// No policy isolates these pods in this direction.
    NotIsolated,
    /// No pod that policies could select: an address, or a hostNetwork pod.
    NoPod,
    /// A pod to itself: no policy is asked.
    Exempt,
    /// Isolated, and no rule allows it.
    Denied,
}

impl Judgement {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NotIsolated => "not-isolated",
            Self::NoPod => "no-pod",
            Self::Exempt => "exempt",
            Self::Denied => "denied",
        }
    }

    /// Whether this side lets the connection pass.
    pub fn allows(self) -> bool {
        self != Self::Denied
    }
}

/// A policy and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPlace {
    /// `namespace/name`.
    pub name: String,
    /// File and line.
    pub source: Option<Source>,
}

/// A rule and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct RulePlace {
    /// The rule.
    pub name: RuleName,
    /// File and line.
    pub source: Option<Source>,
    /// What it opens at these servers, whoever its peers are.
    pub opens: Allowed,
    /// What was seen of it.
    pub evidence: Option<Evidence>,
}

/// A rule that nearly fits.
#[derive(Clone, Debug, PartialEq)]
pub struct NearRule {
    /// The rule.
    pub rule: RulePlace,
    /// What does not fit.
    pub but: But,
}

/// Why a rule does not let a connection pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum But {
    /// The other end is its peer, the port is none of its ports.
    OtherPort,
    /// It opens the port, but not for the other end.
    OtherPeer,
}

impl But {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherPort => "other-port",
            Self::OtherPeer => "other-peer",
        }
    }
}

/// Answers a question about the input.
pub fn why(input: Input<'_>, question: &Question, evidence: EvidenceOf<'_>) -> Result<Why, Problem> {
    let universe = Universe::of(&[input]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let asker = Asker { input, universe: &universe, reach: &reach, evidence };
    asker.answer(question)
}

struct Asker<'a, 'c> {
    input: Input<'c>,
    universe: &'a Universe<'c>,
    reach: &'a Reach<'a, 'c>,
    evidence: EvidenceOf<'a>,
}

impl Asker<'_, '_> {
    fn answer(&self, question: &Question) -> Result<Why, Problem> {
        let from = asked::find(self.universe, &question.from)?;
        let to = asked::find(self.universe, &question.to.end)?;
        let groups = judge::groups(self.universe, self.reach, &from, &to, question.to.port.as_ref())?;
        let mut missing: Vec<Missing> = Vec::new();
        let ends = self.input.cluster.ends();
        let mut cases: Vec<Case> = Vec::new();
        for group in &groups {
            let mut case = self.case(group);
            if group.port.is_some() {
                for direction in [Direction::Egress, Direction::Ingress] {
                    self.find_missing(&ends, group, (&from, &to), direction, question, &mut case, &mut missing);
                }
            }
            cases.push(case);
        }
        if !self.would_allow(&groups, &cases, &missing) {
            for side in cases.iter_mut().flat_map(|case| [&mut case.egress, &mut case.ingress]) {
                if side.missing.take().is_some() {
                    side.no_rule = Some("no rule was found that opens this and nothing else".to_owned());
                }
            }
            missing.clear();
        }
        let verdict = match cases.iter().filter(|case| case.is_allowed).count() {
            0 => Verdict::Denied,
            n if n == cases.len() => Verdict::Allowed,
            _ => Verdict::Differs,
        };
        let notes = self.notes(&from, &to, &groups);
        let port = question.to.port.clone();
        Ok(Why { from: self.asked(&from), to: self.asked(&to), port, verdict, cases, missing, notes })
    }

    fn asked(&self, who: &Who) -> Asked {
        let first = who.members.first().filter(|_| who.is_one);
        Asked {
            name: who.name.clone(),
            workload: who.workload.clone(),
            pod: first.and_then(|member| self.pod(member)).map(|pod| pod.name.clone()),
            address: first.and_then(|member| member.address),
        }
    }

    fn pod(&self, member: &Member) -> Option<&Pod> {
        member.pod.map(|at| &*self.universe.pods(0)[at].0)
    }

    fn case(&self, group: &judge::Group) -> Case {
        let (egress, ingress) = (self.side(group, Direction::Egress), self.side(group, Direction::Ingress));
        let allowed = match group.is_itself {
            true => Allowed::all(),
            false => self.reach.sets().get(group.allowed),
        };
        let is_allowed = match group.port {
            Some(_) => egress.judgement.allows() && ingress.judgement.allows(),
            None => !allowed.is_empty(),
        };
        let names = |members: &[Member]| members.iter().map(|member| member.name.clone()).collect();
        Case {
            from: names(&group.from),
            to: names(&group.to),
            number: group.port.filter(|_| group.is_port_named).map(|(_, number)| number),
            is_allowed,
            allowed,
            egress,
            ingress,
        }
    }

    fn side(&self, group: &judge::Group, direction: Direction) -> Side {
        let facts = match direction {
            Direction::Egress => &group.facts.egress,
            Direction::Ingress => &group.facts.ingress,
        };
        let place = |index: usize| self.input.policies.policies.get(index).map(policy_place);
        Side {
            judgement: facts.judgement,
            isolated_by: facts.isolated_by.iter().filter_map(|index| place(*index)).collect(),
            rules: facts.rules.iter().filter_map(|(rule, opens)| self.rule(*rule, *opens)).collect(),
            near: facts
                .near
                .iter()
                .filter_map(|(rule, opens, but)| Some(NearRule { rule: self.rule(*rule, *opens)?, but: *but }))
                .collect(),
            no_rule: None,
            missing: None,
        }
    }

    fn rule(&self, rule: RuleRef, opens: crate::SetId) -> Option<RulePlace> {
        let (policy, written) = self.reach.rule(rule)?;
        let name = self.reach.rule_name(rule)?;
        let evidence = (self.evidence)(&name);
        let source = written.source.clone().or_else(|| policy.source.clone());
        Some(RulePlace { name, source, opens: self.reach.sets().get(opens), evidence })
    }

    #[allow(clippy::too_many_arguments)]
    fn find_missing(
        &self,
        ends: &[Cow<'_, Pod>],
        group: &judge::Group,
        (from, to): (&Who, &Who),
        direction: Direction,
        question: &Question,
        case: &mut Case,
        missing: &mut Vec<Missing>,
    ) {
        let (side, own, peer) = match direction {
            Direction::Egress => (&mut case.egress, (from, &group.from), (to, &group.to)),
            Direction::Ingress => (&mut case.ingress, (to, &group.to), (from, &group.from)),
        };
        let (Judgement::Denied, Some((protocol, number))) = (side.judgement, group.port) else { return };
        let Some(workload) = &own.0.workload else { return };
        let pods = |members: &[Member]| {
            let mut at: Vec<usize> = members.iter().filter_map(|member| member.pod).collect();
            at.dedup();
            at.into_iter().map(|at| &*self.universe.pods(0)[at].0).collect::<Vec<&Pod>>()
        };
        let peers = pods(peer.1);
        let peer = match &peer.0.workload {
            Some(key) if peers.iter().all(|pod| !pod.host_network) => PeerEnd::Pods(key, peers),
            Some(_) => PeerEnd::Addresses(families(peer.1, &peers, &pods(own.1))),
            None => PeerEnd::Addresses(peer.1.iter().filter_map(|member| member.address).collect()),
        };
        let port = match question.to.port.as_ref().map(|asked| &asked.port) {
            Some(PortName::Name(name)) => PortMatch::Named(name.clone()),
            _ => PortMatch::Range(number, number),
        };
        let needed = missing::Side { direction, workload, pods: pods(own.1), peer, port: Port { protocol, port } };
        match missing::find(self.input, ends, &needed, missing) {
            Err(why_not) => side.no_rule = Some(why_not),
            Ok(index) => side.missing = Some(index),
        }
    }

    /// Whether the policies with what is missing, written as YAML and read back, allow on each side of
    /// every pair what they allowed and that for which something is missing.
    fn would_allow(&self, groups: &[judge::Group], cases: &[Case], missing: &[Missing]) -> bool {
        if missing.is_empty() {
            return true;
        }
        let Some(policies) = missing::with_all(self.input.policies, missing) else { return false };
        let reference = Reference::new(self.input.cluster, &policies);
        groups.iter().zip(cases).all(|(group, case)| {
            let Some((protocol, port)) = group.port else { return true };
            group.pairs(self.universe).all(|(from, to)| {
                let decision = reference.decide(from, to, Some(protocol), port);
                let stays_denied = |side: &Side| side.judgement == Judgement::Denied && side.missing.is_none();
                (decision.egress.allows() || stays_denied(&case.egress))
                    && (decision.ingress.allows() || stays_denied(&case.ingress))
            })
        })
    }

    fn notes(&self, from: &Who, to: &Who, groups: &[judge::Group]) -> Vec<String> {
        let mut notes = Vec::new();
        if groups.iter().any(|group| group.is_itself) {
            notes.push("a pod always reaches itself: no policy is asked, and podfence passes it".to_owned());
        } else if from.workload.is_some() && from.workload == to.workload {
            notes.push("this is about two pods of one workload; a pod always reaches itself".to_owned());
        }
        for who in [from, to] {
            notes.extend(self.notes_on(who));
        }
        let on_host = |who: &Who| who.members.iter().filter_map(|m| self.pod(m)).any(|pod| pod.host_network);
        let from_node = from.members.iter().any(|member| member.address.is_some_and(|ip| self.node_at(ip).is_some()));
        if to.workload.is_some() && !on_host(to) && (on_host(from) || from_node) {
            notes.push(
                "what a node itself sends to its own pods always passes (the kubelet's probes); what is said here is \
                 for pods of other nodes, and for whatever a node merely forwards"
                    .to_owned(),
            );
        }
        let told = notes.clone();
        let mut at = 0..;
        notes.retain(|note| at.next().is_some_and(|at| !told[..at].contains(note)));
        notes
    }

    fn notes_on(&self, who: &Who) -> Vec<String> {
        let mut notes = Vec::new();
        let pods: Vec<&Pod> = who.members.iter().filter_map(|member| self.pod(member)).collect();
        if pods.iter().any(|pod| pod.host_network) {
            notes.push(format!(
                "{} is on the host network: no policy selects its pods, and as a peer they are their node's address",
                who.name
            ));
            if pods.iter().any(|pod| pod.host_network && pod.addresses.is_empty()) {
                notes.push(format!(
                    "the input does not tell the node's address of {}, so that no ipBlock is found to hold it",
                    who.name
                ));
            }
        } else if !pods.is_empty() && pods.iter().all(|pod| pod.is_stand_in()) {
            notes.push(format!("no pod of {} is in the input: its pod template stands for one", who.name));
        }
        if let [Member { pod: None, address: Some(address), .. }] = who.members[..] {
            match self.node_at(address) {
                Some(node) => notes.push(format!("{address} is node {node}: no policy selects a node")),
                None => notes.push(format!("{address} is no pod of the input: no policy selects it")),
            }
        }
        notes
    }

    fn node_at(&self, address: IpAddr) -> Option<&str> {
        let cluster: &Cluster = self.input.cluster;
        let has = |node: &model::cluster::Node| node.addresses.iter().any(|ip| ip.to_canonical() == address);
        cluster.nodes.iter().find(|(_, node)| has(node)).map(|(name, _)| name.as_str())
    }
}

/// The addresses of hostNetwork peers, of families that the other pods may have.
fn families(members: &[Member], peers: &[&Pod], own: &[&Pod]) -> Vec<IpAddr> {
    let asked: Vec<IpAddr> = members.iter().filter_map(|member| member.address).collect();
    let mut all: Vec<IpAddr> = match asked.is_empty() {
        false => asked,
        true => peers.iter().flat_map(|pod| &pod.addresses).map(IpAddr::to_canonical).collect(),
    };
    let known: Vec<bool> = own.iter().flat_map(|pod| &pod.addresses).map(IpAddr::is_ipv4).collect();
    // A pod without an address yet may get one of either family.
    let open = own.iter().any(|pod| pod.addresses.is_empty());
    all.retain(|ip| open || known.is_empty() || known.contains(&ip.is_ipv4()));
    all.sort_unstable();
    all.dedup();
    all
}

pub(crate) fn policy_place(policy: &NetworkPolicy) -> PolicyPlace {
    PolicyPlace { name: format!("{}/{}", policy.namespace, policy.name), source: policy.source.clone() }
}

/// A pod or an address as the reference evaluator takes it. A pod without an address (a template, a
/// manifest) gets one that no rule's block of its own could tell: of its family, not specified.
fn endpoint<'p>(universe: &'p Universe<'_>, member: &Member, is_v4: bool) -> Endpoint<'p> {
    let Some(at) = member.pod else {
        let unspecified = std::net::Ipv4Addr::UNSPECIFIED.into();
        return Endpoint::Address(member.address.unwrap_or(unspecified));
    };
    let pod = &*universe.pods(0)[at].0;
    let address =
        member.address.or_else(|| pod.addresses.iter().find(|ip| ip.to_canonical().is_ipv4() == is_v4).copied());
    Endpoint::Pod(pod, address.unwrap_or_else(|| unspecified(is_v4)))
}

fn unspecified(is_v4: bool) -> IpAddr {
    if is_v4 { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

impl Why {
    /// The policies with everything that is missing.
    pub fn with_missing(&self, policies: &PolicySet) -> PolicySet {
        let mut all = policies.clone();
        self.missing.iter().for_each(|one| one.add_to(&mut all));
        all
    }
}
