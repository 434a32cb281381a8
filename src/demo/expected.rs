//! What a scenario's traffic.yaml makes one expect, beside what was seen: the same edges, in one form.

use super::step::count;
use generator::{CommunicationGraph, naming};
use lab::{ExpectedEdge, Party, Scenario};
use model::{
    ledger::{self, Edge},
    policy::Protocol,
};
use std::{collections::BTreeSet, net::IpAddr};

/// An edge that was seen, as a scenario names it.
pub(crate) fn named(scenario: &Scenario, edge: &Edge) -> ExpectedEdge {
    ExpectedEdge {
        client: party(scenario, &edge.client),
        server: party(scenario, &edge.server),
        protocol: Protocol::from_number(edge.protocol),
        port: edge.port,
    }
}

fn party(scenario: &Scenario, party: &ledger::Party) -> Party {
    match party {
        ledger::Party::Workload(key) => Party::Workload(key.as_ref().clone()),
        ledger::Party::Outside(ip) | ledger::Party::Node(ip) => address(scenario, *ip),
    }
}

/// The host outside that has an address; else the address itself.
pub(crate) fn address(scenario: &Scenario, ip: IpAddr) -> Party {
    let host = scenario.outside.iter().find(|(_, addresses)| addresses.contains(&ip));
    Party::Outside(host.map_or_else(|| ip.to_string(), |(name, _)| name.clone()))
}

/// The edges of a graph.
pub(crate) fn of_graph(scenario: &Scenario, graph: &CommunicationGraph) -> BTreeSet<ExpectedEdge> {
    let edge = |(client, server, link): (&ledger::Party, &ledger::Party, &generator::graph::Link)| {
        let edge = Edge { client: client.clone(), server: server.clone(), protocol: link.protocol, port: link.port };
        named(scenario, &edge)
    };
    graph.links().map(edge).collect()
}

/// Edges a NetworkPolicy can express, and those it cannot.
pub(crate) fn split(edges: BTreeSet<ExpectedEdge>) -> (BTreeSet<ExpectedEdge>, BTreeSet<ExpectedEdge>) {
    edges.into_iter().partition(|edge| edge.protocol.is_some())
}

/// `shop/frontend -> shop/cart 8080/tcp`.
pub(crate) fn shown(edge: &ExpectedEdge) -> String {
    match edge.protocol {
        Some(protocol) => {
            format!("{} -> {} {}/{}", edge.client, edge.server, edge.port, naming::protocol(protocol.number()))
        }
        None => format!("{} -> {} (no port)", edge.client, edge.server),
    }
}

/// What one set has and the other has not, for a person.
pub(crate) fn differences(expected: &BTreeSet<ExpectedEdge>, seen: &BTreeSet<ExpectedEdge>) -> Vec<String> {
    let missing = expected.difference(seen).map(|edge| format!("missing: {}", shown(edge)));
    let surplus = seen.difference(expected).map(|edge| format!("not in traffic.yaml: {}", shown(edge)));
    missing.chain(surplus).collect()
}

/// `12 edges`, with the ones that no policy can express apart.
pub(crate) fn counted(expressible: usize, inexpressible: usize) -> String {
    match inexpressible {
        0 => count(expressible, "edge"),
        n => format!("{}, and {} that no NetworkPolicy can express, listed", count(expressible, "edge"), n),
    }
}
