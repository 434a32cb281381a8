//! Recorded flows against policies, by hand.

use crate::{
    schema::Schema,
    world::{World, world},
};
use flow::FlowKey;
use model::{
    record::{DirectionRule, EndReason, FlowEvent, FlowRecord, FlowSource, FlowVerdict, ObservedAt},
    view::AddressView,
};
use review::replay::{Change, Replayed, replay};

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: []}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: web, labels: {app: web}}
spec: {containers: []}
status: {phase: Running, podIPs: [{ip: 10.1.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, uid: cart, labels: {app: cart}}
spec: {containers: []}
status: {phase: Running, podIPs: [{ip: 10.1.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: shop, uid: db-1, labels: {app: db}, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: db, uid: d, controller: true}]}
spec: {containers: []}
status: {phase: Running, podIPs: [{ip: 10.1.0.3}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: cart}}}], ports: [{port: 6379}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: cart, namespace: shop}
spec: {podSelector: {matchLabels: {app: cart}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}
"#;

const START: i64 = 1_769_860_800_000_000_000;
const WEB: &str = "10.1.0.1";
const CART: &str = "10.1.0.2";
const DB: &str = "10.1.0.3";
const OUTSIDE: &str = "203.0.113.9";

/// One answered connection of TCP that nobody judged.
fn record(world: &World, id: u32, client: &str, server: (&str, u16)) -> FlowRecord {
    let view = AddressView::new(&world.0);
    let start = START + i64::from(id) * 1_000_000_000;
    let end = |address: &str, port| view.end(address.parse().expect("an address"), port, start);
    let (client, server) = (end(client, 40_000), end(server.0, server.1));
    FlowRecord {
        flow_id: format!("{id:016x}"),
        community_id: String::new(),
        service: None,
        dns_name: None,
        node: "node-1".into(),
        sampling: 1,
        event: FlowEvent {
            key: FlowKey {
                source: client.ip.into(),
                destination: server.ip.into(),
                source_port: client.port,
                destination_port: server.port,
                protocol: flow::TCP,
            },
            direction_rule: DirectionRule::Syn,
            observed_at: ObservedAt::Server,
            flow_start: start,
            start,
            end: start + 1_000_000,
            packets_to_server: 3,
            packets_to_client: 2,
            bytes_to_server: 300,
            bytes_to_client: 200,
            tcp_flags_to_server: 0x02,
            tcp_flags_to_client: 0x12,
            adopted: false,
            verdict: FlowVerdict::Observed,
            reason: "".into(),
            rule: None,
            policy_generation: 0,
            staged_verdict: FlowVerdict::Observed,
            staged_reason: "".into(),
            end_reason: EndReason::Fin,
            rtt_us: None,
            interface: "veth0".into(),
            source: FlowSource::Kernel,
        },
        client,
        server,
    }
}

fn denied(mut record: FlowRecord) -> FlowRecord {
    record.event.verdict = FlowVerdict::AuditDeny;
    record.event.reason = "no-rule".into();
    (record.event.tcp_flags_to_client, record.event.packets_to_client) = (0, 0);
    record
}

fn unanswered(mut record: FlowRecord) -> FlowRecord {
    (record.event.tcp_flags_to_client, record.event.packets_to_client) = (0, 0);
    record
}

fn told(replayed: &Replayed) -> Vec<String> {
    let row = |row: &review::replay::Row| {
        format!("{} {} {} flows: {:?} -> {:?}", row.change.name(), row.is_answered, row.flows, row.client, row.server)
            .replace("WorkloadKey { namespace: \"shop\", kind: ", "")
    };
    replayed.rows.iter().map(row).collect()
}

#[test]
fn a_recorded_attack_is_newly_denied_and_a_learned_call_stays_allowed() {
    let shop = world(SHOP);
    let call = record(&shop, 0, CART, (DB, 6379));
    let attack = record(&shop, 1, WEB, (DB, 6379));
    let audited = denied(record(&shop, 2, WEB, (DB, 6379)));
    let found = denied(record(&shop, 3, CART, (DB, 6379)));
    let mut later = call.clone();
    later.event.start += 60_000_000_000;
    let replayed = replay(shop.input(), &[audited, attack, later, found, call]);
    assert_eq!(
        told(&replayed),
        [
            "newly-denied true 1 flows: Workload(\"Pod\", name: \"web\" }) -> Workload(\"Deployment\", name: \"db\" })",
            "newly-allowed true 1 flows: Workload(\"Pod\", name: \"cart\" }) -> Workload(\"Deployment\", name: \"db\" })",
            "still-denied true 1 flows: Workload(\"Pod\", name: \"web\" }) -> Workload(\"Deployment\", name: \"db\" })",
            "still-allowed true 1 flows: Workload(\"Pod\", name: \"cart\" }) -> Workload(\"Deployment\", name: \"db\" })",
        ]
    );
    let lines = replayed.lines(0).join("\n");
    let expected = "\
1 flow newly denied, 1 newly allowed, 1 still allowed, 1 still denied

newly denied: they pass today:
  shop/Pod/web -> shop/Deployment/db TCP 6379: 1 flow, 2026-01-31T12:00:01Z to 2026-01-31T12:00:01Z, such as 0000000000000001
    ingress denied: no rule of shop/db (world.yaml:29) allows it, owner shop/Deployment/db; missing rule 1 below would allow it

newly allowed: they were denied:
  shop/Pod/cart -> shop/Deployment/db TCP 6379: 1 flow, 2026-01-31T12:00:03Z to 2026-01-31T12:00:03Z, such as 0000000000000003
    egress not isolated
    ingress allowed by shop/db ingress[0]

missing rule 1: at the end of spec.ingress of shop/db (world.yaml:29)
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
";
    assert!(lines.starts_with(expected), "{lines}");
    let mended = replayed.with_missing(shop.input().policies);
    let again = replay(review::Input { policies: &mended, ..shop.input() }, &[record(&shop, 1, WEB, (DB, 6379))]);
    assert_eq!(again.flows(Change::NewlyDenied), 0);
}

#[test]
fn what_cannot_be_asked_is_counted_with_its_reason() {
    let shop = world(SHOP);
    let mut unknown = record(&shop, 0, WEB, (DB, 6379));
    unknown.event.direction_rule = DirectionRule::Unknown;
    let mut ping = record(&shop, 1, WEB, (CART, 0));
    ping.event.key.protocol = flow::ICMP;
    let mut gone = record(&shop, 2, CART, (DB, 6379));
    gone.server.pod_uid = Some("an earlier pod".into());
    let mut lost = record(&shop, 3, WEB, (CART, 80));
    lost.client.pod_uid = Some("long gone".into());
    lost.client.workload = Some(std::sync::Arc::new(model::cluster::WorkloadKey {
        namespace: "shop".to_owned(),
        kind: "Job".to_owned(),
        name: "gone".to_owned(),
    }));
    let scan = unanswered(record(&shop, 4, WEB, (DB, 22)));
    let replayed = replay(shop.input(), &[unknown, ping, gone, lost, scan]);
    let reasons: Vec<_> = replayed.not_asked.iter().map(|(reason, all)| (*reason, all.flows)).collect();
    assert_eq!(
        reasons,
        [
            ("NetworkPolicy cannot express it", 1),
            ("a pod that the input does not hold, nor its workload", 1),
            ("nobody knows which end opened it", 1),
        ]
    );
    // The workload's pods of today stand for one that is gone; a scan is denied, and breaks nothing.
    assert_eq!(replayed.flows(Change::StillAllowed), 1);
    assert_eq!(replayed.of(Change::NewlyDenied, false).count(), 1);
    assert_eq!(replayed.of(Change::NewlyDenied, true).count(), 0);
}

#[test]
fn edges_that_nobody_used_are_ranked_by_what_they_lead_to() {
    let shop = world(SHOP);
    let used = [record(&shop, 0, OUTSIDE, (WEB, 80)), record(&shop, 1, CART, (DB, 6379))];
    let unseen = replay(shop.input(), &used).unseen;
    assert_eq!((unseen.workloads, unseen.reachable, unseen.reachable_used), (3, 3, 1));
    let first = &unseen.edges[0];
    let names = (first.from.as_ref().map(|key| key.name.as_str()), first.to.as_ref().map(|key| key.name.as_str()));
    // web is the only way to cart, and cart leads to the database.
    assert_eq!((names, first.closes, first.adds), ((Some("web"), Some("cart")), 2, 2));
    assert_eq!(first.allowed.to_string(), "all");
    let outside = unseen.edges.iter().find(|edge| edge.from.is_none()).expect("web is open to all");
    assert_eq!(outside.allowed.to_string(), "TCP 1-79,81-65535; UDP all; SCTP all");
    assert!(outside.is_used_otherwise);
    assert!(!unseen.edges.iter().any(|edge| edge.to.as_ref().is_some_and(|key| key.name == "db")), "{unseen:#?}");
}

#[test]
fn a_report_shows_hostile_names_as_text() {
    let mut cluster = model::cluster::Cluster::default();
    model::yaml::read_into(&mut cluster, "<img src=x>|`@a`.yaml", SHOP).expect("YAML of the test");
    let policies = cluster.policies.clone();
    let shop = World(cluster, policies);
    let replayed = replay(shop.input(), &[record(&shop, 1, WEB, (DB, 6379))]);
    let text = replayed.to_markdown(5);
    assert!(text.contains("&#60;img src=x&#62;&#124;"), "{text}");
    let outside_blocks = text.split("```").step_by(2).collect::<String>();
    assert!(!outside_blocks.contains("<img"), "{text}");
    serde_json::from_str::<serde_json::Value>(&replayed.to_json()).expect("JSON");
}

#[test]
fn every_answer_fits_the_schema_and_every_field_of_it_is_in_some() {
    let more = r#"
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: shop, uid: agent, labels: {app: agent}}
spec: {hostNetwork: true, nodeName: node-1, containers: []}
status: {phase: Running, podIPs: [{ip: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop, uid: bare}
spec: {containers: []}
status: {phase: Running, podIPs: [{ip: 10.1.0.7}]}
"#;
    let schema = Schema::of("replay");
    let mut ping = record(&world(SHOP), 90, WEB, (CART, 0));
    ping.event.key.protocol = flow::ICMP;
    let ends = [WEB, CART, DB, OUTSIDE, "203.0.113.10", "192.0.2.1", "10.1.0.7"];
    let closed = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: \
                  shop}\nspec: {podSelector: {}, policyTypes: [Egress, Ingress]}\n";
    let open = SHOP.replace("ports: [{port: 6379}]", "ports: [{port: 6379, protocol: UDP}, {port: 9, protocol: SCTP}]");
    for yaml in [SHOP.to_owned(), format!("{SHOP}{more}"), format!("{SHOP}{more}{closed}"), format!("{open}{more}")] {
        let shop = world(&yaml);
        let mut records = vec![ping.clone()];
        for (number, (client, server)) in (0..).zip(ends.iter().flat_map(|one| ends.map(|other| (*one, other)))) {
            for (protocol, port) in [(flow::TCP, 6379), (flow::UDP, 6379), (flow::SCTP, 9)] {
                let mut one = record(&shop, number, client, (server, port));
                one.event.key.protocol = protocol;
                records.extend([denied(one.clone()), one]);
            }
        }
        for records in [&records[..], &records[..1], &records[1..60]] {
            schema.check(&replay(shop.input(), records).to_json());
        }
    }
    schema.check(&replay(world("").input(), &[]).to_json());
    // No record of these is exempt.
    assert_eq!(schema.not_met(), ["/$defs/judgement/properties/judgement/enum/\"exempt\""]);
}
