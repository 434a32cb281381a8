//! The diff of small folders that can be checked by reading: `tests/cases/diff/NAME/{old,new}/*.yaml`, and what
//! is said of them in `expected.txt`. `PODFENCE_WRITE_EXPECTED=1` writes what is missing or different.

use crate::schema::Schema;
use model::{
    cluster::{Cluster, WorkloadKey},
    ledger::{Edge, EdgeCounters, Ledger, Party},
    record::DirectionRule,
};
use review::{
    Input,
    diff::{self, Diff, Named, Reportable},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn read(folder: &Path) -> Cluster {
    let mut cluster = Cluster::default();
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in files {
        let side = folder.file_name().expect("a name").to_string_lossy();
        let name = format!("{side}/{}", file.file_name().expect("a name").to_string_lossy());
        let text = fs::read_to_string(&file).expect("text");
        model::yaml::read_into(&mut cluster, &name, &text).expect("YAML of the case");
    }
    cluster
}

fn compared(mut old: Cluster, mut new: Cluster) -> Diff {
    diff::align(&mut old, &mut new);
    let name = |input: &str| Named { input: input.to_owned(), revision: None };
    Diff::of(Input { cluster: &old, policies: &old.policies }, Input { cluster: &new, policies: &new.policies })
        .named(name("old"), name("new"))
}

fn cases() -> Vec<PathBuf> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diff");
    let mut folders: Vec<_> =
        fs::read_dir(&cases).expect("cases").map(|entry| entry.expect("an entry").path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

fn json(diff: &Diff) -> String {
    diff::json_pieces(diff).collect()
}

#[test]
fn each_case_says_what_a_reader_would() {
    let write = std::env::var_os("PODFENCE_WRITE_EXPECTED").is_some();
    let mut different = Vec::new();
    for case in cases() {
        let diff = compared(read(&case.join("old")), read(&case.join("new")));
        let said = diff::lines(&diff).join("\n") + "\n";
        let expected = case.join("expected.txt");
        if write {
            fs::write(&expected, &said).expect("written");
        }
        let before = fs::read_to_string(&expected).unwrap_or_default();
        if before != said {
            different.push(format!("{}:\n{said}", case.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

const DB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: data, labels: {app: db}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {}
  ingress:
    - from: [{namespaceSelector: {}}, {ipBlock: {cidr: 192.0.2.0/24}}]
      ports: [{port: 5432}]
"#;

fn parsed(yaml: &str) -> Cluster {
    let mut cluster = Cluster::default();
    model::yaml::read_into(&mut cluster, "db.yaml", yaml).expect("YAML of the test");
    cluster
}

/// `flows` flows of an edge to the database, the last at this second.
fn seen(ledger: &mut Ledger, client: Party, port: u16, flows: u64, second: i64) {
    let key = |namespace: &str, name: &str| WorkloadKey {
        namespace: namespace.to_owned(),
        kind: "Pod".to_owned(),
        name: name.to_owned(),
    };
    let server = Party::Workload(key("data", "db").into());
    let counters = EdgeCounters {
        flows,
        first_seen: 0,
        last_seen: second * 1_000_000_000,
        samples: Vec::new(),
        direction_rule: DirectionRule::Syn,
        adopted_only: false,
        nodes: Vec::new(),
    };
    ledger.see(&"node".into(), Edge { client, server, protocol: 6, port }, counters);
}

/// Used by a pod and by addresses, and by some for which nothing changes.
fn log() -> Ledger {
    let mut ledger = Ledger::default();
    let web = WorkloadKey { namespace: "shop".to_owned(), kind: "Pod".to_owned(), name: "web".to_owned() };
    seen(&mut ledger, Party::Workload(web.clone().into()), 5432, 2, 60);
    seen(&mut ledger, Party::Workload(web.into()), 5432, 3, 7200);
    seen(&mut ledger, Party::Outside("192.0.2.7".parse().expect("an address")), 5432, 1, 3600);
    seen(&mut ledger, Party::Outside("198.51.100.7".parse().expect("an address")), 5432, 9, 3600);
    ledger
}

#[test]
fn a_log_tells_who_used_what_closes_and_what_opens_for_nobody() {
    let diff = compared(parsed(DB), parsed(&DB.replace("port: 5432", "port: 5433"))).with_log(&log());
    let count = |what| diff.count(what);
    assert_eq!((count(Reportable::ClosedUsed), count(Reportable::OpenedUnused)), (2, count(Reportable::Opened)));
    let lines = diff::lines(&diff).join("\n");
    for told in [
        "used by shop/Pod/web -> data/Pod/db TCP 5432: 5 flows, last 1970-01-01T02:00:00Z",
        "used by 192.0.2.7 -> data/Pod/db TCP 5432: 1 flow, last 1970-01-01T01:00:00Z",
    ] {
        assert!(lines.contains(told), "{lines}");
    }
    assert!(!lines.contains("198.51.100.7"), "{lines}");
}

#[test]
fn a_comment_is_bounded_and_what_is_left_out_is_counted() {
    let many = |port: u16| -> String {
        (0..400)
            .map(|n| {
                let name = format!("an|odd`name-{n}@team");
                format!(
                    "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{n}, namespace: n{n}, labels: {{app: a}}}}\n\
                     spec: {{containers: [{{name: c}}]}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                     metadata: {{name: p, namespace: n{n}, annotations: {{x: {name:?}}}}}\nspec: {{podSelector: {{}}, \
                     ingress: [{{ports: [{{port: {port}}}]}}]}}\n"
                )
            })
            .collect()
    };
    let diff = compared(parsed(&many(80)), parsed(&many(81)));
    let text = diff::markdown(&diff);
    assert!(text.len() <= diff::MOST_BYTES, "{}", text.len());
    assert!(text.contains("left out here"), "{}", &text[text.len() - 400..]);
    assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
}

#[test]
fn running_pods_and_their_template_are_compared_at_the_same_addresses() {
    let template = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: data}\nspec:\n  selector: \
                    {matchLabels: {app: db}}\n  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c}]}}\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: db-0, namespace: data, labels: {app: db}, ownerReferences: \
               [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: u, controller: true}]}\nspec: {containers: \
               [{name: c}]}\nstatus: {phase: Running, podIPs: [{ip: 10.1.0.1}]}\n";
    let diff = compared(parsed(&format!("{template}---\n{pod}")), parsed(template));
    assert!(diff.is_empty(), "{}", diff::lines(&diff).join("\n"));
}

