//! How far an attacker gets from a start over edges, and what one edge is worth to him.

use fixedbitset::FixedBitSet;
use std::collections::{HashMap, VecDeque};

/// Who may call whom.
pub(super) struct Graph(Vec<FixedBitSet>);

impl Graph {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![FixedBitSet::with_capacity(nodes); nodes])
    }

    pub(super) fn add(&mut self, from: usize, to: usize) {
        self.0[from].insert(to);
    }

    pub(super) fn has(&self, from: usize, to: usize) -> bool {
        self.0[from].contains(to)
    }

    /// Whether anyone can be called from here.
    pub(super) fn leads_anywhere(&self, from: usize) -> bool {
        !self.0[from].is_clear()
    }

    /// By node, how many others may call it.
    pub(super) fn callers(&self) -> Vec<usize> {
        let mut callers = vec![0; self.0.len()];
        for (from, row) in self.0.iter().enumerate() {
            row.ones().filter(|to| *to != from).for_each(|to| callers[to] += 1);
        }
        callers
    }

    /// Who can be got to from here, itself among them, and over which edges first; without one edge.
    fn walk(&self, start: usize, without: Option<(usize, usize)>) -> (FixedBitSet, Vec<(usize, usize)>) {
        let mut reached = FixedBitSet::with_capacity(self.0.len());
        reached.insert(start);
        let (mut queue, mut first) = (VecDeque::from([start]), Vec::new());
        while let Some(from) = queue.pop_front() {
            for to in self.0[from].difference(&reached.clone()) {
                if without != Some((from, to)) {
                    reached.insert(to);
                    queue.push_back(to);
                    first.push((from, to));
                }
            }
        }
        (reached, first)
    }
}

/// What edges are worth from one start.
pub(super) struct Rank {
    reachable: usize,
    used: FixedBitSet,
    /// Only an edge by which a node was first got to can be the only way to anyone.
    closes: HashMap<(usize, usize), usize>,
    /// By node that the used edges do not lead to: how many more they lead to from there.
    adds: Vec<usize>,
}

impl Rank {
    pub(super) fn new(allowed: &Graph, used: &Graph, start: usize) -> Self {
        let (all, first) = allowed.walk(start, None);
        let reachable = all.count_ones(..);
        let closes = first.into_iter().map(|edge| {
            let left = allowed.walk(start, Some(edge)).0.count_ones(..);
            (edge, reachable - left)
        });
        let closes = closes.collect();
        let used_from_start = used.walk(start, None).0;
        let adds = (0..used.0.len()).map(|node| match used_from_start.contains(node) {
            true => 0,
            false => used.walk(node, None).0.difference(&used_from_start).count(),
        });
        Self { reachable, closes, adds: adds.collect(), used: used_from_start }
    }

    /// How many nodes are lost without an edge, and how many it adds to what the used edges lead to;
    /// an edge that is used already stays whatever else of it is closed.
    pub(super) fn of(&self, from: usize, to: usize, is_used: bool) -> (usize, usize) {
        if is_used {
            return (0, 0);
        }
        let adds = if self.used.contains(from) { self.adds[to] } else { 0 };
        (self.closes.get(&(from, to)).copied().unwrap_or(0), adds)
    }

    /// Nodes but the start that can be got to.
    pub(super) fn reachable(&self) -> usize {
        self.reachable - 1
    }

    /// The same over used edges alone.
    pub(super) fn reachable_used(&self) -> usize {
        self.used.count_ones(..) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_way_to_others_is_worth_the_most() {
        let edges = |edges: &[(usize, usize)]| {
            let mut graph = Graph::new(5);
            edges.iter().for_each(|(from, to)| graph.add(*from, *to));
            graph
        };
        // 0 is where the attacker starts; 2 is reached over 1 or directly, 3 and 4 over 2 alone.
        let allowed = edges(&[(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]);
        let used = edges(&[(0, 1), (3, 4)]);
        let rank = Rank::new(&allowed, &used, 0);
        assert_eq!((rank.reachable(), rank.reachable_used()), (4, 1));
        assert_eq!(rank.of(2, 3, false), (2, 0), "no used edge leads to 2");
        assert_eq!(rank.of(1, 2, false), (0, 1), "there is another way to 2");
        assert_eq!(rank.of(0, 2, false), (0, 1));
        assert_eq!(rank.of(0, 1, true), (0, 0));
        assert_eq!(rank.of(3, 4, true), (0, 0));
    }
}
