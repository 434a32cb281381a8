//! Everything that touches files: names and places, writing that can run out of room, locks, renames.
//!
//! A segment appears under its name whole or not at all: it is written beside, synced, renamed, and the
//! folder is synced.

use crate::Error;
use jiff::{Timestamp, tz::Offset};
use model::record::UnixNanos;
use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Nanoseconds in an hour, the finest folder.
pub(crate) const HOUR: i64 = 3_600 * 1_000_000_000;

/// Whose log it is, and where.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The log's folder.
    pub(crate) root: PathBuf,
    /// Name of the cluster, as a person gave it.
    pub(crate) cluster: String,
    /// Name of the node.
    pub(crate) node: String,
    /// How much may still be written.
    pub(crate) room: Room,
}

impl Place {
    pub(crate) fn cluster_folder(&self) -> PathBuf {
        self.root.join(format!("cluster={}", escaped(&self.cluster)))
    }

    pub(crate) fn wal(&self, id: &str) -> PathBuf {
        self.cluster_folder().join(format!("{}.{id}.wal", escaped(&self.node)))
    }

    /// The folder of the hour that began at `hour`.
    pub(crate) fn hour_folder(&self, hour: UnixNanos) -> PathBuf {
        let time = Offset::UTC.to_datetime(Timestamp::from_nanosecond(hour.into()).unwrap_or_default());
        self.cluster_folder()
            .join(format!("date={}", time.date()))
            .join(format!("hour={:02}", time.hour()))
            .join(format!("on_node={}", escaped(&self.node)))
    }
}

/// A name as a part of a path: what is not a letter, digit, `.`, `_` or `-` becomes `%XX`, as Hive does.
pub(crate) fn escaped(name: &str) -> String {
    let mut part = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => part.push(byte.into()),
            _ => _ = write!(part, "%{byte:02X}"),
        }
    }
    part
}

/// Undoes [`escaped`].
pub(crate) fn unescaped(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        (rest, _) = match (first, code) {
            (b'%', Some(byte)) => (&tail[2..], bytes.push(byte)),
            _ => (tail, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What may still be written. Unlimited but for tests, which fill a disk without having one to fill.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    #[cfg(test)]
    pub(crate) left: Option<std::sync::Arc<std::sync::atomic::AtomicUsize>>,
}

impl Room {
    /// How many of `wanted` bytes there is room for.
    fn take(&self, wanted: usize) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(left) = &self.left {
            use std::sync::atomic::Ordering::Relaxed;
            let granted = wanted.min(left.load(Relaxed));
            left.fetch_sub(granted, Relaxed);
            return if granted == 0 && wanted > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(granted) };
        }
        Ok(wanted)
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    room: Room,
}

impl Output {
    /// A new file; one of that name must not be there.
    pub(crate) fn create_new(path: &Path, room: &Room) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).read(true).create_new(true).open(path)?;
        Ok(Self { file, room: room.clone() })
    }

    /// A new file, instead of any that is there.
    pub(crate) fn create(path: &Path, room: &Room) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, room: room.clone() })
    }

    /// Claims the file for as long as it is open.
    pub(crate) fn lock(&self) -> io::Result<()> {
        Ok(self.file.try_lock()?)
    }

    /// Cuts it back to what was whole.
    pub(crate) fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        io::Seek::seek(&mut self.file, io::SeekFrom::Start(length)).map(|_| ())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let granted = self.room.take(bytes.len())?;
        self.file.write(&bytes[..granted])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| Error::write("make the folder", path, e))
}

/// Moves a finished file to its name and makes that last.
pub(crate) fn publish(beside: &Path, name: &Path) -> Result<(), Error> {
    fs::rename(beside, name).map_err(|e| Error::write("rename a finished segment to", name, e))?;
    if let Some(folder) = name.parent() {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::write("sync the folder", folder, e))?;
    }
    Ok(())
}

/// Moves a file that cannot be read out of the way, under a name that says so.
pub(crate) fn set_aside(path: &Path) -> Result<(), Error> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    fs::rename(path, &aside).map_err(|e| Error::write("set aside", path, e))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::write("remove", path, e)),
        _ => Ok(()),
    }
}

/// Removes a file and the folders above it that this leaves empty, up to but not including `root`.
pub(crate) fn remove_with_empty_folders(path: &Path, root: &Path) -> Result<(), Error> {
    remove(path)?;
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
        if fs::remove_dir(folder).is_err() {
            break; // Not empty: something else lives there.
        }
    }
    Ok(())
}

/// A file opened for reading, with its length.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Opens a write-ahead file whose writer is gone; `None` while its writer lives, or once it is finished.
pub(crate) fn claim(path: &Path) -> io::Result<Option<(File, u64)>> {
    let (file, _) = match open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        locked => locked?,
    }
    // Between opening and locking its writer may have finished and removed it.
    let length = file.metadata()?.len();
    Ok(path.exists().then_some((file, length)))
}

/// When a file was last written, in nanoseconds since the epoch.
pub(crate) fn last_written(file: &File) -> Option<UnixNanos> {
    let written = file.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    written.as_nanos().try_into().ok()
}

/// Names in a folder, sorted; none if it is not there.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<(String, fs::FileType)>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) {
            names.push((name, kind));
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

/// A file's length, 0 when it is gone.
pub(crate) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
