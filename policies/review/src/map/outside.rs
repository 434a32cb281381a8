//! Addresses outside, as few blocks as say the same.

use super::{Open, Party};
use crate::{EndId, Universe};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};

pub(super) struct Outside<'u, 'c> {
    universe: &'u Universe<'c>,
    /// By block: its class, where blocks are to be disjoint.
    classes: Option<Vec<usize>>,
    /// Blocks that were put together before.
    known: HashMap<Vec<EndId>, Vec<IpNet>>,
}

impl<'u, 'c> Outside<'u, 'c> {
    pub(super) fn new(universe: &'u Universe<'c>, is_disjoint: bool) -> Self {
        let classes = is_disjoint.then(|| vec![0; universe.blocks().len()]);
        Self { universe, classes, known: HashMap::new() }
    }

    /// Puts blocks that are not treated alike into different classes.
    pub(super) fn tell_apart<'o>(&mut self, opens: impl Iterator<Item = &'o [Open]>) {
        let Some(classes) = &mut self.classes else { return };
        for opens in opens {
            let mut known: HashMap<(usize, Open), usize> = HashMap::new();
            for (class, open) in classes.iter_mut().zip(opens) {
                let next = known.len();
                *class = *known.entry((*class, *open)).or_insert(next);
            }
        }
    }

    /// Those that may open something, within these blocks; `opens` by block.
    pub(super) fn parties(&mut self, opens: &[Open], within: &[IpNet]) -> Vec<(Party, Open)> {
        let mut alike: BTreeMap<(Open, usize), Vec<EndId>> = BTreeMap::new();
        for (index, (block, open)) in self.universe.blocks().iter().zip(opens).enumerate() {
            if *open != Open::NOTHING {
                let class = self.classes.as_ref().map_or(0, |classes| classes[index]);
                alike.entry((*open, class)).or_default().push(*block);
            }
        }
        let mut all = Vec::new();
        for ((open, _), blocks) in alike {
            let nets =
                self.known.entry(blocks).or_insert_with_key(|blocks| self.universe.cidrs(blocks.iter().copied()));
            let clipped = nets.iter().flat_map(|net| within.iter().filter_map(|within| common(*net, *within)));
            match self.classes {
                Some(_) => {
                    let nets: Vec<IpNet> = clipped.collect();
                    all.extend((!nets.is_empty()).then_some((Party::Outside(nets), open)));
                }
                None => all.extend(clipped.map(|net| (Party::Outside(vec![net]), open))),
            }
        }
        all
    }
}

/// What two blocks have in common: one of them, or nothing.
fn common(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) {
        Some(b)
    } else if b.contains(&a) {
        Some(a)
    } else {
        None
    }
}
