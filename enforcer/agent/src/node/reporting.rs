//! What the agent knows of itself beside its tables, and all of it as a [`Report`].

use super::Node;
use crate::{
    Certainty, Error, HalfSeen, Update, mode_name,
    report::{
        Connections, Count, Endpoint, Events, HalfLink, KeptPolicy, Link, Log, NewLinks, Overtaken, Refused, Report,
        Source, Table, UncoveredLink,
    },
};
use compile::{Kept, RuleTable};
use datapath::{Ahead, Attachment, Counters, Place, Publishing, WhyUncovered};
use flow::{Address, Direction};
use model::record::UnixNanos;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use verdict::{
    Share,
    abi::{epoch_of, maps},
};

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct History {
    started: UnixNanos,
    from: String,
    updated: UnixNanos,
    updates: u64,
    refused: Option<(UnixNanos, String)>,
    last: Update,
}

impl History {
    pub(super) fn since(now: UnixNanos) -> Self {
        Self { started: now, ..Self::default() }
    }

    /// Where the objects that come next are from.
    pub(super) fn comes_from(&mut self, from: &str) {
        from.clone_into(&mut self.from);
    }

    /// An update is in force.
    pub(super) fn updated(&mut self, at: UnixNanos, update: &Update) {
        self.updated = at;
        self.updates += 1;
        self.refused = None;
        self.last = update.clone();
    }

    /// Something is not in force.
    pub(super) fn refused(&mut self, at: UnixNanos, why: String) {
        self.refused = Some((at, why));
    }

    fn source(&self) -> Source {
        Source {
            from: self.from.clone(),
            updated_ns: self.updated,
            updates: self.updates,
            refused: self.refused.as_ref().map(|(at, why)| Refused { at_ns: *at, why: why.clone() }),
        }
    }
}

/// Everything, as it is now.
pub(super) fn report(node: &mut Node) -> Result<Report, Error> {
    let status = node.status()?;
    let table = &node.table;
    let log = node.observer.counts();
    let connections = node.datapath.sweep().0.standing().len() as u64;
    let places = node.datapath.tables().places().clone();
    let entries = entries(table, &places, connections);
    let mut endpoints = Vec::new();
    for endpoint in table.endpoints.values() {
        let tables = node.datapath.tables();
        let in_use = |share| tables.in_use(endpoint.ordinal, share);
        let connections = Connections {
            half_open: in_use(Share::HalfOpen)?,
            established: in_use(Share::Established)?,
            denied: in_use(Share::Tombstone)?,
        };
        let mut shown = self::endpoint(endpoint, places.get(&endpoint.ordinal), connections, &node.history.last);
        (shown.foreign_sources, shown.foreign_left_out) = node.foreign.of(&endpoint.uid);
        endpoints.push(shown);
    }
    endpoints.sort_by(|a, b| (&a.pod, &a.uid).cmp(&(&b.pod, &b.uid)));
    let tables = node.datapath.sizes().into_iter().map(|size| Table {
        entries: entries.get(size.name.as_str()).copied(),
        name: size.name,
        room: size.room,
        bytes: size.bytes,
    });
    Ok(Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: node.options.node.clone(),
        pid: std::process::id(),
        started_ns: node.history.started,
        attachment: match status.attachment {
            Attachment::Tcx => "tcx",
            Attachment::Clsact => "clsact",
        }
        .to_owned(),
        publishing: match status.publishing {
            Publishing::OneStore => "one-store",
            Publishing::SystemCall => "system-call",
        }
        .to_owned(),
        pins: node.datapath.pins().map(|pins| pins.display().to_string()),
        source: node.history.source(),
        endpoints,
        uncovered_links: uncovered_links(&node.history.last),
        overtaken: overtaken(&status.ahead),
        half_links: half_links(table, &status.halves),
        window: NewLinks {
            links: status.window.links,
            last_ns: nanos(status.window.last),
            longest_ns: nanos(status.window.longest),
        },
        warnings: node.history.last.warnings.iter().map(ToString::to_string).collect(),
        kept_policies: kept_policies(node.keeper.kept()),
        not_remembered: node.keeper.problem().map(str::to_owned),
        tables: tables.collect(),
        counters: counts(&status.counters),
        events: Events {
            read: status.events,
            unreadable: status.unreadable_events,
            without_row: status.events_without_row,
            ended: status.counters.ended.events,
            ended_lost: status.counters.ended.lost,
            lost_entries: status.lost_entries,
            idle_judged: status.idle_judged,
            corrected_shares: node.datapath.sweep().0.corrected_shares,
        },
        log: Log {
            rows: log.rows,
            lost: log.lost,
            failures: status.log_failures.0,
            last_failure: status.log_failures.1,
        },
        self_check: node.check.report(),
    })
}

