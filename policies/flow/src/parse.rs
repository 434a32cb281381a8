//! Headers to a [`Packet`]: the one parser of the kernel program, of captures and of tests.
//!
//! Always holds: nothing behind [`HEADER_LIMIT`] bytes is read, nothing behind the end that the IP
//! header names, and every refusal has its own [`ParseError`].

use crate::{Address, FlowKey, ICMP, ICMPV6, SCTP, TCP, UDP};

/// How far into a packet headers are looked for, in bytes from the link-layer header on. The kernel
/// program pulls this much into the linear part; headers that reach further are an error for all.
pub const HEADER_LIMIT: usize = 128;
/// More extension headers than this are an error.
pub const MAX_EXTENSION_HEADERS: usize = 8;
/// More VLAN tags than this are an error.
pub const MAX_VLAN_TAGS: usize = 2;
/// A link-layer header and the longest IPv6 packet that is no jumbogram.
const LONGEST_FRAME: usize = 22 + 40 + u16::MAX as usize;
/// A later fragment that begins earlier than this (bytes) could overwrite the first one's transport
/// header (RFC 1858, RFC 3128); no sane sender makes one, the smallest IPv4 MTU carries 48.
pub const FIRST_LATER_FRAGMENT: u16 = 24;

/// TCP's flag bits (RFC 9293, 3.1).
#[allow(missing_docs)]
pub mod tcp {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// SCTP's INIT chunk type (RFC 9260, 3.2).
const SCTP_INIT: u8 = 1;

/// Where bytes come from: a slice in user space, an skb in the kernel.
pub trait PacketBytes {
    /// `N` bytes at `offset`, if the packet has them in reach.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// Length of the whole packet, link-layer header included: also where it stands for several (GSO).
    fn length(&self) -> u32;
    /// Whether the packet stands for several of the wire.
    fn gso(&self) -> Gso;
    /// The same number. The kernel program passes it through memory, so that the verifier forgets what
    /// it knew of it: the ways through the headers then meet again instead of multiplying.
    #[inline(always)]
    fn forget(&self, offset: u8) -> u8 {
        offset
    }
}

impl PacketBytes for [u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }

    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    /// A capture does not say it, but no frame of the wire is as long as these.
    fn gso(&self) -> Gso {
        if self.len() > LONGEST_FRAME { Gso::Yes } else { Gso::No }
    }
}

/// Whether a packet is one of the wire or stands for several that are cut out of it later (generic segmentation
/// offload). The kernel alone knows: no header says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Gso {
    /// It is one.
    No,
    /// It stands for several, and may be longer than an IP header can say (BIG TCP, Linux 5.19 and 6.3).
    Yes,
}

/// What comes before the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LinkLayer {
    /// Ethernet II, up to two VLAN tags.
    Ethernet,
    /// Linux cooked capture, 16 bytes (LINKTYPE_LINUX_SLL).
    LinuxSll,
    /// Linux cooked capture v2, 20 bytes (LINKTYPE_LINUX_SLL2).
    LinuxSll2,
    /// The IP header comes first (LINKTYPE_RAW, _IPV4, _IPV6).
    RawIp,
}

/// What kind of packet it is, as far as judging it differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A protocol without ports, other ICMP included.
    Portless = 0,
    /// TCP, UDP or SCTP with ports.
    Transport = 1,
    /// ICMP or ICMPv6 echo, request or reply; the identifier stands as both ports.
    Echo = 2,
    /// An ICMP or ICMPv6 error; [`Packet::quoted`] is the packet it is about.
    IcmpError = 3,
    /// A fragment that is not the first: it has no ports of its own.
    LaterFragment = 4,
    /// ARP; the key has its sender's and target's protocol addresses.
    Arp = 5,
    /// ICMPv6 neighbour solicitation; `quoted.address` is the target (RFC 4861, 4.3).
    Solicitation = 6,
    /// ICMPv6 neighbour advertisement; `quoted.address` is the target (RFC 4861, 4.4).
    Advertisement = 7,
    /// ICMPv6 router solicitation (RFC 4861, 4.1).
    RouterSolicitation = 8,
    /// Multicast listener discovery, version 1 or 2 (RFC 2710, RFC 3810).
    ListenerReport = 9,
    /// Router advertisement or redirect (RFC 4861, 4.2 and 4.5): no pod may send one.
    RouterMessage = 10,
}

