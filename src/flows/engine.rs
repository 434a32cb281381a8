//! The flow log as the table `flows` of a query engine: its Parquet segments and the rows not yet in one.
//!
//! Always holds: queries only read, and use a bounded part of memory; a segment that cannot be read is named, and the
//! others are asked.

use super::cidr;
use crate::ending::{Failure, warn};
use datafusion::{
    arrow::{array::new_null_array, record_batch::RecordBatch},
    dataframe::DataFrame,
    datasource::{
        MemTable,
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    error::DataFusionError,
    execution::{
        context::{SQLOptions, SessionContext},
        runtime_env::RuntimeEnvBuilder,
    },
    physical_plan::SendableRecordBatchStream,
    prelude::SessionConfig,
};
use flowlog::{Damaged, Listing, Segment, WalRows};
use futures::StreamExt as _;
use jiff::Timestamp;
use model::record::UnixNanos;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a query may use of memory, bytes; beyond it sorts and groupings go to temporary files.
const MEMORY: usize = 2 << 30;
/// Rows kept back before the first is shown, so that a segment found damaged until then is left out of the answer.
const HELD_BACK: usize = 100_000;

/// Which files of a log to ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Leave out segments of hours that begin at or after this.
    pub(crate) before: Option<UnixNanos>,
    /// Leave these out.
    pub(crate) without: BTreeSet<PathBuf>,
    /// Damaged files that were named before.
    pub(crate) told: BTreeSet<PathBuf>,
}

/// A flow log, ready to be asked.
pub(crate) struct Engine {
    runtime: tokio::runtime::Runtime,
    log: PathBuf,
    segments: Vec<Segment>,
    live: Vec<WalRows>,
    context: SessionContext,
    damaged: BTreeSet<PathBuf>,
}

impl Engine {
    /// Lists the log, names on standard error what of it is damaged, and readies the rest.
    pub(crate) fn open(log: &Path, selection: &Selection) -> Result<Self, Failure> {
        let Listing { segments, wals, damaged } = flowlog::segments(log).map_err(|why| Failure::whole(&why))?;
        let mut told = selection.told.clone();
        damaged.iter().for_each(|file| report(file, &mut told));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|why| Failure::of("cannot start threads for the query", why).hint("allow more processes"))?;
        let log = log.canonicalize().map_err(|why| Failure::of(format!("cannot find {}", log.display()), why))?;
        let wanted = |segment: &Segment| {
            !selection.without.contains(&segment.path) && selection.before.is_none_or(|to| hour_of(segment) < to)
        };
        let segments = segments.into_iter().filter(wanted).filter(|segment| is_readable(segment, &mut told)).collect();
        let context = SessionContext::new();
        let mut engine = Self { runtime, log, segments, live: wals, context, damaged: told };
        engine.load()?;
        Ok(engine)
    }

    /// The segments that are asked.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Path> {
        self.segments.iter().map(|segment| segment.path.as_path())
    }

    /// The rows that are in no segment yet.
    pub(crate) fn live(&self) -> Result<Vec<RecordBatch>, Failure> {
        let batches = self.live.iter().flat_map(|wal| &wal.batches).map(as_flows);
        batches.collect::<Result<_, _>>().map_err(refused)
    }

    /// The damaged files that were named so far.
    pub(crate) fn damaged(&self) -> &BTreeSet<PathBuf> {
        &self.damaged
    }

    /// Asks, and gives each batch of the answer in turn. When a segment turns out to be damaged before anything was
    /// given, it is named and left out.
    pub(crate) fn ask(
        &mut self,
        sql: &str,
        each: &mut dyn FnMut(&RecordBatch) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let mut stream = self.start(sql)?;
            let (mut held, mut rows, mut given) = (Vec::new(), 0, false);
            let error = loop {
                match self.runtime.block_on(stream.next()) {
                    None => {
                        if held.is_empty() && !given {
                            // An answer without rows still has columns.
                            each(&RecordBatch::new_empty(stream.schema()))?;
                        }
                        return held.iter().try_for_each(each);
                    }
                    Some(Err(error)) => break error,
                    Some(Ok(batch)) => {
                        rows += batch.num_rows();
                        held.push(batch);
                        if rows >= HELD_BACK {
                            given = true;
                            held.drain(..).try_for_each(|batch| each(&batch))?;
                        }
                    }
                }
            };
            drop(stream);
            self.set_damaged_aside(error, given)?;
        }
    }

    fn start(&self, sql: &str) -> Result<SendableRecordBatchStream, Failure> {
        let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        self.runtime
            .block_on(async {
                let frame: DataFrame = self.context.sql_with_options(sql, only_queries).await?;
                frame.execute_stream().await
            })
            .map_err(refused)
    }

    /// After an error: looks through the segments for one that cannot be read to its end, names it and leaves it out.
    /// If none is to blame, or if rows were shown already, the error stands.
    fn set_damaged_aside(&mut self, error: DataFusionError, given: bool) -> Result<(), Failure> {
        let (damaged, sound): (Vec<_>, Vec<_>) = self
            .segments
            .drain(..)
            .map(|segment| (read_through(&segment.path), segment))
            .partition(|(result, _)| result.is_err());
        self.segments = sound.into_iter().map(|(_, segment)| segment).collect();
        if damaged.is_empty() {
            return Err(refused(error));
        }
        for (result, segment) in &damaged {
            let why = result.as_ref().err().cloned().unwrap_or_default();
            report(&Damaged { path: segment.path.clone(), why }, &mut self.damaged);
        }
        if given {
            return Err(Failure::new(
                "a segment turned out to be damaged after rows of the answer were shown; it is incomplete",
                "move the segment out of the log and ask again",
            ));
        }
        self.load()
    }

    /// The table `flows` over the segments and live rows there are.
    fn load(&mut self) -> Result<(), Failure> {
        self.context = self.tables().map_err(|why| {
            Failure::of(format!("the log at {} cannot be made a table", self.log.display()), why)
                .hint("this is a defect of podfence; please report it")
        })?;
        Ok(())
    }

    fn tables(&self) -> Result<SessionContext, DataFusionError> {
        let mut config = SessionConfig::new().with_information_schema(true).with_collect_statistics(false);
        config.options_mut().sql_parser.enable_ident_normalization = true;
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY, 1.0).build_arc()?;
        let context = SessionContext::new_with_config_rt(config, runtime);
        context.register_udf(cidr::function());
        let batches = self.live.iter().flat_map(|wal| &wal.batches).map(as_flows).collect::<Result<_, _>>()?;
        let live = Arc::new(MemTable::try_new(flowlog::schema(), vec![batches])?);
        let mut all = context.read_table(live)?;
        if !self.segments.is_empty() {
            let urls = self.segments.iter().map(|segment| self.url(segment)).collect::<Result<_, _>>()?;
            let parquet = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
            let listing = ListingTableConfig::new_with_multi_paths(urls)
                .with_listing_options(parquet)
                .with_schema(flowlog::schema());
            all = context.read_table(Arc::new(ListingTable::try_new(listing)?))?.union(all)?;
        }
        context.register_table("flows", all.into_view())?;
        Ok(context)
    }

    /// As a URL, because a path with `*` or `[` in it would be taken for a pattern.
    fn url(&self, segment: &Segment) -> Result<ListingTableUrl, DataFusionError> {
        let path = segment.path.canonicalize()?;
        let mut url = String::from("file://");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'/' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'=' => url.push((*byte).into()),
                _ => _ = write!(url, "%{byte:02X}"),
            }
        }
        ListingTableUrl::parse(url)
    }
}

