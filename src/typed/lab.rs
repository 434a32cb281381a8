//! A cluster out of network namespaces: `lab up|run|down`, and the story told on it: `demo`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Tell the whole story on this machine, and judge it.
///
/// Brings up a shop of a dozen workloads as network namespaces, learns who talks to whom, shows the graph, writes the
/// policies, shows one with its evidence, audits while a compromised frontend reaches for the database (it is logged,
/// not blocked), enforces (the same attack is blocked and logged, and every learned call still succeeds over IPv4 and
/// IPv6), and asks the log about the attack. Each step says what was promised and what was seen; the exit status is 1
/// if one differs. Everything it makes goes at the end.
///
/// Needs root, for network namespaces and eBPF. Without that it tells the half that a capture can tell, and says what
/// is left out and why.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// A scenario folder (cluster.yaml, traffic.yaml) instead of the shop; what to expect comes from its traffic.yaml
    #[arg(value_name = "DIR")]
    pub(crate) scenario: Option<PathBuf>,
    /// Keep log, policies and cluster in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Tell only the half that needs no privilege, from a capture
    #[arg(long)]
    pub(crate) capture_only: bool,
}

/// Bring a scenario to life as network namespaces.
///
/// A scenario is a folder with cluster.yaml (Kubernetes' own objects) and traffic.yaml (who serves, who calls what).
/// Each pod becomes a network namespace with real servers and clients in it. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    #[command(subcommand)]
    pub(crate) what: LabVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabVerb {
    Up(LabUp),
    Run(LabRun),
    Down(LabDown),
}

/// Bring a scenario up and leave it up.
#[derive(Debug, Args)]
pub(crate) struct LabUp {
    /// The scenario's folder, or `shop` for the one that comes along
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
}

/// Play a scenario's traffic; a lab that is not up is brought up for it and taken down after it.
///
/// With --log a podfence agent watches the node and writes the flow log; with --policies and --mode it audits or
/// enforces.
#[derive(Debug, Args)]
pub(crate) struct LabRun {
    /// The scenario's folder, or `shop` for the one that comes along
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Watch with the kernel program, into this flow log
    #[arg(long, value_name = "DIR")]
    pub(crate) log: Option<PathBuf>,
    /// Policies in force: files or a folder, as `generate` writes them
    #[arg(long, value_name = "DIR", requires = "log")]
    pub(crate) policies: Option<PathBuf>,
    /// The mode of every namespace: learn, audit or enforce
    #[arg(long, value_name = "MODE", default_value = "learn", requires = "log")]
    pub(crate) mode: model::cluster::Mode,
    /// Capture what crosses the node into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Write the cluster's objects as they are at the end, for `observe` and `generate`
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster: Option<PathBuf>,
}

/// Take a lab down, also one whose keeper was killed.
#[derive(Debug, Args)]
pub(crate) struct LabDown {
    /// The scenario's folder or name
    #[arg(value_name = "SCENARIO", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) scenario: Option<PathBuf>,
    /// Every lab on this machine
    #[arg(long)]
    pub(crate) all: bool,
}
