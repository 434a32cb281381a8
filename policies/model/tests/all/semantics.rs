//! What NetworkPolicy means, one sentence of the API a test. In the tables `.` is allowed, `X` is not.

use crate::cluster;
use model::{
    cluster::Cluster,
    policy::Protocol,
    reference::{Endpoint, Judgement, Reference},
};
use std::net::IpAddr;

/// web (names port 8080 http) and api (names 9090 http, UDP 53 dns) in shop; prom in mon; host is a
/// hostNetwork pod on n1.
const WORLD: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: mon, labels: {team: blue}}}
- {apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080, name: http}]}]}
  status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: api, namespace: shop, labels: {app: api}}
  spec:
    containers:
    - {name: c, ports: [{containerPort: 9090, name: http}, {containerPort: 53, name: dns, protocol: UDP}]}
  status: {podIPs: [{ip: 10.0.0.2}, {ip: 'fd00::2'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: prom, namespace: mon, labels: {app: prom}}
  status: {podIPs: [{ip: 10.0.1.1}, {ip: 'fd00::3'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: host, namespace: shop, labels: {app: host}}
  spec: {nodeName: n1, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 80, name: http}]}]}
  status: {podIPs: [{ip: 192.168.0.1}]}
---
";

/// The end a probe names: a pod (`web`, `web6` at its IPv6 address), `own-node`, or an address.
fn end<'c>(cluster: &'c Cluster, name: &str) -> Endpoint<'c> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Endpoint::Address(ip);
    }
    if name == "own-node" {
        return Endpoint::OwnNode;
    }
    let (pod, family) = name.strip_suffix('6').map_or((name, 0), |pod| (pod, 1));
    let pod = cluster.pods.iter().find(|p| p.name == pod).expect("a pod of the world");
    Endpoint::Pod(pod, pod.addresses[family])
}

/// Holds the policies (one spec, or whole documents) against a table of `from>to PROTOCOL/port .`.
fn holds(policies: &str, table: &str) {
    let documents = if policies.is_empty() || policies.contains("kind:") {
        policies.to_owned()
    } else {
        let head =
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: ";
        format!("{head}{policies}\n")
    };
    let cluster = cluster(&format!("{WORLD}{documents}"));
    let reference = Reference::new(&cluster, &cluster.policies);
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let [ends, what, expected] = row.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{row}") };
        let (from, to) = ends.split_once('>').expect("from>to");
        let (protocol, port) = what.split_once('/').unwrap_or((what, "0"));
        let protocol = Protocol::ALL.into_iter().find(|p| p.name() == protocol);
        let decision = reference.decide(end(&cluster, from), end(&cluster, to), protocol, port.parse().unwrap());
        let found = if decision.allows() { "." } else { "X" };
        assert_eq!(found, expected, "{row}\n{decision:?}\n{policies}");
    }
}

#[test]
fn without_policies_everything_passes() {
    holds("", "prom>web TCP/80 .\n web>8.8.8.8 UDP/53 .\n 8.8.8.8>web ICMP .");
}

#[test]
fn types_absent_or_empty_isolate_ingress_always() {
    for spec in ["{podSelector: {}}", "{podSelector: {}, policyTypes: []}", "{podSelector: {}, policyTypes: null}"] {
        holds(spec, "prom>web TCP/80 X\n web>prom TCP/80 .\n web>api TCP/80 X");
    }
}

#[test]
fn types_absent_isolate_egress_only_if_there_is_an_egress_rule() {
    holds("{podSelector: {}, egress: []}", "web>prom TCP/80 .\n prom>web TCP/80 X");
    holds("{podSelector: {}, egress: null}", "web>prom TCP/80 .\n prom>web TCP/80 X");
    holds("{podSelector: {}, egress: [{ports: [{port: 80}]}]}", "web>prom TCP/80 .\n web>prom TCP/81 X");
}

#[test]
fn explicit_types_mean_themselves() {
    holds("{podSelector: {}, policyTypes: [Egress]}", "web>prom TCP/80 X\n prom>web TCP/80 .");
    holds("{podSelector: {}, policyTypes: [Egress], ingress: []}", "prom>web TCP/80 .");
    holds("{podSelector: {}, policyTypes: [Ingress], egress: [{ports: [{port: 1}]}]}", "web>prom TCP/80 .");
    holds("{podSelector: null, policyTypes: [Ingress, Ingress]}", "prom>web TCP/80 X\n web>prom TCP/80 .");
}

