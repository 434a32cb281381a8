//! What `flow` makes of headers, in a line each: every refusal, every kind, every link layer.

use flow::{
    Address, Fragment, Gso, ICMP, ICMPV6, Kind, LinkLayer, Packet, PacketBytes,
    ParseError::{self, *},
    Quoted, SCTP, TCP, UDP, parse, parse_link,
};

const A: [u8; 4] = [10, 1, 0, 2];
const B: [u8; 4] = [10, 2, 0, 7];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

#[test]
fn every_refusal_has_its_own_error() {
    let tag = |inner: u16, rest: &[u8]| [&[0, 7], &inner.to_be_bytes()[..], rest].concat();
    let cases: &[(ParseError, &str, Vec<u8>)] = &[
        (TruncatedLink, "no bytes", vec![]),
        (TruncatedLink, "an Ethernet header cut in its type", vec![0; 13]),
        (TruncatedLink, "a VLAN tag cut", eth(VLAN, &[0, 7, 8])),
        (TooManyVlanTags, "three tags", eth(QINQ, &tag(VLAN, &tag(VLAN, &tag(IPV4, &v4(UDP, &udp(1, 2))))))),
        (NotIp, "LLDP", eth(0x88cc, &[0; 40])),
        (NotIp, "MACsec", eth(0x88e5, &[0; 40])),
        (TruncatedIp, "an IPv4 header cut", eth(IPV4, &v4(UDP, &[])[..19])),
        (TruncatedIp, "an IPv6 header cut", eth(IPV6, &v6(UDP, &[])[..39])),
        (TruncatedIp, "an extension header cut", eth(IPV6, &v6(0, &[UDP, 0, 1, 4]))),
        (TruncatedIp, "an ARP packet cut", eth(ARP, &arp()[..27])),
        (BadIpHeader, "version 5", eth(IPV4, &with(v4(UDP, &udp(1, 2)), 0, 0x55))),
        (BadIpHeader, "IPv6 under IPv4's type", eth(IPV4, &v6(UDP, &udp(1, 2)))),
        (BadIpHeader, "a header of 16 bytes", eth(IPV4, &with(v4(UDP, &udp(1, 2)), 0, 0x44))),
        (BadIpHeader, "a total length below the header's", eth(IPV4, &with(v4(UDP, &udp(1, 2)), 3, 19))),
        (BadIpHeader, "ARP for another hardware", eth(ARP, &with(arp(), 1, 6))),
        (TooManyExtensionHeaders, "nine", eth(IPV6, &v6(0, &[[0, 0, 1, 4, 0, 0, 0, 0]; 9].concat()))),
        (TruncatedTransport, "a TCP header cut", eth(IPV4, &v4(TCP, &tcp(1, 2, 2)[..19]))),
        (TruncatedTransport, "a UDP header cut", eth(IPV6, &v6(UDP, &udp(1, 2)[..7]))),
        (TruncatedTransport, "SCTP without a chunk", eth(IPV4, &v4(SCTP, &[0; 12]))),
        (TruncatedTransport, "an ICMP header cut", eth(IPV4, &v4(ICMP, &[8, 0, 0, 0]))),
        (TruncatedTransport, "ports behind the end that IPv4 names", eth(IPV4, &with(v4(TCP, &tcp(1, 2, 2)), 3, 39))),
        (
            TruncatedTransport,
            "an error about half a header",
            eth(IPV4, &v4(ICMP, &[&[3; 8], &v4(UDP, &[])[..12]].concat())),
        ),
        (BadTransportHeader, "TCP with data at 16", eth(IPV4, &v4(TCP, &with(tcp(1, 2, 2), 12, 0x40)))),
        (HeadersTooLong, "UDP behind 128 bytes", eth(IPV6, &v6(0, &[&[UDP, 8][..], &[0; 70], &udp(1, 2)].concat()))),
        (BadFragment, "a piece over the ports", eth(IPV4, &piece(v4(UDP, &udp(1, 2)), 0x2001))),
        (BadFragment, "a piece over TCP's flags", eth(IPV4, &piece(v4(TCP, &tcp(1, 2, 2)), 2))),
    ];
    for (error, what, frame) in cases {
        assert_eq!(parse(frame.as_slice()), Err(*error), "{what}");
    }
    let met: std::collections::BTreeSet<_> = cases.iter().map(|(error, ..)| *error).collect();
    assert_eq!(met.len(), ParseError::ALL.len(), "each error has an example");
}

