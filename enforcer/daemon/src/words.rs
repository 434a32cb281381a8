//! The words that say how a node's agent runs.

use clap::{Args, ValueEnum};
use model::cluster::Mode;
use std::path::PathBuf;

/// Where an agent serves its status unless it was told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/podfence/agent.sock";

/// How a node's agent runs.
#[derive(Clone, Debug, Args)]
pub struct Words {
    /// The folder of the flow log; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "/var/lib/podfence/log")]
    pub log: PathBuf,
    /// The file in which what is in force is kept for the next start, so that policies of a namespace that is being
    /// deleted meanwhile still hold for its last pods [default: last-policies.yaml in the folder of the flow log]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// The mode where no label says another: learn, audit or enforce
    #[arg(long, value_name = "MODE", default_value = "learn")]
    pub default_mode: Mode,
    /// What packets of a veth get whose pod is not known
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = UnknownPod::Pass)]
    pub unknown_pod: UnknownPod,
    /// Leave links of these names alone; one that ends with * stands for all that begin so
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub ignore_interfaces: Vec<String>,
    /// Pin everything in this folder of a bpffs, so that it outlives this process; without it, all of it ends with it
    #[arg(long, value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// The node's network namespace, a file under /run/netns or /proc/PID/ns/net [default: this one]
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,
    /// Serve the status at this unix socket, for `podfence status`, `podfence why --kernel` and
    /// `curl --unix-socket FILE http://podfence/metrics`
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Serve metrics over HTTP here too: 127.0.0.1:PORT or [::1]:PORT
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<std::net::SocketAddr>,
    /// What becomes of connections that stand when a policy comes that does not allow them
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Standing::Judge)]
    pub standing: Standing,
    /// This node masquerades what its pods open to Services, as kube-proxy's masqueradeAll does: a Service is never
    /// allowed where policy refuses some of its backends
    #[arg(long)]
    pub masquerade_all: bool,
    /// Connections the node's table holds [default: as the kernel program says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Rules the node's tables hold: those of all its pods' policies, the old ones and the new ones beside each other
    /// while they change. Takes about 70 bytes each [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rules: Option<u32>,
    /// Prefixes of addresses that policies tell apart: pods and blocks, of the whole cluster. Takes about 100 bytes each
    /// once it is there [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub identities: Option<u32>,
    /// Half-open connections one pod may hold
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub half_open_of_pod: u64,
    /// Established connections one pod may hold
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub established_of_pod: u64,
    /// Denied connections remembered of one pod
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub denied_of_pod: u64,
}

/// What becomes of connections that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Standing {
    /// They end at their next packet
    Judge,
    /// They go on until they end; only openings are denied
    Keep,
}

/// What a pod's packets get before it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownPod {
    /// They pass, counted
    Pass,
    /// They are dropped
    Deny,
}

impl Words {
    /// As the agent takes them.
    pub(crate) fn options(&self, node: &str) -> agent::Options {
        let defaults = agent::Options::of_node(node);
        let datapath = datapath::Options {
            bpffs: self.bpffs.clone(),
            unknown_pod: match self.unknown_pod {
                UnknownPod::Pass => datapath::UnknownPod::Pass,
                UnknownPod::Deny => datapath::UnknownPod::Deny,
            },
            limits: verdict::Limits {
                half_open: self.half_open_of_pod,
                established: self.established_of_pod,
                tombstones: self.denied_of_pod,
            },
            standing: match self.standing {
                Standing::Judge => verdict::Standing::Revoked,
                Standing::Keep => verdict::Standing::Kept,
            },
            connections: self.connections,
            rules: self.rules,
            identities: self.identities,
            ignore_interfaces: datapath::Ignored(self.ignore_interfaces.clone()),
            ..defaults.datapath.clone()
        };
        let default_mode = match self.default_mode {
            Mode::Learn => verdict::Mode::Learn,
            Mode::Audit => verdict::Mode::Audit,
            Mode::Enforce => verdict::Mode::Enforce,
        };
        let clients = if self.masquerade_all { agent::Clients::Masqueraded } else { agent::Clients::Seen };
        let remembers = Some(self.state.clone().unwrap_or_else(|| self.log.join("last-policies.yaml")));
        agent::Options { netns: self.netns.clone(), default_mode, clients, datapath, remembers, ..defaults }
    }
}
