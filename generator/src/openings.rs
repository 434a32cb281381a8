//! What each policy has to open, and how far that goes beyond what was seen.
//!
//! Always holds: every lesson is behind an opening at each of its ends that has a policy, and that
//! opening allows it; an opening that allows more says why and at what price; one more lesson only
//! adds to what the openings allow (law 11).

use crate::{
    lessons::{Basis, Lesson, Lessons},
    named::PortNames,
    naming,
    outside::{Block, Own},
    price::{self, Price},
    ranges::{Range, RangeReason, Ranges},
    refused::Refused,
    subjects::Subjects,
    synthesize::{Options, PeerScope},
};
use ipnet::IpNet;
use model::{
    cluster::Cluster,
    labels::{Labels, METADATA_NAME, Selector},
    ledger::Party,
    policy::{Peer, Port, PortMatch, Protocol},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A direction, as policies name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// To the subject.
    Ingress,
    /// From the subject.
    Egress,
}

impl Way {
    /// As a policy names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The pods of a subject, by its index.
    Workload(usize),
    /// All pods of a namespace.
    Namespace(String),
    /// Addresses.
    Block(Block),
}

/// Why an opening allows more than was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wider {
    /// An edge that was neither seen nor accepted.
    Edge(Basis),
    /// A range of ports.
    Range(RangeReason),
    /// A port by name, which stands for further numbers.
    PortName,
    /// All pods of the namespace (`--peers namespace`).
    Namespace,
    /// The smallest block of a neighbourhood (`--outside minimal-cover`).
    Cover,
    /// A provider's range (`--outside provider-ranges`), by the names it is published under.
    Provider(Vec<String>),
}

impl Wider {
    /// For a person.
    pub fn meaning(&self) -> String {
        match self {
            Self::Edge(basis) => basis.name(),
            Self::Range(reason) => reason.meaning().to_owned(),
            Self::PortName => "the pods have this port at different numbers".to_owned(),
            Self::Namespace => "--peers namespace".to_owned(),
            Self::Cover => "--outside minimal-cover".to_owned(),
            Self::Provider(names) => {
                let names: Vec<String> = names.iter().map(|name| naming::printable(name)).collect();
                format!("--outside provider-ranges: {}", names.join(", "))
            }
        }
    }
}

/// What one policy opens in one direction to one peer at one port or range.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// Whose policy, by its index.
    pub subject: usize,
    /// Which direction.
    pub way: Way,
    /// To whom, or from whom.
    pub scope: Scope,
    /// The protocol.
    pub protocol: Protocol,
    /// The server's port.
    pub port: PortMatch,
    /// The lessons it is for, as indices into [`Lessons::lessons`], in order.
    pub lessons: Vec<usize>,
    /// Why it allows more than was seen; empty where it does not.
    pub wider: BTreeSet<Wider>,
    /// How many connections it allows that nobody observed.
    pub price: Price,
}

impl Opening {
    /// The peer as a rule writes it.
    pub fn peer(&self, subjects: &Subjects) -> Peer {
        let namespaces = |name: &str| Some(Selector::of(Labels::from([(METADATA_NAME.to_owned(), name.to_owned())])));
        match &self.scope {
            Scope::Workload(index) => {
                let subject = &subjects.all()[*index];
                Peer::Pods { namespaces: namespaces(&subject.key.namespace), pods: Some(subject.selector.clone()) }
            }
            Scope::Namespace(name) => Peer::Pods { namespaces: namespaces(name), pods: None },
            Scope::Block(Block { cidr, except, .. }) => Peer::Block { cidr: *cidr, except: except.clone() },
        }
    }