/// Names a damaged file, once.
fn report(damaged: &Damaged, told: &mut BTreeSet<PathBuf>) {
    if told.insert(damaged.path.clone()) {
        warn(&format!("{damaged}; the answer is without it"));
    }
}

fn refused(error: DataFusionError) -> Failure {
    let hint = match error.find_root() {
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) | DataFusionError::SQL(..) => {
            "`podfence flows --columns` lists the columns of the table flows; only queries are taken"
        }
        DataFusionError::ResourcesExhausted(_) => "narrow the question: a time, a namespace, fewer columns",
        _ => "narrow the question, or ask for fewer columns",
    };
    let why = match error.find_root() {
        DataFusionError::SQL(why, _) => why.to_string(),
        _ => error.strip_backtrace(),
    };
    Failure::new(format!("the question was not answered; {why}"), hint)
}

/// When a segment's hour began; the beginning of time if its folder does not say.
fn hour_of(segment: &Segment) -> UnixNanos {
    let hour: Option<Timestamp> = format!("{}T{}:00:00Z", segment.date, segment.hour).parse().ok();
    hour.map_or(UnixNanos::MIN, crate::when::nanos)
}

/// Whether a segment's footer can be read and its columns have the types they should; if not it is named.
fn is_readable(segment: &Segment, told: &mut BTreeSet<PathBuf>) -> bool {
    let looked_at = File::open(&segment.path).map_err(|e| e.to_string()).and_then(|file| {
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(|e| e.to_string())?;
        let ours = flowlog::schema();
        for field in footer.schema().fields() {
            if let Ok(known) = ours.field_with_name(field.name())
                && known.data_type() != field.data_type()
            {
                return Err(format!(
                    "column {} is {} and should be {}",
                    field.name(),
                    field.data_type(),
                    known.data_type()
                ));
            }
        }
        Ok(())
    });
    if let Err(why) = &looked_at {
        report(&Damaged { path: segment.path.clone(), why: why.clone() }, told);
    }
    looked_at.is_ok()
}

/// Whether every row of a segment can be read.
fn read_through(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    for batch in reader.map_err(|e| e.to_string())? {
        batch.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The columns of `flows` in their order, null where an older writer had none.
fn as_flows(batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
    let schema = flowlog::schema();
    let column = |field: &Arc<datafusion::arrow::datatypes::Field>| {
        batch
            .column_by_name(field.name())
            .cloned()
            .unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
    };
    let columns = schema.fields().iter().map(column).collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}
