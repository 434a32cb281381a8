//! What was typed. These types hold words and their help; what they mean is each verb's own business.

mod detach;
mod diff;
mod enforce;
mod flows;
mod lab;
mod learning;
mod lint;
mod manifests;
mod reach;
mod replay;
mod selftest;
mod status;
mod why;

pub(crate) use detach::Detach;
pub(crate) use diff::{Diff, DiffOutput, FailOnRow};
pub(crate) use enforce::Enforce;
pub(crate) use flows::{Flows, FlowsOutput};
pub(crate) use lab::{Demo, Lab, LabDown, LabRun, LabUp, LabVerb};
pub(crate) use learning::{Generate, Graph, GraphOutput, Learned, Ledger, NodeCallers, Observe, PeerNames};
pub(crate) use lint::{FailOnFinding, Lint, LintOutput};
pub(crate) use manifests::{Manifests, Reading};
pub(crate) use reach::{Reach, ReachBy, ReachOutput};
pub(crate) use replay::{FailOnFlow, Replay, ReplayOutput};
pub(crate) use selftest::{Selftest, SelftestOutput};
pub(crate) use status::{Status, StatusOutput};
pub(crate) use why::{FailOnVerdict, Why, WhyOutput};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Learns which pods talk to which, writes the least-privilege NetworkPolicies that allow just that, and enforces
/// them in the kernel.
///
/// The way through: `observe` turns packets into a flow log, `graph` shows who talks to whom, `generate` writes
/// policies with the evidence behind every rule, `reach`, `diff`, `why`, `replay` and `lint` say what policies come to,
/// `enforce` holds this node to them, `flows` answers questions about the log. `demo` tells the whole story on this
/// machine.
#[derive(Debug, Parser)]
#[command(name = "podfence", version, propagate_version = true, disable_help_subcommand = true)]
#[command(
    after_help = "Exit status: 0 done and nothing to report; 1 something to report; 2 no answer, the error says \
                        what, why and what to try.\n`podfence VERB --help` says more about a verb."
)]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Demo(Demo),
    Lab(Lab),
    Observe(Observe),
    Graph(Graph),
    Generate(Generate),
    Ledger(Ledger),
    Flows(Box<Flows>),
    Reach(Reach),
    Diff(Diff),
    Why(Why),
    Replay(Replay),
    Lint(Lint),
    Enforce(Box<Enforce>),
    Status(Status),
    Detach(Detach),
    Selftest(Selftest),
    Completion(Completion),
    Man(Man),
}

/// Print the completion script of a shell.
///
/// For bash: `podfence completion bash > /etc/bash_completion.d/podfence`.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell to complete in
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual, or write one page a verb.
///
/// Without `--out` the page of `podfence` itself goes to standard output: `podfence man | man -l -`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write podfence.1, podfence-observe.1 and so on into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
