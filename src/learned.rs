//! What a flow log teaches: its ledger and its gaps, and what of it could not be read.

use crate::ending::{Failure, warn};
use flowlog::Row;
use generator::Routes;
use model::{ledger::Ledger, record::Gap};
use std::path::Path;

/// A log, counted.
pub(crate) struct Learned {
    pub(crate) ledger: Ledger,
    pub(crate) gaps: Vec<Gap>,
    /// Through which Services and by which names clients came.
    pub(crate) routes: Routes,
    /// Slices of flows that were read.
    pub(crate) rows: u64,
}

/// Counts every row of a log; files that cannot be read are named on standard error and the rest is counted.
pub(crate) fn read(log: &Path) -> Result<Learned, Failure> {
    let mut learned = Learned { ledger: Ledger::default(), gaps: Vec::new(), routes: Routes::default(), rows: 0 };
    let all = flowlog::Filter::default();
    let summary = flowlog::read(log, &all, &mut |row| match row {
        // One instance a node: what a log holds of a node was written once, by one observer after the other.
        Row::Flow(record) => {
            learned.ledger.add(&record.node, &record);
            learned.routes.add(&record);
        }
        Row::Gap(gap) => learned.gaps.push(gap),
    })
    .map_err(|why| Failure::whole(&why))?;
    for damaged in &summary.damaged {
        warn(&format!("{damaged}; what could not be read of it is not learned"));
    }
    learned.rows = summary.rows;
    Ok(learned)
}
