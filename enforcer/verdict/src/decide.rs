//! [`decide`]: a packet at a hook, the tables, and the verdict.
//!
//! The established path is inline and short; everything rarer stands in functions of its own, out of
//! line, so that the verifier walks each once a caller. None is `#[cold]`: see ARCHITECTURE.md.

use crate::{
    Admission, Evidence, Phase, Reason, Share, Staged, State, Tables,
    abi::{ConnectionKey, ConnectionRecord, FragmentRecordKey, Nanos, connection_key, epoch_of, word},
    connection::lifetime,
    policy::{Asked, judge},
    tables::{Node, Sockets},
};
use core::cell::Cell;
use flow::{Address, Direction, FlowKey, Fragment, Kind, Packet, ParseError, SCTP, TCP, tcp};

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

/// Allow or deny, with why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// Why; it says whether.
    pub reason: Reason,
    /// The rule that decided, 0 for none.
    pub rule: u32,
    /// What the staged slot says.
    pub staged: Staged,
    /// The staged slot's rule, 0 for none.
    pub staged_rule: u32,
}

/// Whether a verdict is worth an event: counters count it in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The first of its kind for this key, or the first for a while.
    Event,
    /// Said lately.
    Repeated,
}

/// A verdict, what it was judged under, and whether it is news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether it is worth an event.
    pub news: News,
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

/// A packet's ends as the endpoint sees them.
struct Ends {
    local: Address,
    peer: Address,
    local_port: u16,
    peer_port: u16,
    key: ConnectionKey,
}

/// Judges one packet. Everything it learns on the way (entries, shares, fragments) is in `tables`.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Decision {
    match packet.kind {
        Kind::Transport | Kind::Echo | Kind::Portless if matches!(packet.fragment, Fragment::Whole) => {
            flow_packet(tables, hook, packet)
        }
        Kind::Transport | Kind::Echo | Kind::Portless | Kind::LaterFragment => fragment(tables, hook, packet),
        Kind::IcmpError => icmp_error(tables, hook, packet),
        _ => neighbor(tables, hook, packet),
    }
}

/// The decision on a packet that could not be parsed.
#[inline(always)]
pub fn refuse(error: ParseError) -> Decision {
    plain(error.into())
}

#[inline(always)]
fn plain(reason: Reason) -> Decision {
    Decision { verdict: Verdict { reason, rule: 0, staged: Staged::None, staged_rule: 0 }, news: News::Event }
}

/// A packet with all it needs to belong to a connection.
#[inline(always)]
fn flow_packet<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Decision {
    let k = &packet.key;
    let (local, peer, local_port, peer_port) = match hook.direction {
        Direction::Inbound => (k.destination, k.source, k.destination_port, k.source_port),
        Direction::Outbound => (k.source, k.destination, k.source_port, k.destination_port),
    };
    let Some(own) = own_index(tables, hook.endpoint, local) else {
        return not_own(tables, hook, packet);
    };
    let key = connection_key(hook.endpoint, own, peer, peer_port, local_port, k.protocol);
    if let Some(entry) = tables.connection(&key) {
        let state = State(entry[word::STATE].get());
        let current = epoch_of(tables.word(hook.endpoint)) == state.epoch();
        let phase = state.phase();
        let alive = hook.now.wrapping_sub(entry[word::LAST_SEEN].get()) <= lifetime(phase, k.protocol);
        // Established, judged in this epoch, nothing new in its flags: the packet nearly all packets are.
        if alive && current && matches!(phase, Phase::Established) && !packet.opens_connection() {
            let signs = entry[word::SIGNS].get();
            if signs | sign(hook.direction, packet.tcp_flags) == signs && !ends_sctp(packet) {
                meter(tables, &entry, hook, packet);
                return established(&entry, state);
            }
        }
    }
    rarely(tables, hook, packet, &Ends { local, peer, local_port, peer_port, key })
}

#[inline(always)]
fn established(entry: &[Cell<u64>; 9], state: State) -> Decision {
    let rules = entry[word::RULES].get();
    let verdict = Verdict {
        reason: Reason::Established,
        rule: rules as u32,
        staged: state.staged(),
        staged_rule: (rules >> 32) as u32,
    };
    Decision { verdict, news: News::Repeated }
}

