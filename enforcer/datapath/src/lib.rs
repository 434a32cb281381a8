//! The kernel program as user space sees it: found links, loaded program, attached hooks, published
//! tables, events and counters read.
//!
//! `unsafe` stands in [`system`] alone: one mapping, and the system calls that no library offers.

mod addresses;
mod ahead;
mod attach;
mod connections;
mod discover;
mod epochs;
mod error;
mod events;
mod fill;
mod filters;
mod kept;
mod load;
mod netlink;
mod pins;
mod recount;
mod seats;
mod system;
mod tables;
mod taken_away;

pub use addresses::own_addresses;
pub use ahead::{Ahead, Overtaker};
pub use attach::{Attachment, Hooks};
pub use connections::{Counted, Ended, Sweep, SweptEntry, Why};
pub use discover::{Bindings, Found, Ignored, Link, Uncovered, WhyUncovered, bind, discover};
pub use error::Error;
pub use events::{Counter, Counters};
pub use fill::TableSize;
pub use kept::{Turn, Word};
pub use load::{Datapath, Options, TestInput, UnknownPod};
pub use netlink::{Changed, Notices};
pub use system::{ForeignHook, attach_foreign, monotonic_coarse, open_tap, return_free_memory};
pub use tables::{Place, Published, Publishing, Tables};
pub use taken_away::{LinkTaken, TakenAway, take_away, would_take_away};

/// The kernel program, as the build script built it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("KERNEL_OBJECT"));
