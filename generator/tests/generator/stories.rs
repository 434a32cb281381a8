//! One thing each: what a scene's policies look like, what is listed, what is said.

use crate::scenes::{self, Families, key, labels, ledger_of};
use generator::{CommunicationGraph, Generated, Nodes, Options, explain, lessons::LeftOutReason, render, synthesize};
use model::{
    cluster::{Cluster, Service, ServicePort, TargetPort, WorkloadKey},
    ledger::{Edge, Ledger, Party},
    policy::{NetworkPolicy, Peer, PortMatch, Protocol},
    record::Gap,
};
use std::sync::Arc;

fn shop(names: &[&str]) -> Cluster {
    let mut cluster = scenes::cluster_of_nodes();
    for name in names {
        scenes::add(&mut cluster, ("shop", "Deployment", name), &labels(&[("app", name)]), &["app"], 2, Families::Both);
    }
    cluster
}

fn party(key: &WorkloadKey) -> Party {
    Party::Workload(Arc::new(key.clone()))
}

fn named(name: &str) -> Party {
    party(&key("shop", "Deployment", name))
}

fn outside(ip: &str) -> Party {
    Party::Outside(ip.parse().unwrap())
}

fn edge(client: Party, server: Party, protocol: u8, port: u16) -> Edge {
    Edge { client, server, protocol, port }
}

fn generated(edges: &[Edge], cluster: &Cluster) -> Generated {
    synthesize(&ledger_of(edges), cluster, &Options::default()).unwrap()
}

fn policy<'g>(generated: &'g Generated, name: &str) -> &'g NetworkPolicy {
    generated.policies.policies.iter().find(|p| format!("{}/{}", p.namespace, p.name) == name).unwrap()
}

fn blocks(policy: &NetworkPolicy) -> Vec<String> {
    let rules = policy.egress.iter().chain(&policy.ingress).flatten();
    let peers = rules.flat_map(|rule| &rule.peers);
    peers.filter_map(|p| if let Peer::Block { cidr, .. } = p { Some(cidr.to_string()) } else { None }).collect()
}

#[test]
fn a_policy_reads_as_kubernetes_wants_it() {
    let cluster = shop(&["frontend", "cart"]);
    let all = generated(&[edge(named("frontend"), named("cart"), flow::TCP, 8080)], &cluster);
    let files = render::files(&all);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let proof = ["SUMMARY.txt", "certificate.json", "evidence.json"];
    assert_eq!(names[..3], proof);
    assert_eq!(names[3..], ["shop/cart.yaml", "shop/default-deny.yaml", "shop/frontend.yaml"]);
    let read = model::yaml::read_policies("cart.yaml", &files["shop/cart.yaml"]).unwrap();
    let (ours, theirs) = (policy(&all, "shop/cart"), &read.policies[0]);
    assert_eq!((&ours.pod_selector, &ours.labels), (&theirs.pod_selector, &theirs.labels));
    let without_lines = |rules: &Option<Vec<model::policy::Rule>>| {
        rules.clone().map(|all| all.into_iter().map(|r| (r.peers, r.ports)).collect::<Vec<_>>())
    };
    assert_eq!(without_lines(&ours.ingress), without_lines(&theirs.ingress));
    assert_eq!(without_lines(&ours.egress), Some(vec![]), "explicitly closed");
    assert_eq!(without_lines(&theirs.egress), Some(vec![]));
    for word in ["2023", "flow", "seen"] {
        assert!(!files["shop/cart.yaml"].contains(word), "no times or counts in {}", files["shop/cart.yaml"]);
    }
}

