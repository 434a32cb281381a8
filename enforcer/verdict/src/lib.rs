//! The decision: what a packet at a pod's hook may do, and why.
//!
//! [`decide`] is pure over [`Tables`]: the kernel program gives it maps, the simulator and the tests
//! give it memory, and both get the same verdict for the same sequence of packets (law 4). Time and
//! the pod's sockets are inputs. A mode is none: it only turns a verdict into an [`Effect`] (law 5).
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
mod client;
mod connection;
mod decide;
mod effect;
mod entry;
mod expiry;
#[cfg(feature = "memory")]
pub mod memory;
mod policy;
mod reason;
mod sheet;
mod special;
mod tables;
mod word;

pub use client::judge_both;
pub use connection::{Admission, Evidence, Phase, Refuser, Share, Staged, State, lives};
pub use decide::{Looked, decide, decide_after, established};
pub use effect::{Effect, Mode, effect, mode};
pub use expiry::{AGENT_AWAY, EXPIRE_EVERY, expire, make_room};
pub use policy::{Asked, Judged, judge};
pub use reason::Reason;
pub use sheet::{Hook, Sheet};
pub use tables::{Claim, Expiring, Further, Limits, Removed, Sockets, Standing, Stored, Tables};
pub use word::{News, Room, Verdict, refuse, unknown_pod};
