//! A ledger as text: JSON, one line a thing, so that it can be sent and read piece by piece, looked at with common
//! tools, and carry more one day than this version knows the names of.
//!
//! ```text
//! {"ledger":{"version":1}}
//! {"party":["workload","shop","Deployment","cart"]}    numbered from 0, in order
//! {"instance":["node-1@0",["node-1",0,3600]]}          numbered from 0; node, from, until in nanoseconds
//! {"edge":[0,1,6,8080,5,9,"syn",false,["node-1"],["f1"],[[0,[472222,1,1,3]]]]}
//! {"unfit":["denied",[0,1,6,8080],["f2"],[[0,[472222,1]]]]}
//! {"half_known":[0,[[0,[472222,1]]]]}
//! {"gap":[5,9,"node-1","agent-killed",0]}
//! {"end":{"lines":7}}
//! ```
//!
//! An edge has client, server, protocol, port, first and last seen, direction rule, whether adopted only, nodes,
//! samples, and sightings: for each instance hours with their flows, each hour but the first by its distance.
//!
//! Always holds: what was written is what comes back; a text that is cut short, damaged or of another version is an
//! error that says where; a line is read before the next is looked at, and none may be longer than 16 MiB.

use super::{
    Edge, Hour, Ledger, Party, PartyId, SAMPLES, Sightings, Tally, Unfit,
    sums::{ByInstance, Sums},
    tally::Ends,
};
use crate::{
    cluster::WorkloadKey,
    record::{DirectionRule, Gap, UnixNanos},
};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    io::{self, BufRead, Read as _, Write},
    net::IpAddr,
    sync::Arc,
};

/// The version of the format.
const VERSION: u32 = 1;

/// Bytes of the longest line that is read: an edge seen by a thousand observers in every hour of a month fits.
const LONGEST: u64 = 16 << 20;

