//! Segments: Parquet files of one hour each, made from a write-ahead file.
//!
//! Making them is repeatable: the same write-ahead file gives the same names and rows, so what a crash
//! interrupted is simply done again.

use crate::{
    Error, VERSION, VERSION_KEY,
    disk::{self, HOUR, Output, Place},
    schema,
    schema::UNIQUE,
    wal,
};
use arrow::{
    array::{Array, AsArray, BooleanArray, Int64Array},
    compute::filter_record_batch,
    datatypes::Int64Type,
    record_batch::RecordBatch,
};
use model::record::UnixNanos;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
    schema::types::ColumnPath,
};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

/// More hours at once than this are finished one by one: a capture with wild times stays within memory.
const OPEN_HOURS: usize = 8;

/// What made a write-ahead file into segments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finished {
    pub(crate) segments: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// The latest `end_ns`.
    pub(crate) last: Option<UnixNanos>,
}

/// Why a write-ahead file did not become segments.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It cannot be decoded; another try will not help.
    Unreadable(String),
    /// The segments cannot be written now.
    Unwritable(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Unwritable(error)
    }
}

/// Writes the first `whole` bytes of a write-ahead file as segments. After an error nothing half-written is
/// left, and the write-ahead file is as it was.
pub(crate) fn finish(place: &Place, id: &str, wal: &File, whole: u64) -> Result<Finished, Failure> {
    let mut parts = Parts { place, id, open: BTreeMap::new(), next: 0, finished: Finished::default() };
    for batch in wal::batches(wal, whole).map_err(Failure::Unreadable)? {
        parts.add(&batch.map_err(Failure::Unreadable)?)?;
    }
    Ok(parts.close_all()?)
}

/// The segments being written, by hour.
struct Parts<'a> {
    place: &'a Place,
    id: &'a str,
    open: BTreeMap<UnixNanos, Part>,
    next: u32,
    finished: Finished,
}

impl Parts<'_> {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let starts = times(batch, "start_ns")?;
        self.finished.last = self.finished.last.max(times(batch, "end_ns")?.values().iter().max().copied());
        let mut hours: Vec<UnixNanos> = starts.values().iter().map(|start| hour_of(*start)).collect();
        hours.sort_unstable();
        hours.dedup();
        for &hour in &hours {
            if hours.len() == 1 {
                self.add_to(hour, batch)?;
                continue;
            }
            let of_hour: BooleanArray = starts.values().iter().map(|start| Some(hour_of(*start) == hour)).collect();
            let rows = filter_record_batch(batch, &of_hour).map_err(|e| Failure::Unreadable(e.to_string()))?;
            self.add_to(hour, &rows)?;
        }
        Ok(())
    }

    fn add_to(&mut self, hour: UnixNanos, rows: &RecordBatch) -> Result<(), Failure> {
        if !self.open.contains_key(&hour) {
            if self.open.len() >= OPEN_HOURS
                && let Some((_, oldest)) = self.open.pop_first()
            {
                self.close(oldest)?;
            }
            let first = times(rows, "start_ns")?.values().first().copied().unwrap_or_default();
            self.open.insert(hour, Part::create(self.place, hour, first, self.id, self.next)?);
            self.next += 1;
        }
        let Some(part) = self.open.get_mut(&hour) else { return Ok(()) };
        let written = part.writer.as_mut().map(|writer| writer.write(rows));
        written.transpose().map_err(|e| part.error(e))?;
        self.finished.rows += rows.num_rows() as u64;
        Ok(())
    }

    fn close_all(mut self) -> Result<Finished, Error> {
        while let Some((_, part)) = self.open.pop_first() {
            self.close(part)?;
        }
        Ok(self.finished)
    }

    fn close(&mut self, part: Part) -> Result<(), Error> {
        self.finished.bytes += part.close()?;
        self.finished.segments += 1;
        Ok(())
    }
}

/// The beginning of the hour in which a time lies.
pub(crate) fn hour_of(time: UnixNanos) -> UnixNanos {
    time.saturating_sub(time.rem_euclid(HOUR))
}

fn times<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, Failure> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .filter(|column| column.null_count() == 0)
        .ok_or_else(|| Failure::Unreadable(format!("column `{name}` is missing or has nulls")))
}

/// One segment being written under a name that no reader looks at.
struct Part {
    beside: PathBuf,
    name: PathBuf,
    writer: Option<ArrowWriter<Output>>,
}

impl Part {
    fn create(place: &Place, hour: UnixNanos, first: UnixNanos, id: &str, part: u32) -> Result<Self, Error> {
        let folder = place.hour_folder(hour);
        disk::make_folder(&folder)?;
        let file = format!("{first:019}-{id}-{part}.parquet");
        let (beside, name) = (folder.join(format!(".{file}.tmp")), folder.join(file));
        let output = Output::create(&beside, &place.room).map_err(|e| Error::write("write the segment", &beside, e))?;
        let mut part = Self { beside, name, writer: None };
        // Without Arrow's own copy of the schema: the columns say it all, and a damaged copy makes readers panic.
        let options = ArrowWriterOptions::new().with_properties(properties()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(output, schema(), options).map_err(|e| part.error(e))?;
        part.writer = Some(writer);
        Ok(part)
    }

    /// Finishes the segment; returns its length.
    fn close(mut self) -> Result<u64, Error> {
        if let Some(writer) = self.writer.take() {
            let output = writer.into_inner().map_err(|e| self.error(e))?;
            output.sync().map_err(|e| Error::write("write the segment", &self.name, e))?;
        }
        disk::publish(&self.beside, &self.name)?;
        Ok(disk::length(&self.name))
    }

    fn error(&self, error: ParquetError) -> Error {
        let path = &self.name;
        match error {
            ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
                Ok(io) => Error::write("write the segment", path, *io),
                Err(other) => Error::Encode { path: path.clone(), why: other.to_string() },
            },
            other => Error::Encode { path: path.clone(), why: other.to_string() },
        }
    }
}

impl Drop for Part {
    /// Nothing half-written stays. After a rename there is nothing to remove.
    fn drop(&mut self) {
        drop(self.writer.take());
        _ = disk::remove(&self.beside);
    }
}

/// zstd 3; times as differences; what is nearly unique (ids) without a dictionary.
fn properties() -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_owned())]))
        .set_created_by(concat!("podfence ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_max_row_group_row_count(Some(1 << 17));
    for time in ["start_ns", "end_ns", "flow_start_ns"] {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(time), false)
            .set_column_encoding(ColumnPath::from(time), Encoding::DELTA_BINARY_PACKED);
    }
    for id in UNIQUE {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(id), false)
            .set_column_encoding(ColumnPath::from(id), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    properties.build()
}

/// The segments' path parts that a name holds: its write-ahead file's id.
pub(crate) fn id_of(path: &Path) -> Option<&str> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".parquet")?;
    let (rest, _part) = stem.rsplit_once('-')?;
    Some(rest.rsplit_once('-')?.1)
}
