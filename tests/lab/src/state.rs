//! What a lab leaves on disk while it is up, so that another process can go on with it, or clean up after one that
//! was killed.
//!
//! ```text
//! /run/podfence-lab/NAME/
//!   state.json     who keeps it, and its pods
//!   cluster.yaml   every object, pods that ended among them
//!   scenario/      the two files it was started from
//!   records.json   names that the DNS server answers
//!   pods/KEY.*     of each pod's process: what it was told, its socket, its ids, its log, its folder
//! ```
//!
//! The folder comes into being with its state in it, and goes last: as long as a namespace or process of a lab is
//! there, so is what says how to remove it.

use crate::{error::Error, network, process, process::Process, world::World};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Where labs are kept.
pub(crate) const BASE: &str = "/run/podfence-lab";

/// Who takes the lab down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Keeper {
    /// The process that brought it up; once that is gone, the lab is a leftover.
    Process(Process),
    /// Whoever is asked to.
    Nobody,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) keeper: Keeper,
    pub(crate) scenario: String,
    pub(crate) pod_command: Vec<OsString>,
    pub(crate) world: World,
}

/// A lab's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn of(name: &str) -> Self {
        Self { name: name.to_owned(), path: Path::new(BASE).join(name) }
    }

    /// What the names of the lab's namespaces begin with. No lab's name holds a dot, so none begins with another's.
    pub(crate) fn prefix(&self) -> String {
        format!("pf-{}.", self.name)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn pod_file(&self, key: &str, kind: &str) -> PathBuf {
        self.path.join("pods").join(format!("{key}.{kind}"))
    }

    /// Makes the folder with this state in it. What a killed lab of the same name left is removed first.
    pub(crate) fn claim(&self, state: &State) -> Result<(), Error> {
        let ours = Path::new(BASE).join(format!(".{}-{}", self.name, std::process::id()));
        let made = self.claim_by_way_of(&ours, state);
        if made.is_err() {
            let _ = fs::remove_dir_all(&ours);
            let _ = fs::remove_dir(BASE);
        }
        made
    }

    fn claim_by_way_of(&self, ours: &Path, state: &State) -> Result<(), Error> {
        fs::create_dir_all(ours.join("pods")).map_err(Error::file(ours, "cannot be made"))?;
        write_json(&ours.join("state.json"), state)?;
        for _ in 0..2 {
            match fs::rename(ours, &self.path) {
                Ok(()) => return Ok(()),
                Err(error) if is_taken(&error) => {}
                Err(error) => return Err(Error::file(&self.path, "cannot be made")(error)),
            }
            match self.read().map(|state| state.keeper) {
                Ok(Keeper::Process(keeper)) if !keeper.lives() => {
                    tracing::warn!(name = self.name, "removes what a killed lab left");
                    self.tear_down();
                }
                _ => break,
            }
        }
        Err(Error::Busy { name: self.name.clone() })
    }

    pub(crate) fn read(&self) -> Result<State, Error> {
        let path = self.file("state.json");
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotUp { name: self.name.clone() },
            _ => Error::file(&path, "cannot be read")(error),
        })?;
        serde_json::from_slice(&bytes).map_err(|error| Error::State { path, message: error.to_string() })
    }

    pub(crate) fn write(&self, state: &State) -> Result<(), Error> {
        write_json(&self.file("state.json"), state)
    }

    /// Ends every process of the lab, removes its namespaces and then the folder. What is gone already is no error.
    pub(crate) fn tear_down(&self) {
        for process in self.processes() {
            process.end();
        }
        for namespace in network::named(&self.prefix()) {
            network::remove(&namespace);
        }
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot be removed"),
        }
        // Only the last lab's going empties it.
        let _ = fs::remove_dir(BASE);
    }

    /// The pods' processes and their children.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let entries = fs::read_dir(self.path.join("pods")).into_iter().flatten().flatten();
        let lists =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "pids"));
        lists.flat_map(|path| process::listed_in(&path)).collect()
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// Writes beside and renames, so that a reader finds the old file or the new one.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, content).map_err(Error::file(&beside, "cannot be written"))?;
    fs::rename(&beside, path).map_err(Error::file(path, "cannot be written"))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::file(path, "cannot be written")(error.into()))?;
    write_whole(path, &bytes)
}

/// Labs that are up or were left, by name.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(BASE).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// Takes a lab down, whoever brought it up, also when that one was killed.
pub fn down(name: &str) -> Result<(), Error> {
    let folder = Folder::of(name);
    let there = folder.path.exists() || !network::named(&folder.prefix()).is_empty();
    if !valid_name(name) || !there {
        return Err(Error::NotUp { name: name.to_owned() });
    }
    network::permitted()?;
    folder.tear_down();
    Ok(())
}

/// What the lab of a scenario folder is called unless it is given a name: the folder's name in lower case, `-` for what
/// no lab's name may hold.
pub fn name_of(folder: &Path) -> String {
    let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let name = whole.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_lowercase());
    let legal = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = name.chars().map(legal).take(40).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "scenario".to_owned() } else { name.to_owned() }
}

pub(crate) fn valid_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=40).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('-')
}

/// What labs left on this machine: namespaces, folders and processes; of one lab, or of all.
pub fn leftovers(name: Option<&str>) -> Vec<String> {
    let folder = name.map(Folder::of);
    let prefix = folder.as_ref().map_or_else(|| "pf-".to_owned(), Folder::prefix);
    let path = folder.map_or_else(|| PathBuf::from(BASE), |folder| folder.path);
    let mut found: Vec<String> = network::named(&prefix).into_iter().map(|name| format!("namespace {name}")).collect();
    if path.exists() {
        found.push(format!("folder {}", path.display()));
    }
    found.extend(processes_in(&path));
    found
}

/// Processes that were started with a file of the folder, or work in it.
fn processes_in(folder: &Path) -> Vec<String> {
    let inside = |text: &str| Path::new(text).starts_with(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if !Process::of(pid).is_some_and(Process::lives) {
            continue;
        }
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut arguments = command.split(|b| *b == 0).map(String::from_utf8_lossy);
        let works_in = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if arguments.any(|argument| inside(&argument)) || works_in.starts_with(folder) {
            found.push(format!("process {pid} ({})", String::from_utf8_lossy(&command).replace('\0', " ").trim()));
        }
    }
    found
}
