//! Whether something can be taken out of a set of policies without changing a verdict.
//!
//! Always holds: a yes is true for every two ends of the universe, every port and protocol, those that
//! rules cannot name included, and whatever number a named port has on whichever pod: names are
//! compared as names. Addresses of pods come and go: where a rule knows pods by their labels, a block
//! that holds their addresses today does not stand in for it. What was taken out stays out, so that all
//! of it together changes nothing, and so does each alone.

use crate::{
    reach::{Direction, PeerSets, Reach, RuleRef},
    sets::{Allowed, SetId, Sets},
    universe::{End, EndId, Universe},
};
use fixedbitset::FixedBitSet;
use model::{
    policy::{Peer, Port, PortMatch, Protocol},
    ports::ALL_PORTS,
};
use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

/// What a rule, or rules together, open.
#[derive(Clone, Debug)]
struct Opened {
    /// Ports by number.
    ports: SetId,
    /// What has no number, as indices into [`Proof::names`], each once.
    names: Vec<usize>,
}

/// What has no number.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    /// Every protocol that rules cannot name: open only to rules without ports.
    OtherProtocols,
    /// A port that each pod numbers itself.
    Port(Protocol, String),
}

/// A rule, and what is left of it.
struct Piece {
    name: RuleRef,
    there: bool,
    peers: Vec<Peers>,
    ports: Vec<Ports>,
    /// Everyone it lets in or out to now; `None`: everyone there is.
    whom: Option<FixedBitSet>,
    /// Those of them it knows by their labels.
    by_labels: Option<FixedBitSet>,
    /// What it opens to them now.
    opens: Opened,
    /// No less than what it opens, whatever named ports are.
    at_most: SetId,
}

struct Peers {
    there: bool,
    is_block: bool,
    ends: Rc<FixedBitSet>,
}

struct Ports {
    there: bool,
    opens: Opened,
}

/// A set of policies from which things are taken out.
pub(super) struct Proof<'r, 'c> {
    universe: &'r Universe<'c>,
    sets: &'r Sets,
    names: Vec<Name>,
    pieces: Vec<Piece>,
    /// By policy: whether it is there, its pieces, and whom it selects in each direction.
    policies: Vec<Selecting>,
    /// By end and direction: the policies that select it so.
    isolated_by: Vec<[Vec<usize>; 2]>,
    /// All ports of each protocol, in the order of [`Protocol::ALL`].
    whole: [SetId; 3],
}

struct Selecting {
    there: bool,
    pieces: std::ops::Range<usize>,
    ends: [Vec<EndId>; 2],
}

impl<'r, 'c> Proof<'r, 'c> {
    pub(super) fn new(reach: &'r Reach<'r, 'c>) -> Self {
        let (universe, sets) = (reach.universe(), reach.sets());
        let whole = Protocol::ALL.map(|protocol| sets.id(Allowed::of(protocol, vec![ALL_PORTS])));
        let mut proof = Self {
            universe,
            sets,
            names: vec![Name::OtherProtocols],
            pieces: Vec::new(),
            policies: Vec::new(),
            isolated_by: Vec::with_capacity(universe.len()),
            whole,
        };
        let mut peers = PeerSets::new(universe, 0);
        let mut known = HashMap::from([(Name::OtherProtocols, 0)]);
        for (index, policy) in reach.policies().iter().enumerate() {
            let first = proof.pieces.len();
            for name in super::rules_of(index, policy) {
                let Some((_, rule)) = reach.rule(name) else { continue };
                let ends = rule.peers.iter().map(|peer| Peers {
                    there: true,
                    is_block: matches!(peer, Peer::Block { .. }),
                    ends: peers.of_peer(peer, policy),
                });
                let ends = ends.collect();
                let ports = rule.ports.iter().map(|port| Ports { there: true, opens: proof.port(port, &mut known) });
                let ports = ports.collect();
                proof.add(name, ends, ports);
            }
            let pieces = first..proof.pieces.len();
            proof.policies.push(Selecting { there: true, pieces, ends: [Vec::new(), Vec::new()] });
        }
        for (id, _) in universe.ends() {
            let by = [Direction::Ingress, Direction::Egress].map(|direction| {
                let policies = reach.isolated_by(direction, id).unwrap_or_default().to_vec();
                policies.iter().for_each(|policy| proof.policies[*policy].ends[direction as usize].push(id));
                policies
            });
            proof.isolated_by.push(by);
        }
        proof
    }

