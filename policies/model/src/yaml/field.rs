//! Fields of one object, so that every error names file, line, object, field and what to try.

use super::{
    ReadError,
    found::Scope,
    names,
    tree::{Node, Value},
};
use crate::{cluster::Source, labels::Labels};
use std::{fmt, sync::Arc};

/// The object being read.
pub(super) struct Object<'n> {
    file: Arc<str>,
    pub(super) kind: &'n str,
    /// Empty for objects without one.
    pub(super) namespace: String,
    pub(super) name: String,
    root: &'n Node<'n>,
    /// Where it begins, or the list it stands in.
    line: u32,
}

impl<'n> Object<'n> {
    /// One whose name is not known yet.
    pub(super) fn unnamed(file: Arc<str>, kind: &'n str, root: &'n Node<'n>, line: u32) -> Self {
        Self { file, kind, namespace: String::new(), name: String::new(), root, line }
    }

    /// One with its name and namespace, which are valid.
    pub(super) fn named(
        file: Arc<str>,
        kind: &'n str,
        node: &'n Node<'n>,
        line: u32,
        scope: Scope,
    ) -> Result<Self, ReadError> {
        let mut object = Self::unnamed(file, kind, node, line);
        let (name, namespace) = (object.metadata_text("name")?, object.metadata_text("namespace")?);
        (object.name, object.namespace) = match scope {
            Scope::Cluster => (name, String::new()),
            Scope::Namespaced if namespace.is_empty() => (name, "default".to_owned()),
            Scope::Namespaced => (name, namespace),
        };
        object.check_names()?;
        Ok(object)
    }

    fn metadata_text(&self, key: &str) -> Result<String, ReadError> {
        Ok(self.root().at("metadata")?.at(key)?.text()?.unwrap_or_default().to_owned())
    }

    fn check_names(&self) -> Result<(), ReadError> {
        let root = self.root();
        let metadata = root.at("metadata")?;
        let field = metadata.at("name")?;
        let name = field.needed_text("every object needs a name")?;
        let problem =
            if self.kind == "Namespace" { names::label_problem(name) } else { names::subdomain_problem(name) };
        if let Some(problem) = problem {
            return Err(field.wrong(format_args!("`{name}` is no name: {problem}")));
        }
        match names::label_problem(&self.namespace).filter(|_| !self.namespace.is_empty()) {
            Some(problem) => {
                let field = metadata.at("namespace")?;
                Err(field.wrong(format_args!("`{}` is no namespace: {problem}", self.namespace)))
            }
            None => Ok(()),
        }
    }

    pub(super) fn root<'o>(&'o self) -> Field<'o> {
        Field { object: self, above: None, step: Step::Root, node: Some(self.root) }
    }

    pub(super) fn source(&self) -> Source {
        Source { file: self.file.clone(), line: self.line }
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.namespace.is_empty(), self.name.is_empty()) {
            (_, true) => write!(f, "{}", self.kind),
            (true, _) => write!(f, "{} {}", self.kind, self.name),
            _ => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

#[derive(Clone, Copy)]
enum Step<'f> {
    Root,
    Key(&'f str),
    Index(usize),
}

/// One field, there or not.
#[derive(Clone, Copy)]
pub(super) struct Field<'f> {
    object: &'f Object<'f>,
    above: Option<&'f Field<'f>>,
    step: Step<'f>,
    node: Option<&'f Node<'f>>,
}

impl<'f> Field<'f> {
    /// The field below.
    pub(super) fn at<'g>(&'g self, key: &'g str) -> Result<Field<'g>, ReadError> {
        self.expect_map()?;
        let node = self.node.and_then(|node| node.get(key));
        Ok(Field { object: self.object, above: Some(self), step: Step::Key(key), node })
    }

