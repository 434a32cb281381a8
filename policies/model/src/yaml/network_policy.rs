//! NetworkPolicy: validity and defaults as the API server has them (v1.34; networking.k8s.io/v1,
//! KEP 2079 for `endPort`).

use super::{
    ReadError,
    field::{Field, Object, WholeOrText},
    found::Class,
    names,
    objects::protocol,
};
use crate::{
    cidr::{self, Written},
    labels::{Labels, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, Port, PortMatch, Rule},
};
/// The API server takes so many bytes of annotations (apimachinery, api/validation).
const MAX_ANNOTATIONS: usize = 256 << 10;

/// The fields of `metadata`.
const OBJECT_META: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];

pub(super) fn read(object: &Object<'_>, class: &Class) -> Result<NetworkPolicy, ReadError> {
    let root = object.root();
    if class.version != version_of(object.kind) {
        let field = root.at("apiVersion")?;
        return Err(field.wrong(format_args!(
            "there is no {} in {class}; write {}/{}",
            object.kind,
            class.group,
            version_of(object.kind)
        )));
    }
    // Clusters before 1.28 print a status, too.
    only(&root, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    let (metadata, spec) = (root.at("metadata")?, root.at("spec")?);
    only(&metadata, &OBJECT_META)?;
    only(&spec, &["podSelector", "policyTypes", "ingress", "egress"])?;
    let (ingress, egress) = (rules(&spec.at("ingress")?, "from")?, rules(&spec.at("egress")?, "to")?);
    let types = types(&spec.at("policyTypes")?)?.unwrap_or(Types { ingress: true, egress: !egress.is_empty() });
    Ok(NetworkPolicy {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        labels: valid_labels(&metadata.at("labels")?)?,
        annotations: annotations(&metadata.at("annotations")?)?,
        pod_selector: selector(&spec.at("podSelector")?)?.unwrap_or_default(),
        ingress: types.ingress.then_some(ingress),
        egress: types.egress.then_some(egress),
        source: Some(object.source()),
    })
}

fn version_of(kind: &str) -> &'static str {
    if kind == "StagedNetworkPolicy" { "v1alpha1" } else { "v1" }
}

/// Labels that the API server would store.
fn valid_labels(field: &Field<'_>) -> Result<Labels, ReadError> {
    for (key, value) in field.entries()? {
        let text = value.text()?.unwrap_or_default();
        if let Some(problem) = names::key_problem(key) {
            return Err(value.wrong(format_args!("`{key}` is no label key: {problem}")));
        }
        if let Some(problem) = names::value_problem(text) {
            return Err(value.wrong(format_args!("`{text}` is no label value: {problem}")));
        }
    }
    field.labels()
}

fn annotations(field: &Field<'_>) -> Result<Labels, ReadError> {
    for (key, value) in field.entries()? {
        if let Some(problem) = names::key_problem(&key.to_lowercase()) {
            return Err(value.wrong(format_args!("`{key}` is no annotation key: {problem}")));
        }
    }
    let all = field.labels()?;
    let size: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_ANNOTATIONS {
        return Err(field.wrong(format_args!("{size} bytes of annotations; the API server takes {MAX_ANNOTATIONS}")));
    }
    Ok(all)
}

struct Types {
    ingress: bool,
    egress: bool,
}

/// `None` when absent or empty.
fn types(field: &Field<'_>) -> Result<Option<Types>, ReadError> {
    let mut types = Types { ingress: false, egress: false };
    let mut count = 0;
    for item in field.items()? {
        count += 1;
        match item.text()? {
            Some("Ingress") => types.ingress = true,
            Some("Egress") => types.egress = true,
            other => {
                let found = other.unwrap_or("null");
                return Err(item.wrong(format_args!("`{found}` is neither Ingress nor Egress (with a capital)")));
            }
        }
    }
    if count > 2 {
        return Err(field.wrong("more than two; write Ingress, Egress or both"));
    }
    Ok((count > 0).then_some(types))
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
    let whole = cidr(&field.at("cidr")?)?;
    let mut except = Vec::new();
    for item in field.at("except")?.items()? {
        let hole = cidr(&item)?;
        // By the lengths as they are written, which is how the API server compares an IPv4-mapped block.
        if !whole.net.contains(&hole.net.network()) || whole.bits >= hole.bits {
            let (hole, whole) = (hole.net, whole.net);
            return Err(item.wrong(format_args!("{hole} must lie within {whole} and be smaller")));
        }
        // So written, it may take away all.
        except.push(if hole.net.contains(&whole.net) { whole.net } else { hole.net });
    }
    Ok(Peer::Block { cidr: whole.net, except })
}

fn cidr(field: &Field<'_>) -> Result<Written, ReadError> {
    let text = field.needed_text("write a CIDR such as 10.0.0.0/8 or fd00::/8")?;
    cidr::parse(text)
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
        (Some(WholeOrText::Text(name)), None) => match names::port_problem(name) {
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

/// A label selector; `None` when absent or null.
pub(super) fn selector(field: &Field<'_>) -> Result<Option<Selector>, ReadError> {
    if !field.is_there() {
        return Ok(None);
    }
    only(field, &["matchLabels", "matchExpressions"])?;
    let mut selector = Selector::of(valid_labels(&field.at("matchLabels")?)?);
    for item in field.at("matchExpressions")?.items()? {
        selector.match_expressions.push(requirement(&item)?);
    }
    Ok(Some(selector))
}

fn requirement(item: &Field<'_>) -> Result<Requirement, ReadError> {
    only(item, &["key", "operator", "values"])?;
    let field = item.at("key")?;
    let key = field.needed_text("write the label's key")?.to_owned();
    if let Some(problem) = names::key_problem(&key) {
        return Err(field.wrong(format_args!("`{key}` is no label key: {problem}")));
    }
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
        let text = value.text()?.unwrap_or_default();
        if let Some(problem) = names::value_problem(text) {
            return Err(value.wrong(format_args!("`{text}` is no label value: {problem}")));
        }
        values.push(text.to_owned());
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
