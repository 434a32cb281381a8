//! Every known way round a policy, tried on this node: on a range of network namespaces, with an agent of its own,
//! against the program that enforces here.
//!
//! ```text
//! Class ─► Trial (policies ─► agent; frames ─► far end's counters) ─► Shot ─► Row ─► Report
//! ```
//!
//! Always holds: nothing outside the range is touched and nothing is pinned, so that an agent that runs on the node
//! goes on undisturbed; all of it goes at the end, also after a failure or a request to stop.
#![forbid(unsafe_code)]

mod class;
mod classes;
mod cluster;
mod error;
pub mod frame;
mod post;
mod range;
mod report;
mod trial;

pub use class::{Class, Ends};
pub use error::Error;
pub use report::{Missing, Outcome, Report, Row};
pub use trial::{Purpose, Shot};

use error::Stop;
use lab::Family;
use range::{Layout, Range};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use trial::Trial;

/// Every class, in the order of the corpus.
pub fn classes() -> Vec<Class> {
    let mut all = classes::all();
    all.sort_by_key(|class| class.number);
    all
}

/// What is tried.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of classes; empty: all.
    pub classes: Vec<String>,
    /// One address family alone.
    pub family: Option<Family>,
    /// Policy at these ends alone; every class knows [`Ends::Both`].
    pub ends: Option<Ends>,
    /// How the caller shows names to people: what class 26 looks at.
    pub shown: Option<fn(&str) -> String>,
    /// Set by whoever wants it to stop.
    pub stop: Arc<AtomicBool>,
}

/// Tries them, telling each row as it is there.
pub fn run(options: &Options, told: &mut dyn FnMut(&Row)) -> Result<Report, Error> {
    let all = classes();
    for name in &options.classes {
        if !all.iter().any(|class| class.name == name) {
            return Err(Error::NoSuchClass { name: name.clone() });
        }
    }
    lab::permitted()?;
    range::remove_leftovers();
    let run = post::random()?;
    let mut report = Report::default();
    let mut kept: Option<Range> = None;
    let wanted = |class: &&Class| options.classes.is_empty() || options.classes.iter().any(|name| name == class.name);
    for class in all.iter().filter(wanted) {
        for family in class.families.iter().filter(|family| options.family.is_none_or(|only| only == **family)) {
            for ends in class.ends.iter().filter(|ends| options.ends.is_none_or(|only| only == **ends)) {
                if options.stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                let (range, row) = try_once(class, (*family, *ends), kept.take(), run, options)?;
                kept = range;
                told(&row);
                report.rows.push(row);
            }
        }
    }
    Ok(report)
}

/// The range comes back where the next class may use it: after anything but a plain end a fresh one is made.
fn try_once(
    class: &Class,
    (family, ends): (Family, Ends),
    kept: Option<Range>,
    run: [u8; 8],
    options: &Options,
) -> Result<(Option<Range>, Row), Error> {
    let began = Instant::now();
    let kept = kept.filter(|range| class.layout == Layout::Routed && range.layout() == Layout::Routed);
    let range = match kept {
        Some(range) => range,
        None => Range::new(class.layout, run)?,
    };
    let mut trial = Trial::new(&range, run, family, ends, &options.stop);
    trial.shown = options.shown;
    let ended = (class.run)(&mut trial);
    let mut row = Row::new(class, family, ends, std::mem::take(&mut trial.shots));
    let touched = trial.touched;
    drop(trial);
    match ended {
        Ok(()) => {}
        Err(Stop::Error(Error::Interrupted)) => return Err(Error::Interrupted),
        Err(Stop::Error(error)) => {
            // What was passed by before something failed was passed by.
            if row.outcome != Outcome::PassedBy {
                (row.outcome, row.why) = (Outcome::Error, Some(whole(&error)));
            }
        }
        Err(Stop::NotRun(why)) => (row.outcome, row.why) = (Outcome::NotRun, Some(why)),
    }
    row.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let clean = row.outcome == Outcome::Held && !touched && range.layout() == Layout::Routed;
    Ok((clean.then_some(range), row))
}

/// An error with its causes, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str("; ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
