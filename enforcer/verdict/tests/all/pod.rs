//! One pod behind its hook, its policies, and packets in a line each.

use flow::{Address, Direction, FlowKey, Fragment, ICMP, Kind, Packet, Quoted, SCTP, TCP, UDP};
use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
};
use verdict::{
    Hook, Limits, Mode, News, Reason, Room, Share, Sheet, Tables, Verdict,
    abi::{
        self, ALL_PROTOCOLS, EGRESS_ISOLATED, FRONTENDS, HAS_BACKENDS, INGRESS_ISOLATED, MIXED_BACKENDS, NO_BACKENDS,
        OWN_BACKEND, OWN_NODE, RANGES, RULES_FOR_ANY_PORT, RULES_FOR_ANYONE, RulePort, client_peer, endpoint_word,
        frontend_key, rule_key, slot_number, word,
    },
    decide, make_room,
    memory::Memory,
    mode,
};

pub(crate) const SYN: u8 = flow::tcp::SYN;
pub(crate) const ACK: u8 = flow::tcp::ACK;
pub(crate) const FIN: u8 = flow::tcp::FIN;
pub(crate) const RST: u8 = flow::tcp::RST;

/// The pod's server, which [`CLIENT`] may reach.
pub(crate) const WEB: &str = "10.1.0.2:8080";
pub(crate) const WEB_V6: &str = "[fd00:1::2]:8080";
/// Allowed in, to port 8080 alone.
pub(crate) const CLIENT: &str = "10.2.0.7:40000";
pub(crate) const CLIENT_V6: &str = "[fd00:2::7]:40000";
/// Allowed in, with all protocols.
pub(crate) const TRUSTED: &str = "10.4.0.4:40000";
/// In no rule.
pub(crate) const STRANGER: &str = "10.9.9.9:40000";
/// The pod as a client.
pub(crate) const POD: &str = "10.1.0.2:50000";
/// Allowed out.
pub(crate) const DATABASE: &str = "10.3.0.5:5432";
pub(crate) const RESOLVER: &str = "10.3.0.53:53";
/// A Service, each of whose ports says what its backends come to for [`POLICY`]: allowed, refused, some of
/// each, none there, the pod itself. Its port 5432 is no Service's.
pub(crate) const SERVICE: [&str; 5] =
    ["10.96.0.10:80", "10.96.0.10:81", "10.96.0.10:82", "10.96.0.10:83", "10.96.0.10:84"];
pub(crate) const NO_SERVICE: &str = "10.96.0.10:5432";
/// A pod of the same node, whose own policy is asked too: see [`Pod::neighbor`]. The pod's policy lets it in at all
/// of these ports but the last; its own lets it out to the second alone.
pub(crate) const NEIGHBOR: &str = "10.1.0.9:40000";
pub(crate) const TO_NEIGHBOR: [&str; 3] = ["10.1.0.2:8080", "10.1.0.2:8081", "10.1.0.2:9"];
/// The node's own address, and another node's.
pub(crate) const NODE: &str = "10.1.0.1:33000";
pub(crate) const OTHER_NODE: &str = "10.200.0.2:33000";

pub(crate) const ENDPOINT: u32 = 5;
const NEIGHBORS_ENDPOINT: u32 = 6;
/// The host side of the pod's veth.
pub(crate) const LINK: u32 = 7;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Slots by what they say.
const ISOLATED: u32 = INGRESS_ISOLATED | EGRESS_ISOLATED;
const RULES: u32 = RULES_FOR_ANYONE | RULES_FOR_ANY_PORT;
pub(crate) const POLICY: u32 = slot_number(1, ISOLATED | RULES);
pub(crate) const CLOSED: u32 = slot_number(2, ISOLATED);
pub(crate) const OPEN: u32 = slot_number(3, 0);
pub(crate) const WITH_RANGES: u32 = slot_number(4, INGRESS_ISOLATED | RANGES | RULES);
/// The neighbor's.
pub(crate) const NEIGHBORS: u32 = slot_number(5, EGRESS_ISOLATED);
pub(crate) const NOTHING: u32 = 0;

