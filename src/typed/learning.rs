//! From packets to policies: `observe`, `graph`, `generate`.

use clap::{ArgGroup, Args, ValueEnum};
use std::path::PathBuf;

/// Turn packets into a flow log.
///
/// Reads captures (pcap and pcapng; Ethernet, VLAN, Linux cooked, raw IP), or an interface until Ctrl-C, and appends
/// the flows to the log in DIR: Parquet that any engine reads. With a cluster's objects, both ends of each flow get
/// their names as of the flow's own time; without them every end is an address.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["pcap", "interface", "import"])))]
pub(crate) struct Observe {
    /// Captures to read, in this order
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) pcap: Vec<PathBuf>,
    /// Flows that somebody else saw: flows=FILE, one a line as JSON (observer/README.md describes the fields)
    #[arg(long, value_name = "KIND=FILE", num_args = 1..)]
    pub(crate) import: Vec<String>,
    /// Watch this interface until Ctrl-C (needs the right to capture: CAP_NET_RAW)
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// The cluster's objects: what `kubectl get ns,nodes,pods,services,... -A -o yaml` prints, or a watch of them
    /// (`--watch --output-watch-events -o json`); a file, or a folder
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster: Option<PathBuf>,
    /// The folder of the flow log; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) log: PathBuf,
    /// The name under which this observer writes: the node it runs on [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
}

/// Show who talks to whom.
///
/// Every edge that the flow log holds and that may become a rule: client, server, protocol, port, how many flows, when
/// first and last seen. What may not become a rule is counted below it, with the reason.
#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// The folder of the flow log
    #[arg(long, value_name = "DIR")]
    pub(crate) log: PathBuf,
    /// Only edges that have an end in this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// All namespaces (so it is without -n)
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = GraphOutput::Table)]
    pub(crate) output: GraphOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphOutput {
    /// One row an edge
    Table,
    /// For programs
    Json,
    /// For Graphviz
    Dot,
    /// For Markdown
    Mermaid,
}

/// What was learned: a flow log, ledgers, or both.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Learned {
    /// The folder of the flow log
    #[arg(long, value_name = "DIR")]
    pub(crate) log: Option<PathBuf>,
    /// Ledgers that `podfence ledger` wrote, of any number of nodes; the same one twice counts once. A ledger holds no
    /// Services and no DNS names: what is learned from these comes from --log alone
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) ledger: Vec<PathBuf>,
}

/// Write what a flow log teaches as one small file, or many such files as one.
///
/// Who talked to whom, by node and hour, with who watched when and what was lost; no flow by itself but a few samples.
/// The file grows with edges and hours, not with flows; `generate --ledger` reads it. It is JSON, one line a thing,
/// compressed with zstd. What two ledgers both hold counts once, in whatever order they are given. Through which
/// Services and by which DNS names clients came is in the log alone.
#[derive(Debug, Args)]
pub(crate) struct Ledger {
    #[command(flatten)]
    pub(crate) learned: Learned,
    /// The file to write, in place of any that is there
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// Write the least-privilege policies for what was learned.
///
/// For every workload a NetworkPolicy that allows what the flow log shows and nothing else, checked against the
/// reference evaluator before anything is written. Beside the policies, evidence.json says for each rule which flows
/// are behind it, and certificate.json how complete the learning was. The same log gives the same bytes.
///
/// A namespace with workloads gets a default-deny of its own, which closes pods that nobody knows yet. Policies carry
/// the label app.kubernetes.io/managed-by=podfence, by which the next run knows its own.
///
/// A flow whose direction nobody knows, a handshake that was never answered, and whatever a policy denied never become
/// a rule; --accept EDGE overrules that for one edge, by name.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) learned: Learned,
    /// The cluster's objects, as for `observe`; a file, or a folder
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster: PathBuf,
    /// The folder for policies, evidence and certificate. What an earlier `generate` wrote there is updated or removed;
    /// files of others stay
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What to do about workloads that node addresses reach: hostNetwork pods, or anyone behind a masquerade. Without
    /// it, such a call is refused with the workloads named
    #[arg(long, value_enum)]
    pub(crate) nodes: Option<NodeCallers>,
    /// Let this edge become a rule although it was refused: NS/NAME->NS/NAME:PORT/PROTOCOL, as the summary lists it
    #[arg(long, value_name = "EDGE")]
    pub(crate) accept: Vec<String>,
    /// What rules name for addresses outside, with `provider-ranges` from this FILE: exact | minimal-cover |
    /// provider-ranges FILE. What that opens beyond what was seen is listed with its price
    #[arg(long, value_names = ["CHOICE", "FILE"], num_args = 1..=2, default_value = "exact")]
    pub(crate) outside: Vec<String>,
    /// What rules name for pods: the workload that was seen, or every pod of its namespace, listed with its price
    #[arg(long, value_enum, default_value = "workload")]
    pub(crate) peers: PeerNames,
    /// Open the range that a server picks its ports from: NS/NAME->NS/NAME:FIRST-LAST/PROTO
    #[arg(long, value_name = "RANGE")]
    pub(crate) port_range: Vec<String>,
    /// Write no default-deny for this namespace: pods there that no other policy names stay open
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) no_default_deny: Vec<String>,
    /// Add the evidence of an earlier run, or of another cluster, to the rules that are the same
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Vec<PathBuf>,
    /// Refuse while more than this many new edges an hour must still be expected (0.05, say)
    #[arg(long, value_name = "RATE")]
    pub(crate) require_complete: Option<f64>,
    /// Show what would be written and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print what the policies would change against what is applied: objects, and what opens and closes because of them
    #[arg(long)]
    pub(crate) diff: bool,
    /// What is applied: a file or folder of policies [default: those among the cluster's objects]
    #[arg(long, value_name = "PATH", requires = "diff")]
    pub(crate) against: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodeCallers {
    /// Open the ports that were seen to all nodes
    Allow,
    /// Open nothing to nodes, list what was seen
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerNames {
    /// The workload
    Workload,
    /// Every pod of its namespace
    Namespace,
}
