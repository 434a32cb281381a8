//! First fragments have places of their own at each endpoint: no pod's take another pod's.

use flow::{Address, Direction, FlowKey, Fragment, Kind, Packet, UDP};
use verdict::{
    Hook, Reason, Sheet,
    abi::{FRAGMENT_WAYS, endpoint_word, slot_number},
    decide,
    memory::Memory,
};

/// The attacker's pod, the one under test, and somebody else's; each has an endpoint of its own on this node.
const ATTACKER: u8 = 1;
const POD: u8 = 2;
const OTHER: u8 = 3;
const PODS: [u8; 3] = [ATTACKER, POD, OTHER];

/// Three pods that no policy isolates.
fn node() -> Memory {
    let memory = Memory::default();
    memory.generations.borrow_mut().insert(1, [u64::from(slot_number(1, 0)), 0]);
    for pod in PODS {
        for address in [v4(pod), v6(pod)] {
            let mut endpoints = memory.endpoints.borrow_mut();
            let record = endpoints.entry(pod.into()).or_default();
            let at = if address.is_v4() { 2 } else { 4 };
            [record[at], record[at + 1]] = address.0;
        }
        memory.publish(pod.into(), endpoint_word(1, 1));
    }
    memory
}

fn v4(host: u8) -> Address {
    Address::v4([10, 1, 0, host])
}

fn v6(host: u8) -> Address {
    let mut octets = [0; 16];
    (octets[0], octets[15]) = (0xfd, host);
    Address::v6(octets)
}

/// What a pod's own hook says of a piece: outbound at its sender's, inbound at its receiver's.
fn judged(memory: &Memory, at: u8, from: Address, to: Address, id: u32, fragment: Fragment) -> Reason {
    let outbound = memory.endpoints.borrow()[&u32::from(at)][2..6].chunks(2).any(|own| own == from.0);
    let first = fragment == Fragment::First;
    let (source_port, destination_port) = if first { (4000, 53) } else { (0, 0) };
    let packet = Packet {
        key: FlowKey { source: from, destination: to, source_port, destination_port, protocol: UDP },
        kind: if first { Kind::Transport } else { Kind::LaterFragment },
        fragment,
        fragment_id: id,
        ip_length: 1500,
        ..Packet::EMPTY
    };
    let hook = Hook {
        endpoint: at.into(),
        direction: if outbound { Direction::Outbound } else { Direction::Inbound },
        ifindex: at.into(),
        ingress_ifindex: 99,
        segments: 1,
        now: 1_000_000_000_000,
    };
    decide(memory, &hook, &mut Sheet::of(packet)).reason()
}

#[test]
fn a_flood_of_one_pods_first_fragments_takes_no_place_of_anothers() {
    for address in [v4, v6] {
        let memory = node();
        let resolver = address(200);
        let whole = |flood: &dyn Fn()| {
            let first = judged(&memory, POD, address(POD), resolver, 77, Fragment::First);
            assert!(first.allows(), "{first:?}");
            flood();
            judged(&memory, POD, address(POD), resolver, 77, Fragment::Later)
        };
        assert_eq!(whole(&|| ()), Reason::Established, "the way is open");
        // To everyone there is, with every identification.
        let flood = || {
            for id in 0..5_000 {
                let to = address((id % 199) as u8 + 4);
                judged(&memory, ATTACKER, address(ATTACKER), to, id, Fragment::First);
            }
        };
        assert_eq!(whole(&flood), Reason::Established, "a flood at another pod's hook");
        // To the pod itself: it takes what peers like the attacker have there, and nothing of what the pod sends.
        let flood = || {
            for id in 0..5_000 {
                judged(&memory, POD, address(ATTACKER), address(POD), id, Fragment::First);
            }
        };
        assert_eq!(whole(&flood), Reason::Established, "a flood towards the pod");
    }
}

#[test]
fn peers_of_a_pod_are_told_apart_by_groups() {
    let mut spared = 0;
    for peer in 4..=255 {
        let memory = node();
        judged(&memory, POD, v4(peer), v4(POD), 9, Fragment::First);
        for id in 0..5_000 {
            judged(&memory, POD, v4(ATTACKER), v4(POD), id, Fragment::First);
        }
        spared += u32::from(judged(&memory, POD, v4(peer), v4(POD), 9, Fragment::Later).allows());
    }
    // Three groups of four are not the attacker's.
    assert!((150..=220).contains(&spared), "{spared} of 252");
}

#[test]
fn a_peer_has_room_for_consecutive_datagrams_and_the_oldest_goes_first() {
    let memory = node();
    let piece = |id, fragment| judged(&memory, POD, v4(POD), v4(200), id, fragment);
    for id in 0..FRAGMENT_WAYS {
        assert!(piece(1000 + id, Fragment::First).allows());
    }
    for id in 0..FRAGMENT_WAYS {
        assert_eq!(piece(1000 + id, Fragment::Later), Reason::Established, "{id}");
    }
    piece(1000 + FRAGMENT_WAYS, Fragment::First);
    assert_eq!(piece(1000, Fragment::Later), Reason::FragmentWithoutFirst);
    assert_eq!(piece(1001, Fragment::Later), Reason::Established);
}

#[test]
fn a_later_fragment_is_of_its_own_datagram_alone() {
    let memory = node();
    judged(&memory, POD, v4(POD), v4(200), 5, Fragment::First);
    let later = |from, to, id| judged(&memory, POD, from, to, id, Fragment::Later);
    assert_eq!(later(v4(POD), v4(200), 5), Reason::Established);
    for (what, from, to, id) in [
        ("of another number", v4(POD), v4(200), 5 + FRAGMENT_WAYS),
        ("to another peer", v4(POD), v4(201), 5),
        ("the other way", v4(200), v4(POD), 5),
        ("of the other family", v6(POD), v6(200), 5),
    ] {
        assert_eq!(later(from, to, id), Reason::FragmentWithoutFirst, "{what}");
    }
}
