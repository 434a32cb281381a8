//! A change of tables as data, in the order in which it is carried out:
//!
//! 1. rules, frontends, port classes, generations and peers that the new tables need beside the old
//!    ones: a client is named to the hooks of backends before its slot leaves a refusal to them;
//! 2. [`Plan::bridging`]: endpoints whose slots do not know a new identity yet get slots that know both
//!    the old numbers and the new ones, under the old policies;
//! 3. [`Plan::identities_set`], longest prefix first, then [`Plan::identities_removed`], shortest first: at
//!    every moment each address has its old identity or its new one;
//! 4. [`Plan::endpoints`]: the new generation and a new epoch, for every endpoint whose rules changed or
//!    whose slots look at an identity that an address got or lost;
//! 5. [`Plan::rejudging`]: another epoch for the endpoints whose hooks ask the policy of a client again that got a
//!    generation in step 4;
//! 6. once every packet that began under an old word is judged ([`Plan::removes_nothing`]), what nobody looks at any
//!    more is removed.

use crate::classes::Prefix;
use crate::{Endpoint, RuleTable, classes::longest, slots::Slot};
use flow::Address;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};
use verdict::abi::{ANYONE, EGRESS_ISOLATED, FRONTENDS, GenerationRecord, RuleKey, client_of};

/// What is to be done, and the table it leads to.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The tables after it.
    pub table: RuleTable,
    /// Slots to write, by number: new ones and those of the bridge.
    pub slots_added: BTreeMap<u32, Arc<Slot>>,
    /// Frontends to write: keys and values of `RULES`.
    pub frontends_added: BTreeMap<RuleKey, u32>,
    /// Generations to write, by index.
    pub generations_added: BTreeMap<u32, GenerationRecord>,
    /// Who opens from which address, to write.
    pub peers_set: BTreeMap<Address, u32>,
    /// Endpoints to send over a generation of the bridge.
    pub bridging: Vec<EndpointChange>,
    /// Identities to write, longest prefix first.
    pub identities_set: Vec<(Prefix, u32)>,
    /// Prefixes to remove, shortest first.
    pub identities_removed: Vec<Prefix>,
    /// Endpoints that get a generation and an epoch.
    pub endpoints: Vec<EndpointChange>,
    /// Endpoints that get another epoch, after the clients have their generations, and again after
    /// [`Plan::peers_removed`].
    pub rejudging: Vec<EndpointChange>,
    /// Endpoints that go.
    pub endpoints_removed: Vec<Endpoint>,
    /// Addresses from which nobody opens any more that counts.
    pub peers_removed: Vec<Address>,
    /// Frontends to remove.
    pub frontends_removed: Vec<RuleKey>,
    /// Slots to remove, by number: old ones and those of the bridge.
    pub slots_removed: BTreeMap<u32, Arc<Slot>>,
    /// Unchanged or not, what each table holds while the plan is carried out.
    pub peak: Counts,
    pub(crate) next: crate::compiler::State,
}

/// An endpoint's generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointChange {
    /// Its ordinal.
    pub ordinal: u32,
    /// Its UID.
    pub uid: Arc<str>,
    /// The generation it gets.
    pub generation: u32,
}

/// How many entries the kernel's tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    pub identities: usize,
    pub peers: usize,
    pub rules: usize,
    pub port_classes: usize,
    pub generations: usize,
    pub endpoints: usize,
}

/// How many entries the kernel's tables have room for.
pub type Limits = Counts;

/// A plan that does not fit: nothing of it was done, the old tables stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TooLarge {
    /// Which table, how many entries it would hold, how many it has room for.
    pub tables: Vec<(&'static str, usize, usize)>,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the policies do not fit, the old ones stay in force:")?;
        for (table, needed, room) in &self.tables {
            write!(f, " {table} {needed} of {room};")?;
        }
        write!(f, " give the agent larger tables, or fewer rules")
    }
}

impl Plan {
    /// Whether it fits, counting what old and new need beside each other.
    pub fn fits(&self, limits: &Limits) -> Result<(), TooLarge> {
        let (needs, room) = (self.peak.list(), limits.list());
        let over = needs.iter().zip(room).filter(|(needs, room)| needs.1 > room.1);
        let tables: Vec<_> = over.map(|(needs, room)| (needs.0, needs.1, room.1)).collect();
        if tables.is_empty() { Ok(()) } else { Err(TooLarge { tables }) }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.slots_added.is_empty()
            && self.frontends_added.is_empty()
            && self.frontends_removed.is_empty()
            && self.generations_added.is_empty()
            && self.peers_set.is_empty()
            && self.identities_set.is_empty()
            && self.identities_removed.is_empty()
            && self.endpoints.is_empty()
            && self.endpoints_removed.is_empty()
            && self.peers_removed.is_empty()
            && self.slots_removed.is_empty()
    }
}

