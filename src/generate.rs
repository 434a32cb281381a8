//! `generate`: from a flow log and a cluster to policies with their proof, in a folder.

use crate::{
    applied, backing, cluster,
    ending::{Ending, Failure, warn},
    escape,
    files::{self, Replaced},
    ledger, output,
    output::Table,
    typed::{self, NodeCallers, PeerNames},
};
use generator::{Generated, Nodes, Options, Outside, PeerScope, Providers, render};
use model::policy::PolicySet;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

pub(crate) fn run(typed: &typed::Generate) -> miette::Result<Ending> {
    let most = typed.require_complete.map(rate).transpose()?;
    let cluster = cluster::read(&typed.cluster)?;
    let learned = ledger::learned(&typed.learned)?;
    if typed.learned.log.is_none() {
        warn(
            "learned from ledgers alone, which hold no Services and no DNS names: endpoints of Services that are no pods get no rule from calls of the Service, and the evidence names neither",
        );
    }
    // Reading takes more for a moment than what was read.
    datapath::return_free_memory();
    let nodes = typed.nodes.map(|nodes| match nodes {
        NodeCallers::Allow => Nodes::Allow,
        NodeCallers::Deny => Nodes::Deny,
    });
    let options = Options {
        nodes,
        accept: typed.accept.clone(),
        outside: outside(&typed.outside)?,
        peers: match typed.peers {
            PeerNames::Workload => PeerScope::Workload,
            PeerNames::Namespace => PeerScope::Namespace,
        },
        port_ranges: typed.port_range.clone(),
        no_default_deny: typed.no_default_deny.iter().cloned().collect(),
        required: most,
        routes: learned.routes,
    };
    let mut generated = generator::synthesize(&learned.ledger, &cluster, &options)
        .map_err(|why| Failure::of("no policies were written", why))?;
    // It may be large, and so is what is written.
    drop(learned.ledger);
    datapath::return_free_memory();
    for file in &typed.evidence {
        let earlier = backing::read(file)?;
        for missing in generated.evidence.merge(&earlier) {
            warn(&format!("{}: {missing}", file.display()));
        }
    }
    if most.is_some() {
        require_complete(&generated)?;
    }
    // Before anything is written: what is applied may lie where the new set goes.
    let applied = match (typed.diff, &typed.against) {
        (false, _) => None,
        (true, Some(path)) => Some(read_policies(path)?),
        (true, None) => Some(cluster.policies.clone()),
    };
    refuse_same_names(&typed.out, &generated.policies)?;
    let replaced = match typed.dry_run {
        true => None,
        false => Some(files::replace_folder(&typed.out, &laid_out(&generated), &is_ours)?),
    };
    let mut out = output::stdout();
    let shown = match &applied {
        None => show(&mut out, &generated),
        Some(applied) => applied::show(&mut out, &cluster, applied, &generated),
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)?;
    match &replaced {
        None => eprintln!("dry run: nothing was written"),
        Some(replaced) => eprintln!(
            "written to {0}{1}; begin with {2}; `kubectl apply -R -f {0}/{POLICIES}` applies the policies",
            typed.out.display(),
            told(replaced),
            render::SUMMARY
        ),
    }
    Ok(Ending::Done)
}

/// What became of the files of an earlier run, and of those of others.
fn told(replaced: &Replaced) -> String {
    let (added, changed, removed) = (replaced.added.len(), replaced.changed.len(), replaced.removed.len());
    let (unchanged, kept) = (replaced.unchanged, replaced.kept);
    if !replaced.had_files() && kept == 0 {
        return String::new();
    }
    let others = if kept > 0 { format!("; {kept} of others kept") } else { String::new() };
    format!(" (files: {added} added, {changed} changed, {removed} removed, {unchanged} as they were{others})")
}

/// What `--outside` says: a choice, and for one of them a file.
fn outside(words: &[String]) -> Result<Outside, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["exact"] => Ok(Outside::Exact),
        ["minimal-cover"] => Ok(Outside::MinimalCover),
        ["provider-ranges", file] => {
            let what = || format!("no provider's ranges in {file}");
            let hint = "give JSON: {\"providers\": {\"NAME\": [\"CIDR\", ...]}}, or what AWS or Google publish";
            let text = fs::read_to_string(file).map_err(|why| Failure::of(what(), why).hint(hint))?;
            Providers::from_json(&text)
                .map(Outside::ProviderRanges)
                .map_err(|why| Failure::new(format!("{}; {why}", what()), hint))
        }
        _ => Err(Failure::new(
            format!("--outside {}: no such choice", words.join(" ")),
            "say exact, minimal-cover, or provider-ranges FILE",
        )),
    }
}

