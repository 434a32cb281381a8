//! The continuous self-check: a few questions each second, asked of the loaded tables and of the reference evaluator.
//!
//! Always holds: it reads and never writes; questions come from what policies tell apart (pods, the edges of their
//! blocks, their ports), from the Services that pods of this node may open to, and from who counts beside an address's
//! identity (nodes, clients), so that a wrong entry is met soon. Addresses that two pods claim are not asked about, nor
//! openings to a Service's address at other ports than the Service's.

use crate::{
    behind::{self, Client},
    expected::{Holders, Opening, ask, holds_addresses, judgement_text},
    report::{Drift, SelfCheck},
};
use compile::RuleTable;
use datapath::Tables;
use flow::{Address, Direction};
use model::{
    cluster::{Cluster, Frontend, Node, Place},
    policy::{Peer, PortMatch, Protocol, Rule},
    record::UnixNanos,
    reference::{Endpoint, Reference},
};
use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};
use verdict::abi;

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
    /// This node's name.
    node: String,
    dice: u64,
    checked: u64,
    drifted: u64,
    last: Vec<Drift>,
    told: HashSet<String>,
    subjects: Vec<(u32, IpAddr)>,
    peers: Vec<IpAddr>,
    ports: Vec<u16>,
    /// Of nodes' ports, this node's alone: the others say the same, and are many.
    frontends: Vec<Frontend>,
    holders: Holders,
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// An opening between a covered pod and an address.
    Opening,
    /// An opening of a covered pod to a Service.
    Service,
    /// Who opens from an address.
    Opener,
}

/// What one question came to: nothing where the dice fell on ends that cannot meet.
type Asked = Result<Option<Found>, datapath::Error>;

/// An answer.
#[derive(Debug)]
enum Found {
    Same,
    Drift { question: String, kernel: String, expected: String },
}

