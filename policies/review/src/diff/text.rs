//! The diff for people: what changed, between whom, because of what; the most urgent first.

use super::{
    Cause, Change, Diff, Effect, Reportable, Subject,
    grouped::{Group, Part, groups},
    json::time,
    side_name,
};
use crate::sets::Allowed;
use model::cluster::Source;

/// A group of more pairs than this is told as a list of clients and one of servers.
const PAIRS: usize = 8;
/// So many edges of a log are told of one row.
const EDGES: usize = 5;

/// The answer, a line each; names are as the input has them, for the printer to escape.
pub fn lines(diff: &Diff) -> Vec<String> {
    let mut lines = vec![format!("From {} to {}:", diff.old, diff.new), summary(diff)];
    let groups = groups(diff);
    for part in Part::ALL {
        let groups: Vec<&Group> = groups.iter().filter(|group| group.part == part).collect();
        if groups.is_empty() {
            continue;
        }
        lines.push(String::new());
        lines.push(part.title().to_uppercase());
        let width = |names: fn(&Group) -> &[String]| {
            let told = groups.iter().filter(|group| is_short(group)).flat_map(|group| names(group));
            told.map(|name| name.chars().count()).max().unwrap_or_default()
        };
        let widths = (width(|group| &group.from), width(|group| &group.to));
        for group in groups {
            lines.push(String::new());
            tell(diff, group, widths, &mut lines);
        }
    }
    let left_out = diff.left_out().iter().map(|line| format!("not counted as use: {line}"));
    let incomplete = diff
        .incomplete()
        .iter()
        .map(|what| format!("not compared in full: {what} (selectors tell too many label combinations apart)"));
    let notes: Vec<String> = incomplete.chain(left_out).collect();
    if !notes.is_empty() {
        lines.push(String::new());
        lines.extend(notes);
    }
    lines
}

/// One sentence.
pub(super) fn summary(diff: &Diff) -> String {
    if diff.is_empty() {
        return "Nothing opens and nothing closes.".to_owned();
    }
    let count = |what: Reportable| diff.count(what);
    let mut opened = vec![];
    for (what, word) in
        [(Reportable::OpenedOutside, "to or from outside"), (Reportable::NobodyYet, "for labels that nobody has yet")]
    {
        if count(what) > 0 {
            opened.push(format!("{} {word}", count(what)));
        }
    }
    if diff.has_log() && count(Reportable::OpenedUnused) > 0 {
        opened.push(format!("{} never used", count(Reportable::OpenedUnused)));
    }
    let mut closed = vec![];
    if diff.has_log() {
        closed.push(match count(Reportable::ClosedUsed) {
            0 => "none was used".to_owned(),
            some => format!("{some} used"),
        });
    }
    let told = |what: Reportable, verb: &str, of_these: Vec<String>| {
        let n = count(what);
        let connections = if n == 1 { format!("1 connection {verb}s") } else { format!("{n} connections {verb}") };
        let of_these =
            if n == 0 || of_these.is_empty() { String::new() } else { format!(" ({})", of_these.join(", ")) };
        connections + &of_these
    };
    format!("{}; {}.", told(Reportable::Opened, "open", opened), told(Reportable::Closed, "close", closed))
}

fn is_short(group: &Group) -> bool {
    group.from.len() * group.to.len() <= PAIRS
}

fn tell(diff: &Diff, group: &Group, widths: (usize, usize), lines: &mut Vec<String>) {
    let row = &diff.rows()[group.row];
    let ports = ports(&diff.ports(row));
    let partial = if row.partial { "  (partial: not all of their pods)" } else { "" };
    if is_short(group) {
        for from in &group.from {
            for to in &group.to {
                lines.push(format!("  {from:0$} -> {to:1$}  {ports}{partial}", widths.0, widths.1));
            }
        }
    } else {
        lines.push(format!("  {ports}{partial}  ({} connections)", group.rows));
        for (word, names) in [("from", &group.from), ("to", &group.to)] {
            for (index, name) in names.iter().enumerate() {
                lines.push(format!("    {:4}  {name}", if index == 0 { word } else { "" }));
            }
        }
    }
    lines.extend(diff.causes(row).map(|cause| format!("      because {}", because(cause))));
    lines.extend(used(diff, group.row).into_iter().map(|line| format!("      {line}")));
}

/// Ports in words, by what is missing where that is shorter.
pub(super) fn ports(allowed: &Allowed) -> String {
    let (told, missing) = (allowed.to_string(), Allowed::all().minus(allowed).to_string());
    match missing.len() < told.len() && !allowed.is_all() {
        true => format!("all ports but {missing}"),
        false if allowed.is_all() => "all ports".to_owned(),
        false => told,
    }
}

/// How a row was used, a line each.
pub(super) fn used(diff: &Diff, row: usize) -> Vec<String> {
    let Some(used) = diff.used(row) else {
        let never = diff.has_log() && diff.is(row, Reportable::Opened);
        return if never { vec!["nobody in the log ever used it".to_owned()] } else { Vec::new() };
    };
    let mut lines: Vec<String> = used
        .by
        .iter()
        .take(EDGES)
        .map(|seen| {
            let flows = if seen.flows == 1 { "1 flow".to_owned() } else { format!("{} flows", seen.flows) };
            let how = match (seen.attempt, seen.last_seen) {
                (true, _) => "tried by".to_owned(),
                (false, _) => "used by".to_owned(),
            };
            let last = seen.last_seen.map(|at| format!(", last {}", time(at))).unwrap_or_default();
            format!("{how} {} -> {} {} {}: {flows}{last}", seen.from, seen.to, seen.protocol.name(), seen.port)
        })
        .collect();
    if let Some(more) = used.by.len().checked_sub(EDGES).filter(|more| *more > 0) {
        lines.push(format!("and {more} more, {} flows in all", used.flows));
    }
    lines
}

