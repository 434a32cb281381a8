//! `flows`: asks the flow log, by filters or in SQL, once or on and on.

mod answer;
mod cidr;
mod engine;
mod question;

use crate::{
    ending::{Ending, Failure, warn},
    output::{self, Table},
    typed, when,
};
use answer::{Printer, Rows, TABLE_COLUMNS};
use datafusion::arrow::{
    array::{Array as _, AsArray as _, BooleanArray},
    compute::filter_record_batch,
    datatypes::Int64Type,
    record_batch::RecordBatch,
    row::{OwnedRow, RowConverter, SortField},
};
use engine::{Engine, Selection};
use jiff::Timestamp;
use question::Question;
use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use typed::FlowsOutput;

/// How often `--follow` looks at the log.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn run(typed: Box<typed::Flows>) -> miette::Result<Ending> {
    if typed.columns {
        return columns();
    }
    let Some(log) = &typed.log else { return Err(Failure::new("no log to ask", "name its folder with --log").into()) };
    match &typed.sql {
        Some(query) => ask_sql(log, query, typed.output),
        None => {
            let question = Question::of(&typed, Timestamp::now())?;
            match typed.follow {
                true => follow(log, &question, typed.output),
                false => ask(log, &question, typed.output),
            }
        }
    }
}

fn columns() -> miette::Result<Ending> {
    let mut table = Table::new(["COLUMN", "TYPE"]);
    for field in flowlog::schema().fields() {
        table.row([field.name().as_str(), &field.data_type().to_string()]);
    }
    table.write(&mut output::stdout()).map_err(output::failed)?;
    Ok(Ending::Done)
}

/// The answer to a query, whole: for the story that the command tells.
pub(crate) fn answer(log: &Path, query: &str) -> Result<Vec<RecordBatch>, Failure> {
    let mut all = Vec::new();
    Engine::open(log, &Selection::default())?.ask(query, &mut |batch| {
        all.push(batch.clone());
        Ok(())
    })?;
    Ok(all)
}

/// An answer as a table.
pub(crate) fn show(batches: &[RecordBatch]) -> Result<(), Failure> {
    let mut printer = Printer::new(FlowsOutput::Table, Rows::Any);
    batches.iter().try_for_each(|batch| printer.print(batch))?;
    printer.end().map(drop)
}

fn ask_sql(log: &Path, query: &str, form: FlowsOutput) -> miette::Result<Ending> {
    let mut engine = Engine::open(log, &Selection::default())?;
    let mut printer = Printer::new(form, Rows::Any);
    engine.ask(query, &mut |batch| printer.print(batch))?;
    printer.end()?;
    Ok(Ending::Done)
}

fn ask(log: &Path, question: &Question, form: FlowsOutput) -> miette::Result<Ending> {
    let mut engine = Engine::open(log, &Selection { before: question.to, ..Selection::default() })?;
    let mut printer = Printer::new(form, Rows::Flows);
    engine.ask(&question.sql(columns_for(form)), &mut |batch| printer.print(batch))?;
    if printer.end()? == 0 && matches!(form, FlowsOutput::Table | FlowsOutput::Wide) {
        eprintln!("No flows found.");
    }
    warn_of_gaps(&mut engine, question)?;
    Ok(Ending::Done)
}

const fn columns_for(form: FlowsOutput) -> &'static str {
    match form {
        FlowsOutput::Table | FlowsOutput::Wide => TABLE_COLUMNS,
        FlowsOutput::Json | FlowsOutput::Jsonl | FlowsOutput::Csv => "*",
    }
}

/// What was not seen in the time asked about, one warning a node and reason.
fn warn_of_gaps(engine: &mut Engine, question: &Question) -> Result<(), Failure> {
    engine.ask(&question.gaps_sql(), &mut |batch| {
        (0..batch.num_rows()).for_each(|row| warn(&gap(batch, row)));
        Ok(())
    })
}

