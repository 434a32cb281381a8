//! Slots: what grants mean over identities, as keys without the slot's own number, so that equal
//! rules are one slot whoever has them.

use crate::{
    classes::Class,
    frontends::{Frontend, Says},
    ports,
    subjects::{Grants, Names, Ports},
    terms::PortName,
};
use flow::{Address, Direction};
use model::policy::Protocol;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use verdict::abi::{self, ALL_PROTOCOLS, ANYONE, RuleKey, RulePort, frontend_key, rule_key};

/// A block of ports in a slot with ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPrefix {
    /// IP protocol number.
    pub protocol: u8,
    /// First port.
    pub port: u16,
    /// It holds `1 << bits` ports.
    pub bits: u8,
}

/// One slot: immutable, content-addressed, shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// No ingress but by a rule.
    pub ingress_isolated: bool,
    /// No egress but by a rule.
    pub egress_isolated: bool,
    rules_for_anyone: bool,
    rules_for_any_port: bool,
    /// Some rule allows a Service in part: the hooks of its other backends ask this slot again.
    leaves_refusals: bool,
    /// [`abi::rule_key`] without its slot word -> rule id.
    rules: BTreeMap<[u32; 2], u32>,
    /// Blocks of ports -> class; not empty: ports in rules are classes.
    port_classes: BTreeMap<PortPrefix, u16>,
}

impl Slot {
    /// Its number, from its index.
    pub fn number(&self, index: u32) -> u32 {
        let flags = [
            (self.ingress_isolated, abi::INGRESS_ISOLATED),
            (self.egress_isolated, abi::EGRESS_ISOLATED),
            (!self.port_classes.is_empty(), abi::RANGES),
            (self.rules_for_anyone, abi::RULES_FOR_ANYONE),
            (self.rules_for_any_port, abi::RULES_FOR_ANY_PORT),
        ];
        abi::slot_number(index, flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum())
    }

    /// Its rules under a slot number, as the map `RULES` holds them.
    pub fn rules(&self, slot: u32) -> impl Iterator<Item = (RuleKey, u32)> {
        self.rules.iter().map(move |([identity, port], rule)| ([slot, *identity, *port], *rule))
    }

    /// Its port classes, as the map `PORT_CLASSES` holds them beside the slot number.
    pub fn port_classes(&self) -> impl Iterator<Item = (PortPrefix, u32)> {
        self.port_classes.iter().map(|(prefix, class)| (*prefix, u32::from(*class)))
    }

    /// How many keys of rules it has.
    pub fn rules_len(&self) -> usize {
        self.rules.len()
    }

    /// How many port blocks it has.
    pub fn port_classes_len(&self) -> usize {
        self.port_classes.len()
    }

    /// Whether it leaves the refusal of some Service's backends to their own hooks.
    pub fn leaves_refusals(&self) -> bool {
        self.leaves_refusals
    }

    /// The identities it looks at, each once; [`ANYONE`] is none.
    pub fn identities(&self) -> impl Iterator<Item = u32> {
        let mut last = ANYONE;
        self.rules.keys().filter_map(move |[identity, _]| {
            let new = *identity != last;
            last = *identity;
            new.then_some(*identity)
        })
    }
}

/// The identities of a table, findable by what their classes match.
#[derive(Default)]
pub(crate) struct Identities {
    by_term: HashMap<u32, Vec<u32>>,
    ports: BTreeMap<u32, HashMap<u32, Vec<u16>>>,
    frontends: BTreeMap<u32, Arc<[Frontend]>>,
    /// The identities behind whose frontends a pod stands, by its addresses.
    behind: HashMap<Address, BTreeSet<u32>>,
}

