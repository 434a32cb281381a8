//! What a flow log teaches: its ledger and the ways that clients took, and what of it could not be read.

use crate::ending::{Failure, warn};
use flowlog::Counted;
use model::{ledger::Ledger, routes::Routes};
use std::path::Path;

/// A log, counted.
pub(crate) struct Learned {
    pub(crate) ledger: Ledger,
    /// Through which Services and by which names clients came.
    pub(crate) routes: Routes,
    /// Slices of flows that were read.
    pub(crate) rows: u64,
}

/// Counts every row of a log; files that cannot be read are named on standard error and the rest is counted.
pub(crate) fn read(log: &Path) -> Result<Learned, Failure> {
    let Counted { ledger, routes, summary } = flowlog::count(log).map_err(|why| Failure::whole(&why))?;
    for damaged in &summary.damaged {
        warn(&format!("{damaged}; what could not be read of it is not learned"));
    }
    Ok(Learned { ledger, routes, rows: summary.rows })
}
