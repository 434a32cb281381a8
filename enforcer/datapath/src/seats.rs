//! Which ordinal each pod has in the kernel.
//!
//! The compiler numbers pods anew in every agent's life. But connections are kept under their pod's ordinal, so
//! a pod keeps the one it has, and one whose connections may still be there is given to nobody else.

use crate::Place;
use compile::Plan;
use std::collections::{BTreeMap, BTreeSet};
use verdict::abi::{MAX_ENDPOINTS, client_of, client_peer};

/// The kernel's ordinal for each of the compiler's.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    given: BTreeMap<u32, u32>,
    /// Ordinals with entries that an earlier agent left.
    rest: BTreeSet<u32>,
    highest: u32,
}

impl Seats {
    /// After an earlier agent: its endpoints, and the ordinals its entries have.
    pub(crate) fn after(places: &BTreeMap<u32, Place>, entries: BTreeSet<u32>) -> Self {
        let highest = places.keys().chain(&entries).max().copied().unwrap_or(0);
        Self { given: BTreeMap::new(), rest: entries, highest }
    }

    /// Rewrites a plan's ordinals. `places` are the endpoints that stand. A pod for which there is no room
    /// keeps the compiler's ordinal; the plan does not fit then.
    pub(crate) fn number(&mut self, plan: &mut Plan, places: &BTreeMap<u32, Place>) {
        let used: BTreeSet<u32> =
            plan.table.endpoints.values().chain(&plan.endpoints_removed).map(|e| e.ordinal).collect();
        self.given.retain(|theirs, _| used.contains(theirs));
        let mut taken: BTreeSet<u32> = self.given.values().copied().collect();
        for endpoint in plan.table.endpoints.values() {
            if self.given.contains_key(&endpoint.ordinal) {
                continue;
            }
            let own = |(ordinal, place): &(&u32, &Place)| {
                place.uid == endpoint.uid && place.addresses == endpoint.addresses && !taken.contains(*ordinal)
            };
            let seat = match places.iter().find(own) {
                Some((ordinal, _)) => *ordinal,
                None => self.free(endpoint.ordinal, places, &taken),
            };
            taken.insert(seat);
            self.given.insert(endpoint.ordinal, seat);
        }
        let seat = |theirs: u32| self.given.get(&theirs).copied().unwrap_or(theirs);
        plan.table.endpoints.values_mut().for_each(|endpoint| endpoint.ordinal = seat(endpoint.ordinal));
        plan.endpoints_removed.iter_mut().for_each(|endpoint| endpoint.ordinal = seat(endpoint.ordinal));
        let changes = plan.bridging.iter_mut().chain(&mut plan.endpoints).chain(&mut plan.rejudging);
        changes.for_each(|change| change.ordinal = seat(change.ordinal));
        let clients =
            plan.peers_set.values_mut().chain(plan.table.peers.values_mut()).filter(|peer| client_of(**peer) != 0);
        clients.for_each(|peer| *peer = client_peer(seat(client_of(*peer))));
        plan.peak.endpoints = plan.table.endpoints.values().map(|e| e.ordinal as usize + 1).max().unwrap_or(0);
    }

    /// The next ordinal that nobody has or had, from the compiler's on, behind those of the agent before.
    fn free(&self, theirs: u32, places: &BTreeMap<u32, Place>, taken: &BTreeSet<u32>) -> u32 {
        let wheel = MAX_ENDPOINTS - 1;
        let first = theirs.wrapping_add(self.highest).wrapping_sub(1) % wheel;
        let mut seats = (0..wheel).map(|step| (first + step) % wheel + 1);
        let free = |seat: &u32| !taken.contains(seat) && !places.contains_key(seat) && !self.rest.contains(seat);
        seats.find(free).unwrap_or(theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compile::{Endpoint, EndpointChange};
    use flow::Address;
    use std::sync::Arc;
    use verdict::Mode;

    fn plan(pods: &[(u32, &str)]) -> Plan {
        let mut plan = Plan::default();
        for (ordinal, uid) in pods {
            let uid: Arc<str> = (*uid).into();
            let change = EndpointChange { ordinal: *ordinal, uid: uid.clone(), generation: 1 };
            plan.endpoints.push(change.clone());
            plan.rejudging.push(change);
            plan.peers_set.insert(Address::v4([10, 0, 0, uid.as_bytes()[0]]), client_peer(*ordinal));
            let endpoint = Endpoint {
                ordinal: *ordinal,
                uid: uid.clone(),
                namespace: "n".into(),
                name: uid.clone(),
                addresses: [Address::default(); 4],
                further: Vec::new(),
                mode: Mode::Learn,
                in_force: 1,
                staged: 0,
                generation: 1,
            };
            plan.table.endpoints.insert(uid, endpoint);
        }
        plan
    }

    fn place(uid: &str) -> Place {
        Place::adopted(uid.into(), [Address::default(); 4], Mode::Learn)
    }

    fn numbered(seats: &mut Seats, pods: &[(u32, &str)], places: &BTreeMap<u32, Place>) -> Vec<u32> {
        let mut plan = plan(pods);
        seats.number(&mut plan, places);
        let ordinal = |uid: &Arc<str>| plan.table.endpoints[uid].ordinal;
        assert!(plan.endpoints.iter().chain(&plan.rejudging).all(|change| ordinal(&change.uid) == change.ordinal));
        assert!(
            plan.peers_set.values().eq(plan
                .table
                .endpoints
                .values()
                .map(|e| client_peer(e.ordinal))
                .collect::<Vec<_>>()
                .iter())
        );
        plan.table.endpoints.values().map(|endpoint| endpoint.ordinal).collect()
    }

    #[test]
    fn with_nothing_before_the_compilers_ordinals_stand() {
        let none = BTreeMap::new();
        assert_eq!(numbered(&mut Seats::default(), &[(1, "a"), (2, "b"), (4095, "c")], &none), [1, 2, 4095]);
    }

    #[test]
    fn a_pod_keeps_its_ordinal_and_a_gone_pods_is_given_to_nobody() {
        let places: BTreeMap<u32, Place> = [(3, place("b")), (5, place("gone"))].into();
        let mut seats = Seats::after(&places, [3, 5, 9].into());
        assert_eq!(numbered(&mut seats, &[(1, "a"), (2, "b"), (3, "c")], &places), [10, 3, 12]);
        // The same again in a later plan.
        let mut stand = places.clone();
        stand.remove(&5);
        stand.extend([(10, place("a")), (12, place("c"))]);
        assert_eq!(numbered(&mut seats, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")], &stand), [10, 3, 12, 13]);
    }

    #[test]
    fn ordinals_come_round_and_pass_over_those_in_use() {
        let places: BTreeMap<u32, Place> = [(4094, place("x")), (1, place("y"))].into();
        let mut seats = Seats::after(&places, BTreeSet::new());
        assert_eq!(numbered(&mut seats, &[(1, "a"), (2, "b"), (3, "c")], &places), [4095, 2, 3]);
    }
}
