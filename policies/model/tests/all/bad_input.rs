//! Bad input, each with the exact error it gives: file, line, object, field, what to try.

use model::{cluster::Cluster, yaml::read_into};

fn error_of(text: &str) -> String {
    match read_into(&mut Cluster::default(), "in.yaml", text) {
        Ok(()) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn all(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(error_of(text), *expected, "\n{text}");
    }
}

/// The error for a policy with this spec, without its place and object.
fn spec(spec: &str) -> String {
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: ";
    let error = error_of(&format!("{head}{spec}\n"));
    error.strip_prefix("in.yaml:4: NetworkPolicy shop/p: ").unwrap_or_else(|| panic!("{error}")).to_owned()
}

#[test]
fn what_is_no_kubernetes_document() {
    all(&[
        ("hello\n", "in.yaml:1: expected a Kubernetes object, found a string; give what `kubectl get -o yaml` prints"),
        ("- 1\n", "in.yaml:1: expected a Kubernetes object, found a number; give what `kubectl get -o yaml` prints"),
        (
            "metadata: {name: a}\n",
            "in.yaml:1: an object without kind or apiVersion; give Kubernetes objects, as `kubectl get -o yaml` prints them",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n\tlabels: {}\n",
            "in.yaml:4: not readable as YAML: while scanning a plain scalar, found a tab; YAML is indented with spaces, and here is a tab",
        ),
        (
            "apiVersion: v1\nkind: Pod\n---\nkind: [\n",
            "in.yaml:1: Pod: metadata.name: missing; every object needs a name",
        ),
        (
            "a: 1\na: 2\n",
            "in.yaml:2: not readable as YAML: duplicate mapping key: a not allowed here; give Kubernetes objects in YAML or JSON, as `kubectl get -o yaml` prints them",
        ),
        (
            "{apiVersion: v1}\n---\na: {n: 1, off: 2}\n",
            "in.yaml:1: not readable as JSON: key must be a string; a document that begins with `{` or `[` is taken for JSON",
        ),
        ("a:\n  n: 1\n  off: 2\n", "in.yaml:3: not readable as YAML: key `false` stands twice in one map; quote it"),
        (
            "a:\n  ~: 1\n",
            "in.yaml:2: not readable as YAML: null is not allowed here; give Kubernetes objects in YAML or JSON, as `kubectl get -o yaml` prints them",
        ),
        (
            "a: *b\n",
            "in.yaml:1: not readable as YAML: reference to unknown value; give Kubernetes objects in YAML or JSON, as `kubectl get -o yaml` prints them",
        ),
        (
            "{\"apiVersion\": \"v1\",\n \"kind\": }\n",
            "in.yaml:2: not readable as JSON: expected value; a document that begins with `{` or `[` is taken for JSON",
        ),
        (
            "{\"apiVersion\": \"v1\",\n \"apiVersion\": \"v1\"}\n",
            "in.yaml:2: not readable as JSON: key `apiVersion` stands twice in one map; a document that begins with `{` or `[` is taken for JSON",
        ),
        (
            "{\"apiVersion\": \"v1\"",
            "in.yaml:1: not readable as JSON: EOF while parsing an object; a document that begins with `{` or `[` is taken for JSON",
        ),
    ]);
}

#[test]
fn what_would_take_all_memory() {
    let deep_yaml = format!("a: {}", "[".repeat(5_000));
    let labels = format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    let deep_json =
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"a\",\"labels\":{labels}}}}}");
    let mut bomb = String::from("a: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("b{level}: &a{level} [{aliases}]\n"));
    }
    for text in [deep_yaml, deep_json] {
        assert!(error_of(&text).contains("recursion limit exceeded"), "{}", error_of(&text));
    }
    let error = error_of(&bomb);
    assert!(error.contains("too large or too complex"), "{error}");
}