#[test]
fn an_empty_or_absent_ingress_denies_all_and_an_empty_rule_allows_all() {
    holds("{podSelector: {}, ingress: []}", "prom>web TCP/80 X\n 8.8.8.8>web UDP/1 X");
    holds("{podSelector: {}, ingress: [{}]}", "prom>web TCP/80 .\n 8.8.8.8>web UDP/1 .\n 8.8.8.8>web SCTP/1 .");
}

#[test]
fn from_absent_empty_or_null_means_everyone_in_the_cluster_or_out() {
    for from in ["", "from: [], ", "from: null, "] {
        let spec = format!("{{podSelector: {{}}, ingress: [{{{from}ports: [{{port: 80}}]}}]}}");
        holds(&spec, "prom>web TCP/80 .\n 8.8.8.8>web TCP/80 .\n prom>web TCP/81 X");
    }
}

#[test]
fn a_policy_selects_in_its_own_namespace_only() {
    holds("{podSelector: {matchLabels: {app: prom}}}", "web>prom TCP/80 .");
    holds("{podSelector: {matchLabels: {app: web}}}", "prom>web TCP/80 X\n prom>api TCP/80 .");
}

#[test]
fn a_pod_selector_alone_selects_peers_in_the_policys_namespace() {
    holds("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}", "web>api TCP/80 .\n prom>api TCP/80 X");
    holds(
        "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: prom}}}]}]}",
        "prom>api TCP/80 X\n web>api TCP/80 X",
    );
}

#[test]
fn a_namespace_selector_alone_selects_all_pods_there() {
    let spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}";
    holds(spec, "prom>api TCP/80 .\n web>api TCP/80 X\n 10.0.9.9>api TCP/80 X");
    let spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}";
    holds(spec, "prom>api TCP/80 .\n web>api TCP/80 .\n 8.8.8.8>api TCP/80 X");
}

#[test]
fn both_selectors_in_one_item_mean_and_two_items_mean_or() {
    let and = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: prom}}}]}]}";
    holds(and, "prom>api TCP/80 X\n web>api TCP/80 X");
    let or = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: web}}}]}]}";
    holds(or, "prom>api TCP/80 .\n web>api TCP/80 .");
}

#[test]
fn a_null_selector_beside_another_is_absent_not_empty() {
    let spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: null, podSelector: {}}]}]}";
    holds(spec, "web>api TCP/80 .\n prom>api TCP/80 X");
    let spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: null}]}]}";
    holds(spec, "web>api TCP/80 .\n prom>api TCP/80 .");
}

#[test]
fn namespaces_carry_their_name_as_a_label() {
    let spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: mon}}}]}]}";
    holds(spec, "prom>api TCP/80 .\n web>api TCP/80 X");
}

#[test]
fn the_four_operators() {
    let select = |expression: &str| {
        format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchExpressions: [{expression}]}}}}]}}]}}"
        )
    };
    holds(&select("{key: app, operator: In, values: [web, x]}"), "web>api TCP/1 .\n prom>api TCP/1 X");
    holds(&select("{key: app, operator: NotIn, values: [web]}"), "web>api TCP/1 X\n prom>api TCP/1 .");
    holds(&select("{key: tier, operator: Exists}"), "web>api TCP/1 .\n prom>api TCP/1 X");
    holds(&select("{key: tier, operator: DoesNotExist}"), "web>api TCP/1 X\n prom>api TCP/1 .");
    // A missing key.
    holds(&select("{key: tier, operator: NotIn, values: [front]}"), "web>api TCP/1 X\n prom>api TCP/1 .");
    holds(&select("{key: tier, operator: In, values: [front]}"), "web>api TCP/1 .\n prom>api TCP/1 X");
}

#[test]
fn protocol_defaults_to_tcp_and_no_port_means_all_of_its_ports() {
    holds("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}", "prom>web TCP/80 .\n prom>web UDP/80 X");
    holds("{podSelector: {}, ingress: [{ports: [{}]}]}", "prom>web TCP/1 .\n prom>web TCP/65535 .\n prom>web UDP/1 X");
    holds("{podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]}", "prom>web TCP/9 .\n prom>web SCTP/9 X");
}

