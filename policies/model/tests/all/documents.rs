//! YAML and JSON in and out: nothing is lost, nothing changes its meaning, nothing panics.

use crate::{cluster, random};
use model::{
    cluster::{Cluster, Mode, TargetPort},
    labels::{Labels, Selector},
    policy::{NetworkPolicy, PolicySet},
    yaml::{read_into, read_policies, write_policy, write_staged_policy},
};
use proptest::prelude::*;

/// Label values that some YAML reader takes for something else.
const TREACHEROUS: [&str; 44] = [
    "on",
    "off",
    "On",
    "OFF",
    "y",
    "n",
    "Y",
    "N",
    "yes",
    "no",
    "No",
    "true",
    "False",
    "null",
    "Null",
    "~",
    "",
    "1",
    "1.0",
    "1_000",
    "1__0",
    "0_1",
    "4_2",
    "0x1f",
    "0x_1",
    "0b1_0",
    "0o7",
    "007",
    "12e3",
    "1e3",
    ".5",
    ".inf",
    "-.inf",
    ".nan",
    "2001-01-01",
    "1:30",
    "190:20:30",
    "+1",
    "-",
    "=",
    "<<",
    "1.",
    "0.",
    "e3",
];

fn without_places(mut policy: NetworkPolicy) -> NetworkPolicy {
    policy.source = None;
    for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
        rules.iter_mut().for_each(|rule| rule.source = None);
    }
    policy
}

fn trip(policy: &NetworkPolicy) -> NetworkPolicy {
    let written = write_policy(policy);
    let read = read_policies("written.yaml", &written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    without_places(read.policies.into_iter().next().expect("one policy"))
}

/// A policy with these as annotations, and those among them that are label values as labels, too.
fn of_labels(values: &[&str]) -> NetworkPolicy {
    let named = |values: &mut dyn Iterator<Item = &&str>| -> Labels {
        values.enumerate().map(|(i, v)| (format!("k{i}"), (*v).to_owned())).collect()
    };
    let ends_well = |v: &str| {
        v.is_empty() || [v.chars().next(), v.chars().last()].iter().flatten().all(char::is_ascii_alphanumeric)
    };
    let is_label = |v: &&&str| ends_well(v) && !v.contains(':');
    let labels = named(&mut values.iter().filter(is_label));
    NetworkPolicy {
        namespace: "on".to_owned(),
        name: "1e3".to_owned(),
        labels: labels.clone(),
        annotations: named(&mut values.iter()),
        pod_selector: Selector::of(labels),
        ingress: Some(Vec::new()),
        egress: None,
        source: None,
    }
}

#[test]
fn label_values_survive_the_trip_as_strings() {
    let policy = of_labels(&TREACHEROUS);
    assert_eq!(trip(&policy), policy);
}

#[test]
fn label_values_that_yaml_1_1_would_change_are_written_with_quotes() {
    let written = write_policy(&of_labels(&TREACHEROUS));
    for value in TREACHEROUS.iter().filter(|v| !matches!(**v, "e3" | "190:20:30")) {
        let quoted = [format!(": \"{value}\"\n"), format!(": '{value}'\n")];
        assert!(quoted.iter().any(|q| written.contains(q)), "{value} in {written}");
    }
}

#[test]
fn a_policy_is_written_as_kubectl_prints_it() {
    let text = "\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
  labels:
    app.kubernetes.io/managed-by: podfence
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes:
  - Ingress
  - Egress
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: ingress
      podSelector:
        matchLabels:
          app: proxy
    ports:
    - protocol: TCP
      port: 8080
  - {}
  egress:
  - to:
    - ipBlock:
        cidr: 10.0.0.0/8
        except:
        - 10.1.0.0/16
    ports:
    - protocol: TCP
      port: 8000
      endPort: 8010
    - protocol: UDP
      port: dns
    - protocol: SCTP
";
    let policies = read_policies("web.yaml", text).unwrap();
    assert_eq!(write_policy(&policies.policies[0]), text);
}

#[test]
fn a_staged_policy_is_written_with_its_own_kind() {
    let written = write_staged_policy(&of_labels(&["a"]));
    assert!(written.starts_with("---\napiVersion: podfence.dev/v1alpha1\nkind: StagedNetworkPolicy\n"), "{written}");
    assert_eq!(cluster(&written).staged.policies.len(), 1);
}

#[test]
fn json_lists_streams_and_arrays_are_read_like_yaml() {
    let pod = |name: &str| {
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"a\"}}}}")
    };
    let list = format!("{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{},{}]}}", pod("a"), pod("b"));
    let stream = format!("{}\n{}\n", pod("a"), pod("b"));
    let array = format!("[{},{}]", pod("a"), pod("b"));
    let mixed = format!("{}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: b, namespace: a}}\n", pod("a"));
    // What the API itself answers: items that do not say what they are.
    let bare = "{\"apiVersion\":\"v1\",\"kind\":\"PodList\",\"items\":[{\"metadata\":{\"name\":\"a\",\"namespace\":\"a\"}},\
                {\"metadata\":{\"name\":\"b\",\"namespace\":\"a\"}}]}";
    for text in [list.as_str(), &stream, &array, &mixed, bare] {
        let names: Vec<_> = cluster(text).pods.into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["a", "b"], "{text}");
    }
}

