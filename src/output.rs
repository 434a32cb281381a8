//! Standard output: answers and nothing else, in tables like kubectl's.

use crate::{ending::Failure, escape};
use std::{
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write},
    time::Duration,
};

/// Standard output, buffered: flush before the verb ends.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Why nothing more could be printed; a closed pipe among them, which ends the command quietly.
pub(crate) fn failed(why: io::Error) -> Failure {
    Failure::of("cannot write to standard output", why).hint("check where it leads")
}

/// Whether a person watches standard error, so that progress may be shown there.
fn progress() -> indicatif::ProgressDrawTarget {
    match io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
        true => indicatif::ProgressDrawTarget::stderr(),
        false => indicatif::ProgressDrawTarget::hidden(),
    }
}

/// Says on a terminal that something takes its time, until the value goes.
#[must_use]
pub(crate) fn busy(with: impl AsRef<str>) -> Busy {
    let bar = indicatif::ProgressBar::with_draw_target(None, progress());
    bar.set_message(escape::printable(with.as_ref()).into_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    Busy(bar)
}

/// What [`busy`] shows.
pub(crate) struct Busy(indicatif::ProgressBar);

impl Busy {
    /// Says what it is at.
    pub(crate) fn now(&self, at: &str) {
        self.0.set_message(escape::printable(at).into_owned());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Rows under a header, columns aligned and three blanks apart, no borders: what `awk` and people read.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// One more row; its cells are data and are escaped. An empty cell is shown as kubectl shows it.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cell = |text: S| match text.as_ref() {
            "" => "<none>".to_owned(),
            text => escape::printable(text).into_owned(),
        };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The widths that hold every row, no narrower than `widths` (of rows printed before).
    pub(crate) fn widths(&self, widths: &[usize]) -> Vec<usize> {
        let mut widths = widths.to_vec();
        widths.resize(widths.len().max(self.header.len()), 0);
        for row in std::iter::once(&self.header).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(shown_width(cell));
            }
        }
        widths
    }

    /// Header and rows.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let widths = self.widths(&[]);
        line(out, &self.header, &widths)?;
        self.write_rows(out, &widths)
    }

    /// The header alone.
    pub(crate) fn write_header(&self, out: &mut impl Write, widths: &[usize]) -> io::Result<()> {
        line(out, &self.header, widths)
    }

    /// The rows alone.
    pub(crate) fn write_rows(&self, out: &mut impl Write, widths: &[usize]) -> io::Result<()> {
        self.rows.iter().try_for_each(|row| line(out, row, widths))
    }
}

fn shown_width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

fn line(out: &mut impl Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
    let last = cells.len().saturating_sub(1);
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        out.write_all(cell.as_bytes())?;
        if index != last {
            let pad = width.saturating_sub(shown_width(cell)) + 3;
            write!(out, "{:pad$}", "")?;
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_has_no_borders_and_no_trailing_blanks() {
        let mut table = Table::new(["NAME", "PORT"]);
        table.row(["web", "80"]);
        table.row(["日本\x1b[2J", ""]);
        let mut out = Vec::new();
        table.write(&mut out).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert_eq!(shown, "NAME            PORT\nweb             80\n日本\\u{1b}[2J   <none>\n");
    }
}
