//! The agent at one moment, as programs read it: the JSON that the status socket serves at `/status`.
//!
//! Always holds: fields are only ever added; times are nanoseconds since the epoch, sizes bytes; what is 0 or
//! empty is there, so that a reader need not know what may be missing. Counters begin at the agent's start.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Everything `podfence status` shows and `/metrics` counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The agent's version.
    pub version: String,
    /// The node's name in the cluster.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_ns: i64,
    /// How hooks are attached: `tcx` or `clsact`.
    pub attachment: String,
    /// How an endpoint is published: `one-store` or `system-call`.
    pub publishing: String,
    /// Where links are pinned, if they are.
    pub pins: Option<String>,
    /// What is enforced, and since when.
    pub source: Source,
    /// Every pod of this node, by namespace and name.
    pub endpoints: Vec<Endpoint>,
    /// Links that lead to no pod.
    pub uncovered_links: Vec<UncoveredLink>,
    /// What stands before our programs, or took their place: it may wave through what ours would drop.
    pub overtaken: Vec<Overtaken>,
    /// Pods whose links only one half of connections crosses.
    pub half_links: Vec<HalfLink>,
    /// How long links that came while the agent ran had no program.
    pub window: NewLinks,
    /// What of the cluster's objects was passed over.
    pub warnings: Vec<String>,
    /// Policies that are gone and stay in force for now.
    pub kept_policies: Vec<KeptPolicy>,
    /// Why what is in force is not kept for the agent's next start, or what was kept could not be read.
    pub not_remembered: Option<String>,
    /// The kernel's tables.
    pub tables: Vec<Table>,
    /// What became of packets. Of each reason that makes events, events + suppressed + lost = packets.
    pub counters: Vec<Count>,
    /// Events and entries on their way to the log.
    pub events: Events,
    /// The flow log.
    pub log: Log,
    /// The loaded tables, held against the reference evaluator.
    pub self_check: SelfCheck,
}

/// What is enforced, and since when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Where the cluster's objects come from.
    pub from: String,
    /// When they were last brought into force; 0: not yet.
    pub updated_ns: i64,
    /// How often they were, changes of links included.
    pub updates: u64,
    /// Why what came after them is not in force.
    pub refused: Option<Refused>,
}

/// Objects that are not in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// When they came.
    pub at_ns: i64,
    /// Why: what; why; what to try.
    pub why: String,
}

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// `namespace/name`.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The mode in effect: `learn`, `audit` or `enforce`.
    pub mode: String,
    /// Why no packet of it is judged; `null`: it is covered.
    pub not_covered: Option<String>,
    /// The link that leads to it.
    pub link: Option<Link>,
    /// Its place in the kernel's arrays.
    pub ordinal: u32,
    /// The slot in force; pods with the same rules have the same.
    pub slot: u32,
    /// The slot staged; 0: nothing is staged for it.
    pub staged_slot: u32,
    /// Its generation: slots and mode, immutable.
    pub generation: u32,
    /// The epoch of its last publish; never used twice on a node. 0: not published.
    pub epoch: u64,
    /// Connections it has in the table.
    pub connections: Connections,
    /// Prefixes of addresses that it has beside these, by its annotation.
    pub source_prefixes: Vec<String>,
    /// Addresses it was seen to send from that are not its own: dropped in enforce (`spoofed`).
    pub foreign_sources: Vec<ForeignSource>,
    /// Events of such addresses beyond those listed.
    pub foreign_left_out: u64,
}

/// An address that a pod sends from without having it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForeignSource {
    /// The address.
    pub address: Option<IpAddr>,
    /// Events that told of it; their rate is bounded, so packets may be more.
    pub events: u64,
    /// When the last did.
    pub last_ns: i64,
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
}

/// Entries of one pod in the connection table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Half-open, or one-way.
    pub half_open: u64,
    /// Established, or answered.
    pub established: u64,
    /// Denied, and remembered.
    pub denied: u64,
}

/// A link that leads to no pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UncoveredLink {
    /// The link.
    pub link: Link,
    /// Why it leads to none.
    pub why: String,
    /// Whether that is as it should be: the node's own way out, or left alone by a setting.
    pub on_purpose: bool,
}

/// Something before one of our programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overtaken {
    /// The interface's name.
    pub link: String,
    /// Which packets it sees first: `in` towards the pod, `out` from it.
    pub direction: String,
    /// What it is.
    pub what: String,
}

/// A pod's link that only one half of connections crosses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HalfLink {
    /// The pod, `namespace/name`.
    pub pod: String,
    /// The half that is missing: `in` towards the pod, `out` from it.
    pub missing: String,
    /// `suspected`: the pod itself can bring this about, and nothing follows. `shown`: it cannot, and its
    /// namespace's label brings it to enforce no more until the link is whole again.
    pub certainty: String,
    /// All of that in words, with a connection that shows it.
    pub what: String,
}

