//! The writer under crashes, full disks, damage and time.

use super::*;
use crate::{
    arbitrary::{T0, any_rows, record},
    read_records, segments,
};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

const HOUR: i64 = 3600 * SECOND;

fn small() -> Options {
    Options { rows_per_batch: 10, rows_per_segment: 100, ..Options::default() }
}

fn open(root: &Path, options: Options) -> Writer {
    Writer::open(root, "prod", "node-1", options, T0).unwrap()
}

fn flow_ids(root: &Path) -> Vec<String> {
    let mut ids: Vec<String> = read_records(root).unwrap().0.into_iter().map(|record| record.flow_id).collect();
    ids.sort();
    ids
}

fn ids_of(numbers: std::ops::Range<u32>) -> Vec<String> {
    let mut ids: Vec<String> = numbers.map(|number| record(number, T0).flow_id).collect();
    ids.sort();
    ids
}

/// Every file below a folder, by its path from there.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found
}

#[test]
fn what_is_written_is_read_whether_in_segments_or_not() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(root.path(), small());
    for number in 0..235 {
        writer.append(&record(number, T0)).unwrap();
    }
    writer.flush().unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..235));
    let listing = segments(root.path()).unwrap();
    assert_eq!(listing.segments.len(), 2, "two times 100 rows are in segments");
    assert_eq!(listing.wals.len(), 1);
    assert_eq!(listing.segments[0].node, "node-1");
    writer.close().unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..235));
    assert!(segments(root.path()).unwrap().wals.is_empty());
}

#[test]
fn a_segment_lies_in_the_folder_of_its_rows_hour() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(root.path(), small());
    writer.append(&record(1, T0)).unwrap();
    writer.append(&record(2, T0 + HOUR)).unwrap();
    writer.append(&record(3, T0 - HOUR)).unwrap();
    writer.append(&record(4, T0 + 1)).unwrap();
    writer.close().unwrap();
    let folders: Vec<String> =
        files(root.path()).iter().map(|path| path.rsplit_once('/').unwrap().0.to_owned()).collect();
    let hour = |hour| format!("cluster=prod/date=2026-07-01/hour={hour}/on_node=node-1");
    assert_eq!(folders, [hour("09"), hour("10"), hour("11")]);
}

#[test]
fn names_cannot_leave_the_log() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(root.path(), "../prod/ü", "a/b=c%", small(), T0).unwrap();
    writer.append(&record(1, T0)).unwrap();
    writer.close().unwrap();
    let paths = files(root.path());
    assert_eq!(paths.len(), 1);
    let path = paths.first().unwrap();
    assert!(path.starts_with("cluster=..%2Fprod%2F%C3%BC/date="), "{path}");
    assert!(path.contains("/on_node=a%2Fb%3Dc%25/"), "{path}");
    let listing = segments(root.path()).unwrap();
    assert_eq!((listing.segments[0].cluster.as_str(), listing.segments[0].node.as_str()), ("../prod/ü", "a/b=c%"));
}

#[test]
fn a_killed_writer_loses_only_what_it_did_not_hand_over() {
    let root = tempfile::tempdir().unwrap();
    let mut dead = open(root.path(), small());
    for number in 0..25 {
        dead.append(&record(number, T0)).unwrap();
    }
    drop(dead); // As after kill -9: nothing is flushed.
    assert_eq!(flow_ids(root.path()), ids_of(0..20), "readable before anyone recovers it");
    let writer = open(root.path(), small());
    assert_eq!(writer.counts().recovered, 20);
    assert_eq!(flow_ids(root.path()), ids_of(0..20));
    writer.close().unwrap();
    assert!(files(root.path()).iter().all(|path| path.ends_with(".parquet")));
}

#[test]
fn a_torn_batch_is_a_gap_and_all_before_it_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut dead = open(root.path(), small());
    for number in 0..30 {
        dead.append(&record(number, T0)).unwrap();
    }
    let path = dead.log.as_ref().unwrap().path.clone();
    drop(dead);
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 5).unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..20), "a torn batch is not read");
    open(root.path(), small()).close().unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..20));
    let (_, gaps, _) = read_records(root.path()).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!((&*gaps[0].reason, gaps[0].lost, &*gaps[0].node), ("log-torn", 10, "node-1"));
    assert!(gaps[0].start <= gaps[0].end);
}

#[test]
fn a_crash_between_rename_and_removal_shows_no_row_twice() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(root.path(), small());
    for number in 0..50 {
        writer.append(&record(number, T0 + i64::from(number) * HOUR / 20)).unwrap();
    }
    let log = writer.log.as_ref().unwrap();
    let (file, _) = disk::open(&log.path).unwrap();
    segment::finish(&writer.place, &log.id, &file, log.whole).unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..50), "the write-ahead file and its segments are both there");
    drop(writer);
    open(root.path(), small()).close().unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..50));
}

