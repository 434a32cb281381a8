//! SARIF 2.1.0 (OASIS), as code scanning takes it: findings with file and line, under rules that say
//! what they mean.
//!
//! Always holds: the same findings give the same bytes; a finding's fingerprint depends on what it is
//! about and not on its line, so that it stays known when lines move; what came from input can be read
//! neither as a link nor as a placeholder of the format.

use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const VERSION: &str = "2.1.0";
/// What relative paths are relative to: the root of the sources, which the reader knows.
const SOURCES: &str = "%SRCROOT%";
/// The fingerprint's name; another number means that it is made otherwise.
const FINGERPRINT: &str = "podfence/v1";
/// The only name that GitHub looks at; it takes a fingerprint that is there already as it is.
const GITHUB_FINGERPRINT: &str = "primaryLocationLineHash";

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warning,
    Note,
}

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'t> {
    /// Its code, which never means another kind.
    pub id: &'t str,
    /// Its name, words with hyphens between them.
    pub name: &'t str,
    /// How much its findings weigh unless one says otherwise.
    pub level: Level,
    /// What it finds, in a sentence.
    pub short: &'t str,
    /// Why that matters.
    pub full: &'t str,
    /// What to do about it.
    pub help: &'t str,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The id of its rule.
    pub rule: String,
    /// How much it weighs.
    pub level: Level,
    /// What was found, for people; plain text.
    pub message: String,
    /// The file as the user named it, and the one-based line (0 when only the file is known); `None`
    /// when it is about no place.
    pub place: Option<(String, u32)>,
    /// What it is about, without lines: the object, the rule within it, the ends.
    pub identity: Vec<String>,
}

/// The whole document.
///
/// Properties are facts about the run that are no findings, such as how many were suppressed.
pub fn document(rules: &[Rule<'_>], findings: &[Finding], properties: &BTreeMap<&str, u64>) -> String {
    let indices: HashMap<&str, usize> = rules.iter().enumerate().map(|(index, rule)| (rule.id, index)).collect();
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let results = findings.iter().map(|finding| {
        let hash = fingerprint(finding);
        let nth = *seen.entry(hash).and_modify(|count| *count += 1).or_insert(1);
        result(finding, indices.get(finding.rule.as_str()).copied(), format!("{hash:016x}:{nth}"))
    });
    let driver = Driver {
        name: "podfence",
        version: env!("CARGO_PKG_VERSION"),
        semantic_version: env!("CARGO_PKG_VERSION"),
        rules: rules.iter().map(descriptor).collect(),
    };
    let run = Run { tool: Tool { driver }, results: results.collect(), properties };
    let log = Log { schema: SCHEMA, version: VERSION, runs: [run] };
    // Maps of strings and numbers cannot fail to be written.
    serde_json::to_string_pretty(&log).unwrap_or_default() + "\n"
}

#[derive(Serialize)]
struct Log<'t> {
    #[serde(rename = "$schema")]
    schema: &'t str,
    version: &'t str,
    runs: [Run<'t>; 1],
}

#[derive(Serialize)]
struct Run<'t> {
    tool: Tool<'t>,
    results: Vec<ResultObject<'t>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: &'t BTreeMap<&'t str, u64>,
}

#[derive(Serialize)]
struct Tool<'t> {
    driver: Driver<'t>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver<'t> {
    name: &'t str,
    version: &'t str,
    semantic_version: &'t str,
    rules: Vec<Descriptor<'t>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'t> {
    id: &'t str,
    name: &'t str,
    short_description: Message,
    full_description: Message,
    help: Message,
    default_configuration: Configuration,
}

#[derive(Serialize)]
struct Configuration {
    level: Level,
}

#[derive(Serialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultObject<'t> {
    rule_id: &'t str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_index: Option<usize>,
    level: Level,
    message: Message,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locations: Vec<Location>,
    partial_fingerprints: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactLocation {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri_base_id: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
}

fn descriptor<'t>(rule: &Rule<'t>) -> Descriptor<'t> {
    Descriptor {
        id: rule.id,
        name: rule.name,
        short_description: message(rule.short),
        full_description: message(rule.full),
        help: message(rule.help),
        default_configuration: Configuration { level: rule.level },
    }
}