/// What opens with a rule to these addresses for pods of `app: web`, which run at an IPv4 address alone.
fn opened_to(cidr: &str, other_pod: &str) -> Vec<String> {
    let pod = |name: &str, ips: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\nspec: \
             {{containers: [{{name: c}}]}}\nstatus: {{phase: Running, podIPs: [{ips}]}}\n---\n"
        )
    };
    let policy = |rules: &str| {
        let (web, other) = (pod("web", "{ip: 10.1.0.1}"), pod("other", other_pod));
        parsed(&format!(
            "{web}{other}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web, namespace: \
             shop}}\nspec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{rules}]}}\n"
        ))
    };
    let diff = compared(policy(""), policy(&format!("{{to: [{{ipBlock: {{cidr: {cidr:?}}}}}]}}")));
    diff.rows().iter().map(|row| format!("{} -> {}", diff.from(row), diff.to(row))).collect()
}

#[test]
fn whoever_comes_is_compared_over_each_family_that_the_cluster_has() {
    // A new pod of these labels would have an IPv6 address too, which no pod of them has today.
    let both = "{ip: 10.1.0.2}, {ip: \"2001:db8::2\"}";
    assert_eq!(opened_to("fd00::/8", both), ["(new pods with app=web in shop) -> fd00::/8"]);
    // What those that run may do too is told of them alone.
    assert_eq!(opened_to("192.0.2.0/24", both), ["shop/Pod/web -> 192.0.2.0/24"]);
    // Where no pod has an IPv6 address, none will come with one.
    assert_eq!(opened_to("fd00::/8", "{ip: 10.1.0.2}"), [""; 0]);
    assert_eq!(opened_to("192.0.2.0/24", "{ip: 10.1.0.2}"), ["shop/Pod/web -> 192.0.2.0/24"]);
}

#[test]
fn every_answer_fits_the_schema_and_every_field_of_it_is_in_some() {
    let schema = Schema::of("diff");
    for case in cases() {
        schema.check(&json(&compared(read(&case.join("old")), read(&case.join("new")))));
    }
    let revised = DB.replace("port: 5432", "port: 5433");
    let revision = Named { input: "git:main:deploy".to_owned(), revision: Some("0123456789abcdef".to_owned()) };
    let diff = compared(parsed(DB), parsed(&revised)).with_log(&log()).named(revision.clone(), revision);
    schema.check(&json(&diff));
    let seen = |_: &_| Some(review::Evidence { flows: 3, ..review::Evidence::default() });
    let with_evidence = compared(parsed(DB), parsed(&revised)).with_evidence(&seen, &|_| None);
    assert!(!json(&with_evidence).contains("no evidence of its own"), "a rule that is in NEW has what is known there");
    schema.check(&json(&compared(parsed(DB), parsed(&revised)).with_evidence(&|_| None, &seen)));
    schema.check(&json(&compared(parsed(&revised), parsed(DB)).with_log(&log())));
    let changed = |from: &str, to: &str| schema.check(&json(&compared(parsed(DB), parsed(&DB.replace(from, to)))));
    changed("  podSelector: {}", "  podSelector: {matchLabels: {app: web}}");
    changed("  podSelector: {}", "  podSelector: {}\n  policyTypes: [Ingress, Egress]");
    changed("spec: {containers: [{name: c}]}", "spec: {hostNetwork: true, containers: [{name: c}]}");
    let at =
        |ip: &str| format!("spec: {{containers: [{{name: c}}]}}\nstatus: {{phase: Running, podIPs: [{{ip: {ip}}}]}}");
    changed("spec: {containers: [{name: c}]}", &at("192.0.2.7"));
    for protocol in ["UDP", "SCTP"] {
        changed("ports: [{port: 5432}]", &format!("ports: [{{port: 5432, protocol: {protocol}}}]"));
    }
    // Nothing of these cases tells so many label combinations apart, nor labels by address; and nobody tried in vain.
    let not_met = schema.not_met();
    let rest: Vec<&str> =
        not_met.iter().map(String::as_str).filter(|field| !field.contains("/properties/protocol/")).collect();
    let by = "/$defs/use/properties/by/items/properties";
    assert_eq!(rest, ["/$defs/end/anyOf/2/properties/at", &format!("{by}/attempt"), "/properties/incomplete"]);
}
