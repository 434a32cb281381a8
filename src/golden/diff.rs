//! `diff`: what opens and closes between folders and revisions; every form, every exit status.

use crate::world::{Done, World};
use std::{fs, process::Command};

/// The database takes its own port from the web server.
const DB: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 6379}]
";

/// A folder `old` with the policy, a folder `new` with what becomes of it.
fn world(new: &str) -> World {
    let world = World::new();
    for (folder, text) in [("old", DB), ("new", new)] {
        fs::create_dir_all(world.path(folder)).expect("made");
        fs::write(world.path(folder).join("db.yaml"), text).expect("written");
    }
    world
}

fn observed(new: &str) -> World {
    let world = world(new);
    let done = world.run("observe --pcap shop.pcap --cluster cluster.yaml --log log --node node-1");
    assert_eq!(done.status, 0, "{}", done.err);
    world
}

const COMPARE: &str = "diff old new --cluster cluster.yaml";

fn asked(world: &World, words: &str) -> Done {
    world.run(&format!("{COMPARE} {words}"))
}

fn moved_port() -> String {
    DB.replace("port: 6379", "port: 6380")
}

#[test]
fn what_opens_and_what_closes_is_told_with_its_line() {
    let world = world(&moved_port());
    let done = asked(&world, "");
    assert_eq!(done.status, 0, "{}", done.err);
    insta::assert_snapshot!(done.out, @r#"
From old to new:
1 connection opens; 1 connection closes.

OPENED WITHIN THE CLUSTER

  shop/Deployment/web -> data/StatefulSet/db  TCP 6380
      because rule ingress[0] of data/db changed: from pods app=web of namespaces kubernetes.io/metadata.name=shop: TCP 6379 became TCP 6380, was old/db.yaml:7, is new/db.yaml:7

CLOSED

  shop/Deployment/web -> data/StatefulSet/db  TCP 6379
      because rule ingress[0] of data/db changed: from pods app=web of namespaces kubernetes.io/metadata.name=shop: TCP 6379 became TCP 6380, was old/db.yaml:7, is new/db.yaml:7
"#);
}

#[test]
fn equal_inputs_are_told_as_equal_and_report_nothing() {
    let world = world(&format!("# a comment\n{DB}"));
    let done = asked(&world, "--fail-on opened,closed,nobody-yet,opened-outside");
    assert_eq!(
        (done.status, done.out.as_str()),
        (0, "From old to new:\nNothing opens and nothing closes.\n"),
        "{}",
        done.err
    );
}

#[test]
fn a_log_tells_what_was_used_and_what_nobody_would_use() {
    let world = observed(&moved_port());
    let done = asked(&world, "--log log");
    assert_eq!(done.status, 0, "{}", done.err);
    let lines: Vec<&str> = done.out.lines().map(str::trim).collect();
    assert_eq!(lines[1], "1 connection opens (1 never used); 1 connection closes (1 used).");
    assert_eq!(lines[3], "CLOSED, AND USED");
    let used = "used by shop/Deployment/web -> data/StatefulSet/db TCP 6379: 2 flows, last 2026-01-31T12:00:00Z";
    assert!(lines.contains(&used), "{}", done.out);
    assert!(lines.contains(&"nobody in the log ever used it"), "{}", done.out);
}

#[test]
fn the_exit_status_is_1_for_what_is_named_alone() {
    let world = observed(&moved_port());
    let status = |words: &str| asked(&world, words).status;
    assert_eq!(status("--fail-on opened"), 1);
    assert_eq!(status("--fail-on closed"), 1);
    assert_eq!(status("--fail-on opened-outside"), 0);
    assert_eq!(status("--log log --fail-on closed-used"), 1);
    assert_eq!(status("--log log --fail-on opened-outside,opened-unused"), 1);
    let done = asked(&world, "--fail-on closed-used");
    assert_eq!(done.status, 2);
    assert_eq!(done.err, "podfence: --fail-on closed-used: only a flow log can tell; give its folder with --log DIR\n");
    assert_eq!(status("--fail-on everything"), 2);
}

#[test]
fn every_form_holds_the_same_rows() {
    let world = world(&moved_port());
    let json: serde_json::Value = serde_json::from_str(&asked(&world, "-o json").out).expect("JSON");
    let rows = json["rows"].as_array().expect("rows");
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["kind"].as_str()).collect();
    assert_eq!(kinds, ["opened", "closed"]);
    assert_eq!(rows[0]["from"], serde_json::json!({"namespace": "shop", "kind": "Deployment", "name": "web"}));
    assert_eq!(rows[0]["ports"], serde_json::json!([{"protocol": "TCP", "ports": "6380"}]));
    let cause = &rows[0]["causes"][0];
    assert_eq!((&cause["change"], &cause["side"]), (&"rule-changed".into(), &"ingress".into()));
    assert_eq!((&cause["new"]["file"], &cause["new"]["line"]), (&"new/db.yaml".into(), &7.into()));
    let yaml = asked(&world, "-o yaml").out;
    assert_eq!(yaml.lines().filter(|line| line.starts_with("- kind: ")).count(), rows.len(), "{yaml}");
    let markdown = asked(&world, "-o markdown").out;
    assert!(markdown.starts_with("### podfence diff: 1 connection opens; 1 connection closes.\n"), "{markdown}");
    assert!(markdown.contains("| closed | <code>shop/Deployment/web</code> |"), "{markdown}");
    let sarif: serde_json::Value = serde_json::from_str(&asked(&world, "-o sarif").out).expect("JSON");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    let codes: Vec<&str> = results.iter().filter_map(|result| result["ruleId"].as_str()).collect();
    assert_eq!(codes, ["PFD004", "PFD005"]);
    let place = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "new/db.yaml");
    assert_eq!(place["region"]["startLine"], 7);
}

