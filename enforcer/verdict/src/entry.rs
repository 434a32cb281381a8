//! What happens to an entry: made, counted in, moved on, revoked, taken away.

use crate::{
    Phase, Reason, Refuser, Share, State, Tables, Verdict,
    abi::{self, ConnectionKey, ConnectionRecord, Nanos, word},
    sheet::{Hook, Sheet},
    tables::{Removed, Stored},
    word::RULE,
};
use core::cell::Cell;
use flow::{Direction, Packet, SCTP, TCP, tcp};

/// A tombstone makes an event again after this many units of 2^20 ns: about a second.
const QUIET: u64 = 954;
const SCTP_ABORT: u8 = 6;
const SCTP_SHUTDOWN_COMPLETE: u8 = 14;

/// A verdict with the rules and the staged answer that an entry keeps.
#[inline(always)]
pub(crate) fn of_entry(entry: &[Cell<u64>; 9], state: State, reason: Reason) -> Verdict {
    let rules = entry[word::RULES].get();
    Verdict(reason as u64 | (rules & RULE) << 8 | (rules >> 32 & RULE) << 32 | (state.staged() as u64) << 56)
}

/// Stores a new entry, over a tombstone or a closed connection that may be there, if the endpoint's
/// share and the table have room: without an entry an allowed flow is denied, and a denial stands all
/// the same.
#[inline(never)]
pub(crate) fn enter<T: Tables>(tables: &T, hook: &Hook, sheet: &Sheet) -> u64 {
    let (state, verdict, packet) = (State(sheet.made), Verdict(sheet.verdict), &sheet.packet);
    let tombstone = matches!(state.phase(), Phase::Tombstone);
    if sheet.state != 0
        && let Some(entry) = tables.connection(&sheet.key)
    {
        if tombstone {
            // A tombstone is here already; what else is live is revoked, not entered.
            entry[word::STATE].set(state.0);
            entry[word::RULES].set(verdict.rules());
            entry[word::SIGNS].set(abi::with_client(entry[word::SIGNS].get(), refusing_client(sheet, verdict)));
            meter(tables, &entry, hook, Size::of(packet));
            return if is_quiet(&entry, hook.now) { verdict.as_news().0 } else { verdict.0 };
        }
        retire(tables, &sheet.key, &entry);
    }
    let share = state.share();
    let limits = tables.limits();
    let (limit, full) = match share {
        Share::HalfOpen => (limits.half_open, Reason::HalfOpenFull),
        Share::Established => (limits.established, Reason::EstablishedFull),
        Share::Tombstone => (limits.tombstones, verdict.reason()),
    };
    if tables.in_use(hook.endpoint, share) >= limit {
        return without_entry(tombstone, verdict, full);
    }
    let mut signs = sign(hook.direction, packet.tcp_flags);
    if tombstone {
        signs |= (hook.now >> 20 & 0xffff_ffff) << 32;
        signs = abi::with_client(signs, refusing_client(sheet, verdict));
    }
    let (packets, bytes) = Size::of(packet).on_the_wire(hook);
    let inbound = u64::from(matches!(hook.direction, Direction::Inbound));
    let record: ConnectionRecord = [
        state.0,
        hook.now,
        verdict.rules(),
        hook.now,
        inbound * packets,
        inbound * bytes,
        (1 - inbound) * packets,
        (1 - inbound) * bytes,
        signs,
    ];
    match tables.insert(&sheet.key, &record) {
        Stored::New => tables.take(hook.endpoint, share),
        Stored::Already => {}
        Stored::Full => return without_entry(tombstone, verdict, Reason::TableFull),
    }
    verdict.as_news().0
}

#[inline(always)]
fn without_entry(tombstone: bool, verdict: Verdict, full: Reason) -> u64 {
    let verdict = verdict.lacking_room().as_news();
    if tombstone { verdict.0 } else { verdict.with_reason(full).without_rule().0 }
}

/// The client whose own policy refuses, 0 for none.
#[inline(always)]
fn refusing_client(sheet: &Sheet, verdict: Verdict) -> u32 {
    match verdict.refuser() {
        Refuser::Endpoint => 0,
        Refuser::Client | Refuser::Both => abi::client_of(sheet.peer as u32),
    }
}

/// An entry goes: its counters are reported, its share has room again.
#[inline(always)]
pub(crate) fn retire<T: Tables>(tables: &T, key: &ConnectionKey, entry: &[Cell<u64>; 9]) {
    if matches!(tables.remove(key), Removed::Now) {
        tables.ended(key, entry);
        tables.release(abi::connection_parts(key).endpoint, State(entry[word::STATE].get()).share());
    }
}

/// What matches a tombstone is denied, metered where it passes, and news once a second. Only packets the
/// way of the denied one keep it alive: what the other end does about it must not last for ever.
#[inline(always)]
pub(crate) fn standing_denial<T: Tables>(
    tables: &T,
    hook: &Hook,
    packet: &Packet,
    entry: &[Cell<u64>; 9],
    state: State,
) -> Verdict {
    let last_seen = entry[word::LAST_SEEN].get();
    meter(tables, entry, hook, Size::of(packet));
    if state.opened() as u8 != hook.direction as u8 {
        entry[word::LAST_SEEN].set(last_seen);
    }
    let verdict = of_entry(entry, state, Reason::StandingDenial).refused_by(state.refuser());
    if is_quiet(entry, hook.now) { verdict.as_news() } else { verdict }
}

