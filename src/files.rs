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

/// Replaces a folder by these files (path below it to contents), at once: a reader sees the old folder or the new one.
/// A folder that holds anything `is_ours` (path, contents) does not know is left as it is.
pub(crate) fn replace_folder(
    folder: &Path,
    files: &BTreeMap<String, String>,
    is_ours: &dyn Fn(&str, &[u8]) -> bool,
) -> Result<(), Failure> {
    // Through a link to the folder itself, as the link is the user's.
    let folder = &folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let refuse = |e| failed("write into", folder, e);
    if let Some(foreign) = foreign_file(folder, folder, is_ours).map_err(refuse)? {
        return Err(Failure::new(
            format!("{} holds {}, which an earlier run did not write", folder.display(), foreign.display()),
            "choose an empty or new folder, or move it away",
        ));
    }
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

/// The first file below a folder that is not ours.
fn foreign_file(folder: &Path, root: &Path, is_ours: &dyn Fn(&str, &[u8]) -> bool) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() {
            if let Some(foreign) = foreign_file(&path, root, is_ours)? {
                return Ok(Some(foreign));
            }
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path);
        if !path.symlink_metadata()?.is_file() || !is_ours(&name.to_string_lossy(), &fs::read(&path)?) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
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
