//! Port ranges as classes of ports, and classes as power-of-two blocks, which a trie can hold.

use std::collections::BTreeMap;

/// A block of `1 << bits` ports beginning at `port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block {
    pub(crate) port: u16,
    pub(crate) bits: u8,
}

/// The fewest blocks that make up `first..=last`.
pub(crate) fn blocks(first: u16, last: u16) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        let aligned = if at == 0 { 16 } else { at.trailing_zeros() };
        let fits = (end - at).ilog2();
        let bits = aligned.min(fits);
        blocks.push(Block { port: at as u16, bits: bits as u8 });
        at += 1 << bits;
    }
    blocks
}

/// Ranges of one protocol cut into classes: ports that the same ranges hold are one class.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// Range -> the classes it is made of.
    pub(crate) of_range: BTreeMap<(u16, u16), Vec<u16>>,
    /// Blocks of ports -> class.
    pub(crate) blocks: Vec<(Block, u16)>,
}

/// Classes are numbered from 1 in order of their first port: at most 65,535 of them, since no rule names port 0
/// beside all others.
pub(crate) fn classes(ranges: &[(u16, u16)]) -> Classes {
    let mut cuts: Vec<u32> =
        ranges.iter().flat_map(|(first, last)| [u32::from(*first), u32::from(*last) + 1]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut numbers: BTreeMap<Vec<usize>, u16> = BTreeMap::new();
    let mut classes = Classes::default();
    for range in ranges {
        classes.of_range.entry(*range).or_default();
    }
    for piece in cuts.windows(2) {
        let (first, last) = (piece[0] as u16, (piece[1] - 1) as u16);
        let holds = |(a, b): &(u16, u16)| *a <= first && last <= *b;
        let holders: Vec<usize> = ranges.iter().enumerate().filter(|(_, r)| holds(r)).map(|(i, _)| i).collect();
        if holders.is_empty() {
            continue;
        }
        let next = u16::try_from(numbers.len() + 1).unwrap_or(u16::MAX);
        let class = *numbers.entry(holders.clone()).or_insert(next);
        for holder in holders {
            let made_of = classes.of_range.entry(ranges[holder]).or_default();
            if !made_of.contains(&class) {
                made_of.push(class);
            }
        }
        classes.blocks.extend(blocks(first, last).into_iter().map(|block| (block, class)));
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_whole_range_but_port_zero_is_sixteen_blocks() {
        assert_eq!(blocks(1, 65535).len(), 16);
        assert_eq!(blocks(0, 65535), [Block { port: 0, bits: 16 }]);
        assert_eq!(blocks(65535, 65535), [Block { port: 65535, bits: 0 }]);
    }

    proptest! {
        #[test]
        fn blocks_hold_exactly_the_range(a: u16, b: u16, probe: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let held = blocks(first, last).iter().filter(|block| u32::from(probe) >> block.bits == u32::from(block.port) >> block.bits).count();
            prop_assert_eq!(held, usize::from((first..=last).contains(&probe)));
        }

        #[test]
        fn a_port_is_in_a_range_exactly_if_its_class_is(
            ranges in prop::collection::btree_set((1u16..200, 0u16..60).prop_map(|(a, n)| (a, a + n)), 1..6),
            probe in 1u16..300,
        ) {
            let ranges: Vec<_> = ranges.into_iter().collect();
            let made = classes(&ranges);
            let class = made.blocks.iter().find(|(block, _)| u32::from(probe) >> block.bits == u32::from(block.port) >> block.bits).map(|(_, class)| *class);
            for (first, last) in ranges {
                let by_class = class.is_some_and(|class| made.of_range[&(first, last)].contains(&class));
                prop_assert_eq!(by_class, (first..=last).contains(&probe));
            }
        }
    }
}
