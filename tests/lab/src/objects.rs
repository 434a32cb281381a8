//! cluster.yaml as raw objects: what a controller copies into its pods, and what is written back unchanged.
//!
//! The model reads the same text first; what it refuses never comes here.

use crate::error::Error;
use model::cluster::WorkloadKey;
use serde_json::{Map, Value};

/// What a controller makes pods from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template {
    /// Labels of the pods, before the controller adds its own.
    pub(crate) labels: Map<String, Value>,
    /// Annotations of the pods.
    pub(crate) annotations: Map<String, Value>,
    /// The pods' spec.
    pub(crate) spec: Map<String, Value>,
}

/// Every object of the file, Lists taken apart.
pub(crate) fn read(file: &str, text: &str) -> Result<Vec<Value>, Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| yaml_error(file, &error))?;
    Ok(documents.into_iter().flat_map(flatten).collect())
}

fn flatten(object: Value) -> Vec<Value> {
    match object {
        Value::Null => Vec::new(),
        Value::Object(mut fields) if kind(&fields).ends_with("List") => match fields.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        other => vec![other],
    }
}

fn kind(fields: &Map<String, Value>) -> &str {
    fields.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// What the YAML reader says, with file, line and column.
pub(crate) fn yaml_error(file: &str, error: &serde_saphyr::Error) -> Error {
    let at = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let text = error.without_snippet().to_string();
    let place = format!(" at line {}, column {}", at.0, at.1);
    Error::Scenario {
        file: file.to_owned(),
        line: at.0,
        field: format!("column {}", at.1),
        message: text.strip_suffix(&place).map_or(text.clone(), str::to_owned),
    }
}

/// Kind, namespace and name of an object; the namespace is `default` when none is written, as kubectl's.
pub(crate) fn key_of(object: &Value) -> WorkloadKey {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    WorkloadKey {
        namespace: text("/metadata/namespace").unwrap_or("default").to_owned(),
        kind: text("/kind").unwrap_or_default().to_owned(),
        name: text("/metadata/name").unwrap_or_default().to_owned(),
    }
}

/// What the object makes pods from; `None` for a kind that makes none.
pub(crate) fn template_of(object: &Value) -> Option<Template> {
    let template = match object.pointer("/kind").and_then(Value::as_str)? {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => object.pointer("/spec/template")?,
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template")?,
        "Pod" => object,
        _ => return None,
    };
    let map = |pointer| template.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
    Some(Template { labels: map("/metadata/labels"), annotations: map("/metadata/annotations"), spec: map("/spec") })
}
