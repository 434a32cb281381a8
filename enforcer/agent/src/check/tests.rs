use super::*;
use compile::{Compiler, Plan};
use datapath::{Datapath, Link};
use std::{collections::BTreeMap, sync::Arc};
use verdict::Mode;

#[test]
fn questions_are_about_what_policies_tell_apart() {
    let mut cluster = Cluster::default();
    let text = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p, namespace: ns}\n\
                spec: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.8/29]}}], \
                ports: [{port: 5000, endPort: 5100}]}]}\n";
    model::yaml::read_into(&mut cluster, "p.yaml", text).expect("YAML of the test");
    let edges: Vec<String> = edges(&cluster).map(|ip| ip.to_string()).collect();
    assert_eq!(edges, ["10.0.0.0", "10.0.0.255", "10.0.0.8", "10.0.0.15"]);
    let ports = ports(&cluster);
    assert!([4999, 5000, 5100, 5101].iter().all(|port| ports.contains(port)), "{ports:?}");
}

#[test]
fn every_question_comes_up() {
    let mut check = Check::new("n1", 7);
    check.subjects = vec![(1, NOBODY[0].parse().expect("an address"))];
    check.peers = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|ip| ip.parse().expect("an address")).to_vec();
    check.ports = vec![80, 81];
    let asked: HashSet<_> = (0..2000).filter_map(|_| check.question()).map(|q| (q.2 as u8, q.3, q.4, q.5)).collect();
    assert_eq!(asked.len(), 2 * 2 * 4 * 2, "two directions, two peers of the family, four protocols, two ports");
}

/// A client that may open to one of two kinds of backends, and every way in which a Service can lead to them.
const SERVICES: &str = r#"---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.10}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ns}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: ns}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: open}}}], ports: [{port: 8080}]}]
"#;

/// The Services' addresses end in these; what must come of the client's opening stands beside `service`.
const ALLOWED: &str = "10.96.0.1";
const IN_PART: &str = "10.96.0.2";

fn pod(name: &str, address: &str, labels: &str, node: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ns, uid: {name}, labels: {{{labels}}}}}, \
         spec: {{nodeName: {node}, containers: [{{name: c}}]}}, \
         status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}}}\n"
    )
}

fn service(name: &str, address: &str, selector: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: ns}}, spec: {{clusterIP: {address}, \
         selector: {{{selector}}}, ports: [{{port: 80, targetPort: 8080}}]}}}}\n"
    )
}

fn services() -> Cluster {
    let objects = [
        SERVICES.to_owned(),
        pod("client", "10.1.0.1", "app: client", "n1"),
        pod("open", "10.1.0.2", "app: open, near: both, far: both", "n1"),
        pod("shut", "10.1.0.3", "app: shut, near: both", "n1"),
        pod("remote", "10.1.0.4", "app: remote, far: both", "n2"),
        service("allowed", ALLOWED, "app: open"),
        service("in-part", IN_PART, "near: both"),
        service("mixed", "10.96.0.3", "far: both"),
        service("refused", "10.96.0.4", "app: shut"),
        service("of-nobody", "10.96.0.5", "app: nobody"),
    ];
    let mut cluster = Cluster::default();
    model::yaml::read_into(&mut cluster, "services.yaml", &objects.concat()).expect("YAML of the test");
    cluster
}

/// The tables of a cluster in the kernel, with links that lead nowhere.
fn in_the_kernel(cluster: &Cluster) -> Option<(Datapath, Plan)> {
    let mut datapath = match Datapath::load(&datapath::Options::default()) {
        Ok(datapath) => datapath,
        Err(why) => {
            let required = std::env::var("PODFENCE_REQUIRE").is_ok_and(|all| all.split(',').any(|of| of == "kernel"));
            assert!(!required, "PODFENCE_REQUIRE names the kernel, and it cannot be used: {why:?}");
            eprintln!("skipped: {why}");
            return None;
        }
    };
    let here = cluster.pods.iter().filter(|pod| pod.node == "n1").enumerate();
    let links: BTreeMap<Arc<str>, Link> = here
        .map(|(number, pod)| {
            let link = Link {
                ifindex: 1_000_000 + number as u32,
                name: pod.name.as_str().into(),
                netns_id: number as i32,
                peer_ifindex: 2,
                addresses: BTreeSet::new(),
                link_local: Address::default(),
            };
            (pod.uid.as_str().into(), link)
        })
        .collect();
    let mut compiler = Compiler::new("n1", Mode::Enforce);
    compiler.cover(links.keys().cloned().collect());
    let mut plan = compiler.plan(cluster, &cluster.policies, &cluster.staged).expect("a plan");
    datapath.number(&mut plan).expect("ordinals");
    datapath.tables().publish(&plan, &links).expect("published");
    Some((datapath, plan))
}

/// Many questions of every kind: what differed.
fn differing(cluster: &Cluster, datapath: &mut Datapath, plan: &Plan) -> Vec<String> {
    let mut check = Check::new("n1", 7);
    check.updated(cluster, &plan.table);
    for _ in 0..300 {
        check.some(cluster, &plan.table, datapath.tables(), 0).expect("answers");
    }
    let report = check.report();
    assert!(report.checked > 2000, "{}", report.checked);
    let last: BTreeSet<String> =
        report.last.into_iter().map(|of| format!("{}: {}; {}", of.question, of.kernel, of.expected)).collect();
    assert_eq!(report.drifted > 0, !last.is_empty());
    last.into_iter().collect()
}

#[test]
fn what_tables_say_of_services_and_of_who_opens_is_checked() {
    let cluster = services();
    let Some((mut datapath, plan)) = in_the_kernel(&cluster) else { return };
    assert_eq!(differing(&cluster, &mut datapath, &plan), [""; 0], "as it was written");

    let ip = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address of the test"));
    let node = ip("192.0.2.11");
    datapath.tables().set_peer(node, abi::OWN_NODE).expect("written");
    assert_eq!(differing(&cluster, &mut datapath, &plan), ["who opens from 192.0.2.11: this node; another node"]);
    datapath.tables().set_peer(node, abi::OTHER_NODE).expect("written");

    let client = plan.table.endpoints["client"].ordinal;
    assert_eq!(plan.table.peers[&ip("10.1.0.1")], abi::client_peer(client), "it leaves refusals to the backends");
    datapath.tables().set_peer(ip("10.1.0.1"), 0).expect("written");
    let differs = differing(&cluster, &mut datapath, &plan);
    let [differs] = &differs[..] else { panic!("{differs:?}") };
    assert!(differs.starts_with(&format!("10.1.0.1 to {IN_PART} TCP 80 (egress): allowed-by-rule; ")), "{differs}");
    datapath.tables().set_peer(ip("10.1.0.1"), abi::client_peer(client)).expect("written");

    for key in plan.table.frontends.keys() {
        datapath.tables().set_rule(key, abi::NO_BACKENDS).expect("written");
    }
    let differs = differing(&cluster, &mut datapath, &plan);
    let [differs] = &differs[..] else { panic!("{differs:?}") };
    let expected = format!("10.1.0.1 to {ALLOWED} TCP 80 (egress): service-without-backends; allowed at every backend");
    assert!(differs.starts_with(&expected), "{differs}");
}
