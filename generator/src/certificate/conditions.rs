//! A completeness as conditions of a status, in the form that Kubernetes' own objects have (metav1.Condition; the
//! time of the last change is whoever's who writes the status).
//!
//! Always holds: `True` is good; types and reasons are stable names; each type is there once, in this order.

use super::{Completeness, text};
use crate::naming;
use serde::Serialize;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The answer.
    pub status: Status,
    /// Why, as a word for programs.
    pub reason: &'static str,
    /// Why, for a person.
    pub message: String,
}

/// A condition's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub enum Status {
    True,
    False,
    Unknown,
}

/// The bound is as low as required.
pub const COMPLETE: &str = "Complete";
/// Every hour counts: the nodes were watched.
pub const NODES_WATCHED: &str = "NodesWatched";
/// No event was lost.
pub const EVENTS_KEPT: &str = "EventsKept";
/// Both ends of every flow are known.
pub const ATTRIBUTED: &str = "Attributed";
/// Of every flow it is known who opened it.
pub const DIRECTIONS_KNOWN: &str = "DirectionsKnown";
/// Every job ran in the window.
pub const JOBS_RAN: &str = "JobsRan";
/// Every other workload was seen in it.
pub const WORKLOADS_SEEN: &str = "WorkloadsSeen";

pub(super) fn of(one: &Completeness, required: f64) -> Vec<Condition> {
    let hours = |n| naming::count(n, "hour");
    vec![
        complete(one, required),
        match (one.slices_watched, one.slices) {
            (0, _) => unknown(NODES_WATCHED, "NothingWatched", "no hour in which its nodes were watched"),
            (watched, all) => told(
                NODES_WATCHED,
                (watched == all, "EveryHourWatched", "HoursNotWatched"),
                format!("{} of {} watched on {}", watched, hours(all), naming::count(one.nodes.len() as u64, "node")),
            ),
        },
        told(
            EVENTS_KEPT,
            (one.lost_on_its_nodes == 0, "NothingLost", "EventsLost"),
            format!("{} lost on its nodes", naming::count(one.lost_on_its_nodes, "event")),
        ),
        told(
            ATTRIBUTED,
            (one.unattributed_share == 0.0, "EveryEndKnown", "EndsUnknown"),
            format!("{:.2} % of its flows with an end that nobody knows", one.unattributed_share * 100.0),
        ),
        told(
            DIRECTIONS_KNOWN,
            (one.direction_unknown == 0, "EveryDirectionKnown", "DirectionsUnknown"),
            format!("{} of which nobody knows who opened", naming::count(one.direction_unknown, "flow")),
        ),
        told(
            JOBS_RAN,
            (one.jobs_never_ran.is_empty(), "EveryJobRan", "JobsNeverRan"),
            names("jobs that never ran in the window", &one.jobs_never_ran),
        ),
        told(
            WORKLOADS_SEEN,
            (one.never_seen.is_empty(), "EveryWorkloadSeen", "WorkloadsNeverSeen"),
            names("workloads never seen in the window", &one.never_seen),
        ),
    ]
}

fn complete(one: &Completeness, required: f64) -> Condition {
    match one.upper_bound {
        None => unknown(COMPLETE, "NothingWatched", "nothing was watched"),
        Some(bound) if one.is_complete(required) => {
            let message = format!("at most {bound:.3} new edges an hour (95 % bound), {required} required");
            Condition { kind: COMPLETE, status: Status::True, reason: "BoundReached", message }
        }
        Some(_) => Condition {
            kind: COMPLETE,
            status: Status::False,
            reason: "BoundAboveRequired",
            message: text::wait(one, required),
        },
    }
}

fn told(kind: &'static str, (is_good, good, bad): (bool, &'static str, &'static str), message: String) -> Condition {
    let (status, reason) = if is_good { (Status::True, good) } else { (Status::False, bad) };
    Condition { kind, status, reason, message }
}

fn unknown(kind: &'static str, reason: &'static str, message: &str) -> Condition {
    Condition { kind, status: Status::Unknown, reason, message: message.to_owned() }
}

fn names(what: &str, all: &[String]) -> String {
    if all.is_empty() { format!("{what}: none") } else { format!("{what}: {}", all.join(", ")) }
}
