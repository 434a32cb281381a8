//! `why`.

use crate::world::World;
use std::fs;

const POLICIES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {team: "on"}}, podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 6379}]
"#;

fn world() -> World {
    let world = World::new();
    fs::write(world.path("policies.yaml"), POLICIES).expect("written");
    world
}

#[test]
fn an_allowed_connection_names_the_rule_and_a_denied_one_the_rule_it_lacks() {
    let world = world();
    let allowed = world.run("why shop/web data/db:6379 policies.yaml --cluster cluster.yaml");
    assert_eq!((allowed.status, allowed.err.as_str()), (0, ""));
    insta::assert_snapshot!(allowed.out, @r#"
shop/Deployment/web -> data/StatefulSet/db TCP 6379: allowed

egress of shop/Deployment/web: not isolated, so everything passes
ingress of data/StatefulSet/db: allowed
  isolated by data/db (policies.yaml:1)
  allowed by data/db ingress[0] (policies.yaml:7)
"#);
    let denied = world.run("why shop/idle db-0:6379 policies.yaml --cluster cluster.yaml");
    assert_eq!((denied.status, denied.err.as_str()), (0, ""));
    insta::assert_snapshot!(denied.out, @r#"
shop/Deployment/idle -> data/Pod/db-0 TCP 6379: denied
note: no pod of shop/Deployment/idle is in the input: its pod template stands for one

egress of shop/Deployment/idle: not isolated, so everything passes
ingress of data/Pod/db-0: denied
  isolated by data/db (policies.yaml:1)
  no rule has the other end among its peers
    data/db ingress[0] (policies.yaml:7) opens that port, but to others
  missing rule 1 below would allow it

missing rule 1: at the end of spec.ingress of data/db (policies.yaml:1)
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: shop
      podSelector:
        matchLabels:
          app: idle
    ports:
    - protocol: TCP
      port: 6379
"#);
}

#[test]
fn the_verdict_becomes_a_status_only_where_it_was_asked_for() {
    let world = world();
    let run = |from: &str, more: &str| {
        world.run(&format!("why {from} data/db:6379 policies.yaml --cluster cluster.yaml {more}")).status
    };
    assert_eq!(run("shop/idle", ""), 0);
    assert_eq!(run("shop/idle", "--fail-on denied"), 1);
    assert_eq!(run("shop/web", "--fail-on denied"), 0);
    assert_eq!(run("shop/web", "--fail-on allowed"), 1);
    assert_eq!(run("shop/nobody", ""), 2);
}

#[test]
fn a_question_that_names_nobody_says_what_to_ask_instead() {
    let world = world();
    let error = |from: &str, to: &str| world.run(&format!("why {from} {to} policies.yaml --cluster cluster.yaml")).err;
    insta::assert_snapshot!(error("shop/wbe", "data/db"), @r#"
podfence: `shop/wbe` names no pod and no workload of the input; near it are shop/Deployment/web, shop/Pod/web-1, shop/Deployment/idle
"#);
    insta::assert_snapshot!(error("shop/web", "data/db:0"), @r#"
podfence: `data/db:0` is no question about a port; ports are 1 to 65535
"#);
    insta::assert_snapshot!(error("shop/web", "data/db:sql"), @r#"
podfence: no pod of data/StatefulSet/db has a port named TCP sql; it names none; give a number
"#);
}

#[test]
fn json_is_for_programs_and_evidence_stands_beside_the_rule() {
    let world = World::observed();
    assert_eq!(world.run("generate --log log --cluster cluster.yaml --out policies").status, 0);
    let done = world.run("why shop/web data/db:6379 policies --cluster cluster.yaml -o json");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    let answer: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(answer["verdict"], "allowed");
    let rule = &answer["cases"][0]["ingress"]["rules"][0];
    assert_eq!((rule["policy"].as_str(), rule["evidence"]["flows"].as_u64()), (Some("data/db"), Some(2)));
    let text = world.run("why shop/web data/db:6379 policies --cluster cluster.yaml").out;
    assert!(text.contains("; evidence: 2 flows, 2026-01-31T12:00:00Z to 2026-01-31T12:00:00.206Z"), "{text}");
}
