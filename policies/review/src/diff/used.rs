//! What a flow log knows of rows: who used them, when last, how often.

use super::{Diff, Kind, Logged, Party};
use ipnet::IpNet;
use model::{
    cluster::WorkloadKey,
    ledger::{Edge, Ledger, Party as Seer, Unfit},
    policy::Protocol,
    record::UnixNanos,
};
use std::{collections::BTreeMap, net::IpAddr};

/// How a row was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Flows, attempts included.
    pub flows: u64,
    /// When last; `None` where only attempts were seen, of which no time is kept.
    pub last_seen: Option<UnixNanos>,
    /// By whom, the most frequent first.
    pub by: Vec<Seen>,
}

/// An edge of the log that lies in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A workload or an address.
    pub from: String,
    /// A workload or an address.
    pub to: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The server's port.
    pub port: u16,
    /// Flows.
    pub flows: u64,
    /// When last.
    pub last_seen: Option<UnixNanos>,
    /// It was denied, or had no answer.
    pub attempt: bool,
}

/// Who of the log can be at an end of a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Workload(WorkloadKey),
    Address,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    flows: u64,
    last_seen: Option<UnixNanos>,
    attempts: u64,
}

type Edges<'l> = BTreeMap<(At, At), BTreeMap<&'l Edge, Counted>>;

impl Diff {
    /// The same with what a flow log knows of each row: of what closes, the flows that passed; of what opens, these
    /// and the attempts that were denied or not answered.
    #[must_use]
    pub fn with_log(mut self, ledger: &Ledger) -> Self {
        let edges = edges(ledger);
        let uses = self.rows.iter().map(|row| {
            let (from, to) = (self.from(row), self.to(row));
            let seen = edges.get(&(at(from)?, at(to)?))?;
            let ports = self.sets.get(row.ports);
            let within = seen.iter().filter(|(edge, _)| {
                let protocol = Protocol::from_number(edge.protocol);
                let holds = protocol.is_some_and(|protocol| ports.contains(protocol, edge.port));
                holds && is_within(from, &edge.client) && is_within(to, &edge.server)
            });
            let all = within.flat_map(|(edge, counted)| told(edge, counted, row.kind == Kind::Opened));
            used(all.collect())
        });
        let uses = uses.collect();
        self.log = Some(Logged { left_out: ledger.unfit_summary(), uses });
        self
    }
}

fn edges(ledger: &Ledger) -> Edges<'_> {
    let mut all = Edges::new();
    for (edge, seen) in &ledger.edges {
        let counted = entry(&mut all, edge);
        counted.flows += seen.sightings.flows();
        counted.last_seen = counted.last_seen.max(Some(seen.last_seen));
    }
    for ((reason, edge), left) in &ledger.unfit {
        let Some(edge) = edge else { continue };
        if reason.is_denial() || *reason == Unfit::HandshakeNotSeen {
            entry(&mut all, edge).attempts += left.sightings.flows();
        }
    }
    all
}

fn entry<'a, 'l>(all: &'a mut Edges<'l>, edge: &'l Edge) -> &'a mut Counted {
    let at = |seer: &Seer| match seer {
        Seer::Workload(key) => At::Workload((**key).clone()),
        Seer::Node(_) | Seer::Outside(_) => At::Address,
    };
    all.entry((at(&edge.client), at(&edge.server))).or_default().entry(edge).or_default()
}

fn at(party: &Party) -> Option<At> {
    match party {
        Party::Workload(key) => Some(At::Workload(key.clone())),
        Party::Outside(_) => Some(At::Address),
        Party::Nobody { .. } => None,
    }
}

fn is_within(party: &Party, seer: &Seer) -> bool {
    let holds = |cidrs: &[IpNet], ip: &IpAddr| cidrs.iter().any(|cidr| cidr.contains(&ip.to_canonical()));
    match (party, seer) {
        (Party::Outside(cidrs), Seer::Node(ip) | Seer::Outside(ip)) => holds(cidrs, ip),
        (Party::Outside(_), Seer::Workload(_)) | (Party::Nobody { .. }, _) => false,
        (Party::Workload(_), _) => true,
    }
}

fn told(edge: &Edge, counted: &Counted, with_attempts: bool) -> Vec<Seen> {
    let Some(protocol) = Protocol::from_number(edge.protocol) else { return Vec::new() };
    let name = |seer: &Seer| match seer {
        Seer::Workload(key) => key.to_string(),
        Seer::Node(ip) | Seer::Outside(ip) => ip.to_string(),
    };
    let seen = |flows, last_seen, attempt| {
        let (from, to) = (name(&edge.client), name(&edge.server));
        Seen { from, to, protocol, port: edge.port, flows, last_seen, attempt }
    };
    let mut all = Vec::new();
    if counted.last_seen.is_some() {
        all.push(seen(counted.flows, counted.last_seen, false));
    }
    if with_attempts && counted.attempts > 0 {
        all.push(seen(counted.attempts, None, true));
    }
    all
}

fn used(mut by: Vec<Seen>) -> Option<Use> {
    by.sort_by(|a, b| {
        let order = |seen: &Seen| (std::cmp::Reverse(seen.flows), seen.attempt, seen.protocol, seen.port);
        order(a).cmp(&order(b)).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
    });
    let (flows, last_seen) =
        (by.iter().map(|seen| seen.flows).sum(), by.iter().filter_map(|seen| seen.last_seen).max());
    (!by.is_empty()).then_some(Use { flows, last_seen, by })
}