/// A packet, and which way it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) packet: Packet,
    pub(crate) direction: Direction,
}

/// The pod, its tables and its clock.
pub(crate) struct Pod {
    pub(crate) memory: Memory,
    pub(crate) mode: Mode,
    now: Cell<u64>,
    epoch: Cell<u64>,
    /// Where the next packets came into the node; 0: the node made them.
    ingress_ifindex: Cell<u32>,
    /// What the next packets stand for.
    pub(crate) segments: Cell<u16>,
}

impl Pod {
    /// Enforcing [`POLICY`].
    pub(crate) fn enforcing() -> Self {
        Self::in_mode(Mode::Enforce)
    }

    pub(crate) fn in_mode(mode: Mode) -> Self {
        let memory = Memory::default();
        let own = ["10.1.0.2", "fd00:1::2", "", "", "fe80::2"].map(|text| match text {
            "" => Address::default(),
            text => address(text),
        });
        let mut record = [0; 12];
        for (index, address) in own.iter().enumerate() {
            [record[2 + index * 2], record[3 + index * 2]] = address.0;
        }
        memory.endpoints.borrow_mut().insert(ENDPOINT, record);
        for (text, identity) in
            [("10.2.0.7", 11), ("fd00:2::7", 11), ("10.3.0.5", 12), ("10.3.0.53", 13), ("10.4.0.4", 14)]
        {
            memory.put_identity(address(text), 128, identity);
        }
        memory.put_identity(address("10.1.0.2"), 128, 16);
        memory.put_identity(socket(NEIGHBOR).0, 128, 17);
        let client = (socket(NEIGHBOR).0, client_peer(NEIGHBORS_ENDPOINT));
        memory.peers.borrow_mut().extend([(socket(NODE).0, OWN_NODE), (socket(OTHER_NODE).0, abi::OTHER_NODE), client]);
        let pod = Self {
            memory,
            mode,
            now: Cell::new(1_000 * SECOND),
            epoch: Cell::new(0),
            ingress_ifindex: Cell::new(99),
            segments: Cell::new(1),
        };
        use Direction::{Inbound, Outbound};
        pod.rule(POLICY, 11, Inbound, TCP, RulePort::Class(8080), 101);
        pod.rule(POLICY, 11, Inbound, SCTP, RulePort::Class(8080), 101);
        pod.rule(POLICY, 12, Outbound, TCP, RulePort::Class(5432), 102);
        pod.rule(POLICY, 13, Outbound, UDP, RulePort::Class(53), 103);
        for protocol in [ALL_PROTOCOLS, TCP, UDP, SCTP] {
            pod.rule(POLICY, 14, Inbound, protocol, RulePort::Any, 104);
        }
        pod.memory.put_identity(socket(SERVICE[0]).0, 128, FRONTENDS | 15);
        let says = [Some(105), None, Some(MIXED_BACKENDS), None, Some(OWN_BACKEND)];
        for (service, rule) in SERVICE.iter().zip(says) {
            let port = socket(service).1;
            let backends = if port == 83 { NO_BACKENDS } else { HAS_BACKENDS };
            pod.memory.rules.borrow_mut().insert(frontend_key(FRONTENDS | 15, TCP, port), backends);
            if let Some(rule) = rule {
                pod.rule(POLICY, FRONTENDS | 15, Outbound, TCP, RulePort::Frontend(port), rule);
            }
        }
        for to in &TO_NEIGHBOR[..2] {
            pod.rule(POLICY, 17, Inbound, TCP, RulePort::Class(socket(to).1), 106);
            pod.rule(POLICY, 17, Inbound, UDP, RulePort::Class(socket(to).1), 106);
        }
        pod.rule(NEIGHBORS, 16, Outbound, TCP, RulePort::Class(socket(TO_NEIGHBOR[1]).1), 107);
        pod.publish(POLICY, NOTHING);
        pod.neighbor(NEIGHBORS, NOTHING, mode);
        pod
    }

