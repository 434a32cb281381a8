//! The answer for people: lines for a terminal, a Markdown report for a pull request. Lines hold names
//! that came from input, which whoever shows them escapes; the Markdown is safe as it is.

use super::{Change, DeniedSide, Replayed, Row, UnseenEdge, Who};
use crate::{
    markdown,
    why::{PolicyPlace, place_text},
};
use jiff::Timestamp;
use model::{cluster::WorkloadKey, record::UnixNanos};
use std::{fmt::Write as _, sync::Arc};

/// So many rows of newly denied flows a Markdown report has unfolded.
const UNFOLDED: usize = 20;
/// A Markdown report lists no more rows than this of a kind.
const LISTED: usize = 100;

impl Replayed {
    /// The answer as lines; `top`: so many edges that were never seen.
    pub fn lines(&self, top: usize) -> Vec<String> {
        let mut out = vec![self.headline()];
        let sections = [
            (Change::NewlyDenied, true, "newly denied: they pass today"),
            (Change::NewlyDenied, false, "newly denied, though nobody ever answered them"),
            (Change::NewlyAllowed, true, "newly allowed: they were denied"),
        ];
        for (change, is_answered, title) in sections {
            let rows: Vec<&Row> = self.of(change, is_answered).collect();
            if rows.is_empty() {
                continue;
            }
            out.extend([String::new(), format!("{title}:")]);
            for row in rows {
                self.row(&mut out, row);
            }
        }
        for (index, missing) in self.missing.iter().enumerate() {
            out.extend([String::new(), format!("missing rule {}: {}", index + 1, missing.place_text())]);
            out.extend(missing.yaml().lines().map(|line| format!("  {line}")));
        }
        if !self.not_asked.is_empty() {
            out.extend([String::new(), "not asked:".to_owned()]);
        }
        for (reason, all) in &self.not_asked {
            let edges: Vec<&str> = all.edges.iter().map(String::as_str).collect();
            let such_as = if edges.is_empty() { String::new() } else { format!(" (such as {})", edges.join("; ")) };
            out.push(format!("  {}: {reason}{such_as}", flows(all.flows)));
        }
        self.unseen_lines(&mut out, top);
        out
    }

    fn headline(&self) -> String {
        let count = |change| self.flows(change);
        let mut text = format!(
            "{} newly denied, {} newly allowed, {} still allowed, {} still denied",
            flows(count(Change::NewlyDenied)),
            count(Change::NewlyAllowed),
            count(Change::StillAllowed),
            count(Change::StillDenied)
        );
        let not_asked: u64 = self.not_asked.values().map(|all| all.flows).sum();
        if not_asked > 0 {
            let _ = write!(text, ", {not_asked} not asked");
        }
        text
    }

    fn row(&self, out: &mut Vec<String>, row: &Row) {
        let (first, last) = (instant(row.first_seen), instant(row.last_seen));
        out.push(format!("  {}: {}, {first} to {last}{}", edge(row), flows(row.flows), samples(row)));
        for side in &row.denied {
            out.push(format!("    {}", denied_text(side)));
        }
        if row.change == Change::NewlyAllowed {
            for rule in allowed_by(row) {
                out.push(format!("    {rule}"));
            }
        }
    }

    fn unseen_lines(&self, out: &mut Vec<String>, top: usize) {
        let unseen = &self.unseen;
        let edges = unseen.edges.len();
        if edges == 0 {
            out.extend([String::new(), "everything that is allowed was seen".to_owned()]);
        } else {
            out.extend([String::new(), format!("allowed and never seen: {}", counted(edges, "edge"))]);
            out.push(format!("  {}", unseen.explained()));
        }
        for edge in unseen.edges.iter().take(top) {
            out.push(format!("  {}", unseen_text(edge)));
        }
        if edges > top {
            out.push(format!("  and {} more (--top {edges} or -o json lists them)", edges - top));
        }
        if !unseen.left_out.is_empty() {
            let names: Vec<String> = unseen.left_out.iter().map(ToString::to_string).collect();
            out.push(format!("  left out, as a log shows their node instead (hostNetwork): {}", names.join(", ")));
        }
    }

