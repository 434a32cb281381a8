//! `replay`, and `generate --diff`.

use crate::world::World;
use std::fs;

const CLOSED: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
"#;

#[test]
fn what_would_break_is_told_with_its_owner_and_the_missing_rule() {
    let world = World::observed();
    fs::write(world.path("policies.yaml"), CLOSED).expect("written");
    let done = world.run("replay policies.yaml --cluster cluster.yaml --log log --top 3 --fail-on newly-denied");
    assert_eq!((done.status, done.err.as_str()), (1, ""));
    insta::assert_snapshot!(done.out.replace(&world.sample("policies.yaml"), "FLOW"), @r#"
3 flows newly denied, 0 newly allowed, 1 still allowed, 0 still denied, 1 not asked

newly denied: they pass today:
  shop/Deployment/web -> data/StatefulSet/db TCP 6379: 2 flows, 2026-01-31T12:00:00Z to 2026-01-31T12:00:00Z, such as FLOW
    ingress denied: no rule of data/db (policies.yaml:1) allows it, owner data/StatefulSet/db; missing rule 1 below would allow it

newly denied, though nobody ever answered them:
  shop/Deployment/web -> data/StatefulSet/db TCP 22: 1 flow, 2026-01-31T12:00:00Z to 2026-01-31T12:00:00Z, such as 26b83739159d078a
    ingress denied: no rule of data/db (policies.yaml:1) allows it, owner data/StatefulSet/db; missing rule 2 below would allow it

missing rule 1: at the end of spec.ingress of data/db (policies.yaml:1)
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: shop
      podSelector:
        matchLabels:
          app: web
    ports:
    - protocol: TCP
      port: 6379

missing rule 2: at the end of spec.ingress of data/db (policies.yaml:1)
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: shop
      podSelector:
        matchLabels:
          app: web
    ports:
    - protocol: TCP
      port: 22

not asked:
  1 flow: an end that could not be attributed

allowed and never seen: 12 edges
  an attacker from outside gets to 2 of 3 workloads over what is allowed, to 1 over what was used; ranked by how many workloads closing the edge takes away, then by how many it adds to what was used
  outside 0.0.0.0/0, ::/0 -> shop/Deployment/idle all: closing it takes away 0, it adds 1
  shop/Deployment/web -> shop/Deployment/idle all: closing it takes away 0, it adds 1
  outside ::/0 -> shop/Deployment/web all
  and 9 more (--top 12 or -o json lists them)
"#);
}

#[test]
fn what_was_generated_from_a_log_denies_nothing_of_it() {
    let world = World::observed();
    assert_eq!(world.run("generate --log log --cluster cluster.yaml --out policies").status, 0);
    let done = world.run("replay policies --cluster cluster.yaml --log log --fail-on newly-denied");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert!(done.out.starts_with("1 flow newly denied, 0 newly allowed, 3 still allowed"), "{}", done.out);
    assert!(done.out.contains("nobody ever answered"), "{}", done.out);
}

#[test]
fn each_form_holds_the_same_and_an_empty_log_is_no_answer() {
    let world = World::observed();
    fs::write(world.path("policies.yaml"), CLOSED).expect("written");
    let done = world.run("replay policies.yaml --cluster cluster.yaml --log log -o json");
    let answer: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(answer["flows"][0]["change"], "newly-denied");
    let report = world.run("replay policies.yaml --cluster cluster.yaml --log log -o markdown").out;
    assert!(report.starts_with("**Replay of recorded flows:** "), "{report}");
    fs::create_dir(world.path("empty")).expect("made");
    let none = world.run("replay policies.yaml --cluster cluster.yaml --log empty");
    assert_eq!(none.status, 2, "{}", none.err);
}

#[test]
fn generate_says_what_it_would_change_against_what_is_applied() {
    let world = World::observed();
    fs::write(world.path("applied.yaml"), CLOSED).expect("written");
    let words = "generate --log log --cluster cluster.yaml --out policies --dry-run --diff --against applied.yaml";
    let done = world.run(words);
    assert_eq!((done.status, done.err.as_str()), (0, "dry run: nothing was written\n"));
    assert!(!world.path("policies").exists());
    let expected = "changed data/db\nadded data/default-deny\nadded shop/default-deny\nadded shop/idle\nadded shop/web\n\n\
                    From what is applied to what it would be:\n1 connection opens; ";
    assert!(done.out.starts_with(expected), "{}", done.out);
    assert!(done.out.contains("; evidence: 2 flows, "), "{}", done.out);
    assert_eq!(world.run("generate --log log --cluster cluster.yaml --out policies").status, 0);
    let again = world.run("generate --log log --cluster cluster.yaml --out policies --diff --against policies");
    assert_eq!(again.status, 0, "{}", again.err);
    assert!(again.out.contains("no policy is added, changed or removed"), "{}", again.out);
    assert!(again.out.contains("Nothing opens and nothing closes."), "{}", again.out);
}

impl World {
    /// The id of the flow that a replay tells first.
    fn sample(&self, policies: &str) -> String {
        let done = self.run(&format!("replay {policies} --cluster cluster.yaml --log log -o json"));
        let answer: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
        answer["flows"][0]["samples"][0].as_str().expect("an id").to_owned()
    }
}
