//! What stands behind every rule.
//!
//! Always holds: every lesson is under each rule that was written for it (at its client's egress and its
//! server's ingress), every rule has at least one lesson, and the JSON is stable: the same lessons
//! give the same bytes.

use crate::{
    blocks::Blocks,
    explain,
    lessons::{Basis, Lesson, Lessons},
    minimize::port_covers,
    naming,
    openings::{Opening, Openings, Way, Wider},
    price::Price,
    routes,
    subjects::Subjects,
};
use jiff::Timestamp;
use model::{
    cluster::Cluster,
    ledger::SAMPLES,
    policy::{NetworkPolicy, Peer, PolicySet, Rule},
    record::{DirectionRule, RuleName},
    routes::Routes,
};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The JSON's schema.
pub const SCHEMA: &str = "podfence.dev/evidence/v1";

/// Evidence of a policy set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// [`SCHEMA`].
    pub schema: String,
    /// By `namespace/name`.
    pub policies: BTreeMap<String, PolicyEvidence>,
}

/// Evidence of one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyEvidence {
    /// `namespace/Kind/name` of whom it is for.
    pub workload: String,
    /// Its rules in order, ingress before egress.
    pub rules: Vec<RuleEvidence>,
}

/// Evidence of one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleEvidence {
    /// `ingress[0]`.
    pub rule: String,
    /// What the rule says: its peers and ports. By this, not by its place, it is known in another run's evidence.
    #[serde(default)]
    pub allows: String,
    /// The edges it was written for, by peer and port.
    pub proofs: Vec<Proof>,
    /// What it allows beyond them, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wider: Vec<Generalisation>,
}

/// How far a rule goes beyond what was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generalisation {
    /// What it opens, as the summary names it.
    pub opens: String,
    /// Why.
    pub because: Vec<String>,
    /// How many connections that nobody observed.
    pub price: Price,
}

/// One edge behind a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The other end: `namespace/Kind/name`, `node ADDRESS`, `outside ADDRESS`.
    pub peer: String,
    /// The server's port.
    pub port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// `learned`, `accepted (REASON)`, or the name of a generalisation.
    pub basis: String,
    /// Flows, 0 for a generalisation.
    pub flows: u64,
    /// First packet, RFC 3339; absent where nothing says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<String>,
    /// Last packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// The surest way in which the direction became known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction_rule: Option<String>,
    /// The connections were older than their observation, every one.
    pub adopted_only: bool,
    /// Nodes that saw it.
    #[serde(with = "texts")]
    pub nodes: Vec<Arc<str>>,
    /// Flow ids, to be asked of the flow log.
    #[serde(with = "texts")]
    pub samples: Vec<Arc<str>>,
    /// `namespace/name` of the Services through which the client called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The DNS names that led the client to the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
}

impl Evidence {
    /// The evidence behind `policies`.
    pub fn of(
        policies: &PolicySet,
        cluster: &Cluster,
        subjects: &Subjects,
        lessons: &Lessons,
        openings: &Openings,
        routes: &Routes,
    ) -> Self {
        let proofs = Proofs { cluster, subjects, lessons, routes };
        let by_policy: HashMap<(&str, &str), usize> = subjects
            .all()
            .iter()
            .enumerate()
            .map(|(i, s)| ((s.key.namespace.as_str(), s.policy.as_str()), i))
            .collect();
        let mut sides: HashMap<(usize, Way), Vec<&Opening>> = HashMap::new();
        for opening in &openings.all {
            sides.entry((opening.subject, opening.way)).or_default().push(opening);
        }
        let of_policy = |policy: &NetworkPolicy| {
            let name = format!("{}/{}", policy.namespace, policy.name);
            let Some(index) = by_policy.get(&(policy.namespace.as_str(), policy.name.as_str())) else {
                return (name, PolicyEvidence { workload: every_pod(&policy.namespace), rules: Vec::new() });
            };
            let side = |way: Way, of_way: &Option<Vec<Rule>>| {
                let openings = sides.get(&(*index, way)).map_or(&[][..], Vec::as_slice);
                rules(way, of_way.as_deref().unwrap_or_default(), &proofs, openings)
            };
            let (ingress, egress) = (side(Way::Ingress, &policy.ingress), side(Way::Egress, &policy.egress));
            let workload = naming::workload(&subjects.all()[*index].key);
            (name, PolicyEvidence { workload, rules: ingress.into_iter().chain(egress).collect() })
        };
        Self { schema: SCHEMA.to_owned(), policies: policies.policies.iter().map(of_policy).collect() }
    }

