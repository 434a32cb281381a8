//! The words of `replay`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Hold recorded flows against policies.
///
/// Every flow of the log is asked about, with the pods that held its addresses then: what passed and would be denied is
/// told with the owner of each side that denies and the rule that is missing; so is what was denied and would pass. Then
/// come the edges that the policies allow and nobody used, ranked by what they would give an attacker.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) manifests: super::Manifests,
    /// The folder of the flow log
    #[arg(long, value_name = "DIR")]
    pub(crate) log: PathBuf,
    /// So many edges that were never seen are listed, the worst first (JSON has all of them)
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = ReplayOutput::Text)]
    pub(crate) output: ReplayOutput,
    /// End with exit status 1 when there is such a flow or edge; several with commas. A flow that nobody ever answered
    /// is not in use, and does not count as newly denied
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) fail_on: Vec<FailOnFlow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayOutput {
    /// For people
    Text,
    /// For programs
    Json,
    /// For a pull request
    Markdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOnFlow {
    /// Flows that passed and would be denied
    NewlyDenied,
    /// Flows that were denied and would pass
    NewlyAllowed,
    /// Edges that are allowed and were never seen
    NeverSeen,
}
