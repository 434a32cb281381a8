//! The answer for programs; replay.schema.json beside the documentation says what each field means.

use super::{DeniedSide, NotAsked, Replayed, Row, UnseenEdge, Who, unseen::Start};
use crate::{
    replay::text::instant,
    why::{allowed_json, missing_json, policy_json},
};
use ipnet::IpNet;
use model::{cluster::WorkloadKey, reference::Judgement};
use serde_json::{Value, json};
use std::sync::Arc;

impl Replayed {
    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        let not_asked = self.not_asked.iter().map(|(reason, all)| not_asked(reason, all));
        let answer = json!({
            "flows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "missing": self.missing.iter().map(missing_json).collect::<Vec<_>>(),
            "notAsked": not_asked.collect::<Vec<_>>(),
            "neverSeen": {
                "start": match &self.unseen.start {
                    Start::Outside => json!("outside"),
                    Start::Workload(key) => workload(key),
                    Start::Nobody => Value::Null,
                },
                "workloads": self.unseen.workloads,
                "reachable": self.unseen.reachable,
                "reachableUsed": self.unseen.reachable_used,
                "leftOut": self.unseen.left_out.iter().map(workload).collect::<Vec<_>>(),
                "edges": self.unseen.edges.iter().map(edge).collect::<Vec<_>>(),
            },
        });
        // Maps with text keys: writing them to memory cannot fail.
        serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n"
    }
}

fn row(row: &Row) -> Value {
    let end = |who: &Who| match who {
        Who::Workload(key) => workload(key),
        Who::Node(ip) | Who::Outside(ip) => json!({"cidr": IpNet::from(*ip).to_string()}),
        Who::Clients => json!({
            "addresses": row.clients.1,
            "samples": row.clients.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    };
    json!({
        "change": row.change.name(),
        "answered": row.is_answered,
        "from": end(&row.client),
        "to": end(&row.server),
        "protocol": row.protocol.name(),
        "port": row.port,
        "flows": row.flows,
        "firstSeen": instant(row.first_seen),
        "lastSeen": instant(row.last_seen),
        "samples": row.samples,
        "egress": judgement(&row.egress),
        "ingress": judgement(&row.ingress),
        "denied": row.denied.iter().map(denied).collect::<Vec<_>>(),
    })
}

fn judgement(judgement: &Judgement) -> Value {
    match judgement {
        Judgement::NotIsolated => json!({"judgement": "not-isolated"}),
        Judgement::Exempt => json!({"judgement": "exempt"}),
        Judgement::AllowedBy(rules) => {
            json!({"judgement": "allowed", "rules": rules.iter().map(ToString::to_string).collect::<Vec<_>>()})
        }
        Judgement::Denied(policies) => json!({"judgement": "denied", "isolatedBy": policies}),
    }
}

fn denied(side: &DeniedSide) -> Value {
    let mut value = json!({
        "direction": side.direction,
        "owner": workload(&side.owner),
        "policies": side.policies.iter().map(policy_json).collect::<Vec<_>>(),
    });
    if let Some(missing) = side.missing {
        value["missing"] = missing.into();
    }
    if let Some(why) = &side.no_rule {
        value["noRule"] = why.as_str().into();
    }
    value
}

fn not_asked(reason: &str, all: &NotAsked) -> Value {
    json!({"reason": reason, "flows": all.flows, "edges": all.edges, "samples": all.samples})
}

fn edge(edge: &UnseenEdge) -> Value {
    let end = |key: &Option<Arc<WorkloadKey>>| match key {
        Some(key) => workload(key),
        None => json!({"cidrs": edge.cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()}),
    };
    json!({
        "from": end(&edge.from),
        "to": end(&edge.to),
        "allowed": allowed_json(&edge.allowed),
        "usedOtherwise": edge.is_used_otherwise,
        "closes": edge.closes,
        "adds": edge.adds,
    })
}

fn workload(key: &WorkloadKey) -> Value {
    json!({"namespace": key.namespace, "kind": key.kind, "name": key.name})
}
