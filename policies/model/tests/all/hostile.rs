//! Input that means harm, or was made by a tool that did not care: a clear error or the right answer,
//! in bounded memory, and never a panic.

use crate::fuzzed::documents;
use model::{cluster::Cluster, yaml::read_into};
use proptest::prelude::*;
use std::{fmt::Write as _, process::Command};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n";

/// What a text gives: the names of its pods, or the error.
fn outcome(text: &str) -> Result<Vec<String>, String> {
    let mut cluster = Cluster::default();
    read_into(&mut cluster, "in", text).map_err(|error| error.to_string())?;
    Ok(cluster.pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect())
}

fn pods(text: &str, expected: &[&str]) {
    assert_eq!(outcome(text).as_deref(), Ok(&expected.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()[..]), "{text}");
}

fn refused(text: &str, expected: &str) {
    let error = outcome(text).expect_err(text);
    assert!(error.contains(expected), "{error}\n{text}");
}

#[test]
fn what_tools_leave_around_objects_is_nothing() {
    for nothing in [
        "",
        "\n\n",
        "---\n",
        "---\n---\n---\n",
        "# only a comment\n",
        "--- # nothing\n...\n",
        "\u{feff}",
        "\u{feff}---\n",
        "%YAML 1.1\n---\n",
        "null\n",
        "[]",
        "---\n~\n",
    ] {
        pods(nothing, &[]);
    }
    pods(&POD.replace('\n', "\r\n"), &["shop/web"]);
    pods(&format!("\u{feff}{POD}"), &["shop/web"]);
    pods(POD.trim_end(), &["shop/web"]);
    pods(&format!("{POD}...\n"), &["shop/web"]);
    pods(&format!("{POD}---"), &["shop/web"]);
    pods(&format!("%YAML 1.1\n---\n{POD}"), &["shop/web"]);
    pods(&format!("\n\n---\n\n{POD}\n\n---\n\n"), &["shop/web"]);
}

#[test]
fn what_helm_and_kustomize_print_is_read() {
    let helm = "---\n# Source: shop/templates/empty.yaml\n---\n# Source: shop/templates/notes.yaml\n\n---\n\
                # Source: shop/templates/pod.yaml\napiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\n\
                \n  annotations:\n    \"helm.sh/hook\": test\n    script: |\n      #!/bin/sh\n      --- not a document\n      echo '---'\n";
    pods(helm, &["shop/web"]);
    let kustomize = "apiVersion: v1\ndata:\n  a: |-\n    kind: Pod\n    items:\n    - x\nkind: ConfigMap\nmetadata:\n  name: m\n---\n\
                     apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\n";
    pods(kustomize, &["shop/web"]);
    let list = "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: web\n    namespace: shop\n\
                # between\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: api\n    namespace: shop\n  spec:\n    containers:\n\
                \n    - args:\n      - |\n        items:\n        - a\nkind: List\nmetadata:\n  resourceVersion: \"\"\n";
    pods(list, &["shop/api", "shop/web"]);
    pods("apiVersion: v1\nkind: List\nitems: []\n", &[]);
    pods("apiVersion: v1\nkind: List\nitems:\n", &[]);
    pods(
        "apiVersion: v1\nkind: PodList\nmetadata: {}\nitems:\n- metadata: {name: web, namespace: shop}\n",
        &["shop/web"],
    );
}

#[test]
fn lists_in_lists_are_read() {
    let pod = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"web\", \"namespace\": \"shop\"}}";
    let list = |inner: &str| format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{inner}]}}");
    pods(&list(&list(&list(pod))), &["shop/web"]);
    pods(&format!("[[{pod}], []]"), &["shop/web"]);
    pods(
        &format!("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - {pod}\n"),
        &["shop/web"],
    );
    let mut deep = pod.to_owned();
    for _ in 0..5_000 {
        deep = list(&deep);
    }
    refused(&deep, "recursion limit exceeded");
    refused(&format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)), "recursion limit exceeded");
}

#[test]
fn objects_that_are_no_lists_may_have_items() {
    let text = "{\"apiVersion\": \"example.com/v1\", \"items\": [{\"a\": 1}], \"kind\": \"Basket\"}";
    pods(text, &[]);
    pods("apiVersion: example.com/v1\nitems:\n- a: 1\nkind: Basket\n", &[]);
}

