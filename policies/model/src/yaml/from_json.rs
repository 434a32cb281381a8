//! JSON documents, many times faster to read than YAML: an object at a time, borrowing its strings.
//!
//! Always holds: in a placed tree every map has the line of its brace. The parser does not tell
//! places, so a second, flat pass over the text finds the braces; both passes meet them in the same
//! order.

use super::{
    ReadError,
    documents::{Part, breaks},
    found::{Class, Found, Reading},
    pieces::{Piece, Pieces},
    shape::{self, Shape},
    tree::{Node, Value},
    values::{Format, MAX_VALUES, NodeSeed, ValueVisitor},
};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, value::RawValue};
use std::{cell::Cell, fmt, ops::ControlFlow};

const BLANK: [char; 4] = [' ', '\n', '\r', '\t'];

/// Cuts the documents of a part into objects.
pub(super) fn cut<'t>(reading: &Reading, part: &Part<'t>, pieces: &mut Pieces<'_, 't>) -> ControlFlow<()> {
    let mut lines = Lines { text: part.text, at: 0, line: part.lines_before.saturating_add(1) };
    let mut rest = part.text.trim_start_matches(BLANK);
    while !rest.is_empty() {
        let line = lines.of(rest);
        let mut documents = Deserializer::from_str(rest).into_iter::<Head<'t>>();
        let head = match documents.next() {
            Some(Ok(Head(head))) => head,
            Some(Err(error)) => return pieces.fail(unreadable(reading, line, &error)),
            None => break,
        };
        let (text, after) = rest.split_at_checked(documents.byte_offset()).unwrap_or((rest, ""));
        rest = after.trim_start_matches(BLANK);
        match items(reading, &head, text, line) {
            Some((list, items)) => each_item(items, &mut |item| {
                let line = lines.of(item);
                pieces.add(Piece::Json { text: item, line, list: list.clone() })
            })?,
            None => pieces.add(Piece::Json { text, line, list: None })?,
        }
    }
    ControlFlow::Continue(())
}

/// A document of which only what it is has been read.
struct Head<'t>(Node<'t>);

impl<'de> Deserialize<'de> for Head<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(MAX_VALUES);
        NodeSeed(InJson { shape: &shape::HEAD, left: &left }).deserialize(deserializer).map(Self)
    }
}

/// The items of a List or an array, with the class they need not name.
fn items<'t>(reading: &Reading, head: &Node<'t>, text: &'t str, line: u32) -> Option<(Option<Class>, &'t str)> {
    if let Value::List(_) = head.value {
        return Some((None, text));
    }
    let class = reading.class(head, line, None).ok()?.of_items()?;
    match head.get("items")?.value {
        Value::Unread(items) if items.get().starts_with('[') => Some((class, items.get())),
        _ => None,
    }
}

/// Calls `each` with the text of every item of an array that was parsed before.
fn each_item<'t>(array: &'t str, each: &mut dyn FnMut(&'t str) -> ControlFlow<()>) -> ControlFlow<()> {
    match Deserializer::from_str(array).deserialize_seq(Items(each)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

struct Items<'e, 't>(&'e mut dyn FnMut(&'t str) -> ControlFlow<()>);

impl<'t> Visitor<'t> for Items<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element::<&RawValue>()? {
            if (self.0)(item.get()).is_break() {
                return Err(de::Error::custom("nobody wants more"));
            }
        }
        Ok(())
    }
}

/// Reads one object without places; `None` where anything about it needs them, or is not as the API
/// server prints it.
pub(super) fn read_fast(reading: &Reading, text: &str, line: u32, list: Option<&Class>) -> Option<Found> {
    let shape = Cell::new(list.map_or(&shape::HEAD, |class| Shape::of(&class.kind)));
    let left = Cell::new(MAX_VALUES);
    let mut root = seeded(text, InRoot { shape: &shape, left: &left }).ok()?;
    let class = reading.class(&root, line, list).ok()?;
    if reading.scope(&class).is_none() && class.of_items().is_none() {
        return Some(Found::PassedOver(class.full_name()));
    }
    if class.of_items().is_some() || is_policy(&class.kind) {
        return None;
    }
    // What stood before its kind.
    if let Value::Map(entries) = &mut root.value {
        for (key, entry) in entries {
            if let (Value::Unread(raw), Some(below)) = (&entry.value, Shape::of(&class.kind).below(key)) {
                *entry = seeded(raw.get(), InJson { shape: below, left: &left }).ok()?;
            }
        }
    }
    reading.object(&root, line, &class).ok()
}

/// Of policies every field and its line matters.
fn is_policy(kind: &str) -> bool {
    matches!(kind, "NetworkPolicy" | "StagedNetworkPolicy")
}

/// The whole tree of a text, with places.
pub(super) fn placed<'t>(reading: &Reading, text: &'t str, line: u32) -> Result<Node<'t>, ReadError> {
    let mut root = seeded(text, InJson { shape: &Shape::Whole, left: &Cell::new(MAX_VALUES) })
        .map_err(|error| unreadable(reading, line, &error))?;
    place(&mut root, &mut BraceLines { bytes: text.bytes(), line, in_text: false });
    Ok(root)
}

fn unreadable(reading: &Reading, line: u32, error: &serde_json::Error) -> ReadError {
    let said = error.to_string();
    let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
    let line = line.saturating_add(u32::try_from(error.line()).unwrap_or(0)).saturating_sub(1);
    let advice = "a document that begins with `{` or `[` is taken for JSON";
    ReadError::new(&reading.file, line, format!("not readable as JSON: {what}; {advice}"))
}

fn seeded<'t>(text: &'t str, format: impl Format<'t>) -> Result<Node<'t>, serde_json::Error> {
    let mut deserializer = Deserializer::from_str(text);
    let node = NodeSeed(format).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(node)
}

