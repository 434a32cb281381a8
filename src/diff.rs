//! `diff`: what opens and what closes between two inputs.

mod revision;

use crate::{
    backing,
    ending::{Ending, Failure, warn},
    escape, learned, manifests, output,
    typed::{self, DiffOutput, FailOnRow},
};
use generator::Evidence;
use model::cluster::Cluster;
use review::{
    Input,
    diff::{self, Diff, Named, Reportable},
};
use std::{
    io::{self, Write},
    path::Path,
};

pub(crate) fn run(typed: &typed::Diff) -> miette::Result<Ending> {
    let fail_on = fail_on(typed)?;
    let (
        Side { cluster: mut old, name: old_name, evidence: was },
        Side { cluster: mut new, name: new_name, evidence: is },
    ) = read(typed)?;
    let filled = diff::align(&mut old, &mut new);
    if filled > 0 {
        let workloads = if filled == 1 { "1 workload is" } else { &format!("{filled} workloads are") };
        eprintln!(
            "{workloads} running pods in one input and a pod template in the other: the addresses are taken as they run"
        );
    }
    let diff =
        Diff::of(Input { cluster: &old, policies: &old.policies }, Input { cluster: &new, policies: &new.policies });
    let diff = diff.named(old_name, new_name);
    let mut diff = diff.with_evidence(&|rule| backing::of(&was, rule), &|rule| backing::of(&is, rule));
    if let Some(log) = &typed.log {
        diff = diff.with_log(&learned::read(log)?.ledger);
    }
    for what in diff.incomplete() {
        warn(&format!("not compared in full: {what}: its selectors tell too many label combinations apart"));
    }
    let mut out = output::stdout();
    show(&mut out, &diff, typed.output).and_then(|()| out.flush()).map_err(output::failed)?;
    Ok(if fail_on.iter().any(|what| diff.count(*what) > 0) { Ending::Reported } else { Ending::Done })
}

fn fail_on(typed: &typed::Diff) -> Result<Vec<Reportable>, Failure> {
    let all: Vec<Reportable> = typed.fail_on.iter().map(|what| reportable(*what)).collect();
    match all.iter().find(|what| what.needs_log() && typed.log.is_none()) {
        None => Ok(all),
        Some(what) => Err(Failure::new(
            format!("--fail-on {}: only a flow log can tell", what.name()),
            "give its folder with --log DIR",
        )),
    }
}

const fn reportable(what: FailOnRow) -> Reportable {
    match what {
        FailOnRow::Opened => Reportable::Opened,
        FailOnRow::Closed => Reportable::Closed,
        FailOnRow::OpenedOutside => Reportable::OpenedOutside,
        FailOnRow::NobodyYet => Reportable::NobodyYet,
        FailOnRow::ClosedUsed => Reportable::ClosedUsed,
        FailOnRow::OpenedUnused => Reportable::OpenedUnused,
    }
}

/// One of the two inputs.
struct Side {
    cluster: Cluster,
    name: Named,
    /// What stands behind its rules, where `generate` wrote them.
    evidence: Vec<Evidence>,
}

/// Both inputs, each over what `--cluster` names.
fn read(typed: &typed::Diff) -> Result<(Side, Side), Failure> {
    let is_stdin = |path: &&std::path::PathBuf| path.as_path() == Path::new("-");
    if [&typed.old, &typed.new].into_iter().chain(&typed.reading.cluster).filter(is_stdin).count() > 1 {
        return Err(Failure::new(
            "standard input (-) is named twice",
            "it can be read once; give files for the others",
        ));
    }
    let snapshot = manifests::snapshot(&typed.reading)?.unwrap_or_default();
    let one = |path: &Path, snapshot: Cluster| -> Result<Side, Failure> {
        let name = path.display().to_string();
        let (found, revision, evidence) = match revision::named(path) {
            None => {
                let paths = [path.to_owned()];
                (manifests::from_paths(&paths, &typed.reading)?, None, backing::or_none(&paths))
            }
            Some(asked) => {
                let revision::Found { cluster, hash, evidence } = revision::read(&asked?, &typed.reading)?;
                (cluster, Some(hash), evidence)
            }
        };
        let cluster = manifests::over(found, snapshot);
        manifests::tell(&cluster, &typed.reading)?;
        Ok(Side { cluster, name: Named { input: name, revision }, evidence })
    };
    Ok((one(&typed.old, snapshot.clone())?, one(&typed.new, snapshot)?))
}

fn show(out: &mut impl Write, diff: &Diff, form: DiffOutput) -> io::Result<()> {
    match form {
        DiffOutput::Text => diff::lines(diff).iter().try_for_each(|line| writeln!(out, "{}", escape::printable(line))),
        DiffOutput::Json => {
            diff::json_pieces(diff).try_for_each(|piece| out.write_all(escape::json(&piece).as_bytes()))
        }
        DiffOutput::Yaml => {
            diff::yaml_pieces(diff).try_for_each(|piece| out.write_all(escape::json(&piece).as_bytes()))
        }
        DiffOutput::Markdown => out.write_all(diff::markdown(diff).as_bytes()),
        DiffOutput::Sarif => out.write_all(escape::json(&diff::sarif(diff)).as_bytes()),
    }
}
