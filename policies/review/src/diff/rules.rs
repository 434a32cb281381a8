//! Two versions of one policy: which rule became which.

use crate::reach::Direction;
use model::policy::{NetworkPolicy, Peer, Port, PortMatch, Rule};
use std::{cell::RefCell, collections::HashMap, rc::Rc};

/// The rules of a policy in one direction, each with its counterpart in the other version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counterpart {
    /// It says the same.
    Same,
    /// It became this one, or was it.
    Changed(usize),
    /// There is none.
    None,
}

/// Of every rule of a policy in a direction, in order.
type Counterparts = Rc<[Counterpart]>;

/// Every policy of two sets with what became of it.
pub(crate) struct Versions<'c> {
    policies: [&'c [NetworkPolicy]; 2],
    /// By input: each policy's index in the other.
    others: [Vec<Option<usize>>; 2],
    known: RefCell<HashMap<(usize, usize, Direction), Counterparts>>,
}

impl<'c> Versions<'c> {
    pub(crate) fn of(old: &'c [NetworkPolicy], new: &'c [NetworkPolicy]) -> Self {
        let find = |one: &[NetworkPolicy], all: &[NetworkPolicy]| -> Vec<Option<usize>> {
            let by_name: HashMap<_, _> = all.iter().enumerate().map(|(index, policy)| (name(policy), index)).collect();
            one.iter().map(|policy| by_name.get(&name(policy)).copied()).collect()
        };
        Self { policies: [old, new], others: [find(old, new), find(new, old)], known: Default::default() }
    }

    /// The policy of this input.
    pub(crate) fn policy(&self, input: usize, index: usize) -> &'c NetworkPolicy {
        &self.policies[input][index]
    }

    /// The same policy in the other input.
    pub(crate) fn other(&self, input: usize, index: usize) -> Option<(usize, &'c NetworkPolicy)> {
        let other = self.others[input][index]?;
        Some((other, &self.policies[1 - input][other]))
    }

    /// What a rule of this input is in the other.
    pub(crate) fn counterpart(&self, input: usize, policy: usize, direction: Direction, rule: usize) -> Counterpart {
        let key = (input, policy, direction);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.get(rule).copied().unwrap_or(Counterpart::None);
        }
        let own = rules(self.policy(input, policy), direction).unwrap_or_default();
        let other = self.other(input, policy).and_then(|(_, other)| rules(other, direction)).unwrap_or_default();
        // Paired from OLD to NEW whoever asks, so that both agree.
        let all: Counterparts = match input {
            0 => paired(own, other).into(),
            _ => {
                let mut turned = vec![Counterpart::None; own.len()];
                for (old, counterpart) in paired(other, own).into_iter().enumerate() {
                    match counterpart {
                        Counterpart::Changed(new) => turned[new] = Counterpart::Changed(old),
                        Counterpart::Same | Counterpart::None => {}
                    }
                }
                let same = own.iter().map(|rule| other.iter().any(|old| says_the_same(old, rule)));
                turned.iter_mut().zip(same).filter(|(_, same)| *same).for_each(|(t, _)| *t = Counterpart::Same);
                turned.into()
            }
        };
        let answer = all.get(rule).copied().unwrap_or(Counterpart::None);
        self.known.borrow_mut().insert(key, all);
        answer
    }
}

fn name(policy: &NetworkPolicy) -> (&str, &str) {
    (&policy.namespace, &policy.name)
}

/// The rules of a direction; `None`: it does not isolate in it.
pub(crate) fn rules(policy: &NetworkPolicy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

/// Rules that are alike in peers or in ports are one rule that changed; first those with the same peers.
fn paired(old: &[Rule], new: &[Rule]) -> Vec<Counterpart> {
    let mut pairs = vec![Counterpart::None; old.len()];
    let mut free: Vec<usize> =
        (0..new.len()).filter(|index| !old.iter().any(|rule| says_the_same(rule, &new[*index]))).collect();
    for (pair, rule) in pairs.iter_mut().zip(old) {
        if new.iter().any(|other| says_the_same(rule, other)) {
            *pair = Counterpart::Same;
        }
    }
    let alike: [fn(&Rule, &Rule) -> bool; 2] =
        [|a, b| sorted(&a.peers) == sorted(&b.peers), |a, b| sorted_ports(a) == sorted_ports(b)];
    for alike in alike {
        for (index, rule) in old.iter().enumerate() {
            if pairs[index] != Counterpart::None {
                continue;
            }
            if let Some(at) = free.iter().position(|other| alike(rule, &new[*other])) {
                pairs[index] = Counterpart::Changed(free.remove(at));
            }
        }
    }
    pairs
}

fn says_the_same(a: &Rule, b: &Rule) -> bool {
    sorted(&a.peers) == sorted(&b.peers) && sorted_ports(a) == sorted_ports(b)
}

fn sorted(peers: &[Peer]) -> Vec<&Peer> {
    let mut all: Vec<&Peer> = peers.iter().collect();
    all.sort();
    all.dedup();
    all
}

fn sorted_ports(rule: &Rule) -> Vec<&Port> {
    let mut all: Vec<&Port> = rule.ports.iter().collect();
    all.sort();
    all.dedup();
    all
}

/// A rule in one line: `from app=web: TCP 80`.
pub(crate) fn text(rule: &Rule, direction: Direction) -> String {
    let word = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let peers = rule.peers.iter().map(peer_text).collect::<Vec<_>>().join(" or ");
    let ports = rule.ports.iter().map(port_text).collect::<Vec<_>>().join(", ");
    let peers = if rule.peers.is_empty() { "anyone" } else { &peers };
    let ports = if rule.ports.is_empty() { "all ports" } else { &ports };
    format!("{word} {peers}: {ports}")
}

fn peer_text(peer: &Peer) -> String {
    match peer {
        Peer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::Block { cidr, except } => {
            format!("{cidr} without {}", except.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Peer::Pods { namespaces, pods } => {
            let pods = match pods.as_ref().map(ToString::to_string) {
                None => "all pods".to_owned(),
                Some(all) if all == "<all>" => "all pods".to_owned(),
                Some(selector) => format!("pods {selector}"),
            };
            match namespaces.as_ref().map(ToString::to_string) {
                None => format!("{pods} of its namespace"),
                Some(all) if all == "<all>" => format!("{pods} of all namespaces"),
                Some(selector) => format!("{pods} of namespaces {selector}"),
            }
        }
    }
}

fn port_text(port: &Port) -> String {
    let protocol = port.protocol.name();
    match &port.port {
        PortMatch::All => format!("{protocol} all"),
        PortMatch::Range(first, last) if first == last => format!("{protocol} {first}"),
        PortMatch::Range(first, last) => format!("{protocol} {first}-{last}"),
        PortMatch::Named(name) => format!("{protocol} {name}"),
    }
}