#[test]
fn what_is_almost_json_is_refused() {
    refused("{\"apiVersion\": \"v1\", \"kind\": \"Pod\",}", "trailing comma");
    refused("[{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}},]", "trailing comma");
    refused("{'apiVersion': 'v1'}", "key must be a string");
    refused("{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\"} x", "expected value");
    refused("{\"a\": 01}", "not readable as JSON");
    refused("{\"a\": \"\t\"}", "control character");
    refused(
        "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"\\ud800\"}}",
        "not readable as JSON",
    );
    refused("{\"apiVersion\": \"v1\", // a pod\n \"kind\": \"Pod\"}", "not readable as JSON");
    // A key twice where it is looked at; Kubernetes refuses it, too.
    let twice = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\", \"\\u006eame\": \"b\"}}";
    refused(twice, "key `name` stands twice");
}

#[test]
fn keys_written_with_escapes_are_the_same_keys() {
    let text = "{\"\\u0061piVersion\": \"v1\", \"k\\u0069nd\": \"Pod\", \"met\\u0061data\": {\"n\\u0061me\": \"we\\u0062\", \"namespace\": \"shop\"}}";
    pods(text, &["shop/web"]);
    pods(&format!("{{\"\\u006bind\": \"List\", \"apiVersion\": \"v1\", \"it\\u0065ms\": [{text}]}}"), &["shop/web"]);
}

#[test]
fn tabs_and_duplicates_are_named() {
    refused("apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\n", "here is a tab");
    refused(&POD.replace("name: web", "name: web, name: api"), "duplicate mapping key: name");
    refused(&format!("{POD}kind: Pod\n"), "duplicate mapping key: kind");
}

#[test]
fn names_are_names() {
    let bell = "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\u0007b\", namespace: shop}\n";
    refused(bell, "metadata.name: `a\u{7}b` is no name");
    for name in
        ["../../etc/passwd", "a/b", "A", "a b", "-a", "a-", "a..b", "\u{202e}a", "ä", "\u{1b}[31m", &"a".repeat(254)]
    {
        let pod = |name: &str, namespace: &str| serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}});
        refused(&pod(name, "shop").to_string(), "is no name");
        refused(&pod("web", name).to_string(), "is no namespace");
    }
    for (kind, name, expected) in
        [("Namespace", "a.b", "is no name"), ("Service", "a_b", "is no name"), ("Node", "N1", "is no name")]
    {
        refused(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"), expected);
    }
    pods("apiVersion: v1\nkind: Pod\nmetadata: {name: a.b-1.2, namespace: shop}\n", &["shop/a.b-1.2"]);
}

#[test]
fn no_uid_makes_a_pod_a_stand_in() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, uid: stand-in/Deployment/shop/web}\n";
    refused(pod, "metadata.uid: the API server gives no such UID; leave it out");
}

#[test]
fn anchors_do_not_explode() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    refused(&bomb, "too large or too complex");
    refused("a: &a [*a]\n", "not readable as YAML");
    refused("a: &a\n  <<: *a\n", "not readable as YAML");
    let item = format!("apiVersion: v1\nkind: List\nitems:\n- {}", bomb.replace('\n', "\n  "));
    refused(&item, "not readable as YAML");
}

/// Texts of many megabytes that ask for many times as much memory, or for the square of their length in time.
fn large(name: &str) -> String {
    const MANY: usize = 1_000_000;
    match name {
        "one long string" => format!("{{\"a\": \"{}\"}}", "x".repeat(50 * MANY)),
        "numbers in JSON" => format!("[{}0]", "0,".repeat(20 * MANY)),
        "numbers in an object" => {
            format!("{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": [{}0]}}", "0,".repeat(20 * MANY))
        }
        "keys" => (0..MANY / 4).fold("{".to_owned(), |text, n| text + "\"" + &n.to_string() + "\":0,") + "\"a\":0}",
        "numbers in YAML" => format!("a:\n{}", "- 1\n".repeat(MANY / 4)),
        "lists in YAML" => format!("a: {}", "[".repeat(MANY)),
        "scalars in one row" => format!("a: [{}x]", "x,".repeat(MANY / 4)),
        "keys that are numbers" => {
            (0..MANY / 16).fold(String::new(), |text, n| text + "0b" + &format!("{n:b}") + ": x\n")
        }
        "ampersands in one row" => format!("items:\n- {}\n", " &".repeat(MANY)),
        "empty documents" => "---\n".repeat(MANY),
        _ => format!("# {}\n", "-".repeat(MANY)),
    }
}

