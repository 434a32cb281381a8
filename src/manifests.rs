//! What the review commands read: manifests as they are typed, over the objects of a cluster.
//!
//! Always holds: an object of the manifests counts instead of the cluster's of the same name; the policies reviewed are
//! those of the manifests if they hold any, else the cluster's; what is not considered is said on standard error.

use crate::{
    ending::{Failure, warn},
    escape, generate, typed,
};
use inventory::Options;
use model::cluster::{Cluster, Pod};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Reads everything; the policies of the answer are those to review.
pub(crate) fn read(typed: &typed::Manifests) -> Result<Cluster, Failure> {
    let twice = typed.paths.iter().chain(&typed.reading.cluster).filter(|path| *path == Path::new("-")).count() > 1;
    if twice {
        return Err(Failure::new(
            "standard input (-) is named twice",
            "it can be read once; give files for the others",
        ));
    }
    if typed.paths.is_empty() && typed.reading.cluster.is_empty() {
        return Err(Failure::new(
            "there is nothing to read: no PATH was given and no --cluster",
            "give files or folders of manifests, or the cluster's objects with --cluster FILE",
        ));
    }
    let snapshot = snapshot(&typed.reading)?;
    let found = match typed.paths.is_empty() {
        true => Cluster::default(),
        false => from_paths(&typed.paths, &typed.reading)?,
    };
    let cluster = over(found, snapshot.unwrap_or_default());
    tell(&cluster, &typed.reading)?;
    Ok(cluster)
}

/// The objects that `--cluster` names, if it was typed.
pub(crate) fn snapshot(reading: &typed::Reading) -> Result<Option<Cluster>, Failure> {
    if reading.cluster.is_empty() { Ok(None) } else { from_paths(&reading.cluster, reading).map(Some) }
}

/// The objects of these files and folders, and nothing behind them.
pub(crate) fn from_paths(paths: &[PathBuf], reading: &typed::Reading) -> Result<Cluster, Failure> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| generate::policies_folder(path)).collect();
    let options = Options { keep_going: reading.keep_going, ..Options::default() };
    inventory::read_as(&paths, options).map_err(|errors| failed(errors, reading))
}

/// The objects of texts that lie elsewhere than in files.
pub(crate) fn from_texts(texts: Vec<(String, Vec<u8>)>, reading: &typed::Reading) -> Result<Cluster, Failure> {
    let options = Options { keep_going: reading.keep_going, ..Options::default() };
    inventory::read_texts(texts, options).map_err(|errors| failed(errors, reading))
}

/// With `--keep-going` all errors are told, and the failure counts them.
fn failed(errors: inventory::Errors, reading: &typed::Reading) -> Failure {
    if !reading.keep_going {
        return Failure::whole(&errors.into_first());
    }
    let whole = |error: &inventory::Error| Failure::whole(error).to_string();
    errors.iter().for_each(|error| eprintln!("podfence: {}", escape::printable(&whole(error))));
    let told = errors.iter().count();
    let what = match (told, errors.more()) {
        (1, 0) => "1 error in the input".to_owned(),
        (told, 0) => format!("{told} errors in the input"),
        (told, more) => format!("{} errors in the input, of which the first {told} are told", told + more),
    };
    Failure::new(what, "mend what is said above")
}

