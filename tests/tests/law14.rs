//! Law 14 for packets: no bytes make `flow` panic, and of whatever it accepts etherparse reads the same.
//!
//! Frames are made right and then damaged: bytes changed, the end cut off or grown, wrapped as each link
//! layer. etherparse slices laxly, so that a capture cut behind the headers is no error. Where the two
//! differ on purpose:
//!
//! - `flow` refuses more: headers behind [`flow::HEADER_LIMIT`], more than [`flow::MAX_EXTENSION_HEADERS`] or
//!   [`flow::MAX_VLAN_TAGS`], the VLAN type 0x9100, MACsec, and a later fragment that could overwrite the
//!   first's ports. Refusals are not compared.
//! - `flow` reads the fixed part of a TCP header and no options, so it accepts options that are cut; nor the
//!   last extension header or IPv4 options, where nothing that it reads lies behind them.
//! - `flow` does not walk IPv4's authentication header: protocol 51 has no ports.
//! - `flow` takes a hop-by-hop header anywhere, etherparse only behind the IPv6 header; and an authentication
//!   header of length 0.
//! - Behind a later fragment's header lies the middle of something: `flow` stops there, etherparse reads on.
//! - etherparse knows neither SCTP (the ports are taken from its payload) nor Linux SLL2 (its EtherType is given).

use etherparse::{
    ArpPacketSlice, EtherType, Icmpv4Slice, Icmpv6Slice, IpAuthHeaderSlice, IpNumber, Ipv6FragmentHeaderSlice,
    Ipv6RawExtHeaderSlice, LaxIpSlice, LaxIpv6Slice, LaxNetSlice, LaxSlicedPacket, LinuxSllProtocolType, LinuxSllSlice,
    TcpSlice, UdpSlice, err::packet::SliceError, ip_number,
};
use flow::{Address, Fragment, ICMP, ICMPV6, Kind, LinkLayer, Packet, ParseError, SCTP, TCP, UDP, parse_link};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};
use tests::frame::{Extension, Frame, arp, error_about, icmp, tcp, transport};

/// A timing is no test, but a debug build is slow: fewer cases there.
const CASES: u32 = if cfg!(debug_assertions) { 10_000 } else { 150_000 };
const LINKS: [LinkLayer; 4] = [LinkLayer::Ethernet, LinkLayer::LinuxSll, LinkLayer::LinuxSll2, LinkLayer::RawIp];

#[test]
fn no_bytes_make_the_parser_panic() {
    let mut runner = TestRunner::new(config());
    let outcome = runner.run(&(select(&LINKS), vec(any::<u8>(), 0..200)), |(link, bytes)| {
        let _ = parse_link(link, bytes.as_slice());
        Ok(())
    });
    outcome.expect("no bytes make it panic");
}

#[test]
fn what_flow_accepts_etherparse_reads_alike() {
    let tally: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let mut runner = TestRunner::new(config());
    let outcome = runner.run(&(select(&LINKS), frame(), damage()), |(link, frame, damage)| {
        let bytes = damage.done_to(wrapped(link, frame));
        let said = parse_link(link, bytes.as_slice());
        let what = match said {
            Ok(packet) => format!("{:?} {:?}", packet.kind, packet.fragment),
            Err(error) => format!("{error:?}"),
        };
        *tally.borrow_mut().entry(what).or_default() += 1;
        let Ok(packet) = said else { return Ok(()) };
        compare(link, &bytes, &packet).map_err(TestCaseError::fail)
    });
    outcome.expect("both read the same");
    let tally = tally.into_inner();
    println!("{tally:#?}");
    // The comparison is worth something only if everything was met.
    for error in ParseError::ALL {
        assert!(tally.contains_key(&format!("{error:?}")), "no frame was refused with {error:?}: {tally:?}");
    }
    for kind in KINDS {
        let met = tally.keys().any(|what| what.split(' ').next() == Some(&format!("{kind:?}")));
        assert!(met, "no frame was {kind:?}: {tally:?}");
    }
    assert!(tally.contains_key("Transport First"), "no first fragment: {tally:?}");
}

const KINDS: [Kind; 11] = [
    Kind::Portless,
    Kind::Transport,
    Kind::Echo,
    Kind::IcmpError,
    Kind::LaterFragment,
    Kind::Arp,
    Kind::Solicitation,
    Kind::Advertisement,
    Kind::RouterSolicitation,
    Kind::ListenerReport,
    Kind::RouterMessage,
];

