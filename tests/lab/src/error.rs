//! What can go wrong in a lab: where, why, and what to try.

use std::{io, path::PathBuf, time::Duration};

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the scenario says something that cannot be played.
    #[error("{file}:{line}: {field}: {message}")]
    Scenario {
        /// As the user named it.
        file: String,
        /// One-based, 0 when it is about the whole file.
        line: u64,
        /// The field, for example `calls[3].to`.
        field: String,
        /// What is wrong, and what to try.
        message: String,
    },
    /// cluster.yaml is not what it should be.
    #[error(transparent)]
    Cluster(#[from] model::yaml::ReadError),
    /// A file could not be read or written.
    #[error("{}: {action}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The machine lacks something.
    #[error("{what} is not there; {remedy}")]
    Lacking {
        /// A right or a program.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// A program that the lab ran failed.
    #[error("`{program}` failed: {output}; input:\n{input}")]
    Command {
        /// With its arguments.
        program: String,
        /// What it was told on standard input.
        input: String,
        /// Its standard error.
        output: String,
    },
    /// The kernel refused something.
    #[error("{what}")]
    Kernel {
        /// What was asked of it.
        what: String,
        /// Its answer.
        source: nix::Error,
    },
    /// A pod's process did not come up.
    #[error("pod {pod} did not come up within {within:?}: {why}")]
    Pod {
        /// Namespace and name.
        pod: String,
        /// How long it had.
        within: Duration,
        /// The end of its log, or what was seen of it.
        why: String,
    },
    /// A pod's process no longer obeys.
    #[error("pod {pod} cannot be told to {order}")]
    Control {
        /// Namespace and name.
        pod: String,
        /// What it was told.
        order: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Not a name for a lab.
    #[error("`{name}` is no name for a lab; use lower-case letters, digits and `-`, at most 40")]
    Name {
        /// What was given.
        name: String,
    },
    /// A lab of this name is there already.
    #[error("a lab named {name} is up; `podfence lab down {name}` ends it")]
    Busy {
        /// Its name.
        name: String,
    },
    /// No lab of this name is there.
    #[error("no lab named {name} is up; `podfence lab up` starts one")]
    NotUp {
        /// Its name.
        name: String,
    },
    /// The state that a lab left cannot be read.
    #[error("{}: not a lab's state ({message}); remove the folder once its namespaces are gone", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Ctrl-C, or another request to stop.
    #[error("stopped on request")]
    Interrupted,
}

impl Error {
    pub(crate) fn scenario(file: &str, line: u64, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Scenario { file: file.to_owned(), line, field: field.into(), message: message.into() }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, action, source }
    }

    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }
}
