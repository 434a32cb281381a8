//! `lint`: what in policies does not do what it looks like.

use crate::{
    ending::{Ending, Failure, warn},
    escape, learned, manifests, output,
    typed::{self, FailOnFinding, LintOutput},
};
use model::cluster::{Cluster, Source};
use review::{
    Input,
    lint::{self, Observed, Report, Texts},
};
use std::{collections::BTreeSet, fs, io::Write as _, path::Path, sync::Arc};

pub(crate) fn run(typed: &typed::Lint) -> miette::Result<Ending> {
    if typed.list {
        print(&lint::list())?;
        return Ok(Ending::Done);
    }
    let cluster = manifests::read(&typed.manifests)?;
    let observed = typed.log.as_deref().map(observed).transpose()?;
    let input = Input { cluster: &cluster, policies: &cluster.policies };
    let report = lint::lint(input, &texts(&cluster), observed.as_ref());
    match typed.output {
        LintOutput::Text => print(&lint::text(&report))?,
        LintOutput::Json => print_json(&lint::json(&report))?,
        LintOutput::Sarif => print_json(&lint::sarif(&report))?,
    }
    if typed.output != LintOutput::Text {
        report.unchecked.iter().for_each(|what| warn(&format!("not checked: {what}")));
    }
    Ok(match typed.fail_on.iter().any(|what| is_there(&report, *what)) {
        true => Ending::Reported,
        false => Ending::Done,
    })
}

fn observed(log: &Path) -> Result<Observed, Failure> {
    let _busy = output::busy("reading the flow log");
    let learned = learned::read(log)?;
    if learned.rows == 0 {
        let what = format!("{} holds no flows, so that every rule would be unused", log.display());
        return Err(Failure::new(what, "observe for a while first, or leave out --log"));
    }
    if !learned.ledger.gaps.is_empty() {
        warn(&format!("the log has {} gaps: what was used in them alone is told as unused", learned.ledger.gaps.len()));
    }
    Ok(Observed::of(&learned.ledger))
}

/// The files that objects were read from, once more, for comments and the way things are spelt. What cannot be read
/// again, as standard input, is left out: the report names it.
fn texts(cluster: &Cluster) -> Texts {
    let sources = |source: &'_ Option<Source>| source.as_ref().map(|source| source.file.clone());
    let policies = cluster.policies.policies.iter().map(|policy| &policy.source);
    let workloads = cluster.workloads.values().map(|workload| &workload.source);
    let pods = cluster.pods.iter().map(|pod| &pod.source);
    let namespaces = cluster.namespaces.values().map(|namespace| &namespace.source);
    let files: BTreeSet<Arc<str>> =
        policies.chain(workloads).chain(pods).chain(namespaces).filter_map(sources).collect();
    let text = |file: &Arc<str>| Path::new(&**file).is_file().then(|| fs::read_to_string(&**file).ok())?;
    files.into_iter().filter_map(|file| text(&file).map(|text| (file, text))).collect()
}

fn is_there(report: &Report, what: FailOnFinding) -> bool {
    report.findings.iter().any(|finding| match what {
        FailOnFinding::Severity(level) => finding.kind.severity <= level,
        FailOnFinding::Kind(kind) => finding.kind == kind,
    })
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = output::stdout();
    let lines = text.lines().try_for_each(|line| writeln!(out, "{}", escape::printable(line)));
    lines.and_then(|()| out.flush()).map_err(output::failed)
}

fn print_json(text: &str) -> Result<(), Failure> {
    let mut out = output::stdout();
    out.write_all(escape::json(text).as_bytes()).and_then(|()| out.flush()).map_err(output::failed)
}
