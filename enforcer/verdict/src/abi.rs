//! The words in which the kernel program and user space speak: names, keys and values of the maps,
//! and events. Keys and values cross as arrays of words, never as Rust structs.
//!
//! Everything here is little-endian words in memory order of the host; addresses alone keep network
//! order inside their words ([`flow::Address`]).

use crate::{Reason, Staged};
use flow::{Address, Direction, FlowKey};

/// The layout version: part of every pin's path. It changes with any key, value or event below.
pub const LAYOUT: u32 = if cfg!(feature = "next-layout") { 3 + 1_000_000 } else { 3 };

/// Nanoseconds of the kernel's coarse monotonic clock (`bpf_ktime_get_coarse_ns`, 5.11).
pub type Nanos = u64;

/// Names of the maps in the object.
pub mod maps {
    /// Hash: ifindex (u32) -> endpoint ordinal (u32).
    pub const LINKS: &str = "LINKS";
    /// Array: ifindex modulo its length -> the link's slot, see [`super::LINK_SLOTS`].
    pub const LINK_SLOTS: &str = "LINK_SLOTS";
    /// Array by endpoint ordinal: [`super::EndpointRecord`].
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// Array by generation index: [`super::GenerationRecord`].
    pub const GENERATIONS: &str = "GENERATIONS";
    /// LPM trie: prefix length, 128 bits (IPv4 mapped: prefix + 96) -> identity (u32).
    pub const IDENTITIES: &str = "IDENTITIES";
    /// LPM trie: prefix length, [`super::further_prefix`] -> 1: addresses that pods were given beside their own.
    pub const FURTHER: &str = "FURTHER";
    /// Hash: address (two words) -> who opens from there, where that counts beside its identity (u32): [`super::OWN_NODE`],
    /// [`super::OTHER_NODE`] or [`super::client_peer`].
    pub const PEERS: &str = "PEERS";
    /// LPM trie: prefix length, [`super::port_key`] -> port class (u32); asked for slots with [`super::RANGES`] only.
    pub const PORT_CLASSES: &str = "PORT_CLASSES";
    /// Hash: [`super::RuleKey`] -> rule id (u32).
    pub const RULES: &str = "RULES";
    /// Hash: [`super::ConnectionKey`] -> [`super::ConnectionRecord`].
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// Array by endpoint ordinal: entries the kernel holds in each [`crate::Share`] (four words); the kernel alone writes.
    pub const SHARES: &str = "SHARES";
    /// Array by endpoint ordinal: entries the agent took out of each share; the agent alone writes.
    pub const RETURNED: &str = "RETURNED";
    /// Array of two times: when an agent last swept [`CONNECTIONS`] (the agent alone writes), and when the kernel last
    /// expired entries in its place (the kernel alone writes); see [`super::SWEPT_BY_AGENT`].
    pub const SWEPT: &str = "SWEPT";
    /// Array by endpoint ordinal: token bucket of ARP and neighbour discovery: time, tokens left.
    pub const RATES: &str = "RATES";
    /// Array by [`super::fragment_slot`]: [`super::FragmentRecord`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Per-CPU array by [`super::counter_index`]: [`super::CounterRecord`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU array of one: event tokens: time, tokens left.
    pub const TOKENS: &str = "TOKENS";
    /// Ring buffer of [`super::EventRecord`].
    pub const EVENTS: &str = "EVENTS";
    /// Array of one, read only when the global [`super::TEST_GLOBAL`] is 1: time, socket answer
    /// (`crate::Sockets`) | what becomes of standing connections (`crate::Standing`) << 8.
    pub const TEST: &str = "TEST";
}