    fn port(&mut self, port: &Port, known: &mut HashMap<Name, usize>) -> Opened {
        let by_number = |ports| Opened { ports, names: Vec::new() };
        match &port.port {
            PortMatch::All => by_number(self.whole_of(port.protocol)),
            PortMatch::Range(first, last) => by_number(self.sets.id(Allowed::of(port.protocol, vec![(*first, *last)]))),
            PortMatch::Named(name) => {
                let name = Name::Port(port.protocol, name.clone());
                let index = *known.entry(name.clone()).or_insert_with(|| {
                    self.names.push(name);
                    self.names.len() - 1
                });
                Opened { ports: SetId::NONE, names: vec![index] }
            }
        }
    }

    fn add(&mut self, name: RuleRef, peers: Vec<Peers>, ports: Vec<Ports>) {
        let nothing = Opened { ports: SetId::NONE, names: Vec::new() };
        let piece = Piece {
            name,
            there: true,
            peers,
            ports,
            whom: None,
            by_labels: None,
            opens: nothing,
            at_most: SetId::NONE,
        };
        self.pieces.push(piece);
        self.settle(self.pieces.len() - 1);
    }

    /// Works out anew what a rule opens to whom.
    fn settle(&mut self, piece: usize) {
        let this = &self.pieces[piece];
        let union = |is_asked: &dyn Fn(&Peers) -> bool| {
            let asked = this.peers.iter().filter(|peer| peer.there && is_asked(peer));
            asked.fold(FixedBitSet::with_capacity(self.universe.len()), |mut all, peer| {
                all.union_with(&peer.ends);
                all
            })
        };
        let is_for_all = this.peers.is_empty();
        let whom = (!is_for_all).then(|| union(&|_| true));
        let by_labels = (!is_for_all).then(|| union(&|peer| !peer.is_block));
        let opens = match this.ports.is_empty() {
            true => Opened { ports: SetId::ALL, names: vec![0] },
            false => self.union(this.ports.iter().filter(|port| port.there).map(|port| &port.opens)),
        };
        let at_most = self.at_most(&opens);
        let this = &mut self.pieces[piece];
        (this.whom, this.by_labels, this.opens, this.at_most) = (whom, by_labels, opens, at_most);
    }