/// Whether the packet is a piece of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// It is whole.
    Whole = 0,
    /// The first piece: it has the transport header.
    First = 1,
    /// A later piece.
    Later = 2,
}

/// What one packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The 5-tuple; ports 0 where there are none.
    pub key: FlowKey,
    /// What kind of packet.
    pub kind: Kind,
    /// TCP flags byte; 0 for other protocols.
    pub tcp_flags: u8,
    /// SCTP's first chunk type, ICMP's type, ARP's operation; 0 for other protocols.
    pub message: u8,
    /// IPv4 TTL, IPv6 hop limit.
    pub hop_limit: u8,
    /// Whether it is a piece.
    pub fragment: Fragment,
    /// IPv4 identification or IPv6 fragment identification; 0 for whole packets.
    pub fragment_id: u32,
    /// IP header and all behind it, in bytes, as the IP header says: right in a cut capture too. Of what stands
    /// for many (GSO) and is longer than the header can say, the length it has, without the option that says so.
    pub ip_length: u32,
    /// How much of that is headers, up to and with TCP's or UDP's: what each segment repeats where one
    /// packet stands for many (GSO). 0 for other protocols.
    pub headers: u32,
    /// What the message is about: see [`Quoted`].
    pub quoted: Quoted,
}

/// What an ICMP error or a neighbour message is about; zeros for all other packets.
///
/// An error goes to the sender of the packet inside it, so the inner source is the outer
/// destination; where it is not, the error is about nothing of the receiver's and the protocol here is 0. So it is
/// where the packet inside is a later fragment: it has no ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Destination of the packet inside an error; target of a neighbour message.
    pub address: Address,
    /// Source port of the packet inside.
    pub source_port: u16,
    /// Destination port of the packet inside.
    pub destination_port: u16,
    /// Its protocol; 0 when it is about no packet of the receiver's.
    pub protocol: u8,
}

impl Packet {
    /// Nothing parsed yet: all zeros.
    pub const EMPTY: Self = Self {
        key: FlowKey {
            source: Address([0; 2]),
            destination: Address([0; 2]),
            source_port: 0,
            destination_port: 0,
            protocol: 0,
        },
        kind: Kind::Portless,
        tcp_flags: 0,
        message: 0,
        hop_limit: 0,
        fragment: Fragment::Whole,
        fragment_id: 0,
        ip_length: 0,
        headers: 0,
        quoted: Quoted { address: Address([0; 2]), source_port: 0, destination_port: 0, protocol: 0 },
    };

    /// The packet that opens a connection: TCP's SYN without ACK, SCTP's INIT.
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        match self.key.protocol {
            TCP => self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN,
            SCTP => self.message == SCTP_INIT && matches!(self.kind, Kind::Transport),
            _ => false,
        }
    }

    /// What the pieces of one datagram share.
    #[inline(always)]
    pub fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            source: self.key.source,
            destination: self.key.destination,
            id: self.fragment_id,
            protocol: self.key.protocol,
        }
    }
}

/// What the pieces of one datagram share (RFC 791, 3.2; RFC 8200, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FragmentKey {
    /// Who sent them.
    pub source: Address,
    /// Whom they are for.
    pub destination: Address,
    /// The identification field.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
}