    /// The evidence behind one rule.
    pub fn rule(&self, name: &RuleName) -> Option<&RuleEvidence> {
        let policy = self.policies.get(&format!("{}/{}", name.namespace, name.name))?;
        policy.rules.iter().find(|rule| *rule.rule == *name.rule)
    }

    /// Adds what another run's evidence, or another cluster's, says of the same rules: a rule is the same where its
    /// policy, direction and text are. Of an edge that both know the earlier first and the later last packet count,
    /// the larger number of flows (two runs may have read the same log), the nodes and samples of both. So any order,
    /// grouping and repetition of evidence for one set of policies gives the same bytes. What is for no rule here is
    /// returned, a line each.
    pub fn merge(&mut self, other: &Self) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, theirs) in &other.policies {
            let mut ours = self.policies.get_mut(name);
            for rule in &theirs.rules {
                let same = |own: &&mut RuleEvidence| (own.way(), &own.allows) == (rule.way(), &rule.allows);
                match ours.as_mut().and_then(|ours| ours.rules.iter_mut().find(same)) {
                    Some(own) => own.merge(rule),
                    None => missing.push(format!("{name} {} {}: no such rule here", rule.way(), rule.allows)),
                }
            }
        }
        missing.iter_mut().for_each(|line| *line = naming::printable(line));
        missing
    }

    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        crate::render::json(self)
    }

    /// What [`Evidence::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|why| why.to_string())?;
        match read.schema == SCHEMA {
            true => Ok(read),
            false => Err(format!("its schema is {}, not {SCHEMA}", naming::printable(&read.schema))),
        }
    }
}

impl RuleEvidence {
    /// `ingress` or `egress`.
    fn way(&self) -> &str {
        self.rule.split_once('[').map_or(self.rule.as_str(), |(way, _)| way)
    }

    fn merge(&mut self, other: &Self) {
        for theirs in &other.proofs {
            match self.proofs.iter_mut().find(|own| own.key() == theirs.key()) {
                Some(own) => own.merge(theirs),
                None => self.proofs.push(theirs.clone()),
            }
        }
        self.proofs.sort_by(|a, b| a.key().cmp(&b.key()));
    }
}

impl Proof {
    /// What it proves, in the order in which proofs stand.
    fn key(&self) -> (&str, &str, u16, &str) {
        (&self.peer, &self.protocol, self.port, &self.basis)
    }

    fn merge(&mut self, other: &Self) {
        self.flows = self.flows.max(other.flows);
        let earlier = |own: &Option<String>, theirs: &Option<String>| outermost(own, theirs, Ordering::Less);
        let later = |own: &Option<String>, theirs: &Option<String>| outermost(own, theirs, Ordering::Greater);
        (self.first_seen, self.last_seen) =
            (earlier(&self.first_seen, &other.first_seen), later(&self.last_seen, &other.last_seen));
        let surer = [&self.direction_rule, &other.direction_rule].into_iter().flatten();
        let rank = |name: &&String| name.parse::<DirectionRule>().map_or((1, None), |rule| (0, Some(rule)));
        self.direction_rule = surer.min_by_key(|name| (rank(name), (*name).clone())).cloned();
        self.adopted_only &= other.adopted_only;
        union_of(&mut self.nodes, &other.nodes, usize::MAX);
        union_of(&mut self.samples, &other.samples, SAMPLES);
        union_of(&mut self.services, &other.services, usize::MAX);
        union_of(&mut self.dns_names, &other.dns_names, SAMPLES);
    }
}

/// Of two instants, the one that lies further out; text of different lengths has not the order of the times it means.
fn outermost(a: &Option<String>, b: &Option<String>, wanted: Ordering) -> Option<String> {
    let order = |text: &String| (text.parse::<Timestamp>().ok(), text.clone());
    match (a, b) {
        (Some(a), Some(b)) => Some(if order(b).cmp(&order(a)) == wanted { b } else { a }.clone()),
        (one, other) => one.as_ref().or(other.as_ref()).cloned(),
    }
}

fn union_of<T: Clone + Ord>(ours: &mut Vec<T>, theirs: &[T], most: usize) {
    ours.extend_from_slice(theirs);
    ours.sort_unstable();
    ours.dedup();
    ours.truncate(most);
}

/// For whom a namespace's default-deny is.
fn every_pod(namespace: &str) -> String {
    naming::printable(&format!("every pod of {namespace}"))
}

/// What proofs are made of.
struct Proofs<'a> {
    cluster: &'a Cluster,
    subjects: &'a Subjects,
    lessons: &'a Lessons,
    routes: &'a Routes,
}

