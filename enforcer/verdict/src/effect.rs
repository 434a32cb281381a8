//! What is done about a verdict: the only place where the mode counts.

use crate::{Reason, Refuser, Sheet, Tables, Verdict, abi};

/// The mode of a pod. Zero enforces, so that what was never written denies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Denied is dropped and logged.
    Enforce = 0,
    /// Everything passes; what would have been denied is logged.
    Audit = 1,
    /// Everything passes; flows are recorded.
    Learn = 2,
}

impl Mode {
    /// The mode of a number; unknown ones enforce.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Audit,
            2 => Self::Learn,
            _ => Self::Enforce,
        }
    }
}

/// What is done with the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[must_use]
pub enum Effect {
    /// It goes on.
    Pass,
    /// It goes on, and the denial is logged.
    PassAndLog,
    /// It is dropped, and the denial is logged.
    DropAndLog,
}

/// The effect of a verdict's reason under a mode. A packet whose pod is not known has no mode:
/// the node's setting is its whole rule, and the caller gives it as the mode (learn or enforce).
#[inline(always)]
pub const fn effect(mode: Mode, reason: Reason) -> Effect {
    match (reason.allows(), mode) {
        (true, _) => Effect::Pass,
        (false, Mode::Enforce) => Effect::DropAndLog,
        (false, Mode::Audit | Mode::Learn) => Effect::PassAndLog,
    }
}

/// The mode that decides what is done about a verdict on the packet of this sheet: that of whose policy refuses, of
/// two the stronger.
#[inline(always)]
pub fn mode<T: Tables>(tables: &T, sheet: &Sheet, verdict: Verdict) -> Mode {
    match verdict.refuser() {
        Refuser::Endpoint => mode_under(tables, sheet.word),
        Refuser::Client => mode_under(tables, sheet.client_word),
        Refuser::Both => mode_under(tables, sheet.word).min(mode_under(tables, sheet.client_word)),
    }
}

/// The mode an endpoint's word stands for.
#[inline(always)]
fn mode_under<T: Tables>(tables: &T, word: u64) -> Mode {
    match tables.generation(abi::generation_of(word)) {
        Some(record) => Mode::from_number(record[1]),
        None => Mode::Enforce,
    }
}