#[test]
fn label_values_survive_the_trip_to_yaml_and_back() {
    let mut cluster = scenes::cluster_of_nodes();
    for (i, value) in ["on", "1_000", "0x1f", "12e3", "null", "y", "1.0", "2001-01-01", "false"].into_iter().enumerate()
    {
        let labels = labels(&[("app", value), ("on", "y")]);
        scenes::add(&mut cluster, ("0x1f", "Deployment", &format!("w{i}")), &labels, &["app", "on"], 1, Families::V4);
    }
    let all = generated(&[], &cluster);
    for policy in &all.policies.policies {
        let text = model::yaml::write_policy(policy);
        let read = model::yaml::read_policies("x", &text).unwrap();
        assert_eq!(read.policies[0].pod_selector, policy.pod_selector, "{text}");
        assert_eq!(read.policies[0].namespace, "0x1f");
    }
}

#[test]
fn addresses_outside_are_joined_only_where_the_union_is_exactly_that() {
    let cluster = shop(&["frontend"]);
    let to = |ip| edge(named("frontend"), outside(ip), flow::TCP, 443);
    let edges = ["198.51.100.6", "198.51.100.7", "198.51.100.8", "2001:db8::2", "2001:db8::3"].map(to);
    let all = generated(&edges, &cluster);
    let expected = ["198.51.100.6/31", "198.51.100.8/32", "2001:db8::2/127"];
    assert_eq!(blocks(policy(&all, "shop/frontend")), expected);
}

#[test]
fn dns_is_allowed_over_tcp_too_to_the_pods_really_asked() {
    let cluster = shop(&["frontend", "dns", "dns2"]);
    let all = generated(&[edge(named("frontend"), named("dns"), flow::UDP, 53)], &cluster);
    let listed: Vec<String> = all.lessons.generalisations().map(|l| generator::naming::edge(&l.edge)).collect();
    assert_eq!(listed, ["shop/frontend->shop/dns:53/tcp"]);
    assert!(render::summary(&all).contains("shop/frontend->shop/dns:53/tcp (dns-over-tcp): 1 between workloads"));
    assert_eq!(policy(&all, "shop/dns2").ingress, Some(vec![]));
    let ports = &policy(&all, "shop/dns").ingress.as_ref().unwrap()[0].ports;
    let both: Vec<_> = ports.iter().map(|p| (p.protocol, p.port.clone())).collect();
    assert_eq!(both, [(Protocol::Tcp, PortMatch::Range(53, 53)), (Protocol::Udp, PortMatch::Range(53, 53))]);
}

#[test]
fn a_dns_server_behind_another_port_is_found_through_its_service() {
    let mut cluster = shop(&["frontend", "dns"]);
    let port = |protocol, target| ServicePort {
        name: String::new(),
        port: 53,
        protocol,
        target: TargetPort::Number(target),
        node_port: None,
    };
    let service = Service {
        selector: labels(&[("app", "dns")]),
        ports: vec![port(Protocol::Udp, 5353), port(Protocol::Tcp, 5354)],
        ..Service::default()
    };
    cluster.services.insert(("shop".to_owned(), "dns".to_owned()), service);
    let all = generated(&[edge(named("frontend"), named("dns"), flow::UDP, 5353)], &cluster);
    let listed: Vec<String> = all.lessons.generalisations().map(|l| generator::naming::edge(&l.edge)).collect();
    assert_eq!(listed, ["shop/frontend->shop/dns:5354/tcp"]);
}

#[test]
fn a_workload_never_seen_is_closed_both_ways_and_listed() {
    let mut cluster = shop(&["frontend"]);
    let cron = labels(&[("app", "report")]);
    scenes::add(&mut cluster, ("shop", "CronJob", "report"), &cron, &[], 0, Families::V4);
    let all = generated(&[], &cluster);
    assert!(all.never_observed.contains(&key("shop", "CronJob", "report")));
    let closed = policy(&all, "shop/report");
    assert_eq!((closed.ingress.as_deref(), closed.egress.as_deref()), (Some(&[][..]), Some(&[][..])));
    assert_eq!(closed.pod_selector.match_labels, cron);
    let of = |name: &str| all.certificate.workloads.iter().find(|w| w.name == name).unwrap();
    assert_eq!(of("shop/CronJob/report").ran, generator::certificate::Ran::NeverRan);
    assert_eq!(of("shop/Deployment/frontend").ran, generator::certificate::Ran::Silent);
    assert!(all.certificate.to_text().contains("shop/CronJob/report: - (-); 0 edges, 0 in one slice only, never ran"));
}

