//! The flow log: what was seen, by whom, when, and what was decided, as Parquet that any engine reads.
//!
//! ```text
//! DIR/cluster=<c>/<node>.<id>.wal                                               rows of the last minutes
//! DIR/cluster=<c>/date=YYYY-MM-DD/hour=HH/on_node=<n>/<first>-<id>-<part>.parquet   finished segments
//! ```
//!
//! Rows go in batches, each with one `write`, into a write-ahead file (an Arrow IPC stream), so a killed
//! process loses only what was not yet handed over. A full write-ahead file becomes segments, one for each
//! hour of its rows' `start_ns`, written beside, synced and renamed, and is then removed; what a dead
//! writer left is finished by the next one that opens the log. The folder key is `on_node`, not `node`,
//! because `node` is a column of the rows themselves and engines refuse or overwrite a name that is both.
//!
//! Gaps are rows too (`row_kind` is `gap`), so that no query mistakes silence for peace.
//!
//! Time comes in as an argument; files are touched in one module, `disk`.
#![forbid(unsafe_code)]

mod count;
mod decode;
mod disk;
mod error;
mod list;
mod read;
mod retention;
mod schema;
mod segment;
mod wal;
mod writer;

pub use arrow;
pub use count::{Counted, count};
pub use decode::Decoder;
pub use error::{Damaged, Error};
pub use list::{Listing, Segment, WalRows, segments};
pub use read::{Filter, Summary, read, read_records};
pub use retention::Removed;
pub use schema::{VERSION, VERSION_KEY, encode, protocol_number, schema};
pub use writer::{Counts, Options, Writer};

use model::record::{FlowRecord, Gap, UnixNanos};

/// One row of the log.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every row is a flow")]
pub enum Row {
    /// A slice of a flow.
    Flow(FlowRecord),
    /// Something that was not seen.
    Gap(Gap),
}

impl Row {
    /// First nanosecond it speaks of.
    pub fn start(&self) -> UnixNanos {
        match self {
            Self::Flow(record) => record.event.start,
            Self::Gap(gap) => gap.start,
        }
    }

    /// Last nanosecond it speaks of.
    pub fn end(&self) -> UnixNanos {
        match self {
            Self::Flow(record) => record.event.end,
            Self::Gap(gap) => gap.end,
        }
    }

    /// The node that saw it, or did not.
    pub fn node(&self) -> &str {
        match self {
            Self::Flow(record) => &record.node,
            Self::Gap(gap) => &gap.node,
        }
    }
}

#[cfg(test)]
mod arbitrary;