#[test]
fn a_living_writer_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut first = open(root.path(), small());
    let mut second = open(root.path(), small());
    for number in 0..60 {
        let writer = if number % 2 == 0 { &mut first } else { &mut second };
        writer.append(&record(number, T0)).unwrap();
    }
    assert_eq!(open(root.path(), small()).counts().recovered, 0);
    first.close().unwrap();
    second.close().unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..60));
}

fn with_room(root: &Path, bytes: usize) -> (Writer, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(bytes));
    let room = Room { left: Some(left.clone()) };
    (Writer::open_in(room, root, "prod", "node-1", small(), T0).unwrap(), left)
}

#[test]
fn a_full_disk_keeps_what_was_written_and_tells_what_was_not() {
    let root = tempfile::tempdir().unwrap();
    let (mut writer, left) = with_room(root.path(), 60_000);
    let mut errors = Vec::new();
    for number in 0..80 {
        errors.extend(writer.append(&record(number, T0 + i64::from(number))).err());
    }
    assert!(!errors.is_empty(), "60 kB do not hold 80 rows");
    let text = errors.last().unwrap().to_string();
    assert!(text.starts_with("no room for the flow log at "), "{text}");
    let lost = writer.counts().lost;
    assert!(text.contains(&format!("; {lost} rows are lost so far")), "{text}");
    let kept = 80 - u32::try_from(lost).unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..kept), "what was written stays readable");

    left.store(usize::MAX, Relaxed);
    for number in 80..100 {
        writer.append(&record(number, T0 + i64::from(number))).unwrap();
    }
    writer.close().unwrap();
    let mut expected = [ids_of(0..kept), ids_of(80..100)].concat();
    expected.sort();
    assert_eq!(flow_ids(root.path()), expected);
    let (_, gaps, summary) = read_records(root.path()).unwrap();
    assert_eq!(summary.damaged, []);
    assert_eq!(gaps.len(), 1, "one gap, written once");
    assert_eq!((&*gaps[0].reason, gaps[0].lost), ("log-full", lost));
    assert_eq!((gaps[0].start, gaps[0].end), (T0 + i64::from(kept), T0 + 79 + 1_000_000));
}

#[test]
fn a_segment_that_does_not_fit_leaves_nothing_half_written_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (mut writer, left) = with_room(root.path(), usize::MAX);
    for number in 0..95 {
        writer.append(&record(number, T0)).unwrap();
    }
    writer.flush().unwrap();
    left.store(2_000, Relaxed);
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(files(root.path()).len(), 1, "the write-ahead file alone: {:?}", files(root.path()));
    assert_eq!(flow_ids(root.path()), ids_of(0..95));
    left.store(usize::MAX, Relaxed);
    writer.close().unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..95));
}

#[test]
fn a_damaged_segment_is_named_and_the_rest_is_read() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(root.path(), small());
    for number in 0..300 {
        writer.append(&record(number, T0)).unwrap();
    }
    writer.close().unwrap();
    let listing = segments(root.path()).unwrap();
    assert_eq!(listing.segments.len(), 3);
    let damaged = &listing.segments[1].path;
    let bytes = fs::read(damaged).unwrap();
    for (damage, says) in [
        (&b""[..], "Size is 0 but need 8"),
        (&bytes[..bytes.len() / 2], "Corrupt footer"),
        (b"not parquet, but something else altogether", "Corrupt footer"),
    ] {
        fs::write(damaged, damage).unwrap();
        let (records, _, summary) = read_records(root.path()).unwrap();
        assert_eq!((records.len(), summary.rows), (200, 200));
        assert_eq!(summary.damaged.len(), 1);
        assert_eq!(&summary.damaged[0].path, damaged);
        assert!(summary.damaged[0].why.contains(says), "{}", summary.damaged[0]);
    }
}

#[test]
fn a_log_that_is_not_there_is_an_error_that_says_what_to_give() {
    let error = read_records(Path::new("/nowhere/at/all")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read a flow log at /nowhere/at/all; give the folder that `podfence observe --log` wrote"
    );
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let error = Writer::open(&root.path().join("file"), "c", "n", small(), T0).err().unwrap().to_string();
    assert!(error.starts_with("cannot make the folder ") && error.contains("; check that "), "{error}");
}

#[test]
fn age_and_ticks_finish_a_segment() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(root.path(), Options { age: 300 * SECOND, ..small() });
    writer.append(&record(1, T0)).unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(0..0), "still in memory");
    writer.tick(T0 + SECOND).unwrap();
    assert_eq!(flow_ids(root.path()), ids_of(1..2), "handed over");
    assert_eq!(segments(root.path()).unwrap().segments.len(), 0);
    writer.tick(T0 + 300 * SECOND).unwrap();
    assert_eq!(segments(root.path()).unwrap().segments.len(), 1);
    assert_eq!(flow_ids(root.path()), ids_of(1..2));
}