/// Which of the endpoint's own addresses this is.
#[inline(always)]
fn own_index<T: Tables>(tables: &T, endpoint: u32, address: Address) -> Option<u32> {
    if address == Address([0; 2]) {
        return None;
    }
    let family = if address.is_v4() { 0 } else { 1 };
    if tables.own_address(endpoint, family) == address {
        return Some(family as u32);
    }
    if tables.own_address(endpoint, 2) == address {
        return Some(2);
    }
    if tables.own_address(endpoint, 3) == address { Some(3) } else { None }
}

/// The local end is not the pod's: forged, misdelivered, or for a group.
#[inline(never)]
fn not_own<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Decision {
    let destination = packet.key.destination;
    match hook.direction {
        Direction::Outbound => plain(Reason::Spoofed),
        Direction::Inbound if destination.is_multicast() || destination.is_broadcast() => {
            group(tables, hook, packet, packet.key.source)
        }
        Direction::Inbound => plain(Reason::NotForThisPod),
    }
}

/// Multicast and broadcast: judged each time, without an entry.
#[inline(never)]
fn group<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, peer: Address) -> Decision {
    let judged = judge(
        tables,
        &Asked {
            endpoint: hook.endpoint,
            opened: hook.direction,
            protocol: packet.key.protocol,
            port: packet.key.destination_port,
            peer,
        },
    );
    Decision {
        verdict: Verdict {
            reason: judged.reason,
            rule: judged.rule,
            staged: judged.staged,
            staged_rule: judged.staged_rule,
        },
        news: News::Event,
    }
}

/// First fragments leave their ports behind; later ones find them, or are denied.
#[inline(never)]
fn fragment<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Decision {
    let k = &packet.key;
    let local = match hook.direction {
        Direction::Inbound => k.destination,
        Direction::Outbound => k.source,
    };
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
    let mut whole = *packet;
    if matches!(packet.fragment, Fragment::First) {
        // What is forged leaves nothing behind.
        if own_index(tables, hook.endpoint, local).is_some() {
            tables.remember(&key, u32::from(k.source_port) | u32::from(k.destination_port) << 16);
        }
    } else {
        let Some(ports) = tables.fragment(&key) else {
            return match (hook.direction, own_index(tables, hook.endpoint, local)) {
                (Direction::Outbound, None) => plain(Reason::Spoofed),
                _ => plain(Reason::FragmentWithoutFirst),
            };
        };
        whole.key.source_port = ports as u16;
        whole.key.destination_port = (ports >> 16) as u16;
        // It continues: without flags it opens nothing.
        whole.tcp_flags = 0;
    }
    fragment_of_flow(tables, hook, &whole)
}

#[inline(always)]
fn fragment_of_flow<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Decision {
    let k = &packet.key;
    let (local, peer, local_port, peer_port) = match hook.direction {
        Direction::Inbound => (k.destination, k.source, k.destination_port, k.source_port),
        Direction::Outbound => (k.source, k.destination, k.source_port, k.destination_port),
    };
    let Some(own) = own_index(tables, hook.endpoint, local) else {
        return not_own(tables, hook, packet);
    };
    let key = connection_key(hook.endpoint, own, peer, peer_port, local_port, k.protocol);
    rarely(tables, hook, packet, &Ends { local, peer, local_port, peer_port, key })
}

