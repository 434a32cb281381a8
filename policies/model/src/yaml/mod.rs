//! Kubernetes documents in and out: YAML and JSON, Lists and streams, with positions, and policies
//! written so that every reader reads the same.
//!
//! Always holds: no input makes a function of this module panic (law 14); what is written, read
//! again, is the same policy, for YAML 1.1 and 1.2 readers alike.

mod field;
mod json;
mod network_policy;
mod objects;
mod plain;
mod tree;
mod workloads;
mod write;

use crate::{
    cluster::{Cluster, Namespace, Pod, Source},
    labels::{Labels, METADATA_NAME},
    policy::PolicySet,
};
use field::Object;
use std::{collections::HashMap, sync::Arc};
use tree::{Node, Value};

pub use write::{write_policy, write_staged_policy};

/// What is wrong with a document: file, line, object, field, what to try.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{file}:{line}: {message}")]
pub struct ReadError {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// One-based line, 0 when not known.
    pub line: u32,
    /// What is wrong, with object and field, and what to try.
    pub message: String,
}

/// Reads every document of `text` into `cluster`. A later object of the same kind, namespace and
/// name is an error naming both places (pods with another UID are another pod). After an error,
/// `cluster` holds what came before it.
pub fn read_into(cluster: &mut Cluster, file: &str, text: &str) -> Result<(), ReadError> {
    let mut reader = Reader { pods: pods_seen(cluster), cluster, only_policies: false };
    let outcome = reader.read(&file.into(), text);
    reader.finish();
    outcome
}

/// Reads only policies (a folder of generated ones), passing other kinds over.
pub fn read_policies(file: &str, text: &str) -> Result<PolicySet, ReadError> {
    let mut policies = PolicySet::default();
    read_policies_into(&mut policies, file, text)?;
    Ok(policies)
}

/// [`read_policies`], adding to a set; a policy that is there already is an error naming both places.
pub fn read_policies_into(policies: &mut PolicySet, file: &str, text: &str) -> Result<(), ReadError> {
    let mut cluster = Cluster { policies: std::mem::take(policies), ..Cluster::default() };
    let mut reader = Reader { pods: HashMap::new(), cluster: &mut cluster, only_policies: true };
    let outcome = reader.read(&file.into(), text);
    reader.finish();
    *policies = cluster.policies;
    outcome
}

/// (namespace, name, UID) of a pod.
type PodId = (String, String, String);

struct Reader<'c> {
    cluster: &'c mut Cluster,
    /// Where each pod was read.
    pods: HashMap<PodId, Option<Source>>,
    only_policies: bool,
}

fn pods_seen(cluster: &Cluster) -> HashMap<PodId, Option<Source>> {
    let id = |p: &Pod| (p.namespace.clone(), p.name.clone(), p.uid.clone());
    cluster.pods.iter().map(|pod| (id(pod), pod.source.clone())).collect()
}

