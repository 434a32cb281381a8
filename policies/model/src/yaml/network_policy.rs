//! NetworkPolicy: validity and defaults as the API server has them (v1.34; networking.k8s.io/v1,
//! KEP 2079 for `endPort`).

use super::{
    ReadError,
    field::{Field, Object, WholeOrText},
    objects::protocol,
    twice,
};
use crate::{
    cidr::parse_cidr,
    labels::{Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Rule},
};
use ipnet::IpNet;

pub(super) fn read(into: &mut PolicySet, object: &Object<'_>) -> Result<(), ReadError> {
    let root = object.root();
    let (metadata, spec) = (root.at("metadata")?, root.at("spec")?);
    only(&spec, &["podSelector", "policyTypes", "ingress", "egress"])?;
    let (ingress, egress) = (rules(&spec.at("ingress")?, "from")?, rules(&spec.at("egress")?, "to")?);
    let types = types(&spec.at("policyTypes")?)?.unwrap_or(Types { ingress: true, egress: !egress.is_empty() });
    let policy = NetworkPolicy {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        labels: metadata.at("labels")?.labels()?,
        annotations: metadata.at("annotations")?.labels()?,
        pod_selector: selector(&spec.at("podSelector")?)?.unwrap_or_default(),
        ingress: types.ingress.then_some(ingress),
        egress: types.egress.then_some(egress),
        source: Some(object.source()),
    };
    let same = |p: &&NetworkPolicy| (&p.namespace, &p.name) == (&policy.namespace, &policy.name);
    if let Some(first) = into.policies.iter().find(same) {
        return Err(twice(object, first.source.as_ref()));
    }
    into.policies.push(policy);
    Ok(())
}

struct Types {
    ingress: bool,
    egress: bool,
}

/// `None` when absent or empty.
fn types(field: &Field<'_>) -> Result<Option<Types>, ReadError> {
    let mut types = Types { ingress: false, egress: false };
    let mut any = false;
    for item in field.items()? {
        any = true;
        match item.text()? {
            Some("Ingress") => types.ingress = true,
            Some("Egress") => types.egress = true,
            other => {
                let found = other.unwrap_or("null");
                return Err(item.wrong(format_args!("`{found}` is neither Ingress nor Egress (with a capital)")));
            }
        }
    }
    Ok(any.then_some(types))
}

fn rules(field: &Field<'_>, peers: &'static str) -> Result<Vec<Rule>, ReadError> {
    let read = |item: Field<'_>| {
        only(&item, &["ports", peers])?;
        let list = item.at(peers)?;
        let peers = list.items()?.map(|item| peer(&item)).collect::<Result<_, _>>()?;
        let list = item.at("ports")?;
        let ports = list.items()?.map(|item| port(&item)).collect::<Result<_, _>>()?;
        Ok(Rule { peers, ports, source: Some(item.source()) })
    };
    field.items()?.map(read).collect()
}

fn peer(field: &Field<'_>) -> Result<Peer, ReadError> {
    only(field, &["podSelector", "namespaceSelector", "ipBlock"])?;
    let (namespaces, pods) = (selector(&field.at("namespaceSelector")?)?, selector(&field.at("podSelector")?)?);
    let block = field.at("ipBlock")?;
    match (block.is_there(), namespaces.is_some() || pods.is_some()) {
        (false, true) => Ok(Peer::Pods { namespaces, pods }),
        (true, false) => ip_block(&block),
        (true, true) => Err(field.wrong("ipBlock cannot stand beside a selector; make them two peers")),
        (false, false) => Err(field.wrong(
            "an empty peer; write podSelector, namespaceSelector or ipBlock, or leave out the whole list for everyone",
        )),
    }
}

fn ip_block(field: &Field<'_>) -> Result<Peer, ReadError> {
    only(field, &["cidr", "except"])?;
    let cidr = cidr(&field.at("cidr")?)?;
    let mut except = Vec::new();
    for item in field.at("except")?.items()? {
        let hole = self::cidr(&item)?;
        if hole == cidr || !cidr.contains(&hole) {
            return Err(item.wrong(format_args!("{hole} must lie within {cidr} and be smaller")));
        }
        except.push(hole);
    }
    Ok(Peer::Block { cidr, except })
}

