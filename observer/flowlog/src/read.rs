//! Reading a log back: every row of every readable file, with the unreadable ones named.

use crate::schema::UNIQUE;
use crate::{Damaged, Decoder, Error, Listing, Row, Segment, error::surviving, segments};
use arrow::{
    datatypes::{DataType, Field, FieldRef, Fields, Schema},
    record_batch::RecordBatch,
};
use model::record::{FlowRecord, Gap, UnixNanos};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
    file::{metadata::RowGroupMetaData, statistics::Statistics},
};
use std::{fs::File, io, path::Path, sync::Arc};

/// Which rows are wanted. The default is all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Rows that end at or after this time.
    pub from: Option<UnixNanos>,
    /// Rows that start before this time.
    pub to: Option<UnixNanos>,
    /// Rows of this cluster.
    pub cluster: Option<String>,
    /// Rows written by this node.
    pub node: Option<String>,
}

impl Filter {
    fn holds(&self, row: &Row) -> bool {
        self.spans(row.start(), row.end())
    }

    fn spans(&self, start: UnixNanos, end: UnixNanos) -> bool {
        self.from.is_none_or(|from| end >= from) && self.to.is_none_or(|to| start < to)
    }

    fn wants(&self, cluster: &str, node: &str) -> bool {
        self.cluster.as_deref().is_none_or(|wanted| wanted == cluster)
            && self.node.as_deref().is_none_or(|wanted| wanted == node)
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Slices of flows.
    pub rows: u64,
    /// Gaps.
    pub gaps: u64,
    /// What could not be read, or not to its end.
    pub damaged: Vec<Damaged>,
}

/// Reads the log, segment by segment in order of their hours, then what is not yet in segments. A damaged file is
/// named in the summary and the rest is read.
pub fn read(root: &Path, filter: &Filter, each: &mut dyn FnMut(Row)) -> Result<Summary, Error> {
    let Listing { segments, wals, damaged } = segments(root)?;
    let mut reading = Reading { filter, each, decoder: Decoder::default(), rows: 0, gaps: 0 };
    let mut damaged = damaged;
    for segment in segments.iter().filter(|segment| filter.wants(&segment.cluster, &segment.node)) {
        if let Err(why) = reading.segment(segment) {
            damaged.push(Damaged { path: segment.path.clone(), why });
        }
    }
    for wal in wals.iter().filter(|wal| filter.wants(&wal.cluster, &wal.node)) {
        for batch in &wal.batches {
            if let Err(why) = reading.batch(batch) {
                damaged.push(Damaged { path: wal.path.clone(), why });
                break;
            }
        }
    }
    Ok(Summary { rows: reading.rows, gaps: reading.gaps, damaged })
}

/// Flows and gaps of a whole log, in memory: for tests and small logs.
pub fn read_records(root: &Path) -> Result<(Vec<FlowRecord>, Vec<Gap>, Summary), Error> {
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    let summary = read(root, &Filter::default(), &mut |row| match row {
        Row::Flow(record) => records.push(record),
        Row::Gap(gap) => gaps.push(gap),
    })?;
    Ok((records, gaps, summary))
}

struct Reading<'a> {
    filter: &'a Filter,
    each: &'a mut dyn FnMut(Row),
    decoder: Decoder,
    rows: u64,
    gaps: u64,
}

impl Reading<'_> {
    fn segment(&mut self, segment: &Segment) -> Result<(), String> {
        let filter = self.filter;
        let before = self.rows + self.gaps;
        let read =
            batches(&segment.path, None, &|group| may_hold(filter, group), BATCH, &mut |batch| self.batch(batch));
        read.map_err(|why| format!("{why}; {} rows before that were read", self.rows + self.gaps - before))
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let Self { filter, each, decoder, rows, gaps } = self;
        decoder.rows(batch, &mut |row| {
            if filter.holds(&row) {
                match row {
                    Row::Flow(_) => *rows += 1,
                    Row::Gap(_) => *gaps += 1,
                }
                each(row);
            }
        })
    }
}

/// Whether a row group's times leave room for a wanted row.
fn may_hold(filter: &Filter, group: &RowGroupMetaData) -> bool {
    match (bounds(group, "start_ns"), bounds(group, "end_ns")) {
        (Some((first, _)), Some((_, last))) => filter.spans(first, last),
        _ => true,
    }
}

/// Rows that are decoded together.
const BATCH: usize = 4096;

/// Hands the batches of a segment to `each`, of at most so many rows: of the row groups wanted, these columns of them
/// or all.
pub(crate) fn batches(
    path: &Path,
    columns: Option<&[&str]>,
    wanted: &dyn Fn(&RowGroupMetaData) -> bool,
    rows: usize,
    each: &mut dyn FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<(), String> {
    let file = match File::open(path) {
        // Retention took it since it was listed.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|e| e.to_string())?,
    };
    let metadata = surviving(|| metadata(&file))?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let groups = builder.metadata().row_groups().iter().enumerate();
    let groups = groups.filter(|(_, group)| wanted(group)).map(|(index, _)| index).collect();
    let mut batches = surviving(|| {
        let all = builder.metadata().file_metadata().schema_descr();
        let mask =
            columns.map_or_else(ProjectionMask::all, |names| ProjectionMask::columns(all, names.iter().copied()));
        builder.with_projection(mask).with_row_groups(groups).with_batch_size(rows).build()
    })?;
    while let Some(batch) = surviving(|| batches.next().transpose())? {
        each(&batch)?;
    }
    Ok(())
}

/// A segment's metadata, with texts to be read as indices into those that occur: most occur often.
fn metadata(file: &File) -> Result<ArrowReaderMetadata, ParquetError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let plain = ArrowReaderMetadata::load(file, options.clone())?;
    let indexed = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 if !UNIQUE.contains(&field.name().as_str()) => {
            let dictionary = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
            Field::new(field.name(), dictionary, field.is_nullable()).into()
        }
        _ => field.clone(),
    };
    let schema = Arc::new(Schema::new(plain.schema().fields().iter().map(indexed).collect::<Fields>()));
    ArrowReaderMetadata::try_new(plain.metadata().clone(), options.with_schema(schema))
}

fn bounds(group: &RowGroupMetaData, name: &str) -> Option<(UnixNanos, UnixNanos)> {
    let column = group.columns().iter().find(|column| column.column_path().parts() == [name])?;
    match column.statistics()? {
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    }
}
