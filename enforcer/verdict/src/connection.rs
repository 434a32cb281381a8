//! What a connection entry says of itself: its state word, its share, how long it lives.

use crate::abi::{EPOCH_BITS, Nanos};
use flow::Direction;

/// Why a connection was admitted: what it is judged by again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Admission {
    /// Policy (a rule, or no isolation).
    Policy = 0,
    /// The pod's own node.
    OwnNode = 1,
    /// The pod itself.
    Itself = 2,
}

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// TCP: SYN seen, handshake not complete. Others: packets one way only.
    HalfOpen = 0,
    /// TCP: handshake complete, or adopted. Others: packets both ways.
    Established = 1,
    /// FIN both ways, or RST.
    Closed = 2,
    /// Denied or revoked: what matches it is denied.
    Tombstone = 3,
}

/// What bounds an entry: each endpoint has a share of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Share {
    /// [`Phase::HalfOpen`].
    HalfOpen = 0,
    /// [`Phase::Established`] and [`Phase::Closed`].
    Established = 1,
    /// [`Phase::Tombstone`].
    Tombstone = 2,
}

/// How the direction of a connection is known to the kernel program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Evidence {
    /// Who was seen to send first.
    None = 0,
    /// An opening packet (SYN, INIT).
    Opening = 1,
    /// The pod's sockets.
    Socket = 2,
}

/// What the staged slot says of a packet or connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Staged {
    /// Nothing is staged for the pod.
    None = 0,
    /// It would be allowed.
    Allow = 1,
    /// It would be denied.
    Deny = 2,
}

impl Staged {
    /// From the low two bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Allow,
            _ => Self::Deny,
        }
    }
}

/// Whose policy refuses: the modes of these say what is done about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Refuser {
    /// That of the pod at whose hook the packet is.
    Endpoint = 0,
    /// The client's own, asked at the server's hook.
    Client = 1,
    /// Either.
    Both = 2,
}

impl Refuser {
    /// From the low two bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Endpoint,
            1 => Self::Client,
            _ => Self::Both,
        }
    }
}

/// The state word of an entry: epoch (40 bits), admission (2), phase (2), opened direction (1),
/// adopted (1), evidence (2), staged (2), reason (6), refuser (2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(pub u64);

const ADMISSION: u32 = EPOCH_BITS;
const PHASE: u32 = ADMISSION + 2;
const OPENED: u32 = PHASE + 2;
const ADOPTED: u32 = OPENED + 1;
const EVIDENCE: u32 = ADOPTED + 1;
const STAGED: u32 = EVIDENCE + 2;
const REASON: u32 = STAGED + 2;
const REFUSER: u32 = REASON + 6;

impl State {
    /// A state of these parts; `evidence` is a number of [`Evidence`].
    #[inline(always)]
    pub const fn new(epoch: u64, admission: Admission, phase: Phase, opened: Direction, evidence: u64) -> Self {
        Self(
            epoch & ((1 << EPOCH_BITS) - 1)
                | (admission as u64) << ADMISSION
                | (phase as u64) << PHASE
                | (opened as u64) << OPENED
                | (evidence & 3) << EVIDENCE,
        )
    }

    /// Marked as adopted.
    #[inline(always)]
    pub const fn adopted_one(self) -> Self {
        Self(self.0 | 1 << ADOPTED)
    }

    /// With another phase.
    #[inline(always)]
    pub const fn with_phase(self, phase: Phase) -> Self {
        Self(self.0 & !(3 << PHASE) | (phase as u64) << PHASE)
    }

    /// With another epoch.
    #[inline(always)]
    pub const fn with_epoch(self, epoch: u64) -> Self {
        let mask = (1 << EPOCH_BITS) - 1;
        Self(self.0 & !mask | epoch & mask)
    }

    /// With what the staged slot says.
    #[inline(always)]
    pub const fn with_staged(self, staged: Staged) -> Self {
        Self(self.0 & !(3 << STAGED) | (staged as u64) << STAGED)
    }

