//! Why a class could not be tried.

use std::io;

/// What stands in the way of an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces and links.
    #[error(transparent)]
    Lab(#[from] lab::Error),
    /// The agent on the range.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// The agent's log.
    #[error("the log of the range cannot be opened; the folder for temporary files must be writable")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system refused something on the range.
    #[error("{what}; it needs root, and a kernel with packet sockets and veths")]
    System {
        /// What was asked of it.
        what: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The range is not what a class needs.
    #[error("{what}")]
    Range {
        /// What; why; what to try.
        what: String,
    },
    /// No class of this name.
    #[error("no class is called {name}; `podfence selftest --list` prints all")]
    NoSuchClass {
        /// What was asked for.
        name: String,
    },
    /// Ctrl-C, or another request to stop.
    #[error("stopped on request")]
    Interrupted,
}

impl Error {
    pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: source.into() }
    }

    pub(crate) fn range(what: impl Into<String>) -> Self {
        Self::Range { what: what.into() }
    }
}

/// Why a class ended before its last shot.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It could not be tried.
    Error(Error),
    /// What it is about is not there; says what.
    NotRun(String),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}
