//! Packets to flows.
//!
//! Always holds: every packet given to [`Meter::packet`] is counted in exactly one slice of one flow, or in one
//! count of [`Skipped`]; slices of a flow share `flow_start`, do not overlap, and add up. When a flow ends depends
//! on its packets' times alone, not on how it was sliced or how often [`Meter::advance`] was called.
//!
//! | | ends |
//! |---|---|
//! | TCP, SCTP | 1 hour after its last packet; FIN both ways or RST: [`LINGER`] after its last packet |
//! | the rest | 60 seconds after its last packet |
//!
//! A SYN on a flow that was closed, on one whose opening was not seen, or on one that was silent for [`LINGER`],
//! begins a new flow.

use crate::{fragments::Fragments, summary::Skipped};
use flow::{FlowKey, Fragment, Kind, Packet, tcp};
use model::record::{DirectionRule, EndReason, FlowEvent, FlowSource, FlowVerdict, ObservedAt, UnixNanos};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

const SECOND: i64 = 1_000_000_000;

/// How long a closed TCP connection's stray packets are still taken for its own.
pub const LINGER: i64 = 10 * SECOND;

/// Bounds of a [`Meter`].
#[derive(Clone, Debug)]
pub struct MeterOptions {
    /// A flow is written in slices of this length, nanoseconds.
    pub slice: i64,
    /// TCP and SCTP flows end after this silence, nanoseconds.
    pub idle_connection: i64,
    /// Other flows end after this silence, nanoseconds.
    pub idle_datagrams: i64,
    /// Flows kept at once; one more makes the one that would end next be forgotten.
    pub most_flows: usize,
    /// First fragments kept at once.
    pub most_fragments: usize,
}

impl Default for MeterOptions {
    fn default() -> Self {
        Self {
            slice: 60 * SECOND,
            idle_connection: 3600 * SECOND,
            idle_datagrams: 60 * SECOND,
            most_flows: 1 << 20,
            most_fragments: 1 << 12,
        }
    }
}

/// Turns one interface's packets into slices of flows.
pub struct Meter {
    options: MeterOptions,
    interface: Arc<str>,
    nothing: Arc<str>,
    flows: HashMap<FlowKey, Flow>,
    /// When to look at which flow; an entry counts only if it is the flow's own `look_at`.
    due: BinaryHeap<Reverse<(UnixNanos, FlowKey)>>,
    fragments: Fragments,
    /// Flows begun.
    begun: u64,
    /// Flows forgotten because there were too many.
    evicted: u64,
    skipped: Skipped,
}

/// One flow. Counters are of the current slice, `[to server, to client]`. Its key is the one it is found under, so that
/// many fit.
struct Flow {
    /// The client is the destination of the key it is found under.
    reversed: bool,
    rule: DirectionRule,
    begun: UnixNanos,
    slice_begun: UnixNanos,
    last: UnixNanos,
    packets: [u64; 2],
    bytes: [u64; 2],
    /// Seen in the flow's life.
    flags: [u8; 2],
    /// Time of the last SYN that no SYN-ACK answered yet.
    syn_at: Option<UnixNanos>,
    rtt_us: Option<u32>,
    /// When it is looked at again; may be too early, never too late.
    look_at: UnixNanos,
}

/// Index of what goes from client to server.
const TO_SERVER: usize = 0;
/// Index of what goes from server to client.
const TO_CLIENT: usize = 1;

/// What a packet is, besides its key.
struct Seen {
    at: UnixNanos,
    key: FlowKey,
    bytes: u64,
    flags: u8,
    opening: Opening,
}

/// What a packet says of who opened the flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// Its sender did.
    BySender,
    /// Its receiver did.
    ByReceiver,
    /// A reply, to judge by the protocol, though not to a connection.
    Answer,
    /// Nothing.
    Silent,
}

impl Meter {
    /// A meter for the packets of one interface.
    pub fn new(options: MeterOptions, interface: &str) -> Self {
        Self {
            fragments: Fragments::new(options.most_fragments),
            options,
            interface: interface.into(),
            nothing: "".into(),
            flows: HashMap::new(),
            due: BinaryHeap::new(),
            begun: 0,
            evicted: 0,
            skipped: Skipped::default(),
        }
    }