    pub(crate) fn rule(&self, slot: u32, identity: u32, opened: Direction, protocol: u8, port: RulePort, rule: u32) {
        self.memory.rules.borrow_mut().insert(rule_key(slot, identity, opened, protocol, port), rule);
    }

    /// Publishes a generation with these slots in a new epoch.
    pub(crate) fn publish(&self, in_force: u32, staged: u32) {
        self.epoch.set(self.epoch.get() + 1);
        let index = self.epoch.get() as u32;
        let record = [u64::from(in_force) | u64::from(staged) << 32, self.mode as u64];
        self.memory.generations.borrow_mut().insert(index, record);
        self.memory.publish(ENDPOINT, endpoint_word(self.epoch.get(), index));
    }

    /// Publishes a generation of the neighbor's.
    pub(crate) fn neighbor(&self, in_force: u32, staged: u32, mode: Mode) {
        self.epoch.set(self.epoch.get() + 1);
        let index = self.epoch.get() as u32;
        let record = [u64::from(in_force) | u64::from(staged) << 32, mode as u64];
        self.memory.generations.borrow_mut().insert(index, record);
        self.memory.publish(NEIGHBORS_ENDPOINT, endpoint_word(self.epoch.get(), index));
    }

    /// Takes the neighbor's generation away.
    pub(crate) fn neighbor_goes(&self) {
        self.memory.publish(NEIGHBORS_ENDPOINT, 0);
    }

    /// Takes the pod's generation away: known, and not published.
    pub(crate) fn unpublish(&self) {
        self.memory.publish(ENDPOINT, 0);
    }

    pub(crate) fn limits(&self, half_open: u64, established: u64, tombstones: u64) {
        self.memory.limits.set(Limits { half_open, established, tombstones });
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * SECOND);
    }

    /// So many ticks of the coarse clock later, or earlier for the next packets' CPU.
    pub(crate) fn ticks(&self, ticks: i64) {
        self.now.set(self.now.get().strict_add_signed(ticks * 4_000_000));
    }

    /// An agent sweeps, and finds nothing that is over.
    pub(crate) fn sweeps(&self) {
        self.memory.swept.set(self.now.get());
    }

    /// The next packets came in here; 0: the node made them.
    pub(crate) fn coming_from(&self, ifindex: u32) {
        self.ingress_ifindex.set(ifindex);
    }

    /// How many entries the pod has in a share.
    pub(crate) fn entries(&self, share: Share) -> u64 {
        self.memory.in_use(ENDPOINT, share)
    }

    /// Packets and bytes towards the pod, over all entries.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let entries = self.memory.connections.borrow();
        let sum = |index: usize| entries.values().map(|entry| entry[index].get()).sum();
        (sum(word::PACKETS_IN), sum(word::BYTES_IN))
    }

    pub(crate) fn judge(&self, sent: Sent) -> Verdict {
        self.judge_and_do(sent).0
    }

    /// The verdict, and the mode that says what is done about it.
    pub(crate) fn judge_and_do(&self, sent: Sent) -> (Verdict, Mode) {
        let hook = Hook {
            endpoint: ENDPOINT,
            direction: sent.direction,
            ifindex: LINK,
            ingress_ifindex: self.ingress_ifindex.get(),
            segments: self.segments.get(),
            now: self.now.get(),
        };
        let mut sheet = Sheet::of(sent.packet);
        let verdict = decide(&self.memory, &hook, &mut sheet);
        if verdict.room() == Room::Lacking {
            make_room(&self.memory, hook.now);
        }
        (verdict, mode(&self.memory, &sheet, verdict))
    }

    /// Judges the packets one after another and wants these reasons.
    #[track_caller]
    pub(crate) fn judges(&self, cases: &[(Reason, Sent)]) {
        for (number, (reason, sent)) in cases.iter().enumerate() {
            let verdict = self.judge(*sent);
            assert_eq!(verdict.reason(), *reason, "packet {number}: {:?} {:?}", sent.direction, sent.packet.key);
        }
    }

    /// The same, in how many of the verdicts are news.
    pub(crate) fn news_of(&self, sent: Sent, times: usize) -> usize {
        (0..times).filter(|_| self.judge(sent).news() == News::Event).count()
    }
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

