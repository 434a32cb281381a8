//! What a run came to, as people and programs read it.

use crate::{
    class::{Class, Ends},
    trial::{Purpose, Shot},
};
use lab::Family;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How a class ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every control arrived, no attack did, and the program stopped each.
    Held,
    /// What it is about is not there.
    NotRun,
    /// No answer: a control did not arrive, or an attack was not seen to be stopped.
    Error,
    /// An attack arrived, or what must go on was cut.
    PassedBy,
}

impl Outcome {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotRun => "not run",
            Self::Error => "error",
            Self::PassedBy => "PASSED BY",
        }
    }
}

/// One class, over one family, with policy at these ends.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The class's name.
    pub class: &'static str,
    /// Its number in the corpus.
    pub number: u8,
    /// Where it was seen.
    pub reference: &'static str,
    /// What it tries.
    pub tries: &'static str,
    /// The line of defence it leans on.
    pub defence: &'static str,
    /// 4 or 6.
    pub family: Family,
    /// At which end the policy stands.
    pub ends: Ends,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it did not hold.
    pub why: Option<String>,
    /// What was sent, and what became of it.
    pub shots: Vec<Shot>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order of the classes.
    pub rows: Vec<Row>,
}

impl Row {
    pub(crate) fn new(class: &Class, family: Family, ends: Ends, shots: Vec<Shot>) -> Self {
        let (outcome, why) = judged(&shots);
        Self {
            class: class.name,
            number: class.number,
            reference: class.reference,
            tries: class.tries,
            defence: class.defence,
            family,
            ends,
            outcome,
            why,
            shots,
            took_ms: 0,
        }
    }

    /// Packets that arrived of those sent, over all shots of a purpose.
    pub fn packets(&self, purpose: impl Fn(Purpose) -> bool) -> [u64; 2] {
        let of = self.shots.iter().filter(|shot| purpose(shot.purpose));
        of.fold([0; 2], |[arrived, sent], shot| {
            // What must arrive may come back once more, inside the error of whom nobody listens for.
            let more = if shot.purpose == Purpose::Attack { shot.arrived } else { shot.arrived.min(shot.sent) };
            [arrived + more, sent + shot.sent]
        })
    }

    /// Why the program dropped what the attacks sent.
    pub fn reasons(&self) -> BTreeSet<&'static str> {
        let attacks = self.shots.iter().filter(|shot| shot.purpose == Purpose::Attack);
        attacks.flat_map(|shot| shot.dropped.keys().copied()).collect()
    }
}

/// The first thing that decides it, the worst first.
fn judged(shots: &[Shot]) -> (Outcome, Option<String>) {
    let said = |outcome, shot: &Shot, what: &str| {
        let numbers = format!("{} sent, {} left, {} arrived", shot.sent, shot.left, shot.arrived);
        (outcome, Some(format!("{}: {what} ({numbers})", shot.what)))
    };
    let of = |purpose| shots.iter().filter(move |shot| shot.purpose == purpose);
    if let Some(shot) = of(Purpose::Attack).find(|shot| shot.arrived > 0) {
        return said(Outcome::PassedBy, shot, "arrived");
    }
    if let Some(shot) = shots.iter().find(|shot| shot.left < shot.sent) {
        return said(Outcome::Error, shot, "never left");
    }
    if let Some(shot) = of(Purpose::Control).find(|shot| shot.arrived < shot.sent) {
        return said(Outcome::Error, shot, "a control that did not arrive");
    }
    if let Some(shot) = of(Purpose::Kept).find(|shot| shot.arrived < shot.sent) {
        return said(Outcome::PassedBy, shot, "cut");
    }
    if let Some(shot) = of(Purpose::Attack).find(|shot| shot.stopped < shot.due) {
        let reasons: Vec<String> = shot.dropped.iter().map(|(reason, packets)| format!("{packets} {reason}")).collect();
        let what = format!("did not arrive, and not for a reason of this class; dropped: [{}]", reasons.join(", "));
        return said(Outcome::Error, shot, &what);
    }
    if of(Purpose::Attack).count() == 0 || of(Purpose::Control).count() == 0 {
        return (Outcome::Error, Some("nothing was tried, or nothing shows that it could arrive".to_owned()));
    }
    (Outcome::Held, None)
}

impl Report {
    /// The worst outcome; what was not run counts where `missing` says so.
    pub fn worst(&self, missing: Missing) -> Outcome {
        let outcomes = self.rows.iter().map(|row| row.outcome);
        let counted = outcomes.filter(|outcome| *outcome != Outcome::NotRun || missing == Missing::Counts);
        counted.max().unwrap_or(Outcome::Held)
    }

    /// Classes and families, each with its rows: one line of the table.
    pub fn lines(&self) -> Vec<(&'static str, Family, Vec<&Row>)> {
        let mut lines: Vec<(&'static str, Family, Vec<&Row>)> = Vec::new();
        for row in &self.rows {
            match lines.iter_mut().find(|(class, family, _)| *class == row.class && *family == row.family) {
                Some((.., rows)) => rows.push(row),
                None => lines.push((row.class, row.family, vec![row])),
            }
        }
        lines
    }

    /// How many ended how.
    pub fn totals(&self) -> BTreeMap<Outcome, usize> {
        let mut totals = BTreeMap::new();
        for row in &self.rows {
            *totals.entry(row.outcome).or_default() += 1;
        }
        totals
    }
}

/// What is to be made of a class that was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No answer.
    Counts,
    /// Nothing.
    Allowed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shot(purpose: Purpose, [sent, left, arrived, stopped]: [u64; 4]) -> Shot {
        Shot { purpose, what: "a shot".into(), sent, left, arrived, dropped: BTreeMap::new(), stopped, due: sent }
    }

    #[test]
    fn only_what_left_and_was_stopped_beside_an_arriving_control_has_held() {
        let control = shot(Purpose::Control, [3, 3, 3, 0]);
        let of = |attack: [u64; 4]| judged(&[control.clone(), shot(Purpose::Attack, attack)]).0;
        assert_eq!(of([3, 3, 0, 3]), Outcome::Held);
        assert_eq!(of([3, 3, 1, 2]), Outcome::PassedBy);
        assert_eq!(of([3, 2, 0, 2]), Outcome::Error, "one never left");
        assert_eq!(of([3, 3, 0, 2]), Outcome::Error, "something else stopped one");
        assert_eq!(judged(&[shot(Purpose::Attack, [3, 3, 0, 3])]).0, Outcome::Error, "no control");
        assert_eq!(judged(&[shot(Purpose::Control, [3, 3, 2, 0])]).0, Outcome::Error, "a control was lost");
        let cut = [control.clone(), shot(Purpose::Attack, [3, 3, 0, 3]), shot(Purpose::Kept, [1, 1, 0, 0])];
        assert_eq!(judged(&cut).0, Outcome::PassedBy);
    }

    #[test]
    fn what_was_not_run_counts_unless_it_is_allowed() {
        let row = |outcome| Row {
            class: "a",
            number: 1,
            reference: "",
            tries: "",
            defence: "",
            family: Family::V4,
            ends: Ends::Both,
            outcome,
            why: None,
            shots: Vec::new(),
            took_ms: 0,
        };
        let report = Report { rows: vec![row(Outcome::Held), row(Outcome::NotRun)] };
        assert_eq!(report.worst(Missing::Counts), Outcome::NotRun);
        assert_eq!(report.worst(Missing::Allowed), Outcome::Held);
    }
}
