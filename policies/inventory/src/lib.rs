//! Fills the view of who owned an address when, from files: what `--cluster` names.
//!
//! Always holds: memory is bounded by [`MAX_BYTES`] whatever the files are; the same files give the
//! same cluster, in whatever order a folder lists them.
#![forbid(unsafe_code)]

use model::{
    cluster::Cluster,
    policy::PolicySet,
    yaml::{self, ReadError},
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// All files of one call together may have this many bytes: about 50,000 pods as `kubectl get -o json`
/// prints them.
pub const MAX_BYTES: u64 = 512 << 20;
/// Folders below folders; deeper is a loop or a mistake.
const MAX_DEPTH: usize = 32;
/// The endings of files that a folder is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// The path that means standard input.
const STDIN: &str = "-";

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

/// Reads files, folders (recursively, without hidden ones) and standard input (`-`) into one cluster. No path gives an
/// empty cluster.
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Cluster, Error> {
    let mut cluster = Cluster::default();
    for_each_file(paths, |file, text| yaml::read_into(&mut cluster, file, text))?;
    Ok(cluster)
}

/// Reads the NetworkPolicies of files, folders and standard input, and nothing else.
pub fn read_policies<P: AsRef<Path>>(paths: &[P]) -> Result<PolicySet, Error> {
    let mut cluster = Cluster::default();
    for_each_file(paths, |file, text| yaml::read_policies_into(&mut cluster.policies, file, text))?;
    Ok(cluster.policies)
}

fn for_each_file<P: AsRef<Path>>(
    paths: &[P],
    mut read: impl FnMut(&str, &str) -> Result<(), ReadError>,
) -> Result<(), Error> {
    let mut left = MAX_BYTES;
    for path in paths.iter().map(AsRef::as_ref) {
        for file in files(path)? {
            let name = file.display().to_string();
            let text = text(&file, &name, &mut left)?;
            read(&name, &text)?;
        }
    }
    Ok(())
}

/// The files a path means: itself, or those of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if path == Path::new(STDIN) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    collect(path, MAX_DEPTH, &mut found)?;
    if found.is_empty() {
        return Err(Error::Empty { path: path.display().to_string() });
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, depth_left: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let named = |source| Error::Io { path: folder.display().to_string(), source };
    if depth_left == 0 {
        return Err(Error::TooDeep { path: folder.display().to_string(), limit: MAX_DEPTH });
    }
    for entry in std::fs::read_dir(folder).map_err(named)? {
        let entry = entry.map_err(named)?;
        // `.git`, and the `..data` of a mounted ConfigMap, which would be read twice.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            collect(&path, depth_left - 1, found)?;
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// The text of one file, if it does not go beyond what is `left` to be read.
fn text(path: &Path, name: &str, left: &mut u64) -> Result<String, Error> {
    let failed = |source| Error::Io { path: name.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that ends there from one that goes on.
    let limit = left.saturating_add(1);
    if path == Path::new(STDIN) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    let read = bytes.len() as u64;
    *left = left.checked_sub(read).ok_or_else(|| Error::TooLarge { path: name.to_owned(), limit: MAX_BYTES >> 20 })?;
    String::from_utf8(bytes)
        .map_err(|error| Error::NotText { path: name.to_owned(), at: error.utf8_error().valid_up_to() })
}

#[cfg(test)]
mod tests;
