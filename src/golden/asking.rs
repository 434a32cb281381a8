//! `flows`: filters, forms, SQL, follow; and the shell's helpers.

use crate::world::{DB, WEB, World, connection, pcap};
use model::view::AddressView;
use observer::{MeterOptions, Observer};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
    thread,
    time::Duration,
};

#[test]
fn a_row_a_flow_in_the_order_of_time() {
    let world = World::observed();
    let done = world.run("flows --log log");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out, @r#"
TIME                       CLIENT        SERVER      PROTOCOL   PORT   VERDICT    REASON   PACKETS   BYTES
2026-01-31T12:00:00.000Z   shop/web      data/db     TCP        6379   observed   <none>   7         289
2026-01-31T12:00:00.100Z   203.0.113.9   shop/web    TCP        8080   observed   <none>   7         289
2026-01-31T12:00:00.200Z   shop/web      data/db     TCP        6379   observed   <none>   7         289
2026-01-31T12:00:00.300Z   shop/web      data/db     TCP        22     observed   <none>   1         40
2026-01-31T12:00:00.400Z   shop/web      10.1.0.99   TCP        80     observed   <none>   7         289
"#);
    let wide = world.run("flows --log log -o wide --port 8080");
    insta::assert_snapshot!(without_flow_ids(&wide.out), @r#"
TIME                       CLIENT        SERVER     PROTOCOL   PORT   VERDICT    REASON   PACKETS   BYTES   CLIENT-IP           SERVER-IP   SERVICE   POLICY   DIRECTION   SEEN-AT   END   RTT-US   NODE
2026-01-31T12:00:00.100Z   203.0.113.9   shop/web   TCP        8080   observed   <none>   7         289     203.0.113.9:50000   10.1.0.2    <none>    <none>   syn         wire      fin   1000     node-1
"#);
}

/// The last column is a hash.
fn without_flow_ids(table: &str) -> String {
    let cut = |line: &str| line.rsplit_once("   ").map_or(line, |(rest, _)| rest).trim_end().to_owned();
    table.lines().map(cut).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_filter_narrows_the_answer() {
    let world = World::observed();
    let cases = [
        ("-A", 5),
        ("-n shop", 5),
        ("-n data", 3),
        ("--workload data/db", 3),
        ("--workload data/StatefulSet/db", 3),
        ("--workload data/Deployment/db", 0),
        ("--client shop/web", 4),
        ("--client shop/", 4),
        ("--server shop/web", 1),
        ("--client 203.0.113.9", 1),
        ("--address 203.0.113.0/24", 1),
        ("--address 10.1.0.3", 3),
        ("--port 6379", 2),
        ("--port 1-1024", 2),
        ("--protocol tcp", 5),
        ("--protocol udp", 0),
        ("--verdict observed", 5),
        ("--verdict deny,audit_deny", 0),
        ("--node node-1", 5),
        ("--node node-2", 0),
        ("--limit 2", 2),
        ("--from 2026-01-31T12:00:00.15Z", 3),
        ("--from 2026-01-31T12:00:00.15Z --to 2026-01-31T12:00:00.25Z", 1),
        ("--since 1h", 0),
    ];
    for (filter, rows) in cases {
        let done = world.run(&format!("flows --log log -o jsonl {filter}"));
        assert_eq!((done.status, done.out.lines().count()), (0, rows), "{filter}: {}", done.err);
    }
}

#[test]
fn a_limit_shows_the_newest() {
    let world = World::observed();
    let all = world.run("flows --log log -o jsonl").out;
    let last = world.run("flows --log log -o jsonl --limit 2").out;
    assert_eq!(last.lines().collect::<Vec<_>>(), all.lines().skip(3).collect::<Vec<_>>());
}

#[test]
fn every_form_holds_the_same_rows() {
    let world = World::observed();
    let json: Vec<serde_json::Value> = serde_json::from_str(&world.run("flows --log log -o json").out).expect("JSON");
    let lines: Vec<serde_json::Value> = world
        .run("flows --log log -o jsonl")
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(json, lines);
    let text = world.run("flows --log log -o csv").out;
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let ports = csv.headers().expect("a header").iter().position(|name| name == "server_port").expect("a column");
    let ports: Vec<String> = csv.records().map(|row| row.expect("a row")[ports].to_owned()).collect();
    let same: Vec<String> = json.iter().map(|row| row["server_port"].to_string()).collect();
    assert_eq!(ports, same);
}

#[test]
fn an_empty_answer_is_an_answer() {
    let world = World::observed();
    let none = world.run("flows --log log --port 1");
    assert_eq!((none.status, none.out.as_str(), none.err.as_str()), (0, "", "No flows found.\n"));
    assert_eq!(world.run("flows --log log --port 1 -o json").out, "[]\n");
    assert!(world.run("flows --log log --port 1 -o csv").out.starts_with("start_ns,end_ns,"));
}

#[test]
fn sql_answers_and_blocks_are_told_by_in_cidr() {
    let world = World::observed();
    let query = "SELECT server_workload, count(*) AS flows, sum(bytes_to_server) AS bytes FROM flows \
                 WHERE in_cidr(client_ip, '10.0.0.0/8') AND server_workload IS NOT NULL GROUP BY 1 ORDER BY 1";
    let done = world.run_words(&["flows", "--log", "log", "--sql", query]);
    assert_eq!(done.status, 0, "{}", done.err);
    insta::assert_snapshot!(done.out, @r#"
SERVER_WORKLOAD   FLOWS   BYTES
db                3       366
"#);
    let wrong = "SELECT in_cidr(client_ip, 'ten') FROM flows";
    let done = world.run_words(&["flows", "--log", "log", "--sql", wrong]);
    assert_eq!(done.status, 2);
    assert!(done.err.contains("`ten` is no block"), "{}", done.err);
}

#[test]
fn sql_only_reads() {
    let world = World::observed();
    let before = world.files(".");
    for query in [
        "DROP TABLE flows",
        "CREATE TABLE t AS SELECT * FROM flows",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
        "INSERT INTO flows SELECT * FROM flows",
        "COPY flows TO 'stolen.parquet'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM '/etc/passwd'",
        "SELECT 1; DROP TABLE flows",
    ] {
        let done = world.run_words(&["flows", "--log", "log", "--sql", query]);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{query}");
        assert!(done.err.starts_with("podfence: the question was not answered; "), "{query}: {}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{query}: {}", done.err);
    }
    assert_eq!(world.files("."), before);
}

#[test]
fn what_a_terminal_would_obey_is_escaped_in_every_form() {
    let world = World::observed();
    let query = "SELECT chr(27) || '[2J' || chr(155) || chr(8238) || chr(127) AS name";
    for form in ["table", "wide", "json", "jsonl", "csv"] {
        let done = world.run_words(&["flows", "--log", "log", "-o", form, "--sql", query]);
        assert_eq!(done.status, 0, "{}", done.err);
        let obeyed = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!done.out.contains(obeyed), "{form}: {:?}", done.out);
        assert!(done.out.contains("[2J"), "{form}: {:?}", done.out);
    }
}

#[test]
fn what_was_not_seen_is_said_and_is_a_row_for_sql() {
    let world = World::new();
    let mut cut = fs::read(world.path("shop.pcap")).expect("read");
    cut.truncate(cut.len() - 5);
    fs::write(world.path("cut.pcap"), cut).expect("written");
    let done = world.run("observe --pcap cut.pcap --cluster cluster.yaml --log log --node node-1");
    assert_eq!(done.status, 0);
    assert!(done.err.contains("cut short after 29 packets"), "{}", done.err);
    let asked = world.run("flows --log log -o jsonl");
    assert!(asked.err.contains("warning: node node-1 did not see everything"), "{}", asked.err);
    assert!(!asked.out.contains("capture-cut-short"));
    let sql = "SELECT reason FROM flows WHERE row_kind = 'gap'";
    assert_eq!(
        world.run_words(&["flows", "--log", "log", "-o", "csv", "--sql", sql]).out,
        "reason\ncapture-cut-short\n"
    );
    assert!(!world.run("flows --log log --to 2026-01-31T12:00:00Z").err.contains("did not see"));
}

#[test]
fn a_damaged_segment_is_named_and_the_rest_is_answered() {
    let world = World::observed();
    let segment = world.segment();
    let other = segment.with_file_name("0-other-0.parquet");
    let whole = fs::read(&segment).expect("read");
    fs::copy(&segment, &other).expect("copied");
    // Without its footer, and with its first page broken.
    let mut broken = whole.clone();
    broken[4..2000.min(whole.len() / 2)].fill(0xff);
    for damage in [whole[..whole.len() - 4].to_vec(), broken, Vec::new()] {
        fs::write(&other, damage).expect("written");
        let done = world.run("flows --log log -o jsonl");
        assert_eq!((done.status, done.out.lines().count()), (0, 5), "{}", done.err);
        assert!(
            done.err.contains("0-other-0.parquet") && done.err.contains("the answer is without it"),
            "{}",
            done.err
        );
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let world = World::observed();
    let long = "SELECT a.*, b.* FROM flows a, flows b, flows c, flows d, flows e, flows f";
    let mut child = world
        .command(&["flows", "--log", "log", "-o", "csv", "--sql", long])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("start_ns,"));
    let done = child.wait_with_output().expect("it ends");
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned()), (Some(0), String::new()));
}

