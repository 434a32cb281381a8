//! What may pass between two ends, for one input of a [`Universe`].
//!
//! Always holds: for pods, addresses and ports of the classes, it says what the reference evaluator
//! says of each member; both ends must allow.

mod unlike;

pub(crate) use unlike::Unlike;

use crate::{
    sets::{Allowed, SetId, Sets},
    universe::{End, EndId, Family, Nobody, Universe, Where, namespaces_matching},
};
use fixedbitset::FixedBitSet;
use model::{
    labels::Selector,
    policy::{NetworkPolicy, Peer, PortMatch, Protocol, Rule},
    record::RuleName,
};
use std::{cell::RefCell, collections::HashMap};

/// Which of a policy's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Direction {
    Ingress,
    Egress,
}

/// A rule of the input's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleRef {
    /// Index into the policy set.
    pub policy: usize,
    /// Which list.
    pub direction: Direction,
    /// Index into it.
    pub index: usize,
}

/// Reachability of one input.
pub struct Reach<'u, 'c> {
    universe: &'u Universe<'c>,
    input: usize,
    sets: &'u Sets,
    rules: Vec<CompiledRule<'c>>,
    /// By end: what selects it for ingress and egress; `None`: not isolated.
    isolation: Vec<[Option<Isolation>; 2]>,
    named: RefCell<HashMap<(usize, EndId), SetId>>,
}

struct CompiledRule<'c> {
    name: RuleRef,
    rule: &'c Rule,
    /// Who its peers are; `None`: everyone.
    peers: Option<std::rc::Rc<FixedBitSet>>,
    /// What it opens, named ports apart.
    ports: SetId,
    has_named_ports: bool,
}

#[derive(Clone, Debug, Default)]
struct Isolation {
    /// Indices into the policy set.
    by: Vec<usize>,
    /// Indices into `rules`.
    rules: Vec<usize>,
}

impl<'u, 'c> Reach<'u, 'c> {
    /// Reachability of the universe's input of this index. Reaches that are to be compared share `sets`.
    pub fn new(universe: &'u Universe<'c>, input: usize, sets: &'u Sets) -> Self {
        let mut reach = Self {
            universe,
            input,
            sets,
            rules: Vec::new(),
            isolation: vec![[None, None]; universe.len()],
            named: RefCell::default(),
        };
        let mut peers = PeerSets::new(universe, input);
        let policies = &universe.inputs()[input].policies.policies;
        for (index, policy) in policies.iter().enumerate() {
            reach.add(index, policy, &mut peers);
        }
        reach
    }

    /// The universe it stands on.
    pub fn universe(&self) -> &'u Universe<'c> {
        self.universe
    }

