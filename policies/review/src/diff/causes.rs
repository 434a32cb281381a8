//! Because of what a row is there.
//!
//! A row has a denying and an allowing input: what opens was denied in OLD, what closes is denied in NEW. The rules
//! that allow are looked up in the one and asked what they are in the other; so are the policies that isolate.

use super::{
    Cause, Change, Effect, Kind, Subject,
    members::{Is, Member},
    objects::Objects,
    rules::{self, Counterpart, Versions},
};
use crate::{
    reach::{Direction, Reach, RuleRef},
    sets::{SetId, Sets},
    universe::{EndId, Universe},
};
use model::{cluster::Source, policy::NetworkPolicy};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// Causes by number, and lists of them by number.
pub(crate) struct Causes<'a, 'u, 'c> {
    reaches: &'a [Reach<'u, 'c>; 2],
    sets: &'u Sets,
    versions: Versions<'c>,
    objects: Objects<'u, 'c>,
    numbers: RefCell<BTreeMap<Cause, u32>>,
    /// Why an end is isolated in one input alone, by that input, direction and end.
    isolation: RefCell<HashMap<(usize, Direction, EndId), BTreeSet<u32>>>,
    lists: HashMap<Vec<u32>, u32>,
}

/// One side of a connection at a pair of ends, and which input denies it.
#[derive(Clone, Copy)]
struct Asked {
    from: EndId,
    to: EndId,
    direction: Direction,
    denying: usize,
}

impl Asked {
    fn own(self) -> EndId {
        if self.direction == Direction::Egress { self.from } else { self.to }
    }

    fn peer(self) -> EndId {
        if self.direction == Direction::Egress { self.to } else { self.from }
    }
}

impl<'a, 'u, 'c> Causes<'a, 'u, 'c> {
    pub(crate) fn new(universe: &'u Universe<'c>, reaches: &'a [Reach<'u, 'c>; 2], sets: &'u Sets) -> Self {
        let versions = Versions::of(reaches[0].policies(), reaches[1].policies());
        let objects = Objects::new(universe);
        Self {
            reaches,
            sets,
            versions,
            objects,
            numbers: RefCell::default(),
            isolation: RefCell::default(),
            lists: HashMap::new(),
        }
    }

    /// Every cause in order, and every list.
    pub(crate) fn finish(self) -> (Vec<Cause>, Vec<Vec<u32>>) {
        let causes: Vec<(Cause, u32)> = self.numbers.into_inner().into_iter().collect();
        let mut place = vec![0_u32; causes.len()];
        (0..).zip(&causes).for_each(|(rank, (_, number))| place[*number as usize] = rank);
        let mut lists: Vec<(Vec<u32>, u32)> = self.lists.into_iter().collect();
        lists.sort_by_key(|(_, number)| *number);
        let in_order = |list: Vec<u32>| {
            let mut list: Vec<u32> = list.into_iter().map(|cause| place[cause as usize]).collect();
            list.sort_unstable();
            list
        };
        (
            causes.into_iter().map(|(cause, _)| cause).collect(),
            lists.into_iter().map(|(list, _)| in_order(list)).collect(),
        )
    }

    /// The number of the list of causes of a row.
    pub(crate) fn of(&mut self, from: &Member, to: &Member, kind: Kind, ports: SetId) -> u32 {
        let denying = if kind == Kind::Opened { 0 } else { 1 };
        let mut found = BTreeSet::new();
        let mut rest = ports;
        for client in &from.both {
            for server in &to.both {
                let here = self.sets.intersection(ports, self.only_allowed(*client, *server, denying));
                if here != SetId::NONE {
                    self.at_ends(*client, *server, denying, here, &mut found);
                    rest = self.sets.minus(rest, here);
                }
            }
        }
        if rest != SetId::NONE {
            self.between_ends(from, to, denying, rest, &mut found);
        }
        let list: Vec<u32> = found.into_iter().collect();
        let next = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        *self.lists.entry(list).or_insert(next)
    }

    fn number(&self, cause: Cause) -> u32 {
        let mut numbers = self.numbers.borrow_mut();
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(cause).or_insert(next)
    }

