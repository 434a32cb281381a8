//! What a capture was made into, and what of it was left out, by reason.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Packets that are in no flow, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Stable name of the reason (`not-ip`, `arp`, `fragment-without-first`, the parser's errors, …) to packets.
    pub by_reason: BTreeMap<&'static str, u64>,
}

impl Skipped {
    pub(crate) fn add(&mut self, reason: &'static str) {
        *self.by_reason.entry(reason).or_default() += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_reason.values().sum()
    }
}

/// Why a capture ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedEarly {
    /// The file stops in the middle of a packet, as when the capturing process was killed.
    CutShort {
        /// The file.
        file: Arc<str>,
        /// Packets read before.
        packets: u64,
        /// What libpcap said.
        why: String,
    },
    /// The file says something that cannot be.
    Corrupt {
        /// The file.
        file: Arc<str>,
        /// Packets read before.
        packets: u64,
        /// What libpcap said.
        why: String,
    },
}

impl fmt::Display for EndedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutShort { file, packets, why } => {
                write!(f, "{file}: cut short after {packets} packets ({why}); what was read before is kept")
            }
            Self::Corrupt { file, packets, why } => {
                let next = packets.saturating_add(1);
                write!(f, "{file}: packet {next} is corrupt ({why}); the {packets} before it are kept")
            }
        }
    }
}

/// What a capture was made into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets read.
    pub packets: u64,
    /// Their length on the wire, link-layer headers included.
    pub bytes: u64,
    /// Flows begun.
    pub flows: u64,
    /// Rows written: slices of flows.
    pub slices: u64,
    /// Packets in no flow.
    pub skipped: Skipped,
    /// Flows forgotten because there were too many at once; what followed of them has no known direction.
    pub evicted: u64,
    /// Packets a live capture dropped, as libpcap counts them.
    pub dropped: u64,
    /// Why it ended before its end.
    pub ended_early: Option<EndedEarly>,
    /// A live capture went on while the log had no room: the last that was said of it. The rows lost are a gap.
    pub log_full: Option<String>,
}
