//! The words of `why`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Say why a connection may or may not be opened.
///
/// FROM and TO are pods or workloads (NAMESPACE/NAME, NAMESPACE/KIND/NAME, or a pod's name alone) or addresses; TO may
/// end with a port, by number or by name, and a protocol: shop/cart:8080, db-0:53/UDP, [fd00::1]:http. Without a port
/// the answer is which ports are open.
///
/// The answer names for both directions the policies that isolate and the rules that allow, with file and line; pods of
/// one workload that differ are told apart. What is denied comes with the nearest rule that is missing, as YAML to
/// paste, checked before it is shown.
///
/// With --kernel the running agent is asked instead: what the tables in the kernel say at each end that this node
/// covers, beside what the reference evaluator makes of the same cluster.
///
/// The exit status is 0 whether the connection is allowed or denied, unless --fail-on names the verdict.
#[derive(Debug, Args)]
#[command(after_help = "For example: podfence why shop/frontend data/orders-db:6379 policies/ --cluster cluster.json")]
pub(crate) struct Why {
    /// The client
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// The server, and the port
    #[arg(value_name = "TO[:PORT[/PROTO]]")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) manifests: super::Manifests,
    /// Ask the agent that enforces on this node what its loaded tables say, and whether that is what its cluster's
    /// policies mean; takes no files. The exit status is 1 when the two differ
    #[arg(long, conflicts_with_all = ["paths", "cluster", "evidence", "fail_on", "keep_going", "verbose"])]
    pub(crate) kernel: bool,
    /// The agent's socket
    #[arg(long, value_name = "FILE", default_value = crate::socket::DEFAULT, requires = "kernel")]
    pub(crate) socket: PathBuf,
    /// The evidence.json of a `generate`, to say when a rule's flows were seen [default: the one beside the policies]
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = WhyOutput::Text)]
    pub(crate) output: WhyOutput,
    /// End with exit status 1 when this is the verdict, for any of the pods
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub(crate) fail_on: Option<FailOnVerdict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhyOutput {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOnVerdict {
    /// Some pair of pods may not connect
    Denied,
    /// Some pair of pods may
    Allowed,
}
