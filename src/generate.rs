//! `generate`: from a flow log and a cluster to policies with their proof, in a folder.

use crate::{
    applied, cluster,
    ending::{Ending, Failure},
    escape, files, learned, output,
    output::Table,
    typed::{self, NodeCallers},
};
use generator::{Generated, Nodes, Options, render};
use model::policy::PolicySet;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

pub(crate) fn run(typed: &typed::Generate) -> miette::Result<Ending> {
    let most = typed.require_complete.map(rate).transpose()?;
    let cluster = cluster::read(&typed.cluster)?;
    let learned = learned::read(&typed.log)?;
    if learned.rows == 0 {
        return Err(Failure::new(
            format!("{} holds no flows, so every workload would be closed", typed.log.display()),
            "observe for a while first",
        )
        .into());
    }
    let nodes = typed.nodes.map(|nodes| match nodes {
        NodeCallers::Allow => Nodes::Allow,
        NodeCallers::Deny => Nodes::Deny,
    });
    let options = Options { nodes, accept: typed.accept.clone(), window: None, gaps: learned.gaps };
    let generated = generator::synthesize(&learned.ledger, &cluster, &options)
        .map_err(|why| Failure::of("no policies were written", why))?;
    if let Some(most) = most {
        require_complete(&generated, most)?;
    }
    // Before anything is written: what is applied may lie where the new set goes.
    let applied = match (typed.diff, &typed.against) {
        (false, _) => None,
        (true, Some(path)) => Some(read_policies(path)?),
        (true, None) => Some(cluster.policies.clone()),
    };
    if !typed.dry_run {
        files::replace_folder(&typed.out, &laid_out(&generated), &is_ours)?;
    }
    let mut out = output::stdout();
    let shown = match &applied {
        None => show(&mut out, &generated),
        Some(applied) => applied::show(&mut out, &cluster, applied, &generated.policies),
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)?;
    match typed.dry_run {
        true => eprintln!("dry run: nothing was written"),
        false => eprintln!(
            "written to {0}; begin with {1}; `kubectl apply -R -f {0}/{POLICIES}` applies the policies",
            typed.out.display(),
            render::SUMMARY
        ),
    }
    Ok(Ending::Done)
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

fn require_complete(generated: &Generated, most: f64) -> Result<(), Failure> {
    let incomplete = generated.certificate.incomplete(most);
    if incomplete.is_empty() {
        return Ok(());
    }
    for line in &incomplete {
        eprintln!("incomplete: {}", escape::printable(line));
    }
    Err(Failure::new(
        format!("learning is not complete for {} workloads; nothing was written", incomplete.len()),
        "observe for as long as said above, or raise --require-complete",
    ))
}

/// Whether a file in the folder is one that an earlier `generate` wrote.
fn is_ours(path: &str, contents: &[u8]) -> bool {
    if [render::EVIDENCE, render::CERTIFICATE, render::SUMMARY].contains(&path) {
        return true;
    }
    let (label, value) = generator::synthesize::MANAGED_BY;
    let says_so = |line: &str| line.trim().strip_prefix(label).is_some_and(|rest| rest.contains(value));
    path.ends_with(".yaml") && String::from_utf8_lossy(contents).lines().any(says_so)
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
