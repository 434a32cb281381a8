//! What is pinned, and where: all that must outlive the agent.
//!
//! ```text
//! BPFFS/v1/maps/NAME            tables of what happened: connections, their shares, the last sweep, counters, events
//! BPFFS/v1/{pods,told,record}   what an agent must know of the one before it
//! BPFFS/v1/epochs               the counter of epochs
//! BPFFS/v1/links/N-DIRECTION    the hook of interface N
//! BPFFS/v1/qdiscs/N             an empty folder: the clsact qdisc of interface N is ours
//! ```
//!
//! Tables of what is allowed are not pinned. Each agent fills its own before its program takes the place of the
//! last one's in a hook, by one exchange; the old tables go with the last hook that runs the old program. So a
//! number in them never meets another meaning, they may change in size, and an agent that is killed half-way
//! leaves nothing but hooks that judge by one whole policy each.

use crate::Error;
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use verdict::abi::{self, maps};

/// The tables that an agent adopts.
pub(crate) const KEPT: [&str; 9] = [
    maps::CONNECTIONS,
    maps::SHARES,
    maps::RETURNED,
    maps::SWEPT,
    maps::RATES,
    maps::FRAGMENTS,
    maps::COUNTERS,
    maps::TOKENS,
    maps::EVENTS,
];

/// BPF_F_NO_PREALLOC, and the types of tables that user space makes itself (include/uapi/linux/bpf.h).
const NO_PREALLOC: u32 = 1;
const HASH: u32 = 1;
const ARRAY: u32 = 2;

/// The pins of this layout.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    bpffs: PathBuf,
    layout: PathBuf,
}

impl Pins {
    /// Makes the folders.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, Error> {
        let pins = Self { bpffs: bpffs.to_owned(), layout: bpffs.join(format!("v{}", abi::LAYOUT)) };
        for folder in [pins.folder("maps"), pins.folder("links"), pins.folder("qdiscs")] {
            fs::create_dir_all(&folder).map_err(failed("make the folder", &folder))?;
        }
        Ok(pins)
    }

    /// Where this layout's pins lie.
    pub(crate) fn layout(&self) -> &Path {
        &self.layout
    }

    /// One of its folders, or a pin in it.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.layout.join(name)
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.layout.join("maps").join(name)
    }

    /// The pin of a hook.
    pub(crate) fn link(&self, ifindex: u32, direction: &str) -> PathBuf {
        self.layout.join("links").join(format!("{ifindex}-{direction}"))
    }

    /// The mark of a qdisc that is ours.
    pub(crate) fn qdisc(&self, ifindex: u32) -> PathBuf {
        self.layout.join("qdiscs").join(ifindex.to_string())
    }

    /// Folders of other layouts: an older version's, or a newer one's that was taken back.
    pub(crate) fn others(&self) -> Vec<PathBuf> {
        layouts(&self.bpffs).unwrap_or_default().into_iter().filter(|path| *path != self.layout).collect()
    }

    /// Refuses tables that another version left under this layout: reusing one checks nothing by itself.
    pub(crate) fn check(&self, object: &[u8], connections: Option<u32>) -> Result<(), Error> {
        let parsed = aya_obj::Object::parse(object).map_err(|e| Error::Load(Box::new(e)))?;
        for name in KEPT {
            let map = parsed.maps.get(name).ok_or(Error::Object { what: "map", name })?;
            let needed = Shape {
                kind: map.map_type(),
                key: map.key_size(),
                value: map.value_size(),
                entries: connections.filter(|_| name == maps::CONNECTIONS).unwrap_or(map.max_entries()),
                flags: map.map_flags(),
            };
            check(&self.map(name), needed)?;
        }
        Ok(())
    }

    /// A pinned array, made where there is none.
    pub(crate) fn array<V: Pod>(&self, name: &str, entries: u32) -> Result<Array<MapData, V>, Error> {
        let path = self.folder(name);
        let failed = |source: MapError| Error::Pin { doing: "open", path: path.clone(), source: Box::new(source) };
        let value = size_of::<V>() as u32;
        if check(&path, Shape { kind: ARRAY, key: 4, value, entries, flags: 0 })? == Pinned::No {
            let made: Array<MapData, V> = Array::create(entries, 0).map_err(failed)?;
            pinned(&path, made.pin(&path))?;
        }
        Array::try_from(Map::Array(MapData::from_pin(&path).map_err(failed)?)).map_err(failed)
    }

    /// A pinned hash, made where there is none; its memory grows with its entries.
    pub(crate) fn hash<K: Pod, V: Pod>(&self, name: &str, entries: u32) -> Result<HashMap<MapData, K, V>, Error> {
        let path = self.folder(name);
        let failed = |source: MapError| Error::Pin { doing: "open", path: path.clone(), source: Box::new(source) };
        let (key, value) = (size_of::<K>() as u32, size_of::<V>() as u32);
        if check(&path, Shape { kind: HASH, key, value, entries, flags: NO_PREALLOC })? == Pinned::No {
            let made: HashMap<MapData, K, V> = HashMap::create(entries, NO_PREALLOC).map_err(failed)?;
            pinned(&path, made.pin(&path))?;
        }
        HashMap::try_from(Map::HashMap(MapData::from_pin(&path).map_err(failed)?)).map_err(failed)
    }
}

