//! `status`: how enforcement stands on this node.

use crate::{
    ending::{Ending, warn},
    escape,
    output::{self, Table},
    socket,
    typed::{self, StatusOutput},
    when,
};
use agent::{Report, report::Endpoint};
use std::io::{self, Write};

pub(crate) fn run(typed: &typed::Status) -> miette::Result<Ending> {
    let (text, report): (String, Report) = socket::ask(&typed.socket, "/status")?;
    let mut out = output::stdout();
    let shown = match typed.output {
        StatusOutput::Json => out.write_all(escape::json(&text).as_bytes()),
        StatusOutput::Table => table(&report, &mut out),
        StatusOutput::Wide => wide(&report, &mut out),
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)?;
    let problems = report.problems();
    problems.iter().for_each(|problem| warn(problem));
    Ok(if problems.is_empty() { Ending::Done } else { Ending::Reported })
}

fn table(report: &Report, out: &mut impl Write) -> io::Result<()> {
    about(report).write(out)?;
    fill(report, out)?;
    writeln!(out)?;
    let mut pods = Table::new(["POD", "MODE", "LINK", "NOT-COVERED"]);
    for pod in &report.endpoints {
        pods.row([pod.pod.as_str(), &pod.mode, link(pod), pod.not_covered.as_deref().unwrap_or_default()]);
    }
    pods.write(out)?;
    prefixes(report, out)?;
    foreign(report, out)?;
    links(report, out)?;
    kept(report, out)?;
    counters(report, out)
}

/// Pods that have addresses beside their own.
fn prefixes(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["POD", "SOURCE-PREFIXES"]);
    for pod in report.endpoints.iter().filter(|pod| !pod.source_prefixes.is_empty()) {
        table.row([pod.pod.clone(), pod.source_prefixes.join(" ")]);
    }
    if table.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table.write(out)
}

/// Pods that send from addresses that are not their own.
fn foreign(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["POD", "SENDS-FROM", "EVENTS", "LAST"]);
    for pod in &report.endpoints {
        for source in &pod.foreign_sources {
            let address = source.address.map(|address| address.to_string()).unwrap_or_default();
            table.row([pod.pod.clone(), address, source.events.to_string(), when::shown(source.last_ns)]);
        }
        if pod.foreign_left_out > 0 {
            table.row([pod.pod.clone(), "others".to_owned(), pod.foreign_left_out.to_string(), String::new()]);
        }
    }
    if table.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table.write(out)
}

/// Policies that are gone and stay in force for now.
fn kept(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.kept_policies.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut table = Table::new(["POLICY", "IN-FORCE-THOUGH-GONE"]);
    for policy in &report.kept_policies {
        table.row([&policy.policy, &policy.why]);
    }
    table.write(out)
}

/// What the kernel's tables take, and which is the fullest.
fn fill(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let bytes: u64 = report.tables.iter().filter_map(|table| table.bytes).sum();
    let counted = report.tables.iter().filter_map(|table| Some((table, table.entries?)));
    let fullest = counted.max_by_key(|(table, entries)| entries.saturating_mul(1_000_000) / table.room.max(1));
    let fullest =
        fullest.map(|(table, entries)| format!("; the fullest: {} with {entries} of {}", table.name, table.room));
    let memory = bytes as f64 / f64::from(1 << 20);
    writeln!(out, "\ntables: {memory:.1} MiB of the kernel's memory{}", fullest.unwrap_or_default())
}

/// Links that lead to no pod, what stands before our programs, and links that one half of connections crosses.
fn links(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["LINK", "WHAT"]);
    for uncovered in &report.uncovered_links {
        table.row([&uncovered.link.name, &uncovered.why]);
    }
    for overtaken in &report.overtaken {
        table.row([&overtaken.link, &overtaken.what]);
    }
    for half in &report.half_links {
        let pod = report.endpoints.iter().find(|pod| pod.pod == half.pod);
        table.row([pod.map_or("", link), &half.what]);
    }
    if table.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table.write(out)
}

