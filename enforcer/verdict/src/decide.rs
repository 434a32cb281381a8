//! [`decide`]: a packet at a hook, the tables, and the verdict.
//!
//! The established path is inline and short; everything rarer stands in functions of its own, out of
//! line, so that the verifier walks each once a caller. None is `#[cold]`: see ARCHITECTURE.md.

use crate::{
    Admission, Evidence, Phase, Reason, Refuser, Share, Staged, State, Tables, Verdict,
    abi::{self, ConnectionKey, FURTHER, connection_key, epoch_of, further_key, word},
    client::ask_client,
    connection::lives,
    entry::{Size, advance, ends_sctp, enter, meter, of_entry, retire, revoke, sign, standing_denial},
    policy::{Asked, judge},
    sheet::{Hook, Sheet, situation},
    special::{NOT_OWN, local_index, local_of, own_index, own_of, special},
    tables::{Sockets, Standing},
    word::{NOT_YET, plain},
};
use flow::{Address, Brief, Direction, FlowKey, Fragment, ICMP, ICMPV6, Kind, Packet, TCP, UDP, tcp};

/// Whether [`established`] was asked about the packet on the sheet before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Looked {
    No = 0,
    Yes = 1,
}

/// Judges a packet by its connection alone, where it is one that was judged in this epoch and nothing in
/// the packet's flags is new to it: the packet nearly all packets are.
#[inline(always)]
pub fn established<T: Tables>(tables: &T, hook: &Hook, packet: &Brief) -> Option<Verdict> {
    let (own, key) = ends(tables, hook, &packet.key);
    if own == NOT_OWN || (packet.key.protocol == TCP && packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN) {
        return None;
    }
    standing(tables, hook, &key, packet)
}

/// Which own address the local end has, and the key of the connection.
#[inline(always)]
fn ends<T: Tables>(tables: &T, hook: &Hook, k: &FlowKey) -> (u32, ConnectionKey) {
    let (local, peer, local_port, peer_port) = match hook.direction {
        Direction::Inbound => (k.destination, k.source, k.destination_port, k.source_port),
        Direction::Outbound => (k.source, k.destination, k.source_port, k.destination_port),
    };
    let own = own_index(tables, hook.endpoint, &local);
    (own, connection_key(hook.endpoint, own, peer, peer_port, local_port, k.protocol))
}

#[inline(always)]
fn standing<T: Tables>(tables: &T, hook: &Hook, key: &ConnectionKey, packet: &Brief) -> Option<Verdict> {
    let entry = tables.connection(key)?;
    let state = State(entry[word::STATE].get());
    let signs = entry[word::SIGNS].get();
    let usual = matches!(state.phase(), Phase::Established)
        && lives(Phase::Established, packet.key.protocol, entry[word::LAST_SEEN].get(), hook.now)
        && epoch_of(tables.word(hook.endpoint)) == state.epoch()
        && signs | sign(hook.direction, packet.tcp_flags) == signs;
    if !usual {
        return None;
    }
    meter(tables, &entry, hook, Size { ip_length: packet.ip_length, headers: packet.headers });
    Some(of_entry(&entry, state, Reason::Established))
}

/// Judges the packet on the sheet. Everything it learns on the way (entries, shares, fragments) is in
/// `tables`; the ports of a later fragment are filled in. Unless the verdict is `Established`, the sheet
/// keeps the endpoint's word that it was reached under: the mode must be that word's.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> Verdict {
    decide_after(tables, hook, sheet, Looked::No)
}