    /// Counts one packet, seen at `at`. Slices that its time completes go to `out`.
    pub fn packet(&mut self, at: UnixNanos, packet: &Packet, out: &mut Vec<FlowEvent>) {
        self.advance(at, out);
        let Some(key) = self.flow_key(at, packet) else { return };
        let seen = Seen { at, key, bytes: packet.ip_length.into(), flags: packet.tcp_flags, opening: opening(packet) };
        let pair = unordered(key);
        let options = &self.options;
        let ended = self.flows.get(&pair).and_then(|flow| flow.ended_before(pair, &seen, options));
        if let Some(reason) = ended
            && let Some(flow) = self.flows.remove(&pair)
        {
            out.push(flow.slice(pair, reason, &self.interface, &self.nothing));
        }
        self.count(pair, &seen, out);
    }

    /// Lets time pass: slices and flows that are over by `now` go to `out`.
    pub fn advance(&mut self, now: UnixNanos, out: &mut Vec<FlowEvent>) {
        // The last nanosecond never passes, so what is due then is due never.
        let now = now.min(UnixNanos::MAX - 1);
        while let Some(Reverse((due, pair))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            let Some(flow) = self.flows.get_mut(&pair).filter(|flow| flow.look_at == due) else { continue };
            if let Some(reason) = flow.over(pair, now, &self.options) {
                out.push(flow.slice(pair, reason, &self.interface, &self.nothing));
                self.flows.remove(&pair);
                continue;
            }
            if flow.has_packets() && now >= flow.show_at(pair, &self.options) {
                out.push(flow.slice(pair, EndReason::Active, &self.interface, &self.nothing));
                flow.next_slice(flow.last);
            }
            flow.look_at = flow.next_event(pair, &self.options).max(now.saturating_add(1));
            self.due.push(Reverse((flow.look_at, pair)));
        }
    }

    /// The source ended: what is left goes to `out`, in the order in which it began.
    pub fn finish(&mut self, out: &mut Vec<FlowEvent>) {
        let mut flows: Vec<(FlowKey, Flow)> = self.flows.drain().collect();
        self.due.clear();
        flows.sort_unstable_by_key(|(pair, flow)| (flow.begun, *pair));
        for (pair, flow) in flows {
            let reason = flow.closed().unwrap_or(EndReason::Stopped);
            out.push(flow.slice(pair, reason, &self.interface, &self.nothing));
        }
    }

    /// Flows begun so far.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Flows forgotten so far because there were more than `most_flows`. What follows of such a flow is
    /// a flow of its own, of unknown direction.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Packets that are in no flow.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Counts what could not be read as a packet.
    pub fn unreadable(&mut self, error: flow::ParseError) {
        self.skipped.add(error.name());
    }

    /// The flow a packet belongs to, if any.
    fn flow_key(&mut self, at: UnixNanos, packet: &Packet) -> Option<FlowKey> {
        match packet.kind {
            Kind::Transport | Kind::Echo | Kind::IcmpError | Kind::Portless => {
                if packet.fragment == Fragment::First {
                    self.fragments.first(at, packet.fragment_key(), packet.key);
                }
                Some(packet.key)
            }
            Kind::LaterFragment => {
                let key = self.fragments.later(at, &packet.fragment_key());
                if key.is_none() {
                    self.skipped.add("fragment-without-first");
                }
                key
            }
            Kind::Arp => {
                self.skipped.add("arp");
                None
            }
            Kind::Solicitation
            | Kind::Advertisement
            | Kind::RouterSolicitation
            | Kind::ListenerReport
            | Kind::RouterMessage => {
                self.skipped.add("neighbour-discovery");
                None
            }
        }
    }

