//! What can go wrong with a flow log, each with what to try.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

/// Why a log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, a quota or a size limit is exhausted.
    #[error(
        "no room for the flow log at {}; {lost} rows are lost so far (they become a gap row once there is room) \
         and what was written before is kept; free some space, or keep less", path.display()
    )]
    Full {
        /// What was being written.
        path: PathBuf,
        /// Rows lost since the last one that was kept.
        lost: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file or folder of the log could not be written.
    #[error("cannot {doing} {}; {hint}", path.display())]
    Write {
        /// What was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What to try.
        hint: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing to read.
    #[error("cannot read a flow log at {}; give the folder that `podfence observe --log` wrote", path.display())]
    NoLog {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Arrow or Parquet refused to encode what was observed; a fault of the program.
    #[error("cannot encode rows for {}: {why}; please report this with the command that led here", path.display())]
    Encode {
        /// For which file.
        path: PathBuf,
        /// What the library said.
        why: String,
    },
}

impl Error {
    pub(crate) fn write(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_full(&source) {
            return Self::Full { path, lost: 0, source };
        }
        let hint = match source.kind() {
            io::ErrorKind::PermissionDenied => "check its owner and mode, or choose another folder",
            io::ErrorKind::ReadOnlyFilesystem => "choose a folder on a writable file system",
            _ => "check that the folder is there, is a folder and can be written",
        };
        Self::Write { doing, path, hint, source }
    }

    /// The same error, saying how many rows are lost.
    pub(crate) fn with_lost(self, lost: u64) -> Self {
        match self {
            Self::Full { path, source, .. } => Self::Full { path, lost, source },
            other => other,
        }
    }

    /// The stable name of the gap that rows lost to this error make.
    pub(crate) fn gap_reason(&self) -> &'static str {
        match self {
            Self::Full { .. } => "log-full",
            Self::Write { .. } | Self::NoLog { .. } | Self::Encode { .. } => "log-unwritable",
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// A file of the log that could not be read, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

/// Decoding a file that may be damaged: the libraries return an error for most damage
/// and panic on some.
pub(crate) fn surviving<T, E: fmt::Display>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|e| e.to_string()),
        Err(_) => Err("it cannot be decoded: the library gave up in the middle of it".into()),
    }
}
