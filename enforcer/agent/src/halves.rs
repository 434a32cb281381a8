//! Links on which only one half of connections crosses the hooks: a CNI that hands packets straight into the pod
//! (`bpf_redirect_peer`) goes past the host side of its veth, and half of what is judged there is not there.
//!
//! It is found in the TCP entries that are swept anyway. An entry shows **one half** where packets one way were
//! counted, SYN and ACK among them, and none the other way: who sent them answers something that never crossed this
//! hook. A SYN scan shows none (a SYN answers nothing), nor does UDP that nobody answers. What it proves depends on
//! who can have made it up:
//!
//! - **Suspected**: [`ENOUGH`] such connections, and none since that crossed both ways. The pod itself can send such
//!   packets into the void, so it is told and has no other consequence.
//! - **Shown**: the pod opened the connection to another pod of this node, and nothing came back over the pod's hook,
//!   while the peer's hook saw the peer answer and then go on (PSH or FIN, no RST). It goes on only where the pod has
//!   acknowledged the number that its answer carried (RFC 9293, 3.10.7.4): the pod had the answer, by a way that this
//!   hook does not see. A single pod cannot make that up, whatever it sends and leaves unanswered, except towards a
//!   server with TCP Fast Open (RFC 7413). Packets *from* the pod that are missing are never shown: in learn and
//!   audit the pod can send what the hook refuses to read and the peer does not.
//!
//! The link is whole again once a connection that began later crossed it both ways: of a kind that could have shown
//! it, which for **shown** is one between two pods of this node.

use flow::{Address, Direction, TCP, tcp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    sync::Arc,
};
use verdict::{
    Admission, Evidence, Phase, State,
    abi::{
        ConnectionKey, ConnectionParts, ConnectionRecord, Nanos, OWN_ADDRESSES, connection_key, connection_parts, word,
    },
};

/// Connections with one half alone that make a suspicion.
pub(crate) const ENOUGH: usize = 3;
/// What is younger may have an answer on its way.
const YOUNG: Nanos = 1_000_000_000;

/// How sure it is that only one half crosses a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The pod alone may have made it up.
    Suspected,
    /// Two pods' hooks agree.
    Shown,
}

/// A link that only one half of connections crosses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfSeen {
    /// The half that does not cross the hooks, from the pod's side.
    pub missing: Direction,
    /// How sure that is.
    pub certainty: Certainty,
    /// The pod's end and the peer's of a connection that shows it.
    pub example: (SocketAddr, SocketAddr),
}

impl fmt::Display for HalfSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = match self.missing {
            Direction::Inbound => "packets to the pod do not cross its hooks",
            Direction::Outbound => "packets from the pod do not cross its hooks",
        };
        let (pod, peer) = self.example;
        match self.certainty {
            Certainty::Shown => write!(f, "{missing}: both pods of {pod} and {peer} talk, and one half is not seen"),
            Certainty::Suspected => {
                write!(f, "it seems that {missing} ({pod} and {peer}, say), unless the pod makes that up")
            }
        }
    }
}

/// What entries show of each pod's link, by the pod's UID.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    links: BTreeMap<Arc<str>, Link>,
}

#[derive(Debug, Default)]
struct Link {
    /// When the last connection began that crossed both ways: of any peer, and of a pod of this node.
    whole: Nanos,
    whole_here: Nanos,
    alone: BTreeMap<ConnectionKey, (Nanos, HalfSeen)>,
    shown: Option<(Nanos, HalfSeen)>,
}

/// A pod with an endpoint.
pub(crate) struct Pod {
    /// Its UID.
    pub(crate) uid: Arc<str>,
    /// Its own addresses.
    pub(crate) addresses: [Address; OWN_ADDRESSES],
}

/// One sweep's entries.
pub(crate) struct Swept<'a> {
    /// Pods by ordinal.
    pub(crate) places: &'a BTreeMap<u32, Pod>,
    /// Addresses of nodes, whose packets take ways of their own.
    pub(crate) nodes: &'a BTreeMap<Address, u32>,
    /// Entries that go on.
    pub(crate) entries: &'a [(ConnectionKey, ConnectionRecord)],
    /// The kernel's clock.
    pub(crate) now: Nanos,
}

