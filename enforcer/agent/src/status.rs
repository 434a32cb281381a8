//! What the agent answers.

use crate::{HalfSeen, window::Window};
use compile::{Kept, Warning};
use datapath::{Ahead, Attachment, Counted, Counters, Publishing, Uncovered};
use model::ledger::Ledger;
use observer::Waited;
use std::{collections::BTreeMap, sync::Arc};
use verdict::Mode;

/// A mode as the label has it.
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Learn => "learn",
        Mode::Audit => "audit",
        Mode::Enforce => "enforce",
    }
}

/// What an update did.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Endpoints that got a generation and an epoch.
    pub endpoints: usize,
    /// Identities written and removed.
    pub identities: usize,
    /// Slots written.
    pub slots: usize,
    /// Pods of this node that are covered, `namespace/name`, with their mode.
    pub covered: BTreeMap<Arc<str>, Mode>,
    /// Pods of this node that are not, and why.
    pub not_covered: Vec<NotCovered>,
    /// Links that lead to no pod.
    pub uncovered_links: Vec<Uncovered>,
    /// What was passed over in the cluster's objects.
    pub warnings: Vec<Warning>,
    /// Policies that are gone and stay in force for now.
    pub kept: Kept,
}

/// A pod that is not covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCovered {
    /// `namespace/name`.
    pub pod: Arc<str>,
    /// Why.
    pub why: String,
}

/// The agent at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// How hooks are attached on this kernel.
    pub attachment: Attachment,
    /// How endpoints' words are published.
    pub publishing: Publishing,
    /// The kernel's counters.
    pub counters: Counters,
    /// Events read.
    pub events: u64,
    /// Events that named nothing.
    pub unreadable_events: u64,
    /// Packets of verdicts without an entry, each a row of its own.
    pub rows_without_entry: u64,
    /// Events whose packet had no addresses to make a row of.
    pub events_without_row: u64,
    /// Entries that went without a word: their last counters are lost (law 7).
    pub lost_entries: u64,
    /// What slices told of each endpoint's entries, by ordinal (law 7).
    pub counted: BTreeMap<u32, Counted>,
    /// Entries that stood idle through a change, judged again here.
    pub idle_judged: u64,
    /// What stands before our programs, by interface name; checked once a second.
    pub ahead: BTreeMap<Arc<str>, Vec<Ahead>>,
    /// Pods, by UID, whose links only one half of connections crosses, as far as is known.
    pub halves: BTreeMap<Arc<str>, HalfSeen>,
    /// How long new links had no program, and how long nobody knew their pods.
    pub window: Window,
    /// Flows that waited until their pods were among the cluster's objects.
    pub waited: Waited,
    /// Rows the log did not take, and the last reason.
    pub log_failures: (u64, Option<String>),
}

/// What is left when an agent has stopped.
#[derive(Debug)]
pub struct Stopped {
    /// The last status, after the last slices.
    pub status: Status,
    /// What was learned.
    pub ledger: Ledger,
    /// What the log's writer did.
    pub log: flowlog::Counts,
}
