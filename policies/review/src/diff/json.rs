//! The diff for programs, as `schemas/diff.schema.json` describes it: a row a connection, never grouped.

use super::{Cause, Diff, Effect, Named, Namespaces, Party, Reportable, Row, Subject, side_name};
use crate::sets::ports_text;
use ipnet::IpNet;
use jiff::Timestamp;
use model::{cluster::Source, policy::Protocol, record::UnixNanos};
use serde::Serialize;
use std::collections::BTreeMap;

/// The whole as JSON, in pieces of text, so that it need not be in memory at once.
pub fn json_pieces(diff: &Diff) -> impl Iterator<Item = String> {
    // Maps of strings and numbers cannot fail to be written.
    let head = serde_json::to_string(&Head::of(diff)).unwrap_or_default();
    let head = head.strip_suffix('}').unwrap_or_default().to_owned() + ",\"rows\":[";
    let mut is_first = true;
    let rows = written(diff).map(move |row| {
        let comma = if std::mem::take(&mut is_first) { "\n" } else { ",\n" };
        comma.to_owned() + &serde_json::to_string(&row).unwrap_or_default()
    });
    std::iter::once(head).chain(rows).chain(std::iter::once("\n]}\n".to_owned()))
}

/// The same as YAML.
pub fn yaml_pieces(diff: &Diff) -> impl Iterator<Item = String> {
    let head = serde_saphyr::to_string(&Head::of(diff)).unwrap_or_default();
    let rows = if diff.is_empty() { "rows: []\n" } else { "rows:\n" };
    let items = written(diff).map(|row| serde_saphyr::to_string(&[row]).unwrap_or_default());
    std::iter::once(head + rows).chain(items)
}

/// What of the kinds can be counted: some only a log can tell.
pub(super) fn counted(diff: &Diff) -> impl Iterator<Item = Reportable> {
    let has_log = diff.has_log();
    Reportable::ALL.into_iter().filter(move |what| has_log || !what.needs_log())
}

/// The rows as they are written; addresses outside one block a row.
fn written(diff: &Diff) -> impl Iterator<Item = Written<'_>> {
    diff.rows().iter().enumerate().flat_map(move |(index, row)| {
        let both = ends(diff.from(row))
            .into_iter()
            .flat_map(move |from| ends(diff.to(row)).into_iter().map(move |to| (from.clone(), to)));
        both.map(move |(from, to)| one(diff, index, row, from, to))
    })
}

fn one<'d>(diff: &'d Diff, index: usize, row: &Row, from: E<'d>, to: E<'d>) -> Written<'d> {
    let ports = diff.ports(row);
    let ports = ports.by_protocol().map(|(protocol, ports)| Ports { protocol, ports: ports_text(ports) }).collect();
    let used = diff.used(index).map(|used| UseObject {
        flows: used.flows,
        last_seen: used.last_seen.map(time),
        by: used
            .by
            .iter()
            .map(|seen| SeenObject {
                from: &seen.from,
                to: &seen.to,
                protocol: seen.protocol,
                port: seen.port,
                flows: seen.flows,
                last_seen: seen.last_seen.map(time),
                attempt: seen.attempt,
            })
            .collect(),
    });
    Written {
        kind: row.kind.name(),
        from,
        to,
        ports,
        partial: row.partial,
        nobody_yet: diff.is_nobody_yet(row),
        used,
        causes: diff.causes(row).map(CauseObject::of).collect(),
    }
}

/// As JSON has times: UTC, in seconds.
pub(super) fn time(at: UnixNanos) -> String {
    Timestamp::from_nanosecond(at.into()).map_or_else(|_| at.to_string(), |moment| format!("{moment:.0}"))
}