/// Global (u64): 1 makes the program read time and sockets from the map `TEST`.
pub const TEST_GLOBAL: &str = "TESTING";
/// Global (u64): 0 denies packets of a veth whose pod is not known, 1 passes them.
pub const UNKNOWN_POD_GLOBAL: &str = "UNKNOWN_POD_PASSES";
/// Global (u64): entries an endpoint may hold half-open (and one-way).
pub const HALF_OPEN_GLOBAL: &str = "HALF_OPEN_LIMIT";
/// Global (u64): entries an endpoint may hold established (and answered).
pub const ESTABLISHED_GLOBAL: &str = "ESTABLISHED_LIMIT";
/// Global (u64): tombstones an endpoint may hold.
pub const TOMBSTONE_GLOBAL: &str = "TOMBSTONE_LIMIT";
/// Global (u64): what becomes of connections that policy no longer allows, as a number of [`crate::Standing`].
pub const STANDING_GLOBAL: &str = "STANDING";
/// Global (u64): events a CPU may make in [`EVENT_PERIOD`].
pub const EVENT_GLOBAL: &str = "EVENT_LIMIT";
/// In [`maps::SWEPT`]: when an agent last swept.
pub const SWEPT_BY_AGENT: u32 = 0;
/// In [`maps::SWEPT`]: when the kernel last expired entries itself.
pub const SWEPT_BY_KERNEL: u32 = 1;
/// The period of the event token bucket.
pub const EVENT_PERIOD: Nanos = 100_000_000;

/// Program for packets that leave towards the pod (egress of the host side).
pub const TO_POD: &str = "to_pod";
/// Program for packets that come from the pod (ingress of the host side).
pub const FROM_POD: &str = "from_pod";

/// Endpoints a node can have.
pub const MAX_ENDPOINTS: u32 = 4096;
/// Slots that spare nearly every packet the look into the map of links, whose hash costs a third of an
/// established packet: a link's slot is its interface index modulo this.
pub const LINK_SLOTS: u32 = 16_384;

/// What a link's slot holds: interface index and ordinal. Another link's: the map of links is asked.
#[inline(always)]
pub const fn link_slot(ifindex: u32, ordinal: u32) -> u64 {
    ifindex as u64 | (ordinal as u64) << 32
}
/// Own addresses of an endpoint; index 0 is its IPv4, 1 its IPv6, 2 and 3 further ones; unused are zero.
pub const OWN_ADDRESSES: usize = 4;

/// `[word, network namespace id of the peer (i32 as u32), own addresses (8 words), link-local (2 words)]`.
/// The word is `epoch << 24 | generation`; 0 is an endpoint without a generation. One store of the
/// word publishes; the other words are written before the first publish and never change while the
/// ordinal is in use.
pub type EndpointRecord = [u64; 12];

/// Bits of the generation index in the endpoint's word.
pub const GENERATION_BITS: u32 = 24;
/// Epochs fit into this many bits: 1,100,000,000,000, ten a second for 3,400 years.
pub const EPOCH_BITS: u32 = 40;

/// `[slot in force | slot staged << 32, mode]`, immutable. Slot in force 0: not ready. Slot staged 0:
/// nothing is staged. Mode: [`crate::Mode`] as a number.
pub type GenerationRecord = [u64; 2];

/// In [`maps::PEERS`]: an address of this node.
pub const OWN_NODE: u32 = 1;
/// In [`maps::PEERS`]: an address of another node.
pub const OTHER_NODE: u32 = 2;

/// In [`maps::PEERS`]: an address of this endpoint, whose own policy is asked again at the hook of the server.
#[inline(always)]
pub const fn client_peer(ordinal: u32) -> u32 {
    ordinal << 2 | 3
}

/// The endpoint that an answer of [`maps::PEERS`] names; 0 for none.
#[inline(always)]
pub const fn client_of(peer: u32) -> u32 {
    if peer & 3 == 3 { peer >> 2 } else { 0 }
}

/// Flag of a slot number: the pod is isolated for ingress.
pub const INGRESS_ISOLATED: u32 = 1;
/// Flag of a slot number: the pod is isolated for egress.
pub const EGRESS_ISOLATED: u32 = 2;
/// Flag of a slot number: its rules have port ranges, so ports are looked up in `PORT_CLASSES`.
pub const RANGES: u32 = 4;

/// Flag of a slot number: it has rules for [`ANYONE`]. Without it they are not looked for.
pub const RULES_FOR_ANYONE: u32 = 8;
/// Flag of a slot number: it has rules for [`RulePort::Any`]. Without it they are not looked for.
pub const RULES_FOR_ANY_PORT: u32 = 16;