#[test]
fn every_kind_is_known_by_its_header() {
    let about = |quoted: Vec<u8>| [&[3, 3, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat();
    let too_big = [&[2, 0, 0, 0, 0, 0, 5, 0], v6(UDP, &udp(1, 2)).as_slice()].concat();
    let message = |kind: u8| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 16]].concat();
    for (kind, frame) in [
        (Kind::Transport, eth(IPV4, &v4(TCP, &tcp(1, 2, 2)))),
        (Kind::Transport, eth(IPV6, &v6(UDP, &udp(1, 2)))),
        (Kind::Transport, eth(IPV4, &v4(SCTP, &sctp(1, 2, 1)))),
        (Kind::Portless, eth(IPV4, &v4(47, &[0; 8]))),
        (Kind::Portless, eth(IPV4, &v4(51, &[TCP, 4, 0, 0]))),
        (Kind::Portless, eth(IPV4, &v4(ICMP, &[13, 0, 0, 0, 0, 0, 0, 0]))),
        (Kind::Portless, eth(IPV6, &v6(59, &[]))),
        (Kind::Echo, eth(IPV4, &v4(ICMP, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))),
        (Kind::Echo, eth(IPV6, &v6(ICMPV6, &[129, 0, 0, 0, 0x12, 0x34, 0, 1]))),
        (Kind::IcmpError, eth(IPV4, &v4(ICMP, &about(v4(UDP, &udp(1, 2)))))),
        (Kind::IcmpError, eth(IPV6, &v6(ICMPV6, &too_big))),
        (Kind::LaterFragment, eth(IPV4, &piece(v4(TCP, &[1, 2, 3]), 185))),
        (Kind::LaterFragment, eth(IPV6, &v6(44, &[UDP, 0, 0x05, 0xc8, 0, 0, 0, 9]))),
        (Kind::Arp, eth(ARP, &arp())),
        (Kind::Solicitation, eth(IPV6, &v6(ICMPV6, &message(135)))),
        (Kind::Advertisement, eth(IPV6, &v6(ICMPV6, &message(136)))),
        (Kind::RouterSolicitation, eth(IPV6, &v6(ICMPV6, &message(133)))),
        (Kind::RouterMessage, eth(IPV6, &v6(ICMPV6, &message(134)))),
        (Kind::RouterMessage, eth(IPV6, &v6(ICMPV6, &message(137)))),
        (Kind::ListenerReport, eth(IPV6, &v6(0, &[&[ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &message(143)].concat()))),
    ] {
        assert_eq!(read(&frame).kind, kind, "{frame:02x?}");
    }
}

#[test]
fn a_packet_says_who_speaks_to_whom() {
    let packet = read(&eth(IPV4, &v4(TCP, &tcp(40_000, 8080, 0x12))));
    assert_eq!((packet.key.source, packet.key.destination), (Address::v4(A), Address::v4(B)));
    assert_eq!((packet.key.source_port, packet.key.destination_port, packet.key.protocol), (40_000, 8080, TCP));
    assert_eq!((packet.tcp_flags, packet.hop_limit, packet.ip_length), (0x12, 64, 40));
    assert!(!packet.opens_connection(), "a SYN with ACK answers");
    assert!(read(&eth(IPV4, &v4(TCP, &tcp(1, 2, 0x02)))).opens_connection());
    assert!(read(&eth(IPV4, &v4(SCTP, &sctp(1, 2, 1)))).opens_connection());
    assert!(!read(&eth(IPV4, &v4(SCTP, &sctp(1, 2, 0)))).opens_connection());
    assert!(!read(&eth(IPV4, &v4(UDP, &udp(1, 2)))).opens_connection());
}

#[test]
fn an_echos_identifier_stands_as_both_ports() {
    let key = read(&eth(IPV4, &v4(ICMP, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))).key;
    assert_eq!((key.source_port, key.destination_port), (0x1234, 0x1234));
}

#[test]
fn an_error_names_the_packet_it_is_about_if_its_receiver_sent_that() {
    // From A to B, about what B sent to A.
    let mine = v4_between(B, A, UDP, &udp(40_000, 53));
    let about = |inner: &[u8]| read(&eth(IPV4, &v4(ICMP, &[&[3, 3, 0, 0, 0, 0, 0, 0], inner].concat()))).quoted;
    let quoted = about(&mine);
    assert_eq!((quoted.address, quoted.protocol), (Address::v4(A), UDP));
    assert_eq!((quoted.source_port, quoted.destination_port), (40_000, 53));
    assert_eq!(about(&v4_between([9, 9, 9, 9], A, UDP, &udp(40_000, 53))).protocol, 0, "about nothing of B's");
}

#[test]
fn the_packet_in_an_error_is_read_behind_options_and_extension_headers() {
    let about_v4 = |inner: &[u8]| read(&eth(IPV4, &v4(ICMP, &[&[3, 3, 0, 0, 0, 0, 0, 0], inner].concat()))).quoted;
    let about_v6 = |inner: &[u8]| parse(&eth(IPV6, &v6(ICMPV6, &[&[1; 8], inner].concat()))[..]);
    let found = |quoted: Quoted| (quoted.protocol, quoted.source_port, quoted.destination_port);
    let mut options = v4_between(B, A, UDP, &[&[1; 40][..], &udp(40_000, 53)].concat());
    options[0] = 0x4f;
    assert_eq!(found(about_v4(&options)), (UDP, 40_000, 53), "ten words of options");

    let (hop, atomic) = ([0, 0, 1, 4, 0, 0, 0, 0], |next| [next, 0, 0, 0, 0, 0, 0, 9]);
    let header = |next: u8, mut bytes: [u8; 8]| {
        bytes[0] = next;
        bytes
    };
    let first = [UDP, 0, 0, 1, 0, 0, 0, 9];
    let later = [UDP, 0, 0x05, 0xc9, 0, 0, 0, 9];
    for (what, inner, expected) in [
        ("a hop-by-hop header", v6(0, &[&header(UDP, hop)[..], &udp(40_000, 53)].concat()), (UDP, 40_000, 53)),
        ("routing", v6(43, &[&[TCP, 0, 0, 0, 0, 0, 0, 0][..], &tcp(1, 2, 2)].concat()), (TCP, 1, 2)),
        ("authentication", v6(51, &[&[TCP, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2][..], &tcp(1, 2, 2)].concat()), (TCP, 1, 2)),
        ("a first fragment", v6(44, &[&first[..], &udp(40_000, 53)].concat()), (UDP, 40_000, 53)),
        ("two", v6(0, &[&header(44, hop)[..], &atomic(UDP), &udp(40_000, 53)].concat()), (UDP, 40_000, 53)),
        (
            "an echo behind one",
            v6(60, &[&header(ICMPV6, hop)[..], &[128, 0, 0, 0, 0, 7, 0, 1]].concat()),
            (ICMPV6, 7, 7),
        ),
        ("a later fragment, without ports", v6(44, &[&later[..], &udp(40_000, 53)].concat()), (0, 0, 0)),
    ] {
        let packet = about_v6(&inner).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!((packet.kind, found(packet.quoted)), (Kind::IcmpError, expected), "{what}");
    }
    let too_long = v6(60, &[&[UDP, 2][..], &[0; 22], &udp(1, 2)].concat());
    assert_eq!(about_v6(&too_long), Err(HeadersTooLong));
    assert_eq!(about_v6(&v6(60, &[UDP, 0, 0, 0])), Err(TruncatedIp), "a header that is cut");
    let piece = |word| piece(v4_between(B, A, UDP, &udp(40_000, 53)), word);
    assert_eq!(found(about_v4(&piece(0x2000))), (UDP, 40_000, 53), "a first fragment");
    assert_eq!(found(about_v4(&piece(185))), (0, 0, 0), "a later fragment, whose bytes are no ports");
}

#[test]
fn pieces_of_a_datagram_share_a_key() {
    let first = read(&eth(IPV4, &piece(v4(UDP, &udp(1, 2)), 0x2000)));
    let later = read(&eth(IPV4, &piece(v4(UDP, &[0; 32]), 3)));
    assert_eq!((first.fragment, later.fragment), (Fragment::First, Fragment::Later));
    assert_eq!((first.key.source_port, later.key.source_port), (1, 0));
    assert_eq!(first.fragment_key(), later.fragment_key());
}

#[test]
fn what_lies_behind_the_end_that_ip_names_is_padding() {
    let padded = [v4(UDP, &udp(1, 2)), vec![0xff; 18]].concat();
    assert_eq!(read(&eth(IPV4, &padded)).ip_length, 28);
    assert_eq!(parse(eth(IPV4, &[v4(UDP, &[]), udp(1, 2)].concat()).as_slice()), Err(TruncatedTransport));
}

/// A frame that the kernel has yet to cut, with so many bytes of payload that are not in reach.
struct Uncut(Vec<u8>, u32);

impl PacketBytes for Uncut {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.as_slice().read(offset)
    }

    fn length(&self) -> u32 {
        self.0.len() as u32 + self.1
    }

    fn gso(&self) -> Gso {
        Gso::Yes
    }
}