fn config() -> Config {
    Config { cases: CASES, failure_persistence: None, ..Config::default() }
}

// --- frames ---------------------------------------------------------------------------------------------------

/// Frames with an Ethernet header, right as they stand.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let error = (internet(), ends(), 0usize..3).prop_map(|(mut inner, (from, _), vlans)| {
        inner.options = inner.options.min(2);
        inner.extensions.truncate(2);
        let from = if inner.source.is_v4() { v4_of(from) } else { Address::v6(from) };
        let mut error = error_about(&inner, from);
        error.vlans = vlans;
        error.bytes()
    });
    prop_oneof![
        8 => internet().prop_map(|frame| frame.bytes()),
        2 => error,
        1 => (1u8..3, ends()).prop_map(|(operation, (a, b))| arp(operation, v4_of(a), v4_of(b))),
    ]
}

fn internet() -> impl Strategy<Value = Frame> {
    (ends(), headers(), any::<bool>(), payload()).prop_map(|((a, b), headers, v4, payload)| {
        let (source, destination) = if v4 { (v4_of(a), v4_of(b)) } else { (Address::v6(a), Address::v6(b)) };
        let (protocol, payload) = payload.of(v4);
        let mut frame = Frame::new(source, destination, protocol, payload);
        (frame.vlans, frame.hop_limit, frame.options, frame.extensions, frame.fragment) = headers;
        frame
    })
}

fn ends() -> impl Strategy<Value = ([u8; 16], [u8; 16])> {
    any::<([u8; 16], [u8; 16])>()
}

fn v4_of(octets: [u8; 16]) -> Address {
    Address::v4([octets[0], octets[1], octets[2], octets[3]])
}

type Headers = (usize, u8, usize, Vec<Extension>, Option<(u32, u16, bool)>);

fn headers() -> impl Strategy<Value = Headers> {
    let extension =
        select(vec![Extension::HopByHop, Extension::Routing, Extension::DestinationOptions, Extension::Authentication]);
    let extensions = prop_oneof![4 => Just(Vec::new()), 3 => vec(extension.clone(), 1..4), 1 => vec(extension, 4..12)];
    let vlans = prop_oneof![6 => Just(0usize), 3 => 1usize..3, 1 => Just(3usize)];
    let options = prop_oneof![3 => Just(0usize), 1 => 1usize..11];
    let fragment =
        proptest::option::weighted(0.2, (any::<u32>(), select(vec![0, 8, 16, 24, 1480, 65_528]), any::<bool>()));
    (vlans, any::<u8>(), options, extensions, fragment)
}

#[derive(Clone, Debug)]
enum Payload {
    Ports { protocol: u8, source: u16, destination: u16, flags: u8, data: usize },
    TcpOptions { words: u8, there: usize },
    Message { kind: u8, rest: [u8; 4], body: Vec<u8> },
    Other { protocol: u8, body: Vec<u8> },
}

fn payload() -> impl Strategy<Value = Payload> {
    let messages =
        vec![0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 14, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143, 160];
    prop_oneof![
        6 => (select(vec![TCP, UDP, SCTP]), any::<u16>(), any::<u16>(), any::<u8>(), 0usize..40)
            .prop_map(|(protocol, source, destination, flags, data)| Payload::Ports { protocol, source, destination, flags, data }),
        1 => (5u8..16, 0usize..44).prop_map(|(words, there)| Payload::TcpOptions { words, there }),
        4 => (select(messages), any::<[u8; 4]>(), vec(any::<u8>(), 0..60))
            .prop_map(|(kind, rest, body)| Payload::Message { kind, rest, body }),
        1 => (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(protocol, body)| Payload::Other { protocol, body }),
    ]
}

impl Payload {
    fn of(self, v4: bool) -> (u8, Vec<u8>) {
        match self {
            Self::Ports { protocol, source, destination, flags, data } => {
                (protocol, transport(protocol, source, destination, flags, data))
            }
            Self::TcpOptions { words, there } => {
                let mut segment = tcp(1, 2, flow::tcp::SYN, there);
                segment[12] = words << 4;
                (TCP, segment)
            }
            Self::Message { kind, rest, body } => (if v4 { ICMP } else { ICMPV6 }, icmp(kind, 0, rest, &body)),
            Self::Other { protocol, body } => (protocol, body),
        }
    }
}

