//! What only the written form of a policy tells: how its CIDRs are spelt, which fields it leaves out,
//! what stands without quotes.

use super::{Found, Subject, Texts, count, field_of, kinds, name_of, peers_field};
use crate::reach::{Direction, RuleRef};
use model::{
    cidr::parse_cidr,
    cluster::Source,
    labels::Selector,
    policy::{NetworkPolicy, Peer},
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// A policy's fields as they were written.
#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(rename = "podSelector")]
    pod_selector: Option<Value>,
    #[serde(rename = "policyTypes")]
    policy_types: Option<Value>,
    ingress: Option<Value>,
    egress: Option<Value>,
}

/// Any object, or a list of them.
#[derive(Deserialize)]
struct Document {
    kind: Option<String>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    items: Vec<Document>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

/// What is written of the policies of a document, by namespace and name.
type Specs = HashMap<(String, String), Spec>;

pub(super) fn look(subject: &Subject<'_, '_>, texts: &Texts, found: &mut Found) {
    let mut unread: BTreeMap<String, usize> = BTreeMap::new();
    let mut layouts: HashMap<&str, Layout> = HashMap::new();
    // By file and how much of it is left where the document begins.
    let mut in_json: HashMap<(&str, usize), Specs> = HashMap::new();
    for (index, policy) in subject.policies().iter().enumerate() {
        let Some(source) = &policy.source else { continue };
        let Some(text) = texts.get(&source.file) else {
            let file = if *source.file == *"-" { "standard input" } else { &source.file };
            *unread.entry(format!("{file} cannot be read a second time")).or_default() += 1;
            continue;
        };
        let layout = layouts.entry(&*source.file).or_insert_with(|| Layout::of(text));
        let document = text[layout.document(source.line)..].trim_start_matches('\u{feff}').trim_start();
        let (lines, spec) = match document.starts_with(['{', '[']) {
            true => {
                let place = (&*source.file, document.len());
                let all = in_json.entry(place).or_insert_with(|| specs_in_json(document));
                (Vec::new(), all.get(&(policy.namespace.clone(), policy.name.clone())).cloned())
            }
            false => {
                let lines = lines_of(&text[layout.line(source.line)..], source.line);
                let document = serde_saphyr::from_str::<Document>(&joined(&lines)).ok();
                (lines, document.map(|document| document.spec))
            }
        };
        let Some(spec) = spec else {
            *unread.entry(format!("{} is not plain enough to be read by parts", source.file)).or_default() += 1;
            continue;
        };
        types(policy, &spec, found);
        blocks(subject, index, policy, &spec, &lines, found);
        scalars(policy, source, &spec, &lines, found);
    }
    for (why, policies) in unread {
        let policies = match policies {
            1 => "1 policy".to_owned(),
            n => format!("{n} policies"),
        };
        found.unchecked.push(format!("how {policies} are written (PF018, PF019, PF025, PF026) and comments: {why}"));
    }
}

/// Where a file's lines and documents begin: files of many policies are walked once.
struct Layout {
    lines: Vec<usize>,
    /// First line and place of each document behind a `---`.
    documents: Vec<(u32, usize)>,
}

impl Layout {
    fn of(text: &str) -> Self {
        let (mut at, mut layout) = (0, Self { lines: Vec::new(), documents: Vec::new() });
        for (number, row) in (1..).zip(text.split_inclusive('\n')) {
            if row.starts_with("---") {
                layout.documents.push((number, at));
            }
            layout.lines.push(at);
            at += row.len();
        }
        layout.lines.push(at);
        layout
    }

    /// Where a line begins; the end, where there are fewer.
    fn line(&self, number: u32) -> usize {
        let last = self.lines.len() - 1;
        self.lines[(number.max(1) as usize - 1).min(last)]
    }

