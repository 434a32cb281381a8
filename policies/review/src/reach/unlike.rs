//! Where two reaches of one universe can differ, found without looking at every pair.
//!
//! Always holds: a pair of ends that [`Unlike::at`] does not name is allowed the same in both.

use super::{CompiledRule, Direction, Reach};
use crate::{sets::SetId, universe::EndId};
use fixedbitset::FixedBitSet;
use model::policy::{PortMatch, Protocol};
use std::collections::{BTreeSet, HashMap};

/// For each client the servers at which the two may differ.
pub(crate) struct Unlike {
    /// Servers at which anyone may differ.
    servers: FixedBitSet,
    /// By client, the others; `None`: no other.
    by_client: Vec<Option<FixedBitSet>>,
}

/// What a rule lets pass, whatever its name and place: equal numbers are equal in effect.
#[derive(PartialEq, Eq, Hash)]
struct Effect<'r> {
    peers: Option<&'r FixedBitSet>,
    ports: SetId,
    named: BTreeSet<(Protocol, &'r str)>,
}

impl<'r> Effect<'r> {
    fn of(rule: &'r CompiledRule<'_>) -> Self {
        let named = rule.rule.ports.iter().filter_map(|port| match &port.port {
            PortMatch::Named(name) => Some((port.protocol, name.as_str())),
            PortMatch::All | PortMatch::Range(..) => None,
        });
        Self { peers: rule.peers.as_deref(), ports: rule.ports, named: named.collect() }
    }
}

/// The peers at which one side of one end may differ.
enum Peers {
    None,
    All,
    These(FixedBitSet),
}

impl Unlike {
    pub(crate) fn of(old: &Reach<'_, '_>, new: &Reach<'_, '_>) -> Self {
        let ends = old.universe.len();
        let mut unlike = Self { servers: FixedBitSet::with_capacity(ends), by_client: vec![None; ends] };
        let mut known: HashMap<Effect<'_>, usize> = HashMap::new();
        let mut number = |rule| {
            let next = known.len();
            *known.entry(Effect::of(rule)).or_insert(next)
        };
        let effects: [Vec<usize>; 2] =
            [old.rules.iter().map(&mut number).collect(), new.rules.iter().map(&mut number).collect()];
        for index in 0..ends {
            match peers([old, new], &effects, Direction::Egress, index) {
                Peers::None => {}
                Peers::All => unlike.row(index).insert_range(..),
                Peers::These(peers) => unlike.row(index).union_with(&peers),
            }
            match peers([old, new], &effects, Direction::Ingress, index) {
                Peers::None => {}
                Peers::All => unlike.servers.insert(index),
                Peers::These(peers) => peers.ones().for_each(|client| unlike.row(client).insert(index)),
            }
        }
        unlike
    }

    fn row(&mut self, client: usize) -> &mut FixedBitSet {
        let ends = self.by_client.len();
        self.by_client[client].get_or_insert_with(|| FixedBitSet::with_capacity(ends))
    }

    /// The servers at which this client may be allowed something else.
    pub(crate) fn at(&self, client: EndId) -> impl Iterator<Item = EndId> {
        let own = self.by_client[client.index()].as_ref();
        let others = own.into_iter().flat_map(|own| own.difference(&self.servers));
        let all = self.servers.ones().chain(others);
        all.map(|index| EndId(u32::try_from(index).unwrap_or(u32::MAX)))
    }
}

fn peers(reaches: [&Reach<'_, '_>; 2], effects: &[Vec<usize>; 2], direction: Direction, end: usize) -> Peers {
    let [old, new] = [0, 1].map(|input: usize| reaches[input].isolation[end][direction as usize].as_ref());
    let (old, new) = match (old, new) {
        (None, None) => return Peers::None,
        (Some(old), Some(new)) => (&old.rules, &new.rules),
        _ => return Peers::All,
    };
    let numbers =
        |input: usize, rules: &[usize]| -> BTreeSet<usize> { rules.iter().map(|rule| effects[input][*rule]).collect() };
    let (before, after) = (numbers(0, old), numbers(1, new));
    if before == after {
        return Peers::None;
    }
    let mut all = FixedBitSet::with_capacity(reaches[0].universe.len());
    let gone = old.iter().filter(|rule| !after.contains(&effects[0][**rule])).map(|rule| &reaches[0].rules[*rule]);
    let come = new.iter().filter(|rule| !before.contains(&effects[1][**rule])).map(|rule| &reaches[1].rules[*rule]);
    for rule in gone.chain(come) {
        match &rule.peers {
            None => return Peers::All,
            Some(peers) => all.union_with(peers),
        }
    }
    Peers::These(all)
}