impl Plan {
    /// Whether no packet that is held up under an old word could miss something: it need not be waited for.
    pub fn removes_nothing(&self) -> bool {
        self.peers_removed.is_empty() && self.frontends_removed.is_empty() && self.slots_removed.is_empty()
    }
}

impl EndpointChange {
    /// To the endpoint's own generation.
    fn of(endpoint: &Endpoint) -> Self {
        Self { ordinal: endpoint.ordinal, uid: endpoint.uid.clone(), generation: endpoint.generation }
    }
}

impl Counts {
    fn list(&self) -> [(&'static str, usize); 6] {
        [
            ("identities", self.identities),
            ("peers", self.peers),
            ("rules", self.rules),
            ("port classes", self.port_classes),
            ("generations", self.generations),
            ("endpoints", self.endpoints),
        ]
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.list().iter().map(|(name, n)| format!("{n} {name}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// The bridge of an endpoint: slots under the old policies that know old and new identities.
pub(crate) struct Bridge {
    pub(crate) change: EndpointChange,
    pub(crate) record: GenerationRecord,
    pub(crate) slots: Vec<(u32, Arc<Slot>)>,
}

/// The way from `old` to `new`.
pub(crate) fn plan(old: &RuleTable, new: RuleTable, bridges: Vec<Bridge>, next: crate::compiler::State) -> Plan {
    let mut plan = Plan { next, ..Plan::default() };
    let mut slots_used = new.slots.clone();
    let mut generations_used = new.generations.clone();
    plan.peers_set = beside(&new.peers, &old.peers);
    plan.peers_removed = old.peers.keys().filter(|address| !new.peers.contains_key(address)).copied().collect();
    for bridge in bridges {
        name_client(&mut plan, old, &new, &bridge);
        slots_used.extend(bridge.slots);
        generations_used.insert(bridge.change.generation, bridge.record);
        plan.bridging.push(bridge.change);
    }
    plan.slots_added = beside(&slots_used, &old.slots);
    plan.frontends_added = beside(&new.frontends, &old.frontends);
    plan.frontends_removed = old.frontends.keys().filter(|key| !new.frontends.contains_key(*key)).copied().collect();
    plan.generations_added = beside(&generations_used, &old.generations);
    let touched = identities(&mut plan, old, &new);
    endpoints(&mut plan, old, &new, &touched);
    rejudging(&mut plan, old, &new);
    let mut standing = old.slots.clone();
    standing.extend(slots_used);
    plan.slots_removed =
        standing.iter().filter(|(n, _)| !new.slots.contains_key(n)).map(|(n, s)| (*n, s.clone())).collect();
    plan.peak = Counts {
        identities: old.identities.keys().chain(new.identities.keys()).collect::<BTreeSet<_>>().len(),
        peers: old.peers.keys().chain(plan.peers_set.keys()).collect::<BTreeSet<_>>().len(),
        rules: standing.values().map(|slot| slot.rules_len()).sum::<usize>()
            + old.frontends.len()
            + plan.frontends_added.len(),
        port_classes: standing.values().map(|slot| slot.port_classes_len()).sum(),
        generations: old.generations.keys().chain(generations_used.keys()).max().map_or(0, |max| *max as usize + 1),
        endpoints: new.endpoints.values().map(|e| e.ordinal as usize + 1).max().unwrap_or(0),
    };
    plan.table = new;
    plan
}

/// What `new` has that `old` does not have, or has otherwise.
fn beside<K: Ord + Clone, V: PartialEq + Clone>(new: &BTreeMap<K, V>, old: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Plans the identities, and returns the numbers that some address gets or loses.
fn identities(plan: &mut Plan, old: &RuleTable, new: &RuleTable) -> BTreeSet<u32> {
    let mut touched = BTreeSet::new();
    plan.identities_set = beside(&new.identities, &old.identities).into_iter().collect();
    plan.identities_set.sort_by_key(|(prefix, _)| (std::cmp::Reverse(prefix.length), *prefix));
    for (prefix, number) in &plan.identities_set {
        touched.insert(*number);
        touched.extend(longest(&old.identities, prefix));
    }
    plan.identities_removed =
        old.identities.keys().filter(|prefix| !new.identities.contains_key(prefix)).copied().collect();
    plan.identities_removed.sort_by_key(|prefix| (prefix.length, *prefix));
    for prefix in &plan.identities_removed {
        touched.extend(old.identities.get(prefix));
        touched.extend(longest(&new.identities, prefix));
    }
    touched.remove(&ANYONE);
    touched
}

fn endpoints(plan: &mut Plan, old: &RuleTable, new: &RuleTable, touched: &BTreeSet<u32>) {
    // Where an address begins or ceases to lead to Services, every slot that judges openings says something else
    // of it, though it may have no rule for its identity.
    let services_touched = touched.iter().any(|identity| identity & FRONTENDS != 0);
    // Slots are shared: each is looked through once.
    let mut memo: BTreeMap<u32, bool> = BTreeMap::new();
    let mut looks_at = |table: &RuleTable, number: u32| {
        *memo.entry(number).or_insert_with(|| {
            services_touched && number & EGRESS_ISOLATED != 0
                || table.slots.get(&number).is_some_and(|slot| slot.identities().any(|id| touched.contains(&id)))
        })
    };
    let bridged: BTreeSet<u32> = plan.bridging.iter().map(|change| change.ordinal).collect();
    for (uid, endpoint) in &new.endpoints {
        let stays = old.endpoints.get(uid).is_some_and(|before| {
            before.ordinal == endpoint.ordinal
                && before.generation == endpoint.generation
                && !bridged.contains(&endpoint.ordinal)
                && ![before.in_force, before.staged].iter().any(|slot| looks_at(old, *slot))
        });
        if !stays {
            plan.endpoints.push(EndpointChange::of(endpoint));
        }
    }
    let goes = |before: &&Endpoint| new.endpoints.get(&before.uid).is_none_or(|after| after.ordinal != before.ordinal);
    plan.endpoints_removed = old.endpoints.values().filter(goes).cloned().collect();
}

/// A client that leaves refusals to backends under a slot of the bridge alone is named while that stands.
fn name_client(plan: &mut Plan, old: &RuleTable, new: &RuleTable, bridge: &Bridge) {
    if !bridge.slots.iter().any(|(_, slot)| slot.leaves_refusals()) {
        return;
    }
    let Some(endpoint) = new.endpoints.get(&bridge.change.uid) else { return };
    for (address, peer) in endpoint.as_client() {
        if !old.peers.contains_key(&address) && !new.peers.contains_key(&address) {
            plan.peers_set.insert(address, peer);
            plan.peers_removed.push(address);
        }
    }
}

/// Where a client has another generation, what hooks admitted from it or refused it is judged again: at all of them, since
/// a client may open to every pod.
fn rejudging(plan: &mut Plan, old: &RuleTable, new: &RuleTable) {
    let is_client = |uid: &Arc<str>| {
        [old, new].iter().any(|table| table.endpoints.get(uid).is_some_and(|endpoint| table.leaves_refusals(endpoint)))
    };
    let named = plan.peers_set.values().any(|peer| client_of(*peer) != 0);
    if named || plan.endpoints.iter().any(|change| is_client(&change.uid)) {
        plan.rejudging = new.endpoints.values().map(EndpointChange::of).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NESTED: [&str; 8] = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.0/24",
        "10.1.1.0/30",
        "10.1.1.1/32",
        "10.1.1.2/32",
        "10.2.0.0/16",
        "0.0.0.0/0",
    ];

    fn table(numbers: &[Option<u32>]) -> RuleTable {
        let nets = NESTED.iter().zip(numbers);
        let identities = nets.filter_map(|(net, number)| Some((Prefix::of(&net.parse().unwrap()), (*number)?)));
        RuleTable { identities: identities.collect(), ..RuleTable::default() }
    }

    fn identity(table: &BTreeMap<Prefix, u32>, probe: [u8; 4]) -> u32 {
        longest(table, &Prefix::host(Address::v4(probe))).copied().unwrap_or(ANYONE)
    }

    proptest! {
        #[test]
        fn an_address_has_its_old_identity_or_its_new_one_after_every_store(
            old in prop::array::uniform8(prop::option::of(0u32..5)),
            new in prop::array::uniform8(prop::option::of(5u32..9)),
        ) {
            let (old, new) = (table(&old), table(&new));
            let plan = plan(&old, new.clone(), Vec::new(), crate::compiler::State::default());
            let mut now = old.identities.clone();
            let sets = plan.identities_set.iter().map(|(prefix, number)| (*prefix, Some(*number)));
            for (prefix, number) in sets.chain(plan.identities_removed.iter().map(|prefix| (*prefix, None))) {
                match number {
                    Some(number) => now.insert(prefix, number),
                    None => now.remove(&prefix),
                };
                for probe in [[10, 1, 1, 1], [10, 1, 1, 2], [10, 1, 1, 3], [10, 1, 1, 9], [10, 1, 9, 9], [10, 2, 0, 1], [10, 9, 0, 0], [9, 9, 9, 9]] {
                    let (before, after) = (identity(&old.identities, probe), identity(&new.identities, probe));
                    let seen = identity(&now, probe);
                    prop_assert!(seen == before || seen == after, "{probe:?} is {seen}, was {before}, becomes {after}");
                }
            }
            prop_assert_eq!(now, new.identities);
        }
    }
}
