//! The graph as pictures. Parallel edges between two parties are one arrow with all its ports.
//!
//! Always holds: names are data; whatever they hold, they stay inside their quotes.

use super::CommunicationGraph;
use crate::naming;
use model::{
    drawing::{self, mermaid_text},
    ledger::Party,
};
use petgraph::graph::NodeIndex;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// Where parties without a namespace stand.
const NODES: &str = "nodes";
const OUTSIDE: &str = "outside";

/// Groups in order, each with its parties.
fn groups(drawn: &CommunicationGraph) -> BTreeMap<(u8, &str), Vec<NodeIndex>> {
    let mut groups: BTreeMap<(u8, &str), Vec<NodeIndex>> = BTreeMap::new();
    for index in drawn.graph.node_indices() {
        let group = match &drawn.graph[index] {
            Party::Workload(key) => (0, key.namespace.as_str()),
            Party::Node(_) => (1, NODES),
            Party::Outside(_) => (2, OUTSIDE),
        };
        groups.entry(group).or_default().push(index);
    }
    groups
}

/// Arrows in order, each with `8080/tcp, 53/udp`.
fn arrows(drawn: &CommunicationGraph) -> BTreeMap<(NodeIndex, NodeIndex), String> {
    let mut ports: BTreeMap<(NodeIndex, NodeIndex), BTreeSet<(u16, u8)>> = BTreeMap::new();
    for index in drawn.graph.edge_indices() {
        let link = &drawn.graph[index];
        if let Some(ends) = drawn.graph.edge_endpoints(index) {
            ports.entry(ends).or_default().insert((link.port, link.protocol));
        }
    }
    let label = |ports: BTreeSet<(u16, u8)>| {
        let all: Vec<_> =
            ports.iter().map(|(port, protocol)| format!("{port}/{}", naming::protocol(*protocol))).collect();
        all.join(", ")
    };
    ports.into_iter().map(|(ends, ports)| (ends, label(ports))).collect()
}

fn label(party: &Party) -> String {
    match party {
        Party::Workload(key) => format!("{} {}", key.kind, key.name),
        Party::Node(ip) | Party::Outside(ip) => ip.to_string(),
    }
}

pub(super) fn dot(drawn: &CommunicationGraph) -> String {
    let mut out = "digraph podfence {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (group, ((_, name), members)) in groups(drawn).into_iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{group} {{\n    label={};", dot_text(name));
        for member in members {
            let _ = writeln!(out, "    n{} [label={}];", member.index(), dot_text(&label(&drawn.graph[member])));
        }
        out.push_str("  }\n");
    }
    for ((client, server), ports) in arrows(drawn) {
        let _ = writeln!(out, "  n{} -> n{} [label={}];", client.index(), server.index(), dot_text(&ports));
    }
    out.push_str("}\n");
    out
}

/// What a terminal would obey is spelled out first.
fn dot_text(text: &str) -> String {
    drawing::dot_text(&naming::printable(text))
}

pub(super) fn mermaid(drawn: &CommunicationGraph) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for (group, ((_, name), members)) in groups(drawn).into_iter().enumerate() {
        let _ = writeln!(out, "  subgraph g{group}[{}]", mermaid_text(name));
        for member in members {
            let _ = writeln!(out, "    n{}[{}]", member.index(), mermaid_text(&label(&drawn.graph[member])));
        }
        out.push_str("  end\n");
    }
    for ((client, server), ports) in arrows(drawn) {
        let _ = writeln!(out, "  n{} -->|{}| n{}", client.index(), mermaid_text(&ports), server.index());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(dot_text("a\"]; b \\\n"), r#""a\"]; b \\\\u{a}""#);
        assert_eq!(mermaid_text("a\"]<script>"), "\"a#34;#93;#60;script#62;\"");
    }
}