fn rules(way: Way, rules: &[Rule], proofs: &Proofs<'_>, openings: &[&Opening]) -> Vec<RuleEvidence> {
    let subjects = proofs.subjects;
    let sought: Vec<_> = openings.iter().map(|o| (o.peer(subjects), o.port(), *o)).collect();
    let one = |(index, rule): (usize, &Rule)| {
        let holder = Holder::of(rule);
        let behind: Vec<&Opening> = sought
            .iter()
            .filter(|(p, port, _)| holder.holds(p) && rule.ports.iter().any(|of_rule| port_covers(of_rule, port)))
            .map(|(.., opening)| *opening)
            .collect();
        let lessons_behind: BTreeSet<usize> = behind.iter().flat_map(|opening| &opening.lessons).copied().collect();
        let proof = |lesson: usize| proofs.proof(&proofs.lessons.lessons[lesson], way);
        let wider = behind.iter().filter(|opening| !opening.wider.is_empty());
        RuleEvidence {
            rule: format!("{}[{index}]", way.name()),
            allows: explain::rule(way, rule),
            proofs: in_order(lessons_behind.into_iter().map(proof).collect()),
            wider: wider.map(|opening| generalisation(opening, subjects)).collect(),
        }
    };
    rules.iter().enumerate().map(one).collect()
}

fn in_order(mut proofs: Vec<Proof>) -> Vec<Proof> {
    proofs.sort_by(|a, b| a.key().cmp(&b.key()));
    proofs
}

fn generalisation(opening: &Opening, subjects: &Subjects) -> Generalisation {
    Generalisation {
        opens: opening.name(subjects),
        because: opening.wider.iter().map(Wider::meaning).collect(),
        price: opening.price,
    }
}

/// A rule's peers, ready to be asked about many.
struct Holder<'r> {
    peers: &'r [Peer],
    pods: BTreeSet<&'r Peer>,
    blocks: Blocks,
}

impl<'r> Holder<'r> {
    fn of(rule: &'r Rule) -> Self {
        let pods = rule.peers.iter().filter(|peer| matches!(peer, Peer::Pods { .. })).collect();
        Self { peers: &rule.peers, pods, blocks: Blocks::of(&rule.peers) }
    }

    fn holds(&self, peer: &Peer) -> bool {
        let Peer::Block { cidr: one, .. } = peer else { return self.pods.contains(peer) };
        let outside_of = |place: usize| match &self.peers[place] {
            Peer::Block { except, .. } => except.iter().any(|hole| hole.contains(one)),
            Peer::Pods { .. } => true,
        };
        self.blocks.holding(one.addr()).any(|place| !outside_of(place))
    }
}

impl Proofs<'_> {
    fn proof(&self, lesson: &Lesson, way: Way) -> Proof {
        let edge = &lesson.edge;
        let peer = if way == Way::Ingress { &edge.client } else { &edge.server };
        let server = self.subjects.at(&edge.server).map(|index| &self.subjects.all()[index]);
        let seen = lesson.seen.as_ref();
        let mut samples = seen.map(|s| s.samples.clone()).unwrap_or_default();
        if matches!(lesson.basis, Basis::Accepted(_)) {
            samples.extend_from_slice(&lesson.accepted_samples);
            samples.sort_unstable();
            samples.dedup();
        }
        let shared = |text: &Arc<str>| match naming::printable(text) {
            printable if printable == **text => text.clone(),
            printable => printable.into(),
        };
        let printable = |all: Vec<String>| all.iter().map(|text| naming::printable(text)).collect();
        Proof {
            peer: naming::party_in_full(peer),
            port: edge.port,
            protocol: naming::protocol(edge.protocol),
            basis: lesson.basis.name(),
            flows: seen.map_or(lesson.accepted_flows, |s| s.flows),
            first_seen: seen.map(|s| naming::instant(s.first_seen)),
            last_seen: seen.map(|s| naming::instant(s.last_seen)),
            direction_rule: seen.map(|s| s.direction_rule.name().to_owned()),
            adopted_only: seen.is_some_and(|s| s.adopted_only),
            nodes: seen.map(|s| s.nodes.iter().map(shared).collect()).unwrap_or_default(),
            samples: samples.iter().map(shared).collect(),
            services: printable(routes::services(self.routes, edge, server, self.cluster)),
            dns_names: printable(routes::names(self.routes, edge)),
        }
    }
}

/// Texts that very many proofs share, as JSON.
mod texts {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(texts: &[Arc<str>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(texts.iter().map(|text| &**text))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Arc<str>>, D::Error> {
        Ok(Vec::<String>::deserialize(from)?.into_iter().map(Arc::from).collect())
    }
}
