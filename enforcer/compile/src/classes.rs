//! Addresses that no policy tells apart: each prefix with the class of the addresses directly under it.

use crate::{
    Error,
    subjects::{Grants, Names, Ports, Subject},
    terms::{PortName, Term},
};
use flow::Address;
use model::cluster::{Cluster, Pod};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

/// A prefix of the 128-bit address space, IPv4 mapped; canonical (bits behind the length are zero).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Prefix {
    /// Its first address.
    pub address: Address,
    /// 0 to 128; an IPv4 prefix has 96 more than its own length.
    pub length: u8,
}

impl Prefix {
    /// All of IPv4.
    const V4: Self = Self { address: Address::v4([0; 4]), length: 96 };

    /// The prefix of one address.
    pub fn host(address: Address) -> Self {
        Self { address, length: 128 }
    }

    /// The prefix of a CIDR.
    pub fn of(net: &ipnet::IpNet) -> Self {
        let length = if net.addr().is_ipv4() { net.prefix_len() + 96 } else { net.prefix_len() };
        Self { address: Address::from(net.network()), length }
    }

    /// Whether all of `other` lies in it.
    pub fn holds(&self, other: &Self) -> bool {
        self.length <= other.length && (self.bits() ^ other.bits()) & mask(self.length) == 0
    }

    fn bits(&self) -> u128 {
        u128::from_be_bytes(self.address.octets())
    }

    fn truncated(&self, length: u8) -> Self {
        let bits = self.bits() & mask(length);
        Self { address: Address::v6(bits.to_be_bytes()), length }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = if self.address.is_v4() { self.length.saturating_sub(96) } else { self.length };
        write!(f, "{}/{length}", self.address.ip())
    }
}

const fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - length as u32) }
}

/// The value of the longest prefix that holds all of `prefix`.
pub(crate) fn longest<'a, V>(prefixes: &'a BTreeMap<Prefix, V>, prefix: &Prefix) -> Option<&'a V> {
    (0..=prefix.length).rev().find_map(|length| prefixes.get(&prefix.truncated(length)))
}

/// What tells an address from others: the terms it matches, its numbers of the port names in use, and the
/// Services it leads to. Empty: no policy tells it apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    pub(crate) terms: Vec<u32>,
    pub(crate) ports: Vec<(u32, Vec<u16>)>,
    /// The number of its [frontends](crate::frontends), 0 for none.
    pub(crate) frontends: u32,
}

/// What the classes of a table tell apart: terms and port names, by number, and the addresses of pods that
/// may meet themselves behind a Service, because some policy judges what they open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Universe {
    pub(crate) terms: BTreeSet<u32>,
    pub(crate) ports: BTreeSet<u32>,
    pub(crate) openers: BTreeSet<Address>,
}

impl Universe {
    /// What the grants of these subjects look at.
    pub(crate) fn of<'a>(subjects: impl Iterator<Item = &'a Subject>, names: &mut Names) -> Result<Self, Error> {
        let mut universe = Self::default();
        let mut looked_at: BTreeSet<*const Grants> = BTreeSet::new();
        for subject in subjects {
            if subject.is_isolated_for_egress() {
                universe.openers.extend(subject.addresses);
            }
            for grants in [Some(&subject.in_force), subject.staged.as_ref()].into_iter().flatten() {
                if !looked_at.insert(Arc::as_ptr(grants)) {
                    continue;
                }
                for grant in &grants.grants {
                    universe.terms.extend(grant.peers.iter().flatten());
                    if let Ports::Named(name) = &grant.ports {
                        let number = names.ports.number(name, u32::MAX);
                        universe.ports.insert(number.ok_or(Error::Exhausted { what: "port name" })?);
                    }
                }
            }
        }
        Ok(universe)
    }

    pub(crate) fn holds(&self, other: &Self) -> bool {
        self.terms.is_superset(&other.terms)
            && self.ports.is_superset(&other.ports)
            && self.openers.is_superset(&other.openers)
    }

    pub(crate) fn united(mut self, other: &Self) -> Self {
        self.terms.extend(&other.terms);
        self.ports.extend(&other.ports);
        self.openers.extend(&other.openers);
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.terms.len() + self.ports.len() + self.openers.len()
    }
}

