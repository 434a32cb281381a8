//! `# podfence: ignore PF003 reason` in YAML: on the line of what a finding is about, or of its rule or
//! policy, or above it. Without a reason it suppresses nothing; where it suppresses nothing, it is a
//! finding itself.

use super::{Finding, Found, Kind, Report, Texts, kinds};
use model::cluster::Source;
use std::sync::Arc;

const MARK: &str = "podfence: ignore";

/// A comment that suppresses.
struct Comment {
    /// Where it stands.
    source: Source,
    /// The line it is about.
    about: u32,
    codes: Vec<String>,
    reason: String,
    used: Vec<bool>,
}

/// Parts what was found by the comments, and puts it in order.
pub(super) fn apply(texts: &Texts, found: Found) -> Report {
    let mut report = Report { unchecked: found.unchecked, ..Report::default() };
    let mut comments: Vec<Comment> = texts.iter().flat_map(|(file, text)| comments(file, text)).collect();
    for finding in found.findings {
        match comments.iter_mut().find_map(|comment| comment.take(&finding)) {
            Some(reason) => report.suppressed.push((finding, reason)),
            None => report.findings.push(finding),
        }
    }
    for comment in &comments {
        comment.judge(&mut report.findings);
    }
    report.findings.sort_by(|a, b| order(a).cmp(&order(b)));
    report.suppressed.sort_by(|(a, _), (b, _)| order(a).cmp(&order(b)));
    report
}

fn order(finding: &Finding) -> impl Ord + '_ {
    (&finding.place, finding.kind.code, &finding.object, &finding.field, &finding.what)
}

impl Comment {
    /// The reason, if it is about this finding.
    fn take(&mut self, finding: &Finding) -> Option<String> {
        let place = finding.place.as_ref()?;
        if place.file != self.source.file || !(place.line == self.about || finding.scope.contains(&self.about)) {
            return None;
        }
        let index = self.codes.iter().position(|code| code == finding.kind.code)?;
        self.used[index] = true;
        (!self.reason.is_empty()).then(|| self.reason.clone())
    }

    /// What is wrong with the comment itself.
    fn judge(&self, findings: &mut Vec<Finding>) {
        let mut tell = |kind: &'static Kind, what: String| {
            findings.push(Finding {
                kind,
                place: Some(self.source.clone()),
                object: "comment".to_owned(),
                field: String::new(),
                what,
                fix: kind.fix.to_owned(),
                scope: Vec::new(),
            });
        };
        if self.codes.is_empty() {
            tell(kinds::NO_REASON, format!("`{MARK}` without a code"));
        } else if self.reason.is_empty() {
            tell(kinds::NO_REASON, format!("no reason to ignore {}", self.codes.join(",")));
        }
        for (code, used) in self.codes.iter().zip(&self.used) {
            if Kind::of(code).is_none() {
                tell(kinds::SUPPRESSES_NOTHING, format!("there is no {code}; `podfence lint --list` prints the codes"));
            } else if !used {
                tell(kinds::SUPPRESSES_NOTHING, format!("there is no {code} to ignore here"));
            }
        }
    }
}

fn comments(file: &Arc<str>, text: &str) -> Vec<Comment> {
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((before, words)) = marked(line) else { continue };
        let about = match before.trim().is_empty() {
            false => Some(index),
            true => (index + 1..lines.len()).find(|at| !says_nothing(lines[*at])),
        };
        let number = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
        let (codes, reason) = words.trim_start().split_once(char::is_whitespace).unwrap_or((words.trim(), ""));
        let codes: Vec<String> = codes.split(',').filter(|code| !code.is_empty()).map(str::to_owned).collect();
        all.push(Comment {
            source: Source { file: file.clone(), line: number(index) },
            about: number(about.unwrap_or(index)),
            used: vec![false; codes.len()],
            codes,
            reason: reason.trim().to_owned(),
        });
    }
    all
}

/// What stands before the comment, and what follows the mark; `None` for a line without one.
fn marked(line: &str) -> Option<(&str, &str)> {
    let (at, _) = line.match_indices('#').find(|(at, _)| {
        let begins = line[..*at].chars().next_back().is_none_or(char::is_whitespace);
        begins && line[at + 1..].trim_start().starts_with(MARK)
    })?;
    let words = line[at + 1..].trim_start().strip_prefix(MARK)?;
    let apart = words.is_empty() || words.starts_with(char::is_whitespace);
    apart.then_some((&line[..at], words))
}

/// Blank lines, comments and the borders of documents: what a comment above is not about.
fn says_nothing(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_about_its_own_line_or_the_next_that_says_something() {
        let text = "a: 1 # podfence: ignore PF001 why not\n\n  # podfence: ignore PF002,PF003   two words \n# other\n---\nb: 2\nc: '#podfence: ignore PF004 x'\n";
        let found = comments(&"f.yaml".into(), text);
        let shown: Vec<_> =
            found.iter().map(|c| (c.source.line, c.about, c.codes.join("+"), c.reason.as_str())).collect();
        assert_eq!(shown, [(1, 1, "PF001".to_owned(), "why not"), (3, 6, "PF002+PF003".to_owned(), "two words")]);
    }
}
