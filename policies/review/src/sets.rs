//! What may pass between two ends, as a value: ports of each protocol, interned.

use model::{
    policy::Protocol,
    ports::{self, ALL_PORTS, Ports},
};
use std::{cell::RefCell, collections::HashMap, fmt};

/// The ports that may be opened, by protocol in the order of [`Protocol::ALL`]; each list sorted,
/// disjoint and not adjacent, within 1 to 65535. Equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Allowed {
    ports: [Ports; 3],
}

impl Allowed {
    /// Every port of every protocol.
    pub fn all() -> Self {
        Self { ports: std::array::from_fn(|_| vec![ALL_PORTS]) }
    }

    /// These ports of one protocol; any order, port 0 left out.
    pub fn of(protocol: Protocol, mut intervals: Ports) -> Self {
        intervals.iter_mut().for_each(|(first, _)| *first = (*first).max(1));
        let mut ports: [Ports; 3] = Default::default();
        ports[index(protocol)] = ports::union(intervals);
        Self { ports }
    }

    /// The ports of a protocol.
    pub fn ports(&self, protocol: Protocol) -> &[(u16, u16)] {
        &self.ports[index(protocol)]
    }

    /// Whether nothing may pass.
    pub fn is_empty(&self) -> bool {
        self.ports.iter().all(Vec::is_empty)
    }

    /// Whether everything may.
    pub fn is_all(&self) -> bool {
        self.ports.iter().all(|ports| *ports == [ALL_PORTS])
    }

    /// Whether this port is in it.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        self.ports(protocol).iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// What either holds.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.with(other, |a, b| ports::union([a, b].concat()))
    }

    /// What both hold.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.with(other, ports::intersection)
    }

    /// What this holds and the other does not.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.with(other, ports::difference)
    }

    /// The protocols that hold something, with their ports, in order.
    pub fn by_protocol(&self) -> impl Iterator<Item = (Protocol, &[(u16, u16)])> {
        let all = Protocol::ALL.into_iter().zip(&self.ports).map(|(protocol, ports)| (protocol, ports.as_slice()));
        all.filter(|(_, ports)| !ports.is_empty())
    }

    fn with(&self, other: &Self, combine: impl Fn(&[(u16, u16)], &[(u16, u16)]) -> Ports) -> Self {
        Self { ports: std::array::from_fn(|i| combine(&self.ports[i], &other.ports[i])) }
    }
}

fn index(protocol: Protocol) -> usize {
    Protocol::ALL.iter().position(|known| *known == protocol).unwrap_or_default()
}

/// Ports as people write them: `80,8000-8010`.
pub fn ports_text(ports: &[(u16, u16)]) -> String {
    let one = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

impl fmt::Display for Allowed {
    /// `TCP 80,8000-8010; UDP 53`, `all` for everything, `none` for nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.pad("none");
        }
        if self.is_all() {
            return f.pad("all");
        }
        let one = |(protocol, ports): (Protocol, &[(u16, u16)])| match ports {
            [ALL_PORTS] => format!("{} all", protocol.name()),
            ports => format!("{} {}", protocol.name(), ports_text(ports)),
        };
        f.pad(&self.by_protocol().map(one).collect::<Vec<_>>().join("; "))
    }
}

/// A set in [`Sets`]: equal numbers are equal sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(u32);

impl SetId {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(1);
}

/// Every set that was met, once each; combining two sets a second time is a look-up.
#[derive(Debug)]
pub struct Sets(RefCell<Interned>);

#[derive(Debug)]
struct Interned {
    list: Vec<Allowed>,
    ids: HashMap<Allowed, SetId>,
    unions: HashMap<(SetId, SetId), SetId>,
    intersections: HashMap<(SetId, SetId), SetId>,
    differences: HashMap<(SetId, SetId), SetId>,
}

