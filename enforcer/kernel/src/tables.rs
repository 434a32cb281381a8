//! [`Tables`] over the maps: lookups and stores, no logic.

use crate::{maps, settings};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_for_each_map_elem, bpf_ktime_get_coarse_ns, bpf_sk_release, bpf_skc_lookup_tcp},
};
use core::{cell::Cell, ffi::c_void};
use flow::{Address, FlowKey};
use verdict::{
    Claim, Expiring, Further, Limits, Removed, Share, Sockets, Standing, Stored, Tables,
    abi::{self, ConnectionKey, ConnectionRecord, FragmentRecord, GenerationRecord, Nanos, RuleKey, port_key},
};

/// BPF_NOEXIST: a new entry only.
const NO_EXIST: u64 = 1;
/// What the kernel answers where one is.
const EEXIST: i32 = -17;
/// TCP_LISTEN of the kernel's `enum` in net/tcp_states.h.
const TCP_LISTEN: u32 = 10;

/// The maps, for one packet.
pub struct KernelTables {
    /// The packet, for socket lookups.
    pub skb: *mut __sk_buff,
}

/// The coarse monotonic clock, or the test's.
#[inline(always)]
pub fn now() -> Nanos {
    if settings::testing() {
        return test_word(0);
    }
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A word of the test's input.
#[inline(always)]
fn test_word(index: usize) -> u64 {
    maps::TEST.get(0).and_then(|words| words.get(index)).copied().unwrap_or(0)
}

/// `lock *(u64 *)(counter) += n`: exact where two CPUs meet.
#[inline(always)]
fn atomic_add(counter: *mut u64, n: u64) {
    // SAFETY: `counter` points to a word of a map value, aligned to 8.
    unsafe { core::arch::asm!("lock *(u64 *)({c} + 0) += {n}", c = in(reg) counter, n = in(reg) n) };
}

#[inline(always)]
fn share(endpoint: u32, share: Share, by: u64) {
    if let Some(words) = maps::SHARES.get_ptr_mut(endpoint) {
        // SAFETY: `share` is below 4, the length of the value.
        atomic_add(unsafe { words.cast::<u64>().add(share as usize) }, by);
    }
}

/// What `bpf_for_each_map_elem` (5.13) calls with each entry; 0 goes on. An entry may be deleted by its own call.
unsafe extern "C" fn expire_one(
    _map: *mut c_void,
    key: *const ConnectionKey,
    entry: *const ConnectionRecord,
    now: *const Nanos,
) -> i64 {
    // SAFETY: a key, a value of the map of connections, shared with other CPUs as plain memory, and the caller's time.
    let (key, entry, now) = unsafe { (&*key, &*entry.cast::<[Cell<u64>; 9]>(), *now) };
    // No socket is looked for.
    verdict::expire(&KernelTables { skb: core::ptr::null_mut() }, key, entry, now);
    0
}

impl Tables for KernelTables {
    type Entry = &'static [Cell<u64>; 9];

    #[inline(always)]
    fn word(&self, endpoint: u32) -> u64 {
        match maps::ENDPOINTS.get_ptr(endpoint) {
            // SAFETY: a map value, aligned to 8; volatile, since the agent publishes by storing it.
            Some(record) => unsafe { record.cast::<u64>().read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn own_address(&self, endpoint: u32, index: usize) -> Address {
        match maps::ENDPOINTS.get(endpoint) {
            Some(record) => match (record.get(2 + index * 2), record.get(3 + index * 2)) {
                (Some(a), Some(b)) => Address([*a, *b]),
                _ => Address([0; 2]),
            },
            None => Address([0; 2]),
        }
    }

    #[inline(always)]
    fn further(&self, endpoint: u32, address: Address) -> Further {
        let [endpoint, address] = abi::further_prefix(endpoint, address);
        match maps::further(&[abi::FURTHER_PREFIX, endpoint, address]) {
            Some(_) => Further::Given,
            None => Further::No,
        }
    }

    #[inline(always)]
    fn generation(&self, index: u32) -> Option<GenerationRecord> {
        maps::GENERATIONS.get(index).copied()
    }

    #[inline(always)]
    fn identity(&self, address: Address) -> u32 {
        let [a, b] = address.0;
        // The words are in memory order; halving them keeps it on a little-endian host.
        maps::identity(&[128, a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]).unwrap_or(0)
    }

    #[inline(always)]
    fn peer(&self, address: Address) -> u32 {
        // SAFETY: the value is copied at once.
        unsafe { maps::PEERS.get(address.0) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn port_class(&self, slot: u32, protocol: u8, port: u16) -> Option<u32> {
        let k = port_key(slot, protocol, port);
        maps::port_class(&[
            verdict::abi::PORT_PREFIX,
            u32::from_ne_bytes([k[0], k[1], k[2], k[3]]),
            u32::from_ne_bytes([k[4], k[5], k[6], k[7]]),
        ])
    }

    #[inline(always)]
    fn rule(&self, key: &RuleKey) -> Option<u32> {
        // SAFETY: the value is copied at once.
        unsafe { maps::RULES.get(key) }.copied()
    }

    #[inline(always)]
    fn connection(&self, key: &ConnectionKey) -> Option<Self::Entry> {
        // SAFETY: a map value of nine words lives until the program ends (RCU), and its words are
        // shared with other CPUs as plain memory.
        maps::CONNECTIONS.get_ptr_mut(key).map(|entry| unsafe { &*entry.cast::<[Cell<u64>; 9]>() })
    }

    #[inline(always)]
    fn insert(&self, key: &ConnectionKey, record: &ConnectionRecord) -> Stored {
        match maps::CONNECTIONS.insert(key, record, NO_EXIST) {
            Ok(()) => Stored::New,
            Err(EEXIST) => Stored::Already,
            Err(_) => Stored::Full,
        }
    }

    #[inline(always)]
    fn remove(&self, key: &ConnectionKey) -> Removed {
        match maps::CONNECTIONS.remove(key) {
            Ok(()) => Removed::Now,
            Err(_) => Removed::Before,
        }
    }

    #[inline(always)]
    fn ended(&self, key: &ConnectionKey, entry: &[Cell<u64>; 9]) {
        crate::report::ended(key, entry);
    }

    #[inline(always)]
    fn add(&self, counter: &Cell<u64>, n: u64) {
        atomic_add(counter.as_ptr(), n);
    }

    #[inline(always)]
    fn limits(&self) -> Limits {
        settings::limits()
    }

    #[inline(always)]
    fn standing(&self) -> Standing {
        if settings::testing() {
            return match test_word(1) >> 8 {
                1 => Standing::Kept,
                _ => Standing::Revoked,
            };
        }
        settings::standing()
    }

    #[inline(always)]
    fn in_use(&self, endpoint: u32, share: Share) -> u64 {
        let taken = maps::SHARES.get(endpoint).and_then(|words| words.get(share as usize)).copied();
        let returned = maps::RETURNED.get(endpoint).and_then(|words| words.get(share as usize)).copied();
        taken.unwrap_or(0).wrapping_sub(returned.unwrap_or(0))
    }

    #[inline(always)]
    fn take(&self, endpoint: u32, which: Share) {
        share(endpoint, which, 1);
    }

    #[inline(always)]
    fn release(&self, endpoint: u32, which: Share) {
        share(endpoint, which, u64::MAX);
    }

    #[inline(always)]
    fn fragment(&self, slot: u32) -> FragmentRecord {
        maps::FRAGMENTS.get(slot).copied().unwrap_or([0; 4])
    }

    #[inline(always)]
    fn remember(&self, slot: u32, record: &FragmentRecord) {
        if let Some(words) = maps::FRAGMENTS.get_ptr_mut(slot) {
            // SAFETY: a map value of four words; what a race between CPUs comes to, says `FragmentRecord`.
            unsafe { *words = *record };
        }
    }

    #[inline(always)]
    fn rate(&self, endpoint: u32) -> [u64; 2] {
        maps::RATES.get(endpoint).copied().unwrap_or([0; 2])
    }

    #[inline(always)]
    fn set_rate(&self, endpoint: u32, bucket: [u64; 2]) {
        if let Some(words) = maps::RATES.get_ptr_mut(endpoint) {
            // SAFETY: a map value of two words; a race between CPUs loses a token at most.
            unsafe { *words = bucket };
        }
    }

    #[inline(always)]
    fn sockets(&self, endpoint: u32, from_peer: &FlowKey) -> Sockets {
        if settings::testing() {
            return match test_word(1) & 0xff {
                1 => Sockets::Client,
                2 => Sockets::Server,
                _ => Sockets::None,
            };
        }
        ask_sockets(self.skb, endpoint, from_peer)
    }
}

impl Expiring for KernelTables {
    #[inline(always)]
    fn swept(&self) -> Nanos {
        maps::SWEPT.get(abi::SWEPT_BY_AGENT).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn expired(&self) -> Nanos {
        maps::SWEPT.get(abi::SWEPT_BY_KERNEL).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn claim(&self, expired: Nanos, now: Nanos) -> Claim {
        let Some(word) = maps::SWEPT.get_ptr_mut(abi::SWEPT_BY_KERNEL) else { return Claim::Others };
        let mut there = now;
        // SAFETY: `word` points to a word of a map value, aligned to 8.
        unsafe { core::arch::asm!("{n} = xchg_64({w} + 0, {n})", w = in(reg) word, n = inout(reg) there) };
        if there == expired { Claim::Ours } else { Claim::Others }
    }

    #[inline(always)]
    fn expire_all(&self, now: Nanos) {
        // SAFETY: the callback takes what this helper gives it; `now` outlives the call.
        unsafe {
            bpf_for_each_map_elem(
                (&raw const maps::CONNECTIONS).cast_mut().cast(),
                (expire_one as *const ()).cast_mut().cast(),
                (&raw const now).cast_mut().cast(),
                0,
            )
        };
    }
}

/// Asks the pod's network namespace. A listener on the local port makes the pod the server: it is
/// looked for with peer port 0, which no connection has. Else the connection's own socket makes it
/// the client.
#[inline(never)]
fn ask_sockets(skb: *mut __sk_buff, endpoint: u32, from_peer: &FlowKey) -> Sockets {
    let Some(netns) = maps::ENDPOINTS.get(endpoint).map(|record| record[1]) else { return Sockets::None };
    if netns as u32 == u32::MAX {
        return Sockets::None;
    }
    if lookup(skb, netns, from_peer, 0) == Some(TCP_LISTEN) {
        return Sockets::Server;
    }
    match lookup(skb, netns, from_peer, from_peer.source_port) {
        Some(TCP_LISTEN) => Sockets::Server,
        Some(_) => Sockets::Client,
        None => Sockets::None,
    }
}

/// The state of the socket that a packet from the peer, with this source port, would find.
#[inline(always)]
fn lookup(skb: *mut __sk_buff, netns: u64, from_peer: &FlowKey, peer_port: u16) -> Option<u32> {
    let ports = u32::from(peer_port.to_be()) | u32::from(from_peer.destination_port.to_be()) << 16;
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (halves(from_peer.source), halves(from_peer.destination));
    // The two arms of `bpf_sock_tuple`: addresses in network order, then ports in network order.
    if from_peer.destination.is_v4() {
        state_of(skb, netns, &[s3, d3, ports])
    } else {
        state_of(skb, netns, &[s0, s1, s2, s3, d0, d1, d2, d3, ports])
    }
}

#[inline(always)]
fn state_of<const N: usize>(skb: *mut __sk_buff, netns: u64, tuple: &[u32; N]) -> Option<u32> {
    let size = N as u32 * 4;
    // SAFETY: the tuple outlives the call; a socket that was found is released.
    unsafe {
        let socket = bpf_skc_lookup_tcp(skb.cast(), tuple.as_ptr().cast_mut().cast(), size, netns, 0);
        if socket.is_null() {
            return None;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        Some(state)
    }
}

#[inline(always)]
fn halves(address: Address) -> [u32; 4] {
    let [a, b] = address.0;
    [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
}