fn ends(party: &Party) -> Vec<E<'_>> {
    match party {
        Party::Workload(key) => {
            vec![E::Workload { namespace: &key.namespace, kind: &key.kind, name: &key.name }]
        }
        Party::Outside(cidrs) => cidrs.iter().map(|cidr| E::Outside { cidr }).collect(),
        Party::Nobody { namespace, pods, at } => {
            let (namespace, namespaces) = match namespace {
                Namespaces::Named(name) => (Some(name.as_str()), None),
                Namespaces::New(labels) => (None, labels.as_deref()),
            };
            vec![E::Nobody { nobody: true, namespace, namespaces, pods: pods.as_deref(), at }]
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'d> {
    old: NamedObject<'d>,
    new: NamedObject<'d>,
    counts: BTreeMap<&'static str, usize>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    incomplete: &'d [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    log_left_out: Option<&'d [String]>,
}

impl<'d> Head<'d> {
    fn of(diff: &'d Diff) -> Self {
        Self {
            old: NamedObject::of(&diff.old),
            new: NamedObject::of(&diff.new),
            counts: counted(diff).map(|what| (what.name(), diff.count(what))).collect(),
            incomplete: diff.incomplete(),
            log_left_out: diff.has_log().then(|| diff.left_out()),
        }
    }
}

#[derive(Serialize)]
struct NamedObject<'d> {
    input: &'d str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'d str>,
}

impl<'d> NamedObject<'d> {
    fn of(named: &'d Named) -> Self {
        Self { input: &named.input, revision: named.revision.as_deref() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'d> {
    kind: &'static str,
    from: E<'d>,
    to: E<'d>,
    ports: Vec<Ports>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    nobody_yet: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<UseObject<'d>>,
    causes: Vec<CauseObject<'d>>,
}

#[derive(Serialize, Clone)]
#[serde(untagged)]
enum E<'d> {
    Workload {
        namespace: &'d str,
        kind: &'d str,
        name: &'d str,
    },
    Outside {
        cidr: &'d IpNet,
    },
    Nobody {
        nobody: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<&'d str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<&'d str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pods: Option<&'d str>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        at: &'d [IpNet],
    },
}

#[derive(Serialize)]
struct Ports {
    protocol: Protocol,
    ports: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UseObject<'d> {
    flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    by: Vec<SeenObject<'d>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeenObject<'d> {
    from: &'d str,
    to: &'d str,
    protocol: Protocol,
    port: u16,
    flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    attempt: bool,
}

#[derive(Serialize)]
struct CauseObject<'d> {
    change: &'static str,
    #[serde(flatten)]
    subject: SubjectObject<'d>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Version<'d>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Version<'d>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum SubjectObject<'d> {
    Policy { namespace: &'d str, name: &'d str },
    Namespace(&'d str),
    Workload { namespace: &'d str, kind: &'d str, name: &'d str },
}

#[derive(Serialize)]
struct Version<'d> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

impl<'d> CauseObject<'d> {
    fn of(cause: &'d Cause) -> Self {
        let (effect, side, rules) = match cause.effect {
            Effect::Allows { side, old, new } => (Some("allows"), Some(side_name(side)), [old, new]),
            Effect::Isolates(side) => (Some("isolates"), Some(side_name(side)), [None, None]),
            Effect::Differs => (None, None, [None, None]),
        };
        let version = |rule: Option<usize>, what: &'d Option<String>, at: &'d Option<Source>| {
            let rule = rule.zip(side).map(|(index, side)| format!("{side}[{index}]"));
            let (file, line) = (at.as_ref().map(|at| &*at.file), at.as_ref().map(|at| at.line));
            let is_there = rule.is_some() || what.is_some() || file.is_some();
            is_there.then_some(Version { rule, what: what.as_deref(), file, line })
        };
        let subject = match &cause.subject {
            Subject::Policy { namespace, name } => SubjectObject::Policy { namespace, name },
            Subject::Namespace(name) => SubjectObject::Namespace(name),
            Subject::Workload(key) => {
                SubjectObject::Workload { namespace: &key.namespace, kind: &key.kind, name: &key.name }
            }
        };
        Self {
            change: cause.change.name(),
            subject,
            effect,
            side,
            old: version(rules[0], &cause.was, &cause.old),
            new: version(rules[1], &cause.is, &cause.new),
            evidence: cause.evidence.as_ref().map(ToString::to_string),
        }
    }
}
