//! Law 4: the loaded program and `decide` in user space give every packet of every sequence the same
//! verdict and reason, and leave the same words behind. With it law 5's half (the effect follows from
//! verdict and mode alone) and law 7's (events + suppressed + lost = packets).
//!
//! Random tables, then conversations and noise from a small world of addresses and ports, so that
//! packets meet each other's entries; policy, sockets and time move in between. The run fails unless
//! every reason occurred at least 100 times, and every feature that can be allowed with both verdicts.

use flow::{Address, Direction, Gso, ICMP, ICMPV6, SCTP, TCP, UDP};
use std::collections::BTreeMap;
use tests::{
    fraction,
    frame::{Extension, Frame, arp, error_about, icmp, transport},
    privilege,
    random::Random,
    rig::{Entrance, Rig},
    wire::{ETHERNET, Wire},
};
use verdict::{
    Limits, Mode, Reason, Sockets, Standing,
    abi::{self, ANYONE, RulePort, endpoint_word, rule_key},
};

const PACKETS: u64 = 1_000_000;
const PACKETS_OVER_TAP: u64 = 60_000;
const LIMITS: Limits = Limits { half_open: 40, established: 40, tombstones: 40 };
/// Fewer than the shares of two endpoints together, so that the table itself fills up.
const CONNECTIONS: u32 = 130;
const PORTS: [u16; 7] = [1, 53, 80, 443, 8080, 8085, 65_535];
const OWN: [[&str; 5]; 2] = [
    ["10.1.0.2", "fd00:1::2", "10.1.9.2", "fd00:1:9::2", "fe80::2"],
    ["10.1.0.3", "fd00:1::3", "0.0.0.0", "::", "fe80::3"],
];
/// Two of a prefix that the first endpoint has beside its own, and one that nobody has.
const FURTHER: [&str; 3] = ["10.8.0.1", "10.8.0.200", "10.8.1.1"];
const PEERS: [&str; 10] = [
    "10.1.0.2",
    "10.1.0.3",
    "10.2.0.7",
    "10.3.4.5",
    "192.0.2.1",
    "fd00:1::2",
    "fd00:1::3",
    "fd00:2::7",
    "2001:db8::1",
    "10.1.0.1",
];
/// Peers at whose addresses some ports lead to Services, by identity: one of each family.
const FRONTENDS: [u32; 2] = [5, 9];
const SERVICE_PORTS: [(u8, u16); 5] = [(TCP, 1), (TCP, 80), (TCP, 8080), (UDP, 53), (SCTP, 443)];
const NODE: [&str; 2] = ["10.1.0.1", "fd00:1::1"];
const SLOTS: u32 = 24;
/// (feature, whether it was allowed) -> how often.
type Seen = BTreeMap<(&'static str, bool), u64>;

fn address(text: &str) -> Address {
    if text == "0.0.0.0" { Address::default() } else { text.parse::<std::net::IpAddr>().expect("an address").into() }
}

#[test]
fn the_kernel_and_user_space_judge_alike() {
    if !privilege::kernel("the_kernel_and_user_space_judge_alike") {
        return;
    }
    let (reasons, features) = run(4, fraction::of(PACKETS), |seed| {
        links();
        World::new(seed, LINKS)
    });
    let count = |reason: &Reason| reasons.get(reason).copied().unwrap_or_default();
    let least = fraction::demanded(100);
    let rare: Vec<_> = Reason::ALL.iter().filter(|reason| count(reason) < least).collect();
    assert!(rare.is_empty(), "reasons that occurred fewer than {least} times: {rare:?}");
    assert_both_verdicts(&features, 24);
}

/// What test runs cannot carry: the packet's headers begin in the linear part and go on outside it.
#[test]
fn they_judge_alike_where_headers_lie_outside_the_linear_part() {
    if !privilege::kernel("they_judge_alike_where_headers_lie_outside_the_linear_part") {
        return;
    }
    let (_, features) = run(5, fraction::of(PACKETS_OVER_TAP), |seed| {
        let wires = ["one", "two", "none"].map(|name| Wire::new(name).expect("two TAP devices"));
        let links = wires.each_ref().map(|wire| wire.ifindex);
        let mut world = World::new(seed, links);
        for wire in &wires {
            world.rig.attach(wire).expect("hooks on a TAP device");
        }
        World { wires: Some(wires), ..world }
    });
    // Nothing that has yet to be cut comes from a TAP device as the test writes to it.
    assert_both_verdicts(&features, 22);
}

/// A run in a network namespace of a thread's own: how often each reason and each feature occurred.
fn run(seed: u64, packets: u64, world: impl FnOnce(u64) -> World + Send + 'static) -> (BTreeMap<Reason, u64>, Seen) {
    let seed = Random::seed(seed);
    let run = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace of this thread's own");
        world(seed).run(packets)
    };
    let (reasons, features) = std::thread::spawn(run).join().expect("the run");
    println!("seed {seed}: verdicts {reasons:#?}\nfeatures (denied, allowed):");
    for (feature, _) in features.keys().filter(|(_, allowed)| *allowed) {
        println!("  {feature}: {:?}, {:?}", features.get(&(feature, false)), features.get(&(feature, true)));
    }
    (reasons, features)
}

