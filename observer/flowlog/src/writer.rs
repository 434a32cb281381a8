//! The writer of one node's log.
//!
//! Rows wait in memory until a batch is full or [`Writer::tick`] comes, then go to the write-ahead file with one
//! `write`; that file becomes segments when it is full or old. What cannot be written is counted and becomes a
//! gap row as soon as something can be written again: at no time does the log claim to be whole when it is not.

use crate::{
    Error, Removed, Row,
    disk::{self, Output, Place, Room},
    encode,
    list::{Listing, list_segments, wal_name},
    retention,
    segment::{self, Failure, Finished},
    wal::{self, Encoder},
};
use model::record::{FlowRecord, Gap, UnixNanos};
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

const SECOND: i64 = 1_000_000_000;

/// When rows move on, and how much is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows that go to the write-ahead file together.
    pub rows_per_batch: usize,
    /// Rows of a write-ahead file before it becomes segments.
    pub rows_per_segment: u64,
    /// Age of a write-ahead file before it becomes segments, nanoseconds.
    pub age: i64,
    /// Bytes of segments of this node to keep; `None`: all.
    pub keep_bytes: Option<u64>,
    /// Age of segments of this node to keep, nanoseconds; `None`: for ever.
    pub keep_age: Option<i64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rows_per_batch: 1024, rows_per_segment: 1 << 17, age: 300 * SECOND, keep_bytes: None, keep_age: None }
    }
}

/// What a writer did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows handed to the system.
    pub rows: u64,
    /// Flow rows that could not be written; a gap row tells of them, or will.
    pub lost: u64,
    /// Segments finished, those of dead writers included.
    pub segments: u64,
    /// Bytes of these segments.
    pub segment_bytes: u64,
    /// Rows of dead writers that were saved.
    pub recovered: u64,
    /// Segments removed to keep within size and age.
    pub removed: Removed,
}

/// Writes the log of one node.
pub struct Writer {
    place: Place,
    options: Options,
    /// First part of the ids of this writer's write-ahead files, its own alone on this node.
    opened: u64,
    sequence: u32,
    now: UnixNanos,
    retained: UnixNanos,
    pending: Vec<Row>,
    log: Option<Wal>,
    lost: Option<Gap>,
    counts: Counts,
}

/// The write-ahead file in use.
struct Wal {
    id: String,
    path: PathBuf,
    output: Output,
    encoder: Encoder,
    whole: u64,
    rows: u64,
    since: UnixNanos,
    /// Finishing it failed; the next tick tries again.
    stuck: bool,
}

impl Writer {
    /// Opens the log of a node, making the folder where needed, and finishes what dead writers of the
    /// same node left. `now` is the time.
    pub fn open(root: &Path, cluster: &str, node: &str, options: Options, now: UnixNanos) -> Result<Self, Error> {
        Self::open_in(Room::default(), root, cluster, node, options, now)
    }

    fn open_in(
        room: Room,
        root: &Path,
        cluster: &str,
        node: &str,
        options: Options,
        now: UnixNanos,
    ) -> Result<Self, Error> {
        let place = Place { root: root.to_owned(), cluster: cluster.to_owned(), node: node.to_owned(), room };
        disk::make_folder(&place.cluster_folder())?;
        let mut writer = Self {
            place,
            options,
            opened: 0,
            sequence: 0,
            now,
            retained: now,
            pending: Vec::new(),
            log: None,
            lost: None,
            counts: Counts::default(),
        };
        writer.recover()?;
        writer.opened = writer.last_opened()?.saturating_add(1).max(u64::try_from(now).unwrap_or_default());
        writer.log = Some(writer.new_wal()?);
        Ok(writer)
    }

    /// Adds a row. An error means that rows were lost (counted, and told by a gap row later), or that a segment could
    /// not be finished yet (nothing lost); the writer goes on either way.
    pub fn append(&mut self, record: &FlowRecord) -> Result<(), Error> {
        self.push(Row::Flow(record.clone()))
    }

    /// Adds a gap. Errors as for [`append`](Self::append).
    pub fn gap(&mut self, gap: &Gap) -> Result<(), Error> {
        self.push(Row::Gap(gap.clone()))
    }

    /// Lets time pass: hands over what waits, finishes a write-ahead file that is old, keeps the bounds. To be called
    /// about once a second, and always with the same clock.
    pub fn tick(&mut self, now: UnixNanos) -> Result<(), Error> {
        self.now = self.now.max(now);
        self.flush()?;
        if let Some(log) = &mut self.log {
            log.stuck = false;
            if log.rows > 0 && self.now.saturating_sub(log.since) >= self.options.age {
                self.finish()?;
            }
        }
        if self.now.saturating_sub(self.retained) >= 60 * SECOND {
            self.retain()?;
        }
        Ok(())
    }

