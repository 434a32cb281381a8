//! What stands behind a rule, where whoever wrote it kept that: shown beside the rule, never judged by.

use model::record::RuleName;
use std::fmt;

/// So many names of one sort are told; the evidence has all.
const TOLD: usize = 3;

/// What a rule's evidence says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence {
    /// Flows behind the rule.
    pub flows: u64,
    /// First packet, RFC 3339.
    pub first: Option<String>,
    /// Last packet.
    pub last: Option<String>,
    /// How it was known which end opened: every way that an edge behind the rule knows.
    pub directions: Vec<String>,
    /// Nodes that saw it.
    pub nodes: Vec<String>,
    /// Services through which clients called.
    pub services: Vec<String>,
    /// DNS names that led to an address.
    pub dns_names: Vec<String>,
    /// Flow ids, to be asked of the flow log.
    pub samples: Vec<String>,
    /// What the rule opens beyond what was seen, a sentence each.
    pub wider: Vec<String>,
}

/// Looks up a rule's evidence.
pub type EvidenceOf<'e> = &'e dyn Fn(&RuleName) -> Option<Evidence>;

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.first, &self.last) {
            (Some(first), Some(last)) => {
                let flows = match self.flows {
                    0 => "a longer flow".to_owned(),
                    1 => "1 flow".to_owned(),
                    n => format!("{n} flows"),
                };
                write!(f, "evidence: {flows}, {first} to {last}")?;
            }
            _ => f.write_str("no evidence of its own")?,
        }
        let told = [
            ("direction by", &self.directions),
            ("through", &self.services),
            ("as", &self.dns_names),
            ("on", &self.nodes),
            ("such as", &self.samples),
            ("opens beyond it", &self.wider),
        ];
        for (word, names) in told.into_iter().filter(|(_, names)| !names.is_empty()) {
            let some: Vec<&str> = names.iter().take(TOLD).map(String::as_str).collect();
            let more = names.len().checked_sub(TOLD).filter(|more| *more > 0);
            let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
            write!(f, ", {word} {}{more}", some.join(", "))?;
        }
        Ok(())
    }
}