#[test]
fn fields_of_the_wrong_type() {
    all(&[
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec:\n  nodeName: 12\n",
            "in.yaml:5: Pod shop/web: spec.nodeName: expected a string, found a number; quote it",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: [a]\n", "in.yaml:3: Pod: metadata: expected a map, found a list"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: no}\n",
            "in.yaml:3: Pod: metadata.namespace: expected a string, found a boolean; quote it",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {hostNetwork: 'true'}\n",
            "in.yaml:4: Pod default/web: spec.hostNetwork: expected true or false, found a string",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: {name: c}}\n",
            "in.yaml:4: Pod default/web: spec.containers: expected a list, found a map",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - ports:\n    - containerPort: '80'\n",
            "in.yaml:7: Pod default/web: spec.containers[0].ports[0].containerPort: expected a number, found a string; remove the quotes",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{ports: [{containerPort: 70000}]}]}\n",
            "in.yaml:4: Pod default/web: spec.containers[0].ports[0].containerPort: 70000 is no port; use 1 to 65535",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{ports: [{protocol: TCP}]}]}\n",
            "in.yaml:4: Pod default/web: spec.containers[0].ports[0].containerPort: missing; write a number from 1 to 65535",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nstatus:\n  podIPs:\n  - ip: 10.0.0\n",
            "in.yaml:6: Pod default/web: status.podIPs[0].ip: `10.0.0` is no IP address; write one such as 10.0.0.1 or fd00::1",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nstatus: {startTime: yesterday}\n",
            "in.yaml:4: Pod default/web: status.startTime: `yesterday` is no time; write one such as 2026-01-02T15:04:05Z",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.0.0.0}\n",
            "in.yaml:4: Node n1: spec.podCIDR: `10.0.0.0` is no CIDR; write one such as 10.244.1.0/24",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\nspec: {ports: [{port: 80, protocol: http}]}\n",
            "in.yaml:4: Service a/s: spec.ports[0].protocol: `http` is none of TCP, UDP, SCTP (in capitals)",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: a}\nspec: {replicas: -1}\n",
            "in.yaml:4: Deployment a/d: spec.replicas: -1 is no number of replicas; use 0 or more",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: a\n",
            "in.yaml:4: Pod: metadata.name: missing; every object needs a name",
        ),
    ]);
}

#[test]
fn label_values_that_are_not_strings() {
    for (value, kind) in [
        ("on", "a boolean"),
        ("y", "a boolean"),
        ("no", "a boolean"),
        ("true", "a boolean"),
        ("1_000", "a number"),
        ("0x1f", "a number"),
        ("0b1_0", "a number"),
        ("0o7", "a number"),
        ("007", "a number"),
        ("12e3", "a number"),
        ("1__0", "a number"),
        ("0_1", "a number"),
        ("0x_1", "a number"),
        ("1_0.5", "a number"),
        ("1.0", "a number"),
        (".inf", "a number"),
        ("&anchor 12", "a number"),
    ] {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    x: {value}\n");
        let expected =
            format!("in.yaml:6: Pod default/a: metadata.labels.x: expected a string, found {kind}; quote it");
        assert_eq!(error_of(&text), expected);
    }
    let json = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\",\"labels\":{\"a.b/x\":1}}}";
    assert_eq!(
        error_of(json),
        "in.yaml:1: Pod default/a: metadata.labels[a.b/x]: expected a string, found a number; quote it"
    );
}

#[test]
fn modes_that_do_not_exist() {
    all(&[
        (
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: {podfence.dev/mode: Enforce}\n",
            "in.yaml:5: Namespace a: metadata.labels[podfence.dev/mode]: `Enforce` is none of learn, audit, enforce",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: a, labels: {podfence.dev/mode: block}}\n",
            "in.yaml:3: Deployment a/d: metadata.labels[podfence.dev/mode]: `block` is none of learn, audit, enforce",
        ),
    ]);
}

#[test]
fn objects_that_stand_twice() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec: {}\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a, uid: u}\n";
    let twice = |text: &str| format!("{text}---\n{text}");
    assert_eq!(
        error_of(&twice(policy)),
        "in.yaml:6: NetworkPolicy a/p: was already read from in.yaml:1; give each object once"
    );
    assert_eq!(error_of(&twice(pod)), "in.yaml:5: Pod a/p: was already read from in.yaml:1; give each object once");
    let successor = format!("{pod}---\n{}", pod.replace("uid: u", "uid: v"));
    assert!(read_into(&mut Cluster::default(), "in.yaml", &successor).is_ok(), "another UID is another pod");
    let mut cluster = Cluster::default();
    read_into(&mut cluster, "a.yaml", pod).unwrap();
    let error = read_into(&mut cluster, "b.yaml", pod).unwrap_err();
    assert_eq!(error.to_string(), "b.yaml:1: Pod a/p: was already read from a.yaml:1; give each object once");
}