/// How many flags a slot number has.
const SLOT_FLAGS: u32 = 5;
/// Slot indices are below this.
pub const SLOT_INDICES: u32 = 1 << (u32::BITS - SLOT_FLAGS);

/// A slot's number: its index (from 1) and what can be said of it without a lookup, as flags.
pub const fn slot_number(index: u32, flags: u32) -> u32 {
    index << SLOT_FLAGS | flags
}

/// The index in a slot's number.
pub const fn slot_index(number: u32) -> u32 {
    number >> SLOT_FLAGS
}

/// The endpoint's word.
#[inline(always)]
pub const fn endpoint_word(epoch: u64, generation: u32) -> u64 {
    epoch << GENERATION_BITS | generation as u64
}

/// The epoch in an endpoint's word.
#[inline(always)]
pub const fn epoch_of(word: u64) -> u64 {
    word >> GENERATION_BITS
}

/// The generation index in an endpoint's word.
#[inline(always)]
pub const fn generation_of(word: u64) -> u32 {
    (word & ((1 << GENERATION_BITS) - 1)) as u32
}

/// `[slot, identity, direction (bit 0) | any port (bit 1) | frontend (bit 2) | protocol << 8 | port or class << 16]`.
pub type RuleKey = [u32; 3];

/// Identity in a rule that holds for everyone; as an address's identity: no policy tells it apart.
pub const ANYONE: u32 = 0;
/// Flag of an identity: at its addresses some ports lead to the backends of Services. Which, says
/// [`frontend_key`]; what a slot says of the backends is a rule of [`RulePort::Frontend`].
pub const FRONTENDS: u32 = 1 << 31;
/// What [`frontend_key`] finds where a Service has backends.
pub const HAS_BACKENDS: u32 = 1;
/// What [`frontend_key`] finds where a Service has none.
pub const NO_BACKENDS: u32 = 2;
/// Rule ids are below this: a verdict carries two of 24 bits in one word. The ids from here on say
/// something else.
pub const RULE_IDS: u32 = 0xff_fff0;
/// In place of a rule of [`RulePort::Frontend`]: some backends are allowed and some are refused.
pub const MIXED_BACKENDS: u32 = RULE_IDS;
/// In place of a rule of [`RulePort::Frontend`]: the only backend is the pod itself.
pub const OWN_BACKEND: u32 = RULE_IDS + 1;

/// Protocol in a rule for every protocol and port; it judges protocols without ports. For TCP, UDP
/// and SCTP such a rule is also written as "any port" of each.
pub const ALL_PROTOCOLS: u8 = 0;

/// Where a rule's port comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RulePort {
    /// Any port of the protocol.
    Any,
    /// This port, in a slot without ranges; this class, in a slot with ranges.
    Class(u16),
    /// This port of an identity with [`FRONTENDS`], as it is: the rule is about the backends behind it.
    Frontend(u16),
}

/// The key of a rule.
#[inline(always)]
pub const fn rule_key(slot: u32, identity: u32, direction: Direction, protocol: u8, port: RulePort) -> RuleKey {
    let (kind, class) = match port {
        RulePort::Any => (1, 0),
        RulePort::Class(class) => (0, class),
        RulePort::Frontend(port) => (2, port),
    };
    [slot, identity, direction as u32 | kind << 1 | (protocol as u32) << 8 | (class as u32) << 16]
}

/// The key under which [`maps::RULES`] says whether a port leads to a Service's backends:
/// [`HAS_BACKENDS`], [`NO_BACKENDS`], or nothing where it does not. No slot has the number 0.
#[inline(always)]
pub const fn frontend_key(identity: u32, protocol: u8, port: u16) -> RuleKey {
    rule_key(0, identity, Direction::Outbound, protocol, RulePort::Frontend(port))
}

/// Key of `PORT_CLASSES` behind the prefix length: slot, then protocol and port, big-endian, so that a
/// prefix of 40 + n bits is a power-of-two range of ports. `[slot (be), protocol | port (be) << 8 …]` as bytes.
#[inline(always)]
pub const fn port_key(slot: u32, protocol: u8, port: u16) -> [u8; 8] {
    let s = slot.to_be_bytes();
    let p = port.to_be_bytes();
    [s[0], s[1], s[2], s[3], protocol, p[0], p[1], 0]
}
/// Prefix length of one whole port in [`port_key`]; a range of 2^n ports has n less.
pub const PORT_PREFIX: u32 = 56;

