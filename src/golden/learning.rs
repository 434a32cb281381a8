//! `observe`, `graph`, `generate`.

use crate::world::World;
use std::fs;

#[test]
fn observe_says_what_became_of_every_packet() {
    let world = World::new();
    let done = world.run("observe --pcap shop.pcap --cluster cluster.yaml --log log --node node-1");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out, @"");
}

#[test]
fn without_a_cluster_every_end_is_an_address() {
    let world = World::new();
    assert_eq!(world.run("observe --pcap shop.pcap --log log --node n").status, 0);
    let done = world.run_words(&[
        "flows",
        "--log",
        "log",
        "-o",
        "csv",
        "--sql",
        "SELECT DISTINCT client_entity, server_entity, client_workload FROM flows",
    ]);
    assert_eq!(done.out, "client_entity,server_entity,client_workload\noutside,outside,\n");
}

#[test]
fn the_graph_shows_each_edge_once_in_each_form() {
    let world = World::observed();
    let table = world.run("graph --log log");
    assert_eq!(table.status, 0);
    insta::assert_snapshot!(table.out, @"");
    insta::assert_snapshot!(table.err, @"");
    let json: serde_json::Value = serde_json::from_str(&world.run("graph --log log -o json").out).expect("JSON");
    assert_eq!(json["edges"].as_array().map(Vec::len), Some(2));
    assert!(world.run("graph --log log -o dot").out.starts_with("digraph"));
    assert!(world.run("graph --log log -o mermaid").out.starts_with("flowchart"));
}

#[test]
fn the_graph_of_a_namespace_has_only_edges_that_touch_it() {
    let world = World::observed();
    let rows = |words: &str| world.run(words).out.lines().count() - 1;
    assert_eq!(
        (rows("graph --log log -A"), rows("graph --log log -n data"), rows("graph --log log -n shop")),
        (2, 1, 2)
    );
}

#[test]
fn generate_writes_policies_with_evidence_and_the_same_log_gives_the_same_bytes() {
    let world = World::observed();
    let done = world.run("generate --log log --cluster cluster.yaml --out policies");
    assert_eq!(done.status, 0, "{}", done.err);
    insta::assert_snapshot!(done.out, @"");
    let first = world.files("policies");
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    insta::assert_snapshot!(names.join("\n"), @"");
    assert_eq!(world.run("generate --log log --cluster cluster.yaml --out policies").status, 0);
    assert_eq!(world.files("policies"), first);
    let beside: Vec<String> = fs::read_dir(world.path("."))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(beside, [""; 0], "nothing half-written is left");
}

#[test]
fn a_dry_run_shows_the_same_and_writes_nothing() {
    let world = World::observed();
    let dry = world.run("generate --log log --cluster cluster.yaml --out policies --dry-run");
    assert!(!world.path("policies").exists());
    assert_eq!(dry.out, world.run("generate --log log --cluster cluster.yaml --out policies").out);
}

#[test]
fn a_folder_with_other_files_is_left_as_it_is() {
    let world = World::observed();
    fs::create_dir_all(world.path("policies/shop")).expect("made");
    fs::write(world.path("policies/shop/mine.yaml"), "kind: NetworkPolicy\n").expect("written");
    let done = world.run("generate --log log --cluster cluster.yaml --out policies");
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    insta::assert_snapshot!(done.err, @"");
    assert_eq!(world.files("policies").len(), 1);
}

#[test]
fn an_accepted_edge_becomes_a_rule_and_a_misspelt_one_is_refused() {
    let world = World::observed();
    let base = "generate --log log --cluster cluster.yaml --out policies";
    let count = |done: &crate::world::Done| done.out.lines().find(|line| line.contains("rules for")).map(str::to_owned);
    let (without, with) = (world.run(base), world.run(&format!("{base} --accept shop/web->data/db:22/tcp")));
    assert_eq!(with.status, 0, "{}", with.err);
    assert_ne!(count(&without), count(&with));
    let wrong = world.run(&format!("{base} --accept shop/web->data/db:23/tcp"));
    assert_eq!(wrong.status, 2);
    assert!(wrong.err.contains("shop/web->data/db:23/tcp"), "{}", wrong.err);
}

#[test]
fn incomplete_learning_is_refused_with_what_to_wait_for() {
    let world = World::observed();
    let done = world.run("generate --log log --cluster cluster.yaml --out policies --require-complete 0.05");
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    assert!(done.err.contains("incomplete: data/StatefulSet/db: upper bound"), "{}", done.err);
    assert!(!world.path("policies").exists());
}