#[test]
fn a_rule_with_ports_of_udp_leaves_tcp_denied() {
    holds(
        "{podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 53}]}]}",
        "prom>web UDP/53 .\n prom>web TCP/53 X",
    );
    holds("{podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 7}]}]}", "prom>web SCTP/7 .\n prom>web UDP/7 X");
}

#[test]
fn end_port_is_included() {
    let spec = "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}";
    holds(spec, "prom>web TCP/79 X\n prom>web TCP/80 .\n prom>web TCP/90 .\n prom>web TCP/91 X");
    holds("{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 80}]}]}", "prom>web TCP/80 .\n prom>web TCP/81 X");
}

#[test]
fn a_named_port_is_the_destination_pods_own() {
    let ingress = "{podSelector: {}, ingress: [{ports: [{port: http}]}]}";
    holds(ingress, "prom>web TCP/8080 .\n prom>web TCP/9090 X\n prom>api TCP/9090 .\n prom>api TCP/8080 X");
    let egress = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}";
    holds(egress, "api>web TCP/8080 .\n web>api TCP/9090 .\n web>api TCP/8080 X\n web>prom TCP/9090 X");
    // Looked up by name and protocol.
    holds("{podSelector: {}, ingress: [{ports: [{port: dns}]}]}", "prom>api TCP/53 X\n prom>api UDP/53 X");
    holds(
        "{podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}",
        "prom>api UDP/53 .\n prom>web UDP/53 X",
    );
    // An address and a hostNetwork pod have no named ports.
    holds(egress, "web>192.168.0.1 TCP/80 X\n web>host TCP/80 X");
}

#[test]
fn icmp_follows_only_a_rule_for_all_ports_and_protocols() {
    holds("{podSelector: {}, ingress: [{}]}", "prom>web ICMP .");
    holds(
        "{podSelector: {}, ingress: [{ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}]}",
        "prom>web ICMP X",
    );
    holds("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}", "web>api ICMP .\n prom>api ICMP X");
}

#[test]
fn an_except_takes_away_from_its_own_block_only() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}]}]}";
    holds(spec, "10.1.0.1>web TCP/80 .\n 10.9.0.1>web TCP/80 X\n 11.0.0.1>web TCP/80 X");
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {ipBlock: {cidr: 10.9.9.0/24}}]}]}";
    holds(spec, "10.9.9.1>web TCP/80 .\n 10.9.8.1>web TCP/80 X");
}

#[test]
fn a_block_need_not_be_canonical() {
    for cidr in ["10.1.2.3/8", "010.0.0.0/8", "'::ffff:10.0.0.0/104'"] {
        let spec = format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]}}");
        holds(&spec, "10.200.0.1>web TCP/80 .\n 11.0.0.1>web TCP/80 X");
    }
}

#[test]
fn a_block_that_covers_pod_addresses_matches_those_pods() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}";
    holds(spec, "prom>web TCP/80 .\n prom6>web6 TCP/80 X\n api>web TCP/80 X");
}

#[test]
fn policies_add_up_and_none_takes_away() {
    let two = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: none, namespace: shop}
spec: {podSelector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: some, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}
";
    holds(two, "prom>web TCP/80 .\n prom>web TCP/81 X\n prom>api TCP/80 X");
}

#[test]
fn both_ends_must_allow() {
    let closed_client = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in, namespace: shop}
spec: {podSelector: {}, ingress: [{}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: mon}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}
";
    holds(closed_client, "prom>web TCP/80 .\n prom>web TCP/81 X\n web>prom TCP/81 .");
}

#[test]
fn a_pod_always_reaches_itself_and_its_node_reaches_it() {
    let closed = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
    holds(
        closed,
        "web>web TCP/80 .\n web>web6 ICMP .\n own-node>web TCP/80 .\n web>api TCP/80 X\n 192.168.0.1>web TCP/80 X",
    );
}

#[test]
fn a_host_network_pod_is_not_selected_and_as_a_peer_is_its_node() {
    let spec = "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}";
    holds(spec, "prom>host TCP/80 .\n host>web TCP/80 X");
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.1/32}}]}]}";
    holds(spec, "host>web TCP/80 .\n api>web TCP/80 X");
}

#[test]
fn a_rule_by_selector_holds_for_both_families() {
    let spec = "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
    holds(spec, "web>api TCP/80 .\n web6>api6 TCP/80 .\n prom6>api6 TCP/80 X");
}