/// Nodes have no place.
#[derive(Clone, Copy)]
struct InJson<'l> {
    shape: &'static Shape,
    /// How many values more may be kept.
    left: &'l Cell<usize>,
}

impl InJson<'_> {
    fn take_one<X: de::Error>(self) -> Result<(), X> {
        let too_many = || X::custom(format_args!("more than {MAX_VALUES} values in one object"));
        self.left.set(self.left.get().checked_sub(1).ok_or_else(too_many)?);
        Ok(())
    }
}

impl<'de> Format<'de> for InJson<'_> {
    fn node<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        self.take_one()?;
        deserializer.deserialize_any(ValueVisitor(self)).map(Node::of)
    }

    fn entry<A: MapAccess<'de>>(self, key: &str, map: &mut A) -> Result<Node<'de>, A::Error> {
        match self.shape.below(key) {
            Some(shape) => map.next_value_seed(NodeSeed(InJson { shape, ..self })),
            None => {
                self.take_one()?;
                map.next_value::<&RawValue>().map(|raw| Node::of(Value::Unread(raw)))
            }
        }
    }
}

/// An object that says on its way what it is, and so what of it is read.
#[derive(Clone, Copy)]
struct InRoot<'l> {
    shape: &'l Cell<&'static Shape>,
    left: &'l Cell<usize>,
}

impl<'de> Format<'de> for InRoot<'_> {
    fn node<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(ValueVisitor(self)).map(Node::of)
    }

    fn entry<A: MapAccess<'de>>(self, key: &str, map: &mut A) -> Result<Node<'de>, A::Error> {
        let shape = if shape::HEAD.below(key).is_some() { &shape::HEAD } else { self.shape.get() };
        let node = InJson { shape, left: self.left }.entry(key, map)?;
        if let ("kind", Value::Text(kind)) = (key, &node.value) {
            self.shape.set(Shape::of(kind));
        }
        Ok(node)
    }
}

/// Lines of pieces of a text that are asked in their order.
struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: u32,
}

impl Lines<'_> {
    fn of(&mut self, piece: &str) -> u32 {
        let at = piece.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        self.line = self.line.saturating_add(breaks(self.text.get(self.at..at).unwrap_or_default()));
        self.at = self.at.max(at);
        self.line
    }
}

/// Gives every map its line.
fn place(node: &mut Node<'_>, lines: &mut impl Iterator<Item = u32>) {
    match &mut node.value {
        Value::Map(entries) => {
            node.line = lines.next().unwrap_or(0);
            entries.iter_mut().for_each(|(_, value)| place(value, lines));
        }
        Value::List(items) => items.iter_mut().for_each(|item| place(item, lines)),
        _ => {}
    }
}

/// The line of each opening brace of a JSON text, in order.
struct BraceLines<'t> {
    bytes: std::str::Bytes<'t>,
    line: u32,
    in_text: bool,
}

impl Iterator for BraceLines<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            match self.bytes.next()? {
                b'\n' => self.line = self.line.saturating_add(1),
                b'"' => self.in_text = !self.in_text,
                b'\\' if self.in_text => drop(self.bytes.next()),
                b'{' if !self.in_text => return Some(self.line),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Wanted;
    use serde_json::json;

    #[test]
    fn what_the_api_server_prints_is_read_without_places() {
        let reading = Reading { file: "in".into(), wanted: Wanted::Everything };
        let meta = json!({"name": "a", "namespace": "b", "uid": "u", "labels": {"a": "b"}, "annotations": {"a": "b"},
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": [{"kind": "Job", "name": "j", "uid": "u", "controller": true}], "managedFields": [{}]});
        let container =
            json!({"ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}], "restartPolicy": "Always"});
        let spec =
            json!({"containers": [container], "initContainers": [container], "hostNetwork": false, "nodeName": "n"});
        let template = json!({"metadata": meta, "spec": spec});
        let of_workload = json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template});
        let ended = json!([{"state": {"terminated": {"finishedAt": "2026-01-02T03:04:05Z"}}}]);
        let of_pod = json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "startTime": "2026-01-02T03:04:05Z", "containerStatuses": ended, "initContainerStatuses": ended});
        let of_service = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "externalIPs": [], "selector": {},
            "ports": [{"port": 80, "targetPort": "http", "name": "http"}]});
        let nothing = json!({});
        let table = [
            ("v1", "Pod", &spec, &of_pod),
            ("v1", "Namespace", &nothing, &nothing),
            (
                "v1",
                "Node",
                &json!({"podCIDR": "10.0.0.0/24"}),
                &json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}),
            ),
            ("v1", "Service", &of_service, &json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}})),
            ("v1", "ReplicationController", &json!({"selector": {"a": "b"}, "template": template}), &nothing),
            ("apps/v1", "Deployment", &of_workload, &nothing),
            ("apps/v1", "ReplicaSet", &of_workload, &nothing),
            ("apps/v1", "StatefulSet", &of_workload, &nothing),
            ("apps/v1", "DaemonSet", &of_workload, &nothing),
            ("batch/v1", "Job", &of_workload, &json!({"conditions": [{"type": "Complete", "status": "True"}]})),
            ("batch/v1", "CronJob", &json!({"jobTemplate": {"spec": of_workload}}), &nothing),
            ("v1", "ConfigMap", &nothing, &nothing),
        ];
        for (api_version, kind, spec, status) in table {
            let object =
                json!({"apiVersion": api_version, "kind": kind, "metadata": meta, "spec": spec, "status": status});
            assert!(read_fast(&reading, &object.to_string(), 1, None).is_some(), "{kind}");
        }
    }
}