#[test]
fn two_kinds_of_one_name_have_policies_of_two_names() {
    let mut cluster = shop(&["web"]);
    scenes::add(&mut cluster, ("shop", "StatefulSet", "web"), &labels(&[("app", "b")]), &["app"], 1, Families::V4);
    scenes::add(
        &mut cluster,
        ("shop", "DaemonSet", "deployment-web"),
        &labels(&[("app", "c")]),
        &["app"],
        1,
        Families::V4,
    );
    let all = generated(&[], &cluster);
    let names: Vec<&str> = all.policies.policies.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["daemonset-deployment-web", "default-deny", "deployment-web", "statefulset-web"]);
}

#[test]
fn a_selector_that_matches_anothers_pods_gets_a_label_that_tells_them_apart() {
    let mut cluster = scenes::cluster_of_nodes();
    let add = |cluster: &mut Cluster, name: &str, of: &[(&str, &str)]| {
        scenes::add(cluster, ("shop", "Deployment", name), &labels(of), &["app"], 1, Families::V4)
    };
    let plain = add(&mut cluster, "plain", &[("app", "web")]);
    let canary = add(&mut cluster, "canary", &[("app", "web"), ("track", "canary")]);
    let db = add(&mut cluster, "db", &[("app", "db")]);
    let all = generated(&[edge(party(&canary), party(&db), flow::TCP, 5432)], &cluster);
    let selector = |name: &str| policy(&all, name).pod_selector.to_string();
    assert_eq!(selector("shop/canary"), "app=web,track=canary");
    assert_eq!(selector("shop/plain"), "app=web,!track");
    let notes = all.notes.join("\n");
    assert!(
        notes.contains("shop/Deployment/plain is selected by !track too, which tells it from shop/Deployment/canary"),
        "{notes}"
    );
    assert!(all.subjects.find(&plain).is_some());
}

#[test]
fn host_network_pods_get_no_policy_and_are_named_where_their_node_is_opened() {
    let mut cluster = shop(&["frontend"]);
    let exporter = scenes::add(
        &mut cluster,
        ("shop", "DaemonSet", "exporter"),
        &labels(&[("app", "e")]),
        &["app"],
        1,
        Families::V4,
    );
    for pod in cluster.pods.iter_mut().filter(|p| p.labels.get("app").is_some_and(|app| app == "e")) {
        pod.host_network = true;
        pod.addresses = vec!["192.0.2.1".parse().unwrap()];
    }
    let node = Party::Node("192.0.2.1".parse().unwrap());
    let ledger = ledger_of(&[
        edge(named("frontend"), node.clone(), flow::TCP, 9100),
        edge(node, named("frontend"), flow::TCP, 80),
    ]);
    let options = Options { nodes: Some(Nodes::Allow), ..Options::default() };
    let all = synthesize(&ledger, &cluster, &options).unwrap();
    assert!(all.subjects.find(&exporter).is_none());
    let notes = all.notes.join("\n");
    assert!(
        notes.contains("shop/frontend->192.0.2.1:9100/tcp opens to all of node node-0, with shop/DaemonSet/exporter"),
        "{notes}"
    );
    assert!(notes.contains("with shop/DaemonSet/exporter, whoever is masqueraded behind it"), "{notes}");
    assert!(notes.contains("shop/DaemonSet/exporter gets no policy: hostNetwork"), "{notes}");
}

#[test]
fn an_address_outside_that_is_a_pods_now_opens_nothing() {
    let cluster = shop(&["frontend", "cart"]);
    let now = cluster.pods[0].addresses[0].to_string();
    let all = generated(&[edge(named("frontend"), outside(&now), flow::TCP, 443)], &cluster);
    assert!(matches!(all.lessons.left_out[0].reason, LeftOutReason::AddressIsAPodNow(_)));
    assert_eq!(policy(&all, "shop/frontend").egress, Some(vec![]));
}