    fn count(&mut self, pair: FlowKey, seen: &Seen, out: &mut Vec<FlowEvent>) {
        if !self.flows.contains_key(&pair) {
            self.make_room(out);
            self.begun += 1;
            self.flows.insert(pair, Flow::new(pair, seen));
        }
        let Some(flow) = self.flows.get_mut(&pair) else { return };
        if flow.has_packets() && seen.at.saturating_sub(flow.slice_begun) >= self.options.slice {
            out.push(flow.slice(pair, EndReason::Active, &self.interface, &self.nothing));
            flow.next_slice(seen.at);
        } else if !flow.has_packets() {
            flow.slice_begun = seen.at;
        }
        flow.add(pair, seen);
        let look_at = flow.next_event(pair, &self.options);
        if look_at < flow.look_at {
            flow.look_at = look_at;
            self.due.push(Reverse((look_at, pair)));
        }
    }

    /// Forgets the flow that would end next, if there are as many as may be.
    fn make_room(&mut self, out: &mut Vec<FlowEvent>) {
        while self.flows.len() >= self.options.most_flows.max(1) {
            let Some(Reverse((due, pair))) = self.due.pop() else { return };
            let Some(flow) = self.flows.get_mut(&pair).filter(|flow| flow.look_at == due) else { continue };
            let end = flow.end_by(pair, &self.options).saturating_add(1);
            if due < end {
                // It was to be looked at for another reason than its end.
                flow.look_at = end;
                self.due.push(Reverse((end, pair)));
                continue;
            }
            out.push(flow.slice(pair, EndReason::Active, &self.interface, &self.nothing));
            self.flows.remove(&pair);
            self.evicted += 1;
        }
    }
}

/// The same key for both directions.
fn unordered(key: FlowKey) -> FlowKey {
    let (source, destination) = ((key.source, key.source_port), (key.destination, key.destination_port));
    if source <= destination { key } else { key.reversed() }
}

fn opening(packet: &Packet) -> Opening {
    const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
    match packet.kind {
        Kind::Transport if packet.opens_connection() => Opening::BySender,
        Kind::Transport if packet.key.protocol == flow::TCP && packet.tcp_flags & SYN_ACK == SYN_ACK => {
            Opening::ByReceiver
        }
        // Echo replies (RFC 792, RFC 4443).
        Kind::Echo if matches!((packet.key.protocol, packet.message), (flow::ICMP, 0) | (flow::ICMPV6, 129)) => {
            Opening::Answer
        }
        _ => Opening::Silent,
    }
}

impl Flow {
    fn new(pair: FlowKey, seen: &Seen) -> Self {
        let (key, rule) = match seen.opening {
            Opening::BySender => (seen.key, DirectionRule::Syn),
            Opening::ByReceiver => (seen.key.reversed(), DirectionRule::Syn),
            Opening::Answer => (seen.key.reversed(), DirectionRule::Unknown),
            Opening::Silent => (seen.key, DirectionRule::Unknown),
        };
        Self {
            reversed: key != pair,
            rule,
            begun: seen.at,
            slice_begun: seen.at,
            last: seen.at,
            packets: [0; 2],
            bytes: [0; 2],
            flags: [0; 2],
            syn_at: None,
            rtt_us: None,
            look_at: UnixNanos::MAX,
        }
    }

    /// Client to server.
    fn key(&self, pair: FlowKey) -> FlowKey {
        if self.reversed { pair.reversed() } else { pair }
    }

    fn add(&mut self, pair: FlowKey, seen: &Seen) {
        let way = if seen.key == self.key(pair) { TO_SERVER } else { TO_CLIENT };
        self.packets[way] += 1;
        self.bytes[way] = self.bytes[way].saturating_add(seen.bytes);
        self.flags[way] |= seen.flags;
        // A capture's packets may be out of order; a slice's end stays behind its begin.
        self.last = self.last.max(seen.at);
        match seen.opening {
            Opening::BySender => self.syn_at = Some(seen.at),
            Opening::ByReceiver => {
                if let Some(syn_at) = self.syn_at.take() {
                    let nanos = seen.at.saturating_sub(syn_at).max(0);
                    self.rtt_us = self.rtt_us.or(Some(u32::try_from(nanos / 1000).unwrap_or(u32::MAX)));
                }
            }
            Opening::Answer | Opening::Silent => {}
        }
    }

