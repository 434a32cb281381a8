//! A verdict in one word: out-of-line functions of the kernel program return words, never memory.

use crate::{Reason, Refuser, Staged};
use flow::ParseError;

/// Allow or deny, with why, in one word: reason (bits 0-7), rule (8-31), staged rule (32-55), what the
/// staged slot says (56-57), whether it is news (58), whose policy refuses (59-60), and whether an entry for it found
/// no room (61).
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
#[repr(transparent)]
pub struct Verdict(pub(crate) u64);

/// Rule ids have 24 bits.
pub(crate) const RULE: u64 = (1 << 24) - 1;
const NEWS: u64 = 1 << 58;
const REFUSER: u32 = 59;
const NO_ROOM: u64 = 1 << 61;

impl Verdict {
    /// A verdict without a rule.
    #[inline(always)]
    pub const fn new(reason: Reason) -> Self {
        Self(reason as u64)
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The verdict of a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Why; it says whether.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        Reason::from_known(self.0 as u8)
    }

    /// The rule that decided, 0 for none.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        (self.0 >> 8 & RULE) as u32
    }

    /// The staged slot's rule, 0 for none.
    #[inline(always)]
    pub const fn staged_rule(self) -> u32 {
        (self.0 >> 32 & RULE) as u32
    }

    /// What the staged slot says.
    #[inline(always)]
    pub const fn staged(self) -> Staged {
        Staged::from_bits(self.0 >> 56)
    }

    /// Whether it is worth an event; counters count it in any case.
    #[inline(always)]
    pub const fn news(self) -> News {
        if self.0 & NEWS == 0 { News::Repeated } else { News::Event }
    }

    #[inline(always)]
    pub(crate) const fn is(self, reason: Reason) -> bool {
        self.0 as u8 == reason as u8
    }

    #[inline(always)]
    pub(crate) const fn allows(self) -> bool {
        self.0 as u8 >= Reason::FIRST_ALLOW
    }

    #[inline(always)]
    pub(crate) const fn with_reason(self, reason: Reason) -> Self {
        Self(self.0 & !0xff | reason as u64)
    }

    #[inline(always)]
    pub(crate) const fn without_rule(self) -> Self {
        Self(self.0 & !(RULE << 8))
    }

    /// Whose policy refuses, if it denies.
    #[inline(always)]
    pub const fn refuser(self) -> Refuser {
        Refuser::from_bits(self.0 >> REFUSER)
    }

    #[inline(always)]
    pub(crate) const fn refused_by(self, refuser: Refuser) -> Self {
        Self(self.0 & !(3 << REFUSER) | (refuser as u64) << REFUSER)
    }

    /// Whether there was room for what should be kept of the packet.
    #[inline(always)]
    pub const fn room(self) -> Room {
        if self.0 & NO_ROOM == 0 { Room::Enough } else { Room::Lacking }
    }

    #[inline(always)]
    pub(crate) const fn lacking_room(self) -> Self {
        Self(self.0 | NO_ROOM)
    }

    #[inline(always)]
    pub(crate) const fn with_staged(self, staged: Staged) -> Self {
        Self(self.0 & !(3 << 56) | (staged as u64) << 56)
    }

    #[inline(always)]
    pub(crate) const fn as_news(self) -> Self {
        Self(self.0 | NEWS)
    }

    /// Both rules as an entry keeps them.
    #[inline(always)]
    pub(crate) const fn rules(self) -> u64 {
        self.0 >> 8 & RULE | (self.0 >> 32 & RULE) << 32
    }
}

impl core::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Verdict")
            .field("reason", &self.reason())
            .field("rule", &self.rule())
            .field("staged", &self.staged())
            .field("staged_rule", &self.staged_rule())
            .field("news", &self.news())
            .field("refuser", &self.refuser())
            .field("room", &self.room())
            .finish()
    }
}

/// Whether a share of the endpoint, or the connection table, had room for what should be kept of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// It had, or nothing was to be kept.
    Enough,
    /// An opening is denied for it, or a denial leaves no tombstone: see [`crate::make_room`].
    Lacking,
}

/// Whether a verdict is worth an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The first of its kind for this key, or the first for a while.
    Event,
    /// Said lately.
    Repeated,
}

/// The verdict on a packet that could not be parsed.
#[inline(always)]
pub fn refuse(error: ParseError) -> Verdict {
    plain(error.into())
}

/// The verdict on a packet of a link whose pod is not known.
#[inline(always)]
pub const fn unknown_pod() -> Verdict {
    plain(Reason::UnknownPod)
}

#[inline(always)]
pub(crate) const fn plain(reason: Reason) -> Verdict {
    Verdict::new(reason).as_news()
}

/// What steps of a decision return where there is more to do; no verdict has this word.
pub(crate) const NOT_YET: u64 = u64::MAX;