#[test]
fn who_is_gone_is_allowed_while_labels_tell_and_listed_when_not() {
    let mut cluster = shop(&["frontend"]);
    let alone = scenes::add(&mut cluster, ("shop", "Pod", "debug"), &labels(&[("app", "debug")]), &[], 1, Families::V4);
    let alike =
        scenes::add(&mut cluster, ("shop", "Pod", "old"), &labels(&[("app", "frontend")]), &[], 1, Families::V4);
    for pod in cluster.pods.iter_mut().filter(|pod| pod.owner.is_none()) {
        pod.completed = true;
    }
    let to = |key: &WorkloadKey| edge(named("frontend"), party(key), flow::TCP, 80);
    let all = generated(&[to(&alone), to(&alike)], &cluster);
    assert!(all.subjects.find(&alone).is_some());
    assert_eq!(policy(&all, "shop/frontend").egress.as_ref().unwrap().len(), 1);
    let left: Vec<String> = all.lessons.left_out.iter().map(|l| l.reason.meaning()).collect();
    assert_eq!(left, ["an end that no policy can name: gone, and its labels are those of a living workload"]);
}

#[test]
fn a_job_that_is_over_keeps_nobody_from_a_policy() {
    let mut cluster = shop(&["frontend"]);
    for run in ["migrate-1", "migrate-2"] {
        scenes::add(&mut cluster, ("shop", "Job", run), &labels(&[("app", "frontend")]), &[], 1, Families::V4);
    }
    let refused = synthesize(&Ledger::default(), &cluster, &Options::default());
    assert!(refused.is_err(), "while they run, no label tells them apart");
    for pod in cluster.pods.iter_mut().filter(|pod| pod.name.starts_with("migrate")) {
        pod.completed = true;
    }
    let all = generated(&[], &cluster);
    assert_eq!(all.subjects.all().len(), 1);
    assert!(all.notes.join("\n").contains("shop/Job/migrate-1 gets no policy: gone"), "{:?}", all.notes);
}

#[test]
fn a_standing_policy_of_someone_else_is_pointed_out() {
    let mut cluster = shop(&["frontend"]);
    let mut theirs = policy(&generated(&[], &cluster), "shop/frontend").clone();
    theirs.labels.clear();
    cluster.policies.policies.push(theirs.clone());
    assert!(
        generated(&[], &cluster)
            .notes
            .join("\n")
            .contains("shop/frontend stands in the cluster already and is not podfence's")
    );
    theirs.name = "other".to_owned();
    cluster.policies.policies = vec![theirs];
    assert!(
        generated(&[], &cluster)
            .notes
            .join("\n")
            .contains("shop/other stands in the cluster already: what it allows stays")
    );
}

#[test]
fn a_policy_is_explained_with_what_was_seen_beside_each_rule() {
    let cluster = shop(&["frontend", "dns"]);
    let all = generated(&[edge(named("frontend"), named("dns"), flow::UDP, 53)], &cluster);
    let text = explain::policy(policy(&all, "shop/dns"), &all.evidence);
    let expected = "\
policy shop/dns for shop/Deployment/dns, selects app=dns
  ingress[0] from app=frontend in shop, TCP 53, UDP 53
      shop/Deployment/frontend 53/tcp: not seen itself, dns-over-tcp
      shop/Deployment/frontend 53/udp: 7 flows, 2023-11-14T22:00:00Z to 2023-11-14T22:00:01Z, direction by syn, on node-0, such as f0
      opens shop/frontend->shop/dns:53/tcp (dns-over-tcp): 1 between workloads
  egress: nothing is allowed
";
    assert_eq!(text, expected);
}

