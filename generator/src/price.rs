//! What a generalisation costs: how many connections it allows that nobody observed.
//!
//! Two units, never added to each other. *Edges*: client workload, server workload, protocol, port,
//! where the policies of both ends allow it. *Addresses*: workload, address outside or of a node,
//! protocol, port. What was seen or accepted by name is not counted.

use crate::{
    lessons::Lessons,
    openings::{Opening, Openings, Scope, Way, Wider},
    subjects::Subjects,
};
use model::{
    policy::{PortMatch, Protocol},
    ports::{Ports, difference, intersection, union},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

/// Connections that were never observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Between known workloads: client, server, protocol, port. Of workloads that both ends' policies allow.
    pub edges: u64,
    /// With addresses outside and of nodes: workload, address, protocol, port; at most what 64 bits hold.
    pub addresses: u64,
}

impl Price {
    /// Whether nothing is allowed that was not observed.
    pub const fn is_nothing(self) -> bool {
        self.edges == 0 && self.addresses == 0
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |n: u64| if n < 1_000_000_000 { n.to_string() } else { format!("about {:.1e}", n as f64) };
        match (self.edges, self.addresses) {
            (edges, 0) => write!(f, "{} between workloads", many(edges)),
            (0, addresses) => write!(f, "{} with addresses", many(addresses)),
            (edges, addresses) => write!(f, "{} between workloads, {} with addresses", many(edges), many(addresses)),
        }
    }
}

/// Sets the price of each opening and of all. What turns out to allow nothing more is no widening, except
/// to a namespace, which is open to workloads of tomorrow.
pub(crate) fn set(openings: &mut Openings, lessons: &Lessons, subjects: &Subjects) {
    let counter = Counter::new(openings, lessons, subjects);
    let prices: Vec<(Price, Vec<Pair>)> = openings.all.iter().map(|opening| counter.price(opening)).collect();
    let pairs: BTreeSet<Pair> = prices.iter().flat_map(|(_, pairs)| pairs).copied().collect();
    let edges = pairs.into_iter().map(|pair| count(&counter.unknown(pair))).sum();
    let addresses = prices.iter().fold(0u64, |sum, (price, _)| sum.saturating_add(price.addresses));
    openings.price = Price { edges, addresses };
    for (opening, (price, _)) in openings.all.iter_mut().zip(prices) {
        opening.price = price;
        if price.is_nothing() {
            opening.wider.retain(|why| *why == Wider::Namespace);
        }
    }
}

/// Client, server, protocol.
type Pair = (usize, usize, Protocol);

struct Counter<'o> {
    openings: &'o Openings,
    subjects: &'o Subjects,
    lessons: &'o Lessons,
    /// What was seen or accepted.
    known: HashMap<Pair, Ports>,
    to_workloads: HashMap<(usize, Way, usize), Vec<usize>>,
    to_namespaces: HashMap<(usize, Way, &'o str), Vec<usize>>,
    by_namespace: BTreeMap<&'o str, Vec<usize>>,
}

impl<'o> Counter<'o> {
    fn new(openings: &'o Openings, lessons: &'o Lessons, subjects: &'o Subjects) -> Self {
        let mut counter = Self {
            openings,
            subjects,
            lessons,
            known: HashMap::new(),
            to_workloads: HashMap::new(),
            to_namespaces: HashMap::new(),
            by_namespace: BTreeMap::new(),
        };
        for (index, opening) in openings.all.iter().enumerate() {
            let (own, way) = (opening.subject, opening.way);
            match &opening.scope {
                Scope::Workload(peer) => counter.to_workloads.entry((own, way, *peer)).or_default().push(index),
                Scope::Namespace(name) => counter.to_namespaces.entry((own, way, name)).or_default().push(index),
                Scope::Block(_) => {}
            }
        }
        for (index, subject) in subjects.all().iter().enumerate() {
            counter.by_namespace.entry(&subject.key.namespace).or_default().push(index);
        }
        for lesson in lessons.lessons.iter().filter(|lesson| !lesson.basis.is_generalisation()) {
            let protocol = Protocol::from_number(lesson.edge.protocol);
            if let (Some(client), Some(server), Some(protocol)) =
                (subjects.at(&lesson.edge.client), subjects.at(&lesson.edge.server), protocol)
            {
                let port = lesson.edge.port;
                counter.known.entry((client, server, protocol)).or_default().push((port, port));
            }
        }
        counter.known.values_mut().for_each(|ports| *ports = union(std::mem::take(ports)));
        counter
    }

    /// The price of one opening, and between whom it is paid.
    fn price(&self, opening: &Opening) -> (Price, Vec<Pair>) {
        let nothing = (Price::default(), Vec::new());
        if opening.wider.is_empty() {
            return nothing;
        }
        let peers: Vec<usize> = match &opening.scope {
            Scope::Workload(peer) => vec![*peer],
            Scope::Namespace(name) => self.by_namespace.get(name.as_str()).cloned().unwrap_or_default(),
            Scope::Block(block) => {
                let known = opening.lessons.iter().filter(|i| !self.lessons.lessons[**i].basis.is_generalisation());
                let ports = u128::from(count(&self.numbers(opening, opening.subject)));
                let all = block.size().saturating_mul(ports).saturating_sub(known.count() as u128);
                return (Price { edges: 0, addresses: u64::try_from(all).unwrap_or(u64::MAX) }, Vec::new());
            }
        };
        let pair = |peer: usize| match opening.way {
            Way::Egress => (opening.subject, peer, opening.protocol),
            Way::Ingress => (peer, opening.subject, opening.protocol),
        };
        let pairs: Vec<Pair> = peers.into_iter().map(pair).collect();
        let edges = pairs.iter().map(|pair| count(&intersection(&self.unknown(*pair), &self.numbers(opening, pair.1))));
        (Price { edges: edges.sum(), addresses: 0 }, pairs)
    }

    /// The ports that both ends allow and nobody saw.
    fn unknown(&self, pair: Pair) -> Ports {
        let known = self.known.get(&pair).map_or(&[][..], Vec::as_slice);
        let both = intersection(&self.side(pair, Way::Egress), &self.side(pair, Way::Ingress));
        difference(&both, known)
    }

    /// The ports that one end's policy allows.
    fn side(&self, (client, server, protocol): Pair, way: Way) -> Ports {
        let (own, peer) = if way == Way::Egress { (client, server) } else { (server, client) };
        let namespace = self.subjects.all()[peer].key.namespace.as_str();
        let to_workload = self.to_workloads.get(&(own, way, peer)).into_iter().flatten();
        let to_namespace = self.to_namespaces.get(&(own, way, namespace)).into_iter().flatten();
        let openings = to_workload.chain(to_namespace).map(|index| &self.openings.all[*index]);
        let of_protocol = openings.filter(|opening| opening.protocol == protocol);
        union(of_protocol.flat_map(|opening| self.numbers(opening, server)).collect())
    }

    /// The numbers that an opening's port means at a server.
    fn numbers(&self, opening: &Opening, server: usize) -> Ports {
        match &opening.port {
            PortMatch::All => vec![model::ports::ALL_PORTS],
            PortMatch::Range(first, last) => vec![(*first, *last)],
            PortMatch::Named(name) => self.openings.names[server].numbers(opening.protocol, name),
        }
    }
}

fn count(ports: &Ports) -> u64 {
    ports.iter().map(|(first, last)| u64::from(*last) - u64::from(*first) + 1).sum()
}