#[test]
fn policies_that_the_api_server_refuses() {
    let ingress = |rule: &str| spec(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
    let peer = |peer: &str| ingress(&format!("{{from: [{peer}]}}"));
    let port = |port: &str| ingress(&format!("{{ports: [{port}]}}"));
    let select = |expression: &str| spec(&format!("{{podSelector: {{matchExpressions: [{expression}]}}}}"));
    let table = [
        (
            spec("{policyTypes: [ingress]}"),
            "spec.policyTypes[0]: `ingress` is neither Ingress nor Egress (with a capital)",
        ),
        (spec("{policyTypes: Ingress}"), "spec.policyTypes: expected a list, found a string"),
        (
            spec("{podselector: {}}"),
            "spec.podselector: unknown field; known here are podSelector, policyTypes, ingress, egress",
        ),
        (ingress("{to: []}"), "spec.ingress[0].to: unknown field; known here are ports, from"),
        (
            peer("{}"),
            "spec.ingress[0].from[0]: an empty peer; write podSelector, namespaceSelector or ipBlock, or leave out the whole list for everyone",
        ),
        (
            peer("{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}"),
            "spec.ingress[0].from[0]: ipBlock cannot stand beside a selector; make them two peers",
        ),
        (
            peer("{podSelector: {app: web}}"),
            "spec.ingress[0].from[0].podSelector.app: unknown field; known here are matchLabels, matchExpressions",
        ),
        (
            peer("{ipBlock: {}}"),
            "spec.ingress[0].from[0].ipBlock.cidr: missing; write a CIDR such as 10.0.0.0/8 or fd00::/8",
        ),
        (
            peer("{ipBlock: {cidr: 10.0.0.0}}"),
            "spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0` is no CIDR; write one such as 10.0.0.0/8 or fd00::/8",
        ),
        (
            peer("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/8]}}"),
            "spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 must lie within 10.0.0.0/8 and be smaller",
        ),
        (
            peer("{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16, 11.0.0.0/16]}}"),
            "spec.ingress[0].from[0].ipBlock.except[1]: 11.0.0.0/16 must lie within 10.0.0.0/8 and be smaller",
        ),
        (
            peer("{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/8']}}"),
            "spec.ingress[0].from[0].ipBlock.except[0]: fd00::/8 must lie within 10.0.0.0/8 and be smaller",
        ),
        (
            port("{port: HTTP}"),
            "spec.ingress[0].ports[0].port: `HTTP` is no port name: use lower-case letters, digits and hyphens",
        ),
        (
            port("{port: '80'}"),
            "spec.ingress[0].ports[0].port: `80` is no port name: use at least one letter; a number is written without quotes",
        ),
        (
            port("{port: a--b}"),
            "spec.ingress[0].ports[0].port: `a--b` is no port name: a hyphen stands between two other characters",
        ),
        (
            port("{port: sixteen-letters-}"),
            "spec.ingress[0].ports[0].port: `sixteen-letters-` is no port name: use 1 to 15 characters",
        ),
        (port("{port: 0}"), "spec.ingress[0].ports[0].port: 0 is no port; use 1 to 65535"),
        (port("{port: 65536}"), "spec.ingress[0].ports[0].port: 65536 is no port; use 1 to 65535"),
        (port("{port: 1.5}"), "spec.ingress[0].ports[0].port: expected a port's number or name, found a number"),
        (port("{protocol: tcp}"), "spec.ingress[0].ports[0].protocol: `tcp` is none of TCP, UDP, SCTP (in capitals)"),
        (port("{protocol: ICMP}"), "spec.ingress[0].ports[0].protocol: `ICMP` is none of TCP, UDP, SCTP (in capitals)"),
        (port("{port: 80, endPort: 79}"), "spec.ingress[0].ports[0].endPort: 79 is below port 80; swap them"),
        (
            port("{port: http, endPort: 90}"),
            "spec.ingress[0].ports[0].endPort: cannot follow a named port; write port as a number",
        ),
        (port("{endPort: 90}"), "spec.ingress[0].ports[0].endPort: needs a port to begin at; add port"),
        (
            select("{key: a, operator: In}"),
            "spec.podSelector.matchExpressions[0].values: must not be empty with In or NotIn; add a value",
        ),
        (
            select("{key: a, operator: NotIn, values: []}"),
            "spec.podSelector.matchExpressions[0].values: must not be empty with In or NotIn; add a value",
        ),
        (
            select("{key: a, operator: Exists, values: [b]}"),
            "spec.podSelector.matchExpressions[0].values: must be absent with Exists or DoesNotExist; remove them, or use In or NotIn",
        ),
        (
            select("{key: a, operator: in, values: [b]}"),
            "spec.podSelector.matchExpressions[0].operator: `in` is none of In, NotIn, Exists, DoesNotExist",
        ),
        (select("{operator: Exists}"), "spec.podSelector.matchExpressions[0].key: missing; write the label's key"),
        (
            select("{key: a, operator: In, values: [on]}"),
            "spec.podSelector.matchExpressions[0].values[0]: expected a string, found a boolean; quote it",
        ),
    ];
    for (found, expected) in table {
        assert_eq!(found, expected);
    }
}