#[test]
fn lines_are_those_of_objects_and_rules() {
    let text = "# policies\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\n\
                spec:\n  podSelector: {}\n  ingress:\n  - ports:\n    - port: 80\n  - ports:\n    - port: 81\n---\n\
                apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: a}\n";
    for text in [text.to_owned(), text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
        let cluster = cluster(&text);
        let policy = &cluster.policies.policies[0];
        assert_eq!(policy.source.as_ref().map(|s| s.line), Some(3));
        let rules: Vec<_> = policy.ingress.iter().flatten().map(|r| r.source.as_ref().map(|s| s.line)).collect();
        assert_eq!(rules, [Some(9), Some(11)]);
        assert_eq!(cluster.pods[0].source.as_ref().map(|s| s.line), Some(14));
    }
}

#[test]
fn lines_of_json_are_those_of_the_braces() {
    let text = "{\n \"apiVersion\": \"v1\", \"kind\": \"List\",\n \"items\": [\n  {\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n   \
                \"metadata\": {\"name\": \"a\", \"annotations\": {\"x\": \"{\\\"{\"}, \"managedFields\": [{\"f\": {}},\n {}]}},\n  \
                {\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {\"name\": \"p\"},\n   \
                \"spec\": {\"ingress\": [\n    {},\n    {\"ports\": [{\"port\": 80}]}\n   ]}}]}\n\
                {\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"b\"}}\n";
    let cluster = cluster(text);
    let line = |source: &Option<model::cluster::Source>| source.as_ref().map_or(0, |s| s.line);
    assert_eq!(cluster.pods.iter().map(|p| line(&p.source)).collect::<Vec<_>>(), [4, 12]);
    let policy = &cluster.policies.policies[0];
    assert_eq!(line(&policy.source), 7);
    assert_eq!(policy.ingress.iter().flatten().map(|r| line(&r.source)).collect::<Vec<_>>(), [9, 10]);
}

#[test]
fn other_kinds_are_passed_over_and_counted_and_so_are_kinds_of_the_same_name() {
    let cluster = cluster(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {selector: all()}\n---\n\
         apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n",
    );
    let counted: Vec<_> = cluster.passed_over.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(counted, [("ConfigMap", 1), ("NetworkPolicy.projectcalico.org", 1), ("Service.serving.knative.dev", 1)]);
    assert!(cluster.services.is_empty() && cluster.policies.policies.is_empty());
}

#[test]
fn a_pod_is_read_with_all_that_matters() {
    let pod = &cluster(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: job-1\n  namespace: a\n  uid: u1\n\
         \n  creationTimestamp: '2026-01-02T03:04:05Z'\n  ownerReferences:\n  - {kind: X, name: not-me}\n\
         \n  - {kind: Job, name: job, uid: j, controller: true}\nspec:\n  nodeName: n1\n  initContainers:\n\
         \n  - {name: once, ports: [{containerPort: 1}]}\n  - {name: sidecar, restartPolicy: Always, ports: [{containerPort: 2}]}\n\
         \n  containers:\n  - {name: c, ports: [{containerPort: 53, protocol: UDP, name: dns}]}\nstatus:\n  phase: Succeeded\n\
         \n  podIP: 10.0.0.1\n  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]\n  containerStatuses:\n\
         \n  - state: {terminated: {finishedAt: '2026-01-02T03:05:00Z'}}\n  - state: {terminated: {finishedAt: '2026-01-02T03:04:59Z'}}\n",
    )
    .pods[0];
    assert_eq!(pod.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [53, 2]);
    assert_eq!(pod.owner.as_ref().map(|o| o.name.as_str()), Some("job"));
    assert_eq!(pod.addresses.len(), 2);
    assert_eq!(pod.started.map(|t| t.to_string()).as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(pod.ended.map(|t| t.to_string()).as_deref(), Some("2026-01-02T03:05:00Z"));
    assert!(pod.completed);
}