/// Key of `FURTHER` behind the prefix length: endpoint, then the IPv4 address, so that a prefix of 32 + n bits is one
/// of n bits of this endpoint. As two words in memory order.
#[inline(always)]
pub const fn further_prefix(endpoint: u32, address: Address) -> [u32; 2] {
    [endpoint, (address.0[1] >> 32) as u32]
}
/// Prefix length of one whole address in [`further_prefix`].
pub const FURTHER_PREFIX: u32 = 64;
/// Prefixes of further addresses that an endpoint may have.
pub const FURTHER_PREFIXES: usize = 8;

/// Peer address (two words), then `peer port | local port << 16 | protocol << 32 | own address index << 40
/// | endpoint << 43`. Index 4 is no own address, and in no entry; index [`FURTHER`] is one that the endpoint was given
/// beside its own, which then stands in the first word, as a peer's IPv4 address leaves that empty. The hook knows which end is local, so both directions of a flow meet in one
/// entry without sorting.
pub type ConnectionKey = [u64; 3];

/// Where the own address' index and the endpoint stand in the last word of a [`ConnectionKey`].
const OWN_AND_ENDPOINT: (u32, u32) = if cfg!(feature = "next-layout") { (61, 40) } else { (40, 43) };

/// The key of the entry for a packet whose peer and local ends are these.
#[inline(always)]
pub const fn connection_key(
    endpoint: u32,
    own_address: u32,
    peer: Address,
    peer_port: u16,
    local_port: u16,
    protocol: u8,
) -> ConnectionKey {
    let ends = peer_port as u64
        | (local_port as u64) << 16
        | (protocol as u64) << 32
        | (own_address as u64 & 7) << OWN_AND_ENDPOINT.0
        | (endpoint as u64) << OWN_AND_ENDPOINT.1;
    [peer.0[0], peer.0[1], ends]
}

/// In place of an own address' index: an address that was given to the endpoint beside its own.
pub const FURTHER: u32 = 5;

/// The first word of a key, with the local address in it where that is a further one.
#[inline(always)]
pub const fn with_local(word: u64, own_address: u32, local: Address) -> u64 {
    if own_address == FURTHER { word | local.0[1] >> 32 } else { word }
}

/// A key without an own address, for the flow of this further one.
#[inline(always)]
pub const fn further_key(key: ConnectionKey, local: Address) -> ConnectionKey {
    let ends = key[2] & !(7 << OWN_AND_ENDPOINT.0) | (FURTHER as u64) << OWN_AND_ENDPOINT.0;
    [with_local(key[0], FURTHER, local), key[1], ends]
}

/// A connection key taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct ConnectionParts {
    pub peer: Address,
    pub peer_port: u16,
    pub local_port: u16,
    pub protocol: u8,
    pub own_address: u32,
    /// Where `own_address` is [`FURTHER`]: the local address. Else zero.
    pub further: Address,
    pub endpoint: u32,
}

impl ConnectionParts {
    /// The local address of an endpoint with these own ones.
    pub fn local(&self, own: &[Address; OWN_ADDRESSES]) -> Address {
        match self.own_address {
            FURTHER => self.further,
            index => own.get(index as usize).copied().unwrap_or_default(),
        }
    }
}

/// Takes a connection key apart.
pub const fn connection_parts(key: &ConnectionKey) -> ConnectionParts {
    let own_address = (key[2] >> OWN_AND_ENDPOINT.0) as u32 & 7;
    let (first, further) = match own_address {
        FURTHER => (0, Address([0, key[0] << 32 | key[1] & 0xffff_ffff])),
        _ => (key[0], Address([0; 2])),
    };
    ConnectionParts {
        peer: Address([first, key[1]]),
        peer_port: key[2] as u16,
        local_port: (key[2] >> 16) as u16,
        protocol: (key[2] >> 32) as u8,
        own_address,
        further,
        endpoint: (key[2] >> OWN_AND_ENDPOINT.1) as u32 & ((1 << 21) - 1),
    }
}

