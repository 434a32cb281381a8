//! The log on a real disk that fills up, and under a real kill -9.

use flow::FlowKey;
use flowlog::{Error, Options, Writer, read_records};
use model::record::{
    DirectionRule, End, EndReason, Entity, FlowEvent, FlowRecord, FlowSource, FlowVerdict, ObservedAt,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// 2026-07-01T10:20:00Z.
const T0: i64 = 1_782_901_200 * 1_000_000_000;

fn record(number: u32) -> FlowRecord {
    let end = |ip: [u8; 4], port| End {
        ip: ip.into(),
        port,
        entity: Entity::Outside,
        namespace: None,
        name: None,
        pod_uid: None,
        workload: None,
        unknown_reason: None,
    };
    let [a, b, c, d] = number.to_be_bytes();
    let (client, server) = (end([a, b, c, d], 40_000), end([10, 0, 0, 1], 443));
    FlowRecord {
        flow_id: format!("{number:016x}"),
        community_id: format!("1:{number:027}="),
        service: None,
        dns_name: None,
        node: "node-1".into(),
        sampling: 1,
        event: FlowEvent {
            key: FlowKey {
                source: client.ip.into(),
                destination: server.ip.into(),
                source_port: client.port,
                destination_port: server.port,
                protocol: flow::TCP,
            },
            direction_rule: DirectionRule::Syn,
            observed_at: ObservedAt::Wire,
            flow_start: T0,
            start: T0 + i64::from(number),
            end: T0 + i64::from(number),
            packets_to_server: 1,
            packets_to_client: 1,
            bytes_to_server: 40,
            bytes_to_client: 40,
            tcp_flags_to_server: 2,
            tcp_flags_to_client: 18,
            adopted: false,
            verdict: FlowVerdict::Observed,
            reason: "".into(),
            rule: None,
            policy_generation: 0,
            staged_verdict: FlowVerdict::Observed,
            staged_reason: "".into(),
            end_reason: EndReason::Active,
            rtt_us: None,
            interface: "eth0".into(),
            source: FlowSource::Pcap,
        },
        client,
        server,
    }
}

fn open(root: &Path) -> Writer {
    let options = Options { rows_per_batch: 16, rows_per_segment: 256, ..Options::default() };
    Writer::open(root, "prod", "node-1", options, T0).unwrap()
}

/// A file system of 400 kB in a mount namespace of this thread's own, which takes it along when it ends.
fn small_disk(folder: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=400k"))
}

#[test]
fn a_full_disk_is_an_error_a_gap_and_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let filled = thread::spawn(move || {
        if let Err(why) = small_disk(&root) {
            let required = std::env::var("PODFENCE_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|what| what == "kernel"), "PODFENCE_REQUIRE=kernel, and no mount: {why}");
            println!("skipped: mounting a small file system needs root: {why}");
            return;
        }
        fill_and_free(&root);
    });
    filled.join().unwrap();
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "the mount was the thread's own");
}

fn fill_and_free(root: &Path) {
    let ballast = root.join("ballast");
    std::fs::write(&ballast, vec![1; 200_000]).unwrap();
    let mut writer = open(root);
    let mut lost_at = None;
    for number in 0..6_000 {
        if let Err(error) = writer.append(&record(number)) {
            assert!(matches!(error, Error::Full { .. }), "{error}");
            lost_at.get_or_insert(number);
        }
    }
    assert!(lost_at.is_some(), "6,000 rows do not fit");
    let lost = writer.counts().lost;
    assert!(lost > 0);
    std::fs::remove_file(&ballast).unwrap();
    writer.append(&record(6_000)).unwrap();
    writer.close().unwrap();
    let (records, gaps, summary) = read_records(root).unwrap();
    assert_eq!(summary.damaged, []);
    assert_eq!(records.len() as u64 + lost, 6_001, "each row is in the log or counted as lost");
    assert_eq!(gaps.iter().map(|gap| gap.lost).sum::<u64>(), lost);
    assert!(gaps.iter().all(|gap| &*gap.reason == "log-full"));
}

/// Names the folder that this program, run again as a child, writes to until it is killed.
const CHILD: &str = "PODFENCE_TEST_LOG";

#[test]
fn what_was_flushed_survives_kill_9() {
    if let Some(root) = std::env::var_os(CHILD) {
        return write_for_ever(Path::new(&root));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_was_flushed_survives_kill_9", "--nocapture"])
        .env(CHILD, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut flushed = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("flushed ")?.parse().ok());
    let flushed: u32 = flushed.find(|flushed| *flushed >= 1_000).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    open(folder.path()).close().unwrap();
    let (records, _, summary) = read_records(folder.path()).unwrap();
    assert_eq!(summary.damaged, []);
    assert!(records.len() >= flushed as usize, "{} rows of {flushed} flushed ones", records.len());
    let ids: std::collections::BTreeSet<_> = records.iter().map(|record| record.flow_id.clone()).collect();
    let expected: std::collections::BTreeSet<_> = (0..records.len() as u32).map(|n| record(n).flow_id).collect();
    assert_eq!(ids, expected, "all rows up to some row, and each once");
}

fn write_for_ever(root: &Path) {
    let mut writer = open(root);
    for number in 0.. {
        writer.append(&record(number)).unwrap();
        if number % 10 == 9 {
            writer.flush().unwrap();
            // A parent that is gone ends this too.
            println!("\nflushed {}", number + 1);
        }
    }
}
