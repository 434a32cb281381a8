//! Who talks to whom: every learned edge as a petgraph, and four ways to show it.
//!
//! Always holds: one node a party and one edge a (client, server, protocol, port), each in order, so
//! that the same ledgers draw the same picture whatever order they came in.

mod drawing;

use crate::naming;
use model::ledger::{EdgeCounters, Ledger, Party};
use petgraph::graph::{DiGraph, NodeIndex};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The JSON's schema.
pub const SCHEMA: &str = "podfence.dev/graph/v1";

/// What one edge of the graph says.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// IP protocol number.
    pub protocol: u8,
    /// The server's port.
    pub port: u16,
    /// All observers and slices taken together.
    pub seen: EdgeCounters,
    /// Hourly slices in which it was seen.
    pub slices: u64,
}

/// The learned edges of a ledger.
#[derive(Clone, Debug)]
pub struct CommunicationGraph {
    /// From client to server.
    pub graph: DiGraph<Party, Link>,
}

impl CommunicationGraph {
    /// The graph of a ledger: what may become rules. What may not is in `Ledger::unfit`.
    pub fn of(ledger: &Ledger) -> Self {
        let learned = ledger.learned();
        let parties: BTreeSet<&Party> = learned.keys().flat_map(|edge| [&edge.client, &edge.server]).collect();
        let mut graph = DiGraph::with_capacity(parties.len(), learned.len());
        let nodes: BTreeMap<&Party, NodeIndex> = parties.into_iter().map(|p| (p, graph.add_node(p.clone()))).collect();
        for (edge, seen) in learned {
            let slices = ledger.edges.get(edge).map_or(0, |seen| seen.sightings.hours().len() as u64);
            let link = Link { protocol: edge.protocol, port: edge.port, seen, slices };
            graph.add_edge(nodes[&edge.client], nodes[&edge.server], link);
        }
        Self { graph }
    }

    /// Every edge as client, server, link, in order.
    pub fn links(&self) -> impl Iterator<Item = (&Party, &Party, &Link)> {
        self.graph.edge_indices().filter_map(|index| {
            let (client, server) = self.graph.edge_endpoints(index)?;
            Some((&self.graph[client], &self.graph[server], &self.graph[index]))
        })
    }

    /// Heads of [`CommunicationGraph::rows`].
    pub const COLUMNS: [&'static str; 7] =
        ["CLIENT", "SERVER", "PORT", "FLOWS", "FIRST SEEN", "LAST SEEN", "DIRECTION"];

    /// One row an edge.
    pub fn rows(&self) -> Vec<[String; 7]> {
        let row = |(client, server, link): (&Party, &Party, &Link)| {
            [
                naming::party_in_full(client),
                naming::party_in_full(server),
                format!("{}/{}", link.port, naming::protocol(link.protocol)),
                link.seen.flows.to_string(),
                naming::second(link.seen.first_seen),
                naming::second(link.seen.last_seen),
                format!("{}{}", link.seen.direction_rule, if link.seen.adopted_only { ", adopted" } else { "" }),
            ]
        };
        self.links().map(row).collect()
    }

    /// The graph as JSON: `parties` by id in order, `edges` by the ids of their ends.
    pub fn to_json(&self) -> String {
        let party = |index: NodeIndex| PartyJson::of(index.index(), &self.graph[index]);
        let edge = |index| {
            let (client, server) = self.graph.edge_endpoints(index)?;
            Some(EdgeJson::of(client.index(), server.index(), &self.graph[index]))
        };
        crate::render::json(&GraphJson {
            schema: SCHEMA,
            parties: self.graph.node_indices().map(party).collect(),
            edges: self.graph.edge_indices().filter_map(edge).collect(),
        })
    }

    /// The graph for Graphviz, one cluster a namespace.
    pub fn to_dot(&self) -> String {
        drawing::dot(self)
    }

    /// The graph for Mermaid, one subgraph a namespace.
    pub fn to_mermaid(&self) -> String {
        drawing::mermaid(self)
    }
}

#[derive(Serialize)]
struct GraphJson {
    schema: &'static str,
    parties: Vec<PartyJson>,
    edges: Vec<EdgeJson>,
}

#[derive(Serialize)]
struct PartyJson {
    id: usize,
    /// `workload`, `node`, `outside`.
    entity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

impl PartyJson {
    fn of(id: usize, party: &Party) -> Self {
        let none = Self { id, entity: "workload", namespace: None, kind: None, name: None, address: None };
        match party {
            Party::Workload(key) => Self {
                namespace: Some(key.namespace.clone()),
                kind: Some(key.kind.clone()),
                name: Some(key.name.clone()),
                ..none
            },
            Party::Node(ip) => Self { entity: "node", address: Some(ip.to_string()), ..none },
            Party::Outside(ip) => Self { entity: "outside", address: Some(ip.to_string()), ..none },
        }
    }
}

#[derive(Serialize)]
struct EdgeJson {
    client: usize,
    server: usize,
    protocol: String,
    port: u16,
    flows: u64,
    slices: u64,
    first_seen: String,
    last_seen: String,
    direction_rule: &'static str,
    adopted_only: bool,
    nodes: Vec<String>,
    samples: Vec<String>,
}

impl EdgeJson {
    fn of(client: usize, server: usize, link: &Link) -> Self {
        Self {
            client,
            server,
            protocol: naming::protocol(link.protocol),
            port: link.port,
            flows: link.seen.flows,
            slices: link.slices,
            first_seen: naming::instant(link.seen.first_seen),
            last_seen: naming::instant(link.seen.last_seen),
            direction_rule: link.seen.direction_rule.name(),
            adopted_only: link.seen.adopted_only,
            nodes: link.seen.nodes.iter().map(ToString::to_string).collect(),
            samples: link.seen.samples.iter().map(ToString::to_string).collect(),
        }
    }
}
