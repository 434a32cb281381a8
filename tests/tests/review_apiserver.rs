//! Defaults and validity as a real API server has them: what it answered to every policy of `apiserver/policies.txt`
//! (recorded in `apiserver/answers.jsonl`, made again by `apiserver/record`) is held against the reader of policies.
//!
//! What the server refuses the reader refuses, naming the same field; what it accepts the reader accepts; and the spec
//! that the server stored, all defaults filled in, reads as the same policy as what was sent. The server is asked with
//! strict validation of fields, as `kubectl` does.

use model::{
    policy::NetworkPolicy,
    yaml::{ReadError, read_policies},
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// Where podfence differs from the server, and wants to.
const ON_PURPOSE: &[(&str, &str)] = &[
    ("status, as older servers had it", "servers before 1.28 stored a status, and snapshots of them have one"),
    (
        "generateName",
        "a policy gets its name from the server then, and one that is not there yet has none to be called by",
    ),
    ("namespace another", "it is the request that names another namespace, and a file has none"),
    ("port 80.0 with !!float", "a tag that nobody writes; refused, never misread"),
    ("a key that is 1e20", ODD_KEY),
    ("a key that is .inf", ODD_KEY),
    ("a key that is .nan", ODD_KEY),
    ("a key that is 9223372036854775808", ODD_KEY),
];

const ODD_KEY: &str =
    "the server writes such a number in a way that is no label key; the reader, in one that no object has";

#[test]
fn the_reader_refuses_accepts_and_defaults_as_the_api_server_does() {
    let (cases, answers) = (cases(), answers());
    let names: Vec<_> = cases.iter().map(|(name, _)| name.as_str()).collect();
    let answered: Vec<_> = answers.iter().map(|answer| text(answer, "name")).collect();
    assert_eq!(names, answered, "policies.txt and answers.jsonl have the same names; run tests/apiserver/record");
    assert!(names.len() >= 150);

    let mut excused: BTreeMap<_, _> = ON_PURPOSE.iter().copied().collect();
    let mut wrong = Vec::new();
    for ((name, document), answer) in cases.iter().zip(&answers) {
        match (difference(document, answer), excused.remove(name.as_str())) {
            (None, None) | (Some(_), Some(_)) => {}
            (Some(difference), None) => wrong.push(format!("{name}: {difference}")),
            (None, Some(reason)) => wrong.push(format!("{name}: differs no more; take it from the list ({reason})")),
        }
    }
    wrong.extend(excused.keys().map(|name| format!("{name}: is no case of policies.txt")));
    assert!(wrong.is_empty(), "{} of {}:\n{}\n", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What is different between the server's answer and the reader's, if anything.
fn difference(document: &str, answer: &Value) -> Option<String> {
    let read = read_one(document);
    let stored = answer.get("stored").map(|stored| {
        let spec = format!(
            r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {}, "spec": {}}}"#,
            stored["metadata"], stored["spec"]
        );
        read_one(&spec)
    });
    match (stored, read) {
        (Some(Ok(stored)), Ok(read)) if stored == read => None,
        (Some(stored), Ok(read)) => Some(format!("the server stored\n  {stored:?}\nand it is read as\n  {read:?}")),
        (Some(_), Err(error)) => Some(format!("the server accepts it, the reader says: {error}")),
        (None, Ok(_)) => Some(format!("the server refuses it, the reader does not: {}", text(answer, "message"))),
        (None, Err(error)) => (!names_the_field(&error, answer)).then(|| {
            format!("the reader names another field than the server:\n  {error}\n  {}", text(answer, "message"))
        }),
    }
}

/// The one policy of a document, without places.
fn read_one(document: &str) -> Result<NetworkPolicy, ReadError> {
    let mut policies = read_policies("policy.yaml", document)?.policies;
    let mut policy = policies.pop().expect("a policy");
    assert!(policies.is_empty());
    policy.source = None;
    policy.ingress.iter_mut().chain(&mut policy.egress).flatten().for_each(|rule| rule.source = None);
    Ok(policy)
}

/// Whether the reader's error is at a field that the server names. The server names several at once; where it cannot
/// even decode a document, it names a field without indices, a key, or a line.
fn names_the_field(error: &ReadError, answer: &Value) -> bool {
    if let Some(causes) = answer["causes"].as_array() {
        return causes.iter().any(|cause| error.message.contains(text(cause, "field")));
    }
    let said = text(answer, "message");
    let after = |sign: &str, until: char| said.split_once(sign).and_then(|(_, rest)| Some(rest.split_once(until)?.0));
    if let Some(field) = after("Go struct field ", ' ').and_then(|field| Some(field.split_once('.')?.1)) {
        return without_indices(&error.message).contains(field);
    }
    if let Some(field) = after("unknown field \"", '"').or_else(|| after(": key \"", '"')) {
        return error.message.contains(field);
    }
    match after("yaml: line ", ':').and_then(|line| line.parse::<u32>().ok()) {
        Some(line) => error.line == line,
        // A value that has no JSON: it names no place at all.
        None => said.contains("unsupported"),
    }
}

fn without_indices(message: &str) -> String {
    let mut pieces = message.split('[');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |whole, piece| {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        whole + rest.strip_prefix(']').unwrap_or(piece)
    })
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{value} has no text {field}"))
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("apiserver").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Name and whole document of every line of policies.txt, as `record` sends it.
fn cases() -> Vec<(String, String)> {
    let table = file("policies.txt");
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &str| {
        let (name, rest) = line.split_once(" |").unwrap_or_else(|| panic!("`{line}` is no NAME | DOCUMENT"));
        let rest = rest.strip_prefix(' ').unwrap_or(rest).replace('⏎', "\n").replace('⇥', "\t");
        let metadata = if rest.starts_with("metadata:") { "" } else { "metadata: {name: p, namespace: default}\n" };
        let document = format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n{metadata}{rest}\n");
        (name.to_owned(), document)
    };
    lines.map(case).collect()
}

/// Every answer; the first line says which server gave them.
fn answers() -> Vec<Value> {
    let recorded = file("answers.jsonl");
    let mut lines = recorded.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let server = lines.next().expect("a first line");
    assert!(text(&server, "server").starts_with("v1."), "{server}");
    lines.collect()
}