#[test]
fn the_certificate_counts_hours_and_what_was_not_watched() {
    let cluster = shop(&["frontend", "cart"]);
    let again = edge(named("frontend"), named("cart"), flow::TCP, 80);
    let once = edge(named("frontend"), named("cart"), flow::TCP, 81);
    let mut ledger = Ledger::default();
    for hour in 0..4 {
        scenes::sight(&mut ledger, "node-0", hour, &again);
    }
    scenes::sight(&mut ledger, "node-0", 2, &once);
    let second = 1_000_000_000;
    let gap = |node: &str, start: i64, lost| Gap {
        start: start * second,
        end: (start + 10) * second,
        node: node.into(),
        reason: "events-lost".into(),
        lost,
    };
    let gaps = vec![gap("node-0", 0, 5), gap("node-0", 5, 2), gap("elsewhere", 0, 100)];
    ledger.gaps.extend(gaps);
    let all = synthesize(&ledger, &cluster, &Options::default()).unwrap();
    let frontend = all.certificate.workloads.iter().find(|w| w.name == "shop/Deployment/frontend").unwrap();
    assert_eq!((all.certificate.slices, frontend.edges, frontend.seen_in_one_slice), (4, 2, 1));
    assert_eq!(frontend.new_edges_per_hour, Some(0.25));
    assert!((frontend.upper_bound.unwrap() - 4.744 / 4.0).abs() < 0.001);
    assert_eq!((frontend.lost_on_its_nodes, frontend.unwatched_seconds), (7, 15.0));
    let waiting = all.certificate.incomplete().join("\n");
    assert!(waiting.contains("shop/Deployment/frontend: upper bound 1.186 new edges an hour, 0.05 required: 91 hours more at the present rate, 56 if its 1 edge seen in one or two hours only comes again and none is new"), "{waiting}");
}