impl Halves {
    /// Takes in what one sweep found.
    pub(crate) fn look(&mut self, swept: &Swept<'_>) {
        let here = swept.own_addresses();
        let living: BTreeSet<&Arc<str>> = swept.places.values().map(|place| &place.uid).collect();
        self.links.retain(|uid, _| living.contains(uid));
        let mut whole: HashMap<u32, [Nanos; 2]> = HashMap::new();
        let mut alone = Vec::new();
        for (key, record) in swept.entries {
            let parts = connection_parts(key);
            let began = record[word::STARTED];
            let says = parts.protocol == TCP && swept.now.saturating_sub(began) >= YOUNG;
            let Some(crossed) = crossed(record).filter(|_| says) else { continue };
            if swept.nodes.contains_key(&parts.peer) {
                continue;
            }
            match crossed {
                Crossed::OnlyOne { missing } => alone.push((key, record, parts, missing)),
                Crossed::Both => {
                    let [last, last_here] = whole.entry(parts.endpoint).or_default();
                    *last = began.max(*last);
                    if here.get(&parts.peer).is_some_and(|ordinal| *ordinal != parts.endpoint) {
                        *last_here = began.max(*last_here);
                    }
                }
            }
        }
        for (ordinal, [last, last_here]) in whole {
            let Some(place) = swept.places.get(&ordinal) else { continue };
            let link = self.links.entry(place.uid.clone()).or_default();
            link.whole = link.whole.max(last);
            link.whole_here = link.whole_here.max(last_here);
        }
        // Hardly ever anything, so the other ends are looked up only then.
        let by_key: Entries<'_> =
            if alone.is_empty() { HashMap::new() } else { swept.entries.iter().map(|(k, r)| (k, r)).collect() };
        for (key, record, parts, missing) in alone {
            let Some(place) = swept.places.get(&parts.endpoint) else { continue };
            let own = parts.local(&place.addresses);
            let example =
                (SocketAddr::new(own.ip(), parts.local_port), SocketAddr::new(parts.peer.ip(), parts.peer_port));
            let mut half = HalfSeen { missing, certainty: Certainty::Suspected, example };
            let began = record[word::STARTED];
            let link = self.links.entry(place.uid.clone()).or_default();
            if link.alone.len() < ENOUGH {
                link.alone.insert(*key, (began, half.clone()));
            }
            if missing == Direction::Inbound
                && is_opened_by_the_pod(record)
                && let Some(peer) = here.get(&parts.peer).filter(|ordinal| **ordinal != parts.endpoint)
                && answers_and_goes_on(&by_key, &mirrored(&parts, own, *peer, &swept.places[peer]), began)
                && link.shown.as_ref().is_none_or(|(at, _)| *at <= began)
            {
                half.certainty = Certainty::Shown;
                link.shown = Some((began, half));
            }
        }
        self.links.values_mut().for_each(Link::conclude);
    }

    /// What is known of a pod's link.
    pub(crate) fn of(&self, uid: &str) -> Option<&HalfSeen> {
        let link = self.links.get(uid)?;
        match &link.shown {
            Some((_, half)) => Some(half),
            None if link.alone.len() >= ENOUGH => link.alone.values().next_back().map(|(_, half)| half),
            None => None,
        }
    }

    /// All that is known, by UID.
    pub(crate) fn all(&self) -> BTreeMap<Arc<str>, HalfSeen> {
        self.links.keys().filter_map(|uid| Some((uid.clone(), self.of(uid)?.clone()))).collect()
    }
}

impl Swept<'_> {
    /// Which endpoint has an address.
    fn own_addresses(&self) -> HashMap<Address, u32> {
        let each = self.places.iter().flat_map(|(ordinal, place)| place.addresses.map(|address| (address, *ordinal)));
        each.filter(|(address, _)| *address != Address::default()).collect()
    }
}

impl Link {
    /// What began before the last that crossed both ways says nothing any more.
    fn conclude(&mut self) {
        let (whole, whole_here) = (self.whole, self.whole_here);
        self.alone.retain(|_, (began, _)| *began > whole);
        self.shown.take_if(|(began, _)| *began <= whole_here);
    }
}

type Entries<'a> = HashMap<&'a ConnectionKey, &'a ConnectionRecord>;

/// What one entry counted.
enum Crossed {
    Both,
    /// The other half is missing.
    OnlyOne {
        missing: Direction,
    },
}

/// Which ways of a connection crossed the hook; `None`: it does not say.
fn crossed(record: &ConnectionRecord) -> Option<Crossed> {
    let state = State(record[word::STATE]);
    // What was denied has no other half, and what is the node's own goes its own way.
    if state.phase() == Phase::Tombstone || state.admission() != Admission::Policy {
        return None;
    }
    let (flags, missing) = match (record[word::PACKETS_IN], record[word::PACKETS_OUT]) {
        (0, 0) => return None,
        (0, _) => ((record[word::SIGNS] >> 8) as u8, Direction::Inbound),
        (_, 0) => (record[word::SIGNS] as u8, Direction::Outbound),
        _ => return Some(Crossed::Both),
    };
    const ANSWERS: u8 = tcp::SYN | tcp::ACK;
    (flags & (ANSWERS | tcp::RST) == ANSWERS).then_some(Crossed::OnlyOne { missing })
}

/// The key of a connection at its other end, a pod of this node.
fn mirrored(parts: &ConnectionParts, own: Address, peer: u32, place: &Pod) -> ConnectionKey {
    let index = place.addresses.iter().position(|address| *address == parts.peer).unwrap_or_default();
    connection_key(peer, index as u32, own, parts.local_port, parts.peer_port, parts.protocol)
}

/// Whether the hook saw the SYN with which the pod opened a connection, as the first of it.
fn is_opened_by_the_pod(record: &ConnectionRecord) -> bool {
    let state = State(record[word::STATE]);
    state.opened() == Direction::Outbound && state.evidence() == Evidence::Opening && !state.is_adopted()
}

/// Whether a pod's hook saw it answer an opening, not before `since`, and then send data or its end. An entry that is
/// older may be of an earlier connection of the same ends, whose numbers both know.
fn answers_and_goes_on(entries: &Entries<'_>, key: &ConnectionKey, since: Nanos) -> bool {
    const PSH: u8 = 0x08;
    entries.get(key).is_some_and(|record| {
        let flags = (record[word::SIGNS] >> 8) as u8;
        State(record[word::STATE]).phase() != Phase::Tombstone
            && record[word::STARTED] >= since
            && flags & (tcp::SYN | tcp::RST) == tcp::SYN
            && flags & (PSH | tcp::FIN) != 0
    })
}

#[cfg(test)]
mod tests;
