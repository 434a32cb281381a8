//! Rows as pictures: parties in a box for each namespace, an arrow for each row.
//!
//! Always holds: names are data; whatever they hold, they stay inside their quotes.

use super::{Map, Party, PartyId, Row, document::Texts};
use crate::Allowed;
use model::drawing::{dot_text, mermaid_text};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

const OUTSIDE: &str = "outside";
const NOBODY: &str = "nobody yet";

impl Map<'_> {
    /// For Graphviz.
    pub fn write_dot(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "digraph podfence {{\n  rankdir=LR;\n  node [shape=box];")?;
        for (index, ((_, group), members)) in self.boxes().into_iter().enumerate() {
            writeln!(out, "  subgraph cluster_{index} {{\n    label={};", dot_text(group))?;
            for id in members {
                writeln!(out, "    n{} [label={}];", id.0, dot_text(&self.label(id)))?;
            }
            writeln!(out, "  }}")?;
        }
        let mut allowed = Texts::new(|set: &Allowed| dot_text(&set.to_string()));
        self.for_each(|Row { from, to, open }| {
            let style = if open.partial { ", style=dashed" } else { "" };
            writeln!(out, "  n{} -> n{} [label={}{style}];", from.0, to.0, allowed.of(self, open.allowed))
        })?;
        writeln!(out, "}}")
    }

    /// For Markdown.
    pub fn write_mermaid(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "flowchart LR")?;
        for (index, ((_, group), members)) in self.boxes().into_iter().enumerate() {
            writeln!(out, "  subgraph g{index}[{}]", mermaid_text(group))?;
            for id in members {
                writeln!(out, "    n{}[{}]", id.0, mermaid_text(&self.label(id)))?;
            }
            writeln!(out, "  end")?;
        }
        let mut allowed = Texts::new(|set: &Allowed| mermaid_text(&set.to_string()));
        self.for_each(|Row { from, to, open }| {
            let arrow = if open.partial { "-.->" } else { "-->" };
            writeln!(out, "  n{} {arrow}|{}| n{}", from.0, allowed.of(self, open.allowed), to.0)
        })
    }

    /// Boxes in order, each with its parties.
    fn boxes(&self) -> BTreeMap<(u8, &str), Vec<PartyId>> {
        let mut boxes: BTreeMap<(u8, &str), Vec<PartyId>> = BTreeMap::new();
        for id in self.parties() {
            let of = match self.party(id) {
                Party::Pods(key) => (0, key.namespace.as_str()),
                Party::Outside(_) => (1, OUTSIDE),
                Party::Nobody(_) => (2, NOBODY),
            };
            boxes.entry(of).or_default().push(id);
        }
        boxes
    }

    /// A party within its box.
    fn label(&self, id: PartyId) -> String {
        let mark = if self.is_on_host_network(id) { " (hostNetwork)" } else { "" };
        match self.party(id) {
            Party::Pods(key) => format!("{} {}{mark}", key.kind, key.name),
            party => party.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(dot_text("a\"]; b \\\n"), r#""a\"]; b \\\n""#);
        assert_eq!(mermaid_text("a\"]<script>\n"), "\"a#34;#93;#60;script#62;#10;\"");
    }
}
