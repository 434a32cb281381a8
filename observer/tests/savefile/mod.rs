//! Writes capture files of every form by hand, good ones and bad ones.

use etherparse::PacketBuilder;
use std::net::{Ipv4Addr, Ipv6Addr};

/// 2026-07-01T10:20:00Z in seconds.
pub(crate) const T0: u32 = 1_782_901_200;

/// Classic or next generation, and how finely it tells time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Micros,
    Nanos,
    MicrosBigEndian,
    NgMicros,
    NgNanos,
}

impl Format {
    pub(crate) const ALL: [Self; 5] = [Self::Micros, Self::Nanos, Self::MicrosBigEndian, Self::NgMicros, Self::NgNanos];
}

/// One packet of a capture.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    /// Nanoseconds after [`T0`].
    pub(crate) at: u64,
    /// Link-layer header and all.
    pub(crate) bytes: Vec<u8>,
    /// Length on the wire.
    pub(crate) length: u32,
}

/// A capture file.
pub(crate) fn file(format: Format, link_type: u32, packets: &[Captured]) -> Vec<u8> {
    match format {
        Format::Micros => classic(0xa1b2_c3d4, 1000, link_type, packets, u32::to_le_bytes),
        Format::Nanos => classic(0xa1b2_3c4d, 1, link_type, packets, u32::to_le_bytes),
        Format::MicrosBigEndian => classic(0xa1b2_c3d4, 1000, link_type, packets, u32::to_be_bytes),
        Format::NgMicros => next_generation(6, 1000, link_type, packets),
        Format::NgNanos => next_generation(9, 1, link_type, packets),
    }
}

fn classic(magic: u32, unit: u64, link_type: u32, packets: &[Captured], word: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let version = if word(1) == [1, 0, 0, 0] { 0x0004_0002 } else { 0x0002_0004 };
    let mut file: Vec<u8> = [magic, version, 0, 0, 262_144, link_type].map(word).concat();
    for packet in packets {
        let (seconds, rest) = (packet.at / 1_000_000_000, packet.at % 1_000_000_000 / unit);
        let captured = packet.bytes.len() as u32;
        file.extend([T0 + seconds as u32, rest as u32, captured, packet.length].map(word).concat());
        file.extend(&packet.bytes);
    }
    file
}

fn next_generation(resolution: u8, unit: u64, link_type: u32, packets: &[Captured]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let length = (12 + body.len()) as u32;
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), body, &length.to_le_bytes()].concat()
    };
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &1u32.to_le_bytes(), &(-1i64).to_le_bytes()].concat();
    // if_tsresol, then the end of the options.
    let options = [9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0];
    let interface = [&link_type.to_le_bytes()[..], &262_144u32.to_le_bytes(), &options].concat();
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for packet in packets {
        let time = (u64::from(T0) * 1_000_000_000 + packet.at) / unit;
        let words = [0, (time >> 32) as u32, time as u32, packet.bytes.len() as u32, packet.length];
        let mut body = words.map(u32::to_le_bytes).concat();
        body.extend(&packet.bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        file.extend(block(6, &body));
    }
    file
}

/// What comes before the IP header in a capture.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    Ethernet,
    Vlan,
    DoubleVlan,
    Sll,
    Sll2,
    Raw,
    RawOpenBsd,
    /// LINKTYPE_IPV4 or LINKTYPE_IPV6.
    Ip,
}

impl Link {
    pub(crate) const ALL: [Self; 8] =
        [Self::Ethernet, Self::Vlan, Self::DoubleVlan, Self::Sll, Self::Sll2, Self::Raw, Self::RawOpenBsd, Self::Ip];

    pub(crate) fn link_type(self, v6: bool) -> u32 {
        match self {
            Self::Ethernet | Self::Vlan | Self::DoubleVlan => 1,
            Self::Sll => 113,
            Self::Sll2 => 276,
            Self::Raw => 101,
            Self::RawOpenBsd => 14,
            Self::Ip => 228 + u32::from(v6),
        }
    }

    /// An IP packet with this link's header.
    pub(crate) fn frame(self, ip: &[u8]) -> Vec<u8> {
        let ethertype: &[u8] = if ip[0] >> 4 == 4 { &[0x08, 0x00] } else { &[0x86, 0xdd] };
        let header: Vec<u8> = match self {
            Self::Ethernet => [&[2; 12], ethertype].concat(),
            Self::Vlan => [&[2; 12], &[0x81, 0, 0, 5][..], ethertype].concat(),
            Self::DoubleVlan => [&[2; 12], &[0x88, 0xa8, 0, 6, 0x81, 0, 0, 5][..], ethertype].concat(),
            Self::Sll => [&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0][..], ethertype].concat(),
            Self::Sll2 => [ethertype, &[0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0]].concat(),
            Self::Raw | Self::RawOpenBsd | Self::Ip => Vec::new(),
        };
        [&header, ip].concat()
    }
}

/// One end of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

fn ip_builder(from: Host, to: Host) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (Host::V4(from), Host::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (Host::V6(from), Host::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one family"),
    }
}

/// A TCP packet from the IP header on.
pub(crate) fn tcp(from: (Host, u16), to: (Host, u16), flags: &str, payload: usize) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(from.1, to.1, 1, 1024);
    header.syn = flags.contains('S');
    header.ack = flags.contains('A');
    header.fin = flags.contains('F');
    header.rst = flags.contains('R');
    let mut bytes = Vec::new();
    ip_builder(from.0, to.0).tcp_header(header).write(&mut bytes, &vec![7; payload]).unwrap();
    bytes
}

/// A UDP packet from the IP header on.
pub(crate) fn udp(from: (Host, u16), to: (Host, u16), payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip_builder(from.0, to.0).udp(from.1, to.1).write(&mut bytes, &vec![7; payload]).unwrap();
    bytes
}

/// Packets from the IP header on, a millisecond and a nanosecond apart, with link-layer headers.
pub(crate) fn captured(link: Link, packets: &[Vec<u8>]) -> Vec<Captured> {
    let frame = |(index, ip): (usize, &Vec<u8>)| {
        let bytes = link.frame(ip);
        Captured { at: index as u64 * 1_000_001, length: bytes.len() as u32, bytes }
    };
    packets.iter().enumerate().map(frame).collect()
}
