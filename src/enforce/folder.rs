//! The manifests that are enforced, and whether they have changed.
//!
//! Always holds: a change is read only after it stood still for one look, and is thrown away if a file changed while it
//! was read, so that no half-written folder becomes policy. Files are told apart by name, inode, size and time.

use crate::ending::Failure;
use model::cluster::Cluster;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What is seen of the files without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Files(Vec<(PathBuf, Option<Mark>)>),
    /// The folder itself cannot be listed, or holds no file.
    Nothing(String),
}

/// Inode, size, seconds and nanoseconds of the last change.
type Mark = (u64, u64, i64, i64);

/// The watched path.
pub(crate) struct Folder {
    path: PathBuf,
    read: Option<Seen>,
    before: Option<Seen>,
}

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: None, before: None }
    }

    /// The objects as they are now, whether or not they changed.
    pub(crate) fn read(&mut self) -> Result<Cluster, Failure> {
        let seen = self.look();
        let cluster = inventory::read(&[&self.path]).map_err(|why| Failure::whole(&why));
        self.read = Some(seen);
        cluster
    }

    /// The objects, if the files have changed since they were read, and stand still.
    pub(crate) fn changed(&mut self) -> Option<Result<Cluster, Failure>> {
        let seen = self.look();
        let stands_still = self.before.replace(seen.clone()).as_ref() == Some(&seen);
        if self.read.as_ref() == Some(&seen) || !stands_still {
            return None;
        }
        let cluster = self.read();
        // What changed meanwhile is read at a later look.
        (self.look() == seen).then_some(cluster)
    }

    fn look(&self) -> Seen {
        match inventory::files(&self.path) {
            Ok(files) => Seen::Files(files.into_iter().map(|file| (mark(&file), file)).map(|(m, f)| (f, m)).collect()),
            Err(why) => Seen::Nothing(why.to_string()),
        }
    }
}

fn mark(file: &Path) -> Option<Mark> {
    let about = fs::metadata(file).ok()?;
    Some((about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = "kind: Namespace\napiVersion: v1\nmetadata: {name: NAME}\n";

    fn names(answer: Option<Result<Cluster, Failure>>) -> Vec<String> {
        answer.expect("a change").expect("readable").namespaces.into_keys().collect()
    }

    #[test]
    fn a_change_is_read_once_it_stands_still_and_only_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        fs::write(&file, NAMESPACE.replace("NAME", "one")).expect("written");
        let mut watched = Folder::new(folder.path());
        assert_eq!(watched.read().expect("readable").namespaces.len(), 1);
        assert!(watched.changed().is_none() && watched.changed().is_none());
        fs::write(&file, NAMESPACE.replace("NAME", "another")).expect("written");
        assert!(watched.changed().is_none(), "it may still be written");
        assert_eq!(names(watched.changed()), ["another"]);
        assert!(watched.changed().is_none());
        fs::write(folder.path().join("b.yaml"), NAMESPACE.replace("NAME", "more")).expect("written");
        assert!(watched.changed().is_none());
        assert_eq!(names(watched.changed()), ["another", "more"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_once_until_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        fs::write(&file, NAMESPACE.replace("NAME", "one")).expect("written");
        let mut watched = Folder::new(folder.path());
        watched.read().expect("readable");
        fs::write(&file, "kind: [\n").expect("written");
        assert!(watched.changed().is_none());
        let why = watched.changed().expect("a change").expect_err("not readable").to_string();
        assert!(why.contains("a.yaml:1"), "{why}");
        assert!(watched.changed().is_none());
        fs::remove_file(&file).expect("removed");
        assert!(watched.changed().is_none());
        assert!(watched.changed().expect("a change").is_err(), "an empty folder is not a cluster without policies");
        fs::write(&file, NAMESPACE.replace("NAME", "one")).expect("written");
        assert!(watched.changed().is_none());
        assert_eq!(names(watched.changed()), ["one"]);
    }
}
