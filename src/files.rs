//! Files the command writes: beside, synced, renamed, so that nobody finds one half-written.

use crate::ending::Failure;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Makes a folder and those above it.
pub(crate) fn make_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|e| failed("make the folder", folder, e))
}

/// Writes a file whole, in place of any that is there.
pub(crate) fn replace(file: &Path, contents: &[u8]) -> Result<(), Failure> {
    write_beside(file, contents).map_err(|e| failed("write", file, e))
}

fn write_beside(file: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new().prefix(".podfence-").tempfile_in(folder)?;
    beside.write_all(contents)?;
    beside.as_file().sync_all()?;
    // A temporary file is its maker's alone; what is written here is meant to be read by others.
    beside.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    beside.persist(file).map_err(|e| e.error)?;
    Ok(())
}

/// What became of a folder's files, by their paths below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) added: Vec<String>,
    pub(crate) changed: Vec<String>,
    pub(crate) removed: Vec<String>,
    pub(crate) unchanged: usize,
    /// Files of others, left as they are.
    pub(crate) kept: usize,
}

impl Replaced {
    /// Whether files of ours were there before.
    pub(crate) fn had_files(&self) -> bool {
        !self.changed.is_empty() || !self.removed.is_empty() || self.unchanged > 0
    }
}

/// Makes these files (path below a folder to contents) the only ones of ours in it: adds, updates, and removes those
/// that `is_ours` (path, contents) knows and that are not among them. Files of others stay; one where ours would go
/// is an error. A folder that is all ours is replaced at once: a reader sees the old one or the new one. Else each
/// file is replaced whole, one after the other.
pub(crate) fn replace_folder(
    folder: &Path,
    files: &BTreeMap<String, String>,
    is_ours: &dyn Fn(&str, &[u8]) -> bool,
) -> Result<Replaced, Failure> {
    // Through a link to the folder itself, as the link is the user's.
    let folder = &folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let standing = standing(folder, is_ours, files)?;
    for (path, _) in standing.iter().filter(|(_, one)| **one == Standing::OfOthers) {
        let name = path.to_string_lossy();
        let below = |file: &String| Path::new(file).starts_with(path) || path.starts_with(file);
        if let Some(file) = files.keys().find(|file| **file == name || below(file)) {
            return Err(Failure::new(
                format!(
                    "{} holds {name}, which an earlier run did not write and which {file} would replace",
                    folder.display()
                ),
                "move it away, or choose another folder",
            ));
        }
    }
    let mut done = Replaced::default();
    for path in files.keys() {
        match standing.get(Path::new(path)) {
            Some(Standing::Same) => done.unchanged += 1,
            Some(_) => done.changed.push(path.clone()),
            None => done.added.push(path.clone()),
        }
    }
    let is_gone = |path: &Path| !files.contains_key(&*path.to_string_lossy());
    let gone = standing.iter().filter(|(path, one)| **one != Standing::OfOthers && is_gone(path));
    done.removed = gone.map(|(path, _)| path.to_string_lossy().into_owned()).collect();
    done.kept = standing.values().filter(|one| **one == Standing::OfOthers).count();
    match done.kept {
        0 => swap_in(folder, files)?,
        _ => write_into(folder, files, &done)?,
    }
    Ok(done)
}

/// Replaces a folder that has no file of others.
fn swap_in(folder: &Path, files: &BTreeMap<String, String>) -> Result<(), Failure> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(above)?;
    let beside = tempfile::Builder::new()
        .prefix(".podfence-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(above)
        .map_err(|e| failed("make a folder beside", folder, e))?;
    for (path, contents) in files {
        let file = beside.path().join(path);
        make_folder(file.parent().unwrap_or(beside.path()))?;
        replace(&file, contents.as_bytes())?;
    }
    swap(beside.path(), folder).map_err(|e| failed("put the new files at", folder, e))?;
    // What stands beside now is the old folder, if there was one.
    match beside.path().exists() {
        true => beside.close().map_err(|e| failed("remove the old files of", folder, e)),
        false => {
            drop(beside.keep());
            Ok(())
        }
    }
}

/// Writes what is new, then removes what is not ours any more and the folders that this empties.
fn write_into(folder: &Path, files: &BTreeMap<String, String>, done: &Replaced) -> Result<(), Failure> {
    for path in done.added.iter().chain(&done.changed) {
        let file = folder.join(path);
        make_folder(file.parent().unwrap_or(folder))?;
        replace(&file, files[path].as_bytes())?;
    }
    for path in &done.removed {
        let file = folder.join(path);
        fs::remove_file(&file).map_err(|e| failed("remove", &file, e))?;
        // A folder that holds anything else stays.
        let within = file.ancestors().skip(1).take_while(|above| *above != folder);
        within.take_while(|above| fs::remove_dir(above).is_ok()).for_each(drop);
    }
    Ok(())
}

/// Puts `new` at `name`; what was there stands at `new` afterwards.
fn swap(new: &Path, name: &Path) -> io::Result<()> {
    if !name.exists() {
        return fs::rename(new, name);
    }
    let exchanged = nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        new,
        nix::fcntl::AT_FDCWD,
        name,
        nix::fcntl::RenameFlags::RENAME_EXCHANGE,
    );
    exchanged.map_err(io::Error::from)
}

/// What a path below a folder is that is no folder itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    OfOthers,
    /// Ours, and as it is to be.
    Same,
    /// Ours, and to be changed or removed.
    Other,
}

/// The files in a folder that are not ours, by their paths below it.
pub(crate) fn of_others(folder: &Path, is_ours: &dyn Fn(&str, &[u8]) -> bool) -> Result<Vec<PathBuf>, Failure> {
    let all = standing(folder, is_ours, &BTreeMap::new())?.into_iter();
    Ok(all.filter(|(_, one)| *one == Standing::OfOthers).map(|(path, _)| path).collect())
}

/// What stands in a folder, beside the files that are to be there. One is read at a time: they may be large.
fn standing(
    folder: &Path,
    is_ours: &dyn Fn(&str, &[u8]) -> bool,
    files: &BTreeMap<String, String>,
) -> Result<BTreeMap<PathBuf, Standing>, Failure> {
    let (mut all, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(here) = folders.pop() {
        let refuse = |e| failed("read", &here, e);
        let entries = match fs::read_dir(&here) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && here == folder => return Ok(all),
            entries => entries.map_err(refuse)?,
        };
        for entry in entries {
            let path = entry.map_err(refuse)?.path();
            let kind = path.symlink_metadata().map_err(refuse)?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap_or(&path).to_owned();
            let contents = if kind.is_file() { Some(fs::read(&path).map_err(refuse)?) } else { None };
            let ours = contents.filter(|contents| is_ours(&name.to_string_lossy(), contents));
            let one = match (ours, files.get(&*name.to_string_lossy())) {
                (None, _) => Standing::OfOthers,
                (Some(ours), Some(text)) if ours == text.as_bytes() => Standing::Same,
                (Some(_), _) => Standing::Other,
            };
            all.insert(name, one);
        }
    }
    Ok(all)
}

fn failed(doing: &str, path: &Path, why: io::Error) -> Failure {
    let hint = match why.kind() {
        io::ErrorKind::PermissionDenied => "check its owner and mode, or choose another place",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space, or choose another place",
        io::ErrorKind::NotFound => "make the folder it is in, or choose another place",
        _ => "choose another place",
    };
    Failure::of(format!("cannot {doing} {}", path.display()), why).hint(hint)
}
