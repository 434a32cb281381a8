//! What a policy set would have done to recorded flows.
//!
//! Always holds: the answer is the reference evaluator's, for the pods that held the addresses when
//! the flow was seen; a flow that cannot be asked about says why, and is neither allowed nor denied.

use crate::naming;
use model::{
    cluster::{Cluster, Pod},
    policy::{PolicySet, Protocol},
    record::{End, Entity, FlowRecord, FlowVerdict},
    reference::{Decision, Endpoint, Judgement, Reference},
};
use std::collections::{BTreeMap, HashMap};

/// What becomes of one flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The flow.
    pub flow_id: String,
    /// Its ends as a person names them.
    pub edge: String,
    /// The change.
    pub outcome: Outcome,
}

/// How a recorded flow fares under the policies.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It passed, and passes.
    StillAllowed(Decision),
    /// It passed, and would be denied.
    NewlyDenied(Decision),
    /// It was denied, and would pass.
    NewlyAllowed(Decision),
    /// It was denied (or would have been, had the mode been enforce), and stays so.
    StillDenied(Decision),
    /// It cannot be asked about; why.
    NotAsked(&'static str),
}

impl Outcome {
    /// A stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StillAllowed(_) => "still-allowed",
            Self::NewlyDenied(_) => "newly-denied",
            Self::NewlyAllowed(_) => "newly-allowed",
            Self::StillDenied(_) => "still-denied",
            Self::NotAsked(_) => "not-asked",
        }
    }

    /// The reason, with the rules or policies that decide.
    pub fn reason(&self) -> String {
        match self {
            Self::NotAsked(why) => (*why).to_owned(),
            Self::StillAllowed(d) | Self::NewlyDenied(d) | Self::NewlyAllowed(d) | Self::StillDenied(d) => {
                format!("egress {}; ingress {}", because(&d.egress), because(&d.ingress))
            }
        }
    }
}

fn because(judgement: &Judgement) -> String {
    match judgement {
        Judgement::NotIsolated => "not isolated".to_owned(),
        Judgement::Exempt => "always passes".to_owned(),
        Judgement::AllowedBy(rules) => {
            let rules: Vec<String> = rules.iter().map(|rule| naming::printable(&rule.to_string())).collect();
            format!("allowed by {}", rules.join(", "))
        }
        Judgement::Denied(policies) => {
            let policies: Vec<String> = policies.iter().map(|name| naming::printable(name)).collect();
            format!("denied: no rule of {} allows it", policies.join(", "))
        }
    }
}

/// Asks the policies about every flow, each once (by its first row), in order of flow id.
pub fn replay<'r>(
    policies: &PolicySet,
    cluster: &Cluster,
    records: impl IntoIterator<Item = &'r FlowRecord>,
) -> Vec<Replayed> {
    let reference = Reference::new(cluster, policies);
    let by_uid: HashMap<&str, &Pod> = cluster.pods.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
    let mut flows: BTreeMap<&str, &FlowRecord> = BTreeMap::new();
    for record in records {
        let kept = flows.entry(&record.flow_id).or_insert(record);
        if (record.event.start, record.event.end) < (kept.event.start, kept.event.end) {
            *kept = record;
        }
    }
    let one = |record: &FlowRecord| Replayed {
        flow_id: record.flow_id.clone(),
        edge: described(record),
        outcome: outcome(&reference, &by_uid, record),
    };
    flows.into_values().map(one).collect()
}

fn described(record: &FlowRecord) -> String {
    let end = |end: &End| match &end.workload {
        Some(key) => naming::printable(&format!("{}/{}", key.namespace, key.name)),
        None => end.ip.to_string(),
    };
    let protocol = naming::protocol(record.event.key.protocol);
    format!("{}->{}:{}/{protocol}", end(&record.client), end(&record.server), record.server.port)
}

fn outcome(reference: &Reference<'_>, by_uid: &HashMap<&str, &Pod>, record: &FlowRecord) -> Outcome {
    let (client, server) = match (endpoint(&record.client, by_uid), endpoint(&record.server, by_uid)) {
        (Ok(client), Ok(server)) => (client, server),
        (Err(why), _) | (_, Err(why)) => return Outcome::NotAsked(why),
    };
    let protocol = Protocol::from_number(record.event.key.protocol);
    let decision = reference.decide(client, server, protocol, record.server.port);
    let denied_then = matches!(record.event.verdict, FlowVerdict::Deny | FlowVerdict::AuditDeny | FlowVerdict::Revoked);
    match (denied_then, decision.allows()) {
        (false, true) => Outcome::StillAllowed(decision),
        (false, false) => Outcome::NewlyDenied(decision),
        (true, true) => Outcome::NewlyAllowed(decision),
        (true, false) => Outcome::StillDenied(decision),
    }
}

fn endpoint<'p>(end: &End, by_uid: &HashMap<&str, &'p Pod>) -> Result<Endpoint<'p>, &'static str> {
    match end.entity {
        Entity::Pod => {
            let uid = end.pod_uid.as_deref().ok_or("a pod without UID in the log")?;
            let pod = by_uid.get(uid).ok_or("a pod that the cluster file does not hold")?;
            Ok(Endpoint::Pod(pod, end.ip))
        }
        Entity::Node | Entity::Outside => Ok(Endpoint::Address(end.ip)),
        Entity::Service => Err("a Service's address: its backend is not in the log"),
        Entity::Unknown => Err("an end that could not be attributed"),
    }
}