/// Entries of the tables that the agent writes, and of the one it sweeps.
fn entries(table: &RuleTable, places: &BTreeMap<u32, Place>, connections: u64) -> BTreeMap<&'static str, u64> {
    let rules = table.slots.values().map(|slot| slot.rules_len()).sum::<usize>() + table.frontends.len();
    let port_classes: usize = table.slots.values().map(|slot| slot.port_classes_len()).sum();
    let links = places.values().filter(|place| place.link.is_some()).count();
    [
        (maps::LINKS, links as u64),
        (maps::ENDPOINTS, table.endpoints.len() as u64),
        (maps::GENERATIONS, table.generations.len() as u64),
        (maps::IDENTITIES, table.identities.len() as u64),
        (maps::PEERS, table.peers.len() as u64),
        (maps::RULES, rules as u64),
        (maps::PORT_CLASSES, port_classes as u64),
        (maps::CONNECTIONS, connections),
    ]
    .into()
}

fn endpoint(endpoint: &compile::Endpoint, place: Option<&Place>, connections: Connections, last: &Update) -> Endpoint {
    let pod = format!("{}/{}", endpoint.namespace, endpoint.name);
    let not_covered = last.not_covered.iter().find(|not| *not.pod == *pod).map(|not| not.why.clone());
    let used = endpoint.addresses.iter().filter(|address| **address != Address::default());
    let link = place.and_then(|place| place.link.as_ref());
    Endpoint {
        pod,
        uid: endpoint.uid.to_string(),
        addresses: used.map(|address| address.ip()).collect(),
        source_prefixes: endpoint.further.iter().map(ToString::to_string).collect(),
        mode: mode_name(endpoint.mode).to_owned(),
        not_covered,
        link: link.map(|(ifindex, name)| Link { ifindex: *ifindex, name: name.to_string() }),
        ordinal: endpoint.ordinal,
        slot: endpoint.in_force,
        staged_slot: endpoint.staged,
        generation: endpoint.generation,
        epoch: place.map_or(0, |place| epoch_of(place.word)),
        connections,
        ..Endpoint::default()
    }
}

/// Why a policy that is gone is still in force.
const ENDS: &str = "its namespace is being deleted: it stays in force until the last pod is gone";
/// The same, while nobody knows whether the namespace is.
const SETTLES: &str = "it was deleted: what that opens opens within seconds, unless its namespace ends too";

/// What is told of policies that are gone and stay in force.
pub fn kept_policies(kept: &Kept) -> Vec<KeptPolicy> {
    let policy = |why: &'static str| move |policy: &String| KeptPolicy { policy: policy.clone(), why: why.to_owned() };
    kept.ending.iter().map(policy(ENDS)).chain(kept.settling.iter().map(policy(SETTLES))).collect()
}

fn uncovered_links(last: &Update) -> Vec<UncoveredLink> {
    let links = last.uncovered_links.iter().map(|uncovered| UncoveredLink {
        link: Link { ifindex: uncovered.ifindex, name: uncovered.name.to_string() },
        why: uncovered.why.to_string(),
        on_purpose: matches!(uncovered.why, WhyUncovered::Uplink | WhyUncovered::Ignored),
    });
    links.collect()
}

fn overtaken(ahead: &BTreeMap<Arc<str>, Vec<Ahead>>) -> Vec<Overtaken> {
    let each = ahead.iter().flat_map(|(link, ahead)| ahead.iter().map(move |one| (link, one)));
    let overtaken = each.map(|(link, one)| Overtaken {
        link: link.to_string(),
        direction: direction(one.direction).to_owned(),
        what: one.to_string(),
    });
    overtaken.collect()
}

fn half_links(table: &RuleTable, halves: &BTreeMap<Arc<str>, HalfSeen>) -> Vec<HalfLink> {
    let each = halves.iter().filter_map(|(uid, half)| Some((table.endpoints.get(uid)?, half)));
    let links = each.map(|(endpoint, half)| HalfLink {
        pod: format!("{}/{}", endpoint.namespace, endpoint.name),
        missing: direction(half.missing).to_owned(),
        certainty: match half.certainty {
            Certainty::Suspected => "suspected",
            Certainty::Shown => "shown",
        }
        .to_owned(),
        what: half.to_string(),
    });
    links.collect()
}

fn direction(direction: Direction) -> &'static str {
    if direction == Direction::Inbound { "in" } else { "out" }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn counts(counters: &Counters) -> Vec<Count> {
    let count =
        |((reason, direction, dropped), counter): (&(verdict::Reason, Direction, bool), &datapath::Counter)| Count {
            reason: reason.name().to_owned(),
            direction: self::direction(*direction).to_owned(),
            allows: reason.allows(),
            dropped: *dropped,
            packets: counter.packets,
            bytes: counter.bytes,
            events: counter.events,
            suppressed: counter.suppressed,
            lost: counter.lost,
        };
    counters.verdicts.iter().map(count).collect()
}