    /// Where the document begins that a line stands in.
    fn document(&self, line: u32) -> usize {
        let before = self.documents.partition_point(|(first, _)| *first <= line);
        before.checked_sub(1).map_or(0, |index| self.documents[index].1)
    }
}

fn specs_in_json(text: &str) -> Specs {
    fn collect(document: Document, into: &mut Specs) {
        document.items.into_iter().for_each(|item| collect(item, into));
        if let (Some("NetworkPolicy"), Some(name)) = (document.kind.as_deref(), document.metadata.name) {
            let namespace = document.metadata.namespace.unwrap_or_else(|| "default".to_owned());
            into.insert((namespace, name), document.spec);
        }
    }
    let mut all = HashMap::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<Document>().map_while(Result::ok) {
        collect(document, &mut all);
    }
    all
}

/// The lines of the object that `text` begins with, at line `first`, without the dash of a list's item, each
/// with its number.
fn lines_of(text: &str, first: u32) -> Vec<(u32, String)> {
    let mut lines = (first..).zip(text.lines());
    let Some((number, line)) = lines.next() else { return Vec::new() };
    let begin = line.strip_prefix("---").unwrap_or(line);
    let indent = begin.len() - begin.trim_start_matches(' ').len();
    let is_item = begin[indent..].starts_with("- ");
    let mut own = vec![(number, if is_item { begin.replacen('-', " ", 1) } else { begin.to_owned() })];
    for (number, line) in lines {
        let left = line.len() - line.trim_start_matches(' ').len();
        let nothing = line.trim().is_empty() || line.trim_start().starts_with('#');
        if line.starts_with("---") || line.starts_with("...") || (is_item && !nothing && left <= indent) {
            break;
        }
        own.push((number, line.to_owned()));
    }
    own
}

fn joined(lines: &[(u32, String)]) -> String {
    lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `policyTypes` that leave rules out, or are left out where the default is a surprise.
fn types(policy: &NetworkPolicy, spec: &Spec, found: &mut Found) {
    let given = items(spec.policy_types.as_ref());
    let (ingress, egress) = (items(spec.ingress.as_ref()), items(spec.egress.as_ref()));
    if given.is_empty() {
        if egress.is_empty() && spec.egress.as_ref().is_some_and(Value::is_array) {
            let what = "`egress: []` without policyTypes isolates nothing for egress".to_owned();
            let finding = found.policy(kinds::DEFAULTED_TYPES, policy, what);
            finding.field = "spec.policyTypes".to_owned();
            finding.fix = "write policyTypes: [Ingress, Egress] to deny all egress, or remove egress".to_owned();
        }
        if !egress.is_empty() && spec.ingress.is_none() {
            let what =
                "it has egress rules alone, and isolates for ingress as well: nobody may connect by it".to_owned();
            let finding = found.policy(kinds::DEFAULTED_TYPES, policy, what);
            finding.field = "spec.policyTypes".to_owned();
            finding.fix = "write policyTypes: [Egress], or [Ingress, Egress] if that is meant".to_owned();
        }
        return;
    }
    for (name, field, rules) in [("Ingress", "ingress", ingress), ("Egress", "egress", egress)] {
        if !rules.is_empty() && !given.iter().any(|one| one == name) {
            let what = format!("{} ignored, as policyTypes does not have {name}", were(rules.len(), field));
            let finding = found.policy(kinds::IGNORED_RULES, policy, what);
            finding.field = format!("spec.{field}");
            finding.fix = format!("add {name} to policyTypes, or remove {field}");
        }
    }
}

fn were(n: usize, field: &str) -> String {
    format!("{} {}", count(n, &format!("{field} rule")), if n == 1 { "is" } else { "are" })
}

/// CIDRs that are spelt otherwise than they are read.
fn blocks(
    subject: &Subject<'_, '_>,
    index: usize,
    policy: &NetworkPolicy,
    spec: &Spec,
    lines: &[(u32, String)],
    found: &mut Found,
) {
    for rule in super::rules_of(index, policy) {
        let list = match rule.direction {
            Direction::Ingress => spec.ingress.as_ref(),
            Direction::Egress => spec.egress.as_ref(),
        };
        let written = items(list).get(rule.index).and_then(|rule_| rule_.get(peers_field(rule.direction)));
        for (peer, value) in items(written).iter().enumerate() {
            let Some(block) = value.get("ipBlock") else { continue };
            let at = format!(".{}[{peer}].ipBlock", peers_field(rule.direction));
            let except = items(block.get("except")).iter().enumerate();
            let all = block.get("cidr").into_iter().map(|cidr| (format!("{at}.cidr"), cidr));
            let all = all.chain(except.map(|(index, hole)| (format!("{at}.except[{index}]"), hole)));
            for (field, text) in all {
                let Some(text) = text.as_str() else { continue };
                let Some(net) = parse_cidr(text).filter(|net| !is_canonical(text, net)) else { continue };
                let what = format!("{text} is read as {net}");
                let begun = found.findings.len();
                found.rule(kinds::CIDR, subject.reach, rule, &field, what);
                if let Some(finding) = found.findings.get_mut(begun) {
                    finding.fix = format!("write {net}");
                    at_line(finding, line_of(lines, rule_line(subject, rule), text));
                }
            }
        }
    }
}

/// As podfence or the API's own libraries print it; a capital or a long form of IPv6 misleads nobody.
fn is_canonical(text: &str, net: &ipnet::IpNet) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let mapped = net.addr().is_ipv4() && address.contains(':');
    let same = address.parse::<std::net::IpAddr>().is_ok_and(|address| address == net.network());
    same && !mapped && bits == net.prefix_len().to_string()
}

fn rule_line(subject: &Subject<'_, '_>, rule: RuleRef) -> u32 {
    let source = subject.reach.rule(rule).and_then(|(_, content)| content.source.as_ref());
    source.map_or(0, |source| source.line)
}

/// The first line from one on that holds a text, comments apart.
fn line_of(lines: &[(u32, String)], from: u32, text: &str) -> Option<u32> {
    let holds = |line: &str| line.split(" #").next().is_some_and(|said| said.contains(text));
    lines.iter().find(|(number, line)| *number >= from && holds(line)).map(|(number, _)| *number)
}

fn at_line(finding: &mut super::Finding, line: Option<u32>) {
    if let (Some(place), Some(line)) = (&mut finding.place, line) {
        place.line = line;
    }
}

/// Label keys and values without quotes that YAML 1.1 changes.
fn scalars(policy: &NetworkPolicy, source: &Source, spec: &Spec, lines: &[(u32, String)], found: &mut Found) {
    let mut told: Vec<(String, u32)> = Vec::new();
    for (field, selector, written) in selectors(policy, spec) {
        let written = written.and_then(|value| value.get("matchLabels")).and_then(Value::as_object);
        let keys = written.into_iter().flat_map(serde_json::Map::keys);
        // Kubernetes makes JSON of it first, by YAML 1.1: there is another key then.
        let changed = keys.filter(|key| !selector.match_labels.contains_key(*key));
        let becomes = |key: &String| {
            let others =
                selector.match_labels.keys().filter(|known| written.is_some_and(|map| !map.contains_key(*known)));
            let others: Vec<String> = others.map(|known| format!("`{known}`")).collect();
            (key.clone(), format!("read as {}", others.join(" or ")), true)
        };
        let values = selector.match_labels.values().chain(selector.match_expressions.iter().flat_map(|r| &r.values));
        let dates =
            values.filter(|value| is_date(value)).map(|value| (value.clone(), "a date to YAML 1.1".to_owned(), false));
        for (text, becomes, is_key) in changed.map(becomes).chain(dates) {
            let stands = |(number, line): &&(u32, String)| {
                stands_plain(line, &text, is_key) && !told.contains(&(text.clone(), *number))
            };
            let Some(line) = lines.iter().find(stands).map(|(number, _)| *number) else { continue };
            let what = format!("`{text}` without quotes is {becomes}");
            let finding = found.object(kinds::YAML, name_of(policy), Some(source), what);
            finding.field.clone_from(&field);
            finding.fix = format!("write \"{text}\"");
            at_line(finding, Some(line));
            told.push((text, line));
        }
    }
}

/// Every selector of a policy: its field, what was read and what was written.
fn selectors<'p>(policy: &'p NetworkPolicy, spec: &'p Spec) -> Vec<(String, &'p Selector, Option<&'p Value>)> {
    let mut all = vec![("spec.podSelector".to_owned(), &policy.pod_selector, spec.pod_selector.as_ref())];
    for rule in super::rules_of(0, policy) {
        let (list, written) = match rule.direction {
            Direction::Ingress => (&policy.ingress, spec.ingress.as_ref()),
            Direction::Egress => (&policy.egress, spec.egress.as_ref()),
        };
        let peers = list.iter().flatten().nth(rule.index).map_or(&[][..], |content| &content.peers);
        let written = items(written).get(rule.index).and_then(|content| content.get(peers_field(rule.direction)));
        for (index, peer) in peers.iter().enumerate() {
            let Peer::Pods { namespaces, pods } = peer else { continue };
            let written = items(written).get(index);
            for (key, selector) in [("namespaceSelector", namespaces), ("podSelector", pods)] {
                let field = format!("spec.{}.{}[{index}].{key}", field_of(rule), peers_field(rule.direction));
                all.extend(selector.iter().map(|selector| (field.clone(), selector, written.and_then(|w| w.get(key)))));
            }
        }
    }
    all
}