/// An ICMP error passes if the packet inside it belongs to a connection that is allowed now.
#[inline(never)]
fn icmp_error<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Decision {
    let inner = &packet.inner;
    let outer_local = match hook.direction {
        Direction::Inbound => packet.key.destination,
        Direction::Outbound => packet.key.source,
    };
    if own_index(tables, hook.endpoint, outer_local).is_none() {
        return match hook.direction {
            Direction::Outbound => plain(Reason::Spoofed),
            Direction::Inbound => plain(Reason::NotForThisPod),
        };
    }
    // Towards the pod the error is about what the pod sent; from the pod, about what it received.
    let (local, peer, local_port, peer_port) = match hook.direction {
        Direction::Inbound => (inner.source, inner.destination, inner.source_port, inner.destination_port),
        Direction::Outbound => (inner.destination, inner.source, inner.destination_port, inner.source_port),
    };
    let Some(own) = own_index(tables, hook.endpoint, local) else {
        return plain(Reason::UnrelatedIcmpError);
    };
    let key = connection_key(hook.endpoint, own, peer, peer_port, local_port, inner.protocol);
    let Some(entry) = tables.connection(&key) else {
        return plain(Reason::UnrelatedIcmpError);
    };
    let state = State(entry[word::STATE].get());
    let alive = hook.now.wrapping_sub(entry[word::LAST_SEEN].get()) <= lifetime(state.phase(), inner.protocol);
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
#[inline(never)]
fn neighbor<T: Tables>(tables: &T, hook: &Hook, packet: &Packet) -> Decision {
    if matches!(hook.direction, Direction::Outbound) && !claims_its_own(tables, hook.endpoint, packet) {
        return plain(Reason::NeighborForged);
    }
    let hops = match packet.kind {
        Kind::Arp => packet.hop_limit,
        Kind::ListenerReport => 1,
        _ => 255,
    };
    if packet.hop_limit != hops {
        return plain(Reason::NeighborForged);
    }
    let [since, tokens] = tables.rate(hook.endpoint);
    let (since, tokens) =
        if hook.now.wrapping_sub(since) >= NEIGHBOR_PERIOD { (hook.now, NEIGHBOR_TOKENS) } else { (since, tokens) };
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
    let source = packet.key.source;
    let from_own = is_own_on_link(tables, endpoint, source);
    match packet.kind {
        Kind::Arp | Kind::Solicitation | Kind::RouterSolicitation | Kind::ListenerReport => {
            from_own || source.is_unspecified()
        }
        Kind::Advertisement => from_own && is_own_on_link(tables, endpoint, packet.inner.source),
        _ => false,
    }
}

#[inline(always)]
fn is_own_on_link<T: Tables>(tables: &T, endpoint: u32, address: Address) -> bool {
    own_index(tables, endpoint, address).is_some()
        || (address != Address([0; 2]) && tables.own_address(endpoint, LINK_LOCAL) == address)
}

/// Everything that is not the established path.
#[inline(never)]
fn rarely<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, ends: &Ends) -> Decision {
    if matches!(hook.direction, Direction::Outbound) && (ends.peer.is_multicast() || ends.peer.is_broadcast()) {
        return group(tables, hook, packet, ends.peer);
    }
    let Some(entry) = tables.connection(&ends.key) else {
        return fresh(tables, hook, packet, ends);
    };
    let state = State(entry[word::STATE].get());
    let alive = hook.now.wrapping_sub(entry[word::LAST_SEEN].get()) <= lifetime(state.phase(), packet.key.protocol);
    if !alive {
        tables.ended(&ends.key, &entry);
        tables.remove(&ends.key);
        tables.release(hook.endpoint, state.share());
        return fresh(tables, hook, packet, ends);
    }
    if matches!(state.phase(), Phase::Tombstone) {
        let current = epoch_of(tables.word(hook.endpoint)) == state.epoch();
        // Only an allowed opening replaces a tombstone; protocols without one ask again, in the
        // direction that was denied, once policy has changed.
        let asks_again = packet.opens_connection()
            || (!current && packet.key.protocol != TCP && state.opened() as u8 == hook.direction as u8);
        return if asks_again {
            fresh(tables, hook, packet, ends)
        } else {
            standing_denial(tables, hook, packet, &entry)
        };
    }
    if packet.opens_connection() {
        return opens_again(tables, hook, packet, ends);
    }
    if epoch_of(tables.word(hook.endpoint)) != state.epoch() {
        return rejudge(tables, hook, packet, ends);
    }
    meter(tables, &entry, hook, packet);
    if advance(tables, hook, packet, &entry) { established(&entry, state) } else { plain(Reason::EstablishedFull) }
}

/// What matches a tombstone is denied, metered where it passes, and news once a second.
#[inline(always)]
fn standing_denial<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, entry: &[Cell<u64>; 9]) -> Decision {
    meter(tables, entry, hook, packet);
    let rules = entry[word::RULES].get();
    let verdict = Verdict {
        reason: Reason::StandingDenial,
        rule: rules as u32,
        staged: State(entry[word::STATE].get()).staged(),
        staged_rule: (rules >> 32) as u32,
    };
    Decision { verdict, news: tombstone_news(entry, hook.now) }
}

