//! `reach`: the shop with its generated policies, small inputs, and what is said of bad ones.

use crate::world::World;
use std::{fs, path::Path};

const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: \"on\"}}, podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 6379}, {port: 53, protocol: UDP}]
";

fn world() -> World {
    let world = World::new();
    fs::write(world.path("policy.yaml"), POLICY).expect("written");
    world
}

#[test]
fn rows_of_a_small_cluster() {
    let done = world().run("reach policy.yaml --cluster cluster.yaml --to data");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out, @r#"
FROM                  TO                    ALLOWED
shop/Deployment/web   data/StatefulSet/db   TCP 6379; UDP 53

note: a pod always reaches itself; a workload's row to itself is about two pods of it
note: a node always reaches the pods that run on it, whatever policies say (its kubelet probes them); podfence lets it
note: ICMP is in no rule: podfence lets an echo pass where a rule allows every port of every protocol, and errors about connections that are allowed
note: rows are about opening a connection, and replies to it pass; connections that stand when a policy changes are judged again at once by podfence, the API leaves it open
note: addresses stand for whoever has them outside of this input: pods of it have rows of their own
"#);
}

#[test]
fn each_form_of_the_same_rows() {
    let world = world();
    let mut all = String::new();
    for form in ["json", "yaml", "csv", "dot", "mermaid", "matrix"] {
        let words = format!("reach policy.yaml --cluster cluster.yaml --from shop --to data -o {form}");
        let done = world.run(&words);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{form}");
        all += &format!("$ {form}\n{}", done.out);
    }
    insta::assert_snapshot!(all, @r#"
$ json
{"connections":[
{"from":{"namespace":"shop","kind":"Deployment","name":"web"},"to":{"namespace":"data","kind":"StatefulSet","name":"db"},"allowed":[{"protocol":"TCP","ports":"6379"},{"protocol":"UDP","ports":"53"}]}
],
"hostNetwork":[],
"notes":["a pod always reaches itself; a workload's row to itself is about two pods of it","a node always reaches the pods that run on it, whatever policies say (its kubelet probes them); podfence lets it","ICMP is in no rule: podfence lets an echo pass where a rule allows every port of every protocol, and errors about connections that are allowed","rows are about opening a connection, and replies to it pass; connections that stand when a policy changes are judged again at once by podfence, the API leaves it open"]}
$ yaml
connections:
- from: {namespace: "shop", kind: "Deployment", name: "web"}
  to: {namespace: "data", kind: "StatefulSet", name: "db"}
  allowed: [{protocol: "TCP", ports: "6379"}, {protocol: "UDP", ports: "53"}]
hostNetwork: []
notes:
- "a pod always reaches itself; a workload's row to itself is about two pods of it"
- "a node always reaches the pods that run on it, whatever policies say (its kubelet probes them); podfence lets it"
- "ICMP is in no rule: podfence lets an echo pass where a rule allows every port of every protocol, and errors about connections that are allowed"
- "rows are about opening a connection, and replies to it pass; connections that stand when a policy changes are judged again at once by podfence, the API leaves it open"
$ csv
from,to,protocol,ports,partial
shop/Deployment/web,data/StatefulSet/db,TCP,6379,false
shop/Deployment/web,data/StatefulSet/db,UDP,53,false
$ dot
digraph podfence {
  rankdir=LR;
  node [shape=box];
  subgraph cluster_0 {
    label="data";
    n0 [label="StatefulSet db"];
  }
  subgraph cluster_1 {
    label="shop";
    n1 [label="Deployment idle"];
    n2 [label="Deployment web"];
  }
  n2 -> n0 [label="TCP 6379; UDP 53"];
}
$ mermaid
flowchart LR
  subgraph g0["data"]
    n0["StatefulSet db"]
  end
  subgraph g1["shop"]
    n1["Deployment idle"]
    n2["Deployment web"]
  end
  n2 -->|"TCP 6379#59; UDP 53"| n0
$ matrix
lines are clients, columns are servers by the number of their line
. something may be opened, by some pod at least   X nothing   - not asked
addresses without a line may open nothing, and nothing may be opened there

                       1 2 3
1 data/StatefulSet/db  - - -
2 shop/Deployment/idle X - -
3 shop/Deployment/web  . - -

note: a pod always reaches itself; a workload's row to itself is about two pods of it
note: a node always reaches the pods that run on it, whatever policies say (its kubelet probes them); podfence lets it
note: ICMP is in no rule: podfence lets an echo pass where a rule allows every port of every protocol, and errors about connections that are allowed
note: rows are about opening a connection, and replies to it pass; connections that stand when a policy changes are judged again at once by podfence, the API leaves it open
"#);
}

#[test]
fn who_else_could_connect() {
    let done = world().run("reach policy.yaml --cluster cluster.yaml --to data --exposure -o csv");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out, @r#"
from,to,protocol,ports,partial
shop/Deployment/web,data/StatefulSet/db,TCP,6379,false
shop/Deployment/web,data/StatefulSet/db,UDP,53,false
(new pods with app=web in new namespaces with team=on),data/StatefulSet/db,TCP,6379,false
(new pods with app=web in new namespaces with team=on),data/StatefulSet/db,UDP,53,false
"#);
}

#[test]
fn the_shop_with_its_generated_policies() {
    let world = World::new();
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/examples/shop");
    let (capture, cluster) = (shop.join("capture.pcap"), shop.join("capture.yaml"));
    let (capture, cluster) = (capture.display().to_string(), cluster.display().to_string());
    let steps: [&[&str]; 2] = [
        &["observe", "--pcap", &capture, "--cluster", &cluster, "--log", "shop-log", "--node", "node-1"],
        &["generate", "--log", "shop-log", "--cluster", &cluster, "--out", "policies"],
    ];
    for words in steps {
        let done = world.run_words(words);
        assert_eq!(done.status, 0, "{}", done.err);
    }
    let done = world.run_words(&["reach", "policies", "--cluster", &cluster, "-o", "csv"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out, @r#"
from,to,protocol,ports,partial
data/CronJob/report,data/StatefulSet/orders-db,TCP,6379,false
data/CronJob/report,kube-system/Deployment/coredns,TCP,53,false
data/CronJob/report,kube-system/Deployment/coredns,UDP,53,false
monitoring/Deployment/prometheus,data/DaemonSet/events,TCP,9100,false
monitoring/Deployment/prometheus,data/StatefulSet/carts-db,TCP,9100,false
monitoring/Deployment/prometheus,data/StatefulSet/orders-db,TCP,9100,false
monitoring/Deployment/prometheus,kube-system/Deployment/coredns,TCP,"53,9153",false
monitoring/Deployment/prometheus,shop/Deployment/cart,TCP,9100,false
monitoring/Deployment/prometheus,shop/Deployment/catalog,TCP,9100,false
monitoring/Deployment/prometheus,shop/Deployment/checkout,TCP,9100,false
monitoring/Deployment/prometheus,shop/Deployment/frontend,TCP,9100,false
monitoring/Deployment/prometheus,shop/Deployment/payments,TCP,9100,false
monitoring/Deployment/prometheus,shop/Deployment/promo,TCP,9100,false
monitoring/Deployment/prometheus,shop/Deployment/reviews,TCP,9100,false
monitoring/Deployment/prometheus,shop/Deployment/shipping,TCP,9100,false
shop/Deployment/cart,data/StatefulSet/carts-db,TCP,6379,false
shop/Deployment/cart,kube-system/Deployment/coredns,TCP,53,false
shop/Deployment/cart,kube-system/Deployment/coredns,UDP,53,false
shop/Deployment/catalog,kube-system/Deployment/coredns,TCP,53,false
shop/Deployment/catalog,kube-system/Deployment/coredns,UDP,53,false
shop/Deployment/catalog,shop/Deployment/reviews,TCP,8080,false
shop/Deployment/checkout,data/StatefulSet/orders-db,TCP,6379,false
shop/Deployment/checkout,kube-system/Deployment/coredns,TCP,53,false
shop/Deployment/checkout,kube-system/Deployment/coredns,UDP,53,false
shop/Deployment/checkout,shop/Deployment/cart,TCP,8080,false
shop/Deployment/checkout,shop/Deployment/payments,TCP,8443,false
shop/Deployment/checkout,shop/Deployment/shipping,TCP,7070,false
shop/Deployment/frontend,kube-system/Deployment/coredns,TCP,53,false
shop/Deployment/frontend,kube-system/Deployment/coredns,UDP,53,false
shop/Deployment/frontend,shop/Deployment/cart,TCP,8080,false
shop/Deployment/frontend,shop/Deployment/catalog,TCP,8080,false
shop/Deployment/frontend,shop/Deployment/checkout,TCP,8080,false
shop/Deployment/frontend,shop/Deployment/promo,TCP,8080,false
shop/Deployment/payments,kube-system/Deployment/coredns,TCP,53,false
shop/Deployment/payments,kube-system/Deployment/coredns,UDP,53,false
shop/Deployment/payments,203.0.113.10/32,TCP,443,false
shop/Deployment/payments,2001:db8:113::10/128,TCP,443,false
shop/Deployment/promo,data/DaemonSet/events,UDP,8125,false
shop/Deployment/promo,kube-system/Deployment/coredns,TCP,53,false
shop/Deployment/promo,kube-system/Deployment/coredns,UDP,53,false
shop/Deployment/reviews,data/DaemonSet/events,UDP,8125,false
shop/Deployment/reviews,kube-system/Deployment/coredns,TCP,53,false
shop/Deployment/reviews,kube-system/Deployment/coredns,UDP,53,false
198.51.100.7/32,shop/Deployment/frontend,TCP,8080,false
2001:db8:100::7/128,shop/Deployment/frontend,TCP,8080,false
"#);
    let table = world.run_words(&["reach", "policies", "--cluster", &cluster, "-o", "matrix"]);
    insta::assert_snapshot!(table.out, @r#"
lines are clients, columns are servers by the number of their line
. something may be opened, by some pod at least   X nothing   - not asked
addresses without a line may open nothing, and nothing may be opened there

                                         1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16
 1 data/CronJob/report                   X  X  X  .  .  X  X  X  X  X  X  X  X  X  X  X
 2 data/DaemonSet/events                 X  X  X  X  X  X  X  X  X  X  X  X  X  X  X  X
 3 data/StatefulSet/carts-db             X  X  X  X  X  X  X  X  X  X  X  X  X  X  X  X
 4 data/StatefulSet/orders-db            X  X  X  X  X  X  X  X  X  X  X  X  X  X  X  X
 5 kube-system/Deployment/coredns        X  X  X  X  X  X  X  X  X  X  X  X  X  X  X  X
 6 monitoring/Deployment/prometheus      X  .  .  .  .  X  .  .  .  .  .  .  .  .  X  X
 7 shop/Deployment/cart                  X  X  .  X  .  X  X  X  X  X  X  X  X  X  X  X
 8 shop/Deployment/catalog               X  X  X  X  .  X  X  X  X  X  X  X  .  X  X  X
 9 shop/Deployment/checkout              X  X  X  .  .  X  .  X  X  X  .  X  X  .  X  X
10 shop/Deployment/frontend              X  X  X  X  .  X  .  .  .  X  X  .  X  X  X  X
11 shop/Deployment/payments              X  X  X  X  .  X  X  X  X  X  X  X  X  X  X  .
12 shop/Deployment/promo                 X  .  X  X  .  X  X  X  X  X  X  X  X  X  X  X
13 shop/Deployment/reviews               X  .  X  X  .  X  X  X  X  X  X  X  X  X  X  X
14 shop/Deployment/shipping              X  X  X  X  X  X  X  X  X  X  X  X  X  X  X  X
15 198.51.100.7/32 2001:db8:100::7/128   X  X  X  X  X  X  X  X  X  .  X  X  X  X  -  -
16 203.0.113.10/32 2001:db8:113::10/128  X  X  X  X  X  X  X  X  X  X  X  X  X  X  -  -

note: a pod always reaches itself; a workload's row to itself is about two pods of it
note: a node always reaches the pods that run on it, whatever policies say (its kubelet probes them); podfence lets it
note: ICMP is in no rule: podfence lets an echo pass where a rule allows every port of every protocol, and errors about connections that are allowed
note: rows are about opening a connection, and replies to it pass; connections that stand when a policy changes are judged again at once by podfence, the API leaves it open
note: addresses stand for whoever has them outside of this input: pods of it have rows of their own
"#);
}

#[test]
fn a_policy_of_the_cluster_is_considered_only_where_the_paths_hold_none() {
    let world = world();
    let live = format!("{}---\n{}", crate::world::CLUSTER, POLICY.replace("name: db, ", "name: live, "));
    fs::write(world.path("live.yaml"), live).expect("written");
    let own = world.run("reach --cluster live.yaml --to data -o csv");
    assert_eq!((own.status, own.err.as_str()), (0, ""));
    let both = world.run("reach policy.yaml --cluster live.yaml --to data -o csv");
    assert_eq!(both.out, own.out);
    assert_eq!(both.err, "1 policy of the cluster is not considered, as the manifests hold policies\n");
}

#[test]
fn bad_input_says_what_why_and_what_to_try() {
    let world = world();
    let wrong = POLICY.replace("6379", "0").replace("53", "70000");
    fs::write(world.path("wrong.yaml"), format!("{wrong}---\n{}", wrong.replace("name: db", "name: again")))
        .expect("written");
    fs::write(world.path("team.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: team}\n")
        .expect("written");
    let cases = [
        "reach",
        "reach policy.yaml",
        "reach - --cluster -",
        "reach policy.yaml --cluster cluster.yaml --from shop/wep",
        "reach policy.yaml --cluster cluster.yaml --to a/b/c/d",
        "reach wrong.yaml --cluster cluster.yaml",
        "reach wrong.yaml --cluster cluster.yaml --keep-going",
    ];
    let mut all = String::new();
    for words in cases {
        let done = world.run(words);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{words}: {}", done.err);
        all += &format!("$ podfence {words}\n{}", done.err);
    }
    insta::assert_snapshot!(all, @r#"
$ podfence reach
podfence: there is nothing to read: no PATH was given and no --cluster; give files or folders of manifests, or the cluster's objects with --cluster FILE
$ podfence reach policy.yaml
podfence: the input holds no pods and no workloads, so that there is nobody to whom policies could apply; give their manifests too, or the cluster's objects with --cluster FILE (`kubectl get ns,pods,deployments,replicasets,statefulsets,daemonsets,jobs,cronjobs,networkpolicies -A -o json` prints them)
$ podfence reach - --cluster -
podfence: standard input (-) is named twice; it can be read once; give files for the others
$ podfence reach policy.yaml --cluster cluster.yaml --from shop/wep
podfence: `shop/wep` names no pod and no workload of the input; near it are shop/Deployment/web, shop/Pod/web-1, shop/Deployment/idle
$ podfence reach policy.yaml --cluster cluster.yaml --to a/b/c/d
podfence: --to; `a/b/c/d` is no name; write NAMESPACE/NAME, NAMESPACE/KIND/NAME, a pod's name, or an address
$ podfence reach wrong.yaml --cluster cluster.yaml
podfence: wrong.yaml:8: NetworkPolicy data/db: spec.ingress[0].ports[0].port: 0 is no port; use 1 to 65535
$ podfence reach wrong.yaml --cluster cluster.yaml --keep-going
podfence: wrong.yaml:8: NetworkPolicy data/db: spec.ingress[0].ports[0].port: 0 is no port; use 1 to 65535
podfence: wrong.yaml:17: NetworkPolicy data/again: spec.ingress[0].ports[0].port: 0 is no port; use 1 to 65535
podfence: 2 errors in the input; mend what is said above
"#);
    let done = world.run("reach team.yaml -v -o csv");
    assert_eq!(done.status, 0);
    insta::assert_snapshot!(done.err, @r#"
podfence: warning: not in the input, and taken with the label kubernetes.io/metadata.name alone: namespace team
"#);
}