#[test]
fn follow_shows_each_new_row_once_and_ends_on_ctrl_c() {
    let world = World::observed();
    let mut child = world
        .command(&["flows", "--log", "log", "-f", "-o", "jsonl", "--port", "6379"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let row: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        row["client_port"].as_u64().expect("a port")
    };
    assert_eq!([next(), next()], [40_000, 40_001]);
    for port in [41_000, 42_000] {
        fs::write(world.path("more.pcap"), pcap(&connection(u32::from(port), (WEB, port), (DB, 6379))))
            .expect("written");
        let more = world.run("observe --pcap more.pcap --cluster cluster.yaml --log log --node node-1");
        assert_eq!(more.status, 0, "{}", more.err);
        assert_eq!(next(), u64::from(port));
    }
    // A row that stays in a write-ahead file over several looks, then becomes a segment.
    fs::write(world.path("live.pcap"), pcap(&connection(50_000, (WEB, 43_000), (DB, 6379)))).expect("written");
    let writer = flowlog::Writer::open(&world.path("log"), "default", "node-2", flowlog::Options::default(), 0);
    let mut live = Observer::new(writer.expect("opened"), AddressView::default(), "node-2", "node-2@0");
    observer::observe_file(&world.path("live.pcap"), MeterOptions::default(), &mut live).expect("observed");
    assert_eq!(next(), 43_000);
    thread::sleep(Duration::from_millis(1300));
    live.close().expect("closed");
    thread::sleep(Duration::from_millis(1300));
    let id = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).expect("sent");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the end");
    assert_eq!((rest.as_str(), child.wait().expect("it ends").code()), ("", Some(0)));
}