impl Identities {
    pub(crate) fn new<'a>(numbered: impl Iterator<Item = (&'a Class, u32)>, names: &Names) -> Self {
        let mut identities = Self::default();
        for (class, number) in numbered {
            if let Some(frontends) = names.frontends.content(class.frontends) {
                for address in frontends.iter().flat_map(Frontend::addresses) {
                    identities.behind.entry(address).or_default().insert(number);
                }
                identities.frontends.insert(number, frontends.clone());
            }
            for term in &class.terms {
                identities.by_term.entry(*term).or_default().push(number);
            }
            for (name, ports) in &class.ports {
                identities.ports.entry(*name).or_default().insert(number, ports.clone());
            }
        }
        identities
    }

    /// Which ports lead to Services, as `RULES` holds them.
    pub(crate) fn frontend_keys(&self) -> impl Iterator<Item = (RuleKey, u32)> {
        self.frontends.iter().flat_map(|(identity, frontends)| {
            frontends.iter().map(|frontend| {
                let backends = if frontend.has_backends() { abi::HAS_BACKENDS } else { abi::NO_BACKENDS };
                (frontend_key(*identity, frontend.protocol.number(), frontend.port), backends)
            })
        })
    }

    /// Those of a pod's addresses without which these grants would come to the same over the Services
    /// behind which the pod itself stands, left out: pods that nothing tells apart share a slot.
    pub(crate) fn telling<'o>(
        &self,
        grants: &Grants,
        own: &'o [Address],
        port_number: &impl Fn(&PortName) -> u32,
    ) -> &'o [Address] {
        let identities = own.iter().filter_map(|address| self.behind.get(address)).flatten();
        let mut frontends = identities.filter_map(|identity| self.frontends.get(identity)).flat_map(|of| of.iter());
        let tells = grants.egress_isolated
            && frontends.any(|frontend| {
                frontend.allowed(grants, own, port_number) != frontend.allowed(grants, &[], port_number)
            });
        if tells { own } else { &[] }
    }

    /// Identities that match any of the terms, each once.
    fn matching(&self, terms: &[u32]) -> Vec<u32> {
        let mut found: Vec<u32> = terms.iter().filter_map(|term| self.by_term.get(term)).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// A grant whose peers and ports are numbers.
struct Flat {
    identity: u32,
    direction: Direction,
    /// `None`: every protocol and port.
    protocol: Option<Protocol>,
    /// `None`: every port.
    range: Option<(u16, u16)>,
    rule: u32,
}

/// What these grants mean over these identities. `port_number` gives a port name's number; `own` are
/// addresses of the subject that [tell](Identities::telling).
pub(crate) fn expand(
    grants: &Grants,
    identities: &Identities,
    own: &[Address],
    port_number: &impl Fn(&PortName) -> u32,
) -> Slot {
    let flat = flatten(grants, identities, port_number);
    let mut slot =
        Slot { ingress_isolated: grants.ingress_isolated, egress_isolated: grants.egress_isolated, ..Slot::default() };
    let mut class_of = HashMap::new();
    if flat.iter().any(|flat| flat.range.is_some_and(|(first, last)| first != last)) {
        for protocol in Protocol::ALL {
            let of_protocol = flat.iter().filter(|flat| flat.protocol == Some(protocol));
            let mut ranges: Vec<_> = of_protocol.filter_map(|flat| flat.range).collect();
            ranges.sort_unstable();
            ranges.dedup();
            let classes = ports::classes(&ranges);
            for (block, class) in classes.blocks {
                let prefix = PortPrefix { protocol: protocol.number(), port: block.port, bits: block.bits };
                slot.port_classes.insert(prefix, class);
            }
            class_of.insert(protocol, classes.of_range);
        }
    }
    for flat in flat {
        let mut put = |protocol: u8, port| {
            slot.rules_for_anyone |= flat.identity == ANYONE;
            slot.rules_for_any_port |= port == RulePort::Any;
            let [_, identity, port] = rule_key(0, flat.identity, flat.direction, protocol, port);
            slot.rules.entry([identity, port]).or_insert(flat.rule);
        };
        match (flat.protocol, flat.range) {
            (None, _) => {
                put(ALL_PROTOCOLS, RulePort::Any);
                Protocol::ALL.iter().for_each(|protocol| put(protocol.number(), RulePort::Any));
            }
            (Some(protocol), None) => put(protocol.number(), RulePort::Any),
            (Some(protocol), Some(range)) => match class_of.get(&protocol).and_then(|of| of.get(&range)) {
                Some(classes) => {
                    classes.iter().for_each(|class| put(protocol.number(), RulePort::Class(*class)));
                }
                None => put(protocol.number(), RulePort::Class(range.0)),
            },
        }
    }
    if grants.egress_isolated {
        for (identity, frontends) in &identities.frontends {
            for frontend in frontends.iter() {
                let Some(says) = frontend.allowed(grants, own, port_number) else { continue };
                let port = RulePort::Frontend(frontend.port);
                let [_, identity, port] = rule_key(0, *identity, Direction::Outbound, frontend.protocol.number(), port);
                slot.rules.insert([identity, port], says.number());
                slot.leaves_refusals |= matches!(says, Says::AllowedInPart(_));
            }
        }
    }
    slot
}

fn flatten(grants: &Grants, identities: &Identities, port_number: &impl Fn(&PortName) -> u32) -> Vec<Flat> {
    let mut all = Vec::new();
    for grant in &grants.grants {
        let peers = match &grant.peers {
            None => vec![ANYONE],
            Some(terms) => identities.matching(terms),
        };
        let flat = |identity, protocol, range| Flat {
            identity,
            direction: grant.direction,
            protocol,
            range,
            rule: grant.rule,
        };
        match &grant.ports {
            Ports::Everything => all.extend(peers.into_iter().map(|peer| flat(peer, None, None))),
            Ports::All(protocol) => all.extend(peers.into_iter().map(|peer| flat(peer, Some(*protocol), None))),
            Ports::Range(protocol, first, last) => {
                all.extend(peers.into_iter().map(|peer| flat(peer, Some(*protocol), Some((*first, *last)))));
            }
            Ports::Named(name) => {
                let Some(with_name) = identities.ports.get(&port_number(name)) else { continue };
                let mut named: Vec<_> = match &grant.peers {
                    None => with_name.iter().collect(),
                    Some(_) => peers.iter().filter_map(|peer| with_name.get_key_value(peer)).collect(),
                };
                named.sort();
                for (identity, ports) in named {
                    all.extend(ports.iter().map(|port| flat(*identity, Some(name.protocol), Some((*port, *port)))));
                }
            }
        }
    }
    all
}