    /// What passes at these ends in one input and not in the one that denies.
    fn only_allowed(&self, from: EndId, to: EndId, denying: usize) -> SetId {
        self.sets.minus(self.reaches[1 - denying].allowed(from, to), self.reaches[denying].allowed(from, to))
    }

    /// The changes of policies and namespaces that make these ports differ at one pair of ends.
    fn at_ends(&self, from: EndId, to: EndId, denying: usize, ports: SetId, found: &mut BTreeSet<u32>) {
        for direction in [Direction::Egress, Direction::Ingress] {
            let side = |input: usize| self.reaches[input].side(direction, from, to);
            let lacking = self.sets.intersection(ports, self.sets.minus(side(1 - denying), side(denying)));
            if lacking != SetId::NONE {
                self.on_side(Asked { from, to, direction, denying }, lacking, found);
            }
        }
    }

    fn on_side(&self, asked: Asked, ports: SetId, found: &mut BTreeSet<u32>) {
        let Asked { denying, direction, .. } = asked;
        let allowing = 1 - denying;
        for (rule, open) in self.reaches[allowing].rules(direction, asked.from, asked.to) {
            if self.sets.intersection(open, ports) != SetId::NONE {
                self.of_rule(asked, rule, found);
            }
        }
        // Where no policy isolates in both, those that isolate in one are new, gone, or select others.
        let isolating = self.reaches[denying].isolated_by(direction, asked.own()).unwrap_or_default();
        let others = self.reaches[allowing].isolated_by(direction, asked.own()).unwrap_or_default();
        let in_both = |policy: &usize| self.versions.other(denying, *policy).is_some_and(|(o, _)| others.contains(&o));
        if isolating.iter().any(in_both) {
            return;
        }
        let mut known = self.isolation.borrow_mut();
        let causes = known.entry((denying, direction, asked.own())).or_insert_with(|| {
            let mut causes = BTreeSet::new();
            for policy in isolating {
                self.of_selection(denying, *policy, direction, Effect::Isolates(direction), &mut causes);
            }
            causes
        });
        found.extend(causes.iter());
    }

    /// What a rule that allows in one input is in the one that denies.
    fn of_rule(&self, asked: Asked, rule: RuleRef, found: &mut BTreeSet<u32>) {
        let Asked { denying, direction, .. } = asked;
        let allowing = 1 - denying;
        let effect = |other: Option<usize>| match allowing {
            0 => Effect::Allows { side: direction, old: Some(rule.index), new: other },
            _ => Effect::Allows { side: direction, old: other, new: Some(rule.index) },
        };
        let Some((other, _)) = self.versions.other(allowing, rule.policy) else {
            found.insert(self.number(self.policy_alone(
                allowing,
                rule.policy,
                effect(None),
                Some(rule.index),
                direction,
            )));
            self.of_namespace(asked, rule, found);
            return;
        };
        let isolating = self.reaches[denying].isolated_by(direction, asked.own()).unwrap_or_default();
        let selects = isolating.contains(&other);
        match self.versions.counterpart(allowing, rule.policy, direction, rule.index) {
            Counterpart::None => {
                let change = if allowing == 1 { Change::RuleAdded } else { Change::RuleRemoved };
                found.insert(self.number(self.rule_cause(allowing, rule, None, change, effect(None))));
            }
            Counterpart::Changed(index) => {
                found.insert(self.number(self.rule_cause(
                    allowing,
                    rule,
                    Some(index),
                    Change::RuleChanged,
                    effect(Some(index)),
                )));
            }
            Counterpart::Same => {}
        }
        self.of_namespace(asked, rule, found);
        if !selects {
            self.of_selection(allowing, rule.policy, direction, effect(None), found);
        }
    }

    /// Whatever became of a rule that allows: its peer's namespace may have become another too.
    fn of_namespace(&self, asked: Asked, rule: RuleRef, found: &mut BTreeSet<u32>) {
        let Some((policy, rule)) = self.reaches[1 - asked.denying].rule(rule) else { return };
        if !self.objects.holds(asked.denying, policy, rule, asked.peer()) {
            let changes = self.objects.namespace_differences(asked.peer(), rule);
            found.extend(changes.into_iter().map(|cause| self.number(cause)));
        }
    }