    fn union<'o>(&self, all: impl Iterator<Item = &'o Opened>) -> Opened {
        all.fold(Opened { ports: SetId::NONE, names: Vec::new() }, |mut sum, one| {
            self.widen(&mut sum, one);
            sum
        })
    }

    fn widen(&self, sum: &mut Opened, by: &Opened) {
        sum.ports = self.sets.union(sum.ports, by.ports);
        for name in &by.names {
            if !sum.names.contains(name) {
                sum.names.push(*name);
            }
        }
    }

    /// No less than what is opened: every port of a protocol for a named one.
    fn at_most(&self, opened: &Opened) -> SetId {
        opened.names.iter().fold(opened.ports, |sum, name| match &self.names[*name] {
            Name::OtherProtocols => sum,
            Name::Port(protocol, _) => self.sets.union(sum, self.whole_of(*protocol)),
        })
    }

    fn whole_of(&self, protocol: Protocol) -> SetId {
        self.whole[Protocol::ALL.iter().position(|known| *known == protocol).unwrap_or_default()]
    }

    /// Whether all that one opens is opened by another.
    fn covers(&self, by: &Opened, one: &Opened) -> bool {
        self.sets.minus(one.ports, by.ports) == SetId::NONE
            && one.names.iter().all(|name| by.names.contains(name) || self.has_whole_protocol(by, *name))
    }

    fn has_whole_protocol(&self, by: &Opened, name: usize) -> bool {
        match &self.names[name] {
            Name::OtherProtocols => false,
            Name::Port(protocol, _) => self.sets.minus(self.whole_of(*protocol), by.ports) == SetId::NONE,
        }
    }

    /// The rules that are there, select an end in a direction and have a peer; a pod that this rule
    /// knows by its labels, they must know so too.
    fn opening(&self, like: usize, own: EndId, peer: EndId) -> impl Iterator<Item = usize> {
        let by_labels = self.is_pod(peer) && self.pieces[like].knows(peer.index());
        let there = self.selecting(self.pieces[like].name.direction, own);
        there.filter(move |piece| {
            let piece = &self.pieces[*piece];
            if by_labels { piece.knows(peer.index()) } else { piece.is_for(peer.index()) }
        })
    }

    /// What those of them open that are asked for.
    fn open(&self, like: usize, own: EndId, peer: EndId, is_asked: impl Fn(usize) -> bool) -> Opened {
        let pieces = self.opening(like, own, peer).filter(|piece| is_asked(*piece));
        self.union(pieces.map(|piece| &self.pieces[piece].opens))
    }

    /// The rules that are there and select an end in a direction.
    fn selecting(&self, direction: Direction, own: EndId) -> impl Iterator<Item = usize> {
        let policies = self.isolated_by[own.index()][direction as usize].iter().map(|policy| &self.policies[*policy]);
        let pieces = policies.filter(|policy| policy.there).flat_map(|policy| policy.pieces.clone());
        pieces.filter(move |piece| self.pieces[*piece].there && self.pieces[*piece].name.direction == direction)
    }

    /// Whether it is of pods that selectors can lead to.
    fn is_pod(&self, end: EndId) -> bool {
        match self.universe.end(end) {
            End::Pods(class) => !class.host_network,
            End::Nobody(_) => true,
            End::Block(_) => false,
        }
    }

    fn is_there(&self, policy: usize) -> bool {
        self.policies[policy].there
    }

    /// Whether an end is isolated in a direction by a policy that is there, other than one.
    fn is_isolated(&self, direction: Direction, own: EndId, without: Option<usize>) -> bool {
        let by = &self.isolated_by[own.index()][direction as usize];
        by.iter().any(|policy| Some(*policy) != without && self.is_there(*policy))
    }

    /// The pairs of an end that a rule is about and an end of these: also such as cannot meet today, as
    /// their addresses are of different families.
    fn pairs<'p>(&'p self, piece: usize, whom: Option<&'p FixedBitSet>) -> impl Iterator<Item = (EndId, EndId)> + 'p {
        let name = self.pieces[piece].name;
        let own = &self.policies[name.policy].ends[name.direction as usize];
        own.iter().flat_map(move |own| self.ends(whom).map(|peer| (*own, peer)))
    }

    fn ends<'p>(&'p self, among: Option<&'p FixedBitSet>) -> impl Iterator<Item = EndId> + 'p {
        let indices: Box<dyn Iterator<Item = usize> + 'p> = match among {
            Some(ends) => Box::new(ends.ones()),
            None => Box::new(0..self.universe.len()),
        };
        indices.map(|index| EndId(u32::try_from(index).unwrap_or(u32::MAX)))
    }

    /// The pieces of a policy that are there.
    fn of_policy(&self, policy: usize) -> impl Iterator<Item = usize> + use<'_, 'r, 'c> {
        self.policies[policy].pieces.clone().filter(|piece| self.pieces[*piece].there)
    }

    /// Takes a policy out, if that changes nothing.
    pub(super) fn without_policy(&mut self, policy: usize) -> bool {
        let selecting = &self.policies[policy];
        if selecting.ends.iter().all(Vec::is_empty) {
            return false;
        }
        let stays = [Direction::Ingress, Direction::Egress].into_iter().all(|direction| {
            let ends = &selecting.ends[direction as usize];
            ends.iter().all(|own| self.stays_without(policy, direction, *own))
        });
        if stays {
            self.policies[policy].there = false;
        }
        stays
    }

    /// Whether an end keeps its verdicts in a direction without a policy, whether or not what was taken
    /// out before is back.
    fn stays_without(&self, policy: usize, direction: Direction, own: EndId) -> bool {
        let isolated_by = &self.isolated_by[own.index()][direction as usize];
        if *isolated_by == [policy] {
            // Nothing would isolate the end any more: nothing must be closed now.
            return self.ends(None).all(|peer| {
                let open = self.union(self.selecting(direction, own).filter_map(|piece| {
                    let piece = &self.pieces[piece];
                    let is_open =
                        if self.is_pod(peer) { piece.knows(peer.index()) } else { piece.is_for(peer.index()) };
                    is_open.then_some(&piece.opens)
                }));
                open.ports == SetId::ALL && open.names.contains(&0)
            });
        }
        let pieces = || self.of_policy(policy).filter(|piece| self.pieces[*piece].name.direction == direction);
        self.is_isolated(direction, own, Some(policy))
            && pieces().all(|piece| {
                self.ends(self.pieces[piece].whom.as_ref()).all(|peer| {
                    let others = self.open(piece, own, peer, |other| self.pieces[other].name.policy != policy);
                    self.covers(&others, &self.pieces[piece].opens)
                })
            })
    }

    /// Takes a rule out, if that changes nothing.
    pub(super) fn without_rule(&mut self, piece: usize) -> bool {
        let this = &self.pieces[piece];
        let mut pairs = self.pairs(piece, this.whom.as_ref()).peekable();
        if pairs.peek().is_none() {
            return false;
        }
        let stays = pairs.all(|(own, peer)| {
            let others = self.open(piece, own, peer, |other| other != piece);
            self.covers(&others, &this.opens)
        });
        drop(pairs);
        self.pieces[piece].there &= !stays;
        stays
    }

    /// Takes a peer out, if that changes nothing. The last one stays: no peers would mean everyone.
    pub(super) fn without_peer(&mut self, piece: usize, peer: usize) -> bool {
        let this = &self.pieces[piece];
        let others = this.peers.iter().enumerate().filter(|(index, other)| *index != peer && other.there);
        if this.peers[peer].ends.is_clear() || others.clone().next().is_none() {
            return false;
        }
        let mut alone = (*this.peers[peer].ends).clone();
        // Addresses come and go: no block stands in for labels.
        let others = others.filter(|(_, other)| this.peers[peer].is_block || !other.is_block);
        others.for_each(|(_, other)| alone.difference_with(&other.ends));
        let stays = self.pairs(piece, Some(&alone)).all(|(own, peer)| {
            let others = self.open(piece, own, peer, |other| other != piece);
            self.covers(&others, &this.opens)
        });
        if stays {
            self.pieces[piece].peers[peer].there = false;
            self.settle(piece);
        }
        stays
    }

    /// Takes a port out, if that changes nothing. The last one stays: no ports would mean all.
    pub(super) fn without_port(&mut self, piece: usize, port: usize) -> bool {
        let this = &self.pieces[piece];
        let others = this.ports.iter().enumerate().filter(|(index, other)| *index != port && other.there);
        if others.clone().next().is_none() {
            return false;
        }
        let rest = self.union(others.map(|(_, other)| &other.opens));
        let opens = &this.ports[port].opens;
        let stays = self.covers(&rest, opens)
            || self.pairs(piece, this.whom.as_ref()).all(|(own, peer)| {
                let mut others = self.open(piece, own, peer, |other| other != piece);
                self.widen(&mut others, &rest);
                self.covers(&others, opens)
            });
        if stays {
            self.pieces[piece].ports[port].there = false;
            self.settle(piece);
        }
        stays
    }

    /// Whether the other end refuses all that a rule adds to the rest, at every pair.
    pub(super) fn is_refused(&self, piece: usize) -> bool {
        let this = &self.pieces[piece];
        let other_side = opposite(this.name.direction);
        let mut pairs = self.pairs(piece, this.whom.as_ref()).peekable();
        pairs.peek().is_some()
            && pairs.all(|(own, peer)| {
                let rest = self.open(piece, own, peer, |other| other != piece);
                let adds = self.sets.minus(this.at_most, rest.ports);
                let adds_others = this.opens.names.contains(&0) && !rest.names.contains(&0);
                if adds == SetId::NONE && !adds_others {
                    return true;
                }
                if !self.is_isolated(other_side, peer, None) {
                    return false;
                }
                // Whatever address the pod may have, a block may hold it.
                let rules = self.selecting(other_side, peer).map(|piece| &self.pieces[piece]);
                let allowing = rules.filter(|rule| rule.is_for(own.index()) || rule.has_block());
                let allowed = self.union(allowing.map(|rule| &rule.opens));
                self.sets.intersection(adds, self.at_most(&allowed)) == SetId::NONE
                    && !(adds_others && allowed.names.contains(&0))
            })
    }

    /// The policies that isolate the other ends of a rule.
    pub(super) fn refusing(&self, piece: usize) -> BTreeSet<usize> {
        let this = &self.pieces[piece];
        let other_side = opposite(this.name.direction);
        let peers: BTreeSet<EndId> = self.pairs(piece, this.whom.as_ref()).map(|(_, peer)| peer).collect();
        let by = peers.iter().flat_map(|peer| &self.isolated_by[peer.index()][other_side as usize]);
        by.copied().filter(|policy| self.is_there(*policy)).collect()
    }

    /// The policies that isolate the pods of one that was taken out.
    pub(super) fn isolating_instead_of(&self, policy: usize) -> BTreeSet<usize> {
        let each = self.policies[policy].ends.iter().enumerate();
        let by = each
            .flat_map(|(direction, ends)| ends.iter().flat_map(move |end| &self.isolated_by[end.index()][direction]));
        by.copied().filter(|other| self.is_there(*other)).collect()
    }

    /// The rules, as pieces that are there, of policies that are.
    pub(super) fn rules(&self) -> Vec<(usize, RuleRef)> {
        let there = |(_, piece): &(usize, &Piece)| piece.there && self.is_there(piece.name.policy);
        self.pieces.iter().enumerate().filter(there).map(|(index, piece)| (index, piece.name)).collect()
    }

    /// How many peers and ports a rule is written with.
    pub(super) fn size(&self, piece: usize) -> (usize, usize) {
        (self.pieces[piece].peers.len(), self.pieces[piece].ports.len())
    }

    /// The rules that are left and open to the same ends something of what these opened.
    pub(super) fn instead_of(&self, pieces: &[usize], most: usize) -> Vec<RuleRef> {
        let mut found: Vec<RuleRef> = Vec::new();
        for piece in pieces {
            let this = &self.pieces[*piece];
            for (own, peer) in self.pairs(*piece, this.whom.as_ref()) {
                for other in self.opening(*piece, own, peer) {
                    let name = self.pieces[other].name;
                    let shared = self.sets.intersection(self.pieces[other].at_most, this.at_most);
                    if other != *piece && shared != SetId::NONE && !found.contains(&name) {
                        found.push(name);
                    }
                }
                if found.len() > most {
                    return found;
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// The pieces of a policy, there or not.
    pub(super) fn pieces_of(&self, policy: usize) -> Vec<usize> {
        self.policies[policy].pieces.clone().collect()
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

impl Piece {
    /// Whether an end is among its peers.
    fn is_for(&self, end: usize) -> bool {
        self.whom.as_ref().is_none_or(|ends| ends.contains(end))
    }

    /// Whether it is so by its labels, or because everyone is.
    fn knows(&self, end: usize) -> bool {
        self.by_labels.as_ref().is_none_or(|ends| ends.contains(end))
    }

    fn has_block(&self) -> bool {
        self.peers.iter().any(|peer| peer.there && peer.is_block)
    }
}