/// Why a packet has no meaning we vouch for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum ParseError {
    /// The link-layer header is cut.
    TruncatedLink = 0,
    /// More than [`MAX_VLAN_TAGS`].
    TooManyVlanTags,
    /// Neither IP nor ARP.
    NotIp,
    /// The IP header, an extension header or the ARP packet is cut.
    TruncatedIp,
    /// Wrong version, IPv4 header length below 20, total length below the header's, ARP not for IPv4 over Ethernet.
    BadIpHeader,
    /// More than [`MAX_EXTENSION_HEADERS`].
    TooManyExtensionHeaders,
    /// The transport header is cut, or ends behind the end the IP header names.
    TruncatedTransport,
    /// TCP data offset below 5.
    BadTransportHeader,
    /// Headers reach behind [`HEADER_LIMIT`].
    HeadersTooLong,
    /// A later fragment that begins before [`FIRST_LATER_FRAGMENT`].
    BadFragment,
}

impl ParseError {
    /// Every error, in order.
    pub const ALL: [Self; 10] = [
        Self::TruncatedLink,
        Self::TooManyVlanTags,
        Self::NotIp,
        Self::TruncatedIp,
        Self::BadIpHeader,
        Self::TooManyExtensionHeaders,
        Self::TruncatedTransport,
        Self::BadTransportHeader,
        Self::HeadersTooLong,
        Self::BadFragment,
    ];

    /// The error of a number that one of them has.
    #[inline(always)]
    const fn of(number: u8) -> Self {
        match number {
            0 => Self::TruncatedLink,
            1 => Self::TooManyVlanTags,
            2 => Self::NotIp,
            3 => Self::TruncatedIp,
            4 => Self::BadIpHeader,
            5 => Self::TooManyExtensionHeaders,
            6 => Self::TruncatedTransport,
            7 => Self::BadTransportHeader,
            8 => Self::HeadersTooLong,
            _ => Self::BadFragment,
        }
    }

    /// A stable name, for counters and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TruncatedLink => "truncated-link-header",
            Self::TooManyVlanTags => "too-many-vlan-tags",
            Self::NotIp => "not-ip",
            Self::TruncatedIp => "truncated-ip-header",
            Self::BadIpHeader => "bad-ip-header",
            Self::TooManyExtensionHeaders => "too-many-extension-headers",
            Self::TruncatedTransport => "truncated-transport-header",
            Self::BadTransportHeader => "bad-transport-header",
            Self::HeadersTooLong => "headers-too-long",
            Self::BadFragment => "bad-fragment",
        }
    }

    /// Whether more bytes in reach could change the answer (the kernel program then pulls once).
    #[inline(always)]
    pub const fn is_truncation(self) -> bool {
        matches!(self, Self::TruncatedLink | Self::TruncatedIp | Self::TruncatedTransport)
    }
}

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// An Ethernet frame, as the kernel program sees it.
pub fn parse<P: PacketBytes + ?Sized>(packet: &P) -> Result<Packet, ParseError> {
    parse_link(LinkLayer::Ethernet, packet)
}

/// A packet of any link layer a capture may have.
pub fn parse_link<P: PacketBytes + ?Sized>(link: LinkLayer, packet: &P) -> Result<Packet, ParseError> {
    let mut out = Packet::EMPTY;
    match link {
        LinkLayer::Ethernet => parse_into(packet, &mut out)?,
        LinkLayer::LinuxSll => network(packet, 14, &mut out)?,
        LinkLayer::LinuxSll2 => {
            let ethertype = u16::from_be_bytes(read(packet, 0, ParseError::TruncatedLink)?);
            tagged(packet, ethertype, 20, &mut out)?;
        }
        LinkLayer::RawIp => {
            let [first]: [u8; 1] = read(packet, 0, ParseError::TruncatedIp)?;
            match first >> 4 {
                4 => ipv4(packet, 0, &mut out)?,
                6 => ipv6(packet, 0, &mut out)?,
                _ => return Err(ParseError::BadIpHeader),
            }
        }
    }
    Ok(out)
}

/// [`parse`] into a packet that lies somewhere already: the kernel program has 512 bytes of stack for
/// everything. `out` is [`Packet::EMPTY`] before; after an error it holds what was read so far.
#[inline(always)]
pub fn parse_into<P: PacketBytes + ?Sized>(packet: &P, out: &mut Packet) -> Result<(), ParseError> {
    network(packet, 12, out)
}

