//! What can be wrong with an input, one thing or many.

use model::yaml::ReadError;
use std::{fmt, io};

/// So many errors are kept; the others are counted.
pub(crate) const MAX_ERRORS: usize = 1000;

/// Why a cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path cannot be opened or read.
    #[error("{path}: cannot be read; give a file, a folder of .yaml, .yml or .json files, or - for standard input")]
    Io {
        /// As the user named it.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The input is larger than is read.
    #[error(
        "{path}: more than {limit} MiB in all; leave out what is not needed, as `kubectl get -o json` without managedFields does"
    )]
    TooLarge {
        /// The file at which the limit was passed.
        path: String,
        /// The limit in MiB.
        limit: u64,
    },
    /// A file that is no text.
    #[error("{path}: not UTF-8 at byte {at}; give YAML or JSON text")]
    NotText {
        /// The file.
        path: String,
        /// How many bytes before it are text.
        at: usize,
    },
    /// A folder without a file that would be read.
    #[error("{path}: no .yaml, .yml or .json file in this folder or below; give the files by name")]
    Empty {
        /// The folder.
        path: String,
    },
    /// Folders nested beyond any use.
    #[error("{path}: more than {limit} folders deep; give the folder that holds the files")]
    TooDeep {
        /// The folder.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// What a file says is wrong.
    #[error(transparent)]
    Document(#[from] ReadError),
}

/// All that is wrong with an input, in its order: one thing at least, a thousand at most, and how many more there
/// are.
#[derive(Debug)]
pub struct Errors {
    first: Error,
    others: Vec<Error>,
    more: usize,
}

impl Errors {
    pub(crate) fn add(errors: &mut Option<Self>, error: Error) {
        match errors {
            None => *errors = Some(Self { first: error, others: Vec::new(), more: 0 }),
            Some(errors) if errors.others.len() + 1 < MAX_ERRORS => errors.others.push(error),
            Some(errors) => errors.more = errors.more.saturating_add(1),
        }
    }

    /// The first.
    pub fn into_first(self) -> Error {
        self.first
    }

    /// Those that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Error> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// How many there are beyond those kept.
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for Errors {
    /// A line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.others.iter().try_for_each(|error| write!(f, "\n{error}"))?;
        if self.more > 0 { write!(f, "\nand {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for Errors {}