/// A policy of others in the folder that has the name of one of ours: applying the folder would write one over the other.
fn refuse_same_names(folder: &Path, policies: &PolicySet) -> Result<(), Failure> {
    let is_read = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.starts_with(POLICIES) && matches!(extension, Some("yaml" | "yml" | "json"))
    };
    for path in files::of_others(folder, &is_ours)?.into_iter().filter(is_read) {
        // What is no policy at all is theirs to mend.
        let Ok(theirs) = inventory::read_policies(&[folder.join(&path)]) else { continue };
        if let Some(same) = theirs.policies.iter().find(|p| policies.get(&p.namespace, &p.name).is_some()) {
            let (name, file) = (format!("{}/{}", same.namespace, same.name), folder.join(&path));
            return Err(Failure::new(
                format!("{} holds a policy {name}, and so would the new set", file.display()),
                "rename that one, or move it away",
            ));
        }
    }
    Ok(())
}

/// The folder of the policies alone, as kubectl takes every file of a folder for an object.
pub(crate) const POLICIES: &str = "policies";

/// The files of a generated set: policies in a folder of their own, their proof beside it.
pub(crate) fn laid_out(generated: &Generated) -> BTreeMap<String, String> {
    let place = |path: String| if path.ends_with(".yaml") { format!("{POLICIES}/{path}") } else { path };
    render::files(generated).into_iter().map(|(path, text)| (place(path), text)).collect()
}

/// Reads policies back: what `generate` wrote, or any file or folder of policies.
pub(crate) fn read_policies(path: &Path) -> Result<PolicySet, Failure> {
    inventory::read_policies(&[policies_folder(path)]).map_err(|why| Failure::of("no policies were read", why))
}

/// Where the policies lie in a folder that `generate` wrote; any other path itself.
pub(crate) fn policies_folder(path: &Path) -> PathBuf {
    let within = path.join(POLICIES);
    let generated = path.join(render::EVIDENCE).is_file() && within.is_dir();
    if generated { within } else { path.to_owned() }
}

fn rate(rate: f64) -> Result<f64, Failure> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(rate);
    }
    Err(Failure::new(format!("--require-complete: {rate} is no rate"), "give new edges an hour above 0, 0.05 say"))
}

fn require_complete(generated: &Generated) -> Result<(), Failure> {
    let incomplete = generated.certificate.incomplete();
    if incomplete.is_empty() {
        return Ok(());
    }
    for line in &incomplete {
        eprintln!("incomplete: {}", escape::printable(line));
    }
    Err(Failure::new(
        format!("learning is not complete for {} namespaces and workloads; nothing was written", incomplete.len()),
        "observe for as long as said above, or raise --require-complete",
    ))
}

/// Whether a file in the folder is one that an earlier `generate` wrote: its proof by name, a policy by being one
/// document of a folder of its namespace that carries our label.
fn is_ours(path: &str, contents: &[u8]) -> bool {
    if [render::EVIDENCE, render::CERTIFICATE, render::SUMMARY].contains(&path) {
        return true;
    }
    let (label, value) = generator::synthesize::MANAGED_BY;
    let says_so = |line: &str| line.trim().strip_prefix(label).is_some_and(|rest| rest.contains(value));
    let text = String::from_utf8_lossy(contents);
    let place: Vec<&str> = path.split('/').collect();
    let is_place = matches!(place[..], [POLICIES, _, file] if file.ends_with(".yaml"));
    is_place && text.lines().filter(|line| *line == "---").count() <= 1 && text.lines().any(says_so)
}

/// One row a policy, then everything a reviewer should know.
fn show(out: &mut impl Write, generated: &Generated) -> io::Result<()> {
    let mut table = Table::new(["NAMESPACE", "POLICY", "WORKLOAD", "INGRESS", "EGRESS", "FLOWS"]);
    for policy in &generated.policies.policies {
        let evidence = generated.evidence.policies.get(&format!("{}/{}", policy.namespace, policy.name));
        let rules = |rules: &Option<Vec<_>>| rules.as_ref().map_or("-".to_owned(), |rules| rules.len().to_string());
        let proofs = evidence.iter().flat_map(|evidence| &evidence.rules).flat_map(|rule| &rule.proofs);
        table.row([
            policy.namespace.clone(),
            policy.name.clone(),
            evidence.map_or_else(String::new, |evidence| evidence.workload.clone()),
            rules(&policy.ingress),
            rules(&policy.egress),
            proofs.map(|proof| proof.flows).sum::<u64>().to_string(),
        ]);
    }
    table.write(out)?;
    writeln!(out)?;
    for line in render::summary(generated).lines() {
        writeln!(out, "{}", escape::printable(line))?;
    }
    Ok(())
}