/// A cause in one line, with where it stands.
pub(super) fn because(cause: &Cause) -> String {
    let (was, is) = (cause.was.as_deref(), cause.is.as_deref());
    let said = match (&cause.subject, cause.change) {
        (Subject::Policy { .. }, _) => of_policy(cause),
        (Subject::Namespace(name), _) => format!("the labels of namespace {name} changed: {}", from_to(was, is)),
        (Subject::Workload(key), Change::WorkloadAdded) => format!("workload {key} is new"),
        (Subject::Workload(key), Change::WorkloadRemoved) => format!("workload {key} is gone"),
        (Subject::Workload(key), change) => {
            let what = match change {
                Change::LabelChanged => "the labels",
                Change::ContainerPortChanged => "the container ports",
                Change::AddressChanged => "the addresses",
                _ => "the network",
            };
            format!("{what} of the pods of {key} changed: {}", from_to(was, is))
        }
    };
    let evidence = cause.evidence.as_ref().map_or_else(String::new, |seen| format!("; {seen}"));
    said + &places(cause) + &evidence
}

fn of_policy(cause: &Cause) -> String {
    let Subject::Policy { namespace, name } = &cause.subject else { return String::new() };
    let policy = format!("{namespace}/{name}");
    let rule = |index: Option<usize>, side| index.map(|index| format!("{}[{index}]", side_name(side)));
    let (was, is) = (cause.was.as_deref(), cause.is.as_deref());
    let text = |text: Option<&str>| text.map(|text| format!(" ({text})")).unwrap_or_default();
    match (cause.change, &cause.effect) {
        (Change::PolicyAdded, Effect::Allows { side, new, .. }) => {
            format!("policy {policy} is new; its {} allows{}", rule(*new, *side).unwrap_or_default(), text(is))
        }
        (Change::PolicyAdded, Effect::Isolates(side)) => format!("policy {policy} is new and isolates {}", word(*side)),
        (Change::PolicyRemoved, Effect::Allows { side, old, .. }) => {
            format!("policy {policy} is gone; its {} allowed{}", rule(*old, *side).unwrap_or_default(), text(was))
        }
        (Change::PolicyRemoved, Effect::Isolates(side)) => {
            format!("policy {policy} is gone; it isolated {}", word(*side))
        }
        (Change::RuleAdded, Effect::Allows { side, new, .. }) => {
            format!("rule {} of {policy} is new{}", rule(*new, *side).unwrap_or_default(), text(is))
        }
        (Change::RuleRemoved, Effect::Allows { side, old, .. }) => {
            format!("rule {} of {policy} is gone{}", rule(*old, *side).unwrap_or_default(), text(was))
        }
        (Change::RuleChanged, Effect::Allows { side, old, new }) => {
            let (before, after) = (rule(*old, *side).unwrap_or_default(), rule(*new, *side).unwrap_or_default());
            let named = if before == after { before } else { format!("{before}, now {after},") };
            format!(
                "rule {named} of {policy} changed: {}",
                rule_change(was.unwrap_or_default(), is.unwrap_or_default())
            )
        }
        (Change::SelectorChanged, _) => format!("the podSelector of {policy} changed: {}", from_to(was, is)),
        (Change::TypesChanged, _) => format!("the policyTypes of {policy} changed: {}", from_to(was, is)),
        _ => format!("policy {policy} changed"),
    }
}

/// Only what differs, where peers or ports stayed.
fn rule_change(was: &str, is: &str) -> String {
    match (was.rsplit_once(": "), is.rsplit_once(": ")) {
        (Some((before, was)), Some((after, is))) if before == after => format!("{before}: {was} became {is}"),
        (Some((was, before)), Some((is, after))) if before == after => format!("{was} became {is}, for {after}"),
        _ => from_to(Some(was), Some(is)),
    }
}

fn word(side: crate::Direction) -> &'static str {
    match side {
        crate::Direction::Ingress => "for ingress",
        crate::Direction::Egress => "for egress",
    }
}

fn from_to(was: Option<&str>, is: Option<&str>) -> String {
    match (was, is) {
        (Some(was), Some(is)) => format!("{was} became {is}"),
        (Some(was), None) => format!("{was} is gone"),
        (None, Some(is)) => format!("{is} is new"),
        (None, None) => "its meaning".to_owned(),
    }
}

/// Where it stood and stands.
fn places(cause: &Cause) -> String {
    let place = |at: &Source| format!("{}:{}", at.file, at.line);
    // Beside a rule that came or went its policy is no news.
    let (old, new) = match cause.change {
        Change::RuleAdded => (&None, &cause.new),
        Change::RuleRemoved => (&cause.old, &None),
        _ => (&cause.old, &cause.new),
    };
    match (old, new) {
        (Some(old), Some(new)) if old == new => format!(", {}", place(new)),
        (Some(old), Some(new)) => format!(", was {}, is {}", place(old), place(new)),
        (Some(old), None) => format!(", was {}", place(old)),
        (None, Some(new)) => format!(", {}", place(new)),
        (None, None) => String::new(),
    }
}