/// What readers of YAML 1.1 other than Kubernetes take for a date.
fn is_date(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let digits = |part: &str, least: usize, most: usize| {
        (least..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    matches!(parts[..], [y, m, d] if digits(y, 4, 4) && digits(m, 1, 2) && digits(d, 1, 2))
}

/// Whether a line has a key or value without quotes.
fn stands_plain(line: &str, text: &str, is_key: bool) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let (before, after) = (line[..at].trim_end(), &line[at + text.len()..]);
        let begins = line[..at].ends_with([' ', '{', '[', ',']) || before.is_empty();
        match is_key {
            true => begins && (before.ends_with(['{', ',', '-']) || before.is_empty()) && after.starts_with(':'),
            false => {
                let ends = after.is_empty() || after.starts_with([' ', ',', ']', '}']);
                begins && before.ends_with([':', '[', ',', '-']) && ends
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spelt_as_it_is_read_is_canonical() {
        for (text, canonical) in [
            ("10.0.0.0/8", true),
            ("fd00::/8", true),
            ("FD00::/8", true),
            ("10.1.2.3/8", false),
            ("010.0.0.0/8", false),
            ("::ffff:10.0.0.0/104", false),
            ("10.0.0.0/08", false),
        ] {
            let net = parse_cidr(text).expect("a CIDR");
            assert_eq!(is_canonical(text, &net), canonical, "{text}");
        }
    }

    #[test]
    fn keys_and_values_are_found_where_they_stand_without_quotes() {
        assert!(stands_plain("  on: x", "on", true));
        assert!(stands_plain("podSelector: {matchLabels: {a: b, on: x}}", "on", true));
        assert!(!stands_plain("  \"on\": x", "on", true));
        assert!(!stands_plain("  season: x", "on", true));
        assert!(stands_plain("  day: 2026-01-31", "2026-01-31", false));
        assert!(stands_plain("values: [a, 2026-01-31]", "2026-01-31", false));
        assert!(!stands_plain("  day: '2026-01-31'", "2026-01-31", false));
    }

    #[test]
    fn the_lines_of_an_item_end_with_it() {
        let text = "items:\n- kind: A\n  spec:\n  - 1\n- kind: B\n  x: 1\nkind: List\n";
        let of = |text: &str, first| joined(&lines_of(&text[Layout::of(text).line(first)..], first));
        let lines = |first| of(text, first);
        assert_eq!(lines(2), "  kind: A\n  spec:\n  - 1\n");
        assert_eq!(lines(5), "  kind: B\n  x: 1\n");
        assert_eq!(of("---\na: 1\nb: 2\n---\nc: 3\n", 2), "a: 1\nb: 2\n");
    }

    #[test]
    fn a_line_stands_in_the_document_that_began_last() {
        let text = "a: 1\n---\nb: 2\nc: 3\n--- # more\nd: 4\n";
        let layout = Layout::of(text);
        let document = |line| &text[layout.document(line)..];
        assert!(document(1).starts_with("a: 1"));
        assert!(document(4).starts_with("---\nb: 2"));
        assert!(document(6).starts_with("--- # more"));
        assert!(document(5).starts_with("--- # more"));
    }
}
