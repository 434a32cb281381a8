//! What lint finds, by hand: each case is a cluster with one thing wrong, and the whole of what is said.

use crate::{schema::Schema, world::world};
use review::lint::{self, Report, Texts};

/// Two workloads in two namespaces, DNS, and default-deny for all: nothing to find.
const CLEAN: &str = r#"---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, ports: [{containerPort: 8080, name: http}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: c, ports: [{containerPort: 9090}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec: {containers: [{name: c, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns, namespace: kube-system}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{namespaceSelector: {}}]
    ports: [{port: 53, protocol: UDP}, {port: 53}]
  egress:
  - to: [{ipBlock: {cidr: 192.0.2.53/32}}]
    ports: [{port: 53, protocol: UDP}, {port: 53}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
    ports: [{port: 53, protocol: UDP}, {port: 53}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{port: 9090}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 9090}]
---
"#;

fn linted(yaml: &str) -> Report {
    let world = world(yaml);
    let texts = Texts::from([("world.yaml".into(), yaml.to_owned())]);
    let report = lint::lint(world.input(), &texts, None);
    Schema::of("lint").check(&lint::json(&report));
    report
}

/// Of the clean cluster and this: code, line (counted in the addition from 1) and field, then what was
/// suppressed.
fn added(yaml: &str) -> Vec<String> {
    let report = linted(&format!("{CLEAN}{yaml}"));
    let before = u32::try_from(CLEAN.lines().count()).expect("few lines");
    assert!(report.unchecked.is_empty(), "{:?}", report.unchecked);
    let line = |finding: &lint::Finding| match finding.place.as_ref().map(|place| place.line) {
        Some(line) if line > before => (line - before).to_string(),
        _ => "before".to_owned(),
    };
    let one = |f: &lint::Finding| format!("{} {} {}", f.kind.code, line(f), f.field.trim_start_matches("spec."));
    let suppressed = report.suppressed.iter().map(|(f, reason)| format!("suppressed {} ({reason})", f.kind.code));
    report.findings.iter().map(one).chain(suppressed).collect()
}

/// A policy in one line.
fn policy(name: &str, spec: &str) -> String {
    let head = "apiVersion: networking.k8s.io/v1, kind: NetworkPolicy";
    format!("{{{head}, metadata: {{name: {name}, namespace: shop}}, spec: {{{spec}}}}}\n")
}

/// A policy `a` over this workload, with these ingress rules.
fn ingress(app: &str, rules: &str) -> String {
    policy("a", &format!("podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{rules}]"))
}

fn workload(name: &str, labels: &str, template: &str, pod: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{selector: {{matchLabels: {{{labels}}}}}, \
         template: {{metadata: {{labels: {{{template}}}}}, spec: {{{pod}containers: []}}}}}}}}\n"
    )
}

#[test]
fn nothing_is_said_where_nothing_is_wrong() {
    assert_eq!(added(""), [""; 0]);
}

#[test]
fn selectors_that_lead_to_nobody_are_found() {
    assert_eq!(added(&ingress("gone", "")), ["PF001 1 podSelector", "PF008 1 "]);
    let peer = |selector: &str| ingress("api", &format!("{{from: [{{{selector}}}]}}"));
    assert_eq!(added(&peer("namespaceSelector: {matchLabels: {team: blue}}")), ["PF002 1 ingress[0].from[0]"]);
    let named =
        |name: &str| peer(&format!("namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}"));
    assert_eq!(added(&named("shp")), ["PF003 1 ingress[0].from[0]"]);
    // Every cluster has it, in the input or not.
    assert_eq!(added(&named("kube-public")), [""; 0]);
    let gone = ["PF004 1 ingress[0].from[0]", "PF012 1 ingress[0]"];
    assert_eq!(added(&peer("podSelector: {matchLabels: {app: gone}}")), gone);
}

#[test]
fn ports_that_nobody_serves_are_found() {
    let port = |app: &str, port: &str| {
        ingress(app, &format!("{{from: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}], ports: [{{{port}}}]}}"))
    };
    assert_eq!(added(&port("api", "port: 9090")), [""; 0]);
    assert_eq!(added(&port("api", "port: 9000, endPort: 9100")), [""; 0]);
    assert_eq!(added(&port("api", "port: 9090, protocol: UDP")), ["PF005 1 ingress[0].ports[0]"]);
    assert_eq!(added(&port("web", "port: http")), [""; 0]);
    assert_eq!(added(&port("web", "port: http, protocol: UDP")), ["PF006 1 ingress[0].ports[0]"]);
    let some =
        policy("a", "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}]}]");
    assert_eq!(added(&some), ["PF007 1 ingress[0].ports[0]"]);
    // A container that declares nothing may serve anything.
    let silent = workload("job", "app: job", "app: job", "");
    assert_eq!(added(&format!("{}---\n{silent}", port("job", "port: 1234"))), [""; 0]);
}