#[test]
fn a_deleted_pod_ended_when_its_containers_did_or_else_at_its_deadline() {
    let ended = |statuses: &str| {
        let pod = cluster(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: w, deletionTimestamp: '2026-01-02T03:05:00Z'}}\n\
             status: {{phase: Running, containerStatuses: [{statuses}]}}\n"
        ));
        pod.pods[0].ended.map(|t| t.to_string()).unwrap_or_default()
    };
    let (done, running) = ("{state: {terminated: {finishedAt: '2026-01-02T03:04:31Z'}}}", "{state: {running: {}}}");
    assert_eq!(ended(""), "2026-01-02T03:05:00Z");
    assert_eq!(ended(running), "2026-01-02T03:05:00Z");
    assert_eq!(ended(&format!("{done}, {running}")), "2026-01-02T03:05:00Z");
    assert_eq!(ended(done), "2026-01-02T03:04:31Z");
    assert_eq!(
        cluster("apiVersion: v1\nkind: Pod\nmetadata: {name: w}\nstatus: {phase: Running}\n").pods[0].ended,
        None
    );
}

#[test]
fn objects_give_the_same_cluster_in_any_order() {
    let parts = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: b}}\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: a, uid: '2'}\nstatus: {startTime: '2026-01-02T03:04:05Z'}\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: a, uid: '1'}\nstatus: {startTime: '2026-01-02T03:05:05Z'}\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: q, namespace: a}\nspec: {}\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec: {}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: c}\n",
    ];
    let read = |order: &mut dyn Iterator<Item = &&str>| {
        let mut cluster = Cluster::default();
        order.for_each(|part| read_into(&mut cluster, "one.yaml", part).unwrap());
        format!("{cluster:?}")
    };
    let first = read(&mut parts.iter());
    assert_eq!(read(&mut parts.iter().rev()), first);
    assert_eq!(read(&mut parts[3..].iter().chain(&parts[..3])), first);
}

#[test]
fn a_service_is_read_with_its_addresses_and_targets() {
    let cluster = cluster(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\nspec:\n  selector: {app: web}\n\
         \n  clusterIP: 10.96.0.1\n  clusterIPs: [10.96.0.1, 'fd01::1']\n  externalIPs: [1.2.3.4]\n  ports:\n\
         \n  - {port: 80, targetPort: http, name: a}\n  - {port: 81, targetPort: 8081}\n  - {port: 53, protocol: UDP}\n\
         status: {loadBalancer: {ingress: [{ip: 5.6.7.8}, {hostname: x.example}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: headless, namespace: a}\nspec: {clusterIP: None}\n",
    );
    let service = &cluster.services[&("a".to_owned(), "s".to_owned())];
    assert_eq!(service.cluster_ips.len(), 2);
    assert_eq!(service.external_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.2.3.4", "5.6.7.8"]);
    let targets: Vec<_> = service.ports.iter().map(|p| p.target.clone()).collect();
    assert_eq!(targets, [TargetPort::Name("http".to_owned()), TargetPort::Number(8081), TargetPort::Number(53)]);
    assert!(cluster.services[&("a".to_owned(), "headless".to_owned())].cluster_ips.is_empty());
}

#[test]
fn a_namespace_that_only_another_object_names_is_there_with_its_label_and_is_told() {
    let cluster = cluster(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: a}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: b}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: c}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: c}\n",
    );
    assert_eq!(cluster.namespaces_not_given(), ["a", "b"]);
    assert_eq!(cluster.namespaces["a"].labels["kubernetes.io/metadata.name"], "a");
    assert_eq!(cluster.namespaces["a"].source, None);
    assert_eq!(cluster.mode(&cluster.pods[0], Mode::Audit), Mode::Audit);
}

