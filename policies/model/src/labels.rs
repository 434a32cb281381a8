//! Labels and the selectors that look at them (apimachinery `metav1.LabelSelector`).

use std::{collections::BTreeMap, fmt};

/// A set of labels, ordered so that the same set prints the same bytes.
pub type Labels = BTreeMap<String, String>;

/// The label that every namespace carries with its own name (KEP 2161).
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// A label selector; the empty one selects everything. `null` is not a selector: it is an absent
/// `Option<Selector>`, whose meaning its field defines.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Key and value that must be there.
    pub match_labels: Labels,
    /// Further conditions; all must hold.
    pub match_expressions: Vec<Requirement>,
}

/// One condition of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// What it is compared with: not empty for `In` and `NotIn`, empty otherwise.
    pub values: Vec<String>,
}

/// The four operators of the API. `NotIn` and `DoesNotExist` match a missing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// A selector of exactly these labels.
    pub fn of(labels: Labels) -> Self {
        Self { match_labels: labels, match_expressions: Vec::new() }
    }

    /// Whether the labels satisfy every condition.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|r| r.matches(labels))
    }

    /// The keys this selector looks at.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let expressions = self.match_expressions.iter().map(|r| r.key.as_str());
        self.match_labels.keys().map(String::as_str).chain(expressions)
    }
}

impl Requirement {
    /// Whether the labels satisfy this condition.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|v| self.values.contains(v));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Selector {
    /// As `kubectl get -l` takes it: `app=web,tier in (a,b),!canary`; `<all>` for the empty one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let terms: Vec<String> = labels.chain(self.match_expressions.iter().map(ToString::to_string)).collect();
        if terms.is_empty() { f.pad("<all>") } else { f.pad(&terms.join(",")) }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}