    /// Why a policy that isolates an end in one input does not in the other.
    fn of_selection(
        &self,
        input: usize,
        policy: usize,
        direction: Direction,
        effect: Effect,
        found: &mut BTreeSet<u32>,
    ) {
        let Some((_, other)) = self.versions.other(input, policy) else {
            found.insert(self.number(self.policy_alone(input, policy, effect, None, direction)));
            return;
        };
        let own = self.versions.policy(input, policy);
        let versions = if input == 0 { [own, other] } else { [other, own] };
        let cause = |change, texts: [String; 2]| {
            let [was, is] = texts.map(Some);
            let [old, new] = versions.map(|policy| policy.source.clone());
            Cause {
                change,
                subject: subject(own),
                effect: Effect::Isolates(direction),
                was,
                is,
                old,
                new,
                evidence: None,
            }
        };
        if rules::rules(other, direction).is_none() {
            found.insert(self.number(cause(Change::TypesChanged, versions.map(types))));
        }
        if other.pod_selector != own.pod_selector {
            found.insert(
                self.number(cause(Change::SelectorChanged, versions.map(|policy| policy.pod_selector.to_string()))),
            );
        }
    }

    fn policy_alone(
        &self,
        input: usize,
        policy: usize,
        effect: Effect,
        rule: Option<usize>,
        direction: Direction,
    ) -> Cause {
        let policy = self.versions.policy(input, policy);
        let rule = rule.and_then(|index| rules::rules(policy, direction)?.get(index));
        let place = rule.and_then(|rule| rule.source.clone()).or_else(|| policy.source.clone());
        let text = rule.map(|rule| rules::text(rule, direction));
        let (change, was, is, old, new) = match input {
            0 => (Change::PolicyRemoved, text, None, place, None),
            _ => (Change::PolicyAdded, None, text, None, place),
        };
        Cause { change, subject: subject(policy), effect, was, is, old, new, evidence: None }
    }

    fn rule_cause(&self, input: usize, rule: RuleRef, other: Option<usize>, change: Change, effect: Effect) -> Cause {
        let policy = self.versions.policy(input, rule.policy);
        let told = |policy: Option<&NetworkPolicy>, index: Option<usize>| -> (Option<String>, Option<Source>) {
            let Some(policy) = policy else { return (None, None) };
            let rule = index.and_then(|index| rules::rules(policy, rule.direction)?.get(index));
            // Where a rule is lacking, its policy is where to look.
            let place = rule.and_then(|rule| rule.source.clone()).or_else(|| policy.source.clone());
            (rule.map(|rule| rules::text(rule, rule_direction(&effect))), place)
        };
        let own = told(Some(policy), Some(rule.index));
        let others = told(self.versions.other(input, rule.policy).map(|(_, policy)| policy), other);
        let ((was, old), (is, new)) = if input == 0 { (own, others) } else { (others, own) };
        Cause { change, subject: subject(policy), effect, was, is, old, new, evidence: None }
    }

    /// The changes that make these ports differ where pods are others in NEW than in OLD.
    fn between_ends(&self, from: &Member, to: &Member, denying: usize, ports: SetId, found: &mut BTreeSet<u32>) {
        let mut rest = ports;
        while rest != SetId::NONE {
            let Some(witness) = self.witness(from, to, denying, rest) else { break };
            self.at_witness(from, to, denying, &witness, found);
            rest = self.sets.minus(rest, witness.ports);
        }
    }

