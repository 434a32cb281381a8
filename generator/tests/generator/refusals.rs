//! Why the generator prints nothing: the errors as a person reads them.

use crate::scenes::{self, Families, key, labels};
use generator::{Nodes, Options, Refused, synthesize, verify};
use model::{
    cluster::{Cluster, Workload},
    ledger::{Edge, Ledger, Party, Unfit},
    policy::{Peer, PortMatch, Protocol, Rule},
};
use std::sync::Arc;

fn shop() -> Cluster {
    let mut cluster = scenes::cluster_of_nodes();
    for name in ["frontend", "cart"] {
        scenes::add(&mut cluster, ("shop", "Deployment", name), &labels(&[("app", name)]), &["app"], 1, Families::V4);
    }
    cluster
}

fn workload(name: &str) -> Party {
    Party::Workload(Arc::new(key("shop", "Deployment", name)))
}

fn edge(client: Party, server: Party) -> Edge {
    Edge { client, server, protocol: flow::TCP, port: 8080 }
}

fn refusal(ledger: &Ledger, cluster: &Cluster, options: &Options) -> String {
    synthesize(ledger, cluster, options).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn ingress_from_a_node_waits_for_the_operators_word() {
    let cluster = shop();
    let node = Party::Node("192.0.2.1".parse().unwrap());
    let ledger =
        scenes::ledger_of(&[edge(node.clone(), workload("cart")), edge(workload("frontend"), workload("cart"))]);
    let said = refusal(&ledger, &cluster, &Options::default());
    assert!(said.contains("shop/Deployment/cart at 8080/tcp from 192.0.2.1"), "{said}");
    assert!(said.contains("--nodes allow") && said.contains("--nodes deny"), "{said}");
    for nodes in [Nodes::Allow, Nodes::Deny] {
        synthesize(&ledger, &cluster, &Options { nodes: Some(nodes), ..Options::default() }).unwrap();
    }
    let to_a_node = scenes::ledger_of(&[edge(workload("cart"), node)]);
    synthesize(&to_a_node, &cluster, &Options::default()).expect("egress to a node is a block of its address");
}

#[test]
fn workloads_that_no_label_tells_apart_are_named() {
    let mut cluster = shop();
    scenes::add(&mut cluster, ("shop", "StatefulSet", "copy"), &labels(&[("app", "cart")]), &["app"], 1, Families::V4);
    let said = refusal(&Ledger::default(), &cluster, &Options::default());
    assert!(said.contains("shop/Deployment/cart cannot be selected without shop/StatefulSet/copy"), "{said}");
    assert!(said.contains("add a label to its pod template"), "{said}");
}

#[test]
fn an_accepted_edge_must_be_one_that_was_left_out() {
    let cluster = shop();
    let mut ledger = Ledger::default();
    let denied = edge(workload("frontend"), workload("cart"));
    ledger.leave_out(&"node-0".into(), 0, (Unfit::Denied, Some(denied)), 1, &["f1".into()]);
    let accept = |name: &str| Options { accept: vec![name.to_owned()], ..Options::default() };
    let said = refusal(&ledger, &cluster, &accept("shop/frontend->shop/cart:8081/tcp"));
    assert!(said.contains("can be accepted: shop/frontend->shop/cart:8080/tcp"), "{said}");
    let said = refusal(&ledger, &cluster, &accept("frontend to cart"));
    assert!(said.contains("write NAMESPACE/NAME->NAMESPACE/NAME:PORT/PROTOCOL"), "{said}");
    let said = refusal(&Ledger::default(), &cluster, &accept("shop/frontend->shop/cart:8080/tcp"));
    assert!(said.contains("of which there are none"), "{said}");
    let accepted = synthesize(&ledger, &cluster, &accept("shop/frontend->shop/cart:8080/tcp")).unwrap();
    assert!(accepted.lessons.left_out.is_empty());
    let proof = &accepted.evidence.policies["shop/cart"].rules[0].proofs[0];
    assert_eq!((proof.basis.as_str(), proof.flows), ("accepted (denied)", 1));
}

#[test]
fn a_name_that_would_leave_the_folder_is_refused() {
    for (namespace, name) in [("shop", "../../etc/cron.d/x"), ("..", "x"), ("shop", ""), ("shop", "A"), ("shop", "-x")]
    {
        let mut cluster = shop();
        let labels = labels(&[("app", "evil")]);
        let workload = Workload { template_labels: labels, ..Workload::default() };
        cluster.workloads.insert(key(namespace, "CronJob", name), workload);
        let refused = synthesize(&Ledger::default(), &cluster, &Options::default()).map(|_| ());
        assert!(matches!(refused, Err(Refused::Name(_))), "{namespace}/{name}");
    }
}

#[test]
fn a_set_that_opens_too_much_or_too_little_names_the_edge_and_the_rule() {
    let cluster = shop();
    let ledger = scenes::ledger_of(&[edge(workload("frontend"), workload("cart"))]);
    let good = synthesize(&ledger, &cluster, &Options::default()).unwrap();
    let judged = |change: &dyn Fn(&mut Rule)| {
        let mut policies = good.policies.clone();
        for policy in &mut policies.policies {
            policy.ingress.iter_mut().chain(&mut policy.egress).flatten().for_each(change);
        }
        verify::verify(&policies, &cluster, &good.subjects, &good.lessons, &good.openings)
            .map_err(|broken| broken.to_string())
    };
    judged(&|_| {}).expect("what was generated");
    let wide = judged(&|rule| rule.ports[0].port = PortMatch::Range(8080, 8081)).unwrap_err();
    assert!(wide.contains("law 2, allowed but not learned: shop/Deployment/frontend -> shop/Deployment/cart TCP 8081 because of shop/frontend egress[0], shop/cart ingress[0]"), "{wide}");
    let narrow = judged(&|rule| rule.ports[0].protocol = Protocol::Udp).unwrap_err();
    assert!(narrow.contains("law 1, learned but denied: shop/Deployment/frontend -> shop/Deployment/cart TCP 8080 because of shop/default-deny, shop/frontend, shop/cart, shop/default-deny"), "{narrow}");
    let outside = judged(&|rule| {
        rule.peers.push(Peer::Block { cidr: "198.51.100.0/24".parse().unwrap(), except: Vec::new() });
    });
    let outside = outside.unwrap_err();
    assert!(outside.contains("law 2, allowed but not learned: 198.51.100.0 -> shop/Deployment/cart TCP 8080 because of shop/cart ingress[0]"), "{outside}");
}