impl Default for Sets {
    fn default() -> Self {
        let list = vec![Allowed::default(), Allowed::all()];
        let ids = HashMap::from([(Allowed::default(), SetId::NONE), (Allowed::all(), SetId::ALL)]);
        let (unions, intersections, differences) = Default::default();
        Self(RefCell::new(Interned { list, ids, unions, intersections, differences }))
    }
}

impl Sets {
    /// The number of a set.
    pub fn id(&self, set: Allowed) -> SetId {
        self.0.borrow_mut().id(set)
    }

    /// The set of a number.
    pub fn get(&self, id: SetId) -> Allowed {
        self.0.borrow().list[id.0 as usize].clone()
    }

    /// What either holds.
    pub fn union(&self, a: SetId, b: SetId) -> SetId {
        match (a, b) {
            (SetId::NONE, other) | (other, SetId::NONE) => other,
            (SetId::ALL, _) | (_, SetId::ALL) => SetId::ALL,
            _ if a == b => a,
            _ => self.0.borrow_mut().combined((a.min(b), a.max(b)), |i| &mut i.unions, Allowed::union),
        }
    }

    /// What both hold.
    pub fn intersection(&self, a: SetId, b: SetId) -> SetId {
        match (a, b) {
            (SetId::ALL, other) | (other, SetId::ALL) => other,
            (SetId::NONE, _) | (_, SetId::NONE) => SetId::NONE,
            _ if a == b => a,
            _ => self.0.borrow_mut().combined((a.min(b), a.max(b)), |i| &mut i.intersections, Allowed::intersection),
        }
    }

    /// What `a` holds and `b` does not.
    pub fn minus(&self, a: SetId, b: SetId) -> SetId {
        match (a, b) {
            (SetId::NONE, _) | (_, SetId::ALL) => SetId::NONE,
            (_, SetId::NONE) => a,
            _ if a == b => SetId::NONE,
            _ => self.0.borrow_mut().combined((a, b), |i| &mut i.differences, Allowed::minus),
        }
    }
}

type Memo = HashMap<(SetId, SetId), SetId>;

impl Interned {
    fn id(&mut self, set: Allowed) -> SetId {
        if let Some(id) = self.ids.get(&set) {
            return *id;
        }
        let id = SetId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(set.clone());
        self.ids.insert(set, id);
        id
    }

    fn combined(
        &mut self,
        pair: (SetId, SetId),
        memo: impl Fn(&mut Self) -> &mut Memo,
        combine: impl Fn(&Allowed, &Allowed) -> Allowed,
    ) -> SetId {
        if let Some(id) = memo(self).get(&pair) {
            return *id;
        }
        let set = combine(&self.list[pair.0.0 as usize], &self.list[pair.1.0 as usize]);
        let id = self.id(set);
        memo(self).insert(pair, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_print_as_people_write_them() {
        let tcp = Allowed::of(Protocol::Tcp, vec![(8000, 8010), (80, 80)]);
        let both = tcp.union(&Allowed::of(Protocol::Udp, vec![(53, 53)]));
        assert_eq!(both.to_string(), "TCP 80,8000-8010; UDP 53");
        assert_eq!(Allowed::all().minus(&both).union(&both), Allowed::all());
        assert_eq!(Allowed::of(Protocol::Sctp, vec![(0, 65_535)]).to_string(), "SCTP all");
        assert_eq!(Allowed::default().to_string(), "none");
    }

    #[test]
    fn equal_sets_have_equal_numbers() {
        let sets = Sets::default();
        let a = sets.id(Allowed::of(Protocol::Tcp, vec![(80, 81)]));
        let b = sets.id(Allowed::of(Protocol::Tcp, vec![(82, 90)]));
        let whole = sets.id(Allowed::of(Protocol::Tcp, vec![(80, 90)]));
        assert_eq!(sets.union(a, b), whole);
        assert_eq!(sets.minus(whole, b), a);
        assert_eq!(sets.intersection(a, b), SetId::NONE);
        assert_eq!(sets.union(whole, SetId::ALL), SetId::ALL);
    }
}