fn assert_both_verdicts(features: &Seen, features_expected: usize) {
    let names: std::collections::BTreeSet<_> = features.keys().map(|(feature, _)| *feature).collect();
    assert_eq!(names.len(), features_expected, "features met: {names:?}");
    for name in names {
        for allowed in [false, true] {
            let times = features.get(&(name, allowed)).copied().unwrap_or_default();
            assert!(times >= fraction::demanded(20), "{name}, allowed {allowed}: {times} times");
        }
    }
}

/// The links: loopback for the first endpoint, then one for the second, which takes the first one's slot
/// (`abi::LINK_SLOTS`), and one whose pod is not known.
const LINKS: [u32; 3] = [1, 1 + abi::LINK_SLOTS, 21];

fn links() {
    for (index, [name, peer]) in LINKS[1..].iter().zip([["a", "b"], ["c", "d"]]) {
        let index = index.to_string();
        let made = std::process::Command::new("ip")
            .args(["link", "add", "name", name, "index", &index, "type", "veth", "peer", "name", peer])
            .status();
        assert!(made.expect("ip, from iproute2").success(), "a veth pair in a namespace of the test's own");
    }
}

struct World {
    random: Random,
    rig: Rig,
    /// The first endpoint's, the second's, and one whose pod is not known.
    links: [u32; 3],
    /// Where packets go over TAP devices: those of the links.
    wires: Option<[Wire; 3]>,
    epoch: u64,
    reasons: BTreeMap<Reason, u64>,
    features: Seen,
    recent: Vec<Frame>,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, links: [u32; 3]) -> Self {
        let rig = Rig::new(LIMITS, CONNECTIONS).expect("the program loads");
        let mut world = Self {
            random: Random::new(seed),
            rig,
            links,
            wires: None,
            epoch: 1,
            reasons: BTreeMap::new(),
            features: BTreeMap::new(),
            recent: Vec::new(),
            trace: Vec::new(),
        };
        world.tables().expect("tables");
        world
    }

    fn run(mut self, packets: u64) -> (BTreeMap<Reason, u64>, Seen) {
        let mut steps = 0u64;
        while self.rig.packets < packets {
            steps += 1;
            match self.random.below(42) {
                0 => self.publish(),
                1 => {
                    let by = self.random.one(&[
                        1_000_000,
                        900_000_000,
                        31_000_000_000,
                        61_000_000_000,
                        200_000_000_000,
                        3_700_000_000_000,
                    ]);
                    self.rig.advance(by).expect("the clock");
                    self.trace.push(format!("advance {by}"));
                }
                2 => {
                    let answer = self.random.one(&[Sockets::None, Sockets::Client, Sockets::Server]);
                    self.rig.sockets(answer).expect("the sockets");
                    let standing = self.random.one(&[Standing::Revoked, Standing::Kept]);
                    self.rig.standing(standing).expect("the setting");
                    self.trace.push(format!("sockets {answer:?}, standing {standing:?}"));
                }
                3 | 4 => {
                    self.rig.sweeps().expect("a sweep");
                    self.trace.push("the agent sweeps".into());
                }
                5..=27 => self.conversation(),
                _ => self.noise(),
            }
            if steps.is_multiple_of(97) {
                self.rig.compare().unwrap_or_else(|difference| panic!("{difference}\n{}", self.tail()));
            }
            if steps.is_multiple_of(40) && self.random.once_in(3) {
                self.rig.clear().expect("both tables emptied");
                self.trace.push("clear".into());
            }
        }
        self.rig.compare().unwrap_or_else(|difference| panic!("{difference}\n{}", self.tail()));
        let Rig { packets, refused, expired, .. } = self.rig;
        println!(
            "{packets} packets judged, {refused} refused by test runs; {expired} entries expired without an agent"
        );
        assert!(expired as u64 >= packets / 1000, "the kernel expired {expired} entries in {packets} packets");
        (self.reasons, self.features)
    }

    fn tail(&self) -> String {
        self.trace[self.trace.len().saturating_sub(25)..].join("\n")
    }

    /// Identities, nodes, and slots of every kind: isolated or not, ranges or not, few rules or many.
    fn tables(&mut self) -> Result<(), datapath::Error> {
        for (index, own) in OWN.iter().enumerate() {
            self.rig.endpoint(self.links[index], index as u32 + 1, own.map(address))?;
        }
        self.rig.give(1, address("10.8.0.0"), 120)?;
        for (whose, text) in [(1, NODE[0]), (1, NODE[1]), (2, "10.2.0.7")] {
            self.rig.peer(address(text), whose)?;
        }
        // Each endpoint is a client of the other, as a Service that is allowed in part makes it.
        for (text, client) in [("10.1.0.2", 1), ("fd00:1::2", 1), ("10.1.0.3", 2), ("fd00:1::3", 2)] {
            self.rig.peer(address(text), abi::client_peer(client))?;
        }
        for (index, text) in PEERS.iter().enumerate() {
            // Some of them are addresses of Services.
            let flag = if FRONTENDS.contains(&(index as u32 + 1)) { abi::FRONTENDS } else { 0 };
            if index % 4 != 3 {
                self.rig.identity(address(text), 128, (index as u32 + 1) | flag)?;
            }
        }
        for identity in FRONTENDS {
            for (protocol, port) in SERVICE_PORTS {
                let backends = self.random.one(&[abi::HAS_BACKENDS, abi::HAS_BACKENDS, abi::NO_BACKENDS]);
                self.rig.rule(abi::frontend_key(identity | abi::FRONTENDS, protocol, port), backends)?;
            }
        }
        self.rig.identity(address("10.0.0.0"), 104, 20)?;
        self.rig.identity(address("10.3.0.0"), 112, 21)?;
        self.rig.identity(address("2001:db8::"), 32, 22)?;
        self.rig.identity(address("224.0.0.0"), 100, 23)?;
        for index in 1..=SLOTS {
            self.slot(index)?;
        }
        for generation in 1..200 {
            let slot = |random: &mut Random| Self::slot_number(1 + random.below(SLOTS as usize) as u32);
            let in_force = if self.random.once_in(12) { 0 } else { slot(&mut self.random) };
            let staged = if self.random.once_in(2) { 0 } else { slot(&mut self.random) };
            let mode = self.random.one(&[Mode::Enforce, Mode::Enforce, Mode::Audit, Mode::Learn]);
            self.rig.generation(generation, in_force, staged, mode)?;
        }
        self.publish();
        Ok(())
    }

    fn slot_number(index: u32) -> u32 {
        let flags = [
            (!index.is_multiple_of(8), abi::INGRESS_ISOLATED),
            (index % 8 != 1, abi::EGRESS_ISOLATED),
            (index.is_multiple_of(3), abi::RANGES),
            (!index.is_multiple_of(5), abi::RULES_FOR_ANYONE),
            (!index.is_multiple_of(7), abi::RULES_FOR_ANY_PORT),
        ];
        abi::slot_number(index, flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum())
    }

    fn slot(&mut self, index: u32) -> Result<(), datapath::Error> {
        let slot = Self::slot_number(index);
        let ranges = index.is_multiple_of(3);
        if ranges {
            // 8080-8087 are class 1, 1 is class 2, 32768-65535 class 3; the rest has none.
            for protocol in [TCP, UDP, SCTP] {
                self.rig.port_class(slot, protocol, 8080, 3, 1)?;
                self.rig.port_class(slot, protocol, 1, 0, 2)?;
                self.rig.port_class(slot, protocol, 32_768, 15, 3)?;
            }
        }
        let mut rule = index * 1000;
        for (identity, (protocol, port)) in FRONTENDS.iter().flat_map(|of| SERVICE_PORTS.map(|port| (of, port))) {
            let says = self.random.one(&[0, rule + 1, abi::MIXED_BACKENDS, abi::OWN_BACKEND]);
            if says != 0 {
                let (identity, port) = (identity | abi::FRONTENDS, RulePort::Frontend(port));
                self.rig.rule(rule_key(slot, identity, Direction::Outbound, protocol, port), says)?;
            }
        }
        for direction in [Direction::Inbound, Direction::Outbound] {
            for _ in 0..2 + self.random.below(30) {
                rule += 1;
                let identity = if self.random.once_in(9) {
                    ANYONE
                } else {
                    self.random.one(&[1, 2, 3, 5, 6, 7, 9, 10, 20, 21, 22, 23])
                };
                let protocol = self.random.one(&[TCP, TCP, UDP, SCTP, abi::ALL_PROTOCOLS]);
                let port = match self.random.below(3) {
                    0 => RulePort::Any,
                    _ if protocol == abi::ALL_PROTOCOLS => RulePort::Any,
                    _ if ranges => RulePort::Class(1 + self.random.below(3) as u16),
                    _ => RulePort::Class(self.random.one(&PORTS)),
                };
                self.rig.rule(rule_key(slot, identity, direction, protocol, port), rule)?;
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        let ordinal = 1 + self.random.below(2) as u32;
        self.epoch += 1;
        let generation = if self.random.once_in(30) { 0 } else { 1 + self.random.below(199) as u32 };
        self.rig.publish(ordinal, endpoint_word(self.epoch, generation)).expect("a publish");
        self.trace.push(format!("publish {ordinal}: epoch {} generation {generation}", self.epoch));
    }

    /// A client and a server that talk as the protocol wants, now and then broken off.
    fn conversation(&mut self) {
        let own = address(OWN[0][self.random.one(&[0, 1, 0, 1, 2, 3])]);
        let (ifindex, own) = if self.random.once_in(3) {
            (self.links[1], address(OWN[1][usize::from(!own.is_v4())]))
        } else {
            (self.links[0], own)
        };
        let further = own.is_v4() && self.random.once_in(5);
        let own = if further { address(self.random.one(&FURTHER)) } else { own };
        let peer = self.peer(own.is_v4());
        let protocol = self.random.one(&[TCP, TCP, TCP, UDP, SCTP]);
        let (client_port, server_port) = (40_000 + self.random.below(6) as u16, self.random.one(&PORTS));
        let opened = self.random.one(&[Direction::Inbound, Direction::Outbound]);
        let script: &[(bool, u8)] = match protocol {
            TCP => &[
                (true, 0x02),
                (false, 0x12),
                (true, 0x10),
                (true, 0x18),
                (false, 0x10),
                (true, 0x11),
                (false, 0x11),
                (true, 0x10),
                (true, 0x02),
                (false, 0x04),
                (true, 0x10),
            ],
            SCTP => &[(true, 2), (false, 0), (true, 0), (false, 0), (true, 14)],
            _ => &[(true, 0), (false, 0), (true, 0), (true, 0)],
        };
        let begin = if self.random.once_in(4) { self.random.below(script.len()) } else { 0 };
        for (by_client, flags) in &script[begin..] {
            let direction = if *by_client { opened } else { opened.opposite() };
            let (from, to) = if direction == Direction::Inbound { (peer, own) } else { (own, peer) };
            let (from_port, to_port) = if *by_client { (client_port, server_port) } else { (server_port, client_port) };
            let data = self.random.one(&[0, 0, 10, 1400]);
            let mut frame = Frame::new(from, to, protocol, transport(protocol, from_port, to_port, *flags, data));
            let mut features = self.dress(&mut frame);
            features.push(match protocol {
                TCP => "tcp",
                UDP => "udp",
                _ => "sctp",
            });
            if !own.is_v4() {
                features.push("ipv6");
            }
            if further {
                features.push("further-address");
            }
            let ingress_ifindex = self.random.one(&[0, 0, 7, ifindex]);
            let segments = if self.wires.is_none() { self.random.one(&[0, 1, 1, 2, 45]) } else { 1 };
            let gso = if segments > 1 { Gso::Yes } else { Gso::No };
            let mut bytes = frame.bytes();
            if self.random.once_in(12) {
                bytes = self.without_length(&mut frame);
                if gso == Gso::Yes && protocol == TCP {
                    features.push(if own.is_v4() { "big-tcp" } else { "big-tcp-ipv6" });
                }
            }
            let at = Entrance { ifindex, direction, ingress_ifindex, segments, gso };
            self.put(at, &bytes, &features);
            self.recent.push(frame);
            if self.random.once_in(12) {
                return;
            }
            match self.random.below(60) {
                0 => self.publish(),
                1 => self.rig.advance(200_000_000_000).expect("the clock"),
                2..=9 => self.error(),
                _ => {}
            }
        }
    }

    /// Options, tags, extension headers, now and then.
    fn dress(&mut self, frame: &mut Frame) -> Vec<&'static str> {
        let mut features = Vec::new();
        if self.random.once_in(8) {
            frame.vlans = 1 + self.random.below(2);
            features.push(if frame.vlans == 1 { "vlan" } else { "two-vlans" });
        }
        if frame.source.is_v4() {
            if self.random.once_in(8) {
                frame.options = 1 + self.random.below(10);
                features.push("ipv4-options");
            }
        } else if self.random.once_in(6) {
            for _ in 0..1 + self.random.below(2) {
                let (extension, name) = self.random.one(&[
                    (Extension::HopByHop, "hop-by-hop"),
                    (Extension::Routing, "routing"),
                    (Extension::DestinationOptions, "destination-options"),
                    (Extension::Authentication, "authentication"),
                ]);
                frame.extensions.push(extension);
                features.push(name);
            }
        }
        features
    }

    /// The frame without a length in its IP header, as BIG TCP has it: with IPv6 behind a jumbo option or not, and
    /// the option now and then wrong.
    fn without_length(&mut self, frame: &mut Frame) -> Vec<u8> {
        let v4 = frame.source.is_v4();
        let option = !v4 && self.random.once_in(2);
        if option {
            frame.extensions = vec![Extension::HopByHop];
        } else if !v4 && !self.random.once_in(4) {
            frame.extensions.clear();
        }
        let mut bytes = frame.bytes();
        let ip = 14 + 4 * frame.vlans;
        let at = if v4 { ip + 2 } else { ip + 4 };
        bytes[at..at + 2].fill(0);
        if option {
            let length = self.random.one(&[70_000u32, 70_000, 65_536, 65_535, u32::MAX]);
            bytes[ip + 42..ip + 44].copy_from_slice(&[0xc2, 4]);
            bytes[ip + 44..ip + 48].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    }

    fn peer(&mut self, v4: bool) -> Address {
        loop {
            let peer = address(self.random.one(&PEERS));
            if peer.is_v4() == v4 {
                return peer;
            }
        }
    }

    /// An ICMP error about a packet that went by.
    fn error(&mut self) {
        let Some(inner) = self.recent.get(self.recent.len().saturating_sub(1 + self.random.below(4))).cloned() else {
            return;
        };
        let mut features = vec!["icmp-error"];
        if !inner.extensions.is_empty() {
            features.push("error-about-extension-headers");
        }
        if inner.options != 0 {
            features.push("error-about-options");
        }
        if inner.fragment.is_some_and(|(_, offset, _)| offset == 0) {
            features.push("error-about-a-first-fragment");
        }
        let router = self.peer(inner.source.is_v4());
        let own = self.own_of(inner.source).or_else(|| self.own_of(inner.destination));
        let Some(ifindex) = own else { return };
        let towards_pod = self.own_of(inner.source) == Some(ifindex);
        let from = if towards_pod { router } else { inner.destination };
        let direction = if towards_pod { Direction::Inbound } else { Direction::Outbound };
        let frame = error_about(&inner, from);
        self.put(
            Entrance { ifindex, direction, ingress_ifindex: 7, segments: 1, gso: Gso::No },
            &frame.bytes(),
            &features,
        );
    }

    fn own_of(&self, address_of: Address) -> Option<u32> {
        let at = OWN.iter().position(|own| own[..4].iter().any(|text| address(text) == address_of));
        let further = || FURTHER.iter().any(|text| address(text) == address_of).then_some(0);
        at.or_else(further).map(|at| self.links[at])
    }

    /// Everything else: fragments, pings, neighbours, forgeries, groups, broken and cut frames.
    fn noise(&mut self) {
        let pod = self.random.one(&[0, 0, 1]);
        let ifindex = self.links[pod];
        let v4 = self.random.once_in(2);
        let mut own = address(OWN[pod][usize::from(!v4)]);
        if v4 && self.random.once_in(6) {
            own = address(self.random.one(&FURTHER));
        }
        let peer = self.peer(v4);
        let direction = self.random.one(&[Direction::Inbound, Direction::Outbound]);
        let (from, to) = if direction == Direction::Inbound { (peer, own) } else { (own, peer) };
        let ingress_ifindex = self.random.one(&[0, 7, ifindex]);
        let at = Entrance { ifindex, direction, ingress_ifindex, segments: 1, gso: Gso::No };
        let port = self.random.one(&PORTS);
        let udp = Frame::new(from, to, UDP, transport(UDP, 40_001, port, 0, 40));
        match self.random.below(16) {
            0 | 1 => self.fragments(at, udp),
            2 => {
                let echo = if v4 { ICMP } else { ICMPV6 };
                let kind = if v4 { self.random.one(&[8, 0]) } else { self.random.one(&[128, 129]) };
                let id = self.random.below(4) as u8;
                self.put(at, &Frame::new(from, to, echo, icmp(kind, 0, [0, id, 0, 1], &[1; 16])).bytes(), &["echo"]);
            }
            3 => {
                let protocol = self.random.one(&[0u8, 2, 4, 47, 50, 89, 255]);
                let protocol = if protocol == 0 && !v4 { 47 } else { protocol };
                self.put(at, &Frame::new(from, to, protocol, vec![0; 24]).bytes(), &["portless"]);
            }
            4 | 5 => self.neighbors(at, v4, own, peer),
            6 => {
                let group = address(if v4 { self.random.one(&["224.0.0.251", "255.255.255.255"]) } else { "ff02::fb" });
                let (source, at) = if direction == Direction::Inbound { (peer, at) } else { (own, at) };
                self.put(at, &Frame::new(source, group, UDP, transport(UDP, 5353, port, 0, 9)).bytes(), &["group"]);
                let dhcp = self.random.one(&[(67, 68), (547, 546), (68, 67)]);
                self.put(at, &Frame::new(from, to, UDP, transport(UDP, dhcp.0, dhcp.1, 0, 9)).bytes(), &[]);
            }
            7 => {
                let (from, to) = if direction == Direction::Inbound {
                    (peer, address(if v4 { "10.9.9.9" } else { "fd00:9::9" }))
                } else {
                    (self.peer(v4), peer)
                };
                self.put(at, &Frame::new(from, to, TCP, transport(TCP, 40_000, port, 2, 0)).bytes(), &[]);
            }
            8 => self.put(Entrance { ifindex: self.links[2], ..at }, &udp.bytes(), &[]),
            9..=11 => self.broken(at, udp),
            12 => self.error(),
            13 => {
                let flags = self.random.one(&[0x10, 0x12, 0x04, 0x11, 0x00, 0xff, 0x06]);
                self.put(at, &Frame::new(from, to, TCP, transport(TCP, 40_000, port, flags, 0)).bytes(), &[]);
            }
            14 => self.flood(at, from, to),
            _ => {
                let mut bytes = udp.bytes();
                for _ in 0..1 + self.random.below(6) {
                    let index = self.random.below(bytes.len().min(90));
                    bytes[index] = self.random.bits() as u8;
                }
                let keep = if self.random.once_in(3) { 14 + self.random.below(bytes.len() - 14) } else { bytes.len() };
                self.put(at, &bytes[..keep], &[]);
            }
        }
    }

    /// A datagram in pieces, sometimes with the first one late, missing or too small.
    fn fragments(&mut self, at: Entrance, whole: Frame) {
        // More than a group of peers has room for.
        let id = self.random.below(12) as u32;
        let mut pieces = vec![(0u16, true, 24usize), (24, true, 16), (40, false, 8)];
        match self.random.below(4) {
            0 => {
                pieces.remove(0);
            }
            1 => pieces.push((self.random.one(&[8, 16]), false, 16)),
            _ => {}
        }
        for (offset, more, length) in pieces {
            let mut frame = whole.clone();
            frame.fragment = Some((id, offset, more));
            frame.payload = whole.payload.iter().copied().cycle().skip(offset.into()).take(length).collect();
            let feature = if offset == 0 { "first-fragment" } else { "later-fragment" };
            self.put(at, &frame.bytes(), &[feature]);
            self.recent.push(frame.clone());
            if self.random.once_in(4) {
                self.error();
            }
            if self.random.once_in(6) {
                // Its id is new to the node.
                let mut strange = frame;
                strange.fragment = Some((1000 + self.random.below(64) as u32, 48, false));
                self.put(at, &strange.bytes(), &["later-fragment"]);
            }
        }
    }

    fn neighbors(&mut self, at: Entrance, v4: bool, own: Address, peer: Address) {
        let times = if self.random.once_in(40) { 130 } else { 1 };
        let claimed = self.random.one(&[own, own, peer, Address::default()]);
        let link_local = address(OWN[usize::from(at.ifindex != self.links[0])][4]);
        let bytes = if v4 {
            let mut bytes = arp(self.random.one(&[1, 2]), claimed, peer);
            if self.random.once_in(6) {
                bytes[15] = 9;
            }
            bytes
        } else {
            let source = self.random.one(&[claimed, link_local, link_local, own]);
            let target = self.random.one(&[own, own, link_local, peer]);
            let kind = self.random.one(&[135, 136, 133, 134, 137, 130, 143]);
            let mut frame = Frame::new(source, peer, ICMPV6, icmp(kind, 0, [0; 4], &target.octets()));
            let hops = if matches!(kind, 130 | 143) { 1 } else { 255 };
            frame.hop_limit = self.random.one(&[hops, hops, hops, 64]);
            // The frame builder takes the family from the source: none is none of IPv6 here.
            if source == Address::default() {
                frame.source = Address::v6([0; 16]);
            }
            frame.bytes()
        };
        for _ in 0..times {
            self.put(at, &bytes, &["neighbors"]);
        }
    }

    /// More openings than a share holds.
    fn flood(&mut self, at: Entrance, from: Address, to: Address) {
        if !self.random.once_in(8) {
            return;
        }
        for port in 0..60 {
            let flags = self.random.one(&[2, 2, 2, 0x10]);
            self.put(at, &Frame::new(from, to, TCP, transport(TCP, 50_000 + port, 80, flags, 0)).bytes(), &["tcp"]);
        }
    }

    /// One frame of each way to be wrong.
    fn broken(&mut self, at: Entrance, mut frame: Frame) {
        let v4 = frame.source.is_v4();
        let bytes = match self.random.below(10) {
            0 => {
                frame.vlans = 3;
                frame.bytes()
            }
            1 => {
                let mut bytes = frame.bytes();
                [bytes[12], bytes[13]] = self.random.one(&[[0x88, 0xcc], [0x88, 0x8e], [0, 0]]);
                bytes
            }
            2 => {
                frame.vlans = 1;
                let keep = self.random.one(&[14, 15, 17]);
                frame.bytes()[..keep].to_vec()
            }
            3 => {
                frame.vlans = 1;
                let bytes = frame.bytes();
                let header = if v4 { 20 } else { 40 };
                bytes[..18 + self.random.below(header)].to_vec()
            }
            4 => {
                let mut bytes = frame.bytes();
                bytes[14] = if v4 { self.random.one(&[0x44, 0x55, 0x40]) } else { 0x50 };
                bytes
            }
            5 if !v4 => {
                frame.extensions = vec![Extension::Routing; 9];
                frame.bytes()
            }
            5 => {
                let mut bytes = frame.bytes();
                // A total length below the header's.
                [bytes[16], bytes[17]] = [0, 12];
                bytes
            }
            6 => {
                frame.payload = frame.payload[..self.random.below(8)].to_vec();
                frame.bytes()
            }
            7 => {
                frame.protocol = TCP;
                frame.payload = transport(TCP, 40_000, 80, 2, 0);
                frame.payload[12] = self.random.one(&[0x00, 0x40]);
                frame.bytes()
            }
            8 if !v4 => {
                frame.extensions = vec![Extension::DestinationOptions; 6];
                frame.bytes()
            }
            8 => {
                frame.options = 10;
                let error = error_about(&Frame { options: 10, ..frame.clone() }, frame.destination);
                let mut error = Frame { options: 10, vlans: 2, ..error };
                (error.source, error.destination) = (frame.source, frame.destination);
                error.bytes()
            }
            _ => {
                // The IP header names an end before the transport header's.
                let mut bytes = frame.bytes();
                let at = if v4 { 16 } else { 18 };
                [bytes[at], bytes[at + 1]] = [0, if v4 { 23 } else { 5 }];
                bytes
            }
        };
        self.put(at, &bytes, &[]);
    }

    fn put(&mut self, at: Entrance, frame: &[u8], features: &[&'static str]) {
        self.trace.push(format!("{at:?} {}", hex(frame)));
        if self.trace.len() > 4000 {
            self.trace.drain(..2000);
        }
        let outcome = match &self.wires {
            None => self.rig.put(at, frame),
            Some(wires) => {
                let wire = wires.iter().find(|wire| wire.ifindex == at.ifindex).expect("a wire for each link");
                let linear = ETHERNET + self.random.below(70);
                self.rig.carry(wire, at.direction, frame, linear)
            }
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(outcome)) => {
                let reason = outcome.verdict.reason();
                *self.reasons.entry(reason).or_default() += 1;
                for feature in features {
                    *self.features.entry((feature, reason.allows())).or_default() += 1;
                }
            }
            Err(difference) => panic!("packet {}: {difference}\n{}", self.rig.packets, self.tail()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(96).map(|byte| format!("{byte:02x}")).collect()
}