/// `[state, last seen, rule | staged rule << 32, started, packets in, bytes in, packets out, bytes out, signs]`;
/// "in" is towards the pod. State: [`crate::State`]. Signs: TCP flags seen towards the pod (bits
/// 0-7) and from it (8-15), round trip time in microseconds (32-63); of a tombstone the upper half
/// is when it last made an event (`Nanos >> 20`), and bits 16-31 name the client whose policy refuses
/// (see [`crate::Refuser`]).
pub type ConnectionRecord = [u64; 9];
/// The endpoint in a tombstone's signs whose own policy refuses; 0 for none.
#[inline(always)]
pub const fn client_in(signs: u64) -> u32 {
    (signs >> 16) as u32 & 0xffff
}

/// Signs that name this client.
#[inline(always)]
pub(crate) const fn with_client(signs: u64, client: u32) -> u64 {
    signs & !(0xffff << 16) | (client as u64 & 0xffff) << 16
}

/// Index of a word in [`ConnectionRecord`].
#[allow(missing_docs)]
pub mod word {
    pub const STATE: usize = 0;
    pub const LAST_SEEN: usize = 1;
    pub const RULES: usize = 2;
    pub const STARTED: usize = 3;
    pub const PACKETS_IN: usize = 4;
    pub const BYTES_IN: usize = 5;
    pub const PACKETS_OUT: usize = 6;
    pub const BYTES_OUT: usize = 7;
    pub const SIGNS: usize = 8;
}

/// Groups of peers whose first fragments have slots of their own, at each endpoint and in each direction.
pub const FRAGMENT_GROUPS: u32 = 4;
/// First fragments that a group of peers holds: consecutive identifications have different slots.
pub const FRAGMENT_WAYS: u32 = 8;
/// Slots for first fragments that an endpoint has: nobody else's datagrams can take them.
pub const FRAGMENT_SLOTS: u32 = 2 * FRAGMENT_GROUPS * FRAGMENT_WAYS;

/// Peer address (two words), then `fragment id | protocol << 32 | own address index << 40 | 1 << 43`, then the
/// ports: `source | destination << 16`. All zeros: nothing yet.
///
/// A record is not written at once. Who reads it half written takes a later fragment for another datagram's,
/// which matters to nobody: the receiver lacks the first fragment that was refused, whatever it gets of the rest.
pub type FragmentRecord = [u64; 4];

/// What the first three words of a [`FragmentRecord`] are for this datagram.
#[inline(always)]
pub const fn fragment_key(own_address: u32, peer: Address, id: u32, protocol: u8) -> [u64; 3] {
    [peer.0[0], peer.0[1], id as u64 | (protocol as u64) << 32 | (own_address as u64 & 7) << 40 | 1 << 43]
}

/// The slot of a datagram. What one peer sends, however much, stays within [`FRAGMENT_WAYS`] slots of the
/// endpoints it sends to, and within [`FRAGMENT_SLOTS`] of its own.
#[inline(always)]
pub const fn fragment_slot(endpoint: u32, direction: Direction, key: &[u64; 3]) -> u32 {
    // Multiplicative hashing (Knuth, 6.4): the upper bits are the best.
    let mixed = (key[0] ^ key[1].rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let group = (mixed >> 32) as u32 % FRAGMENT_GROUPS;
    let way = key[2] as u32 % FRAGMENT_WAYS;
    ((endpoint * 2 + direction as u32) * FRAGMENT_GROUPS + group) * FRAGMENT_WAYS + way
}

/// `[packets, bytes, events, suppressed, lost]`: of every reason that makes events,
/// events + suppressed + lost = packets (law 7).
pub type CounterRecord = [u64; 5];
/// Counters there are.
pub const COUNTERS: u32 = 256;

/// Index of a packet's counter: by reason, direction and whether it was dropped.
#[inline(always)]
pub const fn counter_index(reason: Reason, direction: Direction, dropped: bool) -> u32 {
    (reason as u32) << 2 | (direction as u32) << 1 | dropped as u32
}
/// Counter of ended entries whose last counters the kernel reported itself (events, lost).
pub const COUNTER_ENDED: u32 = COUNTERS - 1;

/// What an event says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EventKind {
    /// A packet was judged, and the verdict is news: a new flow, a denial, a revocation.
    Verdict = 1,
    /// An entry went, in the kernel, with these counters (expired or replaced by a new opening).
    Ended = 2,
}

