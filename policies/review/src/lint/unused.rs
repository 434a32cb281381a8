//! What the policies allow and no recorded flow used.
//!
//! Always holds: what any pod of a workload may have used counts as used, so that what is told here was
//! used by none.

use super::{Finding, Found, Subject, count, kinds, peers_field};
use crate::{
    reach::{Direction, PeerSets, RuleRef},
    universe::{End, EndId},
};
use jiff::Timestamp;
use model::{
    ledger::{Edge, Ledger, Party},
    policy::{Port, PortMatch, Protocol},
    record::UnixNanos,
};
use std::collections::{BTreeSet, HashSet};

/// What a flow log shows: who asked whom, and from when to when anybody asked.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    edges: BTreeSet<Edge>,
    flows: u64,
    window: Option<(UnixNanos, UnixNanos)>,
}

impl Observed {
    /// Of a ledger: every edge but those that were denied, unanswered ones and those of a guessed
    /// direction too.
    pub fn of(ledger: &Ledger) -> Self {
        let mut observed = Self::default();
        for (edge, seen) in &ledger.edges {
            observed.edges.insert(edge.clone());
            observed.flows += seen.sightings.flows();
            let (first, last) = observed.window.unwrap_or((seen.first_seen, seen.last_seen));
            observed.window = Some((first.min(seen.first_seen), last.max(seen.last_seen)));
        }
        for ((reason, edge), left) in &ledger.unfit {
            if let Some(edge) = edge.as_ref().filter(|_| !reason.is_denial()) {
                observed.edges.insert(edge.clone());
                observed.flows += left.sightings.flows();
            }
        }
        observed
    }
}

/// What was used, of which rule.
#[derive(Default)]
struct Used {
    rules: HashSet<RuleRef>,
    peers: HashSet<(RuleRef, usize)>,
    ports: HashSet<(RuleRef, usize)>,
}

pub(super) fn look(subject: &Subject<'_, '_>, observed: &Observed, found: &mut Found) {
    let Some((first, last)) = observed.window else {
        found
            .unchecked
            .push("the log holds no flow that a rule could have let pass: what is unused (PF022 to PF024)".to_owned());
        return;
    };
    let (mut used, mut gone) = (Used::default(), 0);
    let mut peers = PeerSets::new(subject.universe, 0);
    for edge in &observed.edges {
        match (ends(subject, &edge.client), ends(subject, &edge.server)) {
            (Some(clients), Some(servers)) => mark(subject, edge, &clients, &servers, &mut peers, &mut used),
            _ => gone += 1,
        }
    }
    if gone > 0 {
        found
            .unchecked
            .push(format!("{} of the log with a workload that the input does not hold", count(gone, "edge")));
    }
    let window = format!("in {} from {} to {}", count_flows(observed.flows), time(first), time(last));
    tell(subject, &used, &window, found);
}

/// Where a party stands; `None` for a workload that is not in the input.
fn ends(subject: &Subject<'_, '_>, party: &Party) -> Option<Vec<EndId>> {
    match party {
        Party::Workload(key) => subject.universe.workloads(0).get(key).cloned(),
        Party::Node(address) | Party::Outside(address) => Some(vec![subject.universe.block_at(*address)]),
    }
}

fn mark<'c>(
    subject: &Subject<'_, 'c>,
    edge: &Edge,
    clients: &[EndId],
    servers: &[EndId],
    peers: &mut PeerSets<'_, 'c>,
    used: &mut Used,
) {
    let protocol = Protocol::from_number(edge.protocol);
    for (from, to) in clients.iter().flat_map(|from| servers.iter().map(|to| (*from, *to))) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let other = if direction == Direction::Ingress { from } else { to };
            for (rule, opens) in subject.reach.rules(direction, from, to) {
                let Some((policy, content)) = subject.reach.rule(rule) else { continue };
                let passes = match protocol {
                    Some(protocol) => subject.reach.sets().contains(opens, protocol, edge.port),
                    None => content.ports.is_empty(),
                };
                if !passes {
                    continue;
                }
                used.rules.insert(rule);
                for (index, peer) in content.peers.iter().enumerate() {
                    if peers.of_peer(peer, policy).contains(other.index()) {
                        used.peers.insert((rule, index));
                    }
                }
                for (index, port) in content.ports.iter().enumerate() {
                    if protocol == Some(port.protocol) && holds(port, subject.universe.end(to), edge.port) {
                        used.ports.insert((rule, index));
                    }
                }
            }
        }
    }
}

fn holds(port: &Port, to: &End, number: u16) -> bool {
    match (&port.port, to) {
        (PortMatch::All, _) => true,
        (PortMatch::Range(first, last), _) => (*first..=*last).contains(&number),
        (PortMatch::Named(name), End::Pods(class)) => {
            class.ports.iter().any(|(n, p, at)| n == name && *p == port.protocol.number() && *at == number)
        }
        (PortMatch::Named(_), _) => false,
    }
}

/// What was told of already for another reason is not told again.
fn tell(subject: &Subject<'_, '_>, used: &Used, window: &str, found: &mut Found) {
    let key = |finding: &Finding| (finding.object.clone(), finding.field.clone());
    let told: HashSet<(String, String)> = found.findings.iter().filter(|f| is_about_use(f)).map(key).collect();
    for rule in subject.rules() {
        let Some((policy, content)) = subject.reach.rule(rule) else { continue };
        let object = super::name_of(policy);
        let own = format!("spec.{}", super::field_of(rule));
        let is_told = |field: &str| told.contains(&(object.clone(), field.to_owned()));
        if ["", "spec.podSelector", own.as_str()].into_iter().any(is_told) {
            continue;
        }
        if !used.rules.contains(&rule) {
            found.rule(kinds::UNUSED_RULE, subject.reach, rule, "", format!("no flow used it {window}"));
            continue;
        }
        for index in 0..content.peers.len() {
            let below = format!(".{}[{index}]", peers_field(rule.direction));
            if !used.peers.contains(&(rule, index)) && !is_told(&format!("{own}{below}")) {
                found.rule(kinds::UNUSED_PEER, subject.reach, rule, &below, format!("no flow used it {window}"));
            }
        }
        for index in 0..content.ports.len() {
            let below = format!(".ports[{index}]");
            if !used.ports.contains(&(rule, index)) && !is_told(&format!("{own}{below}")) {
                found.rule(kinds::UNUSED_PORT, subject.reach, rule, &below, format!("no flow used it {window}"));
            }
        }
    }
}

/// Whether a finding says already that something leads to nobody or can go.
fn is_about_use(finding: &Finding) -> bool {
    const KINDS: [&super::Kind; 11] = [
        kinds::SELECTS_NO_POD,
        kinds::NO_NAMESPACE,
        kinds::UNKNOWN_NAMESPACE,
        kinds::NO_PEER_POD,
        kinds::NOT_SERVED,
        kinds::NAME_NOWHERE,
        kinds::REDUNDANT_POLICY,
        kinds::REDUNDANT_RULE,
        kinds::REDUNDANT_PEER,
        kinds::REDUNDANT_PORT,
        kinds::NO_EFFECT,
    ];
    KINDS.contains(&finding.kind)
}

fn count_flows(flows: u64) -> String {
    if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") }
}

/// To the second, as RFC 3339 writes it.
fn time(nanos: UnixNanos) -> String {
    let second = Timestamp::from_second(nanos.div_euclid(1_000_000_000));
    second.map_or_else(|_| format!("{nanos} ns"), |at| at.to_string())
}
