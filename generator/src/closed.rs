//! The default-deny of each namespace: an object of its own, so that a pod which no other policy names
//! is closed too.
//!
//! Always holds: it closes no workload that the generator knows and cannot open; whether a namespace
//! has one depends on the inventory and the operator's word, never on a flow (law 11).

use crate::{
    naming,
    refused::Refused,
    subjects::{Subjects, WithoutPolicy},
    synthesize::MANAGED_BY,
};
use model::{
    labels::{Labels, Selector},
    policy::NetworkPolicy,
};
use std::collections::{BTreeMap, BTreeSet};

/// The name of a namespace's default-deny. No workload's policy has it.
pub const DEFAULT_DENY: &str = "default-deny";

/// Which namespaces are closed by default, and which are not and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Namespaces with a default-deny.
    pub closed: BTreeSet<String>,
    /// Namespaces with policies and without a default-deny: the reason.
    pub open: BTreeMap<String, String>,
}

impl Closed {
    /// The namespaces of all subjects, without those in `left_open`.
    ///
    /// # Errors
    /// A namespace left open in which there is nothing to close: it is misspelt.
    pub fn of(subjects: &Subjects, left_open: &BTreeSet<String>) -> Result<Self, Refused> {
        let mut all = Self::default();
        for subject in subjects.all() {
            all.closed.insert(subject.key.namespace.clone());
        }
        let unknown: Vec<String> = left_open.difference(&all.closed).map(|name| naming::printable(name)).collect();
        if !unknown.is_empty() {
            return Err(Refused::NoSuchNamespace(unknown));
        }
        for (key, why) in &subjects.without_policy {
            // Pods of the host network are selected by nothing, and what is gone does not come back.
            if *why == WithoutPolicy::NoLabels && all.closed.contains(&key.namespace) {
                let reason = format!("it would close {}: {}", naming::workload(key), why.meaning());
                all.open.entry(key.namespace.clone()).or_insert(reason);
            }
        }
        for name in left_open {
            all.open.insert(name.clone(), "left open by --no-default-deny".to_owned());
        }
        all.closed.retain(|name| !all.open.contains_key(name));
        Ok(all)
    }

    /// The objects.
    pub fn policies(&self) -> impl Iterator<Item = NetworkPolicy> {
        self.closed.iter().map(|namespace| NetworkPolicy {
            namespace: namespace.clone(),
            name: DEFAULT_DENY.to_owned(),
            labels: Labels::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]),
            annotations: Labels::new(),
            pod_selector: Selector::default(),
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
            source: None,
        })
    }
}
