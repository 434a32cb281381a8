//! Counters, which are the truth, and events, which are samples of it.

use crate::{maps, settings, tables::now};
use core::cell::Cell;
use flow::{Address, Direction, FlowKey};
use verdict::{
    Hook, Mode, News, Reason, Sheet, Staged, State, Verdict,
    abi::{self, ConnectionKey, Event, EventKind, EventRecord, connection_parts},
};

/// BPF_RB_NO_WAKEUP: a reader comes by on a timer; waking it costs the packet 7 µs.
const NO_WAKEUP: u64 = 1;
/// Columns of a counter.
const EVENTS: usize = 2;
const SUPPRESSED: usize = 3;
const LOST: usize = 4;

/// Counts a judged packet. Per CPU, and a program is not interrupted by itself: exact.
#[inline(always)]
pub fn count(index: u32, length: u32) {
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own map value.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += u64::from(length);
        }
    }
}

#[inline(always)]
fn column(index: u32, column: usize) {
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own map value; the column is a constant below 5.
        unsafe { (*counter)[column] += 1 };
    }
}

/// A token of this CPU's bucket, if one is left.
#[inline(always)]
fn token() -> bool {
    let Some(bucket) = maps::TOKENS.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own map value.
    let bucket = unsafe { &mut *bucket };
    let now = now();
    if now.wrapping_sub(bucket[0]) >= abi::EVENT_PERIOD {
        *bucket = [now, settings::events()];
    }
    if bucket[1] == 0 {
        return false;
    }
    bucket[1] -= 1;
    true
}

/// Makes the event of a verdict, or counts why there is none: of every reason that reports,
/// events + suppressed + lost = packets.
#[inline(always)]
pub fn verdict(index: u32, hook: &Hook, sheet: &Sheet, verdict: Verdict, mode: Mode) {
    let packet = &sheet.packet;
    if !verdict.reason().reports() {
        return;
    }
    if matches!(verdict.news(), News::Repeated) || !token() {
        return column(index, SUPPRESSED);
    }
    let event = Event {
        kind: EventKind::Verdict,
        reason: verdict.reason(),
        direction: hook.direction,
        mode: mode as u8,
        staged: verdict.staged(),
        tcp_flags: packet.tcp_flags,
        key: packet.key,
        endpoint: hook.endpoint,
        ifindex: hook.ifindex,
        word: sheet.word,
        rule: verdict.rule(),
        staged_rule: verdict.staged_rule(),
        time: hook.now,
        ip_length: packet.ip_length,
        connection: [0; 9],
    };
    column(index, if submit(&event) { EVENTS } else { LOST });
}

/// Writes an event word by word where it will lie: on the stack it would not fit. Volatile: see `maps::sheet`.
#[inline(always)]
fn submit(event: &Event) -> bool {
    let Some(mut reserved) = maps::EVENTS.reserve_untyped::<EventRecord>(0) else { return false };
    let to = reserved.as_mut_ptr().cast::<u64>();
    // SAFETY: `encode` names each of the record's words once.
    event.encode(|index, word| unsafe { to.add(index).write_volatile(word) });
    reserved.submit(NO_WAKEUP);
    true
}

/// The last counters of an entry that goes inside the kernel.
#[inline(never)]
pub fn ended(key: &ConnectionKey, entry: &[Cell<u64>; 9]) -> u32 {
    count(abi::COUNTER_ENDED, 0);
    let parts = connection_parts(key);
    let c = |index: usize| entry[index].get();
    let rules = c(abi::word::RULES);
    let event = Event {
        kind: EventKind::Ended,
        reason: Reason::Established,
        direction: Direction::Inbound,
        mode: 0,
        staged: Staged::None,
        tcp_flags: 0,
        key: FlowKey {
            source: parts.peer,
            destination: Address([u64::from(parts.own_address), parts.further.0[1]]),
            source_port: parts.peer_port,
            destination_port: parts.local_port,
            protocol: parts.protocol,
        },
        endpoint: parts.endpoint,
        ifindex: 0,
        word: State(c(abi::word::STATE)).epoch() << abi::GENERATION_BITS,
        rule: rules as u32,
        staged_rule: (rules >> 32) as u32,
        time: c(abi::word::LAST_SEEN),
        ip_length: 0,
        connection: [c(0), c(1), c(2), c(3), c(4), c(5), c(6), c(7), c(8)],
    };
    column(abi::COUNTER_ENDED, if submit(&event) { EVENTS } else { LOST });
    0
}