/// Bytes within the limit that both sides keep.
#[inline(always)]
fn read<const N: usize, P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    cut: ParseError,
) -> Result<[u8; N], ParseError> {
    if offset > HEADER_LIMIT - N {
        return Err(ParseError::HeadersTooLong);
    }
    packet.read(offset).ok_or(cut)
}

/// Bytes that also lie before the end that the IP header names.
#[inline(always)]
fn read_before<const N: usize, P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    end: usize,
    cut: ParseError,
) -> Result<[u8; N], ParseError> {
    if offset + N > end {
        return Err(cut);
    }
    read(packet, offset, cut)
}

/// An offset as [`PacketBytes::forget`] passes it on; all behind the limit are one.
#[inline(always)]
fn forgotten<P: PacketBytes + ?Sized>(packet: &P, offset: usize) -> usize {
    packet.forget(offset.min(255) as u8).into()
}

/// The EtherType at `offset` and what follows it.
#[inline(always)]
fn network<P: PacketBytes + ?Sized>(packet: &P, offset: usize, out: &mut Packet) -> Result<(), ParseError> {
    let ethertype = u16::from_be_bytes(read(packet, offset, ParseError::TruncatedLink)?);
    tagged(packet, ethertype, offset + 2, out)
}

#[inline(always)]
fn tagged<P: PacketBytes + ?Sized>(
    packet: &P,
    ethertype: u16,
    offset: usize,
    out: &mut Packet,
) -> Result<(), ParseError> {
    let (mut ethertype, mut offset) = (ethertype, offset);
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ) {
            break;
        }
        ethertype = u16::from_be_bytes(read(packet, offset + 2, ParseError::TruncatedLink)?);
        offset += 4;
    }
    let offset = forgotten(packet, offset);
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, offset, out),
        ETHERTYPE_IPV6 => ipv6(packet, offset, out),
        ETHERTYPE_ARP => arp(packet, offset, out),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(ParseError::TooManyVlanTags),
        _ => Err(ParseError::NotIp),
    }
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[inline(always)]
fn arp<P: PacketBytes + ?Sized>(packet: &P, offset: usize, out: &mut Packet) -> Result<(), ParseError> {
    let h: [u8; 8] = read(packet, offset, ParseError::TruncatedIp)?;
    if h[0] != 0 || h[1] != 1 || h[2] != 8 || h[3] != 0 || h[4] != 6 || h[5] != 4 {
        return Err(ParseError::BadIpHeader);
    }
    out.key.source = Address::v4(read(packet, offset + 14, ParseError::TruncatedIp)?);
    out.key.destination = Address::v4(read(packet, offset + 24, ParseError::TruncatedIp)?);
    out.kind = Kind::Arp;
    out.message = h[7];
    out.ip_length = 28;
    Ok(())
}

#[inline(always)]
fn ipv4<P: PacketBytes + ?Sized>(packet: &P, at: usize, out: &mut Packet) -> Result<(), ParseError> {
    let h: [u8; 20] = read(packet, at, ParseError::TruncatedIp)?;
    let header_length = usize::from(h[0] & 0x0f) * 4;
    let mut ip_length = u32::from(u16::from_be_bytes([h[2], h[3]]));
    // What is longer than 65,535 bytes has no length in its header (Linux 6.3): TCP yet to be cut, and nothing else.
    if ip_length == 0 && h[9] == TCP && matches!(packet.gso(), Gso::Yes) {
        ip_length = packet.length().saturating_sub(at as u32);
    }
    if h[0] >> 4 != 4 || header_length < 20 || (ip_length as usize) < header_length {
        return Err(ParseError::BadIpHeader);
    }
    let word = u16::from_be_bytes([h[6], h[7]]);
    out.fragment = piece((word & 0x1fff) << 3, word & 0x2000 != 0)?;
    if !matches!(out.fragment, Fragment::Whole) {
        out.fragment_id = u16::from_be_bytes([h[4], h[5]]).into();
    }
    out.key.source = Address::v4([h[12], h[13], h[14], h[15]]);
    out.key.destination = Address::v4([h[16], h[17], h[18], h[19]]);
    out.key.protocol = h[9];
    out.hop_limit = h[8];
    out.ip_length = ip_length;
    transport(packet, at + header_length, at + ip_length as usize, out)
}