/// A hop-by-hop header with a jumbo payload option and TCP behind it, in IPv6 without a length.
fn jumbogram(length: u32) -> Vec<u8> {
    let option = [&[TCP, 0, 0xc2, 4][..], &length.to_be_bytes()].concat();
    eth(IPV6, &with(v6(0, &[&option[..], &tcp(1, 2, 0x10)].concat()), 5, 0))
}

#[test]
fn what_is_yet_to_be_cut_has_the_length_that_it_has() {
    let without_length = with(with(v4(TCP, &tcp(1, 2, 0x10)), 2, 0), 3, 0);
    let tagged = [&[0, 7, 8, 0], &without_length[..]].concat();
    for (what, frame, ip_length, headers) in [
        ("IPv4", eth(IPV4, &without_length), 100_040, 40),
        ("IPv4 behind a tag", eth(VLAN, &tagged), 100_040, 40),
        // Each piece is without the option.
        ("IPv6 with the option", jumbogram(100_028), 100_060, 60),
        ("IPv6 with an option that lies", jumbogram(4_000_000_000), 100_060, 60),
        ("IPv6 without it", eth(IPV6, &with(v6(TCP, &tcp(1, 2, 0x10)), 5, 0)), 100_060, 60),
        ("one that its header can say", eth(IPV4, &v4(TCP, &tcp(1, 2, 0x10))), 40, 40),
    ] {
        let packet = parse(&Uncut(frame, 100_000)).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!((packet.ip_length, packet.headers), (ip_length, headers), "{what}");
        assert_eq!((packet.kind, packet.key.destination_port, packet.tcp_flags), (Kind::Transport, 2, 0x10), "{what}");
    }
}

