//! Review: what policies mean for everyone at once. Reachability as canonical sets, and on it the
//! answers a reviewer asks for. Pure: no IO, no clock.
//!
//! [`Universe`] holds every end that a policy could tell apart, over one input or two at once: classes
//! of pods, blocks of addresses, and label combinations that nobody runs yet. [`Reach`] says for one
//! input what may pass between two ends. One connection at one pair of pods is the reference
//! evaluator's to judge (`model::reference`); the two are held together by tests.
#![forbid(unsafe_code)]

mod atoms;
mod boxes;
pub mod diff;
mod evidence;
pub mod lint;
pub mod map;
mod markdown;
mod missing;
mod reach;
pub mod replay;
pub mod sarif;
mod sets;
mod universe;
pub mod why;

pub use atoms::AtomId;
pub use evidence::{Evidence, EvidenceOf};

pub use missing::Missing;
pub use reach::{Direction, Reach, RuleRef};
pub use sets::{Allowed, SetId, Sets, ports_text};
pub use universe::{Block, End, EndId, Family, Input, Nobody, PodClass, Universe, Where};