const LARGE: [&str; 11] = [
    "scalars in one row",
    "keys that are numbers",
    "ampersands in one row",
    "one long string",
    "numbers in JSON",
    "numbers in an object",
    "keys",
    "numbers in YAML",
    "lists in YAML",
    "empty documents",
    "a comment",
];

#[test]
fn large_texts_take_bounded_memory() {
    const LIMIT_KILOBYTES: &str = "500000";
    if let Ok(name) = std::env::var("PODFENCE_TEST_LARGE") {
        drop(outcome(&large(&name)));
        return;
    }
    let this = std::env::current_exe().expect("a path");
    for name in LARGE {
        // Address space, which a process can limit for itself, is more than what it uses.
        let script = "ulimit -v \"$1\" && exec \"$0\" --exact hostile::large_texts_take_bounded_memory";
        let mut child = Command::new("sh");
        child.args(["-c", script]).arg(&this).arg(LIMIT_KILOBYTES).env("PODFENCE_TEST_LARGE", name);
        let output = child.output().expect("a shell");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Documents, and lines of a policy's spec, of which random texts are made.
const DOCUMENTS: [&str; 6] = [
    "",
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w, namespace: a}\nspec: {template: {metadata: {labels: {app: web}}}}\n---\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: a}\n---\n",
    "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"b\"}}\n---\n",
    "# nothing\n---\n",
    "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n",
];
const POLICY: &str =
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec:\n";
const SELECTORS: [&str; 4] = [
    "",
    "{}",
    "{matchLabels: {on: a, 'off': ''}}",
    "{matchExpressions: [{key: a/b, operator: NotIn, values: [a, ~]}]}",
];
const TYPES: [&str; 5] = ["", "[]", "[Egress]", "[Ingress, Egress]", "[Egress, Egress]"];
const RULES: [&str; 7] = [
    "",
    "[]",
    "[{}]",
    "[null, {ports: []}]",
    "[{ports: [{}, {port: 0120, endPort: 9e1, protocol: SCTP}, {port: http}]}]",
    "[{PEERS: [{ipBlock: {cidr: 10.0.0.0/8, except: ['::ffff:10.0.0.0/104']}}, {podSelector: {}}]}]",
    "[{PEERS: [{namespaceSelector: {}, podSelector: {matchLabels: {}}}], ports: [{protocol: UDP}]}]",
];
const FLAWS: [&str; 24] = [
    "", "", "", "---\n", "- ", "  ", "\n", "\t", "{", "}", "[", "]", ", ", "on", "~", "\"", "'", "&a ", "*a", "# ",
    "null", ": ", "\u{feff}", "\r\n",
];

fn text() -> impl Strategy<Value = String> {
    let one = |from: &'static [&'static str]| prop::sample::select(from);
    let spec =
        (one(&SELECTORS), one(&TYPES), one(&RULES), one(&RULES)).prop_map(|(selector, types, ingress, egress)| {
            let (ingress, egress) = (ingress.replace("PEERS", "from"), egress.replace("PEERS", "to"));
            format!("  podSelector: {selector}\n  policyTypes: {types}\n  ingress: {ingress}\n  egress: {egress}\n")
        });
    (one(&DOCUMENTS), spec, one(&FLAWS), any::<prop::sample::Index>()).prop_map(|(before, spec, flaw, at)| {
        let mut text = format!("{before}{POLICY}{spec}");
        let at = at.index(text.len());
        text.insert_str(text.floor_char_boundary(at), flaw);
        text
    })
}

proptest! {
    #[test]
    fn bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        documents(&bytes);
    }

    #[test]
    fn texts_with_a_flaw_are_read_or_refused(text in text()) {
        documents(text.as_bytes());
    }

    #[test]
    fn a_text_cut_anywhere_is_read_or_refused(cut in any::<prop::sample::Index>(), json in any::<bool>()) {
        let text = if json {
            format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}]}}", "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"\\u0061\"}}")
        } else {
            format!("apiVersion: v1\nkind: List\nitems:\n- {}", POD.replace('\n', "\n  "))
        };
        documents(&text.as_bytes()[..cut.index(text.len())]);
    }
}
