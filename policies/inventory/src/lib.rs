//! Fills the view of who owned an address when, from files: what `--cluster` names.
//!
//! Always holds: memory is bounded by [`MAX_BYTES`] whatever the files are; the same files give the
//! same cluster, in whatever order a folder lists them.
#![forbid(unsafe_code)]

mod errors;

pub use errors::{Error, Errors};
pub use model::yaml::Wanted;

use model::{cluster::Cluster, policy::PolicySet, yaml::Reader};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
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

/// What is read, and how far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which objects.
    pub wanted: Wanted,
    /// Whether to read on after an error, with the next object, document or file, so that all of them are told.
    pub keep_going: bool,
}

/// Reads files, folders (recursively, without hidden ones) and standard input (`-`) into one cluster, up to the first
/// error. No path gives an empty cluster.
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Cluster, Error> {
    read_as(paths, Options::default()).map_err(Errors::into_first)
}

/// Reads the NetworkPolicies of files, folders and standard input, and nothing else.
pub fn read_policies<P: AsRef<Path>>(paths: &[P]) -> Result<PolicySet, Error> {
    let options = Options { wanted: Wanted::Policies, ..Options::default() };
    read_as(paths, options).map(|cluster| cluster.policies).map_err(Errors::into_first)
}

/// Reads files, folders and standard input as the options say.
pub fn read_as<P: AsRef<Path>>(paths: &[P], options: Options) -> Result<Cluster, Errors> {
    let mut left = MAX_BYTES;
    reading(options, |reader, found| {
        paths.iter().try_for_each(|path| read_path(path.as_ref(), &mut left, reader, found))
    })
}

/// Reads files that lie elsewhere than in the file system, each by its name and contents, as the options say.
pub fn read_texts(files: impl IntoIterator<Item = (String, Vec<u8>)>, options: Options) -> Result<Cluster, Errors> {
    let mut left = MAX_BYTES;
    reading(options, |reader, found| {
        files.into_iter().try_for_each(|(name, bytes)| match within(bytes, &name, &mut left) {
            Ok(text) => reader.read(&name, &text, &mut |error| found(error.into())),
            Err(error) => found(error),
        })
    })
}

/// Whether a folder is searched for a file of this path below it: one of YAML or JSON by its ending, nowhere hidden.
pub fn is_searched(path: &Path) -> bool {
    !path.iter().any(is_hidden) && has_ending(path)
}

type Found<'f> = &'f mut dyn FnMut(Error) -> ControlFlow<()>;

fn reading(options: Options, read: impl FnOnce(&mut Reader, Found<'_>) -> ControlFlow<()>) -> Result<Cluster, Errors> {
    let (mut reader, mut errors) = (Reader::new(options.wanted), None);
    let mut found = |error: Error| {
        let goes_on = options.keep_going && !matches!(error, Error::TooLarge { .. });
        Errors::add(&mut errors, error);
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let _ = read(&mut reader, &mut found);
    match errors {
        Some(errors) => Err(errors),
        None => Ok(reader.finish()),
    }
}

fn read_path(path: &Path, left: &mut u64, reader: &mut Reader, found: Found<'_>) -> ControlFlow<()> {
    let files = match files(path) {
        Ok(files) => files,
        Err(error) => return found(error),
    };
    files.iter().try_for_each(|file| {
        let name = file.display().to_string();
        match text(file, &name, left) {
            Ok(text) => reader.read(&name, &text, &mut |error| found(error.into())),
            Err(error) => found(error),
        }
    })
}

/// The files a path means: itself, or those of a folder (recursively, without hidden ones) in the order of their names.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
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
        if is_hidden(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            collect(&path, depth_left - 1, found)?;
        } else if has_ending(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// `.git`, and the `..data` of a mounted ConfigMap, which would be read twice.
fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn has_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
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
    within(bytes, name, left)
}

fn within(bytes: Vec<u8>, name: &str, left: &mut u64) -> Result<String, Error> {
    let read = bytes.len() as u64;
    *left = left.checked_sub(read).ok_or_else(|| Error::TooLarge { path: name.to_owned(), limit: MAX_BYTES >> 20 })?;
    String::from_utf8(bytes)
        .map_err(|error| Error::NotText { path: name.to_owned(), at: error.utf8_error().valid_up_to() })
}

#[cfg(test)]
mod tests;
