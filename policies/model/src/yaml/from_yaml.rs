//! YAML documents as trees.
//!
//! Always holds: bounded depth, bounded expansion of aliases; a plain scalar that Kubernetes would
//! not read as a string is never a [`Value::Text`].

use super::{
    ReadError,
    documents::Part,
    found::Reading,
    plain,
    tree::{Node, Value},
    values::{Format, MAX_VALUES, NodeSeed, ValueVisitor},
};
use serde::de::{Deserialize, Deserializer, MapAccess};
use serde_saphyr::{Location, MessageFormatter as _, Spanned, UserMessageFormatter};
use std::{borrow::Cow, collections::HashSet};

/// Nesting beyond this is refused. Kubernetes' own objects stay below 20.
const MAX_DEPTH: usize = 100;
/// What makes a scalar something else than plain stands at most this many bytes before it.
const LOOK_BACK: usize = 1024;
/// Aliases may add this many events to a document; `kubectl` writes none.
const MAX_ALIAS_EVENTS: usize = 100_000;

/// The documents of a part.
pub(super) fn roots<'t>(reading: &Reading, part: &Part<'t>) -> Result<Vec<Node<'t>>, ReadError> {
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
        strict_booleans: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
    };
    let roots: Vec<Root<'t>> = serde_saphyr::from_multiple_with_options(part.text, options)
        .map_err(|error| unreadable(reading, part, &error))?;
    let settled = |Root(mut root): Root<'t>| settle(&mut root, reading, part).map(|()| root);
    roots.into_iter().map(settled).collect()
}

fn unreadable(reading: &Reading, part: &Part<'_>, error: &serde_saphyr::Error) -> ReadError {
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
    let line = if line == 0 { 0 } else { line.saturating_add(part.lines_before) };
    ReadError::new(&reading.file, line, format!("not readable as YAML: {what}; {advice}"))
}

struct Root<'t>(Node<'t>);

impl<'de> Deserialize<'de> for Root<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        InYaml.node(deserializer).map(Self)
    }
}

/// Nodes know their places.
#[derive(Clone, Copy)]
struct InYaml;

impl<'de> Format<'de> for InYaml {
    fn node<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<OnlyValue<'de>>::deserialize(deserializer)?;
        let line = if referenced == Location::UNKNOWN { defined.line() } else { referenced.line() };
        let offset = defined.span().byte_offset().and_then(|at| u32::try_from(at).ok());
        Ok(Node { value: value.0, line: line.try_into().unwrap_or(0), offset })
    }

    fn entry<A: MapAccess<'de>>(self, _: &str, map: &mut A) -> Result<Node<'de>, A::Error> {
        map.next_value_seed(NodeSeed(self))
    }
}

struct OnlyValue<'t>(Value<'t>);

impl<'de> Deserialize<'de> for OnlyValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor(InYaml)).map(Self)
    }
}

/// Makes lines those of the file, and plain scalars and keys what Kubernetes takes them for.
fn settle(node: &mut Node<'_>, reading: &Reading, part: &Part<'_>) -> Result<(), ReadError> {
    node.line = if node.line == 0 { 0 } else { node.line.saturating_add(part.lines_before) };
    match &mut node.value {
        Value::List(items) => items.iter_mut().try_for_each(|item| settle(item, reading, part)),
        Value::Map(entries) => {
            let mut changed = false;
            for (key, value) in entries.iter_mut() {
                settle(value, reading, part)?;
                let Cow::Borrowed(text) = *key else { continue };
                let Some(written) = written_key(text, reading, part, value.line)? else { continue };
                (*key, changed) = (Cow::Owned(written), true);
            }
            let mut known = HashSet::new();
            match entries.iter().find(|(key, _)| changed && !known.insert(key)) {
                Some((key, value)) => {
                    let message = format!("not readable as YAML: key `{key}` stands twice in one map; quote it");
                    Err(ReadError::new(&reading.file, value.line, message))
                }
                None => Ok(()),
            }
        }
        scalar => {
            if let Some(plain) = plain_at(part.text, node.offset) {
                *scalar = match plain::not_a_string(match scalar {
                    Value::Text(text) => text,
                    _ => plain::token(plain),
                }) {
                    Some(plain::Kind::Null) => Value::Null,
                    Some(plain::Kind::Bool(value)) => Value::Bool(value),
                    Some(plain::Kind::Whole(value)) => Value::Whole(value),
                    Some(plain::Kind::Number(_)) => Value::Number,
                    None => match std::mem::replace(scalar, Value::Null) {
                        Value::Text(text) => Value::Text(text),
                        // To readers of YAML 1.2 alone it is no string.
                        _ => Value::Text(plain::token(plain).to_owned().into()),
                    },
                };
            }
            Ok(())
        }
    }
}

/// How Kubernetes writes a plain key that is no string, as a key is one in JSON.
fn written_key(key: &str, reading: &Reading, part: &Part<'_>, line: u32) -> Result<Option<String>, ReadError> {
    let Some(kind) = plain::not_a_string(key) else { return Ok(None) };
    let at = key.as_ptr().addr().saturating_sub(part.text.as_ptr().addr());
    let is_quoted = part.text.get(..at).is_none_or(|before| before.ends_with(['"', '\'']));
    if is_quoted || plain_at(part.text, u32::try_from(at).ok()).is_none() {
        return Ok(None);
    }
    let written = match kind {
        plain::Kind::Null => {
            let message = "not readable as YAML: a key that is null; quote it".to_owned();
            return Err(ReadError::new(&reading.file, line, message));
        }
        plain::Kind::Bool(value) => value.to_string(),
        plain::Kind::Whole(value) => value.to_string(),
        plain::Kind::Number(value) => value.to_string(),
    };
    Ok(Some(written).filter(|written| written != key))
}

/// The text from `offset` on, if a scalar without quotes, block sign or tag begins there.
fn plain_at(text: &str, offset: Option<u32>) -> Option<&str> {
    let (before, scalar) = text.split_at_checked(offset? as usize)?;
    let before = &before[before.floor_char_boundary(before.len().saturating_sub(LOOK_BACK))..];
    let mut rows = before.rsplit('\n');
    let row = rows.next().unwrap_or_default();
    let tagged = row.split_ascii_whitespace().rev().take(2).any(|word| word.starts_with('!'));
    // A block scalar's text begins below its sign.
    let sign = rows.next().and_then(|above| above.split_ascii_whitespace().next_back());
    let block = row.trim().is_empty() && sign.is_some_and(|word| word.starts_with(['|', '>']));
    let plain = !tagged && !block && !scalar.starts_with(['"', '\'', '|', '>', '!', '&', '*']);
    plain.then_some(scalar)
}
