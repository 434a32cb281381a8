//! What is no whole packet of a flow: fragments, ICMP errors, ARP and neighbour discovery.

use crate::{
    Further, Hook, Phase, Reason, State, Tables, Verdict,
    abi::{ConnectionKey, FURTHER, Nanos, connection_key, epoch_of, fragment_key, fragment_slot, with_local, word},
    connection::lives,
    word::{NOT_YET, plain},
};
use flow::{Address, Direction, FlowKey, Fragment, Kind, Packet};

/// A token bucket's period and size for ARP and neighbour discovery of an endpoint.
const NEIGHBOR_PERIOD: Nanos = 1_000_000_000;
const NEIGHBOR_TOKENS: u64 = 100;
/// Index of the link-local address for [`Tables::own_address`].
const LINK_LOCAL: usize = 4;

/// Own addresses have indexes 0 to 3.
pub(crate) const NOT_OWN: u32 = 4;

/// Which of the endpoint's own addresses this is, or [`NOT_OWN`].
#[inline(always)]
pub(crate) fn own_index<T: Tables>(tables: &T, endpoint: u32, address: &Address) -> u32 {
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

/// The same, or [`FURTHER`] where the address was given to the endpoint beside its own.
#[inline(never)]
pub(crate) fn local_index<T: Tables>(tables: &T, endpoint: u32, address: &Address) -> u32 {
    let own = own_index(tables, endpoint, address);
    if own == NOT_OWN && address.is_v4() && matches!(tables.further(endpoint, *address), Further::Given) {
        return FURTHER;
    }
    own
}

/// The own address index in a connection's key.
#[inline(always)]
pub(crate) const fn own_of(key: &ConnectionKey) -> u32 {
    (key[2] >> 40) as u32 & 7
}

/// What is no whole packet of a flow: fragments find their ports, everything else its verdict.
#[inline(never)]
pub(crate) fn special<T: Tables>(tables: &T, hook: &Hook, packet: &mut Packet, word: u64) -> u64 {
    match packet.kind {
        Kind::IcmpError => icmp_error(tables, hook, packet, word).0,
        Kind::Transport | Kind::Echo | Kind::Portless | Kind::LaterFragment => {
            if matches!(packet.fragment, Fragment::Whole) { NOT_YET } else { fragment(tables, hook, packet) }
        }
        _ => neighbor(tables, hook, packet).0,
    }
}

/// The end of a packet that should be the pod's.
#[inline(always)]
pub(crate) const fn local_of(hook: &Hook, key: &FlowKey) -> Address {
    match hook.direction {
        Direction::Inbound => key.destination,
        Direction::Outbound => key.source,
    }
}

/// First fragments leave their ports behind; later ones find them, or are denied.
#[inline(always)]
fn fragment<T: Tables>(tables: &T, hook: &Hook, packet: &mut Packet) -> u64 {
    // What is forged leaves nothing behind, and is judged as forged.
    let local = local_of(hook, &packet.key);
    let own = local_index(tables, hook.endpoint, &local);
    if own == NOT_OWN {
        return NOT_YET;
    }
    let peer = match hook.direction {
        Direction::Inbound => packet.key.source,
        Direction::Outbound => packet.key.destination,
    };
    let k = &mut packet.key;
    let key = fragment_key(own, peer, packet.fragment_id, k.protocol);
    let slot = fragment_slot(hook.endpoint, hook.direction, &key);
    let [peer_high, peer_low, datagram] = [with_local(key[0], own, local), key[1], key[2]];
    if matches!(packet.fragment, Fragment::First) {
        let ports = u64::from(k.source_port) | u64::from(k.destination_port) << 16;
        tables.remember(slot, &[peer_high, peer_low, datagram, ports]);
        return NOT_YET;
    }
    let [there_high, there_low, there, ports] = tables.fragment(slot);
    if there != datagram || there_high != peer_high || there_low != peer_low {
        return plain(Reason::FragmentWithoutFirst).0;
    }
    k.source_port = ports as u16;
    k.destination_port = (ports >> 16) as u16;
    NOT_YET
}

/// An ICMP error passes if the packet inside it belongs to a connection that is allowed now.
#[inline(always)]
fn icmp_error<T: Tables>(tables: &T, hook: &Hook, packet: &Packet, endpoint_word: u64) -> Verdict {
    if local_index(tables, hook.endpoint, &local_of(hook, &packet.key)) == NOT_OWN {
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
    let own = local_index(tables, hook.endpoint, &local);
    let mut key = connection_key(hook.endpoint, own, peer, peer_port, local_port, quoted.protocol);
    key[0] = with_local(key[0], own, local);
    // Protocol 0: what is quoted was not the receiver's.
    if own == NOT_OWN || quoted.protocol == 0 {
        return plain(Reason::UnrelatedIcmpError);
    }
    let Some(entry) = tables.connection(&key) else { return plain(Reason::UnrelatedIcmpError) };
    let state = State(entry[word::STATE].get());
    let alive = lives(state.phase(), quoted.protocol, entry[word::LAST_SEEN].get(), hook.now);
    let current = epoch_of(endpoint_word) == state.epoch();
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
    local_index(tables, endpoint, address) != NOT_OWN
        || (tables.own_address(endpoint, LINK_LOCAL) == *address && *address != Address([0; 2]))
}
