//! `lint`.

use crate::world::World;
use std::fs;

const POLICIES: &str = r#"# podfence: ignore PF001 comes back with the next release
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: gone, namespace: shop}
spec:
  podSelector: {matchLabels: {app: gone}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
    - from: [{ipBlock: {cidr: 203.0.113.9/24}}]
      ports: [{port: 8080}]
    - from: [{ipBlock: {cidr: 203.0.113.0/28}}]
      ports: [{port: 8080}]
  egress:
    - {}
"#;

fn world() -> World {
    let world = World::observed();
    fs::write(world.path("policies.yaml"), POLICIES).expect("written");
    world
}

#[test]
fn findings_are_told_by_file_and_line_and_errors_fail() {
    let world = world();
    let done = world.run("lint policies.yaml --cluster cluster.yaml");
    assert_eq!((done.status, done.err.as_str()), (1, ""));
    insta::assert_snapshot!(done.out, @r#"
cluster.yaml:5: note PF016 egress-not-isolated: Namespace shop: none of its 2 workloads is isolated for egress
    why: it may connect to everyone, in the cluster and outside
    fix: write a policy that selects it, with Egress among its types; default-deny for the namespace covers all
cluster.yaml:20: note PF015 ingress-not-isolated: StatefulSet data/db: not isolated for ingress
    why: everyone may connect to it, in the cluster and from outside
    fix: write a policy that selects it, with Ingress among its types; default-deny for the namespace covers all
cluster.yaml:20: note PF016 egress-not-isolated: StatefulSet data/db: not isolated for egress
    why: it may connect to everyone, in the cluster and outside
    fix: write a policy that selects it, with Egress among its types; default-deny for the namespace covers all
cluster.yaml:28: note PF015 ingress-not-isolated: Deployment shop/idle: not isolated for ingress
    why: everyone may connect to it, in the cluster and from outside
    fix: write a policy that selects it, with Ingress among its types; default-deny for the namespace covers all

policies.yaml:8: error PF025 rules-ignored: NetworkPolicy shop/web spec.egress: 1 egress rule is ignored, as policyTypes does not have Egress
    why: Kubernetes stores them and ignores them: they allow and isolate nothing
    fix: add Egress to policyTypes, or remove egress
policies.yaml:15: warning PF018 cidr-not-canonical: NetworkPolicy shop/web spec.ingress[0].from[0].ipBlock.cidr: 203.0.113.9/24 is read as 203.0.113.0/24
    why: readers differ: Kubernetes ignores host bits and leading zeros, others refuse them or read octal
    fix: write 203.0.113.0/24
policies.yaml:17: warning PF009 redundant-rule: NetworkPolicy shop/web spec.ingress[1]: no verdict changes without it: its ingress[0] (policies.yaml:15) opens the same
    why: who removes it to close something closes nothing
    fix: remove the rule

1 error, 2 warnings, 4 notes; 1 suppressed
"#);
}

#[test]
fn the_status_follows_what_was_asked_for() {
    let world = world();
    let status = |more: &str| world.run(&format!("lint policies.yaml --cluster cluster.yaml {more}")).status;
    assert_eq!(status("--fail-on PF009"), 1);
    assert_eq!(status("--fail-on PF001"), 0, "it is suppressed");
    assert_eq!(status("--fail-on PF002,note"), 1);
    assert_eq!(status("--fail-on PF999"), 2);
    assert_eq!(world.run("lint nowhere.yaml").status, 2);
}

#[test]
fn a_log_tells_what_nobody_used() {
    let world = world();
    let done = world.run("lint policies.yaml --cluster cluster.yaml --log log --fail-on PF022");
    assert_eq!(done.status, 0, "{}", done.out);
    fs::write(world.path("policies.yaml"), POLICIES.replace("203.0.113.9/24", "198.51.100.0/24")).expect("written");
    let done = world.run("lint policies.yaml --cluster cluster.yaml --log log --fail-on PF022");
    assert_eq!(done.status, 1, "{}", done.out);
    assert!(done.out.contains("no flow used it in "), "{}", done.out);
}

#[test]
fn programs_read_the_same_as_json_and_sarif() {
    let world = world();
    let read = |form: &str| {
        let out = world.run(&format!("lint policies.yaml --cluster cluster.yaml -o {form}")).out;
        serde_json::from_str::<serde_json::Value>(&out).expect("JSON")
    };
    let (json, sarif) = (read("json"), read("sarif"));
    let codes = |list: &serde_json::Value, key: &str| -> Vec<String> {
        list.as_array().expect("a list").iter().map(|item| item[key].as_str().expect("a code").to_owned()).collect()
    };
    assert_eq!(codes(&json["findings"], "code"), codes(&sarif["runs"][0]["results"], "ruleId"));
    assert_eq!(json["suppressed"][0]["reason"], "comes back with the next release");
    assert_eq!(sarif["runs"][0]["properties"]["suppressed"], 1);
}

#[test]
fn every_kind_is_listed() {
    let world = World::new();
    let done = world.run("lint --list");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    for code in ["PF001 selects-no-pod (warning)", "PF028 suppresses-nothing (warning)"] {
        assert!(done.out.lines().any(|line| line == code), "{}", done.out);
    }
}
