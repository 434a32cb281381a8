//! Pods that are treated alike for the same reasons, and these reasons.

use super::{
    But, Judgement,
    asked::{AskedPort, Member, PortName, Problem, Who},
    endpoint,
};
use crate::{Direction, End, EndId, Family, Reach, RuleRef, SetId, Universe};
use model::{cluster::Pod, policy::Protocol, reference::Endpoint};
use std::collections::BTreeMap;

/// Clients and servers of which every pair is treated alike.
pub(super) struct Group {
    pub(super) from: Vec<Member>,
    pub(super) to: Vec<Member>,
    /// The port at these servers.
    pub(super) port: At,
    pub(super) is_port_named: bool,
    /// One pod to itself.
    pub(super) is_itself: bool,
    pub(super) allowed: SetId,
    pub(super) facts: BothFacts,
}

/// Both sides' reasons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BothFacts {
    pub(super) egress: Facts,
    pub(super) ingress: Facts,
}

/// A server's port.
type At = Option<(Protocol, u16)>;

/// One side's reasons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Facts {
    pub(super) judgement: Judgement,
    /// Indices into the policy set.
    pub(super) isolated_by: Vec<usize>,
    pub(super) rules: Vec<(RuleRef, SetId)>,
    pub(super) near: Vec<(RuleRef, SetId, But)>,
}

impl Facts {
    fn exempt() -> Self {
        Self { judgement: Judgement::Exempt, isolated_by: Vec::new(), rules: Vec::new(), near: Vec::new() }
    }
}

impl Group {
    /// Every pair of different pods, in each family that both have, as the reference evaluator takes them.
    pub(super) fn pairs<'p>(
        &'p self,
        universe: &'p Universe<'_>,
    ) -> impl Iterator<Item = (Endpoint<'p>, Endpoint<'p>)> {
        let pairs = self.from.iter().flat_map(|from| self.to.iter().map(move |to| (from, to)));
        let different =
            move |(from, to): &(&Member, &Member)| from.pod.is_none() || from.pod != to.pod || self.is_itself;
        pairs.filter(different).flat_map(move |(from, to)| {
            [true, false].into_iter().filter_map(move |is_v4| {
                let both = has(universe, from, is_v4) && has(universe, to, is_v4);
                both.then(|| (endpoint(universe, from, is_v4), endpoint(universe, to, is_v4)))
            })
        })
    }
}

/// Whether a member can have an address of this family.
fn has(universe: &Universe<'_>, member: &Member, is_v4: bool) -> bool {
    if let Some(address) = member.address {
        return address.is_ipv4() == is_v4;
    }
    let family = if is_v4 { Family::V4 } else { Family::V6 };
    let addresses = member.pod.map_or(&[][..], |at| universe.pods(0)[at].0.addresses.as_slice());
    let known = addresses.is_empty() || addresses.iter().any(|ip| ip.to_canonical().is_ipv4() == is_v4);
    known && universe.family(member.end).meets(family)
}

/// Who is treated alike, in a stable order: as few groups as the reasons allow.
pub(super) fn groups(
    universe: &Universe<'_>,
    reach: &Reach<'_, '_>,
    from: &Who,
    to: &Who,
    port: Option<&AskedPort>,
) -> Result<Vec<Group>, Problem> {
    let is_port_named = port.is_some_and(|port| matches!(port.port, PortName::Name(_)));
    let mut servers: BTreeMap<(EndId, At), Vec<Member>> = BTreeMap::new();
    for member in &to.members {
        for number in numbers(universe, member, port) {
            servers.entry((member.end, number)).or_default().push(member.clone());
        }
    }
    if let Some(port) = port.filter(|_| servers.is_empty()) {
        let has = names(universe, to);
        return Err(Problem::NoSuchPort { server: to.name.clone(), port: port.to_string(), has });
    }
    let mut clients: BTreeMap<EndId, Vec<Member>> = BTreeMap::new();
    for member in &from.members {
        clients.entry(member.end).or_default().push(member.clone());
    }
    type Told = (BothFacts, SetId, At, bool);
    let mut told: BTreeMap<Told, BTreeMap<Vec<Member>, Vec<Member>>> = BTreeMap::new();
    let itself = is_itself(from, to);
    let others = servers.values().chain(clients.values()).map(Vec::len).max().unwrap_or(0) > 1
        || servers.len() > 1
        || clients.len() > 1;
    for (client, client_members) in &clients {
        let mut here: BTreeMap<Told, Vec<Member>> = BTreeMap::new();
        for ((server, number), server_members) in &servers {
            let meets = universe.family(*client).meets(universe.family(*server));
            let only_itself = others && one_pod(client_members).is_some_and(|pod| one_pod(server_members) == Some(pod));
            if !meets || (only_itself && !itself) {
                continue;
            }
            let (facts, allowed) = match itself {
                true => (BothFacts { egress: Facts::exempt(), ingress: Facts::exempt() }, SetId::ALL),
                false => facts(universe, reach, *client, *server, *number),
            };
            here.entry((facts, allowed, *number, itself)).or_default().extend(server_members.iter().cloned());
        }
        for (key, mut servers) in here {
            servers.sort();
            told.entry(key).or_default().entry(servers).or_default().extend(client_members.iter().cloned());
        }
    }
    let mut groups: Vec<Group> = told
        .into_iter()
        .flat_map(|((facts, allowed, port, is_itself), sides)| {
            sides.into_iter().map(move |(to, mut from)| {
                from.sort();
                Group { from, to, port, is_port_named, is_itself, allowed, facts: facts.clone() }
            })
        })
        .collect();
    if groups.is_empty() {
        return Err(Problem::NoFamily { from: from.name.clone(), to: to.name.clone() });
    }
    let order = |group: &Group| (group.from.clone(), group.to.clone(), group.port);
    groups.sort_by_key(order);
    Ok(groups)
}

