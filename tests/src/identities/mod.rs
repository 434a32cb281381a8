//! Clusters whose pods come and go, in which it is known who held which address when.
//!
//! A [`Plan`] is data that proptest draws and shrinks. [`World::of`] plays it: pods of every kind of owner
//! take addresses, of which there are few, and leave them, each as a kubelet, a network plugin and the API
//! server would have it, one after the other and with their delays. Out of it come the truth
//! ([`World::holds`]) and what a watch would tell ([`World::news`]), with the delays, repetitions and
//! losses of the plan. Times are milliseconds after [`START`].

mod lives;
mod watch;

pub use lives::{Hold, News, World, addresses};
pub use watch::{LAG, Watcher};

use model::record::UnixNanos;
use proptest::{prelude::*, sample::Index};

/// 2026-01-01T00:00:00Z.
pub const START: UnixNanos = 1_767_225_600 * 1_000_000_000;
/// Nanoseconds of a millisecond.
pub const MS: UnixNanos = 1_000_000;

/// How late a watch tells, at most, what the API server knows; the kubelet is as late again.
pub const WATCH_LAG: u16 = 900;

/// One thing that happens.
#[derive(Clone, Debug)]
pub struct Move {
    /// Milliseconds after the one before.
    pub after: u16,
    /// What.
    pub what: What,
    /// Delays in milliseconds: of the kubelet, of the network plugin, of the status, of the end.
    pub delays: [u16; 4],
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
pub enum What {
    /// A pod of the workload of this number comes.
    Start(usize),
    /// One of the living pods ends by itself.
    Finish(Index),
    /// One is deleted, ends in its grace and says so, or does not.
    Delete(Index, Said),
    /// One is deleted by force: its object goes at once, its containers later.
    Force(Index),
    /// One loses its sandbox and gets another with other addresses.
    Sandbox(Index),
}

/// Whether a pod's end is told before its object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its containers' last state is told.
    Yes,
    /// Its object goes as it was.
    No,
}

/// A flow.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its place in the time of the plan, of 65,536.
    pub at: u16,
    /// Which of those who can call then.
    pub client: Index,
    /// Which of the addresses.
    pub server: Index,
}

/// A course of events.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many addresses there are.
    pub addresses: usize,
    /// What happens.
    pub moves: Vec<Move>,
    /// From when on nobody watches (a place in the time of the plan, of 65,536), for how many milliseconds.
    pub gap: Option<(u16, u16)>,
    /// How late each piece of news is, in milliseconds, over and over; up to [`WATCH_LAG`].
    pub late: Vec<u16>,
    /// Which pieces of news come twice, over and over.
    pub twice: Vec<bool>,
    /// Who calls whom.
    pub calls: Vec<Call>,
}

/// Plans in which nobody looks away (`gaps: false`), or somebody may.
pub fn plans(gaps: bool) -> impl Strategy<Value = Plan> {
    let what = prop_oneof![
        4 => (0..lives::WORKLOADS.len()).prop_map(What::Start),
        2 => any::<Index>().prop_map(What::Finish),
        2 => (any::<Index>(), prop::bool::ANY).prop_map(|(i, said)| What::Delete(i, if said { Said::Yes } else { Said::No })),
        1 => any::<Index>().prop_map(What::Force),
        1 => any::<Index>().prop_map(What::Sandbox),
    ];
    let after = prop_oneof![3 => 0..300u16, 2 => 300..2_000u16, 1 => 2_000..20_000u16];
    let moves =
        (after, what, prop::array::uniform4(0..450u16)).prop_map(|(after, what, delays)| Move { after, what, delays });
    let gap = if gaps { prop::option::weighted(0.8, (any::<u16>(), 0..20_000u16)).boxed() } else { Just(None).boxed() };
    let call =
        (any::<u16>(), any::<Index>(), any::<Index>()).prop_map(|(at, client, server)| Call { at, client, server });
    (
        1..6usize,
        prop::collection::vec(moves, 1..40),
        gap,
        prop::collection::vec(0..WATCH_LAG, 1..8),
        prop::collection::vec(prop::bool::weighted(0.2), 1..8),
        prop::collection::vec(call, 1..40),
    )
        .prop_map(|(addresses, moves, gap, late, twice, calls)| Plan { addresses, moves, gap, late, twice, calls })
}
