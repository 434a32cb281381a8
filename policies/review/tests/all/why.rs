//! Why a connection may or may not be opened, by hand.

use crate::{
    schema::Schema,
    world::{World, world},
};
use review::why::{self, Judgement, Problem, Question, Verdict, Why};

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: data}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web, on: "yes"}}, spec: {containers: []}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: data}
spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: []}}}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: data, uid: d0, labels: {app: db, role: primary}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: s, controller: true}]}
spec: {containers: [{name: db, ports: [{name: sql, containerPort: 5432}]}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.5}, {ip: "fd00::5"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: data, uid: d1, labels: {app: db, role: replica}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: s, controller: true}]}
spec: {containers: [{name: db, ports: [{name: sql, containerPort: 5433}]}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.6}, {ip: "fd00::6"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: data, uid: a, labels: {app: agent}}
spec: {hostNetwork: true, nodeName: node-1, containers: []}
status: {phase: Running, podIPs: [{ip: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: data, uid: x, labels: {app: db}}
spec: {containers: []}
status: {phase: Succeeded, podIPs: [{ip: 10.1.0.9}]}
---
apiVersion: v1
kind: Service
metadata: {name: sql, namespace: data}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: db}, ports: [{port: 5432}]}
"#;

const CLOSED: &str = r#"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: data}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: primary, namespace: data}
spec:
  podSelector: {matchLabels: {role: primary}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: web}}}]
      ports: [{port: sql}]
"#;

fn ask(world: &World, from: &str, to: &str) -> Result<Why, Problem> {
    let question = Question { from: from.parse()?, to: to.parse()? };
    let why = why::why(world.input(), &question, &|_| None)?;
    Schema::of("why").check(&why.to_json());
    Ok(why)
}

fn said(world: &World, from: &str, to: &str) -> String {
    let why = ask(world, from, to).unwrap_or_else(|problem| panic!("{problem}"));
    why.lines().join("\n")
}

#[test]
fn pods_of_one_workload_that_differ_are_told_apart() {
    let shop = world(&format!("{SHOP}{CLOSED}"));
    let text = said(&shop, "shop/web", "data/db:5432");
    let expected = "\
shop/Deployment/web -> data/StatefulSet/db TCP 5432: pods differ
note: no pod of shop/Deployment/web is in the input: its pod template stands for one

1 of 2: web -> db-0: allowed
egress of shop/Deployment/web: not isolated, so everything passes
ingress of data/StatefulSet/db: allowed
  isolated by data/closed (world.yaml:55)
  isolated by data/primary (world.yaml:60)
  allowed by data/primary ingress[0] (world.yaml:66)

2 of 2: web -> db-1: denied
egress of shop/Deployment/web: not isolated, so everything passes
ingress of data/StatefulSet/db: denied
  isolated by data/closed (world.yaml:55)
  no rule has the other end among its peers
  missing rule 1 below would allow it

missing rule 1: as a policy of its own
  ---
  apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata:
    name: db-from-web
    namespace: data
  spec:
    podSelector:
      matchLabels:
        app: db
    policyTypes:
    - Ingress
    ingress:
    - from:
      - namespaceSelector:
          matchLabels:
            kubernetes.io/metadata.name: shop
        podSelector:
          matchLabels:
            app: web
      ports:
      - protocol: TCP
        port: 5432";
    assert_eq!(text, expected, "{text}");
}

#[test]
fn a_named_port_is_each_pods_own() {
    let shop = world(&format!("{SHOP}{CLOSED}"));
    let why = ask(&shop, "shop/web", "data/db:sql").unwrap();
    let told: Vec<_> = why.cases.iter().map(|case| (case.to[0].as_str(), case.number, case.is_allowed)).collect();
    assert_eq!(told, [("db-0", Some(5432), true), ("db-1", Some(5433), false)]);
    assert!(why.missing[0].rule_yaml().contains("port: sql"), "{}", why.missing[0].rule_yaml());
    let problem = ask(&shop, "shop/web", "data/db:http").unwrap_err().to_string();
    assert_eq!(problem, "no pod of data/StatefulSet/db has a port named TCP http; it has sql/TCP");
}

#[test]
fn the_rule_goes_into_the_policy_of_the_workload_alone() {
    let policy = r#"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}], ports: [{port: 443}]}]
"#;
    let shop = world(&format!("{SHOP}{policy}"));
    let text = said(&shop, "shop/web", "203.0.113.9:443");
    let expected = "\
shop/Deployment/web -> 203.0.113.9 TCP 443: denied
note: no pod of shop/Deployment/web is in the input: its pod template stands for one
note: 203.0.113.9 is no pod of the input: no policy selects it

egress of shop/Deployment/web: denied
  isolated by shop/web (world.yaml:55)
  no rule has the other end among its peers
    shop/web egress[0] (world.yaml:61) opens that port, but to others
  missing rule 1 below would allow it
ingress of 203.0.113.9: no policy selects it, so this side lets everything pass

missing rule 1: at the end of spec.egress of shop/web (world.yaml:55)
  - to:
    - ipBlock:
        cidr: 203.0.113.9/32
    ports:
    - protocol: TCP
      port: 443";
    assert_eq!(text, expected, "{text}");
    let without_port = said(&shop, "shop/web", "198.51.100.7");
    assert!(without_port.starts_with("shop/Deployment/web -> 198.51.100.7 at any port: TCP 443\n"), "{without_port}");
}

