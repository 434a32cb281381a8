//! [`decide`]: a packet at a hook, the tables, and the verdict.
//!
//! The established path is inline and short; everything rarer stands in functions of its own, out of
//! line, so that the verifier walks each once a caller. None is `#[cold]`: see ARCHITECTURE.md.

use crate::{
    Admission, Evidence, Phase, Reason, Share, Staged, State, Tables,
    abi::{ConnectionKey, ConnectionRecord, FragmentRecordKey, Nanos, connection_key, epoch_of, word},
    connection::lifetime,
    policy::{Asked, judge},
    tables::{Node, Removed, Sockets, Stored},
};
use core::cell::Cell;
use flow::{Address, Direction, Fragment, Kind, Packet, ParseError, SCTP, TCP, tcp};

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
    /// The coarse monotonic clock.
    pub now: Nanos,
}

/// Allow or deny, with why, in one word: reason (bits 0-7), rule (8-31), staged rule (32-55), what the
/// staged slot says (56-57), and whether it is news (58).
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
#[repr(transparent)]
pub struct Verdict(pub(crate) u64);

/// Rule ids have 24 bits.
pub(crate) const RULE: u64 = (1 << 24) - 1;
const NEWS: u64 = 1 << 58;

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
    const fn is(self, reason: Reason) -> bool {
        self.0 as u8 == reason as u8
    }

    #[inline(always)]
    const fn allows(self) -> bool {
        self.0 as u8 >= Reason::FIRST_ALLOW
    }

    #[inline(always)]
    const fn with_reason(self, reason: Reason) -> Self {
        Self(self.0 & !0xff | reason as u64)
    }

    #[inline(always)]
    const fn without_rule(self) -> Self {
        Self(self.0 & !(RULE << 8))
    }

    #[inline(always)]
    const fn as_news(self) -> Self {
        Self(self.0 | NEWS)
    }

    /// Both rules as an entry keeps them.
    #[inline(always)]
    const fn rules(self) -> u64 {
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
            .finish()
    }
}

/// Whether a verdict is worth an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The first of its kind for this key, or the first for a while.
    Event,
    /// Said lately.
    Repeated,
}

/// A token bucket's period and size for ARP and neighbour discovery of an endpoint.
const NEIGHBOR_PERIOD: Nanos = 1_000_000_000;
const NEIGHBOR_TOKENS: u64 = 100;
/// A tombstone makes an event again after this many units of 2^20 ns: about a second.
const QUIET: u64 = 954;
/// Index of the link-local address for [`Tables::own_address`].
const LINK_LOCAL: usize = 4;
const SCTP_ABORT: u8 = 6;
const SCTP_SHUTDOWN_COMPLETE: u8 = 14;

/// The sheet on which one packet is worked out. In the kernel program it lies in a map: what crosses
/// from one step to the next is then unknown to the verifier, and each step is walked once instead of
/// once for every way that leads to it. All zeros are a sheet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sheet {
    /// The packet, parsed into place.
    pub packet: Packet,
    key: ConnectionKey,
    asked: Asked,
    /// The endpoint's word that policy answered under.
    word: u64,
    /// The state of the entry that was found, or zero.
    state: u64,
    /// What policy said, and then what it means for this packet: a [`Verdict`].
    verdict: u64,
    /// The state of the entry to be made.
    made: u64,
    /// What policy's answer will be about: a number of [`situation`].
    situation: u64,
    /// How the direction is known: a number of [`Evidence`].
    evidence: u64,
}