impl Check {
    /// `seed` varies which questions come first.
    pub(crate) fn new(node: &str, seed: u64) -> Self {
        Self {
            node: node.to_owned(),
            dice: seed | 1,
            checked: 0,
            drifted: 0,
            last: Vec::new(),
            told: HashSet::new(),
            subjects: Vec::new(),
            peers: Vec::new(),
            ports: Vec::new(),
            frontends: Vec::new(),
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
        let peers = pods.chain(edges(cluster)).chain(nobody).map(|ip| ip.to_canonical());
        let peers: BTreeSet<IpAddr> = peers.chain(self.holders.services()).collect();
        self.peers = peers.into_iter().collect();
        self.ports = ports(cluster).into_iter().collect();
        let own = cluster.nodes.get(&self.node).map(|node| &node.addresses[..]).unwrap_or_default();
        let is_asked = |of: &Frontend| of.place != Place::Node || own.contains(&of.address);
        self.frontends = cluster.frontends().into_iter().filter(is_asked).collect();
    }

    /// Asks some; what differs is told, once each until the tables change.
    pub(crate) fn some(
        &mut self,
        cluster: &Cluster,
        table: &RuleTable,
        tables: &Tables,
        now: UnixNanos,
    ) -> Result<(), datapath::Error> {
        let reference = Reference::new(cluster, &cluster.policies);
        for _ in 0..QUESTIONS {
            let found = match self.about() {
                About::Opening => self.opening(cluster, &reference, tables)?,
                About::Service => self.service(cluster, &reference, (table, tables))?,
                About::Opener => self.opener(cluster, tables)?,
            };
            let Some(found) = found else { continue };
            self.checked += 1;
            if let Found::Drift { question, kernel, expected } = found {
                self.drifted += 1;
                self.differs(Drift { at_ns: now, question, kernel, expected });
            }
        }
        Ok(())
    }

    fn about(&mut self) -> About {
        match next(&mut self.dice) % 8 {
            0 | 1 if !self.frontends.is_empty() => About::Service,
            2 => About::Opener,
            _ => About::Opening,
        }
    }

    fn opening(&mut self, cluster: &Cluster, reference: &Reference<'_>, tables: &Tables) -> Asked {
        let Some((ordinal, own, opened, peer, protocol, port)) = self.question() else { return Ok(None) };
        let ends = self.holders.end(cluster, own).zip(self.holders.end(cluster, peer));
        let Some((own_end, peer_end)) = ends else { return Ok(None) };
        let opening = Opening { ordinal, opened, own: own_end, peer: peer_end, peer_address: peer, protocol, port };
        let answers = ask(tables, reference, &opening)?;
        Ok(Some(if answers.differ() {
            Found::Drift {
                question: text(own, opened, peer, protocol, port),
                kernel: answers.kernel.reason().name().to_owned(),
                expected: judgement_text(&answers.expected),
            }
        } else {
            Found::Same
        }))
    }

    fn service(
        &mut self,
        cluster: &Cluster,
        reference: &Reference<'_>,
        (table, tables): (&RuleTable, &Tables),
    ) -> Asked {
        let Some((ordinal, own)) = pick(&self.subjects, next(&mut self.dice)).copied() else { return Ok(None) };
        let Some(frontend) = pick(&self.frontends, next(&mut self.dice)) else { return Ok(None) };
        let Some(Endpoint::Pod(pod, address)) = self.holders.end(cluster, own) else { return Ok(None) };
        if frontend.address.is_ipv4() != own.is_ipv4() {
            return Ok(None);
        }
        let client = Client { ordinal, pod, address };
        let said = behind::ask(cluster, &self.holders, reference, (table, tables), client, frontend)?;
        Ok(said.map(|said| {
            if !said.differ() {
                return Found::Same;
            }
            let (to, protocol) = (frontend.address, Some(frontend.protocol));
            Found::Drift {
                question: text(own, Direction::Outbound, to, protocol, frontend.port),
                kernel: said.kernel.reason().name().to_owned(),
                expected: said.meant.text().to_owned(),
            }
        }))
    }

    fn opener(&mut self, cluster: &Cluster, tables: &Tables) -> Asked {
        let number = next(&mut self.dice);
        let Some(address) = pick(&self.peers, number).copied() else { return Ok(None) };
        let (loaded, expected) = (tables.opens_from(Address::from(address))?, self.expected_opener(cluster, address));
        // Who is named as a client beside that is asked about with its Services.
        let subject = self.subjects.iter().find(|(_, own)| *own == address).map(|(ordinal, _)| *ordinal);
        let is_client = expected == 0 && subject.is_some_and(|ordinal| loaded == abi::client_peer(ordinal));
        Ok(Some(if loaded == expected || is_client {
            Found::Same
        } else {
            let (kernel, expected) = (opener_text(loaded), opener_text(expected));
            Found::Drift { question: format!("who opens from {address}"), kernel, expected }
        }))
    }

    fn expected_opener(&self, cluster: &Cluster, address: IpAddr) -> u32 {
        let has = |node: &Node| node.addresses.iter().any(|of| of.to_canonical() == address);
        if cluster.nodes.get(&self.node).is_some_and(has) {
            abi::OWN_NODE
        } else if cluster.nodes.values().any(has) {
            abi::OTHER_NODE
        } else {
            0
        }
    }

    fn differs(&mut self, drift: Drift) {
        let Drift { question, kernel, expected, .. } = &drift;
        if self.told.len() < KEPT && self.told.insert(question.clone()) {
            tracing::warn!(
                "{question}: the loaded tables say {kernel}, the reference evaluator {expected}; restart the agent, \
                 which writes its tables anew, and report this"
            );
        }
        if self.last.len() >= KEPT {
            self.last.remove(0);
        }
        self.last.push(drift);
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
        let may_meet = own != peer && own.is_ipv4() == peer.is_ipv4();
        // To a Service's address the port says whom it leads to; see `service`.
        let is_asked = may_meet && (opened == Direction::Inbound || !self.holders.is_of_service(peer));
        is_asked.then_some((ordinal, own, opened, peer, protocol, port))
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

fn opener_text(opener: u32) -> String {
    match opener {
        0 => "nobody who counts".to_owned(),
        abi::OWN_NODE => "this node".to_owned(),
        abi::OTHER_NODE => "another node".to_owned(),
        client => format!("a client of Services in part, endpoint {}", abi::client_of(client)),
    }
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
mod tests;
