//! The diff as a comment on a pull request: a sentence, a table with the most urgent first, the rest folded.
//!
//! Always holds: it is no longer than a comment may be, and what is left out is counted.

use super::{
    Diff,
    grouped::{Group, Part, groups},
    text::{because, ports, summary, used},
};
use crate::markdown::{code, plain};

/// GitHub takes comments of 65,536 characters; the rest is for what a caller puts beside this one.
pub const MOST_BYTES: usize = 45_000;
/// The table has at most so many rows; the folded part has all.
const TABLE: usize = 25;
/// And so many names in a cell.
const NAMES: usize = 5;
/// What is kept for the end of the comment.
const RESERVE: usize = 600;

/// The comment.
pub fn markdown(diff: &Diff) -> String {
    let mut out = Bounded::default();
    out.add(&format!("### podfence diff: {}\n\n", plain(&summary(diff))));
    out.add(&format!("From {} to {}.\n\n", code(&diff.old.to_string()), code(&diff.new.to_string())));
    let groups = groups(diff);
    let told = table(diff, &groups, &mut out);
    if told < groups.len() {
        let rest = connections(groups[told..].iter());
        out.add(&format!("\nThe table shows the {told} most urgent changes; {rest} more stand below.\n"));
    }
    if !groups.is_empty() {
        details(diff, &groups, &mut out);
    }
    notes(diff, &mut out);
    out.text
}

/// Text that stays within the bound.
#[derive(Default)]
struct Bounded {
    text: String,
}

impl Bounded {
    /// Whether it fitted; what does not fit is not begun.
    fn add(&mut self, more: &str) -> bool {
        let fits = self.text.len() + more.len() + RESERVE <= MOST_BYTES;
        if fits {
            self.end(more);
        }
        fits
    }

    /// What must stand there: within the reserve.
    fn end(&mut self, more: &str) {
        self.text.push_str(more);
    }
}

fn connections<'g>(groups: impl Iterator<Item = &'g Group>) -> String {
    match groups.map(|group| group.rows).sum() {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    }
}

/// How many groups it shows.
fn table(diff: &Diff, groups: &[Group], out: &mut Bounded) -> usize {
    if groups.is_empty() {
        return 0;
    }
    out.add("| | From | To | Ports | Because |\n|---|---|---|---|---|\n");
    let mut told = 0;
    for group in groups.iter().take(TABLE) {
        let row = &diff.rows()[group.row];
        let mut causes: Vec<String> = diff.causes(row).map(|cause| plain(&because(cause))).collect();
        causes.extend(used(diff, group.row).iter().take(1).map(|line| format!("<b>{}</b>", plain(line))));
        let partial = if row.partial { "<br>(partial)" } else { "" };
        let line = format!(
            "| {}{partial} | {} | {} | {} | {} |\n",
            mark(group.part),
            names(&group.from),
            names(&group.to),
            plain(&ports(&diff.ports(row))),
            short(&causes, |cause| cause.clone()),
        );
        if !out.add(&line) {
            break;
        }
        told += 1;
    }
    told
}

const fn mark(part: Part) -> &'static str {
    match part {
        Part::ClosedUsed => "**closed, used**",
        Part::OpenedOutside => "**opened, outside**",
        Part::NobodyYet => "**opened, nobody yet**",
        Part::Opened => "opened",
        Part::Closed => "closed",
        Part::ClosedNobody => "closed, nobody yet",
    }
}

fn names(names: &[String]) -> String {
    short(names, |name| code(name))
}

fn short(all: &[String], show: impl Fn(&String) -> String) -> String {
    let mut lines: Vec<String> = all.iter().take(NAMES).map(show).collect();
    if let Some(more) = all.len().checked_sub(NAMES).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines.join("<br>")
}

/// Everything, folded, a part each; what does not fit is counted.
fn details(diff: &Diff, groups: &[Group], out: &mut Bounded) {
    let mut left_out: Vec<&Group> = Vec::new();
    for part in Part::ALL {
        let groups: Vec<&Group> = groups.iter().filter(|group| group.part == part).collect();
        if groups.is_empty() {
            continue;
        }
        let count = connections(groups.iter().copied());
        let head = format!("\n<details><summary>{}: {count}</summary>\n\n", plain(part.title()));
        if !left_out.is_empty() || !out.add(&head) {
            left_out.extend(groups);
            continue;
        }
        for group in groups {
            if !left_out.is_empty() || !out.add(&item(diff, group)) {
                left_out.push(group);
            }
        }
        out.end("\n</details>\n");
    }
    if !left_out.is_empty() {
        let count = connections(left_out.into_iter());
        out.end(&format!(
            "\n**{count} left out here**, as a comment has no room for more: `podfence diff` prints all.\n"
        ));
    }
}

fn item(diff: &Diff, group: &Group) -> String {
    let row = &diff.rows()[group.row];
    let all = |names: &[String]| names.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ");
    let partial = if row.partial { " (partial: not all of their pods)" } else { "" };
    let ports = plain(&super::text::ports(&diff.ports(row)));
    let mut text = format!("- {} → {}: {ports}{partial}\n", all(&group.from), all(&group.to));
    for cause in diff.causes(row) {
        text += &format!("  - because {}\n", plain(&because(cause)));
    }
    for line in used(diff, group.row) {
        text += &format!("  - {}\n", plain(&line));
    }
    text
}

fn notes(diff: &Diff, out: &mut Bounded) {
    let mut lines: Vec<String> =
        diff.incomplete().iter().map(|what| format!("Not compared in full: {what}.")).collect();
    lines.extend(diff.left_out().iter().map(|line| format!("Not counted as use: {line}.")));
    if lines.is_empty() {
        return;
    }
    let text: String = lines.iter().map(|line| format!("- {}\n", plain(line))).collect();
    if !out.add(&format!("\n{text}")) {
        out.end(&format!("\n{} notes left out.\n", lines.len()));
    }
}
