//! One policy, with its evidence beside each rule.

use crate::{
    evidence::{Evidence, Proof, RuleEvidence},
    naming,
    openings::Way,
};
use model::{
    labels::{METADATA_NAME, Selector},
    policy::{NetworkPolicy, Peer, Port, PortMatch, Rule},
    record::RuleName,
};
use std::fmt::Write as _;

/// More peers than these are listed below each other.
const ON_ONE_LINE: usize = 2;

/// The policy as text for a terminal: who it selects, then each rule with what was seen.
pub fn policy(policy: &NetworkPolicy, evidence: &Evidence) -> String {
    let mut out = String::new();
    let name = format!("{}/{}", policy.namespace, policy.name);
    let whom = evidence.policies.get(&name).map_or_else(String::new, |p| format!(" for {}", p.workload));
    let selector = naming::printable(&policy.pod_selector.to_string());
    let _ = writeln!(out, "policy {}{whom}, selects {selector}", naming::printable(&name));
    if let Some(rules) = &policy.ingress {
        direction(&mut out, "ingress", "from", rules, |i| evidence.rule(&RuleName::ingress(policy, i)));
    }
    if let Some(rules) = &policy.egress {
        direction(&mut out, "egress", "to", rules, |i| evidence.rule(&RuleName::egress(policy, i)));
    }
    out
}

/// What a rule says, in one line: `from app=web in shop, TCP 8080`.
pub(crate) fn rule(way: Way, rule: &Rule) -> String {
    let preposition = if way == Way::Ingress { "from" } else { "to" };
    format!("{preposition} {}, {}", peers(&rule.peers), ports(&rule.ports))
}

fn direction<'e>(
    out: &mut String,
    name: &str,
    preposition: &str,
    rules: &[Rule],
    evidence: impl Fn(usize) -> Option<&'e RuleEvidence>,
) {
    if rules.is_empty() {
        let _ = writeln!(out, "  {name}: nothing is allowed");
    }
    for (index, rule) in rules.iter().enumerate() {
        let (ports, listed) = (ports(&rule.ports), rule.peers.len() > ON_ONE_LINE);
        let peers = if listed { naming::count(rule.peers.len() as u64, "peer") } else { peers(&rule.peers) };
        let _ = writeln!(out, "  {name}[{index}] {preposition} {peers}, {ports}");
        for peer in rule.peers.iter().filter(|_| listed) {
            let _ = writeln!(out, "    - {}", self::peer(peer));
        }
        let Some(evidence) = evidence(index).filter(|evidence| !evidence.proofs.is_empty()) else {
            let _ = writeln!(out, "      no evidence");
            continue;
        };
        for proof in &evidence.proofs {
            let _ = writeln!(out, "      {}", seen(proof));
        }
        for wider in &evidence.wider {
            let _ = writeln!(out, "      opens {} ({}): {}", wider.opens, wider.because.join("; "), wider.price);
        }
    }
}

fn peers(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "everyone".to_owned();
    }
    peers.iter().map(peer).collect::<Vec<_>>().join(" or ")
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods { namespaces, pods } => {
            let pods = pods.as_ref().map_or_else(|| "all pods".to_owned(), Selector::to_string);
            let at = match namespaces {
                None => String::new(),
                Some(selector) => format!(" in {}", namespace(selector)),
            };
            naming::printable(&format!("{pods}{at}"))
        }
        Peer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::Block { cidr, except } => {
            let holes: Vec<String> = except.iter().map(ToString::to_string).collect();
            format!("{cidr} without {}", holes.join(", "))
        }
    }
}

fn namespace(selector: &Selector) -> String {
    match selector.match_labels.get(METADATA_NAME) {
        Some(name) if selector.match_labels.len() == 1 && selector.match_expressions.is_empty() => name.clone(),
        _ => format!("namespaces {selector}"),
    }
}

fn ports(ports: &[Port]) -> String {
    if ports.is_empty() {
        return "every port".to_owned();
    }
    let one = |port: &Port| {
        let protocol = port.protocol.name();
        match &port.port {
            PortMatch::All => format!("{protocol} every port"),
            PortMatch::Range(first, last) => format!("{protocol} {}", naming::ports(&[(*first, *last)])),
            PortMatch::Named(name) => format!("{protocol} {}", naming::printable(name)),
        }
    };
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn seen(proof: &Proof) -> String {
    let mut out = format!("{} {}/{}: ", proof.peer, proof.port, proof.protocol);
    match (proof.flows, &proof.first_seen, &proof.last_seen) {
        (_, Some(first), Some(last)) => {
            let flows = if proof.flows == 0 { "a longer flow".to_owned() } else { naming::count(proof.flows, "flow") };
            let _ = write!(out, "{flows}, {first} to {last}");
        }
        (0, ..) => out.push_str("not seen itself"),
        (flows, ..) => out.push_str(&naming::count(flows, "flow")),
    }
    if proof.basis != "learned" {
        let _ = write!(out, ", {}", proof.basis);
    }
    if let Some(rule) = &proof.direction_rule {
        let _ = write!(out, ", direction by {rule}");
    }
    if proof.adopted_only {
        out.push_str(", adopted");
    }
    if !proof.services.is_empty() {
        let _ = write!(out, ", through {}", proof.services.join(", "));
    }
    if !proof.dns_names.is_empty() {
        let _ = write!(out, ", as {}", proof.dns_names.join(", "));
    }
    if !proof.nodes.is_empty() {
        let _ = write!(out, ", on {}", proof.nodes.join(", "));
    }
    if let Some(sample) = proof.samples.first() {
        let _ = write!(out, ", such as {sample}");
    }
    out
}