#[test]
fn aliases_and_tags_that_a_person_may_write_are_read() {
    let cluster = cluster(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: w\n  namespace: a\n  labels: &l\n    one: !!str 12\n    two: |-\n      12\n\
         \n    three: >-\n      on\n    four: &v \"12\"\n    five: *v\n  annotations: *l\n",
    );
    let labels = &cluster.pods[0].labels;
    assert_eq!(labels.values().collect::<Vec<_>>(), ["12", "12", "12", "on", "12"]);
    assert_eq!(&cluster.pods[0].annotations, labels);
}

proptest! {
    #[test]
    fn a_policy_written_and_read_is_the_same(policy in random::policy()) {
        prop_assert_eq!(trip(&policy), policy.clone());
        prop_assert_eq!(write_policy(&policy), write_policy(&policy));
    }

    #[test]
    fn any_text_in_an_annotation_survives(text in any::<String>()) {
        let mut policy = of_labels(&[]);
        policy.annotations.insert("a".to_owned(), text);
        prop_assert_eq!(trip(&policy), policy);
    }

    #[test]
    fn a_set_does_not_depend_on_the_order_it_was_given_in(set in random::policies()) {
        let mut turned = set.policies.clone();
        turned.reverse();
        prop_assert_eq!(PolicySet::new(turned), set);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = read_into(&mut Cluster::default(), "any", &text);
    }

    #[test]
    fn no_words_of_yaml_make_the_reader_panic(words in proptest::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60)) {
        let _ = read_into(&mut Cluster::default(), "any", &words.concat());
    }

    #[test]
    fn no_change_of_one_byte_makes_the_reader_panic(at in any::<prop::sample::Index>(), byte in 0u8..128, json in any::<bool>()) {
        let mut bytes = if json { SEED_JSON } else { SEED }.as_bytes().to_vec();
        *at.get_mut(&mut bytes) = byte;
        let _ = read_into(&mut Cluster::default(), "any", &String::from_utf8(bytes).expect("ASCII"));
    }
}

const WORDS: [&str; 36] = [
    "apiVersion: v1\n",
    "kind: Pod\n",
    "kind: List\n",
    "kind: NetworkPolicy\n",
    "apiVersion: networking.k8s.io/v1\n",
    "metadata:\n",
    "  name: a\n",
    "spec:\n",
    "  ingress:\n",
    "  - from:\n",
    "    - ipBlock:\n",
    "items:\n",
    "- ",
    "  ",
    "\t",
    "\n",
    "---\n",
    "...\n",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ",",
    "&a ",
    "*a",
    "!!str ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "%YAML 1.1\n",
    "\u{feff}",
    "<<: ",
    "? ",
];
const SEED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec:\n  \
    podSelector: {matchLabels: {app: \"on\"}}\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}\n    \
    ports:\n    - {port: 80, endPort: 90}\n";
const SEED_JSON: &str = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\
    \"metadata\":{\"name\":\"a\",\"namespace\":\"b\"},\"status\":{\"podIP\":\"10.0.0.1\"}}]}";

#[test]
fn plain_scalars_are_what_kubernetes_takes_them_for() {
    let read = |labels: &str, host: &str, port: &str| {
        let cluster = cluster(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: w, labels: {labels}}}\nspec:\n  hostNetwork: {host}\n  containers:\n  - ports:\n    - containerPort: {port} # here\n"
        ));
        let pod = &cluster.pods[0];
        (pod.labels.keys().cloned().collect::<Vec<_>>().join(" "), pod.host_network, pod.ports[0].port)
    };
    assert_eq!(read("{}", "yes", "0120"), (String::new(), true, 80));
    assert_eq!(read("{}", "True", "80.0"), (String::new(), true, 80));
    assert_eq!(read("{}", "Off", "8e1"), (String::new(), false, 80));
    assert_eq!(read("{}", "n", "0x50"), (String::new(), false, 80));
    assert_eq!(read("{}", "FALSE", "1_0"), (String::new(), false, 10));
    assert_eq!(read("{on: a}", "on", "1"), ("true".to_owned(), true, 1));
    assert_eq!(read("{'on': a, \"off\": b}", "on", "1"), ("off on".to_owned(), true, 1));
    assert_eq!(read("{n: a, 1.0: a, 0x10: a, x: tRUE}", "on", "1"), ("1 16 false x".to_owned(), true, 1));
    let block =
        cluster("apiVersion: v1\nkind: Pod\nmetadata:\n  name: w\n  labels:\n    'y': b\n    ? off # c\n    : d\n");
    assert_eq!(block.pods[0].labels.keys().collect::<Vec<_>>(), ["false", "y"]);
}