    /// What it opens, for a person: between two workloads `shop/web->shop/cart:80/tcp`, else with its direction.
    pub fn name(&self, subjects: &Subjects) -> String {
        let own = &subjects.all()[self.subject].key;
        let own = naming::printable(&format!("{}/{}", own.namespace, own.name));
        let peer = match &self.scope {
            Scope::Workload(index) => {
                let peer = &subjects.all()[*index].key;
                naming::printable(&format!("{}/{}", peer.namespace, peer.name))
            }
            Scope::Namespace(name) => naming::printable(&format!("every pod of {name}")),
            Scope::Block(Block { cidr, except, .. })
                if cidr.prefix_len() == cidr.max_prefix_len() && except.is_empty() =>
            {
                match (cidr.addr(), self.way) {
                    (IpAddr::V6(ip), Way::Egress) => format!("[{ip}]"),
                    (ip, _) => ip.to_string(),
                }
            }
            Scope::Block(Block { cidr, except, .. }) if except.is_empty() => cidr.to_string(),
            Scope::Block(Block { cidr, except, .. }) => {
                format!("{cidr} without the cluster's own {}", naming::count(except.len() as u64, "block"))
            }
        };
        let port = match &self.port {
            PortMatch::All => "every port".to_owned(),
            PortMatch::Range(first, last) => naming::ports(&[(*first, *last)]),
            PortMatch::Named(name) => naming::printable(name),
        };
        let protocol = naming::protocol(self.protocol.number());
        let (client, server) = if self.way == Way::Egress { (own, peer) } else { (peer, own) };
        match &self.scope {
            Scope::Namespace(_) => format!("{client}->{server}:{port}/{protocol}, {}", self.way.name()),
            Scope::Workload(_) | Scope::Block(_) => format!("{client}->{server}:{port}/{protocol}"),
        }
    }

    /// The port as a rule writes it.
    pub fn port(&self) -> Port {
        Port { protocol: self.protocol, port: self.port.clone() }
    }
}

/// All openings, in order of subject, direction, peer and port.
#[derive(Clone, Debug, Default)]
pub struct Openings {
    /// Them.
    pub all: Vec<Opening>,
    /// What those that allow more than was seen allow together, each connection counted once.
    pub price: Price,
    /// By subject, the ports that its rules name.
    pub names: Vec<PortNames>,
}

/// Where an opening is collected: subject, direction, scope, protocol, port.
type Place = (usize, Way, Scope, Protocol, PortMatch);

impl Openings {
    /// What the lessons need, as wide as the options say.
    ///
    /// # Errors
    /// Ports picked at random for which nothing says why ([`Refused::ManyPorts`]); ranges given by a name that
    /// means no edge.
    pub fn of(lessons: &Lessons, cluster: &Cluster, subjects: &Subjects, options: &Options) -> Result<Self, Refused> {
        let names = subjects.all().iter().map(|subject| PortNames::of(cluster, subject)).collect();
        let ranges = Ranges::of(&lessons.lessons, cluster, &options.port_ranges)?;
        let mut desk = Desk { subjects, options, names, ranges, places: BTreeMap::new(), addresses: BTreeMap::new() };
        for (index, lesson) in lessons.lessons.iter().enumerate() {
            desk.add(index, lesson);
        }
        desk.add_addresses(&Own::of(cluster));
        let Desk { names, places, .. } = desk;
        let all = places.into_iter().map(|((subject, way, scope, protocol, port), (lessons, wider))| Opening {
            subject,
            way,
            scope,
            protocol,
            port,
            lessons: lessons.into_iter().collect(),
            wider,
            price: Price::default(),
        });
        let mut openings = Self { all: all.collect(), price: Price::default(), names };
        price::set(&mut openings, lessons, subjects);
        Ok(openings)
    }

    /// What those that allow more than was seen are called, why they do, and their price; what both ends of one
    /// opening say alike, once.
    pub fn generalisations(&self, subjects: &Subjects) -> Vec<(String, Vec<String>, Price)> {
        let mut all: BTreeMap<String, (Vec<String>, Price)> = BTreeMap::new();
        for opening in self.widened() {
            let why = opening.wider.iter().map(Wider::meaning).collect();
            all.entry(opening.name(subjects)).or_insert((why, opening.price));
        }
        all.into_iter().map(|(name, (why, price))| (name, why, price)).collect()
    }

    /// Those that allow more than was seen.
    pub fn widened(&self) -> impl Iterator<Item = &Opening> {
        self.all.iter().filter(|opening| !opening.wider.is_empty())
    }
}

/// An opening to addresses outside before it is known which blocks they become.
type AddressPlace = (usize, Way, Protocol, PortMatch);
type Behind = (BTreeSet<usize>, BTreeSet<Wider>);

