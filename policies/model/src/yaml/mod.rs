//! Kubernetes documents in and out: YAML and JSON, Lists and streams, with positions, and policies
//! written so that every reader reads the same.
//!
//! The way in: [`documents`] cuts a text into pieces, [`pieces`] reads them side by side, [`from_yaml`]
//! and [`from_json`] make trees of them, [`found`] tells what a tree is, [`objects`], [`workloads`] and
//! [`network_policy`] read its fields, [`entry`] puts it into the cluster, [`recording`] plays what a watch
//! told.
//!
//! Always holds: no input makes a function of this module panic (law 14); what is written, read
//! again, is the same policy, for YAML 1.1 and 1.2 readers alike.

mod documents;
mod entry;
mod field;
mod found;
mod from_json;
mod from_yaml;
mod names;
mod network_policy;
mod objects;
mod pieces;
mod plain;
mod recording;
mod shape;
mod tree;
mod values;
mod workloads;
mod write;

use crate::{
    cluster::{Cluster, Pod},
    history::Entry,
    policy::PolicySet,
};
use entry::Known;
use found::{Found, Reading};
use pieces::{Piece, Pieces};
use recording::Event;
use std::{ops::ControlFlow, sync::Arc};

pub use found::{Class, Wanted};
pub use write::{write_policy, write_staged_policy};

/// A message holds about this many characters at most, whatever the text it quotes.
const MAX_MESSAGE: usize = 1000;

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

impl ReadError {
    /// What a long text says at its end, which is what to try, stays.
    pub(crate) fn new(file: &Arc<str>, line: u32, mut message: String) -> Self {
        let start = message.char_indices().nth(MAX_MESSAGE / 2).map(|(at, _)| at);
        let end = message.char_indices().nth_back(MAX_MESSAGE / 2).map(|(at, _)| at);
        if let (Some(start), Some(end)) = (start, end)
            && start < end
        {
            message.replace_range(start..end, "…");
        }
        Self { file: file.clone(), line, message }
    }
}

/// Reads texts into one cluster, one after the other.
#[derive(Debug, Default)]
pub struct Reader {
    cluster: Cluster,
    known: Known,
    wanted: Wanted,
    events: Vec<Event>,
}

impl Reader {
    /// A reader of what is wanted.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Adds every object of `text`. An object of the same kind, namespace and name as an earlier one
    /// is an error naming both places (pods with another UID are another pod). What is wrong goes to
    /// `on_error`, in the order of the text, which says whether to go on: then with the next object,
    /// or the next document where one cannot be read at all.
    pub fn read(
        &mut self,
        file: &str,
        text: &str,
        on_error: &mut dyn FnMut(ReadError) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let reading = Reading { file: file.into(), wanted: self.wanted };
        let (cluster, known, events) = (&mut self.cluster, &mut self.known, &mut self.events);
        let mut take = |found: Result<Found, ReadError>| {
            let outcome = found.and_then(|found| match found {
                Found::Entry(entry) => known.insert(cluster, *entry),
                Found::Event(event) => {
                    events.push(*event);
                    Ok(())
                }
                Found::PassedOver(kind) => {
                    *cluster.passed_over.entry(kind).or_default() += 1;
                    Ok(())
                }
            });
            outcome.map_or_else(&mut *on_error, ControlFlow::Continue)
        };
        let mut pieces = Pieces::new(&reading, &mut take);
        documents::cut(&reading, text, &mut pieces)?;
        pieces.finish()
    }

    /// Adds an object that was read by itself, as [`Reader::read`] does.
    pub fn add(&mut self, object: Object) -> Result<(), ReadError> {
        self.known.insert(&mut self.cluster, object.0)
    }

    /// What was read, in order; after an error, what was right.
    pub fn finish(self) -> Cluster {
        let mut cluster = self.cluster;
        if !self.events.is_empty() {
            cluster = recording::played(cluster, self.events);
            entry::name_namespaces(&mut cluster);
        }
        let order = |a: &Pod, b: &Pod| {
            (&a.namespace, &a.name, a.started, &a.uid).cmp(&(&b.namespace, &b.name, b.started, &b.uid))
        };
        cluster.pods.sort_by(order);
        cluster.policies.sort();
        cluster.staged.sort();
        cluster
    }
}

/// One object of a cluster, read by itself: what podfence looks at of it, without annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object(Entry);

impl Object {
    /// Reads the JSON text of one object of a class, which it need not name; `None` of a class that podfence does not
    /// look at. `file` is what its [`crate::cluster::Source`] and errors say.
    pub fn read(file: &Arc<str>, class: &Class, text: &str) -> Result<Option<Self>, ReadError> {
        let reading = Reading { file: file.clone(), wanted: Wanted::Everything };
        let mut found = reading.piece(&Piece::Json { text, line: 1, list: Some(class.clone()) });
        match (found.pop().transpose()?, found.is_empty()) {
            (Some(Found::Entry(entry)), true) => Ok(Some(Self(entry.without_annotations()))),
            (Some(Found::PassedOver(_)), true) => Ok(None),
            _ => Err(ReadError::new(file, 1, format!("not one {}", class.kind))),
        }
    }
}

/// Reads every document of `text` into `cluster` with a [`Reader`], up to the first error; after one,
/// `cluster` holds what came before it.
pub fn read_into(cluster: &mut Cluster, file: &str, text: &str) -> Result<(), ReadError> {
    let begun = std::mem::take(cluster);
    let (outcome, read) = read_on(begun, Wanted::Everything, file, text);
    *cluster = read;
    outcome
}

/// Reads only policies (a folder of generated ones), passing other kinds over.
pub fn read_policies(file: &str, text: &str) -> Result<PolicySet, ReadError> {
    let (outcome, read) = read_on(Cluster::default(), Wanted::Policies, file, text);
    outcome.map(|()| read.policies)
}

fn read_on(begun: Cluster, wanted: Wanted, file: &str, text: &str) -> (Result<(), ReadError>, Cluster) {
    let mut reader = Reader { known: Known::of(&begun), cluster: begun, wanted, events: Vec::new() };
    let mut first = Ok(());
    let _ = reader.read(file, text, &mut |error| {
        first = Err(error);
        ControlFlow::Break(())
    });
    (first, reader.finish())
}
