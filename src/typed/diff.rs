//! The words of `diff`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Say what opens and what closes from OLD to NEW, and because of what.
///
/// OLD and NEW are files, folders or - for standard input, or git:REV[:PATH]: the files of a revision of the git
/// repository here, PATH counted from its root. Each answer names who may open what to whom, and the policy, rule, file
/// and line that changed; or the label, namespace, container port, address or workload, where no policy did. What opens
/// to labels that no pod or namespace has today is told too: tomorrow's namespace walks through it.
///
/// With --log, what closes although it was used is told by whom, when last and how often; and what opens although
/// nobody ever used it.
#[derive(Debug, Args)]
#[command(after_help = "For example: podfence diff git:main:deploy deploy --cluster cluster.json \
                        --fail-on closed-used,nobody-yet")]
pub(crate) struct Diff {
    /// What was
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// What is to be
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    #[command(flatten)]
    pub(crate) reading: super::Reading,
    /// The folder of a flow log
    #[arg(long, value_name = "DIR")]
    pub(crate) log: Option<PathBuf>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = DiffOutput::Text)]
    pub(crate) output: DiffOutput,
    /// End with exit status 1 when there is such a row; several with commas
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub(crate) fail_on: Vec<FailOnRow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffOutput {
    /// For people
    Text,
    /// A row a connection, for programs
    Json,
    /// The same as YAML
    Yaml,
    /// A comment on a pull request
    Markdown,
    /// For code scanning
    Sarif,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOnRow {
    /// Anything that opens
    Opened,
    /// Anything that closes
    Closed,
    /// What opens to or from addresses outside
    OpenedOutside,
    /// What opens to or for labels that no pod or namespace has today
    NobodyYet,
    /// What closes although the log shows it used
    ClosedUsed,
    /// What opens although the log shows nobody who would use it
    OpenedUnused,
}
