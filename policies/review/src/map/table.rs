//! Rows for people.

use super::{Map, Row, document::Texts};
use crate::Allowed;
use std::io::{self, Write};

/// Between columns, as kubectl has it.
const GAP: usize = 3;

impl Map<'_> {
    /// A table of clients, servers and what is allowed, and below it what no row can say.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let names: Vec<(String, usize)> =
            self.parties().map(|id| self.name(id)).map(|n| (n.clone(), width(&n))).collect();
        let mut widest = ["FROM".len(), "TO".len()];
        self.for_each(|Row { from, to, .. }| {
            widest = [widest[0].max(names[from.index()].1), widest[1].max(names[to.index()].1)];
            Ok::<(), io::Error>(())
        })?;
        let blanks = " ".repeat(widest[0].max(widest[1]) + GAP);
        let column = |out: &mut dyn Write, (name, width): (&str, usize), widest: usize| {
            out.write_all(name.as_bytes())?;
            out.write_all(&blanks.as_bytes()[..widest.saturating_sub(width) + GAP])
        };
        column(out, ("FROM", 4), widest[0])?;
        column(out, ("TO", 2), widest[1])?;
        out.write_all(b"ALLOWED\n")?;
        let mut allowed = Texts::new(Allowed::to_string);
        self.for_each(|Row { from, to, open }| {
            for (at, party) in [from, to].into_iter().enumerate() {
                let (name, width) = &names[party.index()];
                column(out, (name, *width), widest[at])?;
            }
            out.write_all(allowed.of(self, open.allowed).as_bytes())?;
            out.write_all(if open.partial { b" (partly)\n" } else { b"\n" })
        })?;
        out.write_all(b"\n")?;
        if self.has_partial() {
            writeln!(
                out,
                "note: partly: the pods of a workload, or the addresses of one, differ; the row is what any of them may; `--by pod` tells them apart"
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
    }

    /// As people read it, with a mark where no policy selects it.
    pub(super) fn name(&self, party: super::PartyId) -> String {
        match self.is_on_host_network(party) {
            true => format!("{} (hostNetwork)", self.party(party)),
            false => self.party(party).to_string(),
        }
    }

    fn has_partial(&self) -> bool {
        let opens =
            self.targets.iter().flat_map(|t| t.groups.iter().map(|(_, o)| o).chain(t.others.iter().map(|(_, o)| o)));
        opens.into_iter().any(|open| open.partial)
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}