#[test]
fn label_changes_change_what_is_selected_at_once() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {podSelector: {matchLabels: {app: web}}}\n";
    let mut cluster = cluster(&format!("{WORLD}{policy}"));
    let policies = cluster.policies.clone();
    let allows = |cluster: &Cluster| {
        let reference = Reference::new(cluster, &policies);
        reference.decide(end(cluster, "prom"), end(cluster, "web"), Some(Protocol::Tcp), 80).allows()
    };
    assert!(!allows(&cluster));
    for pod in &mut cluster.pods {
        pod.labels.insert("app".to_owned(), "other".to_owned());
    }
    assert!(allows(&cluster));
}

#[test]
fn to_absent_empty_or_null_means_everyone_in_the_cluster_or_out() {
    for to in ["", "to: [], ", "to: null, "] {
        let spec = format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{{to}ports: [{{port: 80}}]}}]}}");
        holds(&spec, "web>prom TCP/80 .\n web>8.8.8.8 TCP/80 .\n web>2001:db8::1 TCP/80 .\n web>prom TCP/81 X");
    }
}

#[test]
fn a_namespaces_label_change_changes_whom_its_pods_are_peers_of() {
    let rule = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: green}}}]}]}";
    holds(rule, "prom>web TCP/80 X");
    let relabelled = WORLD.replace("labels: {team: blue}", "labels: {team: green}");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: ";
    let cluster = cluster(&format!("{relabelled}{policy}{rule}\n"));
    let reference = Reference::new(&cluster, &cluster.policies);
    assert!(reference.decide(end(&cluster, "prom"), end(&cluster, "web"), Some(Protocol::Tcp), 80).allows());
}

#[test]
fn rules_speak_of_pods_and_their_ports_never_of_a_services() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n\
                   spec: {selector: {app: api}, clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 9090}]}\n---\n";
    let policy = |port: u16| {
        format!(
            "{service}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{matchLabels: {{app: api}}}}}}], \
             ports: [{{port: {port}}}]}}]}}\n"
        )
    };
    // The Service's port opens nothing at its pods, and its address is nobody's that a selector selects.
    holds(&policy(80), "web>api TCP/80 .\n web>api TCP/9090 X\n web>10.96.0.9 TCP/80 X");
    holds(&policy(9090), "web>api TCP/80 X\n web>api TCP/9090 .\n web>10.96.0.9 TCP/9090 X");
}

#[test]
fn a_completed_pod_is_nobody_and_its_address_is_just_an_address() {
    let completed =
        WORLD.replace("status: {podIPs: [{ip: 10.0.1.1}", "status: {phase: Succeeded, podIPs: [{ip: 10.0.1.1}");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}\n";
    let cluster = cluster(&format!("{completed}{policy}"));
    let ends: Vec<String> = cluster.ends().iter().map(|pod| pod.name.clone()).collect();
    assert_eq!(ends, ["api", "host", "web"]);
    let reference = Reference::new(&cluster, &cluster.policies);
    let address = Endpoint::Address("10.0.1.1".parse().expect("an address"));
    assert!(!reference.decide(address, end(&cluster, "web"), Some(Protocol::Tcp), 80).allows());
}

#[test]
fn a_staged_policy_is_kept_apart_from_those_in_force() {
    let staged = "apiVersion: podfence.dev/v1alpha1\nkind: StagedNetworkPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {podSelector: {}}\n";
    holds(staged, "prom>web TCP/80 .");
    assert_eq!(cluster(staged).staged.policies.len(), 1);
}

#[test]
fn a_decision_names_the_rules_and_policies() {
    let cluster = cluster(&format!(
        "{WORLD}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: 1}}]}}, {{ports: [{{port: 80}}]}}]}}\n"
    ));
    let reference = Reference::new(&cluster, &cluster.policies);
    let ask = |port| reference.decide(end(&cluster, "prom"), end(&cluster, "web"), Some(Protocol::Tcp), port);
    let Judgement::AllowedBy(rules) = ask(80).ingress else { panic!() };
    assert_eq!(rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop/p ingress[1]"]);
    assert_eq!(ask(80).egress, Judgement::NotIsolated);
    assert_eq!(ask(2).ingress, Judgement::Denied(vec!["shop/p".to_owned()]));
}
