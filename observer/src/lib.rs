//! Flows in: captures and kernel events, attributed, into the log and the ledger.
#![forbid(unsafe_code)]
