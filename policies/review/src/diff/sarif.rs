//! The diff as findings at the lines that cause it, for code scanning: one for each cause and kind.

use super::{
    Cause, Diff, Subject,
    grouped::{Part, groups},
    text::{because, ports},
};
use crate::sarif::{Finding, Level, Rule, document};
use std::collections::BTreeMap;

/// So many connections are told in one message.
const TOLD: usize = 5;

const RULES: [Rule<'static>; 5] = [
    Rule {
        id: "PFD001",
        name: "closed-used",
        level: Level::Error,
        short: "This change closes a connection that the flow log shows in use.",
        full: "What uses the connection will be cut off as soon as the change is applied.",
        help: "Keep or add a rule that allows it, or make sure that nobody needs it any more.",
    },
    Rule {
        id: "PFD002",
        name: "opened-outside",
        level: Level::Warning,
        short: "This change opens a connection to or from outside the cluster.",
        full: "Whoever holds such an address can use it, without being a pod of the cluster.",
        help: "Make sure that it is meant, and that the addresses and ports are as few as possible.",
    },
    Rule {
        id: "PFD003",
        name: "nobody-yet",
        level: Level::Warning,
        short: "This change opens a connection for labels that no pod or namespace has today.",
        full: "Whoever creates a pod or a namespace with these labels walks through.",
        help: "Name the namespace and the labels of the pods that are meant.",
    },
    Rule {
        id: "PFD004",
        name: "opened",
        level: Level::Note,
        short: "This change opens a connection within the cluster.",
        full: "What was denied before is allowed.",
        help: "Make sure that it is meant.",
    },
    Rule {
        id: "PFD005",
        name: "closed",
        level: Level::Note,
        short: "This change closes a connection.",
        full: "What was allowed before is denied.",
        help: "Make sure that nobody needs it.",
    },
];

const fn rule(part: Part) -> &'static Rule<'static> {
    match part {
        Part::ClosedUsed => &RULES[0],
        Part::OpenedOutside => &RULES[1],
        Part::NobodyYet => &RULES[2],
        Part::Opened => &RULES[3],
        Part::Closed | Part::ClosedNobody => &RULES[4],
    }
}

/// The whole document. Findings lie in NEW where they can, as that is what is reviewed.
pub fn sarif(diff: &Diff) -> String {
    // By kind and cause: what it opens or closes.
    let mut all: BTreeMap<(Part, &Cause), (Vec<String>, usize)> = BTreeMap::new();
    for group in groups(diff) {
        let row = &diff.rows()[group.row];
        for cause in diff.causes(row) {
            let (told, rows) = all.entry((group.part, cause)).or_default();
            let (from, to) = (group.from.join(", "), group.to.join(", "));
            told.push(format!("{from} -> {to} {}", ports(&diff.ports(row))));
            *rows += group.rows;
        }
    }
    let findings: Vec<Finding> =
        all.into_iter().map(|((part, cause), (told, rows))| finding(part, cause, &told, rows)).collect();
    let properties = super::json::counted(diff).map(|what| (what.name(), diff.count(what) as u64)).collect();
    document(&RULES, &findings, &properties)
}

fn finding(part: Part, cause: &Cause, told: &[String], rows: usize) -> Finding {
    let rule = rule(part);
    let more = match told.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let connections = if rows == 1 { "1 connection".to_owned() } else { format!("{rows} connections") };
    let (verb, told) = (part.title(), told[..told.len().min(TOLD)].join("; "));
    let message = format!("{verb}, because {}: {connections}: {told}{more}", because(cause));
    let place = cause.new.as_ref().or(cause.old.as_ref()).map(|at| (at.file.to_string(), at.line));
    Finding { rule: rule.id.to_owned(), level: rule.level, message, place, identity: identity(cause) }
}

fn identity(cause: &Cause) -> Vec<String> {
    let subject = match &cause.subject {
        Subject::Policy { namespace, name } => format!("NetworkPolicy {namespace}/{name}"),
        Subject::Namespace(name) => format!("Namespace {name}"),
        Subject::Workload(key) => key.to_string(),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    vec![subject, cause.change.name().to_owned(), format!("{:?}", cause.effect), text(&cause.was), text(&cause.is)]
}