    /// Why the flow is over before this packet, which then begins another.
    fn ended_before(&self, pair: FlowKey, seen: &Seen, options: &MeterOptions) -> Option<EndReason> {
        if seen.at > self.end_by(pair, options) {
            return Some(self.closed().unwrap_or(EndReason::Idle));
        }
        let opens = matches!(seen.opening, Opening::BySender | Opening::ByReceiver);
        if opens && self.rule == DirectionRule::Unknown {
            return Some(EndReason::Idle);
        }
        if seen.opening != Opening::BySender {
            return None;
        }
        let silent = seen.at.saturating_sub(self.last) > LINGER && self.established();
        self.closed().or(silent.then_some(EndReason::Idle))
    }

    fn established(&self) -> bool {
        self.flags[TO_SERVER] & tcp::ACK != 0 && self.flags[TO_CLIENT] & tcp::ACK != 0
    }

    /// How it was closed, if it was.
    fn closed(&self) -> Option<EndReason> {
        let [to_server, to_client] = self.flags;
        if (to_server | to_client) & tcp::RST != 0 {
            Some(EndReason::Reset)
        } else if to_server & to_client & tcp::FIN != 0 {
            Some(EndReason::Fin)
        } else {
            None
        }
    }

    /// The last moment at which a packet would still belong to it.
    fn end_by(&self, pair: FlowKey, options: &MeterOptions) -> UnixNanos {
        let connection = matches!(pair.protocol, flow::TCP | flow::SCTP);
        let idle = if connection { options.idle_connection } else { options.idle_datagrams };
        self.last.saturating_add(if self.closed().is_some() { idle.min(LINGER) } else { idle })
    }

    fn over(&self, pair: FlowKey, now: UnixNanos, options: &MeterOptions) -> Option<EndReason> {
        (now > self.end_by(pair, options)).then(|| self.closed().unwrap_or(EndReason::Idle))
    }

    /// When a slice is shown even if no packet comes; never, if the flow's end comes soon after.
    fn show_at(&self, pair: FlowKey, options: &MeterOptions) -> UnixNanos {
        let over = self.slice_begun.saturating_add(options.slice);
        if self.end_by(pair, options).saturating_sub(over) > options.slice { over } else { UnixNanos::MAX }
    }

    /// When, without another packet, something is to be done.
    fn next_event(&self, pair: FlowKey, options: &MeterOptions) -> UnixNanos {
        let end = self.end_by(pair, options).saturating_add(1);
        if self.has_packets() { end.min(self.show_at(pair, options)) } else { end }
    }

    fn has_packets(&self) -> bool {
        self.packets != [0; 2]
    }

    /// Begins the next slice.
    fn next_slice(&mut self, at: UnixNanos) {
        self.slice_begun = at;
        self.packets = [0; 2];
        self.bytes = [0; 2];
    }

    fn slice(&self, pair: FlowKey, end_reason: EndReason, interface: &Arc<str>, nothing: &Arc<str>) -> FlowEvent {
        FlowEvent {
            key: self.key(pair),
            direction_rule: self.rule,
            observed_at: ObservedAt::Wire,
            flow_start: self.begun,
            start: self.slice_begun,
            end: self.last,
            packets_to_server: self.packets[TO_SERVER],
            packets_to_client: self.packets[TO_CLIENT],
            bytes_to_server: self.bytes[TO_SERVER],
            bytes_to_client: self.bytes[TO_CLIENT],
            tcp_flags_to_server: self.flags[TO_SERVER],
            tcp_flags_to_client: self.flags[TO_CLIENT],
            adopted: false,
            verdict: FlowVerdict::Observed,
            reason: nothing.clone(),
            rule: None,
            policy_generation: 0,
            staged_verdict: FlowVerdict::Observed,
            staged_reason: nothing.clone(),
            end_reason,
            rtt_us: self.rtt_us,
            interface: interface.clone(),
            source: FlowSource::Pcap,
        }
    }
}

#[cfg(test)]
mod tests;
