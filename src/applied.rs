//! What generated policies would change against what is applied.
//!
//! Always holds: policies that podfence did not write stay in force, as applying others does not delete them; they are
//! counted, and what opens and closes is told with them in place.

use crate::{backing, escape};
use generator::{Generated, synthesize::MANAGED_BY};
use model::{
    cluster::Cluster,
    policy::{NetworkPolicy, PolicySet},
    yaml::write_policy,
};
use review::{
    Input,
    diff::{self, Diff, Named},
};
use std::io::{self, Write};

/// Tells the objects that are added, changed and to be removed, then what opens and closes.
pub(crate) fn show(out: &mut impl Write, cluster: &Cluster, applied: &PolicySet, set: &Generated) -> io::Result<()> {
    let generated = &set.policies;
    let mut after = generated.clone();
    let mut objects: Vec<(String, &str)> = generated.policies.iter().filter_map(|new| change(applied, new)).collect();
    let (mut kept, mut to_delete) = (0, Vec::new());
    let others = applied.policies.iter().filter(|old| generated.get(&old.namespace, &old.name).is_none());
    for old in others {
        match is_ours(old) {
            true => {
                objects.push((name(old), "removed"));
                to_delete.push(old);
            }
            false => {
                after.policies.push(old.clone());
                kept += 1;
            }
        }
    }
    after.sort();
    objects.sort();
    let lines = objects.iter().map(|(name, change)| format!("{change} {name}"));
    let deletions = to_delete
        .iter()
        .map(|old| format!("to remove it: kubectl delete networkpolicy --namespace {} {}", old.namespace, old.name));
    let mut all: Vec<String> = lines.chain(deletions).collect();
    if objects.is_empty() {
        all.push("no policy is added, changed or removed".to_owned());
    }
    if kept > 0 {
        let policies = if kept == 1 { "1 policy".to_owned() } else { format!("{kept} policies") };
        all.push(format!("kept: {policies} that podfence did not write; what they allow stays allowed"));
    }
    all.push(String::new());
    let named = |input: &str| Named { input: input.to_owned(), revision: None };
    let diff = Diff::of(Input { cluster, policies: applied }, Input { cluster, policies: &after });
    let diff = diff.named(named("what is applied"), named("what it would be"));
    let evidence = std::slice::from_ref(&set.evidence);
    let diff = diff.with_evidence(&|_| None, &|rule| backing::of(evidence, rule));
    all.extend(diff::lines(&diff));
    all.iter().try_for_each(|line| writeln!(out, "{}", escape::printable(line)))
}

/// How a generated policy differs from the applied one of its name.
fn change(applied: &PolicySet, new: &NetworkPolicy) -> Option<(String, &'static str)> {
    match applied.get(&new.namespace, &new.name) {
        None => Some((name(new), "added")),
        Some(old) if write_policy(old) == write_policy(new) => None,
        Some(_) => Some((name(new), "changed")),
    }
}

fn is_ours(policy: &NetworkPolicy) -> bool {
    policy.labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
}

fn name(policy: &NetworkPolicy) -> String {
    format!("{}/{}", policy.namespace, policy.name)
}
