//! The answer for people, as lines; each may hold names that came from input, which whoever shows them escapes.

use super::{But, Case, Judgement, NearRule, PolicyPlace, RulePlace, Side, Verdict, Why};
use model::cluster::Source;

/// So many rules that nearly fit are shown.
const SHOWN: usize = 4;
/// So many pods of a case are named.
const NAMED: usize = 4;

impl Why {
    /// The answer as lines.
    pub fn lines(&self) -> Vec<String> {
        let mut out = vec![self.headline()];
        for note in &self.notes {
            out.push(format!("note: {note}"));
        }
        let several = self.cases.len() > 1;
        for (index, case) in self.cases.iter().enumerate() {
            out.push(String::new());
            if several {
                out.push(format!("{} of {}: {}", index + 1, self.cases.len(), self.told(case)));
            }
            if self.port.is_none() {
                out.push(format!("allowed: {}", case.allowed));
            }
            self.side(&mut out, "egress", &self.from.name, case, &case.egress);
            self.side(&mut out, "ingress", &self.to.name, case, &case.ingress);
        }
        for (index, missing) in self.missing.iter().enumerate() {
            out.push(String::new());
            out.push(format!("missing rule {}: {}", index + 1, missing.place_text()));
            out.extend(missing.yaml().lines().map(|line| format!("  {line}")));
        }
        out
    }

    fn headline(&self) -> String {
        let port = self.port.as_ref().map_or_else(|| "at any port".to_owned(), ToString::to_string);
        let verdict = match (self.verdict, &self.port) {
            (Verdict::Allowed, Some(_)) => "allowed".to_owned(),
            (Verdict::Denied, Some(_)) => "denied".to_owned(),
            (Verdict::Denied, None) => "nothing is allowed".to_owned(),
            (Verdict::Allowed, None) if self.cases.len() == 1 => self.cases[0].allowed.to_string(),
            (Verdict::Allowed, None) => "something is allowed, and pods differ".to_owned(),
            (Verdict::Differs, _) => "pods differ".to_owned(),
        };
        format!("{} -> {} {port}: {verdict}", self.from.name, self.to.name)
    }

    fn told(&self, case: &Case) -> String {
        let port = case.number.map_or_else(String::new, |number| format!(" (port {number})"));
        let verdict = match (self.port.is_some(), case.is_allowed) {
            (true, true) => ": allowed",
            (true, false) => ": denied",
            (false, _) => "",
        };
        format!("{} -> {}{port}{verdict}", named(&case.from), named(&case.to))
    }

    fn side(&self, out: &mut Vec<String>, direction: &str, whose: &str, case: &Case, side: &Side) {
        let said = match side.judgement {
            Judgement::Allowed if self.port.is_some() => "allowed",
            Judgement::Allowed => "isolated",
            Judgement::NotIsolated => "not isolated, so everything passes",
            Judgement::NoPod => "no policy selects it, so this side lets everything pass",
            Judgement::Exempt => "a pod to itself, always passes",
            Judgement::Denied => "denied",
        };
        out.push(format!("{direction} of {whose}: {said}"));
        out.extend(side.isolated_by.iter().map(|policy| format!("  isolated by {}", policy_text(policy))));
        for rule in &side.rules {
            let opens = if self.port.is_none() { format!(", opens {}", rule.opens) } else { String::new() };
            out.push(format!("  allowed by {}{opens}{}", rule_text(rule), seen(rule)));
        }
        if side.judgement != Judgement::Denied {
            return;
        }
        let asked = self.port.as_ref().map_or_else(String::new, |port| format!(" {port}"));
        let none_holds = side.near.iter().all(|near| near.but != But::OtherPort);
        match none_holds {
            true => out.push("  no rule has the other end among its peers".to_owned()),
            false => out.push(format!("  no rule allows{asked}")),
        }
        for near in side.near.iter().take(SHOWN) {
            out.push(format!("    {}", near_text(near)));
        }
        if side.near.len() > SHOWN {
            out.push(format!("    and {} more that nearly fit (-o json has all)", side.near.len() - SHOWN));
        }
        match (&side.no_rule, side.missing) {
            (Some(why_not), _) => out.push(format!("  no rule can be proposed: {why_not}")),
            (None, Some(missing)) => out.push(format!("  missing rule {} below would allow it", missing + 1)),
            (None, None) if self.port.is_none() && case.allowed.is_empty() => {
                out.push("  ask at a port (TO:PORT) for the rule that is missing".to_owned());
            }
            (None, None) => {}
        }
    }
}

fn policy_text(policy: &PolicyPlace) -> String {
    format!("{}{}", policy.name, place_text(policy.source.as_ref()))
}

fn rule_text(rule: &RulePlace) -> String {
    format!("{}{}", rule.name, place_text(rule.source.as_ref()))
}

/// ` (file:line)`, as it follows a name; nothing where it is not known.
pub(crate) fn place_text(source: Option<&Source>) -> String {
    match source {
        None => String::new(),
        Some(Source { file, line: 0 }) => format!(" ({file})"),
        Some(Source { file, line }) => format!(" ({file}:{line})"),
    }
}

fn near_text(near: &NearRule) -> String {
    let rule = rule_text(&near.rule);
    match near.but {
        But::OtherPort => format!("{rule} has it among its peers, but opens {}", near.rule.opens),
        But::OtherPeer => format!("{rule} opens that port, but to others"),
    }
}

fn seen(rule: &RulePlace) -> String {
    rule.evidence.as_ref().map_or_else(String::new, |evidence| format!("; {evidence}"))
}

/// The first few, and how many more.
fn named(names: &[String]) -> String {
    match names.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..NAMED].join(", ")),
        _ => names.join(", "),
    }
}