/// Whether a tombstone made no event for a while; if so, it makes one now.
#[inline(always)]
fn is_quiet(entry: &[Cell<u64>; 9], now: Nanos) -> bool {
    let signs = entry[word::SIGNS].get();
    let (said, at) = (signs >> 32, now >> 20 & 0xffff_ffff);
    if at.wrapping_sub(said) & 0xffff_ffff < QUIET {
        return false;
    }
    entry[word::SIGNS].set(signs & 0xffff_ffff | at << 32);
    true
}

/// A live entry becomes a tombstone. `state` has the epoch of the judgement already.
#[inline(always)]
pub(crate) fn revoke<T: Tables>(
    tables: &T,
    hook: &Hook,
    sheet: &Sheet,
    entry: &[Cell<u64>; 9],
    state: State,
) -> Verdict {
    let (verdict, packet) = (Verdict(sheet.verdict), &sheet.packet);
    tables.release(hook.endpoint, state.share());
    tables.take(hook.endpoint, Share::Tombstone);
    let verdict = verdict.with_reason(Reason::Revoked).without_rule();
    let buried = state.with_phase(Phase::Tombstone).with_staged(verdict.staged()).with_reason(Reason::Revoked as u8);
    entry[word::STATE].set(buried.refused_by(verdict.refuser()).0);
    entry[word::RULES].set(verdict.rules());
    let signs = abi::with_client(entry[word::SIGNS].get(), refusing_client(sheet, verdict));
    entry[word::SIGNS].set(signs & 0xffff_ffff | (hook.now >> 20 & 0xffff_ffff) << 32);
    meter(tables, entry, hook, Size::of(packet));
    verdict.as_news()
}

/// How long a packet is, and how much of it is headers.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) ip_length: u32,
    pub(crate) headers: u32,
}

impl Size {
    #[inline(always)]
    pub(crate) const fn of(packet: &Packet) -> Self {
        Self { ip_length: packet.ip_length, headers: packet.headers }
    }

    /// Packets and bytes on the wire: each segment has the headers.
    #[inline(always)]
    const fn on_the_wire(self, hook: &Hook) -> (u64, u64) {
        let more = (hook.segments as u64).saturating_sub(1);
        (1 + more, self.ip_length as u64 + more * self.headers as u64)
    }
}

/// Counts the packet in its entry.
#[inline(always)]
pub(crate) fn meter<T: Tables>(tables: &T, entry: &[Cell<u64>; 9], hook: &Hook, size: Size) {
    entry[word::LAST_SEEN].set(hook.now);
    let (more_packets, more_bytes) = size.on_the_wire(hook);
    let (packets, bytes) = match hook.direction {
        Direction::Inbound => (&entry[word::PACKETS_IN], &entry[word::BYTES_IN]),
        Direction::Outbound => (&entry[word::PACKETS_OUT], &entry[word::BYTES_OUT]),
    };
    tables.add(packets, more_packets);
    tables.add(bytes, more_bytes);
}

#[inline(always)]
pub(crate) const fn sign(direction: Direction, tcp_flags: u8) -> u64 {
    match direction {
        Direction::Inbound => tcp_flags as u64,
        Direction::Outbound => (tcp_flags as u64) << 8,
    }
}

#[inline(always)]
pub(crate) fn ends_sctp(packet: &Packet) -> bool {
    packet.key.protocol == SCTP && matches!(packet.message, SCTP_ABORT | SCTP_SHUTDOWN_COMPLETE)
}

/// Moves a live entry on by the packet's flags. `false`: the handshake is complete but the share of
/// established connections is full.
#[inline(never)]
pub(crate) fn advance<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, entry: &[Cell<u64>; 9]) -> bool {
    let state = State(entry[word::STATE].get());
    let signs = entry[word::SIGNS].get() | sign(hook.direction, packet.tcp_flags);
    entry[word::SIGNS].set(signs);
    let replies = state.opened() as u8 != hook.direction as u8;
    let (to_server, to_client) = match state.opened() {
        Direction::Inbound => (signs as u8, (signs >> 8) as u8),
        Direction::Outbound => ((signs >> 8) as u8, signs as u8),
    };
    let half_open = matches!(state.phase(), Phase::HalfOpen);
    let next = if packet.key.protocol == TCP {
        if packet.tcp_flags & tcp::RST != 0 || to_server & to_client & tcp::FIN != 0 {
            Phase::Closed
        } else if half_open && replies && packet.tcp_flags & tcp::SYN != 0 {
            let rtt_us = hook.now.wrapping_sub(entry[word::STARTED].get()) / 1000;
            entry[word::SIGNS].set(signs & 0xffff_ffff | (rtt_us & 0xffff_ffff) << 32);
            Phase::HalfOpen
        } else if half_open && !replies && to_client & tcp::SYN != 0 && packet.tcp_flags & tcp::ACK != 0 {
            Phase::Established
        } else {
            state.phase()
        }
    } else if ends_sctp(packet) {
        Phase::Closed
    } else if half_open && replies {
        Phase::Established
    } else {
        state.phase()
    };
    if next as u8 == state.phase() as u8 {
        return true;
    }
    let next_state = state.with_phase(next);
    if half_open {
        if matches!(next, Phase::Established)
            && tables.in_use(hook.endpoint, Share::Established) >= tables.limits().established
        {
            return false;
        }
        tables.release(hook.endpoint, Share::HalfOpen);
        tables.take(hook.endpoint, next_state.share());
    }
    entry[word::STATE].set(next_state.0);
    true
}
