//! What stands behind every rule.
//!
//! Always holds: every lesson is under each rule that allows it (at its client's egress and its
//! server's ingress), every rule has at least one lesson, and the JSON is stable: the same lessons
//! give the same bytes.

use crate::{
    blocks::Blocks,
    lessons::{Basis, Lesson, Lessons},
    minimize::port_covers,
    naming,
    subjects::Subjects,
    synthesize::{peer_of, port_of},
};
use model::{
    ledger::Party,
    policy::{NetworkPolicy, Peer, PolicySet, Rule},
    record::RuleName,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    /// The edges it was written for, by peer and port.
    pub proofs: Vec<Proof>,
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
    pub nodes: Vec<String>,
    /// Flow ids, to be asked of the flow log.
    pub samples: Vec<String>,
}

impl Evidence {
    /// The evidence behind `policies`.
    pub fn of(policies: &PolicySet, subjects: &Subjects, lessons: &Lessons) -> Self {
        let by_policy: HashMap<(&str, &str), usize> = subjects
            .all()
            .iter()
            .enumerate()
            .map(|(i, s)| ((s.key.namespace.as_str(), s.policy.as_str()), i))
            .collect();
        let mut into: Vec<Vec<&Lesson>> = vec![Vec::new(); subjects.all().len()];
        let mut out: Vec<Vec<&Lesson>> = into.clone();
        for lesson in &lessons.lessons {
            for (end, list) in [(&lesson.edge.server, &mut into), (&lesson.edge.client, &mut out)] {
                if let Party::Workload(key) = end
                    && let Some(index) = subjects.find(key)
                {
                    list[index].push(lesson);
                }
            }
        }
        let of_policy = |policy: &NetworkPolicy| {
            let index = *by_policy.get(&(policy.namespace.as_str(), policy.name.as_str()))?;
            let ingress = rules("ingress", &policy.ingress, subjects, &into[index], |l| &l.edge.client);
            let egress = rules("egress", &policy.egress, subjects, &out[index], |l| &l.edge.server);
            let workload = naming::workload(&subjects.all()[index].key);
            let rules = ingress.into_iter().chain(egress).collect();
            Some((format!("{}/{}", policy.namespace, policy.name), PolicyEvidence { workload, rules }))
        };
        Self { schema: SCHEMA.to_owned(), policies: policies.policies.iter().filter_map(of_policy).collect() }
    }

    /// The evidence behind one rule.
    pub fn rule(&self, name: &RuleName) -> Option<&[Proof]> {
        let policy = self.policies.get(&format!("{}/{}", name.namespace, name.name))?;
        policy.rules.iter().find(|rule| *rule.rule == *name.rule).map(|rule| rule.proofs.as_slice())
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

fn rules(
    direction: &str,
    rules: &Option<Vec<Rule>>,
    subjects: &Subjects,
    lessons: &[&Lesson],
    peer: impl Fn(&Lesson) -> &Party,
) -> Vec<RuleEvidence> {
    let sought: Vec<_> = lessons
        .iter()
        .filter_map(|lesson| Some((peer_of(subjects, peer(lesson))?, port_of(lesson)?, *lesson)))
        .collect();
    let one = |(index, rule): (usize, &Rule)| {
        let holder = Holder::of(rule);
        let behind = sought
            .iter()
            .filter(|(p, port, _)| holder.holds(p) && rule.ports.iter().any(|of_rule| port_covers(of_rule, port)));
        let proofs = behind.map(|(_, _, lesson)| proof(lesson, peer(lesson))).collect();
        RuleEvidence { rule: format!("{direction}[{index}]"), proofs }
    };
    rules.iter().flatten().enumerate().map(one).collect()
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

fn proof(lesson: &Lesson, peer: &Party) -> Proof {
    let seen = lesson.seen.as_ref();
    let mut samples = seen.map(|s| s.samples.clone()).unwrap_or_default();
    if matches!(lesson.basis, Basis::Accepted(_)) {
        samples.extend_from_slice(&lesson.accepted_samples);
        samples.sort_unstable();
        samples.dedup();
    }
    Proof {
        peer: naming::party_in_full(peer),
        port: lesson.edge.port,
        protocol: naming::protocol(lesson.edge.protocol),
        basis: lesson.basis.name(),
        flows: seen.map_or(lesson.accepted_flows, |s| s.flows),
        first_seen: seen.map(|s| naming::instant(s.first_seen)),
        last_seen: seen.map(|s| naming::instant(s.last_seen)),
        direction_rule: seen.map(|s| s.direction_rule.name().to_owned()),
        adopted_only: seen.is_some_and(|s| s.adopted_only),
        nodes: seen.map(|s| s.nodes.iter().map(|n| naming::printable(n)).collect()).unwrap_or_default(),
        samples: samples.iter().map(|s| naming::printable(s)).collect(),
    }
}
