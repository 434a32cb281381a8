//! Rows of which the same is said, taken together for people.
//!
//! Always holds: the groups together are the rows, each in one group.

use super::{Diff, Kind, Party, Row};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// Rows from each of some to each of others.
pub(crate) struct Group {
    /// Which part of the answer it stands in.
    pub(crate) part: Part,
    /// Who, a name each.
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
    /// How many rows it stands for.
    pub(crate) rows: usize,
    /// One of them, of which the same is said as of all.
    pub(crate) row: usize,
    /// How far it reaches, the widest first.
    reach: Width,
}

/// What a reviewer looks at in turn, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Part {
    ClosedUsed,
    OpenedOutside,
    NobodyYet,
    Opened,
    Closed,
    ClosedNobody,
}

impl Part {
    pub(crate) const ALL: [Self; 6] =
        [Self::ClosedUsed, Self::OpenedOutside, Self::NobodyYet, Self::Opened, Self::Closed, Self::ClosedNobody];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::ClosedUsed => "Closed, and used",
            Self::OpenedOutside => "Opened to or from outside the cluster",
            Self::NobodyYet => "Opened for labels that nobody has yet",
            Self::Opened => "Opened within the cluster",
            Self::Closed => "Closed",
            Self::ClosedNobody => "Closed for labels that nobody has yet",
        }
    }

    fn of(diff: &Diff, index: usize, row: &Row) -> Self {
        match row.kind {
            Kind::Closed if diff.used(index).is_some() => Self::ClosedUsed,
            Kind::Closed if diff.from(row).is_nobody() || diff.to(row).is_nobody() => Self::ClosedNobody,
            Kind::Closed => Self::Closed,
            Kind::Opened if diff.is_nobody_yet(row) => Self::NobodyYet,
            Kind::Opened if diff.is_outside(row) => Self::OpenedOutside,
            Kind::Opened => Self::Opened,
        }
    }
}

/// Outside before within, all before some, in falling order.
type Width = (std::cmp::Reverse<usize>, std::cmp::Reverse<usize>);

/// All rows, grouped; in order of part, then the widest first.
pub(crate) fn groups(diff: &Diff) -> Vec<Group> {
    // What is said of a row; a row with its own uses stands alone.
    let mut alike: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, row) in diff.rows().iter().enumerate() {
        let own = diff.used(index).map(|_| index);
        let key = (Part::of(diff, index, row), row.ports, row.partial, row.because, own);
        alike.entry(key).or_default().push(index);
    }
    let names = Names::of(diff);
    let mut groups: Vec<Group> = Vec::new();
    for ((part, ..), rows) in alike {
        for (from, to) in rectangles(diff, &rows) {
            let covered: usize = rows.iter().filter(|row| is_in(diff, **row, &from, &to)).count();
            let row = rows.iter().copied().find(|row| is_in(diff, *row, &from, &to)).unwrap_or_default();
            let reach = (std::cmp::Reverse(names.outside(&from)), std::cmp::Reverse(covered));
            groups.push(Group { part, from: names.told(&from), to: names.told(&to), rows: covered, row, reach });
        }
    }
    groups.sort_by(|a, b| {
        let order = |group: &Group| (group.part, group.reach);
        order(a).cmp(&order(b)).then_with(|| (&a.to, &a.from, a.row).cmp(&(&b.to, &b.from, b.row)))
    });
    groups
}

type Rectangle = (BTreeSet<u32>, BTreeSet<u32>);

fn is_in(diff: &Diff, row: usize, from: &BTreeSet<u32>, to: &BTreeSet<u32>) -> bool {
    let row = &diff.rows[row];
    from.contains(&row.from) && to.contains(&row.to)
}

/// Pairs as rectangles, by clients or by servers, whichever needs fewer.
fn rectangles(diff: &Diff, rows: &[usize]) -> Vec<Rectangle> {
    let pairs = || rows.iter().map(|row| (diff.rows[*row].from, diff.rows[*row].to));
    let by_server = merged(pairs().map(|(from, to)| (to, from)));
    let by_client = merged(pairs());
    match by_server.len() <= by_client.len() {
        true => by_server.into_iter().map(|(to, from)| (from, to)).collect(),
        false => by_client,
    }
}