    /// The answer as Markdown; `top`: so many edges that were never seen.
    pub fn to_markdown(&self, top: usize) -> String {
        let mut out = format!("**Replay of recorded flows:** {}.\n", self.headline());
        let denied: Vec<&Row> = self.of(Change::NewlyDenied, true).collect();
        if !denied.is_empty() {
            out.push_str("\n**Newly denied: these pass today and would break.**\n\n");
            self.markdown_table(&mut out, &denied[..denied.len().min(UNFOLDED)]);
            folded(&mut out, denied.len(), UNFOLDED, "newly denied", |out| {
                self.markdown_table(out, &denied[UNFOLDED..denied.len().min(LISTED)]);
            });
        }
        let rules = self.missing.len();
        folded(&mut out, rules, 0, &counted(rules, "missing rule"), |out| {
            for (index, missing) in self.missing.iter().take(LISTED).enumerate() {
                let _ = writeln!(out, "Missing rule {}: {}\n", index + 1, markdown::plain(&missing.place_text()));
                let _ = writeln!(out, "{}", markdown::block("yaml", &missing.yaml()));
            }
        });
        for (change, is_answered, title) in [
            (Change::NewlyDenied, false, "newly denied, never answered"),
            (Change::NewlyAllowed, true, "newly allowed"),
        ] {
            let rows: Vec<&Row> = self.of(change, is_answered).collect();
            folded(&mut out, rows.len(), 0, &format!("{} {title}", counted(rows.len(), "edge")), |out| {
                self.markdown_table(out, &rows[..rows.len().min(LISTED)]);
            });
        }
        let unseen = &self.unseen;
        folded(
            &mut out,
            unseen.edges.len(),
            0,
            &format!("{} allowed and never seen", counted(unseen.edges.len(), "edge")),
            |out| {
                let _ = writeln!(out, "{}\n", markdown::plain(&unseen.explained()));
                out.push_str("| edge | ports | closes | adds |\n|---|---|---|---|\n");
                for edge in unseen.edges.iter().take(top) {
                    let (from, to) = unseen_ends(edge);
                    let _ = writeln!(
                        out,
                        "| {} → {} | {} | {} | {} |",
                        markdown::code(&from),
                        markdown::code(&to),
                        edge.allowed,
                        edge.closes,
                        edge.adds
                    );
                }
                if unseen.edges.len() > top {
                    let _ = writeln!(out, "\nand {} more", unseen.edges.len() - top);
                }
            },
        );
        folded(&mut out, self.not_asked.len(), 0, "what could not be asked", |out| {
            for (reason, all) in &self.not_asked {
                let _ = writeln!(out, "- {}: {}", flows(all.flows), markdown::plain(reason));
            }
        });
        out
    }

    fn markdown_table(&self, out: &mut String, rows: &[&Row]) {
        out.push_str("| flow | seen | denied by, or allowed by | owner |\n|---|---|---|---|\n");
        for row in rows {
            let because = match row.denied.is_empty() {
                false => row.denied.iter().map(|side| markdown::plain(&denied_by(side))).collect::<Vec<_>>(),
                true => allowed_by(row).iter().map(|rule| markdown::plain(rule)).collect(),
            };
            let owners: Vec<String> = row.denied.iter().map(|side| markdown::code(&side.owner.to_string())).collect();
            let _ = writeln!(
                out,
                "| {} | {}, last {} | {} | {} |",
                markdown::code(&edge(row)),
                flows(row.flows),
                instant(row.last_seen),
                because.join("<br>"),
                owners.join("<br>")
            );
        }
    }
}

