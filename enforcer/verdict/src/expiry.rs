//! Expiry while no agent runs.
//!
//! An entry that is over counts for no packet, but stays in the table and in its endpoint's share until the agent's
//! sweep. Without an agent the shares would fill with what is long over, and refuse what policy allows. So a packet
//! that finds no room has the whole table gone through after its verdict, if no agent did so lately.

use crate::{
    State, Tables,
    abi::{ConnectionKey, Nanos, connection_parts, word},
    connection::lives,
    entry::retire,
    tables::{Claim, Expiring},
};
use core::cell::Cell;

/// An agent that has not swept for so long is away: it sweeps every half second.
pub const AGENT_AWAY: Nanos = 10_000_000_000;

/// At most so often, on the whole node, is the table gone through: that takes milliseconds when it is large.
pub const EXPIRE_EVERY: Nanos = 1_000_000_000;

/// Takes out what is over, for packets to come, after one that found [`Room::Lacking`](crate::Room). Nothing happens
/// while an agent sweeps, or where it happened just now.
#[inline(always)]
pub fn make_room<T: Expiring>(tables: &T, now: Nanos) {
    let expired = tables.expired();
    if now <= tables.swept().wrapping_add(AGENT_AWAY) || now < expired.wrapping_add(EXPIRE_EVERY) {
        return;
    }
    if matches!(tables.claim(expired, now), Claim::Ours) {
        tables.expire_all(now);
    }
}

/// Takes out an entry if it is over; its last counters are reported, or counted as lost.
#[inline(always)]
pub fn expire<T: Tables>(tables: &T, key: &ConnectionKey, entry: &[Cell<u64>; 9], now: Nanos) {
    let phase = State(entry[word::STATE].get()).phase();
    if !lives(phase, connection_parts(key).protocol, entry[word::LAST_SEEN].get(), now) {
        retire(tables, key, entry);
    }
}
