//! The words of `status`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Say how enforcement stands on this node.
///
/// Asks the agent (`podfence enforce`) over its socket: which pods are covered in which mode, which are not and why, how
/// full the kernel's tables are, what became of packets, what was lost, and whether the loaded tables still say what the
/// policies mean.
///
/// The exit status is 0 when all is well, 1 when something is not as it should be (each a line on standard error), 2 when
/// no agent answers.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The agent's socket
    #[arg(long, value_name = "FILE", default_value = crate::socket::DEFAULT)]
    pub(crate) socket: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Table)]
    pub(crate) output: StatusOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusOutput {
    /// The agent, its pods, and what became of packets
    Table,
    /// The same with slots, generations, epochs, connections and every table
    Wide,
    /// For programs, as the agent says it
    Json,
}