fn cidr(field: &Field<'_>) -> Result<IpNet, ReadError> {
    let text = field.needed_text("write a CIDR such as 10.0.0.0/8 or fd00::/8")?;
    parse_cidr(text)
        .ok_or_else(|| field.wrong(format_args!("`{text}` is no CIDR; write one such as 10.0.0.0/8 or fd00::/8")))
}

fn port(item: &Field<'_>) -> Result<Port, ReadError> {
    only(item, &["protocol", "port", "endPort"])?;
    let (field, end_field) = (item.at("port")?, item.at("endPort")?);
    let end = end_field.port()?;
    let protocol = protocol(item)?;
    let port = match (field.whole_or_text()?, end) {
        (None, None) => PortMatch::All,
        (None, Some(_)) => return Err(end_field.wrong("needs a port to begin at; add port")),
        (Some(WholeOrText::Text(_)), Some(_)) => {
            return Err(end_field.wrong("cannot follow a named port; write port as a number"));
        }
        (Some(WholeOrText::Text(name)), None) => match port_name_problem(name) {
            None => PortMatch::Named(name.to_owned()),
            Some(problem) => return Err(field.wrong(format_args!("`{name}` is no port name: {problem}"))),
        },
        (Some(WholeOrText::Whole(number)), end) => {
            let first = field.port_number(number)?;
            let last = end.unwrap_or(first);
            if last < first {
                return Err(end_field.wrong(format_args!("{last} is below port {first}; swap them")));
            }
            PortMatch::Range(first, last)
        }
    };
    Ok(Port { protocol, port })
}

/// What is wrong with a port name (IANA_SVC_NAME, RFC 6335 section 5.1).
fn port_name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 15 {
        Some("use 1 to 15 characters")
    } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        Some("use lower-case letters, digits and hyphens")
    } else if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        Some("use at least one letter; a number is written without quotes")
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        Some("a hyphen stands between two other characters")
    } else {
        None
    }
}

/// A label selector; `None` when absent or null.
pub(super) fn selector(field: &Field<'_>) -> Result<Option<Selector>, ReadError> {
    if !field.is_there() {
        return Ok(None);
    }
    only(field, &["matchLabels", "matchExpressions"])?;
    let mut selector = Selector::of(field.at("matchLabels")?.labels()?);
    for item in field.at("matchExpressions")?.items()? {
        selector.match_expressions.push(requirement(&item)?);
    }
    Ok(Some(selector))
}

fn requirement(item: &Field<'_>) -> Result<Requirement, ReadError> {
    only(item, &["key", "operator", "values"])?;
    let key = item.at("key")?.needed_text("write the label's key")?.to_owned();
    let field = item.at("operator")?;
    let operator = match field.needed_text("write In, NotIn, Exists or DoesNotExist")? {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(field.wrong(format_args!("`{other}` is none of In, NotIn, Exists, DoesNotExist"))),
    };
    let list = item.at("values")?;
    let mut values = Vec::new();
    for value in list.items()? {
        let text = value.text()?;
        values.push(text.ok_or_else(|| value.wrong("expected a string, found null; quote it"))?.to_owned());
    }
    match (operator, values.is_empty()) {
        (Operator::In | Operator::NotIn, true) => Err(list.wrong("must not be empty with In or NotIn; add a value")),
        (Operator::Exists | Operator::DoesNotExist, false) => {
            Err(list.wrong("must be absent with Exists or DoesNotExist; remove them, or use In or NotIn"))
        }
        _ => Ok(Requirement { key, operator, values }),
    }
}

/// A misspelt field would silently widen or narrow a policy; the API server refuses it too.
fn only(field: &Field<'_>, known: &[&str]) -> Result<(), ReadError> {
    let unknown = field.entries()?.find(|(key, _)| !known.contains(key));
    unknown.map_or(Ok(()), |(_, field)| {
        Err(field.wrong(format_args!("unknown field; known here are {}", known.join(", "))))
    })
}
