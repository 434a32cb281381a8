//! The continuous self-check: a few questions each second, asked of the loaded tables and of the reference evaluator.
//!
//! Always holds: it reads and never writes; questions come from what policies tell apart (pods, the edges of their
//! blocks, their ports) so that a wrong entry is met soon. Addresses that two pods claim, and those where Services may
//! answer, are not asked about: there the address alone does not say what must pass.

use crate::{
    expected::{Answers, Holders, Opening, ask, holds_addresses, judgement_text},
    report::{Drift, SelfCheck},
};
use compile::RuleTable;
use datapath::Tables;
use flow::{Address, Direction};
use model::{
    cluster::Cluster,
    policy::{Peer, PortMatch, Protocol, Rule},
    record::UnixNanos,
    reference::Reference,
};
use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

/// Questions each second.
const QUESTIONS: usize = 16;
/// Differences kept to be shown.
const KEPT: usize = 16;
/// Ports that are asked about whatever the policies say.
const PORTS: [u16; 4] = [1, 80, 443, 65_535];
/// Addresses that are asked about whatever the policies say: of nobody (RFC 5737, RFC 3849).
const NOBODY: [&str; 2] = ["203.0.113.77", "2001:db8::77"];

/// What was found so far, and what there is to ask about.
#[derive(Debug)]
pub(crate) struct Check {
    dice: u64,
    checked: u64,
    drifted: u64,
    last: Vec<Drift>,
    told: HashSet<String>,
    subjects: Vec<(u32, IpAddr)>,
    peers: Vec<IpAddr>,
    ports: Vec<u16>,
    holders: Holders,
}

impl Check {
    /// `seed` varies which questions come first.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: seed | 1,
            checked: 0,
            drifted: 0,
            last: Vec::new(),
            told: HashSet::new(),
            subjects: Vec::new(),
            peers: Vec::new(),
            ports: Vec::new(),
            holders: Holders::default(),
        }
    }

    /// New tables are in force.
    pub(crate) fn updated(&mut self, cluster: &Cluster, table: &RuleTable) {
        self.holders = Holders::of(cluster);
        self.told.clear();
        self.subjects = subjects(table);
        let nobody = NOBODY.iter().filter_map(|address| address.parse().ok());
        let pods = cluster.pods.iter().filter(|pod| holds_addresses(pod)).flat_map(|pod| pod.addresses.clone());
        let peers: BTreeSet<IpAddr> = pods.chain(edges(cluster)).chain(nobody).map(|ip| ip.to_canonical()).collect();
        self.peers = peers.into_iter().filter(|peer| !self.holders.is_of_service(*peer)).collect();
        self.ports = ports(cluster).into_iter().collect();
    }

    /// Asks some; what differs is told, once each until the tables change.
    pub(crate) fn some(&mut self, cluster: &Cluster, tables: &Tables, now: UnixNanos) -> Result<(), datapath::Error> {
        let reference = Reference::new(cluster, &cluster.policies);
        for _ in 0..QUESTIONS {
            let question = self.question();
            let Some((ordinal, own, opened, peer, protocol, port)) = question else { continue };
            let ends = self.holders.end(cluster, own).zip(self.holders.end(cluster, peer));
            let Some((own_end, peer_end)) = ends else { continue };
            let opening = Opening { ordinal, opened, own: own_end, peer: peer_end, peer_address: peer, protocol, port };
            let answers = ask(tables, &reference, &opening)?;
            self.checked += 1;
            if answers.differ() {
                self.drifted += 1;
                self.differs(text(own, opened, peer, protocol, port), &answers, now);
            }
        }
        Ok(())
    }

    fn differs(&mut self, question: String, answers: &Answers, now: UnixNanos) {
        let (kernel, expected) = (answers.kernel.reason().name().to_owned(), judgement_text(&answers.expected));
        if self.told.len() < KEPT && self.told.insert(question.clone()) {
            tracing::warn!(
                "{question}: the loaded tables say {kernel}, the reference evaluator {expected}; restart the agent, \
                 which writes its tables anew, and report this"
            );
        }
        if self.last.len() >= KEPT {
            self.last.remove(0);
        }
        self.last.push(Drift { at_ns: now, question, kernel, expected });
    }

    pub(crate) fn report(&self) -> SelfCheck {
        SelfCheck { checked: self.checked, drifted: self.drifted, last: self.last.clone() }
    }

    /// A question; `None` where the dice fell on two ends that cannot meet.
    fn question(&mut self) -> Option<(u32, IpAddr, Direction, IpAddr, Option<Protocol>, u16)> {
        let (ordinal, own) = *pick(&self.subjects, next(&mut self.dice))?;
        let peer = *pick(&self.peers, next(&mut self.dice))?;
        let port = *pick(&self.ports, next(&mut self.dice))?;
        let opened = if next(&mut self.dice) & 1 == 0 { Direction::Inbound } else { Direction::Outbound };
        let protocol = match next(&mut self.dice) % 8 {
            0 => None,
            1 => Some(Protocol::Sctp),
            2 | 3 => Some(Protocol::Udp),
            _ => Some(Protocol::Tcp),
        };
        (own != peer && own.is_ipv4() == peer.is_ipv4()).then_some((ordinal, own, opened, peer, protocol, port))
    }
}