/// Why a ledger cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The bytes cannot be had.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is not one of a ledger.
    #[error("line {line}: {why}")]
    Line {
        /// One-based.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Ledger {
        version: u32,
    },
    #[serde(borrow)]
    Party(Vec<Text<'a>>),
    Instance(#[serde(borrow)] Text<'a>, #[serde(borrow)] Option<(Text<'a>, UnixNanos, UnixNanos)>),
    Edge(#[serde(borrow)] Box<EdgeLine<'a>>),
    Unfit(#[serde(borrow)] Text<'a>, Option<(u32, u32, u8, u16)>, #[serde(borrow)] Vec<Text<'a>>, Vec<Row>),
    HalfKnown(u32, Vec<Row>),
    Gap(UnixNanos, UnixNanos, #[serde(borrow)] Text<'a>, #[serde(borrow)] Text<'a>, u64),
    End {
        lines: u64,
    },
}

/// Client, server, protocol, port, first and last seen, direction rule, whether adopted only, nodes, samples, rows.
#[derive(Serialize, Deserialize)]
struct EdgeLine<'a>(
    u32,
    u32,
    u8,
    u16,
    UnixNanos,
    UnixNanos,
    #[serde(borrow)] Text<'a>,
    bool,
    #[serde(borrow)] Vec<Text<'a>>,
    #[serde(borrow)] Vec<Text<'a>>,
    Vec<Row>,
);

/// A text of the line it is read from.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// An instance, and its hours with their flows, one after the other.
type Row = (u32, Vec<i64>);

impl Ledger {
    /// Writes it as lines.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_lines(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut out = Out { to, lines: 0 };
        out.line(&Line::Ledger { version: VERSION })?;
        let parties = self.numbered_parties();
        for (party, _) in in_order(&parties) {
            out.line(&Line::Party(party_words(party)))?;
        }
        let instances = self.numbered_instances();
        for (name, _) in in_order(&instances) {
            let watched = self.watched.get(name).map(|w| ((&*w.node).into(), w.from, w.until));
            out.line(&Line::Instance((&**name).into(), watched))?;
        }
        for (edge, seen) in &self.edges {
            let (client, server, protocol, port) = ends(edge, &parties);
            out.line(&Line::Edge(Box::new(EdgeLine(
                client,
                server,
                protocol,
                port,
                seen.first_seen,
                seen.last_seen,
                seen.direction_rule.name().into(),
                seen.adopted_only,
                texts(&seen.nodes),
                texts(&seen.samples),
                rows(&seen.sightings, &instances),
            ))))?;
        }
        for ((reason, edge), left) in &self.unfit {
            let (edge, rows) = (edge.as_ref().map(|edge| ends(edge, &parties)), rows(&left.sightings, &instances));
            out.line(&Line::Unfit(reason.name().into(), edge, texts(&left.samples), rows))?;
        }
        for (key, sightings) in &self.half_known {
            out.line(&Line::HalfKnown(parties[&Party::Workload(key.clone())], rows(sightings, &instances)))?;
        }
        for gap in &self.gaps {
            out.line(&Line::Gap(gap.start, gap.end, (&*gap.node).into(), (&*gap.reason).into(), gap.lost))?;
        }
        let lines = out.lines;
        out.line(&Line::End { lines })
    }

    /// Reads what [`Ledger::write_lines`] wrote.
    ///
    /// # Errors
    /// [`LinesError`]: the line and what is wrong with it. Nothing of a ledger that cannot be read whole is returned.
    pub fn read_lines(from: &mut dyn BufRead) -> Result<Self, LinesError> {
        Tally::default().read_lines(from).map(Tally::finish)
    }

    fn numbered_parties(&self) -> HashMap<Party, u32> {
        let unfit = self.unfit.keys().filter_map(|(_, edge)| edge.as_ref());
        let ends = self.edges.keys().chain(unfit).flat_map(|edge| [edge.client.clone(), edge.server.clone()]);
        numbered(ends.chain(self.half_known.keys().map(|key| Party::Workload(key.clone()))).collect())
    }

    fn numbered_instances(&self) -> HashMap<Arc<str>, u32> {
        let unfit = self.unfit.values().map(|left| &left.sightings);
        let all = self.edges.values().map(|seen| &seen.sightings).chain(unfit).chain(self.half_known.values());
        let seeing = all.flat_map(|sightings| sightings.by_instance().iter().map(|(name, _)| name.clone()));
        numbered(seeing.chain(self.watched.keys().cloned()).collect())
    }
}

struct Out<'w> {
    to: &'w mut dyn Write,
    lines: u64,
}

impl Out<'_> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut *self.to, line)?;
        self.lines += 1;
        self.to.write_all(b"\n")
    }
}

fn numbered<T: Ord + std::hash::Hash>(all: BTreeSet<T>) -> HashMap<T, u32> {
    all.into_iter().zip(0..).collect()
}

fn in_order<T>(numbered: &HashMap<T, u32>) -> Vec<(&T, u32)> {
    let mut all: Vec<(&T, u32)> = numbered.iter().map(|(one, number)| (one, *number)).collect();
    all.sort_unstable_by_key(|(_, number)| *number);
    all
}

fn party_words(party: &Party) -> Vec<Text<'_>> {
    let address = |ip: &IpAddr| Text(Cow::Owned(ip.to_string()));
    match party {
        Party::Workload(key) => {
            vec!["workload".into(), (&*key.namespace).into(), (&*key.kind).into(), (&*key.name).into()]
        }
        Party::Node(ip) => vec!["node".into(), address(ip)],
        Party::Outside(ip) => vec!["outside".into(), address(ip)],
    }
}

fn texts(all: &[Arc<str>]) -> Vec<Text<'_>> {
    all.iter().map(|text| (&**text).into()).collect()
}

fn ends(edge: &Edge, parties: &HashMap<Party, u32>) -> (u32, u32, u8, u16) {
    (parties[&edge.client], parties[&edge.server], edge.protocol, edge.port)
}

fn rows(sightings: &Sightings, instances: &HashMap<Arc<str>, u32>) -> Vec<Row> {
    let row = |(name, hours): &(Arc<str>, Vec<(Hour, u32)>)| {
        let mut before = 0;
        let cells = hours.iter().flat_map(|(hour, flows)| {
            let distance = i64::from(*hour) - std::mem::replace(&mut before, i64::from(*hour));
            [distance, i64::from(*flows)]
        });
        (instances[name], cells.collect())
    };
    sightings.by_instance().iter().map(row).collect()
}

