//! Lint: what in a set of policies does not do what it looks like, protects nothing, or can go.
//!
//! Always holds: what is called redundant is proven over the whole [`Universe`], and taking out all of
//! it at once changes no verdict; what could not be looked at is named in [`Report::unchecked`]; a
//! suppressed finding is counted.

mod effect;
mod exposure;
mod isolation;
mod kinds;
mod owners;
mod ports;
mod proof;
mod redundant;
mod render;
mod selectors;
mod suppress;
mod unused;
mod written;

pub use kinds::{ALL, Kind};
pub use render::{json, list, sarif, text};
pub use unused::Observed;

use crate::{
    reach::{Direction, Reach, RuleRef},
    sarif::Level,
    sets::Sets,
    universe::{Input, Universe},
};
use model::{cluster::Source, policy::NetworkPolicy};
use std::{collections::BTreeMap, sync::Arc};

/// The texts of files, by the names that sources have.
pub type Texts = BTreeMap<Arc<str>, String>;

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its kind.
    pub kind: &'static Kind,
    /// Where; `None` for what was not read from a file.
    pub place: Option<Source>,
    /// The object: `NetworkPolicy shop/api`.
    pub object: String,
    /// The field, as `spec.ingress[0].from[1]`; empty for the whole object.
    pub field: String,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub fix: String,
    /// The lines whose suppressions count for it: its own, its rule's, its object's.
    scope: Vec<u32>,
}

/// What there is to say.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By file, line and code.
    pub findings: Vec<Finding>,
    /// What a comment suppressed, with its reason.
    pub suppressed: Vec<(Finding, String)>,
    /// What was not looked at, and why.
    pub unchecked: Vec<String>,
}

impl Report {
    /// How many findings of a severity there are.
    pub fn count(&self, severity: Level) -> usize {
        self.findings.iter().filter(|finding| finding.kind.severity == severity).count()
    }
}

/// Looks at the policies of an input. `texts` are the files they were read from, for what only the
/// written form tells; `observed` is what a flow log shows.
pub fn lint(input: Input<'_>, texts: &Texts, observed: Option<&Observed>) -> Report {
    let universe = Universe::of(&[input]);
    let sets = Sets::default();
    let reach = Reach::new(&universe, 0, &sets);
    let mut found = Found::default();
    let subject = Subject { input, universe: &universe, reach: &reach };
    selectors::look(&subject, &mut found);
    ports::look(&subject, &mut found);
    redundant::look(&subject, &mut found);
    isolation::look(&subject, &mut found);
    exposure::look(&subject, &mut found);
    owners::look(&subject, &mut found);
    written::look(&subject, texts, &mut found);
    if let Some(observed) = observed {
        unused::look(&subject, observed, &mut found);
    }
    suppress::apply(texts, found)
}

/// What is looked at.
struct Subject<'s, 'c> {
    input: Input<'c>,
    universe: &'s Universe<'c>,
    reach: &'s Reach<'s, 'c>,
}

impl<'c> Subject<'_, 'c> {
    fn policies(&self) -> &'c [NetworkPolicy] {
        &self.input.policies.policies
    }

    /// Every rule, in order.
    fn rules(&self) -> impl Iterator<Item = RuleRef> {
        self.policies().iter().enumerate().flat_map(|(policy, object)| rules_of(policy, object))
    }
}

fn rules_of(policy: usize, object: &NetworkPolicy) -> impl Iterator<Item = RuleRef> + use<> {
    let lists = [(Direction::Ingress, &object.ingress), (Direction::Egress, &object.egress)];
    let counts = lists.map(|(direction, list)| (direction, list.as_ref().map_or(0, Vec::len)));
    counts
        .into_iter()
        .flat_map(move |(direction, count)| (0..count).map(move |index| RuleRef { policy, direction, index }))
}

/// What was found so far.
#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    unchecked: Vec<String>,
}

impl Found {
    /// About an object read from somewhere.
    fn object(&mut self, kind: &'static Kind, object: String, source: Option<&Source>, what: String) -> &mut Finding {
        self.findings.push(Finding {
            kind,
            place: source.cloned(),
            object,
            field: String::new(),
            what,
            fix: kind.fix.to_owned(),
            scope: source.iter().map(|source| source.line).collect(),
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    /// About a policy.
    fn policy(&mut self, kind: &'static Kind, policy: &NetworkPolicy, what: String) -> &mut Finding {
        self.object(kind, name_of(policy), policy.source.as_ref(), what)
    }

    /// About a rule, or what is in it: `below` is the field under the rule, as `.from[1]`.
    fn rule(&mut self, kind: &'static Kind, reach: &Reach<'_, '_>, rule: RuleRef, below: &str, what: String) {
        let Some((policy, content)) = reach.rule(rule) else { return };
        let finding = self.policy(kind, policy, what);
        finding.field = format!("spec.{}{below}", field_of(rule));
        if let Some(source) = &content.source {
            finding.scope.push(source.line);
            finding.place = Some(source.clone());
        }
    }
}

fn name_of(policy: &NetworkPolicy) -> String {
    format!("NetworkPolicy {}/{}", policy.namespace, policy.name)
}

/// `ingress[2]`.
fn field_of(rule: RuleRef) -> String {
    match rule.direction {
        Direction::Ingress => format!("ingress[{}]", rule.index),
        Direction::Egress => format!("egress[{}]", rule.index),
    }
}

/// What a rule calls its peers.
fn peers_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// `1 pod`, `2 pods`.
fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// At most `most` of these, and how many more there are.
fn some_of(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