/// xorshift64: which questions are asked is no secret.
fn next(dice: &mut u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    *dice >> 11
}

fn pick<T>(all: &[T], number: u64) -> Option<&T> {
    let at = number.checked_rem(all.len() as u64)?;
    all.get(at as usize)
}

fn subjects(table: &RuleTable) -> Vec<(u32, IpAddr)> {
    let own = table.endpoints.values().flat_map(|endpoint| {
        let used = endpoint.addresses.iter().filter(|address| **address != Address::default());
        used.map(|address| (endpoint.ordinal, address.ip()))
    });
    own.collect()
}

fn rules(cluster: &Cluster) -> impl Iterator<Item = &Rule> {
    cluster.policies.policies.iter().flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten())
}

/// The first and the last address of each block and hole.
fn edges(cluster: &Cluster) -> impl Iterator<Item = IpAddr> {
    let blocks = rules(cluster).flat_map(|rule| &rule.peers).filter_map(|peer| match peer {
        Peer::Block { cidr, except } => Some(std::iter::once(cidr).chain(except)),
        Peer::Pods { .. } => None,
    });
    blocks.flatten().flat_map(|block| [block.network(), block.broadcast()])
}

/// Each port that rules and pods name, and its neighbours.
fn ports(cluster: &Cluster) -> BTreeSet<u16> {
    let ranges = rules(cluster).flat_map(|rule| &rule.ports).filter_map(|port| match port.port {
        PortMatch::Range(first, last) => Some([first.saturating_sub(1), first, last, last.saturating_add(1)]),
        PortMatch::All | PortMatch::Named(_) => None,
    });
    let of_pods = cluster.pods.iter().flat_map(|pod| &pod.ports).map(|port| port.port);
    ranges.flatten().chain(of_pods).chain(PORTS).filter(|port| *port > 0).collect()
}

fn text(own: IpAddr, opened: Direction, peer: IpAddr, protocol: Option<Protocol>, port: u16) -> String {
    let (from, to, side) = match opened {
        Direction::Inbound => (peer, own, "ingress"),
        Direction::Outbound => (own, peer, "egress"),
    };
    match protocol {
        Some(protocol) => format!("{from} to {to} {} {port} ({side})", protocol.name()),
        None => format!("{from} to {to} ICMP ({side})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_about_what_policies_tell_apart() {
        let mut cluster = Cluster::default();
        let text = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p, namespace: ns}\n\
                    spec: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.8/29]}}], \
                    ports: [{port: 5000, endPort: 5100}]}]}\n";
        model::yaml::read_into(&mut cluster, "p.yaml", text).expect("YAML of the test");
        let edges: Vec<String> = edges(&cluster).map(|ip| ip.to_string()).collect();
        assert_eq!(edges, ["10.0.0.0", "10.0.0.255", "10.0.0.8", "10.0.0.15"]);
        let ports = ports(&cluster);
        assert!([4999, 5000, 5100, 5101].iter().all(|port| ports.contains(port)), "{ports:?}");
    }

    #[test]
    fn every_question_comes_up() {
        let mut check = Check::new(7);
        check.subjects = vec![(1, NOBODY[0].parse().expect("an address"))];
        check.peers = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|ip| ip.parse().expect("an address")).to_vec();
        check.ports = vec![80, 81];
        let asked: HashSet<_> =
            (0..2000).filter_map(|_| check.question()).map(|q| (q.2 as u8, q.3, q.4, q.5)).collect();
        assert_eq!(asked.len(), 2 * 2 * 4 * 2, "two directions, two peers of the family, four protocols, two ports");
    }
}
