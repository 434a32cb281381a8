//! What a person who watches the process reads of it, on standard error: a line for each update, and one for each thing
//! that stays wrong for a while.

use agent::{Report, Update, mode_name};
use datapath::{Uncovered, WhyUncovered};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use verdict::Mode;

/// Every pod comes with a link before it is known, and goes before it: what passes within this time is not said.
const PASSES: Duration = Duration::from_secs(5);

/// What is wrong now, and since when, until it was said. What was said is not said again until it went and came back.
#[derive(Default)]
pub(crate) struct Told(BTreeMap<String, Option<Instant>>);

impl Told {
    /// One line for the update.
    pub(crate) fn update(&mut self, from: &str, update: &Update, now: Instant) {
        tracing::info!("{}", summary(from, update));
        self.are_wrong(problems(update), now);
    }

    fn are_wrong(&mut self, problems: impl Iterator<Item = String>, now: Instant) {
        let before = std::mem::take(&mut self.0);
        self.0 = problems
            .map(|problem| {
                let since = before.get(&problem).copied().unwrap_or(Some(now));
                (problem, since)
            })
            .collect();
    }

    /// One line for each pod, link and object about which something is to be said for the first time.
    pub(crate) fn due(&mut self, now: Instant) {
        self.taken(now).iter().for_each(|problem| tracing::warn!("{problem}"));
    }

    fn taken(&mut self, now: Instant) -> Vec<String> {
        let lasts = |since: &Option<Instant>| since.is_some_and(|since| now.saturating_duration_since(since) >= PASSES);
        let due = self.0.iter_mut().filter(|(_, since)| lasts(since));
        due.map(|(problem, since)| {
            *since = None;
            problem.clone()
        })
        .collect()
    }
}

/// How much the tables hold, and what they take.
pub(crate) fn tables(report: &Report) -> String {
    let room = |name: &str| report.tables.iter().find(|table| table.name == name).map_or(0, |table| table.room);
    format!(
        "room for {} connections, {} rules, {} identities; all tables take {:.1} MiB of the kernel's memory",
        room("CONNECTIONS"),
        room("RULES"),
        room("IDENTITIES"),
        report.tables.iter().filter_map(|table| table.bytes).sum::<u64>() as f64 / f64::from(1 << 20)
    )
}

fn summary(from: &str, update: &Update) -> String {
    let mut by_mode: BTreeMap<Mode, usize> = BTreeMap::new();
    for mode in update.covered.values() {
        *by_mode.entry(*mode).or_default() += 1;
    }
    let modes: Vec<String> = by_mode.iter().map(|(mode, pods)| format!("{pods} {}", mode_name(*mode))).collect();
    let modes = if modes.is_empty() { String::new() } else { format!(" ({})", modes.join(", ")) };
    format!(
        "{from}: pods covered: {}{modes}, not covered: {}; written: endpoints {}, identities {}, slots {}",
        update.covered.len(),
        update.not_covered.len(),
        update.endpoints,
        update.identities,
        update.slots
    )
}

fn problems(update: &Update) -> impl Iterator<Item = String> {
    let kept = agent::kept_policies(&update.kept).into_iter();
    let kept = kept.map(|kept| format!("policy {} is gone and in force: {}", kept.policy, kept.why));
    let pods = update.not_covered.iter().map(|pod| format!("pod {} is not covered: {}", pod.pod, pod.why));
    let strange = |link: &&Uncovered| !matches!(link.why, WhyUncovered::Uplink | WhyUncovered::Ignored);
    let links = update
        .uncovered_links
        .iter()
        .filter(strange)
        .map(|link| format!("link {} leads to no pod: {}", link.name, link.why));
    pods.chain(links).chain(kept).chain(update.warnings.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent::NotCovered;

    #[test]
    fn what_passes_is_not_said_and_what_lasts_is_said_once() {
        let (mut told, start) = (Told::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let wrong = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter();
        told.are_wrong(wrong(&["passes", "lasts"]), at(0));
        assert!(told.taken(at(4)).is_empty());
        told.are_wrong(wrong(&["lasts"]), at(4));
        assert_eq!(told.taken(at(5)), ["lasts"]);
        told.are_wrong(wrong(&["lasts"]), at(6));
        assert!(told.taken(at(60)).is_empty(), "said once");
        told.are_wrong(wrong(&[]), at(61));
        told.are_wrong(wrong(&["lasts"]), at(62));
        assert_eq!(told.taken(at(67)), ["lasts"], "it went and came back");
    }

    #[test]
    fn an_update_is_one_line_and_a_problem_another() {
        let update = Update {
            endpoints: 2,
            identities: 5,
            slots: 1,
            covered: [("a/x".into(), Mode::Enforce), ("a/y".into(), Mode::Learn), ("a/z".into(), Mode::Enforce)].into(),
            not_covered: vec![NotCovered { pod: "a/w".into(), why: "no link leads to it".to_owned() }],
            ..Update::default()
        };
        assert_eq!(
            summary("cluster", &update),
            "cluster: pods covered: 3 (2 enforce, 1 learn), not covered: 1; written: endpoints 2, identities 5, slots 1"
        );
        assert_eq!(problems(&update).collect::<Vec<_>>(), ["pod a/w is not covered: no link leads to it"]);
    }
}
