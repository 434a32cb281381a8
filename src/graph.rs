//! `graph`: who talks to whom, from a flow log.

use crate::{
    ending::{Ending, Failure},
    learned, output,
    output::Table,
    typed::{self, GraphOutput},
};
use generator::CommunicationGraph;
use miette::Result;
use model::ledger::{Edge, Ledger, Party};
use std::io::Write as _;

pub(crate) fn run(typed: &typed::Graph) -> Result<Ending> {
    let mut ledger = learned::read(&typed.log)?.ledger;
    if let Some(namespace) = &typed.namespace {
        keep_namespace(&mut ledger, namespace);
    }
    let graph = CommunicationGraph::of(&ledger);
    show(&graph, &ledger, typed.output)?;
    Ok(Ending::Done)
}

/// Leaves out the edges that have no end in a namespace.
fn keep_namespace(ledger: &mut Ledger, namespace: &str) {
    let within = |party: &Party| matches!(party, Party::Workload(key) if key.namespace == namespace);
    let touches = |edge: &Edge| within(&edge.client) || within(&edge.server);
    ledger.edges.retain(|edge, _| touches(edge));
    ledger.unfit.retain(|(_, edge), _| edge.as_ref().is_some_and(touches));
}

fn show(graph: &CommunicationGraph, ledger: &Ledger, form: GraphOutput) -> Result<(), Failure> {
    let mut out = output::stdout();
    let shown = match form {
        GraphOutput::Table => table(graph).write(&mut out),
        GraphOutput::Json => out.write_all(graph.to_json().as_bytes()),
        GraphOutput::Dot => out.write_all(graph.to_dot().as_bytes()),
        GraphOutput::Mermaid => out.write_all(graph.to_mermaid().as_bytes()),
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)?;
    if form == GraphOutput::Table {
        // Beside the answer, not in it: rows stay rows.
        ledger.unfit_summary().iter().for_each(|line| eprintln!("not in the graph: {line}"));
    }
    Ok(())
}

/// One row an edge.
pub(crate) fn table(graph: &CommunicationGraph) -> Table {
    let mut table = Table::new(CommunicationGraph::COLUMNS);
    graph.rows().iter().for_each(|row| table.row(row));
    table
}