/// Whether a tombstone was quiet for a while; if so it is no longer.
#[inline(always)]
fn tombstone_news(entry: &[Cell<u64>; 9], now: Nanos) -> News {
    let signs = entry[word::SIGNS].get();
    let (said, at) = (signs >> 32, now >> 20 & 0xffff_ffff);
    if at.wrapping_sub(said) & 0xffff_ffff < QUIET {
        return News::Repeated;
    }
    entry[word::SIGNS].set(signs & 0xffff_ffff | at << 32);
    News::Event
}

/// What policy or an exemption says of an opening.
struct Answer {
    verdict: Verdict,
    word: u64,
    admission: Admission,
}

/// Asks whether the connection may be opened in the direction `opened`, by the exemptions first.
#[inline(never)]
fn ask<T: Tables>(tables: &T, hook: &Hook, ends: &Ends, opened: Direction) -> Answer {
    let port = match opened {
        Direction::Inbound => ends.local_port,
        Direction::Outbound => ends.peer_port,
    };
    let protocol = (ends.key[2] >> 32) as u8;
    let judged = judge(tables, &Asked { endpoint: hook.endpoint, opened, protocol, port, peer: ends.peer });
    let mut answer = Answer {
        verdict: Verdict {
            reason: judged.reason,
            rule: judged.rule,
            staged: judged.staged,
            staged_rule: judged.staged_rule,
        },
        word: judged.word,
        admission: Admission::Policy,
    };
    if matches!(judged.reason, Reason::NotReady) {
        return answer;
    }
    let itself = own_index(tables, hook.endpoint, ends.peer).is_some();
    // What the node sends back over this very link after translation is the pod itself; where a
    // bridge hides that, it is judged as what it looks like.
    if itself && (matches!(hook.direction, Direction::Outbound) || hook.ingress_ifindex == hook.ifindex) {
        exempt(&mut answer, Admission::Itself, Reason::Itself);
    } else if matches!(hook.direction, Direction::Inbound)
        && matches!(opened, Direction::Inbound)
        && matches!(tables.node(ends.peer), Node::Own)
    {
        if hook.ingress_ifindex == 0 {
            exempt(&mut answer, Admission::OwnNode, Reason::OwnNode);
        } else if !answer.verdict.reason.allows() {
            answer.verdict.reason = Reason::NoRuleMasqueraded;
        }
    }
    answer
}

#[inline(always)]
fn exempt(answer: &mut Answer, admission: Admission, reason: Reason) {
    answer.admission = admission;
    answer.verdict.reason = reason;
    answer.verdict.rule = 0;
    if !matches!(answer.verdict.staged, Staged::None) {
        answer.verdict.staged = Staged::Allow;
    }
}

/// No entry that would speak for the packet: a new flow, an adopted one, or a denial.
#[inline(never)]
fn fresh<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, ends: &Ends) -> Decision {
    let adopts = packet.key.protocol == TCP && !packet.opens_connection();
    let (opened, evidence) =
        if adopts { orientation(tables, hook, ends) } else { (hook.direction, opening_evidence(packet)) };
    let mut answer = ask(tables, hook, ends, opened);
    let mut state =
        State::new(epoch_of(answer.word), answer.admission, Phase::HalfOpen, opened, evidence, answer.verdict.reason)
            .with_staged(answer.verdict.staged);
    if !answer.verdict.reason.allows() {
        if adopts && matches!(answer.verdict.reason, Reason::NoRule) {
            answer.verdict.reason = Reason::NotAdopted;
        }
        return bury(tables, hook, packet, ends, &answer.verdict, state.with_reason(answer.verdict.reason));
    }
    if adopts {
        if matches!(answer.admission, Admission::Policy) {
            answer.verdict.reason =
                if opened as u8 == hook.direction as u8 { Reason::Adopted } else { Reason::AdoptedInReverse };
        }
        let phase = if packet.tcp_flags & tcp::RST != 0 { Phase::Closed } else { Phase::Established };
        state = state.with_phase(phase).adopted_one().with_reason(answer.verdict.reason);
    }
    enter(tables, hook, packet, ends, &answer.verdict, state)
}

#[inline(always)]
fn opening_evidence(packet: &Packet) -> Evidence {
    if packet.opens_connection() { Evidence::Opening } else { Evidence::None }
}

