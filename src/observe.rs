//! `observe`: packets into a flow log, and what became of them.

use crate::{
    cluster,
    ending::{Ending, Failure, warn},
    flows::stop_flag,
    output::{self, Table},
    typed, when,
};
use daemon::CLUSTER;
use flowlog::Writer;
use jiff::Timestamp;
use miette::Result;
use model::view::AddressView;
use observer::{MeterOptions, Observer, Summary};
use std::{collections::BTreeMap, io::Write as _, path::Path};

pub(crate) fn run(typed: &typed::Observe) -> Result<Ending> {
    let imports = typed.import.iter().map(|import| import_file(import)).collect::<Result<Vec<_>, _>>()?;
    let view = match &typed.cluster {
        Some(path) => AddressView::new(&cluster::read(path)?),
        None => AddressView::default(),
    };
    let node = typed.node.clone().unwrap_or_else(daemon::this_machine);
    let now = when::nanos(Timestamp::now());
    let open = Writer::open(&typed.log, CLUSTER, &node, flowlog::Options::default(), now);
    let writer = open.map_err(|why| Failure::whole(&why))?;
    let mut observer = Observer::new(writer, view, &node, &format!("{node}-{now}"));
    let observed = match &typed.interface {
        Some(interface) => live(interface, &mut observer),
        None if !imports.is_empty() => imported(&imports, &mut observer),
        None => captures(&typed.pcap, &mut observer),
    };
    let unknown = observer.unknown_ends().clone();
    let closed = observer.close().map_err(|why| Failure::of("the log is not complete", why));
    let summaries = observed?;
    let (_, counts) = closed?;
    show(&summaries, &unknown, counts.lost).map_err(output::failed)?;
    Ok(Ending::Done)
}

fn live(interface: &str, observer: &mut Observer) -> Result<Vec<(String, Summary)>, Failure> {
    let stop = stop_flag()?;
    eprintln!("watching {interface} until Ctrl-C");
    let summary = observer::observe_interface(interface, MeterOptions::default(), &stop, observer)
        .map_err(|why| Failure::whole(&why))?;
    Ok(vec![(interface.to_owned(), summary)])
}

/// The file of `flows=FILE`.
fn import_file(typed: &str) -> Result<&Path, Failure> {
    match typed.split_once('=') {
        Some(("flows", file)) if !file.is_empty() => Ok(Path::new(file)),
        Some((kind, _)) if kind != "flows" => {
            Err(Failure::new(format!("--import: `{kind}` is no kind of import"), "write flows=FILE"))
        }
        _ => Err(Failure::new(format!("--import: `{typed}` names no file"), "write flows=FILE")),
    }
}

fn imported(files: &[&Path], observer: &mut Observer) -> Result<Vec<(String, Summary)>, Failure> {
    let one = |file: &&Path| {
        let busy = output::busy(format!("reads {}", file.display()));
        let imported = observer::observe_import(file, observer);
        drop(busy);
        let flows = imported.map_err(|why| Failure::whole(&why))?.flows;
        Ok((file.display().to_string(), Summary { flows, slices: flows, ..Summary::default() }))
    };
    files.iter().map(one).collect()
}

fn captures(files: &[std::path::PathBuf], observer: &mut Observer) -> Result<Vec<(String, Summary)>, Failure> {
    files.iter().map(|file| Ok((file.display().to_string(), capture(file, observer)?))).collect()
}

fn capture(file: &Path, observer: &mut Observer) -> Result<Summary, Failure> {
    let busy = output::busy(format!("reads {}", file.display()));
    let summary = observer::observe_file(file, MeterOptions::default(), observer);
    drop(busy);
    let summary = summary.map_err(|why| Failure::whole(&why))?;
    summary.ended_early.iter().for_each(|early| warn(&early.to_string()));
    Ok(summary)
}

fn show(summaries: &[(String, Summary)], unknown: &BTreeMap<&'static str, u64>, lost: u64) -> std::io::Result<()> {
    let mut out = output::stdout();
    let mut table = Table::new(["SOURCE", "PACKETS", "BYTES", "FLOWS", "ROWS", "SKIPPED", "DROPPED", "EVICTED"]);
    for (name, s) in summaries {
        let counts = [s.packets, s.bytes, s.flows, s.slices, s.skipped.total(), s.dropped, s.evicted];
        table.row(std::iter::once(name.clone()).chain(counts.iter().map(u64::to_string)));
    }
    table.write(&mut out)?;
    let mut skipped: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, packets) in summaries.iter().flat_map(|(_, summary)| &summary.skipped.by_reason) {
        *skipped.entry(reason).or_default() += packets;
    }
    reasons(&mut out, "skipped packets", skipped.iter().map(|(reason, n)| (*reason, *n)))?;
    reasons(&mut out, "unknown ends", unknown.iter().map(|(reason, n)| (*reason, *n)))?;
    if lost > 0 {
        writeln!(out, "rows that could not be written: {lost}")?;
    }
    out.flush()
}

/// `what: 12 reason, 3 other`; nothing where there is none.
fn reasons<'r>(
    out: &mut impl std::io::Write,
    what: &str,
    by_reason: impl Iterator<Item = (&'r str, u64)>,
) -> std::io::Result<()> {
    let parts: Vec<String> = by_reason.map(|(reason, n)| format!("{n} {reason}")).collect();
    if parts.is_empty() { Ok(()) } else { writeln!(out, "{what}: {}", parts.join(", ")) }
}