#[test]
fn what_can_go_is_found_and_the_first_of_two_stays() {
    let web = "from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 9090}]";
    let block = |cidr: &str| format!("{{ipBlock: {{cidr: {cidr}}}}}");
    let copy = policy("copy", &format!("podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{{web}}}]"));
    assert_eq!(added(&copy), ["PF008 1 "]);
    let wide = format!("{{from: [{}], ports: [{{port: 9090}}]}}", block("10.0.0.0/8"));
    let narrow = format!("{{from: [{}], ports: [{{port: 9090}}]}}", block("10.1.0.0/16"));
    assert_eq!(added(&ingress("api", &format!("{wide}, {narrow}"))), ["PF009 1 ingress[1]"]);
    assert_eq!(added(&ingress("api", &format!("{narrow}, {wide}"))), ["PF009 1 ingress[0]"]);
    // Two halves are together as much as the whole.
    let halves = format!("{{from: [{}, {}], ports: [{{port: 9090}}]}}", block("10.0.0.0/9"), block("10.128.0.0/9"));
    assert_eq!(added(&ingress("api", &format!("{wide}, {halves}"))), ["PF009 1 ingress[1]"]);
    let peers = format!("{{from: [{}, {}], ports: [{{port: 9090}}]}}", block("10.1.0.0/16"), block("10.0.0.0/8"));
    assert_eq!(added(&ingress("api", &peers)), ["PF010 1 ingress[0].from[0]"]);
    let ports = format!("{{from: [{}], ports: [{{port: 9090}}, {{port: 9000, endPort: 9099}}]}}", block("10.0.0.0/8"));
    assert_eq!(added(&ingress("api", &ports)), ["PF011 1 ingress[0].ports[0]"]);
    // Isolates, and takes nothing away.
    let open = "---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: open}, spec: {containers: []}}\n---\n\
                {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: open}, \
                spec: {podSelector: {}, ingress: [{}], egress: [{}]}}\n";
    assert_eq!(added(open), ["PF008 4 ", "PF021 4 ingress[0]"]);
}

#[test]
fn who_removes_the_last_egress_rule_is_told_what_else_it_did() {
    let to = |cidr: &str| format!("{{to: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: 9090}}]}}");
    let policies = |narrow: &str| {
        let wide = policy(
            "z",
            &format!(
                "podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{}]",
                to("10.0.0.0/8")
            ),
        );
        let both = policy(
            "a",
            &format!(
                "podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: [{{port: 8080}}]}}], egress: [{narrow}]"
            ),
        );
        let report = linted(&format!("{CLEAN}{wide}---\n{both}"));
        let redundant = report.findings.into_iter().filter(|finding| finding.kind.code == "PF009");
        redundant.map(|finding| finding.fix.contains("policyTypes: [Ingress, Egress]")).collect::<Vec<_>>()
    };
    assert_eq!(policies(&to("10.1.0.0/16")), [true]);
    assert_eq!(policies(&format!("{}, {}", to("10.1.0.0/16"), to("192.0.2.0/24"))), [false]);
}

#[test]
fn what_only_looks_as_if_it_could_go_stays() {
    let from = "from: [{ipBlock: {cidr: 10.0.0.0/8}}]";
    // A named port may be another number tomorrow.
    assert_eq!(added(&ingress("web", &format!("{{{from}, ports: [{{port: http}}, {{port: 8080}}]}}"))), [""; 0]);
    // All ports of all three protocols are not all protocols: a ping follows a rule without ports.
    let all = "ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]";
    assert_eq!(added(&ingress("api", &format!("{{{from}, {all}}}, {{{from}}}"))), ["PF009 1 ingress[0]"]);
    // A default-deny isolates also whom nobody runs yet.
    assert_eq!(added(&policy("a", "podSelector: {matchExpressions: [{key: app, operator: Exists}]}")), ["PF008 1 "]);
    let other = "---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: open, labels: {a: b}}, spec: {containers: \
                 []}}\n---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: open}, \
                 spec: {podSelector: {matchLabels: {a: b}}, policyTypes: [Ingress, Egress]}}\n---\n\
                 {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: z, namespace: open}, \
                 spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}\n";
    assert_eq!(added(other), ["PF008 4 "]);
}

#[test]
fn a_rule_that_the_other_end_refuses_is_found() {
    let rule = "{from: [{podSelector: {matchLabels: {app: api}}}]}";
    assert_eq!(added(&ingress("web", rule)), ["PF012 1 ingress[0]"]);
}

