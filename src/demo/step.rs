//! A step of the story: what was promised, what was seen, and whether they agree.

use crate::{escape, output};
use std::io::{self, Write as _};

/// Whether a step kept its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// What was seen is what was promised.
    AsPromised,
    /// It is not.
    Differs,
}

/// One step, told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What happens, in a few words.
    pub(crate) title: String,
    /// What must be seen.
    pub(crate) promised: String,
    /// What was.
    pub(crate) seen: String,
    /// Whether they agree.
    pub(crate) judgement: Judgement,
    /// What does not agree, one line each.
    pub(crate) differences: Vec<String>,
}

impl Step {
    /// A step that kept its promise if there are no differences.
    pub(crate) fn judged(
        title: impl Into<String>,
        promised: impl Into<String>,
        seen: impl Into<String>,
        differences: Vec<String>,
    ) -> Self {
        let judgement = if differences.is_empty() { Judgement::AsPromised } else { Judgement::Differs };
        Self { title: title.into(), promised: promised.into(), seen: seen.into(), judgement, differences }
    }
}

/// How many differences of a step are printed; the rest is counted.
const SHOWN: usize = 12;

/// The story so far; every step is printed as it is told.
#[derive(Debug, Default)]
pub(crate) struct Story {
    steps: Vec<Step>,
    left_out: Vec<String>,
}

impl Story {
    /// Text between steps.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        let mut out = output::stdout();
        text.lines().try_for_each(|line| writeln!(out, "  {}", escape::printable(line)))?;
        out.flush()
    }

    /// One more step, judged.
    pub(crate) fn tell(&mut self, step: Step) -> io::Result<()> {
        let mut out = output::stdout();
        let number = self.steps.len() + 1;
        let mark = if step.judgement == Judgement::AsPromised { "ok" } else { "DIFFERS" };
        writeln!(out, "\n{number}. {}: {mark}", escape::printable(&step.title))?;
        writeln!(out, "     promised  {}", escape::printable(&step.promised))?;
        writeln!(out, "     seen      {}", escape::printable(&step.seen))?;
        for difference in step.differences.iter().take(SHOWN) {
            writeln!(out, "     differs   {}", escape::printable(difference))?;
        }
        if step.differences.len() > SHOWN {
            writeln!(out, "     differs   and {} more", step.differences.len() - SHOWN)?;
        }
        out.flush()?;
        self.steps.push(step);
        Ok(())
    }

    /// What the story could not tell, and why.
    pub(crate) fn leave_out(&mut self, what_and_why: impl Into<String>) {
        self.left_out.push(what_and_why.into());
    }

    /// The verdict over all steps.
    pub(crate) fn end(&self) -> io::Result<Judgement> {
        let mut out = output::stdout();
        writeln!(out)?;
        self.left_out.iter().try_for_each(|what| writeln!(out, "left out: {}", escape::printable(what)))?;
        let differ: Vec<&Step> = self.steps.iter().filter(|step| step.judgement == Judgement::Differs).collect();
        let judgement = if differ.is_empty() { Judgement::AsPromised } else { Judgement::Differs };
        match judgement {
            Judgement::AsPromised => writeln!(out, "{} steps, all as promised", self.steps.len())?,
            Judgement::Differs => {
                let titles: Vec<&str> = differ.iter().map(|step| step.title.as_str()).collect();
                writeln!(out, "{} of {} steps differ: {}", differ.len(), self.steps.len(), titles.join("; "))?;
            }
        }
        out.flush()?;
        Ok(judgement)
    }
}

/// `1 call`, `2 calls`.
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