/// A repository with the old policy as its first revision.
fn repository(world: &World) {
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.args(words)
            .current_dir(world.path("."))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.org");
        }
        let done = git.output().expect("git runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    fs::create_dir_all(world.path("deploy/a b/.hidden")).expect("made");
    fs::write(world.path("deploy/a b/db\nx.yaml"), DB).expect("written");
    fs::write(world.path("deploy/a b/.hidden/broken.yaml"), "}{").expect("written");
    fs::write(world.path("deploy/notes.txt"), "}{").expect("written");
    std::os::unix::fs::symlink("a b/db\nx.yaml", world.path("deploy/link.yaml")).expect("linked");
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "deploy"]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["tag", "-a", "v1", "-m", "v1"]);
}

#[test]
fn a_revision_is_read_as_the_folder_it_was() {
    let world = world(&moved_port());
    repository(&world);
    let done = world.run("diff git:v1:deploy new --cluster cluster.yaml -o json");
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.contains("not followed, and so not compared: link deploy/link.yaml"), "{}", done.err);
    let value: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value["old"]["input"], "git:v1:deploy");
    assert_eq!(value["old"]["revision"].as_str().expect("a hash").len(), 40);
    let rows = value["rows"].as_array().expect("rows");
    assert_eq!(rows[0]["causes"][0]["old"]["file"], "deploy/a b/db\nx.yaml");
    let same = world.run("diff git:HEAD:./deploy/ git:main:deploy --cluster cluster.yaml");
    assert_eq!(same.status, 0, "{}", same.err);
    assert!(same.out.ends_with("Nothing opens and nothing closes.\n"), "{}", same.out);
}

#[test]
fn what_is_no_revision_is_a_clear_error() {
    let world = world(DB);
    let outside = world.run("diff git:main old --cluster cluster.yaml");
    assert_eq!((outside.status, outside.err.lines().count()), (2, 1), "{}", outside.err);
    repository(&world);
    let cases = [
        ("git:", "no revision stands behind"),
        ("git:nowhere", "git:nowhere: no such revision"),
        ("git:--all", "no revision stands behind"),
        ("git:v1:nowhere", "the revision has no such file or folder"),
        ("git:v1:../x", "the path leaves the repository"),
        ("git:v1:deploy/link.yaml", "no .yaml, .yml or .json file in this folder or below"),
    ];
    for (words, what) in cases {
        let done = world.run(&format!("diff {words} old --cluster cluster.yaml"));
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{words}");
        assert!(done.err.contains(what), "{words}: {}", done.err);
    }
}

#[test]
fn evidence_stands_beside_the_rule_that_opens_or_closes() {
    let world = World::observed();
    assert_eq!(world.run("generate --log log --cluster cluster.yaml --out policies").status, 0);
    std::fs::create_dir(world.path("nothing")).expect("made");
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: data}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n";
    std::fs::write(world.path("nothing/db.yaml"), closed).expect("written");
    let said =
        "; evidence: 2 flows, 2026-01-31T12:00:00Z to 2026-01-31T12:00:00.206Z, direction by syn, on node-1, such as ";
    for (words, form) in [("nothing policies", "text"), ("policies nothing", "text"), ("nothing policies", "json")] {
        let done = world.run(&format!("diff {words} --cluster cluster.yaml -o {form}"));
        let said = if form == "json" { said.trim_start_matches("; ") } else { said };
        assert!(done.status == 0 && done.out.contains(said), "{words} {form}: {} {}", done.out, done.err);
    }
    let comment = world.run("diff nothing policies --cluster cluster.yaml -o markdown").out;
    assert!(comment.contains("evidence: 2 flows"), "{comment}");
    std::fs::write(world.path("policies/evidence.json"), "{").expect("written");
    let without = world.run("diff nothing policies --cluster cluster.yaml");
    assert!(without.status == 0 && without.err.contains("no evidence in policies/evidence.json"), "{}", without.err);
}
