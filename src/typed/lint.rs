//! The words of `lint`.

use clap::{Args, ValueEnum};
use review::{lint::Kind, sarif::Level};
use std::path::PathBuf;

/// Find what in policies does not do what it looks like.
///
/// Selectors and peers that match nothing, ports that nobody serves, rules that can go without any verdict changing
/// (proven, not guessed) or that the other end refuses, isolation without DNS, workloads in no policy, and more:
/// `--list` prints every kind. With a flow log, also what nobody used.
///
/// A comment in the YAML suppresses a finding, on the line of the rule or policy or above it, with a reason:
/// `# podfence: ignore PF009 kept for the migration`.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    #[command(flatten)]
    pub(crate) manifests: super::Manifests,
    /// The folder of a flow log: also tell rules, peers and ports that no recorded flow used
    #[arg(long, value_name = "DIR")]
    pub(crate) log: Option<PathBuf>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = LintOutput::Text)]
    pub(crate) output: LintOutput,
    /// End with exit status 1 when there are findings of this severity or worse (error, warning, note), or of this
    /// code; several with commas
    #[arg(long, value_name = "SEVERITY|CODE", value_delimiter = ',', default_value = "error", value_parser = fail_on)]
    pub(crate) fail_on: Vec<FailOnFinding>,
    /// Print every kind of finding with its code, severity, reason and remedy
    #[arg(long, exclusive = true)]
    pub(crate) list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LintOutput {
    /// As compilers print it
    Text,
    /// For programs
    Json,
    /// For code scanning (SARIF 2.1.0)
    Sarif,
}

/// What makes `lint` end with status 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailOnFinding {
    /// Findings as severe as this, or worse.
    Severity(Level),
    /// Findings of this kind.
    Kind(&'static Kind),
}

fn fail_on(word: &str) -> Result<FailOnFinding, String> {
    match word {
        "error" => Ok(FailOnFinding::Severity(Level::Error)),
        "warning" => Ok(FailOnFinding::Severity(Level::Warning)),
        "note" => Ok(FailOnFinding::Severity(Level::Note)),
        code => Kind::of(code)
            .map(FailOnFinding::Kind)
            .ok_or_else(|| "neither error, warning, note nor a code that `podfence lint --list` prints".to_owned()),
    }
}
