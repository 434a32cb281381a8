//! The sheet on which one packet is worked out, and what its steps found out.

use crate::{
    Asked,
    abi::{ConnectionKey, Nanos},
};
use flow::{Direction, Packet};

/// Where and when a packet was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// The endpoint's ordinal.
    pub endpoint: u32,
    /// Towards the pod, or from it.
    pub direction: Direction,
    /// The link.
    pub ifindex: u32,
    /// The interface the node received it on; 0 when the node made it.
    pub ingress_ifindex: u32,
    /// How many packets of the wire this one stands for (GSO); 0 and 1 are one. The kernel keeps 16 bits of it.
    pub segments: u16,
    /// The coarse monotonic clock.
    pub now: Nanos,
}

/// The sheet on which one packet is worked out. In the kernel program it lies in a map: what crosses
/// from one step to the next is then unknown to the verifier, and each step is walked once instead of
/// once for every way that leads to it. All zeros are a sheet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sheet {
    /// The packet, parsed into place.
    pub packet: Packet,
    pub(crate) key: ConnectionKey,
    pub(crate) asked: Asked,
    /// The endpoint's word that the packet is judged under; [`decide`](crate::decide()) leaves it, but where the
    /// verdict is `Established`.
    pub word: u64,
    /// The state of the entry that was found, or zero.
    pub(crate) state: u64,
    /// Who opens, as [`Tables::peer`](crate::Tables::peer) says; 0 where it is the pod.
    pub(crate) peer: u64,
    /// The question to the client's own policy.
    pub(crate) of_client: Asked,
    /// The client's word, where its own policy refuses: its mode counts.
    pub(crate) client_word: u64,
    /// What policy said, and then what it means for this packet: a [`Verdict`].
    pub(crate) verdict: u64,
    /// The state of the entry to be made.
    pub(crate) made: u64,
    /// What policy's answer will be about: a number of [`situation`].
    pub(crate) situation: u64,
    /// How the direction is known: a number of [`Evidence`].
    pub(crate) evidence: u64,
}

impl Sheet {
    /// An empty sheet.
    pub const EMPTY: Self = Self {
        packet: Packet::EMPTY,
        key: [0; 3],
        asked: Asked::NOTHING,
        word: 0,
        state: 0,
        peer: 0,
        of_client: Asked::NOTHING,
        client_word: 0,
        verdict: 0,
        made: 0,
        situation: 0,
        evidence: 0,
    };

    /// A sheet with a packet on it.
    pub const fn of(packet: Packet) -> Self {
        Self { packet, ..Self::EMPTY }
    }
}

/// What a look at the tables found.
pub(crate) mod situation {
    /// No entry; the packet opens, or is of a protocol without openings.
    pub(crate) const FRESH: u64 = 0;
    /// No entry; TCP that opens nothing.
    pub(crate) const ADOPTED: u64 = 1;
    /// A live entry of another epoch.
    pub(crate) const AGAIN: u64 = 2;
    /// A live entry, and an opening packet.
    pub(crate) const REOPENED: u64 = 3;
    /// A tombstone, and a packet that asks again.
    pub(crate) const BURIED: u64 = 4;
    /// To or from a group: judged each time, without an entry.
    pub(crate) const GROUP: u64 = 5;
}