fn result(finding: &Finding, rule_index: Option<usize>, fingerprint: String) -> ResultObject<'_> {
    ResultObject {
        rule_id: &finding.rule,
        rule_index,
        level: finding.level,
        message: message(&finding.message),
        locations: finding.place.iter().map(|(file, line)| location(file, *line)).collect(),
        partial_fingerprints: BTreeMap::from([(FINGERPRINT, fingerprint.clone()), (GITHUB_FINGERPRINT, fingerprint)]),
    }
}

fn location(file: &str, line: u32) -> Location {
    let uri_base_id = (!file.starts_with('/')).then_some(SOURCES);
    let artifact_location = ArtifactLocation { uri: uri(file), uri_base_id };
    let region = (line > 0).then_some(Region { start_line: line });
    Location { physical_location: PhysicalLocation { artifact_location, region } }
}

/// A path as a URI (RFC 3986): without empty and `.` segments, absolute ones as `file:` URIs.
fn uri(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !matches!(*segment, "" | "."));
    let joined = segments.map(encoded).collect::<Vec<_>>().join("/");
    if path.starts_with('/') { format!("file:///{joined}") } else { joined }
}

/// Unreserved characters stay, every other byte is percent-encoded: also the colon, before which a
/// relative path's first segment would be a scheme.
fn encoded(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

/// Plain text: braces would be placeholders, and a bracket before a parenthesis a link (section 3.11).
fn message(text: &str) -> Message {
    Message { text: text.replace('{', "{{").replace('}', "}}").replace("](", "] (") }
}

/// FNV-1a over the rule, the file and the identity, which never changes from one release to the next.
fn fingerprint(finding: &Finding) -> u64 {
    let file = finding.place.iter().map(|(file, _)| file);
    let parts = [&finding.rule].into_iter().chain(file).chain(&finding.identity);
    // No text holds the byte 0xff, so that parts cannot run into each other.
    let bytes = parts.flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const RULES: [Rule<'static>; 2] = [
        Rule { id: "PF001", name: "one", level: Level::Error, short: "One.", full: "Why.", help: "Do {this}." },
        Rule { id: "PF002", name: "two", level: Level::Note, short: "Two.", full: "Why.", help: "Do that." },
    ];

    fn finding(place: Option<(&str, u32)>, identity: &[&str]) -> Finding {
        Finding {
            rule: "PF002".to_owned(),
            level: Level::Warning,
            message: "ingress[0](see) of {x}".to_owned(),
            place: place.map(|(file, line)| (file.to_owned(), line)),
            identity: identity.iter().map(|part| (*part).to_owned()).collect(),
        }
    }

    fn written(findings: &[Finding]) -> Value {
        let text = document(&RULES, findings, &BTreeMap::from([("suppressed", 3)]));
        serde_json::from_str(&text).expect("JSON")
    }

    /// The constraints of sarif-schema-2.1.0.json on everything that is written here.
    fn check(log: &Value) {
        only(log, &["$schema", "version", "runs"], &["version", "runs"]);
        assert_eq!(log["version"], "2.1.0");
        for run in log["runs"].as_array().expect("an array") {
            only(run, &["tool", "results", "properties"], &["tool"]);
            only(&run["tool"], &["driver"], &["driver"]);
            let driver = &run["tool"]["driver"];
            only(driver, &["name", "version", "semanticVersion", "rules"], &["name"]);
            let rules = driver["rules"].as_array().expect("an array");
            for (index, rule) in rules.iter().enumerate() {
                let known = ["id", "name", "shortDescription", "fullDescription", "help", "defaultConfiguration"];
                only(rule, &known, &["id"]);
                assert!(rules[..index].iter().all(|other| other != rule), "rules are unique");
                for key in ["shortDescription", "fullDescription", "help"] {
                    only(&rule[key], &["text"], &["text"]);
                }
                level(&rule["defaultConfiguration"]["level"]);
            }
            for result in run["results"].as_array().expect("an array") {
                let known = ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"];
                only(result, &known, &["message"]);
                level(&result["level"]);
                only(&result["message"], &["text"], &["text"]);
                let index = result["ruleIndex"].as_u64().expect("not below -1") as usize;
                assert_eq!(rules[index]["id"], result["ruleId"], "the index leads to the rule");
                assert!(result["partialFingerprints"].as_object().expect("a map").values().all(Value::is_string));
                for place in result["locations"].as_array().into_iter().flatten() {
                    only(place, &["physicalLocation"], &[]);
                    let place = &place["physicalLocation"];
                    only(place, &["artifactLocation", "region"], &["artifactLocation"]);
                    only(&place["artifactLocation"], &["uri", "uriBaseId"], &[]);
                    let uri = place["artifactLocation"]["uri"].as_str().expect("a URI reference");
                    assert!(uri.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%:".contains(&b)), "{uri}");
                    if let Some(region) = place.get("region") {
                        only(region, &["startLine"], &[]);
                        assert!(region["startLine"].as_u64().expect("a line") >= 1);
                    }
                }
            }
        }
    }

    /// No property that the schema does not know (`additionalProperties: false`), none missing.
    fn only(object: &Value, known: &[&str], needed: &[&str]) {
        let object = object.as_object().expect("an object");
        object.keys().for_each(|key| assert!(known.contains(&key.as_str()), "{key}"));
        needed.iter().for_each(|key| assert!(object.contains_key(*key), "{key} is missing"));
    }

    fn level(value: &Value) {
        assert!(matches!(value.as_str(), Some("none" | "note" | "warning" | "error")), "{value}");
    }

    #[test]
    fn what_is_written_keeps_to_the_published_structure() {
        let log = written(&[
            finding(Some(("./k8s/a b:ü.yaml", 7)), &["shop/web"]),
            finding(Some(("/abs/x.yaml", 0)), &[]),
            finding(None, &[]),
        ]);
        check(&log);
        let result = &log["runs"][0]["results"][0];
        assert_eq!(result["message"]["text"], "ingress[0] (see) of {{x}}");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "k8s/a%20b%3A%C3%BC.yaml");
        assert_eq!(place["artifactLocation"]["uriBaseId"], "%SRCROOT%");
        assert_eq!(place["region"]["startLine"], 7);
        let second = &log["runs"][0]["results"][1]["locations"][0]["physicalLocation"];
        assert_eq!(second["artifactLocation"], serde_json::json!({"uri": "file:///abs/x.yaml"}));
        assert_eq!(log["runs"][0]["properties"]["suppressed"], 3);
    }

    #[test]
    fn a_fingerprint_outlives_a_moved_line_and_tells_findings_apart() {
        let print = |log: &Value, n: usize| log["runs"][0]["results"][n]["partialFingerprints"][FINGERPRINT].clone();
        let before = written(&[finding(Some(("a.yaml", 7)), &["x", "y"])]);
        let after = written(&[finding(Some(("a.yaml", 9)), &["x", "y"])]);
        assert_eq!(print(&before, 0), print(&after, 0));
        let others = written(&[
            finding(Some(("a.yaml", 7)), &["xy"]),
            finding(Some(("a.yaml", 7)), &["x", "y"]),
            finding(Some(("a.yaml", 8)), &["x", "y"]),
            finding(Some(("b.yaml", 7)), &["x", "y"]),
        ]);
        let all: std::collections::BTreeSet<String> = (0..4).map(|n| print(&others, n).to_string()).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(print(&others, 1), print(&before, 0));
    }
}