    /// Hands everything that waits to the system: after this, it survives the process.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() && self.lost.is_none() {
            return Ok(());
        }
        self.hand_over()
    }

    /// Hands over what waits and finishes the write-ahead file.
    pub fn close(mut self) -> Result<Counts, Error> {
        self.flush()?;
        self.finish()?;
        self.retain()?;
        if let Some(log) = self.log.take() {
            drop(log.output);
            disk::remove(&log.path)?;
        }
        Ok(self.counts)
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn push(&mut self, row: Row) -> Result<(), Error> {
        self.pending.push(row);
        if self.pending.len() < self.options.rows_per_batch {
            return Ok(());
        }
        self.hand_over()?;
        let full = |log: &Wal| log.rows >= self.options.rows_per_segment && !log.stuck;
        if self.log.as_ref().is_some_and(full) { self.finish() } else { Ok(()) }
    }

    /// One batch to the write-ahead file, beginning with the gap that what was lost before has left.
    fn hand_over(&mut self) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut self.pending);
        rows.extend(self.lost.clone().map(Row::Gap));
        match self.write(&rows) {
            Ok(()) => {
                self.counts.rows += rows.len() as u64;
                self.lost = None;
                Ok(())
            }
            Err(error) => {
                if self.lost.is_some() {
                    rows.pop();
                }
                self.lose(rows, error.gap_reason());
                Err(error.with_lost(self.lost.as_ref().map_or(0, |gap| gap.lost)))
            }
        }
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), Error> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.new_wal()?,
        };
        let batch = encode(rows).map_err(|e| Error::Encode { path: log.path.clone(), why: e.to_string() })?;
        let bytes = log.encoder.encode(&batch);
        let bytes = bytes.map_err(|e| Error::Encode { path: log.path.clone(), why: e.to_string() })?;
        if let Err(error) = log.output.write_all(&bytes) {
            let error = Error::write("write", &log.path, error);
            self.keep_what_is_whole(log);
            return Err(error);
        }
        log.whole += bytes.len() as u64;
        log.rows += rows.len() as u64;
        self.log = Some(log);
        Ok(())
    }

    /// After a failed write: cuts the file back, so that nothing half-written stays. A file that cannot be cut, or that
    /// has not even its schema, is left to recovery and replaced by a new one.
    fn keep_what_is_whole(&mut self, mut log: Wal) {
        if log.output.cut(log.whole).is_ok() && log.whole > 0 {
            self.log = Some(log);
        } else if log.whole == 0 {
            _ = disk::remove(&log.path);
        }
    }

    /// Counts rows that could not be written. Gaps among them keep their time and number, not their reason.
    fn lose(&mut self, rows: Vec<Row>, reason: &str) {
        for row in rows {
            let lost = match &row {
                Row::Flow(_) => 1,
                Row::Gap(gap) => gap.lost,
            };
            self.counts.lost += u64::from(matches!(row, Row::Flow(_)));
            let gap = self.lost.get_or_insert_with(|| Gap {
                start: row.start(),
                end: row.end(),
                node: self.place.node.as_str().into(),
                reason: reason.into(),
                lost: 0,
            });
            gap.start = gap.start.min(row.start());
            gap.end = gap.end.max(row.end());
            gap.lost = gap.lost.saturating_add(lost);
        }
    }

    /// Makes the write-ahead file into segments and begins another.
    fn finish(&mut self) -> Result<(), Error> {
        let Some(log) = self.log.as_mut().filter(|log| log.rows > 0) else { return Ok(()) };
        let opened = disk::open(&log.path).map_err(|e| Failure::Unwritable(Error::write("read", &log.path, e)));
        let finished = opened.and_then(|(file, _)| segment::finish(&self.place, &log.id, &file, log.whole));
        match finished {
            Ok(finished) => self.finished(finished),
            Err(Failure::Unwritable(error)) => {
                log.stuck = true;
                return Err(error);
            }
            // Someone damaged the file under us: set it aside, say so, go on.
            Err(Failure::Unreadable(why)) => {
                let gap = gap_of(&self.place, "log-damaged", log.since, self.now, log.rows);
                let path = log.path.clone();
                self.log = None;
                self.pending.push(Row::Gap(gap));
                disk::set_aside(&path)?;
                return Err(Error::Encode { path, why });
            }
        }
        if let Some(log) = self.log.take() {
            disk::remove(&log.path)?;
        }
        self.log = Some(self.new_wal()?);
        self.retain()
    }

    fn finished(&mut self, finished: Finished) {
        self.counts.segments += finished.segments;
        self.counts.segment_bytes += finished.bytes;
    }

    fn retain(&mut self) -> Result<(), Error> {
        self.retained = self.now;
        let removed = retention::retain(&self.place, self.options.keep_bytes, self.options.keep_age, self.now)?;
        self.counts.removed.segments += removed.segments;
        self.counts.removed.bytes += removed.bytes;
        Ok(())
    }

    /// A write-ahead file under a name that nobody has, locked for as long as it is open.
    fn new_wal(&mut self) -> Result<Wal, Error> {
        loop {
            let id = format!("{:016x}{:08x}", self.opened, self.sequence);
            let path = self.place.wal(&id);
            let output = match Output::create_new(&path, &self.place.room) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    // Another writer opened at the same moment.
                    self.opened = self.opened.wrapping_add(1);
                    continue;
                }
                created => created.map_err(|e| Error::write("write", &path, e))?,
            };
            self.sequence = self.sequence.wrapping_add(1);
            match output.lock() {
                // A writer that opens at this moment took it for a dead one's, and removes it.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                locked => locked.map_err(|e| Error::write("lock", &path, e))?,
            }
            let encoder = Encoder::new().map_err(|e| Error::Encode { path: path.clone(), why: e.to_string() })?;
            return Ok(Wal { id, path, output, encoder, whole: 0, rows: 0, since: self.now, stuck: false });
        }
    }

    /// The largest first part of an id in this node's log: ids are never used twice, or rows would hide behind others.
    fn last_opened(&self) -> Result<u64, Error> {
        let folder = self.place.cluster_folder();
        let names = disk::names(&folder).map_err(|e| Error::write("read the folder", &folder, e))?;
        let wals = names.iter().filter_map(|(name, _)| wal_name(name)).map(|(_, id)| id.to_owned());
        let mut listing = Listing::default();
        list_segments(&folder, &self.place.cluster, &mut listing);
        let segments = listing.segments.iter().filter_map(|segment| segment::id_of(&segment.path)).map(str::to_owned);
        let opened = |id: String| u64::from_str_radix(id.get(..16)?, 16).ok();
        Ok(wals.chain(segments).filter_map(opened).max().unwrap_or_default())
    }

    /// Finishes what dead writers of this node left.
    fn recover(&mut self) -> Result<(), Error> {
        let folder = self.place.cluster_folder();
        let names = disk::names(&folder).map_err(|e| Error::write("read the folder", &folder, e))?;
        for (name, _) in names {
            let Some((node, id)) = wal_name(&name) else { continue };
            let path = folder.join(&name);
            if node != disk::escaped(&self.place.node) {
                continue;
            }
            if let Some((file, length)) = disk::claim(&path).map_err(|e| Error::write("open", &path, e))? {
                self.recover_one(id, &path, &file, length)?;
            }
        }
        Ok(())
    }

    fn recover_one(&mut self, id: &str, path: &Path, file: &File, length: u64) -> Result<(), Error> {
        let extent = wal::measure(file, length).map_err(|e| Error::write("read", path, e))?;
        let written = disk::last_written(file).unwrap_or(self.now);
        let mut last = None;
        if extent.rows > 0 {
            match segment::finish(&self.place, id, file, extent.whole) {
                Ok(finished) => {
                    last = finished.last;
                    self.counts.recovered += finished.rows;
                    self.finished(finished);
                }
                // Its rows are readable where they are; the next writer tries again.
                Err(Failure::Unwritable(_)) => return Ok(()),
                Err(Failure::Unreadable(_)) => {
                    let gap = gap_of(&self.place, "log-damaged", written, written, extent.rows + extent.torn_rows);
                    self.pending.push(Row::Gap(gap));
                    return disk::set_aside(path);
                }
            }
        }
        if extent.torn > 0 {
            let from = last.unwrap_or(written).min(written);
            self.pending.push(Row::Gap(gap_of(&self.place, "log-torn", from, written, extent.torn_rows)));
        }
        disk::remove(path)
    }
}

fn gap_of(place: &Place, reason: &str, start: UnixNanos, end: UnixNanos, lost: u64) -> Gap {
    Gap { start, end, node: Arc::from(place.node.as_str()), reason: reason.into(), lost }
}

#[cfg(test)]
mod tests;