/// A part that is shown when asked for, if it holds anything; it begins after `shown` of `all`.
fn folded(out: &mut String, all: usize, shown: usize, title: &str, inside: impl FnOnce(&mut String)) {
    if all <= shown {
        return;
    }
    let title = if shown > 0 { format!("{} more {title}", all - shown) } else { title.to_owned() };
    let _ = write!(out, "\n<details><summary>{}</summary>\n\n", markdown::plain(&title));
    inside(out);
    if all > LISTED {
        let _ = writeln!(out, "\nand {} more (-o json has all)", all - LISTED);
    }
    out.push_str("\n</details>\n");
}

/// `shop/Deployment/web -> data/StatefulSet/db TCP 6379`.
fn edge(row: &Row) -> String {
    let end = |who: &Who| match who {
        Who::Workload(key) => key.to_string(),
        Who::Node(ip) => format!("node {ip}"),
        Who::Outside(ip) => format!("outside {ip}"),
        Who::Clients => {
            let (few, all) = &row.clients;
            let few: Vec<String> = few.iter().map(ToString::to_string).collect();
            match all.checked_sub(few.len()) {
                Some(more) if more > 0 => format!("outside {} and {more} more", few.join(", ")),
                _ => format!("outside {}", few.join(", ")),
            }
        }
    };
    format!("{} -> {} {} {}", end(&row.client), end(&row.server), row.protocol.name(), row.port)
}

fn denied_text(side: &DeniedSide) -> String {
    let rule = match (&side.no_rule, side.missing) {
        (Some(why), _) => format!("; no rule can be proposed: {why}"),
        (None, Some(missing)) => format!("; missing rule {} below would allow it", missing + 1),
        (None, None) => String::new(),
    };
    format!("{}, owner {}{rule}", denied_by(side), side.owner)
}

fn denied_by(side: &DeniedSide) -> String {
    let place = |policy: &PolicyPlace| format!("{}{}", policy.name, place_text(policy.source.as_ref()));
    let policies: Vec<String> = side.policies.iter().map(place).collect();
    format!("{} denied: no rule of {} allows it", side.direction, policies.join(", "))
}

fn allowed_by(row: &Row) -> Vec<String> {
    use model::reference::Judgement;
    let side = |direction: &str, judgement: &Judgement| match judgement {
        Judgement::AllowedBy(rules) => {
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            format!("{direction} allowed by {}", rules.join(", "))
        }
        Judgement::NotIsolated => format!("{direction} not isolated"),
        Judgement::Exempt => format!("{direction} always passes"),
        Judgement::Denied(_) => format!("{direction} denied"),
    };
    vec![side("egress", &row.egress), side("ingress", &row.ingress)]
}

pub(super) fn unseen_ends(edge: &UnseenEdge) -> (String, String) {
    let outside = || {
        let few: Vec<String> = edge.cidrs.iter().take(3).map(ToString::to_string).collect();
        match edge.cidrs.len().checked_sub(few.len()) {
            Some(more) if more > 0 => format!("outside {} and {more} more blocks", few.join(", ")),
            _ => format!("outside {}", few.join(", ")),
        }
    };
    let end = |key: &Option<Arc<WorkloadKey>>| key.as_ref().map_or_else(outside, ToString::to_string);
    (end(&edge.from), end(&edge.to))
}

fn unseen_text(edge: &UnseenEdge) -> String {
    let (from, to) = unseen_ends(edge);
    let otherwise = if edge.is_used_otherwise { " (other ports are used)" } else { "" };
    let worth = match (edge.closes, edge.adds) {
        (0, 0) => String::new(),
        (closes, adds) => format!(": closing it takes away {closes}, it adds {adds}"),
    };
    format!("{from} -> {to} {}{otherwise}{worth}", edge.allowed)
}

fn samples(row: &Row) -> String {
    match row.samples.first() {
        Some(sample) => format!(", such as {sample}"),
        None => String::new(),
    }
}

fn flows(n: u64) -> String {
    if n == 1 { "1 flow".to_owned() } else { format!("{n} flows") }
}

fn counted(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// RFC 3339 to the second.
pub(super) fn instant(at: UnixNanos) -> String {
    Timestamp::from_second(at.div_euclid(1_000_000_000)).map_or_else(|_| at.to_string(), |time| time.to_string())
}
