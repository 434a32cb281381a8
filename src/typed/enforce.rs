//! The words of `enforce`.

use clap::{Args, ValueEnum};
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
    /// The folder of the flow log; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "/var/lib/podfence/log")]
    pub(crate) log: PathBuf,
    /// The file in which what is in force is kept for the next start, so that policies of a namespace that is being
    /// deleted meanwhile still hold for its last pods [default: last-policies.yaml in the folder of the flow log]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// The mode where no label says another: learn, audit or enforce
    #[arg(long, value_name = "MODE", default_value = "learn")]
    pub(crate) default_mode: model::cluster::Mode,
    /// What packets of a veth get whose pod is not known
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = UnknownPod::Pass)]
    pub(crate) unknown_pod: UnknownPod,
    /// Leave links of these names alone; one that ends with * stands for all that begin so
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) ignore_interfaces: Vec<String>,
    /// Pin everything in this folder of a bpffs, so that it outlives this process; without it, all of it ends with it
    #[arg(long, value_name = "DIR")]
    pub(crate) bpffs: Option<PathBuf>,
    /// The node's network namespace, a file under /run/netns or /proc/PID/ns/net [default: this one]
    #[arg(long, value_name = "FILE")]
    pub(crate) netns: Option<PathBuf>,
    /// Serve the status at this unix socket, for `podfence status`, `podfence why --kernel` and
    /// `curl --unix-socket FILE http://podfence/metrics`
    #[arg(long, value_name = "FILE", default_value = crate::socket::DEFAULT)]
    pub(crate) socket: PathBuf,
    /// Serve metrics over HTTP here too: 127.0.0.1:PORT or [::1]:PORT
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// What becomes of connections that stand when a policy comes that does not allow them
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Standing::Judge)]
    pub(crate) standing: Standing,
    /// Admission guards the annotation podfence.dev/source-prefixes: pods have the IPv4 prefixes it names beside their
    /// own addresses. Without this, a packet from another address is spoofed, whatever the annotation says
    #[arg(long)]
    pub(crate) source_prefixes_guarded: bool,
    /// This node masquerades what its pods open to Services, as kube-proxy's masqueradeAll does: a Service is never
    /// allowed where policy refuses some of its backends
    #[arg(long)]
    pub(crate) masquerade_all: bool,
    /// Connections the node's table holds [default: as the kernel program says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: Option<u32>,
    /// Rules the node's tables hold: those of all its pods' policies, the old ones and the new ones beside each other
    /// while they change. Takes about 70 bytes each [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rules: Option<u32>,
    /// Prefixes of addresses that policies tell apart: pods and blocks, of the whole cluster. Takes about 100 bytes each
    /// once it is there [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) identities: Option<u32>,
    /// Half-open connections one pod may hold
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) half_open_of_pod: u64,
    /// Established connections one pod may hold
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub(crate) established_of_pod: u64,
    /// Denied connections remembered of one pod
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) denied_of_pod: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Standing {
    /// They end at their next packet
    Judge,
    /// They go on until they end; only openings are denied
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnknownPod {
    /// They pass, counted
    Pass,
    /// They are dropped
    Deny,
}