#[test]
fn completion_and_manual_know_every_verb() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = world.run(&format!("completion {shell}"));
        assert_eq!(script.status, 0);
        for verb in [
            "observe", "graph", "generate", "flows", "reach", "diff", "why", "replay", "lint", "demo", "lab",
            "enforce", "status", "detach", "selftest", "ledger",
        ] {
            assert!(script.out.contains(verb), "{shell} {verb}");
        }
        assert!(!script.out.contains("lab-pod"), "{shell}: what is hidden stays hidden");
    }
    assert_eq!(world.run("man --out pages").status, 0);
    let pages: Vec<String> = world.files("pages").into_iter().map(|(name, _)| name).collect();
    insta::assert_snapshot!(pages.join("\n"), @r#"
podfence-completion.1
podfence-demo.1
podfence-detach.1
podfence-diff.1
podfence-enforce.1
podfence-flows.1
podfence-generate.1
podfence-graph.1
podfence-lab-down.1
podfence-lab-run.1
podfence-lab-up.1
podfence-lab.1
podfence-ledger.1
podfence-lint.1
podfence-man.1
podfence-observe.1
podfence-reach.1
podfence-replay.1
podfence-selftest.1
podfence-status.1
podfence-why.1
podfence.1
"#);
    assert!(world.run("man").out.contains(".TH podfence 1"));
}

#[test]
fn columns_lists_the_table() {
    let world = World::new();
    let done = world.run("flows --columns");
    assert_eq!(done.status, 0);
    assert!(done.out.starts_with("COLUMN") && done.out.contains("client_workload_kind"), "{}", done.out);
}