#[test]
fn a_length_of_zero_means_nothing_else() {
    let zero = |packet: Vec<u8>| with(with(packet, 2, 0), 3, 0);
    let v4_tcp = eth(IPV4, &zero(v4(TCP, &tcp(1, 2, 0x10))));
    let v6_tcp = eth(IPV6, &with(v6(TCP, &tcp(1, 2, 0x10)), 5, 0));
    let padded = eth(IPV6, &with(v6(0, &[&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &tcp(1, 2, 0x10)].concat()), 5, 0));
    assert_eq!(parse(&v4_tcp[..]), Err(BadIpHeader), "one of the wire");
    assert_eq!(parse(&v6_tcp[..]), Err(TruncatedTransport), "one of the wire has nothing behind its header");
    assert_eq!(parse(&padded[..]), Err(TruncatedIp), "no option says another length");
    assert_eq!(parse(&jumbogram(65_535)[..]), Err(BadIpHeader), "an option that a length could say");
    assert_eq!(parse(&Uncut(jumbogram(65_535), 100_000)), Err(BadIpHeader));
    for (what, frame) in [("UDP", eth(IPV4, &zero(v4(UDP, &udp(1, 2))))), ("GRE", eth(IPV4, &zero(v4(47, &[0; 8]))))] {
        assert_eq!(parse(&Uncut(frame, 100_000)), Err(BadIpHeader), "{what} is not cut so late");
    }
    assert_eq!(read(&eth(IPV6, &v6(59, &[]))).ip_length, 40, "no next header");
    // A jumbogram of the wire has its length from its option, in a cut capture too.
    assert_eq!(read(&jumbogram(100_028)).ip_length, 100_068);
    // A capture has no word for it, but its frames are longer than any of the wire.
    let mut captured = v4_tcp;
    captured.resize(100_014, 7);
    assert_eq!(read(&captured).ip_length, 100_000);
}