#[test]
fn the_oldest_segments_go_first_and_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let mut other = Writer::open(root.path(), "prod", "node-2", small(), T0).unwrap();
    other.append(&record(9, T0 - 100 * HOUR)).unwrap();
    other.close().unwrap();
    let mut writer = open(root.path(), Options { keep_age: Some(5 * HOUR), ..small() });
    for hour in 0..10 {
        writer.append(&record(hour, T0 - i64::from(hour) * HOUR)).unwrap();
    }
    let removed = writer.close().unwrap().removed;
    assert_eq!(removed.segments, 4, "hours 6 to 9 ended more than five hours ago");
    let mut kept = [ids_of(0..6), ids_of(9..10)].concat();
    kept.sort();
    assert_eq!(flow_ids(root.path()), kept, "another node's log is not touched");
    let one = segments(root.path()).unwrap().segments[1].bytes;

    let writer = open(root.path(), Options { keep_bytes: Some(one * 2 + one / 2), ..small() });
    let removed = writer.close().unwrap().removed;
    assert_eq!(removed.segments, 4);
    assert!(removed.bytes > 3 * one);
    let mut kept = [ids_of(0..2), ids_of(9..10)].concat();
    kept.sort();
    assert_eq!(flow_ids(root.path()), kept);
    assert!(!root.path().join("cluster=prod/date=2026-07-01/hour=05").exists(), "empty folders go too");
}

#[test]
fn a_time_filter_gives_the_rows_that_overlap_it() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = open(root.path(), small());
    for minute in 0..180 {
        writer.append(&record(minute, T0 + i64::from(minute) * 60 * SECOND)).unwrap();
    }
    writer.close().unwrap();
    let minute = |n: i64| T0 + n * 60 * SECOND;
    let count = |from, to| {
        let filter = crate::Filter { from, to, ..Default::default() };
        crate::read(root.path(), &filter, &mut |_| {}).unwrap().rows
    };
    assert_eq!(count(None, None), 180);
    assert_eq!(count(Some(minute(10)), Some(minute(20))), 10);
    assert_eq!(count(Some(minute(10) + 1), Some(minute(20) + 1)), 11, "rows that last into the window count");
    assert_eq!(count(Some(minute(170)), None), 10);
    assert_eq!(count(Some(minute(180)), None), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is written comes back, whole or killed at any byte of the write-ahead file: then a prefix of it.
    #[test]
    fn a_log_cut_anywhere_holds_a_prefix(rows in any_rows(60), batch in 1usize..20, cut: prop::sample::Index) {
        let root = tempfile::tempdir().unwrap();
        let options = Options { rows_per_batch: batch, rows_per_segment: 1 << 20, ..Options::default() };
        let mut writer = open(root.path(), options.clone());
        for row in &rows {
            writer.push(row.clone()).unwrap();
        }
        writer.flush().unwrap();
        prop_assert_eq!(&all(root.path()), &rows);
        let path = writer.log.as_ref().unwrap().path.clone();
        drop(writer);
        let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
        let cut = cut.index(length + 1);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
        let survivors = all(root.path());
        prop_assert_eq!(&survivors[..], &rows[..survivors.len()]);
        prop_assert!(cut < length || survivors.len() == rows.len());
        open(root.path(), options).close().unwrap();
        let mut recovered = all(root.path());
        let torn = recovered.iter().filter(|row| matches!(row, Row::Gap(gap) if &*gap.reason == "log-torn")).count();
        prop_assert!(torn <= 1);
        recovered.retain(|row| !matches!(row, Row::Gap(gap) if &*gap.reason == "log-torn"));
        let key = |row: &Row| format!("{row:?}");
        let (mut recovered, mut survivors) = (recovered.iter().map(key).collect::<Vec<_>>(), survivors.iter().map(key).collect::<Vec<_>>());
        recovered.sort();
        survivors.sort();
        prop_assert_eq!(recovered, survivors);
    }

    /// Flipped bytes in any file of a log are an error, fewer rows, or other rows: never a panic.
    #[test]
    fn damage_anywhere_never_panics(
        finished: bool,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut writer = open(root.path(), small());
        for number in 0..30 {
            writer.append(&record(number, T0)).unwrap();
        }
        if finished {
            writer.close().unwrap();
        } else {
            drop(writer);
        }
        let path = root.path().join(files(root.path()).first().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        for (index, with) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= with;
        }
        fs::write(&path, bytes).unwrap();
        _ = read_records(root.path()).unwrap();
        open(root.path(), small()).close().unwrap();
        _ = read_records(root.path()).unwrap();
    }
}

fn all(root: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    let summary = crate::read(root, &crate::Filter::default(), &mut |row| rows.push(row)).unwrap();
    assert_eq!(summary.damaged, []);
    rows
}