/// An Ethernet frame's content behind another link-layer header.
fn wrapped(link: LinkLayer, frame: Vec<u8>) -> Vec<u8> {
    let cooked = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    match link {
        LinkLayer::Ethernet => frame,
        LinkLayer::LinuxSll => [&cooked, &frame[12..]].concat(),
        LinkLayer::LinuxSll2 => [&frame[12..14], &[0; 10], &cooked[..8], &frame[14..]].concat(),
        LinkLayer::RawIp => frame[14..].to_vec(),
    }
}

#[derive(Clone, Debug)]
struct Damage {
    changes: Vec<(Index, u8)>,
    cut: Option<Index>,
    grown: usize,
}

fn damage() -> impl Strategy<Value = Damage> {
    let changes = prop_oneof![2 => Just(Vec::new()), 2 => vec(any::<(Index, u8)>(), 1..4)];
    (changes, proptest::option::weighted(0.3, any::<Index>()), prop_oneof![3 => Just(0usize), 1 => 1usize..60])
        .prop_map(|(changes, cut, grown)| Damage { changes, cut, grown })
}

impl Damage {
    fn done_to(self, mut bytes: Vec<u8>) -> Vec<u8> {
        for (at, byte) in self.changes {
            // Most in the headers.
            let at = at.index(bytes.len().min(100));
            bytes[at] = byte;
        }
        if let Some(end) = self.cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes.resize(bytes.len() + self.grown, 0x2c);
        bytes
    }
}

// --- the oracle -----------------------------------------------------------------------------------------------

/// What etherparse says against it, or nothing.
fn compare(link: LinkLayer, bytes: &[u8], packet: &Packet) -> Result<(), String> {
    let sliced = match link {
        LinkLayer::Ethernet => LaxSlicedPacket::from_ethernet(bytes).map_err(|error| error.to_string())?,
        LinkLayer::LinuxSll => {
            let ethertype = match LinuxSllSlice::from_slice(bytes).map(|sll| sll.protocol_type()) {
                Ok(LinuxSllProtocolType::EtherType(ethertype)) => ethertype,
                // A damaged ARPHRD or packet type: the EtherType stands where it stood.
                _ => ethertype_at(bytes, 14),
            };
            LaxSlicedPacket::from_ether_type(ethertype, &bytes[16..])
        }
        LinkLayer::LinuxSll2 => LaxSlicedPacket::from_ether_type(ethertype_at(bytes, 0), &bytes[20..]),
        LinkLayer::RawIp => match LaxSlicedPacket::from_ip(bytes) {
            Ok(sliced) => sliced,
            Err(_) if is_unread(packet) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        },
    };
    match &sliced.net {
        None if is_unread(packet) => Ok(()),
        None => Err(format!("flow: {packet:?}; etherparse finds no IP header: {:?}", sliced.stop_err)),
        Some(LaxNetSlice::Arp(arp)) => compare_arp(arp, packet),
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            same("source", packet.key.source.ip(), IpAddr::V4(header.source_addr()))?;
            same("destination", packet.key.destination.ip(), IpAddr::V4(header.destination_addr()))?;
            same("protocol", packet.key.protocol, header.protocol().0)?;
            same("hop limit", packet.hop_limit, header.ttl())?;
            same("length", packet.ip_length, u32::from(header.total_len()))?;
            let fragment = fragment(header.fragments_offset().value(), header.more_fragments());
            same("fragment", packet.fragment, fragment)?;
            if fragment != Fragment::Whole {
                same("fragment id", packet.fragment_id, u32::from(header.identification()))?;
            }
            if header.protocol() == ip_number::AUTH {
                return same("kind", packet.kind == Kind::Transport, false);
            }
            compare_transport(packet, ip.payload().payload)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            same("source", packet.key.source.ip(), IpAddr::V6(header.source_addr()).to_canonical())?;
            same("destination", packet.key.destination.ip(), IpAddr::V6(header.destination_addr()).to_canonical())?;
            same("hop limit", packet.hop_limit, header.hop_limit())?;
            if header.payload_length() != 0 {
                same("length", packet.ip_length, u32::from(header.payload_length()) + 40)?;
            }
            if let Some((error, layer)) = &sliced.stop_err
                && is_extension(*layer)
            {
                return compare_stopped(ip, packet, error);
            }
            let (piece, id, _) = walk(ip)?;
            same("fragment", (packet.fragment, packet.fragment_id), (piece, id))?;
            if piece == Fragment::Later {
                return compare_later(ip, packet);
            }
            same("protocol", packet.key.protocol, ip.payload().ip_number.0)?;
            compare_transport(packet, ip.payload().payload)
        }
    }
}