impl Sheet {
    /// An empty sheet.
    pub const EMPTY: Self = Self {
        packet: Packet::EMPTY,
        key: [0; 3],
        asked: Asked { endpoint: 0, opened: Direction::Inbound, protocol: 0, port: 0, peer: Address([0; 2]) },
        word: 0,
        state: 0,
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

/// What [`look`] found.
mod situation {
    /// No entry; the packet opens, or is of a protocol without openings.
    pub(super) const FRESH: u64 = 0;
    /// No entry; TCP that opens nothing.
    pub(super) const ADOPTED: u64 = 1;
    /// A live entry of another epoch.
    pub(super) const AGAIN: u64 = 2;
    /// A live entry, and an opening packet.
    pub(super) const REOPENED: u64 = 3;
    /// A tombstone, and a packet that asks again.
    pub(super) const BURIED: u64 = 4;
    /// To or from a group: judged each time, without an entry.
    pub(super) const GROUP: u64 = 5;
}

/// Judges the packet on the sheet. Everything it learns on the way (entries, shares, fragments) is in
/// `tables`; the ports of a later fragment are filled in.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> Verdict {
    // Nearly all packets are whole and of a flow.
    if sheet.packet.kind as u8 > Kind::Echo as u8 || !matches!(sheet.packet.fragment, Fragment::Whole) {
        let special = special(tables, hook, &mut sheet.packet);
        if special != NOT_YET {
            return Verdict(special);
        }
    }
    let k = &sheet.packet.key;
    let (local, peer, local_port, peer_port) = match hook.direction {
        Direction::Inbound => (k.destination, k.source, k.destination_port, k.source_port),
        Direction::Outbound => (k.source, k.destination, k.source_port, k.destination_port),
    };
    let own = own_index(tables, hook.endpoint, &local);
    sheet.key = connection_key(hook.endpoint, own, peer, peer_port, local_port, k.protocol);
    if own != NOT_OWN
        && let Some(entry) = tables.connection(&sheet.key)
    {
        let packet = &sheet.packet;
        let state = State(entry[word::STATE].get());
        let current = epoch_of(tables.word(hook.endpoint)) == state.epoch();
        let idle = hook.now.wrapping_sub(entry[word::LAST_SEEN].get());
        // Established, judged in this epoch, nothing new in its flags: the packet nearly all packets are.
        if matches!(state.phase(), Phase::Established)
            && idle <= lifetime(Phase::Established, packet.key.protocol)
            && current
            && !packet.opens_connection()
        {
            let signs = entry[word::SIGNS].get();
            if signs | sign(hook.direction, packet.tcp_flags) == signs && !ends_sctp(packet) {
                meter(tables, &entry, hook, packet);
                return of_entry(&entry, state, Reason::Established);
            }
        }
    }
    let found = look(tables, hook, sheet);
    if found != NOT_YET {
        return Verdict(found);
    }
    sheet.verdict = judge(tables, &sheet.asked, &mut sheet.word).verdict().0;
    let settled = settle(tables, hook, sheet);
    if settled != NOT_YET {
        return Verdict(settled);
    }
    if sheet.situation == situation::AGAIN || sheet.situation == situation::REOPENED {
        let standing = settle_standing(tables, hook, sheet);
        if standing != NOT_YET {
            return Verdict(standing);
        }
    }
    Verdict(enter(tables, hook, sheet))
}

/// The verdict on a packet that could not be parsed.
#[inline(always)]
pub fn refuse(error: ParseError) -> Verdict {
    plain(error.into())
}

#[inline(always)]
const fn plain(reason: Reason) -> Verdict {
    Verdict::new(reason).as_news()
}

/// A verdict with the rules and the staged answer that an entry keeps.
#[inline(always)]
fn of_entry(entry: &[Cell<u64>; 9], state: State, reason: Reason) -> Verdict {
    let rules = entry[word::RULES].get();
    Verdict(reason as u64 | (rules & RULE) << 8 | (rules >> 32 & RULE) << 32 | (state.staged() as u64) << 56)
}

/// Own addresses have indexes 0 to 3.
const NOT_OWN: u32 = 4;

/// Which of the endpoint's own addresses this is, or [`NOT_OWN`].
#[inline(always)]
fn own_index<T: Tables>(tables: &T, endpoint: u32, address: &Address) -> u32 {
    let family = if address.is_v4() { 0 } else { 1 };
    if tables.own_address(endpoint, family) == *address && *address != Address([0; 2]) {
        return family as u32;
    }
    further_own_index(tables, endpoint, address)
}

#[inline(never)]
fn further_own_index<T: Tables>(tables: &T, endpoint: u32, address: &Address) -> u32 {
    if *address == Address([0; 2]) {
        NOT_OWN
    } else if tables.own_address(endpoint, 2) == *address {
        2
    } else if tables.own_address(endpoint, 3) == *address {
        3
    } else {
        NOT_OWN
    }
}

/// The own address index in a connection's key.
#[inline(always)]
const fn own_of(key: &ConnectionKey) -> u32 {
    (key[2] >> 40) as u32 & 7
}

/// What [`special`], [`look`], [`settle`] and [`settle_standing`] return where there is more to do; no
/// verdict has this word.
const NOT_YET: u64 = u64::MAX;

/// What is no whole packet of a flow: fragments find their ports, everything else its verdict.
#[inline(never)]
fn special<T: Tables>(tables: &T, hook: &Hook, packet: &mut Packet) -> u64 {
    match packet.kind {
        Kind::IcmpError => icmp_error(tables, hook, packet).0,
        Kind::Transport | Kind::Echo | Kind::Portless | Kind::LaterFragment => {
            if matches!(packet.fragment, Fragment::Whole) { NOT_YET } else { fragment(tables, hook, packet) }
        }
        _ => neighbor(tables, hook, packet).0,
    }
}

/// The end of a packet that should be the pod's.
#[inline(always)]
fn local_of(hook: &Hook, packet: &Packet) -> Address {
    match hook.direction {
        Direction::Inbound => packet.key.destination,
        Direction::Outbound => packet.key.source,
    }
}

/// First fragments leave their ports behind; later ones find them, or are denied.
#[inline(always)]
fn fragment<T: Tables>(tables: &T, hook: &Hook, packet: &mut Packet) -> u64 {
    let k = &mut packet.key;
    // What is forged leaves nothing behind, and is judged as forged.
    let local = match hook.direction {
        Direction::Inbound => k.destination,
        Direction::Outbound => k.source,
    };
    if own_index(tables, hook.endpoint, &local) == NOT_OWN {
        return NOT_YET;
    }
    let key: FragmentRecordKey = [
        k.source.0[0],
        k.source.0[1],
        k.destination.0[0],
        k.destination.0[1],
        u64::from(packet.fragment_id)
            | u64::from(k.protocol) << 32
            | (hook.direction as u64) << 40
            | u64::from(hook.endpoint) << 42,
    ];
    if matches!(packet.fragment, Fragment::First) {
        tables.remember(&key, u32::from(k.source_port) | u32::from(k.destination_port) << 16);
        return NOT_YET;
    }
    let Some(ports) = tables.fragment(&key) else { return plain(Reason::FragmentWithoutFirst).0 };
    k.source_port = ports as u16;
    k.destination_port = (ports >> 16) as u16;
    NOT_YET
}

/// An ICMP error passes if the packet inside it belongs to a connection that is allowed now.
#[inline(always)]
fn icmp_error<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Verdict {
    if own_index(tables, hook.endpoint, &local_of(hook, packet)) == NOT_OWN {
        return match hook.direction {
            Direction::Outbound => plain(Reason::Spoofed),
            Direction::Inbound => plain(Reason::NotForThisPod),
        };
    }
    let quoted = &packet.quoted;
    // Towards the pod the error is about what the pod sent; from the pod, about what it received. The
    // inner source is the outer destination either way (see `Quoted`).
    let (local, peer, local_port, peer_port) = match hook.direction {
        Direction::Inbound => (packet.key.destination, quoted.address, quoted.source_port, quoted.destination_port),
        Direction::Outbound => (quoted.address, packet.key.destination, quoted.destination_port, quoted.source_port),
    };
    let own = own_index(tables, hook.endpoint, &local);
    let key = connection_key(hook.endpoint, own, peer, peer_port, local_port, quoted.protocol);
    // Protocol 0: what is quoted was not the receiver's.
    if own == NOT_OWN || quoted.protocol == 0 {
        return plain(Reason::UnrelatedIcmpError);
    }
    let Some(entry) = tables.connection(&key) else { return plain(Reason::UnrelatedIcmpError) };
    let state = State(entry[word::STATE].get());
    let alive = hook.now.wrapping_sub(entry[word::LAST_SEEN].get()) <= lifetime(state.phase(), quoted.protocol);
    let current = epoch_of(tables.word(hook.endpoint)) == state.epoch();
    // An entry of an older epoch is not judged again for an error's sake: the next packet of the
    // connection does that, and errors are repeated.
    if alive && current && !matches!(state.phase(), Phase::Tombstone) {
        plain(Reason::RelatedIcmpError)
    } else {
        plain(Reason::UnrelatedIcmpError)
    }
}

/// ARP, neighbour discovery and listener discovery: pass at a rate, if they claim nothing of others.
#[inline(always)]
fn neighbor<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Verdict {
    let hops = match packet.kind {
        Kind::Arp => 0,
        Kind::ListenerReport => 1,
        _ => 255,
    };
    let forged = matches!(hook.direction, Direction::Outbound) && !claims_its_own(tables, hook.endpoint, packet);
    if forged || packet.hop_limit != hops {
        return plain(Reason::NeighborForged);
    }
    let [mut since, mut tokens] = tables.rate(hook.endpoint);
    if hook.now.wrapping_sub(since) >= NEIGHBOR_PERIOD {
        (since, tokens) = (hook.now, NEIGHBOR_TOKENS);
    }
    if tokens == 0 {
        return plain(Reason::NeighborRate);
    }
    tables.set_rate(hook.endpoint, [since, tokens - 1]);
    match packet.kind {
        Kind::Arp => plain(Reason::Arp),
        _ => plain(Reason::NeighborDiscovery),
    }
}

/// Solicitations from the pod's own addresses or none, advertisements of its own addresses.
#[inline(always)]
fn claims_its_own<T: Tables>(tables: &T, endpoint: u32, packet: &Packet) -> bool {
    match packet.kind {
        Kind::Arp | Kind::Solicitation | Kind::RouterSolicitation | Kind::ListenerReport => {
            packet.key.source.is_unspecified() || is_own_on_link(tables, endpoint, &packet.key.source)
        }
        Kind::Advertisement => {
            is_own_on_link(tables, endpoint, &packet.key.source)
                && is_own_on_link(tables, endpoint, &packet.quoted.address)
        }
        _ => false,
    }
}

#[inline(never)]
fn is_own_on_link<T: Tables>(tables: &T, endpoint: u32, address: &Address) -> bool {
    own_index(tables, endpoint, address) != NOT_OWN
        || (tables.own_address(endpoint, LINK_LOCAL) == *address && *address != Address([0; 2]))
}

/// What the tables know of the packet's flow: a verdict where that decides it, else [`NOT_YET`], with
/// the question to policy on the sheet.
#[inline(never)]
fn look<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> u64 {
    let peer = Address([sheet.key[0], sheet.key[1]]);
    let outbound = matches!(hook.direction, Direction::Outbound);
    sheet.state = 0;
    sheet.evidence = Evidence::None as u64;
    sheet.situation = situation::GROUP;
    if own_of(&sheet.key) == NOT_OWN {
        let destination = sheet.packet.key.destination;
        if outbound {
            return plain(Reason::Spoofed).0;
        }
        if !destination.is_multicast() && !destination.is_broadcast() {
            return plain(Reason::NotForThisPod).0;
        }
    } else if !outbound || (!peer.is_multicast() && !peer.is_broadcast()) {
        let found = look_at_entry(tables, hook, sheet);
        if found != NOT_YET {
            return found;
        }
    }
    let mut opened = hook.direction;
    if sheet.packet.opens_connection() {
        sheet.evidence = Evidence::Opening as u64;
    } else if sheet.situation == situation::AGAIN {
        opened = State(sheet.state).opened();
    } else if sheet.situation == situation::ADOPTED {
        (opened, sheet.evidence) = orientation(tables, hook, &sheet.packet);
    }
    let k = &sheet.packet.key;
    // The server's port, seen from this packet.
    let port = if opened as u8 == hook.direction as u8 { k.destination_port } else { k.source_port };
    sheet.asked = Asked { endpoint: hook.endpoint, opened, protocol: k.protocol, port, peer };
    NOT_YET
}

/// What an entry says of the packet: a verdict, or [`NOT_YET`] with state and situation on the sheet.
#[inline(never)]
fn look_at_entry<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> u64 {
    let packet = &sheet.packet;
    let opens = packet.opens_connection();
    let tcp = packet.key.protocol == TCP;
    sheet.situation = if tcp && !opens { situation::ADOPTED } else { situation::FRESH };
    let Some(entry) = tables.connection(&sheet.key) else { return NOT_YET };
    let state = State(entry[word::STATE].get());
    if hook.now.wrapping_sub(entry[word::LAST_SEEN].get()) > lifetime(state.phase(), packet.key.protocol) {
        retire(tables, hook, &sheet.key, &entry);
        return NOT_YET;
    }
    sheet.state = state.0;
    let current = epoch_of(tables.word(hook.endpoint)) == state.epoch();
    let tombstone = matches!(state.phase(), Phase::Tombstone);
    if opens {
        sheet.situation = if tombstone { situation::BURIED } else { situation::REOPENED };
        return NOT_YET;
    }
    if tombstone {
        // Only an allowed opening replaces a tombstone; protocols without one ask again, in the
        // direction that was denied, once policy has changed.
        if current || tcp || state.opened() as u8 != hook.direction as u8 {
            return standing_denial(tables, hook, packet, &entry, state).0;
        }
        sheet.situation = situation::BURIED;
        return NOT_YET;
    }
    if !current {
        sheet.situation = situation::AGAIN;
        return NOT_YET;
    }
    meter(tables, &entry, hook, packet);
    if advance(tables, hook, packet, &entry) {
        of_entry(&entry, state, Reason::Established).0
    } else {
        plain(Reason::EstablishedFull).0
    }
}

/// What policy's answer means for this packet: a verdict where nothing is kept of it, else [`NOT_YET`],
/// with verdict and state of the entry on the sheet.
#[inline(never)]
fn settle<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> u64 {
    let mut verdict = Verdict(sheet.verdict);
    if verdict.is(Reason::NotReady) || sheet.situation == situation::GROUP {
        return verdict.as_news().0;
    }
    let special = if sheet.situation == situation::AGAIN {
        State(sheet.state).admission() as u8
    } else {
        exemption(tables, hook, &sheet.asked)
    };
    let mut admission = Admission::Policy;
    if special == Admission::OwnNode as u8 {
        (verdict, admission) = (exempt(verdict, Reason::OwnNode), Admission::OwnNode);
    } else if special == Admission::Itself as u8 {
        (verdict, admission) = (exempt(verdict, Reason::Itself), Admission::Itself);
    } else if special == MASQUERADED && !verdict.allows() {
        verdict = verdict.with_reason(Reason::NoRuleMasqueraded);
    }
    let opened = sheet.asked.opened;
    let mut made = State::new(epoch_of(sheet.word), admission, Phase::HalfOpen, opened, sheet.evidence)
        .with_staged(verdict.staged());
    if !verdict.allows() {
        if sheet.situation == situation::ADOPTED && verdict.is(Reason::NoRule) {
            verdict = verdict.with_reason(Reason::NotAdopted);
        }
        made = made.with_phase(Phase::Tombstone);
    } else if sheet.situation == situation::ADOPTED {
        if matches!(admission, Admission::Policy) {
            let own_way = opened as u8 == hook.direction as u8;
            verdict = verdict.with_reason(if own_way { Reason::Adopted } else { Reason::AdoptedInReverse });
        }
        let phase = if sheet.packet.tcp_flags & tcp::RST != 0 { Phase::Closed } else { Phase::Established };
        made = made.with_phase(phase).adopted_one();
    }
    sheet.verdict = verdict.0;
    sheet.made = made.with_reason(verdict.0 as u8).0;
    NOT_YET
}

/// Policy's answer on a live entry: it goes on, or is revoked. [`NOT_YET`]: it was closed and is
/// opened anew.
#[inline(never)]
fn settle_standing<T: Tables>(tables: &T, hook: &Hook, sheet: &Sheet) -> u64 {
    let (verdict, packet) = (Verdict(sheet.verdict), &sheet.packet);
    let state = State(sheet.state);
    let opens = sheet.situation == situation::REOPENED;
    let same_way = !opens || state.opened() as u8 == hook.direction as u8;
    // An opening denied the other way round says nothing of what was allowed this way.
    if !verdict.allows() && !same_way {
        return verdict.as_news().0;
    }
    if verdict.allows() && opens && matches!(state.phase(), Phase::Closed) {
        return NOT_YET;
    }
    let Some(entry) = tables.connection(&sheet.key) else { return NOT_YET };
    let epoch = epoch_of(sheet.word);
    if !verdict.allows() {
        return revoke(tables, hook, packet, &entry, state.with_epoch(epoch), verdict).0;
    }
    if same_way {
        entry[word::STATE].set(state.with_epoch(epoch).with_staged(verdict.staged()).0);
        entry[word::RULES].set(verdict.rules());
    }
    meter(tables, &entry, hook, packet);
    if opens {
        return verdict.0;
    }
    if !advance(tables, hook, packet, &entry) {
        return plain(Reason::EstablishedFull).0;
    }
    verdict.with_reason(Reason::Rejudged).as_news().0
}

/// Stores a new entry, over a tombstone or a closed connection that may be there, if the endpoint's
/// share and the table have room: without an entry an allowed flow is denied, and a denial stands all
/// the same.
#[inline(never)]
fn enter<T: Tables>(tables: &T, hook: &Hook, sheet: &Sheet) -> u64 {
    let (state, verdict, packet) = (State(sheet.made), Verdict(sheet.verdict), &sheet.packet);
    let tombstone = matches!(state.phase(), Phase::Tombstone);
    if sheet.state != 0
        && let Some(entry) = tables.connection(&sheet.key)
    {
        if tombstone {
            // A tombstone is here already; what else is live is revoked, not entered.
            entry[word::STATE].set(state.0);
            entry[word::RULES].set(verdict.rules());
            meter(tables, &entry, hook, packet);
            return if is_quiet(&entry, hook.now) { verdict.as_news().0 } else { verdict.0 };
        }
        retire(tables, hook, &sheet.key, &entry);
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
    }
    let bytes = u64::from(packet.ip_length);
    let inbound = u64::from(matches!(hook.direction, Direction::Inbound));
    let record: ConnectionRecord = [
        state.0,
        hook.now,
        verdict.rules(),
        hook.now,
        inbound,
        inbound * bytes,
        1 - inbound,
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
    if tombstone { verdict.as_news().0 } else { verdict.with_reason(full).without_rule().as_news().0 }
}

/// An entry goes: its counters are reported, its share has room again.
#[inline(always)]
fn retire<T: Tables>(tables: &T, hook: &Hook, key: &ConnectionKey, entry: &[Cell<u64>; 9]) {
    if matches!(tables.remove(key), Removed::Now) {
        tables.ended(key, entry);
        tables.release(hook.endpoint, State(entry[word::STATE].get()).share());
    }
}

/// What matches a tombstone is denied, metered where it passes, and news once a second. Only packets the
/// way of the denied one keep it alive: what the other end does about it must not last for ever.
#[inline(always)]
fn standing_denial<T: Tables>(
    tables: &T,
    hook: &Hook,
    packet: &Packet,
    entry: &[Cell<u64>; 9],
    state: State,
) -> Verdict {
    let last_seen = entry[word::LAST_SEEN].get();
    meter(tables, entry, hook, packet);
    if state.opened() as u8 != hook.direction as u8 {
        entry[word::LAST_SEEN].set(last_seen);
    }
    let verdict = of_entry(entry, state, Reason::StandingDenial);
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

#[inline(always)]
const fn exempt(verdict: Verdict, reason: Reason) -> Verdict {
    let verdict = verdict.with_reason(reason).without_rule();
    match verdict.staged() {
        Staged::None => verdict,
        _ => Verdict(verdict.0 & !(3 << 56) | (Staged::Allow as u64) << 56),
    }
}

/// What [`exemption`] returns for a node's address on what the node did not make: it forwarded and
/// masqueraded it. No exemption.
const MASQUERADED: u8 = u8::MAX;

/// Whether an opening is exempt from policy, as an [`Admission`]: the pod to itself, its own node to it.
#[inline(never)]
fn exemption<T: Tables>(tables: &T, hook: &Hook, asked: &Asked) -> u8 {
    if own_index(tables, hook.endpoint, &asked.peer) != NOT_OWN {
        // What the node sends back over this very link after translation is the pod itself; where a
        // bridge hides that, it is judged as what it looks like.
        let comes_back = hook.ingress_ifindex == hook.ifindex;
        return match hook.direction {
            Direction::Inbound if !comes_back => Admission::Policy as u8,
            _ => Admission::Itself as u8,
        };
    }
    let inbound = matches!((hook.direction, asked.opened), (Direction::Inbound, Direction::Inbound));
    if !inbound || !matches!(tables.node(asked.peer), Node::Own) {
        return Admission::Policy as u8;
    }
    if hook.ingress_ifindex == 0 { Admission::OwnNode as u8 } else { MASQUERADED }
}

/// Which way a TCP connection was opened that is older than its entry: as the pod's sockets show,
/// and if they show nothing, as the packet goes. While the tombstones' share is full, some denial
/// may have left none, and nothing is taken for the reply to something.
#[inline(always)]
fn orientation<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> (Direction, u64) {
    let from_peer = match hook.direction {
        Direction::Inbound => packet.key,
        Direction::Outbound => packet.key.reversed(),
    };
    let shown = match tables.sockets(hook.endpoint, &from_peer) {
        Sockets::None => return (hook.direction, Evidence::None as u64),
        Sockets::Client => Direction::Outbound,
        Sockets::Server => Direction::Inbound,
    };
    let full = tables.in_use(hook.endpoint, Share::Tombstone) >= tables.limits().tombstones;
    if full && shown as u8 != hook.direction as u8 {
        return (hook.direction, Evidence::None as u64);
    }
    (shown, Evidence::Socket as u64)
}

/// A live entry becomes a tombstone. `state` has the epoch of the judgement already.
#[inline(always)]
fn revoke<T: Tables>(
    tables: &T,
    hook: &Hook,
    packet: &Packet,
    entry: &[Cell<u64>; 9],
    state: State,
    verdict: Verdict,
) -> Verdict {
    tables.release(hook.endpoint, state.share());
    tables.take(hook.endpoint, Share::Tombstone);
    let verdict = verdict.with_reason(Reason::Revoked).without_rule();
    entry[word::STATE]
        .set(state.with_phase(Phase::Tombstone).with_staged(verdict.staged()).with_reason(Reason::Revoked as u8).0);
    entry[word::RULES].set(verdict.rules());
    let signs = entry[word::SIGNS].get();
    entry[word::SIGNS].set(signs & 0xffff_ffff | (hook.now >> 20 & 0xffff_ffff) << 32);
    meter(tables, entry, hook, packet);
    verdict.as_news()
}

/// Counts the packet in its entry.
#[inline(always)]
fn meter<T: Tables>(tables: &T, entry: &[Cell<u64>; 9], hook: &Hook, packet: &Packet) {
    entry[word::LAST_SEEN].set(hook.now);
    let (packets, bytes) = match hook.direction {
        Direction::Inbound => (&entry[word::PACKETS_IN], &entry[word::BYTES_IN]),
        Direction::Outbound => (&entry[word::PACKETS_OUT], &entry[word::BYTES_OUT]),
    };
    tables.add(packets, 1);
    tables.add(bytes, u64::from(packet.ip_length));
}

#[inline(always)]
const fn sign(direction: Direction, tcp_flags: u8) -> u64 {
    match direction {
        Direction::Inbound => tcp_flags as u64,
        Direction::Outbound => (tcp_flags as u64) << 8,
    }
}

#[inline(always)]
fn ends_sctp(packet: &Packet) -> bool {
    packet.key.protocol == SCTP && matches!(packet.message, SCTP_ABORT | SCTP_SHUTDOWN_COMPLETE)
}

/// Moves a live entry on by the packet's flags. `false`: the handshake is complete but the share of
/// established connections is full.
#[inline(never)]
fn advance<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, entry: &[Cell<u64>; 9]) -> bool {
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
