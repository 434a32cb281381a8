//! A recorded watch: a JSON document an event, as `kubectl get --watch --output-watch-events -o json` prints them,
//! with the time at which each came where somebody noted it.
//!
//! ```text
//! {"type": "ADDED", "object": {"kind": "Pod", …}, "at": 1767225600250}
//! ```
//!
//! `ADDED`, `MODIFIED` and `DELETED` tell of an object. `ERROR` ends a watch: until the next `BOOKMARK` with the
//! annotation `k8s.io/initial-events-end` (KEP 3157) nobody knew what happened, and what is `ADDED` up to there is all
//! there is.

use super::{
    ReadError,
    field::{Field, Object, WholeOrText},
    found::{Found, Reading},
    tree::Node,
};
use crate::{
    cluster::Cluster,
    history::{Change, Entry, History, Settings, Told},
    record::UnixNanos,
    tenure,
};
use jiff::Timestamp;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
const MILLI: UnixNanos = 1_000_000;

/// What a recorded watch says.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is boxed as a whole")]
pub(super) enum Event {
    Told(Told),
    /// The connection was lost.
    Lost(UnixNanos),
    /// What was there when the watch began has been told.
    Listed(Option<UnixNanos>),
    /// It goes on.
    GoesOn,
}

/// Whether a map is an event rather than an object.
pub(super) fn is_event(node: &Node<'_>) -> bool {
    node.get("kind").is_none() && node.get("type").is_some() && node.get("object").is_some()
}

impl Reading {
    /// Reads one event.
    pub(super) fn event(&self, node: &Node<'_>, line: u32) -> Result<Found, ReadError> {
        let event = Object::unnamed(self.file.clone(), "watch event", node, line);
        let root = event.root();
        let kind = root.at("type")?;
        let at = time(&root.at("at")?)?;
        let change = match kind.needed_text("write ADDED, MODIFIED, DELETED, BOOKMARK or ERROR")? {
            "ADDED" | "MODIFIED" => Change::Applied,
            "DELETED" => Change::Deleted,
            "ERROR" => {
                let missing = || kind.wrong("the watch ended, and nobody says when; add `at`, milliseconds since 1970");
                return Ok(Found::Event(Box::new(Event::Lost(at.ok_or_else(missing)?))));
            }
            "BOOKMARK" => {
                let (object, metadata) = (root.at("object")?, "metadata");
                let is_end = object.at(metadata)?.at("annotations")?.at(INITIAL_EVENTS_END)?.text()? == Some("true");
                return Ok(Found::Event(Box::new(if is_end { Event::Listed(at) } else { Event::GoesOn })));
            }
            other => {
                return Err(kind.wrong(format_args!(
                    "`{other}` is none of ADDED, MODIFIED, DELETED, BOOKMARK, ERROR (in capitals)"
                )));
            }
        };
        let Some(object) = node.get("object") else { return Err(root.at("object")?.wrong("missing")) };
        let line = if object.line > 0 { object.line } else { line };
        let version = version(&root.at("object")?.at("metadata")?.at("resourceVersion")?)?;
        let class = self.class(object, line, None)?;
        Ok(match self.object(object, line, &class)? {
            Found::Entry(entry) => Found::Event(Box::new(Event::Told(Told { at, version, change, entry: *entry }))),
            other => other,
        })
    }
}

/// Milliseconds since 1970, or RFC 3339.
fn time(field: &Field<'_>) -> Result<Option<UnixNanos>, ReadError> {
    let wrong = || field.wrong("is no time; write milliseconds since 1970 or one such as 2026-01-02T15:04:05.250Z");
    match field.whole_or_text()? {
        None => Ok(None),
        Some(WholeOrText::Whole(millis)) => millis.checked_mul(MILLI).map(Some).ok_or_else(wrong),
        Some(WholeOrText::Text(text)) => {
            text.parse::<Timestamp>().map(|time| Some(tenure::nanos(time))).map_err(|_| wrong())
        }
    }
}

/// Versions are numbers that grow (KEP 5504); of one that is none nothing is known.
fn version(field: &Field<'_>) -> Result<Option<u64>, ReadError> {
    Ok(field.text()?.and_then(|text| text.parse().ok()))
}

/// Plays the events over what was there before.
pub(super) fn played(before: Cluster, events: Vec<Event>) -> Cluster {
    let mut history = History::of(before, Settings::default());
    // What was listed since the watch was lost, and the last time that was noted.
    let mut listing: Option<(Vec<Told>, UnixNanos)> = None;
    for event in events {
        match (event, &mut listing) {
            (Event::Lost(at), _) => {
                history.gap(at);
                listing = Some((Vec::new(), at));
            }
            (Event::Told(told), Some((list, last))) => {
                *last = told.at.unwrap_or(*last).max(*last);
                list.push(told);
            }
            (Event::Told(told), None) => history.tell(told),
            (Event::Listed(at), Some(_)) => {
                if let Some((list, last)) = listing.take() {
                    history.relist(&listed(history.cluster(), list), at.unwrap_or(last), None);
                }
            }
            (Event::Listed(_) | Event::GoesOn, _) => {}
        }
    }
    // The recording ends before the list is complete: nobody knows what else is gone.
    for told in listing.into_iter().flat_map(|(list, _)| list) {
        history.tell(told);
    }
    history.into_cluster()
}

/// The cluster that a list tells; of kinds that it has none of, what was there.
fn listed(before: &Cluster, list: Vec<Told>) -> Cluster {
    let mut history = History::of(Cluster::default(), Settings::default());
    let of = |wanted: fn(&Entry) -> bool| list.iter().any(|told| wanted(&told.entry));
    let mut cluster = before.clone();
    if of(|entry| matches!(entry, Entry::Pod(_))) {
        cluster.pods.clear();
    } else {
        cluster.pods.retain(crate::cluster::Pod::lives);
    }
    if of(|entry| matches!(entry, Entry::Service(..))) {
        cluster.services.clear();
    }
    if of(|entry| matches!(entry, Entry::Node(..))) {
        cluster.nodes.clear();
    }
    for told in list {
        history.tell(Told { at: None, ..told });
    }
    let new = history.into_cluster();
    cluster.pods.extend(new.pods.into_iter().map(|pod| crate::cluster::Pod { tenure: None, ..pod }));
    cluster.services.extend(new.services);
    cluster.nodes.extend(new.nodes);
    cluster.workloads.extend(new.workloads);
    cluster.namespaces.extend(new.namespaces);
    cluster.endpoint_slices.extend(new.endpoint_slices);
    cluster
}