/// The manifests' objects before the cluster's.
pub(crate) fn over(found: Cluster, snapshot: Cluster) -> Cluster {
    let mut all = snapshot;
    if !found.policies.policies.is_empty() {
        match all.policies.policies.len() {
            0 => {}
            1 => eprintln!("1 policy of the cluster is not considered, as the manifests hold policies"),
            n => eprintln!("{n} policies of the cluster are not considered, as the manifests hold policies"),
        }
        all.policies = found.policies;
    }
    all.staged.policies.extend(found.staged.policies);
    for (name, namespace) in found.namespaces {
        // A namespace that is only named must not hide what is known of it.
        if namespace.source.is_some() || !all.namespaces.contains_key(&name) {
            all.namespaces.insert(name, namespace);
        }
    }
    all.nodes.extend(found.nodes);
    all.workloads.extend(found.workloads);
    all.services.extend(found.services);
    let named = |pod: &Pod| (pod.namespace.clone(), pod.name.clone());
    let given: BTreeSet<_> = found.pods.iter().map(named).collect();
    all.pods.retain(|pod| given.is_empty() || !given.contains(&named(pod)));
    if !found.pods.is_empty() {
        all.pods.extend(found.pods);
        all.pods.sort_by(|a, b| order(a).cmp(&order(b)));
    }
    for (kind, count) in found.passed_over {
        *all.passed_over.entry(kind).or_default() += count;
    }
    all
}

fn order(pod: &Pod) -> impl Ord + '_ {
    (&pod.namespace, &pod.name, pod.started, &pod.uid)
}

/// What a reader of the answer must know of its input, on standard error; an input about nobody is refused.
pub(crate) fn tell(cluster: &Cluster, reading: &typed::Reading) -> Result<(), Failure> {
    if cluster.pods.is_empty() && cluster.workloads.is_empty() {
        return Err(Failure::new(
            "the input holds no pods and no workloads, so that there is nobody to whom policies could apply",
            "give their manifests too, or the cluster's objects with --cluster FILE (`kubectl get \
             ns,pods,deployments,replicasets,statefulsets,daemonsets,jobs,cronjobs,networkpolicies -A -o json` prints \
             them)",
        ));
    }
    let missing = cluster.namespaces_not_given();
    if !missing.is_empty() {
        warn(&format!(
            "not in the input, and taken with the label {} alone: {} {}",
            model::labels::METADATA_NAME,
            if missing.len() == 1 { "namespace" } else { "namespaces" },
            missing.join(", ")
        ));
    }
    let staged = cluster.staged.policies.len();
    if staged > 0 {
        warn(&format!("{staged} staged policies of the input are in no answer, as they are not in force"));
    }
    if reading.verbose && !cluster.passed_over.is_empty() {
        let counts: Vec<String> = cluster.passed_over.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        eprintln!("{}", escape::printable(&format!("passed over: {}", counts.join(", "))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(yaml: &str) -> Cluster {
        let mut cluster = Cluster::default();
        model::yaml::read_into(&mut cluster, "test.yaml", yaml).expect("YAML of the test");
        cluster
    }

    const LIVE: &str = r#"
kind: List
apiVersion: v1
items:
- {kind: Namespace, apiVersion: v1, metadata: {name: shop, labels: {team: red}}}
- {kind: Pod, apiVersion: v1, metadata: {name: web, namespace: shop, uid: a, labels: {app: old}}}
- {kind: Pod, apiVersion: v1, metadata: {name: db, namespace: shop, uid: b}}
- {kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {name: live, namespace: shop}, spec: {}}
"#;

    #[test]
    fn manifests_stand_before_the_cluster() {
        let pod = "kind: Pod\napiVersion: v1\nmetadata: {name: web, namespace: shop, labels: {app: new}}\n";
        let all = over(cluster(pod), cluster(LIVE));
        assert_eq!(all.namespaces["shop"].labels["team"], "red");
        let labels: Vec<_> = all.pods.iter().map(|pod| (pod.name.as_str(), pod.labels.get("app"))).collect();
        assert_eq!(labels, [("db", None), ("web", Some(&"new".to_owned()))]);
        assert_eq!(all.policies.policies[0].name, "live");
    }

    #[test]
    fn policies_come_from_one_side_alone() {
        let policy = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\n\
                      metadata: {name: new, namespace: shop}\nspec: {}\n";
        let all = over(cluster(policy), cluster(LIVE));
        let names: Vec<_> = all.policies.policies.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(names, ["new"]);
        assert_eq!(all.pods.len(), 2);
    }
}