/// The folders of every layout on a bpffs.
pub(crate) fn layouts(bpffs: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(bpffs)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('v')).map(str::parse::<u32>);
        if matches!(number, Some(Ok(_))) && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The interface whose hook or qdisc a pin is called after.
pub(crate) fn ifindex_of(pin: &Path) -> Option<u32> {
    pin.file_name()?.to_str()?.split('-').next()?.parse().ok()
}

/// What lies in a folder; nothing where there is none.
pub(crate) fn listed(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
            paths.sort();
            Ok(paths)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed("list", folder)(e)),
    }
}

/// Removes a pin or an empty folder; what is gone already need not be removed.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it: the number of pins.
pub(crate) fn remove_all(folder: &Path) -> Result<usize, Error> {
    let mut removed = 0;
    for path in listed(folder)? {
        if path.is_dir() {
            removed += remove_all(&path)?;
        } else {
            remove(&path)?;
            removed += 1;
        }
    }
    remove(folder)?;
    Ok(removed)
}

/// How many pins are in a folder and those below it.
pub(crate) fn count(folder: &Path) -> Result<usize, Error> {
    let each = listed(folder)?.into_iter().map(|path| if path.is_dir() { count(&path) } else { Ok(1) });
    each.sum()
}

pub(crate) fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Pin { doing, path: path.to_owned(), source: Box::new(source) }
}

fn pinned(path: &Path, done: Result<(), aya::pin::PinError>) -> Result<(), Error> {
    done.map_err(|source| Error::Pin { doing: "pin", path: path.to_owned(), source: Box::new(source) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pinned {
    Yes,
    No,
}

/// What makes two tables the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key, value, entries, flags } = self;
        write!(f, "type {kind}, keys of {key} bytes, values of {value}, {entries} entries, flags {flags}")
    }
}

/// Whether a table of this shape is pinned. One of another shape is refused.
fn check(path: &Path, needed: Shape) -> Result<Pinned, Error> {
    if !path.exists() {
        return Ok(Pinned::No);
    }
    let failed = |source: MapError| Error::Pin { doing: "open", path: path.to_owned(), source: Box::new(source) };
    let info = MapData::from_pin(path).and_then(|data| data.info()).map_err(failed)?;
    let found = Shape {
        kind: info.map_type().map_err(failed)? as u32,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
        flags: info.map_flags(),
    };
    if found == needed {
        return Ok(Pinned::Yes);
    }
    Err(Error::PinnedOtherwise { path: path.to_owned(), found: found.to_string(), needed: needed.to_string() })
}