/// Which way a TCP connection was opened that is older than its entry: as the pod's sockets show,
/// and if they show nothing, as the packet goes. While the tombstones' share is full, some denial
/// may have left none, and nothing is taken for the reply to something.
#[inline(never)]
fn orientation<T: Tables>(tables: &T, hook: &Hook, ends: &Ends) -> (Direction, Evidence) {
    let from_peer = FlowKey {
        source: ends.peer,
        destination: ends.local,
        source_port: ends.peer_port,
        destination_port: ends.local_port,
        protocol: TCP,
    };
    let shown = match tables.sockets(hook.endpoint, &from_peer) {
        Sockets::None => return (hook.direction, Evidence::None),
        Sockets::Client => Direction::Outbound,
        Sockets::Server => Direction::Inbound,
    };
    let full = tables.in_use(hook.endpoint, Share::Tombstone) >= tables.limits().tombstones;
    if full && shown as u8 != hook.direction as u8 {
        return (hook.direction, Evidence::None);
    }
    (shown, Evidence::Socket)
}

/// Makes the entry of an allowed flow, if the endpoint's share and the table have room.
#[inline(always)]
fn enter<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, ends: &Ends, made: &Verdict, state: State) -> Decision {
    let verdict = *made;
    let share = state.share();
    let replaced = tables.connection(&ends.key).map(|entry| {
        tables.ended(&ends.key, &entry);
        State(entry[word::STATE].get()).share()
    });
    if let Some(share) = replaced {
        tables.release(hook.endpoint, share);
    }
    let limits = tables.limits();
    let (limit, full) = match share {
        Share::HalfOpen => (limits.half_open, Reason::HalfOpenFull),
        _ => (limits.established, Reason::EstablishedFull),
    };
    if tables.in_use(hook.endpoint, share) >= limit {
        if replaced.is_some() {
            tables.remove(&ends.key);
        }
        return Decision { verdict: Verdict { reason: full, rule: 0, ..verdict }, news: News::Event };
    }
    let record = record(hook, packet, &verdict, state, 0);
    if tables.insert(&ends.key, &record).is_err() {
        return Decision { verdict: Verdict { reason: Reason::TableFull, rule: 0, ..verdict }, news: News::Event };
    }
    tables.take(hook.endpoint, share);
    Decision { verdict, news: News::Event }
}

/// Leaves a tombstone for a denial, in a share of its own; without room the denial stands all the same.
#[inline(always)]
fn bury<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, ends: &Ends, verdict: &Verdict, state: State) -> Decision {
    // A pod that is not ready yet is not refused: it has no answer.
    if matches!(verdict.reason, Reason::NotReady) {
        return Decision { verdict: *verdict, news: News::Event };
    }
    if let Some(entry) = tables.connection(&ends.key) {
        // Only a tombstone can be here: live entries are judged elsewhere.
        entry[word::STATE].set(state.with_phase(Phase::Tombstone).0);
        entry[word::RULES].set(u64::from(verdict.rule) | u64::from(verdict.staged_rule) << 32);
        meter(tables, &entry, hook, packet);
        return Decision { verdict: *verdict, news: tombstone_news(&entry, hook.now) };
    }
    if tables.in_use(hook.endpoint, Share::Tombstone) < tables.limits().tombstones {
        let said = hook.now >> 20 & 0xffff_ffff;
        let record = record(hook, packet, verdict, state.with_phase(Phase::Tombstone), said);
        if tables.insert(&ends.key, &record).is_ok() {
            tables.take(hook.endpoint, Share::Tombstone);
        }
    }
    Decision { verdict: *verdict, news: News::Event }
}

#[inline(always)]
fn record(hook: &Hook, packet: &Packet, verdict: &Verdict, state: State, upper_signs: u64) -> ConnectionRecord {
    let rules = u64::from(verdict.rule) | u64::from(verdict.staged_rule) << 32;
    let signs = sign(hook.direction, packet.tcp_flags) | upper_signs << 32;
    let bytes = u64::from(packet.ip_length);
    match hook.direction {
        Direction::Inbound => [state.0, hook.now, rules, hook.now, 1, bytes, 0, 0, signs],
        Direction::Outbound => [state.0, hook.now, rules, hook.now, 0, 0, 1, bytes, signs],
    }
}