impl Reader<'_> {
    fn read(&mut self, file: &Arc<str>, text: &str) -> Result<(), ReadError> {
        tree::documents(file, text, |root| self.document(file, &root))
    }

    /// One object, a List of them, or a JSON array of them.
    fn document(&mut self, file: &Arc<str>, root: &Node) -> Result<(), ReadError> {
        self.value(file, root, root.line, None)
    }

    fn value(&mut self, file: &Arc<str>, node: &Node, line: u32, of: Option<&Class>) -> Result<(), ReadError> {
        // JSON knows lines of documents only.
        let line = if node.line > 0 { node.line } else { line };
        match &node.value {
            Value::Null => Ok(()),
            Value::List(items) => items.iter().try_for_each(|item| self.value(file, item, line, of)),
            Value::Map(_) => self.object_or_list(file, node, line, of),
            other => Err(ReadError {
                file: file.clone(),
                line,
                message: format!(
                    "expected a Kubernetes object, found {}; give what `kubectl get -o yaml` prints",
                    other.kind()
                ),
            }),
        }
    }

    fn object_or_list(&mut self, file: &Arc<str>, node: &Node, line: u32, of: Option<&Class>) -> Result<(), ReadError> {
        let mut object = Object {
            file: file.clone(),
            kind: "object",
            namespace: String::new(),
            name: String::new(),
            root: node,
            line,
        };
        let class = Class::of(&object, of)?;
        if let (Some(item), Some(items)) = (class.of_items(), node.get("items")) {
            return self.value(file, items, line, item.as_ref());
        }
        object.kind = &class.kind;
        let root = object.root();
        let metadata = root.at("metadata")?;
        let name = metadata.at("name")?.text()?.unwrap_or_default().to_owned();
        let namespace = metadata.at("namespace")?.text()?.unwrap_or_default().to_owned();
        (object.name, object.namespace) = (name, namespace);
        self.object(&class, object)
    }

    fn object(&mut self, class: &Class, mut object: Object<'_>) -> Result<(), ReadError> {
        let is_policy = class.kind == "NetworkPolicy" && class.group == "networking.k8s.io";
        let Some(scope) = class.scope().filter(|_| is_policy || !self.only_policies) else {
            *self.cluster.passed_over.entry(class.full_name()).or_default() += 1;
            return Ok(());
        };
        object.root().at("metadata")?.at("name")?.needed_text("every object needs a name")?;
        match scope {
            Scope::Cluster => object.namespace.clear(),
            Scope::Namespaced => {
                if object.namespace.is_empty() {
                    "default".clone_into(&mut object.namespace);
                }
                if !self.only_policies {
                    self.cluster.namespaces.entry(object.namespace.clone()).or_insert_with(|| named(&object.namespace));
                }
            }
        }
        match class.kind.as_str() {
            "Namespace" => objects::namespace(self.cluster, &object),
            "Node" => objects::node(self.cluster, &object),
            "Pod" => {
                let pod = objects::pod(&object)?;
                let id = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
                if let Some(first) = self.pods.insert(id, pod.source.clone()) {
                    return Err(twice(&object, first.as_ref()));
                }
                self.cluster.pods.push(pod);
                Ok(())
            }
            "Service" => objects::service(self.cluster, &object),
            "NetworkPolicy" => network_policy::read(&mut self.cluster.policies, &object),
            "StagedNetworkPolicy" => network_policy::read(&mut self.cluster.staged, &object),
            _ => workloads::read(self.cluster, &object),
        }
    }

    /// Puts what is kept in lists into its order.
    fn finish(self) {
        let order = |a: &Pod, b: &Pod| {
            (&a.namespace, &a.name, a.started, &a.uid).cmp(&(&b.namespace, &b.name, b.started, &b.uid))
        };
        self.cluster.pods.sort_by(order);
        self.cluster.policies.sort();
        self.cluster.staged.sort();
    }
}

/// Group, version and kind of an object.
struct Class {
    group: String,
    kind: String,
}

enum Scope {
    Cluster,
    Namespaced,
}

impl Class {
    /// The class an object names, or that of the list it stands in.
    fn of(object: &Object<'_>, list: Option<&Class>) -> Result<Self, ReadError> {
        let root = object.root();
        let (kind, api_version) = (root.at("kind")?.text()?, root.at("apiVersion")?.text()?);
        let (Some(kind), Some(api_version)) = (kind, api_version) else {
            return match list {
                Some(class) => Ok(Self { group: class.group.clone(), kind: class.kind.clone() }),
                None => Err(ReadError {
                    file: object.file.clone(),
                    line: object.line,
                    message: "an object without kind or apiVersion; give Kubernetes objects, as \
                              `kubectl get -o yaml` prints them"
                        .to_owned(),
                }),
            };
        };
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Ok(Self { group: group.to_owned(), kind: kind.to_owned() })
    }

    /// `PodList` holds pods that need not say so; `List` holds anything. `None`: not a list.
    fn of_items(&self) -> Option<Option<Self>> {
        let item = self.kind.strip_suffix("List")?;
        Some((!item.is_empty()).then(|| Self { group: self.group.clone(), kind: item.to_owned() }))
    }

    /// `None` for what podfence does not look at; kinds of the same name in other groups included.
    fn scope(&self) -> Option<Scope> {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace" | "Node") => Some(Scope::Cluster),
            ("", "Pod" | "Service" | "ReplicationController")
            | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
            | ("batch", "Job" | "CronJob")
            | ("networking.k8s.io", "NetworkPolicy")
            | ("podfence.dev", "StagedNetworkPolicy") => Some(Scope::Namespaced),
            _ => None,
        }
    }

    fn full_name(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// A namespace known only because another object names it.
fn named(name: &str) -> Namespace {
    Namespace { labels: Labels::from([(METADATA_NAME.to_owned(), name.to_owned())]), ..Namespace::default() }
}

/// The error for an object that was read before.
fn twice(object: &Object<'_>, first: Option<&Source>) -> ReadError {
    let place = first.map_or("another input".to_owned(), |source| format!("{}:{}", source.file, source.line));
    object.root().wrong(format_args!("was already read from {place}; give each object once"))
}
