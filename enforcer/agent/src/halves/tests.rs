//! Entries as hooks leave them, and what they show of a link.

use super::*;
use verdict::State;

const POD: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
const OUTSIDE: [u8; 4] = [192, 0, 2, 9];
const NODE: [u8; 4] = [10, 0, 0, 254];
const SECOND: Nanos = 1_000_000_000;
const SYN: u8 = tcp::SYN;
const ACK: u8 = tcp::ACK;
const RST: u8 = tcp::RST;
const FIN: u8 = tcp::FIN;
const PSH: u8 = 8;

/// What one hook counted of a connection: packets and flags towards the pod and from it.
#[derive(Clone, Copy)]
struct Counted {
    inbound: (u64, u8),
    outbound: (u64, u8),
}

const NONE: (u64, u8) = (0, 0);
/// The client's hook where nothing comes back over it, and the server's of the same connection.
const HALF: Counted = Counted { inbound: NONE, outbound: (5, SYN | ACK | PSH) };
const GOES_ON: Counted = Counted { inbound: (5, SYN | ACK | PSH), outbound: (4, SYN | ACK | PSH) };
const WHOLE: Counted = GOES_ON;

struct Node {
    places: BTreeMap<u32, Pod>,
    nodes: BTreeMap<Address, u32>,
    entries: Vec<(ConnectionKey, ConnectionRecord)>,
    halves: Halves,
    now: Nanos,
}

impl Node {
    /// Endpoints 1 and 2 are the pod and its peer.
    fn new() -> Self {
        let place = |uid: &str, address: [u8; 4]| {
            let addresses = [Address::v4(address), Address::default(), Address::default(), Address::default()];
            Pod { uid: uid.into(), addresses }
        };
        Self {
            places: [(1, place("pod", POD)), (2, place("peer", PEER))].into(),
            nodes: [(Address::v4(NODE), 2)].into(),
            entries: Vec::new(),
            halves: Halves::default(),
            now: 1000 * SECOND,
        }
    }

    /// What the hook of an endpoint has of a connection that began so long ago.
    fn entry(&mut self, endpoint: u32, peer: [u8; 4], ports: (u16, u16), age: Nanos, counted: Counted, state: State) {
        let key = connection_key(endpoint, 0, Address::v4(peer), ports.1, ports.0, TCP);
        let mut record = [0; 9];
        record[word::STATE] = state.0;
        record[word::STARTED] = self.now - age;
        record[word::PACKETS_IN] = counted.inbound.0;
        record[word::PACKETS_OUT] = counted.outbound.0;
        record[word::SIGNS] = u64::from(counted.inbound.1) | u64::from(counted.outbound.1) << 8;
        self.entries.push((key, record));
    }

    /// The pod as client of its peer: what its hook and the peer's have.
    fn between(&mut self, port: u16, age: Nanos, pods: Counted, peers: Counted) {
        self.entry(1, PEER, (port, 80), age, pods, opened(Direction::Outbound));
        self.entry(2, POD, (80, port), age, peers, opened(Direction::Inbound));
    }

    fn certainty(&mut self) -> Option<Certainty> {
        let swept = Swept { places: &self.places, nodes: &self.nodes, entries: &self.entries, now: self.now };
        self.halves.look(&swept);
        self.entries.clear();
        assert_eq!(self.halves.of("peer"), None, "the peer's link is whole");
        self.halves.of("pod").map(|half| half.certainty)
    }
}

fn opened(direction: Direction) -> State {
    State::new(1, Admission::Policy, Phase::HalfOpen, direction, Evidence::Opening as u64)
}

#[test]
fn a_peer_that_goes_on_shows_the_missing_half_until_a_later_connection_crosses_both_ways() {
    let mut node = Node::new();
    node.between(1, 5 * SECOND, HALF, GOES_ON);
    assert_eq!(node.certainty(), Some(Certainty::Shown));
    let half = node.halves.of("pod").unwrap();
    assert_eq!(half.missing, Direction::Inbound);
    assert_eq!(half.to_string().matches("10.0.0.1:1 and 10.0.0.2:80").count(), 1, "{half}");
    assert_eq!(node.certainty(), Some(Certainty::Shown), "an entry that ends takes nothing back");
    node.between(2, 9 * SECOND, WHOLE, WHOLE);
    assert_eq!(node.certainty(), Some(Certainty::Shown), "nor does a connection that began before");
    node.entry(1, OUTSIDE, (3, 80), 2 * SECOND, WHOLE, opened(Direction::Outbound));
    assert_eq!(node.certainty(), Some(Certainty::Shown), "nor one with somebody outside, on another way");
    node.between(4, 2 * SECOND, WHOLE, WHOLE);
    assert_eq!(node.certainty(), None, "whole again");
    node.places.remove(&1);
    node.between(5, SECOND, HALF, GOES_ON);
    assert_eq!(node.certainty(), None, "a pod that is gone has no link");
}

