//! Generated policies as files: one YAML document a policy, the proof beside them.
//!
//! Always holds: the same input gives the same bytes (law 8); no YAML holds a time or a count, so
//! that learning longer changes a file only where a rule changes; no name leads out of the folder.

use crate::{
    closed::DEFAULT_DENY,
    evidence::{PolicyEvidence, Proof},
    lessons::{LeftOut, LeftOutReason},
    naming,
    synthesize::Generated,
};
use model::{ledger::Unfit, yaml::write_policy};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// Where the evidence is.
pub const EVIDENCE: &str = "evidence.json";
/// Where the certificate is.
pub const CERTIFICATE: &str = "certificate.json";
/// Where a reviewer begins.
pub const SUMMARY: &str = "SUMMARY.txt";

/// So many edges of one reason are listed in the summary; all are in the flow log.
const LISTED: usize = 50;

/// Paths below the output folder, with their bytes: `NAMESPACE/POLICY.yaml`, [`EVIDENCE`],
/// [`CERTIFICATE`], [`SUMMARY`].
pub fn files(generated: &Generated) -> BTreeMap<String, String> {
    let yaml = generated.policies.policies.iter();
    let mut files: BTreeMap<String, String> =
        yaml.map(|policy| (format!("{}/{}.yaml", policy.namespace, policy.name), write_policy(policy))).collect();
    files.insert(EVIDENCE.to_owned(), generated.evidence.to_json());
    files.insert(CERTIFICATE.to_owned(), generated.certificate.to_json());
    files.insert(SUMMARY.to_owned(), summary(generated));
    files
}

/// What a reviewer wants to know first: how much, what is opened beyond what was seen, what was
/// left out, what was never observed, how complete the learning was.
pub fn summary(generated: &Generated) -> String {
    let mut out = String::new();
    let policies = generated.policies.policies.len();
    let rules: usize = generated
        .policies
        .policies
        .iter()
        .map(|p| p.ingress.as_ref().map_or(0, Vec::len) + p.egress.as_ref().map_or(0, Vec::len))
        .sum();
    let (lessons, checked) = (generated.lessons.lessons.len(), generated.verified);
    let _ = writeln!(out, "policies: {policies}; rules: {rules}; edges: {lessons}");
    let beyond = if generated.openings.widened().next().is_some() { " but what is listed as opened" } else { "" };
    let _ = writeln!(
        out,
        "verified: every edge allowed, nothing else{beyond} (pairs of pods: {}; of pod and address: {})",
        checked.pairs, checked.addresses
    );
    opened_beyond(&mut out, generated);
    section(&mut out, "addresses outside, and the names that led there", named_addresses(generated).into_iter());
    let accepted = generated.lessons.lessons.iter().filter(|l| l.accepted_flows > 0);
    section(&mut out, "accepted by name", accepted.map(|l| format!("{} ({})", naming::edge(&l.edge), l.basis.name())));
    section(
        &mut out,
        "never observed in the window, so closed both ways",
        generated.never_observed.iter().map(naming::workload),
    );
    closed(&mut out, generated);
    section(&mut out, "notes", generated.notes.iter().cloned());
    for (reason, items) in generated.left_out() {
        section(&mut out, &left_out_title(&reason, &items), left_out_lines(&reason, &items).into_iter());
    }
    let _ = write!(out, "\n{}", generated.certificate.to_text());
    out
}

/// What the policies allow that nobody observed, each with its reason and price.
fn opened_beyond(out: &mut String, generated: &Generated) {
    let (outside, peers) = generated.chosen;
    let all = generated.openings.generalisations(&generated.subjects);
    let title = format!(
        "opened beyond what was seen (--outside {outside}, --peers {peers}): connections never observed: {}",
        generated.openings.price
    );
    section(out, &title, all.into_iter().map(|(name, why, price)| format!("{name} ({}): {price}", why.join("; "))));
}

/// Each address that a workload reached by a DNS name.
fn named_addresses(generated: &Generated) -> BTreeSet<String> {
    let rules =
        generated.evidence.policies.values().flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
    let proofs = rules.flat_map(|(policy, rule)| rule.proofs.iter().map(move |proof| (policy, proof)));
    let named = proofs.filter(|(_, proof)| !proof.dns_names.is_empty());
    let line = |(policy, proof): (&PolicyEvidence, &Proof)| {
        format!(
            "{} -> {} {}/{}: {}",
            policy.workload,
            proof.peer,
            proof.port,
            proof.protocol,
            proof.dns_names.join(", ")
        )
    };
    named.map(line).collect()
}

/// The namespaces with a default-deny, and those without and why.
fn closed(out: &mut String, generated: &Generated) {
    let closed: Vec<&str> = generated.closed.closed.iter().map(String::as_str).collect();
    if !closed.is_empty() {
        let _ = writeln!(
            out,
            "\nclosed by {DEFAULT_DENY} (every pod there that no other policy names, those of tomorrow too): {}",
            closed.join(", ")
        );
    }
    let open = generated.closed.open.iter().map(|(namespace, why)| format!("{namespace}: {why}"));
    section(out, &format!("without {DEFAULT_DENY}: a pod there that no policy names is not isolated"), open);
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}:");
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
}

fn left_out_title(reason: &LeftOutReason, items: &[&LeftOut]) -> String {
    let flows = naming::count(items.iter().map(|item| item.flows).sum(), "flow");
    let accept = if reason.can_be_accepted() { "; accept one by name with --accept" } else { "" };
    format!("left out, {} ({flows}): {}{accept}", reason.name(), reason.meaning())
}

fn left_out_lines(reason: &LeftOutReason, items: &[&LeftOut]) -> Vec<String> {
    if matches!(reason, LeftOutReason::Unfit(Unfit::SeenAtServer | Unfit::Exempt)) {
        return vec!["needs no rule of its own".to_owned()];
    }
    let line = |item: &&LeftOut| {
        let edge = item.edge.as_ref().map_or_else(|| "an end is not known".to_owned(), naming::edge);
        let samples: Vec<String> = item.samples.iter().take(3).map(|s| naming::printable(s)).collect();
        let of = if samples.is_empty() { String::new() } else { format!(", such as {}", samples.join(", ")) };
        format!("{edge}: {}{of}", naming::count(item.flows, "flow"))
    };
    let mut lines: Vec<String> = items.iter().take(LISTED).map(line).collect();
    if items.len() > LISTED {
        lines.push(format!("and {} more", items.len() - LISTED));
    }
    lines
}

/// JSON for people and programs: indented, with a line end.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    // Values of ours have text keys and finite numbers: writing them to memory cannot fail.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
