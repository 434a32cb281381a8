//! From a tree to what it says: objects by their class, Lists with all in them.

use super::{
    ReadError,
    field::Object,
    from_json, from_yaml, network_policy, objects,
    pieces::Piece,
    recording::{self, Event},
    tree::{Node, Value},
    workloads,
};
use crate::history::Entry;
use std::{fmt, sync::Arc};

/// One file being read.
pub(super) struct Reading {
    pub(super) file: Arc<str>,
    pub(super) wanted: Wanted,
}

/// Which objects are wanted; the others are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Everything podfence looks at.
    #[default]
    Everything,
    /// NetworkPolicies, and the Namespaces they live in.
    Policies,
}

/// What stood in the input.
#[derive(Debug)]
pub(super) enum Found {
    Entry(Box<Entry>),
    /// An event of a recorded watch.
    Event(Box<Event>),
    /// An object of a kind that nobody looks at.
    PassedOver(String),
}

impl Reading {
    /// Everything in one piece, in its order.
    pub(super) fn piece(&self, piece: &Piece<'_>) -> Vec<Result<Found, ReadError>> {
        let mut found = Vec::new();
        match piece {
            Piece::Yaml { part, list } => match from_yaml::roots(self, part) {
                Ok(roots) => roots.iter().for_each(|root| self.value(root, root.line, list.as_ref(), &mut found)),
                Err(error) => found.push(Err(error)),
            },
            Piece::Json { text, line, list } => match from_json::read_fast(self, text, *line, list.as_ref()) {
                Some(one) => found.push(Ok(one)),
                None => match from_json::placed(self, text, *line) {
                    Ok(root) => self.value(&root, *line, list.as_ref(), &mut found),
                    Err(error) => found.push(Err(error)),
                },
            },
        }
        found
    }

    /// One object, a List of them, or an array of them.
    fn value(&self, node: &Node<'_>, line: u32, of: Option<&Class>, found: &mut Vec<Result<Found, ReadError>>) {
        // Where only maps have lines, that of what is around.
        let line = if node.line > 0 { node.line } else { line };
        match &node.value {
            Value::Null => {}
            Value::List(items) => items.iter().for_each(|item| self.value(item, line, of, found)),
            Value::Map(_) if recording::is_event(node) => found.push(self.event(node, line)),
            Value::Map(_) => match self.class(node, line, of) {
                Err(error) => found.push(Err(error)),
                Ok(class) => match (class.of_items(), node.get("items")) {
                    (Some(item), Some(items)) => self.value(items, line, item.as_ref(), found),
                    _ => found.push(self.object(node, line, &class)),
                },
            },
            other => {
                let kind = other.kind();
                let advice = "give what `kubectl get -o yaml` prints";
                let message = format!("expected a Kubernetes object, found {kind}; {advice}");
                found.push(Err(ReadError::new(&self.file, line, message)));
            }
        }
    }

    /// The class of a map, or that of the list it stands in.
    pub(super) fn class(&self, node: &Node<'_>, line: u32, list: Option<&Class>) -> Result<Class, ReadError> {
        let object = Object::unnamed(self.file.clone(), "object", node, line);
        let root = object.root();
        let (kind, api_version) = (root.at("kind")?.text()?, root.at("apiVersion")?.text()?);
        match (kind, api_version, list) {
            (Some(kind), Some(api_version), _) => {
                let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
                Ok(Class { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() })
            }
            (_, _, Some(class)) => Ok(class.clone()),
            _ => {
                let advice = "give Kubernetes objects, as `kubectl get -o yaml` prints them";
                let message = format!("an object without kind or apiVersion; {advice}");
                Err(ReadError::new(&self.file, line, message))
            }
        }
    }

    /// The scope of a class; `None` for what is passed over.
    pub(super) fn scope(&self, class: &Class) -> Option<Scope> {
        let is_wanted = match self.wanted {
            Wanted::Everything => true,
            Wanted::Policies => matches!(class.kind.as_str(), "NetworkPolicy" | "Namespace"),
        };
        class.scope().filter(|_| is_wanted)
    }

    /// Reads one object.
    pub(super) fn object(&self, node: &Node<'_>, line: u32, class: &Class) -> Result<Found, ReadError> {
        let Some(scope) = self.scope(class) else { return Ok(Found::PassedOver(class.full_name())) };
        let object = Object::named(self.file.clone(), &class.kind, node, line, scope)?;
        let entry = match class.kind.as_str() {
            "Namespace" => objects::namespace(&object),
            "Node" => objects::node(&object),
            "Pod" => objects::pod(&object).map(Entry::Pod),
            "Service" => objects::service(&object),
            "EndpointSlice" => objects::endpoint_slice(&object),
            "NetworkPolicy" => network_policy::read(&object, class).map(Entry::Policy),
            "StagedNetworkPolicy" => network_policy::read(&object, class).map(Entry::Staged),
            _ => workloads::read(&object),
        };
        entry.map(|entry| Found::Entry(Box::new(entry)))
    }
}

/// Group, version and kind of an object.
#[derive(Clone, Debug)]
pub struct Class {
    /// `networking.k8s.io`; empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `NetworkPolicy`
    pub kind: String,
}

/// Whether an object lives in a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Cluster,
    Namespaced,
}

impl Class {
    /// `PodList` holds pods that need not say so; `List` holds anything. `None`: not a list.
    pub(super) fn of_items(&self) -> Option<Option<Self>> {
        let item = self.kind.strip_suffix("List")?;
        Some((!item.is_empty()).then(|| Self { kind: item.to_owned(), ..self.clone() }))
    }

    /// `None` for what podfence does not look at; kinds of the same name in other groups included.
    fn scope(&self) -> Option<Scope> {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace" | "Node") => Some(Scope::Cluster),
            ("", "Pod" | "Service" | "ReplicationController")
            | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
            | ("batch", "Job" | "CronJob")
            | ("discovery.k8s.io", "EndpointSlice")
            | ("networking.k8s.io", "NetworkPolicy")
            | ("podfence.dev", "StagedNetworkPolicy") => Some(Scope::Namespaced),
            _ => None,
        }
    }

    pub(super) fn full_name(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }
}

impl fmt::Display for Class {
    /// `networking.k8s.io/v1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.version),
            group => write!(f, "{group}/{}", self.version),
        }
    }
}
