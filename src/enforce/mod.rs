//! `enforce`: a folder of manifests, enforced on this node's veths until somebody ends it.
//!
//! Always holds: what cannot be read or does not fit changes nothing and is said.

mod folder;

use crate::{
    ending::{Ending, Failure},
    flows::stop_flag,
    typed,
};
use daemon::Source;
use folder::Folder;
use miette::Result;
use model::cluster::Cluster;
use std::{collections::BTreeSet, thread, time::Duration};

pub(crate) fn run(typed: &typed::Enforce) -> Result<Ending> {
    let stop = stop_flag()?;
    daemon::say_on_standard_error();
    let mut folder = Folder::new(&typed.cluster);
    let cluster = folder.read()?;
    let node = node_name(typed.node.as_deref(), &cluster)?;
    let mut files = Files { name: typed.cluster.display().to_string(), folder, first: Some(cluster) };
    daemon::run(&typed.words, &node, &mut files, &stop).map_err(|why| Failure::whole(&why))?;
    Ok(Ending::Done)
}

/// The folder of manifests, as a source of objects.
struct Files {
    name: String,
    folder: Folder,
    /// What was read before the agent started.
    first: Option<Cluster>,
}

impl Source for Files {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn changed(&mut self, wait: Duration) -> Option<Result<Cluster, String>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        thread::sleep(wait);
        self.folder.changed().map(|read| read.map_err(|why| why.to_string()))
    }

    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The node that was named, or this machine; it must be one of the cluster's.
fn node_name(typed: Option<&str>, cluster: &Cluster) -> Result<String, Failure> {
    let name = typed.map_or_else(daemon::this_machine, str::to_owned);
    let of_pods = cluster.pods.iter().map(|pod| pod.node.as_str()).filter(|node| !node.is_empty());
    let nodes: BTreeSet<&str> = cluster.nodes.keys().map(String::as_str).chain(of_pods).collect();
    if nodes.contains(name.as_str()) {
        return Ok(name);
    }
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let there = match nodes.as_slice() {
        [] => "it names no node".to_owned(),
        nodes => format!("its nodes are {}", nodes.join(", ")),
    };
    let what = format!("node {name} is not in the cluster: no Node and no pod's spec.nodeName has this name, {there}");
    Err(Failure::new(what, "name this machine's node with --node NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_there_is_answered_with_those_that_are() {
        let mut cluster = Cluster::default();
        let why = node_name(Some("n9"), &cluster).expect_err("no such node").to_string();
        assert!(why.contains("it names no node"), "{why}");
        cluster.nodes.insert("n1".to_owned(), model::cluster::Node::default());
        cluster.pods.push(model::cluster::Pod { node: "n2".to_owned(), ..model::cluster::Pod::default() });
        let why = node_name(Some("n9"), &cluster).expect_err("no such node").to_string();
        assert!(why.contains("its nodes are n1, n2"), "{why}");
        assert_eq!(node_name(Some("n2"), &cluster).expect("a pod's node"), "n2");
    }
}
