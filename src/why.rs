//! `why`: whether a connection may be opened, and because of what.

use crate::{
    ending::{Ending, Failure},
    escape, generate, manifests, output,
    typed::{self, FailOnVerdict, WhyOutput},
    why_kernel,
};
use generator::{Evidence, evidence::Proof, render};
use jiff::Timestamp;
use review::{
    Input,
    why::{Named, Question, Seen, Target, Why},
};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

pub(crate) fn run(typed: &typed::Why) -> miette::Result<Ending> {
    if typed.kernel {
        return why_kernel::run(typed);
    }
    let whole = |problem| Failure::whole(&problem);
    let from: Named = typed.from.parse().map_err(whole)?;
    let to: Target = typed.to.parse().map_err(whole)?;
    let cluster = manifests::read(&typed.manifests)?;
    let evidence = evidence(typed)?;
    let seen = |rule: &_| evidence.iter().find_map(|evidence| evidence.rule(rule)).map(seen);
    let input = Input { cluster: &cluster, policies: &cluster.policies };
    let why = review::why::why(input, &Question { from, to }, &seen).map_err(whole)?;
    show(&why, typed.output)?;
    let is_so = |allowed: bool| why.cases.iter().any(|case| case.is_allowed == allowed);
    Ok(match typed.fail_on {
        Some(FailOnVerdict::Denied) if is_so(false) => Ending::Reported,
        Some(FailOnVerdict::Allowed) if is_so(true) => Ending::Reported,
        _ => Ending::Done,
    })
}

fn show(why: &Why, form: WhyOutput) -> Result<(), Failure> {
    let mut out = output::stdout();
    let shown = match form {
        WhyOutput::Json => out.write_all(escape::json(&why.to_json()).as_bytes()),
        WhyOutput::Text => why.lines().iter().try_for_each(|line| writeln!(out, "{}", escape::printable(line))),
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)
}

/// The evidence that was named, or that which stands beside generated policies.
fn evidence(typed: &typed::Why) -> Result<Vec<Evidence>, Failure> {
    let beside = |path: &&PathBuf| generate::policies_folder(path).as_path() != path.as_path();
    let files: Vec<PathBuf> = match &typed.evidence {
        Some(file) => vec![file.clone()],
        None => typed.manifests.paths.iter().filter(beside).map(|path| path.join(render::EVIDENCE)).collect(),
    };
    files.iter().map(|file| read_evidence(file)).collect()
}

fn read_evidence(file: &Path) -> Result<Evidence, Failure> {
    let what = || format!("no evidence in {}", file.display());
    let text = fs::read_to_string(file).map_err(|why| Failure::of(what(), why).hint("give an evidence.json"))?;
    Evidence::from_json(&text).map_err(|why| Failure::of(what(), why).hint("give the evidence.json of a `generate`"))
}

/// Text of different lengths has not the order of the times it means.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// What stands behind a rule, all its edges taken together.
fn seen(proofs: &[Proof]) -> Seen {
    Seen {
        flows: proofs.iter().map(|proof| proof.flows).sum(),
        first: proofs.iter().filter_map(|proof| proof.first_seen.clone()).min_by_key(|text| time(text)),
        last: proofs.iter().filter_map(|proof| proof.last_seen.clone()).max_by_key(|text| time(text)),
    }
}