/// Those with the same others, taken together.
fn merged(pairs: impl Iterator<Item = (u32, u32)>) -> Vec<Rectangle> {
    let mut others: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for (one, other) in pairs {
        others.entry(one).or_default().insert(other);
    }
    let mut same: BTreeMap<BTreeSet<u32>, BTreeSet<u32>> = BTreeMap::new();
    for (one, all) in others {
        same.entry(all).or_default().insert(one);
    }
    same.into_iter().map(|(others, ones)| (ones, others)).collect()
}

/// Names for sets of parties.
struct Names<'d> {
    diff: &'d Diff,
    /// By namespace, the workloads that are in both inputs.
    workloads: BTreeMap<&'d str, BTreeSet<u32>>,
}

/// A namespace's workloads are told as all of them from this many on.
const MANY: usize = 3;
/// But so many may be named as missing.
const FEW: usize = 2;

impl<'d> Names<'d> {
    fn of(diff: &'d Diff) -> Self {
        let mut workloads: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for (number, (party, standing)) in (0..).zip(diff.parties.iter().zip(&diff.standing)) {
            if let (Party::Workload(key), true) = (party, standing) {
                workloads.entry(&key.namespace).or_default().insert(number);
            }
        }
        Self { diff, workloads }
    }

    /// How many of these are outside, everything outside counting most.
    fn outside(&self, parties: &BTreeSet<u32>) -> usize {
        let all = parties.iter().filter_map(|party| match &self.diff.parties[*party as usize] {
            Party::Outside(cidrs) => Some(if is_everything(cidrs) { 2 } else { 1 }),
            Party::Workload(_) | Party::Nobody { .. } => None,
        });
        all.max().unwrap_or_default()
    }

    fn told(&self, parties: &BTreeSet<u32>) -> Vec<String> {
        if parties.len() < MANY {
            return self.each(parties);
        }
        let mut left = parties.clone();
        let mut told = Vec::new();
        let all: BTreeSet<u32> = self.workloads.values().flatten().copied().collect();
        match all.len() >= MANY && self.workloads.len() > 1 && all.is_subset(&left) {
            true => {
                left = &left - &all;
                told.push(format!("every workload of the cluster ({})", all.len()));
            }
            false => {
                for (namespace, all) in &self.workloads {
                    let missing = all - &left;
                    let there = all.len() - missing.len();
                    if there < MANY || (!missing.is_empty() && (missing.len() > FEW || there <= 2 * missing.len())) {
                        continue;
                    }
                    left = &left - all;
                    let but = missing.iter().map(|party| match &self.diff.parties[*party as usize] {
                        Party::Workload(key) => format!("{}/{}", key.kind, key.name),
                        other => other.to_string(),
                    });
                    let but = but.collect::<Vec<_>>().join(", ");
                    told.push(match but.is_empty() {
                        true => format!("every workload of namespace {namespace} ({there})"),
                        false => format!("every workload of namespace {namespace} ({there}) but {but}"),
                    });
                }
            }
        }
        told.extend(self.each(&left));
        told
    }

    /// One by one.
    fn each(&self, parties: &BTreeSet<u32>) -> Vec<String> {
        let mut rest: Vec<&Party> = parties.iter().map(|party| &self.diff.parties[*party as usize]).collect();
        rest.sort_by_key(|party| (party.is_nobody(), !party.is_outside(), *party));
        rest.into_iter().map(name).collect()
    }
}

fn name(party: &Party) -> String {
    match party {
        Party::Outside(cidrs) if is_everything(cidrs) => format!("anywhere outside ({party})"),
        Party::Outside(_) => party.to_string(),
        Party::Workload(_) | Party::Nobody { .. } => party.to_string(),
    }
}

fn is_everything(cidrs: &[IpNet]) -> bool {
    cidrs.iter().any(|cidr| cidr.prefix_len() == 0)
}
