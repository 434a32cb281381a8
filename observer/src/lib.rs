//! Flows in: captures and kernel events, attributed, into the log and the ledger.
//!
//! ```text
//! capture file or interface ─► Packet ─► Meter ─► FlowEvent ─┐
//! file of flows that somebody else saw ─► FlowEvent ──────────┤
//! kernel program's events (the agent reads them) ─► FlowEvent ─┴─► Observer ─► FlowRecord ─► flow log, ledger
//! ```
//!
//! Whatever the source, it ends in [`Observer::observe`]: give it a [`FlowEvent`](model::record::FlowEvent) whose
//! `flow_start` is the same in all slices of a flow and whose counters are those of the slice, call
//! [`Observer::gap`] for what was lost, [`Observer::tick`] about once a second, [`Observer::set_view`] when the
//! cluster changes and [`Observer::close`] at the end.
#![forbid(unsafe_code)]

mod attribute;
#[cfg(feature = "capture")]
mod capture;
mod error;
mod fragments;
mod import;
mod meter;
mod names;
mod observer;
mod summary;
mod waiting;

pub use attribute::{attribute, flow_id};
#[cfg(feature = "capture")]
pub use capture::{observe_file, observe_interface};
pub use error::Error;
pub use import::{Imported, each_event, observe_import};
pub use meter::{LINGER, Meter, MeterOptions};
pub use observer::Observer;
pub use summary::{EndedEarly, Skipped, Summary};
pub use waiting::{Wait, Waited};
