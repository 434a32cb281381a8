//! What files a log consists of, without showing a row twice.
//!
//! A finished write-ahead file exists for a moment beside its segments. So write-ahead files are read first
//! and whole, then the segments are listed, and those made from a file that was read are left out.

use crate::{Damaged, Error, disk, segment, wal};
use arrow::record_batch::RecordBatch;
use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

/// The files of a log at one moment.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Parquet files, in order of cluster, date, hour, node and first row.
    pub segments: Vec<Segment>,
    /// Rows that are in no segment yet.
    pub wals: Vec<WalRows>,
    /// Files that could not be listed or read.
    pub damaged: Vec<Damaged>,
}

/// One finished Parquet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Its cluster, as the folder says.
    pub cluster: String,
    /// The node that wrote it, as the folder says.
    pub node: String,
    /// `YYYY-MM-DD`.
    pub date: String,
    /// `00` to `23`, UTC.
    pub hour: String,
    /// Its length.
    pub bytes: u64,
}

/// What a write-ahead file held when it was looked at.
#[derive(Clone, Debug)]
pub struct WalRows {
    /// Where it is.
    pub path: PathBuf,
    /// Its cluster, as the folder says.
    pub cluster: String,
    /// The node that writes it.
    pub node: String,
    /// Its whole batches. What is being written at this moment, or was torn by a crash, is not among them;
    /// the next writer counts it.
    pub batches: Vec<RecordBatch>,
}

/// Lists a log and reads what is not yet in segments. A damaged file is named, and the rest listed.
pub fn segments(root: &Path) -> Result<Listing, Error> {
    std::fs::read_dir(root).map_err(|source| Error::NoLog { path: root.to_owned(), source })?;
    let mut listing = Listing::default();
    let clusters = folders(root, "cluster=", &mut listing.damaged);
    let mut read = HashSet::new();
    for (folder, cluster) in &clusters {
        read_wals(folder, cluster, &mut listing, &mut read);
    }
    for (folder, cluster) in &clusters {
        list_segments(folder, cluster, &mut listing);
    }
    listing.segments.retain(|segment| segment::id_of(&segment.path).is_none_or(|id| !read.contains(id)));
    Ok(listing)
}

/// The id and node in a write-ahead file's name.
pub(crate) fn wal_name(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(".wal")?.rsplit_once('.')
}

fn read_wals(folder: &Path, cluster: &str, listing: &mut Listing, read: &mut HashSet<String>) {
    for (name, kind) in named(folder, &mut listing.damaged) {
        let path = folder.join(&name);
        if name.ends_with(".wal.damaged") {
            let why = "a write-ahead file that could not be read was set aside".to_owned();
            listing.damaged.push(Damaged { path, why });
            continue;
        }
        let Some((node, id)) = wal_name(&name).filter(|_| kind.is_file()) else { continue };
        match read_wal(&path) {
            Ok(batches) => {
                read.insert(id.to_owned());
                listing.wals.push(WalRows { path, cluster: cluster.to_owned(), node: disk::unescaped(node), batches });
            }
            // It became segments a moment ago; they will be listed.
            Err(Unread::Gone) => {}
            Err(Unread::Damaged(why)) => listing.damaged.push(Damaged { path, why }),
        }
    }
}

enum Unread {
    Gone,
    Damaged(String),
}

fn read_wal(path: &Path) -> Result<Vec<RecordBatch>, Unread> {
    let (file, length) = disk::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Unread::Gone,
        _ => Unread::Damaged(e.to_string()),
    })?;
    let extent = wal::measure(&file, length).map_err(|e| Unread::Damaged(e.to_string()))?;
    if extent.rows == 0 {
        return Ok(Vec::new());
    }
    wal::batches(&file, extent.whole)
        .and_then(|batches| batches.collect())
        .map_err(|why| Unread::Damaged(format!("the write-ahead file cannot be decoded: {why}")))
}

/// The segments below one cluster's folder.
pub(crate) fn list_segments(cluster_folder: &Path, cluster: &str, listing: &mut Listing) {
    for (date_folder, date) in folders(cluster_folder, "date=", &mut listing.damaged) {
        for (hour_folder, hour) in folders(&date_folder, "hour=", &mut listing.damaged) {
            for (folder, node) in folders(&hour_folder, "on_node=", &mut listing.damaged) {
                for (name, kind) in named(&folder, &mut listing.damaged) {
                    if !kind.is_file() || name.starts_with('.') || !name.ends_with(".parquet") {
                        continue;
                    }
                    let path = folder.join(name);
                    listing.segments.push(Segment {
                        bytes: disk::length(&path),
                        path,
                        cluster: cluster.to_owned(),
                        node: node.clone(),
                        date: date.clone(),
                        hour: hour.clone(),
                    });
                }
            }
        }
    }
}

/// Folders named `key=value`, with the value.
fn folders(folder: &Path, key: &str, damaged: &mut Vec<Damaged>) -> Vec<(PathBuf, String)> {
    named(folder, damaged)
        .into_iter()
        .filter(|(_, kind)| kind.is_dir())
        .filter_map(|(name, _)| Some((folder.join(&name), disk::unescaped(name.strip_prefix(key)?))))
        .collect()
}

fn named(folder: &Path, damaged: &mut Vec<Damaged>) -> Vec<(String, std::fs::FileType)> {
    disk::names(folder).unwrap_or_else(|e| {
        damaged.push(Damaged { path: folder.to_owned(), why: e.to_string() });
        Vec::new()
    })
}
