//! `reach`.

use super::Manifests;
use clap::{Args, ValueEnum};

/// Show who may open a connection to whom.
///
/// Every two workloads of the manifests (or of the cluster that --cluster names), and every block of addresses outside
/// that policies tell from others, with the protocols and ports that may be opened. What is not listed is denied.
#[derive(Debug, Args)]
#[command(
    after_help = "END is a namespace, NAMESPACE/NAME or NAMESPACE/KIND/NAME of a workload or a pod, an address, \
                        or a block of addresses (10.0.0.0/8).\n\nExample: podfence reach manifests/ --to data/db"
)]
pub(crate) struct Reach {
    #[command(flatten)]
    pub(crate) manifests: Manifests,
    /// Whose rows
    #[arg(long, value_enum, default_value_t = ReachBy::Workload)]
    pub(crate) by: ReachBy,
    /// Only what this end may open
    #[arg(long, value_name = "END")]
    pub(crate) from: Option<String>,
    /// Only who may open something at this end
    #[arg(long, value_name = "END")]
    pub(crate) to: Option<String>,
    /// Also who else could connect: pods and namespaces with labels that nobody has yet
    #[arg(long)]
    pub(crate) exposure: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = ReachOutput::Text)]
    pub(crate) output: ReachOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReachBy {
    /// A row for each two workloads
    Workload,
    /// A row for each two pods
    Pod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReachOutput {
    /// A table, and what no row can say
    Text,
    /// For programs
    Json,
    /// For programs
    Yaml,
    /// A line for each protocol of a row
    Csv,
    /// For Graphviz
    Dot,
    /// For Markdown
    Mermaid,
    /// A truth table: . something may be opened, X nothing
    Matrix,
}
