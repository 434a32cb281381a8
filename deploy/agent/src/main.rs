//! The node daemon of a real cluster: what a DaemonSet runs. It enforces on its node what the API server has, and goes
//! on with what it had while that is away.
//!
//! A program of its own, without the query engine and the captures of the `podfence` command, so that the image on every
//! node is small and holds nothing else.
#![forbid(unsafe_code)]

mod watched;

use clap::Parser;
use daemon::Words;
use std::{path::PathBuf, process::ExitCode};
use watched::Watched;

/// Enforces a cluster's NetworkPolicies on this node.
///
/// Lists and watches pods, namespaces, nodes, Services, EndpointSlices, workloads and NetworkPolicies, binds this node's
/// veths to its pods, and judges every packet that crosses them by these policies. While the API server is away, what
/// was enforced stays in force.
///
/// What is done about a denial is the mode, a label `podfence.dev/mode: learn | audit | enforce` on a namespace or, only
/// to strengthen it, on a workload.
///
/// It runs until SIGTERM. Needs BPF, NET_ADMIN and PERFMON, and the node's network namespace.
#[derive(Debug, Parser)]
#[command(name = "podfence-agent", version)]
struct Typed {
    /// This node's name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: Option<String>,
    /// Which API server [default: $KUBECONFIG, ~/.kube/config, or in a pod its service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    words: Words,
}

fn main() -> ExitCode {
    let typed = Typed::parse();
    daemon::say_on_standard_error();
    match run(typed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            daemon::say_error(&*why);
            ExitCode::FAILURE
        }
    }
}

fn run(typed: Typed) -> Result<(), Box<dyn std::error::Error>> {
    let stop = daemon::stop_flag()?;
    let node = typed.node.unwrap_or_else(daemon::this_machine);
    let options = reflector::Options { kubeconfig: typed.kubeconfig, context: typed.context };
    let mut source = Watched::start(options, &node)?;
    Ok(daemon::run(&typed.words, &node, &mut source, &stop)?)
}