/// An opening packet on a live entry: it goes to the policy all the same.
#[inline(never)]
fn opens_again<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, ends: &Ends) -> Decision {
    let Some(entry) = tables.connection(&ends.key) else { return plain(Reason::NotReady) };
    let state = State(entry[word::STATE].get());
    let same_way = state.opened() as u8 == hook.direction as u8;
    let answer = ask(tables, hook, ends, hook.direction);
    let verdict = answer.verdict;
    if !verdict.reason.allows() {
        // Denied the other way round says nothing of what was allowed this way.
        return if same_way && !matches!(verdict.reason, Reason::NotReady) {
            revoke(tables, hook, packet, &entry, &answer)
        } else {
            Decision { verdict, news: News::Event }
        };
    }
    if matches!(state.phase(), Phase::Closed) {
        let state = State::new(
            epoch_of(answer.word),
            answer.admission,
            Phase::HalfOpen,
            hook.direction,
            Evidence::Opening,
            verdict.reason,
        );
        return enter(tables, hook, packet, ends, &verdict, state.with_staged(verdict.staged));
    }
    if same_way {
        entry[word::STATE].set(state.with_epoch(epoch_of(answer.word)).with_staged(verdict.staged).0);
        entry[word::RULES].set(u64::from(verdict.rule) | u64::from(verdict.staged_rule) << 32);
    }
    meter(tables, &entry, hook, packet);
    Decision { verdict, news: News::Repeated }
}

/// A standing connection after a change: judged again in its original direction, by what admitted it.
#[inline(never)]
fn rejudge<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, ends: &Ends) -> Decision {
    let Some(entry) = tables.connection(&ends.key) else { return plain(Reason::NotReady) };
    let state = State(entry[word::STATE].get());
    let opened = state.opened();
    let port = match opened {
        Direction::Inbound => ends.local_port,
        Direction::Outbound => ends.peer_port,
    };
    let asked = Asked { endpoint: hook.endpoint, opened, protocol: packet.key.protocol, port, peer: ends.peer };
    let judged = judge(tables, &asked);
    let mut answer = Answer {
        verdict: Verdict {
            reason: judged.reason,
            rule: judged.rule,
            staged: judged.staged,
            staged_rule: judged.staged_rule,
        },
        word: judged.word,
        admission: state.admission(),
    };
    if matches!(judged.reason, Reason::NotReady) {
        return Decision { verdict: answer.verdict, news: News::Event };
    }
    if !matches!(answer.admission, Admission::Policy) {
        let admission = answer.admission;
        exempt(&mut answer, admission, Reason::Rejudged);
    }
    if !answer.verdict.reason.allows() {
        return revoke(tables, hook, packet, &entry, &answer);
    }
    answer.verdict.reason = Reason::Rejudged;
    entry[word::STATE].set(state.with_epoch(epoch_of(answer.word)).with_staged(answer.verdict.staged).0);
    entry[word::RULES].set(u64::from(answer.verdict.rule) | u64::from(answer.verdict.staged_rule) << 32);
    meter(tables, &entry, hook, packet);
    if !advance(tables, hook, packet, &entry) {
        return plain(Reason::EstablishedFull);
    }
    Decision { verdict: answer.verdict, news: News::Event }
}

/// A live entry becomes a tombstone.
#[inline(always)]
fn revoke<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, entry: &[Cell<u64>; 9], answer: &Answer) -> Decision {
    let state = State(entry[word::STATE].get());
    tables.release(hook.endpoint, state.share());
    tables.take(hook.endpoint, Share::Tombstone);
    let buried = state
        .with_phase(Phase::Tombstone)
        .with_epoch(epoch_of(answer.word))
        .with_staged(answer.verdict.staged)
        .with_reason(Reason::Revoked);
    entry[word::STATE].set(buried.0);
    entry[word::RULES].set(u64::from(answer.verdict.staged_rule) << 32);
    let signs = entry[word::SIGNS].get();
    entry[word::SIGNS].set(signs & 0xffff_ffff | (hook.now >> 20 & 0xffff_ffff) << 32);
    meter(tables, entry, hook, packet);
    Decision { verdict: Verdict { reason: Reason::Revoked, rule: 0, ..answer.verdict }, news: News::Event }
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