/// Every prefix at which the class changes, with the class of the addresses directly under it.
pub(crate) fn classes(
    cluster: &Cluster,
    held: &BTreeMap<IpAddr, &Pod>,
    universe: &Universe,
    names: &Names,
) -> BTreeMap<Prefix, Class> {
    let mut edges = edges(universe, names);
    let mut of_pods = pod_classes(cluster, held, universe, names);
    for prefix in of_pods.keys() {
        edges.entry(*prefix).or_default();
    }
    if edges.keys().any(|prefix| *prefix != Prefix::V4 && prefix.holds(&Prefix::V4)) {
        // An IPv6 block holds no IPv4 address, though the mapped ones lie in it.
        edges.entry(Prefix::V4).or_default();
    }
    let mut classes: BTreeMap<Prefix, Class> = BTreeMap::new();
    // In order of address and length, the prefixes that hold this one are on the stack.
    let mut above: Vec<(Prefix, BTreeSet<u32>, Class)> = Vec::new();
    for (prefix, edge) in edges {
        while above.last().is_some_and(|(last, ..)| !last.holds(&prefix)) {
            above.pop();
        }
        let inherits = prefix != Prefix::V4 && above.last().is_some();
        let mut blocks =
            if inherits { above.last().map(|(_, b, _)| b.clone()).unwrap_or_default() } else { BTreeSet::new() };
        blocks.extend(&edge.begins);
        edge.ends.iter().for_each(|term| {
            blocks.remove(term);
        });
        let mut class = of_pods.remove(&prefix).unwrap_or_default();
        class.terms.extend(&blocks);
        class.terms.sort_unstable();
        let changes = above.last().map_or(class != Class::default(), |(_, _, outer)| *outer != class);
        if changes {
            classes.insert(prefix, class.clone());
        }
        above.push((prefix, blocks, class));
    }
    classes
}

/// Blocks that begin at a prefix, and blocks from which it is taken away.
#[derive(Default)]
struct Edge {
    begins: Vec<u32>,
    ends: Vec<u32>,
}

fn edges(universe: &Universe, names: &Names) -> BTreeMap<Prefix, Edge> {
    let mut edges: BTreeMap<Prefix, Edge> = BTreeMap::new();
    for number in &universe.terms {
        if let Some(Term::Block { cidr, except }) = names.terms.content(*number) {
            edges.entry(Prefix::of(cidr)).or_default().begins.push(*number);
            for except in except {
                edges.entry(Prefix::of(except)).or_default().ends.push(*number);
            }
        }
    }
    edges
}

/// The classes of pods' addresses, as far as labels and port names tell them apart.
fn pod_classes(
    cluster: &Cluster,
    held: &BTreeMap<IpAddr, &Pod>,
    universe: &Universe,
    names: &Names,
) -> BTreeMap<Prefix, Class> {
    let terms: Vec<(u32, &Term)> =
        universe.terms.iter().filter_map(|number| Some((*number, names.terms.content(*number)?))).collect();
    let ports: Vec<(u32, &PortName)> =
        universe.ports.iter().filter_map(|number| Some((*number, names.ports.content(*number)?))).collect();
    // Pods of one controller match alike.
    let mut memo: HashMap<(&str, &model::labels::Labels), Vec<u32>> = HashMap::new();
    let mut classes = BTreeMap::new();
    for (address, pod) in held {
        let matched = memo.entry((&pod.namespace, &pod.labels)).or_insert_with(|| {
            terms.iter().filter(|(_, term)| term.selects(cluster, pod)).map(|(number, _)| *number).collect()
        });
        let numbers = ports.iter().map(|(number, name)| (*number, name.on(pod)));
        let ports = numbers.filter(|(_, numbers)| !numbers.is_empty()).collect();
        classes.insert(Prefix::host(Address::from(*address)), Class { terms: matched.clone(), ports, frontends: 0 });
    }
    classes
}
