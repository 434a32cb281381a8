//! How the command ends: exit status 0, 1 or 2, and an error as one line of *what; why; what to try*.

use crate::escape;
use std::{io, process::ExitCode};

/// How a verb ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing to report.
    Done,
    /// Something differs from what was promised, or was asked to be reported.
    Reported,
}

/// The contract of DESIGN: 0 nothing to report, 1 something to report, 2 could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Done,
    Reported,
    NoAnswer,
}

impl ExitStatus {
    /// The status of an outcome; an error is printed.
    pub(crate) fn of(outcome: miette::Result<Ending>) -> Self {
        match outcome {
            Ok(Ending::Done) => Self::Done,
            Ok(Ending::Reported) => Self::Reported,
            // Who reads our output has seen enough (`| head`).
            Err(report) if is_broken_pipe(&report) => Self::Done,
            Err(report) => {
                eprintln!("podfence: {}", one_line(&report));
                Self::NoAnswer
            }
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Done => 0.into(),
            ExitStatus::Reported => 1.into(),
            ExitStatus::NoAnswer => 2.into(),
        }
    }
}

fn is_broken_pipe(report: &miette::Report) -> bool {
    report
        .chain()
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What, then why from the outside in, then what to try.
fn one_line(report: &miette::Report) -> String {
    let said = said(report.as_ref());
    let whole = match report.help() {
        Some(help) => format!("{said}; {help}"),
        None => said,
    };
    escape::printable(&whole).into_owned()
}

/// An error with what is behind it. A library's own hint, after the first semicolon, stays behind the reasons.
fn said(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let Some(source) = error.source() else { return text };
    let why = said(source);
    // Some libraries repeat their source in their own text.
    if text.contains(&why) {
        return text;
    }
    match text.split_once("; ") {
        Some((what, hint)) => format!("{what}; {why}; {hint}"),
        None => format!("{text}; {why}"),
    }
}

/// An error with what to try.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{what}")]
pub(crate) struct Failure {
    what: String,
    #[source]
    why: Option<Box<dyn std::error::Error + Send + Sync>>,
    #[help]
    try_this: Option<String>,
}

impl Failure {
    /// What went wrong, and what to try.
    pub(crate) fn new(what: impl Into<String>, try_this: impl Into<String>) -> Self {
        Self { what: what.into(), why: None, try_this: Some(try_this.into()) }
    }

    /// A library's error, which says all of it.
    pub(crate) fn whole(why: &(dyn std::error::Error + 'static)) -> Self {
        Self { what: said(why), why: None, try_this: None }
    }

    /// What went wrong; the source says why and what to try.
    pub(crate) fn of(what: impl Into<String>, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), why: Some(why.into()), try_this: None }
    }

    /// The same, with what to try.
    pub(crate) fn hint(mut self, try_this: impl Into<String>) -> Self {
        self.try_this = Some(try_this.into());
        self
    }
}

/// A warning on standard error; the command goes on.
pub(crate) fn warn(text: &str) {
    eprintln!("podfence: warning: {}", escape::printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_then_why_then_what_to_try_on_one_line() {
        let why = io::Error::new(io::ErrorKind::NotFound, "no such\nthing");
        let report = miette::Report::new(Failure::of("cannot read a.yaml", why).hint("give a file that is there"));
        assert_eq!(one_line(&report), r"cannot read a.yaml; no such\nthing; give a file that is there");
        assert_eq!(ExitStatus::of(Err(report)), ExitStatus::NoAnswer);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error() {
        let report = miette::Report::new(Failure::of("cannot print", io::Error::from(io::ErrorKind::BrokenPipe)));
        assert_eq!(ExitStatus::of(Err(report)), ExitStatus::Done);
    }
}
