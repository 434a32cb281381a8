//! A document as a tree that knows its lines, whether it came out of YAML or JSON.

use serde_json::value::RawValue;
use std::borrow::Cow;

/// A value and the line it begins at.
#[derive(Debug)]
pub(super) struct Node<'t> {
    pub(super) value: Value<'t>,
    /// One-based, 0 when not known.
    pub(super) line: u32,
    /// Where its text begins, in YAML, where that is known.
    pub(super) offset: Option<u32>,
}

#[derive(Debug)]
pub(super) enum Value<'t> {
    Null,
    Bool(bool),
    /// An integer of 64 bits.
    Whole(i64),
    /// Any other number.
    Number,
    Text(Cow<'t, str>),
    List(Vec<Node<'t>>),
    Map(Vec<(Cow<'t, str>, Node<'t>)>),
    /// JSON that nobody has looked at yet.
    Unread(&'t RawValue),
}

impl Value<'_> {
    /// What a person calls it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Whole(_) | Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Unread(_) => "what was not read",
        }
    }
}

impl<'t> Node<'t> {
    /// A value whose place is not known.
    pub(super) const fn of(value: Value<'t>) -> Self {
        Self { value, line: 0, offset: None }
    }

    /// The value of a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
            _ => None,
        }
    }
}
