//! Ports of rules against the ports that containers declare. Declaring is optional, so that only
//! destinations all of which declare some are asked.

use super::{Found, Subject, count, kinds};
use crate::{
    reach::{Direction, PeerSets, RuleRef},
    universe::{End, EndId},
};
use model::policy::{Peer, Port, PortMatch, Protocol};
use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

/// What the pods of an end declare.
#[derive(Default)]
struct Declared {
    ports: BTreeSet<(Protocol, u16)>,
    names: BTreeSet<(Protocol, String)>,
    /// Whether some of them declare nothing.
    silent: bool,
}

/// Where a rule leads to.
struct Destinations {
    ends: Vec<EndId>,
    /// Peers of one rule or pods of one policy, rather than everyone.
    chosen: bool,
    /// Addresses as well, of which nobody declares anything.
    addresses: bool,
}

pub(super) fn look(subject: &Subject<'_, '_>, found: &mut Found) {
    let declared = declared(subject);
    let mut peers = PeerSets::new(subject.universe, 0);
    let selected = selected(subject);
    for rule in subject.rules() {
        let Some((policy, content)) = subject.reach.rule(rule) else { continue };
        if content.ports.iter().all(|port| port.port == PortMatch::All) {
            continue;
        }
        let destinations = match rule.direction {
            Direction::Ingress => Destinations {
                ends: selected.get(&rule.policy).cloned().unwrap_or_default(),
                chosen: true,
                addresses: false,
            },
            Direction::Egress => {
                let sets: Vec<Rc<_>> = content.peers.iter().map(|peer| peers.of_peer(peer, policy)).collect();
                let chosen = !sets.is_empty();
                let ends = running(subject).filter(|id| !chosen || sets.iter().any(|set| set.contains(id.index())));
                let addresses = !chosen || content.peers.iter().any(|peer| matches!(peer, Peer::Block { .. }));
                Destinations { ends: ends.collect(), chosen, addresses }
            }
        };
        for (index, port) in content.ports.iter().enumerate() {
            check(subject, rule, index, port, &destinations, &declared, found);
        }
    }
}

fn check(
    subject: &Subject<'_, '_>,
    rule: RuleRef,
    index: usize,
    port: &Port,
    at: &Destinations,
    declared: &HashMap<EndId, Declared>,
    found: &mut Found,
) {
    let all: Vec<&Declared> = at.ends.iter().filter_map(|id| declared.get(id)).collect();
    if all.is_empty() {
        return;
    }
    let protocol = port.protocol;
    let field = format!(".ports[{index}]");
    let kinds_of_pods = |n: usize| count(n, "kind") + " of pods";
    match &port.port {
        PortMatch::All => {}
        PortMatch::Range(first, last) => {
            let serves = |one: &&Declared| one.ports.range((protocol, *first)..=(protocol, *last)).next().is_some();
            if at.addresses || all.iter().any(|one| one.silent) || all.iter().any(serves) {
                return;
            }
            let served: BTreeSet<_> = all.iter().flat_map(|one| &one.ports).collect();
            let served: Vec<String> =
                served.iter().map(|(protocol, port)| format!("{port}/{}", protocol.name())).collect();
            let port = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let what = format!(
                "no destination serves {port}/{}; they declare {}",
                protocol.name(),
                super::some_of(&served, 5)
            );
            found.rule(kinds::NOT_SERVED, subject.reach, rule, &field, what);
        }
        PortMatch::Named(name) => {
            let having = all.iter().filter(|one| one.names.contains(&(protocol, name.clone()))).count();
            let name = format!("`{name}` ({})", protocol.name());
            if having == 0 {
                let what = format!("no destination has a port named {name}: {}", kinds_of_pods(all.len()));
                found.rule(kinds::NAME_NOWHERE, subject.reach, rule, &field, what);
            } else if having < all.len() && at.chosen {
                let what = format!("only {having} of {} have a port named {name}", kinds_of_pods(all.len()));
                found.rule(kinds::NAME_NOT_EVERYWHERE, subject.reach, rule, &field, what);
            }
        }
    }
}

fn running<'s>(subject: &'s Subject<'_, '_>) -> impl Iterator<Item = EndId> + 's {
    let is_running = |end: &End| matches!(end, End::Pods(class) if !class.host_network);
    subject.universe.ends().filter(move |(_, end)| is_running(end)).map(|(id, _)| id)
}

fn declared(subject: &Subject<'_, '_>) -> HashMap<EndId, Declared> {
    let mut all: HashMap<EndId, Declared> = HashMap::new();
    for (pod, ends) in subject.universe.pods(0).iter().filter(|(pod, _)| !pod.host_network) {
        for id in ends {
            let one = all.entry(*id).or_default();
            one.silent |= pod.ports.is_empty();
            for port in &pod.ports {
                one.ports.insert((port.protocol, port.port));
                one.names.extend(port.name.iter().map(|name| (port.protocol, name.clone())));
            }
        }
    }
    all
}

/// By policy, the running pods it selects.
fn selected(subject: &Subject<'_, '_>) -> HashMap<usize, Vec<EndId>> {
    let mut all: HashMap<usize, Vec<EndId>> = HashMap::new();
    for id in running(subject) {
        for policy in subject.reach.isolated_by(Direction::Ingress, id).unwrap_or_default() {
            all.entry(*policy).or_default().push(id);
        }
    }
    all
}