fn gap(batch: &RecordBatch, row: usize) -> String {
    let text = |column: &str| {
        let values = batch.column_by_name(column).and_then(|values| values.as_string_opt::<i32>());
        values.filter(|values| !values.is_null(row)).map_or_else(String::new, |values| values.value(row).to_owned())
    };
    let number = |column: &str| {
        let values = batch.column_by_name(column).and_then(|values| values.as_primitive_opt::<Int64Type>());
        values.filter(|values| !values.is_null(row)).map_or(0, |values| values.value(row))
    };
    let lost = match number("lost") {
        0 => "nobody knows how much".to_owned(),
        lost => format!("at least {lost} lost"),
    };
    let times = match number("gaps") {
        1 => String::new(),
        gaps => format!(" in {gaps} gaps"),
    };
    format!(
        "node {} did not see everything between {} and {}: {}{times}, {lost}",
        text("node"),
        when::shown(number("start_ns")),
        when::shown(number("end_ns")),
        text("reason"),
    )
}

/// The answer, then what is added to the log, until Ctrl-C.
///
/// A segment never changes, so those that were asked once are not asked again. Rows still in a write-ahead file are
/// remembered until they have become part of a segment.
fn follow(log: &Path, question: &Question, form: FlowsOutput) -> miette::Result<Ending> {
    let stop = stop_flag()?;
    // A JSON array has an end; what is followed has none.
    let form = if form == FlowsOutput::Json { FlowsOutput::Jsonl } else { form };
    let mut printer = Printer::new(form, Rows::Flows);
    let mut seen = Seen::default();
    let mut selection = Selection { before: question.to, ..Selection::default() };
    while !stop.load(Ordering::Relaxed) {
        let mut engine = Engine::open(log, &selection)?;
        selection.without.extend(engine.segments().map(Path::to_owned));
        let first_look = seen.looks == 0;
        let live = rows_of(&engine.live()?)?;
        let sql = if first_look { question.sql("*") } else { question.follow_sql() };
        engine.ask(&sql, &mut |batch| seen.fresh(batch).and_then(|fresh| show_new(&mut printer, &fresh)))?;
        if first_look {
            warn_of_gaps(&mut engine, question)?;
        }
        printer.flush()?;
        seen = Seen { live, looks: seen.looks + 1 };
        selection.told.clone_from(engine.damaged());
        let looked = Instant::now();
        while looked.elapsed() < LOOK_EVERY && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
    }
    printer.end()?;
    Ok(Ending::Done)
}

/// Flows are printed, gaps are warned of.
fn show_new(printer: &mut Printer, batch: &RecordBatch) -> Result<(), Failure> {
    let kinds = batch.column_by_name("row_kind").and_then(|kinds| kinds.as_string_opt::<i32>());
    let is_flow: BooleanArray = match kinds {
        Some(kinds) => kinds.iter().map(|kind| Some(kind != Some("gap"))).collect(),
        None => vec![true; batch.num_rows()].into(),
    };
    let gaps = (0..batch.num_rows()).filter(|row| !is_flow.value(*row));
    gaps.for_each(|row| warn(&gap(batch, row)));
    let flows = filter_record_batch(batch, &is_flow).map_err(|why| Failure::of("rows cannot be told apart", why))?;
    if flows.num_rows() > 0 { printer.print(&flows) } else { Ok(()) }
}

/// What `--follow` has shown that may come again: what was in write-ahead files at the last look.
#[derive(Default)]
struct Seen {
    live: HashSet<OwnedRow>,
    looks: u64,
}

impl Seen {
    /// The rows of a batch that were not there at the last look.
    fn fresh(&self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let broken = |why| Failure::of("rows cannot be told apart", why);
        let rows = converter(batch)?.convert_columns(batch.columns()).map_err(broken)?;
        let fresh: BooleanArray = rows.iter().map(|row| Some(!self.live.contains(&row.owned()))).collect();
        filter_record_batch(batch, &fresh).map_err(broken)
    }
}

fn rows_of(batches: &[RecordBatch]) -> Result<HashSet<OwnedRow>, Failure> {
    let mut all = HashSet::new();
    for batch in batches {
        let rows = converter(batch)?.convert_columns(batch.columns());
        let rows = rows.map_err(|why| Failure::of("rows cannot be told apart", why))?;
        all.extend(rows.iter().map(|row| row.owned()));
    }
    Ok(all)
}

fn converter(batch: &RecordBatch) -> Result<RowConverter, Failure> {
    let fields = batch.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    RowConverter::new(fields).map_err(|why| Failure::of("rows cannot be told apart", why))
}

/// Set by Ctrl-C or a request to end.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    daemon::stop_flag().map_err(|why| Failure::of("cannot listen for Ctrl-C", why))
}