fn socket(text: &str) -> (Address, u16) {
    let socket: SocketAddr = text.parse().expect("an address with a port");
    (socket.ip().into(), socket.port())
}

impl Sent {
    /// Whatever its addresses say.
    pub(crate) fn towards(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// A piece of a datagram.
    pub(crate) fn piece(mut self, fragment: Fragment, id: u32) -> Self {
        (self.packet.fragment, self.packet.fragment_id) = (fragment, id);
        if fragment == Fragment::Later {
            self.packet.kind = Kind::LaterFragment;
            (self.packet.key.source_port, self.packet.key.destination_port, self.packet.tcp_flags) = (0, 0, 0);
        }
        self
    }

    pub(crate) fn hops(mut self, hop_limit: u8) -> Self {
        self.packet.hop_limit = hop_limit;
        self
    }
}

/// A packet that the pod sends if it comes from one of its addresses, else one for it.
fn sent(from: (Address, u16), to: (Address, u16), protocol: u8, kind: Kind) -> Sent {
    let own = ["10.1.0.2", "fd00:1::2", "fe80::2"].map(address).contains(&from.0);
    let key = FlowKey { source: from.0, destination: to.0, source_port: from.1, destination_port: to.1, protocol };
    let packet = Packet { key, kind, hop_limit: 64, ip_length: 60, ..Packet::EMPTY };
    Sent { packet, direction: if own { Direction::Outbound } else { Direction::Inbound } }
}

pub(crate) fn tcp(from: &str, to: &str, flags: u8) -> Sent {
    let mut sent = sent(socket(from), socket(to), TCP, Kind::Transport);
    sent.packet.tcp_flags = flags;
    sent
}

pub(crate) fn udp(from: &str, to: &str) -> Sent {
    sent(socket(from), socket(to), UDP, Kind::Transport)
}

pub(crate) fn sctp(from: &str, to: &str, chunk: u8) -> Sent {
    let mut sent = sent(socket(from), socket(to), SCTP, Kind::Transport);
    sent.packet.message = chunk;
    sent
}

pub(crate) fn echo(from: &str, to: &str, id: u16) -> Sent {
    sent((socket(from).0, id), (socket(to).0, id), ICMP, Kind::Echo)
}

/// A protocol without ports.
pub(crate) fn portless(from: &str, to: &str, protocol: u8) -> Sent {
    sent((socket(from).0, 0), (socket(to).0, 0), protocol, Kind::Portless)
}

/// An ICMP error from somewhere about a packet, to that packet's source.
pub(crate) fn error_about(about: Sent, from: &str) -> Sent {
    let key = about.packet.key;
    let mut error = sent((socket(from).0, 0), (key.source, 0), ICMP, Kind::IcmpError);
    error.packet.quoted = Quoted {
        address: key.destination,
        source_port: key.source_port,
        destination_port: key.destination_port,
        protocol: key.protocol,
    };
    error
}

/// ARP or neighbour discovery, with the hop limit that its RFC asks for.
pub(crate) fn neighbor(kind: Kind, from: &str, to: &str, target: &str) -> Sent {
    let mut sent = sent((address(from), 0), (address(to), 0), flow::ICMPV6, kind);
    sent.packet.quoted.address = address(target);
    sent.hops(match kind {
        Kind::Arp => 0,
        Kind::ListenerReport => 1,
        _ => 255,
    })
}