/// Words of an [`Event`].
pub type EventRecord = [u64; 19];

/// One event as the ring buffer carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What it says.
    pub kind: EventKind,
    /// The verdict's reason; for [`EventKind::Ended`] the entry's own is in its state.
    pub reason: Reason,
    /// Which way the packet went.
    pub direction: Direction,
    /// Mode it was judged under, as a number ([`crate::Mode`]).
    pub mode: u8,
    /// What the staged slot said.
    pub staged: Staged,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// The packet's 5-tuple as the wire shows it. For [`EventKind::Ended`]: the entry's, as the peer would
    /// send it, with the index of the own address (see [`EndpointRecord`]) in place of the destination's first word,
    /// and behind it the second of a further one.
    pub key: FlowKey,
    /// The endpoint's ordinal.
    pub endpoint: u32,
    /// Interface index.
    pub ifindex: u32,
    /// The endpoint's word it was judged under.
    pub word: u64,
    /// The deciding rule, 0 for none.
    pub rule: u32,
    /// The rule of the staged slot, 0 for none.
    pub staged_rule: u32,
    /// When.
    pub time: Nanos,
    /// IP length of the packet.
    pub ip_length: u32,
    /// The last words of the entry that ended; zeros for [`EventKind::Verdict`].
    pub connection: ConnectionRecord,
}

impl Event {
    /// As words, each given once to `store` with its index.
    #[inline(always)]
    pub fn encode(&self, mut store: impl FnMut(usize, u64)) {
        let k = &self.key;
        store(
            0,
            self.kind as u64
                | (self.reason as u64) << 8
                | (self.direction as u64) << 16
                | u64::from(self.mode) << 24
                | (self.staged as u64) << 32
                | u64::from(self.tcp_flags) << 40
                | u64::from(k.protocol) << 48,
        );
        store(1, k.source.0[0]);
        store(2, k.source.0[1]);
        store(3, k.destination.0[0]);
        store(4, k.destination.0[1]);
        store(5, u64::from(k.source_port) | u64::from(k.destination_port) << 16 | u64::from(self.endpoint) << 32);
        store(6, self.word);
        store(7, u64::from(self.rule) | u64::from(self.staged_rule) << 32);
        store(8, self.time);
        store(9, u64::from(self.ip_length) | u64::from(self.ifindex) << 32);
        let [c0, c1, c2, c3, c4, c5, c6, c7, c8] = self.connection;
        store(10, c0);
        store(11, c1);
        store(12, c2);
        store(13, c3);
        store(14, c4);
        store(15, c5);
        store(16, c6);
        store(17, c7);
        store(18, c8);
    }

    /// From words; `None` when a number in it names nothing (another layout).
    pub fn decode(w: &EventRecord) -> Option<Self> {
        let kind = match w[0] as u8 {
            1 => EventKind::Verdict,
            2 => EventKind::Ended,
            _ => return None,
        };
        Some(Self {
            kind,
            reason: Reason::from_number((w[0] >> 8) as u8)?,
            direction: Direction::from_bit(w[0] >> 16),
            mode: (w[0] >> 24) as u8,
            staged: Staged::from_bits(w[0] >> 32),
            tcp_flags: (w[0] >> 40) as u8,
            key: FlowKey {
                source: Address([w[1], w[2]]),
                destination: Address([w[3], w[4]]),
                source_port: w[5] as u16,
                destination_port: (w[5] >> 16) as u16,
                protocol: (w[0] >> 48) as u8,
            },
            endpoint: (w[5] >> 32) as u32,
            ifindex: (w[9] >> 32) as u32,
            word: w[6],
            rule: w[7] as u32,
            staged_rule: (w[7] >> 32) as u32,
            time: w[8],
            ip_length: w[9] as u32,
            connection: [w[10], w[11], w[12], w[13], w[14], w[15], w[16], w[17], w[18]],
        })
    }
}
