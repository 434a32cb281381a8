//! Fewer and shorter rules that allow exactly the same.
//!
//! Always holds: for every pod, address and port the answer is the same before and after; the
//! result depends on the rules, not on their order; minimising twice changes nothing.

use ipnet::IpNet;
use model::policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule};
use std::collections::{BTreeMap, btree_map::Entry};

/// Merges peers with the same ports and ports with the same peers, drops what another rule of the
/// same policy and direction contains, joins blocks whose union is a block. Single ports stay single
/// ports: neighbours do not become a range.
pub fn minimize(policies: PolicySet) -> PolicySet {
    let one = |policy: NetworkPolicy| NetworkPolicy {
        ingress: policy.ingress.map(minimize_rules),
        egress: policy.egress.map(minimize_rules),
        ..policy
    };
    PolicySet { policies: policies.policies.into_iter().map(one).collect() }
}

/// An empty list means everyone, or every port.
type Peers = Vec<Peer>;
type Ports = Vec<Port>;

fn minimize_rules(rules: Vec<Rule>) -> Vec<Rule> {
    let mut now: Vec<(Peers, Ports)> = rules.into_iter().map(|r| (peers(r.peers), ports(r.ports))).collect();
    loop {
        let by_ports = merge(now.iter().cloned().map(|(peers, ports)| (ports, peers)), peers);
        let mut next = merge(by_ports.into_iter().map(|(ports, peers)| (peers, ports)), ports);
        drop_contained(&mut next);
        next.sort();
        if next == now {
            break;
        }
        now = next;
    }
    now.into_iter().map(|(peers, ports)| Rule { peers, ports, source: None }).collect()
}

/// One pair for each key, its values united in their one form. An empty list absorbs the others.
fn merge<K: Ord, V>(
    pairs: impl Iterator<Item = (K, Vec<V>)>,
    canonical: impl Fn(Vec<V>) -> Vec<V>,
) -> Vec<(K, Vec<V>)> {
    let mut by_key: BTreeMap<K, Vec<V>> = BTreeMap::new();
    for (key, mut values) in pairs {
        match by_key.entry(key) {
            Entry::Vacant(place) => drop(place.insert(values)),
            Entry::Occupied(mut all) if all.get().is_empty() || values.is_empty() => all.get_mut().clear(),
            Entry::Occupied(mut all) => all.get_mut().append(&mut values),
        }
    }
    by_key.into_iter().map(|(key, values)| (key, canonical(values))).collect()
}

/// Takes out, one after the other, each peer that another rule lets in at the same ports, and each port
/// that another rule opens to the same peers; a rule goes with its last.
fn drop_contained(rules: &mut Vec<(Peers, Ports)>) {
    let mut index = 0;
    while index < rules.len() {
        let (mut peers, mut ports) = rules.remove(index);
        let had = (peers.len(), ports.len());
        let is_whole = |(p, q): &(Peers, Ports)| covers(q, &ports, port_covers) && covers(p, &peers, peer_covers);
        let mut goes = rules.iter().any(is_whole);
        let wider: Vec<&Peers> = rules.iter().filter(|(_, q)| covers(q, &ports, port_covers)).map(|(p, _)| p).collect();
        peers.retain(|peer| !wider.iter().any(|big| covers(big, std::slice::from_ref(peer), peer_covers)));
        // An empty list would mean everyone.
        goes |= had.0 > 0 && peers.is_empty();
        let wider: Vec<&Ports> = rules.iter().filter(|(p, _)| covers(p, &peers, peer_covers)).map(|(_, q)| q).collect();
        ports.retain(|port| !wider.iter().any(|big| covers(big, std::slice::from_ref(port), port_covers)));
        goes |= had.1 > 0 && ports.is_empty();
        if !goes {
            rules.insert(index, (peers, ports));
            index += 1;
        }
    }
}

fn covers<T>(big: &[T], small: &[T], one: impl Fn(&T, &T) -> bool) -> bool {
    big.is_empty() || (!small.is_empty() && small.iter().all(|s| big.iter().any(|b| one(b, s))))
}

/// Whether one `ports` item opens all that another does.
pub(crate) fn port_covers(big: &Port, small: &Port) -> bool {
    let matched = match (&big.port, &small.port) {
        (PortMatch::All, _) => true,
        (PortMatch::Range(first, last), PortMatch::Range(f, l)) => first <= f && l <= last,
        (big, small) => big == small,
    };
    big.protocol == small.protocol && matched
}

fn peer_covers(big: &Peer, small: &Peer) -> bool {
    match (big, small) {
        (Peer::Block { cidr: big, except }, Peer::Block { cidr: small, except: holes }) => {
            let kept = |hole: &IpNet| disjoint(hole, small) || holes.iter().any(|h| h.contains(hole));
            big.contains(small) && except.iter().all(kept)
        }
        (Peer::Pods { namespaces, pods: None }, Peer::Pods { namespaces: theirs, .. }) => namespaces == theirs,
        (big, small) => big == small,
    }
}

fn disjoint(a: &IpNet, b: &IpNet) -> bool {
    !a.contains(b) && !b.contains(a)
}

/// Sorted, without what another peer covers; blocks without exceptions joined where that is exact.
fn peers(peers: Peers) -> Peers {
    if peers.is_empty() {
        return peers;
    }
    let mut whole = Vec::new();
    let mut rest = Vec::new();
    for peer in peers {
        match peer {
            Peer::Block { cidr, except } if except.is_empty() => whole.push(cidr),
            Peer::Block { cidr, mut except } => {
                except.sort_unstable();
                except.dedup();
                rest.push(Peer::Block { cidr, except });
            }
            pods @ Peer::Pods { .. } => rest.push(pods),
        }
    }
    let joined = IpNet::aggregate(&whole);
    rest.sort();
    rest.dedup();
    let in_joined = |peer: &Peer| matches!(peer, Peer::Block { cidr, .. } if joined.iter().any(|j| j.contains(cidr)));
    // Of two that cover each other (they differ in writing only), the first stays.
    let covered = |index: usize, peer: &Peer| {
        let mut others = rest.iter().enumerate().filter(|(other, _)| *other != index);
        others.any(|(other, by)| peer_covers(by, peer) && (other < index || !peer_covers(peer, by)))
    };
    let kept = rest.iter().enumerate().filter(|(index, peer)| !in_joined(peer) && !covered(*index, peer));
    let mut out: Peers = kept.map(|(_, peer)| peer.clone()).collect();
    out.extend(joined.into_iter().map(|cidr| Peer::Block { cidr, except: Vec::new() }));
    out.sort();
    out
}

/// Sorted by protocol; overlapping ranges joined, everything dropped where all ports of a protocol are open.
fn ports(ports: Ports) -> Ports {
    let mut out = Vec::new();
    for protocol in Protocol::ALL {
        let here = || ports.iter().filter(|p| p.protocol == protocol).map(|p| &p.port);
        if here().any(|port| matches!(port, PortMatch::All)) {
            out.push(Port { protocol, port: PortMatch::All });
            continue;
        }
        let mut ranges: Vec<(u16, u16)> = here()
            .filter_map(|port| match port {
                PortMatch::Range(first, last) => Some((*first, *last)),
                PortMatch::All | PortMatch::Named(_) => None,
            })
            .collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        out.extend(joined.into_iter().map(|(a, b)| Port { protocol, port: PortMatch::Range(a, b) }));
        let mut named: Vec<PortMatch> = here().filter(|p| matches!(p, PortMatch::Named(_))).cloned().collect();
        named.sort();
        named.dedup();
        out.extend(named.into_iter().map(|port| Port { protocol, port }));
    }
    out
}
