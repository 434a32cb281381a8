//! An answer as text: tables for people, JSON and CSV for programs; always with what a terminal would obey escaped.

use crate::{ending::Failure, escape, output, output::Table, typed::FlowsOutput, when};
use datafusion::arrow::{
    array::{Array as _, AsArray as _},
    datatypes::Int64Type,
    error::ArrowError,
    json::LineDelimitedWriter,
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use std::io::{self, BufWriter, StdoutLock, Write};

/// Columns that the tables of flows need.
pub(crate) const TABLE_COLUMNS: &str = "start_ns, end_ns, flow_id, \
    client_ip, client_port, client_namespace, client_workload, client_pod, client_name, client_entity, \
    server_ip, server_port, server_namespace, server_workload, server_pod, server_name, server_entity, \
    protocol, verdict, reason, packets_to_server, packets_to_client, bytes_to_server, bytes_to_client, \
    policy_namespace, policy_name, policy_rule, service, direction_rule, observed_at, end_reason, rtt_us, node, source";

const COLUMNS: [&str; 9] = ["TIME", "CLIENT", "SERVER", "PROTOCOL", "PORT", "VERDICT", "REASON", "PACKETS", "BYTES"];
const MORE_COLUMNS: [&str; 10] =
    ["CLIENT-IP", "SERVER-IP", "SERVICE", "POLICY", "DIRECTION", "SEEN-AT", "END", "RTT-US", "NODE", "FLOW"];

/// Whether rows are flows, which have a table of their own, or whatever a query made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    Flows,
    Any,
}

/// Prints batch after batch in one form.
pub(crate) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    form: FlowsOutput,
    rows: Rows,
    widths: Vec<usize>,
    begun: bool,
    printed: u64,
}

impl Printer {
    pub(crate) fn new(form: FlowsOutput, rows: Rows) -> Self {
        Self { out: output::stdout(), form, rows, widths: Vec::new(), begun: false, printed: 0 }
    }

    /// One more part of the answer.
    pub(crate) fn print(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let printed = match self.form {
            FlowsOutput::Table | FlowsOutput::Wide => self.table(batch),
            FlowsOutput::Json => self.json(batch),
            FlowsOutput::Jsonl => self.jsonl(batch),
            FlowsOutput::Csv => self.csv(batch),
        };
        self.printed += batch.num_rows() as u64;
        self.begun = true;
        printed.map_err(output::failed)
    }

    /// What was printed so far reaches its reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(output::failed)
    }

    /// The end of the answer.
    pub(crate) fn end(mut self) -> Result<u64, Failure> {
        let closed = match (self.form, self.printed) {
            (FlowsOutput::Json, 0) => self.out.write_all(b"[]\n"),
            (FlowsOutput::Json, _) => self.out.write_all(b"\n]\n"),
            _ => Ok(()),
        };
        closed.map_err(output::failed)?;
        self.flush()?;
        Ok(self.printed)
    }

    fn table(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let table = match self.rows {
            Rows::Flows => flows_table(batch, self.form == FlowsOutput::Wide),
            Rows::Any => any_table(batch).map_err(io::Error::other)?,
        };
        if table.is_empty() && self.rows == Rows::Flows {
            return Ok(());
        }
        let first = self.widths.is_empty();
        self.widths = table.widths(&self.widths);
        if first {
            table.write_header(&mut self.out, &self.widths)?;
        }
        table.write_rows(&mut self.out, &self.widths)
    }

    fn json(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let text = lines(batch).map_err(io::Error::other)?;
        for (index, line) in text.lines().enumerate() {
            let before: &[u8] = if self.printed == 0 && index == 0 { b"[\n" } else { b",\n" };
            self.out.write_all(before)?;
            self.out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn jsonl(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.out.write_all(lines(batch).map_err(io::Error::other)?.as_bytes())
    }

    fn csv(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(&mut self.out);
        if !self.begun {
            csv.write_record(batch.schema().fields().iter().map(|field| escape::printable(field.name()).into_owned()))?;
        }
        let cells = Cells::new(batch).map_err(io::Error::other)?;
        for row in 0..batch.num_rows() {
            csv.write_record((0..batch.num_columns()).map(|column| cells.text(column, row)))?;
        }
        csv.flush()
    }
}

/// One object a line.
fn lines(batch: &RecordBatch) -> Result<String, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut bytes);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    let text = String::from_utf8(bytes).map_err(|e| ArrowError::JsonError(e.to_string()))?;
    Ok(escape::json(&text).into_owned())
}

