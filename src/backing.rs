//! What stands behind rules: an evidence.json, read and handed to the review.

use crate::{
    ending::{Failure, warn},
    generate,
};
use generator::{Evidence, evidence::RuleEvidence, render};
use jiff::Timestamp;
use model::record::RuleName;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Reads an evidence.json.
pub(crate) fn read(file: &Path) -> Result<Evidence, Failure> {
    let text = fs::read_to_string(file).map_err(|why| Failure::of(nothing(file), why).hint("give an evidence.json"))?;
    parse(&text, file)
}

/// What an evidence.json that is called `name` says.
pub(crate) fn parse(text: &str, name: &Path) -> Result<Evidence, Failure> {
    Evidence::from_json(text)
        .map_err(|why| Failure::of(nothing(name), why).hint("give the evidence.json of a `generate`"))
}

fn nothing(file: &Path) -> String {
    format!("no evidence in {}", file.display())
}

/// A review does without evidence that cannot be read, and says so.
pub(crate) fn or_said(evidence: Result<Evidence, Failure>) -> Option<Evidence> {
    evidence.map_err(|why| warn(&why.to_string())).ok()
}

/// The evidence beside those of the paths that are folders of a `generate`.
pub(crate) fn beside(paths: &[PathBuf]) -> Result<Vec<Evidence>, Failure> {
    files(paths).map(|file| read(&file)).collect()
}

/// [`beside`], where a review goes on without.
pub(crate) fn or_none(paths: &[PathBuf]) -> Vec<Evidence> {
    files(paths).filter_map(|file| or_said(read(&file))).collect()
}

fn files(paths: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let generated = paths.iter().filter(|path| generate::policies_folder(path).as_path() != path.as_path());
    generated.map(|path| path.join(render::EVIDENCE))
}

/// What stands behind a rule, all its edges taken together, as a review shows it.
pub(crate) fn of(evidence: &[Evidence], rule: &RuleName) -> Option<review::Evidence> {
    evidence.iter().find_map(|evidence| evidence.rule(rule)).map(shown)
}

fn shown(rule: &RuleEvidence) -> review::Evidence {
    let proofs = &rule.proofs;
    let all = |of: fn(&generator::evidence::Proof) -> &[String]| -> Vec<String> {
        proofs.iter().flat_map(of).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    };
    let shared = |of: fn(&generator::evidence::Proof) -> &[Arc<str>]| -> Vec<String> {
        let texts: BTreeSet<&Arc<str>> = proofs.iter().flat_map(of).collect();
        texts.into_iter().map(ToString::to_string).collect()
    };
    review::Evidence {
        flows: proofs.iter().map(|proof| proof.flows).sum(),
        first: proofs.iter().filter_map(|proof| proof.first_seen.clone()).min_by_key(|text| time(text)),
        last: proofs.iter().filter_map(|proof| proof.last_seen.clone()).max_by_key(|text| time(text)),
        directions: all(|proof| proof.direction_rule.as_slice()),
        nodes: shared(|proof| &proof.nodes),
        services: all(|proof| &proof.services),
        dns_names: all(|proof| &proof.dns_names),
        samples: shared(|proof| &proof.samples),
        wider: rule.wider.iter().map(|wider| format!("{}: {}", wider.opens, wider.price)).collect(),
    }
}

/// Text of different lengths has not the order of the times it means.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}