    /// The sets that its answers are numbers of.
    pub fn sets(&self) -> &'u Sets {
        self.sets
    }

    /// What `from` may open at `to`. Ends of one class are two pods, never a pod and itself.
    pub fn allowed(&self, from: EndId, to: EndId) -> SetId {
        if !self.can_meet(from, to) {
            return SetId::NONE;
        }
        match self.side(Direction::Egress, from, to) {
            SetId::NONE => SetId::NONE,
            egress => self.sets.intersection(egress, self.side(Direction::Ingress, from, to)),
        }
    }

    /// [`Reach::allowed`] from one end to every end, by their numbers.
    pub fn row(&self, from: EndId) -> Vec<SetId> {
        let mut row = match &self.isolation[from.index()][1] {
            None => vec![SetId::ALL; self.universe.len()],
            Some(isolation) => self.egress_row(isolation),
        };
        for (to, set) in (0..).map(EndId).zip(&mut row) {
            if *set != SetId::NONE {
                *set = match self.can_meet(from, to) {
                    true => self.sets.intersection(*set, self.side(Direction::Ingress, from, to)),
                    false => SetId::NONE,
                };
            }
        }
        row
    }

    /// What one side alone allows: the client's egress, or the server's ingress.
    pub fn side(&self, direction: Direction, from: EndId, to: EndId) -> SetId {
        let (own, peer) = match direction {
            Direction::Ingress => (to, from),
            Direction::Egress => (from, to),
        };
        let Some(isolation) = &self.isolation[own.index()][direction as usize] else { return SetId::ALL };
        let mut open = SetId::NONE;
        for rule in &isolation.rules {
            if open == SetId::ALL {
                break;
            }
            if self.has_peer(*rule, peer) {
                open = self.sets.union(open, self.ports(*rule, to));
            }
        }
        open
    }

    /// The rules that let this connection pass on one side, and what each opens; none where the side
    /// is not isolated.
    pub fn rules(&self, direction: Direction, from: EndId, to: EndId) -> Vec<(RuleRef, SetId)> {
        let (own, peer) = match direction {
            Direction::Ingress => (to, from),
            Direction::Egress => (from, to),
        };
        let Some(isolation) = &self.isolation[own.index()][direction as usize] else { return Vec::new() };
        let matching = isolation.rules.iter().filter(|rule| self.has_peer(**rule, peer));
        matching
            .map(|rule| (self.rules[*rule].name, self.ports(*rule, to)))
            .filter(|(_, set)| *set != SetId::NONE)
            .collect()
    }

    /// The policies that isolate an end in a direction, as indices into the set; `None`: it is free.
    pub fn isolated_by(&self, direction: Direction, end: EndId) -> Option<&[usize]> {
        self.isolation[end.index()][direction as usize].as_ref().map(|isolation| isolation.by.as_slice())
    }

    /// The policies, which [`RuleRef::policy`] counts in.
    pub fn policies(&self) -> &'c [NetworkPolicy] {
        &self.universe.inputs()[self.input].policies.policies
    }

    /// The policy and the rule of a reference.
    pub fn rule(&self, name: RuleRef) -> Option<(&'c NetworkPolicy, &'c Rule)> {
        let policy = self.policies().get(name.policy)?;
        let list = match name.direction {
            Direction::Ingress => policy.ingress.as_ref(),
            Direction::Egress => policy.egress.as_ref(),
        };
        Some((policy, list?.get(name.index)?))
    }

    /// A rule's name as logs and evidence have it.
    pub fn rule_name(&self, name: RuleRef) -> Option<RuleName> {
        let policy = self.policies().get(name.policy)?;
        Some(match name.direction {
            Direction::Ingress => RuleName::ingress(policy, name.index),
            Direction::Egress => RuleName::egress(policy, name.index),
        })
    }

    /// Whether a rule's peers hold an end.
    pub fn is_peer(&self, name: RuleRef, end: EndId) -> bool {
        let rule = self.rules.iter().position(|rule| rule.name == name);
        rule.is_some_and(|rule| self.has_peer(rule, end))
    }

    /// What a rule opens at a destination, whoever asks.
    pub fn opens(&self, name: RuleRef, to: EndId) -> SetId {
        let rule = self.rules.iter().position(|rule| rule.name == name);
        rule.map_or(SetId::NONE, |rule| self.ports(rule, to))
    }

    fn add(&mut self, index: usize, policy: &'c NetworkPolicy, peers: &mut PeerSets<'_, 'c>) {
        let matches = |id: &EndId| self.universe.labels(*id).is_some_and(|labels| policy.pod_selector.matches(labels));
        let here = self.universe.in_namespace(&policy.namespace);
        let selected: Vec<EndId> = here.iter().copied().filter(matches).collect();
        for (direction, list) in [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)] {
            let Some(list) = list else { continue };
            let first = self.rules.len();
            for (at, rule) in list.iter().enumerate() {
                let name = RuleRef { policy: index, direction, index: at };
                self.rules.push(self.compile(name, rule, policy, peers));
            }
            for id in &selected {
                let isolation = self.isolation[id.index()][direction as usize].get_or_insert_default();
                isolation.by.push(index);
                isolation.rules.extend(first..self.rules.len());
            }
        }
    }

    fn compile(
        &self,
        name: RuleRef,
        rule: &'c Rule,
        policy: &'c NetworkPolicy,
        peers: &mut PeerSets<'_, 'c>,
    ) -> CompiledRule<'c> {
        let mut open = Allowed::default();
        for port in &rule.ports {
            open = match &port.port {
                PortMatch::All => open.union(&Allowed::of(port.protocol, vec![model::ports::ALL_PORTS])),
                PortMatch::Range(first, last) => open.union(&Allowed::of(port.protocol, vec![(*first, *last)])),
                PortMatch::Named(_) => open,
            };
        }
        let ports = if rule.ports.is_empty() { SetId::ALL } else { self.sets.id(open) };
        let has_named_ports = rule.ports.iter().any(|port| matches!(port.port, PortMatch::Named(_)));
        CompiledRule { name, rule, peers: peers.of(rule, policy), ports, has_named_ports }
    }

    fn has_peer(&self, rule: usize, end: EndId) -> bool {
        self.rules[rule].peers.as_ref().is_none_or(|peers| peers.contains(end.index()))
    }

    fn egress_row(&self, isolation: &Isolation) -> Vec<SetId> {
        let mut row = vec![SetId::NONE; self.universe.len()];
        for rule in &isolation.rules {
            let mut open = |index: usize| {
                let to = EndId(u32::try_from(index).unwrap_or(u32::MAX));
                row[index] = self.sets.union(row[index], self.ports(*rule, to));
            };
            match &self.rules[*rule].peers {
                None => (0..self.universe.len()).for_each(&mut open),
                Some(peers) => peers.ones().for_each(&mut open),
            }
        }
        row
    }

    /// What a rule opens at a destination.
    fn ports(&self, rule: usize, to: EndId) -> SetId {
        let compiled = &self.rules[rule];
        if !compiled.has_named_ports {
            return compiled.ports;
        }
        if let Some(known) = self.named.borrow().get(&(rule, to)) {
            return *known;
        }
        let mut open = self.sets.get(compiled.ports);
        if let End::Pods(class) = self.universe.end(to) {
            for port in &compiled.rule.ports {
                let PortMatch::Named(name) = &port.port else { continue };
                let here = class.ports.iter().filter(|(n, p, _)| n == name && *p == port.protocol.number());
                open = open.union(&Allowed::of(port.protocol, here.map(|(_, _, number)| (*number, *number)).collect()));
            }
        }
        let set = self.sets.id(open);
        self.named.borrow_mut().insert((rule, to), set);
        set
    }

    /// Whether two ends can have a connection that policies speak of.
    pub(crate) fn can_meet(&self, from: EndId, to: EndId) -> bool {
        let both_blocks = matches!((self.universe.end(from), self.universe.end(to)), (End::Block(_), End::Block(_)));
        !both_blocks && self.family(from).meets(self.family(to))
    }

    fn family(&self, end: EndId) -> Family {
        self.universe.family(end)
    }
}

