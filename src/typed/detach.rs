//! The words of `detach`.

use clap::Args;
use std::path::PathBuf;

/// Take enforcement away from this node, on purpose.
///
/// `podfence enforce --bpffs DIR` leaves what it enforces in place when it ends. This takes the program out of every hook,
/// removes the pins and with them every table, and says what it did. End the agent first: a running one puts its hooks
/// back. Afterwards nothing is judged on this node.
#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// The folder that `enforce` was given
    #[arg(long, value_name = "DIR")]
    pub(crate) bpffs: PathBuf,
    /// The node's network namespace [default: this one]
    #[arg(long, value_name = "FILE")]
    pub(crate) netns: Option<PathBuf>,
    /// Say what would be taken away, and take nothing away
    #[arg(long)]
    pub(crate) dry_run: bool,
}
