//! `observe`, `graph`, `generate`.

use crate::world::World;
use std::fs;

#[test]
fn observe_says_what_became_of_every_packet() {
    let world = World::new();
    let done = world.run("observe --pcap shop.pcap --cluster cluster.yaml --log log --node node-1");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out, @r#"
SOURCE      PACKETS   BYTES   FLOWS   ROWS   SKIPPED   DROPPED   EVICTED
shop.pcap   30        1216    5       5      1         0         0
skipped packets: 1 bad-ip-header
unknown ends: 1 never-seen
"#);
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
    insta::assert_snapshot!(table.out, @r#"
CLIENT                SERVER                PORT       FLOWS   FIRST SEEN             LAST SEEN              DIRECTION
shop/Deployment/web   data/StatefulSet/db   6379/tcp   2       2026-01-31T12:00:00Z   2026-01-31T12:00:00Z   syn
outside 203.0.113.9   shop/Deployment/web   8080/tcp   1       2026-01-31T12:00:00Z   2026-01-31T12:00:00Z   syn
"#);
    insta::assert_snapshot!(table.err, @r#"
not in the graph: 1 flow: an opening without an answer
not in the graph: 1 flow: an end that could not be attributed
"#);
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
    insta::assert_snapshot!(done.out, @r#"
NAMESPACE   POLICY         WORKLOAD               INGRESS   EGRESS   FLOWS
data        db             data/StatefulSet/db    1         0        2
data        default-deny   every pod of data      0         0        0
shop        default-deny   every pod of shop      0         0        0
shop        idle           shop/Deployment/idle   0         0        0
shop        web            shop/Deployment/web    1         1        3

policies: 5; rules: 3; edges: 2
verified: every edge allowed, nothing else (pairs of pods: 9; of pod and address: 2)

never observed in the window, so closed both ways:
  shop/Deployment/idle

closed by default-deny (every pod there that no other policy names, those of tomorrow too): data, shop

left out, handshake-not-seen (1 flow): an opening without an answer; accept one by name with --accept:
  shop/web->data/db:22/tcp: 1 flow, such as 26b83739159d078a

left out, unattributed (1 flow): an end that could not be attributed:
  an end is not known: 1 flow, such as 38dd378cf7b6ace7

observed 2026-01-31T12:00:00Z to 2026-01-31T12:00:00.406Z, 1 hourly slice, 5 flows
unattributed 20.00 %
expected new edges in the next hour, by namespace (95 % upper bound):
  data: 1.000 (4.744); 1 edge, 1 in one slice only
  shop: 2.000 (6.296); 2 edges, 2 in one slice only, 20.00 % unattributed
expected new edges in the next hour, by workload (95 % upper bound):
  data/StatefulSet/db: 1.000 (4.744); 1 edge, 1 in one slice only
  shop/Deployment/idle: 0.000 (3.000); 0 edges, 0 in one slice only, never observed, no pod known
  shop/Deployment/web: 2.000 (6.296); 2 edges, 2 in one slice only, 20.00 % unattributed
until no more than 0.05 new edges an hour are to be expected:
  data: upper bound 4.744 new edges an hour, 0.05 required: 94 hours more at the present rate, 59 if its 1 edge seen in one or two hours only comes again and none is new
  shop: upper bound 6.296 new edges an hour, 0.05 required: 125 hours more at the present rate, 59 if its 2 edges seen in one or two hours only come again and none is new
"#);
    let first = world.files("policies");
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    insta::assert_snapshot!(names.join("\n"), @r#"
SUMMARY.txt
certificate.json
evidence.json
policies/data/db.yaml
policies/data/default-deny.yaml
policies/shop/default-deny.yaml
policies/shop/idle.yaml
policies/shop/web.yaml
"#);
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
fn a_ledger_gives_the_policies_that_its_log_gives() {
    let world = World::observed();
    let done = world.run("ledger --log log --out one.ledger");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert!(
        done.out.starts_with("LEDGER       EDGES   OBSERVERS   GAPS   BYTES\none.ledger   2       1           0      ")
    );
    let merged = world.run("ledger --ledger one.ledger one.ledger --log log --out two.ledger");
    assert_eq!(merged.status, 0, "{}", merged.err);
    let bytes = |file| fs::read(world.path(file)).expect("a file");
    assert_eq!(bytes("one.ledger"), bytes("two.ledger"), "the same three times counts once");
    let generate = |from: &str, out: &str| {
        let done = world.run(&format!("generate {from} --cluster cluster.yaml --out {out}"));
        assert_eq!(done.status, 0, "{}", done.err);
        world.files(out)
    };
    assert_eq!(generate("--ledger two.ledger", "theirs"), generate("--log log", "ours"));
}

#[test]
fn what_is_no_ledger_is_refused_with_the_line() {
    let world = World::observed();
    assert_eq!(world.run("ledger --log log --out whole.ledger").status, 0);
    let whole = fs::read(world.path("whole.ledger")).expect("a file");
    fs::write(world.path("cut.ledger"), &whole[..whole.len() / 2]).expect("written");
    fs::write(world.path("newer.ledger"), "{\"ledger\":{\"version\":2}}\n").expect("written");
    for file in ["cut", "newer", "cluster.yaml", "nowhere"] {
        let file = if file.contains('.') { file.to_owned() } else { format!("{file}.ledger") };
        let done = world.run(&format!("generate --ledger {file} --cluster cluster.yaml --out policies"));
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{file}");
        println!("{}", done.err.trim_end());
        assert!(done.err.starts_with(&format!("podfence: {file}: ")), "{}", done.err);
        assert!(done.err.contains("give files that `podfence ledger` wrote"), "{}", done.err);
    }
    let neither = world.run("generate --cluster cluster.yaml --out policies");
    assert_eq!(neither.status, 2);
    assert!(neither.err.contains("--log") && neither.err.contains("--ledger"), "{}", neither.err);
    assert!(!world.path("policies").exists());
}

#[test]
fn a_dry_run_shows_the_same_and_writes_nothing() {
    let world = World::observed();
    let dry = world.run("generate --log log --cluster cluster.yaml --out policies --dry-run");
    assert!(!world.path("policies").exists());
    assert_eq!(dry.out, world.run("generate --log log --cluster cluster.yaml --out policies").out);
}

const GENERATE: &str = "generate --log log --cluster cluster.yaml --out policies";

#[test]
fn an_earlier_set_is_updated_and_pruned_and_what_others_wrote_stays() {
    let world = World::observed();
    assert_eq!(world.run(GENERATE).status, 0);
    let first = world.files("policies");
    let write = |name: &str, text: &str| fs::write(world.path(name), text).expect("written");
    let ours = fs::read_to_string(world.path("policies/policies/shop/web.yaml")).expect("read");
    write("policies/policies/shop/gone.yaml", &ours.replace("name: web", "name: gone"));
    write("policies/policies/shop/idle.yaml", &ours.replace("name: web", "name: idle"));
    write("policies/README.md", "read me");
    write("policies/policies/kustomization.yaml", "kind: Kustomization\n");
    write("policies/policies/shop/mine.yaml", &ours.replace("name: web", "name: mine").replace(": podfence", ": me"));
    fs::remove_file(world.path("policies/policies/data/db.yaml")).expect("removed");
    let done = world.run(GENERATE);
    assert_eq!(done.status, 0, "{}", done.err);
    insta::assert_snapshot!(done.err, @r#"
written to policies (files: 1 added, 1 changed, 1 removed, 6 as they were; 3 of others kept); begin with SUMMARY.txt; `kubectl apply -R -f policies/policies` applies the policies
"#);
    let others = ["README.md", "policies/kustomization.yaml", "policies/shop/mine.yaml"];
    let (kept, own): (Vec<_>, Vec<_>) =
        world.files("policies").into_iter().partition(|(name, _)| others.contains(&name.as_str()));
    assert_eq!(kept.len(), 3);
    assert_eq!(own, first);
}

#[test]
fn a_file_of_others_is_never_written_over() {
    let world = World::observed();
    fs::create_dir_all(world.path("policies/policies/shop")).expect("made");
    let place = world.path("policies/policies/shop/web.yaml");
    fs::write(&place, "kind: List\n").expect("written");
    let done = world.run(GENERATE);
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    insta::assert_snapshot!(done.err, @r#"
podfence: DIR/policies holds policies/shop/web.yaml, which an earlier run did not write and which policies/shop/web.yaml would replace; move it away, or choose another folder
"#);
    fs::remove_file(&place).expect("removed");
    let theirs = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\nspec: {podSelector: {}}\n";
    fs::write(world.path("policies/policies/theirs.yaml"), theirs).expect("written");
    let done = world.run(GENERATE);
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    insta::assert_snapshot!(done.err, @r#"
podfence: policies/policies/theirs.yaml holds a policy shop/web, and so would the new set; rename that one, or move it away
"#);
    assert_eq!(world.files("policies").len(), 1);
}

#[test]
fn a_wider_choice_is_listed_with_its_price() {
    let world = World::observed();
    fs::write(world.path("ranges.json"), r#"{"providers": {"office": ["203.0.113.0/24"]}}"#).expect("written");
    let words = format!("{GENERATE} --peers namespace --outside provider-ranges ranges.json --no-default-deny data");
    let done = world.run(&words);
    assert_eq!(done.status, 0, "{}", done.err);
    let said = done
        .out
        .lines()
        .skip_while(|line| !line.starts_with("opened beyond"))
        .take_while(|line| !line.starts_with("left out"));
    insta::assert_snapshot!(said.collect::<Vec<_>>().join("\n"), @r#"
opened beyond what was seen (--outside provider-ranges, --peers namespace): connections never observed: 255 with addresses:
  203.0.113.0/24->shop/web:8080/tcp (--outside provider-ranges: office): 255 with addresses
  every pod of shop->data/db:6379/tcp, ingress (--peers namespace): 0 between workloads
  shop/web->every pod of data:6379/tcp, egress (--peers namespace): 0 between workloads

never observed in the window, so closed both ways:
  shop/Deployment/idle

closed by default-deny (every pod there that no other policy names, those of tomorrow too): shop

without default-deny: a pod there that no policy names is not isolated:
  data: left open by --no-default-deny
"#);
    for (words, said) in [
        ("--outside provider-ranges nowhere.json", "no provider's ranges in nowhere.json"),
        ("--outside provider-ranges cluster.yaml", "no JSON"),
        ("--outside near", "--outside near: no such choice; say exact, minimal-cover, or provider-ranges FILE"),
        ("--no-default-deny dta", "--no-default-deny: no workload that gets a policy is in dta"),
        ("--port-range shop/web->data/db:1-2/tcp", "no learned edge lies in this range"),
    ] {
        let done = world.run(&format!("{GENERATE} {words}"));
        assert!(done.status == 2 && done.err.contains(said), "{words}: {}", done.err);
    }
}

#[test]
fn evidence_of_an_earlier_run_is_added_to_the_rules_that_are_the_same() {
    let world = World::observed();
    assert_eq!(world.run(GENERATE).status, 0);
    let old = fs::read_to_string(world.path("policies/evidence.json")).expect("read");
    let earlier = old.replace("2026-01-31T12:00:00Z", "2025-01-31T12:00:00Z").replace("TCP 8080", "TCP 8081");
    fs::write(world.path("earlier.json"), earlier).expect("written");
    let done = world.run(&format!("{GENERATE} --evidence earlier.json"));
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(
        done.err.contains("earlier.json: shop/web ingress from 203.0.113.9/32, TCP 8081: no such rule here"),
        "{}",
        done.err
    );
    let new = fs::read_to_string(world.path("policies/evidence.json")).expect("read");
    assert!(new.contains("\"first_seen\": \"2025-01-31T12:00:00Z\""), "{new}");
    let none = world.run(&format!("{GENERATE} --evidence cluster.yaml"));
    assert!(none.status == 2 && none.err.contains("no evidence in cluster.yaml"), "{}", none.err);
}

#[test]
fn an_accepted_edge_becomes_a_rule_and_a_misspelt_one_is_refused() {
    let world = World::observed();
    let base = "generate --log log --cluster cluster.yaml --out policies";
    let count =
        |done: &crate::world::Done| done.out.lines().find(|line| line.starts_with("policies: ")).map(str::to_owned);
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