fn ethertype_at(bytes: &[u8], at: usize) -> EtherType {
    EtherType(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// Of these `flow` reads nothing behind the fixed IP header, so what follows may be cut.
fn is_unread(packet: &Packet) -> bool {
    matches!(packet.kind, Kind::Portless | Kind::LaterFragment)
}

fn is_extension(layer: etherparse::err::Layer) -> bool {
    use etherparse::err::Layer;
    matches!(
        layer,
        Layer::Ipv6HopByHopHeader
            | Layer::Ipv6DestOptionsHeader
            | Layer::Ipv6RouteHeader
            | Layer::Ipv6FragHeader
            | Layer::Ipv6ExtHeader
            | Layer::IpAuthHeader
    )
}

fn is_extension_number(number: u8) -> bool {
    matches!(number, 0 | 43 | 44 | 51 | 60)
}

fn fragment(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// The kind of piece that IPv6's fragment headers make it, its identification, and what comes behind the
/// header that says so or behind the last: up to a later fragment's header.
///
/// With etherparse's own slices, but not its iterator, which reads behind the end where the lax slicing stopped early.
fn walk(ip: &LaxIpv6Slice) -> Result<(Fragment, u32, IpNumber), String> {
    let (mut number, mut rest) = (ip.header().next_header(), ip.extensions().slice());
    let mut seen = (Fragment::Whole, 0);
    while !rest.is_empty() && seen.0 != Fragment::Later {
        let (next, length) = match number {
            ip_number::IPV6_FRAG => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|error| error.to_string())?;
                match fragment(header.fragment_offset().value(), header.more_fragments()) {
                    Fragment::Whole => {}
                    piece => seen = (piece, header.identification()),
                }
                (header.next_header(), 8)
            }
            ip_number::AUTH => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(|error| error.to_string())?;
                (header.next_header(), header.slice().len())
            }
            _ => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|error| error.to_string())?;
                (header.next_header(), header.slice().len())
            }
        };
        (number, rest) = (next, &rest[length..]);
    }
    Ok((seen.0, seen.1, number))
}

fn compare_later(ip: &LaxIpv6Slice, packet: &Packet) -> Result<(), String> {
    let (_, _, number) = walk(ip)?;
    same("protocol", packet.key.protocol, number.0)?;
    same("kind", packet.kind, Kind::LaterFragment)
}

/// etherparse stopped in an extension header: one that it refuses and `flow` takes, or one that is cut.
fn compare_stopped(ip: &LaxIpv6Slice, packet: &Packet, error: &SliceError) -> Result<(), String> {
    if walk(ip)?.0 == Fragment::Later {
        return compare_later(ip, packet);
    }
    if matches!(error, SliceError::Ipv6Exts(_)) {
        return Ok(());
    }
    // Only the end of that header is cut: what it announces was read, and nothing behind it.
    let Some(start) = ip.payload().payload.first_chunk::<8>() else { return read_behind_the_end() };
    if is_extension_number(start[0]) {
        return read_behind_the_end();
    }
    same("kind read behind the end", is_unread(packet), true)?;
    same("protocol behind a cut header", packet.key.protocol, start[0])
}

fn compare_arp(arp: &ArpPacketSlice, packet: &Packet) -> Result<(), String> {
    same("kind", packet.kind, Kind::Arp)?;
    same("sender", &packet.key.source.octets()[12..], arp.sender_protocol_addr())?;
    same("target", &packet.key.destination.octets()[12..], arp.target_protocol_addr())?;
    same("operation", u16::from(packet.message), arp.operation().0 & 0xff)
}

fn compare_transport(packet: &Packet, payload: &[u8]) -> Result<(), String> {
    if packet.fragment == Fragment::Later {
        return same("kind", packet.kind, Kind::LaterFragment);
    }
    let ports = (packet.key.source_port, packet.key.destination_port);
    match packet.key.protocol {
        TCP => {
            let mut fixed = payload.to_vec();
            let words = usize::from(fixed.get(12).copied().unwrap_or_default() >> 4);
            if words * 4 > fixed.len() {
                fixed[12] = 5 << 4; // its options are cut
            }
            let header = TcpSlice::from_slice(&fixed).map_err(|error| error.to_string())?;
            same("ports", ports, (header.source_port(), header.destination_port()))?;
            same("flags", packet.tcp_flags, flags(&header))
        }
        UDP => {
            let header = UdpSlice::from_slice_lax(payload).map_err(|error| error.to_string())?;
            same("ports", ports, (header.source_port(), header.destination_port()))
        }
        SCTP => {
            let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            same("ports", ports, (word(0), word(2)))?;
            same("chunk", packet.message, payload[12])
        }
        ICMP => {
            let Ok(header) = Icmpv4Slice::from_slice(payload) else { return timestamp_of_another_length(packet) };
            same("message", packet.message, header.type_u8())?;
            compare_message(packet, matches!(header.type_u8(), 0 | 8), header.bytes5to8(), header.payload())
        }
        ICMPV6 => {
            let header = Icmpv6Slice::from_slice(payload).map_err(|error| error.to_string())?;
            same("message", packet.message, header.type_u8())?;
            compare_message(packet, matches!(header.type_u8(), 128 | 129), header.bytes5to8(), header.payload())
        }
        _ => same("kind", packet.kind, Kind::Portless),
    }
}

