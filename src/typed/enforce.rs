//! The words of `enforce`.

use clap::Args;
use std::path::PathBuf;

/// Enforce a folder of manifests on this node, without Kubernetes.
///
/// Reads the cluster's objects from files (pods, namespaces, nodes, NetworkPolicies, workloads), binds this node's veths
/// to its pods by the addresses in the pods' status, and judges every packet that crosses them by these policies. When a
/// file changes, the policies change, all at once at each pod. Files that cannot be read leave everything as it was, and
/// say so.
///
/// What is done about a denial is the mode, a label `podfence.dev/mode: learn | audit | enforce` on a namespace or, only
/// to strengthen it, on a workload. Every flow goes into the flow log, of which at most 4 GiB and 30 days are kept.
///
/// It runs until Ctrl-C or SIGTERM. Needs root, or BPF, NET_ADMIN and PERFMON.
#[derive(Debug, Args)]
#[command(after_help = "For example: podfence enforce --cluster /etc/podfence/cluster --node $(hostname)")]
pub(crate) struct Enforce {
    /// The cluster's objects: a folder of .yaml, .yml and .json files, or a file; watched for changes
    #[arg(long, value_name = "DIR")]
    pub(crate) cluster: PathBuf,
    /// This node's name in spec.nodeName of its pods [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) words: daemon::Words,
}