#[inline(always)]
fn ipv6<P: PacketBytes + ?Sized>(packet: &P, at: usize, out: &mut Packet) -> Result<(), ParseError> {
    let h: [u8; 8] = read(packet, at, ParseError::TruncatedIp)?;
    if h[0] >> 4 != 6 {
        return Err(ParseError::BadIpHeader);
    }
    out.key.source = Address::v6(read(packet, at + 8, ParseError::TruncatedIp)?);
    out.key.destination = Address::v6(read(packet, at + 24, ParseError::TruncatedIp)?);
    out.key.protocol = h[6];
    out.hop_limit = h[7];
    out.ip_length = u32::from(u16::from_be_bytes([h[4], h[5]])) + 40;
    let mut end = at + out.ip_length as usize;
    if out.ip_length == 40 {
        end = at + without_length(packet, at, out)? as usize;
    }
    let mut offset = at + 40;
    if is_extension(h[6]) {
        let walked = extension_headers(packet, offset, end, h[6])?;
        out.key.protocol = walked.protocol();
        out.fragment = walked.fragment();
        out.fragment_id = walked.fragment_id();
        offset = walked.offset();
    }
    transport(packet, offset, end, out)
}

/// The jumbo payload option (RFC 2675) where it is a hop-by-hop header's first: type, length.
const JUMBO: [u8; 2] = [0xc2, 4];

/// An IPv6 payload length of 0: nothing behind the header, unless it is a jumbogram, whose option says the
/// length, or TCP yet to be cut, which may have neither. Where the packet ends, from its IP header on.
#[inline(never)]
fn without_length<P: PacketBytes + ?Sized>(packet: &P, at: usize, out: &mut Packet) -> Result<u32, ParseError> {
    let gso = matches!(packet.gso(), Gso::Yes);
    let mut end = 40;
    if out.key.protocol == 0 {
        let h: [u8; 8] = read(packet, at + 40, ParseError::TruncatedIp)?;
        if [h[2], h[3]] != JUMBO {
            return Ok(end);
        }
        let length = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
        if length <= u32::from(u16::MAX) {
            return Err(ParseError::BadIpHeader);
        }
        (end, out.ip_length) = (length.saturating_add(40), length.saturating_add(40));
        if gso {
            // Linux puts this header before what it will cut (5.19) and takes it out of each piece again.
            end = packet.length().saturating_sub(at as u32);
            out.ip_length = end.saturating_sub(8);
        }
    } else if out.key.protocol == TCP && gso {
        end = packet.length().saturating_sub(at as u32);
        out.ip_length = end;
    }
    Ok(end)
}

#[inline(always)]
const fn piece(offset: u16, more: bool) -> Result<Fragment, ParseError> {
    match offset {
        0 if more => Ok(Fragment::First),
        0 => Ok(Fragment::Whole),
        1..FIRST_LATER_FRAGMENT => Err(ParseError::BadFragment),
        _ => Ok(Fragment::Later),
    }
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60)
}

/// What extension headers lead to, in one word, since functions of the kernel program return words: where it
/// begins (8 bits), its protocol (8), the kind of piece (8), the piece's identification (32).
#[derive(Clone, Copy)]
struct Walked(u64);

impl Walked {
    const fn offset(self) -> usize {
        self.0 as u8 as usize
    }

    const fn protocol(self) -> u8 {
        (self.0 >> 8) as u8
    }

    const fn fragment(self) -> Fragment {
        match (self.0 >> 16) as u8 {
            0 => Fragment::Whole,
            1 => Fragment::First,
            _ => Fragment::Later,
        }
    }

    const fn fragment_id(self) -> u32 {
        (self.0 >> 24) as u32
    }
}

/// What [`walk`] returns in place of an answer: an error, above every answer.
const REFUSED: u64 = 1 << 63;