#[test]
fn the_graph_is_drawn_by_namespace() {
    let edges = [
        edge(named("frontend"), named("cart"), flow::TCP, 8080),
        edge(named("frontend"), named("cart"), flow::UDP, 53),
        edge(named("cart"), outside("2001:db8::2"), flow::TCP, 443),
    ];
    let graph = CommunicationGraph::of(&ledger_of(&edges));
    let mermaid = "\
flowchart LR
  subgraph g0[\"shop\"]
    n0[\"Deployment cart\"]
    n1[\"Deployment frontend\"]
  end
  subgraph g1[\"outside\"]
    n2[\"2001:db8::2\"]
  end
  n0 -->|\"443/tcp\"| n2
  n1 -->|\"53/udp, 8080/tcp\"| n0
";
    assert_eq!(graph.to_mermaid(), mermaid);
    assert!(graph.to_dot().contains("n1 -> n0 [label=\"53/udp, 8080/tcp\"];"));
    assert_eq!(graph.rows()[0][..4], ["shop/Deployment/cart", "outside 2001:db8::2", "443/tcp", "7"]);
    let json: serde_json::Value = serde_json::from_str(&graph.to_json()).unwrap();
    assert_eq!(json["schema"], "podfence.dev/graph/v1");
    assert_eq!(json["edges"][0]["server"], 2);
    assert_eq!(json["parties"][2]["address"], "2001:db8::2");
}

#[test]
fn the_evidence_says_through_which_service_and_by_which_name_clients_came() {
    let mut cluster = shop(&["frontend", "cart"]);
    let port = ServicePort {
        name: String::new(),
        port: 80,
        protocol: Protocol::Tcp,
        target: TargetPort::Number(8080),
        node_port: None,
    };
    let service = Service { selector: labels(&[("app", "cart")]), ports: vec![port], ..Service::default() };
    cluster.services.insert(("shop".to_owned(), "cart-http".to_owned()), service);
    let keys = ["frontend", "cart"].map(|name| key("shop", "Deployment", name));
    let seen = |server, port| scenes::Seen {
        client: scenes::Who::Workload(0),
        server,
        udp: false,
        port,
        hour: 0,
        defect: scenes::Defect::None,
        node: 0,
    };
    let mut called = scenes::record(&cluster, &keys, &seen(scenes::Who::Workload(1), 80), 1);
    called.server.entity = model::record::Entity::Service;
    called.service = Some("shop/cart-http".into());
    let mut outside_by_name = scenes::record(&cluster, &keys, &seen(scenes::Who::Outside(3), 443), 2);
    outside_by_name.dns_name = Some("pay.example.com".into());
    let mut routes = generator::Routes::default();
    [&called, &outside_by_name, &called].into_iter().for_each(|record| routes.add(record));
    let edges = [
        edge(named("frontend"), named("cart"), flow::TCP, 8080),
        edge(named("frontend"), outside("203.0.113.9"), flow::TCP, 443),
    ];
    let all = synthesize(&ledger_of(&edges), &cluster, &Options { routes, ..Options::default() }).unwrap();
    let text = explain::policy(policy(&all, "shop/frontend"), &all.evidence);
    assert!(text.contains("8080/tcp: 7 flows, 2023-11-14T22:00:00Z to 2023-11-14T22:00:01Z, direction by syn, through shop/cart-http, on"), "{text}");
    assert!(text.contains("direction by syn, as pay.example.com, on node-0"), "{text}");
    let summary = render::summary(&all);
    assert!(
        summary.contains("  shop/Deployment/frontend -> outside 203.0.113.9 443/tcp: pay.example.com"),
        "{summary}"
    );
    let yaml = &render::files(&all)["shop/frontend.yaml"];
    assert!(!yaml.contains("example.com") && !yaml.contains("cart-http"), "evidence alone: {yaml}");
}

#[test]
fn the_api_server_is_reached_at_the_endpoints_of_its_service() {
    let mut cluster = shop(&["operator"]);
    let port =
        |target| ServicePort { name: "https".to_owned(), port: 443, protocol: Protocol::Tcp, target, node_port: None };
    let service = Service {
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![port(TargetPort::Number(6443))],
        ..Service::default()
    };
    cluster.services.insert(("default".to_owned(), "kubernetes".to_owned()), service);
    let slice = model::cluster::EndpointSlice {
        service: Some("kubernetes".to_owned()),
        addresses: vec!["192.0.2.1".parse().unwrap(), "203.0.113.9".parse().unwrap()],
        ports: vec![model::cluster::SlicePort { name: "https".to_owned(), protocol: Protocol::Tcp, port: Some(6443) }],
        source: None,
    };
    cluster.endpoint_slices.insert(("default".to_owned(), "kubernetes".to_owned()), slice);
    let keys = [key("shop", "Deployment", "operator")];
    let called = |defect| {
        let (client, server) = (scenes::Who::Workload(0), scenes::Who::Outside(3));
        let seen = scenes::Seen { client, server, udp: false, port: 443, hour: 0, defect, node: 0 };
        let mut record = scenes::record(&cluster, &keys, &seen, 1);
        record.server.entity = model::record::Entity::Service;
        record.server.ip = "10.96.0.1".parse().unwrap();
        record.service = Some("default/kubernetes".into());
        record
    };
    let egress = |defects: &[scenes::Defect]| {
        let mut routes = generator::Routes::default();
        defects.iter().for_each(|defect| routes.add(&called(*defect)));
        let all = synthesize(&Ledger::default(), &cluster, &Options { routes, ..Options::default() }).unwrap();
        (blocks(policy(&all, "shop/operator")), render::summary(&all))
    };
    use scenes::Defect;
    let (blocks, summary) = egress(&[Defect::None, Defect::HandshakeNotSeen]);
    assert_eq!(blocks, ["192.0.2.1/32", "203.0.113.9/32"]);
    assert!(summary.contains("shop/operator->203.0.113.9:6443/tcp (service-endpoint): 1 with addresses"), "{summary}");
    for unfit in [Defect::Denied, Defect::StagedDenied, Defect::DirectionUnknown, Defect::HandshakeNotSeen] {
        assert_eq!(egress(&[unfit]).0, [""; 0], "law 13: {unfit:?}");
    }
    assert_eq!(egress(&[Defect::None, Defect::Denied]).0, [""; 0], "denied once, it waits for a person");
}