    /// The fields of a map, none if it is absent.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = (&'f str, Field<'_>)>, ReadError> {
        self.expect_map()?;
        let entries = match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        Ok(entries.iter().map(move |(key, node)| {
            (key.as_ref(), Field { object: self.object, above: Some(self), step: Step::Key(key), node: Some(node) })
        }))
    }

    /// The items of a list, none if it is absent.
    pub(super) fn items(&self) -> Result<impl Iterator<Item = Field<'_>>, ReadError> {
        let items = match self.node.map(|node| &node.value) {
            Some(Value::List(items)) => items.as_slice(),
            None | Some(Value::Null) => &[],
            Some(other) => return Err(self.wrong(format!("expected a list, found {}", other.kind()))),
        };
        Ok(items.iter().enumerate().map(move |(index, node)| Field {
            object: self.object,
            above: Some(self),
            step: Step::Index(index),
            node: Some(node),
        }))
    }

    /// Whether it is there and not null.
    pub(super) fn is_there(&self) -> bool {
        self.node.is_some_and(|node| !matches!(node.value, Value::Null))
    }

    pub(super) fn text(&self) -> Result<Option<&'f str>, ReadError> {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other @ (Value::List(_) | Value::Map(_))) => {
                Err(self.wrong(format!("expected a string, found {}", other.kind())))
            }
            Some(other) => Err(self.wrong(format!("expected a string, found {}; quote it", other.kind()))),
        }
    }

    /// A string that must be there; `what` says what to write.
    pub(super) fn needed_text(&self, what: &str) -> Result<&'f str, ReadError> {
        match self.text()? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.wrong(format!("missing; {what}"))),
        }
    }

    pub(super) fn flag(&self) -> Result<bool, ReadError> {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.wrong(format!("expected true or false, found {}", other.kind()))),
        }
    }

    /// A number or a string, as port fields have.
    pub(super) fn whole_or_text(&self) -> Result<Option<WholeOrText<'f>>, ReadError> {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Whole(number)) => Ok(Some(WholeOrText::Whole(*number))),
            Some(Value::Text(text)) => Ok(Some(WholeOrText::Text(text))),
            Some(other) => Err(self.wrong(format!("expected a port's number or name, found {}", other.kind()))),
        }
    }

    pub(super) fn whole(&self) -> Result<Option<i64>, ReadError> {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Whole(number)) => Ok(Some(*number)),
            Some(Value::Text(_)) => Err(self.wrong("expected a number, found a string; remove the quotes")),
            Some(other) => Err(self.wrong(format!("expected a whole number, found {}", other.kind()))),
        }
    }

    pub(super) fn port(&self) -> Result<Option<u16>, ReadError> {
        self.whole()?.map(|number| self.port_number(number)).transpose()
    }

    pub(super) fn port_number(&self, number: i64) -> Result<u16, ReadError> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        port.ok_or_else(|| self.wrong(format!("{number} is no port; use 1 to 65535")))
    }

    /// A map of strings; null is the empty one, as the API server reads it.
    pub(super) fn labels(&self) -> Result<Labels, ReadError> {
        let mut labels = Labels::new();
        for (key, value) in self.entries()? {
            labels.insert(key.to_owned(), value.text()?.unwrap_or_default().to_owned());
        }
        Ok(labels)
    }

    /// An error at this field.
    pub(super) fn wrong(&self, problem: impl fmt::Display) -> ReadError {
        let separator = if matches!(self.step, Step::Root) { "" } else { ": " };
        ReadError::new(&self.object.file, self.line(), format!("{}: {self}{separator}{problem}", self.object))
    }

    pub(super) fn source(&self) -> Source {
        Source { file: self.object.file.clone(), line: self.line() }
    }

    /// Its line, or that of the nearest thing around it that has one.
    fn line(&self) -> u32 {
        let own = self.node.map_or(0, |node| node.line);
        if own > 0 { own } else { self.above.map_or(self.object.line, Field::line) }
    }

    fn expect_map(&self) -> Result<(), ReadError> {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null | Value::Map(_)) => Ok(()),
            Some(other) => Err(self.wrong(format!("expected a map, found {}", other.kind()))),
        }
    }
}

pub(super) enum WholeOrText<'f> {
    Whole(i64),
    Text(&'f str),
}

impl fmt::Display for Field<'_> {
    /// `spec.ports[2].protocol`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        let first = self.above.is_none_or(|above| matches!(above.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if first => f.write_str(key),
            // A key with a dot or slash would read as a path.
            Step::Key(key) if key.contains(['.', '/']) => write!(f, "[{key}]"),
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}