/// etherparse asks for a timestamp message's exact length; to `flow` it is one without ports.
fn timestamp_of_another_length(packet: &Packet) -> Result<(), String> {
    same("timestamp", matches!(packet.message, 13 | 14), true)?;
    same("kind", packet.kind, Kind::Portless)
}

fn compare_message(packet: &Packet, is_echo: bool, word: [u8; 4], body: &[u8]) -> Result<(), String> {
    same("echo", packet.kind == Kind::Echo, is_echo)?;
    let id = if is_echo { u16::from_be_bytes([word[0], word[1]]) } else { 0 };
    same("echo's identifier", (packet.key.source_port, packet.key.destination_port), (id, id))?;
    match packet.kind {
        Kind::Solicitation | Kind::Advertisement => match body.first_chunk::<16>() {
            Some(target) => same("target", packet.quoted.address, Address::v6(*target)),
            None => read_behind_the_end(),
        },
        Kind::IcmpError => compare_quoted(packet, body),
        _ => Ok(()),
    }
}

/// `flow` accepted what reaches behind the end that the IP header names; a receiver drops such a packet.
fn read_behind_the_end() -> Result<(), String> {
    Err("read behind the end of the IP packet".into())
}

fn compare_quoted(packet: &Packet, body: &[u8]) -> Result<(), String> {
    let (inner, _) = match LaxIpSlice::from_slice(body) {
        Ok(sliced) => sliced,
        // Of what leads to no connection `flow` reads no options.
        Err(_) if packet.quoted.protocol == 0 => return Ok(()),
        Err(_) => return read_behind_the_end(),
    };
    let about_the_receiver = inner.source_addr().to_canonical() == packet.key.destination.ip();
    same("quoted destination", packet.quoted.address.ip(), inner.destination_addr().to_canonical())?;
    let (protocol, start, piece) = match &inner {
        LaxIpSlice::Ipv4(ip) => {
            let header = ip.header();
            let piece = fragment(header.fragments_offset().value(), header.more_fragments());
            (header.protocol().0, header.slice().len(), piece)
        }
        // etherparse takes no hop-by-hop header but the first, and no authentication header of length 0.
        LaxIpSlice::Ipv6(ip) => {
            let (piece, _, number) = walk(ip)?;
            if piece != Fragment::Later && is_extension_number(number.0) {
                return Ok(());
            }
            (number.0, ip.header().slice().len() + ip.extensions().slice().len(), piece)
        }
    };
    if !about_the_receiver || piece == Fragment::Later {
        same("quoted protocol", packet.quoted.protocol, 0)?;
        return same("quoted ports", (packet.quoted.source_port, packet.quoted.destination_port), (0, 0));
    }
    let Some(start) = body.get(start..).and_then(|rest| rest.first_chunk::<8>()) else { return read_behind_the_end() };
    let word = |at: usize| u16::from_be_bytes([start[at], start[at + 1]]);
    let (protocol, ports) = match protocol {
        TCP | UDP | SCTP => (protocol, (word(0), word(2))),
        ICMP | ICMPV6 => (protocol, (word(4), word(4))),
        _ => (protocol, (0, 0)),
    };
    same("quoted protocol", packet.quoted.protocol, protocol)?;
    same("quoted ports", (packet.quoted.source_port, packet.quoted.destination_port), ports)
}

fn flags(header: &TcpSlice) -> u8 {
    [header.fin(), header.syn(), header.rst(), header.psh(), header.ack(), header.urg(), header.ece(), header.cwr()]
        .iter()
        .enumerate()
        .fold(0, |flags, (bit, set)| flags | u8::from(*set) << bit)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what}: flow says {ours:?}, etherparse {theirs:?}")) }
}