/// One pod was asked for on both sides, and it is the same.
fn is_itself(from: &Who, to: &Who) -> bool {
    from.is_one && to.is_one && one_pod(&from.members).is_some_and(|pod| one_pod(&to.members) == Some(pod))
}

fn one_pod(members: &[Member]) -> Option<usize> {
    let (first, rest) = members.split_first()?;
    first.pod.filter(|pod| rest.iter().all(|member| member.pod == Some(*pod)))
}

/// The port at a server; several where it has the name more than once.
fn numbers(universe: &Universe<'_>, server: &Member, port: Option<&AskedPort>) -> Vec<At> {
    match port.map(|port| (port.protocol, &port.port)) {
        None => vec![None],
        Some((protocol, PortName::Number(number))) => vec![Some((protocol, *number))],
        Some((protocol, PortName::Name(name))) => {
            let pod = server.pod.map(|at| &universe.pods(0)[at].0).filter(|pod| !pod.host_network);
            let ports = pod.into_iter().flat_map(|pod| &pod.ports);
            let named = ports.filter(|port| port.protocol == protocol && port.name.as_deref() == Some(name));
            named.map(|port| Some((protocol, port.port))).collect()
        }
    }
}

/// The named ports that the servers have.
fn names(universe: &Universe<'_>, to: &Who) -> Vec<String> {
    let pods = to.members.iter().filter_map(|member| member.pod).map(|at| &universe.pods(0)[at].0);
    let ports = pods.flat_map(|pod: &std::borrow::Cow<'_, Pod>| &pod.ports);
    let mut all: Vec<String> =
        ports.filter_map(|port| Some(format!("{}/{}", port.name.as_deref()?, port.protocol.name()))).collect();
    all.sort();
    all.dedup();
    all
}

fn facts(universe: &Universe<'_>, reach: &Reach<'_, '_>, from: EndId, to: EndId, port: At) -> (BothFacts, SetId) {
    let side = |direction| side(universe, reach, direction, from, to, port);
    let sets = [Direction::Egress, Direction::Ingress].map(|direction| reach.side(direction, from, to));
    let allowed = reach.sets().intersection(sets[0], sets[1]);
    (BothFacts { egress: side(Direction::Egress), ingress: side(Direction::Ingress) }, allowed)
}

fn side(
    universe: &Universe<'_>,
    reach: &Reach<'_, '_>,
    direction: Direction,
    from: EndId,
    to: EndId,
    port: At,
) -> Facts {
    let (own, peer) = match direction {
        Direction::Egress => (from, to),
        Direction::Ingress => (to, from),
    };
    let free = |judgement| Facts { judgement, isolated_by: Vec::new(), rules: Vec::new(), near: Vec::new() };
    match universe.end(own) {
        End::Block(_) => return free(Judgement::NoPod),
        End::Pods(class) if class.host_network => return free(Judgement::NoPod),
        End::Pods(_) | End::Nobody(_) => {}
    }
    let Some(isolated_by) = reach.isolated_by(direction, own) else { return free(Judgement::NotIsolated) };
    let opens = |set: SetId| port.is_none_or(|(protocol, port)| reach.sets().contains(set, protocol, port));
    let matching = reach.rules(direction, from, to);
    let (rules, other_port): (Vec<_>, Vec<_>) = matching.into_iter().partition(|(_, set)| opens(*set));
    let judgement = if rules.is_empty() { Judgement::Denied } else { Judgement::Allowed };
    let mut near: Vec<(RuleRef, SetId, But)> = Vec::new();
    if judgement == Judgement::Denied && port.is_some() {
        near.extend(other_port.into_iter().map(|(rule, set)| (rule, set, But::OtherPort)));
        near.extend(other_peer(reach, direction, isolated_by, peer, to, port));
    }
    Facts { judgement, isolated_by: isolated_by.to_vec(), rules, near }
}

/// Rules of these policies that open the port to others.
fn other_peer(
    reach: &Reach<'_, '_>,
    direction: Direction,
    policies: &[usize],
    peer: EndId,
    to: EndId,
    port: At,
) -> Vec<(RuleRef, SetId, But)> {
    let Some((protocol, number)) = port else { return Vec::new() };
    let mut near = Vec::new();
    for policy in policies.iter().copied() {
        let of = reach.policies().get(policy);
        let list = of.and_then(|policy| match direction {
            Direction::Ingress => policy.ingress.as_ref(),
            Direction::Egress => policy.egress.as_ref(),
        });
        for (index, rule) in list.into_iter().flatten().enumerate() {
            let name = RuleRef { policy, direction, index };
            // Everyone is a peer of a rule that names none.
            if rule.peers.is_empty() || reach.is_peer(name, peer) {
                continue;
            }
            let opens = reach.opens(name, to);
            if reach.sets().contains(opens, protocol, number) {
                near.push((name, opens, But::OtherPeer));
            }
        }
    }
    near
}