/// Links that came while the agent ran, and how long they had no program: from the last look that did not see them
/// until they were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewLinks {
    /// How many came.
    pub links: u64,
    /// The last one's time.
    pub last_ns: u64,
    /// The longest.
    pub longest_ns: u64,
}

/// A policy that is gone and stays in force for now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptPolicy {
    /// `namespace/name`.
    pub policy: String,
    /// Why, and how long.
    pub why: String,
}

/// One of the kernel's tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    /// Its name in the kernel object.
    pub name: String,
    /// Entries in it; `null` where nobody counts.
    pub entries: Option<u64>,
    /// Entries it has room for; of a ring buffer, bytes.
    pub room: u64,
    /// Memory it takes; `null` where the kernel does not say.
    pub bytes: Option<u64>,
}

/// Packets of one reason and direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// Why they were allowed or denied.
    pub reason: String,
    /// `in`: towards the pod; `out`: from it.
    pub direction: String,
    /// Whether the reason allows.
    pub allows: bool,
    /// Whether they were dropped; what is denied passes in learn and audit.
    pub dropped: bool,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events made of them.
    pub events: u64,
    /// Events not made, to bound their rate.
    pub suppressed: u64,
    /// Events that found the ring full.
    pub lost: u64,
}

/// Events and entries on their way to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// Events read.
    pub read: u64,
    /// Events that named nothing.
    pub unreadable: u64,
    /// Events whose packet had no addresses to make a row of.
    pub without_row: u64,
    /// Connections whose end the kernel told itself.
    pub ended: u64,
    /// Connections whose end it could not tell, as the ring was full.
    pub ended_lost: u64,
    /// Entries that went without a word: their last counters are lost.
    pub lost_entries: u64,
    /// Idle connections judged again after a change.
    pub idle_judged: u64,
    /// Shares of pods in the connection table that had lost count and were corrected.
    pub corrected_shares: u64,
}

/// The flow log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// Rows handed to the system.
    pub rows: u64,
    /// Rows that could not be written.
    pub lost: u64,
    /// How often the log did not take a row.
    pub failures: u64,
    /// Why, the last time.
    pub last_failure: Option<String>,
}

/// The loaded tables, held against the reference evaluator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelfCheck {
    /// Questions asked of both.
    pub checked: u64,
    /// Questions they answered differently.
    pub drifted: u64,
    /// The last of these.
    pub last: Vec<Drift>,
}

/// A question that the loaded tables and the reference evaluator answer differently.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drift {
    /// When.
    pub at_ns: i64,
    /// The question: who, which way, with whom, at which port.
    pub question: String,
    /// What the loaded tables say.
    pub kernel: String,
    /// What the reference evaluator says.
    pub expected: String,
}

impl Report {
    /// What is not as it should be, one sentence each; none: the agent is healthy.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.source.updated_ns == 0 {
            problems.push("nothing is enforced yet".to_owned());
        }
        if let Some(refused) = &self.source.refused {
            problems.push(format!("what {} says now is not in force: {}", self.source.from, refused.why));
        }
        if let Some(why) = &self.not_remembered {
            problems.push(format!("what is in force does not outlive the agent: {why}"));
        }
        for endpoint in &self.endpoints {
            if let Some(why) = &endpoint.not_covered {
                problems.push(format!("pod {} is not covered: {why}", endpoint.pod));
            }
        }
        for overtaken in &self.overtaken {
            problems.push(format!("link {} is overtaken: {}", overtaken.link, overtaken.what));
        }
        for half in &self.half_links {
            let held = self.endpoints.iter().any(|of| of.pod == half.pod && of.mode != "enforce");
            let held = match (half.certainty.as_str(), held) {
                ("shown", true) => "; its namespace's label does not bring it to enforce, its workload's own does",
                _ => "",
            };
            problems.push(format!("pod {}: {}{held}", half.pod, half.what));
        }
        for uncovered in self.uncovered_links.iter().filter(|uncovered| !uncovered.on_purpose) {
            problems.push(format!("link {} leads to no pod: {}", uncovered.link.name, uncovered.why));
        }
        let lost: u64 = self.counters.iter().map(|count| count.lost).sum();
        let counts = [
            (lost, "events were lost, as the ring was full"),
            (self.events.ended_lost, "ends of connections were lost, as the ring was full"),
            (self.events.unreadable, "events could not be read"),
            (self.events.lost_entries, "connections went without telling their last counters"),
            (self.log.lost, "rows of the log are lost"),
            (self.self_check.drifted, "answers of the loaded tables differ from the reference evaluator's"),
        ];
        problems.extend(counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        problems
    }
}