impl Tally {
    /// Merges what [`Ledger::write_lines`] wrote.
    ///
    /// # Errors
    /// [`LinesError`]: the line and what is wrong with it. What was merged before is gone, too.
    pub fn read_lines(self, from: &mut dyn BufRead) -> Result<Self, LinesError> {
        let (mut read, mut number, mut text) = (Reading::into(self), 0, Vec::new());
        loop {
            text.clear();
            let length = (&mut *from).take(LONGEST + 1).read_until(b'\n', &mut text)?;
            number += 1;
            let wrong = |why: String| LinesError::Line { line: number, why };
            if length as u64 > LONGEST {
                return Err(wrong(format!("longer than {LONGEST} bytes")));
            }
            if length == 0 {
                return Err(wrong("the ledger ends here without its end: it was cut short".to_owned()));
            }
            let line = serde_json::from_slice(&text).map_err(|why| wrong(format!("no line of a ledger: {why}")))?;
            if read.line(line, number).map_err(wrong)? == Place::End {
                return Ok(read.tally);
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Place {
    Before,
    End,
}

/// One ledger while it is read: what its own numbers mean, and what it said already.
struct Reading {
    tally: Tally,
    parties: Vec<PartyId>,
    instances: Vec<u32>,
    edges: HashSet<Ends, RandomState>,
    unfit: HashSet<(Unfit, Option<Ends>), RandomState>,
    half_known: HashSet<PartyId, RandomState>,
}

impl Reading {
    fn into(tally: Tally) -> Self {
        Self {
            tally,
            parties: Vec::new(),
            instances: Vec::new(),
            edges: HashSet::default(),
            unfit: HashSet::default(),
            half_known: HashSet::default(),
        }
    }

    fn line(&mut self, line: Line<'_>, number: u64) -> Result<Place, String> {
        match (number, &line) {
            (1, Line::Ledger { version: VERSION }) => return Ok(Place::Before),
            (1, Line::Ledger { version }) => {
                return Err(format!("a ledger of version {version}; this podfence reads version {VERSION}"));
            }
            (1, _) | (_, Line::Ledger { .. }) => return Err("a ledger begins with its version, once".to_owned()),
            _ => {}
        }
        match line {
            Line::Ledger { .. } => {}
            Line::Party(words) => {
                let party = party(&words)?;
                self.parties.push(self.tally.party(party));
            }
            Line::Instance(name, watched) => self.instance(&name, watched),
            Line::Edge(line) => self.edge(*line)?,
            Line::Unfit(reason, edge, samples, rows) => {
                let known = Unfit::ALL.into_iter().find(|known| known.name() == reason.0);
                let reason = known.ok_or_else(|| format!("`{}` is no reason of this version", reason.0))?;
                let what = (reason, edge.map(|edge| self.ends(edge)).transpose()?);
                let by_instance = self.by_instance(rows)?;
                once(self.unfit.insert(what))?;
                self.tally.merge_unfit(what, Sums { by_instance, samples: kept(&samples)?, ..Sums::default() });
            }
            Line::HalfKnown(party, rows) => {
                let id = self.party(party)?;
                let key = self.tally.workload(id).cloned().ok_or("a half known end that is no workload")?;
                let rows = self.by_instance(rows)?.into_iter();
                let sightings = rows.map(|(name, hours)| (self.tally.named(name).clone(), hours)).collect();
                once(self.half_known.insert(id))?;
                self.tally.rest.half_known.entry(key).or_default().merge(Sightings::of(sightings));
            }
            Line::Gap(start, end, node, reason, lost) => {
                let [node, reason] = [node, reason].map(|text| self.tally.shared(&text.0));
                self.tally.rest.gaps.insert(Gap { start, end, node, reason, lost });
            }
            Line::End { lines } if lines == number - 1 => return Ok(Place::End),
            Line::End { lines } => return Err(format!("{} lines came before, {lines} were written", number - 1)),
        }
        Ok(Place::Before)
    }

    fn instance(&mut self, name: &Text<'_>, watched: Option<(Text<'_>, UnixNanos, UnixNanos)>) {
        let number = self.tally.name(&name.0);
        if let Some((node, from, until)) = watched {
            let (name, node) = (self.tally.named(number).clone(), self.tally.shared(&node.0));
            self.tally.rest.watch(&name, &node, from, until);
        }
        self.instances.push(number);
    }

    fn edge(&mut self, line: EdgeLine<'_>) -> Result<(), String> {
        let EdgeLine(client, server, protocol, port, first_seen, last_seen, rule, adopted_only, nodes, samples, rows) =
            line;
        let ends = self.ends((client, server, protocol, port))?;
        let seen = Sums {
            by_instance: self.by_instance(rows)?,
            nodes: nodes.iter().map(|node| self.tally.name(&node.0)).collect(),
            first_seen,
            last_seen,
            samples: kept(&samples)?,
            direction_rule: rule.0.parse::<DirectionRule>()?,
            adopted_only,
            ..Sums::default()
        };
        once(self.edges.insert(ends))?;
        self.tally.merge_seen(ends, seen);
        Ok(())
    }

    fn party(&self, number: u32) -> Result<PartyId, String> {
        self.parties.get(number as usize).copied().ok_or_else(|| format!("party {number} is not known yet"))
    }

    fn ends(&self, (client, server, protocol, port): (u32, u32, u8, u16)) -> Result<Ends, String> {
        Ok(Ends { client: self.party(client)?, server: self.party(server)?, protocol, port })
    }

    fn by_instance(&self, rows: Vec<Row>) -> Result<ByInstance, String> {
        let mut all: ByInstance = Vec::with_capacity(rows.len());
        for (instance, numbers) in rows {
            let name = self.instances.get(instance as usize).copied();
            let name = name.ok_or_else(|| format!("instance {instance} is not known yet"))?;
            once(all.iter().all(|(known, _)| *known != name))?;
            all.push((name, cells(&numbers)?));
        }
        Ok(all)
    }
}

fn once(is_new: bool) -> Result<(), String> {
    if is_new { Ok(()) } else { Err("the same thing for the second time".to_owned()) }
}

fn cells(numbers: &[i64]) -> Result<Vec<(Hour, u32)>, String> {
    let (mut hour, mut all) = (0_i64, Vec::with_capacity(numbers.len() / 2));
    let (pairs, rest) = numbers.as_chunks::<2>();
    for (index, [distance, flows]) in pairs.iter().enumerate() {
        if index > 0 && *distance <= 0 {
            return Err("hours are not in order".to_owned());
        }
        hour = hour.checked_add(*distance).ok_or("an hour that is none")?;
        let cell = Hour::try_from(hour).ok().zip(u32::try_from(*flows).ok());
        all.push(cell.ok_or_else(|| format!("{hour}, {flows}: no hour or no number of flows"))?);
    }
    if rest.is_empty() { Ok(all) } else { Err("an hour without its flows".to_owned()) }
}

/// Samples as a ledger keeps them: few, in order, each once.
fn kept(samples: &[Text<'_>]) -> Result<Vec<Arc<str>>, String> {
    let in_order = samples.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if in_order && samples.len() <= SAMPLES {
        Ok(samples.iter().map(|sample| Arc::from(&*sample.0)).collect())
    } else {
        Err("samples that a ledger does not keep".to_owned())
    }
}

fn party(words: &[Text<'_>]) -> Result<Party, String> {
    let address = |text: &str| text.parse::<IpAddr>().map_err(|why| format!("`{text}`: {why}"));
    let words: Vec<&str> = words.iter().map(|word| &*word.0).collect();
    Ok(match words[..] {
        ["workload", namespace, kind, name] => Party::Workload(Arc::new(WorkloadKey {
            namespace: namespace.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        })),
        ["node", ip] => Party::Node(address(ip)?),
        ["outside", ip] => Party::Outside(address(ip)?),
        _ => return Err(format!("{words:?} is no party")),
    })
}
