//! Rows as a truth table that a person can check: a line a client, a column a server.

use super::{Asked, Map, Party, PartyId};
use std::{
    collections::HashSet,
    io::{self, Write},
};

/// So many blocks of one class of addresses stand in its line; more stand below the table.
const SHOWN: usize = 2;

impl Map<'_> {
    /// The table; the numbers of lines name columns too. Addresses should be disjoint
    /// ([`super::Options::disjoint`]).
    pub fn write_matrix(&self, out: &mut impl Write) -> io::Result<()> {
        let mut open: HashSet<(PartyId, PartyId)> = HashSet::new();
        self.for_each(|row| {
            open.insert((row.from, row.to));
            Ok::<(), io::Error>(())
        })?;
        let parties: Vec<PartyId> = self.parties().collect();
        let long = |id: PartyId| matches!(self.party(id), Party::Outside(nets) if nets.len() > SHOWN);
        let name = |id: PartyId| if long(id) { "addresses, see below".to_owned() } else { self.name(id) };
        let names: Vec<String> = parties.iter().map(|id| name(*id)).collect();
        let number = parties.len().to_string().len();
        let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        writeln!(out, "lines are clients, columns are servers by the number of their line")?;
        writeln!(out, ". something may be opened, by some pod at least   X nothing   - not asked")?;
        writeln!(out, "addresses without a line may open nothing, and nothing may be opened there")?;
        write!(out, "\n{:1$}", "", number + 1 + widest)?;
        parties.iter().try_for_each(|id| write!(out, " {:>number$}", id.0 + 1))?;
        for (from, name) in parties.iter().zip(&names) {
            write!(out, "\n{:>number$} {name:widest$}", from.0 + 1)?;
            for to in &parties {
                let cell = match open.contains(&(*from, *to)) {
                    true => '.',
                    false if self.is_asked(*from, *to) => 'X',
                    false => '-',
                };
                write!(out, " {cell:>number$}")?;
            }
        }
        writeln!(out, "\n")?;
        for id in parties.into_iter().filter(|id| long(*id)) {
            writeln!(out, "{:>number$} {}", id.0 + 1, self.name(id))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
    }

    /// Whether it was asked, and policies could say anything about it.
    fn is_asked(&self, from: PartyId, to: PartyId) -> bool {
        let beyond = match (self.party(from), self.party(to)) {
            (Party::Pods(a), Party::Pods(b)) => a == b && a.kind == "Pod",
            (from, to) => !matches!(from, Party::Pods(_)) && !matches!(to, Party::Pods(_)),
        };
        let [clients, servers] = &self.asked;
        !beyond && self.is_among(clients, from) && self.is_among(servers, to)
    }

    fn is_among(&self, asked: &Asked, id: PartyId) -> bool {
        match self.party(id) {
            Party::Pods(_) => asked.pods.contains(&id),
            Party::Outside(_) => asked.outside,
            Party::Nobody(_) => asked.newcomers,
        }
    }
}
