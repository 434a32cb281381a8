//! What was found, as text, JSON and SARIF. Text from the input is not escaped for a terminal here:
//! that is the business of who prints.

use super::{ALL, Finding, Report};
use crate::sarif::{self, Level};
use serde::Serialize;
use std::collections::BTreeMap;

/// Every kind with its explanation, for `--list`.
pub fn list() -> String {
    let mut out = String::new();
    for kind in ALL {
        out += &format!("{} {} ({})\n", kind.code, kind.name, name(kind.severity));
        out += &format!("    {}\n    why: {}\n    fix: {}\n", kind.what, kind.why, kind.fix);
    }
    out
}

/// As compilers print it, a paragraph a file, and what all of it comes to.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut file = None;
    for finding in &report.findings {
        let own = finding.place.as_ref().map(|place| &place.file);
        if file.is_some_and(|file| file != own) {
            out.push('\n');
        }
        file = Some(own);
        let at = finding.place.as_ref().map_or("-".to_owned(), |place| format!("{}:{}", place.file, place.line));
        let what = [finding.object.as_str(), &finding.field].join(" ");
        out += &format!(
            "{at}: {} {} {}: {}: {}\n    why: {}\n    fix: {}\n",
            name(finding.kind.severity),
            finding.kind.code,
            finding.kind.name,
            what.trim_end(),
            one_line(&finding.what),
            finding.kind.why,
            one_line(&finding.fix)
        );
    }
    if !report.findings.is_empty() {
        out.push('\n');
    }
    for unchecked in &report.unchecked {
        out += &format!("not checked: {}\n", one_line(unchecked));
    }
    out + &summary(report)
}

/// A name may hold a line break; a finding is a line.
fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r")
}

fn summary(report: &Report) -> String {
    let counted = |level: Level| super::count(report.count(level), name(level));
    format!(
        "{}, {}, {}; {} suppressed\n",
        counted(Level::Error),
        counted(Level::Warning),
        counted(Level::Note),
        report.suppressed.len()
    )
}

const fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    }
}

#[derive(Serialize)]
struct Json<'r> {
    findings: Vec<JsonFinding<'r>>,
    suppressed: Vec<JsonFinding<'r>>,
    unchecked: &'r [String],
}

#[derive(Serialize)]
struct JsonFinding<'r> {
    code: &'r str,
    name: &'r str,
    severity: Level,
    file: Option<&'r str>,
    line: Option<u32>,
    object: &'r str,
    field: &'r str,
    what: &'r str,
    why: &'r str,
    fix: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'r str>,
}

/// For programs; policies/review/schemas/lint.schema.json says what is in it.
pub fn json(report: &Report) -> String {
    let suppressed = report.suppressed.iter().map(|(finding, reason)| json_finding(finding, Some(reason)));
    let json = Json {
        findings: report.findings.iter().map(|finding| json_finding(finding, None)).collect(),
        suppressed: suppressed.collect(),
        unchecked: &report.unchecked,
    };
    // Strings and numbers cannot fail to be written.
    serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
}

fn json_finding<'r>(finding: &'r Finding, reason: Option<&'r str>) -> JsonFinding<'r> {
    JsonFinding {
        code: finding.kind.code,
        name: finding.kind.name,
        severity: finding.kind.severity,
        file: finding.place.as_ref().map(|place| &*place.file),
        line: finding.place.as_ref().map(|place| place.line),
        object: &finding.object,
        field: &finding.field,
        what: &finding.what,
        why: finding.kind.why,
        fix: &finding.fix,
        reason,
    }
}

/// For code scanning. What was suppressed is counted in the run's properties, as readers that know no
/// suppressions would show it.
pub fn sarif(report: &Report) -> String {
    let rule = |kind: &&'static super::Kind| sarif::Rule {
        id: kind.code,
        name: kind.name,
        level: kind.severity,
        short: kind.what,
        full: kind.why,
        help: kind.fix,
    };
    let rules: Vec<sarif::Rule<'_>> = ALL.iter().map(rule).collect();
    let finding = |finding: &Finding| sarif::Finding {
        rule: finding.kind.code.to_owned(),
        level: finding.kind.severity,
        message: format!(
            "{}: {}; {}; {}",
            [finding.object.as_str(), &finding.field].join(" ").trim_end(),
            finding.what,
            finding.kind.why,
            finding.fix
        ),
        place: finding.place.as_ref().map(|place| (place.file.to_string(), place.line)),
        identity: vec![finding.object.clone(), finding.field.clone()],
    };
    let findings: Vec<sarif::Finding> = report.findings.iter().map(finding).collect();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let properties =
        BTreeMap::from([("suppressed", count(report.suppressed.len())), ("unchecked", count(report.unchecked.len()))]);
    sarif::document(&rules, &findings, &properties)
}
