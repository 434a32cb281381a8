//! The address space, cut only where a rule's blocks tell addresses apart.

use fixedbitset::FixedBitSet;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use model::policy::Peer;
use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A class of addresses that no block of any rule tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AtomId(u32);

/// A block with its holes, as a rule has it.
type Holed<'p> = (&'p IpNet, &'p [IpNet]);

/// All classes, both families.
#[derive(Debug)]
pub(crate) struct Atoms<'p> {
    list: Vec<Atom>,
    /// By family (IPv4, IPv6): where each stretch begins, and its class; sorted, complete.
    stretches: [Vec<(u128, AtomId)>; 2],
    /// The classes that a block holds.
    blocks: HashMap<Holed<'p>, Vec<AtomId>>,
}

#[derive(Debug)]
struct Atom {
    family: usize,
    in_a_block: bool,
}

fn number(address: IpAddr) -> (usize, u128) {
    match address {
        IpAddr::V4(v4) => (0, u32::from(v4).into()),
        IpAddr::V6(v6) => (1, v6.into()),
    }
}

const LAST: [u128; 2] = [u32::MAX as u128, u128::MAX];

impl<'p> Atoms<'p> {
    /// Cut by the blocks of these peers.
    pub(crate) fn new(peers: impl Iterator<Item = &'p Peer>) -> Self {
        let held = peers.filter_map(|peer| match peer {
            Peer::Block { cidr, except } => Some((cidr, except.as_slice())),
            Peer::Pods { .. } => None,
        });
        let blocks: Vec<Holed<'p>> = held.collect::<BTreeSet<_>>().into_iter().collect();
        let mut atoms = Self { list: Vec::new(), stretches: Default::default(), blocks: HashMap::new() };
        for family in 0..2 {
            atoms.cut(family, &blocks);
        }
        atoms
    }

    fn cut(&mut self, family: usize, blocks: &[Holed<'p>]) {
        let nets = blocks.iter().flat_map(|(cidr, except)| std::iter::once(*cidr).chain(*except));
        let edges = nets.filter(|net| number(net.network()).0 == family).flat_map(|net| {
            let (first, last) = (number(net.network()).1, number(net.broadcast()).1);
            [Some(first), last.checked_add(1).filter(|next| *next <= LAST[family])]
        });
        let starts: BTreeSet<u128> = edges.flatten().chain([0]).collect();
        let mut known: HashMap<FixedBitSet, AtomId> = HashMap::new();
        for start in starts {
            let address = match family {
                0 => IpAddr::V4(Ipv4Addr::from(start as u32)),
                _ => IpAddr::V6(Ipv6Addr::from(start)),
            };
            let holds =
                |(cidr, except): &Holed<'_>| cidr.contains(&address) && !except.iter().any(|e| e.contains(&address));
            let signature: FixedBitSet =
                blocks.iter().enumerate().filter(|(_, block)| holds(block)).map(|(index, _)| index).collect();
            let atom = *known.entry(signature.clone()).or_insert_with(|| {
                let id = AtomId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
                self.list.push(Atom { family, in_a_block: !signature.is_clear() });
                signature.ones().for_each(|index| self.blocks.entry(blocks[index]).or_default().push(id));
                id
            });
            self.stretches[family].push((start, atom));
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = AtomId> + use<> {
        (0..u32::try_from(self.list.len()).unwrap_or(u32::MAX)).map(AtomId)
    }

    /// Whether it is of IPv4.
    pub(crate) fn is_v4(&self, atom: AtomId) -> bool {
        self.list[atom.0 as usize].family == 0
    }

    /// The class of an address.
    pub(crate) fn at(&self, address: IpAddr) -> AtomId {
        let (family, number) = number(address.to_canonical());
        let after = self.stretches[family].partition_point(|(start, _)| *start <= number);
        self.stretches[family].get(after.saturating_sub(1)).map_or(AtomId(0), |(_, atom)| *atom)
    }

    /// Whether some rule's block holds it.
    pub(crate) fn is_in_a_block(&self, atom: AtomId) -> bool {
        self.list[atom.0 as usize].in_a_block
    }

    /// The classes that a block with its holes holds.
    pub(crate) fn of_block(&self, cidr: &'p IpNet, except: &'p [IpNet]) -> &[AtomId] {
        self.blocks.get(&(cidr, except)).map_or(&[], Vec::as_slice)
    }

    /// These classes together, as the fewest CIDR blocks.
    pub(crate) fn cidrs(&self, atoms: &BTreeSet<AtomId>) -> Vec<IpNet> {
        let mut out = Vec::new();
        for (family, stretches) in self.stretches.iter().enumerate() {
            let mut at = 0;
            while at < stretches.len() {
                if !atoms.contains(&stretches[at].1) {
                    at += 1;
                    continue;
                }
                let first = stretches[at].0;
                while stretches.get(at).is_some_and(|(_, atom)| atoms.contains(atom)) {
                    at += 1;
                }
                let last = stretches.get(at).map_or(LAST[family], |(next, _)| next - 1);
                match family {
                    0 => {
                        let (first, last) = (Ipv4Addr::from(first as u32), Ipv4Addr::from(last as u32));
                        out.extend(Ipv4Subnets::new(first, last, 0).map(IpNet::V4));
                    }
                    _ => out.extend(Ipv6Subnets::new(first.into(), last.into(), 0).map(IpNet::V6)),
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> Peer {
        let net = |text: &&str| text.parse().expect("a CIDR");
        Peer::Block { cidr: net(&cidr), except: except.iter().map(net).collect() }
    }

    #[test]
    fn addresses_are_told_apart_only_where_a_block_does() {
        let peers = [block("10.0.0.0/8", &["10.1.0.0/16"]), block("10.1.2.0/24", &[]), block("fd00::/8", &[])];
        let atoms = Atoms::new(peers.iter());
        let at = |text: &str| atoms.at(text.parse().expect("an address"));
        assert_eq!(at("10.0.0.1"), at("10.255.255.255"));
        assert_eq!(at("10.1.3.1"), at("8.8.8.8"));
        assert_ne!(at("10.1.2.1"), at("10.1.3.1"));
        assert_ne!(at("fd00::1"), at("2001:db8::1"));
        assert!(!atoms.is_in_a_block(at("10.1.3.1")));
        assert_eq!(atoms.all().count(), 5);
    }

    #[test]
    fn classes_become_the_fewest_blocks_again() {
        let peers = [block("10.0.0.0/8", &["10.1.0.0/16"])];
        let atoms = Atoms::new(peers.iter());
        let Peer::Block { cidr, except } = &peers[0] else { unreachable!() };
        let inside: BTreeSet<_> = atoms.of_block(cidr, except).iter().copied().collect();
        let nets = atoms.cidrs(&inside);
        assert_eq!(nets.len(), 8, "{nets:?}");
        assert!(nets.iter().all(|net| cidr.contains(net) && !except[0].contains(net)));
        let everything = atoms.all().collect();
        let whole: Vec<String> = atoms.cidrs(&everything).iter().map(ToString::to_string).collect();
        assert_eq!(whole, ["0.0.0.0/0", "::/0"]);
    }
}