/// What the extension headers at `offset` lead to, the first of which is a `first`.
#[inline(always)]
fn extension_headers<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    end: usize,
    first: u8,
) -> Result<Walked, ParseError> {
    let walked = walk(packet, offset, end, first);
    match walked & REFUSED {
        0 => Ok(Walked(walked)),
        _ => Err(ParseError::of(walked as u8)),
    }
}

/// Hop-by-hop options, routing, destination options, authentication and fragment headers
/// (RFC 8200, 4; RFC 4302). Rare, hence out of line, but not `#[cold]`: aya-obj links functions by offset
/// without their section, and a cold function lies in another one.
#[inline(never)]
fn walk<P: PacketBytes + ?Sized>(packet: &P, offset: usize, end: usize, first: u8) -> u64 {
    let refused = |error: ParseError| REFUSED | error as u64;
    let (mut offset, mut protocol, mut fragment, mut id) = (offset, first, Fragment::Whole, 0);
    for _ in 0..MAX_EXTENSION_HEADERS {
        // What lies behind a later fragment's header is the middle of something.
        if !is_extension(protocol) || matches!(fragment, Fragment::Later) {
            break;
        }
        offset = forgotten(packet, offset);
        let h: [u8; 8] = match read_before(packet, offset, end, ParseError::TruncatedIp) {
            Ok(h) => h,
            Err(error) => return refused(error),
        };
        let length = usize::from(h[1]);
        match protocol {
            44 => {
                let word = u16::from_be_bytes([h[2], h[3]]);
                match piece(word & 0xfff8, word & 1 != 0) {
                    Ok(Fragment::Whole) => {}
                    Ok(piece) => (fragment, id) = (piece, u32::from_be_bytes([h[4], h[5], h[6], h[7]])),
                    Err(error) => return refused(error),
                }
                offset += 8;
            }
            51 => offset += length * 4 + 8,
            _ => offset += length * 8 + 8,
        }
        protocol = h[0];
    }
    if is_extension(protocol) && !matches!(fragment, Fragment::Later) {
        return refused(ParseError::TooManyExtensionHeaders);
    }
    offset.min(255) as u64 | (protocol as u64) << 8 | (fragment as u64) << 16 | u64::from(id) << 24
}

/// The transport header at `offset`, of a packet that ends before `end`.
#[inline(never)]
fn transport<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    end: usize,
    out: &mut Packet,
) -> Result<(), ParseError> {
    if matches!(out.fragment, Fragment::Later) {
        out.kind = Kind::LaterFragment;
        return Ok(());
    }
    let cut = ParseError::TruncatedTransport;
    let offset = forgotten(packet, offset);
    match out.key.protocol {
        TCP => {
            let h: [u8; 20] = read_before(packet, offset, end, cut)?;
            if h[12] >> 4 < 5 {
                return Err(ParseError::BadTransportHeader);
            }
            ports(&[h[0], h[1], h[2], h[3]], out);
            out.tcp_flags = h[13];
            out.headers = headers(out.ip_length, end, offset + usize::from(h[12] >> 4) * 4);
        }
        UDP => {
            let h: [u8; 8] = read_before(packet, offset, end, cut)?;
            ports(&[h[0], h[1], h[2], h[3]], out);
            out.headers = headers(out.ip_length, end, offset + 8);
        }
        SCTP => {
            let h: [u8; 16] = read_before(packet, offset, end, cut)?;
            ports(&[h[0], h[1], h[2], h[3]], out);
            out.message = h[12];
        }
        ICMP | ICMPV6 => return icmp(packet, offset, end, out),
        _ => {}
    }
    Ok(())
}

/// The bytes before `payload` in a packet of this length that ends before `end`.
#[inline(always)]
const fn headers(ip_length: u32, end: usize, payload: usize) -> u32 {
    ip_length.saturating_sub((end as u32).saturating_sub(payload as u32))
}