#[test]
fn two_tags_and_options_are_walked() {
    let mut options = v4(UDP, &[&[1; 40][..], &udp(1, 2)].concat());
    options[0] = 0x4f;
    let tagged = [&[0x00, 7, 0x81, 0x00, 0, 8, 0x08, 0x00], options.as_slice()].concat();
    assert_eq!(read(&eth(QINQ, &tagged)).key.destination_port, 2);
}

#[test]
fn every_link_layer_leads_to_the_same_packet() {
    let ip = v4(TCP, &tcp(1, 2, 2));
    let wanted = read(&eth(IPV4, &ip));
    let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0][..], &ip].concat();
    let cooked_2 = [&[8, 0][..], &[0; 18], &ip].concat();
    assert_eq!(parse_link(LinkLayer::LinuxSll, cooked.as_slice()), Ok(wanted));
    assert_eq!(parse_link(LinkLayer::LinuxSll2, cooked_2.as_slice()), Ok(wanted));
    assert_eq!(parse_link(LinkLayer::RawIp, ip.as_slice()), Ok(wanted));
    assert_eq!(parse_link(LinkLayer::RawIp, &[][..]), Err(TruncatedIp));
    assert_eq!(parse_link(LinkLayer::RawIp, &[0x50; 40][..]), Err(BadIpHeader));
}

fn read(frame: &[u8]) -> Packet {
    parse(frame).unwrap_or_else(|error| panic!("{error:?}: {frame:02x?}"))
}

fn eth(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ethertype.to_be_bytes()[..], rest].concat()
}

fn v4(protocol: u8, rest: &[u8]) -> Vec<u8> {
    v4_between(A, B, protocol, rest)
}

fn v4_between(from: [u8; 4], to: [u8; 4], protocol: u8, rest: &[u8]) -> Vec<u8> {
    let length = (20 + rest.len()) as u8;
    [&[0x45, 0, 0, length, 0, 9, 0, 0, 64, protocol, 0, 0], &from[..], &to, rest].concat()
}

/// From and to `::`.
fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    [&[0x60, 0, 0, 0, 0, rest.len() as u8, next, 64], &[0; 32][..], rest].concat()
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    [&udp(from, to)[..4], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

fn sctp(from: u16, to: u16, chunk: u8) -> Vec<u8> {
    [&udp(from, to)[..4], &[0; 8], &[chunk, 0, 0, 4]].concat()
}

fn arp() -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1], &A[..], &[0; 6], &B].concat()
}

/// An IPv4 packet with this word of flags and offset.
fn piece(mut packet: Vec<u8>, word: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&word.to_be_bytes());
    packet
}

fn with(mut bytes: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    bytes[at] = byte;
    bytes
}