/// [`decide`], where [`established`] may have been asked before and had no answer.
#[inline(always)]
pub fn decide_after<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet, looked: Looked) -> Verdict {
    // Nearly all packets are whole and of a flow.
    if sheet.packet.kind as u8 > Kind::Echo as u8 || !matches!(sheet.packet.fragment, Fragment::Whole) {
        sheet.word = tables.word(hook.endpoint);
        let special = special(tables, hook, &mut sheet.packet, sheet.word);
        if special != NOT_YET {
            return Verdict(special);
        }
    }
    let packet = &sheet.packet;
    let (own, key) = ends(tables, hook, &packet.key);
    sheet.key = key;
    if own != NOT_OWN
        && matches!(looked, Looked::No)
        && !packet.opens_connection()
        && !asks_echo(packet)
        && !ends_sctp(packet)
        && let Some(verdict) = standing(
            tables,
            hook,
            &sheet.key,
            &Brief {
                key: packet.key,
                tcp_flags: packet.tcp_flags,
                ip_length: packet.ip_length,
                headers: packet.headers,
            },
        )
    {
        return verdict;
    }
    let found = look(tables, hook, sheet);
    if found != NOT_YET {
        return Verdict(found);
    }
    sheet.verdict = judge(tables, &sheet.asked, &mut sheet.word).verdict().0;
    sheet.verdict = ask_client(tables, hook, sheet);
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

/// What the tables know of the packet's flow: a verdict where that decides it, else [`NOT_YET`], with
/// the question to policy on the sheet.
#[inline(never)]
fn look<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> u64 {
    let peer = Address([sheet.key[0], sheet.key[1]]);
    let outbound = matches!(hook.direction, Direction::Outbound);
    sheet.word = tables.word(hook.endpoint);
    sheet.state = 0;
    sheet.evidence = Evidence::None as u64;
    sheet.peer = 0;
    sheet.situation = situation::GROUP;
    if outbound && answers_dhcp(&sheet.packet.key) {
        return plain(Reason::DhcpServer).0;
    }
    if own_of(&sheet.key) == NOT_OWN && name_further(tables, hook, sheet) == NOT_OWN {
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
    if matches!(opened, Direction::Inbound) && sheet.situation != situation::GROUP {
        sheet.peer = u64::from(tables.peer(peer));
    }
    let k = &sheet.packet.key;
    // The server's port, seen from this packet.
    let port = if opened as u8 == hook.direction as u8 { k.destination_port } else { k.source_port };
    sheet.asked = Asked { endpoint: hook.endpoint, opened, protocol: k.protocol, port, peer };
    NOT_YET
}

/// Puts the local address into the key where the endpoint was given it beside its own: [`FURTHER`]; else [`NOT_OWN`].
#[inline(never)]
fn name_further<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> u32 {
    let local = local_of(hook, &sheet.packet.key);
    if local_index(tables, hook.endpoint, &local) == NOT_OWN {
        return NOT_OWN;
    }
    sheet.key = further_key(sheet.key, local);
    FURTHER
}

/// An echo request: RFC 792 and RFC 4443 (4.1).
#[inline(always)]
const fn asks_echo(packet: &Packet) -> bool {
    matches!(packet.kind, Kind::Echo) && matches!((packet.key.protocol, packet.message), (ICMP, 8) | (ICMPV6, 128))
}

/// From a DHCP server's port to a client's: RFC 2131 (4.1) and RFC 8415 (7.2).
#[inline(always)]
const fn answers_dhcp(k: &FlowKey) -> bool {
    k.protocol == UDP && matches!((k.source_port, k.destination_port), (67, 68) | (547, 546))
}

/// What an entry says of the packet: a verdict, or [`NOT_YET`] with state and situation on the sheet.
#[inline(never)]
fn look_at_entry<T: Tables>(tables: &T, hook: &Hook, sheet: &mut Sheet) -> u64 {
    let packet = &sheet.packet;
    let mut opens = packet.opens_connection();
    let tcp = packet.key.protocol == TCP;
    sheet.situation = if tcp && !opens { situation::ADOPTED } else { situation::FRESH };
    let Some(entry) = tables.connection(&sheet.key) else { return NOT_YET };
    let state = State(entry[word::STATE].get());
    if !lives(state.phase(), packet.key.protocol, entry[word::LAST_SEEN].get(), hook.now) {
        retire(tables, &sheet.key, &entry);
        return NOT_YET;
    }
    sheet.state = state.0;
    // Who was asked for an echo may answer, and not ask in turn (GHSA-c66w-hq56-4q97).
    opens |= asks_echo(packet) && state.opened() as u8 != hook.direction as u8;
    let current = epoch_of(sheet.word) == state.epoch();
    let tombstone = matches!(state.phase(), Phase::Tombstone);
    if opens {
        sheet.situation = if tombstone { situation::BURIED } else { situation::REOPENED };
        return NOT_YET;
    }
    if tombstone {
        // Only an allowed opening replaces a tombstone; protocols without one ask again, in the
        // direction that was denied, once policy has changed.
        if current || tcp || state.opened() as u8 != hook.direction as u8 {
            if !matches!(state.refuser(), Refuser::Endpoint) {
                sheet.client_word = tables.word(abi::client_in(entry[word::SIGNS].get()));
            }
            let packet = &sheet.packet;
            return standing_denial(tables, hook, packet, &entry, state).0;
        }
        sheet.situation = situation::BURIED;
        return NOT_YET;
    }
    if !current {
        sheet.situation = situation::AGAIN;
        return NOT_YET;
    }
    meter(tables, &entry, hook, Size::of(packet));
    if advance(tables, hook, packet, &entry) {
        of_entry(&entry, state, Reason::Established).0
    } else {
        plain(Reason::EstablishedFull).lacking_room().0
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
        exemption(tables, hook, sheet)
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
        made = made.with_phase(Phase::Tombstone).refused_by(verdict.refuser());
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
    if !verdict.allows() && (opens || matches!(tables.standing(), Standing::Revoked)) {
        return revoke(tables, hook, sheet, &entry, state.with_epoch(epoch)).0;
    }
    if same_way {
        entry[word::STATE].set(state.with_epoch(epoch).with_staged(verdict.staged()).0);
        entry[word::RULES].set(verdict.rules());
    }
    meter(tables, &entry, hook, Size::of(packet));
    if opens {
        return verdict.0;
    }
    if !advance(tables, hook, packet, &entry) {
        return plain(Reason::EstablishedFull).lacking_room().0;
    }
    if !verdict.allows() {
        return verdict.with_reason(Reason::Kept).without_rule().as_news().0;
    }
    verdict.with_reason(Reason::Rejudged).as_news().0
}

#[inline(always)]
const fn exempt(verdict: Verdict, reason: Reason) -> Verdict {
    let verdict = verdict.with_reason(reason).without_rule();
    match verdict.staged() {
        Staged::None => verdict,
        _ => verdict.with_staged(Staged::Allow),
    }
}

/// What [`exemption`] returns for a node's address on what the node did not make: it forwarded and
/// masqueraded it. No exemption.
const MASQUERADED: u8 = u8::MAX;

/// Whether an opening is exempt from policy, as an [`Admission`]: the pod to itself, its own node to it.
#[inline(never)]
fn exemption<T: Tables>(tables: &T, hook: &Hook, sheet: &Sheet) -> u8 {
    let asked = &sheet.asked;
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
    if !inbound || sheet.peer as u32 != abi::OWN_NODE {
        return Admission::Policy as u8;
    }
    if hook.ingress_ifindex == 0 {
        Admission::OwnNode as u8
    } else if hook.ingress_ifindex == hook.ifindex {
        // The pod through its own Service, masqueraded on the way back over this very link.
        Admission::Itself as u8
    } else {
        MASQUERADED
    }
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