/// Any column's values as text.
struct Cells<'b>(Vec<ArrayFormatter<'b>>);

impl<'b> Cells<'b> {
    fn new(batch: &'b RecordBatch) -> Result<Self, ArrowError> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_null("");
        let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &OPTIONS));
        Ok(Self(formatters.collect::<Result<_, _>>()?))
    }

    fn text(&self, column: usize, row: usize) -> String {
        let text = self.0[column].value(row).try_to_string().unwrap_or_default();
        escape::printable(&text).into_owned()
    }
}

fn any_table(batch: &RecordBatch) -> Result<Table, ArrowError> {
    let schema = batch.schema();
    let mut table = Table::new(schema.fields().iter().map(|field| escape::printable(field.name()).to_uppercase()));
    let cells = Cells::new(batch)?;
    for row in 0..batch.num_rows() {
        table.row((0..batch.num_columns()).map(|column| cells.text(column, row)));
    }
    Ok(table)
}

fn flows_table(batch: &RecordBatch, wide: bool) -> Table {
    let more: &[&str] = if wide { &MORE_COLUMNS } else { &[] };
    let mut table = Table::new(COLUMNS.iter().chain(more).copied());
    for row in 0..batch.num_rows() {
        let flow = Flow { batch, row };
        let mut cells = flow.cells();
        if wide {
            cells.extend(flow.more_cells());
        }
        table.row(cells);
    }
    table
}

/// One row of flows.
struct Flow<'b> {
    batch: &'b RecordBatch,
    row: usize,
}

impl Flow<'_> {
    fn cells(&self) -> Vec<String> {
        vec![
            self.number("start_ns").map(when::shown).unwrap_or_default(),
            self.who("client"),
            self.who("server"),
            self.text("protocol"),
            self.text("server_port"),
            self.text("verdict"),
            self.text("reason"),
            self.sum("packets_to_server", "packets_to_client"),
            self.sum("bytes_to_server", "bytes_to_client"),
        ]
    }

    fn more_cells(&self) -> Vec<String> {
        let policy = match self.text("policy_name").as_str() {
            "" => String::new(),
            name => format!("{}/{name} {}", self.text("policy_namespace"), self.text("policy_rule")),
        };
        let more = ["direction_rule", "observed_at", "end_reason", "rtt_us", "node", "flow_id"];
        [self.socket("client"), self.text("server_ip"), self.text("service"), policy]
            .into_iter()
            .chain(more.iter().map(|column| self.text(column)))
            .collect()
    }

    /// The name a person knows it by: workload, else pod, Service or node, else the address.
    fn who(&self, end: &str) -> String {
        let of = |what: &str| self.text(&format!("{end}_{what}"));
        let name = ["workload", "pod", "name"].into_iter().map(of).find(|name| !name.is_empty());
        match (name, of("namespace").as_str(), of("entity").as_str()) {
            (Some(name), "", "node") => format!("node/{name}"),
            (Some(name), "", _) => name,
            (Some(name), namespace, _) => format!("{namespace}/{name}"),
            (None, ..) => of("ip"),
        }
    }

    fn socket(&self, end: &str) -> String {
        let (ip, port) = (self.text(&format!("{end}_ip")), self.text(&format!("{end}_port")));
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    }

    fn text(&self, column: &str) -> String {
        let Some(values) = self.batch.column_by_name(column) else { return String::new() };
        let shown = ArrayFormatter::try_new(values.as_ref(), &FormatOptions::new());
        shown.and_then(|shown| shown.value(self.row).try_to_string()).unwrap_or_default()
    }

    fn number(&self, column: &str) -> Option<i64> {
        let values = self.batch.column_by_name(column)?.as_primitive_opt::<Int64Type>()?;
        (!values.is_null(self.row)).then(|| values.value(self.row))
    }

    fn sum(&self, one: &str, other: &str) -> String {
        let of = |column| self.number(column).unwrap_or_default();
        of(one).saturating_add(of(other)).to_string()
    }
}
