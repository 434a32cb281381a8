//! How serde's values become a tree; what the two formats share.
//!
//! Always holds: no key twice in one map that is read.

use super::tree::{Node, Value};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{borrow::Cow, collections::HashSet, fmt, marker::PhantomData};

/// One document or object may hold this many values (the API server stores none of 2 MB): what is kept takes
/// some 80 bytes each, however little of the text says so.
pub(super) const MAX_VALUES: usize = 2_000_000;
/// Up to here keys are compared with each other; beyond, that would take the square of their number.
const FEW: usize = 32;

/// What one format knows beyond values: places, and what may stay unread. A seed for each node.
pub(super) trait Format<'de>: Copy {
    /// Reads one node.
    fn node<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error>;

    /// Reads the value of a key of a map.
    fn entry<A: MapAccess<'de>>(self, key: &str, map: &mut A) -> Result<Node<'de>, A::Error>;
}

/// A format as a seed of nodes.
pub(super) struct NodeSeed<F>(pub(super) F);

impl<'de, F: Format<'de>> DeserializeSeed<'de> for NodeSeed<F> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        self.0.node(deserializer)
    }
}

/// A format as a visitor of values.
pub(super) struct ValueVisitor<F>(pub(super) F);

impl<'de, F: Format<'de>> Visitor<'de> for ValueVisitor<F> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<X: de::Error>(self) -> Result<Value<'de>, X> {
        Ok(Value::Null)
    }

    fn visit_none<X: de::Error>(self) -> Result<Value<'de>, X> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<X: de::Error>(self, value: bool) -> Result<Value<'de>, X> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<X: de::Error>(self, value: i64) -> Result<Value<'de>, X> {
        Ok(Value::Whole(value))
    }

    fn visit_u64<X: de::Error>(self, value: u64) -> Result<Value<'de>, X> {
        Ok(i64::try_from(value).map_or(Value::Number, Value::Whole))
    }

    fn visit_i128<X: de::Error>(self, _: i128) -> Result<Value<'de>, X> {
        Ok(Value::Number)
    }

    fn visit_u128<X: de::Error>(self, _: u128) -> Result<Value<'de>, X> {
        Ok(Value::Number)
    }

    fn visit_f64<X: de::Error>(self, _: f64) -> Result<Value<'de>, X> {
        Ok(Value::Number)
    }

    fn visit_str<X: de::Error>(self, value: &str) -> Result<Value<'de>, X> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<X: de::Error>(self, value: &'de str) -> Result<Value<'de>, X> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_string<X: de::Error>(self, value: String) -> Result<Value<'de>, X> {
        Ok(Value::Text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(NodeSeed(self.0))? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut entries: Vec<(Cow<'de, str>, Node<'de>)> = Vec::new();
        let mut known = HashSet::new();
        while let Some(key) = map.next_key_seed(KeySeed(PhantomData))? {
            if entries.len() == FEW {
                known.extend(entries.iter().map(|(key, _)| key.clone()));
            }
            let twice = match entries.len() < FEW {
                true => entries.iter().any(|(known, _)| *known == key),
                false => !known.insert(key.clone()),
            };
            if twice {
                return Err(de::Error::custom(format_args!("key `{}` stands twice in one map", key.escape_debug())));
            }
            let value = self.0.entry(&key, &mut map)?;
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}

/// A key, borrowed where the text has it as it is.
struct KeySeed<'de>(PhantomData<&'de str>);

impl<'de> DeserializeSeed<'de> for KeySeed<'de> {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'de> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<X: de::Error>(self, value: &str) -> Result<Cow<'de, str>, X> {
        Ok(Cow::Owned(value.to_owned()))
    }

    fn visit_borrowed_str<X: de::Error>(self, value: &'de str) -> Result<Cow<'de, str>, X> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_string<X: de::Error>(self, value: String) -> Result<Cow<'de, str>, X> {
        Ok(Cow::Owned(value))
    }
}
