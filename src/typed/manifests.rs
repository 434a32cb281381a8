//! What every review command reads.

use clap::Args;
use std::path::PathBuf;

/// Objects and policies to review, as they were typed.
#[derive(Debug, Args)]
pub(crate) struct Manifests {
    /// Manifests with NetworkPolicies: files, folders (all .yaml, .yml and .json below), - for standard input. Needed
    /// unless --cluster holds them
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

/// How objects are read, and what stands behind them.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// The cluster's objects, as `kubectl get ns,pods,deployments,... -A -o json` prints them: what the manifests do
    /// not hold comes from here, policies only if the manifests hold none. May be given more than once
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster: Vec<PathBuf>,
    /// Read on after an error, and tell all of them
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Say also what was passed over
    #[arg(short, long)]
    pub(crate) verbose: bool,
}