impl Sets {
    /// Whether the set of this number holds the port.
    pub fn contains(&self, id: SetId, protocol: Protocol, port: u16) -> bool {
        self.get(id).contains(protocol, port)
    }
}

/// Who the peers of a rule are, each selector looked up once.
pub(crate) struct PeerSets<'u, 'c> {
    universe: &'u Universe<'c>,
    input: usize,
    /// By policy namespace (where it counts) and selectors.
    known: HashMap<(Option<&'c str>, &'c Peer), std::rc::Rc<FixedBitSet>>,
}

impl<'u, 'c> PeerSets<'u, 'c> {
    pub(crate) fn new(universe: &'u Universe<'c>, input: usize) -> Self {
        Self { universe, input, known: HashMap::new() }
    }

    fn of(&mut self, rule: &'c Rule, policy: &'c NetworkPolicy) -> Option<std::rc::Rc<FixedBitSet>> {
        let mut sets = rule.peers.iter().map(|peer| self.of_peer(peer, policy)).collect::<Vec<_>>().into_iter();
        let first = sets.next()?;
        let Some(second) = sets.next() else { return Some(first) };
        let mut all = (*first).clone();
        all.union_with(&second);
        sets.for_each(|set| all.union_with(&set));
        Some(all.into())
    }

    pub(crate) fn of_peer(&mut self, peer: &'c Peer, policy: &'c NetworkPolicy) -> std::rc::Rc<FixedBitSet> {
        let here = matches!(peer, Peer::Pods { namespaces: None, .. }).then_some(policy.namespace.as_str());
        if let Some(known) = self.known.get(&(here, peer)) {
            return known.clone();
        }
        let mut set = FixedBitSet::with_capacity(self.universe.len());
        match peer {
            Peer::Block { cidr, except } => set.extend(self.universe.at_block(cidr, except).map(EndId::index)),
            Peer::Pods { namespaces, pods } => self.pods(&mut set, namespaces.as_ref(), pods.as_ref(), policy),
        }
        let set = std::rc::Rc::new(set);
        self.known.insert((here, peer), set.clone());
        set
    }

    fn pods(
        &self,
        set: &mut FixedBitSet,
        namespaces: Option<&'c Selector>,
        pods: Option<&'c Selector>,
        policy: &'c NetworkPolicy,
    ) {
        let selects = |id: &EndId| match (pods, self.universe.labels(*id)) {
            (None, _) => true,
            (Some(selector), Some(labels)) => selector.matches(labels),
            (Some(_), None) => false,
        };
        let names = match namespaces {
            None => vec![policy.namespace.clone()],
            Some(selector) => namespaces_matching(self.universe.inputs()[self.input].cluster, selector),
        };
        for name in names {
            set.extend(self.universe.in_namespace(&name).iter().filter(|id| selects(id)).map(|id| id.index()));
        }
        let Some(selector) = namespaces else { return };
        let new = self.universe.in_new_namespaces().iter().filter(|id| match self.universe.end(**id) {
            End::Nobody(Nobody { namespace: Where::New { labels, .. }, .. }) => selector.matches(labels),
            _ => false,
        });
        set.extend(new.filter(|id| selects(id)).map(|id| id.index()));
    }
}
