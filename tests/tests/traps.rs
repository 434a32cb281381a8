//! Every trap of identity as a folder: a cluster (or a recorded watch of one), flows, and what must come of them.
//!
//! `PODFENCE_UPDATE=1` writes the expected files anew; read every line of the difference.

use flowlog::Writer;
use generator::{Nodes, Options, Refused, naming, render, synthesize};
use model::{
    cluster::Cluster,
    ledger::Ledger,
    record::{End, Entity, FlowRecord},
    view::AddressView,
    yaml::write_policy,
};
use observer::{attribute, each_event};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

fn folders() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/examples/traps");
    let entries = fs::read_dir(&all).expect("the folder of traps").map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[test]
fn every_trap_gives_what_is_expected_of_it() {
    let folders = folders();
    assert!(folders.len() >= 17, "traps are missing: {folders:?}");
    let update = std::env::var_os("PODFENCE_UPDATE").is_some();
    let mut wrong = Vec::new();
    for folder in &folders {
        assert!(folder.join("README.md").is_file(), "{}: no README.md says what the trap is", folder.display());
        for (name, text) in outputs(folder) {
            let path = folder.join("expected").join(name);
            if update {
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                fs::write(&path, &text).expect("written");
            } else if fs::read_to_string(&path).unwrap_or_default() != text {
                wrong.push(format!("{}:\n{text}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
}

fn outputs(folder: &Path) -> [(&'static str, String); 3] {
    let cluster = inventory::read(&[folder.join("cluster.json")]).expect("a cluster");
    let records = records(folder, &cluster);
    let mut ledger = Ledger::default();
    let node: Arc<str> = "node-1".into();
    records.iter().for_each(|record| ledger.add(&node, record));
    let (summary, policies) = generated(&ledger, &cluster);
    let rows: String = records.iter().map(row).collect();
    [("records.txt", rows), ("SUMMARY.txt", summary), ("policies.yaml", policies)]
}

fn records(folder: &Path, cluster: &Cluster) -> Vec<FlowRecord> {
    let (view, node, mut all) = (AddressView::new(cluster), "node-1".into(), Vec::new());
    let read = each_event(&folder.join("flows.jsonl"), &mut |event| {
        all.push(attribute(&view, &node, event));
        Ok(())
    });
    read.expect("flows");
    all
}

/// A flow in one line: when and where it was seen, both ends, and what it teaches.
fn row(record: &FlowRecord) -> String {
    let time = jiff::Timestamp::from_nanosecond(record.event.start.into()).expect("a time");
    let mut alone = Ledger::default();
    alone.add(&record.node, record);
    let teaches = match alone.edges.keys().next() {
        Some(edge) => format!("teaches {}", naming::edge(edge)),
        None => format!("teaches nothing: {}", alone.unfit_summary().join("; ")),
    };
    let service = record.service.as_deref().map_or(String::new(), |service| format!(", through Service {service}"));
    let (client, server) = (end(&record.client), end(&record.server));
    format!("{time:.3} at {}: {client} -> {server}{service}; {teaches}\n", record.event.observed_at)
}

fn end(end: &End) -> String {
    let mut text = format!("{} {}", end.ip, end.entity);
    if let (Entity::Pod, Some(namespace), Some(name)) = (end.entity, &end.namespace, &end.name) {
        let _ = write!(text, " {namespace}/{name}");
    }
    if let Some(workload) = &end.workload {
        let _ = write!(text, " of {workload}");
    }
    if let Some(reason) = end.unknown_reason {
        let _ = write!(text, " ({reason})");
    }
    text
}

/// What `generate` says; where it asks about nodes, its question, and what follows when the answer is to let them in.
fn generated(ledger: &Ledger, cluster: &Cluster) -> (String, String) {
    let mut summary = String::new();
    let mut options = Options::default();
    let mut done = synthesize(ledger, cluster, &options);
    if let Err(why @ Refused::NodeIngress(_)) = &done {
        let _ = writeln!(summary, "refused: {why}\n\nwith --nodes allow:\n");
        options.nodes = Some(Nodes::Allow);
        done = synthesize(ledger, cluster, &options);
    }
    let generated = done.expect("policies");
    summary += &render::summary(&generated);
    (summary, generated.policies.policies.iter().map(write_policy).collect())
}

#[test]
fn what_a_flow_teaches_does_not_depend_on_the_way_through_the_log() {
    for folder in folders() {
        let cluster = inventory::read(&[folder.join("cluster.json")]).expect("a cluster");
        let log = tempfile::Builder::new().prefix("podfence-traps-").tempdir().expect("a folder");
        let writer = Writer::open(log.path(), "c", "node-1", flowlog::Options::default(), 0).expect("a log");
        let mut observer = observer::Observer::new(writer, AddressView::new(&cluster), "node-1", "node-1");
        observer::observe_import(&folder.join("flows.jsonl"), &mut observer).expect("flows");
        let (ledger, counts) = observer.close().expect("closed");
        let records = records(&folder, &cluster);
        assert_eq!((counts.rows, counts.lost), (records.len() as u64, 0), "{}", folder.display());
        let (mut read, _, _) = flowlog::read_records(log.path()).expect("the log");
        let (mut told, key) = (records, |record: &FlowRecord| (record.event.start, record.flow_id.clone()));
        read.sort_by_key(key);
        told.sort_by_key(key);
        assert_eq!(read, told, "{}", folder.display());
        let (mut direct, node): (_, Arc<str>) = (Ledger::default(), "node-1".into());
        told.iter().for_each(|record| direct.add(&node, record));
        assert_eq!(ledger, direct, "{}", folder.display());
    }
}