#[inline(always)]
fn ports(h: &[u8; 4], out: &mut Packet) {
    out.kind = Kind::Transport;
    out.key.source_port = u16::from_be_bytes([h[0], h[1]]);
    out.key.destination_port = u16::from_be_bytes([h[2], h[3]]);
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443, RFC 4861): what the message is, and what it is about.
#[inline(never)]
fn icmp<P: PacketBytes + ?Sized>(packet: &P, offset: usize, end: usize, out: &mut Packet) -> Result<(), ParseError> {
    let cut = ParseError::TruncatedTransport;
    let h: [u8; 8] = read_before(packet, offset, end, cut)?;
    let body = offset + 8;
    out.message = h[0];
    out.kind = match (out.key.protocol, h[0]) {
        (ICMP, 0 | 8) | (ICMPV6, 128 | 129) => {
            let id = u16::from_be_bytes([h[4], h[5]]);
            out.key.source_port = id;
            out.key.destination_port = id;
            Kind::Echo
        }
        (ICMP, 3 | 4 | 11 | 12) => {
            let q: [u8; 20] = read_before(packet, body, end, cut)?;
            let header_length = usize::from(q[0] & 0x0f) * 4;
            if q[0] >> 4 != 4 || header_length < 20 {
                return Err(ParseError::BadIpHeader);
            }
            out.quoted.address = Address::v4([q[16], q[17], q[18], q[19]]);
            let source = Address::v4([q[12], q[13], q[14], q[15]]);
            let piece = piece(u16::from_be_bytes([q[6], q[7]]) << 3, false)?;
            quoted(packet, body + header_length, end, About { source, protocol: q[9], piece }, out)?;
            Kind::IcmpError
        }
        (ICMPV6, 1..=4) => {
            let q: [u8; 8] = read_before(packet, body, end, cut)?;
            if q[0] >> 4 != 6 {
                return Err(ParseError::BadIpHeader);
            }
            out.quoted.address = Address::v6(read_before(packet, body + 24, end, cut)?);
            let source = Address::v6(read_before(packet, body + 8, end, cut)?);
            let (mut about, mut behind) = (About { source, protocol: q[6], piece: Fragment::Whole }, body + 40);
            if is_extension(q[6]) {
                let walked = extension_headers(packet, behind, end, q[6])?;
                (about.protocol, about.piece, behind) = (walked.protocol(), walked.fragment(), walked.offset());
            }
            quoted(packet, behind, end, about, out)?;
            Kind::IcmpError
        }
        (ICMPV6, 135 | 136) => {
            out.quoted.address = Address::v6(read_before(packet, body, end, cut)?);
            if h[0] == 135 { Kind::Solicitation } else { Kind::Advertisement }
        }
        (ICMPV6, 133) => Kind::RouterSolicitation,
        (ICMPV6, 134 | 137) => Kind::RouterMessage,
        (ICMPV6, 130..=132 | 143) => Kind::ListenerReport,
        _ => Kind::Portless,
    };
    Ok(())
}

/// The packet inside an ICMP error.
struct About {
    source: Address,
    protocol: u8,
    piece: Fragment,
}

/// The ports (or echo identifier) at `offset` of the packet inside an ICMP error: its first eight bytes suffice.
/// A later fragment has none, and nothing leads from it to the connection it was of.
#[inline(always)]
fn quoted<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    end: usize,
    about: About,
    out: &mut Packet,
) -> Result<(), ParseError> {
    if about.source != out.key.destination || matches!(about.piece, Fragment::Later) {
        return Ok(());
    }
    let offset = forgotten(packet, offset);
    let h: [u8; 8] = read_before(packet, offset, end, ParseError::TruncatedTransport)?;
    out.quoted.protocol = about.protocol;
    match about.protocol {
        TCP | UDP | SCTP => {
            out.quoted.source_port = u16::from_be_bytes([h[0], h[1]]);
            out.quoted.destination_port = u16::from_be_bytes([h[2], h[3]]);
        }
        ICMP | ICMPV6 => {
            let id = u16::from_be_bytes([h[4], h[5]]);
            out.quoted.source_port = id;
            out.quoted.destination_port = id;
        }
        _ => {}
    }
    Ok(())
}
