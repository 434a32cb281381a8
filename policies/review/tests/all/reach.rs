//! Reachability of small clusters, by hand.

use crate::world::{allowed, block, nobody, pod, world};
use review::{Direction, End, Reach, Sets, Universe};

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
---
apiVersion: v1
kind: Namespace
metadata: {name: data, labels: {team: blue}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: []}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec: {selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}, spec: {containers: []}}}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: data, labels: {app: db}}
spec: {containers: [{name: db, ports: [{name: sql, containerPort: 5432}]}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.5}, {ip: "fd00::5"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: api}}}]
      ports: [{port: sql}]
    - from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
      ports: [{port: 9000, endPort: 9010}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Egress]
  egress:
    - to: [{ipBlock: {cidr: 10.1.0.0/16}}]
      ports: [{port: 5432}]
    - ports: [{port: 53, protocol: UDP}]
"#;

#[test]
fn both_ends_must_allow() {
    let shop = world(SHOP);
    let universe = Universe::of(&[shop.input()]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let (web, api) = (pod(&universe, "web"), pod(&universe, "api"));
    let ends = &universe.pods(0).iter().find(|(pod, _)| pod.name == "db-0").expect("the database").1;
    // A rule's block holds its IPv4 address, and no rule holds the other: two ends of one pod.
    let [v4, v6] = ends[..] else { panic!("{ends:?}") };
    assert_eq!(allowed(&reach, web, v4), "none");
    assert_eq!(allowed(&reach, api, v4), "TCP 5432");
    assert_eq!(allowed(&reach, api, v6), "none");
    assert_eq!(allowed(&reach, web, api), "all");
    assert_eq!(allowed(&reach, api, web), "UDP 53");
    assert_eq!(reach.isolated_by(Direction::Ingress, v4), Some(&[0][..]));
    assert_eq!(reach.isolated_by(Direction::Egress, v4), None);
    let rules = reach.rules(Direction::Ingress, api, v4);
    let name = reach.rule_name(rules[0].0).expect("a rule");
    assert_eq!(name.to_string(), "data/db ingress[0]");
}

#[test]
fn addresses_are_split_where_a_policy_tells_them_apart() {
    let shop = world(SHOP);
    let universe = Universe::of(&[shop.input()]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let db = pod(&universe, "db-0");
    assert_eq!(allowed(&reach, block(&universe, "192.0.2.1/32"), db), "TCP 9000-9010");
    assert_eq!(allowed(&reach, block(&universe, "192.0.2.200/32"), db), "none");
    assert_eq!(allowed(&reach, block(&universe, "2001:db8::1/128"), db), "none");
    assert_eq!(allowed(&reach, db, block(&universe, "2001:db8::1/128")), "none", "the IPv4 end of the pod");
    assert_eq!(allowed(&reach, pod(&universe, "web"), block(&universe, "192.0.2.200/32")), "all");
}

#[test]
fn labels_that_nobody_has_yet_are_ends() {
    let shop = world(SHOP);
    let universe = Universe::of(&[shop.input()]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let db = pod(&universe, "db-0");
    let tomorrow: Vec<_> = universe
        .nobody()
        .filter(|(id, _)| reach.sets().get(reach.allowed(*id, db)).to_string() == "TCP 5432")
        .collect();
    let [(_, api)] = tomorrow[..] else { panic!("{tomorrow:#?}") };
    assert_eq!(api.described, "app=api");
    assert!(matches!(&api.namespace, review::Where::New { described, .. } if described == "team=red"), "{api:?}");
    let free = nobody(&universe, "any other labels");
    assert!(matches!(universe.end(free), End::Nobody(_)));
    assert!(universe.incomplete().is_empty());
}
