//! The whole map of small clusters, by hand.

use crate::{
    schema::Schema,
    world::{World, world},
};
use review::{
    Reach, Sets, Universe,
    map::{By, Map, Options},
};

const CLUSTER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
---
apiVersion: v1
kind: Namespace
metadata: {name: data}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: []}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: shop}
spec: {selector: {matchLabels: {app: agent}}, template: {metadata: {labels: {app: agent}}, spec: {hostNetwork: true, containers: []}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: data}
spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: []}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: db-0
  namespace: data
  labels: {app: db, role: first}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: u, controller: true}]
spec: {containers: [{name: db, ports: [{name: sql, containerPort: 5432}]}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.5}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: db-1
  namespace: data
  labels: {app: db, role: second}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: u, controller: true}]
spec: {containers: [{name: db, ports: [{name: sql, containerPort: 5433}]}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.6}]}
"#;

const POLICIES: &str = r#"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: web}}}]
      ports: [{port: sql}]
    - from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
      ports: [{port: 9000, endPort: 9010}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: first, namespace: data}
spec:
  podSelector: {matchLabels: {role: first}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 53, protocol: UDP}]}]
"#;

/// The rows as lines: `from -> to: allowed`.
fn lines(world: &World, options: &Options) -> Vec<String> {
    with(world, options, |map, sets| {
        let mut lines = Vec::new();
        let done = map.for_each(|row| {
            let partial = if row.open.partial { " (partly)" } else { "" };
            let (from, to) = (map.party(row.from), map.party(row.to));
            lines.push(format!("{from} -> {to}: {}{partial}", sets.get(row.open.allowed)));
            Ok::<(), ()>(())
        });
        assert_eq!(done, Ok(()));
        lines
    })
}