    /// With why it was admitted or denied, as a number of [`crate::Reason`].
    #[inline(always)]
    pub const fn with_reason(self, reason: u8) -> Self {
        Self(self.0 & !(0x3f << REASON) | (reason as u64) << REASON)
    }

    /// With whose policy refuses.
    #[inline(always)]
    pub const fn refused_by(self, refuser: Refuser) -> Self {
        Self(self.0 & !(3 << REFUSER) | (refuser as u64) << REFUSER)
    }

    /// The epoch it was judged in.
    #[inline(always)]
    pub const fn epoch(self) -> u64 {
        self.0 & ((1 << EPOCH_BITS) - 1)
    }

    /// Why it was admitted.
    #[inline(always)]
    pub const fn admission(self) -> Admission {
        match self.0 >> ADMISSION & 3 {
            1 => Admission::OwnNode,
            2 => Admission::Itself,
            _ => Admission::Policy,
        }
    }

    /// Where it stands.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        match self.0 >> PHASE & 3 {
            0 => Phase::HalfOpen,
            1 => Phase::Established,
            2 => Phase::Closed,
            _ => Phase::Tombstone,
        }
    }

    /// The way its opening packet took.
    #[inline(always)]
    pub const fn opened(self) -> Direction {
        Direction::from_bit(self.0 >> OPENED)
    }

    /// Whether it was older than its entry.
    #[inline(always)]
    pub const fn is_adopted(self) -> bool {
        self.0 >> ADOPTED & 1 == 1
    }

    /// How its direction is known.
    #[inline(always)]
    pub const fn evidence(self) -> Evidence {
        match self.0 >> EVIDENCE & 3 {
            0 => Evidence::None,
            1 => Evidence::Opening,
            _ => Evidence::Socket,
        }
    }

    /// What the staged slot said when it was last judged.
    #[inline(always)]
    pub const fn staged(self) -> Staged {
        Staged::from_bits(self.0 >> STAGED)
    }

    /// Why it was admitted or denied when it was last judged.
    #[inline(always)]
    pub fn reason(self) -> Option<crate::Reason> {
        crate::Reason::from_number((self.0 >> REASON & 0x3f) as u8)
    }

    /// Whose policy refuses, where it is a tombstone.
    #[inline(always)]
    pub const fn refuser(self) -> Refuser {
        Refuser::from_bits(self.0 >> REFUSER)
    }

    /// The share it counts in.
    #[inline(always)]
    pub const fn share(self) -> Share {
        match self.phase() {
            Phase::HalfOpen => Share::HalfOpen,
            Phase::Established | Phase::Closed => Share::Established,
            Phase::Tombstone => Share::Tombstone,
        }
    }
}

const SECOND: Nanos = 1_000_000_000;

/// Whether an entry in this phase, last used then, still counts. A packet's time is read before it meets the entry:
/// another CPU may have used it since, at a later tick of the clock.
#[inline(always)]
pub const fn lives(phase: Phase, protocol: u8, last_seen: Nanos, now: Nanos) -> bool {
    now <= last_seen.wrapping_add(lifetime(phase, protocol))
}

/// How long an entry lives after its last packet. Expiry costs nothing but an entry: TCP that goes
/// on later is adopted again.
#[inline(always)]
const fn lifetime(phase: Phase, protocol: u8) -> Nanos {
    match (phase, protocol) {
        (Phase::HalfOpen, flow::TCP | flow::SCTP) => 60 * SECOND,
        (Phase::HalfOpen, _) => 30 * SECOND,
        (Phase::Established, flow::TCP | flow::SCTP) => 3_600 * SECOND,
        (Phase::Established, _) => 180 * SECOND,
        (Phase::Closed, _) => 30 * SECOND,
        (Phase::Tombstone, _) => 60 * SECOND,
    }
}