struct Desk<'l> {
    subjects: &'l Subjects,
    options: &'l Options,
    names: Vec<PortNames>,
    ranges: Ranges<'l>,
    places: BTreeMap<Place, Behind>,
    addresses: BTreeMap<AddressPlace, BTreeMap<IpAddr, Behind>>,
}

impl<'l> Desk<'l> {
    fn add(&mut self, index: usize, lesson: &'l Lesson) {
        let edge = &lesson.edge;
        let Some(protocol) = Protocol::from_number(edge.protocol) else { return };
        for (own, peer, way) in [(&edge.client, &edge.server, Way::Egress), (&edge.server, &edge.client, Way::Ingress)]
        {
            let Some(subject) = self.subjects.at(own) else { continue };
            for (port, why) in self.ports(lesson, protocol, way) {
                let basis = lesson.basis.is_generalisation().then(|| Wider::Edge(lesson.basis.clone()));
                let wider: BTreeSet<Wider> = basis.into_iter().chain(why).collect();
                self.add_peer((subject, way, protocol, port), peer, index, wider);
            }
        }
    }

    /// How the rules of one end write a lesson's port: the range it lies in, its name, or its number.
    fn ports(&self, lesson: &'l Lesson, protocol: Protocol, way: Way) -> Vec<(PortMatch, Option<Wider>)> {
        let number = lesson.edge.port;
        if let Some(Range { first, last, reason }) = self.ranges.holding(&lesson.edge) {
            return vec![(PortMatch::Range(first, last), Some(Wider::Range(reason)))];
        }
        let names = self.subjects.at(&lesson.edge.server).map(|server| &self.names[server]);
        let Some((names, name)) = names.and_then(|names| Some((names, names.name(protocol, number)?))) else {
            return vec![(PortMatch::Range(number, number), None)];
        };
        if way == Way::Egress && self.options.peers == PeerScope::Namespace {
            // Other workloads of the namespace mean something else by the name.
            let numbers = names.numbers(protocol, name).into_iter();
            return numbers.map(|(first, last)| (PortMatch::Range(first, last), Some(Wider::PortName))).collect();
        }
        vec![(PortMatch::Named(name.to_owned()), Some(Wider::PortName))]
    }

    fn add_peer(&mut self, place: AddressPlace, peer: &Party, lesson: usize, mut wider: BTreeSet<Wider>) {
        let (subject, way, protocol, port) = place;
        let scope = match peer {
            Party::Outside(ip) => {
                let behind = self.addresses.entry((subject, way, protocol, port)).or_default();
                let (lessons, why) = behind.entry(ip.to_canonical()).or_default();
                lessons.insert(lesson);
                why.append(&mut wider);
                return;
            }
            Party::Node(ip) => address(*ip),
            Party::Workload(key) if self.options.peers == PeerScope::Namespace => {
                wider.insert(Wider::Namespace);
                Scope::Namespace(key.namespace.clone())
            }
            Party::Workload(key) => match self.subjects.find(key) {
                Some(index) => Scope::Workload(index),
                None => return,
            },
        };
        let (lessons, why) = self.places.entry((subject, way, scope, protocol, port)).or_default();
        lessons.insert(lesson);
        why.append(&mut wider);
    }

    /// Addresses become blocks as the options say, each block for all that it holds.
    fn add_addresses(&mut self, own: &Own) {
        for ((subject, way, protocol, port), behind) in std::mem::take(&mut self.addresses) {
            let blocks = self.options.outside.blocks(&behind.keys().copied().collect(), own);
            for (ip, (lessons, mut wider)) in behind {
                let block = blocks.iter().find(|block| block.holds(ip));
                let scope = match block {
                    Some(block) => {
                        let names = block.names.clone();
                        wider.insert(if names.is_empty() { Wider::Cover } else { Wider::Provider(names) });
                        Scope::Block(block.clone())
                    }
                    None => address(ip),
                };
                let place = self.places.entry((subject, way, scope, protocol, port.clone())).or_default();
                place.0.extend(lessons);
                place.1.append(&mut wider);
            }
        }
    }
}

fn address(ip: IpAddr) -> Scope {
    Scope::Block(Block { cidr: IpNet::from(ip.to_canonical()), except: Vec::new(), names: Vec::new() })
}
