//! The answer for programs; why.schema.json beside the documentation says what each field means.

use super::{Asked, AskedPort, Case, NearRule, PolicyPlace, PortName, RulePlace, Side, Why};
use crate::{Allowed, ports_text};
use model::{cluster::Source, policy::Protocol};
use serde_json::{Map, Value, json};

impl Why {
    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        let mut answer = Map::new();
        answer.insert("from".to_owned(), asked(&self.from));
        answer.insert("to".to_owned(), asked(&self.to));
        if let Some(port) = &self.port {
            answer.insert("port".to_owned(), asked_port(port));
        }
        answer.insert("verdict".to_owned(), self.verdict.name().into());
        answer.insert("cases".to_owned(), self.cases.iter().map(case).collect());
        answer.insert("missing".to_owned(), self.missing.iter().map(missing).collect());
        answer.insert("notes".to_owned(), self.notes.clone().into());
        // Maps with text keys: writing them to memory cannot fail.
        serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n"
    }
}

fn asked(asked: &Asked) -> Value {
    let mut end = match (&asked.workload, asked.address) {
        (Some(key), _) => json!({"namespace": key.namespace, "kind": key.kind, "name": key.name}),
        (None, Some(address)) => json!({"cidr": ipnet::IpNet::from(address).to_string()}),
        (None, None) => json!({}),
    };
    if let Some(pod) = &asked.pod {
        end["pod"] = pod.as_str().into();
        if let Some(address) = asked.address {
            end["address"] = address.to_string().into();
        }
    }
    end
}

fn asked_port(port: &AskedPort) -> Value {
    let number: Value = match &port.port {
        PortName::Number(number) => (*number).into(),
        PortName::Name(name) => name.as_str().into(),
    };
    json!({"protocol": port.protocol.name(), "port": number})
}

fn case(case: &Case) -> Value {
    let mut value = json!({
        "from": case.from,
        "to": case.to,
        "verdict": if case.is_allowed { "allowed" } else { "denied" },
        "allowed": allowed(&case.allowed),
        "egress": side(&case.egress),
        "ingress": side(&case.ingress),
    });
    if let Some(number) = case.number {
        value["number"] = number.into();
    }
    value
}

fn side(side: &Side) -> Value {
    let mut value = json!({
        "judgement": side.judgement.name(),
        "isolatedBy": side.isolated_by.iter().map(policy).collect::<Vec<_>>(),
        "rules": side.rules.iter().map(|rule| Value::Object(self::rule(rule))).collect::<Vec<_>>(),
    });
    if !side.near.is_empty() {
        value["near"] = side.near.iter().map(near).collect();
    }
    if let Some(why_not) = &side.no_rule {
        value["noRule"] = why_not.as_str().into();
    }
    if let Some(missing) = side.missing {
        value["missing"] = missing.into();
    }
    value
}

pub(crate) fn policy(policy: &PolicyPlace) -> Value {
    let mut value = Map::from_iter([("policy".to_owned(), policy.name.as_str().into())]);
    place(&mut value, policy.source.as_ref());
    value.into()
}

fn rule(rule: &RulePlace) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("policy".to_owned(), format!("{}/{}", rule.name.namespace, rule.name.name).into());
    value.insert("rule".to_owned(), rule.name.rule.to_string().into());
    place(&mut value, rule.source.as_ref());
    value.insert("opens".to_owned(), allowed(&rule.opens));
    if let Some(seen) = &rule.evidence {
        let mut evidence = json!({"flows": seen.flows});
        for (name, time) in [("firstSeen", &seen.first), ("lastSeen", &seen.last)] {
            if let Some(time) = time {
                evidence[name] = time.as_str().into();
            }
        }
        let lists = [
            ("directions", &seen.directions),
            ("nodes", &seen.nodes),
            ("services", &seen.services),
            ("dnsNames", &seen.dns_names),
            ("samples", &seen.samples),
            ("opensBeyond", &seen.wider),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            evidence[name] = list.as_slice().into();
        }
        value.insert("evidence".to_owned(), evidence);
    }
    value
}

fn near(near: &NearRule) -> Value {
    let mut value = rule(&near.rule);
    value.insert("but".to_owned(), near.but.name().into());
    value.into()
}

pub(crate) fn missing(missing: &crate::missing::Missing) -> Value {
    let mut value = Map::new();
    value.insert("policy".to_owned(), missing.policy_name().into());
    value.insert("action".to_owned(), if missing.is_new { "create" } else { "extend" }.into());
    value.insert("list".to_owned(), missing.list().into());
    place(&mut value, missing.extends.as_ref());
    value.insert("yaml".to_owned(), missing.yaml().into());
    if !missing.also.is_empty() {
        value.insert("also".to_owned(), missing.also.clone().into());
    }
    value.into()
}

fn place(value: &mut Map<String, Value>, source: Option<&Source>) {
    if let Some(source) = source {
        value.insert("file".to_owned(), (&*source.file).into());
        if source.line > 0 {
            value.insert("line".to_owned(), source.line.into());
        }
    }
}

pub(crate) fn allowed(allowed: &Allowed) -> Value {
    let one =
        |(protocol, ports): (Protocol, &[(u16, u16)])| json!({"protocol": protocol.name(), "ports": ports_text(ports)});
    allowed.by_protocol().map(one).collect()
}