fn wide(report: &Report, out: &mut impl Write) -> io::Result<()> {
    about(report).write(out)?;
    writeln!(out)?;
    let header = ["POD", "MODE", "LINK", "ADDRESSES", "SLOT", "STAGED", "GENERATION", "EPOCH"];
    let counted = ["HALF-OPEN", "ESTABLISHED", "DENIED", "NOT-COVERED"];
    let mut pods = Table::new(header.into_iter().chain(counted));
    for pod in &report.endpoints {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let staged = if pod.staged_slot == 0 { String::new() } else { pod.staged_slot.to_string() };
        let held = &pod.connections;
        pods.row([
            pod.pod.clone(),
            pod.mode.clone(),
            link(pod).to_owned(),
            addresses.join(","),
            pod.slot.to_string(),
            staged,
            pod.generation.to_string(),
            pod.epoch.to_string(),
            held.half_open.to_string(),
            held.established.to_string(),
            held.denied.to_string(),
            pod.not_covered.clone().unwrap_or_default(),
        ]);
    }
    pods.write(out)?;
    prefixes(report, out)?;
    foreign(report, out)?;
    links(report, out)?;
    kept(report, out)?;
    writeln!(out)?;
    let mut tables = Table::new(["TABLE", "ENTRIES", "ROOM", "BYTES"]);
    for table in &report.tables {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        tables.row([table.name.clone(), number(table.entries), table.room.to_string(), number(table.bytes)]);
    }
    tables.write(out)?;
    counters(report, out)?;
    if report.window.links > 0 {
        writeln!(
            out,
            "\nlinks that came while it ran: {}; without a program for {:.1} ms at most",
            report.window.links,
            report.window.longest_ns as f64 / 1e6
        )?;
    }
    if report.events.corrected_shares > 0 {
        writeln!(
            out,
            "\nshares of pods in the connection table that had lost count and were corrected: {}",
            report.events.corrected_shares
        )?;
    }
    for drift in &report.self_check.last {
        let line = format!(
            "differs: {}: the loaded tables say {}, the reference evaluator {} ({})",
            drift.question,
            drift.kernel,
            drift.expected,
            when::shown(drift.at_ns)
        );
        writeln!(out, "{}", escape::printable(&line))?;
    }
    Ok(())
}

fn link(pod: &Endpoint) -> &str {
    pod.link.as_ref().map_or("", |link| &link.name)
}

fn about(report: &Report) -> Table {
    let mut about = Table::new([
        "NODE",
        "SOURCE",
        "UPDATED",
        "COVERED",
        "NOT-COVERED",
        "HOOKS",
        "PINS",
        "CHECKED",
        "DIFFER",
        "STARTED",
    ]);
    let uncovered = report.endpoints.iter().filter(|pod| pod.not_covered.is_some()).count();
    let updated = if report.source.updated_ns == 0 { String::new() } else { when::shown(report.source.updated_ns) };
    about.row([
        report.node.clone(),
        report.source.from.clone(),
        updated,
        (report.endpoints.len() - uncovered).to_string(),
        uncovered.to_string(),
        report.attachment.clone(),
        report.pins.clone().unwrap_or_default(),
        report.self_check.checked.to_string(),
        report.self_check.drifted.to_string(),
        when::shown(report.started_ns),
    ]);
    about
}

/// What became of packets, the most first.
fn counters(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.counters.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut counters = report.counters.clone();
    counters.sort_by(|a, b| (b.packets, &a.reason, &a.direction).cmp(&(a.packets, &b.reason, &b.direction)));
    let header = ["REASON", "DIRECTION", "DONE", "PACKETS", "BYTES", "EVENTS", "SUPPRESSED", "LOST"];
    let mut table = Table::new(header);
    for count in &counters {
        let done = match (count.allows, count.dropped) {
            (true, _) => "passed",
            (false, false) => "passed, logged",
            (false, true) => "dropped",
        };
        let numbers = [count.packets, count.bytes, count.events, count.suppressed, count.lost];
        let words = [count.reason.clone(), count.direction.clone(), done.to_owned()];
        table.row(words.into_iter().chain(numbers.iter().map(u64::to_string)));
    }
    table.write(out)
}