fn with<T>(world: &World, options: &Options, ask: impl FnOnce(&Map<'_>, &Sets) -> T) -> T {
    let universe = Universe::of(&[world.input()]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let map = Map::new(&reach, options).unwrap_or_else(|problem| panic!("{problem}"));
    ask(&map, &sets)
}

fn only(from: Option<&str>, to: Option<&str>) -> Options {
    let filter = |text: Option<&str>| text.map(|text| text.parse().expect("a filter of the test"));
    Options { from: filter(from), to: filter(to), ..Options::default() }
}

fn shop() -> World {
    world(&format!("{CLUSTER}{POLICIES}"))
}

#[test]
fn a_workloads_row_is_the_union_over_its_pods() {
    assert_eq!(
        lines(&shop(), &Options::default()),
        [
            "data/StatefulSet/db -> shop/DaemonSet/agent: UDP 53 (partly)",
            "data/StatefulSet/db -> shop/Deployment/web: UDP 53 (partly)",
            "data/StatefulSet/db -> 0.0.0.0/0: UDP 53 (partly)",
            "shop/DaemonSet/agent -> shop/DaemonSet/agent: all",
            "shop/DaemonSet/agent -> shop/Deployment/web: all",
            "shop/DaemonSet/agent -> 0.0.0.0/0: all",
            "shop/DaemonSet/agent -> ::/0: all",
            "shop/Deployment/web -> data/StatefulSet/db: TCP 5432-5433 (partly)",
            "shop/Deployment/web -> shop/DaemonSet/agent: all",
            "shop/Deployment/web -> shop/Deployment/web: all",
            "shop/Deployment/web -> 0.0.0.0/0: all",
            "shop/Deployment/web -> ::/0: all",
            "0.0.0.0/0 -> shop/DaemonSet/agent: all",
            "0.0.0.0/0 -> shop/Deployment/web: all",
            "192.0.2.0/25 -> data/StatefulSet/db: TCP 9000-9010",
            "::/0 -> shop/DaemonSet/agent: all",
            "::/0 -> shop/Deployment/web: all",
        ]
    );
}

#[test]
fn rows_by_pod_tell_pods_apart_and_leave_a_pod_to_itself_out() {
    let options = Options { by: By::Pod, ..only(None, Some("data")) };
    assert_eq!(
        lines(&shop(), &options),
        [
            "shop/Deployment/web -> data/Pod/db-0: TCP 5432",
            "shop/Deployment/web -> data/Pod/db-1: TCP 5433",
            "192.0.2.0/25 -> data/Pod/db-0: TCP 9000-9010",
            "192.0.2.0/25 -> data/Pod/db-1: TCP 9000-9010",
        ]
    );
    let free = lines(&world(CLUSTER), &Options { by: By::Pod, ..only(Some("data"), Some("data")) });
    assert_eq!(free, ["data/Pod/db-0 -> data/Pod/db-1: all", "data/Pod/db-1 -> data/Pod/db-0: all"]);
}

#[test]
fn each_way_to_name_an_end_narrows_the_rows() {
    let web = "shop/Deployment/web -> data/StatefulSet/db: TCP 5432-5433 (partly)";
    let first = "shop/Deployment/web -> data/Pod/db-0: TCP 5432";
    let table: [(Option<&str>, Option<&str>, &[&str]); 8] = [
        (Some("shop/web"), Some("data/db"), &[web]),
        (Some("shop"), Some("data/StatefulSet/db"), &[web]),
        (Some("web"), Some("db-0"), &[first]),
        (Some("shop"), Some("10.1.0.5"), &[first]),
        (Some("192.0.2.7"), Some("data"), &["192.0.2.7/32 -> data/StatefulSet/db: TCP 9000-9010"]),
        (Some("192.0.2.64/26"), Some("data"), &["192.0.2.64/26 -> data/StatefulSet/db: TCP 9000-9010"]),
        (Some("192.0.2.200"), Some("data"), &[]),
        (Some("data/db-1"), None, &[]),
    ];
    for (from, to, rows) in table {
        assert_eq!(lines(&shop(), &only(from, to)), rows, "{from:?} {to:?}");
    }
}

#[test]
fn a_name_of_nobody_names_who_is_near() {
    let shop = shop();
    let universe = Universe::of(&[shop.input()]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let problem = Map::new(&reach, &only(Some("shop/wep"), None)).err().expect("nobody");
    assert!(problem.to_string().contains("near it are shop/Deployment/web"), "{problem}");
    assert!("a/b/c/d".parse::<review::map::Filter>().is_err());
}

#[test]
fn exposure_is_who_else_could_connect() {
    let options = Options { exposure: true, ..only(None, Some("data")) };
    assert_eq!(
        lines(&shop(), &options),
        [
            "shop/Deployment/web -> data/StatefulSet/db: TCP 5432-5433 (partly)",
            "192.0.2.0/25 -> data/StatefulSet/db: TCP 9000-9010",
            "(new pods with app=web in new namespaces with team=red) -> data/StatefulSet/db: TCP 5432-5433 (partly)",
        ]
    );
    let free = lines(&world(CLUSTER), &Options { exposure: true, ..only(None, Some("data")) });
    assert!(free.contains(&"(any new pod) -> data/StatefulSet/db: all".to_owned()), "{free:#?}");
}

#[test]
fn every_form_says_the_same_rows() {
    let shop = shop();
    let options = Options { exposure: true, ..Options::default() };
    with(&shop, &options, |map, _| {
        let written = |write: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
            let mut out = Vec::new();
            write(&mut out).expect("memory");
            String::from_utf8(out).expect("text")
        };
        let json: serde_json::Value = serde_json::from_str(&written(&|out| map.write_json(out))).expect("JSON");
        let yaml: serde_json::Value = serde_saphyr::from_str(&written(&|out| map.write_yaml(out))).expect("YAML");
        assert_eq!(json, yaml);
        Schema::of("reach").check(&json.to_string());
        let rows = json["connections"].as_array().expect("rows").len();
        let arrows = |text: &str, arrow: &str| text.lines().filter(|line| line.contains(arrow)).count();
        assert_eq!(arrows(&written(&|out| map.write_dot(out)), " -> "), rows);
        let mermaid = written(&|out| map.write_mermaid(out));
        assert_eq!(arrows(&mermaid, "-->|") + arrows(&mermaid, "-.->|"), rows);
        let text = written(&|out| map.write_text(out));
        assert_eq!(text.lines().take_while(|line| !line.is_empty()).count(), rows + 1);
        let protocols = json["connections"].as_array().expect("rows").iter();
        let protocols = protocols.map(|row| row["allowed"].as_array().expect("protocols").len());
        assert_eq!(written(&|out| map.write_csv(out)).lines().count(), protocols.sum::<usize>() + 1);
    });
}

#[test]
fn nothing_allowed_is_written_too() {
    let denied = world(&format!("{CLUSTER}{POLICIES}"));
    with(&denied, &only(Some("192.0.2.200"), Some("data")), |map, _| {
        let mut out = Vec::new();
        map.write_json(&mut out).expect("memory");
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        Schema::of("reach").check(&json.to_string());
        let mut out = Vec::new();
        map.write_yaml(&mut out).expect("memory");
        assert_eq!(json, serde_saphyr::from_slice::<serde_json::Value>(&out).expect("YAML"));
    });
}

#[test]
fn a_truth_table_can_be_checked_by_hand() {
    let table = with(&shop(), &Options { disjoint: true, ..Options::default() }, |map, _| {
        let mut out = Vec::new();
        map.write_matrix(&mut out).expect("memory");
        String::from_utf8(out).expect("text")
    });
    let expected = "
                                     1 2 3 4 5 6
1 data/StatefulSet/db                X . . . . X
2 shop/DaemonSet/agent (hostNetwork) X . . . . .
3 shop/Deployment/web                . . . . . .
4 addresses, see below               X . . - - -
5 192.0.2.0/25                       . . . - - -
6 ::/0                               X . . - - -

4 0.0.0.0/1 128.0.0.0/2 192.0.0.0/23 192.0.2.128/25 ";
    let told: Vec<&str> = table.lines().skip(3).collect();
    assert!(told.join("\n").starts_with(expected), "{table}");
}