#[test]
fn what_a_pod_can_make_up_alone_is_a_suspicion_at_most() {
    let silent = Counted { inbound: (1, SYN), outbound: NONE };
    let with = |flags| Counted { inbound: (3, SYN | ACK), outbound: (3, flags) };
    for (what, peers) in [
        ("the peer's hook saw no answer", silent),
        ("the peer answered and heard nothing", with(SYN | ACK)),
        ("the peer refuses what it did not ask for", with(SYN | ACK | RST)),
        ("the peer refuses what it was told", with(SYN | ACK | PSH | RST)),
        ("the peer goes on with an earlier connection", with(ACK | PSH)),
    ] {
        let mut node = Node::new();
        (1..=4).for_each(|port| node.between(port, 5 * SECOND, HALF, peers));
        assert_eq!(node.certainty(), Some(Certainty::Suspected), "{what}");
        // The first connection with anybody that crosses both ways ends it.
        node.entry(1, OUTSIDE, (9, 80), SECOND, WHOLE, opened(Direction::Outbound));
        assert_eq!(node.certainty(), None, "{what}");
    }
    // An entry that the pod had made anew in the midst of a connection, whose numbers it knows.
    let mut node = Node::new();
    node.entry(1, PEER, (1, 80), 5 * SECOND, HALF, opened(Direction::Outbound));
    node.entry(2, POD, (80, 1), 6 * SECOND, GOES_ON, opened(Direction::Inbound));
    assert_eq!(node.certainty(), None);
    // Packets from the pod that its hook refused to read, and the peer did not.
    let unread = Counted { inbound: (5, SYN | ACK | PSH), outbound: NONE };
    let mut node = Node::new();
    (1..=3).for_each(|port| node.between(port, 5 * SECOND, unread, GOES_ON));
    assert_eq!(node.certainty(), Some(Certainty::Suspected));
    // What the pod took up without a SYN of its own.
    let mut node = Node::new();
    node.entry(1, PEER, (1, 80), 5 * SECOND, HALF, opened(Direction::Outbound).adopted_one());
    node.entry(2, POD, (80, 1), 5 * SECOND, GOES_ON, opened(Direction::Inbound));
    assert_eq!(node.certainty(), None);
}

#[test]
fn scans_denials_silence_and_the_nodes_own_packets_say_nothing() {
    let one_way = |flags| Counted { inbound: NONE, outbound: (3, flags) };
    let flood = |node: &mut Node, peer, counted, state, age| {
        (1..=50).for_each(|port| node.entry(1, peer, (port, 80), age, counted, state));
    };
    let out = opened(Direction::Outbound);
    let own = State::new(1, Admission::OwnNode, Phase::HalfOpen, Direction::Inbound, 1);
    for (what, peer, counted, state, age) in [
        ("a SYN scan", OUTSIDE, one_way(SYN), out, 5 * SECOND),
        ("a scan that closes behind it", OUTSIDE, one_way(SYN | RST), out, 5 * SECOND),
        ("an ACK scan", OUTSIDE, one_way(ACK), out, 5 * SECOND),
        ("data into the void", OUTSIDE, one_way(ACK | PSH | FIN), out, 5 * SECOND),
        ("what was denied", OUTSIDE, HALF, out.with_phase(Phase::Tombstone), 5 * SECOND),
        ("what has just begun", OUTSIDE, HALF, out, SECOND / 2),
        ("a node", NODE, HALF, out, 5 * SECOND),
        ("the pod's own node", OUTSIDE, HALF, own, 5 * SECOND),
    ] {
        let mut node = Node::new();
        flood(&mut node, peer, counted, state, age);
        assert_eq!(node.certainty(), None, "{what}");
    }
    let mut node = Node::new();
    flood(&mut node, OUTSIDE, HALF, out, 5 * SECOND);
    assert_eq!(node.certainty(), Some(Certainty::Suspected), "the same with answers to nothing");
    // UDP has no openings: nobody answers, and nothing is to be said of that.
    let mut node = Node::new();
    let key = |port| connection_key(1, 0, Address::v4(OUTSIDE), 53, port, flow::UDP);
    flood(&mut node, OUTSIDE, HALF, out, 5 * SECOND);
    (1..=50).zip(&mut node.entries).for_each(|(port, entry)| entry.0 = key(port));
    assert_eq!(node.certainty(), None);
}
