//! Reading on after an error: every error once, in the order of the text, and all that is right is read.

use model::{
    cluster::Cluster,
    yaml::{Reader, Wanted, read_into},
};
use std::ops::ControlFlow;

/// The errors of a text, and what was read.
fn read_on(wanted: Wanted, text: &str) -> (Vec<String>, Cluster) {
    let (mut reader, mut errors) = (Reader::new(wanted), Vec::new());
    let outcome = reader.read("in.yaml", text, &mut |error| {
        errors.push(error.to_string());
        ControlFlow::Continue(())
    });
    assert!(outcome.is_continue());
    (errors, reader.finish())
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {spec}\n"
    )
}

fn names(cluster: &Cluster) -> Vec<&str> {
    cluster.policies.policies.iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn every_error_is_told_and_the_rest_is_read() {
    let text = [
        policy("first", "{policyTypes: [ingress]}"),
        policy("second", "{}"),
        "a: [unfinished\n".to_owned(),
        "just text\n".to_owned(),
        policy("second", "{}"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Web, namespace: a}\n".to_owned(),
        policy("third", "{ingress: [{ports: [{port: 0}]}]}"),
        policy("fourth", "{}"),
    ]
    .join("---\n");
    let (errors, cluster) = read_on(Wanted::Everything, &text);
    let expected = [
        "in.yaml:4: NetworkPolicy a/first: spec.policyTypes[0]: `ingress` is neither Ingress nor Egress (with a capital)",
        "in.yaml:11: not readable as YAML:",
        "in.yaml:13: expected a Kubernetes object, found a string",
        "in.yaml:15: NetworkPolicy a/second: was already read from in.yaml:6; give each object once",
        "in.yaml:22: Pod a/Web: metadata.name: `Web` is no name: use lower-case letters",
        "in.yaml:27: NetworkPolicy a/third: spec.ingress[0].ports[0].port: 0 is no port; use 1 to 65535",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (found, expected) in errors.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    assert_eq!(names(&cluster), ["fourth", "second"]);
    // Without reading on, the first of them is the answer.
    let first = read_into(&mut Cluster::default(), "in.yaml", &text).unwrap_err();
    assert_eq!(first.to_string(), errors[0]);
}

#[test]
fn the_items_of_a_list_are_read_each_by_itself() {
    let items = "apiVersion: v1\nkind: List\nitems:\n\
        - apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: p, namespace: a}\n  spec: {policyTypes: [in]}\n\
        - apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: q, namespace: a}\n\
        - 5\n";
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n\
        {\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {\"name\": \"p\", \"namespace\": \"a\"}, \"spec\":\n{\"policyTypes\": [\"in\"]}},\n\
        {\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {\"name\": \"q\", \"namespace\": \"a\"}},\n\
        5]}\n";
    for (text, lines) in [(items, [7, 11]), (json, [3, 5])] {
        let (errors, cluster) = read_on(Wanted::Everything, text);
        let expected = [
            format!(
                "in.yaml:{}: NetworkPolicy a/p: spec.policyTypes[0]: `in` is neither Ingress nor Egress (with a capital)",
                lines[0]
            ),
            format!(
                "in.yaml:{}: expected a Kubernetes object, found a number; give what `kubectl get -o yaml` prints",
                lines[1]
            ),
        ];
        assert_eq!(errors, expected);
        assert_eq!(names(&cluster), ["q"]);
    }
}

#[test]
fn an_error_in_json_leaves_the_documents_after_it() {
    let text = format!("{{\"apiVersion\": \"v1\",\n \"kind\": }}\n---\n{}", policy("p", "{}"));
    let (errors, cluster) = read_on(Wanted::Everything, &text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("in.yaml:2: not readable as JSON: expected value"), "{errors:?}");
    assert_eq!(names(&cluster), ["p"]);
}

#[test]
fn policies_are_read_with_their_namespaces_alone() {
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, labels: {{team: red}}}}\n---\n{}---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: Wrong}}\n---\n{}",
        policy("p", "{}"),
        policy("q", "{}").replace("namespace: a", "namespace: b"),
    );
    let (errors, cluster) = read_on(Wanted::Policies, &text);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(names(&cluster), ["p", "q"]);
    assert_eq!(cluster.namespaces["a"].labels["team"], "red");
    assert_eq!(cluster.namespaces_not_given(), ["b"]);
    assert_eq!(cluster.passed_over["Pod"], 1);
}

#[test]
fn a_message_is_short_whatever_it_quotes() {
    let long = "x".repeat(1_000_000);
    let (errors, _) = read_on(Wanted::Everything, &policy("p", &format!("{{policyTypes: [{long}]}}")));
    assert!(errors[0].len() < 1100, "{}", errors[0].len());
}

#[test]
fn errors_are_in_the_order_of_the_text_however_many_read_it() {
    let wrong = |n: usize| policy(&format!("p{n}"), &format!("{{policyTypes: [in], x: {}}}", "y".repeat(n * 7 % 500)));
    let text: String = (0..1000).map(|n| wrong(n) + "---\n").collect();
    let (errors, _) = read_on(Wanted::Everything, &text);
    let lines = errors.iter().map(|error| error.split(':').nth(1).and_then(|line| line.parse::<usize>().ok()));
    assert!(lines.eq((0..1000).map(|n| Some(n * 5 + 4))), "{errors:#?}");
}
