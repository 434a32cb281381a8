//! A Service of whose two backends, on the client's node, policy allows one, with real packets through the node's own
//! translation: every connection to the allowed backend works, none reaches the other.

use lab::{CallOutcome, Outcome, Scenario};
use model::{
    cluster::Mode,
    record::{FlowRecord, FlowVerdict},
};
use std::{collections::BTreeSet, fs};
use tests::{
    privilege,
    questions::read,
    story::{Applied, Watch, alone, lab_of, law_7, unanswered},
};
use verdict::Reason;

/// Rounds of one call a family. In every round either backend is as likely as the other.
const ROUNDS: usize = 12;

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {kubernetes.io/hostname: node-1}}
spec: {podCIDRs: [10.77.0.0/24, "fd00:77::/64"]}
status:
  addresses:
    - {type: InternalIP, address: 192.0.2.10}
    - {type: InternalIP, address: "2001:db8::10"}
---
apiVersion: v1
kind: Namespace
metadata: {name: kube-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"#;

const DNS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: None
  selector: {tier: dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
"#;

const API: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20, "fd00:96::20"]
  selector: {tier: api}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;

const TRAFFIC: &str = r#"
serve:
  - {workload: kube-system/coredns, dns: 53}
  - {workload: shop/open, http: 8080}
  - {workload: shop/closed, http: 8080}
calls:
  - {from: shop/web, to: "http://api:80/", every: 200ms}
"#;

fn deployment(namespace: &str, name: &str, tier: &str, ports: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, tier: {tier}}}}}
    spec: {{containers: [{{name: main, image: main, ports: [{ports}]}}]}}
"#
    )
}

fn scenario() -> Scenario {
    let http = "{name: http, containerPort: 8080}";
    let dns = "{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53, protocol: TCP}";
    let objects = [
        NODE.to_owned(),
        deployment("kube-system", "coredns", "dns", dns),
        DNS.to_owned(),
        deployment("shop", "web", "web", ""),
        deployment("shop", "open", "api", http),
        deployment("shop", "closed", "api", http),
        API.to_owned(),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("cluster.yaml"), objects.join("---\n")).expect("the objects");
    fs::write(folder.path().join("traffic.yaml"), TRAFFIC).expect("the traffic");
    Scenario::load(folder.path()).expect("a scenario")
}

/// The web server may ask for names, and open to these pods.
fn applied(mode: Mode, apps: &str) -> Applied {
    let policy = format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  policyTypes: [Egress]
  egress:
    - to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: kube-system}}}}}}]
    - to: [{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [{apps}]}}]}}}}]
      ports: [{{port: 8080}}]
"#
    );
    Applied { mode, policies: read(&policy).policies, ..Applied::default() }
}

fn rounds(watch: &Watch<'_>) -> Vec<CallOutcome> {
    (0..ROUNDS).flat_map(|_| watch.round()).collect()
}

/// Which workloads answered.
fn by(calls: &[CallOutcome]) -> BTreeSet<&'static str> {
    let answered = calls.iter().filter_map(|call| match &call.outcome {
        Outcome::Answered { by: Some(by) } => Some(by.as_str()),
        _ => None,
    });
    answered.map(|by| if by.starts_with("shop/open-") { "open" } else { "closed" }).collect()
}

/// The refusals at the closed pod, each connection once.
fn refusals(rows: &[FlowRecord], verdict: FlowVerdict) -> BTreeSet<(std::net::IpAddr, u16)> {
    let refused = rows.iter().filter(|row| {
        let closed = row.server.workload.as_ref().is_some_and(|workload| workload.name == "closed");
        let web = row.client.workload.as_ref().is_some_and(|workload| workload.name == "web");
        closed && web && row.event.verdict == verdict && *row.event.reason == *Reason::RefusedByClient.name()
    });
    refused.map(|row| (row.client.ip, row.client.port)).collect()
}

#[test]
fn every_connection_to_the_allowed_backend_works_and_none_reaches_the_refused_one() {
    let test = "every_connection_to_the_allowed_backend_works_and_none_reaches_the_refused_one";
    let (_alone, scenario) = (alone(), scenario());
    if !privilege::kernel(test) {
        return;
    }
    let Some(lab) = lab_of(test, &scenario) else { return };
    let watch = Watch::start(&lab, datapath::Options::default());

    // The contrast: where policy allows both, the same calls reach both.
    watch.apply(applied(Mode::Enforce, "open, closed"));
    let calls = rounds(&watch);
    assert_eq!(unanswered(&calls), [""; 0], "both are allowed");
    assert_eq!(by(&calls), ["closed", "open"].into());
    assert!(refusals(&watch.rows(), FlowVerdict::Deny).is_empty());

    watch.apply(applied(Mode::Audit, "open"));
    let calls = rounds(&watch);
    assert_eq!(unanswered(&calls), [""; 0], "audit is in nobody's way");
    assert_eq!(by(&calls), ["closed", "open"].into());
    let audited = refusals(&watch.rows(), FlowVerdict::AuditDeny).len();
    assert!(audited > 0, "what enforcing would refuse is in the log");
    assert_eq!(watch.dropped(), 0);

    watch.apply(applied(Mode::Enforce, "open"));
    let calls = rounds(&watch);
    assert_eq!(by(&calls), ["open"].into(), "{:?}", unanswered(&calls));
    let refused = refusals(&watch.rows(), FlowVerdict::Deny).len();
    assert!(refused > 0);
    assert_eq!(unanswered(&calls).len(), refused, "what is not answered was refused at the closed one");
    assert!(calls.len() > refused, "the others were answered");

    watch.apply(applied(Mode::Enforce, "open, closed"));
    let calls = rounds(&watch);
    assert_eq!((unanswered(&calls), by(&calls)), (Vec::new(), ["closed", "open"].into()), "and back again");
    let (stopped, rows) = watch.stop();
    law_7(&stopped, &rows);
    lab.down();
}