#[test]
fn what_the_api_leaves_open_is_said() {
    let shop = world(&format!("{SHOP}{CLOSED}"));
    let itself = ask(&shop, "db-0", "data/pod/db-0:22").unwrap();
    assert_eq!((itself.verdict, itself.cases[0].egress.judgement), (Verdict::Allowed, Judgement::Exempt));
    let other = ask(&shop, "data/db", "data/db:22").unwrap();
    assert_eq!(other.verdict, Verdict::Denied);
    assert!(other.notes.iter().any(|note| note.contains("two pods of one workload")), "{:?}", other.notes);
    let host = said(&shop, "data/agent", "data/db:5432");
    assert!(host.contains("is on the host network"), "{host}");
    assert!(host.contains("what a node itself sends"), "{host}");
    assert!(host.contains("cidr: 192.0.2.1/32"), "{host}");
    let node = said(&shop, "192.0.2.1", "data/db:5432");
    assert!(node.contains("192.0.2.1 is node node-1"), "{node}");
    let pod = said(&shop, "shop/web", "[fd00::5]:5432");
    assert!(pod.starts_with("shop/Deployment/web -> fd00::5 (data/Pod/db-0) TCP 5432: allowed"), "{pod}");
}

#[test]
fn a_name_that_means_nobody_says_who_is_near() {
    let shop = world(SHOP);
    let problem = |from, to| ask(&shop, from, to).unwrap_err().to_string();
    assert_eq!(
        problem("shop/wbe", "data/db"),
        "`shop/wbe` names no pod and no workload of the input; near it are shop/Deployment/web"
    );
    assert!(problem("shop/web", "data/sql:5432").contains("ask for data/StatefulSet/db, at the port of its pods"));
    assert!(problem("shop/web", "10.96.0.1:5432").contains("is Service data/sql"));
    assert!(problem("shop/web", "data/done").contains("data/done has completed"));
    assert!(problem("10.0.0.1", "fd00::1").contains("no address family in common"));
}

#[test]
fn every_answer_fits_the_schema_and_every_field_of_it_is_in_some() {
    let more = r#"
---
apiVersion: v1
kind: Pod
metadata: {name: shadow, namespace: data, uid: shadow, labels: {app: db, role: primary}}
spec: {containers: []}
status: {phase: Running, podIPs: [{ip: 10.1.0.8}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: data, uid: bare}
spec: {containers: []}
status: {phase: Running, podIPs: [{ip: 10.1.0.7}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - {to: [{ipBlock: {cidr: 198.51.100.0/24}}], ports: [{port: 443}]}
  - {to: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: 53}, {protocol: SCTP, port: 9}, {port: 5432}]}
"#;
    let worlds = ["", CLOSED, more, &format!("{CLOSED}{more}")].map(|policies| world(&format!("{SHOP}{policies}")));
    let clients = ["shop/web", "data/db", "db-0", "data/agent", "10.1.0.5", "192.0.2.1", "203.0.113.9", "fd00::5"];
    let servers =
        ["shop/web", "data/db", "db-0", "data/shadow", "data/bare", "data/agent", "[fd00::6]", "198.51.100.7"];
    let ports = ["", ":5432", ":sql", ":53/udp", ":9/sctp", ":443"];
    let schema = Schema::of("why");
    for world in &worlds {
        for from in clients {
            for to in servers.iter().flat_map(|to| ports.map(|port| format!("{to}{port}"))) {
                let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else { panic!("{from} -> {to}") };
                let times = ["2026-01-31T12:00:01Z", "2026-01-31T12:00:02Z"].map(|time| Some(time.to_owned()));
                let [first, last] = times;
                let all = || vec!["one".to_owned(), "two".to_owned()];
                let evidence = review::Evidence {
                    flows: 3,
                    first,
                    last,
                    directions: all(),
                    nodes: all(),
                    services: all(),
                    dns_names: all(),
                    samples: all(),
                    wider: all(),
                };
                let seen = |_: &_| Some(evidence.clone());
                if let Ok(why) = why::why(world.input(), &Question { from, to }, &seen) {
                    schema.check(&why.to_json());
                }
            }
        }
    }
    assert_eq!(schema.not_met(), [""; 0]);
}