#[test]
fn isolation_without_dns_and_no_isolation_are_found() {
    let pod = |name: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: o}}, spec: {{containers: []}}}}\n"
        )
    };
    let over = |types: &str, egress: &str| {
        format!(
            "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a, namespace: o}}, \
             spec: {{podSelector: {{}}, policyTypes: {types}, egress: [{egress}]}}}}\n"
        )
    };
    assert_eq!(added(&pod("p")), ["PF015 2 ", "PF016 2 "]);
    // A namespace none of whose workloads is isolated is told of once.
    assert_eq!(added(&format!("{}{}", pod("p"), pod("q"))), ["PF015 2 ", "PF016 2 "]);
    let egress = |rule: &str| added(&format!("{}{}", pod("p"), over("[Ingress, Egress]", rule)));
    // Who may ask nobody has no names to resolve.
    assert_eq!(egress(""), [""; 0]);
    assert_eq!(egress("{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}"), ["PF013 4 egress"]);
    assert_eq!(egress("{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}"), ["PF014 4 egress"]);
    assert_eq!(egress("{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}"), [""; 0]);
    // A cache on the node, or a resolver outside.
    assert_eq!(egress("{to: [{ipBlock: {cidr: 169.254.20.10/32}}]}"), [""; 0]);
    // Whoever it may ask, none of them is the DNS.
    assert_eq!(egress("{to: [{namespaceSelector: {matchLabels: {team: red}}}]}"), ["PF013 4 egress"]);
}

#[test]
fn pods_of_the_host_network_and_of_two_workloads_are_found() {
    let host = workload("host", "app: host", "app: host", "hostNetwork: true, ");
    assert_eq!(added(&host), ["PF017 before podSelector"]);
    assert_eq!(added(&workload("web2", "app: web", "app: web, v: two", "")), ["PF020 before selector"]);
}

#[test]
fn what_is_written_otherwise_than_it_is_read_is_found() {
    let block = |block: &str| ingress("api", &format!("{{from: [{{ipBlock: {{{block}}}}}], ports: [{{port: 9090}}]}}"));
    assert_eq!(added(&block("cidr: 10.1.2.3/8")), ["PF018 1 ingress[0].from[0].ipBlock.cidr"]);
    assert_eq!(
        added(&block("cidr: 0.0.0.0/0, except: [010.0.0.0/8]")),
        ["PF018 1 ingress[0].from[0].ipBlock.except[0]", "PF021 1 ingress[0].from[0]"]
    );
    assert_eq!(added(&block("cidr: \"::ffff:10.0.0.0/104\"")), ["PF018 1 ingress[0].from[0].ipBlock.cidr"]);
    let labels = |labels: &str| added(&policy("a", &format!("podSelector: {{matchLabels: {{{labels}}}}}")));
    let gone = ["PF001 1 podSelector", "PF008 1 "];
    assert_eq!(labels("app: \"2026-01-31\""), gone);
    assert_eq!(labels("app: 2026-01-31")[2..], ["PF019 1 podSelector"]);
    assert_eq!(labels("on: x")[2..], ["PF019 1 podSelector"]);
    let written = |spec: &str| added(&policy("a", &format!("podSelector: {{matchLabels: {{app: web}}}}, {spec}")));
    assert_eq!(written("policyTypes: [Egress], ingress: [{}]"), ["PF008 1 ", "PF025 1 ingress"]);
    assert_eq!(written("egress: []"), ["PF008 1 ", "PF026 1 policyTypes"]);
    assert_eq!(written("egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]"), ["PF026 1 policyTypes"]);
    assert_eq!(written("policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]"), [""; 0]);
}

#[test]
fn a_comment_suppresses_with_a_reason_what_is_there() {
    let gone = ingress("gone", "");
    let with = |comment: &str| added(&format!("# podfence: ignore {comment}\n{gone}"));
    assert_eq!(with("PF001,PF008 next week"), ["suppressed PF001 (next week)", "suppressed PF008 (next week)"]);
    assert_eq!(with("PF001,PF008"), ["PF027 1 ", "PF001 2 podSelector", "PF008 2 "]);
    assert_eq!(with("PF002 x"), ["PF028 1 ", "PF001 2 podSelector", "PF008 2 "]);
    assert_eq!(with("PF999 x"), ["PF028 1 ", "PF001 2 podSelector", "PF008 2 "]);
    let same_line = format!("{} # podfence: ignore PF001,PF008 next week\n", gone.trim_end());
    assert_eq!(added(&same_line), ["suppressed PF001 (next week)", "suppressed PF008 (next week)"]);
    let rule = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a, namespace: shop}\n\
                spec:\n  podSelector: {matchLabels: {app: api}}\n  ingress:\n  # podfence: ignore PF018 as the map has it\n  \
                - from:\n    - ipBlock:\n        cidr: 10.1.2.3/8\n    ports: [{port: 9090}]\n";
    assert_eq!(added(rule), ["suppressed PF018 (as the map has it)"]);
}

#[test]
fn json_is_looked_at_as_well() {
    let yaml = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": []}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec":
            {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
             "egress": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/8"}}]}]}}]}"#;
    let report = linted(yaml);
    let codes: Vec<&str> = report.findings.iter().map(|finding| finding.kind.code).collect();
    assert_eq!(codes, ["PF018"]);
    assert!(report.unchecked.is_empty(), "{:?}", report.unchecked);
}

#[test]
fn codes_are_in_order_and_none_is_told_twice() {
    let codes: Vec<&str> = lint::ALL.iter().map(|kind| kind.code).collect();
    let expected: Vec<String> = (1..=28).map(|n| format!("PF{n:03}")).collect();
    assert_eq!(codes, expected);
}
