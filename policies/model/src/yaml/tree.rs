//! A document as a tree that knows its lines, out of YAML or JSON.
//!
//! Always holds: bounded depth, bounded expansion of aliases, no key twice; a plain scalar that
//! Kubernetes would not read as a string is never a [`Value::Text`].

use super::{ReadError, json, plain};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};
use std::{fmt, marker::PhantomData, sync::Arc};

/// Nesting beyond this is refused. Kubernetes' own objects stay below 20.
const MAX_DEPTH: usize = 100;
/// One document may hold this many values (a large cluster has one million): what is read takes
/// some 50 bytes each, however little of the text says so.
pub(super) const MAX_VALUES: usize = 16_000_000;
/// Aliases may add this many events to a document; `kubectl` writes none.
const MAX_ALIAS_EVENTS: usize = 100_000;

/// A value and the line it begins at.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// One-based, 0 when not known.
    pub(super) line: u32,
    /// Where its text begins, where that is known; for [`settle`] alone.
    offset: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// An integer of 64 bits.
    Whole(i64),
    /// Any other number.
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// Something large that nobody looks at, with how many maps were in it.
    Dropped(usize),
}

impl Value {
    /// What a person calls it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Whole(_) | Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Dropped(_) => "something else",
        }
    }
}

impl Node {
    /// How many maps it holds, itself included.
    fn maps(&self) -> usize {
        match &self.value {
            Value::List(items) => items.iter().map(Self::maps).sum(),
            Value::Map(entries) => 1 + entries.iter().map(|(_, node)| node.maps()).sum::<usize>(),
            Value::Dropped(maps) => *maps,
            _ => 0,
        }
    }

    /// The value of a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
            _ => None,
        }
    }
}

/// Calls `each` with every document of `text`, in order.
pub(super) fn documents(
    file: &Arc<str>,
    text: &str,
    mut each: impl FnMut(Node) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for part in split(text) {
        if part.text.trim_start().starts_with(['{', '[']) {
            json::documents(file, &part, &mut each)?;
        } else {
            yaml(file, &part, &mut each)?;
        }
    }
    Ok(())
}

/// A piece of a stream that holds whole documents.
pub(super) struct Part<'t> {
    pub(super) text: &'t str,
    /// Lines before it.
    pub(super) lines_before: u32,
}

/// Cuts before each `---` at the beginning of a line: it starts a document wherever it stands
/// (YAML 1.2, 9.1.2). Directives stay with the document they are for.
fn split(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut only_directives) = (0, 0, true);
    let (mut at, mut line) = (0, 0u32);
    for row in text.split_inclusive('\n') {
        if is_document_start(row) && !only_directives {
            parts.push(Part { text: &text[start..at], lines_before: start_line });
            (start, start_line) = (at, line);
        }
        let blank = row.trim().is_empty() || row.starts_with(['#', '%']);
        only_directives = !is_document_start(row) && only_directives && blank;
        at += row.len();
        line = line.saturating_add(1);
    }
    parts.push(Part { text: &text[start..], lines_before: start_line });
    parts
}

fn is_document_start(row: &str) -> bool {
    row.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn yaml(
    file: &Arc<str>,
    part: &Part<'_>,
    each: &mut impl FnMut(Node) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let size = part.text.len();
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: MAX_VALUES * 4,
            max_nodes: MAX_VALUES,
            max_total_scalar_bytes: size.saturating_mul(2).saturating_add(MAX_ALIAS_EVENTS * 64),
            max_documents: size.max(1),
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
        emit_comments: false,
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
    };
    let roots: Vec<Placed<InYaml>> =
        serde_saphyr::from_multiple_with_options(part.text, options).map_err(|error| yaml_error(file, part, &error))?;
    for Placed(mut root, _) in roots {
        settle(&mut root, part);
        each(root)?;
    }
    Ok(())
}

fn yaml_error(file: &Arc<str>, part: &Part<'_>, error: &serde_saphyr::Error) -> ReadError {
    let line: u32 = error.location().map_or(0, |at| at.line().try_into().unwrap_or(0));
    // The scanner names the line before the tab as often as the tab's.
    let rows = part.text.lines().skip(line.saturating_sub(1) as usize).take(2);
    let tab = rows.clone().any(|row| row.trim_start_matches(' ').starts_with('\t'));
    let advice = if tab {
        "YAML is indented with spaces, and here is a tab"
    } else {
        "give Kubernetes objects in YAML or JSON, as `kubectl get -o yaml` prints them"
    };
    let what = UserMessageFormatter.format_message(error.without_snippet());
    let what = what.lines().next().unwrap_or_default();
    ReadError {
        file: file.clone(),
        line: if line == 0 { 0 } else { line.saturating_add(part.lines_before) },
        message: format!("not readable as YAML: {what}; {advice}"),
    }
}