    /// A pair of ends that may and one that may not, as like each other as possible.
    fn witness(&self, from: &Member, to: &Member, denying: usize, ports: SetId) -> Option<Witness> {
        let allowing = 1 - denying;
        let denied_from = if from.ends[denying].is_empty() { &from.ends[allowing] } else { &from.ends[denying] };
        let denied_to = if to.ends[denying].is_empty() { &to.ends[allowing] } else { &to.ends[denying] };
        let is_absent = from.ends[denying].is_empty() || to.ends[denying].is_empty();
        let mut best: Option<(usize, Witness)> = None;
        for allowed in pairs(&from.ends[allowing], &to.ends[allowing]) {
            let open = self.sets.intersection(ports, self.reaches[allowing].allowed(allowed.0, allowed.1));
            if open == SetId::NONE {
                continue;
            }
            for denied in pairs(denied_from, denied_to) {
                let ports = match is_absent {
                    true => open,
                    false => self.sets.minus(open, self.reaches[denying].allowed(denied.0, denied.1)),
                };
                // Ends of two families have no connection at all; where others are denied, these show less.
                let meets = usize::from(self.reaches[denying].can_meet(denied.0, denied.1)) * 2;
                let alike = meets + usize::from(allowed.0 == denied.0) + usize::from(allowed.1 == denied.1);
                if ports != SetId::NONE && best.as_ref().is_none_or(|(most, _)| alike > *most) {
                    best = Some((alike, Witness { allowed, denied, ports }));
                }
            }
        }
        best.map(|(_, witness)| witness)
    }

    fn at_witness(&self, from: &Member, to: &Member, denying: usize, witness: &Witness, found: &mut BTreeSet<u32>) {
        let Witness { allowed, denied, ports } = *witness;
        let allowing = 1 - denying;
        let within = |input: usize, pair: (EndId, EndId)| {
            self.sets.intersection(ports, self.reaches[input].allowed(pair.0, pair.1))
        };
        // What the objects alone would change, and what the policies alone would.
        let by_objects = within(denying, allowed);
        let by_policies = within(allowing, denied);
        let is_absent = [from, to].iter().any(|member| member.ends[denying].is_empty());
        if by_objects != ports {
            self.at_ends(allowed.0, allowed.1, denying, self.sets.minus(ports, by_objects), found);
        }
        if by_policies != SetId::NONE && !is_absent {
            self.at_ends(denied.0, denied.1, denying, by_policies, found);
        }
        if by_policies == ports && by_objects == SetId::NONE && !is_absent {
            return;
        }
        // Which of two ends that both changed is needed, under the policies that allow.
        let needs_from = allowed.0 != denied.0 && within(allowing, (denied.0, allowed.1)) != ports;
        let needs_to = allowed.1 != denied.1 && within(allowing, (allowed.0, denied.1)) != ports;
        let either = !needs_from && !needs_to;
        for (member, needs, allowed, denied) in
            [(from, needs_from, allowed.0, denied.0), (to, needs_to, allowed.1, denied.1)]
        {
            let Is::Workload(key) = &member.is else { continue };
            if member.ends[denying].is_empty() {
                found.insert(self.number(self.objects.alone(allowing, key, allowed)));
            } else if (needs || either) && allowed != denied {
                let (old, new) = if allowing == 1 { (denied, allowed) } else { (allowed, denied) };
                let changes = self.objects.differences(key, old, new);
                found.extend(changes.into_iter().map(|cause| self.number(cause)));
            }
        }
    }
}

/// Ends that show that something differs.
struct Witness {
    allowed: (EndId, EndId),
    denied: (EndId, EndId),
    ports: SetId,
}

fn pairs<'m>(from: &'m [EndId], to: &'m [EndId]) -> impl Iterator<Item = (EndId, EndId)> + 'm {
    from.iter().flat_map(move |client| to.iter().map(move |server| (*client, *server)))
}

fn rule_direction(effect: &Effect) -> Direction {
    match effect {
        Effect::Allows { side, .. } | Effect::Isolates(side) => *side,
        Effect::Differs => Direction::Ingress,
    }
}

fn subject(policy: &NetworkPolicy) -> Subject {
    Subject::Policy { namespace: policy.namespace.clone(), name: policy.name.clone() }
}

fn types(policy: &NetworkPolicy) -> String {
    let all = [("Ingress", policy.ingress.is_some()), ("Egress", policy.egress.is_some())];
    format!("[{}]", all.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
}
