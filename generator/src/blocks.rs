//! Which blocks hold an address, without looking at each: a workload that faces the internet has
//! as many blocks as clients.

use ipnet::IpNet;
use model::policy::Peer;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

/// Blocks by what they stand for, an index into a list of the asker's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    places: HashMap<IpNet, Vec<usize>>,
    lengths: BTreeSet<(bool, u8)>,
}

impl Blocks {
    /// The blocks among a rule's peers, by their places in it.
    pub(crate) fn of(peers: &[Peer]) -> Self {
        let blocks = peers.iter().enumerate().filter_map(|(place, peer)| match peer {
            Peer::Block { cidr, .. } => Some((*cidr, place)),
            Peer::Pods { .. } => None,
        });
        blocks.collect()
    }

    /// The places of the blocks that hold an address, the widest first.
    pub(crate) fn holding(&self, ip: IpAddr) -> impl Iterator<Item = usize> {
        let of_family = self.lengths.iter().filter(move |(v4, _)| *v4 == ip.is_ipv4());
        let nets = of_family.filter_map(move |(_, length)| IpNet::new(ip, *length).ok());
        nets.filter_map(|net| self.places.get(&net.trunc())).flatten().copied()
    }
}

impl FromIterator<(IpNet, usize)> for Blocks {
    fn from_iter<T: IntoIterator<Item = (IpNet, usize)>>(blocks: T) -> Self {
        let mut all = Self::default();
        for (block, place) in blocks {
            all.lengths.insert((block.addr().is_ipv4(), block.prefix_len()));
            all.places.entry(block.trunc()).or_default().push(place);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_that_holds_an_address_is_found() {
        let blocks = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "10.1.0.0/16", "10.2.0.0/16"];
        let all: Blocks = blocks.into_iter().enumerate().map(|(i, b)| (b.parse().unwrap(), i)).collect();
        let holding = |ip: &str| all.holding(ip.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(holding("10.1.2.3"), [0, 1, 4, 2]);
        assert_eq!(holding("10.2.0.0"), [0, 5]);
        assert_eq!(holding("2001:db8::1"), [3]);
        assert!(holding("192.0.2.1").is_empty());
    }
}