/// How a node and its place are read; the two formats differ in this alone.
pub(super) trait Place {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error>;
}

/// Nodes know their lines.
struct InYaml;

/// Nodes have no place, see [`json`].
pub(super) struct InJson;

impl Place for InYaml {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<OnlyValue<Self>>::deserialize(deserializer)?;
        let line = if referenced == Location::UNKNOWN { defined.line() } else { referenced.line() };
        let offset = defined.span().byte_offset().and_then(|at| usize::try_from(at).ok());
        Ok(Node { value: value.0, line: line.try_into().unwrap_or(0), offset })
    }
}

impl Place for InJson {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let OnlyValue(value, _) = OnlyValue::<Self>::deserialize(deserializer)?;
        Ok(Node { value, line: 0, offset: None })
    }
}

pub(super) struct Placed<P>(pub(super) Node, pub(super) PhantomData<P>);

impl<'de, P: Place> Deserialize<'de> for Placed<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        P::read(deserializer).map(|node| Self(node, PhantomData))
    }
}

struct OnlyValue<P>(Value, PhantomData<P>);

impl<'de, P: Place> Deserialize<'de> for OnlyValue<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor::<P>(PhantomData)).map(|value| Self(value, PhantomData))
    }
}

struct ValueVisitor<P>(PhantomData<P>);

impl<'de, P: Place> Visitor<'de> for ValueVisitor<P> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<X: de::Error>(self) -> Result<Value, X> {
        Ok(Value::Null)
    }

    fn visit_none<X: de::Error>(self) -> Result<Value, X> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<X: de::Error>(self, value: bool) -> Result<Value, X> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<X: de::Error>(self, value: i64) -> Result<Value, X> {
        Ok(Value::Whole(value))
    }

    fn visit_u64<X: de::Error>(self, value: u64) -> Result<Value, X> {
        Ok(i64::try_from(value).map_or(Value::Number, Value::Whole))
    }

    fn visit_i128<X: de::Error>(self, _: i128) -> Result<Value, X> {
        Ok(Value::Number)
    }

    fn visit_u128<X: de::Error>(self, _: u128) -> Result<Value, X> {
        Ok(Value::Number)
    }

    fn visit_f64<X: de::Error>(self, _: f64) -> Result<Value, X> {
        Ok(Value::Number)
    }

    fn visit_str<X: de::Error>(self, value: &str) -> Result<Value, X> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<X: de::Error>(self, value: String) -> Result<Value, X> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Placed(item, _)) = seq.next_element::<Placed<P>>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(de::Error::custom(format_args!("key `{key}` stands twice in one map")));
            }
            let Placed(mut value, _) = map.next_value::<Placed<P>>()?;
            if key == "managedFields" {
                value.value = Value::Dropped(value.maps());
            }
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}

/// Makes lines those of the file, and plain scalars what Kubernetes takes them for.
fn settle(node: &mut Node, part: &Part<'_>) {
    node.line = if node.line == 0 { 0 } else { node.line.saturating_add(part.lines_before) };
    match &mut node.value {
        Value::Text(text) if is_plain(part.text, node.offset) => {
            if let Some(kind) = plain::not_a_string(text) {
                node.value = match kind {
                    plain::Kind::Null => Value::Null,
                    plain::Kind::Bool => Value::Bool(false),
                    plain::Kind::Number => Value::Number,
                };
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| settle(item, part)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| settle(value, part)),
        _ => {}
    }
}

/// Whether the scalar at `offset` is written without quotes, block sign or tag.
fn is_plain(text: &str, offset: Option<usize>) -> bool {
    let Some((before, scalar)) = offset.and_then(|at| text.split_at_checked(at)) else { return false };
    let mut rows = before.rsplit('\n');
    let row = rows.next().unwrap_or_default();
    let tagged = row.split_ascii_whitespace().rev().take(2).any(|word| word.starts_with('!'));
    // A block scalar's text begins below its sign.
    let sign = rows.next().and_then(|above| above.split_ascii_whitespace().next_back());
    let block = row.trim().is_empty() && sign.is_some_and(|word| word.starts_with(['|', '>']));
    !tagged && !block && !scalar.starts_with(['"', '\'', '|', '>', '!', '&', '*'])
}
